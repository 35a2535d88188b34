"""Certified tasks by the range, for the writer of sets: drawn, checked, and replayed in a sandbox of their own."""

import asyncio
import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from recall.sandbox.local import LocalSandbox
from recall.synth.made import Made
from recall.synth.procedural.recipe import Recipe
from recall.synth.procedural.replay import replay
from recall.synth.procedural.tasks import ProceduralTasks
from recall.types import Task


def make(recipe: Recipe, seed: int, split: str, numbers: range) -> Sequence[Made]:
    """Every attempt at the tasks of these numbers, in order: a pure function, to be called in any process.

    Ranges that begin and end at multiples of `recipe.tasks_per_world` draw each world once. A range starts a sandbox,
    so a few hundred numbers at once are better than a few.

    Raises:
        RuntimeError: the sandbox finds a task of ours to be wrong, which is a bug.
    """
    tasks = ProceduralTasks(recipe, seed=seed, split=split)
    with _without_collections():
        attempts = [(number, attempt) for number in numbers for attempt in tasks.attempts(number)]
    certified = [(attempt.task, attempt.results) for _, attempt in attempts if attempt.task is not None]
    for (task, _), problem in zip(certified, asyncio.run(_replayed(certified)), strict=True):
        if problem:
            raise RuntimeError(f"{task.id}: in the sandbox {problem}")
    return [Made(number, attempt.task, attempt.gate, attempt.reason) for number, attempt in attempts]


@contextmanager
def _without_collections() -> Iterator[None]:
    """Look for no rings of objects meanwhile: there are none, and going through many tasks in vain takes its time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


async def _replayed(tasks: Sequence[tuple[Task, Sequence[Any]]]) -> list[str]:
    sandbox = LocalSandbox()
    try:
        return await replay(sandbox, tasks)
    finally:
        await sandbox.close()
