"""A tool's request as the broker reads it, and the size of what may come back. It sends nothing."""

import json
import math
import re
import zlib
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recall.errors import ConfigError

_METHOD = re.compile(r"[A-Za-z]{1,16}")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_URL_CHARS = 16_384
_HEADERS_CHARS = 32_768
ANSWER_HEADERS_BYTES = 65_536
"""The longest headers of an answer, names and values together, at most 256 of them."""

# What frames the message, or belongs to one hop of it, is the client's business; so is all that begins with `proxy-`.
_OURS = frozenset(
    {
        *("connection", "content-length", "expect", "host", "http2-settings", "keep-alive", "te", "trailer"),
        *("transfer-encoding", "upgrade"),
        # By these some servers take another method or path than the one that was judged.
        *("x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url"),
    }
)


class Malformed(Exception):  # noqa: N818  # an outcome for the tool, not a fault
    """What a tool sent is no request; the message says why."""


class Broken(Exception):  # noqa: N818  # an outcome for the tool, not a fault
    """What a server sent cannot be read; the message says why."""


class TooLarge(Exception):  # noqa: N818  # an outcome for the tool, not a fault
    """An answer is longer than tools may have it."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the answer is longer than {limit} bytes")


@dataclass(frozen=True, slots=True)
class EgressLimits:
    """What one request of a tool, and all of them together, may use."""

    timeout_s: float = 30.0
    """Seconds for one request, redirects included; the call's own time-out holds besides."""
    request_bytes: int = 256 << 10
    """Bytes of the JSON of a request; a body takes four for each three of its own."""
    response_bytes: int = 1 << 20
    """Bytes of the body that it gets, as sent and as unpacked."""
    redirects: int = 5
    """Hops that are followed."""
    concurrency: int = 64
    """Requests at once, of all tools; further ones wait, within their time-out."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("timeout_s", 0.001, 3600),
            ("request_bytes", 256, 1 << 20),
            ("response_bytes", 0, 1 << 26),
            ("redirects", 0, 20),
            ("concurrency", 1, 4096),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"egress limits: {name} must be from {low} to {high}, got {value}")


@dataclass(frozen=True, slots=True)
class Request:
    """What a tool asks for, checked in every part but the URL, which the rules judge."""

    method: str
    url: str
    headers: Mapping[str, str]
    """By lower-case name; without what is the client's business."""
    body: bytes | None
    timeout_s: float
    """Infinite where the tool set none."""
    follow: bool
    """Whether redirects are followed."""
    decode: bool
    """Whether compression is asked for and undone."""

    @classmethod
    def parse(cls, data: bytes, limits: EgressLimits) -> "Request":
        """Read the JSON of a request.

        Raises:
            Malformed: it is not one.
        """
        if len(data) > limits.request_bytes:
            raise Malformed("the request is too long")
        try:
            fields: Any = json.loads(data)
        except (ValueError, RecursionError):
            raise Malformed("the request is not JSON") from None
        if not isinstance(fields, dict):
            raise Malformed("the request is no JSON object")
        method, url, timeout_s = fields.get("method"), fields.get("url"), fields.get("timeout")
        if not isinstance(method, str) or _METHOD.fullmatch(method) is None:
            raise Malformed("the method is no HTTP method")
        if not isinstance(url, str) or len(url) > _URL_CHARS:
            raise Malformed(f"the URL is no text of at most {_URL_CHARS} characters")
        if timeout_s is None:
            timeout_s = math.inf
        elif isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s < math.inf:
            raise Malformed("the timeout is no positive number of seconds")
        follow, decode = fields.get("follow", True), fields.get("decode", True)
        if not isinstance(follow, bool) or not isinstance(decode, bool):
            raise Malformed("follow and decode are true or false")
        headers = _headers(fields.get("headers") or {})
        body = _body(fields.get("body"))
        return cls(method.upper(), url, headers, body, min(timeout_s, 1e9), follow, decode)


def _headers(fields: object) -> dict[str, str]:
    if not isinstance(fields, dict):
        raise Malformed("the headers are no JSON object")
    headers: dict[str, str] = {}
    for name, value in fields.items():
        if _NAME.fullmatch(name) is None:
            raise Malformed("the name of a header holds what it must not")
        if not isinstance(value, str) or _VALUE.fullmatch(value) is None:
            raise Malformed(f"the header {name} holds a line break, a control character or something beyond ASCII")
        headers[name.lower()] = value
    if sum(len(name) + len(value) for name, value in headers.items()) > _HEADERS_CHARS or len(headers) > 100:
        raise Malformed("the headers are too long")
    named = {token.strip().lower() for token in headers.get("connection", "").split(",")}
    return {
        name: value
        for name, value in headers.items()
        if name not in _OURS and name not in named and not name.startswith("proxy-")
    }


def _body(text: object) -> bytes | None:
    if text is None:
        return None
    if not isinstance(text, str) or not text.isascii():
        raise Malformed("the body is not base64")
    try:
        return a2b_base64(text, strict_mode=True) if text else b""
    except Base64Error:
        raise Malformed("the body is not base64") from None


class Decoder:
    """Gathers a body, undoing gzip and deflate, and stops at the first byte too many of either side."""

    def __init__(self, encoding: str, limit: int) -> None:
        """Take the value of Content-Encoding; what is neither gzip nor deflate is passed on as it is."""
        self._limit = limit
        self._received = 0
        self._kept = bytearray()
        self._packed = encoding.strip().lower() in ("gzip", "x-gzip", "deflate")
        # 32 finds out by itself whether a gzip or a zlib header comes first.
        self._unpack = zlib.decompressobj(32 + zlib.MAX_WBITS)
        self._raw = encoding.strip().lower() == "deflate"
        self._members = 0
        self._ended = False

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes as received.

        Raises:
            TooLarge: that is more than the limit.
            Broken: they are not packed as was said.
        """
        self._received += len(chunk)
        if self._received > self._limit:
            raise TooLarge(self._limit)
        if self._ended:
            return
        if not self._packed:
            self._kept += chunk
            return
        try:
            self._unpacked(chunk)
        except zlib.error:
            raise Broken("the answer cannot be unpacked") from None

    def _unpacked(self, chunk: bytes) -> None:
        while chunk:
            if self._unpack.eof:
                # Another gzip member may follow.
                self._unpack = zlib.decompressobj(32 + zlib.MAX_WBITS)
                self._members += 1
            try:
                self._kept += self._unpack.decompress(chunk, self._limit - len(self._kept) + 1)
            except zlib.error:
                if self._members:
                    # Padding after the last member, which every client ignores.
                    self._packed, self._ended = False, True
                    return
                if not self._raw or self._kept:
                    raise
                # Some servers send deflate without the header that it ought to have.
                self._raw, self._unpack = False, zlib.decompressobj(-zlib.MAX_WBITS)
                continue
            if len(self._kept) > self._limit:
                raise TooLarge(self._limit)
            chunk = self._unpack.unconsumed_tail or self._unpack.unused_data

    def finish(self) -> bytes:
        """The body.

        Raises:
            Broken: it ends in the middle of a packed stream.
        """
        if self._packed and self._received and not self._unpack.eof:
            raise Broken("the answer breaks off within its packing")
        return bytes(self._kept)
