"""Small procedural worlds for tests: a block of any recipe, and plans over it."""

import random
from collections.abc import Callable

from recall.synth.procedural import skins
from recall.synth.procedural.block import Block
from recall.synth.procedural.certify import Draft, RejectedError
from recall.synth.procedural.grow import DeadEndError, Form, Grower
from recall.synth.procedural.plans import Scalar
from recall.synth.procedural.recipe import Recipe
from recall.synth.procedural.world import shape_of, trim

ALL_SHOWN = Recipe(tools=(200, 200), ids=0.0, pages=0.0, records=0.0, failing=0.0, denied=1.0, duplicates=(2, 2))
"""Every tool of the world is shown, and nothing is in pages or records."""


def block_of(recipe: Recipe, seed: int, skin: str = "library") -> Block:
    """A world with its tools."""
    rng = random.Random(seed)
    trimmed = trim(rng, skins.load(skin), recipe)
    return Block(rng, recipe, trimmed, shape_of(trimmed), skins.NAMES[:4])


def draft_of(
    recipe: Recipe, form: Callable[[Grower], Form], calls: int, fits: Callable[[Scalar], bool] = lambda plan: True
) -> tuple[Block, Draft]:
    """A draft of a form and of so many calls that passes all certificates, with its world."""
    for seed in range(60):
        block = block_of(recipe, seed)
        grower = block.grower(random.Random(seed))
        for _ in range(60):
            try:
                plan = form(grower)(calls)
                block.check_calls(plan, (calls, calls))
                if not fits(plan):
                    continue
                draft, _ = block.draft(random.Random(seed), plan)
                block.certify(draft)
            except (DeadEndError, RejectedError):
                continue
            return block, draft
    raise AssertionError("no such draft in 3600 tries")
