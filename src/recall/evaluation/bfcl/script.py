"""The policy that knows the ground truth, and the one that never calls: the two ends of the scale."""

import ast
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from recall.evaluation.bfcl.entries import Entry
from recall.evaluation.bfcl.functions import tool_name
from recall.policy.scripted import Script
from recall.tool_calls import format_calls
from recall.types import ToolCall


def truth_script(entry: Entry) -> Script:
    """Writes the calls of the ground truth, one step a user turn, and then a sentence."""
    steps = (
        [[_call(code, entry) for code in turn] for turn in entry.truth]
        if entry.sort == "multi_turn"
        else [_allowed(entry)]
    )

    def script(prompt: str) -> Generator[str, str, None]:
        for calls in steps:
            if calls:
                yield format_calls(calls)
            if entry.sort == "multi_turn" or not calls:
                yield "That is done."

    return script


def empty_script(entry: Entry) -> Script:
    """Says a sentence in every turn, and calls nothing."""

    def script(prompt: str) -> Generator[str, str, None]:
        for _ in entry.turns:
            yield "I would rather not."

    return script


def _allowed(entry: Entry) -> list[ToolCall]:
    """Of a single turn: each function with the first value that is allowed for each argument."""
    if entry.sort == "relevance":
        relevant = entry.category == "live_relevance"
        return [ToolCall(tool_name(entry.functions[0]["name"]), {})] if relevant else []
    calls = []
    for function in entry.truth:
        ((name, arguments),) = function.items()
        values = {key: _first(allowed[0]) for key, allowed in arguments.items() if allowed and allowed[0] != ""}
        calls.append(ToolCall(tool_name(name), values))
    return calls


def _first(value: Any) -> Any:
    """The first allowed value: the leaderboard lists what is allowed at every key of an object too."""
    if isinstance(value, Mapping):
        return {
            key: _first(allowed[0]) if isinstance(allowed, Sequence) and not isinstance(allowed, str) else allowed
            for key, allowed in value.items()
            if not (isinstance(allowed, Sequence) and allowed and allowed[0] == "")
        }
    return [_first(item) for item in value] if isinstance(value, list) else value


def _call(code: str, entry: Entry) -> ToolCall:
    """A call of the ground truth, whose arguments are literals, by position or by name."""
    node = ast.parse(code, mode="eval").body
    assert isinstance(node, ast.Call), f"{entry.id}: {code} is no call"
    assert isinstance(node.func, ast.Name), f"{entry.id}: {code} calls no function by name"
    documents = [*entry.functions, *(each for some in entry.appearing.values() for each in some)]
    names = next(list(each["parameters"]["properties"]) for each in documents if each["name"] == node.func.id)
    arguments = {name: ast.literal_eval(value) for name, value in zip(names, node.args, strict=False)}
    arguments |= {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
    return ToolCall(node.func.id, arguments)
