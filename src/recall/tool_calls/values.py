"""JSON that a model wrote as a call: read strictly enough to be sent on, with a sentence for what is wrong with it."""

import json
import math
import re
from collections.abc import Collection
from typing import Any, NoReturn

from recall.types import ToolCall

MAX_DEPTH = 64
"""Arguments nested deeper than this are refused, so that no later encoder can run out of stack on them."""

_SPACE = re.compile(r"\s*")


def read_json(text: str, begin: int, end: int | None = None) -> tuple[Any, int, str]:
    """The JSON value that begins at `begin`, where it ends, and what is wrong with it, or "" when nothing is."""
    if end is not None:
        text = text[:end]
    if begin >= len(text):
        return None, begin, "empty"
    try:
        value, stop = DECODER.raw_decode(text, begin)
    except json.JSONDecodeError as fault:
        return None, begin, f"not valid JSON: {fault.msg} at character {fault.pos - begin}"
    except ValueError as fault:
        return None, begin, f"not valid JSON: {fault}"
    except RecursionError:
        return None, begin, f"nested deeper than {MAX_DEPTH} levels"
    return value, stop, ""


def call_of(value: Any, source: str, key: str = "arguments", also: Collection[str] = ()) -> ToolCall | str:
    """The call that a decoded JSON value says, or what is wrong with it.

    Args:
        value: what `source` decoded to.
        source: its text.
        key: under which the arguments stand.
        also: further keys that may be there; the one named `id` is the call's.
    """
    if not isinstance(value, dict):
        return f'must be a JSON object {{"name": …, "{key}": {{…}}}}, not {_kind(value)}'
    unknown = value.keys() - {"name", key, *also}
    if unknown:
        return f'unknown key "{min(unknown)}": the keys are "name" and "{key}"'
    name = value.get("name")
    if not isinstance(name, str) or not name:
        return '"name" must be the name of a tool' + ("" if "name" in value else "; it is missing")
    number = value.get("id", "") if "id" in also else ""
    return call_named(name, value.get(key), source, key=key, number=number if isinstance(number, str) else "")


def call_named(name: str, arguments: Any, source: str, key: str = "arguments", number: str = "") -> ToolCall | str:
    """The call of `name` with decoded arguments, or what is wrong with them; `number` is its id."""
    if isinstance(arguments, str):
        try:
            arguments = DECODER.decode(arguments)
        except (ValueError, RecursionError):
            return f'"{key}" must be a JSON object, not text'
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        return f'"{key}" must be a JSON object, not {_kind(arguments)}'
    if source.count("[") + source.count("{") > MAX_DEPTH and _depth(arguments) > MAX_DEPTH:
        return f"nested deeper than {MAX_DEPTH} levels"
    if not _encodable([name, arguments, number], source):
        return "holds half of a surrogate pair, which is no character"
    return ToolCall(name, arguments, number)


def _encodable(call: Any, source: str) -> bool:
    """Whether a call can be sent as UTF-8; only an escape or a lone surrogate in the source can prevent it."""
    if source.isascii() and "\\u" not in source:
        return True
    try:
        json.dumps(call, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth


def _kind(value: Any) -> str:
    names = {list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number", dict: "an object"}
    return names.get(type(value), "null")


def end_of_space(text: str, start: int) -> int:
    """Where the white space that begins at `start` ends."""
    space = _SPACE.match(text, start)
    return space.end() if space else start


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    decoded = dict(pairs)
    if len(decoded) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f'the key "{next(key for key in keys if keys.count(key) > 1)}" is written twice')
    return decoded


def finite(digits: str) -> float:
    """The number that is written; a ValueError where it is none or too large."""
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits} is too large")
    return number


def integer(digits: str) -> int:
    """The whole number that is written; a ValueError where it is none or too long."""
    # Python refuses to read more digits than this; its own message speaks of interpreter settings.
    if len(digits) > 4000:
        raise ValueError("an integer of more than 4000 digits")
    return int(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


# A raw line break inside a string is read as meant: models write multi-line arguments that way.
DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=finite, parse_int=integer, parse_constant=_no_constant, strict=False
)
