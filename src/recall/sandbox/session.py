"""The parent's side of one session: requests out, replies in, and what it comes to when there is no reply.

Every byte that comes in may have been written by a tool. A frame is measured before it is kept, parsed as JSON and
nothing else, and checked; what is not an answer to the request in flight ends the session.
"""

import asyncio
import json
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from recall.errors import SandboxError
from recall.sandbox.base import CallResult
from recall.sandbox.limits import SandboxLimits
from recall.sandbox.wire import HEADER
from recall.types import CallStatus

START_TIMEOUT_S = 60.0
"""How long the zygote may take to start, or to fork, before it is given up."""
_READ_BYTES = 1 << 16
_NOTE_CHARS = 64
"""What an honest child may add to a text that it cut."""
_REPLY_STATUSES = {
    str(status): status
    for status in (
        CallStatus.OK,
        CallStatus.EXCEPTION,
        CallStatus.OVER_LIMIT,
        CallStatus.UNKNOWN_TOOL,
        CallStatus.BAD_ARGUMENTS,
    )
}


class Zygote(Protocol):
    """What a session needs of the process that forked its own."""

    limits: SandboxLimits

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Report the ends of processes from `loop` from now on."""

    def kill(self, number: int) -> None:
        """Kill the process of a session, if it lives."""


def _no_constant(_: str) -> None:
    """NaN and infinities are not JSON; an honest child sends none."""


_decode = json.JSONDecoder(parse_constant=_no_constant).decode


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


def decode_reply(body: bytes) -> CallResult | None:
    """The reply in a frame, or None where it is not one. The body may be anything: a tool can have written it."""
    try:
        reply = _decode(body.decode("utf-8", "replace"))
        # Only a dishonest child escapes surrogates, and text that holds one cannot be encoded later on.
        if b"\\ud" in body or b"\\uD" in body:
            reply = _without_surrogates(reply)
    except (ValueError, RecursionError):
        return None
    match reply:
        case [str(word), result, str(output), None | str() as error] if word in _REPLY_STATUSES:
            status = _REPLY_STATUSES[word]
            if (status is CallStatus.OK) == (error is None) and (error is None or result is None):
                return CallResult(status, result, output, error)
    return None


class LocalSession:
    """One process that holds the state of one episode's tools. Made by `LocalSandbox.open`."""

    def __init__(self, number: int, zygote: Zygote, ours: socket.socket | None) -> None:
        self._number = number
        self._zygote = zygote
        self._limits = zygote.limits
        self._socket = ours
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._turn = asyncio.Lock()
        self._received = bytearray()
        self._unsent = bytearray()
        self._request = 0
        self._awaiting = True
        self._loaded = False
        self._opened_at = time.monotonic()
        self._began_at: float | None = None
        self._waiter: asyncio.Future[CallResult] | None = None
        self._end: CallResult | SandboxError | None = None
        """What every further call comes to; None while there is a process to ask, or its end is not explained yet."""

    @classmethod
    def refused(cls, zygote: Zygote, reason: str) -> "LocalSession":
        """A session without a process, every call of which reports that the source cannot be loaded."""
        session = cls(0, zygote, None)
        session._unloadable(reason)
        return session

    def load(self, source: bytes, loop: asyncio.AbstractEventLoop) -> None:
        """Send the source. Returns at once; the first call waits until it has run."""
        self._attach(loop)
        self._send(source)

    async def call(self, name: str, arguments: Mapping[str, Any], *, timeout_s: float | None = None) -> CallResult:
        """Call the function `name` with keyword `arguments`; see `recall.sandbox.base.Session.call`.

        A cancelled call ends the process, because nobody knows how far the tool got.
        """
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        self._attach(loop)
        async with self._turn:
            limit = self._limits.call_timeout_s if timeout_s is None else timeout_s
            result = await self._call(loop, name, arguments, limit)
        return replace(result, duration_s=time.perf_counter() - began)

    async def close(self) -> None:
        """End the process. Safe to call twice; a call in flight raises SandboxError."""
        self.fail("the session was closed")

    def fail(self, reason: str) -> None:
        """End the process through no fault of the model: the call in flight and all further ones raise SandboxError."""
        if not isinstance(self._end, SandboxError):
            self._finish(SandboxError(reason), SandboxError(reason))

    def ended(self, exit_code: int) -> None:
        """The process is gone, as the zygote reports: tell the call in flight why, if it does not know yet."""
        while self._readable():
            continue
        how = "the process of the tools ended"
        if exit_code == -signal.SIGXCPU:
            how = f"the tools used more than {self._limits.cpu_s} s of CPU time"
        elif exit_code < 0 and exit_code != -signal.SIGKILL:
            how += f" by {signal.strsignal(-exit_code)}"
        elif exit_code >= 0:
            how += f" with exit status {exit_code}"
        if self._began_at is None:
            self.fail("the process of the session ended before it began")
        elif self._loaded:
            self._lose(CallResult(CallStatus.CRASHED, error=f"{how} during the call, and what they remembered is lost"))
        elif self._end is None:
            self._unloadable(how)

    async def _call(
        self, loop: asyncio.AbstractEventLoop, name: str, arguments: Mapping[str, Any], timeout_s: float
    ) -> CallResult:
        if self._end is None and not self._loaded:
            await self._answer(loop)
        if isinstance(self._end, SandboxError):
            raise SandboxError(str(self._end))
        if self._end is not None:
            return self._end
        try:
            request = json.dumps([name, dict(arguments)], separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError) as error:
            return CallResult(CallStatus.BAD_ARGUMENTS, error=f"the arguments are not JSON: {error}")
        if len(request) > self._limits.request_bytes:
            message = f"the arguments are {len(request)} bytes of JSON, the limit is {self._limits.request_bytes}"
            return CallResult(CallStatus.BAD_ARGUMENTS, error=message)
        self._request = self._request % 0xFFFFFFFF + 1
        self._awaiting = True
        self._timer = loop.call_later(timeout_s, self._call_overdue, timeout_s)
        self._send(request)
        return await self._answer(loop)

    async def _answer(self, loop: asyncio.AbstractEventLoop) -> CallResult:
        self._waiter = loop.create_future()
        try:
            return await self._waiter
        except asyncio.CancelledError:
            self._lose(None, "an earlier call was cancelled")
            raise
        finally:
            self._waiter = None

    def _attach(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is loop:
            return
        if self._loop is not None:
            # A lock that was waited for belongs to the loop that it was waited for in.
            self._turn = asyncio.Lock()
            self._zygote.attach(loop)
        self._loop = loop
        if self._socket is None:
            return
        loop.add_reader(self._socket.fileno(), self._readable)
        if self._unsent:
            loop.add_writer(self._socket.fileno(), self._writable)
        if not self._loaded:
            self._timer = loop.call_later(self._limits.open_timeout_s, self._load_overdue)

    def _release(self) -> None:
        if self._socket is None:
            return
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._socket = None
        self._zygote.kill(self._number)

    def _settle(self, outcome: CallResult | SandboxError | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._awaiting = False
        if self._waiter is None or self._waiter.done() or outcome is None:
            return
        if isinstance(outcome, SandboxError):
            self._waiter.set_exception(outcome)
        else:
            self._waiter.set_result(outcome)

    def _finish(self, now: CallResult | SandboxError | None, later: CallResult | SandboxError) -> None:
        """End the process: the call in flight comes to `now`, and every further one to `later`."""
        self._end = later
        self._release()
        self._settle(now)

    def _lose(self, now: CallResult | None, reason: str = "an earlier call ended their process") -> None:
        later = CallResult(CallStatus.STATE_LOST, error=f"the tools are gone and so is what they remembered: {reason}")
        self._finish(now, self._end or later)

    def _unloadable(self, reason: str) -> None:
        failure = CallResult(CallStatus.EXCEPTION, error=f"the tools could not be loaded: {reason}")
        self._finish(failure, failure)

    def _call_overdue(self, timeout_s: float) -> None:
        # A loop that was busy for longer than the time-out finds an answer and an overdue timer together.
        self._readable()
        if self._awaiting:
            message = f"the call took longer than {timeout_s:g} s and was stopped; what the tools remembered is lost"
            self._lose(CallResult(CallStatus.TIMEOUT, error=message), "an earlier call took too long")

    def _load_overdue(self) -> None:
        self._readable()
        if self._loaded or self._end is not None or self._loop is None:
            return
        now, limit = time.monotonic(), self._limits.open_timeout_s
        if self._began_at is None and now - self._opened_at > START_TIMEOUT_S:
            self.fail(f"no process for the session in {START_TIMEOUT_S:g} s")
        elif (left := limit if self._began_at is None else self._began_at + limit - now) > 0:
            self._timer = self._loop.call_later(left, self._load_overdue)
        else:
            self._unloadable(f"they took longer than {limit:g} s")

    def _send(self, body: bytes) -> None:
        self._unsent += HEADER.pack(len(body), self._request) + body
        self._flush()
        if self._unsent and self._socket is not None and self._loop is not None:
            self._loop.add_writer(self._socket.fileno(), self._writable)

    def _flush(self) -> None:
        if self._socket is None:
            return
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            # The process is gone; reading finds that out, and why.
            sent = len(self._unsent)
        del self._unsent[:sent]

    def _writable(self) -> None:
        self._flush()
        if not self._unsent and self._socket is not None and self._loop is not None:
            self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> bool:
        """Take in what has arrived; False when there was nothing."""
        if self._socket is None:
            return False
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._hung_up()
            return False
        self._received += data
        while self._socket is not None and self._received:
            if not self._awaiting:
                self._violated()
                break
            if len(self._received) < HEADER.size:
                break
            length, request = HEADER.unpack_from(self._received)
            if request != self._request or length > self._limits.frame_bytes:
                self._violated()
                break
            end = HEADER.size + length
            if len(self._received) < end:
                break
            body = bytes(self._received[HEADER.size : end])
            del self._received[:end]
            self._accept(body)
        return True

    def _accept(self, body: bytes) -> None:
        if not self._loaded and not body:
            self._began_at = time.monotonic()
            return
        reply = decode_reply(body)
        limits = self._limits
        if (
            reply is None
            or len(reply.output) > limits.output_chars + _NOTE_CHARS
            or len(reply.error or "") > limits.error_chars + _NOTE_CHARS
        ):
            self._violated()
        elif self._loaded:
            self._settle(reply)
        elif reply.status is CallStatus.OK:
            self._loaded = True
            self._settle(reply)
        else:
            self._unloadable(reply.error or "no reason given")

    def _violated(self) -> None:
        if self._loaded:
            message = "the tools wrote to the sandbox's own channel; they were stopped and what they remembered is lost"
            self._lose(CallResult(CallStatus.CRASHED, error=message))
        else:
            self._unloadable("they wrote to the sandbox's own channel")

    def _hung_up(self) -> None:
        """The process closed its end. It is about to be reaped, or is killed now; `ended` explains which."""
        if self._loaded and not self._awaiting:
            self._lose(None)
        else:
            self._release()
