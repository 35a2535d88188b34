"""The stand-in for `urllib.request` and `urllib.error`; `urllib.parse` is the real one. It knows no handlers."""

import io
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from .web import USER_AGENT, Answer, Exchange, Failure, NotOffered, stand_in


class Headers:
    """The headers of a response: found in any case, several of one name kept."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs

    def get_all(self, name: str, failobj: Any = None) -> Any:
        """Every value of `name`; `failobj` where there is none."""
        return [value for key, value in self._pairs if key.lower() == name.lower()] or failobj

    def get(self, name: str, failobj: Any = None) -> Any:
        """The first value of `name`; `failobj` where there is none."""
        return next((value for key, value in self._pairs if key.lower() == name.lower()), failobj)

    def __getitem__(self, name: str) -> Any:
        return self.get(name)

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self._pairs)

    def __str__(self) -> str:
        return "".join(f"{name}: {value}\n" for name, value in self._pairs) + "\n"

    def keys(self) -> list[str]:
        """Every name, in order."""
        return [name for name, _ in self._pairs]

    def values(self) -> list[str]:
        """Every value, in order."""
        return [value for _, value in self._pairs]

    def items(self) -> list[tuple[str, str]]:
        """Every name with its value, in order."""
        return list(self._pairs)

    def get_content_type(self) -> str:
        """Such as `text/html`, in lower case; `text/plain` where there is none."""
        kind = str(self.get("content-type", "")).partition(";")[0].strip().lower()
        return kind if kind.count("/") == 1 else "text/plain"

    def get_content_charset(self, failobj: Any = None) -> Any:
        """The charset, in lower case; `failobj` where there is none."""
        for option in str(self.get("content-type", "")).split(";")[1:]:
            name, _, value = option.partition("=")
            if name.strip().lower() == "charset":
                return value.strip().strip("'\"").lower()
        return failobj


class URLError(OSError):
    """No answer could be had."""

    def __init__(self, reason: Any, filename: Any = None) -> None:
        self.args = (reason,)
        self.reason = reason
        if filename is not None:
            self.filename = filename

    def __str__(self) -> str:
        return f"<urlopen error {self.reason}>"


class _Body(io.BytesIO):
    """A body with what the server said about it."""

    url: str
    status: int
    headers: Headers
    reason: str

    def describe(self, answer: Answer) -> None:
        self.url, self.status, self.reason = answer.url, answer.status, answer.reason
        self.headers = Headers(answer.headers)

    @property
    def code(self) -> int:
        return self.status

    @property
    def msg(self) -> str:
        return self.reason

    def getcode(self) -> int:
        return self.status

    def geturl(self) -> str:
        return self.url

    def info(self) -> Headers:
        return self.headers

    def getheader(self, name: str, default: Any = None) -> Any:
        values = self.headers.get_all(name)
        return ", ".join(values) if values else default

    def getheaders(self) -> list[tuple[str, str]]:
        return self.headers.items()


class HTTPError(URLError):
    """A response whose status is not 2xx; it can be read like one."""

    def __init__(self, url: str, code: int, msg: str, hdrs: Any, fp: Any) -> None:
        super().__init__(msg)
        self.code, self.msg, self.hdrs, self.fp, self.filename = code, msg, hdrs, fp, url
        self.status, self.reason, self.headers, self.url = code, msg, hdrs, url

    def __str__(self) -> str:
        return f"HTTP Error {self.code}: {self.msg}"

    def __repr__(self) -> str:
        return f"<HTTPError {self.code}: {self.msg!r}>"

    def __getattr__(self, name: str) -> Any:
        if (
            name in ("read", "readline", "readlines", "close", "closed", "getheader", "getheaders")
            and self.fp is not None
        ):
            return getattr(self.fp, name)
        raise AttributeError(name)

    def __enter__(self) -> "HTTPError":
        return self

    def __exit__(self, *fault: object) -> None:
        if self.fp is not None:
            self.fp.close()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.fp)

    def getcode(self) -> int:
        """The status."""
        return self.code

    def geturl(self) -> str:
        """The URL that answered."""
        return self.url

    def info(self) -> Any:
        """The headers."""
        return self.hdrs


class Request:
    """A request that can be opened."""

    def __init__(
        self,
        url: str,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        origin_req_host: str | None = None,
        unverifiable: bool = False,
        method: str | None = None,
    ) -> None:
        self.full_url = url.strip().strip("<>")
        plain, _, fragment = self.full_url.partition("#")
        self.fragment = fragment or None
        scheme, colon, rest = plain.partition(":")
        if not colon or not scheme.replace("+", "").replace("-", "").replace(".", "").isalnum():
            raise ValueError(f"unknown url type: {self.full_url!r}")
        self.type = scheme.lower()
        authority = rest[2:] if rest.startswith("//") else ""
        end = min((place for place in map(authority.find, "/?#") if place >= 0), default=len(authority))
        self.host, self.selector = authority[:end], authority[end:] or "/"
        self.data = data
        self.headers: dict[str, str] = {}
        for name, value in (headers or {}).items():
            self.add_header(name, value)
        self.origin_req_host, self.unverifiable = origin_req_host or self.host, unverifiable
        if method:
            self.method = method

    def get_method(self) -> str:
        """The method: POST where there is data, unless another was named."""
        return getattr(self, "method", "GET" if self.data is None else "POST")

    def get_full_url(self) -> str:
        """The URL."""
        return self.full_url

    def add_header(self, key: str, val: str) -> None:
        """Set a header."""
        self.headers[key.capitalize()] = val

    add_unredirected_header = add_header

    def has_header(self, header_name: str) -> bool:
        """Whether the header, spelled `Like-this`, is set."""
        return header_name in self.headers

    def get_header(self, header_name: str, default: Any = None) -> Any:
        """The header, spelled `Like-this`."""
        return self.headers.get(header_name, default)

    def remove_header(self, header_name: str) -> None:
        """Unset a header."""
        self.headers.pop(header_name, None)

    def header_items(self) -> list[tuple[str, str]]:
        """Every header."""
        return list(self.headers.items())


class OpenerDirector:
    """Opens requests, with headers of its own."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.addheaders = [("User-agent", USER_AGENT)]

    def __getattr__(self, name: str) -> Any:
        raise NotOffered(f"urllib.request.OpenerDirector.{name}")

    def open(self, fullurl: Any, data: Any = None, timeout: float | None = None) -> Any:
        """Send a request.

        Raises:
            HTTPError: the server's status is not 2xx.
            URLError: there is no answer.
            TimeoutError: not in time.
        """
        request = Request(fullurl) if isinstance(fullurl, str) else fullurl
        if data is not None:
            request.data = data
        if request.type not in ("http", "https"):
            raise URLError(f"unknown url type: {request.type}")
        if not request.host:
            raise URLError("no host given")
        body = _bytes(request.data)
        headers = {name.title(): str(value) for name, value in self.addheaders}
        headers |= {name.title(): str(value) for name, value in request.headers.items()}
        if body is not None:
            headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        headers.setdefault("Accept-Encoding", "identity")
        if timeout is not None and timeout <= 0:
            raise ValueError("Attempted to set connect timeout to <= 0, but the timeout cannot be set to this value")
        try:
            answer = self._exchange.send(
                request.get_method(), request.full_url, headers, body, timeout_s=timeout, decode=False
            )
        except Failure as failure:
            if failure.kind == "timeout":
                raise TimeoutError(str(failure)) from None
            raise URLError(str(failure)) from None
        response = _Body(answer.body)
        response.describe(answer)
        if not 200 <= answer.status < 300:
            raise HTTPError(answer.url, answer.status, answer.reason, response.headers, response)
        return response


