"""`RemoteSandbox`: the sandbox of one or several servers, behind the same seam as the one on this machine.

A session lives on the server that it was placed on, and dies with it: the call in flight and all later ones raise
`SandboxError`, so that the trajectory is left out of the gradient; they never meet a fresh state. Nothing is asked
twice unless it is certain that it has not run: the server could not be connected to, or refused for lack of room.
"""

import asyncio
import hashlib
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from recall.errors import ConfigError, SandboxBusy, SandboxError
from recall.sandbox.base import DEFAULT_OPTIONS, CallResult, SessionOptions
from recall.sandbox.endpoint import BrokenError, Endpoint, Reply, UnreachableError
from recall.sandbox.service.access import TOKEN_VARIABLE
from recall.sandbox.service.bodies import MAX_TIMEOUT_S
from recall.types import CallStatus

_CLOSE_TIMEOUT_S = 5.0
_CONNECT_ATTEMPTS = 3
_REST_S = 1.0
"""Seconds for which a server that could not be reached is asked for no new session, while another can be."""
_STATUSES = {str(status): status for status in CallStatus}
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class RemoteSandbox:
    """Opens sessions on servers started by `recall sandbox serve`. See `recall.sandbox.base.Sandbox`.

    A new session goes to the server that ranks first for it (highest random weight), so that sessions spread evenly and
    a server that is down gives only its own share to the others. It belongs to one event loop at a time.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        token: str | None = None,
        *,
        call_timeout_s: float = 5.0,
        queue_timeout_s: float = 60.0,
        margin_s: float = 15.0,
        connect_timeout_s: float = 5.0,
    ) -> None:
        """Take the servers.

        Args:
            urls: `http://host:port` or `unix:/path`, one or several.
            token: what the servers ask for; None takes the environment's `RECALL_SANDBOX_TOKEN`, if there is one.
            call_timeout_s: of a call where the caller gives no other.
            queue_timeout_s: seconds that a call, or a new session, may wait for room.
            margin_s: seconds beyond a call's time-out and wait after which its server is taken to be lost; the time
                that the tools' source takes to run lies in it.
            connect_timeout_s: seconds to wait for a connection.

        Raises:
            ConfigError: there is no address, or one is none.
        """
        urls = [urls] if isinstance(urls, str) else list(urls)
        if not urls or len(set(urls)) < len(urls):
            raise ConfigError("sandbox: at least one server, each named once")
        for url in urls:
            if not url.startswith(("http://", "https://", "unix:/")):
                raise ConfigError(f"sandbox server {url!r}: accepted are http://host:port and unix:/path")
        token = token or os.environ.get(TOKEN_VARIABLE) or None
        self._endpoints = [Endpoint(url, token, connect_timeout_s=connect_timeout_s) for url in urls]
        self._down_until: dict[Endpoint, float] = {}
        self.call_timeout_s, self.queue_timeout_s, self.margin_s = call_timeout_s, queue_timeout_s, margin_s
        self._key = secrets.token_bytes(8)
        self._count = 0
        self._sessions: set[RemoteSession] = set()
        self._closed = False

    async def open(self, source: str, options: SessionOptions = DEFAULT_OPTIONS) -> "RemoteSession":
        """Open a session on one of the servers. See `recall.sandbox.base.Sandbox.open`.

        It waits for one round trip, in which the server hands out the session's id; the process starts and the source
        runs after that. So what is wrong is known here, where another server can still be tried.

        Raises:
            ConfigError: a server refuses the token or the options.
            SandboxBusy: no server had room for `queue_timeout_s`.
            SandboxError: no server could be reached for as long, or one broke off.
        """
        asked = {
            "source": source,
            "profile": options.profile,
            "transactional": options.transactional,
            "forkable": options.forkable,
            "seed": options.seed,
        }
        body = _encode(asked).encode("utf-8", "replace")
        self._count += 1
        ranked = self._ranked(b"%d" % self._count)
        deadline = time.monotonic() + self.queue_timeout_s
        pause_s = 0.05
        while True:
            problem: SandboxError | None = None
            for endpoint in self._hopeful(ranked):
                if self._closed:
                    raise SandboxError("the sandbox is closed")
                try:
                    answer = _refused(endpoint, await endpoint.request("POST", "/sessions", body, self._patience_s(0)))
                except UnreachableError as error:
                    self._down_until[endpoint] = time.monotonic() + _REST_S
                    problem = problem or error
                except BrokenError:
                    # The source may have run, and may have asked something of the web: not to be done twice unasked.
                    self._down_until[endpoint] = time.monotonic() + _REST_S
                    raise
                except SandboxBusy as error:
                    problem = error
                else:
                    self._down_until.pop(endpoint, None)
                    return self.adopt(endpoint, str(answer["id"]), options)
            assert problem is not None, "at least one server was asked"
            if time.monotonic() + pause_s > deadline:
                raise problem
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 1.0)

    async def close(self) -> None:
        """End every session and close the connections. Safe to call twice."""
        self._closed = True
        await asyncio.gather(*[session.close() for session in tuple(self._sessions)])
        for endpoint in self._endpoints:
            await endpoint.close()

    def adopt(self, endpoint: Endpoint, id: str, options: SessionOptions) -> "RemoteSession":
        """A session that a server handed out the id of."""
        session = RemoteSession(self, endpoint, id, options)
        self._sessions.add(session)
        return session

    def forget(self, session: "RemoteSession") -> None:
        """The session has ended."""
        self._sessions.discard(session)

    def _patience_s(self, timeout_s: float) -> float:
        return timeout_s + self.queue_timeout_s + self.margin_s

    def _ranked(self, key: bytes) -> list[Endpoint]:
        def weight(endpoint: Endpoint) -> bytes:
            return hashlib.blake2b(self._key + key + endpoint.url.encode(), digest_size=8).digest()

        return sorted(self._endpoints, key=weight, reverse=True)

    def _hopeful(self, ranked: Sequence[Endpoint]) -> list[Endpoint]:
        """Those that were not found down just now; all of them where there is no other."""
        now = time.monotonic()
        return [endpoint for endpoint in ranked if self._down_until.get(endpoint, 0.0) <= now] or list(ranked)


class RemoteSession:
    """A session on a server. Made by `RemoteSandbox.open`."""

    def __init__(self, sandbox: RemoteSandbox, endpoint: Endpoint, id: str, options: SessionOptions) -> None:
        self._sandbox, self._endpoint, self._id, self._options = sandbox, endpoint, id, options
        self._backlog_s = 0.0
        """Seconds that the calls in flight may take together."""
        self._end: CallResult | SandboxError | None = None
        """What every further call comes to; None while the session lives."""
        self._closing: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The server that it lives on."""
        return self._endpoint.url

    async def call(self, name: str, arguments: Mapping[str, Any], *, timeout_s: float | None = None) -> CallResult:
        """Call the function `name` with keyword `arguments`; see `recall.sandbox.base.Session.call`.

        Calls of the same moment, of whatever sessions of one server, travel as one request; each is answered as soon
        as it is done. A cancelled call ends the session.
        """
        try:
            fields = _encode({"name": name, "args": dict(arguments)})[1:-1]
        except (TypeError, ValueError, RecursionError) as error:
            return CallResult(CallStatus.BAD_ARGUMENTS, error=f"the arguments are not JSON: {error}")
        return await self._ask(fields, timeout_s)

    async def evaluate(self, expression: str, *, timeout_s: float | None = None) -> CallResult:
        """The value of a Python expression over the names of the source, such as `f(a=1)`; as `call` otherwise."""
        return await self._ask(_encode({"call": expression})[1:-1], timeout_s)

    async def fork(self) -> "RemoteSession":
        """A copy of the session as it is now, on the same server; see `recall.sandbox.base.Forkable`."""
        self._raise_if_lost()
        patience_s = self._sandbox.queue_timeout_s + self._sandbox.margin_s + self._backlog_s
        path = f"/sessions/{self._id}/fork"
        answer = _refused(self._endpoint, await self._endpoint.request("POST", path, b'{"n":1}', patience_s))
        return self._sandbox.adopt(self._endpoint, str(answer["ids"][0]), self._options)

    async def close(self) -> None:
        """End the process and whatever it started. Safe to call twice."""
        self._finish(SandboxError("the session was closed"))
        if self._closing is not None:
            await asyncio.wait([self._closing])

    async def _ask(self, fields: str, timeout_s: float | None) -> CallResult:
        sandbox = self._sandbox
        began = time.perf_counter()
        limit_s = min(sandbox.call_timeout_s if timeout_s is None else float(timeout_s), MAX_TIMEOUT_S)
        item = f'{{"session":"{self._id}",{fields},"timeout":{limit_s!r},"queue_timeout":{sandbox.queue_timeout_s!r}}}'
        self._backlog_s += limit_s
        try:
            answer = await self._answer(item.encode("utf-8", "replace"), began)
        except asyncio.CancelledError:
            error = "the tools are gone and so is what they remembered: an earlier call was cancelled"
            self._finish(CallResult(CallStatus.STATE_LOST, error=error, state_lost=True))
            raise
        finally:
            self._backlog_s -= limit_s
        if isinstance(answer, CallResult):
            return answer
        return self._result(answer, time.perf_counter() - began)

    async def _answer(self, item: bytes, began: float) -> CallResult | Mapping[str, Any]:
        sandbox = self._sandbox
        attempts = 0
        while True:
            if isinstance(self._end, CallResult):
                return self._end
            self._raise_if_lost()
            patience_s = sandbox.queue_timeout_s + sandbox.margin_s + 1.2 * self._backlog_s
            try:
                answer: Mapping[str, Any] = _refused(self._endpoint, await self._endpoint.call(item, patience_s))
                return answer
            except UnreachableError as error:
                attempts += 1
                if attempts == _CONNECT_ATTEMPTS:
                    raise self._lose(error) from error
                await asyncio.sleep(0.1 * attempts)
            except SandboxBusy as error:
                if time.perf_counter() - began + error.retry_after_s > sandbox.queue_timeout_s:
                    raise
                await asyncio.sleep(error.retry_after_s)
            except SandboxError as error:
                raise self._lose(error) from error

    def _result(self, answer: Mapping[str, Any], duration_s: float) -> CallResult:
        match answer:
            case {
                "status": str(word), "result": result, "output": str(output), "error": None | str() as error,
                "state_lost": bool(lost),
            } if word in _STATUSES:  # fmt: skip
                return CallResult(_STATUSES[word], result, output, error, duration_s, lost)
            case {"status": "over_limit", "error": str(error)}:
                return CallResult(CallStatus.OVER_LIMIT, error=error, duration_s=duration_s)
        raise self._lose(SandboxError(f"{self.url}: an answer that cannot be understood; is it of another version?"))

    def _lose(self, error: SandboxError) -> SandboxError:
        """The session is gone through no fault of the model; what the call that noticed raises."""
        self._finish(SandboxError(f"session lost: {error}"), delete=isinstance(error, BrokenError))
        return error

    def _finish(self, end: CallResult | SandboxError, *, delete: bool = True) -> None:
        if self._end is not None:
            return
        self._end = end
        self._sandbox.forget(self)
        if delete:
            self._closing = asyncio.get_running_loop().create_task(self._delete())

    async def _delete(self) -> None:
        # Where this fails, the server ends the session when it has been unused for long enough.
        with suppress(SandboxError):
            await self._endpoint.request("DELETE", f"/sessions/{self._id}", None, _CLOSE_TIMEOUT_S)

    def _raise_if_lost(self) -> None:
        if isinstance(self._end, SandboxError):
            raise SandboxError(str(self._end))


def _refused(endpoint: Endpoint, reply: Reply) -> Any:
    """The body of an answer, unless the server refused.

    Raises:
        ConfigError: it will never do what was asked.
        SandboxBusy: it has no room now; nothing has run.
        SandboxError: it failed, or lost the session.
    """
    status, body = reply
    if status == 200 and isinstance(body, dict):
        return body
    body = body if isinstance(body, dict) else {}
    reason = body.get("error") or body.get("detail") or "an answer that is not JSON"
    if isinstance(reason, list):
        reason = "; ".join(f"{'.'.join(map(str, item['loc'][1:]))}: {item['msg']}" for item in reason)
    message = f"{endpoint.url}: {reason} (HTTP {status})"
    if status in (429, 503) and "retry_after_s" in body:
        raise SandboxBusy(message, float(body["retry_after_s"]))
    if status in (401, 403, 413, 422):
        raise ConfigError(message)
    raise SandboxError(message)
