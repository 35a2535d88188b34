"""What the sandbox costs, next to a server without isolation, a fresh interpreter, bubblewrap and a bare fork.

Prints tables and, as its last line, the same numbers as one JSON object. CPU is that of all processes together.
"""

import argparse
import asyncio
import json
import math
import os
import shutil
from collections.abc import Mapping

from parts import sandbox_http as http
from parts import sandbox_local as local
from parts import sandbox_many as many
from parts import sandbox_web as web

BWRAP = ("bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc")


def show(title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """A table of latencies."""
    print(f"\n{title:<34}{'calls/s':>10}{'p50 ms':>10}{'p99 ms':>10}{'CPU ms':>10}")
    for name, row in rows.items():
        cpu = "" if math.isnan(row["cpu_ms"]) else f"{row['cpu_ms']:.3f}"
        print(f"{name:<34}{row['calls_per_s']:>10,.0f}{row['p50_ms']:>10.3f}{row['p99_ms']:>10.3f}{cpu:>10}")


async def measure(scale: float) -> dict[str, object]:
    """Everything, with so much of the usual number of calls."""

    def some(count: int, least: int = 20) -> int:
        return max(least, int(count * scale))

    calls = {f"session, {width} at once": await local.session_calls(some(16_000), width) for width in (1, 16, 64)}
    calls["transactional session"] = await local.transactions(some(300))
    calls["copy of a session and a call"] = await local.copies(some(200))
    show("a call, in process", calls)
    shots = {
        "bare fork, exit, pipe": local.bare_forks(some(300)),
        "confined, forked when asked for": await local.one_shots(some(300), pool=0),
        "confined, from the pool": await local.one_shots(some(300), pool=8),
    }
    for width in (1, 16):
        shots[f"fresh interpreter, {width} at once"] = await local.fresh_interpreters(some(64), width)
    if shutil.which(BWRAP[0]):
        shots["bubblewrap and interpreter"] = await local.fresh_interpreters(some(40), 1, BWRAP)
    show("a one-shot, in process", shots)
    searches = await web.measure(some(400))
    show("a web request of a tool", searches)
    over_http = await http.compare(some(1600, 800), (1, 16, 64), 3)
    print()
    print(http.table(over_http))
    living = [await many.living(count) for count in (10, 100, some(1000, 100))]
    print(f"\n{'live sessions':<34}{'open ms':>10}{'PSS MB':>10}{'MB each':>10}")
    for row in living:
        print(f"{row['sessions']:<34.0f}{row['open_ms']:>10.2f}{row['pss_mb']:>10.0f}{row['session_mb']:>10.2f}")
    mixes = {kind: await many.mixed(some(1600), width=8, hostile=kind == "hostile") for kind in ("clean", "hostile")}
    print(f"\n{'clean calls beside others':<34}{'p50 ms':>10}{'p99 ms':>10}{'others':>10}")
    for kind, row in mixes.items():
        print(f"{kind:<34}{row['p50_ms']:>10.3f}{row['p99_ms']:>10.3f}{row['others']:>10.0f}")
    ratios = {
        "http_batched_to_exec_at_16": over_http["batched"]["16"]["calls_per_s"]
        / over_http["exec"]["16"]["calls_per_s"],
        "one_shot_to_bare_fork": shots["confined, forked when asked for"]["p50_ms"]
        / shots["bare fork, exit, pipe"]["p50_ms"],
        "fresh_to_one_shot": shots["fresh interpreter, 1 at once"]["p50_ms"]
        / shots["confined, forked when asked for"]["p50_ms"],
        "hostile_p99": mixes["hostile"]["p99_ms"] / mixes["clean"]["p99_ms"],
    }
    print("\n" + "  ".join(f"{name} {value:.2f}" for name, value in ratios.items()))
    return {
        "calls": calls, "one_shots": shots, "web": searches, "http": over_http, "live": living, "mixed": mixes,
        "ratios": ratios, "load": os.getloadavg()[0],
    }  # fmt: skip


def rounded(value: object) -> object:
    """Numbers to four digits, for one line of JSON; what was not measured is null."""
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the calls, to see that it runs")
    options = parser.parse_args()
    print(json.dumps(rounded(asyncio.run(measure(0.05 if options.quick else 1.0)))))


if __name__ == "__main__":
    main()
