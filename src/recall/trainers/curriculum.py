"""Which kinds of task to train on next, by how often they are solved. It makes no task and plays none."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from recall.config import Settings


class CurriculumSettings(Settings):
    """How the mix of tasks follows the pass rates."""

    unlock: float = Field(default=0.2, ge=0, le=1)
    """A stage joins the mix once each kind of the stages before it is solved this often."""
    floor: float = Field(default=0.2, gt=0, le=1)
    """The least weight of an unlocked kind, so that nothing learned is forgotten; the most is 1."""
    smoothing: float = Field(default=0.7, ge=0, lt=1)
    """The share of the old pass rate in the new one, by step."""


class Curriculum:
    """The pass rate of each kind, and a mix weighted towards kinds that are not solved yet.

    A kind weighs 1 until half of it is solved, then 4 p (1 - p), its chance of a mixed outcome, with a floor. Stages
    are ordered: a stage joins when all of the stage before it is solved often enough.
    """

    def __init__(self, stages: Sequence[Sequence[str]], settings: CurriculumSettings) -> None:
        self.stages = [tuple(stage) for stage in stages]
        self.settings = settings
        self.rates: dict[str, float] = {}

    def unlocked(self) -> list[str]:
        """The kinds in the mix, easiest first."""
        kinds: list[str] = []
        for stage in self.stages:
            kinds += stage
            if any(self.rates.get(kind, 0.0) < self.settings.unlock for kind in stage):
                break
        return kinds

    def weight(self, kind: str) -> float:
        """The share of a kind in the mix, before normalising; an unseen one gets 1."""
        rate = self.rates.get(kind)
        return 1.0 if rate is None or rate <= 0.5 else max(self.settings.floor, 4 * rate * (1 - rate))

    def draw(self, count: int, rng: random.Random) -> list[str]:
        """The kinds of `count` tasks."""
        kinds = self.unlocked()
        return rng.choices(kinds, [self.weight(kind) for kind in kinds], k=count)

    def observe(self, success: Mapping[str, float]) -> None:
        """Take in the success of one step, by kind."""
        for kind, rate in success.items():
            old = self.rates.get(kind)
            keep = self.settings.smoothing
            self.rates[kind] = rate if old is None else keep * old + (1 - keep) * rate

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"rates": dict(self.rates)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.rates = dict(state["rates"])
