"""What procedural tasks cost and whether they hold: speed by processes, memory by rows, certificates, guesses.

Sets are made by the writer that `recall synth procedural` uses, sandbox and shards included, each in a process of its
own. Prints tables and, as its last line, the same numbers as one JSON object. CPU is that of all processes together.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parts.synth_run import Run
from recall.datasets.rows import iter_tasks
from recall.synth.report.report import Options, make_report

ANCHOR = {"answer_in_question": 0.0, "best_constant": 0.014}
"""MuSiQue's, which a set should not exceed."""
GROWTH = (1, 4)
"""The sizes at which memory is measured, in times the rows asked for."""


def run(what: Run) -> dict[str, Any]:
    """Make a set, and say what it cost."""
    part = Path(__file__).parent / "parts" / "synth_run.py"
    made = subprocess.run([sys.executable, str(part), what.text()], check=True, capture_output=True, text=True)
    cost: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return cost


def pace() -> float:
    """Nanoseconds of CPU for a step of a plain loop: what all other numbers are relative to on a busy machine."""
    begun, total = time.process_time(), 0
    for number in range(1_000_000):
        total += number * number % 7
    return (time.process_time() - begun) * 1000


def show_runs(runs: Sequence[Mapping[str, Any]]) -> None:
    """A table of what sets cost; the fourth column is what two cores would do at this cost if they did nothing else."""
    names = ("rows", "workers", "tasks/s", "CPU ms", "2 cores/s", "writer MiB", "worker MiB", "load")
    print("".join(f"{name:>12}" for name in names))
    for cost in runs:
        cpu = cost["cpu_s"] / cost["rows"]
        numbers = (f"{cost['rows'] / cost['wall_s']:.0f}", f"{cpu * 1000:.2f}", f"{2 / cpu:.0f}")
        memory = (f"{cost['writer_mib']:.0f}", f"{cost['worker_mib']:.0f}", f"{cost['load']:.1f}")
        print("".join(f"{text:>12}" for text in (f"{cost['rows']:,}", cost["workers"], *numbers, *memory)))


def show_certificates(cost: Mapping[str, Any]) -> None:
    """A table of the attempts that certificates threw away."""
    print(f"\n{cost['tried']:,} attempts, {cost['rows'] / cost['tried']:.1%} accepted")
    for gate, reasons in cost["rejected"].items():
        for reason, count in reasons.items():
            print(f"  {gate:<16}{reason:<46}{count:>7,}{count / cost['tried']:>8.2%}")


def held(directory: Path, sample: int) -> dict[str, Any]:
    """What the report finds in a set: the measures that a set must not fail, and the gates that it broke."""
    report = make_report(iter_tasks(directory, parse_env=False), source={}, options=Options(sample=sample))
    replay, answers = report["replay"], report["answers"]
    return {
        "rows": report["rows"],
        "replayed": replay["solved"],
        "same_in_two_processes": replay["same"],
        "provenance_violations": replay["provenance"]["violations"],
        "arguments": replay["provenance"]["arguments"],
        "cross_split_overlap": sum(each["count"] for each in report["overlap"]["shared"]),
        "answer_in_question": answers["in_question"],
        "best_constant": answers["top"][0]["share"],
        "broken": [gate["name"] for gate in report["gates"] if gate["broken"]],
    }


def show_held(measures: Mapping[str, Any]) -> None:
    """A table of what holds."""
    print()
    for name, value in measures.items():
        beside = f"   (MuSiQue {ANCHOR[name]:.1%})" if name in ANCHOR else ""
        if name == "broken":
            said = ", ".join(value) or "none"
        else:
            said = f"{value:.2%}" if isinstance(value, float) else f"{value:,}"
        print(f"{name.replace('_', ' '):<26}{said:>12}{beside}")


def measure(rows: int, recipe: str, sample: int) -> dict[str, Any]:
    """Everything."""
    with tempfile.TemporaryDirectory(prefix="recall-synth-") as place:
        runs = [run(Run(f"{place}/one", rows, 1, recipe))]
        runs += [run(Run(f"{place}/{times}", rows * times, 2, recipe)) for times in GROWTH]
        show_runs(runs)
        largest = runs[-1]
        show_certificates(largest)
        measures = held(Path(place) / str(GROWTH[-1]), sample)
        show_held(measures)
    steps = runs[-1]["rows"] - runs[-2]["rows"]
    growth = (runs[-1]["writer_mib"] - runs[-2]["writer_mib"]) * 1024 / steps
    print(f"\nmemory of the writer grows by {growth:.2f} KiB a row; a step of a loop takes {pace():.0f} ns of CPU here")
    return {
        "benchmark": "synth",
        "recipe": recipe,
        "tasks_per_s": {f"{e['workers']} workers, {e['rows']} rows": e["rows"] / e["wall_s"] for e in runs},
        "cpu_ms_per_task": largest["cpu_s"] / largest["rows"] * 1000,
        "memory_mib": {str(each["rows"]): each["writer_mib"] + each["workers"] * each["worker_mib"] for each in runs},
        "accepted": largest["rows"] / largest["tried"],
        "rejected": largest["rejected"],
        **measures,
        "pace_ns": pace(),
        "load": largest["load"],
    }  # fmt: skip


def rounded(value: Any) -> Any:
    """Numbers to four digits, for one line of JSON."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return value


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2000, help="rows of the sets whose speed is measured")
    parser.add_argument("--recipe", default="default", help="a preset or a TOML file")
    parser.add_argument("--sample", type=int, default=400, help="tasks that are replayed by the report")
    options = parser.parse_args()
    print(json.dumps(rounded(measure(options.rows, options.recipe, options.sample))))


if __name__ == "__main__":
    main()
