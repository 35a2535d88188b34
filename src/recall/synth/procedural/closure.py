"""What can be come upon with fewer calls: every entity and value that the visible tools lead to, with the least calls.

Starting from what the question says, calls are made in order of their cost, as in Dijkstra's algorithm; a value's cost
is the number of calls on its way. A way is a *shorter solution* if it gives the answer here and in every counterfactual
world; a value that merely happens to be the same is none. Ways that put together more than two values are not searched.
"""

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recall.programs import OPERATIONS
from recall.synth.procedural.plans import Anchor, Labelled, Scalar
from recall.synth.procedural.tools import Operation, Tool
from recall.synth.procedural.world import Key, World

Place = tuple[str, Key]
"""A type of entity and a key."""


@dataclass(frozen=True, slots=True)
class Way:
    """How an entity is come upon."""

    cost: int
    """Calls."""
    steps: tuple[tuple[str, ...], ...]
    """From the question on: `("at", type, key)`, `("to", link)`, `("member", type, link, position)`,
    `("labelled", type, label, word, position)`."""


def ways(world: World, plan: Scalar, tools: Mapping[Operation, Tool], limit: int) -> dict[Place, Way]:
    """The cheapest way to each entity that takes at most `limit` calls.

    Args:
        world: the facts.
        plan: its anchors are known from the start.
        tools: the visible ones.
        limit: calls.
    """
    queue: list[tuple[int, int, Place, tuple[tuple[str, ...], ...]]] = []
    found: dict[Place, Way] = {}

    def push(cost: int, place: Place, steps: tuple[tuple[str, ...], ...]) -> None:
        if cost <= limit and place not in found:
            heapq.heappush(queue, (cost, len(queue), place, steps))

    for node in plan.walk():
        if isinstance(node, Anchor):
            looked_up = int(not node.by_id and node.key != node.name)
            push(looked_up, (node.entity.name, node.key), (("at", node.entity.name, node.key),))
        if isinstance(node, Labelled) and Operation("where", node.entity.name, node.label.name) in tools:
            keys = node.value(world)
            for position, key in enumerate(keys):
                steps = (("labelled", node.entity.name, node.label.name, node.word, str(position)),)
                push(1, (node.entity.name, key), steps)
    reach = _Reach(world, tools)
    while queue:
        cost, _, place, path = heapq.heappop(queue)
        if place in found:
            continue
        found[place] = Way(cost, path)
        if cost < limit:
            for extra, target, step in reach.from_(place):
                push(cost + extra, target, (*path, step))
    return found


class _Reach:
    """The entities that one call leads to from another."""

    def __init__(self, world: World, tools: Mapping[Operation, Tool]) -> None:
        self.world = world
        self.links = {
            entity.name: [
                link
                for link in entity.links
                if Operation("field", entity.name, link.name) in tools or Operation("record", entity.name) in tools
            ]
            for entity in world.skin.entities
        }
        self.inverse = {
            entity.name: [
                (other.name, link.name, tools[operation])
                for other in world.skin.entities
                for link in other.links
                if link.to == entity.name and (operation := Operation("members", other.name, link.name)) in tools
            ]
            for entity in world.skin.entities
        }

    def from_(self, place: Place) -> Iterator[tuple[int, Place, tuple[str, ...]]]:
        entity, key = place
        row = self.world.tables[entity][key]
        for link in self.links[entity]:
            yield 1, (link.to, row[link.name]), ("to", link.name)
        for other, link_name, _ in self.inverse[entity]:
            for position, member in enumerate(self.world.members(other, link_name, key)):
                yield 1, (other, member), ("member", other, link_name, str(position))


def follow(steps: Sequence[tuple[str, ...]], world: World) -> Place | None:
    """Where a way leads in another world; None where it breaks off."""
    entity, key = "", ""
    for step in steps:
        match step:
            case ("at", entity, key):
                pass
            case ("to", link):
                to = next(each.to for each in world.skin.entity(entity).links if each.name == link)
                entity, key = to, str(world.tables[entity][key][link])
            case ("member", other, link, position):
                members = world.members(other, link, key)
                if int(position) >= len(members):
                    return None
                entity, key = other, members[int(position)]
            case ("labelled", entity, label, word, position):
                keys = [each for each, row in world.tables[entity].items() if row[label] == word]
                if int(position) >= len(keys):
                    return None
                key = keys[int(position)]
    return entity, key


