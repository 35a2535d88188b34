"""A sandbox on this machine: one confined process per session, forked from a warm zygote.

What runs in a session may loop, crash, flood or lie: it costs that call and that session's state, nothing else. It is
not a fortress (`docs/sandbox.md` says what is missing) and serves nobody over the network. One `LocalSandbox` belongs to
one thread of one process; it may be used from several event loops there, one after another.
"""

import asyncio
import json
import os
import signal
import socket
import sys
import time
import weakref
from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recall.errors import ConfigError, SandboxError, boundary
from recall.sandbox.base import CallResult
from recall.sandbox.child import HEADER
from recall.sandbox.confine import LAYERS
from recall.sandbox.zygote import BOOTSTRAP, MESSAGE
from recall.types import CallStatus

DEFAULT_PRELOAD = ("collections", "copy", "datetime", "functools", "itertools", "math", "random", "re", "typing")
"""Modules that sessions find already imported. Others of the standard library cost the session that imports them."""

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
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 2.0
_READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """What one session, or one call of it, may use."""

    call_timeout_s: float = 5.0
    """Wall seconds of a call, where the caller gives no other; waiting for earlier calls is not counted."""
    open_timeout_s: float = 5.0
    """Wall seconds that the source may take to run; waiting for the process is not counted."""
    cpu_s: int = 30
    """CPU seconds of a session's whole life."""
    memory_bytes: int = 512 << 20
    """Address space of a session's process."""
    output_chars: int = 16_384
    """Characters of a call's printed output, and of a repr that stands in for a result."""
    result_bytes: int = 256 << 10
    """Bytes of the JSON of a result."""
    error_chars: int = 2_000
    """Characters of an error's message."""
    request_bytes: int = 1 << 20
    """Bytes of the source, and of the JSON of a call's name and arguments."""
    nofile: int = 64
    """Open descriptors of a session's process."""
    file_bytes: int = 0
    """Size of a file that it may write, where files can be written at all."""
    max_sessions: int = 1024
    """Sessions alive at once; `open` waits for room."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("call_timeout_s", 0.001, 86_400),
            ("open_timeout_s", 0.001, 86_400),
            ("cpu_s", 1, 86_400),
            ("memory_bytes", 64 << 20, 1 << 46),
            ("output_chars", 0, 1 << 24),
            ("result_bytes", 16, 1 << 26),
            ("error_chars", 16, 1 << 20),
            ("request_bytes", 1 << 10, 1 << 26),
            ("nofile", 16, 256),
            ("file_bytes", 0, 1 << 40),
            ("max_sessions", 1, 4096),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"sandbox limits: {name} must be from {low} to {high}, got {value}")

    @property
    def frame_bytes(self) -> int:
        """The longest honest reply: JSON escapes turn one character into at most six bytes."""
        return self.result_bytes + 6 * (self.output_chars + self.error_chars) + 4096


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
            return CallResult(_REPLY_STATUSES[word], result, output, error)
    return None


class LocalSession:
    """One process that holds the state of one episode's tools. Made by `LocalSandbox.open`."""

    def __init__(self, number: int, zygote: "_Zygote", ours: socket.socket) -> None:
        self._number = number
        self._zygote = zygote
        self._limits = zygote.limits
        self._socket: socket.socket | None = ours
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
        if self._began_at is None and now - self._opened_at > _START_TIMEOUT_S:
            self.fail(f"no process for the session in {_START_TIMEOUT_S:g} s")
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

    def _readable(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hung_up()
            return
        self._received += data
        while self._socket is not None and len(self._received) >= HEADER.size:
            length, request = HEADER.unpack_from(self._received)
            if not self._awaiting or request != self._request or length > self._limits.frame_bytes:
                self._violated()
                return
            end = HEADER.size + length
            if len(self._received) < end:
                return
            body = bytes(self._received[HEADER.size : end])
            del self._received[:end]
            self._accept(body)

    def _accept(self, body: bytes) -> None:
        if not self._loaded and not body:
            self._began_at = time.monotonic()
            return
        reply = decode_reply(body)
        if reply is None:
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


class _Zygote:
    """The parent's side of one zygote process."""

    def __init__(self, limits: SandboxLimits, preload: Sequence[str]) -> None:
        self.limits = limits
        self.layers: tuple[str, ...] | None = None
        """The layers of isolation that hold; None until the zygote is ready."""
        self.dead = False
        self.sessions: dict[int, LocalSession] = {}
        """Those whose process is not known to be gone."""
        self._count = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsent: deque[tuple[bytes, socket.socket | None]] = deque()
        self._watchers: list[asyncio.Future[None]] = []
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        with theirs:
            self.pid = _spawn(theirs, limits, preload)
        self._finalizer = weakref.finalize(self, _end_process, self.pid, os.getpid())

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve from `loop` from now on."""
        if self._loop is loop or self.dead:
            return
        self._detach()
        self._loop = loop
        loop.add_reader(self._socket.fileno(), self._readable)
        if self._unsent:
            loop.add_writer(self._socket.fileno(), self._writable)

    async def change(self) -> None:
        """Wait until `layers`, `sessions` or `dead` may have changed."""
        watcher = asyncio.get_running_loop().create_future()
        self._watchers.append(watcher)
        await watcher

    def fork(self) -> LocalSession:
        """Ask for a child; the session is there at once, its process follows."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._count += 1
        session = LocalSession(self._count, self, ours)
        self.sessions[self._count] = session
        self._send(MESSAGE.pack(b"F", self._count, 0), theirs)
        return session

    def kill(self, number: int) -> None:
        """Kill a child, if it lives."""
        if number in self.sessions:
            self._send(MESSAGE.pack(b"K", number, 0), None)

    async def stop(self) -> None:
        """End the zygote and every child, and wait until they are gone."""
        self._died("the sandbox was closed")
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while not _reaped(self.pid):
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            await asyncio.sleep(0.001)
        self._finalizer.detach()

    def _detach(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
        self._loop = None

    def _send(self, message: bytes, descriptor: socket.socket | None) -> None:
        if self.dead:
            return
        self._unsent.append((message, descriptor))
        if len(self._unsent) == 1:
            self._flush()
            if self._unsent and self._loop is not None:
                self._loop.add_writer(self._socket.fileno(), self._writable)

    def _flush(self) -> None:
        while self._unsent:
            message, descriptor = self._unsent[0]
            rights = [] if descriptor is None else [array("i", [descriptor.fileno()])]
            try:
                self._socket.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds) for fds in rights])
            except BlockingIOError:
                return
            except OSError:
                self._died("the zygote is gone")
                return
            if descriptor is not None:
                descriptor.close()
            self._unsent.popleft()

    def _writable(self) -> None:
        self._flush()
        if not self._unsent and self._loop is not None:
            self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        while not self.dead:
            try:
                message = self._socket.recv(MESSAGE.size)
            except BlockingIOError:
                break
            except OSError:
                message = b""
            if not message:
                self._died("the zygote died")
                break
            kind, number, value = MESSAGE.unpack(message)
            if kind == b"R":
                self.layers = tuple(layer for bit, layer in enumerate(LAYERS) if value >> bit & 1)
            elif (session := self.sessions.pop(number, None)) is not None:
                if kind == b"X":
                    session.ended(value)
                else:
                    session.fail("the zygote could not fork")
        self._tell()

    def _tell(self) -> None:
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done() and not watcher.get_loop().is_closed():
                watcher.set_result(None)

    def _died(self, reason: str) -> None:
        if self.dead:
            return
        self.dead = True
        self._detach()
        self._socket.close()
        for _, descriptor in self._unsent:
            if descriptor is not None:
                descriptor.close()
        self._unsent.clear()
        sessions, self.sessions = self.sessions, {}
        for session in sessions.values():
            session.fail(reason)
        self._tell()


