"""Reads a run directory as the views need it: metrics by step, success before and after, settings.

It tolerates what a killed or a running trainer leaves (a half-written last line, a missing summary) and refuses what is
wrong in the middle. It does not read trajectories.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recall.errors import ConfigError
from recall.store import Run

Success = Mapping[str, Mapping[str, float]]
"""Success rates in 0..1 by mode (`sampled`, `greedy`, `SPLIT/sampled`, or `""`), then by kind (`1`, `2`, `join`)."""


@dataclass(frozen=True)
class RunRecord:
    """What a run directory says of itself."""

    path: Path
    """The run directory."""
    rows: tuple[Mapping[str, float], ...] = ()
    """Finite metrics, one mapping a step, in the order of steps."""
    summary: Mapping[str, Any] = field(default_factory=dict)
    """`summary.json`; empty when the run has not ended."""
    config: str = ""
    """`config.toml` as text."""
    before: Success = field(default_factory=dict)
    """Held-out success before training."""
    after: Success = field(default_factory=dict)
    """Held-out success at the end, or at the last validation so far."""

    def series(self, name: str) -> list[tuple[float, float]]:
        """The points (step, value) of one metric."""
        return [(row["step"], row[name]) for row in self.rows if name in row]

    def names(self, prefix: str) -> list[str]:
        """The metrics that start with `prefix`, kinds in order."""
        found = {name for row in self.rows for name in row if name.startswith(prefix)}
        return [prefix + kind for kind in sort_kinds(name.removeprefix(prefix) for name in found)]

    def minutes(self) -> float | None:
        """How long it trained: from the summary, or the sum of its steps; None when neither says."""
        told = self.summary.get("minutes")
        if isinstance(told, int | float):
            return float(told)
        times = [row["time/step_s"] for row in self.rows if "time/step_s" in row]
        return sum(times) / 60 if times else None


def read_run(run_dir: Path) -> RunRecord:
    """Read a run directory.

    Raises:
        ConfigError: it is not a run directory, or a file in it is damaged other than by a kill.
    """
    if not run_dir.is_dir():
        raise ConfigError(f"{run_dir}: no such run directory")
    run = Run(run_dir)
    rows = read_metrics(run)
    summary = _read_object(run_dir / "summary.json")
    validations = validation_success(rows)
    before, after = _success(summary.get("before")), _success(summary.get("after"))
    if validations and not before:
        before = validations[0][1]
    if len(validations) > 1 and not after:
        after = validations[-1][1]
    config = run.config_path.read_text(encoding="utf-8", errors="replace") if run.config_path.is_file() else ""
    return RunRecord(run_dir, rows, summary, config, before, after)


def read_metrics(run: Run) -> tuple[Mapping[str, float], ...]:
    """The rows of `metrics.jsonl` merged by step; what a resumed run wrote again replaces what it was.

    Raises:
        ConfigError: there is no such file, or a row is damaged or has no step.
    """
    if not run.metrics_path.is_file():
        raise ConfigError(f"{run.path}: not a run directory: it has no {run.metrics_path.name}")
    by_step: dict[float, dict[str, float]] = {}
    for number, row in enumerate(run.read_metrics(), start=1):
        if not _is_number(row.get("step")):
            raise ConfigError(f"{run.metrics_path}: line {number}: 'step' must be a number, not {row.get('step')!r}")
        by_step.setdefault(row["step"], {}).update({k: float(v) for k, v in row.items() if _is_number(v)})
    return tuple(by_step[step] for step in sorted(by_step))


def validation_success(rows: Iterable[Mapping[str, float]]) -> list[tuple[Mapping[str, float], Success]]:
    """The rows that hold a validation, each with its success rates; a split that is the only one is not named."""
    found: list[tuple[Mapping[str, float], dict[tuple[str, str], dict[str, float]]]] = []
    for row in rows:
        rates: dict[tuple[str, str], dict[str, float]] = {}
        for name, value in row.items():
            words = name.split("/")
            if len(words) == 4 and words[0] == "val":
                rates.setdefault((words[1], words[2]), {})[words[3]] = value
        if rates:
            found.append((row, rates))
    several = len({split for _, rates in found for split, _ in rates}) > 1
    return [
        (row, {f"{split}/{mode}" if several else mode: kinds for (split, mode), kinds in rates.items()})
        for row, rates in found
    ]


def success_by_kind(metrics: Mapping[str, float]) -> dict[str, float]:
    """Held-out success by kind, of bare kinds or of `val/SPLIT/MODE/KIND` (sampled wins over greedy)."""
    found: dict[str, float] = {}
    for mode in ("greedy", "sampled"):
        found |= {
            name.rsplit("/", 1)[1]: value
            for name, value in metrics.items()
            if name.startswith("val/") and f"/{mode}/" in name
        }
    found = found or {name: value for name, value in metrics.items() if "/" not in name and name != "step"}
    return {kind: found[kind] for kind in sort_kinds(found)}


def sort_kinds(kinds: Iterable[str]) -> list[str]:
    """Numbers of calls in order, then the other kinds by name."""
    return sorted(kinds, key=lambda kind: (not kind.isdecimal(), int(kind) if kind.isdecimal() else 0, kind))


def _read_object(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as fault:
        raise ConfigError(f"{path}: not JSON ({fault})") from fault
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a JSON object")
    return value


def _success(value: object) -> Success:
    """The rates of a summary, however deep they are nested: the last key is the kind, those before it the mode."""
    found: dict[str, dict[str, float]] = {}

    def visit(node: object, path: tuple[str, ...]) -> None:
        if isinstance(node, Mapping):
            for key, child in node.items():
                visit(child, (*path, str(key)))
        elif _is_number(node) and path:
            found.setdefault("/".join(path[:-1]), {})[path[-1]] = float(str(node))

    visit(value, ())
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
