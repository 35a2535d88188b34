"""The sandbox in this process: calls, one-shots, transactions, copies, and what a bare fork takes."""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from parts.sandbox_http import ARGUMENTS, SOURCE, tree_cpu_s
from recall.sandbox.base import SessionOptions
from recall.sandbox.local import LocalSandbox

Row = dict[str, float]
FRESH = SOURCE + "\nimport sys\nprint(json.dumps(add_item(**json.loads(sys.argv[1]))))\n"

BARE = """
import sys
box = type(sys)("box")
box.__path__ = [sys.argv[1]]
sys.modules["box"] = box
import box.zygote
import importlib, json, os, time
box.zygote.import_random()
for name in json.loads(sys.argv[2]):
    importlib.import_module(name)
box.zygote.warm(box.zygote.ReplyLimits(16384, 1 << 18, 2000))
filling = box.zygote.settle()
times = []
for _ in range(int(sys.argv[3])):
    time.sleep(0.01)
    began = time.perf_counter()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, b"x")
        os._exit(0)
    os.close(writer)
    os.read(reader, 1)
    os.waitpid(pid, 0)
    times.append(time.perf_counter() - began)
    os.close(reader)
print(json.dumps(times))
"""
"""The physical limit of a one-shot: what the zygote's interpreter, as warm as it is, takes to fork, write and exit."""


def row(times_s: list[float], wall_s: float, cpu_s: float) -> Row:
    """Latencies in milliseconds, calls a second and CPU milliseconds of all processes a call."""
    cuts = statistics.quantiles(times_s, n=100)
    return {
        "calls_per_s": len(times_s) / wall_s,
        "p50_ms": cuts[49] * 1e3,
        "p99_ms": cuts[98] * 1e3,
        "cpu_ms": cpu_s * 1e3 / len(times_s),
    }


async def timed(work: Callable[[], Awaitable[object]], count: int, *, pause_s: float = 0.0) -> Row:
    """`work` over and over, one at a time, with a pause between that is not counted."""
    times: list[float] = []
    cpu, began = tree_cpu_s(os.getpid()), time.perf_counter()
    for _ in range(count):
        if pause_s:
            await asyncio.sleep(pause_s)
        start = time.perf_counter()
        await work()
        times.append(time.perf_counter() - start)
    wall_s = time.perf_counter() - began - pause_s * count
    return row(times, wall_s, tree_cpu_s(os.getpid()) - cpu)


async def session_calls(calls: int, width: int) -> Row:
    """Calls of `width` sessions at once."""
    box = LocalSandbox()
    sessions = [await box.open(SOURCE) for _ in range(width)]
    for session in sessions:
        await session.call("add_item", ARGUMENTS)
    times: list[float] = []

    async def work(index: int) -> None:
        for _ in range(calls // width):
            result = await sessions[index].call("add_item", ARGUMENTS)
            times.append(result.duration_s)

    cpu, began = tree_cpu_s(os.getpid()), time.perf_counter()
    await asyncio.gather(*map(work, range(width)))
    found = row(times, time.perf_counter() - began, tree_cpu_s(os.getpid()) - cpu)
    await box.close()
    return found


async def one_shots(calls: int, *, pool: int) -> Row:
    """A session for each call, from the pool or forked when asked for; the pool fills up in the pauses."""
    box = LocalSandbox(pool=pool)
    await box.start()

    async def once() -> None:
        session = await box.open(SOURCE)
        result = await session.call("add_item", ARGUMENTS)
        assert result.error is None, result
        await session.close()

    await asyncio.sleep(0.2)
    await once()
    found = await timed(once, calls, pause_s=0.01)
    await box.close()
    return found


async def transactions(calls: int) -> Row:
    """Calls of a transactional session."""
    box = LocalSandbox()
    session = await box.open(SOURCE, SessionOptions(transactional=True))
    await session.call("add_item", ARGUMENTS)
    found = await timed(lambda: session.call("add_item", ARGUMENTS), calls)
    await box.close()
    return found


async def copies(count: int) -> Row:
    """Copies of a session, each with a call of its own."""
    box = LocalSandbox()
    session = await box.open(SOURCE, SessionOptions(forkable=True))
    await session.call("add_item", ARGUMENTS)

    async def once() -> None:
        copy = await session.fork()
        await copy.call("add_item", ARGUMENTS)
        await copy.close()

    found = await timed(once, count, pause_s=0.005)
    await box.close()
    return found


def bare_forks(count: int) -> Row:
    """What `BARE` says."""
    from recall.sandbox.inside import wire
    from recall.sandbox.profiles import STANDARD_PRELOAD

    folder = str(Path(wire.__file__).parent)
    flags = ["-P", "-s", "-S", "-B", "-X", "utf8", "-c", BARE]
    done = subprocess.run(
        [sys.executable, *flags, folder, json.dumps(STANDARD_PRELOAD), str(count)],
        env={"PYTHONHASHSEED": "0", "LD_BIND_NOW": "1"},
        check=True,
        capture_output=True,
    )
    times: list[float] = json.loads(done.stdout)
    return row(times, sum(times), float("nan"))


async def fresh_interpreters(count: int, width: int, prefix: tuple[str, ...] = ()) -> Row:
    """The same call in a fresh interpreter each time; with `prefix`, started by another program."""
    times: list[float] = []

    async def work() -> None:
        for _ in range(max(2, count // width)):
            began = time.perf_counter()
            process = await asyncio.create_subprocess_exec(
                *prefix, sys.executable, "-I", "-S", "-c", FRESH, json.dumps(ARGUMENTS), stdout=asyncio.subprocess.PIPE
            )
            out, _ = await process.communicate()
            assert b"kiwi" in out, out
            times.append(time.perf_counter() - began)

    cpu, began = tree_cpu_s(os.getpid()), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(width)))
    return row(times, time.perf_counter() - began, tree_cpu_s(os.getpid()) - cpu)
