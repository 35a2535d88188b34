import asyncio
import json
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_server import serving
from recall import rewards
from recall.cli import main
from recall.datasets.questions import iter_questions
from recall.datasets.rows import read_tasks, write_tasks
from recall.errors import ConfigError
from recall.synth.llm.client import EndpointSettings
from recall.synth.report.asked import Asking, ask_model
from recall.synth.report.gates import gates_of
from recall.synth.report.guesses import above, bare, earned, is_in_question, literals_of
from recall.synth.report.overlap import Against, Keys, Nearness
from recall.synth.report.provenance import Known, source_of
from recall.synth.report.report import Options, _Sample, broken, make_report
from recall.synth.report.shapes import literals, outline, shape_of
from recall.synth.report.spread import entropy_bits, gini, lower_bound, spread
from recall.tool_calls import format_call
from recall.types import AnswerType, Task, ToolCall, ToolSpec
from recall.viewer.dataset.layout import share
from recall.viewer.dataset.page import page
from small_sets import write

ENV = """
import random

_OWNERS = {owners}
_AGES = {ages}

def owner_of(pet):
    return "The owner of " + pet + " is " + _OWNERS[pet] + "."

def age_of(person):
    return {{"age": _AGES[person]}}

def dice(sides):
    return random.randint(1, sides)
"""


def tool(name: str, parameter: str, kind: str = "string") -> ToolSpec:
    return ToolSpec(name, f"{name} of {parameter}", {"type": "object", "properties": {parameter: {"type": kind}}})


TOOLS = (tool("owner_of", "pet"), tool("age_of", "person"), tool("dice", "sides", "integer"))


def call(name: str, **arguments: object) -> dict[str, object]:
    return {"name": name, "arguments": arguments}


def made(index: int, split: str = "train", **changes: Any) -> Task:
    """Who owns a pet, and how old that person is: two calls."""
    rng = random.Random(f"{split}/{index}")
    letters = "".join(rng.choice("bcdfgklmnprst") + rng.choice("aeiou") for _ in range(6))
    pet, person, age = letters[:6].title(), letters[6:].title(), rng.randint(1000, 10**7)
    owner = {"$ref": 0, "match": r" is (.+)\.$"}
    task = Task(
        id=f"{split}-{index}",
        question=f"How many days old is the owner of the pet {pet}?",
        ground_truth=(str(age),),
        env=ENV.format(owners={pet: person}, ages={person: age}),
        tools=TOOLS if split == "train" else TOOLS[:2],
        answer_type=AnswerType("integer"),
        data_source="pets",
        split=split,
        depth=2,
        kind="hop2",
        reference=(call("owner_of", pet=pet), call("age_of", person=owner), {"value": {"$ref": 1, "path": "age"}}),
        extra={
            "synth": {
                "template": "read(hop(anchor))",
                "structure": f"{split}{index}",
                "calls": 2,
                "shortest": 2,
                "counterfactual": 1.0,
            }
        },
    )
    return replace(task, **changes)


def claiming(task: Task, **claims: Any) -> Task:
    return replace(task, extra={"synth": {**task.extra["synth"], **claims}})


def report(tasks: Iterable[Task], *, sample: int = 0, **options: Any) -> dict[str, Any]:
    return make_report(tasks, source={"path": "here"}, options=Options(sample=sample, **options))


