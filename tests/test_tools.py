import json
from collections.abc import Mapping
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import tool
from recall.errors import ConfigError
from recall.tools.arguments import Arguments, validate
from recall.tools.functions import tool_from_function
from recall.tools.results import cut, show
from recall.types import ToolSpec


def spec(**schema: Any) -> ToolSpec:
    return ToolSpec("f", "", {"type": "object", **schema})


@given(st.text(max_size=50), st.integers(0, 60))
def test_a_cut_keeps_head_and_tail_and_says_how_much_is_gone(text: str, limit: int) -> None:
    shown = cut(text, limit)
    if len(text) <= limit:
        assert shown == text
    else:
        head, tail = text[: (limit + 1) // 2], text[len(text) - limit // 2 :]
        assert shown == f"{head}[… {len(text) - limit} characters cut …]{tail}"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(json_values)
def test_a_value_is_shown_as_itself(value: Any) -> None:
    shown = show(value, 10_000)
    assert shown == value if isinstance(value, str) else json.loads(shown) == value


@pytest.mark.parametrize(
    ("schema", "arguments", "problem"),
    [
        ({"properties": {"age": {"type": "integer"}}}, {"age": "x"}, "argument 'age': 'x' is not of type 'integer'"),
        ({"properties": {"age": {"type": "integer"}}}, {"age": True}, "argument 'age': True is not of type 'integer'"),
        (
            {"properties": {"unit": {"enum": ["km", "mi"]}}},
            {"unit": "m"},
            "argument 'unit': 'm' is not one of ['km', 'mi']",
        ),
        (
            {"properties": {"ps": {"type": "array", "items": {"properties": {"n": {"type": "string"}}}}}},
            {"ps": [{"n": "a"}, {"n": 3}]},
            "argument 'ps[1].n': 3 is not of type 'string'",
        ),
        (
            {"properties": {"p": {"required": ["x", "y"]}}, "required": ["p"]},
            {"p": {}},
            "argument 'p': missing 'x', 'y'",
        ),
        (
            {"properties": {"a": {}, "b": {}, "c": {}}, "required": ["a", "b"]},
            {"c": 1},
            "missing argument 'a', 'b'; the arguments are: a, b, c",
        ),
        ({"properties": {"a": {}}}, {"b": 1}, "unexpected argument 'b'; the arguments are: a"),
        ({"properties": {}}, {"b": 1}, "unexpected argument 'b'; it takes no arguments"),
        ({"properties": {"a": {}}, "additionalProperties": True}, {"b": 1}, None),
        ({}, {"b": 1}, None),
        ({"properties": {"a": {"type": ["integer", "null"]}}}, {"a": None}, None),
    ],
)
def test_the_model_is_told_field_value_and_what_is_accepted(
    schema: Mapping[str, Any], arguments: Mapping[str, Any], problem: str | None
) -> None:
    assert validate(arguments, spec(**schema)) == problem


TYPED = st.dictionaries(
    st.sampled_from("abc"),
    st.fixed_dictionaries({"type": st.sampled_from(["string", "integer", "number", "boolean"])}),
    max_size=3,
)
GIVEN: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from("abcd"), st.sampled_from([1, 1.0, 1.5, True, "1", None, []]), max_size=3
)


@given(TYPED, st.lists(st.sampled_from("abcd"), unique=True, max_size=2), GIVEN)
def test_what_is_let_through_without_the_library_is_what_the_library_lets_through(
    properties: dict[str, Any], required: list[str], arguments: dict[str, Any]
) -> None:
    short = validate(arguments, spec(properties=properties, required=required))
    # A keyword that changes nothing makes the schema one that only the library reads.
    whole = validate(arguments, spec(properties=properties, required=required, minProperties=0))
    assert short == whole


@pytest.mark.parametrize("schema", [{"properties": {"a": {"type": "string", "title": 3}}}, {"required": [3]}])
def test_a_plain_schema_with_a_slip_is_refused_too(schema: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is not of type 'string'"):
        Arguments([spec(**{"properties": {}, **schema})])


def test_a_huge_argument_does_not_make_a_huge_message() -> None:
    problem = validate({"age": "x" * 100_000}, tool("f", age="integer"))
    assert problem is not None
    assert len(problem) < 500


@pytest.mark.parametrize("schema", [{"properties": []}, {"properties": {"a": {"type": "float"}}}, {"required": "a"}])
def test_a_wrong_schema_is_the_users_failure(schema: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError, match="tool 'f': parameters"):
        Arguments((spec(**schema),))
    with pytest.raises(ConfigError, match="accepted: 'object'"):
        Arguments((ToolSpec("f", "", {"type": "array"}),))


def test_a_reference_to_another_machine_is_never_followed() -> None:
    arguments = Arguments((spec(properties={"a": {"$ref": "http://127.0.0.1:1/schema.json"}}),))
    with pytest.raises(ConfigError, match="tool 'f'"):
        arguments.problem("f", {"a": 1})


def test_a_reference_within_the_schema_works() -> None:
    tree = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "additionalProperties": False}
    listed = spec(properties={"root": {"$ref": "#/$defs/node"}}, **{"$defs": {"node": tree}})
    assert validate({"root": {"next": {"next": {}}}}, listed) is None
    assert "argument 'root.next'" in str(validate({"root": {"next": {"nxt": {}}}}, listed))


def search(
    query: str,
    limit: int = 5,
    mode: Literal["fast", "good"] = "fast",
    tags: list[str] | None = None,
    weights: dict[str, float] | None = None,
    cut: int | None = None,
    *,
    exact: bool = False,
) -> list[dict[str, Any]]:
    """Search the library.

    Looks everywhere.

    Args:
        query: what to look for,
            in plain words.
        limit: at most so many: not more.
        mode (str): how.
        tags: of them.
        weights: of tags.
        cut: where.
        exact: or not.

    Returns:
        what was found.
    """
    return [dict(locals())]


def test_a_schema_is_read_from_signature_and_docstring() -> None:
    found = tool_from_function(search)
    assert (found.name, found.description) == ("search", "Search the library.\n\nLooks everywhere.")
    assert found.parameters == {
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "what to look for, in plain words."},
            "limit": {"type": "integer", "description": "at most so many: not more.", "default": 5},
            "mode": {"enum": ["fast", "good"], "description": "how.", "default": "fast"},
            "tags": {
                "anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}],
                "description": "of them.",
            },
            "weights": {
                "anyOf": [{"type": "object", "additionalProperties": {"type": "number"}}, {"type": "null"}],
                "description": "of tags.",
            },
            "cut": {"type": ["integer", "null"], "description": "where."},
            "exact": {"type": "boolean", "description": "or not.", "default": False},
        },
        "required": ["query"],
    }
    Arguments((found,))


def test_a_function_that_cannot_be_described_is_refused_by_parameter() -> None:
    def untyped(a) -> int:  # type: ignore[no-untyped-def]
        return 0

    def variadic(*names: str) -> int:
        return 0

    def positional(a: int, /) -> int:
        return a

    def exotic(a: bytes) -> int:
        return 0

    for function, why in (
        (untyped, "'a': has no type hint"),
        (variadic, "'names': is variadic"),
        (positional, "'a': is positional-only"),
        (exotic, "'a': no schema for <class 'bytes'>; accepted: str, int"),
    ):
        with pytest.raises(ConfigError, match=why):
            tool_from_function(function)
