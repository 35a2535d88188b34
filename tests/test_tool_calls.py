"""The parser takes whatever a model writes; the formatter writes what the parser reads."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recall.tool_calls import MAX_DEPTH, format_call, format_calls, format_results, parse_turn
from recall.types import MalformedCall, ToolCall

TAGS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "\\boxed{", "}", '{"name": "f", "arguments": {}}', "x"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
CALLS = st.builds(ToolCall, st.text(min_size=1), st.dictionaries(st.text(), JSON, max_size=4))


def only(text: str) -> ToolCall | MalformedCall:
    calls = parse_turn(text).calls
    assert len(calls) == 1
    return calls[0]


def tagged(body: str) -> str:
    return f"<tool_call>\n{body}\n</tool_call>"


def with_x(value: str) -> str:
    return '{"name": "f", "arguments": {"x": ' + value + "}}"


F = tagged('{"name": "f"}')


def test_formatted_call_is_byte_for_byte_the_documented_one() -> None:
    call = ToolCall("get_user", {"id": 1, "né": [True, None, "a\n"]})
    assert format_call(call) == (
        '<tool_call>\n{"name": "get_user", "arguments": {"id": 1, "né": [true, null, "a\\n"]}}\n</tool_call>'
    )
    assert format_calls([call, call]) == f"{format_call(call)}\n{format_call(call)}"
    assert format_calls([]) == ""


def test_formatted_results_are_byte_for_byte_the_documented_ones() -> None:
    assert format_results(["0", ""]) == ("<tool_response>\n0\n</tool_response>\n<tool_response>\n\n</tool_response>")


def test_format_refuses_what_json_cannot_say() -> None:
    with pytest.raises(ValueError):
        format_call(ToolCall("f", {"x": float("nan")}))
    with pytest.raises(TypeError):
        format_call(ToolCall("f", {"x": object()}))


@settings(deadline=None)
@given(st.lists(CALLS, max_size=3), st.sampled_from(["", "<think>why <tool_call></think>\n", "So: "]))
def test_parse_reads_back_what_format_wrote(calls: list[ToolCall], before: str) -> None:
    assert parse_turn(before + format_calls(calls)).calls == tuple(calls)


@settings(deadline=None)
@given(st.lists(CALLS, min_size=1, max_size=3))
def test_format_writes_back_what_parse_read(calls: list[ToolCall]) -> None:
    text = format_calls(calls)
    read = [call for call in parse_turn(text).calls if isinstance(call, ToolCall)]
    assert format_calls(read) == text


@settings(deadline=None)
@given(st.text() | st.text(alphabet=st.characters()) | st.lists(st.sampled_from(TAGS)).map("".join))
def test_parse_never_raises(text: str) -> None:
    turn = parse_turn(text)
    assert turn.text == text
    assert all(isinstance(call, ToolCall) or call.problem for call in turn.calls)


@settings(deadline=None)
@given(JSON)
def test_any_json_between_tags_is_a_value(value: Any) -> None:
    only(tagged(json.dumps(value)))


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("no call", []),
        (tagged('{"name": "f", "arguments": {"x": 1}}'), [ToolCall("f", {"x": 1})]),
        ('<tool_call>{"arguments":{},"name":"f"}</tool_call>', [ToolCall("f", {})]),
        (tagged('{"name": "f"}'), [ToolCall("f", {})]),
        (tagged('{"name": "f", "arguments": null}'), [ToolCall("f", {})]),
        (tagged('{"name": "f", "arguments": "{\\"x\\": 1}"}'), [ToolCall("f", {"x": 1})]),
        (tagged('{"name": "f", "arguments": {"code": "a\nb"}}'), [ToolCall("f", {"code": "a\nb"})]),
        (tagged('{"name": "f", "arguments": {"x": "</tool_call>"}}'), [ToolCall("f", {"x": "</tool_call>"})]),
        ('<tool_call>{"name": "f", "arguments": {}}', [ToolCall("f", {})]),
        ('<tool_call>{"name": "f"}\n<tool_call>{"name": "g"}</tool_call>', [ToolCall("f", {}), ToolCall("g", {})]),
        ('{"name": "f", "arguments": {}}</tool_call>', []),
        ("<think>" + tagged("{}") + "</think>" + F, [ToolCall("f", {})]),
        ("<think> open " + F, []),
        (F + " by the way </think>", [ToolCall("f", {})]),
    ],
)
def test_good_calls(text: str, calls: list[ToolCall]) -> None:
    assert list(parse_turn(text).calls) == calls


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("not json", "not valid JSON: Expecting value at character 0"),
        ("{'name': 'f', 'arguments': {}}", "not valid JSON"),
        ('{"name": "f", "arguments": {}', "not valid JSON"),
        ('{"name": "f"} and more', "text after the JSON"),
        ('{"name": "f"}{"name": "g"}', "text after the JSON"),
        ('[{"name": "f", "arguments": {}}]', "not a list"),
        ('"f"', "not text"),
        ("3", "not a number"),
        ("null", "not null"),
        ("{}", "it is missing"),
        ('{"arguments": {}}', "it is missing"),
        ('{"name": 3}', "must be the name"),
        ('{"name": ""}', "must be the name"),
        ('{"name": "f", "arguments": [1]}', "not a list"),
        ('{"name": "f", "arguments": "x"}', "not text"),
        ('{"name": "f", "arguments": "[1]"}', "not a list"),
        ('{"name": "f", "arguments": true}', "not true or false"),
        ('{"name": "f", "x": 1}', 'unknown key "x"'),
        ('{"name": "f", "name": "g"}', 'the key "name" is written twice'),
        ('{"name": "f", "arguments": {"x": 1, "x": 2}}', 'the key "x" is written twice'),
        (with_x("NaN"), "NaN is not a JSON value"),
        (with_x("-Infinity"), "-Infinity is not a JSON value"),
        (with_x("1e999"), "1e999 is too large"),
        (with_x("9" * 5000), "more than 4000 digits"),
        (with_x(r'"\ud800"'), "half of a surrogate pair"),
        (with_x("[" * 80 + "]" * 80), "nested deeper"),
        (with_x("[" * 99999 + "]" * 99999), "nested deeper"),
        ('{"name": "f", "arguments": ' + json.dumps('{"x":' * 99999) + "}", '"arguments" must be'),
    ],
    ids=lambda value: value[:30],
)
def test_bad_call_says_what_is_wrong(body: str, problem: str) -> None:
    call = only(tagged(body))
    assert isinstance(call, MalformedCall)
    assert problem in call.problem
    assert call.text == body.strip()


def test_nesting_up_to_the_limit_is_fine() -> None:
    assert isinstance(only(tagged(with_x("[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)))), ToolCall)


def test_unclosed_broken_call_ends_where_the_next_begins() -> None:
    turn = parse_turn('<tool_call>{"name": "f", \n<tool_call>{"name": "g"}</tool_call>')
    assert [type(call) for call in turn.calls] == [MalformedCall, ToolCall]


def test_truncated_last_call_is_malformed() -> None:
    assert isinstance(only('<tool_call>{"name": "f", "argum'), MalformedCall)
    assert isinstance(only("<tool_call>"), MalformedCall)


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("<think> a </think> b", "a", None),
        ("<think> a", "a", None),
        ("a </think> b \\boxed{1}", "a", "1"),
        ("<think>a</think><think>b</think>", "a\nb", None),
        ("<think> \\boxed{1} </think> done", "\\boxed{1}", None),
        ("\\boxed{1} \\boxed{ 2 }", "", "2"),
        ("\\boxed{}", "", ""),
        ("\\boxed{1}" + tagged('{"name": "f", "arguments": {"x": "\\\\boxed{2}"}}'), "", "1"),
        ("\\bo" + tagged('{"name": "f"}') + "xed{1}", "", None),
    ],
)
def test_thinking_and_answer(text: str, thinking: str, answer: str | None) -> None:
    turn = parse_turn(text)
    assert (turn.thinking, turn.answer) == (thinking, answer)


def test_parsing_stays_quick_on_hostile_text() -> None:
    for unit in ("<tool_call>", "<think></think>", '<tool_call>{"', "\\boxed ", "\\boxed{", "</think>", "<tool_call>["):
        text = unit * (100_000 // len(unit))
        start = time.perf_counter()
        parse_turn(text)
        assert time.perf_counter() - start < 3.0, unit
