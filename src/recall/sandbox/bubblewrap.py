"""A sandbox of bubblewrap's making: one `bwrap` process per session, and no zygote.

For hosts that trust bubblewrap, an audited program that other sandboxes use too, and not the layers that a zygote takes
up by itself. A session starts in tens of milliseconds rather than two; once it runs it is the same, behind the same
Protocol. A profile that starts programs, and sessions that copy themselves, are not offered. The sessions of a thread
end with it, because bubblewrap ties them to it.
"""

import asyncio
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recall.errors import ConfigError, SandboxError, boundary
from recall.sandbox.base import DEFAULT_OPTIONS, SessionOptions
from recall.sandbox.codes import Codes
from recall.sandbox.inside.isolation import LAYERS
from recall.sandbox.inside.root import standard_paths
from recall.sandbox.inside.seccomp import machine
from recall.sandbox.inside.wire import interpreter_arguments
from recall.sandbox.limits import SandboxLimits
from recall.sandbox.packages import readable_paths
from recall.sandbox.process import Family
from recall.sandbox.profiles import PROFILES, Profile
from recall.sandbox.session import LocalSession, Web
from recall.sandbox.stats import SandboxStats

__all__ = ["BubblewrapSandbox"]

_CHANNEL, _INFO = 3, 4
_DEVICES = ("/dev/null", "/dev/urandom")
_FIRST_UID, _UIDS_PER_GROUP, _UID_GROUPS = 2_100_000_000, 4096, 8192
"""As root each session has a uid of its own, out of a group drawn for each profile of each sandbox."""
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0
_PATIENCE_S = 5.0
"""How long a process that was killed may take to be gone."""
_RETRY_S = 0.01
_SIGNALS = {b"I": signal.SIGALRM, b"S": signal.SIGSTOP, b"C": signal.SIGCONT}


@dataclass(slots=True)
class _Bubble:
    """One running `bwrap`."""

    session: LocalSession
    pid: int
    pidfd: int
    info: int
    """Our end of the pipe on which it says which process it started."""
    slot: int
    _inner: int | None = None

    def process(self) -> int | None:
        """The process inside, which holds the session; None where bubblewrap has not got that far."""
        if self._inner is None:
            with suppress(BlockingIOError, ValueError, KeyError):
                self._inner = int(json.loads(os.read(self.info, 4096))["child-pid"])
        return self._inner


