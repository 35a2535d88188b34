"""The parent's side of one session: requests out, replies in, and what it comes to when there is no reply.

Every byte that comes in may have been written by a tool. A frame is measured before it is kept, parsed as JSON and
nothing else, and checked; what is not an answer to the request in flight ends the session. Time is kept here: a call
that takes too long is interrupted first, which leaves the state, and then killed.
"""

import asyncio
import socket
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from recall.errors import SandboxError, boundary
from recall.sandbox.base import DEFAULT_OPTIONS, CallResult, SessionOptions
from recall.sandbox.channel import Channel, FrameError, Frames
from recall.sandbox.codes import Codes
from recall.sandbox.deadline import Deadline
from recall.sandbox.decoding import Reply, decode_reply, how_ended
from recall.sandbox.inside.json_text import encoder
from recall.sandbox.inside.wire import ASK, CODE, CODE_BYTES, LAST_REQUEST
from recall.sandbox.limits import SandboxLimits
from recall.sandbox.places import Places
from recall.sandbox.process import Family, Process, Signals
from recall.sandbox.stats import SandboxStats
from recall.types import CallStatus

START_TIMEOUT_S = 60.0
"""How long the zygote may take to start, or to fork, before it is given up."""
_LEAST_GRACE_S = 0.1
_GRACE_SHARE = 0.1
_NOTE_CHARS = 64
"""What an honest child may add to a text that it cut."""


_encode = encoder()


class Web(Protocol):
    """Performs the web requests of tools."""

    async def answer(self, body: bytes, *, timeout_s: float) -> bytes:
        """The answer to a request that a tool made, whatever it is."""

    async def close(self) -> None:
        """Give up what is under way. Safe to call twice."""


