"""Arguments of a call against the tool's JSON Schema, with messages for the model that wrote them.

Nothing is coerced: what the schema refuses, the model is told about.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recall.errors import ConfigError
from recall.tools.results import cut
from recall.types import ToolSpec

if TYPE_CHECKING:
    from jsonschema import ValidationError
    from jsonschema.protocols import Validator

_SHOWN_CHARS = 300


class Arguments:
    """What the tools of one task accept.

    Checking a schema takes about half a millisecond, so episodes of the same task share one of these.
    """

    def __init__(self, tools: Sequence[ToolSpec]) -> None:
        """Check and prepare the schemas.

        Raises:
            ConfigError: a schema is not valid JSON Schema, or does not describe an object.
        """
        self._validators = {tool.name: _validator(tool) for tool in tools}

    def problem(self, name: str, arguments: Mapping[str, Any]) -> str | None:
        """What is wrong with `arguments` for the tool `name`, told to the model; None when nothing is.

        Raises:
            KeyError: there is no such tool.
            ConfigError: the tool's schema refers to a schema that does not exist.
        """
        from referencing.exceptions import Unresolvable

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