class _Host:
    """The sessions of one profile. See `recall.sandbox.session.Host`."""

    def __init__(self, profile: Profile, executable: str) -> None:
        self.limits: SandboxLimits = profile.limits
        self.stats = SandboxStats()
        self.web: Web | None = None
        self.codes: Codes | None = None
        self._arguments = _Arguments(executable, profile)
        self._bubbles: dict[int, _Bubble] = {}
        self._slots: list[int] = []
        self._count = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watchers: list[asyncio.Future[None]] = []
        self._pids: set[int] = set()
        self._finalizer = weakref.finalize(self, _kill_all, self._pids, os.getpid())

    def __len__(self) -> int:
        return len(self._bubbles)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Report the ends of processes from `loop` from now on."""
        if self._loop is loop:
            return
        before, self._loop = self._loop, loop
        for number, bubble in self._bubbles.items():
            if before is not None and not before.is_closed():
                before.remove_reader(bubble.pidfd)
            loop.add_reader(bubble.pidfd, self._ended, number)
            if bubble.session.gone:
                loop.call_later(_RETRY_S, self._kill_again, number, loop.time() + _PATIENCE_S)

    def start(self, options: SessionOptions, *, errors: int | None = None) -> LocalSession:
        """A session whose process is on its way.

        Args:
            options: as asked for.
            errors: where bubblewrap complains; None for nowhere.

        Raises:
            OSError: it cannot be started, or there are no descriptors left.
        """
        self._count += 1
        number = self._count
        slot = self._slots.pop() if self._slots else len(self._bubbles)
        ours, theirs = socket.socketpair()
        info, theirs_info = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            with theirs:
                pid = _spawn(self._arguments.of(slot), theirs.fileno(), theirs_info, errors)
        except OSError:
            ours.close()
            os.close(info)
            self._slots.append(slot)
            raise
        finally:
            os.close(theirs_info)
        self._pids.add(pid)
        session = LocalSession(self, Family(number, self), ours, options)
        self._bubbles[number] = _Bubble(session, pid, os.pidfd_open(pid), info, slot)
        if self._loop is not None:
            self._loop.add_reader(self._bubbles[number].pidfd, self._ended, number)
        return session

    def signal(self, kind: bytes, number: int) -> None:
        """See `recall.sandbox.process.Signals`."""
        bubble = self._bubbles.get(number)
        if bubble is None:
            return
        if kind in _SIGNALS:
            if (inner := bubble.process()) is not None:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(inner, _SIGNALS[kind])
            return
        self._kill(bubble)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_later(_RETRY_S, self._kill_again, number, self._loop.time() + _PATIENCE_S)

    def _kill_again(self, number: int, until: float) -> None:
        """Kill what was not far enough to be killed; lose patience at `until`, by the loop's clock."""
        bubble = self._bubbles.get(number)
        if bubble is None or self._loop is None:
            return
        if self._loop.time() < until:
            self._kill(bubble)
            self._loop.call_later(_RETRY_S, self._kill_again, number, until)
        else:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(bubble.pidfd, signal.SIGKILL)

    def _kill(self, bubble: _Bubble) -> None:
        """Kill the session's process, and leave it to bubblewrap to reap it and to pass on how it ended."""
        if (inner := bubble.process()) is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(inner, signal.SIGKILL)

    def add(self, copy: LocalSession) -> None:
        """There are no copies here."""

    def drop(self, session: LocalSession) -> None:
        """A session counts until its process is seen to have ended."""

    async def room(self) -> None:
        """Wait until another session may be opened."""
        while len(self._bubbles) >= self.limits.max_sessions:
            watcher = asyncio.get_running_loop().create_future()
            self._watchers.append(watcher)
            await watcher

    async def close(self) -> None:
        """End every session, and wait until the processes are gone.

        Raises:
            SandboxError: one of them does not end.
        """
        for bubble in list(self._bubbles.values()):
            bubble.session.fail("the sandbox was closed")
        with boundary(SandboxError, "ending bubblewrap", TimeoutError):
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                while self._bubbles:
                    for number, bubble in list(self._bubbles.items()):
                        self._kill(bubble)
                        self._ended(number)
                    await asyncio.sleep(0.001)

    def _ended(self, number: int) -> None:
        bubble = self._bubbles[number]
        try:
            pid, status = os.waitpid(bubble.pid, os.WNOHANG)
        except ChildProcessError:
            pid, status = bubble.pid, 0
        if pid == 0:
            return
        del self._bubbles[number]
        self._pids.discard(bubble.pid)
        self._slots.append(bubble.slot)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(bubble.pidfd)
        os.close(bubble.pidfd)
        os.close(bubble.info)
        code = os.waitstatus_to_exitcode(status)
        # Bubblewrap passes on the exit status of what it ran, and 128 more than the number of a signal.
        bubble.session.ended(128 - code if code > 128 else code)
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done() and not watcher.get_loop().is_closed():
                watcher.set_result(None)


