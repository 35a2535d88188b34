"""Play many episodes of many tasks at once and score them; training and evaluation alike. It learns nothing."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from recall.environment import Environment, Limits
from recall.errors import ConfigError
from recall.policy.base import Policy
from recall.renderer import Renderer
from recall.rewards.base import Reward
from recall.rollout import rollout
from recall.types import Group, RewardResult, Sampling, StopReason, Task, Trajectory


@dataclass(frozen=True, slots=True)
class Player:
    """What every episode of a run has in common."""

    policy: Policy
    """Samples the turns."""
    renderer: Renderer
    """Of the policy's model."""
    environment: Callable[[Task], Environment]
    """A fresh environment for one episode."""
    reward: Reward
    """Scores a finished trajectory."""
    limits: Limits
    """The budget of an episode."""
    at_once: int = 512
    """Episodes alive at once, in whole groups. It must not exceed the sandbox's sessions: an engine that waits for
    every announced episode would wait for one that waits for a session."""

    async def play(
        self, tasks: Sequence[Task], *, samples: int, sampling: Sampling, label: str = "", seed: int = 0
    ) -> list[Group]:
        """Play `samples` episodes of each task, as many at once as `at_once` allows.

        Args:
            tasks: what to play; their ids may repeat.
            samples: G, the episodes of each.
            sampling: how; its seed is replaced by one made of `seed` and the episode's place.
            label: goes in front of every episode's id.
            seed: decides everything that is sampled.

        Returns:
            [len(tasks)] groups of G trajectories, in order.

        Raises:
            ConfigError: a task cannot be played under the limits; the episodes under way are cancelled.
        """
        rows = max(1, self.at_once // samples)
        groups: list[Group] = []
        for start in range(0, len(tasks), rows):
            some = tasks[start : start + rows]
            groups += await self._play(some, samples, sampling, label, seed, start)
        return groups

    async def _play(
        self, tasks: Sequence[Task], samples: int, sampling: Sampling, label: str, seed: int, start: int
    ) -> list[Group]:
        """The groups of some tasks, the first of which is numbered `start`."""
        refusal: ConfigError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                episodes = [
                    [
                        group.create_task(self._episode(task, f"{label}{row}/{sample}", sampling, (seed, row, sample)))
                        for sample in range(samples)
                    ]
                    for row, task in enumerate(tasks, start)
                ]
        except* ConfigError as refused:
            refusal = next(error for error in refused.exceptions if isinstance(error, ConfigError))
        if refusal is not None:  # one line for the user instead of a group of them
            raise refusal
        played = [[episode.result() for episode in row] for row in episodes]
        return [
            Group(task, [trajectory for trajectory, _ in row], [reward for _, reward in row])
            for task, row in zip(tasks, played, strict=True)
        ]

    async def _episode(
        self, task: Task, episode_id: str, sampling: Sampling, place: tuple[int, int, int]
    ) -> tuple[Trajectory, RewardResult]:
        trajectory = await rollout(
            self.environment(task),
            self.policy,
            self.renderer,
            task_id=task.id,
            episode_id=episode_id,
            sampling=replace(sampling, seed=seed_of(*place)),
            limits=self.limits,
        )
        if trajectory.stop_reason is StopReason.FAULT:
            return trajectory, RewardResult(0.0, correct=False, parts={"fault": 1.0})
        return trajectory, self.reward(task, trajectory)


def seed_of(*place: int) -> int:
    """A 63-bit seed from a place such as (seed, task, sample): neighbours get unrelated streams (splitmix64)."""
    state = 0x9E3779B97F4A7C15
    for number in place:
        state = (state + number) & (2**64 - 1)
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        state ^= state >> 31
    return state >> 1


def success(groups: Sequence[Group]) -> float:
    """The share of trajectories that solved their task; faults of ours are not counted, and nothing played is 0."""
    correct = [
        reward.correct
        for group in groups
        for trajectory, reward in zip(group.trajectories, group.rewards, strict=True)
        if trajectory.fault is None
    ]
    return sum(correct) / max(1, len(correct))


def success_by_kind(groups: Sequence[Group]) -> dict[str, float]:
    """The share of trajectories that solved their task, by the task's kind; faults of ours are not counted."""
    counts: dict[str, list[bool]] = {}
    for group in groups:
        for trajectory, reward in zip(group.trajectories, group.rewards, strict=True):
            if trajectory.fault is None:
                counts.setdefault(group.task.kind or str(group.task.depth), []).append(reward.correct)
    return {kind: sum(correct) / len(correct) for kind, correct in counts.items()}
