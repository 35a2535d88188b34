"""Where the tasks of a run come from: fresh ones, ones that come back, and the rows of a file."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from recall.trainers.curriculum import Stages
from recall.trainers.recipe import TaskSource, TrainRecipe
from recall.trainers.tasks import MOST_WAITING, SynthStream
from recall.types import Group, RewardResult, Segment, StopReason, Task, Trajectory

SOLVED, MIXED, FAILED = (True, True), (True, False), (False, False)


def stream(revisit: float = 1.0) -> SynthStream:
    recipe = TrainRecipe(tasks=TaskSource(stages=(("1", "2"),), revisit=revisit))
    return SynthStream(recipe, Stages(recipe.tasks.stages, recipe.curriculum))


def played(task: Task, solved: Sequence[bool]) -> Group:
    trajectory = Trajectory(task.id, (Segment((1,)), Segment((2,), (-0.5,))), StopReason.DONE)
    return Group(task, [trajectory] * len(solved), [RewardResult(float(each), each) for each in solved])


def ids(tasks: Sequence[Task]) -> set[str]:
    return {task.id for task in tasks}


def test_a_task_that_some_solved_and_others_did_not_is_played_again_and_no_other() -> None:
    tasks = stream()
    first = tasks.at(0, 12)
    outcomes = [SOLVED, MIXED, FAILED] * 4
    tasks.observe([played(task, solved) for task, solved in zip(first, outcomes, strict=True)])
    assert ids(tasks.at(1, 64)) & ids(first) == ids(first[1::3])


def test_a_task_comes_back_once_for_every_time_that_it_was_mixed() -> None:
    tasks = stream()
    (task,) = tasks.at(0, 1)
    tasks.observe([played(task, MIXED)])
    again = [other for other in tasks.at(1, 64) if other.id == task.id]
    assert again == [task]
    tasks.observe([played(task, SOLVED)])
    assert task.id not in ids(tasks.at(2, 64))


def test_only_groups_of_tasks_met_for_the_first_time_tell_of_success() -> None:
    tasks = stream()
    first = tasks.at(0, 8)
    groups = [played(task, MIXED) for task in first]
    assert tasks.observe(groups) == groups
    second = tasks.at(1, 64)
    fresh = tasks.observe([played(task, MIXED) for task in second])
    assert [group.task for group in fresh] == [task for task in second if task.id not in ids(first)]
    assert ids(second) & ids(first)


@pytest.mark.parametrize(("share", "fewest", "most"), [(0.0, 0, 0), (0.5, 7, 17), (1.0, 18, 24)])
def test_so_large_a_share_of_a_step_comes_back(share: float, fewest: int, most: int) -> None:
    """Chance decides by task, and of a kind no more can come back than wait."""
    tasks = stream(share)
    waiting = tasks.at(0, 24)
    tasks.observe([played(task, MIXED) for task in waiting])
    assert fewest <= len(ids(tasks.at(1, 24)) & ids(waiting)) <= most


def test_a_fault_of_ours_brings_no_task_back() -> None:
    tasks = stream()
    (task,) = tasks.at(0, 1)
    group = played(task, MIXED)
    sound, failed = group.trajectories
    tasks.observe([replace(group, trajectories=[sound, replace(failed, fault="SandboxError: gone")])])
    assert task.id not in ids(tasks.at(1, 64))


def test_what_has_waited_too_long_is_given_up() -> None:
    tasks = stream()
    first = tasks.at(0, 4 * MOST_WAITING)
    tasks.observe([played(task, MIXED) for task in first])
    back = ids(tasks.at(1, 8 * MOST_WAITING)) & ids(first)
    by_kind = [[task for task in first if task.kind == kind] for kind in ("1", "2")]
    assert back == ids([task for tasks_of_kind in by_kind for task in tasks_of_kind[-MOST_WAITING:]])


def test_a_restored_stream_goes_on_alike() -> None:
    one, other = stream(0.5), stream(0.5)
    one.observe([played(task, MIXED) for task in one.at(0, 24)])
    other.restore(json.loads(json.dumps(one.state())))
    assert one.at(1, 24) == other.at(1, 24)
