"""Plans: what a question asks for, as a typed tree over a world, and the same tree carried out with tools.

A plan has a value twice: straight from the world's rows (`value`), and through the tools (`run`). The two are written
apart, so that each checks the other. Nodes stand for one entity (`One`), several (`Many`) or a number, date or text
(`Scalar`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar

from recall.programs import OPERATIONS
from recall.synth.procedural.kinds import Kind
from recall.synth.procedural.skins.schema import Action, Entity, Label, Link, States
from recall.synth.procedural.skins.schema import Field as Column
from recall.synth.procedural.tools import Operation
from recall.synth.procedural.trace import Bound, Trace, literal, work_out
from recall.synth.procedural.world import NAME, Key, World


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A part of a plan."""

    operator: ClassVar[str] = ""
    """The operator of the recipe that it belongs to; empty for what every plan may have."""

    @property
    def parts(self) -> tuple["Node", ...]:
        """The nodes right below it."""
        names: tuple[str, ...] = self.__match_args__
        found = (getattr(self, name) for name in names)
        return tuple(part for part in found if isinstance(part, Node))

    def walk(self) -> Iterator["Node"]:
        """The node and all below it."""
        yield self
        for part in self.parts:
            yield from part.walk()

    @property
    def template(self) -> str:
        """The tree without its words; two plans of one template differ in vocabulary alone."""
        detail = self._detail()
        name = type(self).__name__.lower() + (f":{detail}" if detail else "")
        return f"{name}({','.join(part.template for part in self.parts)})" if self.parts else name

    def _detail(self) -> str:
        return ""

    @property
    def depth(self) -> int:
        """The longest way to a leaf."""
        return 1 + max((part.depth for part in self.parts), default=-1)


@dataclass(frozen=True, slots=True, eq=False)
class One(Node):
    """One entity."""

    entity: Entity

    def value(self, world: World) -> Key:
        """Its key in a world."""
        raise NotImplementedError

    def run(self, trace: Trace) -> Bound:
        """Its key, found with tools."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, eq=False)
class Many(Node):
    """Several entities of a type, in no order."""

    entity: Entity

    def value(self, world: World) -> list[Key]:
        """Their keys in a world."""
        raise NotImplementedError

    def run(self, trace: Trace) -> list[Bound]:
        """Their keys, found with tools."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, eq=False)
