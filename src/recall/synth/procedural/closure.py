"""What can be come upon with fewer calls: every entity and value that the visible tools lead to, with the least calls.

Starting from what the question says, calls are made in order of their cost, as in Dijkstra's algorithm; a value's cost
is the number of calls on its way, each page of a list being one. A way is a *shorter solution* if it gives the answer,
or an entity on the way to it, here and in every counterfactual world; a value that merely happens to be the same is
none, unless a single call comes to it. Beside ways to one value, sums, differences and days between two values are
tried, other lists for a list, and for each filter the other means of filtering. What puts together more than two values
in new ways is not searched.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from recall.programs import OPERATIONS
from recall.synth.procedural.ledger import Ledger
from recall.synth.procedural.plans import (
    Above,
    Anchor,
    Between,
    Both,
    Labelled,
    Many,
    Members,
    Node,
    One,
    Scalar,
    Where,
)
from recall.synth.procedural.scalars import Acted, Combine, Days, Moved
from recall.synth.procedural.skins.schema import Label
from recall.synth.procedural.tools import Operation, Tool
from recall.synth.procedural.trace import CannotRunError
from recall.synth.procedural.world import NAME, Key, World

Place = tuple[str, Key]
"""A type of entity and a key."""
Step = tuple[Any, ...]
Steps = tuple[Step, ...]
"""How an entity is come upon, from the question on: `("at", type, key)`, `("to", link)`, `("member", type, link,
position)`, `("labelled", type, label, word, position)`, `("within", type, column, low, high, position)`."""
Answers = Collection[tuple[int, Any]]
"""By the number of the counterfactual world, the answer there."""
_PLACES = 4
"""No value has more decimals, so that numbers which agree in as many are equal."""
Read = Callable[[World], Any]
"""Follows a way in any world; None where it breaks off."""


class Way(NamedTuple):
    """How an entity is come upon."""

    cost: int
    """Calls."""
    step: Step
    """The last step."""
    before: "Way | None"
    """The way to where the last step begins; None where that is the question."""

    @property
    def steps(self) -> Steps:
        """All steps, from the question on."""
        return (*(self.before.steps if self.before else ()), self.step)


class Reach:
    """What the visible tools lead to, from what the question says."""

    def __init__(self, world: World, tools: Mapping[Operation, Tool]) -> None:
        self.world, self.tools = world, tools
        names = (NAME,) if world.keyed == "id" else ()
        self.readable: dict[str, Sequence[str]] = {entity.name: [] for entity in world.skin.entities}
        """By type of entity, the columns that a visible tool reads."""
        listed = []
        for operation, tool in tools.items():
            if operation.verb == "record":
                self.readable[operation.entity] = (*names, *world.skin.entity(operation.entity).words)
            elif operation.verb == "field":
                self.readable[operation.entity] = [*self.readable[operation.entity], operation.word]
            elif operation.verb == "members":
                listed.append((operation.entity, operation.word, tool))
        self.lists: dict[str, list[tuple[str, str, Tool]]] = {entity.name: [] for entity in world.skin.entities}
        """By type of entity, the types and links by which a visible tool lists what leads to one, with the tool."""
        for entity, word, tool in listed:
            self.lists[_target(world, entity, word)].append((entity, word, tool))
        self._links = {
            entity.name: [link for link in entity.links if link.name in self.readable[entity.name]]
            for entity in world.skin.entities
        }

    def ways(self, plan: Node, limit: int) -> dict[Place, Way]:
        """The cheapest way to each entity that takes at most `limit` calls; the plan's anchors are known."""
        waiting: list[list[tuple[Place, Step, Way | None]]] = [[] for _ in range(limit + 1)]
        found: dict[Place, Way] = {}
        for cost, place, step in self._starts(plan):
            if cost <= limit:
                waiting[cost].append((place, step, None))
        for cost, arrived in enumerate(waiting):
            for place, step, before in arrived:
                if place in found:
                    continue
                found[place] = way = Way(cost, step, before)
                for extra, target, step_ in self._from(place) if cost < limit else ():
                    if cost + extra <= limit and target not in found:
                        waiting[cost + extra].append((target, step_, way))
        return found

    def _starts(self, plan: Node) -> Iterator[tuple[int, Place, Step]]:
        for node in plan.nodes:
            if isinstance(node, Anchor):
                place = (node.entity.name, node.key)
                yield int(not node.known), place, ("at", *place)
            elif isinstance(node, Labelled):
                step = ("labelled", node.entity.name, node.label.name, node.word)
                yield from self._entries(Operation("where", *step[1:3]), step, node.value(self.world))
            elif isinstance(node, Between):
                within = ("within", node.entity.name, node.column.name, node.low, node.high)
                yield from self._entries(Operation("range", *within[1:3]), within, node.value(self.world))

    def _entries(self, operation: Operation, step: Step, keys: Sequence[Key]) -> Iterator[tuple[int, Place, Step]]:
        tool = self.tools.get(operation)
        if tool is not None:
            for position, key in enumerate(keys):
                yield tool.pages_of(position + 1), (operation.entity, key), (*step, position)

    def _from(self, place: Place) -> Iterator[tuple[int, Place, Step]]:
        """The entities that one call, or the pages of a list, lead to from another."""
        entity, key = place
        for link in self._links[entity]:
            yield 1, (link.to, self.world.read(entity, key, link.name)), ("to", link.name)
        for other, link_name, tool in self.lists[entity]:
            for position, member in enumerate(self.world.members(other, link_name, key)):
                yield tool.pages_of(position + 1), (other, member), ("member", other, link_name, position)


