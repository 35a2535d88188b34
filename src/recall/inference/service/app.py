"""The endpoint as an ASGI application: addresses, statuses, bodies in and out, answers in pieces.

Of what comes in, only sizes and checksums are ever logged.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from recall.errors import ConfigError, RecallError
from recall.inference.agent import ReCall
from recall.inference.events import CallDone, TurnText
from recall.inference.service import chunks
from recall.inference.service.bodies import Asked, BodyError, read
from recall.inference.service.conversations import Conversations, Episode, HandedBack
from recall.serving.access import Token
from recall.serving.metrics import TYPE, Counters, Gauge, Histogram, Numbers, page
from recall.serving.requests import (
    JSON,
    HungUpError,
    Receive,
    RefusedError,
    RequestLimits,
    Scope,
    Send,
    admit,
    read_body,
    report,
    respond,
    watched,
)
from recall.types import StopReason, Trajectory

_log = logging.getLogger("recall.serve")
_KEEP_ALIVE_S = 10.0
"""Seconds of silence after which a comment goes out, so that no proxy takes a slow tool for a dead server."""
_PATHS = ("/v1/chat/completions", "/v1/models", "/healthz", "/metrics")
_FINISH = {
    StopReason.DONE: "stop",
    StopReason.MAX_TURNS: "length",
    StopReason.MAX_TOKENS: "length",
    StopReason.MAX_CALLS: "length",
    StopReason.TIMEOUT: "length",
}


@dataclass
class Counts:
    """What happened so far."""

    requests: "Counter[tuple[str, str]]" = field(default_factory=Counter)
    """By address and status."""
    tokens: int = 0
    """Sampled."""
    calls: "Counter[str]" = field(default_factory=Counter)
    """Calls of tools on this side, by how they ended."""
    seconds: Histogram = field(default_factory=Histogram)
    """Of whole requests."""


class App:
    """The application; it is also its `recall.serving.server.Life`."""

    def __init__(
        self, agent: ReCall, name: str, token: Token | None, limits: RequestLimits, *, wait_s: float, at_once: int
    ) -> None:
        """Serve `agent` as the model `name` to whoever has the token, or to everybody where there is none."""
        self._agent, self._name, self._token, self._limits = agent, name, token, limits
        self._conversations = Conversations(agent, wait_s=wait_s, at_once=at_once)
        self._counts = Counts()
        self._ready = False

    async def start(self) -> str:
        """Load or reach the model and look at the tools once."""
        await self._agent.model()
        names = []
        for source in self._agent.sources:
            box = await source.open()
            names += [tool.spec.name for tool in box.tools]
            await box.session.close()
        self._ready = True
        return f"model {self._name}; tools: {', '.join(names) or 'none'}"

    def drain(self) -> None:
        """Take nothing new."""
        self._ready = False

    async def close(self) -> None:
        """End what still runs."""
        await self._conversations.close()
        await self._agent.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is served, not {scope['type']}")
        path, body, started = scope["path"], b"", time.perf_counter()
        name = path if path in _PATHS else "unknown"
        kind, retry_after_s = JSON, None
        answer: bytes | None
        try:
            if path != "/healthz":
                admit(scope, self._token)
            if path == _PATHS[0]:
                _allow(scope["method"], "POST")
                body = await read_body(scope, receive, self._limits)
                asked = read(body)
                if asked.stream:
                    status, answer = await self._stream(asked, receive, send)
                    if answer is None:
                        self._counts.requests[name, str(status)] += 1
                        self._counts.seconds.observe(time.perf_counter() - started)
                        return
                else:
                    status, answer = 200, await watched(receive, self._whole(asked))
            else:
                _allow(scope["method"], "GET")
                status, answer, kind = self._tell(path)
        except HungUpError:
            self._counts.requests[name, "499"] += 1
            return
        except BodyError as wrong:
            status, answer = 400, chunks.error(str(wrong), 400, wrong.code, wrong.param)
        except Exception as error:  # noqa: BLE001 - the one place where a failure becomes an answer
            status, said = _failure(error)
            retry_after_s = error.retry_after_s if isinstance(error, RefusedError) else None
            if status >= 500 and not isinstance(error, RefusedError):
                report(_log, path, error, body)
            answer = chunks.error(said, status)
        self._counts.requests[name, str(status)] += 1
        self._counts.seconds.observe(time.perf_counter() - started)
        await respond(send, status, answer, kind, retry_after_s)

    async def _whole(self, asked: Asked) -> bytes:
        """The answer to a request as one."""
        episode = self._episode(asked)
        writer, calls = chunks.Writer(self._name), list[HandedBack]()
        try:
            async with aclosing(self._heard(episode)) as events:
                async for event in events:
                    if isinstance(event, HandedBack):
                        calls.append(event)
        except asyncio.CancelledError:
            self._conversations.drop(episode)
            raise
        content, finish, more = self._ended(episode, calls)
        return writer.whole(content, calls, finish, self._usage(episode), more)

    async def _stream(self, asked: Asked, receive: Receive, send: Send) -> tuple[int, bytes | None]:
        """Answer a request in pieces; what goes wrong before the first is raised."""
        episode = self._episode(asked)
        writer = chunks.Writer(self._name)
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def put(piece: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": piece, "more_body": more})

        try:
            await watched(receive, self._pieces(asked, episode, writer, put))
        except HungUpError:
            self._conversations.drop(episode)
            return 499, None
        except Exception as error:  # noqa: BLE001 - the one place where a failure becomes the end of a stream
            self._conversations.drop(episode)
            status, said = _failure(error)
            if status >= 500:
                report(_log, _PATHS[0], error, b"")
            await put(chunks.error_event(said, status), more=False)
            return status, None
        return 200, None

    async def _pieces(
        self, asked: Asked, episode: Episode, writer: chunks.Writer, put: Callable[..., Awaitable[None]]
    ) -> None:
        calls: list[HandedBack] = []
        await put(writer.delta(role="assistant", content=""))
        async with aclosing(self._heard(episode)) as events:
            async for event in events:
                match event:
                    case None:
                        await put(b": still at it\n\n")
                    case HandedBack():
                        calls.append(event)
                    case CallDone(_, record):
                        await put(writer.record(record))
                    case TurnText(_, text):
                        await put(writer.delta(reasoning_content=text))
        content, finish, more = self._ended(episode, calls)
        if content:
            await put(writer.delta(content=content))
        if calls:
            await put(writer.calls(calls))
        await put(writer.finish(finish, more))
        if asked.usage:
            await put(writer.usage(self._usage(episode)))
        await put(chunks.END, more=False)

    def _episode(self, asked: Asked) -> Episode:
        """The episode that a request goes on with, or begins.

        Raises:
            RefusedError: there is no room, or the server is stopping.
        """
        conversations = self._conversations
        known = conversations.find(asked)
        if known is not None:
            conversations.resume(known, asked.results)
            return known
        if not self._ready:
            raise RefusedError(503, "the server is not taking questions now", 5.0)
        if len(conversations.alive) >= conversations.at_once:
            raise RefusedError(429, f"{len(conversations.alive)} episodes are under way already", 1.0)
        return conversations.begin(asked)

    async def _heard(self, episode: Episode) -> AsyncGenerator[Any, None]:
        """What happens until the episode is over, or waits for its caller alone; None where long nothing did.

        Raises:
            Exception: whatever ended the episode.
        """
        handed, settled = 0, 0
        while True:
            wanted = len(episode.said.calls) if episode.said is not None else 0
            if handed and handed + settled >= wanted:
                self._conversations.wait(episode)
                return
            try:
                async with asyncio.timeout(_KEEP_ALIVE_S):
                    event = await episode.events.get()
            except TimeoutError:
                yield None
                continue
            if event is None:
                return
            if isinstance(event, BaseException):
                raise event
            if isinstance(event, TurnText):
                handed, settled = 0, 0
            handed += isinstance(event, HandedBack)
            if isinstance(event, CallDone):
                settled += 1
                self._counts.calls[event.record.status.value] += 1
            yield event

    def _ended(self, episode: Episode, calls: list[HandedBack]) -> tuple[str, str, dict[str, Any]]:
        """What is said in the end, the reason of the end, and what more there is to tell.

        Raises:
            RecallError: something of ours failed.
        """
        said = episode.said.content if episode.said is not None else ""
        if calls:
            return said, "tool_calls", {}
        played = episode.trajectory
        if played is None:
            raise RefusedError(503, "the episode was ended before it was over", 1.0)
        if played.fault is not None:
            raise RecallError(played.fault)
        finish = _FINISH.get(played.stop_reason, "stop")
        return said, finish, told(played)

    def _usage(self, episode: Episode) -> dict[str, int]:
        played = episode.trajectory
        if played is None:
            return {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        sampled = sum(played.mask)
        self._counts.tokens += sampled
        return {
            "prompt_tokens": len(played.token_ids) - sampled,
            "completion_tokens": sampled,
            "total_tokens": len(played.token_ids),
        }

    def _tell(self, path: str) -> tuple[int, bytes, bytes]:
        if path == "/v1/models":
            model = {"id": self._name, "object": "model", "created": 0, "owned_by": "recall"}
            return 200, chunks.as_json({"object": "list", "data": [model]}), JSON
        if path == "/healthz":
            return (200, b'{"status":"ok"}', JSON) if self._ready else (503, b'{"status":"starting"}', JSON)
        if path == "/metrics":
            return 200, self._page(), TYPE
        raise RefusedError(404, f"there is no such address; there are {', '.join(_PATHS)}")

    def _page(self) -> bytes:
        counts, conversations = self._counts, self._conversations
        requests: dict[tuple[str, ...], float] = {key: float(n) for key, n in counts.requests.items()}
        made: dict[tuple[str, ...], float] = {(status,): float(n) for status, n in counts.calls.items()}
        counters: dict[str, Counters] = {
            "tokens_sampled": ("Tokens that the model wrote.", (), {(): float(counts.tokens)}),
            "given_up": ("Episodes whose caller did not come back.", (), {(): float(conversations.given_up)}),
        }
        counters["requests"] = "Requests.", ("endpoint", "code"), requests
        counters["tool_calls"] = "Calls of tools on this side, by how they ended.", ("status",), made
        gauges: dict[str, Gauge] = {
            "episodes": ("Episodes that run or wait.", float(len(conversations.alive))),
            "episodes_waiting": ("Episodes that wait for their caller.", float(conversations.waiting)),
        }
        histograms = {"request_seconds": ("Seconds of whole requests.", counts.seconds)}
        return page("recall_agent_", Numbers(gauges=gauges, counters=counters, histograms=histograms))


def told(played: Trajectory) -> dict[str, Any]:
    """What an answer tells of its episode beside what the protocol knows."""
    return {
        "answer": played.answer,
        "stop_reason": played.stop_reason.value,
        "turns": played.turns,
        "calls": [
            {"name": record.name, "status": record.status.value, "seconds": round(record.duration_s, 6)}
            for record in played.calls
        ],
        "seconds": round(played.duration_s, 6),
        "from_text": played.from_text,
    }


def _failure(error: Exception) -> tuple[int, str]:
    """The status and the words of a failure."""
    match error:
        case RefusedError():
            return error.status, str(error)
        case ConfigError():
            return 400, str(error)
        case RecallError():
            return 502, str(error)
    return 500, f"internal error: {type(error).__name__}"


def _allow(method: str, allowed: str) -> None:
    if method != allowed:
        raise RefusedError(405, f"{method[:20]} is not served here; {allowed} is")
