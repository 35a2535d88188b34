"""What the window costs: the first index of a very large run, opening it, filters, memory, following a live run.

Prints tables and, as its last line, the same numbers as one JSON object with the targets beside them.
"""

import argparse
import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from parts.window_run import write_run

RECALL = (sys.executable, "-m", "recall.cli")
FILTERS = (
    "correct=true",
    "correct=false&stop=max_tokens",
    "reward=0.2..0.4",
    "reward=0.9..&tool=search&sort=-reward",
    "step=500..600&sort=-tokens",
    "status=timeout",
    "kind=hop3&calls=3..&sort=duration",
    "part=answer%3D1&sort=advantage",
    "tokens=..200&sort=logprob",
    "text=kalomi",
    "text=%22kalomi+neruka%22",
    "text=last+result",
    "task=train-20000",
)
TARGETS = {"index_per_s": 20_000, "open_s": 1.0, "filter_max_ms": 300, "rss_mb": 500, "live_share": 0.01}


def index(run: Path, cache: Path) -> dict[str, float]:
    """Build the first index of `run` in a process of its own."""
    program = (
        "import sys, time, json, resource; from pathlib import Path\n"
        "from recall.viewer.index.index import RunIndex\n"
        "used = lambda: sum(getattr(resource.getrusage(who), name) for name in ('ru_utime', 'ru_stime')"
        " for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))\n"
        "started, cpu = time.perf_counter(), used()\n"
        "first = []\n"
        "told = lambda rows, read, total: first or first.append(time.perf_counter() - started)\n"
        "index = RunIndex(Path(sys.argv[1]), Path(sys.argv[2])).refresh(told)\n"
        "print(json.dumps([index.rows, time.perf_counter() - started, used() - cpu, first[0],"
        " resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(run), str(cache)], check=True, capture_output=True)
    rows, wall, cpu, first, rss = json.loads(done.stdout)
    size = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    return {
        "trajectories": rows, "index_s": wall, "index_cpu_s": cpu, "index_per_s": rows / wall,
        "index_per_cpu_s": rows / cpu, "first_rows_s": first, "index_rss_mb": rss, "index_disk_mb": size / 2**20,
    }  # fmt: skip


class Server:
    """`recall view` on a directory, in a process of its own."""

    def __init__(self, root: Path, cache: Path) -> None:
        started = time.perf_counter()
        self._process = subprocess.Popen(
            [*RECALL, "view", str(root), "--port", "0", "--cache", str(cache)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None, "it is a pipe"
        line = self._process.stdout.readline()
        found = re.search(r"ready at (\S+);", line)
        assert found, line
        self.url, self.ready_s = found[1], time.perf_counter() - started

    def ask(self, path: str) -> Any:
        """What an address answers."""
        with urllib.request.urlopen(f"{self.url}/api/{path}", timeout=60) as answer:
            return json.load(answer)

    def rss_mb(self) -> tuple[float, float]:
        """Memory now, and the most so far, in MiB."""
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        return tuple(int(found) / 1024 for found in (re.findall(r"Vm(?:RSS|HWM):\s+(\d+)", text)[::-1]))  # type: ignore[return-value]

    def cpu_s(self) -> float:
        """Seconds of CPU so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)


def timed(server: Server, path: str) -> tuple[float, Any]:
    """Seconds of a request, and its answer."""
    started = time.perf_counter()
    answer = server.ask(path)
    return time.perf_counter() - started, answer


def opened(root: Path, name: str, cache: Path) -> dict[str, float]:
    """Open a run that is indexed in a fresh server, filter it, and read trajectories."""
    server = Server(root, cache)
    try:
        parts = [timed(server, f"{view}?run={name}")[0] for view in ("run", "metrics", "list")]
        print(f"\nopened in {sum(parts):.3f} s: the run {parts[0]:.3f}, curves {parts[1]:.3f}, the list {parts[2]:.3f}")
        print(f"\n{'filter':<44}{'found':>10}{'p50 ms':>9}{'max ms':>9}")
        every: list[float] = []
        for asked in FILTERS:
            times = []
            for _ in range(7):
                seconds, told = timed(server, f"list?run={name}&{asked}")
                times.append(1000 * seconds)
            every += times
            print(f"{asked:<44}{told['total']:>10,}{statistics.median(times):>9.1f}{max(times):>9.1f}")
        rows = [row["row"] for row in server.ask(f"list?run={name}&sort=reward&limit=20")["rows"]]
        reads = [1000 * timed(server, f"trajectory?run={name}&row={row}")[0] for row in rows]
        now, most = server.rss_mb()
    finally:
        server.stop()
    return {
        "ready_s": server.ready_s, "open_s": sum(parts), "filter_p50_ms": statistics.median(every),
        "filter_max_ms": max(every), "trajectory_p50_ms": statistics.median(reads), "rss_mb": most, "rss_now_mb": now,
    }  # fmt: skip


def live(root: Path, cache: Path, steps: int) -> dict[str, float]:
    """Follow a short real training as an open page does, and hold the server's CPU against the trainer's."""
    server = Server(root, cache)
    try:
        opening = server.cpu_s()
        server.ask("list?run=large")  # what is loaded for the first page is loaded once
        opening = server.cpu_s() - opening
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        told = ["--steps", str(steps), "--validation.final_tasks", "8", "--doctor", "false"]
        trainer = subprocess.Popen(
            [*RECALL, "train", "--run", str(root / "live"), *told],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        started, idle, version = time.perf_counter(), server.cpu_s(), ""
        while trainer.poll() is None:
            if (root / "live" / "metrics.jsonl").exists():
                told = server.ask("pulse?run=live")
                if told["version"] != version:
                    version = told["version"]
                    for view in ("run", "metrics", "list"):
                        server.ask(f"{view}?run=live")
            time.sleep(2)
        spent = server.cpu_s() - idle
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seen = server.ask("list?run=live")["of"]
    finally:
        server.stop()
    theirs = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {
        "live_s": time.perf_counter() - started, "live_first_page_cpu_s": opening, "live_server_cpu_s": spent,
        "live_trainer_cpu_s": theirs, "live_share": spent / theirs,
        "live_trajectories": seen,
    }  # fmt: skip


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trajectories", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=12, help="of the training that is followed; 0 leaves it out")
    parser.add_argument("--scratch", type=Path, help="where the run and its index go; needs some 2 GB")
    chosen = parser.parse_args()
    if chosen.scratch is not None:
        chosen.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=chosen.scratch) as scratch:
        root, cache = Path(scratch) / "runs", Path(scratch) / "cache"
        root.mkdir()
        started = time.perf_counter()
        size = write_run(root / "large", chosen.trajectories)
        print(f"made {chosen.trajectories:,} trajectories of {size / chosen.trajectories:,.0f} bytes", end="")
        print(f" in {time.perf_counter() - started:.0f} s")
        found = {"bytes_each": size / chosen.trajectories, **index(root / "large", cache)}
        print(f"indexed {found['index_per_s']:,.0f} a second of wall time, {found['index_per_cpu_s']:,.0f} of CPU time")
        found |= opened(root, "large", cache)
        if chosen.steps:
            found |= live(root, cache, chosen.steps)
    print(f"\n{'number':<24}{'reached':>12}{'asked':>12}")
    for name, value in found.items():
        print(f"{name:<24}{value:>12,.3f}{TARGETS.get(name, ''):>12}")
    print(json.dumps({**{name: round(value, 4) for name, value in found.items()}, "targets": TARGETS}))


if __name__ == "__main__":
    main()
