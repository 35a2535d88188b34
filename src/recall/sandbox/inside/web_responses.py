"""What the stand-in for `requests` returns and raises: responses, and the library's errors by name."""

import json as json_module
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

from .web import Answer, NotOffered


class RequestException(OSError):  # noqa: N818  # the library's name
    """The root of the library's errors."""

    def __init__(self, *args: Any, response: Any = None, request: Any = None) -> None:
        self.response = response
        self.request = request if request is not None else getattr(response, "request", None)
        super().__init__(*args)


class InvalidJSONError(RequestException):
    """A body that is no JSON."""


class JSONDecodeError(InvalidJSONError, json_module.JSONDecodeError):
    """A response that is no JSON."""

    def __init__(self, *args: Any) -> None:
        json_module.JSONDecodeError.__init__(self, *args)
        InvalidJSONError.__init__(self, *self.args)

    def __reduce__(self) -> Any:
        return json_module.JSONDecodeError.__reduce__(self)


def _errors() -> dict[str, Any]:
    """The library's errors by name; made from a table, since some bear the names of builtins."""
    made: dict[str, Any] = {
        "RequestException": RequestException,
        "InvalidJSONError": InvalidJSONError,
        "JSONDecodeError": JSONDecodeError,
    }
    for name, *bases in (
        ("HTTPError", RequestException),
        ("ConnectionError", RequestException),
        ("ProxyError", "ConnectionError"),
        ("SSLError", "ConnectionError"),
        ("Timeout", RequestException),
        ("ConnectTimeout", "ConnectionError", "Timeout"),
        ("ReadTimeout", "Timeout"),
        ("URLRequired", RequestException),
        ("TooManyRedirects", RequestException),
        ("MissingSchema", RequestException, ValueError),
        ("InvalidSchema", RequestException, ValueError),
        ("InvalidURL", RequestException, ValueError),
        ("InvalidHeader", RequestException, ValueError),
        ("ChunkedEncodingError", RequestException),
        ("ContentDecodingError", RequestException),
        ("StreamConsumedError", RequestException, TypeError),
        ("RetryError", RequestException),
    ):
        found = tuple(made[base] if isinstance(base, str) else base for base in bases)
        made[name] = type(name, found, {})
    for error in made.values():
        error.__module__ = "requests.exceptions"
    return made


ERRORS = _errors()
"""Every error of `requests.exceptions` by its name."""


class CaseInsensitiveDict(MutableMapping[str, Any]):
    """A dictionary whose keys keep their case, and are found in any."""

    def __init__(self, data: Any = None, **more: Any) -> None:
        self._store: dict[str, tuple[str, Any]] = {}
        self.update({} if data is None else data, **more)

    def __setitem__(self, key: str, value: Any) -> None:
        self._store[key.lower()] = (key, value)

    def __getitem__(self, key: str) -> Any:
        return self._store[key.lower()][1]

    def __delitem__(self, key: str) -> None:
        del self._store[key.lower()]

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self._store.values())

    def __len__(self) -> int:
        return len(self._store)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        theirs = CaseInsensitiveDict(other)
        return self._values() == theirs._values()

    def _values(self) -> dict[str, Any]:
        return {key: value for key, (_, value) in self._store.items()}

    def __repr__(self) -> str:
        return str(dict(self.items()))

    def copy(self) -> "CaseInsensitiveDict":
        """A copy."""
        return CaseInsensitiveDict(dict(self.items()))


class SentRequest:
    """What was asked for, as `Response.request`."""

    def __init__(self, method: str, url: str, headers: CaseInsensitiveDict, body: Any) -> None:
        self.method, self.url, self.headers, self.body = method, url, headers, body


class Response:
    """What a server said."""

    def __init__(
        self, answer: Answer | None = None, request: SentRequest | None = None, elapsed_s: float = 0.0
    ) -> None:
        self.status_code: int = 0 if answer is None else answer.status
        self.reason = "" if answer is None else answer.reason
        self.url = "" if answer is None else answer.url
        self.content = b"" if answer is None else answer.body
        self.headers = CaseInsensitiveDict()
        for name, value in () if answer is None else answer.headers:
            self.headers[name] = f"{self.headers[name]}, {value}" if name in self.headers else value
        self.encoding = _encoding(self.headers.get("content-type", ""))
        self.history: list[Response] = []
        self.request = request
        self._elapsed_s = elapsed_s

    def __getattr__(self, name: str) -> Any:
        raise NotOffered(f"requests.Response.{name}")

    def __repr__(self) -> str:
        return f"<Response [{self.status_code}]>"

    def __bool__(self) -> bool:
        return self.ok

    def __iter__(self) -> Iterator[bytes]:
        return self.iter_content(128)

    def __enter__(self) -> "Response":
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        return self.status_code < 400

    @property
    def is_redirect(self) -> bool:
        """Whether it is a redirect that was not followed."""
        return "location" in self.headers and self.status_code in (301, 302, 303, 307, 308)

    @property
    def elapsed(self) -> Any:
        """The time that it took, a `timedelta`."""
        from datetime import timedelta

        return timedelta(seconds=self._elapsed_s)

    @property
    def apparent_encoding(self) -> str:
        """UTF-8 where the body is that, Latin-1 otherwise."""
        try:
            self.content.decode()
        except UnicodeDecodeError:
            return "ISO-8859-1"
        return "utf-8"

    @property
    def text(self) -> str:
        """The body as text."""
        try:
            return str(self.content, self.encoding or self.apparent_encoding, errors="replace")
        except LookupError:
            return str(self.content, errors="replace")

    def json(self, **options: Any) -> Any:
        """The body as JSON.

        Raises:
            JSONDecodeError: it is none.
        """
        text = self.text
        if not self.encoding and len(self.content) > 3:
            with suppress(UnicodeDecodeError):
                text = self.content.decode(json_module.detect_encoding(self.content))
        try:
            return json_module.loads(text, **options)
        except json_module.JSONDecodeError as fault:
            raise JSONDecodeError(fault.msg, fault.doc, fault.pos) from None

    def raise_for_status(self) -> None:
        """Raise an HTTPError where the status is 400 or more."""
        if 400 <= self.status_code < 600:
            whose = "Client" if self.status_code < 500 else "Server"
            message = f"{self.status_code} {whose} Error: {self.reason} for url: {self.url}"
            raise ERRORS["HTTPError"](message, response=self)

    def iter_content(self, chunk_size: int | None = 1, decode_unicode: bool = False) -> Iterator[Any]:
        """The body in pieces; it is all there already."""
        body: Any = self.text if decode_unicode and self.encoding else self.content
        step = chunk_size or max(len(body), 1)
        return (body[start : start + step] for start in range(0, len(body), step))

    def iter_lines(self, chunk_size: int = 512, decode_unicode: bool = False, delimiter: Any = None) -> Iterator[Any]:
        """The body line by line."""
        body: Any = self.text if decode_unicode and self.encoding else self.content
        return iter(body.split(delimiter) if delimiter else body.splitlines())

    def close(self) -> None:
        """Nothing is open."""


def _encoding(content_type: str) -> str | None:
    kind, *options = content_type.split(";")
    for option in options:
        name, _, value = option.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip("'\"")
    if "text" in kind:
        return "ISO-8859-1"
    return "utf-8" if "application/json" in kind else None
