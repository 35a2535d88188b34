"""A real server in a process of its own, on a free port of this machine, and a plain client of it."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COUNTER = """
count = 0
def bump(by=1):
    global count
    count += by
    return count
def sleep(seconds):
    import time
    time.sleep(seconds)
    return "rested"
def die():
    import os
    os._exit(3)
"""


@dataclass
class Server:
    """A running server."""

    process: "subprocess.Popen[str]"
    url: str
    ready: str
    """The line that it printed."""

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    def ask(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None, timeout_s: float = 60
    ) -> "Answer":
        """One request over a connection of its own; bytes are sent as they are, all else as JSON."""
        connection = http.client.HTTPConnection(*self.address, timeout=timeout_s)
        try:
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(method, path, data, {"content-type": "application/json", **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, response.read(), dict(response.getheaders()))
        finally:
            connection.close()

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 60) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout_s)


@dataclass
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def start(*flags: str, env: dict[str, str] | None = None, port: int = 0, log: Path | None = None) -> Server:
    """Start a server and wait until it says that it is ready; what it complains of goes to `log`, or to ours."""
    arguments = [sys.executable, "-m", "recall.cli", "sandbox", "serve", "--port", str(port), *flags]
    environment = {name: value for name, value in os.environ.items() if name != "RECALL_SANDBOX_TOKEN"} | (env or {})
    with open(log, "w") if log is not None else nullcontext() as errors:
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"ready at (\S+);", line)
    if found is None:
        process.kill()
        process.wait()
        raise AssertionError(f"the server did not start: {line!r}")
    return Server(process, found.group(1), line)


@contextmanager
def serving(*flags: str, env: dict[str, str] | None = None, port: int = 0, log: Path | None = None) -> Iterator[Server]:
    """A server that is ended, if it still runs, when the block is left."""
    server = start(*flags, env=env, port=port, log=log)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()
        assert server.process.stdout is not None
        server.process.stdout.close()


def fields_of(pid: int) -> list[str]:
    """State, parent, … of a process; empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def below(pid: int) -> set[int]:
    """All processes under one, itself left out."""
    parents = {
        int(entry.name): int(fields[1])
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and (fields := fields_of(int(entry.name)))
    }
    tree = {pid}
    while more := {child for child, parent in parents.items() if parent in tree} - tree:
        tree |= more
    return tree - {pid}


def wait_until_gone(pids: set[int], timeout_s: float = 20) -> set[int]:
    """The processes that still live after a while."""
    deadline = time.monotonic() + timeout_s
    while (left := {pid for pid in pids if fields_of(pid)[:1] not in ([], ["Z"])}) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left
