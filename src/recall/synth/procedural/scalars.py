"""Plans that stand for a number, a date, a text or a set of names: what a question can ask for in the end."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar

from recall.programs import OPERATIONS
from recall.synth.procedural.plans import Many, One, Scalar
from recall.synth.procedural.skins.schema import Action, Link, States
from recall.synth.procedural.skins.schema import Field as Column
from recall.synth.procedural.tools import Operation
from recall.synth.procedural.trace import Bound, Trace, literal, work_out
from recall.synth.procedural.world import NAME, World


@dataclass(frozen=True, eq=False)
class Read(Scalar):
    """A column of one entity."""

    source: One
    column: Column

    def value(self, world: World) -> Any:
        """See `Scalar`."""
        return world.read(self.source.entity.name, self.source.value(world), self.column.name)

    def run(self, trace: Trace) -> Bound:
        """See `Scalar`."""
        return trace.read(self.source.entity.name, self.source.run(trace), self.column.name)

    def _detail(self) -> str:
        return self.kind.answer.kind


@dataclass(frozen=True, eq=False)
class Called(Scalar):
    """What an entity is called."""

    source: One

    def value(self, world: World) -> Any:
        """See `Scalar`."""
        key = self.source.value(world)
        return world.read(self.source.entity.name, key, NAME) if world.keyed == "id" else key

    def run(self, trace: Trace) -> Bound:
        """See `Scalar`. Where tools know ids, the name has to be read."""
        key = self.source.run(trace)
        operation = Operation("lookup", self.source.entity.name)
        return trace.read(self.source.entity.name, key, NAME) if operation in trace.tools else key


@dataclass(frozen=True, eq=False)
class Total(Scalar):
    """The sum of a column over several entities."""

    operator: ClassVar[str] = "total"
    source: Many
    column: Column

    def value(self, world: World) -> Any:
        """See `Scalar`."""
        entity, word = self.source.entity.name, self.column.name
        total = sum((Decimal(str(world.read(entity, key, word))) for key in self.source.value(world)), Decimal())
        return int(total) if total == int(total) else float(total)

    def run(self, trace: Trace) -> Bound:
        """See `Scalar`."""
        keys = self.source.run(trace)
        values = [trace.read(self.source.entity.name, key, self.column.name) for key in keys]
        return work_out("sum", values)


@dataclass(frozen=True, eq=False)
class Times(Scalar):
    """A number as often as there are entities of some sort."""

    operator: ClassVar[str] = "count"
    source: Many
    each: Scalar

    def value(self, world: World) -> Any:
        """See `Scalar`."""
        return OPERATIONS["product"](len(self.source.value(world)), self.each.value(world))

    def run(self, trace: Trace) -> Bound:
        """See `Scalar`."""
        count = work_out("count", self.source.run(trace))
        return work_out("product", count, self.each.run(trace))


@dataclass(frozen=True, eq=False)
class Combine(Scalar):
    """The sum of two scalars, or their difference."""

    operator: ClassVar[str] = "combine"
    left: Scalar
    right: Scalar
    sum: bool
    tool: bool
    """Whether a tool does the arithmetic."""

    def value(self, world: World) -> Any:
        """See `Scalar`."""
        left, right = self.left.value(world), self.right.value(world)
        if self.tool:
            world.spend(Operation("add" if self.sum else "subtract"), left, right)
        return OPERATIONS["sum" if self.sum else "difference"](left, right)

    def run(self, trace: Trace) -> Bound:
        """See `Scalar`."""
        left, right = self.left.run(trace), self.right.run(trace)
        if self.tool:
            return trace.compute("add" if self.sum else "subtract", left, right)
        return work_out("sum" if self.sum else "difference", left, right)

    def _detail(self) -> str:
        return "sum" if self.sum else "difference"


@dataclass(frozen=True, eq=False)
class Days(Scalar):
    """The days between two dates."""

    operator: ClassVar[str] = "days"
    left: Scalar
    right: Scalar

    def value(self, world: World) -> Any:
        """See `Scalar`."""
        return OPERATIONS["days"](self.left.value(world), self.right.value(world))

    def run(self, trace: Trace) -> Bound:
        """See `Scalar`."""
        return work_out("days", self.left.run(trace), self.right.run(trace))


@dataclass(frozen=True, eq=False)
class Later(Scalar):
    """The day so many days after another."""

    operator: ClassVar[str] = "days"
    source: Scalar
    days: int

    def value(self, world: World) -> Any:
        """See `Scalar`."""
        return OPERATIONS["later"](self.source.value(world), self.days)

    def run(self, trace: Trace) -> Bound:
        """See `Scalar`."""
        return work_out("later", self.source.run(trace), literal(self.days))


@dataclass(frozen=True, eq=False)
class Rescale(Scalar):
    """A quantity in another unit of its dimension."""

    operator: ClassVar[str] = "convert"
    source: Scalar
    factor: int | float
    """How many of the new unit one of the old is."""

    def value(self, world: World) -> Any:
        """See `Scalar`."""
        return OPERATIONS["product"](self.source.value(world), self.factor)

    def run(self, trace: Trace) -> Bound:
        """See `Scalar`."""
        return work_out("product", self.source.run(trace), literal(self.factor))

    def _detail(self) -> str:
        return "unit"


@dataclass(frozen=True, eq=False)
class Convert(Scalar):
    """An amount of money in another currency, to two decimals."""

    operator: ClassVar[str] = "convert"
    source: Scalar
    currency: str
    rate: float

    def halfway(self, world: World) -> bool:
        """Whether the second decimal depends on how halves are rounded."""
        exact = OPERATIONS["product"](self.source.value(world), self.rate)
        return abs(Decimal(str(exact))) * 1000 % 10 == 5

    def value(self, world: World) -> Any:
        """See `Scalar`."""
        amount = self.source.value(world)
        world.spend(Operation("rate", "currency"), self.currency)
        return OPERATIONS["round"](OPERATIONS["product"](amount, self.rate), 2)

    def run(self, trace: Trace) -> Bound:
        """See `Scalar`."""
        amount = self.source.run(trace)
        converted = work_out("product", amount, trace.rate(literal(self.currency)))
        return work_out("round", converted, literal(2))


@dataclass(frozen=True, eq=False)
class Listed(Scalar):
    """Which entities they are: a set of keys."""

    operator: ClassVar[str] = "list"
    source: Many
    ids: bool
    """Whether the keys are ids."""

    def value(self, world: World) -> Any:
        """See `Scalar`."""
        return sorted(self.source.value(world))

    def run(self, trace: Trace) -> Bound:
        """See `Scalar`."""
        keys = sorted(self.source.run(trace), key=lambda bound: str(bound.value))
        return Bound([key.value for key in keys], [key.expression for key in keys])


@dataclass(frozen=True, eq=False)
class Acted(Scalar):
    """A scalar after the state of one entity, or of several, was changed."""

    operator: ClassVar[str] = "update"
    changed: Many | One
    action: Action
    states: States
    then: Scalar

    def after(self, world: World) -> World:
        """The world once it is done."""
        keys = self.changed.value(world)
        keys = [keys] if isinstance(keys, str) else keys
        for key in keys:
            world.spend(Operation("act", self.changed.entity.name, self.action.verb), key)
        return world.changed(self.changed.entity.name, self.states.field, dict.fromkeys(keys, self.action.target))

    def value(self, world: World) -> Any:
        """See `Scalar`."""
        return self.then.value(self.after(world))

    def run(self, trace: Trace) -> Bound:
        """See `Scalar`."""
        keys = self.changed.run(trace)
        entity = self.changed.entity.name
        for key in [keys] if isinstance(keys, Bound) else keys:
            trace.change(Operation("act", entity, self.action.verb), key=key)
            trace.changed(entity, self.states.field, key, literal(self.action.target))
        return self.then.run(trace)


@dataclass(frozen=True, eq=False)
class Moved(Scalar):
    """A scalar after a link of one entity was pointed elsewhere."""

    operator: ClassVar[str] = "update"
    changed: One
    verb: str
    link: Link
    target: One
    then: Scalar

    def after(self, world: World) -> World:
        """The world once it is done."""
        entity, key, target = self.changed.entity.name, self.changed.value(world), self.target.value(world)
        world.spend(Operation("move", entity, self.verb), key, target)
        return world.changed(entity, self.link.name, {key: target})

    def value(self, world: World) -> Any:
        """See `Scalar`."""
        return self.then.value(self.after(world))

    def run(self, trace: Trace) -> Bound:
        """See `Scalar`."""
        key, target = self.changed.run(trace), self.target.run(trace)
        trace.change(Operation("move", self.changed.entity.name, self.verb), key=key, value=target)
        trace.changed(self.changed.entity.name, self.link.name, key, target)
        return self.then.run(trace)
