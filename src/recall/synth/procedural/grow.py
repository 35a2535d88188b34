"""Growing plans backwards: from an entity, or several, that have what is asked for, to what the question names.

A plan is bound to a world's entities while it grows, so that nothing on the way is empty, tied or met twice, and each
part is told how many calls it may take. What the parts share is not foreseen; `Ledger` counts the whole.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from recall.synth.procedural.kinds import KINDS, Kind
from recall.synth.procedural.names import pick
from recall.synth.procedural.plans import Anchor, Conditional, Hop, Many, Members, One, Scalar, Top, Where, Whichever
from recall.synth.procedural.recipe import Operator, Recipe
from recall.synth.procedural.scalars import (
    Acted,
    Called,
    Combine,
    Convert,
    Days,
    Later,
    Listed,
    Moved,
    Read,
    Rescale,
    Times,
    Total,
)
from recall.synth.procedural.several import MOST, DeadEndError, Several
from recall.synth.procedural.skins.schema import Entity, Field, Link
from recall.synth.procedural.terrain import Terrain
from recall.synth.procedural.tools import Operation, Tool
from recall.synth.procedural.units import conversions
from recall.synth.procedural.world import Key

__all__ = ["DeadEndError", "Form", "Grower"]

Form = Callable[[int], Scalar]
"""Makes plans of one form, of about so many calls; raises `DeadEndError` where a draw leads nowhere."""


class Grower:
    """Grows plans over one world."""

    def __init__(
        self, rng: random.Random, terrain: Terrain, recipe: Recipe, rates: Mapping[str, float],
        tools: Mapping[Operation, Tool],
    ) -> None:  # fmt: skip
        self.rng, self.terrain, self.recipe, self.rates, self.tools = rng, terrain, recipe, rates, tools
        self.world = terrain.world
        self.operators = frozenset[Operator](recipe.operators)
        self.several = Several(self)

    def form(self, calls: int) -> Form:
        """What makes plans of one form, drawn among those that so many calls allow."""
        forms = [
            (form, weight) for form, needs, least, weight in self._forms() if needs <= self.operators and calls >= least
        ]
        return self.rng.choices([form for form, _ in forms], [weight for _, weight in forms])[0]

    def _forms(self) -> Iterator[tuple[Form, frozenset[Operator], int, float]]:
        """What a plan can be: its maker, the operators and the calls that it needs at least, and its weight."""

        def needs(*operators: Operator) -> frozenset[Operator]:
            return frozenset(operators)

        yield self.chain, needs(), 1, 3.0
        yield self.total, needs("members", "total"), 3, 2.0
        yield self.times, needs("members", "count"), 2, 1.0
        yield self.top, needs("members", "top"), 4, 1.5
        yield self.listed, needs("members", "list"), 1, 1.0
        yield self.combine, needs("combine"), 2, 2.0
        yield self.days, needs("days"), 1, 1.0
        yield self.convert, needs("convert"), 1, 1.0
        yield self.updated, needs("update", "members"), 3, 1.5

    # One entity

    def anchor(self, entity: Entity, key: Key, *, looked_up: bool = False) -> Anchor:
        """An entity as the question names it."""
        by_id = self.world.keyed == "id" and not looked_up
        return Anchor(entity, key, self.world.name_of(entity.name, key), by_id)

    def any_anchor(self, entity: Entity) -> Anchor:
        """Any entity of a type, named in either way."""
        return self.anchor(entity, self.any_key(entity), looked_up=self.rng.random() < 0.5)

    def any_key(self, entity: Entity) -> Key:
        """Any entity of a type."""
        return pick(self.rng, self.terrain.keys[entity.name])

    def lead(self, entity: Entity, key: Key, calls: int) -> One:
        """A way of so many calls from what a question names to an entity.

        Raises:
            DeadEndError: there is none, or none was found.
        """
        begin, cost = self._begin(calls)
        if calls > cost and "hop" not in self.operators:
            raise DeadEndError
        steps: list[tuple[Link, Entity]] = []
        met = {(entity.name, key)}
        for _ in range(calls - cost):
            other, link, member = self._back(entity, key, steps, met)
            steps.append((link, entity))
            entity, key = other, member
            met.add((entity.name, key))
        node = self._start(begin, entity, key, looked_up=cost % 2 == 1)
        for link, target in reversed(steps):
            node = Hop(target, node, link)
        return node

    def _back(
        self, entity: Entity, key: Key, steps: list[tuple[Link, Entity]], met: set[tuple[str, Key]]
    ) -> tuple[Entity, Link, Key]:
        """What leads to an entity by a link that no step has taken yet, from where no step has been."""
        taken = {link.name for link, _ in steps}
        options = [(other, link) for other, link in self.terrain.links_to[entity.name] if link.name not in taken]
        while options:
            other, link = options.pop(int(self.rng.random() * len(options)))
            found = [m for m in self.world.members(other.name, link.name, key) if (other.name, m) not in met]
            if found:
                return other, link, pick(self.rng, found)
        raise DeadEndError

    def _begin(self, calls: int) -> tuple[Literal["anchor", "whichever", "conditional"], int]:
        """How a way begins, and the calls that this takes: an odd number where a name is looked up."""
        looked_up = int(self.world.keyed == "id" and calls > 0 and self.rng.random() < 0.5)
        roll = self.rng.random()
        if calls >= 2 + looked_up and roll < 0.2:
            if roll < 0.1 and "whichever" in self.operators:
                return "whichever", 2 + looked_up
            if roll >= 0.1 and "conditional" in self.operators:
                return "conditional", 2 + looked_up
        return "anchor", looked_up

    def _start(self, begin: str, entity: Entity, key: Key, *, looked_up: bool) -> One:
        """What a way begins at: an entity named, or one of two."""
        if begin == "anchor":
            return self.anchor(entity, key, looked_up=looked_up)
        judged = entity if begin == "whichever" else pick(self.rng, self.world.skin.entities)
        ordered = self.terrain.ordered[judged.name]
        if not ordered:
            raise DeadEndError
        column = pick(self.rng, ordered)
        other = self.any_key(entity)
        if other == key:
            raise DeadEndError
        named = self.anchor(entity, key, looked_up=looked_up and self.rng.random() < 0.5)
        if begin == "conditional":
            return self._conditional(column, judged, named, other, looked_up=looked_up and named.by_id)
        values = self.world.column(entity.name, column.name)
        if values[key] == values[other]:
            raise DeadEndError
        pair = (named, self.anchor(entity, other, looked_up=looked_up and named.by_id))
        left, right = pair if self.rng.random() < 0.5 else pair[::-1]
        return Whichever(entity, left, right, column, values[key] > values[other])

    def _conditional(self, column: Field, judged: Entity, named: Anchor, other: Key, *, looked_up: bool) -> Conditional:
        left, right = self.any_key(judged), self.any_key(judged)
        values = self.world.column(judged.name, column.name)
        if values[left] == values[right]:
            raise DeadEndError
        one = Read(column.kind, self.anchor(judged, left, looked_up=looked_up), column)
        two = Read(column.kind, self.anchor(judged, right), column)
        entity = named.entity
        pair = (named, self.anchor(entity, other, looked_up=self.rng.random() < 0.5))
        then, otherwise = pair if values[left] > values[right] else pair[::-1]
        return Conditional(entity, one, two, then, otherwise)

    # Scalars

    def chain(self, calls: int) -> Scalar:
        """Something about an entity a few hops away: a value that may be an answer, or its name."""
        if calls > 1 and "hop" in self.operators and self.rng.random() < 0.3:
            entity = pick(self.rng, self.world.skin.entities)
            source = self.lead(entity, self.any_key(entity), calls - (self.world.keyed == "id"))
            return self._called(source)
        return self.number(calls, lambda kind: kind.answerable)

    def _called(self, source: One) -> Called:
        if not isinstance(source, Hop):
            raise DeadEndError  # a name of two that the question says
        named = source.entity.named
        return Called(KINDS["serial" if named == "code" else f"{named}_name"], source)

    def number(self, calls: int, fits: Callable[[Kind], bool]) -> Read:
        """A column of an entity a few hops away, of a kind that fits."""
        columns = [pair for pair in self.terrain.fields if fits(pair[1].kind)]
        if not columns or calls < 1:
            raise DeadEndError
        entity, column = pick(self.rng, columns)
        return Read(column.kind, self.lead(entity, self.any_key(entity), calls - 1), column)

    def amount(self, calls: int, fits: Callable[[Kind], bool]) -> Scalar:
        """A column of an entity, or now and then a sum."""
        if calls >= 3 and {"members", "total"} <= self.operators and self.rng.random() < 0.2:
            return self.total(calls, fits)
        return self.number(calls, fits)

    def total(self, calls: int, fits: Callable[[Kind], bool] = lambda _: True) -> Total:
        """The sum of a column over several entities."""

        def adds(entity: Entity) -> list[Field]:
            return [f for f in entity.fields if f.kind.additive and f.kind.answerable and fits(f.kind)]

        source = self.several.of(calls, 1, lambda entity: bool(adds(entity)))
        column = pick(self.rng, adds(source.entity))
        return Total(column.kind, source, column)

    def times(self, calls: int) -> Scalar:
        """A number as often as there are entities of some sort."""
        share = self.rng.randint(1, calls - 1)
        each = self.number(share, lambda kind: kind.additive and kind.answerable)
        return Times(each.kind, self.several.of(calls - share, 0), each)

    def top(self, calls: int) -> Scalar:
        """Something about the largest or smallest of several."""
        hops = int("hop" in self.operators and self.rng.random() < 0.4)
        source = self.several.of(calls - 1 - hops, 1, lambda entity: bool(self.terrain.ordered[entity.name]))
        looked_at = getattr(source, "column", None)
        ordered = [field for field in self.terrain.ordered[source.entity.name] if field is not looked_at]
        if not ordered:
            raise DeadEndError
        column = pick(self.rng, ordered)
        read = self.world.column(source.entity.name, column.name)
        values = [read[key] for key in source.value(self.world)]
        if len({*values}) < len(values):
            raise DeadEndError
        best: One = Top(source.entity, source, column, self.rng.random() < 0.5)
        if hops:
            if not source.entity.links:
                raise DeadEndError
            link = pick(self.rng, source.entity.links)
            best = Hop(self.world.skin.entity(link.to), best, link)
            if self.rng.random() < 0.3:
                return self._called(best)
        columns = [f for f in best.entity.fields if f.kind.answerable and (hops or f is not column)]
        if not columns:
            raise DeadEndError
        asked = pick(self.rng, columns)
        return Read(asked.kind, best, asked)

    def listed(self, calls: int) -> Scalar:
        """Which several entities they are."""
        return Listed(KINDS["thing_name"], self.several.of(calls, 0), self.world.keyed == "id")

    def combine(self, calls: int) -> Scalar:
        """The sum or the difference of two scalars of one kind."""
        tool = self.recipe.plain
        calls -= int(tool)
        if calls < 2:
            raise DeadEndError
        share = self.rng.randint(1, calls - 1)
        left = self.amount(share, lambda kind: kind.additive and kind.answerable)
        right = self.amount(calls - share, lambda kind: kind is left.kind)
        if left.value(self.world) == right.value(self.world):
            raise DeadEndError
        return Combine(left.kind, left, right, self.rng.random() < 0.5, tool)

    def days(self, calls: int) -> Scalar:
        """The days between two dates, or the day so many days after one."""

        def fits(kind: Kind) -> bool:
            return kind.answer.kind == "date"

        if calls == 1 or self.rng.random() < 0.25:
            day = self.number(calls, fits)
            return Later(day.kind, day, self.rng.randrange(11, 500))
        share = self.rng.randint(1, calls - 1)
        left, right = self.number(share, fits), self.number(calls - share, fits)
        if left.value(self.world) == right.value(self.world):
            raise DeadEndError
        return Days(KINDS["days"], left, right)

    def convert(self, calls: int) -> Scalar:
        """An amount of money in another currency, or a quantity in another unit."""
        if calls == 1 or not self.rates or self.rng.random() < 0.4:
            source = self.amount(calls, lambda kind: bool(kind.answerable and conversions(kind)))
            target, factor = pick(self.rng, conversions(source.kind))
            return Rescale(target, source, factor)
        source = self.amount(
            calls - 1, lambda kind: kind.dimension == "money" and kind.scale == 1 and kind.answerable and kind.additive
        )
        currency = pick(self.rng, [*self.rates])
        plan = Convert(source.kind, source, currency, self.rates[currency])
        if plan.halfway(self.world):
            raise DeadEndError  # rounded up by some, to even by others
        return plan

    # Changes

    def updated(self, calls: int) -> Scalar:
        """A change, and then a sum or a multiple that it bears on."""
        movable = [(entity, move) for entity in self.world.skin.entities for move in entity.moves]
        if movable and self.rng.random() < 0.4:
            entity, move = pick(self.rng, movable)
            link = next(link for link in entity.links if link.name == move.link)
            changed, target = self.any_anchor(entity), self.any_anchor(self.world.skin.entity(link.to))
            if target.key in (changed.key, self.world.read(entity.name, changed.key, link.name)):
                raise DeadEndError
            then = self._about(Members(entity, target, link), calls)
            return self._sound(Moved(then.kind, changed, move.verb, link, target, then))
        acting = [entity for entity in self.world.skin.entities if entity.states and entity.links]
        if not acting:
            raise DeadEndError
        entity = pick(self.rng, acting)
        states = entity.states
        assert states is not None
        action, link = pick(self.rng, states.actions), pick(self.rng, entity.links)
        target = self.any_anchor(self.world.skin.entity(link.to))
        members = Members(entity, target, link)
        ready = Where(entity, members, states, action.source, by_list=False)
        keys = ready.value(self.world)
        if not keys:
            raise DeadEndError
        changed_: Many | One = ready
        if self.rng.random() < 0.6:
            changed_ = self.anchor(entity, pick(self.rng, keys), looked_up=self.rng.random() < 0.5)
        then = self._about(Where(entity, members, states, action.target, by_list=False), calls)
        return self._sound(Acted(then.kind, changed_, action, states, then))

    def _about(self, source: Many, calls: int) -> Total | Times:
        additive = [field for field in source.entity.fields if field.kind.additive and field.kind.answerable]
        if additive and (calls < 4 or self.rng.random() < 0.75):
            column = pick(self.rng, additive)
            return Total(column.kind, source, column)
        each = self.number(1, lambda kind: kind.additive and kind.answerable)
        return Times(each.kind, source, each)

    def _sound(self, plan: Acted | Moved) -> Scalar:
        """The plan, if the change matters and leaves a handful of entities to look at."""
        then = plan.then
        assert isinstance(then, Total | Times)
        found = then.source.value(plan.after(self.world))
        if not 2 <= len(found) <= MOST or then.value(self.world) == plan.value(self.world):
            raise DeadEndError
        return plan
