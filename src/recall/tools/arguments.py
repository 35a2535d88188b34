"""Arguments of a call against the tool's JSON Schema, with messages for the model that wrote them.

Nothing is coerced: what the schema refuses, the model is told about.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from recall.errors import ConfigError
from recall.tools.results import cut
from recall.types import ToolSpec

if TYPE_CHECKING:
    from jsonschema import ValidationError
    from jsonschema.protocols import Validator

_SHOWN_CHARS = 300
_TYPES: Mapping[str, frozenset[type]] = {
    "string": frozenset({str}),
    "integer": frozenset({int}),
    "number": frozenset({int, float}),
    "boolean": frozenset({bool}),
}
"""Python's types of which every value is of the schema's type."""
_SAYS_NOTHING = {"title", "description", "default"}
"""Keywords that refuse no value."""


class Arguments:
    """What the tools of one task accept.

    Most schemas name a type for each property and no more. Arguments that plainly fit such a one are let through
    without the library, which takes half a millisecond to check and prepare a schema; all others go through it.
    """

    def __init__(self, tools: Sequence[ToolSpec]) -> None:
        """Check and prepare the schemas.

        Raises:
            ConfigError: a schema is not valid JSON Schema, or does not describe an object.
        """
        self._tools = {tool.name: tool for tool in tools}
        self._plain = {tool.name: _plain(tool.parameters) for tool in tools}
        self._validators = {tool.name: _validator(tool) for tool in tools if self._plain[tool.name] is None}

    def problem(self, name: str, arguments: Mapping[str, Any]) -> str | None:
        """What is wrong with `arguments` for the tool `name`, told to the model; None when nothing is.

        Raises:
            KeyError: there is no such tool.
            ConfigError: the tool's schema refers to a schema that does not exist.
        """
        plain = self._plain[name]
        if plain is not None and plain.accepts(arguments):
            return None
        from referencing.exceptions import Unresolvable

        if name not in self._validators:
            self._validators[name] = _validator(self._tools[name])
        validator = self._validators[name]
        schema: Mapping[str, Any] = validator.schema
        unexpected = _unexpected(schema, arguments)
        if unexpected:
            return f"unexpected argument {unexpected[0]!r}; {_accepted(schema)}"
        try:
            error = next(validator.iter_errors(dict(arguments)), None)
        except Unresolvable as fault:
            raise ConfigError(f"tool {name!r}: parameters: {fault}") from fault
        return None if error is None else _explain(error, schema)


class _Plain(NamedTuple):
    """A schema that lists properties with a type each, and which of them are required."""

    types: Mapping[str, frozenset[type]]
    required: frozenset[str]

    def accepts(self, arguments: Mapping[str, Any]) -> bool:
        """Whether the arguments surely fit; the library may still accept what this does not."""
        nothing: frozenset[type] = frozenset()
        return self.required <= arguments.keys() and all(
            type(value) in self.types.get(name, nothing) for name, value in arguments.items()
        )


def _plain(schema: Mapping[str, Any]) -> _Plain | None:
    """The schema in short, where it says nothing that this would leave out."""
    properties, required = schema.get("properties"), schema.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list) or schema.get("type") != "object":
        return None
    if schema.keys() - {"type", "properties", "required"} - _SAYS_NOTHING or not set(map(type, required)) <= {str}:
        return None
    types: dict[str, frozenset[type]] = {}
    for name, described in properties.items():
        kind = described.get("type") if isinstance(described, dict) else None
        if not isinstance(kind, str) or kind not in _TYPES or described.keys() - {"type"} - _SAYS_NOTHING:
            return None
        if not all(isinstance(described.get(text, ""), str) for text in ("title", "description")):
            return None
        types[name] = _TYPES[kind]
    return _Plain(types, frozenset(required))


def validate(arguments: Mapping[str, Any], spec: ToolSpec) -> str | None:
    """What is wrong with `arguments` for one tool; None when nothing is. For many calls, keep an `Arguments`.

    Raises:
        ConfigError: the tool's schema is wrong.
    """
    return Arguments((spec,)).problem(spec.name, arguments)


def _validator(tool: ToolSpec) -> "Validator":
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry

    schema = tool.parameters
    if schema.get("type", "object") != "object":
        raise ConfigError(f"tool {tool.name!r}: parameters: type is {schema['type']!r}; accepted: 'object'")
    kind: type[Validator] = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        where = ".".join(map(str, error.absolute_path)) or "the schema"
        raise ConfigError(f"tool {tool.name!r}: parameters: {where}: {cut(error.message, _SHOWN_CHARS)}") from error
    # An empty registry: a reference to another machine is an error, never a download.
    return kind(schema, registry=Registry())


def _unexpected(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> list[str]:
    """Names that the schema does not list. Unlike plain JSON Schema, a list of properties is taken to be complete."""
    if "properties" not in schema or "additionalProperties" in schema or "patternProperties" in schema:
        return []
    return [name for name in arguments if name not in schema["properties"]]


def _explain(error: "ValidationError", schema: Mapping[str, Any]) -> str:
    path = list(error.absolute_path)
    where = f"argument '{_dotted(path)}': " if path else ""
    if error.validator == "required":
        held = error.instance if isinstance(error.instance, dict) else {}
        missing = [name for name in error.validator_value if name not in held]
        names = ", ".join(map(repr, missing))
        return f"{where}missing {names}" if path else f"missing argument {names}; {_accepted(schema)}"
    if error.validator == "additionalProperties" and not path:
        return f"{cut(error.message, _SHOWN_CHARS)}; {_accepted(schema)}"
    return f"{where}{cut(error.message, _SHOWN_CHARS)}"


def _dotted(path: Sequence[str | int]) -> str:
    first, *rest = path
    return str(first) + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in rest)


def _accepted(schema: Mapping[str, Any]) -> str:
    names = list(schema.get("properties", ()))
    return f"the arguments are: {', '.join(names)}" if names else "it takes no arguments"
