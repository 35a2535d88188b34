"""Files of JSON lines beside a set: appended to a whole line at a time, by one process, and read by place.

A line that a kill has torn is dropped when the file is opened again.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recall.errors import ConfigError


class Lines:
    """An append-only file of JSON objects, locked while it is open."""

    def __init__(self, path: Path) -> None:
        """Open the file, make it where it is missing, and drop a torn last line.

        Raises:
            ConfigError: it cannot be written, or another process writes it.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise ConfigError(f"{path}: another run writes it; wait for it, or choose another directory") from None
        self._end = self._whole()

    def append(self, value: Mapping[str, Any]) -> int:
        """Write one line and return its place.

        Raises:
            ConfigError: the disk refuses it.
        """
        data = json.dumps(value, ensure_ascii=False).encode() + b"\n"
        place = self._end
        try:
            written = os.write(self._file, data)
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError as error:
            os.ftruncate(self._file, place)
            raise ConfigError(f"{self.path}: cannot be written: {error.strerror}") from None
        self._end += len(data)
        return place

    def read(self, place: int) -> dict[str, Any]:
        """The line at a place."""
        with self.path.open("rb") as file:
            file.seek(place)
            return _value(file.readline(), self.path)

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Every line with its place, in order, one at a time."""
        with self.path.open("rb") as file:
            place = 0
            for line in file:
                yield place, _value(line, self.path)
                place += len(line)

    def close(self) -> None:
        """Let go of the file. Safe to call twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _whole(self) -> int:
        """The end of the last whole line, where the file now ends."""
        size = os.fstat(self._file).st_size
        end = size
        while end > 0:
            start = max(0, end - 65536)
            found = os.pread(self._file, end - start, start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            os.ftruncate(self._file, end)
        return end


def _value(line: bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{path}: a line that is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: a line that is no object")
    return value
