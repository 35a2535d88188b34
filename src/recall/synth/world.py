"""Fictional worlds: named entities, relations between them, numbers about them.

A world holds just the tables that one task's tools read. Names are nonsense and numbers are drawn anew for every
world, so nothing about it can be known or guessed.
"""

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from recall.synth.vocabulary import SYLLABLES, Attribute, EntityType, Operator, Relation

Word = Relation | Attribute | Operator
Value = str | int

ENTITIES_A_TYPE = 6
NUMBERS = range(10, 1000)


def held_out(*words: str, share: float = 0.2) -> bool:
    """Whether the words belong to the held-out part: a fixed property of their spelling, the same in every process.

    Args:
        words: what to decide about, in order: a name, the words of a chain, a naming style with a parameter.
        share: the part of all spellings that is held out.
    """
    digest = hashlib.blake2b("\0".join(words).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def draw_name(rng: random.Random, *, from_held_out: bool, taken: Iterable[str] = ()) -> str:
    """A nonsense name of two or three syllables, from the held-out spellings or from the others, not in `taken`."""
    while True:
        name = "".join(rng.choices(SYLLABLES, k=rng.choice((2, 3)))).capitalize()
        if held_out(name) is from_held_out and name not in taken:
            return name


@dataclass(frozen=True)
class World:
    """Tables over entities."""

    entities: Mapping[EntityType, tuple[str, ...]]
    """The names of each type that occurs."""
    tables: Mapping[str, Mapping[str, Value]]
    """By the word of a relation or attribute: what each entity of its domain maps to."""


def draw_world(
    rng: random.Random,
    words: Iterable[Word],
    *,
    leaves: Iterable[str] = (),
    types: Iterable[EntityType] = (),
    name: Callable[[set[str]], str],
) -> World:
    """A world with a table for each relation and attribute among `words`.

    A relation maps the entities of its domain one to one. The values of the relations named in `leaves` are names that
    occur nowhere else in the world, so that no other call can come upon them by chance.

    Args:
        rng: decides everything.
        words: operators need no table and are passed over.
        leaves: words of relations that answer a question.
        types: types that occur even if no word needs them.
        name: draws a name that is not in the given set.
    """
    tabled = [word for word in words if not isinstance(word, Operator)]
    taken: set[str] = set()

    def fresh() -> str:
        taken.add(drawn := name(taken))
        return drawn

    ranges = {word.range for word in tabled if isinstance(word, Relation)}
    types = sorted({*types} | {word.domain for word in tabled} | ranges)
    entities = {kind: tuple(fresh() for _ in range(ENTITIES_A_TYPE)) for kind in types}
    tables: dict[str, dict[str, Value]] = {}
    leaves = set(leaves)
    for word in tabled:
        keys = entities[word.domain]
        values: list[Value]
        if isinstance(word, Attribute):
            values = [*rng.sample(NUMBERS, len(keys))]
        elif word.word in leaves:
            values = [fresh() for _ in keys]
        else:
            values = [*_mapped(rng, keys, entities[word.range])]
        tables[word.word] = dict(zip(keys, values, strict=True))
    return World(entities, tables)


def _mapped(rng: random.Random, keys: tuple[str, ...], values: tuple[str, ...]) -> list[str]:
    """A one-to-one map that leaves no entity where it is."""
    while True:
        drawn = rng.sample(values, len(keys))
        if all(key != value for key, value in zip(keys, drawn, strict=True)):
            return drawn
