"""Two runs over the leaderboard side by side: by category, with tests of the difference, and entries that changed."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recall.errors import ConfigError
from recall.evaluation.bfcl.entries import CATEGORIES
from recall.evaluation.bfcl.play import Verdict
from recall.evaluation.bfcl.results import read_verdicts
from recall.evaluation.bfcl.scores import Score, category_score, group_scores
from recall.evaluation.qa.statistics import mcnemar

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, slots=True)
class Run:
    """What is read of a run."""

    path: Path
    """Its folder."""
    manifest: Mapping[str, Any]
    """What decided its numbers."""
    verdicts: Mapping[str, Verdict]
    """By entry; without faults and without conversations that fill a memory."""

    @property
    def name(self) -> str:
        """Who played, and where it is kept."""
        policy = self.manifest.get("policy")
        return f"{policy.get('model') if isinstance(policy, Mapping) else policy} ({self.path})"


@dataclass(frozen=True, slots=True)
class Line:
    """One category of both runs, over the entries that both played."""

    name: str
    """Of the category."""
    before: Score
    """Of the first run."""
    after: Score
    """Of the second."""
    fixed: int
    """Entries that only the second got right."""
    broken: int
    """Entries that only the first got right."""
    p: float
    """McNemar's exact p-value that both are equally good."""
    turns: tuple[float, float]
    """Turns of the policy an entry, before and after."""
    calls: tuple[float, float]
    """Calls an entry, before and after."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs side by side."""

    before: Run
    after: Run
    lines: tuple[Line, ...]
    """By category, in the leaderboard's order."""
    groups: Mapping[str, tuple[Score, Score]]
    """By group, before and after, over the entries that both played."""
    errors: Mapping[str, tuple[int, int]]
    """By the leaderboard's word for what is wrong, how often before and after."""
    fixed: tuple[tuple[Verdict, Verdict], ...]
    """Entries wrong before and right after."""
    broken: tuple[tuple[Verdict, Verdict], ...]
    """Entries right before and wrong after."""
    only_one: int
    """Entries that only one of the runs played; they are left out."""
    differing: Mapping[str, tuple[Any, Any]]
    """Settings that differ, before and after."""


