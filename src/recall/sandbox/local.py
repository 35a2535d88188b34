"""A sandbox on this machine: one confined process per session, forked from a warm zygote.

What runs in a session may loop, crash, flood or lie: it costs that call and that session's state, nothing else. It
serves nobody over the network; `recall.sandbox.service` does, with this behind it. One `LocalSandbox` belongs to one
thread of one process; it may be used from several event loops there, one after another.
"""

import asyncio
import base64
import binascii
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from recall.errors import ConfigError, SandboxError, boundary
from recall.sandbox.base import DEFAULT_OPTIONS, CallResult, SessionOptions
from recall.sandbox.codes import Codes
from recall.sandbox.host import ZygoteHost
from recall.sandbox.inside.isolation import LAYERS, unmet
from recall.sandbox.limits import SandboxLimits
from recall.sandbox.profiles import PROFILES, Profile
from recall.sandbox.session import LocalSession, Web
from recall.sandbox.stats import SandboxStats
from recall.types import CallStatus

__all__ = ["CodeResult", "LocalSandbox", "LocalSession", "SandboxLimits"]

_REFILL_DELAY_S = 0.002
"""The pool is filled up a moment after it was drawn from, when whoever drew is at work."""
_SCRATCH = "scratch"


@dataclass(frozen=True, slots=True)
class CodeResult:
    """What a program came to."""

    status: Literal["finished", "timeout", "error"]
    """`error`: its process died, or what it printed could not be brought back."""
    return_code: int | None
    """Its exit status; None unless it finished."""
    stdout: str = ""
    """What it printed, cut with a note where it was too long."""
    stderr: str = ""
    """The same of standard error, tracebacks included."""
    files: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    """Those asked for and there."""
    duration_s: float = 0.0
    """Wall time in seconds."""


class _Station:
    """The zygotes of one profile, and the processes kept ready for its sessions."""

    def __init__(self, profile: Profile, zygotes: int, pool: int, web: Web | None, cgroup: str | None) -> None:
        self.profile = profile
        self.stats = SandboxStats()
        self._zygotes: list[ZygoteHost | None] = [None] * zygotes
        self._pool_size, self._web, self._cgroup = pool, web, cgroup
        self._codes = Codes()
        self._pool: deque[LocalSession] = deque()
        self._refill: asyncio.TimerHandle | None = None

    @property
    def hosts(self) -> list[ZygoteHost]:
        return [host for host in self._zygotes if host is not None]

    async def zygote(self, loop: asyncio.AbstractEventLoop) -> ZygoteHost:
        """The one with the fewest sessions, running."""
        hosts = [await self._running(index, loop) for index in range(len(self._zygotes))]
        return min(hosts, key=len)

    async def _running(self, index: int, loop: asyncio.AbstractEventLoop) -> ZygoteHost:
        host = self._zygotes[index]
        if host is not None and host.dead:
            self._zygotes[index] = None
            self.stats.restarts += 1
            await host.stop()
            host = self._zygotes[index]  # another opener may have been quicker
        if host is None:
            host = self._zygotes[index] = ZygoteHost(self.profile, self.stats, self._web, self._codes, self._cgroup)
        host.attach(loop)
        if host.layers is None:
            await host.ready()
        return host

    def lacking(self) -> set[str]:
        """The layers that the profile asks for and does not get."""
        unasked = {
            name
            for name, asked in (("pid", self.profile.processes), ("scratch", self.profile.scratch_bytes))
            if not asked
        }
        held = [set(host.layers) for host in self.hosts if host.layers is not None]
        return {layer for layer in LAYERS if layer not in unasked and not all(layer in layers for layers in held)}

    def live(self) -> int:
        """Sessions whose process is not known to be gone, those of the pool left out."""
        return sum(map(len, self.hosts)) - len(self._pool)

    def pooled(self) -> int:
        return len(self._pool)

    def drawn(self) -> LocalSession | None:
        """A process of the pool, ready or about to be, if there is one."""
        while self._pool:
            session = self._pool.popleft()
            if not session.gone:
                return session
        return None

    def replenish(self, loop: asyncio.AbstractEventLoop, *, now: bool = False) -> None:
        """Fill the pool up, now or soon."""
        if not self._pool_size:
            return
        if self._refill is not None:
            self._refill.cancel()
        if now:
            self._fill(loop)
        else:
            self._refill = loop.call_later(_REFILL_DELAY_S, self._fill, loop)

    def _fill(self, loop: asyncio.AbstractEventLoop) -> None:
        self._refill = None
        hosts = [host for host in self.hosts if not host.dead and host.layers is not None]
        while hosts and len(self._pool) < self._pool_size:
            session = min(hosts, key=len).fork(DEFAULT_OPTIONS, warm=True)
            session.attach(loop)
            self._pool.append(session)

    async def close(self) -> None:
        if self._refill is not None:
            self._refill.cancel()
        hosts, self._zygotes = self.hosts, [None] * len(self._zygotes)
        self._pool.clear()
        for host in hosts:
            await host.stop()


