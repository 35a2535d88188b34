"""Carrying a plan out with tools: the calls it makes, what they return, and the reference program that comes of it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from recall.programs import OPERATIONS
from recall.synth.procedural.tools import Operation, Tool

Call = Callable[[str, Mapping[str, Any]], Any]


class Bound(NamedTuple):
    """A value, and the expression of the reference program that says where it comes from."""

    value: Any
    expression: Any


class CannotRunError(Exception):
    """The tools at hand cannot carry the plan out."""


def literal(value: Any) -> Bound:
    """A value that the question states."""
    return Bound(value, value)


def work_out(name: str, *operands: Bound | Sequence[Bound]) -> Bound:
    """What the agent works out in its head; a sequence of bound values is a list."""
    values = [each.value if isinstance(each, Bound) else [one.value for one in each] for each in operands]
    expressions = [
        each.expression if isinstance(each, Bound) else [one.expression for one in each] for each in operands
    ]
    return Bound(OPERATIONS[name](*values), {"$op": name, "of": expressions})


@dataclass
class Trace:
    """One run of a plan. A call that was made already is not made again."""

    tools: Mapping[Operation, Tool]
    """What can be called, by what it does."""
    function: Call
    """Calls a tool."""
    items: list[dict[str, Any]] = field(default_factory=list)
    """The reference program."""
    results: list[Any] = field(default_factory=list)
    """What each of its items returned: JSON values, as the tools make no others."""
    used: dict[str, Tool] = field(default_factory=dict)
    """The tools called, by name."""
    _made: dict[tuple[Any, ...], int] = field(default_factory=dict)
    _known: dict[tuple[str, str, Any], Bound] = field(default_factory=dict)

    def call(self, tool: Tool, **roles: Bound) -> int:
        """Call a tool; the number of the item."""
        arguments = {tool.roles[role]: bound for role, bound in roles.items()}
        values = {name: bound.value for name, bound in arguments.items()}
        made = (tool.spec.name, *values.values())
        if made in self._made:
            return self._made[made]
        item: dict[str, Any] = {
            "name": tool.spec.name,
            "arguments": {name: bound.expression for name, bound in arguments.items()},
        }
        if tool.failing:  # on each of its calls, as any may come first where several are made at once
            item["retry"] = True
        self.used[tool.spec.name] = tool
        self.items.append(item)
        self.results.append(self.function(tool.spec.name, values))
        self._made[made] = len(self.items) - 1
        return self._made[made]

    def changed(self, entity: str, word: str, key: Bound, value: Bound) -> None:
        """After a change the new value is known, and a list that it bears on has to be read again."""
        self._known[entity, word, key.value] = value
        operation = Operation("members", entity, word)
        stale = {name for name, tool in self.used.items() if tool.operation == operation}
        self._made = {made: number for made, number in self._made.items() if made[0] not in stale}

    def _tool(self, operation: Operation) -> Tool:
        if operation not in self.tools:
            raise CannotRunError(f"no tool does {operation}")
        return self.tools[operation]

    def read(self, entity: str, key: Bound, word: str) -> Bound:
        """One column of an entity, from a tool of its own or from the record."""
        known = self._known.get((entity, word, key.value))
        if known is not None:
            return known
        tool = self.tools.get(Operation("field", entity, word))
        if tool is not None:
            return self._at(self.call(tool, key=key), tool.path, tool.match)
        return self._at(self.call(self._tool(Operation("record", entity)), key=key), (word,))

    def _at(self, number: int, path: Sequence[str | int], match: str = "") -> Bound:
        value = self.results[number]
        for key in path:
            value = value[key]
        expression: dict[str, Any] = {"$ref": number}
        if path:
            expression["path"] = path[0] if len(path) == 1 else list(path)
        if match:
            found = re.search(match, value)
            assert found is not None, "a tool answers in its own words"
            value, expression = found[1], {**expression, "match": match}
        return Bound(value, expression)

    def listed(self, operation: Operation, **roles: Bound) -> list[Bound]:
        """The entries of a list, page by page where it comes in pages: each says the number of the next."""
        tool = self._tool(operation)
        numbers = [self.call(tool, **roles)]
        while tool.page_size and (page := self._at(numbers[-1], (tool.next_page,))).value is not None:
            numbers.append(self.call(tool, **roles, page=page))
        entries = []
        for number in numbers:
            found = self._at(number, tool.path).value
            entries += [self._at(number, (*tool.path, position)) for position in range(len(found))]
        return entries

    def look_up(self, entity: str, name: Bound) -> Bound:
        """The id of an entity by its name."""
        return self._at(self.call(self._tool(Operation("lookup", entity)), key=name), ())

    def rate(self, currency: Bound) -> Bound:
        """What one credit is worth."""
        tool = self._tool(Operation("rate", "currency"))
        return self._at(self.call(tool, key=currency), tool.path)

    def compute(self, verb: Literal["add", "subtract"], left: Bound, right: Bound) -> Bound:
        """What a tool makes of two numbers."""
        tool = self._tool(Operation(verb))
        return self._at(self.call(tool, a=left, b=right), tool.path)

    def change(self, operation: Operation, **roles: Bound) -> None:
        """Call a tool that changes something."""
        self.call(self._tool(operation), **roles)
