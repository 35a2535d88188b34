"""Looks for an answer by calling tools with everything that is known, level by level: is there a shorter way?"""

import copy
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any


def _leaves(value: Any) -> Iterator[Any]:
    """The scalars that a JSON value holds."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif value is not None:
        yield value


def _fits(value: Any, kind: str) -> bool:
    types = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,)}
    return type(value) in types.get(kind, ())


def _shorter(
    world: dict[str, Any],
    tools: dict[str, Callable[..., Any]],
    parameters: dict[str, dict[str, str]],
    known: list[Any],
    answer: Any,
    levels: int,
    most_calls: int,
) -> dict[str, Any]:
    """Whether at most `levels` rounds of calls show the answer.

    Every call starts from the world as it is now. What the results of one round hold is known in the next.

    Args:
        world: the tables, put back after every call.
        tools: by name.
        parameters: the type of each required parameter of each tool.
        known: the scalars of the question.
        answer: a JSON value; it counts as found as a result, as a part of one, or as the list of one's parts.
        levels: rounds.
        most_calls: calls in all, after which the search gives up.

    Returns:
        `found`: the round that showed it, or None; `call`: the one that did; `done`: rounds that were searched wholly.
    """
    saved, wanted = copy.deepcopy(world), json.dumps(answer)
    tried: set[str] = set()
    calls = 0
    for level in range(1, levels + 1):
        fresh: list[Any] = []
        for name, kinds in parameters.items():
            choices = [[value for value in known if _fits(value, kind)] for kind in kinds.values()]
            for values in itertools.product(*choices):
                arguments = dict(zip(kinds, values, strict=True))
                written = json.dumps([name, arguments], sort_keys=True)
                if written in tried:
                    continue
                tried.add(written)
                calls += 1
                if calls > most_calls:
                    return {"found": None, "call": "", "done": level - 1}
                try:
                    result = json.loads(json.dumps(tools[name](**arguments)))
                except Exception:  # noqa: BLE001 - what a tool refuses shows no answer
                    continue
                finally:
                    if world != saved:
                        world.clear()
                        world.update(copy.deepcopy(saved))
                parts = list(_leaves(result))
                if wanted in (json.dumps(result), json.dumps(parts), *map(json.dumps, parts)):
                    return {"found": level, "call": written, "done": level - 1}
                fresh += parts
        known = list({json.dumps(value): value for value in [*known, *fresh]}.values())
    return {"found": None, "call": "", "done": levels}
