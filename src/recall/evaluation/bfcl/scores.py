"""The leaderboard's scores: accuracy by category, by group, and overall, by its own weights, with intervals.

A category that was not played counts as 0 in what it is part of, as on the leaderboard; what it is part of is marked
incomplete. Source: `eval_runner_helper.py` of bfcl-eval 2026.3.23.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recall.evaluation.qa.statistics import Interval, wilson


@dataclass(frozen=True, slots=True)
class Score:
    """An accuracy, as a share."""

    accuracy: float
    """Of 1."""
    entries: int
    """How many it is of; 0 where nothing was played."""
    complete: bool = True
    """Whether everything that it is made of was played."""

    @property
    def interval(self) -> Interval | None:
        """The 95 % interval; only categories have one, as the groups weigh unequal numbers of entries."""
        return wilson(round(self.accuracy * self.entries), self.entries) if self.entries else None


_LIVE: Mapping[str, int] = {
    "live_simple": 258,
    "live_multiple": 1053,
    "live_parallel": 16,
    "live_parallel_multiple": 24,
}
"""The entries of the categories whose group weighs them by their number, played or not."""
OVERALL: Mapping[str, float] = {"non_live": 0.1, "live": 0.1, "irrelevance": 0.1, "multi_turn": 0.3, "agentic": 0.4}
"""The weight of each group in the overall accuracy."""


def category_score(right: Sequence[bool]) -> Score:
    """The score of a category from whether each entry was right."""
    return Score(sum(right) / len(right), len(right)) if right else Score(0.0, 0, complete=False)


def group_scores(categories: Mapping[str, Score]) -> dict[str, Score]:
    """The groups and the overall accuracy, from the categories that were played."""

    def of(*names: str) -> list[Score]:
        return [categories.get(name, Score(0.0, _LIVE.get(name, 0), complete=False)) for name in names]

    simple = _mean(of("simple_python", "simple_java", "simple_javascript"))
    groups = {
        "simple": simple,
        "non_live": _mean([simple, *of("multiple", "parallel", "parallel_multiple")]),
        "live": _weighted(of(*_LIVE)),
        "irrelevance": _mean(of("irrelevance", "live_irrelevance")),
        "multi_turn": _mean(
            of("multi_turn_base", "multi_turn_miss_func", "multi_turn_miss_param", "multi_turn_long_context")
        ),
        "web_search": _mean(of("web_search_base", "web_search_no_snippet")),
        "memory": _mean(of("memory_kv", "memory_vector", "memory_rec_sum")),
    }
    groups["agentic"] = _mean([groups["web_search"], groups["memory"]])
    parts = [groups[name] for name in OVERALL]
    overall = sum(weight * groups[name].accuracy for name, weight in OVERALL.items())
    groups["overall"] = Score(overall, sum(part.entries for part in parts), all(part.complete for part in parts))
    return groups


def _mean(scores: Sequence[Score]) -> Score:
    accuracy = sum(score.accuracy for score in scores) / len(scores)
    return Score(accuracy, sum(score.entries for score in scores), all(score.complete for score in scores))


def _weighted(scores: Sequence[Score]) -> Score:
    entries = sum(score.entries for score in scores)
    accuracy = sum(score.accuracy * score.entries for score in scores) / entries
    return Score(accuracy, entries, all(score.complete for score in scores))
