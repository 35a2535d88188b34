"""What a run over the leaderboard comes to: accuracies by category and group, kinds of error, and what it took."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recall.evaluation.bfcl.play import Verdict
from recall.evaluation.bfcl.scores import category_score, group_scores

if TYPE_CHECKING:
    from rich.table import Table


def summarize(verdicts: Sequence[Verdict], categories: Sequence[str], faults: int = 0) -> dict[str, Any]:
    """The summary, as JSON says it.

    Args:
        verdicts: on entries of these categories.
        categories: in the order wanted.
        faults: entries that failed for reasons of ours.
    """
    by = {name: [each for each in verdicts if each.category == name] for name in categories}
    scores = {name: category_score([each.valid for each in found]) for name, found in by.items() if found}
    return {
        "categories": {
            name: {
                "accuracy": score.accuracy,
                "entries": score.entries,
                "low": score.interval.low if score.interval else None,
                "high": score.interval.high if score.interval else None,
                "turns": _mean([each.turns for each in by[name]]),
                "calls": _mean([each.calls for each in by[name]]),
                "tokens": _mean([each.sampled_tokens for each in by[name]]),
                "seconds": _mean([each.duration_s for each in by[name]]),
                "seconds_95": _quantile([each.duration_s for each in by[name]], 0.95),
                "errors": _errors(by[name]),
            }
            for name, score in scores.items()
        },
        "groups": {
            name: {"accuracy": score.accuracy, "complete": score.complete}
            for name, score in group_scores(scores).items()
        },
        "errors": _errors(verdicts),
        "entries": len(verdicts),
        "malformed_calls": sum(each.malformed for each in verdicts),
        "faults": faults,
    }


def table(summary: dict[str, Any]) -> "Table":
    """The summary for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("category", "right", "95 %", "of", "turns", "calls", "s", "s p95"):
        made.add_column(heading, no_wrap=True, justify="left" if heading == "category" else "right")
    for name, each in summary["categories"].items():
        interval = f"{100 * each['low']:.1f}-{100 * each['high']:.1f}"
        numbers = (f"{each[key]:.2f}" for key in ("turns", "calls", "seconds", "seconds_95"))
        made.add_row(name, f"{each['accuracy']:.1%}", interval, str(each["entries"]), *numbers)
    made.add_section()
    for name, group in summary["groups"].items():
        made.add_row(name, f"{group['accuracy']:.1%}", "" if group["complete"] else "incomplete")
    return made


def _errors(verdicts: Sequence[Verdict]) -> dict[str, int]:
    return dict(Counter(each.error_type or "other" for each in verdicts if not each.valid).most_common())


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)


def _quantile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that is not exceeded by this share of them."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
