"""Conversations as ids, for servers that take and return text: the renderer of every chat endpoint.

The loop speaks in token ids, and such a server has none to offer. So a message is written as JSON, its UTF-8 four bytes
to an id, which is about what a token holds, between ids that no text can spell. They are read back losslessly when a
request is made. They are no model's vocabulary, and a trajectory of them is marked and never learned from.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recall.answers import extract_boxed
from recall.tool_calls import parse_turn
from recall.tool_calls.values import DECODER, call_named
from recall.types import AssistantTurn, MalformedCall, Message, ToolCall, ToolSpec

TOOLS, MESSAGE, REPLY, END = 0, 1, 2, 3
"""Control ids: the schemas follow; a message follows; the assistant is to speak; it has spoken."""
_FIRST = 16
_BYTES = 4


def packed(text: str) -> list[int]:
    """[n] ids of a text, four bytes of its UTF-8 to each; a leading 1 tells how many there are in the last."""
    data = text.encode("utf-8", "replace")
    return [
        _FIRST + int.from_bytes(b"\1" + data[start : start + _BYTES], "big") for start in range(0, len(data), _BYTES)
    ]


def unpacked(ids: Sequence[int]) -> str:
    """The text of ids, as far as they are ones; never raises."""
    data = bytearray()
    for number in ids:
        rest = number - _FIRST
        if rest > 0:
            data += rest.to_bytes((rest.bit_length() + 7) // 8, "big")[1:]
    return data.decode("utf-8", "replace")


def parts(ids: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """What the ids hold: pairs of a control id and the JSON value after it, None where none can be read."""
    starts = [place for place, number in enumerate(ids) if number < _FIRST]
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        yield ids[start], _read(unpacked(ids[start + 1 : end]))


def assistant(content: str, calls: Sequence[Mapping[str, Any]] = (), thinking: str = "") -> dict[str, Any]:
    """An assistant's message as the wire has it."""
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if calls:
        message["tool_calls"] = list(calls)
    if thinking:
        message["reasoning_content"] = thinking
    return message


class ChatRenderer:
    r"""Between messages and the ids of this module; implements `recall.renderer.Renderer`.

    An answer is the content of `\boxed{}`, or else all that a turn without calls says.
    """

    stop_token_ids = frozenset({END})
    stop_texts: tuple[str, ...] = ()

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[int]:
        """[n] ids of the schemas and the messages."""
        ids: list[int] = []
        if tools:
            listed = [
                {
                    "type": "function",
                    "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
                }
                for tool in tools
            ]
            ids += [TOOLS, *packed(json.dumps(listed, ensure_ascii=False))]
        return ids + self.reply(messages)

    def reply(self, messages: Sequence[Message]) -> list[int]:
        """[n] ids of messages, and the opening of the assistant's."""
        ids: list[int] = []
        for message in messages:
            ids += [MESSAGE, *packed(json.dumps(_wire(message), ensure_ascii=False))]
        return [*ids, REPLY]

    def parse(self, token_ids: Sequence[int]) -> AssistantTurn:
        """What a sampled turn says; never raises."""
        message = _read(unpacked(token_ids))
        if not isinstance(message, dict):
            return AssistantTurn("")
        content = message.get("content") if isinstance(message.get("content"), str) else ""
        written = message.get("tool_calls")
        if not written:  # a server without a parser of its own leaves the tags in the text
            said = parse_turn(str(content))
            calls, text, thinking = said.calls, said.content, said.thinking
        else:
            calls, text, thinking = tuple(map(_call, written)), str(content).strip(), ""
        thinking = thinking or str(message.get("reasoning_content") or "")
        answer = extract_boxed(text)
        if answer is None and not calls and text:
            answer = text
        return AssistantTurn(str(content), thinking, calls, answer, text)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The conversation for people to read."""
        if not any(number in (TOOLS, MESSAGE, REPLY) for number in token_ids):
            value = _read(unpacked(token_ids))
            return _shown(value) if isinstance(value, dict) else unpacked(token_ids)
        lines = []
        for control, value in parts(token_ids):
            if control == TOOLS:
                lines.append(f"[tools]\n{json.dumps(value, ensure_ascii=False)}\n")
            elif control == MESSAGE and isinstance(value, dict):
                lines.append(f"[{value.get('role')}]\n{_shown(value)}\n")
            elif control == REPLY:
                lines.append("[assistant]\n" + (_shown(value) + "\n" if isinstance(value, dict) else ""))
        return "".join(lines)

    def turn(self, text: str) -> list[int]:
        """[n] ids of a turn that says `text`."""
        return self.spoken(assistant(text))

    def call_turn(self, calls: Sequence[ToolCall], text: str = "") -> list[int]:
        """[n] ids of a turn that makes calls."""
        return self.spoken(_wire(Message("assistant", text, calls=tuple(calls))))

    def spoken(self, message: Mapping[str, Any]) -> list[int]:
        """[n] ids of an assistant's message as a server returned it."""
        return [*packed(json.dumps(message, ensure_ascii=False)), END]


def _wire(message: Message) -> dict[str, Any]:
    """A message as a chat endpoint takes it."""
    if message.role == "assistant":
        calls = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments), ensure_ascii=False)},
            }
            for call in message.calls
        ]
        return assistant(message.content, calls)
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.call_id, "content": message.content}
    return {"role": message.role, "content": message.content}


def _call(written: Any) -> ToolCall | MalformedCall:
    """One of the calls of a server's message."""
    function = written.get("function") if isinstance(written, dict) else None
    if not isinstance(function, dict):
        return MalformedCall(json.dumps(written)[:1000], "it has no function")
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not name:
        return MalformedCall(json.dumps(written)[:1000], "the function has no name")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    number = written.get("id")
    found = call_named(name, arguments or {}, text, number=number if isinstance(number, str) else "")
    return found if isinstance(found, ToolCall) else MalformedCall(text, found)


def _read(text: str) -> Any:
    try:
        return DECODER.decode(text) if text else None
    except (ValueError, RecursionError):
        return None


def _shown(message: Mapping[str, Any]) -> str:
    """A message as text: what is thought, what is said, and the calls in the form of the dialect `recall`."""
    thinking = message.get("reasoning_content")
    lines = [f"<think>\n{thinking}\n</think>"] if thinking else []
    if message.get("content"):
        lines.append(str(message["content"]))
    for call in message.get("tool_calls") or ():
        function = call.get("function", {}) if isinstance(call, dict) else {}
        lines.append(f"<tool_call>\n{json.dumps(function, ensure_ascii=False)}\n</tool_call>")
    return "\n".join(lines)
