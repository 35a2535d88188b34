"""What a task asks for: chains of calls and joins of two chains, and how the question says it."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from recall.synth.vocabulary import (
    ATTRIBUTES,
    JOINING,
    RELATIONS,
    Attribute,
    EntityType,
    Genitive,
    Operator,
    Relation,
)
from recall.synth.world import Word

Step = Relation | Attribute

MOST_OF_A_TYPE = 3
"""A chain passes at most so many entities of one type, so that a small world has enough of them."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Words applied one after another to an entity."""

    steps: tuple[Step, ...]
    """Innermost first."""

    @property
    def words(self) -> tuple[Word, ...]:
        """The words whose tools it needs."""
        return self.steps

    @property
    def calls(self) -> int:
        """How many calls it takes."""
        return len(self.steps)

    def noun(self, entity: str, *, genitive: Genitive) -> str:
        """How a question says it: from the outside in, or from the inside out."""
        if genitive == "'s":
            return "'s ".join([entity, *(step.word for step in self.steps)])
        return " of ".join([*(f"the {step.word}" for step in reversed(self.steps)), entity])


@dataclass(frozen=True, slots=True)
class Join:
    """An operator on the numbers at the ends of two chains."""

    operator: Operator
    left: Chain
    right: Chain

    @property
    def words(self) -> tuple[Word, ...]:
        """The words whose tools it needs, each once."""
        return tuple(dict.fromkeys([*self.left.steps, *self.right.steps, self.operator]))

    @property
    def calls(self) -> int:
        """How many calls it takes."""
        return self.left.calls + self.right.calls + 1

    def noun(self, left: str, right: str, *, genitive: Genitive) -> str:
        """How a question says it."""
        nouns = self.left.noun(left, genitive=genitive), self.right.noun(right, genitive=genitive)
        return f"the {self.operator.word} of {' and '.join(nouns)}"


def draw_chain(rng: random.Random, calls: int, *, ends: str = "any", start: EntityType | None = None) -> Chain:
    """A chain of distinct words of `calls` calls that fits together by type.

    Args:
        rng: decides everything.
        calls: its length, at least 1.
        ends: `number` ends in an attribute, `name` in a relation, `any` in either.
        start: the type of the entity it starts from; any when None.
    """
    while True:
        at, steps = start, list[Step]()
        for position in range(calls):
            last = position == calls - 1
            pool: Sequence[Step] = RELATIONS
            if last and (ends == "number" or (ends == "any" and rng.random() < 0.5)):
                pool = ATTRIBUTES
            step = rng.choice([word for word in pool if at in (None, word.domain) and word not in steps])
            steps.append(step)
            at = step.range if isinstance(step, Relation) else None
        met = Counter(step.domain for step in steps)
        if len({step.word for step in steps}) == calls and max(met.values()) <= MOST_OF_A_TYPE:
            return Chain(tuple(steps))


def draw_join(rng: random.Random, calls: int, operators: Sequence[Operator] = JOINING) -> Join:
    """A join of `calls` calls, at least 3: one for the operator, the rest shared out between two chains."""
    left = rng.randint(1, calls - 2)
    return Join(
        rng.choice(operators),
        draw_chain(rng, left, ends="number"),
        draw_chain(rng, calls - 1 - left, ends="number"),
    )
