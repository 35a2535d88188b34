"""Settings to ask for: a seeded draw from a taxonomy, and a measure of how much texts are like earlier ones."""

import random
import re
import tomllib
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

_WORD = re.compile(r"\w+")
_SHINGLE_WORDS = 2


@dataclass(frozen=True, slots=True)
class Topic:
    """Where a setting is to be found."""

    domain: str
    """What sort of place."""
    angle: str
    """Who looks at it."""
    twist: str
    """What makes it interesting."""


@lru_cache
def _taxonomy() -> dict[str, list[str]]:
    text = resources.files("recall.synth.llm").joinpath("taxonomy.toml").read_text(encoding="utf-8")
    return {name: [str(entry) for entry in entries] for name, entries in tomllib.loads(text).items()}


def topic(seed: int, number: int) -> Topic:
    """The topic of a world: a pure function of the seed and the world's number.

    Every domain comes once before any comes again; angles and twists are drawn for each.
    """
    known = _taxonomy()
    domains = known["domain"]
    order = list(domains)
    random.Random(f"{seed}/domains/{number // len(domains)}").shuffle(order)
    generator = random.Random(f"{seed}/topic/{number}")
    return Topic(order[number % len(domains)], generator.choice(known["angle"]), generator.choice(known["twist"]))


class Novelty:
    """Texts so far, and how much a new one is like the nearest of them: the Jaccard index of pairs of words."""

    def __init__(self) -> None:
        self._holding: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        self._sizes: list[int] = []

    def likeness(self, text: str) -> float:
        """To the nearest text so far, in [0, 1]; 0 where there is none."""
        shingles = _shingles(text)
        shared = Counter(number for shingle in shingles for number in self._holding.get(shingle, ()))
        return max(
            (both / (len(shingles) + self._sizes[number] - both) for number, both in shared.items()), default=0.0
        )

    def add(self, text: str) -> None:
        """Remember a text."""
        shingles = _shingles(text)
        for shingle in shingles:
            self._holding[shingle].append(len(self._sizes))
        self._sizes.append(len(shingles))


def _shingles(text: str) -> frozenset[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    count = max(1, len(words) - _SHINGLE_WORDS + 1)
    return frozenset(tuple(words[start : start + _SHINGLE_WORDS]) for start in range(count))
