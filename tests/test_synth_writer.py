import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from itertools import islice, takewhile
from pathlib import Path

import pyarrow.parquet
import pytest

from recall.datasets.rows import read_tasks
from recall.datasets.sets import MANIFEST, checksum, is_set, read_manifest, shard_files
from recall.errors import ConfigError
from recall.synth.made import Made
from recall.synth.workers import Workers
from recall.synth.writer import write_set
from small_sets import SPLITS, make, makes, task, write


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("whole")
    write(directory)
    return directory


def test_a_set_holds_the_tasks_that_were_asked_for_in_order(whole: Path) -> None:
    for split, rows in SPLITS.items():
        read = [found for file in shard_files(whole / split) for found in read_tasks(file)]
        assert read == [task(split, 0, index) for index in range(rows)]


def test_shards_have_a_fixed_number_of_rows_and_the_manifest_names_each_with_its_checksum(whole: Path) -> None:
    manifest = read_manifest(whole)
    assert [(shard.file, shard.rows) for shard in manifest.shards] == [
        *((f"train-0000{number}.parquet", rows) for number, rows in enumerate((5, 5, 5, 5, 3))),
        *((f"new_worlds-0000{number}.parquet", rows) for number, rows in enumerate((5, 2))),
    ]
    assert all(checksum(whole / shard.file) == shard.sha256 for shard in manifest.shards)
    assert sorted(contents(whole)) == sorted([MANIFEST, *(shard.file for shard in manifest.shards)])
    assert manifest.complete
    assert manifest.rows == 30


def test_the_manifest_counts_what_was_thrown_away_until_the_last_task(whole: Path) -> None:
    attempts = [attempt for split, rows in SPLITS.items() for attempt in make(split, 0, range(rows))]
    manifest = json.loads((whole / MANIFEST).read_text())
    assert manifest["tried"] == len(attempts)
    assert manifest["rejected"] == {
        "guess": {"constant": sum(attempt.gate == "guess" for attempt in attempts)},
        "minimal": {"a shorter way": sum(attempt.gate == "minimal" for attempt in attempts)},
    }


def test_the_number_of_workers_does_not_change_a_byte(whole: Path, tmp_path: Path) -> None:
    write(tmp_path, workers=3)
    assert contents(tmp_path) == contents(whole)


class StopError(Exception):
    """The end of a process that could not prepare for it."""


def interrupted_at(directory: Path, moment: int) -> None:
    """Make a set as far as the attempt numbered `moment`."""
    attempts = 0

    def stop(*_: object) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == moment:
            raise StopError

    with pytest.raises(StopError):
        write(directory, on_progress=stop)


def test_interruptions_do_not_change_a_byte(whole: Path, tmp_path: Path) -> None:
    for moment in (1, 3, 9, 20, 15):
        interrupted_at(tmp_path, moment)
        done = {name: content for name, content in contents(tmp_path).items() if name != MANIFEST}
        assert done.items() <= contents(whole).items(), "a shard is whole or absent"
    assert len(done) > 3, "what was done is not done again"
    write(tmp_path)
    assert contents(tmp_path) == contents(whole)


def test_a_set_grows_to_what_it_would_have_been_at_once(whole: Path, tmp_path: Path) -> None:
    write(tmp_path, splits={"train": 12})
    write(tmp_path)
    assert contents(tmp_path) == contents(whole)


def test_a_set_that_is_done_is_left_alone(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.iterdir()}
    write(whole)
    assert {path: path.stat().st_mtime_ns for path in whole.iterdir()} == before


def test_a_shard_that_is_missing_is_made_again_and_nothing_else(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (tmp_path / "train-00001.parquet").unlink()
    made: list[str] = []
    write(tmp_path, on_progress=lambda split, rows, tried: made.append(f"{split} {rows}"))
    assert (made[0], made[-1]) == ("train 5", "train 10")
    assert contents(tmp_path) == contents(whole)


@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b[:50] + b"x" + b[51:]], ids=["torn", "changed"])
def test_a_damaged_shard_is_named_by_writer_and_reader(whole: Path, tmp_path: Path, damage: object) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    shard = tmp_path / "train-00002.parquet"
    assert callable(damage)
    shard.write_bytes(damage(shard.read_bytes()))
    for use in (lambda: write(tmp_path), lambda: list(shard_files(tmp_path))):
        with pytest.raises(ConfigError, match=r"train-00002\.parquet: torn or changed.*delete the file"):
            use()
    shard.unlink()
    write(tmp_path)
    assert contents(tmp_path) == contents(whole)


def test_another_recipe_seed_or_number_of_rows_is_refused_in_one_line(whole: Path) -> None:
    for options, complaint in (
        ({"seed": 1}, "made with seed 0, not 1"),
        ({"recipe": {"calls": 4}}, "made with recipe.calls 3, not 4"),
        ({"splits": {"train": 22, "new_worlds": 7}}, "'train' was made for 23 rows, not 22"),
        ({"splits": {"new_worlds": 7, "train": 23}}, "in this order"),
    ):
        with pytest.raises(ConfigError, match=complaint) as refusal:
            write(whole, **options)
        assert "\n" not in str(refusal.value)


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match=r"holds 'thesis\.tex'"):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    def second(*_: object) -> None:
        with pytest.raises(ConfigError, match="another process is writing it"):
            write(tmp_path)

    write(tmp_path, splits={"train": 2}, on_progress=second)


