"""Growing the parts of a plan that stand for several entities: lists, what filters leave of them, where they lead."""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from typing import Any

from recall.synth.procedural.kinds import Kind
from recall.synth.procedural.names import pick
from recall.synth.procedural.plans import Above, Anchor, Between, Both, Labelled, Many, Members, One, Targets, Where
from recall.synth.procedural.recipe import Operator
from recall.synth.procedural.skins.schema import Entity, Label, Link, States
from recall.synth.procedural.terrain import Terrain
from recall.synth.procedural.tools import Operation, Tool, Verb
from recall.synth.procedural.world import Key

Fits = Callable[[Entity], bool]
MOST = 9
"""The most entities that a question has the agent look at one by one."""
_LONGEST = 60
"""The most entries of a list that is read to filter another."""
_TRIES = 6


class DeadEndError(Exception):
    """The draw leads nowhere; another may."""


class Several(ABC):
    """Grows plans of several entities over one world."""

    def __init__(
        self, rng: random.Random, terrain: Terrain, tools: Mapping[Operation, Tool], operators: Collection[Operator]
    ) -> None:
        """Take what plans are grown from.

        Args:
            rng: decides everything.
            terrain: the world.
            tools: its tools.
            operators: what plans may be composed of.
        """
        self.rng, self.terrain, self.tools = rng, terrain, tools
        self.world, self.operators = terrain.world, frozenset(operators)

    @abstractmethod
    def lead(self, entity: Entity, keys: Sequence[Key], calls: int) -> One:
        """A way of so many calls from what a question names to one of some entities of a type.

        Raises:
            DeadEndError: there is none, or none was found.
        """

    def anchor(self, entity: Entity, key: Key, *, looked_up: bool = False) -> Anchor:
        """An entity as the question names it."""
        by_id = self.world.keyed == "id" and not looked_up
        return Anchor(entity, key, self.world.name_of(entity.name, key), by_id)

    def any_key(self, entity: Entity) -> Key:
        """Any entity of a type."""
        return pick(self.rng, self.terrain.keys[entity.name])

    def many(self, calls: int, per: int, fits: Fits = lambda _: True) -> Many:
        """From two to `MOST` entities of a type that fits.

        Args:
            calls: to find them, and to make `per` calls for each.
            per: the calls for each.
            fits: accepts types of entity.

        Raises:
            DeadEndError: none were found.
        """
        if calls < 1:
            raise DeadEndError
        roll = self.rng.random()
        if roll < 0.35 and self.operators & {"where", "range"}:
            return self._narrowed(calls, per, fits)
        if roll < 0.47 and "targets" in self.operators:
            return self._targets(calls, per, fits)
        if roll < 0.56 and "both" in self.operators:
            return self._both(calls, per, fits)
        if roll < 0.7 and self.operators & {"where", "range"}:
            return self._unanchored(calls, per, fits)
        return self._members(calls, per, fits)

    def pages(self, verb: Verb, entity: Entity, word: str, count: int) -> int:
        """The calls that a list of so many takes."""
        tool = self.tools.get(Operation(verb, entity.name, word))
        if tool is None:
            raise DeadEndError
        return tool.pages_of(count)

    def _link(self, fits: Fits) -> tuple[Entity, Link]:
        links = [pair for pair in self.terrain.links if fits(pair[0])]
        if not links:
            raise DeadEndError
        return pick(self.rng, links)

    def _leading(self, entity: Entity, link: Link, targets: Sequence[Key], calls: int) -> Members:
        if calls < 0:
            raise DeadEndError
        return Members(entity, self.lead(self.world.skin.entity(link.to), targets, calls), link)

    def _members(self, calls: int, per: int, fits: Fits) -> Many:
        """What leads to an entity some hops away, as many as the calls allow."""
        entity, link = self._link(fits)
        options = []
        for count, targets in self.terrain.by_size(entity.name, link.name).items():
            rest = calls - self.pages("members", entity, link.name, count) - per * count
            if 2 <= count <= MOST and rest >= 0:
                options.append((targets, rest))
        if not options:
            raise DeadEndError
        targets, rest = pick(self.rng, options)
        return self._leading(entity, link, targets, rest)

    def _unanchored(self, calls: int, per: int, fits: Fits) -> Many:
        """All of a type with a label, or with a value between two bounds."""
        for _ in range(_TRIES):
            node, cost = self._all(fits)
            count = len(node.value(self.world))
            if 2 <= count <= MOST and cost + per * count == calls:
                return node
        raise DeadEndError

    def _all(self, fits: Fits) -> tuple[Many, int]:
        """Some of all entities of a type, and the calls that it takes to list them."""
        entities = [entity for entity in self.world.skin.entities if fits(entity)]
        if not entities:
            raise DeadEndError
        entity = pick(self.rng, entities)
        node: Many
        if entity.labels and "where" in self.operators and self.rng.random() < 0.5:
            label = pick(self.rng, entity.labels)
            node = Labelled(entity, label, pick(self.rng, label.values))
            return node, self.pages("where", entity, label.name, len(node.value(self.world)))
        ordered = self.terrain.ordered[entity.name]
        if not ordered or "range" not in self.operators:
            raise DeadEndError
        column = pick(self.rng, ordered)
        values = self.terrain.values(entity.name, column.name)
        if len(values) < 6:
            raise DeadEndError
        first = self.rng.randrange(1, len(values) - 4)
        last = first + self.rng.randint(2, min(7, len(values) - 1 - first)) - 1
        low = between(values[first - 1], values[first], column.kind)
        high = between(values[last], values[last + 1], column.kind)
        node = Between(entity, column, low, high)
        return node, self.pages("range", entity, column.name, len(node.value(self.world)))

    def _narrowed(self, calls: int, per: int, fits: Fits) -> Many:
        """Those of several that a label, a state or a bound leaves."""
        for _ in range(_TRIES):
            entity, link, target, source, cost = self._wide(fits)
            keys = source.value(self.world)
            if not 3 <= len(keys) <= MOST:
                continue
            node, reads = self._filter(source, keys)
            kept = len(node.value(self.world))
            if not 2 <= kept < len(keys):
                continue
            recorded = Operation("record", entity.name) in self.tools
            by_list = isinstance(node, Where) and node.by_list
            rest = calls - cost - reads - (0 if recorded and not by_list else per * kept)
            if link is None and rest == 0:
                return node
            if link is not None and rest >= 0:
                source_ = self._leading(entity, link, [target], rest)
                made = node.with_part(source, source_)
                assert isinstance(made, Many)
                return made
        raise DeadEndError

    def _wide(self, fits: Fits) -> tuple[Entity, Link | None, Key, Many, int]:
        """Several entities that are to be filtered, with the calls that it takes to list them."""
        if self.rng.random() < 0.2:
            node, cost = self._all(fits)
            return node.entity, None, "", node, cost
        entity, link = self._link(fits)
        sizes = self.terrain.by_size(entity.name, link.name)
        count = pick(self.rng, [*sizes])
        target = pick(self.rng, sizes[count])
        members = Members(entity, self.anchor(self.world.skin.entity(link.to), target), link)
        return entity, link, target, members, self.pages("members", entity, link.name, count)

    def _filter(self, source: Many, keys: list[Key]) -> tuple[Where | Above, int]:
        """A filter of several entities, and the calls that it takes."""
        entity = source.entity
        looked_at = (source.label, *_columns(source)) if isinstance(source, Labelled) else _columns(source)
        labels: list[Label | States] = [label for label in entity.labels if label not in looked_at]
        labels += [entity.states] if entity.states else []
        if labels and "where" in self.operators and self.rng.random() < 0.6:
            label = pick(self.rng, labels)
            word = pick(self.rng, label.values)
            if isinstance(label, Label) and self.rng.random() < 0.4:
                count = len(self.world.where(entity.name, label.name, word))
                if count > _LONGEST:
                    raise DeadEndError
                by_list = Where(entity, source, label, word, by_list=True)
                return by_list, self.pages("where", entity, label.name, count)
            return Where(entity, source, label, word, by_list=False), len(keys)
        ordered = [field for field in self.terrain.ordered[entity.name] if field not in looked_at]
        if not ordered or "range" not in self.operators:
            raise DeadEndError
        column = pick(self.rng, ordered)
        read = self.world.column(entity.name, column.name)
        values = sorted({read[key] for key in keys})
        if len(values) < 3:
            raise DeadEndError
        place = self.rng.randrange(1, len(values))
        bound = between(values[place - 1], values[place], column.kind)
        return Above(entity, source, column, bound, self.rng.random() < 0.5), len(keys)

    def _both(self, calls: int, per: int, fits: Fits) -> Many:
        """What leads to two entities at once, each by a link of its own."""
        pairs = [(entity, one, two) for entity, one in self.terrain.links if fits(entity) for two in entity.links]
        pairs = [(entity, one, two) for entity, one, two in pairs if one is not two]
        self.rng.shuffle(pairs)
        for entity, one, two in pairs:
            meetings = self.terrain.meetings(entity.name, one.name, two.name)
            if meetings:
                left, right, kept = pick(self.rng, meetings)
                lists = [(one, left), (two, right)]
                sizes = [(link, len(self.world.members(entity.name, link.name, key))) for link, key in lists]
                pages = sum(self.pages("members", entity, link.name, size) for link, size in sizes)
                second = Members(entity, self.anchor(self.world.skin.entity(two.to), right), two)
                return Both(entity, self._leading(entity, one, [left], calls - pages - per * kept), second)
        raise DeadEndError

    def _targets(self, calls: int, per: int, fits: Fits) -> Many:
        """Where several entities lead by a link."""
        links = [(entity, link) for entity, link in self.terrain.links if fits(self.world.skin.entity(link.to))]
        if not links:
            raise DeadEndError
        for _ in range(_TRIES):
            entity, link = pick(self.rng, links)
            _, by, target, source, cost = self._wide(lambda other, entity=entity: other is entity)  # type: ignore[misc]
            keys = source.value(self.world)
            if not 2 <= len(keys) <= MOST or by is link:
                continue
            node = Targets(self.world.skin.entity(link.to), source, link)
            count = len(node.value(self.world))
            rest = calls - cost - len(keys) - per * count
            if count < 2 or rest < 0:
                continue
            if by is not None:
                return Targets(node.entity, self._leading(entity, by, [target], rest), link)
            if rest == 0:
                return node
        raise DeadEndError


def _columns(source: Many) -> tuple[Any, ...]:
    return (source.column,) if isinstance(source, Between) else ()


def between(low: Any, high: Any, kind: Kind) -> Any:
    """A value strictly between two of a kind, as short to write as it gets.

    Raises:
        DeadEndError: there is none.
    """
    if kind.answer.kind == "date":
        days = (date.fromisoformat(high) - date.fromisoformat(low)).days
        if days < 2:
            raise DeadEndError
        return date.fromordinal(date.fromisoformat(low).toordinal() + days // 2).isoformat()
    if isinstance(low, str):
        raise DeadEndError
    middle = (low + high) / 2
    for places in range(-4, kind.places + 1):
        rounded = round(middle, places)
        if low < rounded < high:
            return int(rounded) if rounded == int(rounded) else rounded
    raise DeadEndError
