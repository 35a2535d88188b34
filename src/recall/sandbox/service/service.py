"""What the server does, apart from HTTP: calls, batches, sessions. Statuses and bytes on the wire are `app.py`'s.

Every answer is a value whatever the tools did; what is raised is the caller's mistake (`BodyError`,
`UnknownSessionError`), a lack of room (`SandboxBusy`) or a fault of ours (any other `SandboxError`).
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recall.errors import ConfigError, SandboxBusy, SandboxError
from recall.sandbox.base import CallResult
from recall.sandbox.inside.isolation import unmet
from recall.sandbox.local import LocalSandbox, LocalSession
from recall.sandbox.places import Places
from recall.sandbox.service import fusion
from recall.sandbox.service.admission import Gate
from recall.sandbox.service.bodies import CallBody, OpenBody
from recall.sandbox.service.leaks import session_groups
from recall.sandbox.service.metrics import Metrics
from recall.sandbox.service.registry import Entry, Registry

if TYPE_CHECKING:
    from recall.sandbox.egress.broker import Broker


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """How much the server takes on."""

    running: int = 256
    """Calls at once. Calls that wait or loop take a place each, so it is far above the number of cores."""
    waiting: int = 4096
    """Calls that wait for a place, or for an earlier call of their session."""
    queue_timeout_s: float = 30.0
    """Seconds that a call waits at most before it is refused."""
    sessions: int = 1024
    """Sessions that are open at once."""
    idle_s: float = 900.0
    """Seconds without a call after which a session ends."""
    grace_s: float = 60.0
    """Seconds without a call after which a session may be ended to make room."""


class Service:
    """Calls, batches and sessions over one sandbox."""

    def __init__(
        self,
        sandbox: LocalSandbox,
        profiles: Sequence[str],
        *,
        limits: ServiceLimits,
        require: Sequence[str] = (),
        web: "Broker | None" = None,
    ) -> None:
        """Take what is served.

        Args:
            sandbox: started by `start`, closed by `close`.
            profiles: the names that requests may give; the first is the default.
            limits: how much is taken on.
            require: what must hold, of `recall.sandbox.inside.isolation.REQUIREMENTS`.
            web: what the sandbox's tools reach the web by; counted here, and closed with the sandbox.
        """
        self.sandbox = sandbox
        self.profiles = tuple(profiles)
        self.metrics = Metrics()
        self.gate = Gate(limits.running, limits.waiting)
        self.sessions = Registry(room=limits.sessions, idle_s=limits.idle_s, grace_s=limits.grace_s)
        self.draining = False
        """Whether the server is about to stop, and takes nothing new."""
        self.missing: tuple[str, ...] = ()
        """The layers that do not hold, asked of the sandbox now and then: every answer names them."""
        self._limits = limits
        self._require = tuple(require)
        self._web = web
        self._sweeper: asyncio.Task[None] | None = None
        self._ready = False

    async def start(self) -> None:
        """Start the sandbox and serve from now on.

        Raises:
            ConfigError: there is no such profile.
            SandboxError: the sandbox does not start, or a layer that is required does not hold.
        """
        await self.sandbox.start(*self.profiles)
        self.missing = self.sandbox.missing
        self._sweeper = asyncio.create_task(self._sweep())
        self._ready = True

    async def close(self) -> None:
        """End every session and the sandbox. Calls in flight fail as ours."""
        self.draining = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper
        await self.sessions.close_all()
        await self.sandbox.close()

    def readiness(self) -> dict[str, Any]:
        """Whether calls are taken, and what stands between tools and this machine."""
        lacking = list(unmet(self.sandbox.isolation, self._require)) if self._ready else []
        return {
            "ready": self._ready and not self.draining and not lacking,
            "mode": _mode(self.sandbox.isolation),
            "isolation": list(self.sandbox.isolation),
            "missing": list(self.sandbox.missing),
            "require": list(self._require),
            "unmet": lacking,
            "profiles": list(self.profiles),
            "draining": self.draining,
        }

    async def execute(self, body: CallBody) -> dict[str, Any]:
        """Make a call.

        Raises:
            UnknownSessionError: it names a session that there is not.
            EvictedSessionError: it names a session that the server ended.
            SandboxBusy: no room, or too long a wait; nothing has run.
            SandboxError: the sandbox failed.
        """
        self._check()
        if body.session is None:
            return await self._admitted(body, None)
        entry = self.sessions.take(body.session)
        try:
            return await self._admitted(body, entry)
        finally:
            self.sessions.give_back(entry)

    async def run_code(self, asked: fusion.Script) -> dict[str, Any]:
        """Run a script, and answer in the shape of SandboxFusion.

        Raises:
            SandboxBusy: no room, or too long a wait; nothing has run.
            SandboxError: the sandbox failed.
        """
        self._check()
        if "code" not in self.profiles:
            return fusion.refusal("scripts are not served here: the profile 'code' is not among --profiles")
        arrived = time.perf_counter()
        await self.gate.enter(None, self._limits.queue_timeout_s)
        began = time.perf_counter()
        status = "infra_error"
        try:
            result = await self.sandbox.run_code(
                asked.code, stdin=asked.stdin, files=asked.files, fetch=asked.fetch, timeout_s=asked.timeout_s
            )
            status = result.status
        except ConfigError as error:
            status = "refused"
            return fusion.refusal(str(error))
        finally:
            self.gate.leave(None)
            now = time.perf_counter()
            self.metrics.call(status, "code", began - arrived, now - began, now - arrived)
        return fusion.answer(result)

    async def open(self, body: OpenBody) -> Entry:
        """Open a session and hand out its id.

        Raises:
            SandboxBusy: no room.
            SandboxError: the sandbox failed.
        """
        self._check()
        await self.sessions.reserve()
        try:
            session = await self.sandbox.open(body.source, body.options)
        except (SandboxError, ConfigError, asyncio.CancelledError):
            self.sessions.release()
            raise
        return self.sessions.add(session, body.options)

    async def fork(self, id: str, count: int) -> list[Entry]:
        """Copy a session `count` times, once its calls are done; all copies or none.

        Raises:
            UnknownSessionError: there is no such session.
            SandboxBusy: no room.
            SandboxError: it was not opened as forkable, or could not be copied.
        """
        self._check()
        parent = self.sessions.take(id)
        try:
            await self.sessions.reserve(count)
            copies: list[LocalSession] = []
            try:
                await self.gate.enter(parent.turn, self._limits.queue_timeout_s)
                try:
                    for _ in range(count):
                        copies.append(await parent.session.fork())  # noqa: PERF401 - those made must be known if one fails
                finally:
                    self.gate.leave(parent.turn)
            except (SandboxError, asyncio.CancelledError):
                self.sessions.release(count)
                for copy in copies:
                    await copy.close()
                raise
            return [self.sessions.add(copy, parent.options) for copy in copies]
        finally:
            self.sessions.give_back(parent)

    async def page(self) -> bytes:
        """The metrics."""
        # Before the sessions are counted: one that ends meanwhile must not look as if it had left something behind.
        groups = await asyncio.to_thread(session_groups)
        stats, gate = self.sandbox.stats(), self.gate
        leaked = max(0, groups - stats.live - stats.pooled)
        return self.metrics.text(
            {
                "sessions_live": ("Sessions with a process, one-shot calls included.", stats.live),
                "sessions_pooled": ("Processes that wait for a session.", stats.pooled),
                "sessions_open": ("Sessions whose id somebody holds.", len(self.sessions)),
                "sessions_idle": ("Those of them that no call runs in.", self.sessions.idle()),
                "calls_running": ("Calls in the sandbox now.", gate.running),
                "calls_waiting": ("Calls that wait now.", gate.waiting),
                "processes_leaked": ("Process groups that no session accounts for.", leaked),
                "layers_missing": ("Layers of isolation that do not hold.", len(self.sandbox.missing)),
                "ready": ("Whether calls are taken.", self.readiness()["ready"]),
            },
            {
                "sessions_opened": ("Sessions opened, one-shot calls included.", (), {(): stats.opened}),
                "kills": ("Processes that were ended.", ("reason",), _by_one(stats.kills)),
                "zygote_restarts": ("Zygotes that had to be replaced.", (), {(): stats.restarts}),
                "protocol_violations": ("Sessions that forged an answer.", (), {(): stats.violations}),
                "evictions": ("Sessions that the server ended.", ("reason",), _by_one(self.sessions.evictions)),
                "web_requests": (
                    "Web requests of tools.",
                    ("host", "status"),
                    {}
                    if self._web is None
                    else {(host, status): n for (host, status), n in self._web.requests.items()},
                ),
            },
        )

    async def _admitted(self, body: CallBody, entry: Entry | None) -> dict[str, Any]:
        arrived = time.perf_counter()
        turn: Places | None = None if entry is None else entry.turn
        limit_s = self._limits.queue_timeout_s
        await self.gate.enter(turn, min(limit_s, body.queue_timeout_s or limit_s))
        profile = (body.options if entry is None else entry.options).profile
        began = time.perf_counter()
        status = "infra_error"
        run_s = 0.0
        try:
            result = await (self._once(body) if entry is None else self._call(entry.session, body))
            status, run_s = str(result.status), result.duration_s
        except SandboxBusy:
            status = "busy"
            raise
        except SandboxError:
            if entry is not None:
                entry.lost = True
            raise
        except asyncio.CancelledError:
            status = "cancelled"
            if entry is not None:
                entry.lost = True
            raise
        finally:
            self.gate.leave(turn)
            now = time.perf_counter()
            self.metrics.call(status, profile, began - arrived, run_s or now - began, now - arrived)
        if entry is not None:
            entry.calls += 1
            entry.lost = entry.lost or result.state_lost
        return {
            "result": result.result,
            "output": result.output,
            "error": result.error,
            "status": status,
            "duration_ms": round(run_s * 1e3, 3),
            "state_lost": result.state_lost,
            "isolation_missing": self.missing,
        }

    async def _once(self, body: CallBody) -> CallResult:
        session = await self.sandbox.open(body.source, body.options)
        try:
            return await self._call(session, body)
        finally:
            await session.close()

    async def _call(self, session: LocalSession, body: CallBody) -> CallResult:
        if body.expression is not None:
            return await session.evaluate(body.expression, timeout_s=body.timeout_s)
        return await session.call(body.name, body.arguments, timeout_s=body.timeout_s)

    def _check(self) -> None:
        if self.draining:
            raise SandboxBusy("the server is stopping", 5.0)
        if not self._ready:
            raise SandboxBusy("the sandbox is starting", 1.0)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(10.0, self._limits.idle_s / 4))
            self.missing = self.sandbox.missing
            await self.sessions.sweep()


def _mode(layers: Sequence[str]) -> str:
    """A: each session has a uid of its own. B: namespaces without. C: Landlock without these. D: none of them."""
    for mode, layer in (("A", "uid"), ("B", "network"), ("C", "landlock:fs")):
        if layer in layers:
            return mode
    return "D"


def _by_one(counts: Mapping[str, int]) -> dict[tuple[str, ...], int]:
    return {(name,): count for name, count in counts.items()}
