"""Mistral's formats: `[TOOL_CALLS]` before a JSON list of calls, or before each name, which `[ARGS]` follows."""

import re

from recall.tool_calls.spoken import made, turn_of, without_thinking
from recall.tool_calls.values import call_named, call_of, read_json
from recall.types import AssistantTurn, MalformedCall, ToolCall

CALLS = "[TOOL_CALLS]"

_NAMED = re.compile(r"\s*([^\[\]{}\s]+)\s*(?:\[CALL_ID\]\s*([^\[\]{}\s]*)\s*)?(?:\[ARGS\])?\s*")


def parse(text: str) -> AssistantTurn:
    """What a turn of a Mistral model says. Never raises."""
    thinking, rest = without_thinking(text, CALLS, ("[THINK]", "[/THINK]"))
    said, *parts = rest.split(CALLS)
    calls = [call for part in parts for call in (_listed(part) if part.lstrip().startswith("[") else [_named(part)])]
    return turn_of(text, thinking, [said], calls)


def _listed(part: str) -> list[ToolCall | MalformedCall]:
    begin = len(part) - len(part.lstrip())
    values, stop, problem = read_json(part, begin)
    if problem or part[stop:].strip():
        return [MalformedCall(part.strip(), problem or "there is text after the JSON list")]
    source = part[begin:stop]
    return [made(call_of(value, source, also=("id",)), source) for value in values]


def _named(part: str) -> ToolCall | MalformedCall:
    head = _NAMED.match(part)
    if head is None:
        return MalformedCall(part.strip(), f"write {CALLS}, the name of a tool, [ARGS] and a JSON object of arguments")
    value, stop, problem = read_json(part, head.end())
    if problem or part[stop:].strip():
        return MalformedCall(part.strip(), problem or "there is text after the JSON object")
    return made(call_named(head[1], value, part[head.end() : stop], number=head[2] or ""), part)
