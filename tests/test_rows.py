"""Task rows: what is read, what is refused and how, and that writing and reading are inverse."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recall.datasets.row import row_from_task, task_from_row
from recall.datasets.rows import iter_tasks, read_tasks, write_tasks
from recall.datasets.sets import Manifest, Shard, checksum
from recall.errors import ConfigError
from recall.types import AnswerType, Task, ToolSpec

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ENV = 'import re\n\ndef f(x):\n    return re.findall("\\d", x)\n\nasync def g():\n    return 0\n'
STATEFUL = ENV + "\ndef _changes():\n    return {}\n"
BARE = {"name": "f", "description": "Find.", "parameters": {"type": "object", "properties": {"x": {"type": "string"}}}}
WRAPPED = {"type": "function", "function": BARE}
SPEC = ToolSpec("f", "Find.", BARE["parameters"])  # type: ignore[arg-type]


def row(**changes: Any) -> dict[str, Any]:
    """A published row; `info_x` replaces extra_info.x, `gt` the ground truth, anything else a column."""
    info = {"id": "a1", "env": ENV, "func_schemas": json.dumps([WRAPPED])}
    info |= {key.removeprefix("info_"): value for key, value in changes.items() if key.startswith("info_")}
    columns = {key: value for key, value in changes.items() if key != "gt" and not key.startswith("info_")}
    return {
        "data_source": "syntool_re_call",
        "question": "How many?",
        "ability": "re_call",
        "reward_model": {"style": "rule", "ground_truth": changes.get("gt", ["3"])},
        "extra_info": info,
    } | columns


def refusal(**changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        task_from_row(row(**changes), "tasks.jsonl row 7")
    message = str(caught.value)
    assert message.startswith("tasks.jsonl row 7: ")
    assert "\n" not in message
    return message.removeprefix("tasks.jsonl row 7: ")


PLAIN = Task("a1", "How many?", ("3",), ENV, (SPEC,), data_source="syntool_re_call")


@pytest.mark.parametrize(
    "variant",
    [
        row(),
        row(info_func_schemas=json.dumps([BARE])),
        row(info_func_schemas=[BARE]),
        row(info_func_schemas=np.array([WRAPPED], dtype=object)),
        row(gt="3"),
        row(gt=np.array(["3"], dtype=object)),
        row(gt=3),
        row(gt=[np.int64(3)]),
        row(extra_info=json.dumps(row()["extra_info"])),
        row(reward_model=json.dumps(row()["reward_model"])),
        row(ability=None),
        row(extra_info={"index": "a1", "env": ENV, "func_schemas": json.dumps([BARE])}),
        row(info_answer_type=None, info_split=None, info_unknown=None),
    ],
)
def test_every_published_variant_is_the_same_task(variant: dict[str, Any]) -> None:
    assert task_from_row(variant, "x") == PLAIN


def test_a_number_as_index_is_the_id() -> None:
    for index in (7, np.int64(7)):
        info = {"index": index, "env": ENV, "func_schemas": [BARE]}
        assert task_from_row(row(extra_info=info), "x").id == "7"


def test_optional_fields_are_read() -> None:
    calls = [{"name": "f", "arguments": {"x": 1}}, {"name": "f", "arguments": {"x": [{"$ref": 0}]}}]
    task = task_from_row(
        row(
            info_answer_type="number",
            info_tolerance=0.5,
            info_split="train",
            info_depth=2,
            info_kind="chain",
            info_reference=json.dumps(calls),
            info_index=4,
            column=[1],
        ),
        "x",
    )
    assert task.answer_type == AnswerType("number", 0.5)
    assert (task.split, task.depth, task.kind, task.reference) == ("train", 2, "chain", tuple(calls))
    assert task.extra == {"index": 4, "column": [1]}


def test_a_task_may_be_about_state_alone() -> None:
    changes = {"orders/O17/status": "sent", "orders/O99": {"item": "lamp"}, "orders/O1": None}
    reward_model = {"style": "rule", "ground_truth": [], "reward": "exact"}
    for written in (changes, json.dumps(changes)):
        task = task_from_row(row(reward_model=reward_model, info_changes=written, info_env=STATEFUL), "x")
        assert (task.ground_truth, task.changes, task.reward) == ((), changes, "exact")


def test_an_episode_that_must_change_nothing_is_not_one_that_is_not_asked() -> None:
    assert task_from_row(row(info_changes={}, info_env=STATEFUL), "x").changes == {}
    assert task_from_row(row(info_changes=None), "x").changes is None


def test_a_reference_may_work_out_values() -> None:
    items = [{"name": "f", "arguments": {"x": "a"}}, {"value": {"$op": "sum", "of": [{"$ref": 0}, 1]}}]
    assert task_from_row(row(info_reference=items), "x").reference == tuple(items)


def test_a_schema_may_leave_out_description_and_parameters() -> None:
    task = task_from_row(row(info_func_schemas=[{"name": "g", "parameters": None}]), "x")
    assert task.tools == (ToolSpec("g", "", {"type": "object", "properties": {}}),)


def test_nulls_of_a_parquet_struct_are_no_parameters() -> None:
    schema = {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "string"}, "y": None}}}
    assert task_from_row(row(info_func_schemas=[schema]), "x").tools[0].parameters == BARE["parameters"]


@pytest.mark.parametrize(
    "env", ["try:\n    def f(): pass\nexcept OSError: pass", "f = lambda: 0", "from os import getcwd as f"]
)
def test_a_tool_may_be_bound_in_any_way(env: str) -> None:
    assert task_from_row(row(info_env=env), "x").env == env


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": None}, "question: missing; accepted: text"),
        ({"question": " "}, "question: empty"),
        ({"question": 3}, "question: must be text, not int"),
        ({"question": "\ud800"}, "question: holds half of a surrogate pair"),
        ({"extra_info": None}, "extra_info: missing"),
        ({"extra_info": "{"}, "extra_info: not JSON"),
        ({"extra_info": "[" * 99999}, "extra_info: not JSON"),
        ({"extra_info": "[]"}, "extra_info: must be an object"),
        ({"reward_model": None}, "reward_model: missing"),
        ({"gt": None}, "reward_model.ground_truth: missing; accepted: text, or a list"),
        ({"gt": []}, "reward_model.ground_truth: missing"),
        ({"gt": [""]}, "reward_model.ground_truth: empty"),
        ({"gt": [["3"]]}, "reward_model.ground_truth: must be text, not list"),
        ({"gt": "x", "info_answer_type": "number"}, "reward_model.ground_truth: 'x' does not read as number"),
        ({"info_id": None}, "extra_info.id: missing"),
        ({"info_id": True}, "extra_info.id: must be text, not bool"),
        ({"info_env": None}, "extra_info.env: missing"),
        ({"info_env": "def f(:\n"}, "extra_info.env: does not parse as Python: invalid syntax, line 1"),
        ({"info_env": "x\0"}, "extra_info.env: does not parse as Python"),
        ({"info_env": "(" * 9999}, "extra_info.env: does not parse as Python"),
        ({"info_func_schemas": None}, "extra_info.func_schemas: no tools"),
        ({"info_func_schemas": "[]"}, "extra_info.func_schemas: no tools"),
        ({"info_func_schemas": "{}"}, "extra_info.func_schemas: must be a list"),
        ({"info_func_schemas": "x"}, "extra_info.func_schemas: not JSON"),
        ({"info_func_schemas": [3]}, "extra_info.func_schemas[0]: must be an object"),
        ({"info_func_schemas": [{}]}, "extra_info.func_schemas[0].name: missing"),
        (
            {"info_func_schemas": [{"name": "f", "parameters": [1]}]},
            "func_schemas[0].parameters: must be a JSON Schema",
        ),
        (
            {"info_func_schemas": [BARE, {"name": "h"}]},
            "func_schemas[1].name: 'h' is no function of env; it defines: f, g",
        ),
        ({"info_func_schemas": [BARE, BARE]}, "func_schemas[1].name: 'f' is listed twice"),
        ({"info_answer_type": "money"}, "extra_info.answer_type: unknown 'money'; accepted: text, number, integer"),
        ({"info_answer_type": ["text"]}, "extra_info.answer_type: unknown ['text']"),
        ({"info_tolerance": -1}, "extra_info.tolerance: got -1"),
        ({"info_tolerance": float("nan")}, "extra_info.tolerance: got nan"),
        ({"info_tolerance": "0.1"}, "extra_info.tolerance: got '0.1'"),
        ({"info_depth": -1}, "extra_info.depth: got -1"),
        ({"info_max_calls": -1}, "extra_info.max_calls: got -1"),
        ({"info_depth": 1.5}, "extra_info.depth: got 1.5"),
        ({"info_split": 3}, "extra_info.split: must be text, not int"),
        ({"info_reference": "{}"}, "extra_info.reference: must be a list of calls"),
        ({"info_reference": [{"name": "f"}]}, "extra_info.reference[0]: must be a call"),
        (
            {"info_reference": [{"name": "f", "arguments": {"x": [{"$ref": 0}]}}]},
            "extra_info.reference[0]: $ref: got 0; accepted: the number of an earlier item",
        ),
        (
            {"info_reference": [{"value": {"$op": "sum", "of": {"$ref": "x"}}}]},
            "extra_info.reference[0]: $ref: got 'x'",
        ),
        (
            {"info_reference": [{"value": {"$op": "add", "of": []}}]},
            "extra_info.reference[0]: $op: unknown 'add'; accepted",
        ),
        ({"info_reference": [3]}, "extra_info.reference[0]: must be a call"),
        ({"info_reference": [{"value": 1, "name": "f"}]}, "extra_info.reference[0]: must be a call"),
        ({"info_changes": "[]"}, "extra_info.changes: must be an object"),
        ({"info_changes": {"orders//x": 1}}, "extra_info.changes: 'orders//x' is no path; accepted: names between"),
        ({"info_changes": {"": 1}}, "extra_info.changes: '' is no path"),
        ({"info_changes": {"a": 1}}, "extra_info.env: defines no function _changes, which extra_info.changes needs"),
        (
            {"info_env": STATEFUL, "info_func_schemas": [{"name": "_changes"}]},
            "extra_info.func_schemas[0].name: '_changes' tells what an episode changed and is no tool",
        ),
        (
            {"reward_model": {"ground_truth": ["3"], "reward": "exactly"}},
            "reward_model.reward: unknown 'exactly'; accepted: outcome, exact, recall",
        ),
        ({"reward_model": {"ground_truth": ["3"], "reward": 1}}, "reward_model.reward: must be text, not int"),
        ({"info_extra": "[]"}, "extra_info.extra: must be an object"),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_a_bad_row_is_named_by_field(changes: Mapping[str, Any], message: str) -> None:
    assert message in refusal(**changes)


def test_a_row_that_is_no_object_is_refused() -> None:
    with pytest.raises(ConfigError, match="x: must be an object, not list"):
        task_from_row([], "x")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=5,
)
TEXT = st.text(min_size=1).filter(str.strip)
TASKS = st.builds(
    Task,
    id=TEXT,
    question=TEXT,
    ground_truth=st.lists(TEXT, min_size=1, max_size=3).map(tuple),
    env=st.just(STATEFUL),
    tools=st.sampled_from([(SPEC,), (SPEC, ToolSpec("g", "", {"type": "object", "properties": {}}))]),
    answer_type=st.just(AnswerType()) | st.just(AnswerType("text", 0.25)),
    data_source=st.text(),
    ability=st.text(),
    split=st.text(),
    depth=st.integers(0, 9),
    max_calls=st.none() | st.integers(0, 9),
    kind=st.text(),
    reference=st.lists(
        st.fixed_dictionaries({"name": st.text(), "arguments": st.dictionaries(st.text(), JSON, max_size=2)})
        | st.fixed_dictionaries({"value": JSON}),
        max_size=2,
    ).map(tuple),
    changes=st.none() | st.dictionaries(st.sampled_from(["orders/O17/status", "orders/O99", "é"]), JSON, max_size=3),
    reward=st.sampled_from(["", "exact", "recall"]),
    extra=st.dictionaries(st.text(), JSON, max_size=3),
)


@settings(deadline=None)
@given(TASKS)
def test_a_row_holds_the_whole_task(task: Task) -> None:
    assert task_from_row(row_from_task(task), "x") == task
    assert task_from_row(json.loads(json.dumps(row_from_task(task))), "x") == task


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@settings(max_examples=25, deadline=None)
@given(tasks=st.lists(TASKS, max_size=4, unique_by=lambda task: (task.data_source, task.id)))
def test_a_file_holds_the_whole_tasks(tmp_path_factory: pytest.TempPathFactory, suffix: str, tasks: list[Task]) -> None:
    path = tmp_path_factory.mktemp("rows") / f"tasks{suffix}"
    write_tasks(path, iter(tasks))
    assert read_tasks(path) == tasks
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_files_longer_than_a_batch_keep_their_order(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"tasks{suffix}"
    write_tasks(path, (Task(str(i), "?", ("3",), ENV, (SPEC,)) for i in range(600)))
    assert [task.id for task in iter_tasks(path)] == [str(i) for i in range(600)]


def test_published_parquet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist([row(), row(info_id="a2", info_func_schemas=json.dumps([BARE]))]), path)
    assert [task.id for task in read_tasks(path)] == ["a1", "a2"]


def test_written_parquet_keeps_the_published_columns(tmp_path: Path) -> None:
    path = tmp_path / "tasks.parquet"
    write_tasks(path, [PLAIN])
    (read,) = pq.read_table(path).to_pylist()
    assert list(read) == ["data_source", "question", "ability", "reward_model", "extra_info"]
    assert read["reward_model"] == {"style": "rule", "ground_truth": ["3"], "reward": None}
    assert json.loads(read["extra_info"]["func_schemas"]) == [WRAPPED]
    assert read["extra_info"]["env"] == ENV


def test_bad_rows_are_skipped_and_listed_on_request(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    good, other = json.dumps(row()), json.dumps(row(info_id="a2"))
    path.write_bytes(b"\xef\xbb\xbf" + f"{good}\n\n{{oops\n{good}\n".encode() + b"\xff\n[]\n" + f"{other}".encode())
    skipped: list[str] = []
    assert [task.id for task in read_tasks(path, skip_bad=True, on_skip=skipped.append)] == ["a1", "a2"]
    assert [line.removeprefix(f"{path} ") for line in skipped] == [
        "row 3: not JSON: Expecting property name enclosed in double quotes at column 2",
        f"row 4: extra_info.id: 'a1' is taken by {path} row 1; ids are unique in a data_source",
        "row 5: not JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        "row 6: must be an object, not list",
    ]
    with pytest.raises(ConfigError, match="row 3: not JSON"):
        read_tasks(path)


def test_the_same_id_in_two_sources_is_two_tasks(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps(row()) + "\n" + json.dumps(row(data_source="musique_re_call")))
    assert len(read_tasks(path)) == 2


def a_set(directory: Path, shards: Mapping[str, list[Task]]) -> Path:
    """A set of the shards given, by file name; a shard's split is what stands before the hyphen."""
    described = []
    for file, tasks in shards.items():
        write_tasks(directory / file, tasks)
        described.append(
            Shard(file, file.split("-")[0], len(tasks), checksum(directory / file), 0, len(tasks), len(tasks))
        )
    splits = {shard.split: sum(other.rows for other in described if other.split == shard.split) for shard in described}
    Manifest("procedural", {}, 0, "1", splits, 9, tuple(described)).write(directory)
    return directory


