"""The rewards: the published one case by case, and the properties of ours."""

import json
import re
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recall.errors import ConfigError
from recall.rewards import NAMED, REWARDS, get
from recall.rewards.outcome import exact, outcome
from recall.rewards.recall import recall_reward, score_transcript
from recall.rewards.state import same_changes
from recall.types import AnswerKind, AnswerType, CallRecord, CallStatus, Segment, StopReason, Task, Trajectory

VECTORS = Path(__file__).parents[2] / "shared" / "data" / "reward_vectors" / "vectors.jsonl"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
HEAD = "<|im_start|>assistant\n"
THINK = "<think> so </think> "
REPLY = "<|im_end|>\n<|im_start|>user\n<tool_response>\n\\boxed{fake} <think>\n</tool_response><|im_end|>\n" + HEAD
BOX = "The answer is \\boxed{New York City}."
CALL = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'


def played(
    answer: str | None, *, stop: StopReason = StopReason.DONE, calls: tuple[CallStatus, ...] = (CallStatus.OK,)
) -> Trajectory:
    records = tuple(CallRecord(turn=0, name="f", arguments={}, result="", status=status) for status in calls)
    return Trajectory("t", segments=(Segment((1,)),), stop_reason=stop, answer=answer, calls=records)


def asked(*accepted: str, answer_type: AnswerType | None = None) -> Task:
    return Task("t", "?", accepted, answer_type=answer_type or AnswerType())


@pytest.mark.skipif(not VECTORS.exists(), reason=f"the reward vectors are not at {VECTORS}")
def test_recall_reward_equals_the_published_one_on_every_vector() -> None:
    cases = [json.loads(line) for line in VECTORS.read_text(encoding="utf-8").splitlines()]
    assert len(cases) == 300
    # Exact equality, the last bit included: the same formula in the same order.
    wrong = [
        case["id"] for case in cases if score_transcript(case["transcript"], case["ground_truth"]) != case["score"]
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("body", "score"),
    [
        (THINK + BOX, 1.0),
        (THINK + CALL + REPLY + THINK + BOX, 1.0),
        (THINK + "\\boxed{New York}", 2 * 1.0 * (2 / 3) / (1.0 + 2 / 3)),
        (THINK + "\\boxed{Paris}", 0.1),
        (THINK + "\\boxed{}", 0.1),
        (THINK + "New York City", 0.0),
        (THINK + "\\boxed{New York City", 0.0),
        (BOX, 0.0),
        ("<think> so " + BOX, 0.0),
        (THINK + "{'name': 'f'}</tool_call>" + REPLY + THINK + BOX, 0.0),
        (THINK + "<tool_call>{'name': 'f', 'arguments': {}}</tool_call>" + REPLY + THINK + BOX, 0.0),
        (THINK + '<tool_call>{"name": "f"}</tool_call>' + REPLY + THINK + BOX, 0.0),
        (THINK + CALL + REPLY + BOX, 0.0),
        (THINK + CALL + REPLY + THINK + "New York City", 0.0),
        ("<think> \\boxed{New York City} </think> done", 1.0),
        (THINK + "so \\boxed New York City$ done", 1.0),
    ],
)
def test_published_rules_by_hand(body: str, score: float) -> None:
    assert score_transcript(HEAD + body + "<|im_end|>", "New York City") == score
    assert score_transcript(HEAD + body + "<|im_end|>", ["x", "New York City"]) == score
    assert score_transcript(HEAD + body, "New York City") == 0.0


def test_published_yes_no_rule() -> None:
    assert score_transcript(HEAD + THINK + "\\boxed{yes it is}<|im_end|>", "yes") == 0.1


@settings(deadline=None)
@given(
    st.text() | st.lists(st.sampled_from([HEAD, THINK, REPLY, BOX, CALL, "<|im_end|>", "{"])).map("".join), st.text()
)
def test_published_score_takes_any_transcript(transcript: str, truth: str) -> None:
    assert 0.0 <= score_transcript(transcript, truth) <= 1.0


