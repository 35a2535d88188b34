"""Worlds: some of a skin's types of entity, with rows full of facts that are drawn anew for every world.

Facts are kept by column and drawn when they are first asked for, each column from a generator of its own: of the many
worlds that a certificate compares, only what is looked at is ever drawn.
"""

import hashlib
import random
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from recall.synth.procedural import names
from recall.synth.procedural.names import pick
from recall.synth.procedural.recipe import Keyed, Recipe
from recall.synth.procedural.skins.schema import Entity, Skin

Key = str
"""What identifies an entity within its type: its name or its id."""
Row = dict[str, Any]
Tables = dict[str, dict[Key, Row]]
Entities = Mapping[str, Mapping[Key, str]]
"""By type of entity and key, in the order of the rows, what each entity is called."""

NAME = "name"
"""The column of an entity's name, where ids identify it."""


class World:
    """A trimmed skin, its entities, and what is so about them."""

    def __init__(
        self, skin: Skin, keyed: Keyed, named: Entities, seed: str, columns: dict[tuple[str, str], dict[Key, Any]]
    ) -> None:
        """Take what decides everything.

        Args:
            skin: the types of entity that occur, with the fields and links that occur.
            keyed: what tools know entities by.
            named: the entities.
            seed: decides the facts.
            columns: by type of entity and word, the facts that are known already; others are added to it.
        """
        self.skin, self.keyed, self.named = skin, keyed, named
        self._seed, self._columns = seed, columns
        self._inverse: dict[tuple[str, str], dict[Key, list[Key]]] = {}

    def column(self, entity: str, word: str) -> dict[Key, Any]:
        """One field, label, link or state of every entity of a type."""
        found = self._columns.get((entity, word))
        if found is None:
            found = self._columns[entity, word] = self._drawn(entity, word)
        return found

    def _drawn(self, entity: str, word: str) -> dict[Key, Any]:
        kind, keys = self.skin.entity(entity), self.named[entity]
        if word == NAME:
            return dict(keys)
        rng = random.Random(f"{self._seed}/{entity}/{word}")
        for field in kind.fields:
            if field.name == word:
                sample = field.kind.sample
                return {key: sample(rng) for key in keys}
        for link in kind.links:
            if link.name == word:
                return _linked(rng, keys, [*self.named[link.to]])
        values = next((label.values for label in kind.labels if label.name == word), None)
        if values is None:
            assert kind.states is not None, f"{entity} has no {word}"
            values = kind.states.values
        return dict(zip(keys, rng.choices(values, k=len(keys)), strict=True))

    def keys(self, entity: str) -> Iterable[Key]:
        """Those of the entities of a type, in the order of the rows."""
        return self.named[entity]

    def read(self, entity: str, key: Key, word: str) -> Any:
        """One value."""
        column = self._columns.get((entity, word))
        return (self.column(entity, word) if column is None else column)[key]

    def members(self, entity: str, link: str, target: Key) -> list[Key]:
        """What leads to `target` by a link, in the order of the rows."""
        return self.inverse(entity, link).get(target, [])

    def inverse(self, entity: str, link: str) -> dict[Key, list[Key]]:
        """By target, what leads to it by a link, in the order of the rows."""
        known = self._inverse.get((entity, link))
        if known is None:
            known = self._inverse[entity, link] = {}
            column = self.column(entity, link)
            for key in self.named[entity]:
                known.setdefault(column[key], []).append(key)
        return known

    def where(self, entity: str, word: str, value: str) -> list[Key]:
        """The entities of a type with a label, in the order of the rows."""
        column = self.column(entity, word)
        return [key for key in self.named[entity] if column[key] == value]

    def within(self, entity: str, word: str, low: Any, high: Any) -> list[Key]:
        """The entities of a type with a value from `low` to `high`, in the order of the rows."""
        column = self.column(entity, word)
        return [key for key in self.named[entity] if low <= column[key] <= high]

    def spend(self, operation: Hashable, *arguments: Any) -> None:
        """Told of every other call that an agent makes where a plan's value is worked out; see `Ledger`."""

    def name_of(self, entity: str, key: Key) -> str:
        """What a question calls it."""
        return self.named[entity][key]

    def changed(self, entity: str, word: str, values: Mapping[Key, Any]) -> "World":
        """The world in which some entities have other values."""
        columns = {**self._columns, (entity, word): {**self.column(entity, word), **values}}
        return World(self.skin, self.keyed, self.named, self._seed, columns)

    def with_other(self, entity: str, word: str, seed: str) -> "World":
        """The world in which one column is another draw."""
        values = self.redrawn(seed).column(entity, word)
        return World(self.skin, self.keyed, self.named, self._seed, {**self._columns, (entity, word): values})

    def redrawn(self, seed: str) -> "World":
        """A world of the same entities in which every fact is another draw."""
        return World(self.skin, self.keyed, self.named, seed, {})

    def shuffled(self, rng: random.Random) -> "World":
        """The same world with the rows of each table in another order."""
        named = {}
        for entity, rows in self.named.items():
            order = list(rows)
            rng.shuffle(order)
            named[entity] = {key: rows[key] for key in order}
        return World(self.skin, self.keyed, named, self._seed, self._columns)

    def tables(self) -> Tables:
        """Every fact, by type of entity, key and word: what the tools read."""
        tables = {}
        for entity in self.skin.entities:
            words = (NAME, *entity.words) if self.keyed == "id" else entity.words
            columns = [(word, self.column(entity.name, word)) for word in words]
            tables[entity.name] = {
                key: {word: column[key] for word, column in columns} for key in self.named[entity.name]
            }
        return tables


def _linked(rng: random.Random, keys: Iterable[Key], pool: list[Key]) -> dict[Key, Key]:
    """A target for each entity, another than itself where there is another."""
    targets = {}
    draw, size = rng.random, len(pool)
    for key in keys:  # as `names.pick` does, without a call for each
        while (target := pool[int(draw() * size)]) == key and size > 1:
            pass
        targets[key] = target
    return targets


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
    named = {
        entity.name: dict(_entities(rng, entity, skin.language, rng.randint(*recipe.rows), recipe, keyed, taken))
        for entity in skin.entities
    }
    return World(skin, keyed, named, f"{rng.getrandbits(64):016x}", {})


def _entities(
    rng: random.Random, entity: Entity, language: str, count: int, recipe: Recipe, keyed: Keyed, taken: set[str]
) -> Iterator[tuple[Key, str]]:
    """Keys with names, none of which occurs twice in the world."""
    drawn: list[str] = []
    initials = "".join(word[0] for word in entity.name.split("_"))
    prefix = (initials if "_" in entity.name else entity.name)[:2].upper()
    for _ in range(count):
        if drawn and rng.random() < recipe.decoys:
            name = names.decoy_of(rng, pick(rng, drawn), taken=taken)
        else:
            name = names.draw(entity.named, rng, taken=taken, language=language)
        taken.add(name)
        drawn.append(name)
        key = name
        while keyed == "id":
            key = f"{prefix}-{rng.getrandbits(20):05x}"
            if key not in taken:
                taken.add(key)
                break
        yield key, name


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
