"""Sentences, and what they introduce: things that later sentences refer to without being taken for others."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from recall.synth.procedural.plans import Many, Node

_MARK = "\x00{}\x00"
_MARKED = re.compile("\x00(\\d+)\x00")


@dataclass
class _Handle:
    """Something that a sentence of its own introduced."""

    noun: str
    """What it is called afterwards."""
    several: bool
    word: str
    """What stands before the noun where it alone is clear: `that`, `these`, `the chosen`."""
    at: int
    """The number of the sentence that introduced it."""
    unclear: bool
    """Whether it can be taken for something else that the sentence names."""
    letter: str = ""

    def __str__(self) -> str:
        if not self.letter:
            return f"{self.word} {self.noun}"
        return f"the {self.noun} of group {self.letter}" if self.several else f"{self.noun} {self.letter}"

    @property
    def naming(self) -> str:
        """The sentence that gives it its letter."""
        if not self.letter:
            return ""
        return f" Call them group {self.letter}." if self.several else f" Call it {self.noun} {self.letter}."


class Discourse:
    """The sentences of one text."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._sentences: list[str] = []
        self._handles: list[_Handle] = []
        self._known: dict[int, str] = {}
        """By the identity of a node, the mark of its handle."""

    def text(self) -> str:
        """All sentences, with everything called by its name."""
        self._name()
        return " ".join(map(self._unmarked, self._with_names()))

    def _way(self, ways: Sequence[str]) -> str:
        return ways[int(self.rng.random() * len(ways))]

    def _say(self, sentence: str) -> None:
        self._sentences.append(sentence[0].upper() + sentence[1:])

    def _introduced(self, node: Node, sentence: str, noun: str, word: str, *, unclear: bool = False) -> str:
        """Say a sentence that introduces a node; the mark by which it is referred to."""
        self._say(sentence)
        self._handles.append(_Handle(noun, isinstance(node, Many), word, len(self._sentences) - 1, unclear))
        self._known[id(node)] = _MARK.format(len(self._handles) - 1)
        return self._known[id(node)]

    def _name(self) -> None:
        """Give letters to what its noun alone could be mistaken for something else."""
        counts: dict[str, int] = {}
        for handle in self._handles:
            counts[handle.noun] = counts.get(handle.noun, 0) + 1
        letters = iter("ABCDEFGH")
        for handle in self._handles:
            said = self._sentences[handle.at].lower()
            repeated = len(re.findall(rf"\b{re.escape(handle.noun.lower())}\b", said)) > 1
            if counts[handle.noun] > 1 or handle.unclear or (repeated and handle.word == "that"):
                handle.letter = next(letters)

    def _with_names(self) -> list[str]:
        names = {handle.at: handle.naming for handle in self._handles}
        return [f"{sentence}{names.get(number, '')}" for number, sentence in enumerate(self._sentences)]

    def _unmarked(self, text: str) -> str:
        return _MARKED.sub(lambda found: str(self._handles[int(found[1])]), text)
