"""Reference programs: what an expression says, and that nothing but a `ProgramError` comes of a bad one."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.programs import ATTEMPTS, OPERATIONS, ProgramError, calls_of, references, resolve, run

RESULTS: list[Any] = [{"items": [{"id": "a", "price": 1.1}, {"id": "b", "price": 2.2}]}, "the mayor is Ada Lo.", 7]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (3, 3),
        ([1, {"$ref": 2}], [1, 7]),
        ({"key": {"$ref": 2}}, {"key": 7}),
        ({"$ref": 0, "path": "items"}, RESULTS[0]["items"]),
        ({"$ref": 0, "path": ["items", 1, "id"]}, "b"),
        ({"$ref": 1, "match": r"mayor is (.+)\.$"}, "Ada Lo"),
        ({"$op": "sum", "of": [{"$ref": 0, "path": ["items", 0, "price"]}, 2.2]}, 3.3),
        ({"$op": "difference", "of": [{"$ref": 2}, 10]}, 3),
        ({"$op": "argmax", "of": [["x", "y"], [{"$ref": 2}, 9]]}, "y"),
    ],
)
def test_an_expression_has_the_value_that_it_says(expression: Any, value: Any) -> None:
    assert resolve(expression, RESULTS) == value


@pytest.mark.parametrize(
    ("name", "values", "result"),
    [
        ("sum", [0.1, 0.2], 0.3),
        ("sum", [[1, 2, 3]], 6),
        ("minus", [3, 5], -2),
        ("product", [1.5, 4], 6),
        ("count", [["a", "b"]], 2),
        ("maximum", [3, 9, 4], 9),
        ("minimum", [["2020-01-02", "2019-12-31"]], "2019-12-31"),
        ("argmin", [["x", "y"], [4, 2.5]], "y"),
        ("concat", [[1], [2, 3]], [1, 2, 3]),
        ("distinct", [["b", "a", "b"]], ["b", "a"]),
        ("intersection", [["a", "b", "c"], ["c", "a"]], ["a", "c"]),
        ("larger", [3, 2.5], True),
        ("choose", [False, "x", "y"], "y"),
        ("days", ["2024-03-01", "2024-02-28"], 2),
        ("later", ["2023-12-30", 3], "2024-01-02"),
        ("round", [2.345, 2], 2.34),
    ],
)
def test_an_operation_gives(name: str, values: list[Any], result: Any) -> None:
    assert resolve({"$op": name, "of": values}, []) == result


@pytest.mark.parametrize(
    "expression",
    [
        {"$ref": 3},
        {"$ref": -1},
        {"$ref": "0"},
        {"$ref": 0, "path": ["items", 9]},
        {"$ref": 2, "path": "x"},
        {"$ref": 1, "match": "captain is (.+)"},
        {"$ref": 2, "match": "(.+)"},
        {"$op": "average", "of": [1]},
        {"$op": "sum", "of": ["x"]},
        {"$op": "argmax", "of": [["x"], [1, 2]]},
        {"$op": "days", "of": ["yesterday", "today"]},
    ],
)
def test_what_cannot_be_worked_out_is_a_program_error(expression: Any) -> None:
    with pytest.raises(ProgramError):
        resolve(expression, RESULTS)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(OPERATIONS)), st.lists(VALUES, max_size=3))
def test_no_operation_raises_anything_else(name: str, values: list[Any]) -> None:
    with suppress(ProgramError):
        resolve({"$op": name, "of": values}, [])


def test_a_program_passes_json_both_ways_and_counts_only_calls() -> None:
    seen: list[Mapping[str, Any]] = []

    def call(name: str, arguments: Mapping[str, Any]) -> Any:
        seen.append(arguments)
        return (1, 2)

    program: list[dict[str, Any]] = [
        {"name": "pair", "arguments": {"of": "x"}},
        {"value": {"$op": "sum", "of": [{"$ref": 0}]}},
        {"name": "pair", "arguments": {"of": {"$ref": 1}}},
    ]
    assert run(program, call) == [[1, 2], 3, [1, 2]]
    assert seen == [{"of": "x"}, {"of": 3}]
    assert len(calls_of(program)) == 2
    assert list(references(program[1]["value"])) == [0]


def test_a_call_is_tried_again_only_where_the_program_says_so() -> None:
    failures = [RuntimeError("not now"), RuntimeError("not now")]

    def call(name: str, arguments: Mapping[str, Any]) -> Any:
        if failures:
            raise failures.pop()
        return json.dumps(arguments)

    assert run([{"name": "f", "arguments": {}, "retry": True}], call) == ["{}"]
    failures = [RuntimeError("not now")] * ATTEMPTS
    with pytest.raises(RuntimeError):
        run([{"name": "f", "arguments": {}, "retry": True}], call)
    failures = [RuntimeError("not now")]
    with pytest.raises(RuntimeError):
        run([{"name": "f", "arguments": {}}], call)
