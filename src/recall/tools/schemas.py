"""JSON Schema of Python types, and JSON values as those types.

Plain types are written out here, in the short form that models read best. Everything else that pydantic knows (enums,
dataclasses, models, typed dictionaries, dates, constraints in `Annotated`) is pydantic's, with the definitions of what
does not refer to itself put in their places, because not every chat template and server follows a `$ref`.
"""

import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from recall.errors import ConfigError

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
_ACCEPTED = (
    "str, int, float, bool, list, dict, Literal, Any, enums, dates, dataclasses, typed dictionaries, pydantic models, "
    "Annotated, unions and containers of these"
)
_REFUSED = (bytes, bytearray, complex, object)


def schema_of(hint: Any, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON Schema of a type hint, and the definitions that it refers to (only types that contain themselves).

    Args:
        hint: a resolved type hint.
        where: names the parameter in a refusal.

    Raises:
        ConfigError: the type has no schema.
    """
    plain = _plain(hint)
    if plain is not None:
        return plain, {}
    from pydantic import PydanticUserError, TypeAdapter

    if hint in _REFUSED:
        raise ConfigError(f"{where}: no schema for {hint!r}; accepted: {_ACCEPTED}")
    try:
        found = TypeAdapter(hint).json_schema()
    except (PydanticUserError, NameError) as error:
        why = str(error).partition("\n")[0]
        raise ConfigError(f"{where}: no schema for {hint!r}: {why}; accepted: {_ACCEPTED}") from error
    schema, kept = inlined(found, found.pop("$defs", {}))
    return _with_words(schema, hint), kept


def inlined(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A schema with what it refers to in the place of each reference, and the definitions that are still referred to.

    Args:
        schema: its references end in a name of `definitions`.
        definitions: by name; those that contain themselves cannot be put in the place of a reference.
    """
    recursive = {name for name in definitions if _reaches(name, name, definitions)}
    used = {name for name in recursive if _mentions(schema, name, definitions)}
    found: dict[str, Any] = _inlined(schema, definitions, recursive)
    return found, {name: _inlined(definitions[name], definitions, recursive) for name in sorted(used)}


def is_plain(hint: Any) -> bool:
    """Whether a JSON value that fits the schema of `hint` is a value of it as it is."""
    return _plain(hint) is not None


def _plain(hint: Any) -> dict[str, Any] | None:
    """The schema of a type that is made of JSON's own types."""
    if isinstance(hint, type | type(Any)) and hint in _PLAIN:
        return dict(_PLAIN[hint])
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        members = [_plain(argument) for argument in arguments]
        known = [member for member in members if member is not None]
        if len(known) < len(members):
            return None
        if all(member.keys() == {"type"} for member in known):
            return {"type": [member["type"] for member in known]}
        return {"anyOf": known}
    if origin is list:
        items = _plain(arguments[0])
        return None if items is None else {"type": "array", "items": items}
    if origin is dict and arguments[0] is str:
        values = _plain(arguments[1])
        return None if values is None else {"type": "object", "additionalProperties": values}
    if origin is Annotated and all(isinstance(note, str) for note in arguments[1:]):
        plain = _plain(arguments[0])
        return None if plain is None else _with_words(plain, hint)
    return None


def _with_words(schema: dict[str, Any], hint: Any) -> dict[str, Any]:
    """The schema with the bare strings of an `Annotated` as its description."""
    words = [note for note in get_args(hint)[1:] if isinstance(note, str)] if get_origin(hint) is Annotated else []
    return {**schema, "description": " ".join(words)} if words else schema


def _inlined(schema: Any, definitions: Mapping[str, Any], kept: set[str]) -> Any:
    """The schema without generated titles, and with every reference that can be one replaced by what it refers to."""
    if isinstance(schema, list):
        return [_inlined(item, definitions, kept) for item in schema]
    if not isinstance(schema, dict):
        return schema
    name = _name_in(schema)
    if name is not None and name not in definitions:
        return {}  # it refers to what is not there; anything is accepted
    if name is not None and name in kept:
        return {**schema, "$ref": f"#/$defs/{name}"}
    if name is not None:
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return _inlined({**definitions[name], **beside}, definitions, kept)
    inner = {
        key: {field: _inlined(value, definitions, kept) for field, value in item.items()}
        if key == "properties"
        else _inlined(item, definitions, kept)
        for key, item in schema.items()
        if not (key == "title" and isinstance(item, str))
    }
    if "const" in inner and "enum" not in inner:  # what many chat templates and servers do not know
        inner["enum"] = [inner.pop("const")]
    return inner


def _name_in(schema: Mapping[str, Any]) -> str | None:
    reference = schema.get("$ref")
    return reference.rpartition("/")[2] if isinstance(reference, str) else None


def _mentions(schema: Any, goal: str, definitions: Mapping[str, Any]) -> bool:
    """Whether a schema refers to `goal`, over others or by itself."""
    return _reaches("", goal, {**definitions, "": schema})


def _reaches(start: str, goal: str, definitions: Mapping[str, Any], seen: frozenset[str] = frozenset()) -> bool:
    """Whether the definition `start` refers to `goal`, over others or by itself."""
    todo: list[Any] = [definitions[start]]
    while todo:
        item = todo.pop()
        if isinstance(item, list):
            todo += item
        elif isinstance(item, dict):
            name = _name_in(item)
            if name == goal:
                return True
            fresh = name is not None and name in definitions and name not in seen
            if fresh and name is not None and _reaches(name, goal, definitions, seen | {name, start}):
                return True
            todo += item.values()
    return False
