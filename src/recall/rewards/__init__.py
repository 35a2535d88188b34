"""Rewards by name. A reward of your own is a function in a file and a line in `REWARDS`."""

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from recall.errors import ConfigError
from recall.rewards.base import Reward, solved
from recall.rewards.outcome import exact, outcome
from recall.rewards.recall import recall_reward
from recall.rewards.row import by_row

__all__ = ["NAMED", "REWARDS", "Reward", "get", "solved"]

NAMED: Mapping[str, Reward] = MappingProxyType({"outcome": outcome, "exact": exact, "recall": recall_reward})
"""Every reward that a row can name."""
REWARDS: Mapping[str, Reward] = MappingProxyType({**NAMED, "row": by_row(NAMED)})
"""Every reward that a recipe can name."""


def get(name: str) -> Reward:
    """The reward called `name`.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    if name in REWARDS:
        return REWARDS[name]
    nearest = difflib.get_close_matches(name, REWARDS, n=1)
    hint = f", did you mean {nearest[0]!r}" if nearest else ""
    raise ConfigError(f"unknown reward {name!r}{hint}; accepted: {', '.join(REWARDS)}")
