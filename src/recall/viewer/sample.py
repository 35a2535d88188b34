"""Chooses which trajectories a report shows: the same ones each time, few enough to read.

It reads only the files that it chooses from; it renders nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest

from recall.store import StoredGroup
from recall.types import RewardResult, Task, Trajectory
from recall.viewer.record import sort_kinds

MAX_STEPS = 6
"""Training steps that a report shows groups of."""
MAX_PAIRS = 16
"""Held-out tasks shown before and after."""
MAX_IN_GROUP = 4
"""Trajectories shown of one group."""
STORIES = ("learned", "unsolved", "kept", "lost")
"""What training did to a task, in the order of the report."""


@dataclass(frozen=True, slots=True)
class Pick:
    """A group of a training step, and why it is shown."""

    why: str
    """`best`, `worst` or `mixed`."""
    stored: StoredGroup
    """The group."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A held-out task, played at the first validation and at the last."""

    task: Task
    """The task."""
    split: str
    """The evaluation split."""
    before: tuple[Trajectory, RewardResult]
    """How it was played first."""
    after: tuple[Trajectory, RewardResult]
    """How it was played last."""

    @property
    def story(self) -> str:
        """What training did to it: `learned`, `kept`, `unsolved` or `lost`."""
        start, end = self.before[1].correct, self.after[1].correct
        return ("kept" if end else "lost") if start else ("learned" if end else "unsolved")


def kind_of(task: Task) -> str:
    """The label that metrics count a task under: the kind where it is special, otherwise the number of calls."""
    return task.kind if task.kind not in ("", "chain") else str(task.depth)


def spread(steps: Iterable[int], limit: int = MAX_STEPS) -> list[int]:
    """At most `limit` of `steps`, evenly spread, the first and the last among them."""
    ordered = sorted(steps)
    if len(ordered) <= limit:
        return ordered
    return sorted({ordered[round(i * (len(ordered) - 1) / (limit - 1))] for i in range(limit)})


def choose_groups(groups: Iterable[StoredGroup]) -> list[Pick]:
    """The group with the highest mean reward, the one with the lowest, and the one that was split most evenly."""
    rest = sorted(groups, key=lambda one: one.group.task.id)
    picks = []
    for why, worth in (("mixed", _variance), ("best", _mean), ("worst", lambda one: -_mean(one))):
        if rest:
            chosen = max(rest, key=worth)
            rest = [one for one in rest if one is not chosen]
            picks.append(Pick(why, chosen))
    return picks


def choose_members(stored: StoredGroup, limit: int = MAX_IN_GROUP) -> list[int]:
    """Indices of the trajectories to show, from the highest score to the lowest, both ends among them."""
    scores = [reward.score for reward in stored.group.rewards]
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    return [order[i] for i in spread(range(len(order)), limit)]


def pair_up(before: Iterable[StoredGroup], after: Iterable[StoredGroup], limit: int = MAX_PAIRS) -> list[Pair]:
    """Tasks played both times, taken in turn from each story and kind, so that none crowds out another.

    Within a story the hardest kind comes first.
    """
    first = {one.group.task.id: one.group for one in before}
    heaps: dict[tuple[str, str], list[Pair]] = {}
    for one in sorted(after, key=lambda one: one.group.task.id):
        task = one.group.task
        if task.id in first:
            start, end = first[task.id], one.group
            played = ((start.trajectories[0], start.rewards[0]), (end.trajectories[0], end.rewards[0]))
            pair = Pair(task, one.split, *played)
            heaps.setdefault((pair.story, kind_of(task)), []).append(pair)
    hardest_first = sort_kinds({kind for _, kind in heaps})[::-1]
    order = [(story, kind) for story in STORIES for kind in hardest_first]
    order = [key for key in order if key in heaps]
    rounds = zip_longest(*(heaps[key] for key in order))
    chosen = [pair for row in rounds for pair in row if pair is not None][:limit]
    return sorted(chosen, key=lambda pair: order.index((pair.story, kind_of(pair.task))))


def _mean(stored: StoredGroup) -> float:
    return sum(reward.score for reward in stored.group.rewards) / len(stored.group.rewards)


def _variance(stored: StoredGroup) -> float:
    mean = _mean(stored)
    return sum((reward.score - mean) ** 2 for reward in stored.group.rewards)
