"""Growing the parts of a plan that stand for one entity: from what a question names, or one of two, hop by hop."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from recall.synth.procedural.names import pick
from recall.synth.procedural.plans import Anchor, Conditional, Hop, One, Whichever
from recall.synth.procedural.scalars import Read
from recall.synth.procedural.several import DeadEndError, Several
from recall.synth.procedural.skins.schema import Entity, Field
from recall.synth.procedural.world import Key

_WALKS = 4
"""The walks that are tried to come to certain entities."""


@dataclass(frozen=True, slots=True)
class Begin:
    """How a way begins."""

    sort: Literal["anchor", "whichever", "conditional"]
    looked_up: bool
    """Whether one of the entities named has to be looked up."""
    calls: int
    """The calls that this takes."""


class Leading(Several):
    """Grows plans of one entity over one world."""

    def lead(self, entity: Entity, keys: Sequence[Key], calls: int) -> One:
        """See `Several`."""
        begin = self.begin(calls)
        return self.led(entity, keys, calls - begin.calls, begin)

    def led(self, entity: Entity, keys: Sequence[Key], hops: int, begin: Begin) -> One:
        """A way of so many hops that begins as told, to one of some entities of a type.

        Raises:
            DeadEndError: there is none, or none was found.
        """
        if hops == 0:
            return self._start(begin, entity, pick(self.rng, keys))
        walks = self.terrain.walks(entity.name, hops) if "hop" in self.operators else []
        if not walks:
            raise DeadEndError
        for _ in range(_WALKS):
            walk = pick(self.rng, walks)
            ends = self.terrain.ends(walk)
            reached = [key for key in keys if key in ends]
            if reached:
                start = pick(self.rng, ends[pick(self.rng, reached)])
                node = self._start(begin, walk.steps[0][0], start)
                for _, link in walk.steps:
                    node = Hop(self.world.skin.entity(link.to), node, link)
                return node
        raise DeadEndError

    def begin(self, calls: int, after: int = 0) -> Begin:
        """How a way of at most so many calls begins.

        Args:
            calls: of the way.
            after: the calls that have to follow where it begins with a choice, so that no single call from what the
                question names comes to the answer.
        """
        looked_up = self.world.keyed == "id" and calls > 0 and self.rng.random() < 0.5
        roll = self.rng.random()
        if calls >= 2 + looked_up + after and roll < 0.2:
            if roll < 0.1 and "whichever" in self.operators:
                return Begin("whichever", looked_up, 2 + looked_up)
            if roll >= 0.1 and "conditional" in self.operators:
                return Begin("conditional", looked_up, 2 + looked_up)
        return Begin("anchor", looked_up, int(looked_up))

    def _start(self, begin: Begin, entity: Entity, key: Key) -> One:
        """What a way begins at: an entity named, or one of two."""
        looked_up = begin.looked_up
        if begin.sort == "anchor":
            return self.anchor(entity, key, looked_up=looked_up)
        judged = entity if begin.sort == "whichever" else pick(self.rng, self.world.skin.entities)
        ordered = self.terrain.ordered[judged.name]
        if not ordered:
            raise DeadEndError
        column = pick(self.rng, ordered)
        other = self.any_key(entity)
        if other == key:
            raise DeadEndError
        named = self.anchor(entity, key, looked_up=looked_up and self.rng.random() < 0.5)
        if begin.sort == "conditional":
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
        pair = (named, self.anchor(entity, other, looked_up=not named.known))
        then, otherwise = pair if values[left] > values[right] else pair[::-1]
        return Conditional(entity, one, two, then, otherwise)
