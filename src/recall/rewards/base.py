"""What a reward is. A reward is a pure function: it reads a task and a finished trajectory and calls nothing."""

from collections.abc import Callable

from recall import answers
from recall.rewards.state import same_changes
from recall.types import RewardResult, StopReason, Task, Trajectory

Reward = Callable[[Task, Trajectory], RewardResult]
"""Scores a trajectory of a task. Never raises on what a model wrote."""


def solved(task: Task, trajectory: Trajectory) -> bool:
    """Whether the policy ended the episode itself and did what the task asks for; every reward's `correct`.

    A task asks for an answer that equals an accepted one, for changes and no others, or for both.
    """
    if trajectory.stop_reason is not StopReason.DONE or not (task.ground_truth or task.changes is not None):
        return False
    return changed_rightly(task, trajectory) and answered_rightly(task, trajectory)


def changed_rightly(task: Task, trajectory: Trajectory) -> bool:
    """Whether the episode changed what the task asks for and nothing else; True where it asks for no state."""
    if task.changes is None:
        return True
    return trajectory.changes is not None and same_changes(trajectory.changes, task.changes)


def answered_rightly(task: Task, trajectory: Trajectory) -> bool:
    """Whether the answer equals an accepted one; True where the task asks for none."""
    if not task.ground_truth:
        return True
    return trajectory.answer is not None and answers.equal(trajectory.answer, task.ground_truth, task.answer_type)
