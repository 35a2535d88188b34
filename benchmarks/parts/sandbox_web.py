"""A tool's web request through the broker, next to the same request made without a sandbox."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

from parts.sandbox_local import Row, row, timed
from recall.sandbox.egress.broker import Broker
from recall.sandbox.egress.rules import Rule
from recall.sandbox.local import LocalSandbox

_ANSWER = b'{"result": ["a passage", "another one"]}'
TOOL = "import requests\ndef search(url, query):\n    return requests.post(url, json={'query': query}).json()\n"


class _Search(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        # In one piece: a header by itself would wait for the other side's acknowledgement.
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(_ANSWER)}\r\n\r\n"
        self.wfile.write(head.encode() + _ANSWER)

    def log_message(self, format: str, *args: object) -> None:
        """Not here."""


@contextmanager
def _server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Search) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/search"
        server.shutdown()


async def measure(calls: int) -> dict[str, Row]:
    """The same search by a tool in the sandbox, by `requests.post`, and by a session of `requests` that is kept."""
    with _server() as url:
        sandbox = LocalSandbox(web=Broker([Rule.parse(url)]))
        session = await sandbox.open(TOOL)
        arguments = {"url": url, "query": "pears"}

        async def tool() -> None:
            result = await session.call("search", arguments)
            assert result.error is None, result

        await tool()
        found = {"tool in the sandbox, by the broker": await timed(tool, calls)}
        await sandbox.close()
        with requests.Session() as kept:
            posts = {"requests.post": requests.post, "requests.Session": kept.post}
            for name, post in posts.items():
                times = []
                began, cpu = time.perf_counter(), time.process_time()
                for _ in range(calls):
                    start = time.perf_counter()
                    assert post(url, json={"query": "pears"}).json()
                    times.append(time.perf_counter() - start)
                found[name] = row(times, time.perf_counter() - began, time.process_time() - cpu)
        return found


if __name__ == "__main__":
    print(asyncio.run(measure(300)))
