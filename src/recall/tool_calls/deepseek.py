"""DeepSeek's formats: names and JSON between tokens of their own; V3 and R1 with a fence around it, V3.1 without."""

from recall.tool_calls.spoken import made, turn_of, without_thinking
from recall.tool_calls.values import call_named, end_of_space, read_json
from recall.types import AssistantTurn, MalformedCall, ToolCall

_TOKEN = "<\uff5c{}\uff5c>"  # the bars are the fullwidth ones

CALLS = _TOKEN.format("tool▁calls▁begin")
END = _TOKEN.format("end▁of▁sentence")

_CALLS_END = _TOKEN.format("tool▁calls▁end")
_CALL = _TOKEN.format("tool▁call▁begin")
_CALL_END = _TOKEN.format("tool▁call▁end")
_BETWEEN = _TOKEN.format("tool▁sep")


def parse(text: str) -> AssistantTurn:
    """What a turn of a DeepSeek model says. Never raises."""
    thinking, rest = without_thinking(text, CALLS)
    said, begun, block = rest.partition(CALLS)
    if not begun:
        return turn_of(text, thinking, [rest], [])
    block, _, after = block.partition(_CALLS_END)
    parts = block.split(_CALL)
    calls: list[ToolCall | MalformedCall] = []
    if parts[0].strip() or len(parts) == 1:
        calls.append(MalformedCall(parts[0].strip(), f"write {_CALL} before each call"))
    calls += [_call(part) for part in parts[1:]]
    return turn_of(text, thinking, [said, after], calls)


def _call(part: str) -> ToolCall | MalformedCall:
    body, _, after = part.partition(_CALL_END)
    name, separated, arguments = body.partition(_BETWEEN)
    if after.strip() or not separated:
        problem = f"there is no {_BETWEEN} in it" if not separated else "there is text after the call"
        return MalformedCall(part.strip(), problem)
    if not arguments.lstrip().startswith("{"):  # the fence of V3, with the name before it
        name, _, arguments = arguments.partition("\n")
        fence = arguments.strip()
        if not fence.startswith("```"):
            return MalformedCall(part.strip(), "write the arguments as JSON between ```json and ```")
        arguments = fence.removeprefix("```json").removeprefix("```").removesuffix("```")
    begin = end_of_space(arguments, 0)
    value, stop, problem = read_json(arguments, begin)
    if not problem and arguments[stop:].strip():
        problem = "there is text after the JSON object"
    if problem or not name.strip():
        return MalformedCall(part.strip(), problem or "there is no name")
    return made(call_named(name.strip(), value, arguments), part)
