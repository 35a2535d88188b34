"""The stand-in for `requests`: sessions, and requests of their own. It keeps no cookies."""

import json as json_module
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, ClassVar

from .web import USER_AGENT, Answer, Exchange, Failure, NotOffered, basic, form, stand_in
from .web_responses import ERRORS, CaseInsensitiveDict, InvalidJSONError, Response, SentRequest

_VERSION = "2.32.0"
_KINDS = {"timeout": "ReadTimeout", "redirects": "TooManyRedirects", "certificate": "SSLError"}
_CODES = {
    "continue": 100, "ok": 200, "created": 201, "accepted": 202, "no_content": 204, "partial_content": 206,
    "moved_permanently": 301, "found": 302, "see_other": 303, "not_modified": 304, "temporary_redirect": 307,
    "permanent_redirect": 308, "bad_request": 400, "unauthorized": 401, "forbidden": 403, "not_found": 404,
    "method_not_allowed": 405, "request_timeout": 408, "conflict": 409, "gone": 410, "unprocessable_entity": 422,
    "too_many_requests": 429, "internal_server_error": 500, "server_error": 500, "not_implemented": 501,
    "bad_gateway": 502, "service_unavailable": 503, "gateway_timeout": 504,
}  # fmt: skip


class HTTPBasicAuth:
    """A user name and a password."""

    def __init__(self, username: str | bytes, password: str | bytes) -> None:
        self.username, self.password = username, password


class _Codes:
    def __getattr__(self, name: str) -> int:
        if name.lower() not in _CODES:
            raise AttributeError(name)
        return _CODES[name.lower()]

    def __getitem__(self, name: str) -> int:
        return _CODES[name.lower()]


