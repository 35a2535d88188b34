"""What a call came to, as JSON: results, printed text and errors of the tools, each within its limit.

Child's side; whatever it meets here was made by a tool, so nothing is taken to behave.
"""

import io
import math
from dataclasses import dataclass
from datetime import date, time
from types import TracebackType
from typing import Any

from .json_text import encoder

SOURCE = "<tools>"
"""The file name of the source, in tracebacks."""


@dataclass(frozen=True)
class ReplyLimits:
    """How long the parts of a reply may be."""

    output_chars: int
    """Characters of printed output per call."""
    result_bytes: int
    """Bytes of the JSON of a result."""
    error_chars: int
    """Characters of an error's text."""


class Output(io.TextIOBase):
    """Stands in for standard output; keeps the first `limit` characters and counts the rest."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[str] = []
        self._room = limit
        self._cut = 0

    def writable(self) -> bool:
        """As every output is."""
        return True

    @property
    def buffer(self) -> "_Bytes":
        """Takes bytes, as standard output's own does."""
        return _Bytes(self)

    def write(self, text: str, /) -> int:
        """Keep what there is room for; returns the length of all of it, as if it had been written."""
        length = len(text)
        if length > self._room:
            self._cut += length - self._room
            text = text[: self._room]
        if text:
            self._room -= len(text)
            self._parts.append(text)
        return length

    def take(self) -> str:
        """What was written since the last time, with a note of how much was cut."""
        if not self._parts and not self._cut:
            return ""
        text = "".join(self._parts)
        if self._cut:
            text += f"\n[{self._cut} more characters were cut]"
        self._parts, self._room, self._cut = [], self._limit, 0
        return text


class _Bytes(io.RawIOBase):
    """Writes bytes to a text output, decoded."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._output.write(bytes(data).decode("utf-8", "replace"))
        return len(data)


def _json_default(value: object) -> object:
    if isinstance(value, set | frozenset):
        try:
            return sorted(value)
        except TypeError:
            return sorted(value, key=repr)
    if isinstance(value, date | time):
        return value.isoformat()
    return repr(value)


# Not ASCII only: an honest reply then holds no escaped surrogate, which is how the other side knows a dishonest one.
encode = encoder(default=_json_default, ascii_only=False, allow_nan=False, space=" ")


def _plain(value: Any) -> Any:
    """`value` with NaN and infinities as None and with keys that JSON has no text for as their repr."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key if isinstance(key, str | int | None) else repr(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def encode_result(value: object, limit: int) -> str:
    """The JSON text of what a function returned; of its repr, cut at `limit` characters, where it has none."""
    try:
        return encode(value)
    except (TypeError, ValueError, RecursionError):
        pass
    try:
        return encode(_plain(value))
    except (TypeError, ValueError, RecursionError):
        return encode(repr(value)[:limit])


def describe(error: BaseException, limit: int) -> str:
    """`TypeName: message (line N)`, N being the innermost line of the source that the error came through."""
    text = type(error).__name__
    try:
        message = str(error)
    except BaseException:  # noqa: BLE001  # the tool's own __str__ may raise anything
        message = "(its message could not be made)"
    if message:
        text += f": {message[:limit]}"
    text = text[:limit]
    line = _line(error.__traceback__)
    return text if line is None else f"{text} (line {line})"


def _line(traceback: TracebackType | None) -> int | None:
    line = None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == SOURCE:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
