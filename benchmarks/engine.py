"""Our engine, learner and step next to `generate`, the padded update and TRL's step, on one model and the same tasks.

Every part runs in a process of its own with the same threads and the same allocator settings, peers in turn where they
share a process. Prints tables and, as its last line, the same numbers as one JSON object. `docs/benchmarks.md` says how
each number is measured; the numbers mean something on a quiet machine only.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from recall.errors import ConfigError
from recall.policy.torch.loading import NANO, resolve

HERE = Path(__file__).resolve().parent
TRL_PYTHON = HERE.parent / ".venv-trl" / "bin" / "python"
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_MMAP_THRESHOLD_": str(1 << 30)}
"""What `recall train` asks of glibc, for every contender."""

SHAPES = {"2:1": "update, prompt:response 2:1", "nano": "update, nano's own shape"}


def part(python: Path, name: str, *args: str, threads: int) -> Any:
    """The JSON that a part prints as its last line.

    Raises:
        RuntimeError: it failed; the message ends with what it said.
    """
    environment = os.environ | ALLOCATOR | {
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }  # fmt: skip
    done = subprocess.run(
        [str(python), "-m", f"parts.{name}", *args], cwd=HERE, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"parts.{name} {' '.join(args)}: failed\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def trl_steps(setting: str, micro_batches: Sequence[int], threads: int) -> list[dict[str, Any]]:
    """TRL's step at each micro-batch, the fastest first."""
    given = part(Path(sys.executable), "tasks_file", setting, threads=threads) | json.loads(setting)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in micro_batches:
            path = Path(folder) / f"{size}.json"
            path.write_text(json.dumps(given | {"micro_batch": size}), encoding="utf-8")
            rows.append(part(TRL_PYTHON, "trl_step", str(path), threads=threads))
    return sorted(rows, key=lambda row: -float(row["trajectories_per_s"]))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run every part."""
    model, threads = str(resolve(options.model).resolve()), options.threads
    setting = json.dumps(
        {
            "model": model,
            "threads": threads,
            "repeats": options.repeats,
            "groups": options.groups,
            "group_size": options.group_size,
        }
    )
    ours = Path(sys.executable)
    report: dict[str, Any] = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load_before": os.getloadavg()[0],
            "torch": version("torch"),
            "transformers": version("transformers"),
        },
        "setting": json.loads(setting) | {"model": options.model},
        "sampling": part(ours, "sampling", setting, threads=threads),
    }
    for shape in SHAPES:
        row = report[f"update {shape}"] = part(ours, "update", setting, shape, threads=threads)
        for contender in ("recall", "padded"):
            row[contender] |= part(ours, "update", setting, shape, contender, threads=threads)
        row["memory_ratio"] = row["recall"]["peak_mb"] / row["padded"]["peak_mb"]
    step = report["step"] = {"recall": part(ours, "step", setting, threads=threads)}
    if not options.skip_trl:
        rows = trl_steps(setting, options.trl_micro_batches, threads)
        fast, best = step["recall"], rows[0]
        step["trl"], step["trl_others"] = best, rows[1:]
        step["ratio"] = fast["trajectories_per_s"] / best["trajectories_per_s"]
        step["tokens_ratio"] = fast["completion_tokens_per_s"] / best["completion_tokens_per_s"]
        step["memory_ratio"] = fast["peak_mb"] / best["peak_mb"]
    return report


def show(report: Mapping[str, Any]) -> None:
    """Print the tables."""
    print(f"{'':<34}{'ReCall':>12}{'peer':>12}{'ratio':>8}{'aim':>8}  peer")

    def line(label: str, row: Mapping[str, Any], peer: str, field: str, ratio: str, aim: str) -> None:
        print(f"{label:<34}{row['recall'][field]:>12.1f}{row[peer][field]:>12.1f}{row[ratio]:>8.2f}{aim:>8}  {peer}")

    line("sampling, tokens/s", report["sampling"], "generate", "tokens_per_s", "ratio", ">= 5")
    for shape, label in SHAPES.items():
        row = report[f"update {shape}"]
        line(f"{label}, tokens/s", row, "padded", "tokens_per_s", "ratio", ">= 2")
        line("  peak memory, MB", row, "padded", "peak_mb", "memory_ratio", "<= 1")
    step = report["step"]
    if "trl" in step:
        line("step, trajectories/s", step, "trl", "trajectories_per_s", "ratio", ">= 10")
        line("  peak memory, MB", step, "trl", "peak_mb", "memory_ratio", "<= 1")
        line("  completion tokens/s", step, "trl", "completion_tokens_per_s", "tokens_ratio", "")
    ours = step["recall"]
    if "trl" not in step:
        print(f"{'step, trajectories/s':<34}{ours['trajectories_per_s']:>12.1f}  TRL left out")
    print(f"\n{'our step':<34}{'ms':>12}{'share':>8}")
    for name in ("sampling", "tools_and_loop", "reward", "update", "storing"):
        seconds = ours[f"{name}_s"]
        print(f"{name.replace('_', ' '):<34}{seconds * 1000:>12.1f}{seconds / ours['wall_s']:>8.1%}")
    print(f"of which tools in the sandbox     {ours['tools_s'] * 1000:>12.1f}{ours['tools_share']:>8.1%}  aim < 20%")
    print(f"\nepisodes the same when greedy: {report['sampling']['same_when_greedy']:.1%}")
    for shape in SHAPES:
        print(f"gradients differ by, {shape}: {report[f'update {shape}']['gradient_difference']:.1e} of their norm")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=NANO, help="a model directory, or nano")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=5, help="measured repetitions; the median counts")
    parser.add_argument("--groups", type=int, default=24, help="tasks a step")
    parser.add_argument("--group-size", type=int, default=8, help="episodes of each task")
    parser.add_argument("--trl-micro-batches", type=int, nargs="+", default=[16, 48, 192], help="the fastest counts")
    parser.add_argument("--skip-trl", action="store_true")
    parser.add_argument("--json-only", action="store_true")
    options = parser.parse_args()
    batch = options.groups * options.group_size
    try:
        if bad := [size for size in options.trl_micro_batches if batch % size and not options.skip_trl]:
            raise ConfigError(f"--trl-micro-batches {bad[0]}: does not divide the batch of {batch} trajectories")
        if not options.skip_trl and not TRL_PYTHON.exists():
            raise ConfigError(".venv-trl: not there; make it with `make bench-trl`, or leave TRL out with --skip-trl")
        report = measure(options)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    if not options.json_only:
        show(report)
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
