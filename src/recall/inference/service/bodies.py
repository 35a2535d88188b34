"""What a chat completion request asks: read from its body, refused with the field where it cannot be."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recall.tool_calls.values import DECODER, call_named
from recall.types import Message, ToolCall, ToolSpec

IGNORED = frozenset({"user", "store", "metadata", "service_tier", "parallel_tool_calls", "stream_options", "n"})
"""Fields that are accepted and change nothing; `n` must be 1."""
_KNOWN = frozenset(
    {"model", "messages", "tools", "tool_choice", "stream", "temperature", "top_p", "seed", "max_tokens"}
    | {"max_completion_tokens"}
    | IGNORED
)


class BodyError(Exception):
    """A request that cannot be answered; the message names the field."""

    def __init__(self, param: str, problem: str, code: str = "invalid_value") -> None:
        super().__init__(f"{param}: {problem}")
        self.param, self.code = param, code


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    model: str
    """The name that it gives the model."""
    messages: tuple[Message, ...]
    """The conversation."""
    tools: tuple[ToolSpec, ...]
    """The caller's own tools, whose calls are handed back."""
    stream: bool
    """Whether the answer is to come in pieces."""
    usage: bool
    """With a stream: whether a last piece says how many tokens there were."""
    temperature: float | None
    top_p: float | None
    seed: int | None
    max_tokens: int | None
    """Of one turn."""

    @property
    def results(self) -> dict[str, str]:
        """By the id of the call, the results that end the conversation."""
        found: dict[str, str] = {}
        for message in reversed(self.messages):
            if message.role != "tool":
                break
            found[message.call_id] = message.content
        return found


def read(body: bytes) -> Asked:
    """The request that a body says.

    Raises:
        BodyError: it says none that can be answered.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise BodyError("body", "is not JSON") from None
    if not isinstance(value, dict):
        raise BodyError("body", "must be a JSON object")
    if unknown := sorted(value.keys() - _KNOWN):
        raise BodyError(unknown[0], f"is not supported; supported are {', '.join(sorted(_KNOWN))}", "unsupported")
    if value.get("n") not in (None, 1):
        raise BodyError("n", "must be 1")
    if value.get("tool_choice") not in (None, "auto", "none"):
        raise BodyError("tool_choice", "must be auto or none")
    messages = value.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BodyError("messages", "must be a list of messages, and not empty")
    read_messages = [_message(message, f"messages[{place}]") for place, message in enumerate(messages)]
    tools = [] if value.get("tool_choice") == "none" else value.get("tools") or []
    if not isinstance(tools, list):
        raise BodyError("tools", "must be a list")
    options = value.get("stream_options") or {}
    return Asked(
        model=_text(value, "model"),
        messages=_named(read_messages),
        tools=tuple(_tool(tool, f"tools[{place}]") for place, tool in enumerate(tools)),
        stream=bool(value.get("stream")),
        usage=isinstance(options, dict) and bool(options.get("include_usage")),
        temperature=_number(value, "temperature", 0, 100),
        top_p=_number(value, "top_p", 0, 1),
        seed=_whole(value, "seed"),
        max_tokens=_whole(value, "max_completion_tokens", 1) or _whole(value, "max_tokens", 1),
    )


def _text(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str | None):
        raise BodyError(name, "must be text")
    return found or ""


def _whole(value: Mapping[str, Any], name: str, least: int | None = None) -> int | None:
    found = value.get(name)
    if found is None:
        return None
    if not isinstance(found, int) or isinstance(found, bool):
        raise BodyError(name, "must be a whole number")
    if least is not None and found < least:
        raise BodyError(name, f"must be at least {least}")
    return found


def _number(value: Mapping[str, Any], name: str, least: float, most: float) -> float | None:
    found = value.get(name)
    if found is None:
        return None
    if not isinstance(found, int | float) or isinstance(found, bool) or not least <= found <= most:
        raise BodyError(name, f"must be a number from {least:g} to {most:g}")
    return float(found)


def _message(value: Any, where: str) -> Message:
    role = value.get("role") if isinstance(value, dict) else None
    if role == "developer":
        role = "system"
    if role not in ("system", "user", "assistant", "tool"):
        raise BodyError(f"{where}.role", "must be system, developer, user, assistant or tool")
    content = _content(value.get("content"), f"{where}.content", may_be_empty=role == "assistant")
    calls = tuple(
        _call(call, f"{where}.tool_calls[{place}]") for place, call in enumerate(value.get("tool_calls") or ())
    )
    if calls and role != "assistant":
        raise BodyError(f"{where}.tool_calls", "belong to the assistant")
    call_id = value.get("tool_call_id", "")
    if role == "tool" and (not isinstance(call_id, str) or not call_id):
        raise BodyError(f"{where}.tool_call_id", "must name the call")
    return Message(role, content, call_id=call_id if role == "tool" else "", calls=calls)


def _content(value: Any, where: str, *, may_be_empty: bool) -> str:
    if isinstance(value, str):
        return value
    if value is None and may_be_empty:
        return ""
    if isinstance(value, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        return "".join(str(part.get("text", "")) for part in value)
    raise BodyError(where, "must be text, or a list of parts of type text")


def _call(value: Any, where: str) -> ToolCall:
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BodyError(where, "must be a function call with an id and a name")
    arguments = function.get("arguments") or "{}"
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    try:
        decoded = DECODER.decode(text)
    except (ValueError, RecursionError):
        raise BodyError(f"{where}.function.arguments", "must be the JSON text of an object") from None
    found = call_named(function["name"], decoded, text, number=str(value.get("id") or ""))
    if not isinstance(found, ToolCall):
        raise BodyError(f"{where}.function", found)
    return found


def _tool(value: Any, where: str) -> ToolSpec:
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise BodyError(where, "must be of type function, with a name")
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    if not isinstance(parameters, dict):
        raise BodyError(f"{where}.function.parameters", "must be a JSON Schema")
    return ToolSpec(function["name"], str(function.get("description") or ""), parameters)


def _named(messages: list[Message]) -> tuple[Message, ...]:
    """The messages, results with the names of the tools that were called."""
    names = {call.id: call.name for message in messages for call in message.calls}
    return tuple(
        Message("tool", message.content, name=names.get(message.call_id, ""), call_id=message.call_id)
        if message.role == "tool"
        else message
        for message in messages
    )
