"""Which tasks to train on next, by how often their like are solved. It makes no task and plays none."""

import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from pydantic import Field, model_validator

from recall.config import Settings
from recall.evaluation.play import success_by_kind
from recall.trainers.levels import Levels, LevelSettings
from recall.types import Group

HALF = 0.5
"""What an unseen template counts as: half solved, so that it takes several groups to leave the band."""


class CurriculumSettings(Settings):
    """How the mix of tasks follows the pass rates."""

    by: Literal["auto", "stages", "templates", "none"] = "auto"
    """`stages` has kinds in an order (with `synth`), `templates` goes by the pass rate of each kind (elsewhere), `none`
    takes tasks as they come. `auto` is stages with `synth`, none with a file, and templates with all else."""
    unlock: float = Field(default=0.2, ge=0, le=1)
    """A stage joins the mix once each kind of the stages before it is solved this often."""
    floor: float = Field(default=0.2, gt=0, le=1)
    """The least weight of a kind, so that nothing learned is forgotten and the hopeless is retried; the most is 1."""
    smoothing: float = Field(default=0.7, ge=0, lt=1)
    """By stages, the share of the old pass rate in the new one of a step."""
    memory: float = Field(default=0.8, ge=0, lt=1)
    """By templates, the share of the old pass rate in the new one of a group."""
    low: float = Field(default=0.1, ge=0, le=1)
    """A template that is solved more often than this, and less often than `high`, weighs fully."""
    high: float = Field(default=0.9, ge=0, le=1)
    """The upper end of that band."""
    candidates: int = Field(default=2, ge=1)
    """By templates, tasks that are drawn for each one that is played; those of little weight make way."""
    levels: LevelSettings = LevelSettings()

    @model_validator(mode="after")
    def _check(self) -> "CurriculumSettings":
        if self.low >= self.high:
            raise ValueError("curriculum.low must be below curriculum.high")
        return self


class Curriculum(Protocol):
    """Follows the pass rates of a run."""

    def observe(self, groups: Sequence[Group]) -> None:
        """Take in the groups of one step, of tasks that were met for the first time."""

    def metrics(self) -> dict[str, float]:
        """What a step reports of it."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""


class Stages:
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
            if self.settings.by != "none" and any(self.rates.get(kind, 0.0) < self.settings.unlock for kind in stage):
                break
        return kinds

    def weight(self, kind: str) -> float:
        """The share of a kind in the mix, before normalising; an unseen one gets 1, and with `none` all do."""
        rate = self.rates.get(kind)
        if rate is None or rate <= HALF or self.settings.by == "none":
            return 1.0
        return max(self.settings.floor, 4 * rate * (1 - rate))

    def draw(self, count: int, rng: random.Random) -> list[str]:
        """The kinds of `count` tasks."""
        kinds = self.unlocked()
        return rng.choices(kinds, [self.weight(kind) for kind in kinds], k=count)

    def observe(self, groups: Sequence[Group]) -> None:
        """See `Curriculum`."""
        self.smooth(success_by_kind(groups))

    def smooth(self, success: Mapping[str, float]) -> None:
        """Take in the success of one step, by kind."""
        for kind, rate in success.items():
            old = self.rates.get(kind)
            keep = self.settings.smoothing
            self.rates[kind] = rate if old is None else keep * old + (1 - keep) * rate

    def metrics(self) -> dict[str, float]:
        """See `Curriculum`; success by kind is reported anyway."""
        return {}

    def state(self) -> dict[str, Any]:
        """See `Curriculum`."""
        return {"rates": dict(self.rates)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Curriculum`."""
        self.rates = dict(state["rates"])


class Templates:
    """The pass rate of each template, and which tasks of those that come are played; and the levels of difficulty.

    A template is a kind of task. While its smoothed pass rate lies in the band it weighs 1, outside of it the floor.
    With `none` all weigh 1, and pass rates are reported all the same.
    """

    def __init__(self, settings: CurriculumSettings, tops: Mapping[str, int] | None = None) -> None:
        """Start with nothing seen.

        Args:
            settings: the band, the floor, the levels to start at.
            tops: the highest level of every attribute that may move.

        Raises:
            ConfigError: `settings.levels` starts from an attribute or a level that there is not.
        """
        self.settings = settings
        self.levels = Levels(settings.levels, tops or {})
        self.rates: dict[str, float] = {}
        self._met: list[str] = []

    def in_band(self, rate: float) -> bool:
        """Whether a pass rate lies in the band."""
        return self.settings.low < rate < self.settings.high

    def weight(self, kind: str) -> float:
        """How much a task of this kind is wanted."""
        wanted = self.settings.by == "none" or self.in_band(self.rates.get(kind, HALF))
        return 1.0 if wanted else self.settings.floor

    def choose(self, kinds: Sequence[str], count: int, rng: random.Random) -> list[int]:
        """The places of `count` of some tasks, by the weights of their kinds, in order.

        Each place draws a key u^(1/weight), and the largest keys are taken: a draw without replacement in proportion to
        the weights. Source: Efraimidis and Spirakis 2006, doi:10.1016/j.ipl.2005.11.003.
        """
        keys = [rng.random() ** (1 / self.weight(kind)) for kind in kinds]
        return sorted(sorted(range(len(kinds)), key=keys.__getitem__, reverse=True)[:count])

    def observe(self, groups: Sequence[Group]) -> None:
        """See `Curriculum`. Every group with an episode that no fault of ours ended moves the rate of its kind."""
        keep = self.settings.memory
        self._met = []
        for group in groups:
            rate = pass_rate(group)
            if rate is not None:
                kind = group.task.kind
                self.rates[kind] = keep * self.rates.get(kind, HALF) + (1 - keep) * rate
                self.levels.observe(group.task.extra.get("synth", {}).get("levels", {}), rate)
                self._met.append(kind)

    def metrics(self) -> dict[str, float]:
        """See `Curriculum`: the pass rates of the kinds just met, the templates seen, and the share in the band."""
        inside = sum(map(self.in_band, self.rates.values()))
        return {
            **{f"curriculum/pass/{kind}": self.rates[kind] for kind in sorted(set(self._met))},
            **{f"curriculum/level/{name}": float(level) for name, level in self.levels.now.items()},
            "curriculum/templates": float(len(self.rates)),
            "curriculum/templates_in_band": inside / max(1, len(self.rates)),
        }

    def state(self) -> dict[str, Any]:
        """See `Curriculum`."""
        return {"rates": dict(self.rates), "levels": self.levels.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Curriculum`."""
        self.rates = dict(state["rates"])
        self.levels.restore(state["levels"])


def pass_rate(group: Group) -> float | None:
    """The share of a group's episodes that solved their task; None where a fault of ours ended all of them."""
    pairs = zip(group.trajectories, group.rewards, strict=True)
    correct = [reward.correct for trajectory, reward in pairs if trajectory.fault is None]
    return sum(correct) / len(correct) if correct else None


def share_in_band(groups: Sequence[Group], settings: CurriculumSettings) -> float:
    """The share of groups whose own pass rate lies in the band: those that have something to teach."""
    rates = [rate for group in groups if (rate := pass_rate(group)) is not None]
    return sum(settings.low < rate < settings.high for rate in rates) / max(1, len(rates))
