"""The trajectories behind the entries of an evaluation, kept in its folder for `recall view` and `recall show`.

They are written some at a time, each time into a file of its own: `trajectories/step-000003-SPLIT.jsonl.zst`, where the
number says which part it is. A run that goes on adds files; a kill loses what was not written yet, and no verdict.
"""

from pathlib import Path

from recall.store import Run
from recall.types import Group

PART = 256
"""Entries that are written together."""


class Kept:
    """Takes the trajectories of entries as they come."""

    def __init__(self, folder: Path, *, part: int = PART) -> None:
        """Keep them in the folder of an evaluation, `part` entries in a file."""
        self._run, self._part = Run(folder), part
        self._waiting: dict[str, list[Group]] = {}

    def add(self, split: str, group: Group) -> None:
        """Take the trajectories of one entry.

        Args:
            split: what the entry belongs to, such as its category.
            group: the entry as a task, and what was played for it.

        Raises:
            ConfigError: the disk refuses them.
        """
        waiting = self._waiting.setdefault(split, [])
        waiting.append(group)
        if len(waiting) >= self._part:
            self._write(split)

    def close(self) -> None:
        """Write what is left.

        Raises:
            ConfigError: the disk refuses it.
        """
        for split in list(self._waiting):
            self._write(split)

    def _write(self, split: str) -> None:
        number = 1 + max((file.step for file in self._run.trajectory_files()), default=-1)
        self._run.write_groups(number, self._waiting.pop(split), split=split)