def test_attempts_that_end_early_leave_a_set_that_goes_on(whole: Path, tmp_path: Path) -> None:
    def some(rows: int) -> object:
        with Workers(makes(), SPLITS, block=4) as workers:
            return write_set(
                tmp_path,
                lambda split, start: islice(workers.stream(split, start), rows),
                kind="small",
                recipe={"calls": 3},
                seed=0,
                splits=SPLITS,
                shard_rows=5,
            )

    manifest = some(9)
    assert not read_manifest(tmp_path).complete
    assert read_manifest(tmp_path) == manifest
    assert [shard.rows for shard in read_manifest(tmp_path).shards] == [5, 1, 5, 1]
    assert some(1000) == read_manifest(whole)
    assert contents(tmp_path) == contents(whole)


@pytest.mark.parametrize("start", [0, 3])
def test_the_next_split_is_begun_ahead_and_taken_up_where_it_is_wanted(start: int) -> None:
    wanted = {"train": 9, "new_worlds": 7}
    with Workers(makes(splits=wanted), wanted, 2, block=2) as workers:
        first = list(takewhile(lambda made: made.index < 9, workers.stream("train", 0)))
        second = list(takewhile(lambda made: made.index < 7, workers.stream("new_worlds", start)))
    with Workers(makes(splits=wanted), wanted) as alone:
        assert first == list(takewhile(lambda made: made.index < 9, alone.stream("train", 0)))
        assert second == list(takewhile(lambda made: made.index < 7, alone.stream("new_worlds", start)))


def test_a_task_out_of_place_is_a_bug(tmp_path: Path) -> None:
    good = task("train", 0, 0)

    def backward(split: str, start: int) -> Iterable[Made]:
        return [Made(0, good), Made(0, good)]

    def astray(split: str, start: int) -> Iterable[Made]:
        return [Made(0, task("new_worlds", 0, 0))]

    for made, complaint in ((backward, "attempt 0 of split 'train' comes after attempt 1"), (astray, "'new_worlds'")):
        with pytest.raises(ValueError, match=complaint):
            write_set(tmp_path, made, kind="small", recipe={}, seed=0, splits={"train": 3})


def test_rows_are_written_as_they_are_made(tmp_path: Path) -> None:
    with Workers(makes(splits={"train": 600}), {"train": 600}) as workers:
        write_set(tmp_path, workers.stream, kind="small", recipe={}, seed=0, splits={"train": 600}, shard_rows=1000)
    file = pyarrow.parquet.ParquetFile(tmp_path / "train-00000.parquet")
    assert file.metadata.num_row_groups > 1


def test_a_broken_manifest_is_named_by_its_field(whole: Path, tmp_path: Path) -> None:
    good = json.loads((whole / MANIFEST).read_text())
    for change, complaint in (
        ({"format": 2}, "format: got 2; accepted: 1"),
        ({"seed": "x"}, "seed: got 'x'; accepted: int"),
        ({"splits": {"train": "many"}}, "splits: accepted: a number of rows each"),
        ({"shards": [{"file": "a"}]}, r"shards\[0\]: accepted: an object with file, split"),
        ({"shards": [good["shards"][0] | {"file": "../a"}]}, "accepted: the name of a file of the directory"),
    ):
        (tmp_path / MANIFEST).write_text(json.dumps(good | change))
        with pytest.raises(ConfigError, match=complaint):
            read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_manifest(tmp_path)


def test_a_set_is_told_from_a_file_and_its_splits_by_name(whole: Path) -> None:
    assert is_set(whole)
    assert is_set(whole / "train")
    assert not is_set(whole / "train-00000.parquet")
    assert not is_set(whole.parent)
    with pytest.raises(ConfigError, match="no split 'test'; accepted: train, new_worlds"):
        list(shard_files(whole / "test"))
    with pytest.raises(ConfigError, match="no set of tasks"):
        list(shard_files(whole.parent))


PROGRAM = """
import sys
from pathlib import Path
from small_sets import write
if __name__ == "__main__":
    print("ready", flush=True)
    write(Path(sys.argv[1]), workers=2, splits={"train": 100_000})
"""


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_writer_that_is_stopped_leaves_whole_shards_and_no_process(whole: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    deadline = time.monotonic() + 120
    ways = (signal.SIGINT, signal.SIGKILL)
    writers = {
        way: subprocess.Popen(
            [sys.executable, program, tmp_path / way.name],
            env={**os.environ, "PYTHONPATH": path},
            stderr=subprocess.DEVNULL,
        )
        for way in ways
    }
    children = set()
    for way, writer in writers.items():
        while not (tmp_path / way.name / "train-00002.parquet").exists():
            assert time.monotonic() < deadline
            assert writer.poll() is None
            time.sleep(0.02)
        children |= set(children_of(writer.pid))
        writer.send_signal(way)
    for way, writer in writers.items():
        writer.wait(timeout=60)
        assert read_manifest(tmp_path / way.name).shards[:2] == read_manifest(whole).shards[:2]
        assert len(list(shard_files(tmp_path / way.name))) >= 2
    assert len(children) >= 4
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.02)
    assert not [file for file in (tmp_path / "SIGINT").iterdir() if file.name.startswith(".")]