def gate(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    (one,) = [gate for gate in found["gates"] if gate["name"] == name]
    assert isinstance(one, Mapping)
    return one


GOOD = [made(index) for index in range(50)] + [made(index, "new_worlds") for index in range(10)]


def test_a_good_set_breaks_no_gate() -> None:
    found = report(GOOD, sample=30)
    assert broken(found) == []
    assert all(gate["value"] is not None for gate in found["gates"])
    assert found["replay"]["tasks"] == 30
    assert found["replay"]["calls"] == 60
    assert found["shapes"]["calls"]["mean"] == 2
    assert found["overlap"]["distinct"] == {
        "environment": 60,
        "tool set": 2,
        "question": 60,
        "program shape": 1,
        "program": 2,
        "template": 1,
        "structure": 60,
    }


def test_a_wrong_answer_breaks_the_replay() -> None:
    found = report([*GOOD[:9], made(9, ground_truth=("7",))], sample=10)
    assert broken(found) == ["reference replay"]
    assert gate(found, "reference replay")["value"] == 0.9
    assert "train-9" in gate(found, "reference replay")["detail"]


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ((call("owner_of", pet=3),), "bad_arguments"),
        ((call("owner_of", pet="Nobody"),), "exception"),
        ((call("owner_of", pet="x"), {"value": {"$ref": 0, "path": "x"}}), "exception"),
        ((call("age_of", person="x"), {"value": {"$op": "sum", "of": ["a"]}}), "exception"),
    ],
)
def test_a_program_that_does_not_run_says_why(reference: tuple[dict[str, object], ...], problem: str) -> None:
    found = report([made(0, reference=reference)], sample=1)
    assert re.search(problem, found["replay"]["failures"][0]["problem"])


def test_a_program_that_reads_what_is_not_there_yet_has_no_shape() -> None:
    with pytest.raises(ValueError, match="item 0 refers to no earlier item"):
        shape_of((call("owner_of", pet={"$ref": 0}),))


def test_chance_breaks_determinism() -> None:
    chance = made(0, reference=(call("dice", sides=10**9), {"value": 7}), question="Of 1000000000 sides?")
    found = report([chance, *GOOD[1:5]], sample=5)
    assert gate(found, "determinism")["value"] == 0.8
    assert "determinism" in broken(found)


def test_an_argument_from_nowhere_breaks_provenance() -> None:
    found = report([made(0, question="How many days old is the owner of that pet?"), *GOOD[1:4]], sample=4)
    assert broken(found) == ["provenance violations"]
    assert "train-0: owner_of(pet=" in gate(found, "provenance violations")["detail"]


def test_what_two_splits_share_breaks_the_overlap() -> None:
    old, new = made(0), made(1, "new_worlds")
    for task, what in (
        (claiming(new, structure=old.extra["synth"]["structure"]), "structure"),
        (replace(new, env=old.env), "environment"),
        (replace(new, question=old.question.upper()), "question"),
        (replace(new, tools=TOOLS), "program"),
    ):
        found = report([old, task])
        assert [case["what"] for case in found["overlap"]["shared"]] == [what]
        assert broken(found) == ["cross-split overlap"]
    assert broken(report([old, new])) == []


def test_an_answer_that_the_question_says_breaks_its_gate_and_that_of_the_echo() -> None:
    told = [replace(task, question=f"{task.question} Not {task.ground_truth[0]}.") for task in GOOD]
    found = report(told)
    assert gate(found, "answer in question")["value"] == 1
    assert {"answer in question", "question echo"} <= set(broken(found))


def test_a_frequent_answer_breaks_both_gates_of_the_constant() -> None:
    found = report(
        [made(index, ground_truth=("0",) if index % 3 == 0 else made(index).ground_truth) for index in range(90)]
    )
    assert gate(found, "best constant")["value"] == pytest.approx(1 / 3)
    assert {"best constant", "best constant, whole set"} <= set(broken(found))


def test_a_frequent_answer_of_a_few_tasks_breaks_nothing() -> None:
    found = report([made(index, ground_truth=("0",)) for index in range(3)])
    assert gate(found, "best constant")["value"] is None
    assert "best constant" not in broken(found)


def test_a_template_that_one_call_answers_breaks_its_gate() -> None:
    """The age is looked up first, and something that does not matter after it."""
    tasks = []
    for index in range(50):
        task = made(index)
        person = re.search(r"_OWNERS = {'\w+': '(\w+)'}", task.env)
        assert person
        reference = (call("age_of", person=person[1]), task.reference[0], {"value": {"$ref": 0, "path": "age"}})
        tasks.append(replace(task, reference=reference, question=f"{task.question} Or of {person[1]}?"))
    found = report(tasks, sample=50)
    assert broken(found) == ["single call"]
    assert gate(found, "single call")["value"] == 1


