"""Extraction, normalisation, EM, F1 and typed equality."""

import json
from collections import Counter
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recall.answers import equal, exact_match, extract_boxed, f1, normalize, unwrap, value_of
from recall.types import AnswerKind, AnswerType

KINDS: tuple[AnswerKind, ...] = get_args(AnswerKind)
TEXT = st.text() | st.text(alphabet="0123456789.,-+eE%$[]{}()'\"\\;: \n") | st.sampled_from(["[" * 9999, "1e999", "½"])


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("none", None),
        ("\\boxed{a}", "a"),
        ("\\boxed{a} \\boxed{b}", "b"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed {a}", "a"),
        ("\\boxed{}", ""),
        ("\\boxed{a", None),
        ("\\boxed{a} \\boxed{b", None),
        ("\\boxed{a} is my \\boxed", "a"),
        ("\\boxed{\\boxed{a}}", "a"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{\\}}", "\\}"),
        ("\\boxed{a\\\\}", "a\\\\"),
        ("\\fbox{a}", None),
    ],
)
def test_extract_boxed(text: str, content: str | None) -> None:
    assert extract_boxed(text) == content


def test_normalize_is_squad() -> None:
    assert normalize(" The  O'Brien, an A&E!\n") == "obrien ae"
    assert exact_match("the Eiffel tower.", ["x", "Eiffel Tower"])
    assert not exact_match("Eiffel", ["Eiffel Tower"])


@pytest.mark.parametrize(
    ("prediction", "accepted", "score"),
    [
        ("New York City", ["New York City"], 1.0),
        ("New", ["New York City"], 0.5),
        ("Mountrail", ["Mountrail County", "x"], 2 / 3),
        ("yes it is", ["yes"], 0.0),
        ("no", ["no way"], 0.0),
        ("yes", ["yes"], 1.0),
        ("", ["x"], 0.0),
        ("the", ["a"], 0.0),
        ("x", [], 0.0),
    ],
)
def test_f1(prediction: str, accepted: list[str], score: float) -> None:
    assert f1(prediction, accepted) == pytest.approx(score)


@pytest.mark.parametrize(
    ("kind", "prediction", "accepted"),
    [
        ("text", "the Eiffel Tower.", "Eiffel tower"),
        ("text", "\\text{Zoe\u0308}", "Zo\u00eb"),
        ("text", "O\u2019Brien", "O'Brien"),
        ("text", "1,000", "1000"),
        ("text", "7.50", "7.5"),
        ("text", "$3.20", "3.2"),
        ("text", "1939\u20131945", "1939-1945"),
        ("text", "12,000 km", "12000 km"),
        ("text", "The The", "the the"),
        ("number", "1,234.50", "1234.5"),
        ("number", "$1{,}000", "1000"),
        ("number", "\\$5", "5"),
        ("number", "-\u20ac5", "-5"),
        ("number", "\u22123", "-3"),
        ("number", "50\\%", "50"),
        ("number", "1.5e3", "1500"),
        ("number", "42.", "42"),
        ("number", "$42$", "42"),
        ("integer", "3.0", "3"),
        ("integer", "9007199254740993", "9007199254740993"),
        ("boolean", "Yes.", "true"),
        ("boolean", "False", "no"),
        ("date", "12 July 2003", "2003-07-12"),
        ("date", "July 12th, 2003", "2003-07-12"),
        ("date", "12th of july 2003", "2003/7/12"),
        ("date", "Sept. 5, 2003", "2003-09-05"),
        ("list", '["b", "a"]', "a, b"),
        ("list", "['a', 'b']", '["a", "b"]'),
        ("list", "a, b, and c", '["c", "b", "a"]'),
        ("list", "\\{1, 2.0\\}", "[2, 1]"),
        ("list", "1,000, 2", "[1000, 2]"),
        ("list", "Paris; Rome", "rome\nparis"),
        ("list", "[]", "[ ]"),
        ("list", "5", "[5]"),
        ("list", "[true]", "True"),
        ("set", "a, b, a", '["b", "a"]'),
        ("set", "[]", "{}"),
        ("sequence", '["b", "a"]', "b; a"),
        ("sequence", "1, 2.0, 1", "[1, 2, 1]"),
        ("sequence", "[]", "()"),
        ("entity", "  velmar   Tosk ", "Velmar Tosk"),
        ("entity", '"Velmar Tosk"', "Velmar Tosk"),
        ("entity", "\\text{ORD\\_17}", "ord_17"),
        ("entity", "A\u2011\uff11", "a-1"),
        ("entity", "O\u2019Brien", "O'BRIEN"),
        ("entity", "Zoe\u0308\u200b", "Zo\u00eb"),
    ],
)
def test_equal_values(kind: AnswerKind, prediction: str, accepted: str) -> None:
    assert equal(prediction, ["something else", accepted], AnswerType(kind))
    assert equal(accepted, [prediction], AnswerType(kind))


