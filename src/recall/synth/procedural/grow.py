"""Growing plans backwards: from an entity, or several, that have what is asked for, to what the question names.

A plan is bound to a world's entities while it grows, so that nothing on the way is empty, tied or met twice, and each
part is told how many calls it may take. What the parts share is not foreseen; `Ledger` counts the whole.
"""

import random
from collections.abc import Callable, Iterator, Mapping

from recall.synth.procedural.kinds import KINDS, Kind
from recall.synth.procedural.lead import Leading
from recall.synth.procedural.names import pick
from recall.synth.procedural.plans import Hop, Many, Members, One, Scalar, Top, Where
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
from recall.synth.procedural.several import MOST, DeadEndError
from recall.synth.procedural.skins.schema import Entity, Field, Link
from recall.synth.procedural.terrain import Terrain
from recall.synth.procedural.tools import Operation, Tool
from recall.synth.procedural.units import conversions

__all__ = ["DeadEndError", "Form", "Grower"]

Form = Callable[[int], Scalar]
"""Makes plans of one form, of about so many calls; raises `DeadEndError` where a draw leads nowhere."""
_DRAWS = 8
"""The changes that are tried for one that takes the calls wanted."""


class Grower(Leading):
    """Grows plans over one world."""

    def __init__(
        self, rng: random.Random, terrain: Terrain, recipe: Recipe, rates: Mapping[str, float],
        tools: Mapping[Operation, Tool],
    ) -> None:  # fmt: skip
        operators = [name for name in recipe.operators if name != "update" or not recipe.stateless]
        super().__init__(rng, terrain, tools, operators)
        self.recipe, self.rates = recipe, rates

    def form(self, calls: int) -> Form:
        """What makes plans of one form, drawn among those that so many calls and this world allow."""
        forms = [each for each in self._forms(calls) if each[1] <= self.operators and calls >= each[2] and each[3]]
        if not forms:
            return self.chain
        return self.rng.choices([each[0] for each in forms], [each[3] for each in forms])[0]

    def _forms(self, calls: int) -> Iterator[tuple[Form, frozenset[Operator], int, float]]:
        """What a plan can be: its maker, the operators and the calls that it needs at least, and its weight."""

        def needs(*operators: Operator) -> frozenset[Operator]:
            return frozenset(operators)

        has = self.terrain.has
        yield self.chain, needs(), 1, 3.0 * (calls <= self.terrain.deepest + 2)
        yield self.total, needs("members", "total"), 3, 2.0 * has(_adds)
        yield self.times, needs("members", "count"), 2, 1.0 * has(_adds)
        yield self.top, needs("members", "top"), 4, 1.5 * has(_is_ordered)
        yield self.listed, needs("members", "list"), 1, 1.0
        yield self.combine, needs("combine"), 2, 2.0 * has(_adds)
        yield self.days, needs("days"), 1, 1.0 * has(_is_day)
        yield self.convert, needs("convert"), 1, 1.0 * has(_converts)
        measured = {"total", "count"} & self.operators
        yield self.updated, needs("update", "members"), 3, 1.5 * (has(_adds) and bool(measured))

    # Scalars

    def chain(self, calls: int) -> Scalar:
        """Something about an entity a few hops away: a value that may be an answer, or its name."""
        if calls > 1 and "hop" in self.operators and self.rng.random() < 0.3:
            calls -= self.world.keyed == "id"
            begin = self.begin(calls, 2)
            hops = calls - begin.calls
            reached = self.terrain.reached(hops)
            if not reached:
                raise DeadEndError
            entity = pick(self.rng, reached)
            return self._called(self.led(entity, self.terrain.keys[entity.name], hops, begin))
        return self.number(calls, lambda kind: kind.answerable)

    def _called(self, source: One) -> Called:
        if not isinstance(source, Hop):
            raise DeadEndError  # a name of two that the question says
        named = source.entity.named
        return Called(KINDS["serial" if named == "code" else f"{named}_name"], source)

    def number(self, calls: int, fits: Callable[[Kind], bool]) -> Read:
        """A column of an entity a few hops away, of a kind that fits."""
        if calls < 1:
            raise DeadEndError
        begin = self.begin(calls - 1, 1)
        hops = calls - 1 - begin.calls
        columns = [pair for pair in self.terrain.fields if fits(pair[1].kind)]
        columns = [pair for pair in columns if self.terrain.walks(pair[0].name, hops)]
        if not columns:
            raise DeadEndError
        entity, column = pick(self.rng, columns)
        return Read(column.kind, self.led(entity, self.terrain.keys[entity.name], hops, begin), column)

    def amount(self, calls: int, fits: Callable[[Kind], bool]) -> Scalar:
        """A column of an entity, or now and then a sum."""
        if calls >= 3 and {"members", "total"} <= self.operators and self.rng.random() < 0.2:
            return self.total(calls, fits)
        return self.number(calls, fits)

    def total(self, calls: int, fits: Callable[[Kind], bool] = lambda _: True) -> Total:
        """The sum of a column over several entities."""

        def adds(entity: Entity) -> list[Field]:
            return [field for field in entity.fields if _adds(field.kind) and fits(field.kind)]

        source = self.many(calls, 1, lambda entity: bool(adds(entity)))
        column = pick(self.rng, adds(source.entity))
        return Total(column.kind, source, column)

    def times(self, calls: int) -> Scalar:
        """A number as often as there are entities of some sort."""
        share = self.rng.randint(1, calls - 1)
        each = self.number(share, _adds)
        return Times(each.kind, self.many(calls - share, 0), each)

    def top(self, calls: int) -> Scalar:
        """Something about the largest or smallest of several."""
        judged = [entity for entity in self.world.skin.entities if self.terrain.ordered[entity.name]]
        if not judged:
            raise DeadEndError
        entity = pick(self.rng, judged)
        hops = bool(entity.links) and "hop" in self.operators and self.rng.random() < 0.4
        called = hops and self.rng.random() < 0.3
        read = int(Operation("record", entity.name) not in self.tools)
        after = (read + (not called or self.world.keyed == "id")) if hops else read
        source = self.many(calls - after, 1, lambda other: other is entity)
        looked_at = getattr(source, "column", None)
        ordered = [field for field in self.terrain.ordered[entity.name] if field is not looked_at]
        if not ordered:
            raise DeadEndError
        column = pick(self.rng, ordered)
        values = [self.world.read(entity.name, key, column.name) for key in source.value(self.world)]
        if len({*values}) < len(values):
            raise DeadEndError
        best: One = Top(entity, source, column, self.rng.random() < 0.5)
        if hops:
            link = pick(self.rng, entity.links)
            best = Hop(self.world.skin.entity(link.to), best, link)
        if called:
            return self._called(best)
        columns = [f for f in best.entity.fields if f.kind.answerable and (hops or f is not column)]
        if not columns:
            raise DeadEndError
        asked = pick(self.rng, columns)
        return Read(asked.kind, best, asked)

    def listed(self, calls: int) -> Scalar:
        """Which several entities they are."""
        return Listed(KINDS["thing_name"], self.many(calls, 0), self.world.keyed == "id")

    def combine(self, calls: int) -> Scalar:
        """The sum or the difference of two scalars of one kind."""
        tool = self.recipe.plain
        calls -= int(tool)
        if calls < 2:
            raise DeadEndError
        share = self.rng.randint(1, calls - 1)
        left = self.amount(share, _adds)
        right = self.amount(calls - share, lambda kind: kind is left.kind)
        if left.value(self.world) == right.value(self.world):
            raise DeadEndError
        return Combine(left.kind, left, right, self.rng.random() < 0.5, tool)

    def days(self, calls: int) -> Scalar:
        """The days between two dates, or the day so many days after one."""
        if calls == 1 or self.rng.random() < 0.25:
            day = self.number(calls, _is_day)
            return Later(day.kind, day, self.rng.randrange(11, 500))
        share = self.rng.randint(1, calls - 1)
        left, right = self.number(share, _is_day), self.number(calls - share, _is_day)
        if left.value(self.world) == right.value(self.world):
            raise DeadEndError
        return Days(KINDS["days"], left, right)

    def convert(self, calls: int) -> Scalar:
        """An amount of money in another currency, or a quantity in another unit."""
        paid = calls > 1 and bool(self.rates) and self.terrain.has(_pays)
        if self.terrain.has(_rescales) and not (paid and self.rng.random() < 0.6):
            source = self.amount(calls, _rescales)
            target, factor = pick(self.rng, conversions(source.kind))
            return Rescale(target, source, factor)
        if not paid:
            raise DeadEndError
        source = self.amount(calls - 1, _pays)
        currency = pick(self.rng, [*self.rates])
        plan = Convert(source.kind, source, currency, self.rates[currency])
        if plan.halfway(self.world):
            raise DeadEndError  # rounded up by some, to even by others
        return plan

    # Changes

    def updated(self, calls: int) -> Scalar:
        """A change, and then a sum or a multiple that it bears on."""
        movable = [(entity, move) for entity in self.world.skin.entities for move in entity.moves]
        acting = [entity for entity in self.world.skin.entities if entity.states and entity.links]
        acting = acting if "where" in self.operators else []
        if movable and (not acting or self.rng.random() < 0.4):
            entity, move = pick(self.rng, movable)
            return self._moved(entity, move.verb, next(link for link in entity.links if link.name == move.link), calls)
        if not acting:
            raise DeadEndError
        return self._acted(pick(self.rng, acting), calls)

    def _looked_up(self) -> bool:
        return self.world.keyed == "id" and self.rng.random() < 0.5

    def _counts(self) -> bool:
        """Whether what a change bears on is a number of entities, and not a sum over them."""
        return "total" not in self.operators or ("count" in self.operators and self.rng.random() < 0.35)

    def _moved(self, entity: Entity, verb: str, link: Link, calls: int) -> Scalar:
        """A link of an entity pointed elsewhere, and then something about all that lead there."""
        to, times = self.world.skin.entity(link.to), self._counts()
        found, led = self._looked_up(), self._looked_up()
        options = []
        for size, targets in self.terrain.by_size(entity.name, link.name).items():
            after = size + 1
            pages = self.pages("members", entity, link.name, after)
            rest = calls - 1 - found - led - pages - (0 if times else after)
            if after <= MOST and (rest > 0 if times else rest == 0):
                options.append((targets, rest))
        if not options:
            raise DeadEndError
        targets, rest = pick(self.rng, options)
        changed, target = self.any_key(entity), pick(self.rng, targets)
        if target in (changed, self.world.read(entity.name, changed, link.name)):
            raise DeadEndError
        one, other = self.anchor(entity, changed, looked_up=found), self.anchor(to, target, looked_up=led)
        then = self._about(Members(entity, other, link), rest if times else 0)
        return self._sound(Moved(then.kind, one, verb, link, other, then))

    def _acted(self, entity: Entity, calls: int) -> Scalar:
        """A change of state of one entity of several, or of all that can change so, and then something about them."""
        states, times, alone = entity.states, self._counts(), self.rng.random() < 0.6
        assert states is not None
        recorded = Operation("record", entity.name) in self.tools
        state = self.world.column(entity.name, states.field)
        for _ in range(_DRAWS):
            action, link = pick(self.rng, states.actions), pick(self.rng, entity.links)
            target = pick(self.rng, [*self.world.inverse(entity.name, link.name)])
            keys = self.world.members(entity.name, link.name, target)
            ready = [key for key in keys if state[key] == action.source]
            after = sum(state[key] == action.target for key in keys) + (1 if alone else len(ready))
            if not ready or not 2 <= after <= MOST or len(keys) > MOST:
                continue
            found, led = alone and self._looked_up(), self._looked_up()
            reads = len(keys) - alone + (0 if times else int(alone) if recorded else after)
            cost = self.pages("members", entity, link.name, len(keys)) + reads + (1 if alone else len(ready))
            rest = calls - cost - found - led
            if rest > 0 if times else rest == 0:
                members = Members(entity, self.anchor(self.world.skin.entity(link.to), target, looked_up=led), link)
                changed: Many | One = Where(entity, members, states, action.source, by_list=False)
                if alone:
                    changed = self.anchor(entity, pick(self.rng, ready), looked_up=found)
                then = self._about(Where(entity, members, states, action.target, by_list=False), rest if times else 0)
                return self._sound(Acted(then.kind, changed, action, states, then))
        raise DeadEndError

    def _about(self, source: Many, calls: int) -> Total | Times:
        if calls:
            each = self.number(calls, _adds)
            return Times(each.kind, source, each)
        additive = [field for field in source.entity.fields if _adds(field.kind)]
        if not additive:
            raise DeadEndError
        column = pick(self.rng, additive)
        return Total(column.kind, source, column)

    def _sound(self, plan: Acted | Moved) -> Scalar:
        """The plan, if the change matters."""
        if plan.then.value(self.world) == plan.value(self.world):
            raise DeadEndError
        return plan


def _adds(kind: Kind) -> bool:
    """Whether sums of values may be answers."""
    return kind.additive and kind.answerable


def _is_ordered(kind: Kind) -> bool:
    return kind.ordered


def _is_day(kind: Kind) -> bool:
    return kind.answer.kind == "date"


def _pays(kind: Kind) -> bool:
    """Whether values are amounts in credits."""
    return kind.dimension == "money" and kind.scale == 1 and _adds(kind)


def _rescales(kind: Kind) -> bool:
    return kind.answerable and bool(conversions(kind))


def _converts(kind: Kind) -> bool:
    return _pays(kind) or _rescales(kind)