def test_a_template_that_the_last_result_but_one_answers_breaks_its_gate() -> None:
    """A sum over one value is the value."""
    tasks = [
        replace(task, reference=(*task.reference[:2], {"value": {"$op": "sum", "of": [{"$ref": 1, "path": "age"}]}}))
        for task in GOOD[:50]
    ]
    found = report(tasks, sample=50)
    assert broken(found) == ["last observation"]


def test_what_the_generator_claims_is_held_against_the_rows() -> None:
    found = report([claiming(made(0), calls=3), claiming(made(1), counterfactual=0.5), made(2, depth=4)])
    assert gate(found, "claims unlike the program")["value"] == 2
    assert gate(found, "answer changes with the world")["value"] == pytest.approx(5 / 6)
    assert {"claims unlike the program", "answer changes with the world"} <= set(broken(found))


def test_claims_of_no_known_form_count_as_not_made() -> None:
    odd = {
        "difficulty": "hard",
        "turns": [1],
        "operators": 3,
        "distractors": "many",
        "levels": 2,
        "counterfactual": None,
    }
    found = report([claiming(made(0), **odd), claiming(made(1), difficulty=2.5, levels={"rows": 3, "keys": 1})])
    assert found["claims"]["difficulty"]["n"] == 1
    assert found["claims"]["levels"] == {"rows 3": 1, "keys 1": 1}
    assert found["claims"]["turns"] is None
    assert broken(found) == []


def test_a_tool_that_fails_at_first_may_be_called_again() -> None:
    env = made(0).env + "\n_CALLS = []\n\ndef flaky(pet):\n    _CALLS.append(1)\n    if len(_CALLS) < 2:\n"
    env += "        raise RuntimeError('later')\n    return owner_of(pet)\n"
    task = made(0, env=env, tools=(*TOOLS, tool("flaky", "pet")))
    first = {**task.reference[0], "name": "flaky", "retry": True}
    found = report([claiming(replace(task, reference=(first, *task.reference[1:])), calls=3)], sample=1)
    assert broken(found) == []
    assert found["replay"]["again"] == 1
    assert found["replay"]["calls"] == 3


def test_state_has_to_be_left_as_the_task_says() -> None:
    env = (
        made(0).env
        + "\n_FIRST = dict(_OWNERS)\n\ndef give(pet, person):\n    _OWNERS[pet] = person\n    return 'done'\n"
    )
    env += "\ndef _changes():\n    return {f'pets/{k}': v for k, v in _OWNERS.items() if _FIRST[k] != v}\n"
    pet = str(made(0).reference[0]["arguments"]["pet"])
    give = ToolSpec(
        "give", "Give.", {"type": "object", "properties": {"pet": {"type": "string"}, "person": {"type": "string"}}}
    )
    task = made(
        0,
        env=env,
        tools=(*TOOLS, give),
        question=f"Give {pet} to Bob.",
        ground_truth=(),
        reference=(call("give", pet=pet, person="Bob"),),
        changes={f"pets/{pet}": "Bob"},
        depth=1,
    )
    task = claiming(task, calls=1, shortest=1)
    assert broken(report([task], sample=1)) == []
    assert broken(report([replace(task, changes={f"pets/{pet}": "Eve"})], sample=1)) == ["reference replay"]


def test_falsy_results_are_counted() -> None:
    task = made(0)
    env = task.env + "\ndef zero(pet):\n    return 0\n"
    reference = (
        {**task.reference[0], "name": "zero"},
        task.reference[0],
        call("age_of", person={"$ref": 1, "match": r" is (.+)\.$"}),
        {"value": {"$ref": 2, "path": "age"}},
    )
    found = report([replace(task, env=env, tools=(*TOOLS, tool("zero", "pet")), reference=reference)], sample=1)
    assert found["replay"]["falsy"] == pytest.approx(1 / 3)


