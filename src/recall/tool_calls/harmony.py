"""The format of GPT-OSS, harmony: a turn is a run of messages, each with a channel, some with a recipient.

What goes to `analysis` is thinking, what goes to `functions.NAME` is a call, and everything else is said.
"""

import re

from recall.tool_calls.spoken import made, turn_of
from recall.tool_calls.values import call_named, end_of_space, read_json
from recall.types import AssistantTurn, MalformedCall, ToolCall

_START = "<|start|>"
_MESSAGE = "<|message|>"
_ENDS = re.compile(r"<\|(?:end|call|return)\|>")
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")


def parse(text: str) -> AssistantTurn:
    """What a turn of GPT-OSS says. Never raises."""
    thoughts: list[str] = []
    said: list[str] = []
    calls: list[ToolCall | MalformedCall] = []
    for part in text.split(_START):
        header, begun, content = part.partition(_MESSAGE)
        recipient, channel = _RECIPIENT.search(header), _CHANNEL.search(header)
        if not begun:
            if recipient:
                calls.append(MalformedCall(part.strip(), f"there is no {_MESSAGE} before its arguments"))
            elif not channel:
                said.append(_ENDS.sub("", part))
            continue
        end = _ENDS.search(content)
        content = content[: end.start()] if end else content
        if recipient:
            calls.append(_call(recipient[1].removeprefix("functions."), content))
        elif channel and channel[1] == "analysis":
            thoughts.append(content.strip())
        else:
            said.append(content)
    return turn_of(text, "\n".join(thought for thought in thoughts if thought), said, calls)


def _call(name: str, content: str) -> ToolCall | MalformedCall:
    value, stop, problem = read_json(content, end_of_space(content, 0))
    if not problem and content[stop:].strip():
        problem = "there is text after the JSON object"
    if problem or not name:
        return MalformedCall(content.strip(), problem or "there is no name after functions.")
    return made(call_named(name, value, content), content)
