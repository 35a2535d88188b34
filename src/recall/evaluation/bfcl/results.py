"""The folder of a run over the leaderboard: verdicts as they come, the summary, files as `bfcl evaluate` reads them.

`verdicts.jsonl` has a line for each entry; a torn line and those of faults are dropped when the run goes on, and their
entries are played again. `manifest.json` says what decides the numbers; another run is refused in the folder.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from recall.errors import ConfigError
from recall.evaluation.bfcl.entries import CATEGORIES
from recall.evaluation.bfcl.play import Verdict
from recall.evaluation.bfcl.scores import category_score, group_scores
from recall.store import write_atomic


class Verdicts:
    """The verdicts of a run, kept in its folder."""

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        """Open the folder, a new one or one to go on in.

        Raises:
            ConfigError: it holds another run, or cannot be written.
        """
        self.path = path
        self._file = path / "verdicts.jsonl"
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._check(json.loads(json.dumps(manifest)))
            self.known = {verdict.id: verdict for verdict in self._read() if verdict.fault is None}
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

    def _read(self) -> Iterable[Verdict]:
        if not self._file.exists():
            return
        *lines, _torn = self._file.read_bytes().split(b"\n")
        for number, line in enumerate(lines, start=1):
            try:
                yield Verdict(**json.loads(line))
            except (ValueError, TypeError) as fault:
                raise ConfigError(f"{self._file} row {number}: damaged: {fault}") from None

    def add(self, verdict: Verdict) -> None:
        """Keep a verdict."""
        with self._file.open("ab") as file:
            file.write(_line(verdict))
        self.known[verdict.id] = verdict

    def summary(self, categories: Sequence[str]) -> dict[str, Any]:
        """Accuracies by category and group, kinds of error, and what it took."""
        by = {name: [each for each in self.known.values() if each.category == name] for name in categories}
        scores = {name: category_score([each.valid for each in found]) for name, found in by.items() if found}
        errors: dict[str, int] = {}
        for verdict in self.known.values():
            if not verdict.valid:
                errors[verdict.error_type or "other"] = errors.get(verdict.error_type or "other", 0) + 1
        played = [*self.known.values()]
        return {
            "categories": {
                name: {
                    "accuracy": score.accuracy,
                    "entries": score.entries,
                    "low": score.interval.low if score.interval else None,
                    "high": score.interval.high if score.interval else None,
                    "turns": _mean([each.turns for each in by[name]]),
                    "calls": _mean([each.calls for each in by[name]]),
                    "seconds": _mean([each.duration_s for each in by[name]]),
                }
                for name, score in scores.items()
            },
            "groups": {
                name: {"accuracy": score.accuracy, "complete": score.complete}
                for name, score in group_scores(scores).items()
            },
            "errors": dict(sorted(errors.items(), key=lambda item: -item[1])),
            "entries": len(played),
            "malformed_calls": sum(each.malformed for each in played),
            "faults": sum(each.fault is not None for each in played),
        }

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file into the folder, whole or not at all."""
        write_atomic(self.path / name, lambda file: file.write(json.dumps(value, indent=1).encode()))

    def write_official(self, model: str = "recall") -> Path:
        """Write the calls as the leaderboard's own result files, in its prompting form; the folder of the results.

        A turn's calls are written as Python, `[f(a=1), g(b=2)]`, which `bfcl evaluate` decodes for prompted models.
        """
        for category in {verdict.category for verdict in self.known.values()}:
            found = (verdict for verdict in self.known.values() if verdict.category == category)
            rows = [{"id": each.id, "result": _official(each)} for each in sorted(found, key=_order)]
            content = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
            file = self.path / "result" / model / _group(category) / f"BFCL_v4_{category}_result.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, partial(_write, content))
        return self.path / "result"


def _order(verdict: Verdict) -> list[int]:
    """The place in the leaderboard's files: ids count up, and those of `live_` categories in three numbers."""
    return [int(number) for number in re.findall(r"\d+", verdict.id)]


def _write(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def _official(verdict: Verdict) -> Any:
    if CATEGORIES[verdict.category] == "multi_turn":
        return [[f"[{', '.join(step)}]" for step in turn] for turn in verdict.result]
    calls = [
        f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
        for call in verdict.result
        for name, arguments in call.items()
    ]
    return f"[{', '.join(calls)}]"


def _group(category: str) -> str:
    return "multi_turn" if category.startswith("multi_turn") else "live" if category.startswith("live") else "non_live"


def _line(verdict: Verdict) -> bytes:
    return json.dumps(verdict.row()).encode() + b"\n"


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)
