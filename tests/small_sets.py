"""A small generator for tests of sets: the first generator's tasks, with what the procedural one says of a task."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from recall.datasets.sets import Manifest
from recall.synth.made import Made, Make
from recall.synth.tasks import ToolTasks
from recall.synth.workers import Workers
from recall.synth.writer import write_set
from recall.types import Task

LABELS = ("1", "2", "join")
SPLITS: Mapping[str, int] = {"train": 23, "new_worlds": 7}


def task(split: str, seed: int, index: int) -> Task:
    """A task with `extra["synth"]`."""
    label = LABELS[index % len(LABELS)]
    made = ToolTasks(label, split=split, seed=seed)[index]
    tools = json.dumps([[tool.name, dict(tool.parameters)] for tool in made.tools])
    structure = hashlib.sha256(f"{split}/{[call['name'] for call in made.reference]}".encode()).hexdigest()[:16]
    synth = {
        "domain": "fiction",
        "world": f"{split}{index}",
        "template": f"chain({label})",
        "structure": structure,
        "tool_set": hashlib.sha256(tools.encode()).hexdigest()[:16],
        "calls": made.depth,
        "shortest": made.depth,
        "operators": ["hop"] if label != "join" else ["hop", "sum"],
        "difficulty": float(made.depth),
        "distractors": {"other_tools": len(made.tools) - made.depth},
        "seed": seed,
        "index": index,
        "counterfactual": 1.0,
    }
    return replace(made, kind=f"hop{label}" if label != "join" else "sum", extra={"synth": synth})


def make(split: str, seed: int, block: range) -> list[Made]:
    """The attempts at the tasks of these numbers; some are thrown away first."""
    attempts = []
    for index in block:
        if index % 4 == 1:
            attempts.append(Made(index, None, "minimal", "a shorter way"))
        if index % 6 == 2:
            attempts.append(Made(index, None, "guess", "constant"))
        attempts.append(Made(index, task(split, seed, index)))
    return attempts


def makes(seed: int = 0, splits: Mapping[str, int] = SPLITS) -> dict[str, Make]:
    """What makes each split."""
    return {split: partial(make, split, seed) for split in splits}


def write(
    directory: Path,
    *,
    seed: int = 0,
    workers: int = 1,
    splits: Mapping[str, int] = SPLITS,
    recipe: Mapping[str, Any] = {"calls": 3},
    **options: Any,
) -> Manifest:
    """Write a set with the small generator."""
    with Workers(makes(seed, splits), splits, workers, block=4) as made:
        return write_set(
            directory, made.stream, kind="small", recipe=recipe, seed=seed, splits=splits, shard_rows=5, **options
        )
