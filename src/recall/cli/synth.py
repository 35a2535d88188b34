"""`recall synth`: write generated tasks as rows that any trainer of the published format can read."""

from pathlib import Path

from pydantic import Field

from recall.config import Positional, Settings


class Synth(Settings):
    """Generate tasks over fictional worlds and write them as task rows (.parquet or .jsonl)."""

    out: Positional[Path]
    """The file to write."""
    rows: int = Field(default=1000, ge=1)
    """Tasks in all."""
    kinds: tuple[str, ...] = ("1", "2", "3", "4", "join")
    """Kinds of task, in turn: a number of chained calls, or join, join4, …"""
    split: str = "train"
    """train, held_out, new_worlds, new_names, new_chains or new_tools."""
    seed: int = 0
    """Decides everything."""

    def main(self) -> int:
        """Write the file."""
        from recall.datasets.rows import write_tasks
        from recall.synth.tasks import ToolTasks

        sources = [ToolTasks(kind, split=self.split, seed=self.seed) for kind in self.kinds]
        tasks = [sources[number % len(sources)][number // len(sources)] for number in range(self.rows)]
        write_tasks(self.out, tasks)
        print(f"{self.out}: {len(tasks)} tasks, {', '.join(self.kinds)}, split {self.split}, seed {self.seed}")
        return 0