class _Arguments:
    """The command line of `bwrap` for a profile."""

    def __init__(self, executable: str, profile: Profile) -> None:
        limits = profile.limits
        search, packages = readable_paths(profile.packages)
        self._settings: dict[str, Any] = {
            "path": search,
            "preload": list(profile.preload),
            "reply": limits.reply,
            "limits": {
                "cpu_s": limits.cpu_s,
                "memory_bytes": limits.memory_bytes,
                "file_bytes": limits.file_bytes,
                "nofile": limits.nofile,
                "processes": 1 + profile.threads if machine() is not None else 1,
            },
            "threads": profile.threads > 0,
            "scratch": profile.scratch_bytes > 0,
        }
        self._command = [
            executable,
            "--die-with-parent",
            "--as-pid-1",
            "--new-session",
            "--clearenv",
            "--info-fd",
            str(_INFO),
        ]
        self._command += ["--setenv", "PYTHONHASHSEED", "0", "--cap-drop", "ALL"]
        self._first_uid: int | None = None
        if os.geteuid() == 0:
            self._first_uid = _FIRST_UID + secrets.randbelow(_UID_GROUPS) * _UIDS_PER_GROUP
            # No user namespace: in it the uid could only be changed to root's own. The process inside gives these up.
            self._command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--unshare-ipc", "--unshare-pid"]
            self._command += ["--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        else:
            self._command += ["--unshare-all"]
        here = str(Path(__file__).parent / "inside")
        shown = list(dict.fromkeys([*standard_paths(programs=False), *packages, here, *_interpreter()]))
        # Left to itself, bubblewrap makes the directories above in a way that only their owner may pass.
        above = {str(parent) for path in (*shown, *_DEVICES) for parent in Path(path).parents}
        for directory in sorted(above - {"/", *shown}):
            self._command += ["--dir", directory]
        for path in shown:
            self._command += ["--ro-bind-try", path, path]
        for device in _DEVICES:
            self._command += ["--dev-bind", device, device]
        if profile.scratch_bytes:
            self._command += ["--perms", "1777", "--size", str(profile.scratch_bytes), "--tmpfs", "/tmp"]
        self._command += ["--remount-ro", "/", "--chdir", "/", sys.executable]

    def of(self, slot: int) -> list[str]:
        """That of a session, which no other with the same slot lives beside."""
        uid = None if self._first_uid is None else self._first_uid + slot
        return [*self._command, *interpreter_arguments("bubble", json.dumps({**self._settings, "uid": uid}))]


def _interpreter() -> Iterator[str]:
    """What must be there for the interpreter to start: itself, what it is a link to, its environment's settings."""
    path = Path(sys.executable)
    while path.is_symlink():
        yield str(path)
        path = path.parent / path.readlink()
    yield str(path)
    yield str(Path(sys.prefix) / "pyvenv.cfg")


@contextmanager
def _high(descriptor: int) -> Iterator[int]:
    """A copy of a descriptor whose number no descriptor of the child is to have."""
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 16)
    try:
        yield copy
    finally:
        os.close(copy)


def _spawn(command: list[str], channel: int, info: int, errors: int | None) -> int:
    with _high(channel) as high_channel, _high(info) as high_info:
        actions: list[tuple[Any, ...]] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, high_channel, _CHANNEL),
            (os.POSIX_SPAWN_DUP2, high_info, _INFO),
        ]
        if errors is None:
            actions.append((os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0))
        else:
            actions.append((os.POSIX_SPAWN_DUP2, errors, 2))
        return os.posix_spawn(command[0], command, {}, file_actions=actions, setsid=True)


def _kill_all(pids: set[int], owner: int) -> None:
    """End what nobody closed. Not from a fork of the process that it belongs to."""
    if os.getpid() != owner:
        return
    for pid in pids:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


