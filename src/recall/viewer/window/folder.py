"""Finds what is under a directory: runs, evaluations, reports on sets. Nothing outside of it is ever read.

A name is the path under the directory. Names are only looked up among those that were found, so no name can lead out.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from recall.errors import ConfigError

Kind = Literal["run", "qa", "bfcl", "set"]

DEPTH = 4
"""How deep directories are looked into."""
_FRESH_S = 1.0
NOTE = "window.json"
"""The file of a run with the tags and the note that a user gave it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something to look at."""

    name: str
    """The path under the directory."""
    kind: Kind
    path: Path


class Folder:
    """The directory that is looked at."""

    def __init__(self, root: Path) -> None:
        """Look at `root`.

        Raises:
            ConfigError: it is not a directory.
        """
        if not root.is_dir():
            raise ConfigError(f"{root}: no such directory; it takes one that holds run directories, such as runs")
        self.root = root.resolve()
        self._found: dict[str, Entry] = {}
        self._looked_s = -1e9

    def entries(self, kind: Kind | None = None) -> list[Entry]:
        """All there are, or all of a kind, by name."""
        now = time.monotonic()
        if now - self._looked_s > _FRESH_S:
            self._found = {entry.name: entry for entry in self._look(self.root, 0)}
            self._looked_s = now
        return [entry for _, entry in sorted(self._found.items()) if kind in (None, entry.kind)]

    def entry(self, name: str, *kinds: Kind) -> Entry:
        """The one of a name.

        Raises:
            ConfigError: there is none of it, or it is of another kind.
        """
        for entry in self.entries():
            if entry.name == name and (not kinds or entry.kind in kinds):
                return entry
        raise ConfigError(f"{name!r}: there is nothing of that name in {self.root}")

    def _look(self, path: Path, depth: int) -> Iterator[Entry]:
        kind = kind_of(path)
        if kind is not None:
            name = path.relative_to(self.root).as_posix()
            yield Entry(path.name if name == "." else name, kind, path)
            return
        if depth == DEPTH:
            return
        try:
            inside = sorted(os.scandir(path), key=lambda each: each.name)
        except OSError:
            return
        for each in inside:
            if each.name.startswith("."):
                continue
            # A link is followed only to what is under the directory, too.
            try:
                if each.is_dir() and Path(each.path).resolve().is_relative_to(self.root):
                    yield from self._look(Path(each.path), depth + 1)
            except OSError:
                continue


def kind_of(path: Path) -> Kind | None:
    """What a directory holds; None where it is none of these."""
    if (path / "results.jsonl").is_file() and (path / "manifest.json").is_file():
        return "qa"
    if (path / "verdicts.jsonl").is_file():
        return "bfcl"
    if (path / "metrics.jsonl").is_file() or (path / "trajectories").is_dir() or (path / "config.toml").is_file():
        return "run"
    if (path / "report.json").is_file():
        return "set"
    return None


def read_object(path: Path) -> tuple[dict[str, Any], str]:
    """A JSON file's object and what is wrong with it; empty where there is no such file."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}, ""
    except OSError as error:
        return {}, f"{path.name} cannot be read: {error.strerror}"
    try:
        value = json.loads(text)
    except ValueError as error:
        return {}, f"{path.name} is not JSON: {error}"
    return (value, "") if isinstance(value, dict) else ({}, f"{path.name} is not a JSON object")


def read_rows(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The JSON objects of a file of lines, and notes on lines that are none; a torn last line is left out."""
    try:
        *lines, torn = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"{path.name} cannot be read: {error.strerror}"]
    rows, bad = [], []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            bad.append(number)
    notes = []
    if bad:
        shown = ", ".join(map(str, bad[:5])) + (" and others" if len(bad) > 5 else "")
        notes.append(f"{path.name}: {len(bad)} lines are not JSON objects and left out: {shown}")
    if torn:
        notes.append(
            f"{path.name}: its last line is not whole and left out; it is being written, or its writer was killed"
        )
    return rows, notes


def read_note(run: Path) -> dict[str, Any]:
    """The tags and the note of a run."""
    value, _ = read_object(run / NOTE)
    tags, note = value.get("tags"), value.get("note")
    return {
        "tags": [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else [],
        "note": note if isinstance(note, str) else "",
    }


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested tables by dotted name."""
    leaves: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            leaves |= flat(item, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = item
    return leaves
