import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest

from recall import programs
from recall.cli import main
from recall.cli.synth import summary
from recall.datasets.published import write_published
from recall.datasets.rows import read_tasks
from recall.datasets.sets import read_manifest
from recall.errors import ConfigError
from recall.sandbox.local import LocalSandbox
from recall.synth.sets import SHARES, rows_of, shares_of
from recall.synth.stateless import state_of
from recall.types import Task, ToolSpec
from small_sets import task, write


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_a_procedural_set_is_made_by_splits_and_made_again_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["synth", "procedural", "--recipe", "nano", "--rows", "10", "--seed", "3", "--splits"]
    command += ["train=0.7,new_skins=0.3", "--shard_rows", "4"]
    assert main([*command, "--out", str(tmp_path / "a"), "--workers", "1"]) == 0
    told = said(capsys)
    assert "10 tasks in 3 shards, seed 3" in told
    assert "train 7, new_skins 3" in told
    assert main([*command, "--out", str(tmp_path / "b"), "--workers", "2"]) == 0
    one, other = ({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in "ab")
    assert one == other
    tasks = read_tasks(tmp_path / "a")
    assert [found.split for found in tasks] == ["train"] * 7 + ["new_skins"] * 3
    assert len({found.id for found in tasks}) == 10


def test_a_set_of_another_seed_is_refused_with_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["synth", "procedural", "--recipe", "nano", "--rows", "2", "--out", str(tmp_path), "--workers", "1"]
    assert main([*command, "--splits", "train=1"]) == 0
    assert main([*command, "--splits", "train=1", "--seed", "1"]) == 2
    assert re.fullmatch(r"recall: .*made with seed 0, not 1.*\n", capsys.readouterr().err)


@pytest.mark.parametrize("shares", ["train", "train=x", "train=0.5", "test=1", "train=0.5,train=0.5", "train=-1"])
def test_shares_that_make_no_whole_are_refused(shares: str) -> None:
    with pytest.raises(ConfigError, match="--splits"):
        shares_of(shares)


def test_rows_are_shared_out_whole() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)
    for rows in (1, 7, 99, 1000, 12345):
        counts = rows_of(rows, SHARES)
        assert sum(counts.values()) == rows
        assert all(abs(count - rows * SHARES[split]) < 1 for split, count in counts.items())


STATEFUL = """
_ROWS = {"a": 1}
_SEEN = []

def read(key):
    found = {}
    found["value"] = _ROWS[key]
    return found

def sorted_keys():
    keys = sorted(_ROWS)
    keys.append("z")
    return keys

def write(key, value):
    _ROWS[key] = value

def rename(key, value):
    row = _ROWS
    row[key] = value

def count():
    global _COUNT
    _COUNT += 1

def once(key):
    _note(key)
    return key

def _note(key):
    _SEEN.append(key)
"""


@pytest.mark.parametrize(
    ("tool", "keeps"),
    [("read", False), ("sorted_keys", False), ("write", True), ("rename", True), ("count", True), ("once", True)],
)
def test_a_tool_that_changes_what_outlives_its_call_is_found_out(tool: str, keeps: bool) -> None:
    made = Task("t", "q?", ("1",), env=STATEFUL, tools=(ToolSpec(tool, "", {}),))
    assert (state_of(made) is not None) is keeps


def test_tasks_about_state_and_tools_that_fail_at_first_are_told() -> None:
    made = Task("t", "q?", ("1",), env=STATEFUL, tools=(ToolSpec("read", "", {}),))
    assert state_of(made) is None
    assert state_of(replace(made, changes={"a/b": 1})) == "it is about state"
    assert state_of(replace(made, reference=({"name": "read", "arguments": {}, "retry": True},))) is not None


def test_exported_rows_have_the_published_columns_and_no_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "set")
    out = tmp_path / "rows.parquet"
    assert main(["synth", "export", str(tmp_path / "set"), str(out)]) == 0
    assert "30 tasks written, 0 left out" in said(capsys)
    rows = pyarrow.parquet.read_table(out).to_pylist()
    expected = task("train", 0, 0)
    assert list(rows[0]) == ["data_source", "question", "ability", "reward_model", "extra_info"]
    assert rows[0]["ability"] == "re_call"
    assert rows[0]["reward_model"] == {"style": "rule", "ground_truth": list(expected.ground_truth)}
    assert rows[0]["extra_info"]["id"] == expected.id
    assert set(rows[0]["extra_info"]) == {"id", "env", "func_schemas"}
    assert json.loads(rows[0]["extra_info"]["func_schemas"])[0]["type"] == "function"
    assert [found.question for found in read_tasks(out)] == [found.question for found in read_tasks(tmp_path / "set")]
    assert main(["synth", "export", str(tmp_path / "set"), str(out)]) == 2


def test_exported_jsonl_reads_back(tmp_path: Path) -> None:
    made = [task("train", 0, index) for index in range(3)]
    assert write_published(tmp_path / "rows.jsonl", made) == 3
    assert [found.env for found in read_tasks(tmp_path / "rows.jsonl")] == [found.env for found in made]
    with pytest.raises(ConfigError, match="has no answer"):
        write_published(tmp_path / "x.jsonl", [replace(made[0], ground_truth=(), changes={})])
    with pytest.raises(ConfigError, match="unknown suffix"):
        write_published(tmp_path / "x.csv", made)


def test_exported_procedural_tasks_are_solved_by_a_sandbox_that_forgets_everything(tmp_path: Path) -> None:
    command = ["synth", "procedural", "--rows", "16", "--splits", "train=1", "--workers", "1"]
    assert main([*command, "--out", str(tmp_path / "set")]) == 0
    out = tmp_path / "rows.jsonl"
    assert main(["synth", "export", str(tmp_path / "set"), str(out)]) == 0
    by_id = {found.id: found for found in read_tasks(tmp_path / "set")}
    exported = read_tasks(out)
    assert 0 < len(exported) < 16
    for row, answer in zip(exported, asyncio.run(forgetfully([by_id[row.id] for row in exported])), strict=True):
        assert any(accepted in answer for accepted in row.ground_truth), row.id


async def forgetfully(tasks: Sequence[Task]) -> list[str]:
    """What the reference programs come to where every call has a process of its own."""
    sandbox, found = LocalSandbox(), []
    for each in tasks:
        results: list[object] = []
        for item in each.reference:
            if "name" not in item:
                results.append(programs.resolve(item["value"], results))
                continue
            session = await sandbox.open(each.env)
            arguments = {name: programs.resolve(value, results) for name, value in item["arguments"].items()}
            results.append((await session.call(item["name"], arguments)).result)
            await session.close()
        found.append(results[-1] if isinstance(results[-1], str) else json.dumps(results[-1]))
    await sandbox.close()
    return found


def test_the_small_generator_still_writes_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tasks.jsonl"
    assert main(["synth", "nano", str(out), "--rows", "4", "--kinds", "1,join"]) == 0
    assert [found.kind for found in read_tasks(out)] == ["1", "join", "1", "join"]
    assert "4 tasks" in said(capsys)


def test_a_set_that_ends_early_says_so(tmp_path: Path) -> None:
    write(tmp_path)
    manifest = replace(read_manifest(tmp_path), splits={"train": 23, "new_worlds": 70})
    assert "incomplete: 93 were asked for" in next(iter(summary(tmp_path, manifest)))
