"""What a task over the backends is made of: worlds of invented names, and turns of a user with the calls that they ask.

A `World` is one backend with a state of its own; its moves say something and know the calls. Each move keeps track of
what it changed, so that the next one speaks of what is there.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from recall.types import ToolCall

_STARTS = [
    "b",
    "br",
    "d",
    "dr",
    "f",
    "g",
    "gl",
    "h",
    "k",
    "kl",
    "l",
    "m",
    "n",
    "p",
    "pr",
    "qu",
    "r",
    "s",
    "sk",
    "sl",
    "t",
    "tr",
    "v",
    "w",
    "z",
]
_VOWELS = ["a", "e", "i", "o", "u", "ae", "io"]
_ENDS = ["l", "m", "n", "r", "s", "th", "x", "nd", "rk", "sk"]


@dataclass(frozen=True, slots=True)
class Turn:
    """What the user says, and the calls that it takes."""

    said: str
    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A task before it is played."""

    kind: str
    """Which backends, and how many turns: `files-2`."""
    config: Mapping[str, Any]
    """The state that each backend starts from, by class."""
    turns: tuple[Turn, ...]


class Draw:
    """Draws of one task: names that no two things share, amounts, words."""

    def __init__(self, rng: random.Random, taken: frozenset[str] = frozenset()) -> None:
        """Take the source of chance, and words that must not be names."""
        self.rng = rng
        self._taken, self._used = taken, set[str]()

    def name(self) -> str:
        """A new invented word of two or three syllables, in small letters."""
        while True:
            syllables = self.rng.randint(2, 3)
            word = "".join(self.rng.choice(_STARTS) + self.rng.choice(_VOWELS) for _ in range(syllables))
            word += self.rng.choice(_ENDS)
            if word not in self._used and word not in self._taken:
                self._used.add(word)
                return word

    def person(self) -> str:
        """A new name of somebody."""
        return self.name().capitalize()

    def text(self) -> str:
        """A sentence about something new."""
        what = self.rng.choice(("shipment", "draft", "rehearsal", "lantern", "survey", "garden", "choir", "ferry"))
        how = self.rng.choice(("is ready", "is late", "was moved", "needs paint", "is in good order", "has begun"))
        return f"The {what} of {self.person()} {how}"

    def amount(self, low: int, high: int) -> float:
        """An amount with odd cents."""
        return self.rng.randint(low, high) + self.rng.choice((0.13, 0.37, 0.41, 0.67, 0.83, 0.91))

    def say(self, *ways: str) -> str:
        """One of some ways of saying the same."""
        return self.rng.choice(ways)


class World(Protocol):
    """One backend with a state of its own."""

    backend: str
    """The class of the backend."""

    def config(self) -> dict[str, Any]:
        """The state that it starts from."""

    def moves(self) -> Sequence[Callable[[], Turn]]:
        """What can be asked now."""


@dataclass(frozen=True, slots=True)
class Worlds:
    """Which worlds there are, by name."""

    made: Mapping[str, Callable[[Draw], World]] = field(default_factory=dict)

    def plan(self, draw: Draw, names: Sequence[str], turns: int) -> Plan:
        """A task over some worlds: as many turns, each of one of them."""
        worlds = [self.made[name](draw) for name in names]
        config = {world.backend: world.config() for world in worlds}
        said = [draw.rng.choice(worlds[number % len(worlds)].moves())() for number in range(turns)]
        return Plan(f"{'+'.join(names)}-{turns}", config, tuple(said))


def calls(*made: tuple[str, Mapping[str, Any]]) -> tuple[ToolCall, ...]:
    """Calls by name and arguments."""
    return tuple(ToolCall(name, dict(arguments)) for name, arguments in made)
