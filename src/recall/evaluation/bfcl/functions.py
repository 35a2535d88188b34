"""The leaderboard's function documents as tool schemas, and what a model wrote as the calls that the checkers read."""

import json
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from recall.types import ToolCall, ToolSpec

_TYPES: Mapping[str, str] = MappingProxyType({"dict": "object", "float": "number", "tuple": "array", "any": "string"})
"""Python's names of types that JSON Schema has other names for. `any` is checked as a string by the leaderboard."""
_HINTS: Mapping[str, str] = MappingProxyType(
    {
        "python": " Note that the provided function is in Python 3 syntax.",
        "java": " Note that the provided function is in Java 8 SDK syntax.",
        "javascript": " Note that the provided function is in JavaScript syntax.",
    }
)
"""What the leaderboard adds to the description of every function."""
_SPOKEN: Mapping[str, str] = MappingProxyType({"java": "Java", "javascript": "JavaScript"})
_NAME = re.compile(r"[^A-Za-z0-9_-]")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def tool_name(name: str) -> str:
    """A function's name as a tool: models are told underscores for points, as servers of models accept no points."""
    return _NAME.sub("_", name)


def tools_of(functions: Iterable[Mapping[str, Any]], language: str = "python") -> tuple[ToolSpec, ...]:
    """The schemas of documented functions; those of Java and JavaScript take all values as source text."""
    return tuple(
        ToolSpec(
            tool_name(each["name"]),
            each.get("description", "") + _HINTS[language],
            _schema(each["parameters"]) if language == "python" else _in_source(each["parameters"], language),
        )
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


def _in_source(parameters: Mapping[str, Any], language: str) -> dict[str, Any]:
    """The parameters of a function of another language: each a string whose description says what stands in it."""
    name = _SPOKEN[language]
    properties = {}
    for key, value in parameters["properties"].items():
        kind = value["type"]
        about = value.get("description", "")
        if kind == "any":
            about += f" This parameter can be of any type of {name} object in string representation."
        else:
            about += f" This is {name} {kind} type parameter in string representation."
        if kind in ("ArrayList", "Array", "array") and "items" in value:
            about += f" The list elements are of type {value['items']['type']}; they are not in string representation."
        if kind == "dict" and "properties" in value:
            schema = json.dumps(value["properties"])
            about += (
                f" The dictionary entries have the following schema; they are not in string representation. {schema}"
            )
        rest = {name: each for name, each in value.items() if name not in ("items", "properties")}
        properties[key] = {**rest, "type": "string", "description": about}
    return {**parameters, "type": "object", "properties": properties}


def as_code(name: str, arguments: Mapping[str, Any]) -> str | None:
    """A call as the checkers of several turns read it, `name(argument=value)`; None when it cannot be written so.

    The checkers evaluate this text, so names must be identifiers, and values are written as Python literals.
    """
    if not _IDENTIFIER.fullmatch(name) or not all(_IDENTIFIER.fullmatch(each) for each in arguments):
        return None
    return f"{name}({', '.join(f'{each}={value!r}' for each, value in arguments.items())})"


def as_official(call: ToolCall) -> dict[str, dict[str, Any]]:
    """A call as the checkers of single turns read it: `{name: {argument: value}}`."""
    return {call.name: dict(call.arguments)}
