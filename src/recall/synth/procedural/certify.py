"""The certificates of a task: each may reject it, and says which it was and why.

What is checked here needs no sandbox; that the reference program gives the answer there is checked by `replay.py`. What
needs many tasks (that no answer is common, that guessing fails template by template) is checked by the report.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recall.programs import resolve
from recall.synth.procedural.closure import Shorter
from recall.synth.procedural.plans import Acted, Moved, Scalar
from recall.synth.procedural.question import literals
from recall.synth.procedural.tools import Operation, Tool
from recall.synth.procedural.trace import Bound, Trace
from recall.synth.procedural.world import World

CHANGES_AT_LEAST = 0.95
"""The share of counterfactual worlds in which the answer must be another."""


class RejectedError(Exception):
    """A task that does not hold up."""

    def __init__(self, gate: str, reason: str) -> None:
        super().__init__(f"{gate}: {reason}")
        self.gate, self.reason = gate, reason


@dataclass(frozen=True, slots=True)
class Draft:
    """A task that is to be certified."""

    plan: Scalar
    question: str
    trace: Trace
    """The reference run."""
    answer: Bound
    visible: Mapping[Operation, Tool]
    """The tools that the task shows, by what they do."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the certificates found out."""

    shortest: int
    """The least number of calls known to give the answer."""
    counterfactual: float
    """The share of counterfactual worlds in which the answer is another."""


def certify(draft: Draft, world: World, others: Sequence[World], again: Trace, shuffled: World) -> Facts:
    """Check a draft.

    Args:
        draft: what to check.
        world: its world.
        others: worlds of the same entities and other facts.
        again: an empty trace over the tools of the shuffled world.
        shuffled: the same world, its rows in another order.

    Raises:
        RejectedError: it does not hold up.
    """
    answer = draft.answer.value
    _answerable(answer)
    for text in literals(draft.plan):
        if text not in draft.question:
            raise RejectedError("provenance", "the question leaves a literal out")
    provenance(draft.question, draft.trace.items, draft.trace.results)
    _unguessable(draft)
    _unique(draft, again, shuffled)
    answers = _elsewhere(draft.plan, others)
    changed = sum(value != answer for _, value in answers) / len(answers)
    if changed < CHANGES_AT_LEAST:
        raise RejectedError("counterfactual", "the answer stays when the facts change")
    calls = len(draft.trace.items)
    if isinstance(draft.plan, Acted | Moved):
        return Facts(calls, changed)
    shorter = Shorter(world, others, draft.visible).found(draft.plan, answer, calls, answers)
    if shorter is not None:
        raise RejectedError("minimal", "fewer calls give the answer")
    return Facts(calls, changed)


def _answerable(answer: Any) -> None:
    if answer is None or answer == "" or answer == []:
        raise RejectedError("solvable", "the answer is empty")


def provenance(question: str, items: Sequence[Mapping[str, Any]], results: Sequence[Any]) -> None:
    """Check that each argument of each call is said by the question or an earlier result, or worked out from these.

    Raises:
        RejectedError: it is not.
    """
    seen = question
    for number, item in enumerate(items):
        for expression in item.get("arguments", {}).values():
            for value in _stated(expression):
                if isinstance(value, int) and not isinstance(value, bool) and 1 < value <= 99 and "pages" in seen:
                    continue  # the number of a further page
                if str(value) not in seen:
                    raise RejectedError("provenance", "an argument comes from nowhere")
            for value in _referred(expression, results[:number]):
                if str(value) not in seen:
                    raise RejectedError("provenance", "an argument was not seen before")
        seen += "\n" + json.dumps(results[number], ensure_ascii=False)


def _stated(expression: Any) -> list[Any]:
    if isinstance(expression, Mapping):
        return [] if "$ref" in expression else [v for each in expression.get("of", ()) for v in _stated(each)]
    if isinstance(expression, list | tuple):
        return [value for each in expression for value in _stated(each)]
    return [expression]


def _referred(expression: Any, results: Sequence[Any]) -> list[Any]:
    if isinstance(expression, Mapping):
        if "$ref" in expression:
            return [resolve(expression, results)]
        return [value for each in expression.get("of", ()) for value in _referred(each, results)]
    if isinstance(expression, list | tuple):
        return [value for each in expression for value in _referred(each, results)]
    return []


def _unguessable(draft: Draft) -> None:
    """Neither the question nor any result but the last says the answer by itself."""
    answer = draft.answer.value
    if str(answer) in draft.question:
        raise RejectedError("guessable", "the question says the answer")
    if len(draft.trace.items) < 2:
        return
    for result in draft.trace.results[:-1]:
        if bare(result) == answer:
            raise RejectedError("guessable", "an earlier result is the answer")
    first = draft.trace.results[0]
    if isinstance(draft.answer.expression, Mapping) and draft.answer.expression.get("$ref") == 0 and first is not None:
        raise RejectedError("guessable", "the first call says the answer")


def bare(result: Any) -> Any:
    """What a result says without its wrapping: the only value of an object, sorted where it is a list."""
    if isinstance(result, Mapping) and len(result) == 1:
        (result,) = result.values()
    return sorted(result, key=str) if isinstance(result, list) else result


def _unique(draft: Draft, again: Trace, shuffled: World) -> None:
    if draft.plan.value(shuffled) != draft.answer.value or draft.plan.run(again).value != draft.answer.value:
        raise RejectedError("unique", "the order of the rows decides")


def _elsewhere(plan: Scalar, others: Sequence[World]) -> list[tuple[int, Any]]:
    """The answer in each counterfactual world that has one."""
    answers = []
    for number, other in enumerate(others):
        try:
            answers.append((number, plan.value(other)))
        except ValueError:  # the largest of none
            continue
    if not answers:
        raise RejectedError("counterfactual", "no other world has an answer")
    return answers
