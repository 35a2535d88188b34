"""Scores recorded trajectories by another reward, and says what that would have changed for learning."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from recall.replay.recorded import Recorded
from recall.rewards.base import Reward

SAME = 1e-9
"""Scores that differ by no more are equal."""


@dataclass(frozen=True, slots=True)
class Change:
    """One trajectory that is worth something else now."""

    row: int
    task: str
    step: int
    before: float
    after: float
    verdict: str
    """`now right`, `now wrong`, or empty where the verdict stays."""


@dataclass
class Rescored:
    """What scoring again comes to."""

    count: int = 0
    faults: int = 0
    """Trajectories with a fault of ours; they have no score."""
    before: float = 0.0
    """Sum of the recorded scores."""
    after: float = 0.0
    """Sum of the new ones."""
    now_right: int = 0
    now_wrong: int = 0
    changes: list[Change] = field(default_factory=list)
    groups: dict[tuple[int, str, int], tuple[list[float], list[float]]] = field(default_factory=dict)
    """Scores before and after, by step, split and group."""

    def equal(self) -> tuple[int, int]:
        """Groups of several whose scores are all equal, before and after: those that teach nothing."""
        several = [scores for scores in self.groups.values() if len(scores[0]) > 1]
        flat = [(max(before) - min(before) <= SAME, max(after) - min(after) <= SAME) for before, after in several]
        return sum(before for before, _ in flat), sum(after for _, after in flat)


def rescore(found: Iterable[Recorded], reward: Reward) -> Rescored:
    """Score every trajectory again."""
    result = Rescored()
    for one in found:
        if one.trajectory.fault is not None:
            result.faults += 1
            continue
        now = reward(one.task, one.trajectory)
        was = one.reward
        result.count += 1
        result.before += was.score
        result.after += now.score
        key = (one.step, one.task.split, one.group)
        before, after = result.groups.setdefault(key, ([], []))
        before.append(was.score)
        after.append(now.score)
        verdict = "" if now.correct == was.correct else "now right" if now.correct else "now wrong"
        result.now_right += verdict == "now right"
        result.now_wrong += verdict == "now wrong"
        if verdict or abs(now.score - was.score) > SAME:
            result.changes.append(Change(one.row, one.task.id, one.step, was.score, now.score, verdict))
    result.changes.sort(key=lambda change: (-abs(change.after - change.before), change.row))
    return result
