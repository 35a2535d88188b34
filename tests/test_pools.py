"""Training tasks by number: sets on disk, the procedural generator, rows in memory; and the stream that thins them."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from recall.datasets.rows import write_tasks
from recall.datasets.sets import Manifest, Shard, checksum
from recall.errors import ConfigError
from recall.evaluation.splits import has_splits, split_tasks
from recall.trainers.curriculum import CurriculumSettings, Templates
from recall.trainers.levels import LevelSettings
from recall.trainers.pools import Pool, ProceduralPool, RowPool, SetPool
from recall.trainers.recipe import TaskSource, TrainRecipe, ValidationSettings
from recall.trainers.tasks import PoolStream, RowStream, first_of_each, training_tasks, validation_tasks
from recall.types import Group, RewardResult, Segment, StopReason, Task, ToolSpec, Trajectory

TOOL = ToolSpec("f", "", {"type": "object", "properties": {}})


def a_task(number: int, kind: str = "hop1", split: str = "train") -> Task:
    return Task(f"{split}-{number}", "?", ("1",), "def f(): return 1", (TOOL,), split=split, kind=kind)


def a_set(directory: Path, shards: Mapping[str, Sequence[Task]]) -> Path:
    """A set of the shards given, by file name; a shard's split is that of its tasks."""
    found = []
    for file, tasks in shards.items():
        write_tasks(directory / file, tasks)
        found.append(Shard(file, tasks[0].split, len(tasks), checksum(directory / file), 0, len(tasks), len(tasks)))
    splits = Counter({shard.split: 0 for shard in found})
    for shard in found:
        splits[shard.split] += shard.rows
    Manifest("procedural", {}, 0, "1", splits, 5, tuple(found)).write(directory)
    return directory


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tasks = [a_task(number, f"hop{number % 3}") for number in range(12)]
    held = [a_task(number, f"hop{number % 3}", "new_worlds") for number in range(6)]
    shards = {f"train-{place}.parquet": tasks[place * 5 : place * 5 + 5] for place in range(3)}
    return a_set(tmp_path_factory.mktemp("sets") / "set", shards | {"new_worlds-0.parquet": held})


def played(task: Task, solved: Sequence[bool]) -> Group:
    trajectory = Trajectory(task.id, (Segment((1,)), Segment((2,), (-0.5,))), StopReason.DONE)
    return Group(task, [trajectory] * len(solved), [RewardResult(float(each), each) for each in solved])


def ids(tasks: Sequence[Task]) -> list[str]:
    return [task.id for task in tasks]


def numbered(pool: Pool, numbers: range) -> list[str]:
    return ids([pool.task(number, {}) for number in numbers])


def test_every_epoch_of_a_set_has_all_rows_of_the_split_in_an_order_of_its_own(directory: Path) -> None:
    pool = SetPool(directory, seed=0, split="train")
    first, second = numbered(pool, range(12)), numbered(pool, range(12, 24))
    assert sorted(first) == sorted(second) == sorted(f"train-{number}" for number in range(12))
    assert (
        len({tuple(first), tuple(second), tuple(numbered(SetPool(directory, seed=1, split="train"), range(12)))}) == 3
    )


def test_a_number_of_a_set_is_the_same_task_in_whatever_order_they_are_asked_for(directory: Path) -> None:
    forwards = numbered(SetPool(directory, seed=0, split="train"), range(30))
    pool = SetPool(directory, seed=0, split="train")
    assert ids([pool.task(number, {}) for number in reversed(range(30))]) == forwards[::-1]


