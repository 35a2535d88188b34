"""What a measurement says as a whole: means, 95 % intervals, how the answers were come by; as JSON and as a table."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recall.evaluation.qa.measures import MEASURES
from recall.evaluation.qa.results import Row
from recall.evaluation.qa.statistics import Interval, bootstrap, wilson

if TYPE_CHECKING:
    from rich.table import Table

_SHARES = ("em", "cover_em", "judge")
"""Measures that are 0 or 1, whose interval is Wilson's; that of the others is a bootstrap's."""


def summarize(rows: Sequence[Row], judgements: Mapping[str, bool] | None = None) -> dict[str, Any]:
    """The numbers of a run. Questions with a fault of ours are counted, and left out of everything else.

    Args:
        rows: one for each question.
        judgements: what the judge said, by question; questions that it said nothing of are left out of its share.

    Returns:
        `n`, `faults`; for each measure `{mean, low, high}`; `searches` per question, the shares `closed`, `truncated`
        and `answered`, means of `turns`, `read_tokens`, `sampled_tokens`, and `duration_s` by `mean`, `p50`, `p95`; for
        each of the benchmark's sorts of question, `kinds` has its `n` and `em`. With no question left only the counts.
    """
    good = [row for row in rows if row.fault is None]
    found: dict[str, Any] = {"n": len(good), "faults": len(rows) - len(good)}
    if not good:
        return found
    for name in MEASURES:
        found[name] = _measured(name, [getattr(row.scores, name) for row in good])
    if judgements is not None:
        judged = [float(judgements[row.id]) for row in good if row.id in judgements]
        found["unjudged"] = len(good) - len(judged)
        if judged:
            found["judge"] = _measured("judge", judged)
    count = len(good)
    durations = sorted(row.duration_s for row in good)
    return {
        **found,
        "searches": sum(len(row.queries) for row in good) / count,
        "closed": sum(row.closed for row in good) / count,
        "truncated": sum(row.truncated for row in good) / count,
        "answered": sum(row.prediction is not None for row in good) / count,
        "turns": sum(row.turns for row in good) / count,
        "read_tokens": sum(row.read_tokens for row in good) / count,
        "sampled_tokens": sum(row.sampled_tokens for row in good) / count,
        "duration_s": {
            "mean": sum(durations) / count,
            "p50": durations[(count - 1) // 2],
            "p95": durations[min(count - 1, int(0.95 * count))],
        },
        "kinds": {kind: _of_kind([row for row in good if row.kind == kind]) for kind in sorted({r.kind for r in good})},
    }


def table(summaries: Mapping[str, Mapping[str, Any]]) -> "Table":
    """The numbers of several runs, a column each; shares and measures in per cent."""
    from rich.table import Table

    shown = Table()
    shown.add_column("")
    for name in summaries:
        shown.add_column(name, justify="right")
    for label, cell in _LINES:
        cells = [cell(summary) if summary.get("n") else "" for summary in summaries.values()]
        if any(cells):
            shown.add_row(label, *cells)
    return shown


def _of_kind(rows: Sequence[Row]) -> dict[str, float]:
    return {"n": len(rows), "em": sum(row.scores.em for row in rows) / len(rows)}


def _measured(name: str, values: Sequence[float]) -> dict[str, float]:
    interval: Interval = wilson(round(sum(values)), len(values)) if name in _SHARES else bootstrap(values)
    return {"mean": sum(values) / len(values), "low": interval.low, "high": interval.high}


def _measure(name: str) -> Any:
    def cell(summary: Mapping[str, Any]) -> str:
        found = summary.get(name)
        return f"{found['mean']:.1%} [{found['low']:.1%}, {found['high']:.1%}]" if found else ""

    return cell


def _number(name: str, form: str) -> Any:
    return lambda summary: format(summary[name], form)


_LINES: tuple[tuple[str, Any], ...] = (
    ("questions", lambda summary: f"{summary['n']:,}"),
    ("faults", lambda summary: f"{summary['faults']:,}" if summary["faults"] else ""),
    ("EM", _measure("em")),
    ("F1", _measure("f1")),
    ("precision", _measure("precision")),
    ("recall", _measure("recall")),
    ("cover-EM", _measure("cover_em")),
    ("judge", _measure("judge")),
    ("searches a question", _number("searches", ".2f")),
    ("closed", _number("closed", ".1%")),
    ("truncated", _number("truncated", ".1%")),
    ("turns", _number("turns", ".2f")),
    ("tokens read", _number("read_tokens", ",.0f")),
    ("tokens sampled", _number("sampled_tokens", ",.0f")),
    ("seconds a question, median", lambda summary: f"{summary['duration_s']['p50']:.2f}"),
    ("seconds a question, 95 %", lambda summary: f"{summary['duration_s']['p95']:.2f}"),
)
