"""Qwen3-Coder's format: `<function=NAME>` with a `<parameter=KEY>` each, between `<tool_call>` tags.

Every argument is written as text, without quotes; only the tool's schema says of which type it is. `typed` reads the
texts by the schema. Until then they are taken for what they look like.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from recall.tool_calls.spoken import made, turn_of, without_thinking
from recall.tool_calls.values import call_named, read_json
from recall.types import AssistantTurn, MalformedCall, ToolCall, ToolSpec

_BLOCK = re.compile(r"<tool_call>|<function=")
_NEXT = re.compile(r"</parameter>\s*(?=<parameter=|</function>|</tool_call>|\Z)|(?=<parameter=)|(?=</function>)|\Z")
_CLOSING = re.compile(r"</function>\s*</tool_call>")
_PYTHON = {"True": True, "False": False, "None": None}


def parse(text: str) -> AssistantTurn:
    """What a turn of Qwen3-Coder says. Never raises."""
    thinking, rest = without_thinking(text, "<tool_call>")
    said: list[str] = []
    calls: list[ToolCall | MalformedCall] = []
    position = 0
    while block := _BLOCK.search(rest, position):
        said.append(rest[position : block.start()])
        begin = block.end() if block[0] == "<tool_call>" else block.start()
        end, position = _block_end(rest, begin, block[0])
        calls.append(made(_call(rest[begin:end].strip()), rest[begin:end]))
    said.append(rest[position:])
    return turn_of(text, thinking, said, calls)


def typed(turn: AssistantTurn, tools: Sequence[ToolSpec]) -> AssistantTurn:
    """The turn with arguments that were written as texts read by the schemas of `tools`."""
    if not any(isinstance(call, ToolCall) and call.texts for call in turn.calls):
        return turn
    schemas = {tool.name: tool.parameters.get("properties", {}) for tool in tools}
    return replace(turn, calls=tuple(_typed(call, schemas.get(getattr(call, "name", ""), {})) for call in turn.calls))


def _typed(call: ToolCall | MalformedCall, properties: Any) -> ToolCall | MalformedCall:
    if not isinstance(call, ToolCall) or not call.texts or not isinstance(properties, Mapping):
        return call
    arguments = {
        key: call.texts[key] if key in call.texts and _is_text(properties.get(key), call.texts[key]) else value
        for key, value in call.arguments.items()
    }
    return replace(call, arguments=arguments)


def _is_text(schema: Any, text: str) -> bool:
    """Whether a parameter of this schema takes `text` as it is."""
    kinds = _kinds(schema)
    return "string" in kinds and not (text == "null" and "null" in kinds)


def _kinds(schema: Any) -> set[str]:
    """The JSON types that a schema names; those of what it chooses from included."""
    if not isinstance(schema, Mapping):
        return set()
    named = schema.get("type")
    kinds = {named} if isinstance(named, str) else set(named) if isinstance(named, list) else set()
    for choice in ("anyOf", "oneOf"):
        for one in schema.get(choice) or ():
            kinds |= _kinds(one)
    if not kinds and all(isinstance(value, str) for value in schema.get("enum") or [0]):
        kinds = {"string"}
    return kinds


def _block_end(text: str, begin: int, opening: str) -> tuple[int, int]:
    """Where the block's content ends, and where the text goes on after it.

    A value may spell `</tool_call>`, so the one behind `</function>` is the block's, unless another block begins first.
    """
    if opening != "<tool_call>":
        end = text.find("</function>", begin)
        end = len(text) if end < 0 else end + len("</function>")
        return end, end
    closing = _CLOSING.search(text, begin)
    if closing and "<tool_call>" not in text[begin : closing.start()]:
        return closing.start() + len("</function>"), closing.end()
    end = text.find("</tool_call>", begin)
    return (len(text), len(text)) if end < 0 else (end, end + len("</tool_call>"))


def _call(block: str) -> ToolCall | str:
    if not block.startswith("<function="):
        return "write <function=NAME>, a <parameter=NAME> for each argument, and </function>"
    name, closed, body = block.removeprefix("<function=").partition(">")
    if not closed or not name.strip() or "\n" in name:
        return "there is no name in <function=NAME>"
    texts: dict[str, str] = {}
    body = body.strip()
    position = 0
    while body.startswith("<parameter=", position):
        close = body.find(">", position)
        if close < 0:
            return "<parameter=NAME> is not closed"
        key = body[position + len("<parameter=") : close].strip()
        end = _NEXT.search(body, close + 1)
        stop = end.start() if end else len(body)
        if not key or key in texts:
            return f'"{key}" is written twice' if key else "there is no name in <parameter=NAME>"
        texts[key] = body[close + 1 : stop].removeprefix("\n").removesuffix("\n")
        position = end.end() if end else len(body)
    if body[position:].strip() not in ("", "</function>"):
        return "there is text outside of the parameters"
    call = call_named(name.strip(), {key: _looks_like(text) for key, text in texts.items()}, block)
    return replace(call, texts=texts) if isinstance(call, ToolCall) else call


def _looks_like(text: str) -> Any:
    """The JSON value that a text spells, or else the text."""
    word = text.strip()
    if word in _PYTHON:
        return _PYTHON[word]
    value, stop, problem = read_json(word, 0)
    return text if problem or stop < len(word) else value
