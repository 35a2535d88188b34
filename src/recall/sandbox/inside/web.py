"""The child's side of network access: stand-ins for `requests` and `urllib.request` that ask the other side.

There is no socket here. A request becomes one JSON text for `ask`, which hands it out of the sandbox, and the answer
becomes what the real library would have returned or raised. What is not offered says so by name. Imported once, in the
zygote, so it is small, and it imports `urllib.parse` (half a megabyte with what that needs) only when a tool wants it.
"""

import json
import sys
from _thread import allocate_lock
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

USER_AGENT = "recall-sandbox/1"
"""What servers see where the tool says nothing else."""

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~")
_FROM_PARSE = ("quote", "quote_plus", "unquote", "unquote_plus", "urlencode", "urljoin", "urlparse", "urlsplit")


class NotOffered(AttributeError, NotImplementedError):  # noqa: N818  # a sentence, as tools read it
    """A part of a library that the sandbox has no stand-in for."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not offered in the sandbox")


class Failure(Exception):  # noqa: N818  # never seen by tools: each library has words of its own for it
    """No answer could be had."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        """As the broker says it: `refused`, `timeout`, `too_large`, `redirects`, `certificate`, …"""


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    url: str
    """Where it came from in the end."""
    history: list[tuple[int, str]]
    """Status and URL of each redirect on the way."""


class Exchange:
    """One request at a time through `ask`, whichever thread makes it."""

    def __init__(self, ask: Callable[[bytes], bytes], request_bytes: int) -> None:
        self._ask = ask
        self._request_bytes = request_bytes
        self._turn = allocate_lock()

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        timeout_s: float | None,
        follow: bool = True,
        decode: bool = True,
    ) -> Answer:
        """Have a request made.

        Args:
            method: in upper case.
            url: absolute.
            headers: by name; those that frame the request are ignored.
            body: None sends none.
            timeout_s: seconds for everything; None leaves it to the call's own time-out.
            follow: whether redirects are followed.
            decode: whether compression is asked for and undone.

        Raises:
            Failure: there is no answer.
        """
        packed = None if body is None else b2a_base64(body, newline=False).decode()
        question = json.dumps(
            {
                "method": method,
                "url": url,
                "headers": dict(headers),
                "body": packed,
                "timeout": timeout_s,
                "follow": follow,
                "decode": decode,
            }
        ).encode()
        if len(question) > self._request_bytes:
            raise Failure("malformed", f"the request is longer than {self._request_bytes} bytes")
        with self._turn:
            reply = json.loads(self._ask(question))
        if "error" in reply:
            raise Failure(reply.get("kind", "failed"), reply["error"])
        return Answer(
            reply["status"],
            reply["reason"],
            [(name, value) for name, value in reply["headers"]],
            a2b_base64(reply["body"]),
            reply["url"],
            [(status, url) for status, url in reply["history"]],
        )


def form(fields: Any) -> str:
    """`fields`, a mapping or pairs, as in a query or a form; lists give several, None gives none."""
    parts = []
    for name, values in fields.items() if hasattr(fields, "items") else fields:
        if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
            values = [values]
        parts += [f"{_quote(name)}={_quote(value)}" for value in values if value is not None]
    return "&".join(parts)


def _quote(value: object) -> str:
    data = value if isinstance(value, bytes) else str(value).encode()
    return "".join(chr(byte) if byte in _PLAIN else "+" if byte == 32 else f"%{byte:02X}" for byte in data)


def basic(user: str | bytes, password: str | bytes) -> str:
    """The value of an Authorization header."""
    pair = b":".join(part if isinstance(part, bytes) else part.encode("latin-1") for part in (user, password))
    return "Basic " + b2a_base64(pair, newline=False).decode()


def stand_in(name: str, contents: Mapping[str, Any], *, parse: bool = False) -> ModuleType:
    """A module of the name; with `parse`, one that has the common names of `urllib.parse` too."""
    module = ModuleType(name, "Stands in for the library of this name; requests leave the sandbox through a broker.")

    def lookup(attribute: str) -> Any:
        if parse and attribute in _FROM_PARSE:
            import urllib.parse

            return getattr(urllib.parse, attribute)
        if attribute.startswith("__"):
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
        raise NotOffered(f"{name}.{attribute}")

    module.__dict__.update(contents, __getattr__=lookup, __spec__=type(sys.__spec__)(name, None))
    return module


def install(ask: Callable[[bytes], bytes], *, request_bytes: int = 256 << 10) -> None:
    """Put the stand-ins where `import` finds them.

    Args:
        ask: hands a question out of the sandbox and waits for the answer; found at call time, from any thread, one
            call at a time.
        request_bytes: the longest question that may be handed out.
    """
    import urllib

    from . import web_requests, web_urllib

    exchange = Exchange(ask, request_bytes)
    modules = {**web_requests.modules(exchange), **web_urllib.modules(exchange)}
    sys.modules.update(modules)
    for name in ("request", "error"):
        setattr(urllib, name, modules[f"urllib.{name}"])