def test_tokens_are_counted_and_long_prompts_told() -> None:
    found = report(GOOD[:4], sample=4, count=lambda text: len(text.split()), tokenizer="words", max_prompt_tokens=20)
    tokens = found["tokens"]
    assert tokens["over"] == 1
    assert tokens["question"]["max"] == 11
    assert tokens["observation"]["max"] >= 2


def model(body: Mapping[str, Any]) -> str:
    """A model that solves these tasks with tools, and says 7 without."""
    said = [message["content"] for message in body["messages"]]
    if "You have no tools" in said[0]:
        return "It is \\boxed{7}."
    pet = re.search(r"the pet (\w+)", said[1])
    owner, age = re.search(r" is (\w+)\.", said[-1]), re.search(r'"age": (\d+)', said[-1])
    if age:
        return f"\\boxed{{{age[1]}}}"
    if owner:
        return format_call(ToolCall("age_of", {"person": owner[1]}))
    return format_call(ToolCall("owner_of", {"pet": pet[1] if pet else ""}))


async def test_a_model_is_asked_with_tools_and_without(tmp_path: Path) -> None:
    async with serving(model) as server:
        endpoint = EndpointSettings(base_url=server.url, model="small")
        asking = Asking(endpoint, tmp_path / "replies.jsonl", tasks=3, samples=2, guesses=2)
        tasks = [made(0), made(1, ground_truth=("7",)), made(2, question="Which?"), made(3)]
        found = await asyncio.to_thread(report, tasks, sample=4, asking=asking)
        asked = await ask_model(tasks, asking, lambda: None)
        requests = len(server.requests)
        assert await ask_model(tasks, asking, lambda: None) == asked
        assert len(server.requests) == requests, "what was answered is not asked again"
    assert found["asked"]["tasks"] == 3
    assert found["looked_at"]["asked"] == 3
    assert "Model" in page(found)
    assert (asked["pass_at_1"], asked["pass_at_k"], asked["agreement"]) == (0.5, 0.5, 1)
    assert asked["without_tools"] == {"tasks": 4, "pass_at_1": 0.25, "pass_at_k": 0.25}
    assert asked["over_calls"] == 1
    assert asked["malformed_calls"] == 0
    assert asked["by_calls"] == [[2, 8, 0.5]]


def test_a_set_that_a_model_knows_by_heart_breaks_a_gate() -> None:
    numbers = report(GOOD)
    numbers["asked"] = {"model": "m", "guesses": 4, "without_tools": {"tasks": 100, "pass_at_1": 0.2, "pass_at_k": 0.3}}
    assert [gate.name for gate in gates_of(numbers) if gate.broken] == ["answered without tools"]


