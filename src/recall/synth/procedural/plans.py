"""Plans: what a question asks for, as a typed tree over a world, and the same tree carried out with tools.

A plan has a value twice: straight from the world's rows (`value`), and through the tools (`run`). The two are written
apart, so that each checks the other. Nodes stand for one entity (`One`), several (`Many`) or a number, date or text
(`Scalar`, of which `scalars.py` has the kinds).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from typing import Any, ClassVar, get_args

from recall.synth.procedural.kinds import Kind
from recall.synth.procedural.skins.schema import Entity, Label, Link, States
from recall.synth.procedural.skins.schema import Field as Column
from recall.synth.procedural.tools import Operation
from recall.synth.procedural.trace import Bound, Trace, literal, work_out
from recall.synth.procedural.world import Key, World


@dataclass(frozen=True, eq=False)
class Node:
    """A part of a plan."""

    operator: ClassVar[str] = ""
    """The operator of the recipe that it belongs to; empty for what every plan may have."""

    @classmethod
    @cache
    def _part_names(cls) -> tuple[str, ...]:
        """The fields that hold nodes."""
        held = {each.name: get_args(each.type) or (each.type,) for each in fields(cls)}
        return tuple(
            name
            for name, kinds in held.items()
            if any(isinstance(kind, type) and issubclass(kind, Node) for kind in kinds)
        )

    @property
    def parts(self) -> tuple["Node", ...]:
        """The nodes right below it."""
        return tuple([getattr(self, name) for name in self._part_names()])

    @cached_property
    def nodes(self) -> tuple["Node", ...]:
        """The node and all below it."""
        return (self, *[node for part in self.parts for node in part.nodes])

    def with_part(self, old: "Node", new: "Node") -> "Node":
        """The same tree with another node in the place of one of its own."""
        if self is old:
            return new
        parts = zip(self._part_names(), self.parts, strict=True)
        changed = {name: made for name, part in parts if (made := part.with_part(old, new)) is not part}
        return replace(self, **changed) if changed else self

    @cached_property
    def template(self) -> str:
        """The tree without its words; two plans of one template differ in vocabulary alone."""
        detail = self._detail()
        name, parts = type(self).__name__.lower() + (f":{detail}" if detail else ""), self.parts
        return f"{name}({','.join([part.template for part in parts])})" if parts else name

    def _detail(self) -> str:
        return ""

    @property
    def depth(self) -> int:
        """The longest way to a leaf."""
        return 1 + max((part.depth for part in self.parts), default=-1)


@dataclass(frozen=True, eq=False)
class One(Node):
    """One entity."""

    entity: Entity

    def value(self, world: World) -> Key:
        """Its key in a world."""
        raise NotImplementedError

    def run(self, trace: Trace) -> Bound:
        """Its key, found with tools."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Many(Node):
    """Several entities of a type, in no order."""

    entity: Entity

    def value(self, world: World) -> list[Key]:
        """Their keys in a world."""
        raise NotImplementedError

    def run(self, trace: Trace) -> list[Bound]:
        """Their keys, found with tools."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Scalar(Node):
    """A number, a date, a text."""

    kind: Kind

    def value(self, world: World) -> Any:
        """It, in a world."""
        raise NotImplementedError

    def run(self, trace: Trace) -> Bound:
        """It, found with tools."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Anchor(One):
    """An entity that the question names."""

    key: Key
    name: str
    by_id: bool
    """Whether the question gives the id instead of the name."""

    @property
    def known(self) -> bool:
        """Whether the question says what tools know it by."""
        return self.by_id or self.key == self.name

    @property
    def said(self) -> str:
        """What the question calls it."""
        return self.key if self.by_id else self.name

    def value(self, world: World) -> Key:
        """See `One`."""
        if not self.known:
            world.spend(Operation("lookup", self.entity.name), self.key)
        return self.key

    def run(self, trace: Trace) -> Bound:
        """See `One`. Where tools know ids, a name has to be looked up."""
        said = literal(self.said)
        return said if self.known else trace.look_up(self.entity.name, said)

    def _detail(self) -> str:
        return "id" if self.by_id else ""


@dataclass(frozen=True, eq=False)
class Hop(One):
    """What an entity leads to by a link."""

    operator: ClassVar[str] = "hop"
    source: One
    link: Link

    def value(self, world: World) -> Key:
        """See `One`."""
        return str(world.read(self.source.entity.name, self.source.value(world), self.link.name))

    def run(self, trace: Trace) -> Bound:
        """See `One`."""
        return trace.read(self.source.entity.name, self.source.run(trace), self.link.name)


@dataclass(frozen=True, eq=False)
class Whichever(One):
    """The one of two entities with the larger, or smaller, value of a column."""

    operator: ClassVar[str] = "whichever"
    left: One
    right: One
    column: Column
    largest: bool

    def value(self, world: World) -> Key:
        """See `One`."""
        keys = self.left.value(world), self.right.value(world)
        return _extreme(world, self.entity.name, keys, self.column.name, largest=self.largest)

    def run(self, trace: Trace) -> Bound:
        """See `One`."""
        keys = [self.left.run(trace), self.right.run(trace)]
        values = [trace.read(self.entity.name, key, self.column.name) for key in keys]
        return work_out("argmax" if self.largest else "argmin", keys, values)