class Shorter:
    """Looks for a solution of fewer calls than the reference program's."""

    def __init__(self, world: World, others: Sequence[World], tools: Mapping[Operation, Tool]) -> None:
        self.world, self.others, self.tools = world, others, tools

    def found(self, plan: Scalar, answer: Any, calls: int, answers: Collection[tuple[int, Any]]) -> int | None:
        """The calls of a shorter solution; None when there is none.

        Args:
            plan: what is asked for.
            answer: its value here.
            calls: of the reference program.
            answers: by the number of the counterfactual world, its value there, as far as it has one.
        """
        known = ways(self.world, plan, self.tools, calls - 1)
        columns = self._columns(known, calls - 1)
        if isinstance(answer, list):
            return self._listed(known, answer, calls, answers)
        for cost, steps, column in columns.get(answer, ()):
            if self._holds(lambda world, s=steps, c=column: self._read(world, s, c), answers):
                return cost
        for name, partner in (("difference", "sum"), ("sum", "difference")):
            if isinstance(answer, int | float) and not isinstance(answer, bool):
                pair = self._pair(columns, name, partner, answer, calls, answers)
                if pair is not None:
                    return pair
        return None

    def _columns(self, known: Mapping[Place, Way], limit: int) -> dict[Any, list[tuple[int, Any, str]]]:
        """By value, where it can be read: cost, way, column."""
        values: dict[Any, list[tuple[int, Any, str]]] = {}
        readable = {
            entity.name: [
                word
                for word in self._words(entity.name)
                if Operation("field", entity.name, word) in self.tools or Operation("record", entity.name) in self.tools
            ]
            for entity in self.world.skin.entities
        }
        for (entity, key), way in known.items():
            values.setdefault(key, []).append((way.cost, way.steps, ""))
            if way.cost < limit:
                row = self.world.tables[entity][key]
                for word in readable[entity]:
                    values.setdefault(row[word], []).append((way.cost + 1, way.steps, word))
        return values

    def _words(self, entity: str) -> list[str]:
        rows = self.world.tables[entity]
        return list(next(iter(rows.values())))

    @staticmethod
    def _read(world: World, steps: Any, column: str) -> Any:
        place = follow(steps, world)
        if place is None:
            return None
        entity, key = place
        return world.tables[entity][key][column] if column else key

    def _holds(self, read: Any, answers: Collection[tuple[int, Any]]) -> bool:
        return all(read(self.others[number]) == answer for number, answer in answers)

    def _pair(
        self, columns: Mapping[Any, Any], name: str, partner: str, answer: Any, calls: int,
        answers: Collection[tuple[int, Any]],
    ) -> int | None:  # fmt: skip
        """Two values whose sum or difference is the answer, in fewer calls together."""
        numbers = [value for value in columns if isinstance(value, int | float) and not isinstance(value, bool)]
        for value in numbers:
            other = OPERATIONS["sum" if name == "difference" else "minus"](answer, value)
            if other not in columns:
                continue
            for cost, steps, column in columns[value]:
                for cost_, steps_, column_ in columns[other]:
                    if cost + cost_ >= calls:
                        continue

                    def read(world: World, s: Any = steps, c: str = column, s_: Any = steps_, c_: str = column_) -> Any:
                        left, right = self._read(world, s, c), self._read(world, s_, c_)
                        numeric = isinstance(left, int | float) and isinstance(right, int | float)
                        return OPERATIONS[name](left, right) if numeric else None

                    if self._holds(read, answers):
                        return int(cost + cost_)
        return None

    def _listed(
        self, known: Mapping[Place, Way], answer: list[Any], calls: int, answers: Collection[tuple[int, Any]]
    ) -> int | None:
        """One list that is the answer."""
        for (entity, key), way in known.items():
            for other in self.world.skin.entities:
                for link in other.links:
                    if link.to != entity or Operation("members", other.name, link.name) not in self.tools:
                        continue
                    if way.cost + 1 >= calls or sorted(self.world.members(other.name, link.name, key)) != answer:
                        continue

                    def read(world: World, s: Any = way.steps, o: str = other.name, name: str = link.name) -> Any:
                        place = follow(s, world)
                        return None if place is None else sorted(world.members(o, name, place[1]))

                    if self._holds(read, answers):
                        return way.cost + 1
        return None
