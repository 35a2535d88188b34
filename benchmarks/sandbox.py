"""What a session and a call of the sandbox cost, next to a fresh interpreter per call.

Prints a table and, as its last line, the same numbers as one JSON object. CPU is that of all processes together: this
one, the zygote and every child.
"""

import argparse
import asyncio
import gc
import json
import resource
import statistics
import sys
import time

from recall.sandbox.local import LocalSandbox

SOURCE = '''
import json
import math
from datetime import date, timedelta

items: dict[str, int] = {"apple": 3, "pear": 1}

def add_item(name: str, count: int) -> dict:
    """Add `count` of an item and return the whole stock."""
    items[name] = items.get(name, 0) + count
    return {"items": items, "total": sum(items.values())}

def days_between(first: str, second: str) -> int:
    """Days from one ISO date to another."""
    return (date.fromisoformat(second) - date.fromisoformat(first)).days

def root(value: float) -> float:
    """The square root."""
    return math.sqrt(value)
'''
ARGUMENTS = {"name": "kiwi", "count": 4}
FRESH = "import json, sys\n" + SOURCE + "print(json.dumps(add_item(**json.loads(sys.argv[1]))))\n"


def cpu_s() -> float:
    """CPU seconds of this process and of all children that were waited for."""
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


async def sessions_cpu_ms(count: int, calls: int, width: int) -> float:
    """CPU milliseconds of `count` sessions with `calls` calls each, `width` at a time, zygote included."""
    before = cpu_s()
    box = LocalSandbox()

    async def one() -> None:
        session = await box.open(SOURCE)
        for _ in range(calls):
            await session.call("add_item", ARGUMENTS)
        await session.close()

    await (await box.open(SOURCE)).call("root", {"value": 4.0})
    for start in range(0, count, width):
        await asyncio.gather(*(one() for _ in range(min(width, count - start))))
    await box.close()
    return (cpu_s() - before) * 1000


async def opening(count: int, width: int) -> dict[str, float]:
    """Wall and CPU milliseconds of a session of one call, from `open` to `close`."""
    gc.collect()
    empty = await sessions_cpu_ms(0, 0, 1)
    began = time.perf_counter()
    used = await sessions_cpu_ms(count, 1, width)
    wall = (time.perf_counter() - began) * 1000
    return {
        "cpu_ms": (used - empty) / count,
        "wall_ms": wall / count,
    }


async def calling(calls: int, width: int) -> dict[str, float]:
    """Latency and rate of calls on `width` sessions at once."""
    box = LocalSandbox()
    sessions = [await box.open(SOURCE) for _ in range(width)]
    await asyncio.gather(*(session.call("add_item", ARGUMENTS) for session in sessions))
    times: list[float] = []

    async def work(index: int) -> None:
        for _ in range(calls // width):
            result = await sessions[index].call("add_item", ARGUMENTS)
            times.append(result.duration_s * 1000)

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work(index) for index in range(width)))
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    await box.close()
    cuts = statistics.quantiles(times, n=100)
    return {
        "p50_ms": cuts[49],
        "p99_ms": cuts[98],
        "calls_per_s": len(times) / wall,
        "wall_ms_per_call": wall * 1000 / len(times),
        "own_cpu_ms_per_call": cpu * 1000 / len(times),
    }


async def fresh(calls: int, width: int) -> dict[str, float]:
    """The same call in a fresh interpreter each time, unconfined."""
    times: list[float] = []

    async def work() -> None:
        for _ in range(max(1, calls // width)):
            began = time.perf_counter()
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", "-c", FRESH, json.dumps(ARGUMENTS), stdout=asyncio.subprocess.PIPE
            )
            await process.communicate()
            times.append((time.perf_counter() - began) * 1000)

    before, began = cpu_s(), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(width)))
    wall = time.perf_counter() - began
    cuts = statistics.quantiles(times, n=100)
    return {
        "p50_ms": cuts[49],
        "p99_ms": cuts[98],
        "calls_per_s": len(times) / wall,
        "cpu_ms_per_call": (cpu_s() - before) * 1000 / len(times),
    }


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=512)
    parser.add_argument("--calls", type=int, default=6400)
    parser.add_argument("--fresh", type=int, default=48)
    options = parser.parse_args()
    report: dict[str, dict[str, float]] = {}
    print(f"{'open, load, call, close':<28}{'wall ms':>10}{'CPU ms':>10}")
    for width in (1, 16, 64):
        row = report[f"open_{width}"] = await opening(options.sessions, width)
        print(f"{f'{width} at a time':<28}{row['wall_ms']:>10.2f}{row['cpu_ms']:>10.2f}")
    print(f"\n{'call':<28}{'p50 ms':>10}{'p99 ms':>10}{'calls/s':>10}{'ms/call':>10}")
    for width in (1, 16, 64):
        row = report[f"call_{width}"] = await calling(options.calls, width)
        print(
            f"{f'{width} sessions':<28}{row['p50_ms']:>10.3f}{row['p99_ms']:>10.3f}{row['calls_per_s']:>10.0f}"
            f"{row['wall_ms_per_call']:>10.3f}"
        )
    for width in (1, 16):
        row = report[f"fresh_{width}"] = await fresh(options.fresh, width)
        print(
            f"{f'fresh process, {width}':<28}{row['p50_ms']:>10.3f}{row['p99_ms']:>10.3f}{row['calls_per_s']:>10.0f}"
            f"{row['cpu_ms_per_call']:>10.3f}"
        )
    print(json.dumps({name: {key: round(value, 4) for key, value in row.items()} for name, row in report.items()}))


if __name__ == "__main__":
    asyncio.run(main())
