"""The dialect `recall`: JSON between `<tool_call>` tags, as Qwen2.5, Qwen3 and Hermes write it too."""

import json
import re
from collections.abc import Iterable, Sequence

from recall.answers import extract_boxed
from recall.tool_calls.values import call_of, end_of_space, read_json
from recall.types import AssistantTurn, MalformedCall, ToolCall

_TAG = re.compile(r"<think>|</think>|<tool_call>")
_CALL_END = re.compile(r"</?tool_call>")


def parse_turn(text: str) -> AssistantTurn:
    """Parse one sampled turn. Never raises.

    Tags inside the JSON of a call belong to the call, and calls inside thinking are only thoughts. A call is complete
    when its JSON is: `</tool_call>` may be missing at the end of the turn or before the next `<tool_call>`. Thinking
    lasts to the end of the turn where `</think>` is missing; where only `<think>` is missing (a chat template may have
    written it), the text before `</think>` is thinking unless a call came first.

    Args:
        text: the decoded turn without its stop token.
    """
    thoughts: list[str] = []
    visible: list[str] = []
    calls: list[ToolCall | MalformedCall] = []
    position = 0
    while tag := _TAG.search(text, position):
        visible.append(text[position : tag.start()])
        position = tag.end()
        if tag[0] == "<tool_call>":
            call, position = _parse_call(text, position)
            calls.append(call)
        elif tag[0] == "<think>":
            end = text.find("</think>", position)
            thoughts.append(text[position:] if end < 0 else text[position:end])
            position = len(text) if end < 0 else end + len("</think>")
        elif not thoughts and not calls:
            thoughts.append("".join(visible))
            visible.clear()
    visible.append(text[position:])
    said = "\n".join(visible)  # by a line break, so that text before and after a call cannot grow together into a box
    return AssistantTurn(
        text=text,
        thinking="\n".join(thought.strip() for thought in thoughts),
        calls=tuple(calls),
        answer=extract_boxed(said),
        content=said.strip(),
    )


def format_call(call: ToolCall) -> str:
    """Write a call as a model should write it; `parse_turn` reads the same call back.

    Raises:
        ValueError: the arguments hold NaN or an infinity, which JSON cannot say.
        TypeError: the arguments are not JSON values.
    """
    body = json.dumps({"name": call.name, "arguments": dict(call.arguments)}, ensure_ascii=False, allow_nan=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def format_calls(calls: Iterable[ToolCall]) -> str:
    """Write calls one below the other, as in one turn."""
    return "\n".join(format_call(call) for call in calls)


def format_results(results: Sequence[str]) -> str:
    """Write the results of one turn's calls, in the order of the calls, each between its own tags."""
    return "\n".join(f"<tool_response>\n{result}\n</tool_response>" for result in results)


def _parse_call(text: str, start: int) -> tuple[ToolCall | MalformedCall, int]:
    """Parse the call whose `<tool_call>` ends at `start`; return it and where the text goes on."""
    begin = end_of_space(text, start)
    value, stop, problem = read_json(text, begin)
    end, resume = _end_of_call(text, stop)
    inner = text[start:end].strip()
    if not inner:
        problem = 'empty: write {"name": …, "arguments": {…}} between the tags'
    if not problem and text[stop:end].strip():
        problem = "there is text after the JSON object"
    if problem:
        return MalformedCall(inner, problem), resume
    call = call_of(value, text[begin:stop])
    return (call if isinstance(call, ToolCall) else MalformedCall(inner, call)), resume


def _end_of_call(text: str, start: int) -> tuple[int, int]:
    """Where the call's content ends, and where parsing goes on: behind `</tool_call>`, or at the next `<tool_call>`."""
    tag = _CALL_END.search(text, start)
    if tag is None:
        return len(text), len(text)
    return tag.start(), tag.end() if tag[0] == "</tool_call>" else tag.start()
