"""The file of verdicts: a line for each finished world, with what was said of it and the rows that came of it.

It is what a set is written from, and what a later run goes on from. Lines stand in the order in which worlds were
finished; rows are given out in the order of the worlds' numbers, and never beyond the first world that is missing, so
that what was given out once is given out the same ever after.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recall.datasets.row import row_from_task, task_from_row
from recall.synth.llm.errors import RejectedError
from recall.synth.llm.sidecar import Lines
from recall.synth.made import Made
from recall.types import Task


@dataclass(frozen=True, slots=True)
class Candidate:
    """One row that a world could have given."""

    task: Task | None
    """The row; None where it was thrown away."""
    gate: str = ""
    """Where."""
    reason: str = ""
    """Why."""

    @classmethod
    def rejected(cls, problem: RejectedError) -> "Candidate":
        """One that was thrown away."""
        return cls(None, problem.gate, problem.reason)


class Journal:
    """What is known of each world."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            ConfigError: it cannot be used.
        """
        self._lines = Lines(path)
        self._places: dict[int, int] = {}
        self._rows: dict[int, Counter[str]] = {}
        self._settings: dict[int, str] = {}
        self._total: Counter[str] = Counter()
        for place, line in self._lines:
            self._count(line, place)

    def __contains__(self, world: int) -> bool:
        return world in self._places

    def __len__(self) -> int:
        return len(self._places)

    def settings(self) -> list[str]:
        """The settings of all finished worlds that were new."""
        return [setting for _, setting in sorted(self._settings.items()) if setting]

    def add(
        self, world: int, facts: Mapping[str, Any], setting: str, verdicts: Sequence[Any], rows: Iterable[Candidate]
    ) -> None:
        """Keep what came of a world.

        Args:
            world: its number.
            facts: about it, for people.
            setting: its setting; empty where that was not new, or there was none.
            verdicts: what was said of each of its parts.
            rows: what could have come of it.
        """
        line = {
            "world": world,
            **facts,
            "setting": setting,
            "verdicts": list(verdicts),
            "rows": [
                {"gate": row.gate, "reason": row.reason} if row.task is None else {"row": row_from_task(row.task)}
                for row in rows
            ],
        }
        self._count(line, self._lines.append(line))

    def whole(self) -> int:
        """The number of the first world that is missing."""
        world = 0
        while world in self._places:
            world += 1
        return world

    def rows(self) -> Counter[str]:
        """How many rows can be given out, by split."""
        return sum((self._rows[world] for world in range(self.whole())), Counter())

    def finished_rows(self) -> Counter[str]:
        """How many rows there are in all finished worlds, by split, those behind a missing one included."""
        return self._total

    def made(self, split: str, start: int) -> Iterator[Made]:
        """The attempts at the rows of a split from number `start` on; see `recall.synth.made.Stream`.

        What a world lost before it had a split is counted with `train`.
        """
        number = 0
        for world in range(self.whole()):
            if number + self._rows[world][split] < start:
                number += self._rows[world][split]
                continue
            line = self._lines.read(self._places[world])
            for entry in line["rows"]:
                if "row" not in entry:
                    if split == line.get("split", "train") and number >= start:
                        yield Made(number, None, entry["gate"], entry["reason"])
                elif entry["row"]["extra_info"]["split"] == split:
                    if number >= start:
                        yield Made(number, task_from_row(entry["row"], f"{self._lines.path} world {world}"))
                    number += 1

    def close(self) -> None:
        """Let go of the file."""
        self._lines.close()

    def _count(self, line: Mapping[str, Any], place: int) -> None:
        world = line["world"]
        self._places[world] = place
        self._settings[world] = line["setting"]
        self._rows[world] = Counter(row["row"]["extra_info"]["split"] for row in line["rows"] if "row" in row)
        self._total += self._rows[world]