class Host(Signals, Protocol):
    """What a session needs of whatever made its process."""

    limits: SandboxLimits
    stats: SandboxStats
    web: Web | None
    codes: Codes | None
    """Of sources that came before; None where each process compiles its own."""

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Report the ends of processes from `loop` from now on."""

    def add(self, copy: "LocalSession") -> None:
        """Count a copy of a session among the living."""

    def drop(self, session: "LocalSession") -> None:
        """A session has ended, or is about to."""


class LocalSession:
    """One process that holds the state of one episode's tools. Made by `LocalSandbox.open`."""

    def __init__(
        self,
        host: Host,
        family: Family,
        ours: socket.socket,
        options: SessionOptions = DEFAULT_OPTIONS,
        *,
        copy: bool = False,
    ) -> None:
        """A session around our end of a socket whose other end a process has, or is about to have.

        Args:
            host: made the process.
            family: the sessions that share its process group.
            ours: our end.
            options: as asked for.
            copy: whether the process is a copy of one that has its source already.
        """
        self._host = host
        self._limits = host.limits
        self._options = options
        self._copies = options.forkable or options.transactional
        self._process = Process(family, copies=self._copies)
        self._channel: Channel | None = Channel(ours, self._readable, from_whom=self._copies)
        self._frames = Frames(self._limits.frame_bytes)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._deadline = Deadline()
        self._turn = Places(1)
        self._request = 0
        self._asked_at = 0.0
        """When the request in flight was made, by `time.monotonic`."""
        self._awaiting = True
        self._interrupted = False
        self._served = False
        """Whether a process has said that it serves the request in flight."""
        self._loaded = copy
        self._compiling: str | None = None
        """The source whose code the process has to tell before it runs it."""
        self._opened_at = time.monotonic()
        self._began_at: float | None = None
        self._waiter: asyncio.Future[CallResult] | None = None
        self._behind: float | None = None
        """The time-out of the request that was sent right behind the source; None when there is none."""
        self._errand: asyncio.Task[None] | None = None
        self._end: CallResult | SandboxError | None = None
        """What every further call comes to; None while there is a process to ask, or its end is not explained yet."""

    @property
    def gone(self) -> bool:
        """Whether there is no process to ask any more."""
        return self._end is not None or self._channel is None

    def load(self, source: str, options: SessionOptions, loop: asyncio.AbstractEventLoop) -> None:
        """Send the source. Returns at once; the first call waits until it has run."""
        self._options = options
        self.attach(loop)
        codes = self._host.codes if self._limits.frame_bytes > CODE_BYTES else None
        code = None if codes is None else codes.get(source)
        self._compiling = source if codes is not None and code is None else None
        shown, tell = source if code is None else None, self._compiling is not None
        body = _encode(["load", shown, options.transactional, options.seed, code, tell]).encode()
        if len(body) > self._limits.request_bytes:
            return self._unloadable(f"{len(body)} bytes, the limit is {self._limits.request_bytes}")
        self._opened_at = time.monotonic()
        self._deadline.set(self._limits.open_timeout_s, self._load_overdue)
        return self._send(0, body)

    def call(
        self, name: str, arguments: Mapping[str, Any], *, timeout_s: float | None = None
    ) -> Coroutine[Any, Any, CallResult]:
        """Call the function `name` with keyword `arguments`; see `recall.sandbox.base.Session.call`.

        A cancelled call ends the process, because nobody knows how far the tool got.
        """
        return self.request(["call", name, arguments], timeout_s=timeout_s)

    def evaluate(self, expression: str, *, timeout_s: float | None = None) -> Coroutine[Any, Any, CallResult]:
        """The value of a Python expression over the names of the source, such as `f(a=1)`; as `call` otherwise."""
        return self.request(["eval", expression], timeout_s=timeout_s)

    async def request(self, request: Sequence[Any], *, timeout_s: float | None = None) -> CallResult:
        """Have the process answer a request of `recall.sandbox.inside.child`, and say what came of it."""
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        if loop is not self._loop:
            self.attach(loop)
        turn = self._turn
        if not turn.take_now():
            await turn.take()
        try:
            self._asked_at = began
            limit_s = self._limits.call_timeout_s if timeout_s is None else timeout_s
            result = await self._exchange(loop, request, limit_s)
        finally:
            turn.release()
        self._host.stats.calls[result.status] += 1
        # What a process replied says already how long it took.
        return result if result.duration_s else replace(result, duration_s=time.monotonic() - began)

    async def fork(self) -> "LocalSession":
        """A copy of the session as it is now; see `recall.sandbox.base.Forkable`."""
        if not self._copies:
            raise SandboxError("the session was not opened as forkable")
        loop = asyncio.get_running_loop()
        self.attach(loop)
        turn = self._turn
        await turn.take()
        try:
            answer = await self._exchange(loop, ["fork"], self._limits.call_timeout_s)
            if answer.status is not CallStatus.OK or self._channel is None:
                raise SandboxError(f"the session cannot be copied: {answer.error}")
            with boundary(SandboxError, "copying a session", OSError):
                ours, theirs = socket.socketpair()
                copy = LocalSession(self._host, self._process.family, ours, self._options, copy=True)
                with theirs:
                    self._channel.pass_on(theirs.fileno())
        finally:
            turn.release()
        self._host.add(copy)
        await copy.started(loop)
        return copy

    async def started(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until the process of a copy is there.

        Raises:
            SandboxError: it never was.
        """
        self.attach(loop)
        self._deadline.set(START_TIMEOUT_S, lambda: self.fail("the copy of the session did not begin"))
        await self._answer(loop)
        if isinstance(self._end, SandboxError):
            raise self._end

    async def close(self) -> None:
        """End the process. Safe to call twice; a call in flight raises SandboxError."""
        self.fail("the session was closed", "closed")

    def fail(self, reason: str, kill: str = "fault") -> None:
        """End the process through no fault of the model: the call in flight and all further ones raise SandboxError."""
        if not isinstance(self._end, SandboxError):
            self._finish(SandboxError(reason), SandboxError(reason), kill)

    def ended(self, exit_code: int | None) -> None:
        """The process is gone, as the zygote reports: tell the call in flight why, if it does not know yet."""
        while self._readable():
            continue
        how = how_ended(exit_code, self._limits.cpu_s)
        if self._began_at is None:
            self.fail("the process of the session ended before it began")
        elif self._loaded:
            error = f"{how} during the call, and what they remembered is lost"
            self._lose(CallResult(CallStatus.CRASHED, error=error, state_lost=True), kill="crashed")
        elif self._end is None:
            self._unloadable(how)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Be served by `loop` from now on."""
        if self._loop is loop:
            return
        if self._loop is not None:
            # Whoever waited, waited in the other loop.
            self._turn = Places(1)
            self._host.attach(loop)
        self._loop = loop
        if self._channel is None:
            return
        self._channel.attach(loop)
        if self._deadline.attach(loop) and not self._loaded:
            self._deadline.set(self._limits.open_timeout_s, self._load_overdue)

    async def _exchange(self, loop: asyncio.AbstractEventLoop, request: Sequence[Any], timeout_s: float) -> CallResult:
        body = self._encoded(request)
        if self._end is None and not self._loaded:
            if isinstance(body, bytes):
                # Right behind the source. Its time begins once that has run; see `_accept`.
                self._behind = timeout_s
                self._send(self._request + 1, body)
                return await self._answer(loop)
            await self._answer(loop)
        if isinstance(self._end, SandboxError):
            raise SandboxError(str(self._end))
        if self._end is not None:
            return self._end
        if not isinstance(body, bytes):
            return body
        self._expect(timeout_s)
        self._send(self._request, body)
        return await self._answer(loop)

    def _encoded(self, request: Sequence[Any]) -> bytes | CallResult:
        try:
            body = _encode(request).encode()
        except (TypeError, ValueError, RecursionError) as error:
            return CallResult(CallStatus.BAD_ARGUMENTS, error=f"the arguments are not JSON: {error}")
        if len(body) > self._limits.request_bytes:
            message = f"the arguments are {len(body)} bytes of JSON, the limit is {self._limits.request_bytes}"
            return CallResult(CallStatus.BAD_ARGUMENTS, error=message)
        return body

    def _expect(self, timeout_s: float) -> None:
        """The next request is the one whose answer is awaited, from now on and for so long."""
        self._request = self._request % LAST_REQUEST + 1
        self._awaiting, self._interrupted, self._served = True, False, False
        self._process.go_on()
        self._deadline.set(timeout_s, lambda: self._overdue(timeout_s))

    async def _answer(self, loop: asyncio.AbstractEventLoop) -> CallResult:
        self._waiter = loop.create_future()
        try:
            return await self._waiter
        except asyncio.CancelledError:
            self._lose(None, "an earlier call was cancelled", kill="cancelled")
            raise
        finally:
            self._waiter = None

    def _send(self, number: int, body: bytes) -> None:
        if self._channel is not None:
            self._channel.send(number, body)

    # --- what comes in

    def _readable(self) -> bool:
        """Take in what has arrived; False when there was nothing."""
        try:
            arrived = None if self._channel is None else self._channel.receive()
            if arrived is None:
                return False
            data, sender = arrived
            if not data:
                self._hung_up()
                return False
            if sender is not None:
                self._process.heard(sender)
            for number, body in self._frames.take(data):
                if not self._accept(number, body):
                    self._violated()
                    return True
        except FrameError:
            self._violated()
            return True
        if len(self._frames) and not self._awaiting:
            self._violated()
        return True

    def _accept(self, number: int, body: bytes) -> bool:
        """Take a frame; False where an honest process would not have sent it."""
        if not self._awaiting or number & LAST_REQUEST != self._request:
            return False
        if number & ASK:
            return self._asked(body)
        if not body:
            return self._began()
        if body.startswith(CODE):
            return self._compiled(body[len(CODE) :])
        reply = decode_reply(body, time.monotonic() - self._asked_at)
        if reply is None or not self._within_limits(reply.result):
            return False
        if self._loaded:
            return self._replied(reply)
        if reply.result.status is CallStatus.OK:
            if self._compiling is not None:
                return False  # an honest process tells the code first
            self._loaded = True
            if self._behind is None:
                self._settle(reply.result)
            else:
                self._expect(self._behind)
                self._behind = None
        else:
            self._unloadable(reply.result.error or "no reason given")
        return True

    def _began(self) -> bool:
        self._process.spoke()
        self._served = True
        if self._interrupted:
            self._process.kill_copy()
        if self._began_at is None:
            self._began_at = time.monotonic()
            if self._loaded:
                self._settle(CallResult(CallStatus.OK))
            return True
        return self._options.transactional

    def _compiled(self, code: bytes) -> bool:
        """Take what the source compiled to, once, before the source could say anything."""
        source, self._compiling = self._compiling, None
        if source is None or self._host.codes is None:
            return False
        self._host.codes.keep(source, code)
        return True

    def _replied(self, reply: Reply) -> bool:
        result = reply.result
        if reply.rolled_back:
            if not self._options.transactional:
                return False
            kept = "what they remember is as it was before the call"
            status = CallStatus.TIMEOUT if self._interrupted else CallStatus.CRASHED
            error = (
                f"the call took too long and was stopped; {kept}" if self._interrupted else f"{result.error}; {kept}"
            )
            result = CallResult(status, error=error)
        elif result.status is CallStatus.TIMEOUT:
            result = replace(result, error="the call took too long and was stopped; what the tools remember stays")
        if reply.busy:
            self._process.stop()
        self._settle(result)
        return True

    def _within_limits(self, result: CallResult) -> bool:
        limits = self._limits
        return (
            len(result.output) <= limits.output_chars + _NOTE_CHARS
            and len(result.error or "") <= limits.error_chars + _NOTE_CHARS
        )

    def _asked(self, body: bytes) -> bool:
        """A tool wants something of the web."""
        if self._host.web is None or self._errand is not None or self._loop is None:
            return False
        self._errand = self._loop.create_task(self._run_errand(self._host.web, self._request, body))
        return True

    async def _run_errand(self, web: Web, request: int, body: bytes) -> None:
        left = self._deadline.left_s if self._loaded else self._limits.open_timeout_s
        answer = await web.answer(body, timeout_s=max(left, 0.001))
        self._errand = None
        if self._channel is not None and self._awaiting and self._request == request:
            self._channel.send(ASK | request, answer)

    def _hung_up(self) -> None:
        """The process closed its end. It is about to be reaped, or is killed now; `ended` explains which."""
        if self._loaded and not self._awaiting:
            self._lose(None, kill="crashed")
            return
        self._release("crashed")
        if self._copies:
            # Its end is not reported while a copy of it is left.
            self.ended(None)

    # --- time

    def _overdue(self, timeout_s: float) -> None:
        # A loop that was busy for longer than the time-out finds an answer and an overdue timer together.
        self._readable()
        if not self._awaiting:
            return
        self._interrupted = True
        self._deadline.set(max(_LEAST_GRACE_S, _GRACE_SHARE * timeout_s), lambda: self._long_overdue(timeout_s))
        if self._options.transactional:
            # The process that spoke last is that of the state, until the copy that serves the call has said so.
            if self._served:
                self._process.kill_copy()
        else:
            self._process.interrupt()

    def _long_overdue(self, timeout_s: float) -> None:
        self._readable()
        if self._awaiting:
            message = f"the call took longer than {timeout_s:g} s and was stopped; what the tools remembered is lost"
            outcome = CallResult(CallStatus.TIMEOUT, error=message, state_lost=True)
            self._lose(outcome, "an earlier call took too long", kill="timeout")

    def _load_overdue(self) -> None:
        self._readable()
        if self._loaded or self._end is not None or self._loop is None:
            return
        now, limit = time.monotonic(), self._limits.open_timeout_s
        if self._began_at is None and now - self._opened_at > START_TIMEOUT_S:
            self.fail(f"no process for the session in {START_TIMEOUT_S:g} s")
        elif (left := limit if self._began_at is None else max(self._began_at, self._opened_at) + limit - now) > 0:
            self._deadline.set(left, self._load_overdue)
        else:
            self._unloadable(f"they took longer than {limit:g} s", kill="timeout")

    # --- ends

    def _settle(self, outcome: CallResult | SandboxError | None) -> None:
        self._deadline.clear()
        self._awaiting = False
        if self._waiter is None or self._waiter.done() or outcome is None:
            return
        if isinstance(outcome, SandboxError):
            self._waiter.set_exception(outcome)
        else:
            self._waiter.set_result(outcome)

    def _finish(self, now: CallResult | SandboxError | None, later: CallResult | SandboxError, kill: str) -> None:
        """End the process: the call in flight comes to `now`, and every further one to `later`."""
        self._end = later
        self._release(kill)
        self._settle(now)

    def _release(self, kill: str) -> None:
        if self._errand is not None:
            self._errand.cancel()
            self._errand = None
        self._deadline.stop()
        if self._channel is None:
            return
        self._channel.close()
        self._channel = None
        self._host.stats.kills[kill] += 1
        self._process.end()
        self._host.drop(self)

    def _lose(self, now: CallResult | None, reason: str = "an earlier call ended their process", *, kill: str) -> None:
        error = f"the tools are gone and so is what they remembered: {reason}"
        later = CallResult(CallStatus.STATE_LOST, error=error, state_lost=True)
        self._finish(now, self._end or later, kill)

    def _unloadable(self, reason: str, *, kill: str = "unloadable") -> None:
        failure = CallResult(CallStatus.EXCEPTION, error=f"the tools could not be loaded: {reason}")
        self._finish(failure, failure, kill)

    def _violated(self) -> None:
        if self._loaded:
            message = "the tools wrote to the sandbox's own channel; they were stopped and what they remembered is lost"
            self._lose(CallResult(CallStatus.CRASHED, error=message, state_lost=True), kill="violation")
        else:
            self._unloadable("they wrote to the sandbox's own channel", kill="violation")
