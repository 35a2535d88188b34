"""Articles: subjects, the facts about them, and the passages that tell the facts, as FlashRAG's corpora hold them.

Each split has a shelf of articles of its own, and no fact leads from one shelf to another; all shelves are searched
together. So what a question of one split rests on is never what a question of another rests on.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from recall.retriever.base import Passage
from recall.synth.encyclopedia.recipe import EncyclopediaRecipe
from recall.synth.encyclopedia.subjects import EDITIONS, Edition, Kind, Word
from recall.synth.procedural.names import LANGUAGES, draw
from recall.synth.world import draw_name

_ENGLISH_LANGUAGES = tuple(name for name in LANGUAGES if name != "plain")
LEAST = 4
"""Subjects of a kind on a shelf, at least: fewer have nobody to be related to."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that the encyclopedia tells."""

    subject: str
    """Whose article tells it."""
    word: Word
    """What is told."""
    value: str | int
    """A subject of the same shelf, or a number."""
    passage: str
    """The id of the passage that tells it."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """The articles of one split."""

    split: str
    """Its name."""
    facts: tuple[Fact, ...]
    """All that is told, by article."""
    passages: tuple[Passage, ...]
    """The text of the articles, in order."""


def draw_shelf(rng: random.Random, recipe: EncyclopediaRecipe, split: str, articles: int, taken: set[str]) -> Shelf:
    """Draw the articles of a split.

    Args:
        rng: decides everything.
        recipe: how.
        split: its name, which goes into the ids of the passages.
        articles: about how many, as there are `LEAST` of each kind.
        taken: names that the encyclopedia has already; those drawn are added.
    """
    edition = EDITIONS[recipe.edition]
    subjects: dict[str, list[str]] = {}
    for place, kind in enumerate(edition.kinds):
        count = max(LEAST, (articles + place) // len(edition.kinds))
        subjects[kind.name] = [_name(rng, recipe, kind, split, taken) for _ in range(count)]
    facts: list[Fact] = []
    passages: list[Passage] = []
    for kind in edition.kinds:
        for number, name in enumerate(subjects[kind.name]):
            told = _told(rng, recipe, edition, kind, name, subjects)
            calling = rng.choice(kind.callings) if kind.callings else ""
            for part, some in enumerate(_parts(told, recipe.facts_a_passage)):
                id = f"{split}-{kind.name}-{number}-{part}"
                facts += [Fact(name, word, value, id) for word, value in some]
                text = _sentences(rng, kind, name, calling, some) if recipe.edition == "english" else _box(name, some)
                passages.append(Passage(id, f'"{name}"\n{text}'))
    return Shelf(split, tuple(facts), tuple(passages))


def _name(rng: random.Random, recipe: EncyclopediaRecipe, kind: Kind, split: str, taken: set[str]) -> str:
    """A name that the encyclopedia does not have; in nano's edition one that it has never seen, outside of training."""
    if recipe.edition == "nano":
        name = draw_name(rng, from_held_out=split != "train", taken=taken)
    else:
        while True:
            name = draw(kind.named, rng, language=rng.choice(_ENGLISH_LANGUAGES))
            if kind.endings:
                name = f"{name.split()[0]} {rng.choice(kind.endings)}"
            if name not in taken:
                break
    taken.add(name)
    return name


def _told(
    rng: random.Random,
    recipe: EncyclopediaRecipe,
    edition: Edition,
    kind: Kind,
    name: str,
    subjects: dict[str, list[str]],
) -> list[tuple[Word, str | int]]:
    """What an article tells: distinct words, no subject twice, and never its own."""
    words = rng.sample(edition.of(kind.name), rng.randint(*recipe.facts))
    told: list[tuple[Word, str | int]] = []
    met = {name}
    for word in words:
        if not word.range:
            told.append((word, rng.randint(*word.numbers)))
            continue
        value = rng.choice([other for other in subjects[word.range] if other not in met])
        met.add(value)
        told.append((word, value))
    return told


def _parts(told: Sequence[tuple[Word, str | int]], size: int) -> Iterator[Sequence[tuple[Word, str | int]]]:
    for start in range(0, len(told), size):
        yield told[start : start + size]


def _box(name: str, told: Sequence[tuple[Word, str | int]]) -> str:
    """A box of facts, the only text beside bare values that nano's base reads; the name in it finds the article."""
    return json.dumps({f"{name}'s {word.noun}": value for word, value in told})


def _sentences(rng: random.Random, kind: Kind, name: str, calling: str, told: Sequence[tuple[Word, str | int]]) -> str:
    """Sentences, the first of which names the subject; the others may call it `the market town`."""
    article = "The " if kind.name == "institution" else ""
    sentences = [f"{article}{name} is {calling}."]
    for word, value in told:
        said = rng.choice(word.says)
        known = f"the {calling.partition(' ')[2]}" if rng.random() < 0.5 else name
        if known != name:
            said = said.replace("the {s}", "{s}").replace("The {s}", "{s}")
        sentence = said.format(s=known, o=value)
        sentences.append(sentence[0].upper() + sentence[1:])
    return " ".join(sentences)