class Session:
    """Headers, parameters and a login that several requests share."""

    _exchange: ClassVar[Exchange]

    def __init__(self) -> None:
        self.headers = CaseInsensitiveDict(
            {"User-Agent": USER_AGENT, "Accept-Encoding": "gzip, deflate", "Accept": "*/*", "Connection": "keep-alive"}
        )
        self.params: Any = {}
        self.auth: Any = None
        self.verify: Any = True
        self.trust_env = True

    def __getattr__(self, name: str) -> Any:
        raise NotOffered(f"requests.Session.{name}")

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is open."""

    def get(self, url: Any, **options: Any) -> Response:
        """GET."""
        return self.request("GET", url, **options)

    def options(self, url: Any, **options: Any) -> Response:
        """OPTIONS."""
        return self.request("OPTIONS", url, **options)

    def head(self, url: Any, **options: Any) -> Response:
        """HEAD; follows no redirects unless told to."""
        return self.request("HEAD", url, **{"allow_redirects": False, **options})

    def post(self, url: Any, data: Any = None, json: Any = None, **options: Any) -> Response:
        """POST."""
        return self.request("POST", url, data=data, json=json, **options)

    def put(self, url: Any, data: Any = None, **options: Any) -> Response:
        """PUT."""
        return self.request("PUT", url, data=data, **options)

    def patch(self, url: Any, data: Any = None, **options: Any) -> Response:
        """PATCH."""
        return self.request("PATCH", url, data=data, **options)

    def delete(self, url: Any, **options: Any) -> Response:
        """DELETE."""
        return self.request("DELETE", url, **options)

    def request(
        self, method: Any, url: Any, params: Any = None, data: Any = None, headers: Any = None, cookies: Any = None,
        files: Any = None, auth: Any = None, timeout: Any = None, allow_redirects: bool = True, proxies: Any = None,
        hooks: Any = None, stream: Any = None, verify: Any = None, cert: Any = None, json: Any = None,
    ) -> Response:  # fmt: skip
        """Send a request. `stream` changes nothing, and certificates are verified whatever `verify` says."""
        for name, value in (("files", files), ("proxies", proxies), ("hooks", hooks), ("cert", cert)):
            if value:
                raise NotOffered(f"{name}= of requests")
        body, kind = _body(data, json)
        sent = CaseInsensitiveDict(self.headers)
        sent.update(headers or {})
        sent = CaseInsensitiveDict({name: _header(name, value) for name, value in sent.items() if value is not None})
        if kind is not None and "Content-Type" not in sent:
            sent["Content-Type"] = kind
        if cookies and "Cookie" not in sent:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in dict(cookies).items())
        if (login := auth or self.auth) is not None:
            sent["Authorization"] = _login(login)
        request = SentRequest(str(method).upper(), _url(url, _merged(self.params, params)), sent, body)
        return self._send(request, _seconds(timeout), allow_redirects)

    def _send(self, request: SentRequest, timeout_s: float | None, follow: bool) -> Response:
        began = time.monotonic()
        data = request.body.encode() if isinstance(request.body, str) else request.body
        try:
            answer = self._exchange.send(
                request.method, request.url, request.headers, data, timeout_s=timeout_s, follow=bool(follow)
            )
        except Failure as failure:
            error = ERRORS[_KINDS.get(failure.kind, "ConnectionError")]
            raise error(str(failure), request=request) from None
        response = Response(answer, request, time.monotonic() - began)
        response.history = [Response(Answer(status, "", [], b"", url, [])) for status, url in answer.history]
        return response


def _merged(ours: Any, theirs: Any) -> Any:
    if not ours or not (theirs is None or isinstance(theirs, Mapping)):
        return theirs
    return {name: value for name, value in {**ours, **(theirs or {})}.items() if value is not None}


def _url(url: Any, params: Any) -> str:
    text = (url.decode() if isinstance(url, bytes) else str(url)).lstrip()
    if ":" in text and not text.lower().startswith("http"):
        raise ERRORS["InvalidSchema"](f"No connection adapters were found for {text!r}")
    scheme, separator, rest = text.partition("://")
    if not separator:
        hint = f"No scheme supplied. Perhaps you meant https://{text}?"
        raise ERRORS["MissingSchema"](f"Invalid URL {text!r}: {hint}")
    if rest[:1] in ("", "/", "?", "#"):
        raise ERRORS["InvalidURL"](f"Invalid URL {text!r}: No host supplied")
    if scheme.lower() not in ("http", "https"):
        raise ERRORS["InvalidSchema"](f"No connection adapters were found for {text!r}")
    if isinstance(params, bytes):
        params = params.decode()
    query = params if isinstance(params, str) else form(params or {})
    text, hash_sign, fragment = text.partition("#")
    if query:
        before, mark, existing = text.partition("?")
        text = f"{before}?{existing}&{query}" if mark and existing else f"{before}?{query}"
    return text + hash_sign + fragment


def _body(data: Any, json: Any) -> tuple[Any, str | None]:
    """The body and the content type that goes with it."""
    if not data and json is not None:
        try:
            return json_module.dumps(json, allow_nan=False).encode(), "application/json"
        except ValueError as fault:
            raise InvalidJSONError(fault) from None
    if not data:
        return None, None
    if hasattr(data, "read"):
        data = data.read()
    if isinstance(data, str | bytes):
        return data, None
    if hasattr(data, "__next__"):
        raise NotOffered("a generator as data= of requests")
    return form(data), "application/x-www-form-urlencoded"


def _header(name: Any, value: Any) -> str:
    if not isinstance(value, str | bytes):
        raise ERRORS["InvalidHeader"](
            f"Header part ({value!r}) from ({name!r}, {value!r}) must be of type str or bytes, not {type(value)}"
        )
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if "\r" in text or "\n" in text or text[:1].isspace():
        raise ERRORS["InvalidHeader"](
            f"Invalid leading whitespace, reserved character(s), or return character(s) in header value: {value!r}"
        )
    return text


def _login(login: Any) -> str:
    if isinstance(login, HTTPBasicAuth):
        return basic(login.username, login.password)
    if isinstance(login, tuple | list) and len(login) == 2:
        return basic(*login)
    raise NotOffered("auth= of requests other than a name and a password")


def _seconds(timeout: Any) -> float | None:
    """One time for all, out of one number or of two for connecting and reading."""
    if isinstance(timeout, tuple | list):
        parts = [part for part in timeout if part is not None]
        return float(sum(parts)) if len(parts) == len(timeout) else None
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0):
        raise ValueError(f"Invalid timeout {timeout}: a time-out is a positive number of seconds")
    return None if timeout is None else float(timeout)


def modules(exchange: Exchange) -> dict[str, ModuleType]:
    """The stand-ins, by the name under which they are imported."""
    bound: type[Session] = type("Session", (Session,), {"_exchange": exchange, "__module__": "requests"})

    def one_off(method: str) -> Callable[..., Response]:
        def send(*positional: Any, **options: Any) -> Response:
            return getattr(bound(), method)(*positional, **options)  # type: ignore[no-any-return]

        send.__name__ = send.__qualname__ = method
        return send

    def get(url: Any, params: Any = None, **options: Any) -> Response:
        return bound().get(url, params=params, **options)

    verbs = {name: one_off(name) for name in ("request", "post", "put", "patch", "delete", "head", "options")}
    exceptions = stand_in("requests.exceptions", ERRORS)
    shared: tuple[str, ...] = (
        "RequestException",
        "HTTPError",
        "ConnectionError",
        "Timeout",
        "ConnectTimeout",
        "ReadTimeout",
    )
    shared += ("URLRequired", "TooManyRedirects", "JSONDecodeError")
    parts = {
        "exceptions": exceptions,
        "structures": stand_in("requests.structures", {"CaseInsensitiveDict": CaseInsensitiveDict}),
        "auth": stand_in("requests.auth", {"HTTPBasicAuth": HTTPBasicAuth}),
        "utils": stand_in("requests.utils", {}, parse=True),
        "compat": stand_in("requests.compat", {"json": json_module}, parse=True),
    }
    top = {
        **verbs, **parts, **{name: ERRORS[name] for name in shared},
        "get": get, "Session": bound, "session": bound, "Response": Response, "codes": _Codes(),
        "__version__": _VERSION, "__path__": [],
    }  # fmt: skip
    return {
        "requests": stand_in("requests", top),
        **{f"requests.{name}": part for name, part in parts.items()},
    }
