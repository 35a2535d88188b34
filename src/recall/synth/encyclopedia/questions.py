"""Questions over the facts of a shelf: chains of hops from what the question names to what it asks for."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recall.synth.encyclopedia.articles import Fact, Shelf
from recall.synth.encyclopedia.recipe import EncyclopediaRecipe
from recall.synth.vocabulary import GENITIVES, QUESTIONS
from recall.synth.world import held_out

NEW_CHAINS, DEEPER = "new_chains", "deeper"
_ASKED: tuple[str, ...] = ("What is {noun}?", "Find {noun}.", "Tell me {noun}.", "I need to know {noun}.",
                           "According to the encyclopedia, what is {noun}?", "Look up {noun}.")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of a question: a fact read from its subject to its value, or backward."""

    fact: Fact
    """What it rests on."""
    backward: bool = False
    """Whether it leads from the value to the only subject that has it."""

    @property
    def start(self) -> str:
        """What it starts from."""
        return str(self.fact.value) if self.backward else self.fact.subject

    @property
    def end(self) -> str:
        """What it leads to."""
        return self.fact.subject if self.backward else str(self.fact.value)

    @property
    def spelling(self) -> str:
        """What stands for it where chains are told apart."""
        return f"~{self.fact.word.noun}" if self.backward else self.fact.word.noun


@dataclass(frozen=True, slots=True)
class Chain:
    """What a question asks for."""

    hops: tuple[Hop, ...]
    """In the order in which they are taken."""
    text: str
    """The question."""

    @property
    def answer(self) -> str:
        """The answer."""
        return self.hops[-1].end

    @property
    def words(self) -> tuple[str, ...]:
        """The words in order, which decide whether the chain is held out."""
        return tuple(hop.spelling for hop in self.hops)


def sub_questions(hops: Sequence[Hop]) -> list[str]:
    """The hops as MuSiQue writes them: a subject, `>>`, a relation; `#1` stands for the answer of the first."""
    questions = []
    for number, hop in enumerate(hops):
        subject = f"#{number}" if number else hop.start
        word = hop.fact.word
        noun = word.backward.format(o="").removeprefix("the ").strip() if hop.backward else word.noun
        questions.append(f"{subject} >> {noun}")
    return questions


class Asker:
    """Draws questions of one shelf."""

    def __init__(self, rng: random.Random, recipe: EncyclopediaRecipe, shelf: Shelf) -> None:
        self._rng, self._recipe, self._shelf = rng, recipe, shelf
        self._of: Mapping[str, list[Fact]] = defaultdict(list)
        for fact in shelf.facts:
            self._of[fact.subject].append(fact)
        self._backward = [fact for fact in shelf.facts if fact.word.backward]

    def hops_of(self, number: int) -> int:
        """How many hops the question of a number takes, each as often as the others."""
        few, many = self._recipe.hops
        if self._shelf.split == DEEPER:
            return many + 1
        few = max(few, 2) if self._shelf.split == NEW_CHAINS else few
        return few + number % (many - few + 1)

    def draw(self, length: int) -> Chain | None:
        """A chain of so many hops; None where this draw came to none that fits the split."""
        rng = self._rng
        if length > 1 and rng.random() < self._recipe.backward:
            hops = [Hop(rng.choice(self._backward), backward=True)]
        else:
            hops = [Hop(rng.choice(self._shelf.facts))]
        while len(hops) < length:
            ways = self._of.get(hops[-1].end, [])
            if not ways:
                return None
            hops.append(Hop(rng.choice(ways)))
        chain = Chain(tuple(hops), self._text(hops))
        new = length > 1 and held_out("encyclopedia", *chain.words)
        return chain if length > self._recipe.hops[1] or new is (self._shelf.split == NEW_CHAINS) else None

    def _text(self, hops: Sequence[Hop]) -> str:
        """The question in one noun phrase, in nano's edition with either genitive."""
        rng, first = self._rng, hops[0]
        noun = first.start
        nouns = [hop.fact.word.noun for hop in hops]
        if self._recipe.edition == "nano":
            if rng.choice(GENITIVES) == "'s":
                return rng.choice(QUESTIONS).format(noun="'s ".join([noun, *nouns]))
            return rng.choice(QUESTIONS).format(noun=" of ".join([*(f"the {each}" for each in reversed(nouns)), noun]))
        rest = hops
        if first.backward:
            noun, rest = first.fact.word.backward.format(o=noun), hops[1:]
        elif first.fact.word.domain == "institution":
            noun = f"the {noun}"
        for hop in rest:
            noun = f"the {hop.fact.word.noun} of {noun}"
        return rng.choice(_ASKED).format(noun=noun)
