"""The formats of FunctionGemma and Gemma 4: `call:NAME{key:value}` between two marks, texts between marks too."""

from recall.tool_calls.literals import NotAValueError, Reader
from recall.tool_calls.spoken import made, turn_of, without_thinking
from recall.tool_calls.values import call_named
from recall.types import AssistantTurn, MalformedCall, ToolCall

_MARKS = (
    ("<start_function_call>", "<end_function_call>", "<escape>"),
    ("<|tool_call>", "<tool_call|>", '<|"|>'),
)
_CHANNEL = ("<|channel>thought\n", "<channel|>")


def parse(text: str) -> AssistantTurn:
    """What a turn of a Gemma model says. Never raises."""
    opening, closing, quote = next((marks for marks in _MARKS if marks[0] in text), _MARKS[0])
    thinking, rest = without_thinking(text, opening, _CHANNEL)
    said: list[str] = []
    calls: list[ToolCall | MalformedCall] = []
    position = 0
    while (begin := rest.find(opening, position)) >= 0:
        said.append(rest[position:begin])
        begin += len(opening)
        call, stop = _call(rest, begin, quote)
        # A mark within a text belongs to the text, so the end is looked for behind what was read.
        end = rest.find(closing, stop)
        end = len(rest) if end < 0 else end
        following = rest.find(opening, stop)
        end = min(end, following) if following >= 0 else end
        if isinstance(call, ToolCall) and rest[stop:end].strip():
            call = "there is text after the arguments"
        calls.append(made(call, rest[begin:end]))
        position = end + len(closing) if rest.startswith(closing, end) else end
    said.append(rest[position:])
    return turn_of(text, thinking, said, calls)


def _call(text: str, begin: int, quote: str) -> tuple[ToolCall | str, int]:
    """The call that begins at `begin`, or what is wrong with it, and where it ends."""
    reader = Reader(text, begin, quote=quote)
    if not reader.found("call:"):
        return "write call:NAME{key:value}", begin
    name = reader.word()
    if not name or not reader.found("{"):
        return "a name and its arguments in braces were expected after call:", begin
    start = reader.at
    try:
        arguments = reader.members("}", ":")
    except NotAValueError as fault:
        return str(fault), begin
    return call_named(name, arguments, text[start : reader.at]), reader.at
