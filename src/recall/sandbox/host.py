"""The parent's side of one zygote process: asks it for children, hears of their ends, and notices its own."""

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
from collections.abc import Mapping
from typing import Any

from recall.errors import SandboxError, boundary
from recall.sandbox.base import SessionOptions
from recall.sandbox.channel import name_senders
from recall.sandbox.codes import Codes
from recall.sandbox.inside.isolation import ELSEWHERE, LAYERS
from recall.sandbox.inside.wire import FORKS, MESSAGE, WARM, interpreter_arguments
from recall.sandbox.packages import readable_paths
from recall.sandbox.process import Family
from recall.sandbox.profiles import Profile
from recall.sandbox.session import START_TIMEOUT_S, LocalSession, Web
from recall.sandbox.stats import SandboxStats

_STOP_TIMEOUT_S = 2.0


class ZygoteHost:
    """A zygote, and the sessions whose processes it forked."""

    def __init__(
        self, profile: Profile, stats: SandboxStats, web: Web | None, codes: Codes, cgroup: str | None = None
    ) -> None:
        """Start the process.

        Raises:
            ConfigError: the profile names a package that is not installed.
            SandboxError: the process could not be started.
        """
        self.limits = profile.limits
        self.stats = stats
        self.web = web
        self.codes: Codes | None = codes
        self.layers: tuple[str, ...] | None = None
        """The layers of isolation that hold; None until the zygote is ready."""
        self.dead = False
        self.sessions: dict[int, LocalSession] = {}
        """Those whose process is not known to be gone, but for copies."""
        self.copies: set[LocalSession] = set()
        """Copies of sessions."""
        self._count = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsent: deque[tuple[bytes, socket.socket | None]] = deque()
        self._watchers: list[asyncio.Future[None]] = []
        settings = _settings(profile, web=web is not None, cgroup=cgroup)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        with theirs:
            try:
                self.pid = _spawn(theirs, settings)
            except SandboxError:
                self._socket.close()
                raise
        self._finalizer = weakref.finalize(self, _end_process, self.pid, os.getpid())

    def __len__(self) -> int:
        """How many sessions live."""
        return len(self.sessions) + len(self.copies)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve from `loop` from now on."""
        if self._loop is loop or self.dead:
            return
        self._detach()
        self._loop = loop
        loop.add_reader(self._socket.fileno(), self._readable)
        if self._unsent:
            loop.add_writer(self._socket.fileno(), self._writable)

    async def ready(self) -> None:
        """Wait until the zygote has said which layers hold.

        Raises:
            SandboxError: it never did.
        """
        with boundary(SandboxError, "starting the zygote", TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S):
                while self.layers is None and not self.dead:
                    await self.change()
        if self.dead or self.layers is None:
            raise SandboxError("the zygote ended before it was ready; its own words are on standard error")

    async def change(self) -> None:
        """Wait until `layers`, `sessions` or `dead` may have changed."""
        watcher = asyncio.get_running_loop().create_future()
        self._watchers.append(watcher)
        await watcher

    def fork(self, options: SessionOptions, *, warm: bool = False) -> LocalSession:
        """Ask for a child; the session is there at once, its process follows.

        Raises:
            OSError: there are no descriptors left.
        """
        ours, theirs = socket.socketpair()
        self._count += 1
        copies = options.forkable or options.transactional
        if copies:
            # Before there is a process: what it sends earlier would come without its number.
            name_senders(ours)
        # Before anything else: the zygote is at work while we get ready.
        self._send(MESSAGE.pack(b"F", self._count, FORKS * copies + WARM * warm), theirs)
        session = LocalSession(self, Family(self._count, self), ours, options)
        if self.dead:
            session.fail("the zygote is gone")
        else:
            self.sessions[self._count] = session
        return session

    def signal(self, kind: bytes, number: int) -> None:
        """See `recall.sandbox.process.Signals`."""
        if number in self.sessions:
            self._send(MESSAGE.pack(kind, number, 0), None)

    def add(self, copy: LocalSession) -> None:
        """Count a copy among the living."""
        self.copies.add(copy)
        self.stats.opened += 1

    def drop(self, session: LocalSession) -> None:
        """A session ends. That of a child counts until the zygote has seen the end of its process."""
        if session in self.copies:
            self.copies.discard(session)
            self._tell()

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
            if descriptor is not None:
                descriptor.close()
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
        sessions = [*self.sessions.values(), *self.copies]
        self.sessions, self.copies = {}, set()
        for session in sessions:
            session.fail(reason)
        self._tell()


def _settings(profile: Profile, *, web: bool, cgroup: str | None) -> dict[str, Any]:
    """What the zygote is told; see `recall.sandbox.inside.zygote.main`."""
    limits = profile.limits
    path, readable = readable_paths(profile.packages)
    return {
        "parent": os.getpid(),
        "path": path,
        "preload": list(profile.preload),
        "web": web,
        "reply": limits.reply,
        "confinement": {
            "cpu_s": limits.cpu_s,
            "memory_bytes": limits.memory_bytes,
            "file_bytes": limits.file_bytes,
            "nofile": limits.nofile,
            "threads": profile.threads,
            "processes": profile.processes,
            "scratch_bytes": profile.scratch_bytes,
            "readable": readable,
            "max_sessions": limits.max_sessions,
            "cgroup": cgroup,
        },
    }


def _spawn(control: socket.socket, settings: Mapping[str, Any]) -> int:
    if sys.platform != "linux":
        raise SandboxError(ELSEWHERE)
    # The order of a set of strings is the same in every session and every run. One thread for each of the libraries
    # that would start some when they are imported: a zygote must have none.
    # What a child calls for the first time is linked already.
    environment = {
        "LD_BIND_NOW": "1",
        "PYTHONHASHSEED": "0",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
    arguments = [sys.executable, *interpreter_arguments("zygote", json.dumps(settings))]
    with boundary(SandboxError, "starting the zygote", OSError):
        return os.posix_spawn(
            sys.executable,
            arguments,
            environment,
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
