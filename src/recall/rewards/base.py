"""What a reward is. A reward is a pure function: it reads a task and a finished trajectory and calls nothing."""

from collections.abc import Callable

from recall import answers
from recall.types import RewardResult, StopReason, Task, Trajectory

Reward = Callable[[Task, Trajectory], RewardResult]
"""Scores a trajectory of a task. Never raises on what a model wrote."""


def solved(task: Task, trajectory: Trajectory) -> bool:
    """Whether the policy ended the episode with an answer that equals an accepted one; every reward's `correct`."""
    if trajectory.stop_reason is not StopReason.DONE or trajectory.answer is None:
        return False
    return answers.equal(trajectory.answer, task.ground_truth, task.answer_type)