def read_run(path: Path) -> Run:
    """The run in a folder.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except OSError:
        raise ConfigError(f"{path}: no run of recall eval bfcl (it has no manifest.json)") from None
    except ValueError as fault:
        raise ConfigError(f"{path / 'manifest.json'}: damaged: {fault}") from None
    verdicts = {v.id: v for v in read_verdicts(path) if v.fault is None and v.category in CATEGORIES}
    if not verdicts:
        raise ConfigError(f"{path}: no verdict in it yet")
    return Run(path, manifest, verdicts)


def compare(before: Run, after: Run) -> Comparison:
    """Put two runs side by side, over the entries that both played.

    Raises:
        ConfigError: there is no such entry.
    """
    both = [(before.verdicts[id], after.verdicts[id]) for id in before.verdicts if id in after.verdicts]
    if not both:
        raise ConfigError(f"{before.path} and {after.path}: no entry was played in both")
    by = {name: [pair for pair in both if pair[0].category == name] for name in CATEGORIES}
    lines = tuple(_line(name, pairs) for name, pairs in by.items() if pairs)
    old, new = (group_scores({line.name: getattr(line, side) for line in lines}) for side in ("before", "after"))
    wrong = [Counter(v.error_type or "other" for v in side if not v.valid) for side in zip(*both, strict=True)]
    kinds = sorted({*wrong[0], *wrong[1]}, key=lambda kind: -max(wrong[0][kind], wrong[1][kind]))
    keys = {**before.manifest, **after.manifest}
    pairs = {key: (before.manifest.get(key), after.manifest.get(key)) for key in keys}
    return Comparison(
        before=before,
        after=after,
        lines=lines,
        groups={name: (old[name], new[name]) for name in old if old[name].entries or new[name].entries},
        errors={kind: (wrong[0][kind], wrong[1][kind]) for kind in kinds},
        fixed=tuple(pair for pair in both if not pair[0].valid and pair[1].valid),
        broken=tuple(pair for pair in both if pair[0].valid and not pair[1].valid),
        only_one=len({*before.verdicts, *after.verdicts}) - len(both),
        differing={key: pair for key, pair in pairs.items() if pair[0] != pair[1]},
    )


def _line(name: str, pairs: Sequence[tuple[Verdict, Verdict]]) -> Line:
    fixed = sum(not old.valid and new.valid for old, new in pairs)
    broken = sum(old.valid and not new.valid for old, new in pairs)
    old, new = zip(*pairs, strict=True)
    return Line(
        name,
        category_score([verdict.valid for verdict in old]),
        category_score([verdict.valid for verdict in new]),
        fixed,
        broken,
        mcnemar(broken, fixed),
        (_mean([v.turns for v in old]), _mean([v.turns for v in new])),
        (_mean([v.calls for v in old]), _mean([v.calls for v in new])),
    )


def examples(pairs: Sequence[tuple[Verdict, Verdict]], count: int) -> list[tuple[Verdict, Verdict]]:
    """At most `count` entries of each category, those that were solved in the fewest calls first."""
    shown: Counter[str] = Counter()
    found = []
    for old, new in sorted(pairs, key=lambda pair: (pair[0].calls + pair[1].calls, pair[0].id)):
        shown[old.category] += 1
        if shown[old.category] <= count:
            found.append((old, new))
    return sorted(found, key=lambda pair: list(CATEGORIES).index(pair[0].category))


def as_json(found: Comparison, count: int) -> dict[str, Any]:
    """The comparison as JSON says it, with so many examples of each category."""
    return {
        "before": str(found.before.path),
        "after": str(found.after.path),
        "entries": sum(line.before.entries for line in found.lines),
        "only_one": found.only_one,
        "categories": {
            line.name: {
                "entries": line.before.entries,
                "before": line.before.accuracy,
                "after": line.after.accuracy,
                "fixed": line.fixed,
                "broken": line.broken,
                "p": line.p,
                "turns": line.turns,
                "calls": line.calls,
            }
            for line in found.lines
        },
        "groups": {
            name: {"before": old.accuracy, "after": new.accuracy, "complete": old.complete and new.complete}
            for name, (old, new) in found.groups.items()
        },
        "errors": {kind: {"before": old, "after": new} for kind, (old, new) in found.errors.items()},
        "differing": {key: {"before": old, "after": new} for key, (old, new) in found.differing.items()},
        "fixed": [_example(*pair) for pair in examples(found.fixed, count)],
        "broken": [_example(*pair) for pair in examples(found.broken, count)],
    }


def _example(old: Verdict, new: Verdict) -> dict[str, Any]:
    sides = {"before": old, "after": new}
    return {
        "id": old.id,
        "asked": old.asked,
        **{side: {"result": v.result, "error_type": v.error_type, "message": v.message} for side, v in sides.items()},
    }


def table(found: Comparison) -> "Table":
    """The comparison for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("category", "of", "before", "after", "change", "fixed", "broken", "p"):
        made.add_column(heading, no_wrap=True, justify="left" if heading == "category" else "right")
    for line in found.lines:
        made.add_row(
            line.name, str(line.before.entries), *_pair(line.before, line.after), str(line.fixed), str(line.broken),
            f"{line.p:.3f}" if line.p >= 0.001 else "<0.001",
        )  # fmt: skip
    made.add_section()
    for name, (old, new) in found.groups.items():
        made.add_row(name, "", *_pair(old, new), "", "", "" if old.complete and new.complete else "incomplete")
    return made


def _pair(old: Score, new: Score) -> tuple[str, str, str]:
    return f"{old.accuracy:.1%}", f"{new.accuracy:.1%}", f"{100 * (new.accuracy - old.accuracy):+.1f}"


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)
