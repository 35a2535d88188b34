"""The retriever service next to the servers that others run, on the same index and encoder, under 64 clients.

`measure` starts ours and the peer (`retrieval_peer.py`), and lets clients ask both in turns: first every question once,
then each by five clients within a short time, as the rollouts of a group do. What a client does costs as little as
possible, because clients and servers share this machine. Run by itself it prints a table and the numbers as one line of
JSON: `python -m parts.retrieval_http INDEX KIND QUESTIONS.jsonl`.
"""

import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from parts.sandbox_http import server, tree_cpu_s

CLIENTS = 64
TOP = 5
"""Passages for a query, as the published search tool asks."""
ROLLOUTS = 5
"""Clients that ask the same question, of the grouped workload: the group size of the published recipe."""
_READY = r"ready at (http://\S+);"
WAYS = ("peer /search", "peer /retrieve", "ours /search")


class _Client(asyncio.Protocol):
    """One connection that sends a request whenever the last one was answered."""

    def __init__(self, requests: Iterator[bytes], seconds: list[float], done: asyncio.Future[None]) -> None:
        self._requests, self._seconds, self._done = requests, seconds, done
        self._answer = bytearray()
        self._size = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not self._size and (end := self._answer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._answer[:end]).lower()
            if not head.startswith(b"http/1.1 200"):
                self._fail(f"not a 200: {bytes(self._answer[:300])!r}")
                return
            self._size = end + 4 + int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        if self._size and len(self._answer) >= self._size:
            self._seconds.append(time.perf_counter() - self._began)
            self._answer.clear()
            self._size = 0
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection was lost: {exc}")

    def _send(self) -> None:
        request = next(self._requests, None)
        if request is None:
            if not self._done.done():
                self._done.set_result(None)
            self._transport.close()
            return
        self._began = time.perf_counter()
        self._transport.write(request)

    def _fail(self, why: str) -> None:
        if not self._done.done():
            self._done.set_exception(RuntimeError(why))


def _request(way: str, question: str) -> bytes:
    if way.endswith("/search"):
        body = json.dumps({"query": question, "top_n": TOP}).encode()
    else:
        body = json.dumps({"queries": [question], "topk": TOP, "return_scores": True}).encode()
    head = f"POST {way.split()[1]} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _round(way: str, url: str, pid: int, questions: Sequence[str]) -> dict[str, float]:
    """Numbers of one round: the clients ask all questions, each the next one that nobody asked."""
    loop = asyncio.get_running_loop()
    address = urlsplit(url)
    requests = iter([_request(way, question) for question in questions])
    seconds: list[float] = []
    cpu, began, ends = tree_cpu_s(pid), time.perf_counter(), []
    for _ in range(CLIENTS):
        done: asyncio.Future[None] = loop.create_future()
        ends.append(done)
        await loop.create_connection(
            lambda done=done: _Client(requests, seconds, done),  # type: ignore[misc]
            address.hostname or "",
            address.port or 0,
        )
    await asyncio.gather(*ends)
    wall = time.perf_counter() - began
    seconds.sort()
    return {
        "queries_per_s": len(seconds) / wall,
        "p50_ms": statistics.median(seconds) * 1e3,
        "p99_ms": seconds[int(len(seconds) * 0.99)] * 1e3,
        "server_cpu_ms": (tree_cpu_s(pid) - cpu) / len(seconds) * 1e3,
    }


def _grouped(questions: Sequence[str], seed: int) -> list[str]:
    """Each question of the last so many five times, in the order in which groups of rollouts come to their searches."""
    chance = random.Random(seed)
    asked = []
    for start in range(0, len(questions), CLIENTS):
        block = list(questions[start : start + CLIENTS]) * ROLLOUTS
        chance.shuffle(block)
        asked += block
    return asked