def test_a_set_is_read_whole_or_by_split(tmp_path: Path) -> None:
    one, two, other = (replace(PLAIN, id=name) for name in ("1", "2", "3"))
    directory = a_set(
        tmp_path / "set",
        {"train-00000.parquet": [one], "train-00001.parquet": [two], "new_worlds-00000.parquet": [other]},
    )
    assert read_tasks(directory) == [one, two, other]
    assert read_tasks(directory / "train") == [one, two]
    assert read_tasks(directory / "new_worlds") == [other]
    assert read_tasks(directory / "train-00001.parquet") == [two]
    with pytest.raises(ConfigError, match="no split 'held_out'; accepted: train, new_worlds"):
        read_tasks(directory / "held_out")


def test_an_id_is_taken_across_the_files_of_a_set(tmp_path: Path) -> None:
    directory = a_set(tmp_path / "set", {"train-00000.parquet": [PLAIN], "train-00001.parquet": [PLAIN]})
    with pytest.raises(
        ConfigError, match=r"00001.parquet row 1: extra_info.id: 'a1' is taken by an earlier file of the set"
    ):
        read_tasks(directory)
    skipped: list[str] = []
    assert read_tasks(directory, skip_bad=True, on_skip=skipped.append) == [PLAIN]
    assert len(skipped) == 1


