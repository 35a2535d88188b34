"""The server as an ASGI application: addresses, statuses, bodies in and out. What a request does is `service.py`'s.

There is no framework on this path: a session's call costs less than routing it through one. Of what comes in, only
sizes are ever logged.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from recall.errors import ConfigError, SandboxBusy, SandboxError
from recall.sandbox.service import fusion
from recall.sandbox.service.admission import QueueFull
from recall.sandbox.service.bodies import BodyError, batch_body, call_body, fork_body, open_body, parse
from recall.sandbox.service.registry import Entry, EvictedSessionError, UnknownSessionError
from recall.sandbox.service.service import Service
from recall.serving.access import Token
from recall.serving.metrics import TYPE
from recall.serving.requests import (
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

Answer = tuple[int, Any]
"""An HTTP status and the JSON value, or the text as bytes, of the body."""

_log = logging.getLogger("recall.sandbox")


@dataclass(frozen=True, slots=True)
class AppLimits(RequestLimits):
    """What one request may be."""

    code_memory_mb: int = 1024
    """MiB of a script of `/run_code`."""


def encode(value: Any) -> bytes:
    """JSON as UTF-8. What a tool returned was read from JSON, so it can be written again."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


class App:
    """The application."""

    def __init__(self, service: Service, token: Token | None, limits: AppLimits) -> None:
        """Serve `service` to whoever has the token, or to everybody where there is none."""
        self._service = service
        self._token = token
        self.limits = limits
        """What one request may be."""
        self._routes: dict[tuple[str, ...], dict[str, Callable[..., Awaitable[Answer]]]] = {
            ("execute",): {"POST": self._execute},
            ("sessions",): {"POST": self._open},
            ("sessions", "*"): {"GET": self._show, "DELETE": self._close},
            ("sessions", "*", "call"): {"POST": self._call},
            ("sessions", "*", "fork"): {"POST": self._fork},
            ("run_code",): {"POST": self._run_code},
            ("healthz",): {"GET": self._healthz},
            ("readyz",): {"GET": self._readyz},
            ("metrics",): {"GET": self._metrics},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is served, not {scope['type']}")
        parts = tuple(scope["path"].split("/")[1:])
        streams = parts == ("execute_batch",) and scope["method"] == "POST"
        name, body = "unknown", b""
        try:
            admit(scope, None if parts == ("healthz",) else self._token)
            if streams:
                name = "execute_batch"
                body = await read_body(scope, receive, self.limits)
                items = batch_body(parse(body))
                if b"stream=1" in scope["query_string"].split(b"&"):
                    self._service.metrics.requests[name, 200] += 1
                    await watched(receive, _Stream(self, items, send).run())
                    return
                answer: Answer = 200, await watched(receive, self._all(items))
            else:
                name, handler, id = self._route(scope["method"], parts)
                body = await read_body(scope, receive, self.limits) if scope["method"] == "POST" else b""
                arguments = (body,) if id is None else (body, id)
                answer = await watched(receive, handler(*arguments))
        except HungUpError:
            self._service.metrics.requests[name, 499] += 1
            return
        except RefusedError as refusal:
            answer = refusal.status, {"detail": str(refusal)}
        except Exception as error:  # noqa: BLE001 - the one place where any failure becomes an answer
            answer = self.failure(error, retried_as=504 if parts == ("run_code",) else 0)
            if answer[0] == 500:
                report(_log, f"{scope['method']} /{name}", error, body)
        self._service.metrics.requests[name, answer[0]] += 1
        await self._respond(send, *answer)

    async def item(self, value: Any) -> dict[str, Any]:
        """The answer to one item of a batch; what would not be a 200 by itself says so in `code`."""
        try:
            return await self._service.execute(call_body(value, self._service.profiles))
        except Exception as error:  # noqa: BLE001 - one bad item must not fail the batch
            status, body = self.failure(error)
            if status == 500:
                report(_log, "an item of a batch", error, encode(value))
            return {"result": None, "output": "", "error": None, "status": "refused", **body, "code": status}

    def failure(self, error: Exception, *, retried_as: int = 0) -> Answer:
        """The answer that says what went wrong.

        Args:
            error: what was raised.
            retried_as: the status that this endpoint's clients try again after, where it is neither 429 nor 503.
        """
        match error:
            case BodyError():
                return 422, {"detail": error.detail}
            case UnknownSessionError():
                return 404, {"detail": str(error)}
            case EvictedSessionError():
                return 410, {"error": str(error), "infra_error": True}
            case SandboxBusy():
                status = retried_as or (429 if isinstance(error, QueueFull) else 503)
                return status, {"error": str(error), "retry_after_s": error.retry_after_s}
            case SandboxError() | ConfigError():
                return 500, {"error": str(error), "infra_error": True}
        return 500, {"error": f"internal error: {type(error).__name__}", "infra_error": True}

    def _route(self, method: str, parts: tuple[str, ...]) -> tuple[str, Callable[..., Awaitable[Answer]], str | None]:
        id = parts[1] if len(parts) > 1 and parts[0] == "sessions" else None
        known = parts if id is None else ("sessions", "*", *parts[2:])
        methods = self._routes.get(known)
        if methods is None and parts != ("execute_batch",):
            raise RefusedError(404, "Not Found")
        if methods is None or method not in methods:
            raise RefusedError(405, "Method Not Allowed")
        return "/".join(known), methods[method], id

    async def _respond(self, send: Send, status: int, value: Any) -> None:
        retry_after_s = None
        if status in (429, 503, 504) and isinstance(value, dict):
            retry_after_s = value.get("retry_after_s")
        if isinstance(value, bytes):
            await respond(send, status, value, TYPE)
        else:
            await respond(send, status, encode(value), retry_after_s=retry_after_s)

    async def _all(self, items: Sequence[Any]) -> list[dict[str, Any]]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.item(item)) for item in items]
        return [task.result() for task in tasks]

    async def _execute(self, body: bytes) -> Answer:
        return 200, await self._service.execute(call_body(parse(body), self._service.profiles))

    async def _call(self, body: bytes, id: str) -> Answer:
        return 200, await self._service.execute(call_body(parse(body), self._service.profiles, session=id))

    async def _open(self, body: bytes) -> Answer:
        entry = await self._service.open(open_body(parse(body), self._service.profiles))
        return 200, {"id": entry.id, "isolation_missing": self._service.missing}

    async def _fork(self, body: bytes, id: str) -> Answer:
        entries = await self._service.fork(id, fork_body(parse(body) if body else {}))
        return 200, {"ids": [entry.id for entry in entries]}

    async def _show(self, _: bytes, id: str) -> Answer:
        return 200, _shown(self._service.sessions.find(id))

    async def _close(self, _: bytes, id: str) -> Answer:
        await self._service.sessions.close(id)
        return 200, {"closed": True}

    async def _run_code(self, body: bytes) -> Answer:
        try:
            asked = fusion.read(parse(body), memory_mb=self.limits.code_memory_mb)
        except fusion.RefusedError as refused:
            return 200, fusion.refusal(str(refused))
        try:
            return 200, await self._service.run_code(asked)
        except SandboxBusy:
            raise
        except SandboxError as error:
            report(_log, "POST /run_code", error, body)
            return 200, fusion.refusal(str(error))

    async def _healthz(self, _: bytes) -> Answer:
        return 200, {"status": "ok"}

    async def _readyz(self, _: bytes) -> Answer:
        state = self._service.readiness()
        return 200 if state["ready"] else 503, state

    async def _metrics(self, _: bytes) -> Answer:
        return 200, await self._service.page()