class BubblewrapSandbox:
    """Opens sessions in `bwrap`. See `recall.sandbox.base.Sandbox`.

    Nothing is started before `start` or the first `open`. May be used from several event loops, one after another.
    """

    def __init__(
        self,
        limits: SandboxLimits | None = None,
        *,
        profiles: Mapping[str, Profile] = PROFILES,
        executable: str = "bwrap",
    ) -> None:
        """Take what sessions are like.

        Args:
            limits: of the default profile; None leaves its own.
            profiles: what `SessionOptions.profile` may name; one that starts programs is refused when it is asked for.
            executable: the name or path of bubblewrap.
        """
        self._profiles = dict(profiles)
        if limits is not None:
            self._profiles["default"] = replace(self._profiles["default"], limits=limits)
        self._executable = executable
        self._hosts: dict[str, _Host] = {}
        self._closed = False

    @property
    def isolation(self) -> tuple[str, ...]:
        """The layers that hold in every profile, besides the process and its limits; empty before the start."""
        return self.isolation_of("default") if "default" in self._hosts else ()

    def isolation_of(self, profile: str) -> tuple[str, ...]:
        """The layers that hold in one profile; empty before it was started."""
        if profile not in self._hosts:
            return ()
        held = {"processes", "network", "root", "capabilities", "pid"}
        held |= ({"uid"} if os.geteuid() == 0 else set()) | ({"seccomp"} if machine() is not None else set())
        held |= {"scratch"} if self._profiles[profile].scratch_bytes else set()
        return tuple(layer for layer in LAYERS if layer in held)

    def stats(self, profile: str | None = None) -> SandboxStats:
        """What was done, in one profile or in all."""
        total = SandboxStats()
        for name, host in self._hosts.items():
            if profile in (None, name):
                total = total + replace(host.stats, live=len(host))
        return total

    async def start(self, *profiles: str) -> None:
        """Find out now whether sessions of some profiles can be had.

        Raises:
            ConfigError: there is no such profile, or it starts programs.
            SandboxError: bubblewrap is not installed, or this host refuses it what it needs.
        """
        for name in profiles or ("default",):
            await self._host(name)

    async def open(self, source: str, options: SessionOptions = DEFAULT_OPTIONS) -> LocalSession:
        """Return a session at once; its process starts and runs `source` meanwhile. See `recall.sandbox.base`.

        Waits while as many sessions live as the profile's limits allow.
        """
        if options.forkable or options.transactional:
            raise ConfigError("sandbox: sessions of bubblewrap can neither be copied nor roll back")
        host = await self._host(options.profile)
        await host.room()
        loop = asyncio.get_running_loop()
        with boundary(SandboxError, "opening a session", OSError):
            session = host.start(options)
        host.stats.opened += 1
        session.load(source, options, loop)
        return session

    async def close(self) -> None:
        """End every session and wait until their processes are gone. Safe to call twice."""
        self._closed = True
        for host in self._hosts.values():
            await host.close()

    async def _host(self, name: str) -> _Host:
        if name not in self._profiles:
            raise ConfigError(f"sandbox profile {name!r}: accepted are {', '.join(self._profiles)}")
        if self._profiles[name].processes:
            raise ConfigError(f"sandbox profile {name!r}: bubblewrap sessions start no programs")
        if self._closed:
            raise SandboxError("the sandbox is closed")
        if name not in self._hosts:
            executable = shutil.which(self._executable)
            if executable is None:
                raise SandboxError(f"bubblewrap is not installed: there is no program {self._executable!r}")
            host = _Host(self._profiles[name], executable)
            await _probe(host)
            self._hosts.setdefault(name, host)
        self._hosts[name].attach(asyncio.get_running_loop())
        return self._hosts[name]


async def _probe(host: _Host) -> None:
    """Open a session and close it again, and say in bubblewrap's own words why that cannot be done.

    Raises:
        SandboxError: it cannot.
    """
    loop = asyncio.get_running_loop()
    host.attach(loop)
    heard, errors = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        with boundary(SandboxError, "starting bubblewrap", OSError, TimeoutError):
            session = host.start(DEFAULT_OPTIONS, errors=errors)
            session.load("def works(): return True\n", DEFAULT_OPTIONS, loop)
            try:
                async with asyncio.timeout(_START_TIMEOUT_S):
                    await session.call("works", {})
            except SandboxError:
                with suppress(BlockingIOError):
                    said = os.read(heard, 1 << 16).decode(errors="replace").strip()
                    raise SandboxError(f"bubblewrap cannot be used on this host: {said or 'it says nothing'}") from None
                raise
            finally:
                await session.close()
                await host.close()
    finally:
        os.close(heard)
        os.close(errors)