def test_a_model_is_named_in_full(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_tasks(tmp_path / "rows.jsonl", GOOD[:2])
    for flags in (["--model", "m"], ["--model", "m", "--base_url", "ftp://x"]):
        assert main(["data", "report", str(tmp_path / "rows.jsonl"), *flags]) == 2
        assert "--base_url" in capsys.readouterr().err


def test_rows_without_a_reference_are_reported_as_far_as_they_go(tmp_path: Path) -> None:
    found = report([replace(task, reference=(), extra={}) for task in GOOD], sample=10)
    assert gate(found, "reference replay")["value"] is None
    assert broken(found) == []
    assert "not measured" in page(found)


@pytest.mark.parametrize(
    ("read", "value", "held"),
    [
        ("the pet Zofade", "Zofade", True),
        ("the pet Zofade", "Zofa", False),
        ('{"name": "in transit"}', "in_transit", True),
        ("costs 1,250.50 credits", 1250.5, True),
        ("costs 12505 credits", 1250.5, False),
        ("on 12 July 2003", "2003-07-12", True),
        ("on July 12th, 2003", "2003-07-12", True),
        ("on 2003-07-13", "2003-07-12", False),
        ("number 17", "17", True),
        ("number 17", 7, False),
        ("code KJ-1776.", "kj 1776", True),
        ("flag true", True, True),
    ],
)
def test_values_are_traced_as_a_model_copies_them(read: str, value: object, held: bool) -> None:
    assert Known(read).holds(value) is held


def test_a_value_that_the_schema_offers_needs_no_other_source() -> None:
    known = Known("sort them")
    assert source_of("asc", known, {"enum": ["asc", "desc"]}) == "schema"
    assert source_of(5, known, {"default": 5}) == "schema"
    assert source_of(5, known, {"type": "integer"}) == "nowhere"
    assert source_of(False, known, {"type": "boolean"}) == "schema"
    assert source_of("sort", known, {}) == "given"


def test_the_next_page_may_be_counted_on() -> None:
    env = "def pets(page=1):\n    return {'items': ['Zofa' + 'bcd'[page - 1]], 'last': page == 3}\n"
    spec = ToolSpec("pets", "", {"type": "object", "properties": {"page": {"type": "integer"}}})
    reference = (call("pets"), call("pets", page=2), call("pets", page=3), {"value": {"$ref": 2, "path": ["items", 0]}})
    task = made(
        0, env=env, tools=(spec,), question="Which is last?", reference=reference, ground_truth=("Zofad",), depth=3
    )
    task = claiming(replace(task, answer_type=AnswerType("entity")), calls=3)
    assert broken(report([task], sample=1)) == []
    skipping = replace(
        task, reference=(*reference[:1], call("pets", page=3), {"value": {"$ref": 1, "path": ["items", 0]}})
    )
    assert broken(report([claiming(replace(skipping, depth=2), calls=2)], sample=1)) == ["provenance violations"]


def test_the_shape_of_a_program_is_read_from_its_references() -> None:
    program = (
        call("a", x=1),
        call("b", x=2),
        call("c", x={"$ref": 0}),
        {"value": {"$op": "sum", "of": [{"$ref": 1}, 5]}},
        call("d", x={"$ref": 3}, y=[{"$ref": 2, "path": "z"}]),
    )
    shape = shape_of(program)
    assert (shape.calls, shape.depth, shape.width, shape.first, shape.needed) == (4, 3, 2, (0, 1), (0, 1, 2, 4))
    assert shape.words == {"sum"}
    assert not shape.ends_in_the_head
    assert list(literals({"x": {"$op": "sum", "of": [{"$ref": 1}, 5]}, "y": ["a", {"$ref": 0}]})) == [5, "a"]
    renamed = (call("q", x=9), *program[1:])
    assert outline(renamed, names=False) == outline(program, names=False)
    assert outline(renamed, names=True) != outline(program, names=True)
    assert shape_of(()).calls == 0


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('{"age": 7}', "7"),
        ('{"name": "Zo"}', "Zo"),
        ('{"a": 1, "b": 2}', '{"a": 1, "b": 2}'),
        ("The owner of Zo is Ada.", "Ada"),
        ("Zo", "Zo"),
        ("[1, 2]", "[1, 2]"),
    ],
)
def test_a_copied_result_is_taken_out_of_its_wrapping(text: str, answer: str) -> None:
    assert bare(text) == answer


def test_the_values_of_a_question_are_found_in_order() -> None:
    question = "Of 'the Old Mill' and Zofade Nu: more than 1,250 after 2003-07-12, or the code KJ-1776?"
    assert literals_of(question) == ["the Old Mill", "Zofade Nu", "1,250", "2003-07-12", "KJ-1776"]


def test_an_answer_is_in_the_question_word_for_word_only() -> None:
    assert is_in_question(made(0, question="Is it 17 or so?", ground_truth=("17",)))
    assert not is_in_question(made(0, question="Is it 170?", ground_truth=("17",)))