class _Stream:
    """A batch whose answers go out as they are there, one line of JSON each."""

    def __init__(self, app: App, items: Sequence[Any], send: Send) -> None:
        self._app, self._items, self._send = app, items, send
        self._lines: list[bytes] = []
        self._wake = asyncio.Event()

    async def run(self) -> None:
        headers = [(b"content-type", b"application/x-ndjson")]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        async with asyncio.TaskGroup() as group:
            for index, item in enumerate(self._items):
                group.create_task(self._one(index, item))
            sent = 0
            while sent < len(self._items):
                await self._wake.wait()
                self._wake.clear()
                lines, self._lines = self._lines, []
                sent += len(lines)
                # Answers that came in together leave together.
                await self._send({"type": "http.response.body", "body": b"".join(lines), "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})

    async def _one(self, index: int, item: Any) -> None:
        answer = await self._app.item(item)
        self._lines.append(encode({"index": index, **answer}) + b"\n")
        self._wake.set()


def _shown(entry: Entry) -> dict[str, Any]:
    now = time.monotonic()
    return {
        "id": entry.id,
        "profile": entry.options.profile,
        "transactional": entry.options.transactional,
        "forkable": entry.options.forkable or entry.options.transactional,
        "calls": entry.calls,
        "age_s": round(now - entry.opened_at, 3),
        "idle_s": 0.0 if entry.users else round(now - entry.used_at, 3),
        "state_lost": entry.lost,
    }
