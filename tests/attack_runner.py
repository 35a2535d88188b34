"""Runs every attack on a sandbox in this process, and prints what came of each as a line of JSON.

`python attack_runner.py local oneshot,session` is what `test_attacks.py` starts, as root or as somebody else. The last
line is a summary. A line that is no JSON was written by an attack. `python attack_runner.py bare` shows which attacks
work where there is no sandbox.
"""

import asyncio
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attack_host import Host, arguments_for, cpu_ticks, descendants, fields_of, resident_bytes
from attacks import ATTACKS, Attack
from recall.errors import SandboxError
from recall.sandbox.base import Sandbox, SessionOptions
from recall.sandbox.bubblewrap import BubblewrapSandbox
from recall.sandbox.limits import SandboxLimits
from recall.sandbox.local import LocalSandbox
from recall.sandbox.profiles import PROFILES

LIMITS = SandboxLimits(
    call_timeout_s=20.0,
    open_timeout_s=4.0,
    cpu_s=20,
    memory_bytes=160 << 20,
    output_chars=1000,
    result_bytes=20_000,
    max_sessions=64,
)
VICTIM = """
import os, signal
secret, signals = None, 0
def heard(*_):
    global signals
    signals += 1
signal.signal(signal.SIGURG, heard)
def keep(s):
    global secret
    secret = s
def tell(): return [secret, signals]
"""
CLEAN = "def double(n): return 2 * n\n"
AGAIN = ("bump", "attack", "bump", "attack", "bump")
STYLES = {"oneshot": ("attack",), "session": AGAIN, "transactional": AGAIN}
"""What is called in a session, by style; of an attack that costs time, the first three."""
BATCH, SLOW_BATCH = 8, 16
"""How many attacks run at once; those that only cost time are the slow ones."""
PATIENCE_S = 20.0
"""How long a machine under load may take for what is done at once on an idle one."""
RESIDENT_BYTES = 48 << 20
"""How much this process may grow while all attacks run: more than the longest replies of the sessions at once."""
IDLE_S = 0.4
IDLE_TICKS = 10


