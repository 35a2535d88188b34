"""The small parts: what is found in a reply, schemas by reading, shapes without words, draws, likeness, splits."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_marina import FEES, MOVE, RATE, SCHEMA, TOOLS, marina
from recall.synth.llm import lint
from recall.synth.llm.blueprint import bind, draw, form_of, kind_of, read_blueprint
from recall.synth.llm.certify import answer_text, occurs
from recall.synth.llm.errors import RejectedError
from recall.synth.llm.replies import code_in, json_in
from recall.synth.llm.rows import split_of
from recall.synth.llm.schemas import tools_of
from recall.synth.llm.state import StateSchema
from recall.synth.llm.stubs import stubs
from recall.synth.llm.topics import Novelty, topic
from recall.tools.functions import tool_from_function


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        'Sure:\n```json\n{"a": 1}\n```\nDone.',
        '<think>maybe ```json\n{"a": 2}\n``` or so</think>\n```json\n{"a": 1}\n```',
        'I think.\n</think>{"a": 1}',
        '```json\n{"a": 0}\n```\nNo, this:\n```json\n{"a": 1}\n```',
        '```\n{"a": 1}\n```',
    ],
)
def test_json_is_found_in_a_reply(text: str) -> None:
    assert json_in(text, dict) == {"a": 1}


@pytest.mark.parametrize(
    "text", ["", "no", "[1]", '```json\n{"a": \n```', '```json\n{"a": 1}', "[" * 100_000, "{'a': 1}"]
)
def test_a_reply_without_json_is_rejected(text: str) -> None:
    with pytest.raises(RejectedError, match="reply: not JSON"):
        json_in(text, dict)


def test_the_largest_block_of_code_is_taken() -> None:
    assert code_in("```python\nx = 1\n```\nor\n```py\ndef f():\n    return 1\n```") == "def f():\n    return 1\n"
    with pytest.raises(RejectedError, match="reply: no code"):
        code_in("```python\ndef f():")


@given(st.text())
def test_whatever_a_model_writes_is_read_or_rejected(text: str) -> None:
    for read in (code_in, lambda said: json_in(said, list), lambda said: stubs(code_in(f"```python\n{said}\n```"))):
        try:
            read(text)
        except RejectedError:
            continue


EVERY_HINT = '''
from typing import Any, Literal, Optional


def tool(
    a: str, b: int, c: float, d: bool, e: list[str], f: Literal["x", "y"], g: Optional[int] = 0, h: str | int = "k",
    *, i: dict[str, int], j: list, k: dict
) -> dict:
    """Does a thing,
    in two lines.

    Args:
        a: the first,
            and more of it
        b: the second
        c: third
        d: fourth
        e: fifth
        f: sixth
        g: seventh
        h: eighth
        i: ninth
        j: tenth
        k: last

    Returns:
        nothing: at all
    """
    return {}
'''


def test_schemas_by_reading_are_those_of_the_running_functions() -> None:
    for source in (TOOLS, EVERY_HINT):
        namespace: dict[str, Any] = {"WORLD": {}}
        exec(source, namespace)  # of the tests' own
        for tool in tools_of(source):
            assert tool == tool_from_function(namespace[tool.name])


def test_a_default_that_is_no_plain_value_is_rejected() -> None:
    with pytest.raises(RejectedError, match="default is no plain value"):
        tools_of(EVERY_HINT.replace("j: list,", "j: list = [],"))


def renamed(schema: dict[str, Any], order: random.Random) -> StateSchema:
    """The same tables under other names, in another order."""
    names = {table["name"]: f"t{number}" for number, table in enumerate(schema["tables"])}
    tables = []
    for table in schema["tables"]:
        fields = []
        for number, field in enumerate(table["fields"]):
            kind = field["type"]
            for old, new in names.items():
                kind = kind.replace(f"ref:{old}", f"ref:{new}")
            fields.append({"name": "id" if field["name"] == "id" else f"f{number}", "type": kind})
        order.shuffle(fields)
        tables.append({"name": names[table["name"]], "fields": fields})
    order.shuffle(tables)
    return StateSchema.model_validate({"tables": tables})


def test_the_shape_of_a_schema_knows_no_words() -> None:
    shape = StateSchema.model_validate(SCHEMA).shape
    assert {renamed(SCHEMA, random.Random(seed)).shape for seed in range(5)} == {shape}
    other = {"tables": [*SCHEMA["tables"][:2], {**SCHEMA["tables"][2], "fields": SCHEMA["tables"][2]["fields"][:-1]}]}
    assert StateSchema.model_validate(other).shape != shape


@pytest.mark.parametrize(
    ("tables", "fault"),
    [
        ([{"name": "a", "fields": [{"name": "id", "type": "string"}, {"name": "x", "type": "ref:b"}]}] * 2, "one name"),
        (
            [{"name": n, "fields": [{"name": "id", "type": "string"}, {"name": "x", "type": "text"}]} for n in "ab"],
            "text",
        ),
        (
            [{"name": n, "fields": [{"name": "id", "type": "string"}, {"name": "x", "type": "date"}]} for n in "ab"],
            "refers",
        ),
        (
            [{"name": n, "fields": [{"name": "y", "type": "date"}, {"name": "x", "type": "ref:a"}]} for n in "ab"],
            "no field 'id'",
        ),
        (
            [{"name": n, "fields": [{"name": "id", "type": "string"}, {"name": "x", "type": "ref:c"}]} for n in "ab"],
            "no table 'c'",
        ),
    ],
)
def test_a_schema_that_says_no_state_is_refused(tables: list[Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        StateSchema.model_validate({"tables": tables})


def test_the_form_of_a_program_knows_no_words() -> None:
    rate, fees = form_of(RATE["program"]), form_of(FEES["program"])
    assert (rate.template, rate.depth, rate.width, rate.operators) == ("t(t(t($)))", 3, 1, ())
    assert (fees.template, fees.depth, fees.width) == ("difference(t(t($)),t(t($)))", 2, 2)
    assert (kind_of(rate, 3, False), kind_of(fees, 4, False), kind_of(rate, 2, True)) == (
        "chain3",
        "difference4",
        "update2",
    )


def test_anchors_are_drawn_from_rows_that_fit_and_never_twice_from_one() -> None:
    world = marina()
    tables = {
        "owners": {key: {"id": key, "name": key, "licence": key} for key in "pq"},
        "berths": {},
        "boats": {
            key: {"id": key, "name": f"boat {key}", "owner": "pq"[number % 2]} for number, key in enumerate("abcd")
        },
    }
    mine = {
        "who": {"table": "owners", "field": "name"},
        "first": {"table": "boats", "field": "name", "where": {"owner": "who.id"}},
        "second": {"table": "boats", "field": "name", "where": {"owner": "who.id"}},
    }
    program = [
        {"name": "get_owner", "arguments": {"owner_id": {"$anchor": "who"}}},
        {"name": "find_boat", "arguments": {"name": {"$anchor": "first"}}},
        {"name": "find_boat", "arguments": {"name": {"$anchor": "second"}}},
    ]
    blueprint = read_blueprint(RATE | {"anchors": mine, "program": program}, world)
    for seed in range(20):
        values = draw(blueprint, tables, random.Random(seed))
        assert values is not None
        pair = {"p": {"boat a", "boat c"}, "q": {"boat b", "boat d"}}[str(values["who"])]
        assert {values["first"], values["second"]} == pair
        assert bind(program[1], values) == {"name": "find_boat", "arguments": {"name": values["first"]}}
    del tables["boats"]["a"], tables["boats"]["b"]
    assert draw(blueprint, tables, random.Random(0)) is None


def test_ranges_and_choices_are_drawn_within_their_bounds() -> None:
    anchors = {"boat": {"between": [3, 5]}, "place": {"between": ["2033-02-27", "2033-03-01"]}}
    blueprint = read_blueprint(MOVE | {"anchors": anchors}, marina())
    drawn = [draw(blueprint, {}, random.Random(seed)) for seed in range(40)]
    assert {values["boat"] for values in drawn if values} == {3, 4, 5}
    assert {values["place"] for values in drawn if values} == {"2033-02-27", "2033-02-28", "2033-03-01"}


@pytest.mark.parametrize(
    ("value", "text", "there"),
    [
        ("Ada Moor", "Is ada moor here?", True),
        ("Ada", "Adam is here", False),
        (1200, "pay 1,200 now", True),
        (12, "pay 1200 now", False),
        (2.0, "two or 2", True),
        (True, "true", False),
        ("", "anything", False),
        ("A.1", "AX1", False),
    ],
)
def test_a_text_states_a_value_as_a_word_of_its_own(value: Any, text: str, there: bool) -> None:
    assert occurs(value, text) is there


def test_what_is_an_answer() -> None:
    assert [answer_text(value) for value in (0, False, "x ", [1, "a"], 2.5)] == ["0", "false", "x", '[1, "a"]', "2.5"]
    assert [answer_text(value) for value in (None, "", [], {}, {"a": 1}, [[1]], [None])] == [None] * 7


def test_likeness_is_that_of_the_nearest_text() -> None:
    novelty = Novelty()
    assert novelty.likeness("a b c") == 0.0
    novelty.add("the ferry goes to the island")
    novelty.add("the seed bank keeps cold")
    assert novelty.likeness("The ferry goes to the island!") == 1.0
    assert 0 < novelty.likeness("the ferry goes to the mainland") < 1
    assert novelty.likeness("nothing in common") == 0.0


def test_topics_repeat_no_domain_before_all_were_there() -> None:
    domains = [topic(3, number).domain for number in range(48)]
    assert len(set(domains)) == 48
    assert [topic(3, number) for number in range(9)] == [topic(3, number) for number in range(9)]
    assert topic(3, 0) != topic(4, 0)


def test_splits_have_their_share_of_shapes_and_a_shape_one_split() -> None:
    shares = (("validation", 0.1), ("new_worlds", 0.2))
    splits = [split_of(f"shape{number}", shares) for number in range(4000)]
    assert abs(splits.count("validation") / 4000 - 0.1) < 0.03
    assert abs(splits.count("new_worlds") / 4000 - 0.2) < 0.03
    assert splits == [split_of(f"shape{number}", shares) for number in range(4000)]


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("import os\n", "import"),
        ("from . import x\n", "import"),
        ("x = eval('1')\n", "forbidden name"),
        ("x = ().__class__\n", "forbidden name"),
        ("async def f():\n    pass\n", "async"),
        ("WORLD = {}\n", "defined twice"),
        ("x = 1 +\n", "not Python"),
        ("x = '\0'\n", "not Python"),
    ],
)
def test_the_first_look_finds_what_no_generated_code_needs(code: str, fault: str) -> None:
    with pytest.raises(RejectedError, match=f"lint: {fault}"):
        lint.check(code)