@pytest.mark.parametrize(
    ("kind", "prediction", "accepted"),
    [
        ("text", "3.14", "314"),
        ("text", "-3", "3"),
        ("text", "3.5 hours", "35 hours"),
        ("text", "-3 degrees", "3 degrees"),
        ("text", "007", "7"),
        ("text", "", "the"),
        ("text", "a", "the"),
        ("text", "", ""),
        ("text", "NYC", "New York City"),
        ("number", "50%", "0.5"),
        ("number", "1/2", "0.5"),
        ("number", "5 km", "5"),
        ("number", "1,00", "100"),
        ("number", "2\u00b2", "22"),
        ("number", "between 3 and 4", "3"),
        ("number", "1" * 500, "1" * 500),
        ("integer", "3.5", "3.5"),
        ("integer", "9007199254740993", "9007199254740992"),
        ("boolean", "1", "true"),
        ("boolean", "maybe", "maybe"),
        ("date", "12/07/2003", "2003-07-12"),
        ("date", "31 June 2003", "31 June 2003"),
        ("date", "July 2003", "2003-07-01"),
        ("list", "a, a", "a"),
        ("list", "a, b", "a, b, c"),
        ("list", "", "[]"),
        ("list", "Simon and Garfunkel", "Simon, Garfunkel"),
        ("set", "a", "a, b"),
        ("set", "", "[]"),
        ("sequence", "a, b", "b, a"),
        ("sequence", "a, a", "a"),
        ("sequence", "", "[]"),
        ("entity", "007", "7"),
        ("entity", "1e3", "1000"),
        ("entity", "7.50", "7.5"),
        ("entity", "A-1", "A1"),
        ("entity", "the Tosk", "Tosk"),
        ("entity", "Tosk.", "Tosk"),
        ("entity", "\u200b", "\u200b"),
        ("entity", "", ""),
    ],
)
def test_unequal_values(kind: AnswerKind, prediction: str, accepted: str) -> None:
    assert not equal(prediction, [accepted], AnswerType(kind))


def test_tolerance_is_absolute_and_inclusive() -> None:
    assert equal("1.01", ["1.00"], AnswerType("number", 0.01))
    assert not equal("1.0101", ["1.00"], AnswerType("number", 0.01))
    assert not equal("1.01", ["1.00"], AnswerType("number"))
    assert not equal("4", ["3"], AnswerType("integer", 2.0))


@settings(deadline=None)
@given(TEXT, TEXT, st.sampled_from(KINDS))
def test_equality_never_raises_and_is_symmetric(left: str, right: str, kind: AnswerKind) -> None:
    answer_type = AnswerType(kind, 0.5)
    assert equal(left, [right], answer_type) == equal(right, [left], answer_type)
    assert 0.0 <= f1(left, [right]) <= 1.0
    extract_boxed(left)


@settings(deadline=None)
@given(TEXT, st.sampled_from(KINDS))
def test_what_has_a_value_equals_itself(text: str, kind: AnswerKind) -> None:
    assert equal(text, [text], AnswerType(kind)) == (value_of(text, kind) is not None)


@settings(deadline=None)
@given(st.lists(st.integers() | st.sampled_from(["Paris", "New York", "Ada"]), max_size=6))
def test_lists_are_order_free(items: list[int | str]) -> None:
    text = ", ".join(str(item) for item in items) or "[]"
    shuffled = str(sorted(items, key=str))
    assert equal(text, [shuffled], AnswerType("list"))


ITEMS = st.lists(st.integers() | st.sampled_from(["Paris", "New York", "Ada"]), max_size=6)


@settings(deadline=None)
@given(ITEMS, ITEMS)
def test_sequences_keep_order_and_sets_forget_repeats(items: list[int | str], others: list[int | str]) -> None:
    one, other = json.dumps(items), json.dumps(others)
    assert equal(one, [other], AnswerType("sequence")) == (items == others)
    assert equal(one, [other], AnswerType("set")) == (set(items) == set(others))
    assert equal(one, [other], AnswerType("list")) == (Counter(items) == Counter(others))


CODES = st.text(alphabet="0123456789abcdefXYZ-._/ ", min_size=1).filter(str.strip)


@settings(deadline=None)
@given(CODES, st.sampled_from(["{}", "  {} ", "\\text{{{}}}", "$\\mathbf{{{}}}$", '"{}"']))
def test_an_entity_is_the_same_in_other_dress(code: str, dress: str) -> None:
    for form in (code, code.upper(), code.replace("-", "\u2013"), code.replace(" ", "  ")):
        assert equal(dress.format(form), [code], AnswerType("entity"))


@settings(deadline=None)
@given(CODES, CODES)
def test_two_codes_are_the_same_letter_by_letter_or_not_at_all(one: str, other: str) -> None:
    same = " ".join(one.lower().split()) == " ".join(other.lower().split())
    assert equal(one, [other], AnswerType("entity")) == same


def test_unwrap_takes_wrappers_off_only_around_the_whole() -> None:
    assert unwrap("$\\text{ \\mathbf{a} }$") == "a"
    assert unwrap("\\text{a} and \\text{b}") == "\\text{a} and \\text{b}"
    assert unwrap("$5 and $6") == "$5 and $6"
