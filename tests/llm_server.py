"""A chat endpoint on the loopback whose replies are scripted, with the faults that real ones have."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Script = Callable[[Mapping[str, Any]], "str | Fault"]
"""Called with the body of a request; what the model writes, or what goes wrong instead."""


@dataclass(frozen=True)
class Fault:
    """Something other than a completion."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: bool = False
    """Close the connection without an answer."""
    delay_s: float = 0.0


@dataclass
class ChatServer:
    """What was asked so far; the script may be changed while it serves."""

    script: Script
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    says_usage: bool = True
    delay_s: float = 0.0
    _now: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            await asyncio.sleep(self.delay_s)
            return await self._answer(request, body)
        finally:
            self._now -= 1

    async def _answer(self, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        said = self.script(body)
        if isinstance(said, Fault):
            await asyncio.sleep(said.delay_s)
            if said.drop:
                assert request.transport is not None
                request.transport.close()
            return web.Response(status=said.status, body=said.body, headers=dict(said.headers))
        answer: dict[str, Any] = {
            "choices": [{"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}]
        }
        if self.says_usage:
            read = sum(len(message["content"]) // 4 for message in body["messages"])
            answer["usage"] = {"prompt_tokens": read, "completion_tokens": len(said) // 4}
        return web.Response(body=json.dumps(answer).encode(), content_type="application/json")


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[ChatServer]:
    """The server, until the block is left."""
    server = ChatServer(script)
    app = web.Application(client_max_size=16 << 20)
    app.router.add_post("/v1/chat/completions", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        server.url = f"http://{host}:{port}/v1"
        yield server
    finally:
        await runner.cleanup()


def in_turn(said: Sequence["str | Fault"]) -> Script:
    """A script that says one thing after another, whatever is asked."""
    left = list(said)
    return lambda body: left.pop(0)