def test_recall_reward_reads_the_segments_after_the_prompt() -> None:
    segments = (
        Segment((1,), text="<|im_start|>user\n\\boxed{Paris}<|im_end|>\n" + HEAD),
        Segment((2,), (0.0,), text=THINK + CALL + "<|im_end|>"),
        Segment((3,), text=REPLY.removeprefix("<|im_end|>")),
        Segment((4,), (0.0,), text=THINK + BOX + "<|im_end|>"),
    )
    trajectory = Trajectory("t", segments, StopReason.DONE, answer="New York City")
    result = recall_reward(asked("New York City"), trajectory)
    assert (result.score, result.correct, dict(result.parts)) == (1.0, True, {"form": 1.0, "f1": 1.0})


@pytest.mark.parametrize(
    ("answer", "score", "correct"),
    [
        ("new york city.", 1.0, True),
        ("New York", 0.1 + 0.9 * 0.8, False),
        ("City York New", 0.1 + 0.9 * 0.9, False),
        ("Paris", 0.1, False),
        (" ", 0.0, False),
        (None, 0.0, False),
    ],
)
def test_outcome_scores(answer: str | None, score: float, correct: bool) -> None:
    result = outcome(asked("New York City"), played(answer))
    assert result.score == pytest.approx(score)
    assert result.correct is correct
    assert result.score == pytest.approx(0.1 * result.parts["form"] + 0.9 * result.parts["answer"])


@pytest.mark.parametrize("stop", [reason for reason in StopReason if reason is not StopReason.DONE])
def test_an_unfinished_episode_earns_nothing(stop: StopReason) -> None:
    for reward in REWARDS.values():
        result = reward(asked("x"), played("x", stop=stop))
        assert (result.score, result.correct) == (0.0, False)


def test_a_malformed_call_costs_the_form_and_partial_credit() -> None:
    calls = (CallStatus.MALFORMED, CallStatus.OK)
    assert outcome(asked("New York City"), played("New York City", calls=calls)).score == pytest.approx(0.9)
    assert outcome(asked("New York City"), played("New York", calls=calls)).score == 0.0


def test_a_tool_that_raised_costs_nothing() -> None:
    assert outcome(asked("x"), played("x", calls=(CallStatus.EXCEPTION, CallStatus.UNKNOWN_TOOL))).score == 1.0


@pytest.mark.parametrize(
    ("answer", "accepted", "answer_type"),
    [
        ("14 July 2003", "12 July 2003", AnswerType("date")),
        ("1 2 3", "1 2 4", AnswerType("number")),
        ("a, b", "a, b, c", AnswerType("list")),
        ("3.14", "314", AnswerType()),
    ],
)
def test_values_have_no_parts(answer: str, accepted: str, answer_type: AnswerType) -> None:
    assert outcome(asked(accepted, answer_type=answer_type), played(answer)).score == pytest.approx(0.1)


WORDS = st.lists(st.sampled_from(["ada", "rome", "new", "york", "7", "-7", "yes", "the", ","]), max_size=4).map(
    " ".join
)


@settings(deadline=None)
@given(WORDS, WORDS, WORDS, st.lists(st.sampled_from(list(CallStatus)), max_size=2))
def test_a_wrong_answer_never_earns_more_than_a_partly_right_one(
    accepted: str, one: str, other: str, statuses: list[CallStatus]
) -> None:
    results = [outcome(asked(accepted), played(answer, calls=tuple(statuses))) for answer in (one, other)]
    low, high = sorted(results, key=lambda result: result.parts["answer"])
    assert low.score <= high.score or not high.parts["answered"]
    assert all(result.correct == (result.parts["answer"] == 1.0) for result in results)


@settings(deadline=None)
@given(st.text(), st.text(), st.sampled_from(list(StopReason)))
def test_rewards_take_any_answer(answer: str, accepted: str, stop: StopReason) -> None:
    results = {name: reward(asked(accepted), played(answer, stop=stop)) for name, reward in REWARDS.items()}
    assert all(0.0 <= result.score <= 1.0 for result in results.values())
    assert len({result.correct for result in results.values()}) == 1


CHANGES = {"orders/O17/status": "sent", "orders/O99": {"item": "lamp", "price": 0.3}, "orders/O1": None}


