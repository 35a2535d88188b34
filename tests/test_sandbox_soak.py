"""Ten thousand calls while processes are killed: nothing is forgotten silently, nothing stays behind."""

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from attack_host import descendants, fields_of
from attacks import ATTACKS
from recall.errors import SandboxError
from recall.sandbox.base import SessionOptions
from recall.sandbox.limits import SandboxLimits
from recall.sandbox.local import LocalSandbox
from recall.types import CallStatus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the local sandbox needs Linux"),
    # A zygote's children become orphans when it is killed; they are looked for by hand.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

COUNTER = "count = 0\ndef bump():\n    global count\n    count += 1\n    return count\n"
LIMITS = SandboxLimits(call_timeout_s=30.0, open_timeout_s=30.0, memory_bytes=160 << 20, output_chars=1000)
CALLS, WORKERS, LEAST_ZYGOTE_KILLS = 10_000, 24, 3
KILLS, KILLS_A_ZYGOTE = 120, 20
"""Spread over the calls, not over time: on a busy machine sessions would be killed faster than they get on."""
BACK_S = 30.0
"""Within which the service must be back on the busiest machine; on an idle one it takes a fifth of a second."""


@dataclass(slots=True)
class Tally:
    """What happened."""

    outcomes: Counter[str] = field(default_factory=Counter)
    child_kills: int = 0
    zygote_kills: int = 0
    seen: set[int] = field(default_factory=set)
    back_s: list[float] = field(default_factory=list)


def lives(pid: int) -> bool:
    return fields_of(pid)[:1] not in ([], ["Z"])


async def work(box: LocalSandbox, tally: Tally, calls: int, options: SessionOptions) -> None:
    """Call until `calls` were answered; a session remembers each call that it answered, or says that it lost them."""
    answered = 0

    def going() -> bool:
        return answered < calls or tally.zygote_kills < LEAST_ZYGOTE_KILLS

    while going():
        try:
            session = await box.open(COUNTER, options)
        except SandboxError:
            tally.outcomes["open failed"] += 1
            continue
        count = 0
        try:
            while going():
                result = await session.call("bump", {})
                tally.outcomes[str(result.status)] += 1
                if result.status is CallStatus.OK:
                    count += 1
                    answered += 1
                    assert result.result == count, f"{count - 1} calls were answered, and this one came to {result}"
                    if count == 50:
                        break
                elif options.transactional and result.status is CallStatus.CRASHED and not result.state_lost:
                    continue
                elif result.status is CallStatus.EXCEPTION:
                    # Killed while the source ran, which its own code might have done.
                    assert (count, "could not be loaded" in (result.error or "")) == (0, True), result
                    break
                else:
                    assert result.state_lost, result
                    assert result.status in (CallStatus.CRASHED, CallStatus.STATE_LOST)
                    break
        except SandboxError:
            tally.outcomes["SandboxError"] += 1
        await session.close()


async def kill(box: LocalSandbox, tally: Tally, calls: int, chance: random.Random) -> None:
    """Kill a child every `calls` calls, and the zygote now and then; see how soon it serves again."""
    due = 0
    while True:
        await asyncio.sleep(0.005)
        if tally.outcomes["ok"] < due:
            continue
        due = tally.outcomes["ok"] + calls
        zygote = box.pid
        if zygote is None or not lives(zygote):
            continue
        children = [pid for pid in descendants() if fields_of(pid)[1:2] == [str(zygote)]]
        tally.seen |= {zygote, *children}
        if tally.child_kills % KILLS_A_ZYGOTE == KILLS_A_ZYGOTE - 1:
            os.kill(zygote, signal.SIGKILL)
            tally.zygote_kills += 1
            tally.child_kills += 1
            began = time.monotonic()
            await serve(box)
            tally.back_s.append(time.monotonic() - began)
        elif children:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(children), signal.SIGKILL)
            tally.child_kills += 1


async def serve(box: LocalSandbox) -> None:
    """Come back once a new session answers."""
    while True:
        try:
            session = await box.open(COUNTER)
            result = await session.call("bump", {})
            await session.close()
        except SandboxError:
            await asyncio.sleep(0.001)
        else:
            if result.status is CallStatus.OK:
                return


@pytest.mark.parametrize("kind", ["plain", "pooled", "transactional"])
async def test_calls_survive_the_death_of_processes_or_report_it(kind: str) -> None:
    share = {"plain": CALLS, "pooled": CALLS // 4, "transactional": CALLS // 20}[kind]
    options = SessionOptions(transactional=kind == "transactional")
    before = set(os.listdir("/proc/self/fd"))
    box = LocalSandbox(LIMITS, pool=8 if kind == "pooled" else 0)
    await serve(box)
    tally = Tally()
    killer = asyncio.create_task(kill(box, tally, share // KILLS, random.Random(0)))
    try:
        await asyncio.gather(*(work(box, tally, share // WORKERS + 1, options) for _ in range(WORKERS)))
        killer.cancel()
        await serve(box)
    finally:
        killer.cancel()
        await box.close()
    assert tally.outcomes["ok"] >= share
    assert max(tally.back_s) < BACK_S, tally.back_s
    assert set(os.listdir("/proc/self/fd")) == before
    deadline = time.monotonic() + 20
    while left := [pid for pid in tally.seen if lives(pid)]:
        assert time.monotonic() < deadline, f"processes were left: {left}"
        await asyncio.sleep(0.01)


async def test_a_stranger_is_served_while_half_of_all_calls_are_attacks() -> None:
    before = set(os.listdir("/proc/self/fd"))
    box = LocalSandbox(LIMITS)
    await serve(box)
    targets = dict.fromkeys(("zygote", "runner", "victim", "tcp", "udp", "sysv", "request"), 0)
    targets |= dict.fromkeys(("canary", "directory", "project", "python", "unix", "abstract"), "/nowhere")  # type: ignore[arg-type]
    attacks = [
        each for each in ATTACKS.values() if each.profile == "default" and each.group != "memory" and not each.load
    ]
    chance = random.Random(0)
    chance.shuffle(attacks)
    del attacks[150:]

    async def attack() -> None:
        while attacks:
            each = attacks.pop()
            session = await box.open(each.source)
            await session.call("attack", {"t": {**targets, "copies": False}}, timeout_s=0.15)
            await session.close()

    async def stranger() -> int:
        session, calls = await box.open(COUNTER), 0
        while attacks:
            calls += 1
            assert (await session.call("bump", {})).result == calls
            await asyncio.sleep(0)
        await session.close()
        return calls

    *_, calls = await asyncio.gather(*(attack() for _ in range(8)), stranger())
    assert calls is not None
    assert calls > 100
    await serve(box)
    await box.close()
    assert set(os.listdir("/proc/self/fd")) == before
