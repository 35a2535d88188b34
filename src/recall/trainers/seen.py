"""What the learner saw of each sampled token when it first looked: written down for people, never learned from."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from recall.types import Group, Trajectory

if TYPE_CHECKING:
    from torch import Tensor

DIGITS = 6
"""Decimals that are kept."""


class Seen:
    """The log-probabilities and entropies that one update computed, by trajectory."""

    def __init__(self) -> None:
        """Nothing seen yet."""
        self._values: dict[int, tuple[Trajectory, Tensor, Tensor]] = {}

    def take(self, trajectories: Sequence[Trajectory], logprobs: "Tensor", entropies: "Tensor") -> None:
        """Keep what is computed of some trajectories; of one that is there already, the first look stays.

        Args:
            trajectories: in the order of the values.
            logprobs: [M] nats of their sampled tokens under the learner.
            entropies: [M] nats of the learner's distribution at each.
        """
        lengths = [sum(trajectory.mask) for trajectory in trajectories]
        start = 0
        for trajectory, length in zip(trajectories, lengths, strict=True):
            place = slice(start, start + length)
            seen = (trajectory, logprobs.detach()[place], entropies.detach()[place])
            self._values.setdefault(id(trajectory), seen)
            start += length

    def on(self, groups: Sequence[Group]) -> list[Group]:
        """The groups with what was seen in their segments; trajectories that were passed over stay as they are."""
        return [
            replace(group, trajectories=[self._on(trajectory) for trajectory in group.trajectories]) for group in groups
        ]

    def _on(self, trajectory: Trajectory) -> Trajectory:
        if id(trajectory) not in self._values:
            return trajectory
        _, *values = self._values[id(trajectory)]
        logprobs, entropies = (iter([round(value, DIGITS) for value in each.tolist()]) for each in values)
        segments = [
            replace(
                segment,
                learner_logprobs=tuple(next(logprobs) for _ in segment.token_ids),
                entropies=tuple(next(entropies) for _ in segment.token_ids),
            )
            if segment.sampled
            else segment
            for segment in trajectory.segments
        ]
        return replace(trajectory, segments=tuple(segments))
