"""Worlds: some of a skin's types of entity, with rows full of facts that are drawn anew for every world."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from recall.synth.procedural import names
from recall.synth.procedural.recipe import Keyed, Recipe
from recall.synth.procedural.skins.schema import Entity, Skin

Key = str
"""What identifies an entity within its type: its name or its id."""
Row = dict[str, Any]
Tables = dict[str, dict[Key, Row]]

NAME = "name"
"""The column of an entity's name, where ids identify it."""


@dataclass(frozen=True)
class World:
    """A trimmed skin, and its rows."""

    skin: Skin
    """The types of entity that occur, with the fields and links that occur."""
    keyed: Keyed
    """What tools know entities by."""
    tables: Tables
    """By type of entity and key, the value of each field, label, link and state."""
    _inverse: dict[tuple[str, str], dict[Key, list[Key]]] = field(default_factory=dict, repr=False, compare=False)

    def members(self, entity: str, link: str, target: Key) -> list[Key]:
        """What leads to `target` by a link, in the order of the rows."""
        known = self._inverse.get((entity, link))
        if known is None:
            known = self._inverse[entity, link] = {}
            for key, row in self.tables[entity].items():
                known.setdefault(row[link], []).append(key)
        return known.get(target, [])

    def name_of(self, entity: str, key: Key) -> str:
        """What a question calls it."""
        return str(self.tables[entity][key][NAME]) if self.keyed == "id" else key


def trim(rng: random.Random, skin: Skin, recipe: Recipe) -> Skin:
    """A connected part of a skin: a few types of entity, a few fields of each, the links between them."""
    wanted = rng.randint(*recipe.entities)
    at = rng.choice([entity for entity in skin.entities if entity.links])
    kept = {at.name: at}
    while len(kept) < wanted:
        near = [
            other
            for other in skin.entities
            if other.name not in kept
            and (
                any(link.to in kept for link in other.links)
                or any(link.to == other.name for entity in kept.values() for link in entity.links)
            )
        ]
        if not near:
            break
        chosen = rng.choice(near)
        kept[chosen.name] = chosen
    entities = [_trimmed(rng, entity, kept, recipe) for entity in skin.entities if entity.name in kept]
    return replace(skin, entities=tuple(entities))


def _trimmed(rng: random.Random, entity: Entity, kept: dict[str, Entity], recipe: Recipe) -> Entity:
    wanted = min(len(entity.fields), rng.randint(*recipe.fields))
    chosen = sorted(rng.sample(range(len(entity.fields)), wanted))
    links = tuple(link for link in entity.links if link.to in kept)
    names_kept = {link.name for link in links}
    return replace(
        entity,
        fields=tuple(entity.fields[position] for position in chosen),
        links=links,
        labels=entity.labels[: rng.randint(0, len(entity.labels))],
        moves=tuple(move for move in entity.moves if move.link in names_kept),
    )


def draw_world(rng: random.Random, skin: Skin, recipe: Recipe) -> World:
    """A world of a trimmed skin with fresh names and facts."""
    keyed: Keyed = "id" if rng.random() < recipe.ids else "name"
    taken: set[str] = set()
    keys: dict[str, dict[Key, str]] = {}
    for entity in skin.entities:
        keys[entity.name] = dict(_entities(rng, entity, skin.language, rng.randint(*recipe.rows), recipe, keyed, taken))
    return World(skin, keyed, _tables(rng, skin, keys, keyed))


def redraw(rng: random.Random, world: World) -> World:
    """A world of the same entities in which every fact is another draw."""
    keys = {
        entity.name: {key: world.name_of(entity.name, key) for key in world.tables[entity.name]}
        for entity in world.skin.entities
    }
    return World(world.skin, world.keyed, _tables(rng, world.skin, keys, world.keyed))


def shuffle(rng: random.Random, world: World) -> World:
    """The same world with the rows of each table in another order."""
    tables = {}
    for entity, rows in world.tables.items():
        order = list(rows)
        rng.shuffle(order)
        tables[entity] = {key: rows[key] for key in order}
    return World(world.skin, world.keyed, tables)


def _entities(
    rng: random.Random, entity: Entity, language: str, count: int, recipe: Recipe, keyed: Keyed, taken: set[str]
) -> Iterator[tuple[Key, str]]:
    """Keys with names, none of which occurs twice in the world."""
    drawn: list[str] = []
    prefix = (
        "".join(word[0] for word in entity.name.split("_"))[:2].upper()
        if "_" in entity.name
        else entity.name[:2].upper()
    )
    for _ in range(count):
        if drawn and rng.random() < recipe.decoys:
            name = names.decoy_of(rng, rng.choice(drawn), taken=taken)
        else:
            name = names.draw(entity.named, rng, taken=taken, language=language)
        taken.add(name)
        drawn.append(name)
        key = name
        while keyed == "id":
            key = f"{prefix}-{rng.randrange(16**5):05x}"
            if key not in taken:
                taken.add(key)
                break
        yield key, name


def _tables(rng: random.Random, skin: Skin, keys: dict[str, dict[Key, str]], keyed: Keyed) -> Tables:
    pools = {entity: list(named) for entity, named in keys.items()}
    tables: Tables = {}
    for entity in skin.entities:
        rows = tables[entity.name] = {}
        for key, name in keys[entity.name].items():
            row: Row = {NAME: name} if keyed == "id" else {}
            for each in entity.fields:
                row[each.name] = each.kind.draw(rng)
            for label in entity.labels:
                row[label.name] = rng.choice(label.values)
            for link in entity.links:
                pool = pools[link.to]
                while (target := rng.choice(pool)) == key and len(pool) > 1:
                    pass
                row[link.name] = target
            if entity.states is not None:
                row[entity.states.field] = rng.choice(entity.states.values)
            rows[key] = row
    return tables


def shape_of(skin: Skin) -> str:
    """A hash of what a trimmed skin looks like without its words: equal for two worlds that only differ in wording.

    Types of entity are coloured by what they hold and, three times, by the colours that their links lead to and come
    from, as in the Weisfeiler-Leman test of isomorphism.
    """
    colours = {
        entity.name: digest(
            sorted(each.kind.dimension or each.kind.answer.kind for each in entity.fields),
            len(entity.labels),
            entity.states is not None,
        )
        for entity in skin.entities
    }
    for _ in range(3):
        leads = {entity.name: sorted(colours[link.to] for link in entity.links) for entity in skin.entities}
        comes: dict[str, list[str]] = {entity.name: [] for entity in skin.entities}
        for entity in skin.entities:
            for link in entity.links:
                comes[link.to].append(colours[entity.name])
        colours = {name: digest(colour, leads[name], sorted(comes[name])) for name, colour in colours.items()}
    return digest(sorted(colours.values()))


def digest(*parts: Any) -> str:
    """Twelve hexadecimal digits that depend on the parts and on nothing else."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=6).hexdigest()
