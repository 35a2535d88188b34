"""Tasks of the sources that come in splits: the procedural generator, and a set of tasks on disk."""

from itertools import islice
from pathlib import Path

from recall.datasets.rows import iter_tasks
from recall.datasets.sets import MANIFEST
from recall.errors import ConfigError
from recall.types import Task

PROCEDURAL = "procedural"
"""The name of the generator as a source."""
SEED = 0
"""Of the generator for evaluation, so that everybody measures on the same tasks."""


def has_splits(source: str) -> bool:
    """Whether a source comes in splits: `procedural`, or the directory of a set."""
    return source == PROCEDURAL or (Path(source) / MANIFEST).is_file()


def split_tasks(source: str, split: str, count: int, recipe: str = "default") -> list[Task]:
    """The first tasks of one split, the same ones every time.

    Args:
        source: `procedural`, or the directory of a set.
        split: its name.
        count: how many; a set may hold fewer.
        recipe: of the generator, a preset or a TOML file; a set has its own.

    Raises:
        ConfigError: there is no such split or recipe, or the set cannot be read.
    """
    if source == PROCEDURAL:
        from recall.synth.procedural.recipe import recipe_of
        from recall.synth.procedural.tasks import ProceduralTasks

        return ProceduralTasks(recipe_of(recipe), seed=SEED, split=split).take(count)
    tasks = list(islice(iter_tasks(Path(source) / split, parse_env=False), count))
    if not tasks:
        raise ConfigError(f"{source}: split {split!r} holds no task yet")
    return tasks