def follow(steps: Steps, world: World) -> Place | None:
    """Where a way leads in another world; None where it breaks off."""
    entity, key = "", ""
    for step in steps:
        keys = None
        match step:
            case ("at", entity, key):
                pass
            case ("to", link):
                entity, key = _target(world, entity, link), str(world.read(entity, key, link))
            case ("member", other, link, _):
                keys = world.members(other, link, key)
                entity = other
            case ("labelled", entity, label, word, _):
                keys = world.where(entity, label, word)
            case ("within", entity, column, low, high, _):
                keys = world.within(entity, column, low, high)
        if keys is not None:
            position = step[-1]
            if position >= len(keys):
                return None
            key = keys[position]
    return entity, key


def shorter(
    plan: Scalar, answer: Any, calls: int, answers: Answers, *, world: World, others: Sequence[World],
    tools: Mapping[Operation, Tool],
) -> int | None:  # fmt: skip
    """The calls of a solution shorter than the reference program; None when none is found.

    Args:
        plan: what is asked for.
        answer: its value here.
        calls: of the reference program.
        answers: its values in the other worlds, as far as it has any there.
        world: here.
        others: worlds of the same entities and other facts.
        tools: the visible ones.
    """
    search = _Search(plan, world, others, tools, calls)
    known = search.reach.ways(plan, calls - 1)
    found = [search.filtered(plan)]
    if not isinstance(plan, Acted | Moved):
        found += [search.on_the_way(plan, known), search.answered(plan, answer, answers, known)]
    return min((each for each in found if each is not None), default=None)


def cheaper_listings(plan: Scalar, world: World, tools: Mapping[Operation, Tool], calls: int) -> set[Operation]:
    """The tools that would save calls where a plan filters entities one by one, so that a task must not show them."""
    search = _Search(plan, world, (), tools, calls)
    filters = [node for node in plan.nodes if isinstance(node, Above | Where)]
    return {node.listing for node in filters if search.saves(plan, node) is not None}


