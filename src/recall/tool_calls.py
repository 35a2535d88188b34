"""The one parser and the one formatter of tool calls, in the dialects `recall` and `research`.

`recall` writes JSON between `<tool_call>` tags; `research` knows one tool, whose query stands between `<search>` tags.

Whatever a model writes parses to a value: a call that cannot be understood is a `MalformedCall` that says why. Nothing
here knows which tools exist or checks arguments against a schema; that is the environment's work.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from recall.answers import extract_boxed
from recall.types import AssistantTurn, MalformedCall, ToolCall

MAX_DEPTH = 64
"""Arguments nested deeper than this are refused, so that no later encoder can run out of stack on them."""

SEARCH = "wikipedia_search"
"""The tool that the dialect `research` calls; its argument is `query`."""
SEARCH_END = "</search>"
"""Ends a turn of the dialect `research`: the result follows within the same message."""

_TAG = re.compile(r"<think>|</think>|<tool_call>")
_CALL_END = re.compile(r"</?tool_call>")
_SPACE = re.compile(r"\s*")
_THINK = re.compile(r"<think>|</think>")
_SEARCH_TAG = re.compile(r"<(?=\s*/?\s*(?:think|search|result|answer)\b)", re.IGNORECASE)


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
    return AssistantTurn(
        text=text,
        thinking="\n".join(thought.strip() for thought in thoughts),
        calls=tuple(calls),
        # Joined by a line break, so that text before and after a call cannot grow together into a box.
        answer=extract_boxed("\n".join(visible)),
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


def parse_search_turn(text: str) -> AssistantTurn:
    r"""Parse one sampled turn of the dialect `research`. Never raises.

    The first `</search>` ends the turn, within thinking too: what stands between it and the `<search>` before it is the
    query, and whatever follows is ignored. A turn without one ends the episode, and its answer is the last `\boxed{}`
    outside thinking. Thinking lasts to the end where `</think>` is missing; where only `<think>` is missing, because it
    stands before an earlier search, the text before `</think>` is thinking.

    Args:
        text: the decoded turn without its stop token.
    """
    before, end, _ = text.partition(SEARCH_END)
    thinking, visible = _thoughts(before)
    if not end:
        return AssistantTurn(text=text, thinking=thinking, answer=extract_boxed(visible))
    _, start, query = before.rpartition("<search>")
    call: ToolCall | MalformedCall
    if not start:
        call = MalformedCall(before.strip(), "there is no <search> before </search>")
    elif not query.strip():
        call = MalformedCall("", "empty: write what to look for between <search> and </search>")
    else:
        call = ToolCall(SEARCH, {"query": query.strip()})
    return AssistantTurn(text=text, thinking=thinking, calls=(call,))


def format_search(query: str) -> str:
    """Write a search as a model should write it; `parse_search_turn` reads the same query back."""
    return f"<search> {query} {SEARCH_END}"


def format_search_results(results: Sequence[str]) -> str:
    """Write the results of one turn. No text in them is a tag of the dialect: the `<` of one becomes `&lt;`."""
    return "".join(f" <result>\n{_SEARCH_TAG.sub('&lt;', result)}\n</result>" for result in results)


def _thoughts(text: str) -> tuple[str, str]:
    """What is thought in a turn of the dialect `research`, and what is said outside of it."""
    thoughts: list[str] = []
    visible: list[str] = []
    position, thinking = 0, False
    for tag in _THINK.finditer(text):
        part = text[position : tag.start()]
        if tag[0] == "<think>" and not thinking:
            visible.append(part)
            thinking = True
        elif tag[0] == "</think>" and not thinking and not thoughts:
            thoughts += [*visible, part]
            visible.clear()
        elif tag[0] == "</think>" and not thinking:
            visible.append(part)
        else:
            thoughts.append(part)
            thinking = tag[0] == "<think>"
        position = tag.end()
    (thoughts if thinking else visible).append(text[position:])
    return "\n".join(thought.strip() for thought in thoughts if thought.strip()), "\n".join(visible)


def _parse_call(text: str, start: int) -> tuple[ToolCall | MalformedCall, int]:
    """Parse the call whose `<tool_call>` ends at `start`; return it and where the text goes on."""
    begin = _end_of_space(text, start)
    problem = ""
    try:
        value, stop = _DECODER.raw_decode(text, begin)
    except json.JSONDecodeError as fault:
        value, stop = None, begin
        problem = f"not valid JSON: {fault.msg} at character {fault.pos - begin}" if begin < len(text) else "empty"
    except ValueError as fault:
        value, stop = None, begin
        problem = f"not valid JSON: {fault}"
    except RecursionError:
        value, stop = None, begin
        problem = f"nested deeper than {MAX_DEPTH} levels"
    end, resume = _end_of_call(text, stop)
    inner = text[start:end].strip()
    if not inner:
        problem = 'empty: write {"name": …, "arguments": {…}} between the tags'
    if not problem and text[stop:end].strip():
        problem = "there is text after the JSON object"
    if problem:
        return MalformedCall(inner, problem), resume
    call = _call_of(value, text[begin:stop])
    return (call if isinstance(call, ToolCall) else MalformedCall(inner, call)), resume


def _end_of_call(text: str, start: int) -> tuple[int, int]:
    """Where the call's content ends, and where parsing goes on: behind `</tool_call>`, or at the next `<tool_call>`."""
    tag = _CALL_END.search(text, start)
    if tag is None:
        return len(text), len(text)
    return tag.start(), tag.end() if tag[0] == "</tool_call>" else tag.start()


