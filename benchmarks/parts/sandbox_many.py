"""Many sessions at once: what they cost to open and in memory, and what hostile ones do to the others."""

import asyncio
import os
import statistics
import time
from pathlib import Path

from parts.sandbox_http import ARGUMENTS, SOURCE, processes
from recall.sandbox.limits import SandboxLimits
from recall.sandbox.local import LocalSandbox, LocalSession

HOSTILE = """
import os, threading, time
def loops():
    while True: pass
def sleeps(): time.sleep(60)
def dies(): os._exit(1)
def forks(): return [os.fork() for _ in range(100)]
def floods(): print("x" * 50_000_000)
def fills(): return [bytearray(1 << 26) for _ in range(100)]
def forges(): os.write(3, b"\\0" * 100_000)
def threads(): return [threading.Thread(target=time.sleep, args=(60,), daemon=True).start() for _ in range(10_000)]
def backtracks():
    import re
    re.match("(a+)+$", "a" * 40 + "b")
"""
ATTACKS = ("loops", "sleeps", "dies", "forks", "floods", "fills", "forges", "threads", "backtracks")


def children(parent: int) -> list[int]:
    """The processes that a process started and that live."""
    return [pid for pid, fields in processes() if int(fields[1]) == parent and fields[0] != "Z"]


def pss_mb(pids: list[int]) -> float:
    """Their memory, shared pages counted by share, in MB."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


async def living(count: int) -> dict[str, float]:
    """`count` sessions open at once, each having made one call."""
    box = LocalSandbox(SandboxLimits(max_sessions=4096))
    await box.start()
    assert box.pid is not None
    began = time.perf_counter()
    sessions: list[LocalSession] = []
    for start in range(0, count, 64):
        some = [await box.open(SOURCE) for _ in range(min(64, count - start))]
        await asyncio.gather(*(session.call("add_item", ARGUMENTS) for session in some))
        sessions += some
    wall_s = time.perf_counter() - began
    total = pss_mb([box.pid, *children(box.pid)])
    for session in sessions[:: max(1, count // 10)]:
        assert (await session.call("add_item", ARGUMENTS)).error is None
    await box.close()
    return {"sessions": count, "open_ms": wall_s * 1e3 / count, "pss_mb": total, "session_mb": total / count}


async def mixed(calls: int, *, width: int, hostile: bool) -> dict[str, float]:
    """Clean calls of `width` sessions, each call with one of a hostile one beside it, or with another clean one."""
    box = LocalSandbox(SandboxLimits(memory_bytes=256 << 20))
    await box.start()
    times: list[float] = []
    attacks = 0
    done = asyncio.Event()

    async def clean() -> None:
        session = await box.open(SOURCE)
        await session.call("add_item", ARGUMENTS)
        for _ in range(calls // width):
            result = await session.call("add_item", ARGUMENTS, timeout_s=30)
            assert result.error is None, result
            times.append(result.duration_s * 1e3)
            await asyncio.sleep(0.02)
        await session.close()

    async def attack(index: int) -> None:
        nonlocal attacks
        while not done.is_set():
            session = await box.open(HOSTILE if hostile else SOURCE)
            name = ATTACKS[(index + attacks) % len(ATTACKS)] if hostile else "add_item"
            await session.call(name, {} if hostile else ARGUMENTS, timeout_s=0.2)
            attacks += 1
            await session.close()
            await asyncio.sleep(0.02)

    others = [asyncio.create_task(attack(index)) for index in range(width)]
    await asyncio.gather(*(clean() for _ in range(width)))
    done.set()
    await asyncio.gather(*others)
    await box.close()
    cuts = statistics.quantiles(times, n=100)
    return {
        "p50_ms": cuts[49],
        "p99_ms": cuts[98],
        "clean": len(times),
        "others": attacks,
        "cores": os.cpu_count() or 1,
    }