def test_what_a_guess_earns_leaves_out_what_form_earns() -> None:
    task = made(0, ground_truth=("12 July 2003",), answer_type=AnswerType("text"))
    assert earned(rewards.get("recall"), task, "14 July 2003") == pytest.approx(2 / 3)
    assert earned(rewards.get("recall"), task, "x") == 0
    assert earned(rewards.get("exact"), task, "14 July 2003") == 0
    assert earned(rewards.get("row"), task, "12 July 2003") == 1


def test_a_guess_without_the_change_that_is_asked_for_earns_nothing() -> None:
    task = replace(made(0), changes={"pet/Rex/owner": "Ann"})
    answer = task.ground_truth[0]
    for name in ("exact", "outcome"):
        reward = rewards.get(name)
        assert earned(reward, task, answer) == 0
        assert earned(reward, task, answer, {"pet/Rex/owner": "Ann"}) == 1


def test_what_to_say_where_tools_cannot_tell_is_no_answer_in_the_question() -> None:
    task = replace(
        made(0), question="Say cannot be determined where that is so.", ground_truth=("cannot be determined",)
    )
    assert is_in_question(task)
    assert not is_in_question(replace(task, reference=({"value": "cannot be determined"},)))


def test_a_partial_reward_breaks_the_gate_of_the_constant() -> None:
    days = [f"{day} July 2003" for day in range(1, 32)] * 2
    tasks = [
        made(index, ground_truth=(day,), answer_type=AnswerType("text"), reward="recall")
        for index, day in enumerate(days)
    ]
    found = report(tasks)
    assert found["families"][0]["constant"]["reward"] > 0.6
    assert "best constant" in broken(found)


def test_a_share_is_above_the_limit_only_where_that_is_sure() -> None:
    assert above(0.02, 1000)
    assert not above(0.0199, 1000)
    assert not above(0.03, 100)
    assert above(0.1, 100)
    assert not above(1.0, 3)
    assert lower_bound(0.5, 100) == pytest.approx(0.4038, abs=1e-3)


def test_counts_are_summed_up() -> None:
    found = spread([1, 2, 2, 3, 10])
    assert found
    assert {name: found[name] for name in ("n", "min", "mean", "p50", "p95", "max")} == {
        "n": 5, "min": 1, "mean": 3.6, "p50": 2, "p95": 10, "max": 10,
    }  # fmt: skip
    assert sum(count for _, count in found["bars"]) == 5
    assert spread([]) is None
    assert entropy_bits([1, 1, 1, 1]) == 2
    assert gini([5, 5, 5]) == pytest.approx(0)
    assert gini([0, 0, 9]) == pytest.approx(2 / 3)


def test_near_duplicates_are_found_among_questions() -> None:
    rng = random.Random(0)
    words = [f"w{number}" for number in range(400)]
    texts = [" ".join(rng.choices(words, k=40)) for _ in range(200)]
    near = Nearness()
    for text in texts:
        near.add(text)
    assert near.numbers()["near_duplicates"] == 0
    for text in texts[:50]:
        near.add(f"{text} indeed")
    assert near.numbers()["near_duplicates"] == pytest.approx(100 / 250)


