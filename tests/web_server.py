"""A server for tests of network access, good and hostile routes alike, on a free port of 127.0.0.1."""

import gzip
import json
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

PASSAGES = [
    {"id": str(number), "contents": f'"Pear {number}"\nA pear is a fruit; this is passage {number}.'}
    for number in range(20)
]
_PACKER = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
BOMB = b"".join(_PACKER.compress(bytes(1 << 20)) for _ in range(200)) + _PACKER.flush()
"""200 MiB of nothing, packed."""
ENCODED: dict[str, tuple[str, bytes]] = {
    "latin": ("text/plain; charset=ISO-8859-1", "Grüße".encode("latin-1")),
    "quoted": ('text/html; charset="UTF-8"', "<p>Grüße</p>".encode()),
    "unsaid": ("text/plain", "Grüße".encode()),
    "json": ("application/json", '{"a": ["Grüße", 1]}'.encode()),
    "utf16": ("application/octet-stream", '{"a": "Grüße"}'.encode("utf-16")),
    "bytes": ("application/octet-stream", bytes(range(256))),
    "unknown": ("text/plain; charset=no-such", b"plain"),
    "nothing": ("text/plain", b""),
}
"""Content type and body by the name of the route below `/encoded/`."""


class TestServer(ThreadingHTTPServer):
    """Notes every request that reached it."""

    __test__ = False
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port: int = self.server_address[1]
        self.base = f"http://127.0.0.1:{self.port}"
        self.seen: list[str] = []
        """Method and target, in order of arrival."""
        self.sent_bytes = 0
        """Of the endless body."""
        self.at_once = 0
        self.most_at_once = 0
        """On the slow route."""
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves early is no fault."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: TestServer

    def log_message(self, format: str, *args: Any) -> None:
        """Be silent."""

    def _route(self) -> None:
        self.server.seen.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        name, _, rest = urlsplit(self.path).path.lstrip("/").partition("/")
        route: Callable[[bytes, str], None] = getattr(self, f"_{name}", self._missing)
        route(body, rest)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _route  # noqa: N815  # the base's names

    def _send(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _echo(self, body: bytes, rest: str) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        said = {"method": self.command, "target": self.path, "headers": headers, "body": body.decode("latin-1")}
        self._send(200, json.dumps(said).encode(), ("Content-Type", "application/json"))

    def _search(self, body: bytes, rest: str) -> None:
        asked = json.loads(body)
        found = PASSAGES[: asked.get("top_n", 10)]
        self._send(200, json.dumps(found).encode(), ("Content-Type", "application/json"))

    def _status(self, body: bytes, rest: str) -> None:
        content = b"" if rest == "204" else f"status {rest}\nand more".encode()
        self._send(int(rest), content, ("Content-Type", "text/plain; charset=utf-8"))

    def _loop(self, body: bytes, rest: str) -> None:
        self._send(302, b"", ("Location", "/loop"))

    def _encoded(self, body: bytes, rest: str) -> None:
        kind, content = ENCODED[rest]
        self._send(200, content, ("Content-Type", kind))

    def _headers(self, body: bytes, rest: str) -> None:
        self._send(
            200, b"{}", ("X-Twice", "one"), ("X-Twice", "two"), ("X-Latin", "Gr\xfc\xdfe"), ("Set-Cookie", "a=b")
        )

    def _redirect(self, body: bytes, rest: str) -> None:
        to = parse_qs(urlsplit(self.path).query).get("to", ["/echo"])[0]
        self._send(int(rest), b"over there", ("Location", to))

    def _packed(self, body: bytes, rest: str) -> None:
        text = "packed Grüße ".encode() * 50
        raw = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        content = {
            "gzip": gzip.compress(text),
            "twice": gzip.compress(text) + gzip.compress(text),
            "padded": gzip.compress(text) + b"\0" * 64,
            "deflate": zlib.compress(text),
            "raw": raw.compress(text) + raw.flush(),
            "broken": b"\x1f\x8b not gzip at all",
            "bomb": BOMB,
        }[rest]
        kind = "deflate" if rest in ("deflate", "raw") else "gzip"
        self._send(200, content, ("Content-Encoding", kind), ("Content-Type", "text/plain; charset=utf-8"))

    def _huge(self, body: bytes, rest: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(1 << 30))
        self.end_headers()
        self._pour()

    def _endless(self, body: bytes, rest: str) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self._pour()

    def _pour(self) -> None:
        while self.server.sent_bytes < 1 << 30:
            self.wfile.write(bytes(1 << 16))
            self.server.sent_bytes += 1 << 16

    def _drip(self, body: bytes, rest: str) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        for _ in range(600):
            self.wfile.write(b".")
            time.sleep(0.05)

    def _headdrip(self, body: bytes, rest: str) -> None:
        for number in range(600):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX: 1\r\n"[number : number + 1] or b"y")
            time.sleep(0.05)

    def _slow(self, body: bytes, rest: str) -> None:
        with self.server.lock:
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        time.sleep(float(rest))
        with self.server.lock:
            self.server.at_once -= 1
        self._send(200, b"late")

    def _garbage(self, body: bytes, rest: str) -> None:
        self.wfile.write(b"\x00\xff this is not HTTP\r\n\r\n")
        self.close_connection = True

    def _short(self, body: bytes, rest: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        self.close_connection = True

    def _hangup(self, body: bytes, rest: str) -> None:
        self.close_connection = True

    def _manyheaders(self, body: bytes, rest: str) -> None:
        self._send(200, b"", *[(f"X-{number}", "x" * 4000) for number in range(2000)])

    def _longheaders(self, body: bytes, rest: str) -> None:
        self._send(200, b"", *[(f"X-{number}", "x" * 4000) for number in range(20)])

    def _missing(self, body: bytes, rest: str) -> None:
        self._send(404, b"nothing here", ("Content-Type", "text/plain"))


@contextmanager
def serving(encryption: ssl.SSLContext | None = None) -> Iterator[TestServer]:
    """A server that runs within the block."""
    server = TestServer()
    if encryption is not None:
        server.socket = encryption.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
