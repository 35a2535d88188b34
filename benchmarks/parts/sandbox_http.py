"""The sandbox over HTTP next to a server that runs the tools in its own process, in turns, on this machine.

`compare` starts both servers, lets the same number of clients call the same tool, and returns calls/s, latencies and
CPU of all processes. Run by itself it prints a table and the numbers as one line of JSON.
"""

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from recall.sandbox.client import RemoteSandbox

SOURCE = '''
import json
import math
from datetime import date, timedelta

items: dict[str, int] = {"apple": 3, "pear": 1}

def add_item(name: str, count: int) -> dict:
    """Add `count` of an item and return the whole stock."""
    items[name] = items.get(name, 0) + count
    return {"items": items, "total": sum(items.values())}

def days_between(first: str, second: str) -> int:
    """Days from one ISO date to another."""
    return (date.fromisoformat(second) - date.fromisoformat(first)).days
'''
ARGUMENTS = {"name": "kiwi", "count": 4}
CALL = "add_item(name='kiwi', count=4)"
_JSON = {"content-type": "application/json"}
_TICKS = os.sysconf("SC_CLK_TCK")

Call = Callable[[], Awaitable[object]]


def processes() -> Iterator[tuple[int, list[str]]]:
    """The pid of each process, and its state, parent, … as in `/proc/PID/stat` after the name."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                yield int(entry.name), (entry / "stat").read_text().rpartition(")")[2].split()


def tree_cpu_s(pid: int) -> float:
    """CPU seconds of a process and all below it, those that were waited for included."""
    ticks = {each: (int(fields[1]), sum(map(int, fields[11:15]))) for each, fields in processes()}
    tree = {pid}
    while more := {child for child, (parent, _) in ticks.items() if parent in tree} - tree:
        tree |= more
    return sum(ticks[member][1] for member in tree if member in ticks) / _TICKS


@contextmanager
def server(arguments: Sequence[str], ready: str) -> Iterator[tuple[int, str]]:
    """A server's process id, and what `ready` found in its first line; stopped in the end."""
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(ready, line)
            assert found is not None, f"the server did not start: {line!r}"
            yield process.pid, found.group(1)
        finally:
            process.terminate()


async def load(calls: Sequence[Call], count: int, pid: int) -> dict[str, float]:
    """Numbers of one round: each client makes its calls one after another, `count` calls altogether."""
    seconds: list[float] = []

    async def client(call: Call) -> None:
        for _ in range(count // len(calls)):
            began = time.perf_counter()
            await call()
            seconds.append(time.perf_counter() - began)

    server_cpu, client_cpu, began = tree_cpu_s(pid), time.process_time(), time.perf_counter()
    await asyncio.gather(*map(client, calls))
    wall = time.perf_counter() - began
    seconds.sort()
    return {
        "calls_per_s": len(seconds) / wall,
        "p50_ms": seconds[len(seconds) // 2] * 1e3,
        "p99_ms": seconds[int(len(seconds) * 0.99)] * 1e3,
        "server_cpu_ms": (tree_cpu_s(pid) - server_cpu) / len(seconds) * 1e3,
        "client_cpu_ms": (time.process_time() - client_cpu) / len(seconds) * 1e3,
    }


def _median(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


async def _post(http: aiohttp.ClientSession, url: str, body: bytes) -> Any:
    async with http.post(url, data=body, headers=_JSON) as response:
        answer = json.loads(await response.read())
    assert answer["error"] is None, answer
    return answer


class _Clients:
    """The calls that the kinds of client make, each kind with `width` clients."""

    def __init__(self, width: int, peer_url: str, url: str, http: aiohttp.ClientSession) -> None:
        self._width, self._peer_url, self._url, self._http = width, peer_url, url, http
        self._box = RemoteSandbox(url)
        self._ids: list[str] = []
        self._published = json.dumps({"env": SOURCE, "call": CALL, "timeout": 5}).encode()
        self._structured = json.dumps({"name": "add_item", "args": ARGUMENTS, "timeout": 5}).encode()

    async def open(self) -> dict[str, list[Call]]:
        """One call for each client, by kind, after each was made once."""
        sessions = [await self._box.open(SOURCE) for _ in range(self._width)]
        source = json.dumps({"source": SOURCE}).encode()
        for _ in range(self._width):
            async with self._http.post(f"{self._url}/sessions", data=source) as response:
                self._ids.append((await response.json())["id"])
        kinds: dict[str, list[Call]] = {
            "exec": [partial(_post, self._http, f"{self._peer_url}/execute", self._published)] * self._width,
            "session": [
                partial(_post, self._http, f"{self._url}/sessions/{id}/call", self._structured) for id in self._ids
            ],
            "batched": [partial(session.call, "add_item", ARGUMENTS) for session in sessions],
            "one_shot": [partial(_post, self._http, f"{self._url}/execute", self._published)] * self._width,
        }
        for calls in kinds.values():
            await asyncio.gather(*[call() for call in calls])
        return kinds

    async def close(self) -> None:
        """End the sessions."""
        await self._box.close()
        for id in self._ids:
            async with self._http.delete(f"{self._url}/sessions/{id}") as response:
                await response.read()


async def compare(
    calls: int = 3000, widths: Sequence[int] = (1, 16, 64), rounds: int = 3
) -> dict[str, dict[str, dict[str, float]]]:
    """Numbers by kind of client and by width; medians over `rounds`, in which the kinds take turns.

    The kinds: `exec` is the peer; `session` posts each call by itself; `batched` is `RemoteSandbox`, which sends the
    calls of one moment together; `one_shot` has a fresh process for each call, as the peer has a fresh namespace.
    """
    peer = [sys.executable, str(Path(__file__).with_name("exec_server.py"))]
    ours = [sys.executable, "-m", "recall.cli", "sandbox", "serve", "--port", "0", "--profiles", "default"]
    found: dict[str, dict[str, dict[str, float]]] = {}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        with server(peer, r"(http://\S+)") as (peer_pid, peer_url), server(ours, r"(http://\S+);") as (pid, url):
            for width in widths:
                clients = _Clients(width, peer_url, url, http)
                kinds = await clients.open()
                taken: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
                for _ in range(rounds):
                    for name, each in kinds.items():
                        count = calls // 6 if name == "one_shot" else calls
                        taken[name].append(await load(each, count, peer_pid if name == "exec" else pid))
                for name, numbers in taken.items():
                    found.setdefault(name, {})[str(width)] = _median(numbers)
                await clients.close()
    return found


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """The numbers as a table for people."""
    head = ("clients", "calls/s", "p50 ms", "p99 ms", "server CPU ms", "client")
    lines = [f"{'over HTTP':10} {head[0]:>7} {head[1]:>8} {head[2]:>7} {head[3]:>7} {head[4]:>13} {head[5]:>7}"]
    for name, widths in found.items():
        for width, n in widths.items():
            lines.append(
                f"{name:10} {width:>7} {n['calls_per_s']:8.0f} {n['p50_ms']:7.2f} {n['p99_ms']:7.2f} "
                f"{n['server_cpu_ms']:13.3f} {n['client_cpu_ms']:7.3f}"
            )
    if "16" in found["exec"]:
        for name in ("session", "batched"):
            ratio = found[name]["16"]["calls_per_s"] / found["exec"]["16"]["calls_per_s"]
            lines.append(f"{name} / exec at 16 clients: {ratio:.2f} (aim: batched at least 1.5)")
    return "\n".join(lines)


if __name__ == "__main__":
    result = asyncio.run(compare())
    print(table(result))
    print(json.dumps(result))