def test_a_shared_run_of_words_and_a_shared_name_are_found(tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    rows: list[dict[str, Any]] = [
        {"question": "Tell me how many days old is the owner of the pet Rex, please."},
        {"prompt": "What?"},
    ]
    rows.append({"question": "Roll.", "tools": [{"type": "function", "function": {"name": "dice"}}]})
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    against = Against("other", iter_questions(other))
    for task in (made(0), made(1, question="Quite another question.")):
        against.add(task)
    numbers = against.numbers()
    assert (numbers["questions"], numbers["share"], numbers["tool_names"]) == (3, 0.5, ["dice"])
    other.write_text('{"x": 1}\n')
    with pytest.raises(ConfigError, match=r"other\.jsonl row 1: no question"):
        list(iter_questions(other))


def test_questions_are_read_from_task_rows_of_both_forms(tmp_path: Path) -> None:
    for name in ("rows.jsonl", "rows.parquet"):
        write_tasks(tmp_path / name, GOOD[:2])
        expected = [(task.question, tuple(tool.name for tool in task.tools)) for task in GOOD[:2]]
        assert list(iter_questions(tmp_path / name)) == expected


def test_a_sample_is_the_same_in_every_process_and_favours_no_place() -> None:
    def drawn(seed: int) -> list[int]:
        sample = _Sample(100, seed)
        for index in range(1000):
            sample.add(replace(GOOD[0], id=str(index)))
        return [int(task.id) for task in sample.tasks()]

    assert drawn(0) == drawn(0) != drawn(1)
    assert drawn(0) == sorted(drawn(0))
    assert 30 < sum(index < 500 for index in drawn(0)) < 70


def test_keys_count_what_is_distinct_and_what_is_shared() -> None:
    keys = Keys()
    for task in (made(0), made(0, id="again"), made(1, "new_worlds", tools=TOOLS[:2])):
        keys.add(task)
    numbers = keys.numbers()
    assert numbers["distinct"]["environment"] == 2
    assert numbers["distinct"]["tool set"] == 2
    assert numbers["shared"] == []


def test_the_command_reports_a_set_as_text_json_and_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "set")
    html = tmp_path / "report.html"
    assert main(["data", "report", str(tmp_path / "set"), "--sample", "8", "--html", str(html)]) == 0
    told = capsys.readouterr().out
    assert "All gates hold on 30 tasks." in told
    for title in ("Gates", "Acceptance by certificate", "Guesses", "Replay", "Tokens", "Overlap", "MuSiQue"):
        assert title in told
    text = html.read_text()
    assert "default-src 'none'" in text
    assert not re.search(r"<script|https?://|@import|url\(", text)
    assert text.count("<svg") >= 6
    assert main(["data", "report", str(tmp_path / "set" / "train"), "--sample", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 23
    assert found["source"]["seed"] == 0
    assert len(found["source"]["shards"]) == 5
    assert found["source"]["rejected"]


def test_the_command_ends_with_1_where_a_gate_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tasks(tmp_path / "rows.parquet", [*GOOD[:9], made(9, ground_truth=("7",))])
    assert main(["data", "report", str(tmp_path / "rows.parquet"), "--against", str(tmp_path / "rows.parquet")]) == 1
    told = capsys.readouterr().out
    assert "gates is broken: reference replay." in told
    assert "train-9" in told
    assert main(["data", "report", str(tmp_path / "none.parquet")]) == 2
    assert main(["data", "report", str(tmp_path / "rows.parquet"), "--tokenizer", str(tmp_path)]) == 2


def test_a_torn_shard_is_named_by_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    shard = tmp_path / "train-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-5])
    assert main(["data", "report", str(tmp_path), "--sample", "0"]) == 2
    assert "train-00001.parquet: torn or changed" in capsys.readouterr().err


def test_nothing_in_a_row_becomes_markup() -> None:
    evil = "<script>alert(1)</script>\x1b[31m"
    task = claiming(made(0, kind=evil, ground_truth=("7",)), domain=evil, template=evil, operators=[evil])
    text = page(report([task, *GOOD[:3]], sample=4))
    assert "<script" not in text
    assert "\x1b" not in text


def test_a_share_near_an_end_never_reads_as_that_end() -> None:
    assert (share(0.0), share(1.0), share(0.00004), share(0.9996)) == ("0.0%", "100.0%", "0.004%", "99.96%")


def test_a_report_reads_its_rows_once() -> None:
    rows = iter(GOOD)
    assert report(rows)["rows"] == len(GOOD)
    assert next(rows, None) is None


def test_reported_sets_read_back(tmp_path: Path) -> None:
    write(tmp_path)
    assert report(read_tasks(tmp_path))["overlap"]["splits"] == 2