class Runner:
    """One sandbox, one victim for each profile, and the attacks on them."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.host = Host(Path(__file__).parents[1])
        self.box: Any = None
        self.profiles: tuple[str, ...] = ()
        self.refused: dict[str, str] = {}
        self.signals = 0
        signal.signal(signal.SIGURG, self._heard)

    def _heard(self, *_: object) -> None:
        self.signals += 1

    async def start(self) -> None:
        """Open a victim for each profile and remember how things stand."""
        self.box, self.profiles = make(self.backend)
        for profile in self.profiles:
            try:
                await self.clean(profile)
            except SandboxError as error:
                self.refused[profile] = str(error)
        self.profiles = tuple(profile for profile in self.profiles if profile not in self.refused)
        before = await self._calm()
        self.victims = [await self.box.open(VICTIM, SessionOptions(profile=profile)) for profile in self.profiles]
        for victim in self.victims:
            assert (await victim.call("keep", {"s": self.host.secret})).error is None
        await self.clean("default")
        self.baseline = await self._calm()
        self.host.begin(getattr(self.box, "pid", None) or 0, min(self.baseline - before, default=0))
        gc.collect()
        self.descriptors = set(os.listdir("/proc/self/fd"))
        self.resident = resident_bytes()

    async def _calm(self) -> set[int]:
        """The processes, once none has come or gone for a while."""
        seen, since = descendants(), time.monotonic()
        while time.monotonic() - since < 0.2:
            await asyncio.sleep(0.02)
            if (now := descendants()) != seen:
                seen, since = now, time.monotonic()
        return seen

    async def settled(self, condition: Callable[[], bool]) -> bool:
        """Whether `condition` comes true while there is patience."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.005)
        return True

    async def clean(self, profile: str) -> None:
        """A call of somebody else, who must be served."""
        session = await self.box.open(CLEAN, SessionOptions(profile=profile))
        result = await session.call("double", {"n": 21}, timeout_s=PATIENCE_S)
        await session.close()
        assert result.result == 42, f"a clean call came to {result}"

    async def one(self, attack: Attack, style: str) -> dict[str, Any]:
        """Make one attack, and say what came of it."""
        options = SessionOptions(profile=attack.profile, transactional=style == "transactional")
        statuses: list[str] = []
        errors: list[str] = []
        faults: list[str] = []
        session = await self.box.open(attack.source, options)
        try:
            for number, name in enumerate(STYLES[style][: 3 if attack.slow else None], 1):
                copies = style == "transactional"
                targets = arguments_for(self.host.targets, number, copies=copies)
                arguments = targets if name == "attack" else {}
                result = await session.call(name, arguments, timeout_s=attack.timeout_s)
                if name == "attack":
                    statuses.append(str(result.status))
                    errors.append(result.error or "")
                    faults += self.host.told(result)
                    if attack.idle and style != "oneshot":
                        faults += await self.idle()
        except SandboxError as error:
            faults.append(f"the sandbox took the blame: {error}")
        await session.close()
        return {"attack": attack.name, "style": style, "statuses": statuses, "errors": errors, "faults": faults}

    async def idle(self) -> list[str]:
        """What is wrong where sessions other than the victims use CPU while nobody calls them."""
        await asyncio.sleep(0.1)
        before = {pid: cpu_ticks(pid) for pid in descendants() - self.baseline}
        await asyncio.sleep(IDLE_S)
        burnt = sum(max(0, cpu_ticks(pid) - ticks) for pid, ticks in before.items())
        return [f"{burnt} ticks of CPU in {IDLE_S} s between calls"] if burnt > IDLE_TICKS else []

    async def aftermath(self) -> list[str]:
        """What is wrong after an attack, in words."""
        faults = []
        for victim in self.victims:
            try:
                result = await victim.call("tell", {}, timeout_s=PATIENCE_S)
            except SandboxError as error:
                faults.append(f"the victim is gone: {error}")
            else:
                if result.result != [self.host.secret, 0]:
                    faults.append(f"the victim is not as it was: {result}")
        try:
            await self.clean("default")
        except (SandboxError, AssertionError) as error:
            faults.append(f"the sandbox does not serve: {error}")
        if not await self.settled(lambda: descendants() == self.baseline):
            left, lost = descendants() - self.baseline, self.baseline - descendants()
            faults.append(f"processes left: {[fields_of(pid)[:2] for pid in left]}; lost: {sorted(lost)}")
        if not await self.settled(lambda: set(os.listdir("/proc/self/fd")) == self.descriptors):
            faults.append(f"descriptors that came or went: {set(os.listdir('/proc/self/fd')) ^ self.descriptors}")
        if (grown := resident_bytes() - self.resident) > RESIDENT_BYTES:
            faults.append(f"this process grew by {grown >> 20} MiB")
        if self.signals:
            faults.append("this process was signalled")
        return faults + self.host.harmed()

    async def run(self, style: str, names: Sequence[str]) -> None:
        """Make the attacks in one style."""
        attacks = [ATTACKS[name] for name in names]
        for size, chosen in (
            (BATCH, [attack for attack in attacks if not attack.slow and not attack.idle]),
            (SLOW_BATCH, [attack for attack in attacks if attack.slow]),
            (BATCH, [attack for attack in attacks if attack.idle]),
        ):
            for at in range(0, len(chosen), size):
                await self.batch(style, chosen[at : at + size])

    async def batch(self, style: str, attacks: Sequence[Attack]) -> None:
        """Make attacks at once; where something is broken after it, each once more by itself, to tell which it was."""
        outcomes = await asyncio.gather(*(self.one(attack, style) for attack in attacks))
        after = await self.aftermath()
        if after:
            await self.renew()
        unclear = after or any(
            attack.idle and outcome["faults"] for attack, outcome in zip(attacks, outcomes, strict=True)
        )
        if unclear and len(attacks) > 1:
            for attack in attacks:
                await self.batch(style, [attack])
            return
        for outcome in outcomes:
            outcome["faults"] += after
            print(json.dumps(outcome), flush=True)

    async def renew(self) -> None:
        """Start anew, so that what one attack broke is not held against the next."""
        await self.box.close()
        self.host.close()
        self.host, self.signals = Host(Path(__file__).parents[1]), 0
        await self.start()


def make(backend: str) -> tuple[Sandbox, tuple[str, ...]]:
    """The sandbox of this name, and the profiles that are attacked."""
    if backend == "bubblewrap":
        return BubblewrapSandbox(LIMITS), ("default", "code")
    assert backend == "local", backend
    return LocalSandbox(LIMITS), ("default", "subprocess", "code")


def bare() -> None:
    """Make the attacks that are harmless enough in no sandbox at all, each in a fork of this process."""
    host = Host(Path(__file__).parents[1])
    targets = arguments_for(host.targets, 1, copies=False)
    for attack in ATTACKS.values():
        if attack.bare:
            namespace: dict[str, Any] = {}
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    exec(attack.source, namespace)
                    namespace["attack"](**targets)
                    code = 0
                finally:
                    os._exit(code)
            print(json.dumps({"attack": attack.name, "worked": os.waitpid(pid, 0)[1] == 0}), flush=True)
    host.close()


async def main(backend: str, styles: str, *names: str) -> None:
    """Run the attacks."""
    runner = Runner(backend)
    await runner.start()
    chosen = [name for name in names or ATTACKS if ATTACKS[name].profile in runner.profiles]
    for style in styles.split(","):
        copied = style == "transactional"
        await runner.run(style, [name for name in chosen if not (copied and PROFILES[ATTACKS[name].profile].processes)])
    isolation = {profile: list(runner.box.isolation_of(profile)) for profile in runner.profiles}
    print(json.dumps({"isolation": isolation, "refused": runner.refused}), flush=True)
    await runner.box.close()
    runner.host.close()


if __name__ == "__main__":
    if sys.argv[1:] == ["bare"]:
        bare()
    else:
        asyncio.run(main(*sys.argv[1:]))
