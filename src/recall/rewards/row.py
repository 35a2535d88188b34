"""The reward that each row asks for, so that published rows and typed ones can be trained on together."""

from collections.abc import Mapping

from recall.errors import ConfigError
from recall.rewards.base import Reward
from recall.types import RewardResult, Task, Trajectory

PUBLISHED = frozenset({"musique_re_call", "syntool_re_call"})
"""The data sources that ReCall was published with."""


def by_row(named: Mapping[str, Reward]) -> Reward:
    """A reward that scores by one of `named`.

    It is the one that the row names, else `recall` for the rows of a published data source, and `exact` for all others.
    """

    def row(task: Task, trajectory: Trajectory) -> RewardResult:
        name = task.reward or ("recall" if task.data_source in PUBLISHED else "exact")
        if name not in named:
            raise ConfigError(f"task {task.id!r}: unknown reward {name!r}; accepted: {', '.join(named)}")
        return named[name](task, trajectory)

    return row
