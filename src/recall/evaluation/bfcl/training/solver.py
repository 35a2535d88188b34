"""The policy that solves a task over the backends: the calls that it was made with, turn by turn."""

from collections.abc import Generator, Mapping
from typing import Any

from recall.evaluation.bfcl.script import Turn
from recall.evaluation.bfcl.training.tasks import CALLS
from recall.types import Task, ToolCall


def solution(task: Task) -> Generator[Turn, str, None]:
    """One call a turn, and a sentence at the end of each turn of the user; for `PlayedScript`."""
    for calls in task.extra[CALLS]:
        for call in calls:
            yield [_call(call)]
        yield "That is done."


def _call(call: Mapping[str, Any]) -> ToolCall:
    return ToolCall(call["name"], call["arguments"])