def _call_of(value: Any, source: str) -> ToolCall | str:
    """The call that a decoded JSON value says, or what is wrong with it."""
    if not isinstance(value, dict):
        return f'must be a JSON object {{"name": …, "arguments": {{…}}}}, not {_kind(value)}'
    unknown = value.keys() - {"name", "arguments"}
    if unknown:
        return f'unknown key "{min(unknown)}": the keys are "name" and "arguments"'
    name, arguments = value.get("name"), value.get("arguments")
    if not isinstance(name, str) or not name:
        return '"name" must be the name of a tool' + ("" if "name" in value else "; it is missing")
    if isinstance(arguments, str):
        try:
            arguments = _DECODER.decode(arguments)
        except (ValueError, RecursionError):
            return '"arguments" must be a JSON object, not text'
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        return f'"arguments" must be a JSON object, not {_kind(arguments)}'
    if source.count("[") + source.count("{") > MAX_DEPTH and _depth(arguments) > MAX_DEPTH:
        return f"nested deeper than {MAX_DEPTH} levels"
    if not _encodable(name, arguments, source):
        return "holds half of a surrogate pair, which is no character"
    return ToolCall(name, arguments)


def _encodable(name: str, arguments: dict[str, Any], source: str) -> bool:
    """Whether the call can be sent as UTF-8; only an escape or a lone surrogate in the source can prevent it."""
    if source.isascii() and "\\u" not in source:
        return True
    try:
        json.dumps([name, arguments], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth


def _kind(value: Any) -> str:
    names = {list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number", dict: "an object"}
    return names.get(type(value), "null")


def _end_of_space(text: str, start: int) -> int:
    space = _SPACE.match(text, start)
    return space.end() if space else start


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    decoded = dict(pairs)
    if len(decoded) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f'the key "{next(key for key in keys if keys.count(key) > 1)}" is written twice')
    return decoded


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits} is too large")
    return number


def _integer(digits: str) -> int:
    # Python refuses to read more digits than this; its own message speaks of interpreter settings.
    if len(digits) > 4000:
        raise ValueError("an integer of more than 4000 digits")
    return int(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


# A raw line break inside a string is read as meant: models write multi-line arguments that way.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_finite, parse_int=_integer, parse_constant=_no_constant, strict=False
)
