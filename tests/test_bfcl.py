"""The leaderboard without its checkers: entries, schemas, what is written for the checkers, the turns of a dialogue."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from recall.errors import ConfigError
from recall.evaluation.bfcl.checkers import Checkers, Opened, Opening
from recall.evaluation.bfcl.entries import Entry, read_entries
from recall.evaluation.bfcl.environment import APPEARED, MOST_STEPS, UNKNOWN, BfclEnvironment, Played
from recall.evaluation.bfcl.functions import as_code, as_official, tools_of
from recall.evaluation.bfcl.judge import judge
from recall.evaluation.bfcl.official import compare, write_results
from recall.evaluation.bfcl.play import Verdict
from recall.evaluation.bfcl.results import Verdicts
from recall.evaluation.bfcl.scores import Score, category_score, group_scores
from recall.evaluation.bfcl.script import true_calls, truth
from recall.evaluation.bfcl.sources import in_source
from recall.evaluation.bfcl.summary import summarize
from recall.types import AssistantTurn, Message, StopReason, ToolCall

DOCUMENTS = [
    {"name": "cd", "description": "Go.", "parameters": {"type": "dict", "properties": {"folder": {"type": "string"}}}},
    {"name": "sort", "description": "Sort.", "parameters": {"type": "dict", "properties": {"file": {"type": "any"}}}},
]


class Backends(Checkers):
    """A backend that says what it was asked."""

    def __init__(self) -> None:
        super().__init__(Path("none"))
        self.open_ids: set[str] = set()

    async def open(self, episode_id: str, opening: Opening) -> Opened:
        self.open_ids.add(episode_id)
        return Opened(frozenset({"cd", "sort"}))

    async def call(self, episode_id: str, name: str, arguments: Mapping[str, Any]) -> str:
        return f"{name} {json.dumps(arguments)}"

    async def close(self, episode_id: str) -> None:
        self.open_ids.remove(episode_id)


def data(tmp_path: Path, **changes: Any) -> Path:
    row = {
        "id": "multi_turn_miss_func_0",
        "question": [[{"role": "user", "content": "Go."}], []],
        "involved_classes": ["GorillaFileSystem"],
        "initial_config": {},
        "missed_function": {"1": ["sort"]},
        **changes,
    }
    for folder, rows in (
        ("questions/BFCL_v4_multi_turn_miss_func", [row]),
        (
            "possible_answer/BFCL_v4_multi_turn_miss_func",
            [{"id": row["id"], "ground_truth": [["cd('a')"], ["sort(file='b')"]]}],
        ),
        ("multi_turn_func_doc/gorilla_file_system", DOCUMENTS),
    ):
        path = tmp_path / f"{folder}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(json.dumps(each) for each in rows))
    return tmp_path


def entry(tmp_path: Path) -> Entry:
    (only,) = read_entries(data(tmp_path), "multi_turn_miss_func")
    return only


def test_a_function_that_is_missing_appears_in_its_turn(tmp_path: Path) -> None:
    found = entry(tmp_path)
    assert [each["name"] for each in found.functions] == ["cd"]
    assert [each["name"] for each in found.appearing[1]] == ["sort"]
    assert found.truth == [["cd('a')"], ["sort(file='b')"]]


@pytest.mark.parametrize(
    ("category", "told"),
    [
        ("web_search_base", "SerpAPI"),
        ("memory_kv", "needs the data of the package"),
        ("simple", "accepted: simple_python"),
    ],
)
def test_a_category_that_cannot_be_played_says_why(tmp_path: Path, category: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_entries(tmp_path, category)


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"BFCL_v4_irrelevance\.json: cannot be read"):
        read_entries(tmp_path, "irrelevance")


def test_schemas_are_json_schema_at_every_depth() -> None:
    inner = {"type": "dict", "properties": {"x": {"type": "float", "default": {"type": "dict"}}}}
    document = {"name": "a.b", "parameters": {"type": "dict", "properties": {"p": inner, "q": {"type": "tuple"}}}}
    (tool,) = tools_of([document])
    assert tool.name == "a_b"
    properties = tool.parameters["properties"]
    assert tool.parameters["type"] == properties["p"]["type"] == "object"
    assert properties["p"]["properties"]["x"] == {"type": "number", "default": {"type": "dict"}}
    assert properties["q"]["type"] == "array"
    assert tool.description == " Note that the provided function is in Python 3 syntax."
    assert as_official(ToolCall("a_b", {"p": 1})) == {"a_b": {"p": 1}}


@pytest.mark.parametrize(
    ("value", "kind", "language", "told"),
    [
        (50, "long", "java", "50L"),
        (True, "boolean", "java", "true"),
        (["a", "b"], "ArrayList", "java", 'new ArrayList<>(Arrays.asList("a", "b"))'),
        ({"limit": 50}, "HashMap", "java", 'new HashMap<>() {{ put("limit", 50); }}'),
        ("mapArea", "any", "java", "mapArea"),
        (3, "Bigint", "javascript", "3n"),
        ([60, "x"], "array", "javascript", '[60, "x"]'),
    ],
)
def test_values_of_other_languages_are_source_text(value: Any, kind: str, language: str, told: str) -> None:
    assert in_source(value, {"type": kind}, language) == told


def test_functions_of_other_languages_take_text_and_say_what_stands_in_it() -> None:
    properties = {"all": {"type": "ArrayList", "description": "What.", "items": {"type": "String"}}}
    (tool,) = tools_of([{"name": "F.g", "parameters": {"type": "dict", "properties": properties}}], "java")
    assert tool.name == "F_g"
    assert tool.description.endswith("in Java 8 SDK syntax.")
    told = tool.parameters["properties"]["all"]
    assert told["type"] == "string"
    assert told["description"].startswith("What. This is Java ArrayList type parameter in string representation.")
    assert "items" not in told


def test_only_names_and_literals_are_written_for_the_checkers() -> None:
    assert as_code("f", {"a": "x'y", "b": [1, True, None]}) == 'f(a="x\'y", b=[1, True, None])'
    assert as_code("f(1) or g", {}) is None
    assert as_code("f", {"a=open('x'), b": 1}) is None


def turn(*calls: ToolCall) -> AssistantTurn:
    return AssistantTurn("", calls=calls)


async def test_a_turn_without_calls_is_answered_by_the_user(tmp_path: Path) -> None:
    backends = Backends()
    env = BfclEnvironment(entry(tmp_path), backends, "e")
    assert await env.start() == (Message("user", "Go."),)
    step = await env.step(turn(ToolCall("cd", {"folder": "a"})))
    assert step.messages == (Message("tool", 'cd {"folder": "a"}', name="cd"),)
    step = await env.step(turn())
    assert step.messages[0].role == "user"
    assert step.messages[0].content.endswith(APPEARED)
    assert '"sort"' in step.messages[0].content
    assert [tool.name for tool in env.tools] == ["cd", "sort"]
    await env.step(turn(ToolCall("sort", {"file": "b"})))
    assert (await env.step(turn())).stop is StopReason.DONE
    assert env.played.code() == [[["cd(folder='a')"]], [["sort(file='b')"]]]
    assert env.played.turns[0] == [[{"cd": {"folder": "a"}}], ""]
    assert env.played.finished
    await env.close()
    assert not backends.open_ids


async def test_what_is_no_method_is_told_to_the_model_and_never_evaluated(tmp_path: Path) -> None:
    env = BfclEnvironment(entry(tmp_path), Backends(), "e")
    await env.start()
    step = await env.step(turn(ToolCall("open", {"file": "/etc/passwd"})))
    assert "unknown tool 'open'" in step.messages[0].content
    assert env.played.code() == [[[f"{UNKNOWN}()"]]]


async def test_a_turn_of_too_many_steps_is_given_up(tmp_path: Path) -> None:
    env = BfclEnvironment(entry(tmp_path), Backends(), "e")
    await env.start()
    for _ in range(MOST_STEPS):
        assert (await env.step(turn(ToolCall("cd", {"folder": "a"})))).stop is None
    assert (await env.step(turn(ToolCall("cd", {"folder": "a"})))).stop is StopReason.MAX_TURNS
    assert env.played.given_up


def test_the_truth_is_calls_by_name(tmp_path: Path) -> None:
    found = entry(tmp_path)
    assert true_calls(found) == [[ToolCall("cd", {"folder": "a"})], [ToolCall("sort", {"file": "b"})]]
    turns = list(truth(found))
    assert [isinstance(turn, str) for turn in turns] == [False, True, False, True]


async def test_a_dialogue_that_was_cut_short_is_wrong_whatever_it_did(tmp_path: Path) -> None:
    verdict = await judge(entry(tmp_path), Played([["Hello."]]), Backends())
    assert not verdict["valid"]
    assert verdict["error_type"] == "multi_turn:force_terminated"


def verdicts() -> list[Verdict]:
    calls = [[[{"f": {"a": 1}}], "Done."]]
    return [
        Verdict("simple_python_10", "simple_python", True, result=[[[{"f": {"a": 1}}]]], duration_s=3.0),
        Verdict("simple_python_9", "simple_python", False, "type_error:simple", result=[[""]], duration_s=1.0),
        Verdict("multi_turn_base_0", "multi_turn_base", True, result=calls, turns=2, calls=1),
        Verdict("memory_kv_prereq_0-x-0", "memory_kv_prereq", True, result=calls),
    ]


def test_result_files_are_those_of_a_model_that_calls_natively(tmp_path: Path) -> None:
    folder = write_results(tmp_path, verdicts()) / "recall"
    single = (folder / "non_live/BFCL_v4_simple_python_result.json").read_text().splitlines()
    assert [json.loads(line) for line in single] == [
        {"id": "simple_python_9", "result": " "},
        {"id": "simple_python_10", "result": [{"f": '{"a": 1}'}]},
    ]
    (line,) = (folder / "multi_turn/BFCL_v4_multi_turn_base_result.json").read_text().splitlines()
    assert json.loads(line)["result"] == [[[{"f": '{"a": 1}'}], "Done."]]
    assert not (folder / "agentic").exists()


def test_a_difference_from_the_leaderboard_is_found_in_verdict_and_in_error_type() -> None:
    official = {"simple_python_10": "", "simple_python_9": "value_error:string", "multi_turn_base_0": "", "x": ""}
    agreement = compare(verdicts(), official)
    assert agreement.entries == 4
    assert agreement.differing == (
        ("simple_python_9", "type_error:simple", "value_error:string"),
        ("x", "not played", ""),
    )


def test_a_summary_counts_only_what_is_scored() -> None:
    names = ("simple_python", "multi_turn_base")
    found = summarize([each for each in verdicts() if each.category in names], names)
    assert found["entries"] == 3
    assert found["errors"] == {"type_error:simple": 1}
    assert found["categories"]["simple_python"]["accuracy"] == 0.5
    assert found["categories"]["simple_python"]["seconds"] == 2.0
    assert found["categories"]["simple_python"]["seconds_95"] == 3.0


def test_verdicts_survive_a_torn_line_and_faults_are_played_again(tmp_path: Path) -> None:
    kept = Verdicts(tmp_path / "run", {"seed": 0})
    for each in verdicts():
        kept.add(each)
    kept.add(Verdict("y", "multiple", False, fault="broken"))
    with (tmp_path / "run/verdicts.jsonl").open("a") as file:
        file.write('{"id": "torn')
    again = Verdicts(tmp_path / "run", {"seed": 0})
    assert list(again.known.values()) == verdicts()
    with pytest.raises(ConfigError, match="holds another run: its seed is 0, not 1"):
        Verdicts(tmp_path / "run", {"seed": 1})


def test_groups_weigh_as_on_the_leaderboard() -> None:
    full = {name: Score(1.0, 10) for name in ("simple_python", "multiple", "parallel", "parallel_multiple")}
    groups = group_scores(full)
    assert groups["non_live"].accuracy == pytest.approx((1 / 3 + 3) / 4)  # Java and JavaScript count as 0
    assert not groups["non_live"].complete
    live = group_scores({"live_simple": Score(0.5, 258)})["live"]
    assert live.accuracy == pytest.approx(0.5 * 258 / 1351)
    turns = {f"multi_turn_{name}": Score(0.4, 200) for name in ("base", "miss_func", "miss_param", "long_context")}
    groups = group_scores({**turns, "irrelevance": Score(1.0, 240), "live_irrelevance": Score(0.5, 884)})
    assert groups["multi_turn"].accuracy == pytest.approx(0.4)
    assert groups["multi_turn"].complete
    assert groups["overall"].accuracy == pytest.approx(0.3 * 0.4 + 0.1 * 0.75)


def test_only_categories_have_intervals() -> None:
    interval = category_score([True, False, True, True]).interval
    assert interval is not None
    assert 0.3 < interval.low < 0.75 < interval.high < 0.96
    assert category_score([]).interval is None
