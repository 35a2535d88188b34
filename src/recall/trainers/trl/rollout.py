"""TRL's `rollout_func`: our loop over the prompts that a process was given, with our tools, mask and reward.

TRL passes prompts and nothing else of a row, so each prompt carries what names its task as a key of its message, which
TRL leaves alone. A prompt comes once for each of its trajectories.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from recall.errors import RolloutError
from recall.evaluation.play import Player, seed_of
from recall.trainers.verl.rows import row_of
from recall.types import Group, Sampling, Task

KEY = "recall_task"
"""The key of a prompt's message that names its task."""
REWARD = "recall_reward"
"""The field that takes the reward of a trajectory to `reward`."""


def prompt_for(task: str, question: str = "") -> list[dict[str, str]]:
    """The prompt of a row for TRL.

    Args:
        task: names the task to the loop: its number, or the row as JSON text.
        question: what TRL shows in its logs; the loop renders its own prompt.
    """
    return [{"role": "user", "content": question, KEY: task}]


def reward(completions: Sequence[Any], **fields: Any) -> list[float | None]:
    """TRL's reward function: what the loop scored; None for a fault of ours, which TRL leaves out of its group."""
    found: list[float | None] = fields[REWARD]
    return found


@dataclass(frozen=True, slots=True)
class Share:
    """What a process played for one step."""

    step: int
    """The updates done when it was played, in optimizer steps."""
    groups: list[Group]
    """The trajectories by task, those of this process only."""


class Rollout:
    """Plays a process's share of a batch; an instance is TRL's `rollout_func`."""

    def __init__(
        self,
        player: Callable[[Any], Player],
        task_of: Callable[[str], Task],
        sampling: Sampling,
        *,
        eos_token_id: int,
        before: Callable[[int], None] = lambda step: None,
        seed: int = 0,
    ) -> None:
        """Take what episodes have in common.

        Args:
            player: what plays, made of TRL's trainer at the first call.
            task_of: the task of what a prompt names.
            sampling: how; its seed is replaced.
            eos_token_id: stands for a trajectory without a sampled token, which TRL cannot take.
            before: called with the updates done before they are played.
            seed: decides everything that is sampled.
        """
        self._make, self._task_of, self._sampling = player, task_of, sampling
        self._eos, self._before, self._seed = eos_token_id, before, seed
        self._player: Player | None = None
        self._runner = asyncio.Runner()
        self._calls = 0
        self.last: Share | None = None
        """What was played last."""

    def __call__(self, prompts: Sequence[Sequence[Mapping[str, Any]]], trainer: Any) -> dict[str, list[Any]]:
        """Play one episode for each prompt.

        Returns:
            By name, a list with an entry for each prompt: what TRL asks for, the mask, and the reward.

        Raises:
            RolloutError: every episode failed for reasons of ours.
        """
        if self._player is None:
            self._player = self._make(trainer)
        step, process = int(trainer.state.global_step), int(trainer.accelerator.process_index)
        self._before(step)
        names = [str(prompt[-1][KEY]) for prompt in prompts]
        known = {name: self._task_of(name) for name in dict.fromkeys(names)}
        self._calls += 1
        played = self._runner.run(
            self._player.play(
                [known[name] for name in names],
                samples=1,
                sampling=self._sampling,
                label=f"{process}/{self._calls}/",
                seed=seed_of(self._seed, 1, step, process),
            )
        )
        faults = [group.trajectories[0].fault for group in played]
        if None not in faults:
            raise RolloutError(f"all of {len(faults)} episodes failed, the first one by {faults[0]}")
        self.last = Share(step, _by_task(names, played))
        rows = [self._row(group) for group in played]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _row(self, group: Group) -> dict[str, Any]:
        """What TRL gets of one episode; of a fault of ours a token that is masked and no reward."""
        trajectory, result = group.trajectories[0], group.rewards[0]
        row = row_of(trajectory, result)
        if row is None:
            lost = trajectory.fault is not None
            return {
                "prompt_ids": list(trajectory.prompt_ids) or [self._eos],
                "completion_ids": [self._eos],
                "logprobs": [0.0],
                "env_mask": [0],
                REWARD: None if lost else float(result.score),
            }
        return {
            "prompt_ids": row.prompt_ids,
            "completion_ids": row.response_ids,
            "logprobs": row.response_logprobs,
            "env_mask": row.response_mask,
            REWARD: row.score,
        }

    def run(self, coroutine: Any) -> Any:
        """Run something in the loop that the episodes are played in."""
        return self._runner.run(coroutine)

    def close(self) -> None:
        """End the loop."""
        self._runner.close()


def _by_task(names: Sequence[str], played: Sequence[Group]) -> list[Group]:
    """Episodes of one task, which come in a row, as one group."""
    return [
        Group(
            parts[0].task,
            [trajectory for part in parts for trajectory in part.trajectories],
            [result for part in parts for result in part.rewards],
        )
        for parts in (
            [group for _, group in run] for _, run in groupby(zip(names, played, strict=True), key=lambda pair: pair[0])
        )
    ]