@dataclass(frozen=True, eq=False)
class Conditional(One):
    """One entity or another, by which of two scalars is larger."""

    operator: ClassVar[str] = "conditional"
    left: Scalar
    right: Scalar
    then: Anchor
    otherwise: Anchor
    """Named in the same way as the other."""

    def value(self, world: World) -> Key:
        """See `One`."""
        larger = self.left.value(world) > self.right.value(world)
        return (self.then if larger else self.otherwise).value(world)

    def run(self, trace: Trace) -> Bound:
        """See `One`. Only the one that is chosen is looked up."""
        values = [self.left.run(trace), self.right.run(trace)]
        chosen = work_out("argmax", [literal(self.then.said), literal(self.otherwise.said)], values)
        return chosen if self.then.known else trace.look_up(self.entity.name, chosen)


@dataclass(frozen=True, eq=False)
class Top(One):
    """The one of several entities with the largest, or smallest, value of a column."""

    operator: ClassVar[str] = "top"
    source: Many
    column: Column
    largest: bool

    def value(self, world: World) -> Key:
        """See `One`."""
        keys = self.source.value(world)
        return _extreme(world, self.entity.name, keys, self.column.name, largest=self.largest)

    def run(self, trace: Trace) -> Bound:
        """See `One`."""
        keys = self.source.run(trace)
        values = [trace.read(self.entity.name, key, self.column.name) for key in keys]
        return work_out("argmax" if self.largest else "argmin", keys, values)

    def _detail(self) -> str:
        return "most" if self.largest else "least"


@dataclass(frozen=True, eq=False)
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


@dataclass(frozen=True, eq=False)
class Labelled(Many):
    """All entities of a type with a label."""

    operator: ClassVar[str] = "where"
    label: Label
    word: str

    def value(self, world: World) -> list[Key]:
        """See `Many`."""
        return world.where(self.entity.name, self.label.name, self.word)

    def run(self, trace: Trace) -> list[Bound]:
        """See `Many`."""
        return trace.listed(Operation("where", self.entity.name, self.label.name), value=literal(self.word))


@dataclass(frozen=True, eq=False)
class Between(Many):
    """All entities of a type with a value between two bounds."""

    operator: ClassVar[str] = "range"
    column: Column
    low: Any
    high: Any

    def value(self, world: World) -> list[Key]:
        """See `Many`."""
        return world.within(self.entity.name, self.column.name, self.low, self.high)

    def run(self, trace: Trace) -> list[Bound]:
        """See `Many`."""
        operation = Operation("range", self.entity.name, self.column.name)
        return trace.listed(operation, low=literal(self.low), high=literal(self.high))


@dataclass(frozen=True, eq=False)
class Where(Many):
    """Those of several entities with a label or in a state."""

    operator: ClassVar[str] = "where"
    source: Many
    label: Label | States
    word: str
    by_list: bool
    """Whether they are told by a list of all that have the label, instead of one by one."""

    @property
    def column(self) -> str:
        """What they are told by."""
        return self.label.field if isinstance(self.label, States) else self.label.name

    @property
    def listing(self) -> Operation:
        """The tool that lists all that have the label."""
        return Operation("where", self.entity.name, self.column)

    def value(self, world: World) -> list[Key]:
        """See `Many`."""
        keys = self.source.value(world)
        if self.by_list:
            kept = set(world.where(self.entity.name, self.column, self.word))
            return [key for key in keys if key in kept]
        return [key for key in keys if world.read(self.entity.name, key, self.column) == self.word]

    def run(self, trace: Trace) -> list[Bound]:
        """See `Many`."""
        keys = self.source.run(trace)
        if self.by_list:
            kept = {key.value for key in trace.listed(self.listing, value=literal(self.word))}
            return [key for key in keys if key.value in kept]
        return [key for key in keys if trace.read(self.entity.name, key, self.column).value == self.word]

    def _detail(self) -> str:
        return "list" if self.by_list else ""


@dataclass(frozen=True, eq=False)
class Above(Many):
    """Those of several entities with a value above, or below, a bound, read one by one."""

    operator: ClassVar[str] = "range"
    source: Many
    column: Column
    bound: Any
    above: bool

    @property
    def listing(self) -> Operation:
        """The tool that lists all with a value between two bounds."""
        return Operation("range", self.entity.name, self.column.name)

    def _keeps(self, value: Any) -> bool:
        return bool(value > self.bound if self.above else value < self.bound)

    def value(self, world: World) -> list[Key]:
        """See `Many`."""
        keys = self.source.value(world)
        return [key for key in keys if self._keeps(world.read(self.entity.name, key, self.column.name))]

    def run(self, trace: Trace) -> list[Bound]:
        """See `Many`."""
        keys = self.source.run(trace)
        return [key for key in keys if self._keeps(trace.read(self.entity.name, key, self.column.name).value)]


@dataclass(frozen=True, eq=False)
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


@dataclass(frozen=True, eq=False)
class Targets(Many):
    """What several entities lead to by a link, each once."""

    operator: ClassVar[str] = "targets"
    source: Many
    link: Link

    def value(self, world: World) -> list[Key]:
        """See `Many`."""
        sources = self.source.value(world)
        return list(dict.fromkeys(world.read(self.source.entity.name, key, self.link.name) for key in sources))

    def run(self, trace: Trace) -> list[Bound]:
        """See `Many`."""
        found = [trace.read(self.source.entity.name, key, self.link.name) for key in self.source.run(trace)]
        return list({bound.value: bound for bound in reversed(found)}.values())[::-1]


def _extreme(world: World, entity: str, keys: Sequence[Key], word: str, *, largest: bool) -> Key:
    values = [world.read(entity, key, word) for key in keys]
    return keys[values.index((max if largest else min)(values))]
