"""Growing plans: trees that fit together by type, bound to a world's entities so that nothing on the way is empty,
tied or met twice.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Any

from recall.synth.procedural.kinds import KINDS, Kind
from recall.synth.procedural.plans import (
    Above,
    Acted,
    Anchor,
    Between,
    Both,
    Called,
    Combine,
    Conditional,
    Convert,
    Days,
    EachTimes,
    Hop,
    Labelled,
    Listed,
    Many,
    Members,
    Moved,
    One,
    Read,
    Scalar,
    Targets,
    Top,
    Total,
    Where,
    Whichever,
)
from recall.synth.procedural.recipe import Operator, Recipe
from recall.synth.procedural.skins.schema import Entity, Field, Label, Link, States
from recall.synth.procedural.world import World

MOST = 9
"""The most entities that a question has the agent look at one by one."""


class DeadEndError(Exception):
    """The draw leads nowhere; another may."""


class Grower:
    """Grows plans over one world."""

    def __init__(self, rng: random.Random, world: World, recipe: Recipe, rates: Mapping[str, float]) -> None:
        self.rng, self.world, self.recipe, self.rates = rng, world, recipe, rates
        self.operators = frozenset[Operator](recipe.operators)

    def form(self, calls: int) -> Callable[[int], Scalar]:
        """What makes plans of one form, drawn among those that so many calls allow.

        It is called with a number of calls and makes a plan of about so many, or raises `DeadEndError`.
        """
        forms = [
            (form, weight) for form, needs, least, weight in self._forms() if needs <= self.operators and calls >= least
        ]
        return self.rng.choices([form for form, _ in forms], [weight for _, weight in forms])[0]

    def _forms(self) -> Iterator[tuple[Callable[[int], Scalar], frozenset[Operator], int, float]]:
        """What a plan can be: its maker, the operators and the calls that it needs at least, and its weight."""

        def needs(*operators: Operator) -> frozenset[Operator]:
            return frozenset(operators)

        yield self.chain, needs(), 1, 3.0
        yield self.total, needs("members", "total"), 3, 2.0
        yield self.each_times, needs("members", "count"), 2, 1.0
        yield self.top, needs("members", "top"), 4, 1.5
        yield self.listed, needs("members", "list"), 2, 1.0
        yield self.combine, needs("combine"), 2, 2.0
        yield self.days, needs("days"), 2, 1.0
        yield self.convert, needs("convert"), 2, 1.0
        yield self.updated, needs("update", "members"), 3, 1.5

    # One entity

    def anchor(self, entity: Entity) -> Anchor:
        """An entity to be named in the question."""
        key = self.rng.choice([*self.world.tables[entity.name]])
        by_id = self.world.keyed == "id" and self.rng.random() < 0.5
        return Anchor(entity, key, self.world.name_of(entity.name, key), by_id)

    def one(self, hops: int, fits: Callable[[Entity], bool] = lambda _: True) -> One:
        """An entity so many hops away from what the question names, of a type that fits."""
        for _ in range(12):
            types = [self.rng.choice(self.world.skin.entities)]
            links: list[Link] = []
            while len(links) < hops and types[-1].links:
                link = self.rng.choice(types[-1].links)
                links.append(link)
                types.append(self.world.skin.entity(link.to))
            if len(links) < hops or not fits(types[-1]) or len({link.name for link in links}) < len(links):
                continue
            node = self._start(types[0])
            met = {(types[0].name, node.value(self.world))}
            for link, entity in zip(links, types[1:], strict=True):
                node = Hop(entity, node, link)
                met.add((entity.name, node.value(self.world)))
            if len(met) == hops + 1:
                return node
        raise DeadEndError

    def _start(self, entity: Entity) -> One:
        """What a walk begins at: an entity named, or one of two."""
        ordered = [field for field in entity.fields if field.kind.ordered]
        if ordered and self.rng.random() < 0.18:
            if "whichever" in self.operators and self.rng.random() < 0.5:
                left, right = self._two(entity)
                column = self.rng.choice(ordered)
                self._differ(left, right, column)
                return Whichever(entity, left, right, column, self.rng.random() < 0.5)
            if "conditional" in self.operators:
                return self._conditional(entity)
        return self.anchor(entity)

    def _two(self, entity: Entity) -> tuple[Anchor, Anchor]:
        left, right = self.anchor(entity), self.anchor(entity)
        if left.key == right.key:
            raise DeadEndError
        return left, right

    def _differ(self, left: One, right: One, column: Field) -> None:
        rows = self.world.tables[left.entity.name]
        if rows[left.value(self.world)][column.name] == rows[right.value(self.world)][column.name]:
            raise DeadEndError

    def _conditional(self, entity: Entity) -> One:
        judged = self.rng.choice(self.world.skin.entities)
        ordered = [field for field in judged.fields if field.kind.ordered]
        if not ordered:
            raise DeadEndError
        left, right = self._two(judged)
        column = self.rng.choice(ordered)
        self._differ(left, right, column)
        then, otherwise = self._two(entity)
        kind = column.kind
        return Conditional(entity, Read(kind, left, column), Read(kind, right, column), then, otherwise)

    # Several entities

    def many(self, hops: int, least: int = 2, fits: Callable[[Entity], bool] = lambda _: True) -> Many:
        """Several entities of a type that fits, between `least` and `MOST`."""
        node = self._collection(hops, fits)
        if self.rng.random() < 0.45:
            node = self._narrowed(node)
        elif "targets" in self.operators and self.rng.random() < 0.25:
            links = [link for link in node.entity.links if fits(self.world.skin.entity(link.to))]
            if links:
                link = self.rng.choice(links)
                node = Targets(self.world.skin.entity(link.to), node, link)
        if not least <= len(node.value(self.world)) <= MOST:
            raise DeadEndError
        return node

    def _collection(self, hops: int, fits: Callable[[Entity], bool]) -> Many:
        """Several entities that one call or more lists."""
        if hops == 0 and self.rng.random() < 0.3:
            return self._unanchored(fits)
        sources = [(entity, link) for entity in self.world.skin.entities for link in entity.links if fits(entity)]
        if not sources:
            raise DeadEndError
        entity, link = self.rng.choice(sources)
        members = Members(entity, self.one(hops, lambda target: target.name == link.to), link)
        if "both" in self.operators and self.rng.random() < 0.15:
            others = [other for other in entity.links if other is not link]
            if others:
                other = self.rng.choice(others)
                second = Members(entity, self.one(0, lambda target: target.name == other.to), other)
                return Both(entity, members, second)
        return members

    def _unanchored(self, fits: Callable[[Entity], bool]) -> Many:
        entities = [entity for entity in self.world.skin.entities if fits(entity)]
        if not entities:
            raise DeadEndError
        entity = self.rng.choice(entities)
        if entity.labels and "where" in self.operators and self.rng.random() < 0.5:
            label = self.rng.choice(entity.labels)
            return Labelled(entity, label, self.rng.choice(label.values))
        ordered = [field for field in entity.fields if field.kind.ordered]
        if not ordered or "range" not in self.operators:
            raise DeadEndError
        column = self.rng.choice(ordered)
        values = sorted({row[column.name] for row in self.world.tables[entity.name].values()})
        if len(values) < 6:
            raise DeadEndError
        first = self.rng.randrange(1, len(values) - 4)
        last = first + self.rng.randint(2, min(5, len(values) - 1 - first)) - 1
        low = between(values[first - 1], values[first], column.kind)
        high = between(values[last], values[last + 1], column.kind)
        return Between(entity, column, low, high)

    def _narrowed(self, node: Many) -> Many:
        """Those of several that a label, a state or a bound leaves."""
        entity, keys = node.entity, node.value(self.world)
        rows = self.world.tables[entity.name]
        labels: list[Label | States] = [*entity.labels, *([entity.states] if entity.states else [])]
        if labels and "where" in self.operators and self.rng.random() < 0.6:
            chosen = self.rng.choice(labels)
            node = Where(entity, node, chosen, self.rng.choice(chosen.values))
        else:
            ordered = [field for field in entity.fields if field.kind.ordered]
            if not ordered or "range" not in self.operators:
                raise DeadEndError
            column = self.rng.choice(ordered)
            values = sorted({rows[key][column.name] for key in keys})
            if len(values) < 3:
                raise DeadEndError
            place = self.rng.randrange(1, len(values))
            bound = between(values[place - 1], values[place], column.kind)
            node = Above(entity, node, column, bound, self.rng.random() < 0.5)
        if not 0 < len(node.value(self.world)) < len(keys):
            raise DeadEndError
        return node

    # Scalars

    def chain(self, calls: int) -> Scalar:
        """Something about an entity a few hops away."""
        if "hop" not in self.operators and calls > 1:
            raise DeadEndError
        return self.read(self.one(max(0, self.rng.choice((calls - 1, calls - 1, calls - 2)))))

    def read(self, source: One, avoid: str = "") -> Scalar:
        """A column of an entity whose value may be an answer, or, where hops led to it, its name."""
        columns = [field for field in source.entity.fields if field.kind.answerable and field.name != avoid]
        if isinstance(source, Hop) and (not columns or self.rng.random() < 0.3):
            return Called(
                KINDS[f"{source.entity.named}_name"] if source.entity.named != "code" else KINDS["serial"], source
            )
        if not columns:
            raise DeadEndError
        column = self.rng.choice(columns)
        return Read(column.kind, source, column)

    def number(self, calls: int, fits: Callable[[Kind], bool]) -> Read:
        """A column of an entity a few hops away, of a kind that fits."""
        source = self.one(self.rng.randint(0, max(0, calls - 1)), lambda e: any(fits(f.kind) for f in e.fields))
        column = self.rng.choice([field for field in source.entity.fields if fits(field.kind)])
        return Read(column.kind, source, column)

    def total(self, calls: int) -> Scalar:
        """The sum of a column over several entities."""

        def fits(entity: Entity) -> bool:
            return any(field.kind.additive and field.kind.answerable for field in entity.fields)

        source = self.many(self.rng.randint(0, max(0, (calls - 3) // 2)), fits=fits)
        column = self.rng.choice([f for f in source.entity.fields if f.kind.additive and f.kind.answerable])
        return Total(column.kind, source, column)

    def each_times(self, calls: int) -> Scalar:
        """A stated number for each of several entities."""
        source = self.many(self.rng.randint(0, max(0, calls - 2)))
        return EachTimes(KINDS["credits"], source, self.rng.randrange(101, 9999))

    def top(self, calls: int) -> Scalar:
        """Something about the largest or smallest of several."""
        source = self.many(
            self.rng.randint(0, max(0, (calls - 4) // 2)), fits=lambda e: any(f.kind.ordered for f in e.fields)
        )
        column = self.rng.choice([field for field in source.entity.fields if field.kind.ordered])
        rows = self.world.tables[source.entity.name]
        values = [rows[key][column.name] for key in source.value(self.world)]
        if len(set(values)) < len(values):
            raise DeadEndError
        best: One = Top(source.entity, source, column, self.rng.random() < 0.5)
        if source.entity.links and "hop" in self.operators and self.rng.random() < 0.4:
            link = self.rng.choice(source.entity.links)
            best = Hop(self.world.skin.entity(link.to), best, link)
        return self.read(best, avoid=column.name)

    def listed(self, calls: int) -> Scalar:
        """Which several entities they are, two hops or a filter away at least."""
        source = self.many(self.rng.randint(0, max(0, calls - 1)))
        return Listed(KINDS["thing_name"], source, self.world.keyed == "id")

    def combine(self, calls: int) -> Scalar:
        """The sum or the difference of two scalars of one unit."""
        share = self.rng.randint(1, max(1, calls - 1))
        left: Scalar = self.number(share, lambda kind: kind.additive and kind.answerable)
        right: Scalar = self.number(calls - share, lambda kind: kind.name == left.kind.name)
        if left.value(self.world) == right.value(self.world):
            raise DeadEndError
        tool = self.recipe.plain or self.rng.random() < 0.3
        return Combine(left.kind, left, right, self.rng.random() < 0.5, tool)

    def days(self, calls: int) -> Scalar:
        """The days between two dates."""
        share = self.rng.randint(1, max(1, calls - 1))
        left = self.number(share, lambda kind: kind.answer.kind == "date")
        right = self.number(calls - share, lambda kind: kind.answer.kind == "date")
        if left.value(self.world) == right.value(self.world):
            raise DeadEndError
        return Days(KINDS["days"], left, right)

    def convert(self, calls: int) -> Scalar:
        """An amount of money in another currency."""
        if not self.rates:
            raise DeadEndError

        def fits(kind: Kind) -> bool:
            return kind.dimension == "money" and kind.scale == 1 and kind.answerable

        source: Scalar = self.number(calls - 1, fits)
        if "total" in self.operators and "members" in self.operators and calls >= 4 and self.rng.random() < 0.4:
            total = self.total(calls - 1)
            if fits(total.kind):
                source = total
        currency = self.rng.choice([*self.rates])
        return Convert(source.kind, source, currency, self.rates[currency])

    def updated(self, calls: int) -> Scalar:
        """A change, and then a sum or a charge that it bears on."""
        movable = [(entity, move) for entity in self.world.skin.entities for move in entity.moves]
        if movable and self.rng.random() < 0.4:
            entity, move = self.rng.choice(movable)
            link = next(link for link in entity.links if link.name == move.link)
            changed, target = self.anchor(entity), self.anchor(self.world.skin.entity(link.to))
            if self.world.tables[entity.name][changed.key][link.name] == target.key or target.key == changed.key:
                raise DeadEndError
            then = self._about(Members(entity, target, link))
            return self._sound(Moved(then.kind, changed, move.verb, link, target, then))
        acting = [entity for entity in self.world.skin.entities if entity.states and entity.links]
        if not acting:
            raise DeadEndError
        entity = self.rng.choice(acting)
        assert entity.states is not None
        action = self.rng.choice(entity.states.actions)
        link = self.rng.choice(entity.links)
        members = Members(entity, self.one(0, lambda target: target.name == link.to), link)
        rows = self.world.tables[entity.name]
        ready = [key for key in members.value(self.world) if rows[key][entity.states.field] == action.source]
        if not ready:
            raise DeadEndError
        changed_: Many | One = Where(entity, members, entity.states, action.source)
        if self.rng.random() < 0.6:
            key = self.rng.choice(ready)
            by_id = self.world.keyed == "id" and self.rng.random() < 0.5
            changed_ = Anchor(entity, key, self.world.name_of(entity.name, key), by_id)
        then = self._about(Where(entity, members, entity.states, action.target))
        return self._sound(Acted(then.kind, changed_, action, entity.states, then))

    def _about(self, source: Many) -> Scalar:
        additive = [field for field in source.entity.fields if field.kind.additive and field.kind.answerable]
        if additive and self.rng.random() < 0.75:
            column = self.rng.choice(additive)
            return Total(column.kind, source, column)
        return EachTimes(KINDS["credits"], source, self.rng.randrange(101, 9999))

    def _sound(self, plan: Acted | Moved) -> Scalar:
        """The plan, if the change matters and leaves a handful of entities to look at."""
        after = plan.after(self.world)
        assert isinstance(plan.then, Total | EachTimes)
        if not 1 <= len(plan.then.source.value(after)) <= MOST or plan.then.value(self.world) == plan.value(self.world):
            raise DeadEndError
        return plan


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
            return int(rounded) if kind.json == "integer" else rounded
    raise DeadEndError
