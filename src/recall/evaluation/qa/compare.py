"""Runs over the same questions side by side: what differs in their settings, and whether their numbers do.

Each run is held against the first one, question by question. EM, cover-EM and the judge's marks are compared by
McNemar's exact test, F1 by a paired bootstrap. Questions that only one of the two has, or that had a fault, are left
out of the pair and counted.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recall.errors import ConfigError
from recall.evaluation.qa.results import Row, read_results
from recall.evaluation.qa.statistics import Interval, mcnemar, paired_bootstrap

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, slots=True)
class Measured:
    """A run read from its folder."""

    name: str
    """For people."""
    manifest: Mapping[str, Any]
    """What was measured."""
    rows: Mapping[str, Row]
    """By question."""
    judgements: Mapping[str, bool]
    """What the judge said, by question; empty where none was asked."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One measure of two runs over the questions that both answered."""

    measure: str
    """`em`, `f1`, `cover_em` or `judge`."""
    n: int
    """Questions compared."""
    first: float
    """The mean of the first run."""
    second: float
    """The mean of the second run."""
    interval: Interval
    """95 % interval of second - first, by a paired bootstrap."""
    p: float
    """Two-sided: McNemar's exact test, or that of the bootstrap for F1."""
    only_first: int
    """Questions that only the first run solved; for F1, on which it did better."""
    only_second: int
    """Questions that only the second run solved; for F1, on which it did better."""


def read_measured(path: Path, name: str = "") -> Measured:
    """Read a run.

    Raises:
        ConfigError: there is none in the folder, or it is damaged.
    """
    manifest, rows = read_results(path)
    marks: dict[str, bool] = {}
    file = path / "judgements.json"
    if file.exists():
        try:
            marks = json.loads(file.read_bytes())
        except ValueError as error:
            raise ConfigError(f"{file}: damaged: {error}") from None
    return Measured(name or path.name, manifest, {row.id: row for row in rows}, marks)


def differences(first: Measured, second: Measured, *, seed: int = 0) -> list[Difference]:
    """Every measure that both runs have.

    Raises:
        ConfigError: no question was answered by both, or one id stands for two questions.
    """
    pairs = [
        (row, second.rows[id])
        for id, row in first.rows.items()
        if id in second.rows and row.fault is None and second.rows[id].fault is None
    ]
    if not pairs:
        raise ConfigError(f"{first.name} and {second.name}: no question was answered by both")
    for a, b in pairs:
        if a.question != b.question:
            raise ConfigError(f"{first.name} and {second.name}: {a.id!r} is another question in each")
    found = [
        _difference(
            name, [getattr(a.scores, name) for a, _ in pairs], [getattr(b.scores, name) for _, b in pairs], seed
        )
        for name in ("em", "f1", "cover_em")
    ]
    judged = [a.id for a, _ in pairs if a.id in first.judgements and a.id in second.judgements]
    if judged:
        of_first, of_second = ([float(run.judgements[id]) for id in judged] for run in (first, second))
        found.append(_difference("judge", of_first, of_second, seed))
    return found


def changed_settings(runs: Sequence[Measured]) -> dict[str, list[str]]:
    """The settings that are not the same in all runs, by dotted name, a value for each run."""
    flat = [_leaves(run.manifest) for run in runs]
    names = dict.fromkeys(name for leaves in flat for name in leaves)
    return {name: values for name in names if len(set(values := [leaves.get(name, "") for leaves in flat])) > 1}


def table(first: Measured, others: Sequence[tuple[Measured, Sequence[Difference]]]) -> "Table":
    """The differences of runs from the first one, in percentage points."""
    from rich.table import Table

    shown = Table()
    for column in (
        f"against {first.name}",
        "measure",
        "n",
        "first",
        "this",
        "difference [95 %]",
        "only first",
        "only this",
        "p",
    ):
        shown.add_column(column, justify="left" if column == "measure" or column.startswith("against") else "right")
    for run, found in others:
        for number, d in enumerate(found):
            shown.add_row(
                run.name if number == 0 else "",
                d.measure,
                f"{d.n:,}",
                f"{d.first:.1%}",
                f"{d.second:.1%}",
                f"{100 * (d.second - d.first):+.1f} [{100 * d.interval.low:+.1f}, {100 * d.interval.high:+.1f}]",
                str(d.only_first),
                str(d.only_second),
                "< 0.0001" if d.p < 0.0001 else f"{d.p:.4f}",
            )
    return shown


def _difference(name: str, first: Sequence[float], second: Sequence[float], seed: int) -> Difference:
    interval, p = paired_bootstrap(first, second, seed=seed)
    only_first = sum(a > b for a, b in zip(first, second, strict=True))
    only_second = sum(b > a for a, b in zip(first, second, strict=True))
    if name != "f1":
        p = mcnemar(only_first, only_second)
    n = len(first)
    return Difference(name, n, sum(first) / n, sum(second) / n, interval, p, only_first, only_second)


def _leaves(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    leaves: dict[str, str] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            leaves |= _leaves(item, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = str(item)
    return leaves
