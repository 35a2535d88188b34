"""Makes the task of a row: one blueprint in one world, with a question, and what was found out about it."""

import dataclasses
import hashlib
import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from recall.synth.llm.author import Asked
from recall.synth.llm.blueprint import form_of, kind_of, structure_of
from recall.synth.llm.certify import Instance
from recall.synth.llm.questions import ask
from recall.synth.llm.source import World
from recall.synth.llm.topics import Topic
from recall.types import AnswerType, Task

DATA_SOURCE = "recall_llm"
"""The data source of these rows."""

_PARTS = 1 << 32


def split_of(shape: str, shares: Sequence[tuple[str, float]]) -> str:
    """The split of a world: all worlds of one shape are in one split, so that no structure is in two.

    Args:
        shape: the hash of the world's schema without its words.
        shares: splits with the share of shapes that each gets; what is left is `train`.
    """
    place = int(hashlib.sha256(f"split/{shape}".encode()).hexdigest()[:8], 16) / _PARTS
    for split, share in shares:
        if place < share:
            return split
        place -= share
    return "train"


def without_unused(world: World, tasks: Sequence[Asked]) -> World:
    """The world with the tools that its tasks use; the others stay in the code and are told to nobody."""
    used = {item["name"] for task in tasks for item in task.certified.blueprint.calls}
    return dataclasses.replace(world, tools=tuple(tool for tool in world.tools if tool.name in used))


def task_of(
    world: World, asked: Asked, instance: Instance, *, topic: Topic, split: str, place: tuple[int, int, int]
) -> Task:
    """The task of one row.

    Args:
        world: its tools are what a policy is told of.
        asked: the blueprint with its phrasings.
        instance: the blueprint in one world.
        topic: where the world plays.
        split: of the row.
        place: the seed of the set, the number of the world, and that of the blueprint in it.
    """
    blueprint = asked.certified.blueprint
    seed, number, task = place
    changes = instance.played.changes or None
    phrasing = random.Random(f"{seed}/{number}/{task}/{instance.seed}").choice(asked.phrasings)
    source = world.source(instance.seed) if changes is None else world.stateful(instance.seed)
    kind = blueprint.comparison
    return Task(
        id=f"{seed}-{number:06}-{task:02}-{instance.seed:07}",
        question=ask(phrasing, instance),
        ground_truth=(instance.answer,) if blueprint.answer_type != "none" else (),
        env=source,
        tools=world.tools,
        answer_type=kind if blueprint.answer_type != "none" else AnswerType("text"),
        data_source=DATA_SOURCE,
        split=split,
        depth=len(blueprint.calls),
        max_calls=2 * len(blueprint.calls) + 2,
        kind=kind_of(form_of(blueprint.program), len(blueprint.calls), changes is not None),
        reference=tuple(instance.program),
        changes=changes,
        extra={"synth": _facts(world, asked, instance, topic, place)},
    )


def _facts(world: World, asked: Asked, instance: Instance, topic: Topic, place: tuple[int, int, int]) -> dict[str, Any]:
    """What a report, a curriculum and a split go by."""
    blueprint, certified = asked.certified.blueprint, asked.certified
    form = form_of(blueprint.program)
    calls, tools = len(blueprint.calls), len(world.tools)
    shape = world.schema.shape
    return {
        "domain": topic.domain,
        "world": f"{place[0]}/{place[1]}",
        "shape": shape,
        "template": form.template,
        "structure": structure_of(shape, form.template),
        "tool_set": world.tool_set,
        "calls": calls,
        "depth": form.depth,
        "width": form.width,
        "turns": form.depth,
        "shortest": certified.shortest,
        "operators": list(form.operators),
        "levels": {},
        "difficulty": round(calls + 0.5 * form.depth + 0.3 * math.log2(tools), 3),
        "distractors": dict(Counter(unused=sum(tool.name not in _used(asked) for tool in world.tools))),
        "seed": place[0],
        "index": place[1],
        "world_seed": instance.seed,
        "anchors": dict(instance.anchors),
        "counterfactual": round(certified.changed, 4),
        "guessed": round(certified.guessed, 4),
    }


def _used(asked: Asked) -> set[str]:
    return {str(item["name"]) for item in asked.certified.blueprint.calls}
