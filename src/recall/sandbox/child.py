"""The child's side of a session: loads the source of the tools, then answers one request after another.

Confined before it gets here, it speaks on descriptor 3 alone. A frame is two big-endian 32-bit numbers, the length of
the body and the number of the request that it belongs to, and the body. Request 0 is the source as UTF-8, and is
answered twice: with an empty frame when the child has begun, and with a reply when the source has run. Every later
request is the JSON of `[name, arguments]`; a reply is the JSON of `[status, result, output, error]`. The code that it
runs may do anything to this process; nothing here is relied on for safety.
"""

import io
import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, time
from types import CodeType, FunctionType, ModuleType, TracebackType
from typing import Any, NoReturn

from .wire import CHANNEL, HEADER

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


class _Output(io.TextIOBase):
    """Stands in for standard output; keeps the first `limit` characters and counts the rest."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[str] = []
        self._room = limit
        self._cut = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
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
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_json_default).encode


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
        return _encode(value)
    except (TypeError, ValueError, RecursionError):
        pass
    try:
        return _encode(_plain(value))
    except (TypeError, ValueError, RecursionError):
        return _encode(repr(value)[:limit])


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


def _defined_here(value: object) -> bool:
    """Whether `value` is a function of the source, decorated or not."""
    for _ in range(16):
        if isinstance(value, FunctionType) and value.__code__.co_filename == SOURCE:
            return True
        value = getattr(value, "__wrapped__", None)
        if value is None:
            return False
    return False


class Tools:
    """The namespace of one session."""

    def __init__(self, limits: ReplyLimits) -> None:
        self._limits = limits
        self._output = _Output(limits.output_chars)
        self._module = ModuleType("tools")
        self._namespace = self._module.__dict__

    def load(self, source: str) -> bytes:
        """Run the source; the reply says whether it ran to its end."""
        # Dataclasses and type hints look their module up by name.
        sys.modules["tools"] = self._module
        sys.stdout = self._output
        try:
            code: CodeType = compile(source, SOURCE, "exec", dont_inherit=True)
            exec(code, self._namespace)
        except BaseException as error:  # noqa: BLE001  # whatever the source raises is its outcome
            return self._reply("exception", error=describe(error, self._limits.error_chars))
        self._output.take()
        return self._reply("ok")

    def call(self, name: str, arguments: Mapping[str, Any]) -> bytes:
        """Call a function of the source; the reply says what came of it, whatever it was."""
        limits = self._limits
        sys.stdout = self._output
        function = self._namespace.get(name)
        if function is None or not _defined_here(function):
            return self._reply("unknown_tool", error=f"there is no tool named {name!r}"[: limits.error_chars])
        try:
            result = encode_result(function(**arguments), limits.output_chars)
        except BaseException as error:  # noqa: BLE001  # whatever the tool raises is its outcome
            inside = error.__traceback__ is not None and error.__traceback__.tb_next is not None
            status = "bad_arguments" if isinstance(error, TypeError) and not inside else "exception"
            return self._reply(status, error=describe(error, limits.error_chars))
        size = len(result) if result.isascii() else len(result.encode("utf-8", "replace"))
        if size > limits.result_bytes:
            message = f"the result is {size} bytes of JSON, the limit is {limits.result_bytes}"
            return self._reply("over_limit", error=message)
        return self._reply("ok", result)

    def _reply(self, status: str, result: str = "null", *, error: str | None = None) -> bytes:
        output = self._output.take()
        return f'["{status}",{result},{_encode(output)},{_encode(error)}]'.encode("utf-8", "replace")


def _receive() -> tuple[int, bytes]:
    data = os.read(CHANNEL, 8192)
    while len(data) < HEADER.size:
        more = os.read(CHANNEL, 8192)
        if not more:
            os._exit(0)
        data += more
    length, number = HEADER.unpack_from(data)
    if len(data) - HEADER.size == length:
        return number, data[HEADER.size :]
    body = bytearray(data[HEADER.size :])
    while len(body) < length:
        more = os.read(CHANNEL, min(length - len(body), 1 << 16))
        if not more:
            os._exit(0)
        body += more
    return number, bytes(body)


def _send(number: int, body: bytes) -> None:
    data = HEADER.pack(len(body), number) + body
    sent = os.write(CHANNEL, data)
    while sent < len(data):
        sent += os.write(CHANNEL, data[sent : sent + (1 << 16)])


def run(tools: Tools) -> NoReturn:
    """Serve one session until the other side closes it."""
    _send(0, b"")
    number, body = _receive()
    _send(number, tools.load(body.decode("utf-8", "replace")))
    while True:
        number, body = _receive()
        name, arguments = json.loads(body)
        _send(number, tools.call(name, arguments))
