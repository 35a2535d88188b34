"""`recall data`: look into a file of tasks, and rewrite it. The rows themselves are `datasets/rows.py`'s."""

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from recall.config import Positional, Settings
from recall.errors import ConfigError
from recall.types import Task


class Inspect(Settings):
    """Say what is in a file of tasks: how many, of which kinds, and one as the policy would meet it.

    Bad rows are listed by row and field; the exit status is then 1.
    """

    file: Positional[Path]
    """A parquet or JSONL file of task rows."""
    row: int = 1
    """The task to print, counted from 1 over the good rows; 0 prints none."""

    def main(self) -> int:
        """Print the summary, the task, and the bad rows."""
        from recall.datasets.rows import read_tasks

        skipped: list[str] = []
        tasks = read_tasks(self.file, skip_bad=True, on_skip=skipped.append)
        if self.row > len(tasks) or self.row < 0:
            raise ConfigError(
                f"--row: {self.row} is not accepted; {self.file} has rows 1 to {len(tasks)}, or 0 for none"
            )
        print("\n".join(_summary(self.file, tasks, len(skipped))))
        if self.row:
            print("\n".join(["", *_shown(tasks[self.row - 1])]))
        for line in skipped:
            print(f"bad: {line}", file=sys.stderr)
        return 1 if skipped else 0


class Convert(Settings):
    """Rewrite a file of tasks in the published row format; the suffix of the new file says parquet or JSONL."""

    file: Positional[Path]
    """A parquet or JSONL file of task rows."""
    to: Positional[Path]
    """The file to write; one that exists is not replaced."""
    skip_bad: bool = False
    """Leave bad rows out, and list them, instead of refusing the file."""

    def main(self) -> int:
        """Convert, and say how many rows were written."""
        from recall.datasets.rows import read_tasks, write_tasks

        if self.to.exists():
            raise ConfigError(f"{self.to}: exists; choose another name")
        skipped: list[str] = []
        tasks = read_tasks(self.file, skip_bad=self.skip_bad, on_skip=skipped.append)
        write_tasks(self.to, tasks)
        for line in skipped:
            print(f"left out: {line}", file=sys.stderr)
        print(f"{self.to}: {len(tasks)} tasks written, {len(skipped)} left out")
        return 0


def _summary(file: Path, tasks: list[Task], bad: int) -> list[str]:
    return [
        f"{file}: {len(tasks)} tasks, {bad} bad rows",
        _counts("source", (task.data_source for task in tasks)),
        _counts("split", (task.split for task in tasks)),
        _counts("kind", (task.kind for task in tasks)),
        _counts("depth", (str(task.depth) for task in tasks)),
        _counts("answer", (task.answer_type.kind for task in tasks)),
        _counts("tools", (str(len(task.tools)) for task in tasks)),
    ]


def _counts(name: str, values: Iterable[str]) -> str:
    counted = Counter(values)
    shown = ", ".join(f"{value or '(none)'} {count}" for value, count in counted.most_common(8))
    return f"  {name:7} {shown}" + (f", and {len(counted) - 8} more" if len(counted) > 8 else "")


def _shown(task: Task) -> list[str]:
    from recall.viewer.text import visible

    lines = [f"task {task.id}", f"  question  {task.question}", f"  answer    {' | '.join(task.ground_truth)}"]
    for tool in task.tools:
        parameters = ", ".join(tool.parameters.get("properties", {}))
        lines.append(f"  tool      {tool.name}({parameters}): {' '.join(tool.description.split())[:80]}")
    lines += [f"  call {number}    {call['name']}({call['arguments']})" for number, call in enumerate(task.reference)]
    return [visible(line) for line in lines]
