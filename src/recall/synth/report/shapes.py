"""The shape of a reference program, read from the program itself: its calls, how deep and how wide they lie."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recall.programs import Item, references

_SCALAR = (str, int, float, type(None))
"""What most expressions are; asking whether they are mappings takes longer."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What is known of a program without running it."""

    calls: int
    """Its calls."""
    depth: int
    """The longest chain of calls, each of which needs the one before: the fewest turns, with parallel calls."""
    width: int
    """The most calls that can be made in one turn, when each is made as early as it can be."""
    first: tuple[int, ...]
    """The items that are calls and need no other call."""
    words: frozenset[str]
    """The operations that it works out in the head."""
    needed: tuple[int, ...]
    """The items that are calls and that the answer is made of; a call that only changes something is none of them."""
    ends_in_the_head: bool
    """Whether something is left to do after the last of these, beyond copying what it said."""


def shape_of(program: Sequence[Item]) -> Shape:
    """The shape of a program; that of an empty one has no calls.

    Raises:
        ValueError: an item refers to itself or a later one.
    """
    levels: list[int] = []
    for number, item in enumerate(program):
        needs = list(references(_expression(item)))
        if any(not 0 <= need < number for need in needs):
            raise ValueError(f"item {number} refers to no earlier item")
        levels.append(max((levels[need] for need in needs), default=0) + ("name" in item))
    needed = {len(program) - 1} if program else set()
    for number in range(len(program) - 1, -1, -1):
        if number in needed:
            needed.update(references(_expression(program[number])))
    at = [level for level, item in zip(levels, program, strict=True) if "name" in item]
    return Shape(
        calls=len(at),
        depth=max(at, default=0),
        width=max(Counter(at).values(), default=0),
        first=tuple(number for number, item in enumerate(program) if "name" in item and levels[number] == 1),
        words=frozenset(word for item in program for word in _operations(_expression(item))),
        needed=tuple(number for number in sorted(needed) if "name" in program[number]),
        ends_in_the_head=_ends_in_the_head(program),
    )


def outline(program: Sequence[Item], *, names: bool) -> str:
    """The program with every literal left out; without `names`, with the tools' names left out too."""
    return json.dumps([_outlined(item, names=names) for item in program], sort_keys=True)


def literals(expression: Any) -> Iterator[Any]:
    """The values that an expression states itself: what it neither refers to nor names as an operation."""
    if isinstance(expression, Mapping):
        if "$ref" in expression:
            return
        if "$op" in expression:
            yield from literals(expression.get("of", ()))
            return
        for value in expression.values():
            yield from literals(value)
    elif isinstance(expression, list | tuple):
        for value in expression:
            yield from literals(value)
    else:
        yield expression


def _ends_in_the_head(program: Sequence[Item]) -> bool:
    if not program or "name" in program[-1]:
        return False
    value = program[-1]["value"]
    return any(True for _ in _operations(value)) or len(set(references(value))) > 1


def _expression(item: Item) -> Any:
    return item["arguments"] if "name" in item else item["value"]


def _outlined(item: Item, *, names: bool) -> Any:
    if "name" not in item:
        return {"value": _without_literals(item["value"])}
    arguments = {name: _without_literals(value) for name, value in item["arguments"].items()}
    return [item["name"], arguments] if names else sorted(json.dumps(value) for value in arguments.values())


def _without_literals(expression: Any) -> Any:
    if isinstance(expression, _SCALAR):
        return "·"
    if isinstance(expression, Mapping):
        if "$ref" in expression:
            return {"$ref": expression["$ref"]}
        if "$op" in expression:
            return {"$op": expression["$op"], "of": _without_literals(expression.get("of", ()))}
        return {key: _without_literals(value) for key, value in expression.items()}
    if isinstance(expression, list | tuple):
        return [_without_literals(value) for value in expression]
    return "·"


def _operations(expression: Any) -> Iterator[str]:
    if isinstance(expression, _SCALAR):
        return
    if isinstance(expression, Mapping):
        if "$op" in expression:
            yield str(expression["$op"])
        for value in expression.values():
            yield from _operations(value)
    elif isinstance(expression, list | tuple):
        for value in expression:
            yield from _operations(value)
