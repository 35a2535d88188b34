"""What growing plans over one world looks up again and again."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from recall.synth.procedural.kinds import Kind
from recall.synth.procedural.skins.schema import Entity, Field, Link, Skin
from recall.synth.procedural.world import Key, World

_DEEPEST = 8
"""The most links that are followed one after another."""
_MOST_WALKS = 400
"""The most walks between which one is chosen."""


def links_by_target(skin: Skin) -> Mapping[str, list[tuple[Entity, Link]]]:
    """By type of entity, the links that lead to it, each with the type that has it."""
    found: dict[str, list[tuple[Entity, Link]]] = {entity.name: [] for entity in skin.entities}
    for entity, link in skin.links:
        found[link.to].append((entity, link))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """Links to follow one after another, no two of one name."""

    steps: tuple[tuple[Entity, Link], ...]
    """Each link, with the type of entity that has it."""


class Terrain:
    """A world with indices that are made when they are first asked for."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.links = [*world.skin.links]
        """Every link, with the type of entity that has it."""
        self.links_to = links_by_target(world.skin)
        self.fields = [(entity, field) for entity in world.skin.entities for field in entity.fields]
        """Every field, with the type of entity that has it."""
        self.ordered: Mapping[str, list[Field]] = {
            entity.name: [field for field in entity.fields if field.kind.ordered] for entity in world.skin.entities
        }
        """By type of entity, the fields of which one value can be larger or later than another."""
        self.deepest = 0
        """The links of the longest walk."""
        self.keys = {entity: [*named] for entity, named in world.named.items()}
        self._has: dict[Callable[[Kind], bool], bool] = {}
        self._walks: dict[tuple[str, int], list[Walk]] = {}
        self._ends: dict[int, dict[Key, list[Key]]] = {}
        self._sizes: dict[tuple[str, str], dict[int, list[Key]]] = {}
        self._meetings: dict[tuple[str, str, str], list[tuple[Key, Key, int]]] = {}
        self._values: dict[tuple[str, str], list[Any]] = {}
        while self.deepest < _DEEPEST and self.reached(self.deepest + 1):
            self.deepest += 1

    def walks(self, entity: str, hops: int) -> list[Walk]:
        """The walks of so many links that end at a type of entity."""
        known = self._walks.get((entity, hops))
        if known is None:
            found = [Walk(())] if hops == 0 else [*islice(self._longer(entity, hops), _MOST_WALKS)]
            known = self._walks[entity, hops] = found
        return known

    def reached(self, hops: int) -> list[Entity]:
        """The types of entity that a walk of so many links ends at."""
        return [entity for entity in self.world.skin.entities if self.walks(entity.name, hops)]

    def _longer(self, entity: str, hops: int) -> Iterator[Walk]:
        for last in self.links_to[entity]:
            other, link = last
            for walk in self.walks(other.name, hops - 1):
                if link.name not in [step[1].name for step in walk.steps]:
                    yield Walk((*walk.steps, last))

    def ends(self, walk: Walk) -> dict[Key, list[Key]]:
        """By the entity that a walk comes to, those that it may begin at without meeting any entity twice."""
        known = self._ends.get(id(walk))
        if known is None:
            known = self._ends[id(walk)] = {}
            for start in self.keys[walk.steps[0][0].name]:
                at, met = start, set[tuple[str, Key]]()
                for entity, link in walk.steps:
                    met.add((entity.name, at))
                    at = self.world.read(entity.name, at, link.name)
                if len(met) == len(walk.steps) and (walk.steps[-1][1].to, at) not in met:
                    known.setdefault(at, []).append(start)
        return known

    def has(self, fits: Callable[[Kind], bool]) -> bool:
        """Whether there is a field of a kind that fits; it is asked once."""
        known = self._has.get(fits)
        if known is None:
            known = self._has[fits] = any(fits(field.kind) for _, field in self.fields)
        return known

    def by_size(self, entity: str, link: str) -> dict[int, list[Key]]:
        """The targets of a link by the number of what leads to them."""
        known = self._sizes.get((entity, link))
        if known is None:
            known = self._sizes[entity, link] = {}
            for target, found in self.world.inverse(entity, link).items():
                known.setdefault(len(found), []).append(target)
        return known

    def meetings(self, entity: str, one: str, two: str) -> list[tuple[Key, Key, int]]:
        """What two links of a type lead to when several of it lead to both, and neither list is all that the other is;
        with the number of what does.
        """
        known = self._meetings.get((entity, one, two))
        if known is None:
            left, right = self.world.column(entity, one), self.world.column(entity, two)
            counts = Counter((left[key], right[key]) for key in self.keys[entity])
            sizes = Counter(left.values()), Counter(right.values())
            known = self._meetings[entity, one, two] = [
                (*pair, count)
                for pair, count in counts.items()
                if 2 <= count < min(sizes[0][pair[0]], sizes[1][pair[1]])
            ]
        return known

    def values(self, entity: str, word: str) -> list[Any]:
        """The values of a field, each once, from the least on."""
        known = self._values.get((entity, word))
        if known is None:
            known = self._values[entity, word] = sorted({*self.world.column(entity, word).values()})
        return known