def test_a_split_that_is_not_there_or_empty_is_refused(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no split 'deeper'; accepted: train, new_worlds"):
        SetPool(directory, seed=0, split="deeper")
    Manifest("procedural", {}, 0, "1", {"train": 5}, 5).write(tmp_path)
    with pytest.raises(ConfigError, match="split 'train' holds no task yet"):
        SetPool(tmp_path, seed=0, split="train")
    with pytest.raises(ConfigError, match="split 'train' holds no task yet"):
        split_tasks(str(tmp_path), "train", 5)


def test_a_file_of_a_set_that_was_changed_is_refused(directory: Path, tmp_path: Path) -> None:
    copy = a_set(tmp_path / "set", {"train-0.parquet": [a_task(0)]})
    write_tasks(copy / "train-0.parquet", [a_task(1)])
    with pytest.raises(ConfigError, match=r"train-0.parquet: torn or changed"):
        SetPool(copy, seed=0, split="train").task(0, {})


def test_rows_in_memory_come_in_the_order_that_they_have_without_a_curriculum() -> None:
    tasks = [a_task(number) for number in range(7)]
    pool = RowPool(tasks, seed=3)
    stream = RowStream(tasks, 3)
    assert [task for step in range(5) for task in stream.at(step, 4)] == [pool.task(n, {}) for n in range(20)]


def test_the_generator_gives_a_task_by_number_and_level() -> None:
    pool = ProceduralPool("nano", seed=5, split="train")
    easy, hard = pool.task(3, {"calls": 1}), pool.task(3, {"calls": 3})
    assert (easy.depth, easy.extra["synth"]["levels"]) == (2, {"calls": 1})
    assert 3 <= hard.depth <= 5
    assert pool.task(3, {"calls": 1}) == ProceduralPool("nano", seed=5, split="train").task(3, {"calls": 1})
    assert pool.tops["calls"] >= 3


class Endless:
    """Tasks of four kinds in turn, whose level is told in their id."""

    block = 4
    tops: Mapping[str, int] = {"calls": 3}

    def task(self, number: int, levels: Mapping[str, int]) -> Task:
        """See `Pool`."""
        task = a_task(number, f"hop{number % 4}")
        return replace(task, id=f"{number}@{levels.get('calls', '-')}", extra={"synth": {"levels": dict(levels)}})


def stream(revisit: float = 0.0, **changes: object) -> PoolStream:
    pool = Endless()
    settings = CurriculumSettings(by="templates").model_copy(update=changes)
    return PoolStream(pool, Templates(settings, pool.tops), seed=0, revisit=revisit)


def test_more_tasks_are_drawn_than_played_and_those_in_the_band_first() -> None:
    tasks = stream(candidates=3, floor=0.01)
    for kind in ("hop0", "hop1", "hop2"):
        for _ in range(12):
            tasks._templates.observe([played(a_task(0, kind), (True, True))])
    assert Counter(task.kind for task in tasks.at(0, 16))["hop3"] >= 11  # 12 of the 48 candidates


def test_without_a_curriculum_every_task_is_played_in_order() -> None:
    tasks = stream(by="none")
    assert ids(tasks.at(0, 3)) + ids(tasks.at(1, 3)) == [f"{number}@-" for number in range(6)]


def test_what_some_solved_comes_back_and_tells_nothing_of_success() -> None:
    tasks = stream(revisit=1.0)
    first = tasks.at(0, 4)
    assert tasks.observe([played(task, (True, False)) for task in first[:2]] + [
        played(first[2], (True, True)), played(first[3], (False, False))
    ])  # fmt: skip
    second = tasks.at(1, 4)
    assert ids(second)[:2] == ids(first)[:2]
    assert not set(ids(second)[2:]) & set(ids(first))
    assert [group.task for group in tasks.observe([played(task, (True, True)) for task in second])] == second[2:]


def test_levels_are_drawn_for_a_block_of_numbers_at_once_and_move_with_success() -> None:
    tasks = stream(by="templates", candidates=1, levels=LevelSettings(start={"calls": 1}, groups=8, back=0.4))
    first = tasks.at(0, 40)
    by_block = [{task.id.split("@")[1] for task in first[place : place + 4]} for place in range(0, 40, 4)]
    assert all(len(levels) == 1 for levels in by_block)
    assert {"0"} in by_block
    assert {"1"} in by_block
    tasks.observe([played(task, (True, True)) for task in first])
    tasks._templates.observe([played(task, (True, True)) for task in first])
    assert max(task.id.split("@")[1] for task in tasks.at(1, 40)) >= "2"


def test_a_restored_stream_goes_on_alike() -> None:
    one, other = stream(0.5), stream(0.5)
    one.observe([played(task, (True, False)) for task in one.at(0, 12)])
    other.restore(json.loads(json.dumps(one.state())))
    assert one.at(1, 12) == other.at(1, 12)
    assert one.at(1, 3, extra=1) == other.at(1, 3, extra=1)


def test_what_leaves_no_room_for_a_turn_is_passed_over_and_counted() -> None:
    pool = Endless()
    settings = CurriculumSettings(by="none")
    tasks = PoolStream(pool, Templates(settings, pool.tops), seed=0, fits=lambda task: task.kind != "hop1")
    assert ids(tasks.at(0, 4)) == ["0@-", "2@-", "3@-", "4@-"]
    assert (tasks.metrics(), tasks.metrics()) == ({"tasks/too_long": 1.0}, {"tasks/too_long": 0.0})
    nothing = PoolStream(pool, Templates(settings, pool.tops), seed=0, fits=lambda task: False)
    with pytest.raises(ConfigError, match=r"rollout.limits.max_tokens: too small: none of 100 tasks in a row"):
        nothing.at(0, 1)


def recipe(source: str, **curriculum: object) -> TrainRecipe:
    settings = CurriculumSettings().model_copy(update=curriculum)
    return TrainRecipe(
        tasks=TaskSource(source=source, recipe="nano"),
        curriculum=settings,
        validation=ValidationSettings(splits=("new_worlds",)),
    )


def test_the_source_decides_on_the_curriculum_unless_the_recipe_does(directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_tasks(path, [a_task(number) for number in range(3)])
    for source, by, kind in (
        ("synth", "auto", "SynthStream"),
        ("synth", "none", "SynthStream"),
        ("procedural", "auto", "PoolStream"),
        ("procedural", "none", "PoolStream"),
        (str(directory), "auto", "PoolStream"),
        (str(path), "auto", "RowStream"),
        (str(path), "templates", "PoolStream"),
        (str(directory / "train"), "auto", "RowStream"),
    ):
        assert type(training_tasks(recipe(source, by=by))[0]).__name__ == kind


@pytest.mark.parametrize(
    ("source", "curriculum", "message"),
    [
        ("synth", {"by": "templates"}, "curriculum.by: 'templates' does not fit .* accepted: auto, stages, none"),
        ("procedural", {"by": "stages"}, "curriculum.by: 'stages' does not fit .* accepted: auto, templates, none"),
        ("procedural", {"by": "none", "levels": LevelSettings(start={"calls": 1})}, "levels move by templates only"),
        ("procedural", {"levels": LevelSettings(start={"colour": 1})}, "unknown attribute 'colour'; accepted: calls,"),
    ],
)  # fmt: skip
def test_a_curriculum_that_the_source_has_no_use_for_is_refused(
    source: str, curriculum: Mapping[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        training_tasks(recipe(source, **curriculum))


def test_levels_of_a_set_cannot_move(directory: Path) -> None:
    with pytest.raises(ConfigError, match="unknown attribute 'calls'; accepted: none with this source"):
        training_tasks(recipe(str(directory), levels=LevelSettings(start={"calls": 1})))


def test_validation_is_by_split_where_the_source_has_splits(directory: Path) -> None:
    tasks = validation_tasks(recipe(str(directory)), 4)
    assert ids(tasks) == [f"new_worlds-{number}" for number in range(4)]
    made = validation_tasks(recipe("procedural"), 2)
    assert [task.split for task in made] == ["new_worlds"] * 2
    assert made == split_tasks("procedural", "new_worlds", 3, "nano")[:2]
    with pytest.raises(ConfigError, match="split 'held_out'"):
        split_tasks("procedural", "held_out", 1)


def test_the_first_of_each_kind_or_split_are_kept_in_order() -> None:
    tasks = [a_task(0, "a"), a_task(1, "b", "x"), a_task(2, "a"), a_task(3, "a", "x")]
    assert ids(first_of_each(tasks, 1)) == ["train-0", "x-1"]
    assert ids(first_of_each(tasks, 1, by_split=True)) == ["train-0", "x-1"]
    assert ids(first_of_each(tasks, 2)) == ["train-0", "x-1", "train-2"]


def test_a_set_has_splits_and_a_split_of_it_has_none(directory: Path) -> None:
    sources = ("procedural", str(directory), str(directory / "train"), "synth")
    assert [has_splits(source) for source in sources] == [True, True, False, False]
