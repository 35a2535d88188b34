"""The schema of a Python function, from its signature and its docstring.

Understands `str`, `int`, `float`, `bool`, `list`, `dict`, `Literal`, `Any`, unions and defaults; anything else is
refused by name. It describes functions and never calls them.
"""

import inspect
import re
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from recall.errors import ConfigError
from recall.types import ToolSpec

_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    list: {"type": "array"},
    dict: {"type": "object"},
    type(None): {"type": "null"},
    Any: {},
}
_PARAMETER = re.compile(r"^\s*\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.+)$")
_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Raises|Yields|Examples?|Notes?):\s*$")


def tool_from_function(function: Callable[..., Any]) -> ToolSpec:
    """What a policy is told about `function`.

    The description is the docstring up to its first section; the `Args:` section describes the parameters. A parameter
    without a default is required.

    Raises:
        ConfigError: a parameter has no type hint, or one that has no schema, or cannot be passed by name.
    """
    name = function.__name__
    try:
        hints = get_type_hints(function)
    except NameError as error:
        raise ConfigError(f"function {name!r}: a type hint cannot be resolved: {error}") from error
    description, about = read_docstring(inspect.getdoc(function) or "")
    properties: dict[str, Any] = {}
    required: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        where = f"function {name!r}, parameter {parameter.name!r}"
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(f"{where}: is {parameter.kind.description}; accepted: parameters passed by name")
        if parameter.name not in hints:
            raise ConfigError(f"{where}: has no type hint")
        schema = dict(_schema(hints[parameter.name], where))
        if parameter.name in about:
            schema["description"] = about[parameter.name]
        if parameter.default is parameter.empty:
            required.append(parameter.name)
        elif isinstance(parameter.default, str | int | float | bool | list | dict):
            schema["default"] = parameter.default
        properties[parameter.name] = schema
    return ToolSpec(name, description, {"type": "object", "properties": properties, "required": required})


def _schema(hint: Any, where: str) -> Mapping[str, Any]:
    if isinstance(hint, type | type(Any)) and hint in _PLAIN:
        return _PLAIN[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return _union(arguments, where)
    if origin is list:
        return {"type": "array", "items": _schema(arguments[0], where)}
    if origin is dict and arguments[0] is str:
        return {"type": "object", "additionalProperties": _schema(arguments[1], where)}
    raise ConfigError(
        f"{where}: no schema for {hint!r}; accepted: str, int, float, bool, list, dict, Literal, Any, unions of these"
    )


def _union(arguments: tuple[Any, ...], where: str) -> Mapping[str, Any]:
    """One schema with a list of types where the members are plain, `anyOf` otherwise."""
    members = [_schema(argument, where) for argument in arguments]
    if all(member.keys() == {"type"} for member in members):
        return {"type": [member["type"] for member in members]}
    return {"anyOf": members}


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The description, and what the `Args:` section says of each parameter, continuation lines joined."""
    description: list[str] = []
    about: dict[str, str] = {}
    section, name, indent = "", "", 0
    for line in text.splitlines():
        heading = _SECTION.match(line)
        if heading:
            section, name = heading[1], ""
        elif not section:
            description.append(line)
        elif section in ("Args", "Arguments", "Parameters") and line.strip():
            depth = len(line) - len(line.lstrip())
            found = _PARAMETER.match(line) if not name or depth <= indent else None
            if found:
                name, indent = found[1], depth
                about[name] = found[2].strip()
            elif name:
                about[name] += f" {line.strip()}"
    return "\n".join(description).strip(), about