class LocalSandbox:
    """Opens sessions in confined processes on this machine. See `recall.sandbox.base.Sandbox`.

    Nothing is started before `start` or the first `open`. A zygote that died is replaced by the next one.
    """

    def __init__(
        self,
        limits: SandboxLimits | None = None,
        *,
        profiles: Mapping[str, Profile] = PROFILES,
        require: Sequence[str] = (),
        zygotes: int = 1,
        pool: int = 0,
        web: Web | None = None,
        cgroup: str | None = None,
    ) -> None:
        """Take what sessions are like.

        Args:
            limits: of the default profile; None leaves its own.
            profiles: what `SessionOptions.profile` may name.
            require: what must hold before anything runs, of `recall.sandbox.inside.isolation.REQUIREMENTS`.
            zygotes: processes of each profile that fork sessions; more than one where sessions are opened faster than
                one can fork.
            pool: processes of each profile kept ready for sessions.
            cgroup: a directory of a control group, made by whoever runs the host, that all processes of the sandbox
                are put into, so that its limits hold for them together.
            web: performs the web requests of tools, such as `recall.sandbox.egress.broker.Broker` does, and is closed
                with the sandbox; None leaves tools without.

        Raises:
            ConfigError: an unknown requirement, or numbers out of range.
        """
        if zygotes < 1 or pool < 0:
            raise ConfigError(f"sandbox: at least 1 zygote and a pool of at least 0, got {zygotes} and {pool}")
        try:
            unmet((), require)
        except ValueError as unknown:
            raise ConfigError(f"sandbox require: {unknown}") from None
        self._profiles = dict(profiles)
        if limits is not None:
            self._profiles["default"] = replace(self._profiles["default"], limits=limits)
        self._require = tuple(require)
        self._zygotes, self._pool_size, self._web, self._cgroup = zygotes, pool, web, cgroup
        self._stations: dict[str, _Station] = {}
        self._closed = False

    @property
    def isolation(self) -> tuple[str, ...]:
        """The layers that hold in every profile in use, besides the process and its limits; empty before the start."""
        known = [set(host.layers) for each in self._stations.values() for host in each.hosts if host.layers is not None]
        return tuple(layer for layer in LAYERS if known and all(layer in layers for layers in known))

    @property
    def missing(self) -> tuple[str, ...]:
        """The layers that a profile in use asks for and this host does not give; empty before the start."""
        lacking = {layer for station in self._stations.values() for layer in station.lacking()}
        return tuple(layer for layer in LAYERS if layer in lacking)

    @property
    def pid(self) -> int | None:
        """The process id of the first zygote of the default profile; None before it was started."""
        station = self._stations.get("default")
        return station.hosts[0].pid if station is not None and station.hosts else None

    def stats(self, profile: str | None = None) -> SandboxStats:
        """What was done, in one profile or in all."""
        total = SandboxStats()
        for name, station in self._stations.items():
            if profile in (None, name):
                now = replace(station.stats, live=station.live(), pooled=station.pooled())
                total = total + now
        return total

    async def start(self, *profiles: str) -> None:
        """Start the zygotes of some profiles now, and fill their pools.

        Raises:
            ConfigError: there is no such profile.
            SandboxError: a zygote cannot be had, or a requirement is not met.
        """
        loop = asyncio.get_running_loop()
        for name in profiles or ("default",):
            station = await self._station(name)
            station.replenish(loop, now=True)

    async def open(self, source: str, options: SessionOptions = DEFAULT_OPTIONS) -> LocalSession:
        """Return a session at once; its process starts and runs `source` meanwhile. See `recall.sandbox.base`.

        Waits while as many sessions live as the profile's limits allow.

        Raises:
            ConfigError: there is no such profile, or it starts programs and the session is to be copied.
            SandboxError: no process could be had.
        """
        loop = asyncio.get_running_loop()
        station = await self._station(options.profile)
        copies = options.forkable or options.transactional
        if copies and station.profile.processes:
            raise ConfigError(f"sandbox profile {options.profile!r}: a session that starts programs cannot be copied")
        session = None if copies else station.drawn()
        if session is None:
            zygote = await self._room(station)
            with boundary(SandboxError, "opening a session", OSError):
                session = zygote.fork(options)
        station.stats.opened += 1
        station.replenish(loop)
        session.load(source, options, loop)
        return session

    async def run_code(
        self,
        code: str,
        *,
        profile: str = "code",
        stdin: str = "",
        files: Mapping[str, bytes] = MappingProxyType({}),
        fetch: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> CodeResult:
        """Run a program in a process of its own, as the interpreter would run a file.

        Args:
            code: the program.
            profile: what it may use.
            stdin: what it reads from standard input.
            files: by name, there before it starts; they need a profile with scratch space.
            fetch: names of files to bring back.
            timeout_s: wall seconds; None takes the profile's.

        Raises:
            ConfigError: files are wanted where nothing can be written, or no such profile.
            SandboxError: no process could be had.
        """
        station = await self._station(profile)
        if (files or fetch) and not (station.profile.scratch_bytes and _SCRATCH in self.isolation_of(profile)):
            raise ConfigError(f"files: profile {profile!r} has no directory that can be written on this host")
        encoded = {name: base64.b64encode(content).decode() for name, content in files.items()}
        settings = {"stdin": stdin, "files": encoded, "fetch": list(fetch)}
        session = await self.open("", SessionOptions(profile))
        try:
            return _code_result(await session.request(["script", code, settings], timeout_s=timeout_s))
        finally:
            await session.close()

    def isolation_of(self, profile: str) -> tuple[str, ...]:
        """The layers that hold in one profile; empty before it was started."""
        station = self._stations.get(profile)
        known = [host.layers for host in station.hosts if host.layers is not None] if station is not None else []
        return known[0] if known else ()

    async def close(self) -> None:
        """End every session and the zygotes, and wait until their processes are gone. Safe to call twice."""
        self._closed = True
        stations, self._stations = self._stations, {}
        for station in stations.values():
            await station.close()
        if self._web is not None:
            await self._web.close()

    async def _station(self, name: str) -> _Station:
        if name not in self._profiles:
            raise ConfigError(f"sandbox profile {name!r}: accepted are {', '.join(self._profiles)}")
        if self._closed:
            raise SandboxError("the sandbox is closed")
        station = self._stations.get(name)
        if station is None:
            station = _Station(self._profiles[name], self._zygotes, self._pool_size, self._web, self._cgroup)
            self._stations[name] = station
        zygote = await station.zygote(asyncio.get_running_loop())
        layers = zygote.layers or ()
        if lacking := unmet(layers, self._require):
            raise SandboxError(f"this host does not give what is required of a sandbox: {'; '.join(lacking)}")
        if "processes" not in layers:
            raise SandboxError("this host does not let root limit the processes of a tool; run as another user")
        return station

    async def _room(self, station: _Station) -> ZygoteHost:
        loop = asyncio.get_running_loop()
        zygote = await station.zygote(loop)
        while len(zygote) >= station.profile.limits.max_sessions:
            await zygote.change()
            if self._closed:
                raise SandboxError("the sandbox is closed")
            zygote = await station.zygote(loop)
        return zygote


def _code_result(call: CallResult) -> CodeResult:
    match call.result:
        case {"return_code": int(code), "stdout": str(out), "stderr": str(errors), "files": dict(files)}:
            try:
                decoded = {str(name): base64.b64decode(content) for name, content in files.items()}
            except (binascii.Error, ValueError, TypeError):
                decoded = {}
            return CodeResult("finished", code, out, errors, decoded, call.duration_s)
    status: Any = "timeout" if call.status is CallStatus.TIMEOUT else "error"
    return CodeResult(status, None, call.output, call.error or "its output could not be read", {}, call.duration_s)
