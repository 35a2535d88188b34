"""The operations of an HTTP API as tools, from its OpenAPI document (3.0 and 3.1)."""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from recall.errors import ConfigError
from recall.sandbox.base import CallResult
from recall.tools.base import Marks, Tool, Toolbox
from recall.tools.schemas import inlined
from recall.types import CallStatus, ToolSpec

if TYPE_CHECKING:
    import aiohttp

_METHODS = ("get", "head", "put", "delete", "post", "patch", "options")
_IDEMPOTENT = frozenset({"get", "head", "put", "delete", "options"})
"""Methods that HTTP itself calls idempotent (RFC 9110, 9.2.2)."""
_BUSY = frozenset({429, 502, 503, 504})
_MOST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class _Operation:
    """How a tool's arguments become a request."""

    method: str
    path: str
    places: Mapping[str, str]
    """By argument: path, query, header, or body for a field of the body."""
    body: str
    """The argument that is the whole body; empty where there is none."""


class OpenAPITools:
    """The operations of an API; implements `recall.tools.base.ToolSource`.

    Parameters, and the fields of a JSON body, are the arguments of a tool. What the model writes stays within the
    operation's address: it is escaped, and redirects are not followed.
    """

    def __init__(
        self,
        document: Path | str | Mapping[str, Any],
        *,
        base_url: str = "",
        headers: Mapping[str, str] | None = None,
        only: Sequence[str] = (),
    ) -> None:
        """Read the document.

        Args:
            document: its path (JSON, or YAML where PyYAML is installed), or what it holds.
            base_url: in the place of the document's first server.
            headers: of every request, such as `{"authorization": "Bearer …"}`.
            only: the names of the operations that are offered; all without it.

        Raises:
            ConfigError: it cannot be read, names no server, or has no operation that can be offered.
        """
        where = "OpenAPI document" if isinstance(document, Mapping) else str(document)
        held = document if isinstance(document, Mapping) else _read(Path(document))
        servers = held.get("servers") or [{}]
        self._url = (base_url or str(servers[0].get("url", ""))).rstrip("/")
        if not self._url.startswith(("http://", "https://")):
            raise ConfigError(f"{where}: servers: {self._url!r} is no address; give base_url")
        self._headers = dict(headers or {})
        self._operations: dict[str, _Operation] = {}
        tools = []
        for path, method, operation, shared in _operations(held, where):
            spec, how = _tool(path, method, operation, shared, held)
            if only and spec.name not in only:
                continue
            if spec.name in self._operations:
                raise ConfigError(f"{where}: two operations are named {spec.name!r}")
            self._operations[spec.name] = how
            tools.append(Tool(spec, Marks(idempotent=method in _IDEMPOTENT)))
        if missing := [name for name in only if name not in self._operations]:
            raise ConfigError(f"{where}: has no operation {missing[0]!r}")
        if not tools:
            raise ConfigError(f"{where}: has no operations")
        self.tools = tuple(tools)
        """What is offered."""
        self._http: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> Toolbox:
        """The operations; episodes share the connections."""
        return Toolbox(self.tools, _APISession(self))

    async def close(self) -> None:
        """Close the connections. Safe to call twice."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    async def call(self, name: str, arguments: Mapping[str, Any], timeout_s: float | None) -> CallResult:
        """Make the request of an operation."""
        import aiohttp

        how = self._operations.get(name)
        if how is None:
            return CallResult(CallStatus.UNKNOWN_TOOL, error=f"there is no tool {name!r}")
        path = how.path
        for argument in (argument for argument, place in how.places.items() if place == "path"):
            text = _text(arguments.get(argument, ""))
            if text in ("", ".", ".."):
                return CallResult(CallStatus.BAD_ARGUMENTS, error=f"argument {argument!r}: must be a name")
            path = path.replace(f"{{{argument}}}", quote(text, safe=""))
        placed: dict[str, dict[str, Any]] = {"query": {}, "header": {}, "body": {}}
        for argument, value in arguments.items():
            if how.places.get(argument) in placed and argument != how.body:
                placed[how.places[argument]][argument] = value
        body = arguments.get(how.body) if how.body else placed["body"] or None
        query = [(key, _text(item)) for key, value in placed["query"].items() for item in _items(value)]
        headers = {key: _text(value) for key, value in placed["header"].items()}
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session().request(
                    how.method.upper(),
                    _address(self._url + path, query),
                    json=body,
                    headers=headers,
                    allow_redirects=False,
                ) as response,
            ):
                return await _result(response)
        except TimeoutError:
            return CallResult(CallStatus.TIMEOUT, error=f"the call took longer than {timeout_s or 0:g} s")
        except aiohttp.ClientError as error:
            return CallResult(
                CallStatus.CRASHED, error=f"the server cannot be reached: {type(error).__name__}: {error}"
            )

    def _session(self) -> "aiohttp.ClientSession":
        import aiohttp

        loop = asyncio.get_running_loop()
        if self._http is None or self._loop is not loop:
            self._loop = loop
            self._http = aiohttp.ClientSession(headers=self._headers, cookie_jar=aiohttp.DummyCookieJar())
        return self._http


class _APISession:
    """The session of one episode."""

    def __init__(self, api: OpenAPITools) -> None:
        self._api = api

    async def call(self, name: str, arguments: Mapping[str, Any], *, timeout_s: float | None = None) -> CallResult:
        """Call an operation; see `recall.sandbox.base.Session.call`."""
        return await self._api.call(name, arguments, timeout_s)

    async def close(self) -> None:
        """Connections are shared."""


async def _result(response: "aiohttp.ClientResponse") -> CallResult:
    data = await response.content.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        return CallResult(CallStatus.OVER_LIMIT, error=f"the answer is larger than {_MOST_BYTES >> 20} MiB")
    text = data.decode("utf-8", "replace")
    if response.status >= 300:
        status = CallStatus.CRASHED if response.status in _BUSY else CallStatus.EXCEPTION
        return CallResult(status, error=f"status {response.status}: {text}")
    try:
        return CallResult(CallStatus.OK, json.loads(text))
    except ValueError:
        return CallResult(CallStatus.OK, text)


def _address(url: str, query: Sequence[tuple[str, str]]) -> Any:
    """The address with its query, escaped here once and for all."""
    from yarl import URL

    pairs = "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in query)
    return URL(f"{url}?{pairs}" if pairs else url, encoded=True)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    held: Any = None
    if path.suffix in (".yaml", ".yml"):
        import yaml

        try:
            held = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    else:
        try:
            held = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"{path}: is not JSON: {error}") from None
    if not isinstance(held, dict):
        raise ConfigError(f"{path}: is no OpenAPI document")
    return held


def _operations(held: Mapping[str, Any], where: str) -> list[tuple[str, str, Mapping[str, Any], list[Any]]]:
    """Path, method, operation, and the parameters that its path brings."""
    paths = held.get("paths")
    if not isinstance(paths, dict):
        raise ConfigError(f"{where}: paths: missing")
    return [
        (path, method, item[method], item.get("parameters") or [])
        for path, item in paths.items()
        if isinstance(item, dict)
        for method in _METHODS
        if isinstance(item.get(method), dict)
    ]


def _tool(
    path: str, method: str, operation: Mapping[str, Any], shared: Sequence[Any], held: Mapping[str, Any]
) -> tuple[ToolSpec, _Operation]:
    components = held.get("components") or {}
    properties: dict[str, Any] = {}
    required: list[str] = []
    places: dict[str, str] = {}
    for given in [*shared, *(operation.get("parameters") or [])]:
        parameter = _referred(given, components.get("parameters") or {})
        name, place = parameter.get("name"), parameter.get("in")
        if not isinstance(name, str) or place not in ("path", "query", "header"):
            continue
        schema = dict(_modern(parameter.get("schema") or {}))
        if parameter.get("description"):
            schema["description"] = parameter["description"]
        properties[name], places[name] = schema, str(place)
        if parameter.get("required") or place == "path":
            required.append(name)
    body = _referred(operation.get("requestBody") or {}, components.get("requestBodies") or {})
    whole = _body(body, properties, required, places, components.get("schemas") or {})
    definitions = {name: _modern(schema) for name, schema in (components.get("schemas") or {}).items()}
    schema = {"type": "object", "properties": properties, "required": list(dict.fromkeys(required))}
    found, kept = inlined(schema, definitions)
    if kept:
        found["$defs"] = kept
    name = operation.get("operationId") or f"{method}{path}"
    said = "\n\n".join(str(operation[key]) for key in ("summary", "description") if operation.get(key))
    name = re.sub(r"\W+", "_", str(name)).strip("_")
    return ToolSpec(name, said or f"{method.upper()} {path}", found), _Operation(method, path, places, whole)


def _body(
    body: Mapping[str, Any],
    properties: dict[str, Any],
    required: list[str],
    places: dict[str, str],
    schemas: Mapping[str, Any],
) -> str:
    """Add the arguments of a JSON body; the name of the one that is the whole body, where its fields cannot be."""
    media = (body.get("content") or {}).get("application/json")
    if not isinstance(media, dict):
        return ""
    schema = _modern(_referred(media.get("schema") or {}, schemas))
    fields = schema.get("properties")
    if schema.get("type", "object") == "object" and isinstance(fields, dict) and not fields.keys() & properties.keys():
        properties.update(fields)
        places.update(dict.fromkeys(fields, "body"))
        if body.get("required"):
            required += [name for name in schema.get("required") or () if name in fields]
        return ""
    name = "body" if "body" not in properties else "request_body"
    properties[name], places[name] = schema, "body"
    if body.get("required"):
        required.append(name)
    return name


def _referred(value: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = value.get("$ref")
    found = definitions.get(reference.rpartition("/")[2]) if isinstance(reference, str) else value
    return found if isinstance(found, dict) else {}


def _modern(schema: Any) -> Any:
    """A schema of OpenAPI 3.0 in the words of JSON Schema."""
    if isinstance(schema, list):
        return [_modern(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _modern(value) for key, value in schema.items() if key not in ("nullable", "example", "xml")}
    for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if plain.get(bound) is True:
            plain[bound] = plain.pop(limit, 0)
        elif plain.get(bound) is False:
            del plain[bound]
    if schema.get("nullable") is True and isinstance(plain.get("type"), str):
        plain["type"] = [plain["type"], "null"]
    return plain


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