def changed(
    changes: dict[str, Any] | None, answer: str | None = None, stop: StopReason = StopReason.DONE
) -> Trajectory:
    return Trajectory("t", (Segment((1,)),), stop, answer=answer, changes=changes)


def about_state(*accepted: str, changes: dict[str, Any] | None = None, answer_type: AnswerType | None = None) -> Task:
    return Task(
        "t", "?", accepted, changes=CHANGES if changes is None else changes, answer_type=answer_type or AnswerType()
    )


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        (CHANGES, True),
        (dict(reversed(CHANGES.items())), True),
        (CHANGES | {"orders/O99": {"price": 0.1 + 0.2, "item": "lamp"}}, True),
        (CHANGES | {"orders/O99": {"price": 0.3001, "item": "lamp"}}, False),
        (CHANGES | {"orders/O18/status": "sent"}, False),
        (CHANGES | {"orders/O17/status": "Sent"}, False),
        (CHANGES | {"orders/O1": {}}, False),
        ({"orders/O17/status": "sent"}, False),
        ({}, False),
        (None, False),
    ],
)
def test_the_changes_asked_for_and_no_others_solve_a_task_about_state(
    changes: dict[str, Any] | None, right: bool
) -> None:
    for reward in (exact, outcome):
        result = reward(about_state(), changed(changes))
        assert (result.correct, result.parts["state"]) == (right, float(right))
        assert result.score == pytest.approx(1.0 if right else 0.0 if reward is exact else 0.1)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (True, 1),
        (0, False),
        (1, "1"),
        ([1, 2], [2, 1]),
        (None, 0),
        ({"a": 1}, {"a": 1, "b": None}),
        (2**53 + 1, 2**53),
        (10**400, 1.0),
    ],
)
def test_values_of_a_state_are_compared_as_json(found: Any, wanted: Any) -> None:
    assert not exact(about_state(changes={"a/b": wanted}), changed({"a/b": found})).correct
    assert exact(about_state(changes={"a/b": wanted}), changed({"a/b": wanted})).correct
    assert exact(about_state(changes={"a/b": [1, 2.0]}), changed({"a/b": [1.0, 2]})).correct


def test_a_task_about_state_and_answer_needs_both() -> None:
    task = about_state("New York City")
    scores = {
        (changes is CHANGES, answer): (exact(task, played).score, round(outcome(task, played).score, 2))
        for changes in (CHANGES, {})
        for answer in ("New York City", "New York", None)
        for played in [changed(changes, answer)]
    }
    assert scores == {
        (True, "New York City"): (1.0, 1.0),
        (True, "New York"): (0.0, 0.82),
        (True, None): (0.0, 0.0),
        (False, "New York City"): (0.0, 0.1),
        (False, "New York"): (0.0, 0.1),
        (False, None): (0.0, 0.0),
    }


def test_doing_nothing_solves_only_a_task_that_asks_for_it() -> None:
    assert exact(about_state(changes={}), changed({})).correct
    assert not exact(about_state(changes={}), changed(None)).correct
    assert not exact(Task("t", "?", ()), changed({}, "x")).correct


def test_parts_tell_a_lost_state_from_a_wrong_one() -> None:
    assert dict(exact(about_state(), changed(None)).parts) == {"state": 0.0, "state_lost": 1.0}
    assert dict(exact(about_state(), changed({})).parts) == {"state": 0.0, "state_lost": 0.0}
    assert exact(about_state(), changed(None, stop=StopReason.MAX_TURNS)).parts["state_lost"] == 0.0


