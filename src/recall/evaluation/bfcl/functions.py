"""The leaderboard's function documents as tool schemas, and what a model wrote as the calls that the checkers read."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recall.types import ToolCall, ToolSpec

_TYPES: Mapping[str, str] = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}
"""Python's names of types that JSON Schema has other names for. `any` is checked as a string by the leaderboard."""
_NAME = re.compile(r"[^A-Za-z0-9_-]")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def tool_name(name: str) -> str:
    """A function's name as a tool: models are told underscores for points, as servers of models accept no points."""
    return _NAME.sub("_", name)


def tools_of(functions: Iterable[Mapping[str, Any]]) -> tuple[ToolSpec, ...]:
    """The schemas of documented functions."""
    return tuple(
        ToolSpec(tool_name(each["name"]), each.get("description", ""), _schema(each["parameters"]))
        for each in functions
    )


def _schema(value: Any) -> Any:
    """A schema with JSON Schema's types throughout; what is not a schema stays."""
    if isinstance(value, list):
        return [_schema(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    schema = {key: item if key in ("default", "enum") else _schema(item) for key, item in value.items()}
    if isinstance(schema.get("type"), str):
        schema["type"] = _TYPES.get(schema["type"], schema["type"])
    return schema


def as_ast(calls: Sequence[ToolCall], functions: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Calls as the checkers of single turns read them: `[{name: {argument: value}}]`, by the functions' own names."""
    own = {tool_name(each["name"]): each["name"] for each in functions}
    return [{own.get(call.name, call.name): dict(call.arguments)} for call in calls]


def as_code(call: ToolCall) -> str | None:
    """A call as the checkers of several turns read it, `name(argument=value)`; None when it cannot be written so.

    The checkers evaluate this text, so names must be identifiers, and values are written as Python literals.
    """
    if not _IDENTIFIER.fullmatch(call.name) or not all(_IDENTIFIER.fullmatch(name) for name in call.arguments):
        return None
    return f"{call.name}({', '.join(f'{name}={value!r}' for name, value in call.arguments.items())})"
