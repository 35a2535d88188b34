"""The folder of a run over the leaderboard: verdicts as they come, the summary, files as `bfcl evaluate` reads them.

`verdicts.jsonl` has a line for each entry; a torn line and those of faults are dropped when the run goes on, and their
entries are played again. `manifest.json` says what decides the numbers; another run is refused in the folder.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recall.errors import ConfigError
from recall.evaluation.bfcl.play import Verdict
from recall.store import write_atomic


class Verdicts:
    """The verdicts of a run, kept in its folder."""

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        """Open the folder, a new one or one to go on in.

        Raises:
            ConfigError: it holds another run, or cannot be written.
        """
        self.path = path
        self.faults: dict[str, Verdict] = {}
        """Of this run's own making, by id; they are not among the known."""
        self._file = path / "verdicts.jsonl"
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._check(json.loads(json.dumps(manifest)))
            self.known = {verdict.id: verdict for verdict in read_verdicts(path) if verdict.fault is None}
            write_atomic(self._file, lambda file: file.writelines(map(_line, self.known.values())))
        except OSError as fault:
            raise ConfigError(f"{path}: cannot be written: {fault.strerror}") from fault

    def _check(self, manifest: Mapping[str, Any]) -> None:
        path = self.path / "manifest.json"
        if not path.exists():
            if any(self.path.iterdir()):
                raise ConfigError(f"{self.path}: holds other things and no manifest.json; choose another --out")
            write_atomic(path, lambda file: file.write(json.dumps(manifest, indent=1).encode()))
            return
        known = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key in {**known, **manifest} if known.get(key) != manifest.get(key)]
        if changed:
            was, now = known.get(changed[0]), manifest.get(changed[0])
            raise ConfigError(
                f"{self.path}: holds another run: its {changed[0]} is {was!r}, not {now!r}; choose another --out"
            )

    def add(self, verdict: Verdict) -> None:
        """Keep a verdict."""
        with self._file.open("ab") as file:
            file.write(_line(verdict))
        if verdict.fault is None:
            self.known[verdict.id] = verdict
        else:
            self.faults[verdict.id] = verdict

    def of(self, categories: Sequence[str]) -> list[Verdict]:
        """What is known of some categories."""
        return [verdict for verdict in self.known.values() if verdict.category in categories]

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file into the folder, whole or not at all."""
        write_atomic(self.path / name, lambda file: file.write(json.dumps(value, indent=1).encode()))


def read_verdicts(path: Path) -> Iterable[Verdict]:
    """The verdicts in the folder of a run, without a torn last line; none where there are none yet.

    Raises:
        ConfigError: a line is damaged.
    """
    file = path / "verdicts.jsonl"
    if not file.exists():
        return
    *lines, _torn = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            yield Verdict(**{**row, "asked": tuple(row["asked"])})
        except (ValueError, TypeError, KeyError) as fault:
            raise ConfigError(f"{file} row {number}: damaged: {fault}") from None


def _line(verdict: Verdict) -> bytes:
    return json.dumps(verdict.row()).encode() + b"\n"