class Scalar(Node):
    """A number, a date, a text."""

    kind: Kind

    def value(self, world: World) -> Any:
        """It, in a world."""
        raise NotImplementedError

    def run(self, trace: Trace) -> Bound:
        """It, found with tools."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, eq=False)
class Anchor(One):
    """An entity that the question names."""

    key: Key
    name: str
    by_id: bool
    """Whether the question gives the id instead of the name."""

    def value(self, world: World) -> Key:
        """See `One`."""
        return self.key

    def run(self, trace: Trace) -> Bound:
        """See `One`. Where tools know ids, a name has to be looked up."""
        if self.by_id or self.key == self.name:
            return literal(self.key)
        return trace.look_up(self.entity.name, literal(self.name))

    def _detail(self) -> str:
        return "id" if self.by_id else ""


@dataclass(frozen=True, slots=True, eq=False)
class Hop(One):
    """What an entity leads to by a link."""

    operator: ClassVar[str] = "hop"
    source: One
    link: Link

    def value(self, world: World) -> Key:
        """See `One`."""
        return str(world.tables[self.source.entity.name][self.source.value(world)][self.link.name])

    def run(self, trace: Trace) -> Bound:
        """See `One`."""
        return trace.read(self.source.entity.name, self.source.run(trace), self.link.name)


@dataclass(frozen=True, slots=True, eq=False)
class Whichever(One):
    """The one of two entities with the larger, or smaller, value of a column."""

    operator: ClassVar[str] = "whichever"
    left: One
    right: One
    column: Column
    largest: bool

    def value(self, world: World) -> Key:
        """See `One`."""
        rows = world.tables[self.entity.name]
        keys = self.left.value(world), self.right.value(world)
        return (max if self.largest else min)(keys, key=lambda key: rows[key][self.column.name])

    def run(self, trace: Trace) -> Bound:
        """See `One`."""
        keys = [self.left.run(trace), self.right.run(trace)]
        values = [trace.read(self.entity.name, key, self.column.name) for key in keys]
        return work_out("argmax" if self.largest else "argmin", keys, values)


@dataclass(frozen=True, slots=True, eq=False)
class Conditional(One):
    """One entity or another, by which of two scalars is larger."""

    operator: ClassVar[str] = "conditional"
    left: Scalar
    right: Scalar
    then: One
    otherwise: One

    def value(self, world: World) -> Key:
        """See `One`."""
        larger = self.left.value(world) > self.right.value(world)
        return (self.then if larger else self.otherwise).value(world)

    def run(self, trace: Trace) -> Bound:
        """See `One`. Only the branch that is taken is walked."""
        left, right = self.left.run(trace), self.right.run(trace)
        return (self.then if left.value > right.value else self.otherwise).run(trace)


@dataclass(frozen=True, slots=True, eq=False)
class Top(One):
    """The one of several entities with the largest, or smallest, value of a column."""

    operator: ClassVar[str] = "top"
    source: Many
    column: Column
    largest: bool

    def value(self, world: World) -> Key:
        """See `One`."""
        rows = world.tables[self.entity.name]
        pick = max if self.largest else min
        return pick(self.source.value(world), key=lambda key: rows[key][self.column.name])

    def run(self, trace: Trace) -> Bound:
        """See `One`."""
        keys = self.source.run(trace)
        values = [trace.read(self.entity.name, key, self.column.name) for key in keys]
        return work_out("argmax" if self.largest else "argmin", keys, values)

    def _detail(self) -> str:
        return "most" if self.largest else "least"


@dataclass(frozen=True, slots=True, eq=False)
class Members(Many):
    """What leads to an entity by a link: the inverse of a hop."""

    operator: ClassVar[str] = "members"
    source: One
    link: Link

    def value(self, world: World) -> list[Key]:
        """See `Many`."""
        return world.members(self.entity.name, self.link.name, self.source.value(world))

    def run(self, trace: Trace) -> list[Bound]:
        """See `Many`."""
        return trace.listed(Operation("members", self.entity.name, self.link.name), key=self.source.run(trace))


@dataclass(frozen=True, slots=True, eq=False)
class Labelled(Many):
    """All entities of a type with a label."""

    operator: ClassVar[str] = "where"
    label: Label
    word: str

    def value(self, world: World) -> list[Key]:
        """See `Many`."""
        return [key for key, row in world.tables[self.entity.name].items() if row[self.label.name] == self.word]

    def run(self, trace: Trace) -> list[Bound]:
        """See `Many`."""
        return trace.listed(Operation("where", self.entity.name, self.label.name), value=literal(self.word))


@dataclass(frozen=True, slots=True, eq=False)
class Between(Many):
    """All entities of a type with a value between two bounds."""

    operator: ClassVar[str] = "range"
    column: Column
    low: Any
    high: Any

    def value(self, world: World) -> list[Key]:
        """See `Many`."""
        rows = world.tables[self.entity.name].items()
        return [key for key, row in rows if self.low <= row[self.column.name] <= self.high]

    def run(self, trace: Trace) -> list[Bound]:
        """See `Many`."""
        operation = Operation("range", self.entity.name, self.column.name)
        return trace.listed(operation, low=literal(self.low), high=literal(self.high))


@dataclass(frozen=True, slots=True, eq=False)
class Where(Many):
    """Those of several entities with a label or in a state, read one by one."""

    operator: ClassVar[str] = "where"
    source: Many
    label: Label | States
    word: str

    @property
    def column(self) -> str:
        """The column that is read."""
        return self.label.field if isinstance(self.label, States) else self.label.name

    def value(self, world: World) -> list[Key]:
        """See `Many`."""
        rows = world.tables[self.entity.name]
        return [key for key in self.source.value(world) if rows[key][self.column] == self.word]

    def run(self, trace: Trace) -> list[Bound]:
        """See `Many`."""
        keys = self.source.run(trace)
        return [key for key in keys if trace.read(self.entity.name, key, self.column).value == self.word]


@dataclass(frozen=True, slots=True, eq=False)
class Above(Many):
    """Those of several entities with a value above, or below, a bound, read one by one."""

    operator: ClassVar[str] = "range"
    source: Many
    column: Column
    bound: Any
    above: bool

    def _keeps(self, value: Any) -> bool:
        return bool(value > self.bound if self.above else value < self.bound)

    def value(self, world: World) -> list[Key]:
        """See `Many`."""
        rows = world.tables[self.entity.name]
        return [key for key in self.source.value(world) if self._keeps(rows[key][self.column.name])]

    def run(self, trace: Trace) -> list[Bound]:
        """See `Many`."""
        keys = self.source.run(trace)
        return [key for key in keys if self._keeps(trace.read(self.entity.name, key, self.column.name).value)]


@dataclass(frozen=True, slots=True, eq=False)
class Both(Many):
    """What is among two collections."""

    operator: ClassVar[str] = "both"
    left: Many
    right: Many

    def value(self, world: World) -> list[Key]:
        """See `Many`."""
        others = set(self.right.value(world))
        return [key for key in self.left.value(world) if key in others]

    def run(self, trace: Trace) -> list[Bound]:
        """See `Many`."""
        left, right = self.left.run(trace), self.right.run(trace)
        others = {key.value for key in right}
        return [key for key in left if key.value in others]


@dataclass(frozen=True, slots=True, eq=False)
class Targets(Many):
    """What several entities lead to by a link, each once."""

    operator: ClassVar[str] = "targets"
    source: Many
    link: Link

    def value(self, world: World) -> list[Key]:
        """See `Many`."""
        rows = world.tables[self.source.entity.name]
        return list(dict.fromkeys(rows[key][self.link.name] for key in self.source.value(world)))

    def run(self, trace: Trace) -> list[Bound]:
        """See `Many`."""
        found = [trace.read(self.source.entity.name, key, self.link.name) for key in self.source.run(trace)]
        return list({bound.value: bound for bound in reversed(found)}.values())[::-1]


@dataclass(frozen=True, slots=True, eq=False)
class Read(Scalar):
    """A column of one entity."""

    source: One
    column: Column

    def value(self, world: World) -> Any:
        """See `Scalar`."""
        return world.tables[self.source.entity.name][self.source.value(world)][self.column.name]

    def run(self, trace: Trace) -> Bound:
        """See `Scalar`."""
        return trace.read(self.source.entity.name, self.source.run(trace), self.column.name)

    def _detail(self) -> str:
        return self.kind.answer.kind


@dataclass(frozen=True, slots=True, eq=False)
class Called(Scalar):
    """What an entity is called."""

    source: One

    def value(self, world: World) -> Any:
        """See `Scalar`."""
        return world.name_of(self.source.entity.name, self.source.value(world))

    def run(self, trace: Trace) -> Bound:
        """See `Scalar`. Where tools know ids, the name has to be read."""
        key = self.source.run(trace)
        operation = Operation("lookup", self.source.entity.name)
        return trace.read(self.source.entity.name, key, NAME) if operation in trace.tools else key


@dataclass(frozen=True, slots=True, eq=False)
class Total(Scalar):
    """The sum of a column over several entities."""

    operator: ClassVar[str] = "total"
    source: Many
    column: Column

    def value(self, world: World) -> Any:
        """See `Scalar`."""
        rows = world.tables[self.source.entity.name]
        total = sum((Decimal(str(rows[key][self.column.name])) for key in self.source.value(world)), Decimal())
        return int(total) if total == int(total) else float(total)

    def run(self, trace: Trace) -> Bound:
        """See `Scalar`."""
        keys = self.source.run(trace)
        values = [trace.read(self.source.entity.name, key, self.column.name) for key in keys]
        return work_out("sum", values)


@dataclass(frozen=True, slots=True, eq=False)
class EachTimes(Scalar):
    """A stated number for each of several entities."""

    operator: ClassVar[str] = "count"
    source: Many
    factor: int

    def value(self, world: World) -> Any:
        """See `Scalar`."""
        return self.factor * len(self.source.value(world))

    def run(self, trace: Trace) -> Bound:
        """See `Scalar`."""
        return work_out("product", work_out("count", self.source.run(trace)), literal(self.factor))


@dataclass(frozen=True, slots=True, eq=False)
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
        name = "sum" if self.sum else "difference"
        return OPERATIONS[name](self.left.value(world), self.right.value(world))

    def run(self, trace: Trace) -> Bound:
        """See `Scalar`."""
        left, right = self.left.run(trace), self.right.run(trace)
        if self.tool:
            tool = trace.tools[Operation("add" if self.sum else "subtract")]
            number = trace.call(tool, a=left, b=right)
            return Bound(trace.results[number], {"$ref": number})
        return work_out("sum" if self.sum else "difference", left, right)

    def _detail(self) -> str:
        return "sum" if self.sum else "difference"


@dataclass(frozen=True, slots=True, eq=False)
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


@dataclass(frozen=True, slots=True, eq=False)
class Convert(Scalar):
    """An amount of money in another currency, to two decimals."""

    operator: ClassVar[str] = "convert"
    source: Scalar
    currency: str
    rate: float

    def value(self, world: World) -> Any:
        """See `Scalar`."""
        return OPERATIONS["round"](OPERATIONS["product"](self.source.value(world), self.rate), 2)

    def run(self, trace: Trace) -> Bound:
        """See `Scalar`."""
        amount = self.source.run(trace)
        converted = work_out("product", amount, trace.rate(literal(self.currency)))
        return work_out("round", converted, literal(2))


@dataclass(frozen=True, slots=True, eq=False)
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


@dataclass(frozen=True, slots=True, eq=False)
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
        entity = self.changed.entity.name
        rows = dict(world.tables[entity])
        for key in keys:
            rows[key] = {**rows[key], self.states.field: self.action.target}
        return World(world.skin, world.keyed, {**world.tables, entity: rows})

    def value(self, world: World) -> Any:
        """See `Scalar`."""
        return self.then.value(self.after(world))

    def run(self, trace: Trace) -> Bound:
        """See `Scalar`."""
        keys = self.changed.run(trace)
        for key in [keys] if isinstance(keys, Bound) else keys:
            trace.change(Operation("act", self.changed.entity.name, self.action.verb), key=key)
        trace.forget()
        return self.then.run(trace)


@dataclass(frozen=True, slots=True, eq=False)
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
        entity, key = self.changed.entity.name, self.changed.value(world)
        rows = {**world.tables[entity], key: {**world.tables[entity][key], self.link.name: self.target.value(world)}}
        return World(world.skin, world.keyed, {**world.tables, entity: rows})

    def value(self, world: World) -> Any:
        """See `Scalar`."""
        return self.then.value(self.after(world))

    def run(self, trace: Trace) -> Bound:
        """See `Scalar`."""
        key, target = self.changed.run(trace), self.target.run(trace)
        trace.change(Operation("move", self.changed.entity.name, self.verb), key=key, value=target)
        trace.forget()
        return self.then.run(trace)