def _bytes(data: Any) -> bytes | None:
    if data is None or isinstance(data, bytes):
        return data
    if isinstance(data, str):
        kinds = "bytes, an iterable of bytes, or a file object"
        raise TypeError(f"POST data should be {kinds}. It cannot be of type str.")
    if hasattr(data, "read"):
        data = data.read()
        return data.encode("latin-1") if isinstance(data, str) else bytes(data)
    return bytes(data) if isinstance(data, bytearray | memoryview) else b"".join(data)


class _Library:
    """What `urllib.request` remembers: the opener that `urlopen` uses."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._opener = OpenerDirector(exchange)

    def urlopen(
        self,
        url: Any,
        data: Any = None,
        timeout: float | None = None,
        *,
        cafile: Any = None,
        capath: Any = None,
        cadefault: bool = False,
        context: Any = None,
    ) -> Any:
        """Open a URL or a `Request`. Certificates are verified whatever `context` says."""
        if cafile or capath:
            raise NotOffered("cafile= and capath= of urllib.request.urlopen")
        return self._opener.open(url, data, timeout)

    def build_opener(self, *handlers: Any) -> OpenerDirector:
        """A fresh opener, without handlers."""
        if handlers:
            raise NotOffered("a handler of urllib.request.build_opener")
        return OpenerDirector(self._exchange)

    def install_opener(self, opener: OpenerDirector) -> None:
        """Make `urlopen` use `opener`."""
        self._opener = opener


def modules(exchange: Exchange) -> dict[str, ModuleType]:
    """The stand-ins, by the name under which they are imported."""
    for error in (URLError, HTTPError):
        error.__module__ = "urllib.error"
    library = _Library(exchange)
    contents = {
        "urlopen": library.urlopen,
        "build_opener": library.build_opener,
        "install_opener": library.install_opener,
        "Request": Request,
        "OpenerDirector": OpenerDirector,
        "HTTPError": HTTPError,
        "URLError": URLError,
    }
    return {
        "urllib.request": stand_in("urllib.request", contents, parse=True),
        "urllib.error": stand_in("urllib.error", {"HTTPError": HTTPError, "URLError": URLError}),
    }
