"""What growing plans over one world looks up again and again."""

from collections.abc import Mapping
from typing import Any

from recall.synth.procedural.skins.schema import Entity, Field, Link, Skin
from recall.synth.procedural.world import Key, World


def links_by_target(skin: Skin) -> Mapping[str, list[tuple[Entity, Link]]]:
    """By type of entity, the links that lead to it, each with the type that has it."""
    found: dict[str, list[tuple[Entity, Link]]] = {entity.name: [] for entity in skin.entities}
    for entity, link in skin.links:
        found[link.to].append((entity, link))
    return found


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
        self.keys = {entity: [*named] for entity, named in world.named.items()}
        self._sizes: dict[tuple[str, str], dict[int, list[Key]]] = {}
        self._values: dict[tuple[str, str], list[Any]] = {}

    def by_size(self, entity: str, link: str) -> dict[int, list[Key]]:
        """The targets of a link by the number of what leads to them."""
        known = self._sizes.get((entity, link))
        if known is None:
            known = self._sizes[entity, link] = {}
            for target, found in self.world.inverse(entity, link).items():
                known.setdefault(len(found), []).append(target)
        return known

    def values(self, entity: str, word: str) -> list[Any]:
        """The values of a field, each once, from the least on."""
        known = self._values.get((entity, word))
        if known is None:
            known = self._values[entity, word] = sorted({*self.world.column(entity, word).values()})
        return known
