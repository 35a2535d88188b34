"""A server for tests that speaks OpenAI's completions and chat completions, and can be told to misbehave."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[Mapping[str, Any]], Any]
"""From the request's body to the answer's: a JSON value, or an integer status, or bytes as they are."""


class CompletionsServer(ThreadingHTTPServer):
    """Answers each path with a function."""

    daemon_threads = True

    def __init__(self, **answers: Answer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = answers
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self.asked: list[dict[str, Any]] = []
        """The bodies, in order of arrival."""
        self.headers: list[dict[str, str]] = []
        """Their headers, names in lower case."""
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves early is no fault."""


def _missing(body: Mapping[str, Any]) -> int:
    return 404


class _Handler(BaseHTTPRequestHandler):
    server: CompletionsServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Be silent."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(body)
            self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
            name = self.path.removeprefix("/v1/").replace("/", "_")
            respond: Answer = self.server.answers.get(name, _missing)
            answer = respond(body)
        status = answer if isinstance(answer, int) else 200
        data = (
            b"no" if isinstance(answer, int) else answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        )
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving(**answers: Answer) -> Iterator[CompletionsServer]:
    """A server that runs within the block; `completions=` and `chat_completions=` are its paths."""
    server = CompletionsServer(**answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