async def _same_answers(peer: str, ours: str, questions: Sequence[str]) -> None:
    """The two servers find the same, or there is nothing to compare."""
    import aiohttp

    async with aiohttp.ClientSession() as http:
        for question in questions:
            found = []
            for url in (peer, ours):
                async with http.post(f"{url}/search", json={"query": question, "top_n": TOP}) as response:
                    found.append([hit["id"] for hit in await response.json()])
            assert found[0] == found[1], (question, found)


async def measure(index: Path, kind: str, questions: Sequence[str], quick: bool) -> dict[str, Any]:
    """Numbers of both servers by workload; medians over rounds in which they take turns.

    Args:
        index: an index directory with an index of `kind`.
        kind: `bm25`, `flat`, …
        questions: to ask; none is asked twice, but in groups.
        quick: fewer rounds of fewer questions.
    """
    rounds = 2 if quick else 5
    count = (1000 if kind in ("bm25", "tantivy") else 128) * (1 if quick else 3)
    count = min(count, (len(questions) - 16) // (2 * rounds))
    peer = [sys.executable, "-m", "parts.retrieval_peer", str(index), kind]
    ours = [sys.executable, "-m", "recall.cli", "retriever", "serve", str(index), "--port", "0", "--open.kind", kind]
    rest = iter(questions)
    found: dict[str, Any] = {"kind": kind, "clients": CLIENTS, "questions": count, "rounds": rounds}
    with server(peer, _READY) as (peer_pid, peer_url), server(ours, _READY) as (our_pid, our_url):
        await _same_answers(peer_url, our_url, [next(rest) for _ in range(16)])
        for workload in ("distinct", "grouped"):
            taken: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
            for turn in range(rounds):
                asked = [next(rest) for _ in range(count)]
                if workload == "grouped":
                    asked = _grouped(asked[: count // ROLLOUTS], turn)
                for way in WAYS:
                    url, pid = (our_url, our_pid) if way.startswith("ours") else (peer_url, peer_pid)
                    taken[way].append(await _round(way, url, pid, asked))
            found[workload] = _summary(taken)
    print(table(found))
    return found


def _summary(taken: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    ways: dict[str, Any] = {
        way: {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        for way, rounds in taken.items()
    }

    def faster(turn: int) -> float:
        """How much faster ours was in one turn than the faster of the peer's two ways."""
        peers = [taken[way][turn]["queries_per_s"] for way in WAYS if way.startswith("peer")]
        return taken["ours /search"][turn]["queries_per_s"] / max(peers)

    ways["ratio"] = statistics.median(faster(turn) for turn in range(len(taken["ours /search"])))
    least = min(ways[way]["server_cpu_ms"] for way in WAYS if way.startswith("peer"))
    ways["cpu_ratio"] = least / ways["ours /search"]["server_cpu_ms"]
    return ways


def table(found: dict[str, Any]) -> str:
    """The numbers as a table for people."""
    head = f"{found['kind']} over HTTP, {found['clients']} clients"
    lines = [f"\n{head:<34}{'queries/s':>10}{'p50 ms':>10}{'p99 ms':>10}{'CPU ms':>10}"]
    for workload in ("distinct", "grouped"):
        for way in WAYS:
            n = found[workload][way]
            lines.append(
                f"{workload + ', ' + way:<34}{n['queries_per_s']:>10,.0f}{n['p50_ms']:>10.1f}{n['p99_ms']:>10.1f}"
                f"{n['server_cpu_ms']:>10.2f}"
            )
        lines.append(
            f"{workload}: ours / the faster peer = {found[workload]['ratio']:.2f} (aim: at least 3); "
            f"its CPU / ours = {found[workload]['cpu_ratio']:.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure one index."""
    with open(sys.argv[3], encoding="utf-8") as file:
        questions = [json.loads(line)["question"] for line in file]
    questions = list(dict.fromkeys(questions))
    print(json.dumps(asyncio.run(measure(Path(sys.argv[1]), sys.argv[2], questions, "--quick" in sys.argv))))


if __name__ == "__main__":
    main()