@settings(deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=3), st.dictionaries(st.text(), JSON, max_size=3))
def test_the_same_changes_are_the_same_json(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert same_changes(one, json.loads(json.dumps(one)))
    assert same_changes(one, other) == same_changes(other, one)
    assert not same_changes(one, one | {"besides": 1}) or "besides" in one


def test_a_row_chooses_its_reward() -> None:
    row = get("row")
    for name, reward in NAMED.items():
        task = Task("t", "?", ("New York City",), reward=name)
        assert row(task, played("New York")) == reward(task, played("New York"))
    for source, reward in (("syntool_re_call", NAMED["recall"]), ("musique_re_call", NAMED["recall"]), ("x", exact)):
        task = Task("t", "?", ("New York City",), data_source=source)
        assert row(task, played("New York")) == reward(task, played("New York"))
    assert row(Task("t", "?", ("x",), data_source="syntool_re_call", reward="exact"), played("x")).score == 1.0
    with pytest.raises(ConfigError, match="task 't': unknown reward 'best'; accepted: outcome, exact, recall"):
        row(Task("t", "?", ("x",), reward="best"), played("x"))


@pytest.mark.parametrize(
    ("kind", "answer"),
    [("entity", "New York"), ("set", "a, c"), ("sequence", "b, a"), ("list", "a"), ("boolean", "no")],
)
def test_only_text_is_partly_right(kind: AnswerKind, answer: str) -> None:
    accepted = {"entity": "New York City", "boolean": "yes"}.get(kind, "a, b")
    assert outcome(asked(accepted, answer_type=AnswerType(kind)), played(answer)).parts["answer"] == 0.0
    assert outcome(asked(accepted, answer_type=AnswerType(kind)), played(accepted)).parts["answer"] == 1.0


def test_the_examples_of_the_documentation_are_so() -> None:
    page = (Path(__file__).parents[1] / "docs" / "rewards.md").read_text(encoding="utf-8")
    rows = page.split("| type | accepted | right | wrong |\n|---|---|---|---|\n")[1].split("\n\n")[0].splitlines()
    assert len(rows) == 9
    for line in rows:
        kind, accepted, right, wrong = [cell.strip() for cell in line.strip("|").split("|")]
        tolerance = float(kind.partition("tolerance ")[2] or 0)
        answer_type = AnswerType(cast(AnswerKind, kind.split("`")[1]), tolerance)
        for cell, solves in ((right, True), (wrong, False)):
            for answer in re.findall(r"`([^`]+)`", cell):
                assert exact(asked(accepted, answer_type=answer_type), played(answer)).correct is solves, (kind, answer)


def test_exact_is_one_or_zero() -> None:
    assert exact(asked("4", answer_type=AnswerType("number")), played("4.0")).score == 1.0
    assert exact(asked("New York City"), played("New York")).score == 0.0


def test_rewards_by_name() -> None:
    assert get("outcome") is outcome
    with pytest.raises(ConfigError, match=r"unknown reward 'outcom', did you mean 'outcome'; accepted: outcome, exact"):
        get("outcom")
    with pytest.raises(ConfigError, match=r"unknown reward 'zzz'; accepted"):
        get("zzz")


@pytest.mark.parametrize(
    ("answer", "accepted", "answer_type", "published", "ours"),
    [
        ("314", "3.14", AnswerType("number"), 1.0, 0.1),
        ("3", "-3", AnswerType(), 1.0, 0.1),
        ("7.5", "7.50", AnswerType(), 0.1, 1.0),
        ("14 July 2003", "12 July 2003", AnswerType("date"), 0.667, 0.1),
        ("2003-07-12", "12 July 2003", AnswerType("date"), 0.1, 1.0),
        ("Rome, Paris", '["Paris", "Rome"]', AnswerType("list"), 1.0, 1.0),
        ("True", "yes", AnswerType("boolean"), 0.1, 1.0),
        ("", "Ada Lovelace", AnswerType(), 0.1, 0.0),
        ("Ada", "Ada Lovelace", AnswerType(), 0.667, 0.7),
        ("one of " + "x " * 37 + "Ada", "Ada", AnswerType(), 0.049, 0.144),
        ("Lovelace Ada", "Ada Lovelace", AnswerType(), 1.0, 0.91),
    ],
)
def test_the_table_of_the_documentation(
    answer: str, accepted: str, answer_type: AnswerType, published: float, ours: float
) -> None:
    transcript = f"{HEAD}{THINK}\\boxed{{{answer}}}<|im_end|>"
    assert score_transcript(transcript, accepted) == pytest.approx(published, abs=5e-4)
    assert outcome(asked(accepted, answer_type=answer_type), played(answer)).score == pytest.approx(ours, abs=5e-4)
