"""The certificates of a task: each may reject it, and says which it was and why.

What is checked here needs no sandbox; that the reference program gives the answer there is checked by `replay.py`. What
needs many tasks (that no answer is common, that guessing fails template by template) is checked by the report.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recall.programs import ProgramError, references, resolve
from recall.synth.procedural.closure import Answers, shorter
from recall.synth.procedural.literals import literals, says
from recall.synth.procedural.plans import Between, Labelled, Members, Scalar
from recall.synth.procedural.scalars import Listed
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
    changes: Mapping[str, Any] | None
    """What the reference run left behind; None where it changes nothing."""
    visible: Mapping[Operation, Tool]
    """The tools that the task shows, by what they do."""
    answers: Answers
    """The answers in the counterfactual worlds; see `elsewhere`."""
    stateless: bool = False
    """Whether the published sandbox has to be able to run it, which shows results like 0 and [] as nothing."""


def elsewhere(plan: Scalar, answer: Any, others: Sequence[World]) -> Answers:
    """The answer in each counterfactual world that has one, by the number of the world.

    Raises:
        RejectedError: too many of them are the same.
    """
    answers: list[tuple[int, Any]] = []
    for number, other in enumerate(others):
        try:
            answers.append((number, plan.value(other)))
        except ValueError:  # the largest of none
            continue
        same = sum(value == answer for _, value in answers)
        if same > (1 - CHANGES_AT_LEAST) * len(others):
            raise RejectedError("counterfactual", "the answer stays when the facts change")
    if not answers:
        raise RejectedError("counterfactual", "no other world has an answer")
    return answers


def certify(draft: Draft, world: World, others: Sequence[World], again: Trace, shuffled: World) -> int:
    """Check a draft.

    Args:
        draft: what to check.
        world: its world.
        others: worlds of the same entities and other facts.
        again: an empty trace over the tools of the shuffled world.
        shuffled: the same world, its rows in another order.

    Returns:
        The least number of calls known to give the answer: that of the reference program.

    Raises:
        RejectedError: it does not hold up.
    """
    answer = draft.answer.value
    if answer is None or answer == "" or answer == []:
        raise RejectedError("solvable", "the answer is empty")
    if draft.stateless and not all(draft.trace.results):
        raise RejectedError("solvable", "a result is shown as nothing")
    for text in literals(draft.plan):
        if not says(draft.question, text):
            raise RejectedError("provenance", "the question leaves a literal out")
    provenance(draft.question, draft.trace.items, draft.trace.results)
    _unguessable(draft)
    if draft.plan.value(shuffled) != answer or draft.plan.run(again).value != answer:
        raise RejectedError("unique", "the order of the rows decides")
    calls = len(draft.trace.items)
    found = shorter(draft.plan, answer, calls, draft.answers, world=world, others=others, tools=draft.visible)
    if found is not None and found < calls:
        raise RejectedError("minimal", "fewer calls give the answer")
    return calls


def provenance(question: str, items: Sequence[Mapping[str, Any]], results: Sequence[Any]) -> None:
    """Check that each argument of each call is said by the question or an earlier result, or worked out from these.

    Raises:
        RejectedError: it is not.
    """
    for number, item in enumerate(items):
        for expression in item.get("arguments", {}).values():
            try:
                resolve(expression, results[:number])
            except ProgramError:
                raise RejectedError("provenance", "an argument was not seen before") from None
            for value in _stated(expression):
                text = value if isinstance(value, str) else json.dumps(value)
                if not says(question, text) and not any(value in _scalars(result) for result in results[:number]):
                    raise RejectedError("provenance", "an argument comes from nowhere")


def _stated(expression: Any) -> Iterator[Any]:
    if isinstance(expression, Mapping):
        if "$ref" not in expression:
            for each in expression.get("of", ()):
                yield from _stated(each)
    elif isinstance(expression, list | tuple):
        for each in expression:
            yield from _stated(each)
    else:
        yield expression


def _scalars(result: Any) -> Iterator[Any]:
    if isinstance(result, Mapping):
        for each in result.values():
            yield from _scalars(each)
    elif isinstance(result, list):
        for each in result:
            yield from _scalars(each)
    else:
        yield result


def _unguessable(draft: Draft) -> None:
    """Neither the question nor any result but the last says the answer by itself."""
    answer = draft.answer.value
    if not isinstance(answer, list) and str(answer) in draft.question:
        raise RejectedError("guessable", "the question says the answer")
    if isinstance(answer, list) and all(says(draft.question, each) for each in answer):
        raise RejectedError("guessable", "the question says the answer")
    if len(draft.trace.items) < 2:
        return
    for item, result in zip(draft.trace.items, draft.trace.results, strict=True):
        if item is draft.trace.items[-1] and _is_read(draft):
            continue
        if bare(result) == answer:
            raise RejectedError("guessable", "an earlier result is the answer")
    expression = draft.answer.expression
    if isinstance(expression, Mapping) and "$ref" in expression:
        said = draft.trace.items[expression["$ref"]]["arguments"]
        if not any(True for each in said.values() for _ in references(each)):
            raise RejectedError("guessable", "a single call says the answer")


def _is_read(draft: Draft) -> bool:
    """Whether the last call says the answer, so that nothing is left to be worked out."""
    expression = draft.answer.expression
    return is_listing(draft.plan) or (isinstance(expression, Mapping) and "$ref" in expression)


def is_listing(plan: Scalar) -> bool:
    """Whether a plan asks for what one list says."""
    return isinstance(plan, Listed) and isinstance(plan.source, Members | Labelled | Between)


def bare(result: Any) -> Any:
    """What a result says without its wrapping: the only value of an object, sorted where it is a list."""
    if isinstance(result, Mapping) and len(result) == 1:
        (result,) = result.values()
    return sorted(result, key=str) if isinstance(result, list) else result
