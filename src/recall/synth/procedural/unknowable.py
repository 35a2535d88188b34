"""Tasks whose answer no tool gives: that it cannot be determined is shown, not assumed."""

import random
from collections.abc import Iterator, Mapping

from recall.synth.procedural.certify import RejectedError
from recall.synth.procedural.ledger import Ledger
from recall.synth.procedural.plans import Scalar
from recall.synth.procedural.tools import Operation, Tool
from recall.synth.procedural.world import NAME, World

UNKNOWABLE = "cannot be determined"
"""The answer where a tool that is needed is missing."""
_DRAWS = 8


def without(
    rng: random.Random, plan: Scalar, world: World, visible: Mapping[Operation, Tool]
) -> tuple[list[Operation], tuple[str, str]]:
    """What to hide so that nobody can know the answer, and the column of a type of entity that this is about.

    All tools that tell of one column which the plan reads are hidden. It is then checked that there is a world which
    differs in that column alone, in which the answer is another: through the tools that are left, the two look alike.

    Args:
        rng: decides which column.
        plan: what is asked for.
        world: where.
        visible: the tools shown.

    Raises:
        RejectedError: the answer does not hang on any one column.
    """
    ledger = Ledger(world, visible)
    answer = plan.value(ledger)
    columns = [column for column in ledger.columns if column[1] != NAME]
    rng.shuffle(columns)
    for entity, word in columns:
        other = world.with_other(entity, word, f"{rng.getrandbits(64):016x}")
        for draw in range(_DRAWS):
            if _differs(plan, other, answer):
                return [op for op in visible if (entity, word) in told_by(op, world)], (entity, word)
            other = world.with_other(entity, word, f"{rng.getrandbits(64):016x}/{draw}")
    raise RejectedError("solvable", "the missing tool is not needed")


def _differs(plan: Scalar, other: World, answer: object) -> bool:
    try:
        return bool(plan.value(other) != answer)
    except ValueError:  # the largest of none
        return True


def told_by(operation: Operation, world: World) -> Iterator[tuple[str, str]]:
    """The columns that calls of a tool tell of, be it by what they refuse."""
    if operation.verb == "record":
        for word in (NAME, *world.skin.entity(operation.entity).words):
            yield operation.entity, word
    elif operation.verb == "lookup":
        yield operation.entity, NAME
    elif operation.verb == "act":
        states = world.skin.entity(operation.entity).states
        assert states is not None, "what acts has states"
        yield operation.entity, states.field
    elif operation.verb != "other":
        yield operation.entity, operation.word