def _spawn(control: socket.socket, limits: SandboxLimits, preload: Sequence[str]) -> int:
    if sys.platform != "linux":
        raise SandboxError("the local sandbox needs Linux")
    settings = {
        "parent": os.getpid(),
        "preload": list(preload),
        "reply": {
            "output_chars": limits.output_chars,
            "result_bytes": limits.result_bytes,
            "error_chars": limits.error_chars,
        },
        "confinement": {
            "cpu_s": limits.cpu_s,
            "memory_bytes": limits.memory_bytes,
            "file_bytes": limits.file_bytes,
            "nofile": limits.nofile,
        },
    }
    # Not `-I`, which would ignore the fixed hash seed: with the environment given here, the other flags are as strict,
    # and the order of a set of strings is the same in every session and every run.
    flags = ["-P", "-s", "-S", "-B", "-X", "utf8"]
    arguments = [sys.executable, *flags, "-c", BOOTSTRAP, str(Path(__file__).parent), json.dumps(settings)]
    with boundary(SandboxError, "starting the zygote", OSError):
        return os.posix_spawn(
            sys.executable,
            arguments,
            {"PYTHONHASHSEED": "0"},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, control.fileno(), 3),
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            ],
            setsid=True,
        )


def _reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _end_process(pid: int, owner: int) -> None:
    """End a zygote that nobody stopped; its children die with it. Not from a fork of the process that it belongs to."""
    if os.getpid() == owner and not _reaped(pid):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


