"""What the bodies of HTTP requests must look like. It runs nothing; a body that is wrong names the field that is.

JSON is read by the standard library: faster parsers read an integer of more than 64 bits as a float.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recall.sandbox.base import DEFAULT_OPTIONS, SessionOptions

MAX_ITEMS = 1024
"""Items of one batch."""
MAX_FORKS = 256
"""Copies that one request may ask for."""
MAX_TIMEOUT_S = 3600.0
"""The longest time-out that a request may ask for."""


class BodyError(Exception):
    """A body that cannot be meant; answered 422 in the shape of the published server."""

    def __init__(self, kind: str, message: str, *where: str | int) -> None:
        super().__init__(message)
        self.detail = [{"type": kind, "loc": ["body", *where], "msg": message}]
        """What is wrong with which field. It never repeats what the body held."""


@dataclass(frozen=True, slots=True)
class CallBody:
    """One call: of a session, or of tools that are made for it alone."""

    session: str | None = None
    """The session's id; None for a one-shot call."""
    source: str = ""
    """The tools' source, of a one-shot call."""
    options: SessionOptions = DEFAULT_OPTIONS
    """Of a one-shot call."""
    expression: str | None = None
    """What is evaluated; None where a function is named."""
    name: str = ""
    """The function to call."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Its keyword arguments."""
    timeout_s: float | None = None
    """Seconds that the call may take; None takes the profile's."""
    queue_timeout_s: float | None = None
    """Seconds that it may wait before it runs; None takes the server's."""


@dataclass(frozen=True, slots=True)
class OpenBody:
    """A session to open."""

    source: str
    """The tools' source."""
    options: SessionOptions
    """What sort of session."""


def parse(data: bytes) -> Any:
    """The JSON value of a body.

    Raises:
        BodyError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        place = getattr(error, "pos", 0)
        raise BodyError("json_invalid", "JSON decode error", place) from None


def call_body(value: Any, profiles: Sequence[str], *, session: str | None = None) -> CallBody:
    """Read a call: `{env | session, call | name and args, timeout, queue_timeout, profile, seed}`.

    Args:
        value: the JSON value.
        profiles: the profiles that are served; the first is the default.
        session: the session's id, where the address of the request names it.

    Raises:
        BodyError: a field is missing, unknown, of the wrong type or out of range.
    """
    body = _object(value)
    known = {"call", "name", "args", "timeout", "queue_timeout"}
    _refuse_unknown(body, known if session is not None else known | {"env", "session", "profile", "seed"})
    if session is None and body.get("session") is not None:
        session = _text(body, "session")
        for name in ("env", "profile", "seed"):
            if name in body:
                raise BodyError("extra_forbidden", f"A call of a session has no {name}; the session has its own", name)
    expression = _text(body, "call") if body.get("call") is not None else None
    if expression is None and body.get("name") is None:
        raise BodyError("missing", "Field required, or name and args", "call")
    if expression is not None and ("name" in body or "args" in body):
        raise BodyError("extra_forbidden", "Give either call, or name and args", "call")
    arguments = body.get("args")
    if not isinstance(arguments, dict | None):
        raise BodyError("dict_type", "Input should be an object", "args")
    return CallBody(
        session=session,
        source=_text(body, "env") if session is None else "",
        options=_options(body, profiles) if session is None else DEFAULT_OPTIONS,
        expression=expression,
        name=_text(body, "name") if expression is None else "",
        arguments=arguments or {},
        timeout_s=_seconds(body, "timeout"),
        queue_timeout_s=_seconds(body, "queue_timeout"),
    )


def batch_body(value: Any) -> list[Any]:
    """Read `{items}`; the items are not looked at.

    Raises:
        BodyError: a field is missing, unknown, of the wrong type or too long.
    """
    body = _object(value)
    _refuse_unknown(body, {"items"})
    items = body.get("items")
    if "items" not in body:
        raise BodyError("missing", "Field required", "items")
    if not isinstance(items, list):
        raise BodyError("list_type", "Input should be an array", "items")
    if len(items) > MAX_ITEMS:
        raise BodyError("too_long", f"Array should have at most {MAX_ITEMS} items", "items")
    return items


def open_body(value: Any, profiles: Sequence[str]) -> OpenBody:
    """Read `{source, profile, transactional, forkable, seed}`.

    Raises:
        BodyError: a field is missing, unknown, of the wrong type or out of range.
    """
    body = _object(value)
    _refuse_unknown(body, {"source", "profile", "transactional", "forkable", "seed"})
    return OpenBody(_text(body, "source"), _options(body, profiles))


def fork_body(value: Any) -> int:
    """Read `{n}`, the number of copies, 1 where it is left out.

    Raises:
        BodyError: it is not a number in range, or a field is unknown.
    """
    body = _object(value)
    _refuse_unknown(body, {"n"})
    return _integer(body, "n", 1, 1, MAX_FORKS)


def _options(body: Mapping[str, Any], profiles: Sequence[str]) -> SessionOptions:
    profile = _text(body, "profile") if body.get("profile") is not None else profiles[0]
    if profile not in profiles:
        raise BodyError("enum", f"Input should be one of {', '.join(profiles)}", "profile")
    seed = None if body.get("seed") is None else _integer(body, "seed", 0, 0, 2**63 - 1)
    return SessionOptions(profile, _flag(body, "transactional"), _flag(body, "forkable"), seed)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BodyError("dict_type", "Input should be an object")
    return value


def _refuse_unknown(body: Mapping[str, Any], known: set[str]) -> None:
    for name in body.keys() - known:
        raise BodyError("extra_forbidden", "Extra inputs are not permitted", name[:100])


def _text(body: Mapping[str, Any], name: str) -> str:
    if name not in body:
        raise BodyError("missing", "Field required", name)
    value = body[name]
    if not isinstance(value, str):
        raise BodyError("string_type", "Input should be a string", name)
    return value


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if not isinstance(value, bool | None):
        raise BodyError("bool_type", "Input should be true or false", name)
    return bool(value)


def _integer(body: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BodyError("int_type", "Input should be an integer", name)
    if not low <= value <= high:
        raise BodyError("int_range", f"Input should be from {low} to {high}", name)
    return value


def _seconds(body: Mapping[str, Any], name: str) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BodyError("float_type", "Input should be a number of seconds", name)
    if not 0 < value <= MAX_TIMEOUT_S or not math.isfinite(value):
        raise BodyError("float_range", f"Input should be above 0 and at most {MAX_TIMEOUT_S:g}", name)
    return float(value)
