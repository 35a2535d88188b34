"""Difficulty as named attributes with levels, each of which follows the pass rate at its own level."""

import random
from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from recall.config import Settings
from recall.errors import ConfigError


class LevelSettings(Settings):
    """When an attribute of difficulty gets harder or easier."""

    start: Mapping[str, int] = Field(default_factory=dict)
    """The attributes that move, and the level at which each starts, 0 the easiest; none by default."""
    groups: int = Field(default=16, ge=1)
    """Groups at an attribute's level before it may move."""
    up: float = Field(default=0.6, ge=0, le=1)
    """The pass rate of these groups from which on the attribute gets one level harder."""
    down: float = Field(default=0.15, ge=0, le=1)
    """The pass rate of these groups up to which it gets one level easier."""
    back: float = Field(default=0.25, ge=0, lt=1)
    """The share of tasks in which an attribute has one of the levels below its own, so that these are not forgotten."""

    @model_validator(mode="after")
    def _check(self) -> "LevelSettings":
        if self.down >= self.up:
            raise ValueError("curriculum.levels.down must be below curriculum.levels.up")
        return self


class Levels:
    """The level of each attribute that moves.

    Tasks draw the level of each attribute by itself, mostly its present one. What is solved at the present level of an
    attribute, whatever the others have, decides on that attribute alone: once enough groups were seen, it moves or
    stays, and the count begins anew.
    """

    def __init__(self, settings: LevelSettings, tops: Mapping[str, int]) -> None:
        """Start at the levels of the settings.

        Args:
            settings: where to start and when to move.
            tops: the highest level of every attribute that may move.

        Raises:
            ConfigError: there is no such attribute or level.
        """
        for name, level in settings.start.items():
            if name not in tops:
                known = ", ".join(tops) or "none with this source"
                raise ConfigError(f"curriculum.levels.start: unknown attribute {name!r}; accepted: {known}")
            if not 0 <= level <= tops[name]:
                raise ConfigError(f"curriculum.levels.start.{name}: got {level}; accepted: 0 to {tops[name]}")
        self.settings, self._tops = settings, tops
        self.now = dict(settings.start)
        self._rates: dict[str, list[float]] = {name: [] for name in self.now}
        """The pass rates of the groups at the present level since it was reached or last judged."""

    def draw(self, rng: random.Random) -> dict[str, int]:
        """The levels of one task."""
        back = self.settings.back
        return {
            name: rng.randrange(level) if level and rng.random() < back else level for name, level in self.now.items()
        }

    def observe(self, levels: Mapping[str, int], rate: float) -> None:
        """Take in the pass rate of a group whose task had these levels."""
        for name, level in self.now.items():
            if levels.get(name) != level:
                continue
            rates = self._rates[name]
            rates.append(rate)
            if len(rates) >= self.settings.groups:
                mean = sum(rates) / len(rates)
                step = (mean >= self.settings.up) - (mean <= self.settings.down)
                self.now[name] = min(max(level + step, 0), self._tops[name])
                rates.clear()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"now": dict(self.now), "rates": {name: list(rates) for name, rates in self._rates.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.now = dict(state["now"])
        self._rates = {name: list(rates) for name, rates in state["rates"].items()}
