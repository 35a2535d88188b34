"""`recall synth`: makes tasks, as sets of shards or as files of rows. Where they come from is `synth/`'s business."""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from recall.config import Positional, Settings
from recall.errors import ConfigError

if TYPE_CHECKING:
    from recall.datasets.sets import Manifest
    from recall.synth.writer import Progress
    from recall.types import Task


class Nano(Settings):
    """Write tasks of the small generator, which nano was pretrained with, as task rows (.parquet or .jsonl)."""

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


class Procedural(Settings):
    """Make a set of certified tasks over invented worlds, without a language model.

    The directory can be interrupted at any moment and made again with the same settings: it goes on after the
    last shard. Its bytes depend on recipe, seed and rows alone.
    """

    out: Path
    """The directory of the set."""
    rows: int = Field(default=1000, ge=1)
    """Certified tasks in all."""
    seed: int = 0
    """Decides everything, with the recipe."""
    recipe: str = "default"
    """default, nano, published, hard, or a TOML file."""
    splits: str | None = None
    """Shares of the splits, as train=0.9,new_worlds=0.1; none takes the usual ones."""
    workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    """Processes that make tasks."""
    shard_rows: int = Field(default=5000, ge=1)
    """Rows of a shard; an interruption loses at most one."""

    def main(self) -> int:
        """Make the set, and say what came of it."""
        from recall.synth.procedural.recipe import recipe_of
        from recall.synth.sets import SHARES, rows_of, shares_of, write_procedural_set

        splits = rows_of(self.rows, shares_of(self.splits) if self.splits is not None else SHARES)
        recipe = recipe_of(self.recipe)
        with progress_of(splits) as on_progress:
            manifest = write_procedural_set(
                self.out,
                recipe,
                seed=self.seed,
                splits=splits,
                workers=min(self.workers, self.rows),
                shard_rows=self.shard_rows,
                on_progress=on_progress,
            )
        print("\n".join(summary(self.out, manifest)))
        return 0


class Encyclopedia(Settings):
    """Make a fictional encyclopedia, its BM25 index, and certified multi-hop questions over it.

    Corpus, questions and task rows depend on recipe, seed and rows alone.
    """

    out: Path
    """The directory to make."""
    rows: int = Field(default=1000, ge=20)
    """Questions in all, of which 80 % are for training."""
    seed: int = 0
    """Decides everything, with the recipe."""
    recipe: str = "default"
    """default, nano (in words that the small policy reads), or a TOML file."""

    def main(self) -> int:
        """Make it, and say what came of it and what it is for."""
        from recall.synth.encyclopedia.make import make_encyclopedia, rows_of
        from recall.synth.encyclopedia.recipe import recipe_of

        recipe = recipe_of(self.recipe)
        with progress_of(rows_of(self.rows)) as on_progress:
            report = make_encyclopedia(self.out, recipe, rows=self.rows, seed=self.seed, on_progress=on_progress)
        print(f"{self.out}: {report.passages} passages, {sum(report.splits.values())} questions, seed {self.seed}")
        print("  " + ", ".join(f"{split} {rows}" for split, rows in report.splits.items()))
        for gate, reasons in report.rejected.items():
            print(f"  {gate}: " + ", ".join(f"{reason} {count}" for reason, count in reasons.items()))
        print(f"  tasks: {self.out}/tasks; questions: {self.out}/questions; what is searched: {self.out}/index")
        return 0


class Export(Settings):
    """Write the tasks of a set as rows of another format, for other trainers.

    recall_v1 is the published row, five columns and nothing else, that a sandbox without memory can run: tasks
    about state, and tasks whose tools remember something between two calls, are left out and counted.
    """

    source: Positional[Path]
    """A set, DIR/SPLIT of one, or a file of tasks."""
    out: Positional[Path]
    """The .parquet or .jsonl file to write; one that exists is not replaced."""
    format: Literal["recall_v1"] = "recall_v1"
    """The format of the rows."""

    def main(self) -> int:
        """Write the file, and say what was left out."""
        from recall.datasets.published import write_published
        from recall.datasets.rows import iter_tasks
        from recall.synth.stateless import state_of

        if self.out.exists():
            raise ConfigError(f"{self.out}: exists; choose another name")
        left_out: Counter[str] = Counter()

        def stateless() -> "Iterator[Task]":
            for task in iter_tasks(self.source):
                if (why := state_of(task)) is None:
                    yield task
                else:
                    left_out[why] += 1

        written = write_published(self.out, stateless())
        print(f"{self.out}: {written} tasks written, {left_out.total()} left out")
        for why, count in left_out.most_common():
            print(f"  left out {count}: {why}")
        return 0


@contextmanager
def progress_of(splits: "dict[str, int]") -> "Iterator[Progress]":
    """Show the rows of each split as they are made, on standard error; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
        shown = {split: bars.add_task(split, total=rows, start=False, rate="") for split, rows in splits.items()}
        started: set[str] = set()

        def on_progress(split: str, rows: int, tried: int) -> None:
            bar = shown[split]
            if split not in started:
                started.add(split)
                bars.start_task(bar)
            speed = bars.tasks[bar].speed
            bars.update(bar, completed=rows, rate=f"{speed:.0f} a second" if speed else "")

        yield on_progress


def summary(directory: Path, manifest: "Manifest") -> "Iterator[str]":
    """What a set came to, and how many attempts each certificate threw away."""
    state = "" if manifest.complete else f", incomplete: {sum(manifest.splits.values())} were asked for"
    yield f"{directory}: {manifest.rows} tasks in {len(manifest.shards)} shards, seed {manifest.seed}{state}"
    yield "  " + ", ".join(f"{split} {rows}" for split, rows in manifest.splits.items())
    if manifest.tried:
        yield f"  {manifest.tried} attempts, {manifest.rows / manifest.tried:.1%} accepted"
    for gate, reasons in manifest.rejected.items():
        yield f"  {gate}: " + ", ".join(f"{reason} {count}" for reason, count in reasons.items())
