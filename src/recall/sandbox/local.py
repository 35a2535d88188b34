"""A sandbox on this machine: one confined process per session, forked from a warm zygote.

What runs in a session may loop, crash, flood or lie: it costs that call and that session's state, nothing else. It is
not a fortress (`docs/sandbox.md` says what is missing) and serves nobody over the network. One `LocalSandbox` belongs
to one thread of one process; it may be used from several event loops there, one after another.
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
from collections.abc import Sequence
from pathlib import Path

from recall.errors import ConfigError, SandboxError, boundary
from recall.sandbox.limits import SandboxLimits
from recall.sandbox.session import START_TIMEOUT_S, LocalSession
from recall.sandbox.wire import BOOTSTRAP, LAYERS, MESSAGE

__all__ = ["DEFAULT_PRELOAD", "LocalSandbox", "LocalSession", "SandboxLimits"]

DEFAULT_PRELOAD = ("collections", "copy", "datetime", "functools", "itertools", "math", "random", "re", "typing")
"""Modules that sessions find already imported. Others of the standard library cost the session that imports them."""

_STOP_TIMEOUT_S = 2.0


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

    @property
    def pid(self) -> int | None:
        """The process id of the zygote; None before the first `open`."""
        return None if self._zygote is None else self._zygote.pid

    async def open(self, source: str) -> LocalSession:
        """Return a session at once; its process starts and runs `source` meanwhile. See `recall.sandbox.base`."""
        zygote = await self._running()
        while len(zygote.sessions) >= self._limits.max_sessions:
            await zygote.change()
            zygote = await self._running()
        text = source.encode("utf-8", "replace")
        if len(text) > self._limits.request_bytes:
            return LocalSession.refused(zygote, f"{len(text)} bytes, the limit is {self._limits.request_bytes}")
        with boundary(SandboxError, "opening a session", OSError):
            session = zygote.fork()
        session.load(text, asyncio.get_running_loop())
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
                async with asyncio.timeout(START_TIMEOUT_S):
                    while zygote.layers is None and not zygote.dead:
                        await zygote.change()
        if zygote.dead or zygote.layers is None:
            raise SandboxError("the zygote ended before it was ready; its own words are on standard error")
        if "processes" not in zygote.layers:
            raise SandboxError("this host does not let root limit the processes of a tool; run as another user")
        return zygote