def test_an_environment_is_not_parsed_on_request(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    write_tasks(path, [replace(PLAIN, env="def f(:")])
    assert read_tasks(path, parse_env=False)[0].env == "def f(:"
    with pytest.raises(ConfigError, match=r"row 1: extra_info.env: does not parse"):
        read_tasks(path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all"])
def test_a_file_that_is_no_parquet_is_refused_even_when_skipping(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tasks.parquet"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not a whole parquet file"):
        read_tasks(path, skip_bad=True)


def test_truncated_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tasks.parquet"
    write_tasks(path, [PLAIN])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ConfigError, match="not a whole parquet file"):
        read_tasks(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown suffix '.csv'; accepted: .parquet, .jsonl"):
        read_tasks("tasks.csv")
    with pytest.raises(ConfigError, match="unknown suffix"):
        write_tasks("tasks", [])
    for name in ("none.jsonl", "none.parquet"):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_tasks(tmp_path / name)
    for name in ("folder.jsonl", "folder.parquet"):
        (tmp_path / name).mkdir()
        with pytest.raises(ConfigError, match=name):
            read_tasks(tmp_path / name)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    write_tasks(path, [PLAIN])
    for broken in (Task("b", "?", ("3",), extra={"x": object()}), Task("b", "\ud800", ("3",))):
        with pytest.raises(ConfigError, match="task 'b'"):
            write_tasks(path, [PLAIN, broken])
    assert read_tasks(path) == [PLAIN]
    assert [file.name for file in tmp_path.iterdir()] == ["tasks.jsonl"]


def test_the_row_of_the_documentation_is_a_task() -> None:
    page = (Path(__file__).parents[1] / "docs" / "tasks.md").read_text(encoding="utf-8")
    task = task_from_row(json.loads(page.split("```json\n")[1].split("```")[0]), "docs/tasks.md")
    assert (task.id, task.answer_type.kind, task.depth) == ("library-0001", "integer", 1)
    assert [tool.name for tool in task.tools] == [call["name"] for call in task.reference]
