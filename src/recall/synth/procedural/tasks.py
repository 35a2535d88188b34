"""Procedural tasks by the number: `ProceduralTasks(recipe, seed=…, split=…)[i]` is a pure function of these and of i.

Tasks come in blocks that share a world; each block, and each task within it, draws from a generator of its own. What is
held out from training is decided by hashes of structure, so that no structure of one split can occur in another.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal, get_args

from recall.errors import ConfigError
from recall.synth.procedural import skins
from recall.synth.procedural.block import Block, Certified, Label
from recall.synth.procedural.certify import RejectedError
from recall.synth.procedural.grow import DeadEndError
from recall.synth.procedural.recipe import Recipe
from recall.synth.procedural.world import digest, shape_of, trim
from recall.types import Task

Split = Literal["train", "validation", "new_worlds", "new_templates", "new_skins", "deeper", "more_tools"]
SPLITS: tuple[Split, ...] = get_args(Split)

_SHARES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "train": (0.0, 0.7), "validation": (0.7, 0.76), "new_worlds": (0.76, 0.82), "new_skins": (0.82, 0.88),
        "deeper": (0.88, 0.94), "more_tools": (0.94, 1.0),
    }
)  # fmt: skip
"""The part of all shapes of worlds that belongs to each split."""
NEW_TEMPLATES = 0.15
"""The part of all templates that only `new_templates` has."""
_TRIES = 800
"""Draws for one task before its whole block is drawn anew."""
_TRIMS = 80
"""Shapes that are drawn for one of the split's own."""
_WORLDS = 100
"""Worlds that are drawn for the tasks of one, before the recipe is said to ask for too much."""
_TRIES_A_FORM = 100
"""Draws of one form, two thirds of them for exactly the calls wanted, before another is drawn. Forms that seldom come
to the number wanted would be rare otherwise."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a task: the task, or the gate that threw it out and why."""

    task: Task | None
    gate: str = ""
    reason: str = ""
    results: tuple[Any, ...] = ()
    """What each call of the task's reference program returned; the sandbox has to return the same."""


