"""The folder of a measurement: a manifest of what is measured, and a line for each question, written as it is answered.

`manifest.json` says what decides the numbers; a run goes on in a folder only if all of it is the same. `results.jsonl`
is appended to a line at a time, in the order in which answers came. A line that a kill tore is dropped, and the
questions of faults and of torn lines are asked anew, so that in the end each question has one line. A run holds a lock
on the folder, which the system frees when the process ends, however it ends.
"""

import dataclasses
import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from recall.errors import ConfigError
from recall.evaluation.qa.measures import MEASURES, Scores
from recall.store import write_atomic

FORMAT = 1
_FREE = ("questions", "dataset.path")
"""Keys of a manifest that may differ when a run goes on."""


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One question as it was answered: a line of `results.jsonl`."""

    id: str
    """Of the question."""
    question: str
    """What was asked."""
    accepted: tuple[str, ...]
    """The accepted answers."""
    prediction: str | None
    """The answer given."""
    scores: Scores
    """What it is worth."""
    kind: str = ""
    """The benchmark's sort of question."""
    closed: bool = False
    """Whether the policy ended by itself, with an answer."""
    truncated: bool = False
    """Whether a limit ended a turn or the episode."""
    stop: str = ""
    """Why it ended."""
    queries: tuple[str, ...] = ()
    """What was searched for."""
    turns: int = 0
    """Turns of the policy."""
    read_tokens: int = 0
    """Tokens that the policy read and did not write."""
    sampled_tokens: int = 0
    """Tokens that it wrote."""
    duration_s: float = 0.0
    """Wall time."""
    fault: str | None = None
    """What of ours failed."""
    texts: tuple[str, ...] = ()
    """What the policy wrote, turn by turn."""


class Results:
    """The open folder of a run."""

    def __init__(self, path: Path, file: IO[bytes], rows: dict[str, Row]) -> None:
        """Made by `open_results`."""
        self.path = path
        self.rows = rows
        """The rows so far, by question; none of them has a fault when the folder was just opened."""
        self._file = file

    def add(self, row: Row) -> None:
        """Write a row; it is whole in the file, or will be dropped by the next reader, when this returns or raises.

        Raises:
            ConfigError: the disk refuses it.
        """
        try:
            self._file.write(_line_of(row))
            self._file.flush()
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written: {error.strerror}; go on with the same --out") from error
        self.rows[row.id] = row

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file into the folder, whole or not at all."""
        _write_json(self.path / name, value)


@contextmanager
def open_results(path: Path, manifest: Mapping[str, Any]) -> Iterator[Results]:
    """Open the folder of a run, a new one or one to go on in.

    Args:
        path: the folder; made if it is not there.
        manifest: what decides the numbers, as JSON values.

    Raises:
        ConfigError: the folder belongs to another measurement, holds something else, or another run is at work in it.
    """
    file = path / "results.jsonl"
    try:
        path.mkdir(parents=True, exist_ok=True)
        with open(path / ".lock", "wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"{path}: another run is at work in it") from None
            data = file.read_bytes() if file.exists() else b""
            _check_manifest(path, manifest, empty=not data)
            rows = {row.id: row for row in _rows(file, data) if row.fault is None}
            kept = b"".join(map(_line_of, rows.values()))
            if kept != data:
                write_atomic(file, lambda new: new.write(kept))
            with open(file, "ab") as out:
                yield Results(path, out, rows)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def read_results(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """The manifest and the rows of a folder, the last one of each question.

    Raises:
        ConfigError: there is no measurement in it, or a line is damaged.
    """
    manifest = _read_manifest(path)
    if manifest is None:
        raise ConfigError(f"{path}: no measurement in it: it has no manifest.json")
    try:
        data = (path / "results.jsonl").read_bytes()
    except OSError as error:
        raise ConfigError(f"{path / 'results.jsonl'}: cannot be read: {error.strerror}") from error
    return manifest, list({row.id: row for row in _rows(path / "results.jsonl", data)}.values())


def _check_manifest(path: Path, manifest: Mapping[str, Any], *, empty: bool) -> None:
    """Write the manifest of a new folder; hold that of an old one against it."""
    known = _read_manifest(path)
    wanted = {"format": FORMAT, **manifest}
    if known is not None:
        before, now = _flat(known), _flat(wanted)
        changed = [key for key in {**before, **now} if key not in _FREE and before.get(key) != now.get(key)]
        if changed:
            key = changed[0]
            raise ConfigError(
                f"{path}: holds another measurement: its {key} is {before.get(key)!r}, and now it is {now.get(key)!r}; "
                "choose another --out"
            )
    elif not empty:
        raise ConfigError(f"{path}: has results but no manifest.json, so what they measure is not known")
    _write_json(path / "manifest.json", wanted)


def _read_manifest(path: Path) -> dict[str, Any] | None:
    file = path / "manifest.json"
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ConfigError(f"{file}: not a manifest of format {FORMAT}, the one that this ReCall reads")
    return value


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested mappings by dotted name, as JSON reads them back."""
    flat: dict[str, Any] = {}
    for key, item in json.loads(json.dumps(value)).items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat


def _rows(path: Path, data: bytes) -> Iterator[Row]:
    *lines, _torn = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            fields: dict[str, Any] = json.loads(line)
            scores = Scores(**{name: float(fields.pop(name)) for name in MEASURES})
            fields |= {name: tuple(fields[name]) for name in ("accepted", "queries", "texts")}
            del fields["searches"]
            yield Row(scores=scores, **fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"{path} row {number}: damaged: {type(error).__name__}: {error}") from None


def _line_of(row: Row) -> bytes:
    fields = {field.name: getattr(row, field.name) for field in dataclasses.fields(row) if field.name != "scores"}
    scores = {name: getattr(row.scores, name) for name in MEASURES}
    texts = fields.pop("texts")
    line = {**fields, **scores, "searches": len(row.queries), "texts": texts}
    # A lone surrogate that a policy wrote becomes a question mark; all else is kept.
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _write_json(path: Path, value: Any) -> None:
    write_atomic(path, lambda file: file.write(json.dumps(value, indent=1).encode() + b"\n"))