class _Search:
    def __init__(
        self, plan: Scalar, world: World, others: Sequence[World], tools: Mapping[Operation, Tool], calls: int
    ) -> None:
        self.world, self.others, self.tools, self.calls = world, others, tools, calls
        self.arithmetic = int(any(isinstance(node, Combine) and node.tool for node in plan.nodes))
        """The calls that it takes to add or subtract two numbers."""

    @cached_property
    def reach(self) -> Reach:
        """What the tools lead to."""
        return Reach(self.world, self.tools)

    def filtered(self, plan: Scalar) -> int | None:
        """The plan with one filter done by the other means that there is."""
        found = (self.saves(plan, node) for node in plan.nodes)
        return min((calls for calls in found if calls is not None), default=None)

    def saves(self, plan: Scalar, node: Node) -> int | None:
        """The calls of the plan with a part of it done by other means; None where that is no shorter."""
        for other in self._otherwise(node):
            ledger = Ledger(self.world, self.tools)
            try:
                made = plan.with_part(node, other)
                assert isinstance(made, Scalar)
                made.value(ledger)
            except CannotRunError:
                continue
            if ledger.calls < self.calls:
                return ledger.calls
        return None

    def _otherwise(self, node: Node) -> Iterator[Node]:
        match node:
            case Where(label=Label()):
                yield replace(node, by_list=not node.by_list)
            case Above():
                values = self.world.column(node.entity.name, node.column.name).values()
                low, high = (node.bound, max(values)) if node.above else (min(values), node.bound)
                yield Both(node.entity, node.source, Between(node.entity, node.column, low, high))
            case Both(left=Members() as left, right=Members() as right):
                yield _Leading(left.entity, left, right.source, right.link)
                yield _Leading(right.entity, right, left.source, left.link)

    def on_the_way(self, plan: Scalar, known: Mapping[Place, Way]) -> int | None:
        """A cheaper way to an entity that the plan passes."""
        for node in plan.nodes:
            if not isinstance(node, One) or isinstance(node, Anchor):
                continue
            ledger = Ledger(self.world, self.tools)
            way = known.get((node.entity.name, node.value(ledger)))
            if way is not None and way.cost < ledger.calls and self._leads(way.steps, node):
                return self.calls - ledger.calls + way.cost
        return None

    def _leads(self, steps: Steps, node: One) -> bool:
        for other in self.others:
            try:
                if follow(steps, other) != (node.entity.name, node.value(other)):
                    return False
            except ValueError:  # the largest of none
                return False
        return True

    def answered(self, plan: Scalar, answer: Any, answers: Answers, known: Mapping[Place, Way]) -> int | None:
        """Another way to the answer itself: a value, two values, or a list."""
        if isinstance(answer, list):
            return self._listed(known, answer, answers)
        numeric = _is_number(answer)
        columns = self._columns(known, None if numeric or isinstance(plan, Days) else answer)
        for place in columns.get(answer, ()):
            if place.cost < self.calls and (place.cost <= 1 or self._holds(place.reader(), answers)):
                return place.cost
        if isinstance(plan, Days):
            return self._pair(columns, "days", answer, answers)
        if numeric:
            pairs = [self._pair(columns, name, answer, answers) for name in ("sum", "difference")]
            return min((each for each in pairs if each is not None), default=None)
        return None

    def _columns(self, known: Mapping[Place, Way], only: Any) -> dict[Any, list["_Read"]]:
        """By value, where it can be read.

        Args:
            known: the ways.
            only: the one value that matters; None where all do.
        """
        values: dict[Any, list[_Read]] = {}
        for (entity, key), way in known.items():
            if only is None or key == only:
                values.setdefault(key, []).append(_Read(way.cost, way, ""))
            if way.cost + 1 < self.calls:
                for word in self.reach.readable[entity]:
                    value = self.world.read(entity, key, word)
                    if only is None or value == only:
                        values.setdefault(value, []).append(_Read(way.cost + 1, way, word))
        return values

    def _holds(self, read: Read, answers: Answers) -> bool:
        return all(read(self.others[number]) == answer for number, answer in answers)

    def _pair(self, columns: Mapping[Any, Sequence["_Read"]], name: str, answer: Any, answers: Answers) -> int | None:
        """Two values that make the answer, in fewer calls together."""
        for value, other in _partners(columns, name, answer):
            for one in columns[value]:
                for two in columns[other]:
                    together = one.cost + two.cost + self.arithmetic
                    if together < self.calls and self._holds(_both(name, one.reader(), two.reader()), answers):
                        return together
        return None

    def _listed(self, known: Mapping[Place, Way], answer: list[Any], answers: Answers) -> int | None:
        """One list that is the answer."""
        for (entity, key), way in known.items():
            for other, link, tool in self.reach.lists[entity]:
                cost = way.cost + tool.pages_of(len(answer))
                same = cost < self.calls and sorted(self.world.members(other, link, key)) == answer
                if same and (cost <= 1 or self._holds(_lister(way.steps, other, link), answers)):
                    return cost
        return None


class _Read(NamedTuple):
    """Where a value is read."""

    cost: int
    """Calls."""
    way: Way
    """To the entity."""
    column: str
    """Of it; empty for its key."""

    def reader(self) -> Read:
        """The same in any world."""
        return _reader(self.way.steps, self.column)


@dataclass(frozen=True, eq=False)
class _Leading(Many):
    """Those of several entities whose link leads to one, read one by one: another way to take what is in two lists."""

    source: Members
    target: One
    link: Any

    def value(self, world: World) -> list[Key]:
        keys, target = self.source.value(world), self.target.value(world)
        return [key for key in keys if world.read(self.entity.name, key, self.link.name) == target]


def _target(world: World, entity: str, link: str) -> str:
    """The type of entity that a link leads to."""
    return next(each.to for each in world.skin.entity(entity).links if each.name == link)


def _reader(steps: Steps, column: str) -> Read:
    def read(world: World) -> Any:
        place = follow(steps, world)
        if place is None or not column:
            return place and place[1]
        return world.read(*place, column)

    return read


def _lister(steps: Steps, entity: str, link: str) -> Read:
    def read(world: World) -> Any:
        place = follow(steps, world)
        return place and sorted(world.members(entity, link, place[1]))

    return read


def _both(name: str, read: Read, read_: Read) -> Read:
    def together(world: World) -> Any:
        left, right = read(world), read_(world)
        if name == "days":
            return OPERATIONS[name](left, right) if _is_day(left) and _is_day(right) else None
        return OPERATIONS[name](left, right) if _is_number(left) and _is_number(right) else None

    return together


def _partners(columns: Collection[Any], name: str, answer: Any) -> Iterator[tuple[Any, Any]]:
    """Pairs of values that make the answer."""
    if name == "days":
        for value in columns:
            if _is_day(value) and (other := OPERATIONS["later"](value, answer)) in columns:
                yield value, other
        return
    numbers = {round(value, _PLACES): value for value in columns if _is_number(value)}
    for value in numbers.values():
        other = numbers.get(round(answer + value if name == "difference" else answer - value, _PLACES))
        if other is not None:
            yield value, other


def _is_number(value: Any) -> bool:
    return type(value) is int or type(value) is float


def _is_day(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 10 and value[4] == value[7] == "-" and value[:4].isdigit()