class ProceduralTasks:
    """Tasks of one recipe, seed and split."""

    def __init__(self, recipe: Recipe, *, seed: int = 0, split: str = "train") -> None:
        """Take what decides everything.

        Raises:
            ConfigError: there is no such split.
        """
        if split not in SPLITS:
            raise ConfigError(f"split {split!r}: accepted are {', '.join(SPLITS)}")
        self.recipe = _of_split(recipe, split)
        self.seed, self.split = seed, split
        self._key = f"procedural/{split}/{seed}/{digest(self.recipe.model_dump_json())}"
        self._made = lru_cache(maxsize=4)(self._world)

    def __getitem__(self, index: int) -> Task:
        """The task numbered `index`, from 0."""
        task = self.attempts(index)[-1].task
        assert task is not None, "the last try is the task"
        return task

    def take(self, count: int, *, start: int = 0) -> list[Task]:
        """The tasks numbered `start` to `start + count - 1`."""
        return [self[start + offset] for offset in range(count)]

    def attempts(self, index: int) -> list[Attempt]:
        """The tries for the task numbered `index`; the last is the task.

        Raises:
            ConfigError: the recipe asks for what cannot be found.
        """
        number, slot = divmod(index, self.recipe.tasks_per_world)
        return self._made(number)[slot]

    def _world(self, number: int) -> list[list[Attempt]]:
        """The tries for each task of a world. What finds no place in it gets another world."""
        size = self.recipe.tasks_per_world
        made: list[list[Attempt]] = [[] for _ in range(size)]
        pending = [*range(size)]
        for again in range(_WORLDS):
            block = self._block(number, again)
            found: dict[int, Certified] = {}
            answers: set[str] = set()
            for slot in pending:
                rng = random.Random(f"{self._key}/{number}/{again}/{slot}")
                certified = self._certified(block, rng, number * size + slot, answers, made[slot])
                if certified is not None:
                    found[slot] = certified
            tasks = block.with_source([*found.values()])
            for (slot, certified), task in zip(found.items(), tasks, strict=True):
                made[slot].append(Attempt(task, results=certified.results))
            pending = [slot for slot in pending if slot not in found]
            if not pending:
                return made
        tries = sum(map(len, made))
        raise ConfigError(f"recipe: no {self.split} task was found in {tries} tries; it asks for too much")

    def _block(self, number: int, again: int) -> Block:
        """A world that may have tasks of this split: one of its own shapes, or else one that splits share."""
        rng = random.Random(f"{self._key}/{number}/{again}")
        held_out = self.recipe.held_out_skins or skins.HELD_OUT
        trained = self.recipe.skins or [name for name in skins.NAMES if name not in held_out]
        pool = held_out if self.split == "new_skins" else trained
        found: tuple[skins.Skin, str] | None = None
        for _ in range(_TRIMS):
            skin = trim(rng, skins.skin_of(rng.choice(pool)), self.recipe)
            shape = shape_of(skin)
            home = _home(shape, self.recipe.shared_shapes)
            if home == self.split or self.split == "new_templates":
                return Block(rng, self.recipe, skin, shape, pool)
            if home is None:
                found = found or (skin, shape)
        if found is None:
            raise ConfigError(f"recipe: its worlds have too few shapes for the split {self.split}")
        return Block(rng, self.recipe, *found, pool)

    def _certified(
        self, block: Block, rng: random.Random, index: int, answers: set[str], tried: list[Attempt]
    ) -> Certified | None:
        """A task of a block, or None when none came of many tries.

        Args:
            block: the world.
            rng: decides everything.
            index: the task's number.
            answers: those of the world's tasks so far; the task's is added.
            tried: the tries that failed are added.
        """
        grower = block.grower(rng)
        label = Label(self.split, self.seed, index)
        calls, form = 0, grower.form(1)
        for attempt in range(_TRIES):
            if attempt % _TRIES_A_FORM == 0:
                calls = rng.randint(*self.recipe.calls)
                form = grower.form(calls)
            exact = attempt % _TRIES_A_FORM < _TRIES_A_FORM * 2 // 3
            try:
                plan = form(calls)
                block.check_calls(plan, (calls, calls) if exact else self.recipe.calls)
                if not self._admits(block.shape, plan.template):
                    continue
                answer = repr(plan.value(block.world))
                if answer in answers:
                    raise RejectedError("unique", "another task of the world has the answer")
                certified = block.task(rng, plan, label)
                answers.add(answer)
                return certified
            except DeadEndError:
                continue
            except RejectedError as rejected:
                if rejected.gate != "calls":  # the draw was of another size than wanted; that is no fault of it
                    tried.append(Attempt(None, rejected.gate, rejected.reason))
        return None

    def _admits(self, shape: str, template: str) -> bool:
        """Whether a structure belongs to this split."""
        if _held_out(template) is not (self.split == "new_templates"):
            return False
        home = _home(shape, self.recipe.shared_shapes)
        return (
            home == self.split
            or (home is None and _split_at(_place(shape, template)) == self.split)
            or (self.split == "new_templates")
        )


def _held_out(template: str) -> bool:
    """Whether only `new_templates` has a template; what reads something of what the question names, all have."""
    return template.count("(") > 1 and _place("template", template) < NEW_TEMPLATES


@lru_cache(maxsize=4096)
def _home(shape: str, shared: float) -> str | None:
    """The split that all worlds of a shape belong to; None where it hangs on the template too."""
    place = _place("shape", shape)
    return None if place < shared else _split_at((place - shared) / (1 - shared))


def _split_at(place: float) -> str:
    return next(split for split, (low, high) in _SHARES.items() if low <= place < high)


def _place(*parts: str) -> float:
    """A fixed place in [0, 1) for a structure."""
    return int(digest(*parts), 16) / 16**12


def _of_split(recipe: Recipe, split: str) -> Recipe:
    """The recipe of a split: two calls deeper than the training tasks go, or twice the tools."""
    many = recipe.calls[1]
    if split == "deeper":
        return recipe.model_copy(update={"calls": (many + 1, many + 2)})
    if split == "more_tools":
        return recipe.model_copy(update={"tools": (recipe.tools[0] * 2, recipe.tools[1] * 2)})
    return recipe