class LocalSandbox:
    """Opens sessions in confined processes on this machine. See `recall.sandbox.base.Sandbox`.

    Nothing is started before the first `open`. A zygote that died is replaced by the next one.
    """

    def __init__(self, limits: SandboxLimits | None = None, *, preload: Sequence[str] = DEFAULT_PRELOAD) -> None:
        """Take the limits of a session, and the standard-library modules that sessions find imported.

        Raises:
            ConfigError: `preload` names something outside the standard library.
        """
        self._limits = limits or SandboxLimits()
        self._preload = tuple(preload)
        self._zygote: _Zygote | None = None
        self._closed = False
        foreign = [name for name in self._preload if name.partition(".")[0] not in sys.stdlib_module_names]
        if foreign:
            raise ConfigError(f"sandbox preload: {foreign[0]!r} is not a module of the standard library")

    @property
    def isolation(self) -> tuple[str, ...]:
        """The layers that hold on this host besides the process and its limits; empty before the first `open`."""
        return (self._zygote and self._zygote.layers) or ()

    async def open(self, source: str) -> LocalSession:
        """Return a session at once; its process starts and runs `source` meanwhile. See `recall.sandbox.base`."""
        zygote = await self._running()
        while len(zygote.sessions) >= self._limits.max_sessions:
            await zygote.change()
            zygote = await self._running()
        with boundary(SandboxError, "opening a session", OSError):
            session = zygote.fork()
        session.load(source.encode("utf-8", "replace"), asyncio.get_running_loop())
        return session

    async def close(self) -> None:
        """End every session and the zygote, and wait until their processes are gone. Safe to call twice."""
        self._closed = True
        zygote, self._zygote = self._zygote, None
        if zygote is not None:
            await zygote.stop()

    async def _running(self) -> _Zygote:
        if self._zygote is not None and self._zygote.dead:
            dead, self._zygote = self._zygote, None
            await dead.stop()
        if self._closed:
            raise SandboxError("the sandbox is closed")
        if self._zygote is None:
            self._zygote = _Zygote(self._limits, self._preload)
        zygote = self._zygote
        zygote.attach(asyncio.get_running_loop())
        if zygote.layers is None:
            with boundary(SandboxError, "starting the zygote", TimeoutError):
                async with asyncio.timeout(_START_TIMEOUT_S):
                    while zygote.layers is None and not zygote.dead:
                        await zygote.change()
        if zygote.dead or zygote.layers is None:
            raise SandboxError("the zygote ended before it was ready; its own words are on standard error")
        if "processes" not in zygote.layers:
            raise SandboxError("this host does not let root limit the processes of a tool; run as another user")
        return zygote
