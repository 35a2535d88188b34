"""One HTTP request of an ASGI application: whether it is let in, its body within bounds, its answer.

There is no framework on this path: routing a request through one would cost more than a remembered answer does.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from recall.serving.access import Token

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
T = TypeVar("T")

_WATCH_AFTER_S = 0.02
"""Work that takes longer is given up when its client hangs up; watching shorter work would cost as much as it does."""
_DRAIN_BYTES = 64 << 20
_DRAIN_S = 2.0

JSON = b"application/json"


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one request may be."""

    body_bytes: int = 8 << 20
    """Bytes of a body."""
    body_timeout_s: float = 30.0
    """Seconds in which a head, and then a body, must have come in."""


class RefusedError(Exception):
    """An answer that ends a request early: a status and one line that says why."""

    def __init__(self, status: int, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.status, self.retry_after_s = status, retry_after_s


class HungUpError(Exception):
    """The client is gone; nobody wants an answer."""


def admit(scope: Scope, token: Token | None) -> None:
    """Let a request in.

    Raises:
        RefusedError: it comes from a web page, or it lacks the token.
    """
    headers = scope["headers"]
    if any(name == b"origin" for name, _ in headers):
        raise RefusedError(403, "requests from web pages are not served")
    if token is not None and not token.admits(headers):
        raise RefusedError(401, "a bearer token is needed")


async def read_body(scope: Scope, receive: Receive, limits: RequestLimits) -> bytes:
    """The body of a request.

    Raises:
        RefusedError: it is too large, or too slow.
        HungUpError: the client went away.
    """
    announced = next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)
    too_large = RefusedError(413, f"the body is larger than {limits.body_bytes} bytes")
    if announced > limits.body_bytes:
        await _drain(receive)
        raise too_large
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            body = bytearray()
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise HungUpError
                body += message.get("body", b"")
                if len(body) > limits.body_bytes:
                    break
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        raise RefusedError(408, f"the body took longer than {limits.body_timeout_s:g} s") from None
    await _drain(receive)
    raise too_large


async def _drain(receive: Receive) -> None:
    """Read on for a while: a client that is still sending would see a reset instead of the answer."""
    size = 0
    try:
        async with asyncio.timeout(_DRAIN_S):
            while size < _DRAIN_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                if not message.get("more_body"):
                    return
    except TimeoutError:
        return


async def watched(receive: Receive, work: Awaitable[T]) -> T:
    """Do `work`, and give it up when its client hangs up.

    Raises:
        HungUpError: it did.
    """
    task = asyncio.current_task()
    assert task is not None, "a request is served by a task"
    watcher: asyncio.Task[None] | None = None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            continue
        gone = True
        task.cancel()

    def begin() -> None:
        nonlocal watcher
        watcher = asyncio.ensure_future(watch())

    timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, begin)
    try:
        return await work
    except asyncio.CancelledError:
        if gone:
            task.uncancel()
            raise HungUpError from None
        raise
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()


async def respond(send: Send, status: int, body: bytes, kind: bytes = JSON, retry_after_s: float | None = None) -> None:
    """Send an answer."""
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    if retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, round(retry_after_s))))
    if status in (408, 413):
        headers.append((b"connection", b"close"))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def detail(message: str) -> bytes:
    """The body of an answer that is not a 200."""
    return json.dumps({"detail": message}).encode()


def report(log: logging.Logger, what: str, error: Exception, body: bytes) -> None:
    """Log a failure of ours: where it happened, and a checksum of what was asked, which may be anybody's secret."""
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    place = "" if where is None else f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}"
    digest = hashlib.sha256(body).hexdigest()[:16]
    log.error("%s failed: %s at %s; %d bytes, sha256 %s", what, type(error).__name__, place, len(body), digest)
