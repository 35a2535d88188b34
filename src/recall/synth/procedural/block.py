"""A block: one world, its tools in one style, and the tasks over it."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from math import log2
from pathlib import Path
from typing import Any

from recall.programs import references
from recall.synth.procedural import skins
from recall.synth.procedural.certify import Draft, RejectedError, certify
from recall.synth.procedural.closure import Shorter
from recall.synth.procedural.distractors import denied, duplicates, foreign
from recall.synth.procedural.functions import Functions
from recall.synth.procedural.grow import Grower
from recall.synth.procedural.plans import Acted, Convert, Days, Listed, Moved, Read, Scalar
from recall.synth.procedural.question import UNKNOWABLE, Voice
from recall.synth.procedural.recipe import Recipe
from recall.synth.procedural.style import draw_style
from recall.synth.procedural.tools import Tool, derive, source_of, with_failure
from recall.synth.procedural.trace import Bound, CannotRunError, Trace
from recall.synth.procedural.world import Tables, digest, draw_world, redraw, shape_of, shuffle, trim
from recall.types import AnswerType, Task

CURRENCIES = ("florins", "ducats", "talers", "groats", "nobles", "marks", "guilders", "obols")
_FAMILIES = (
    "update", "conditional", "whichever", "both", "targets", "top", "range", "where", "convert", "days", "combine",
    "count", "total", "list", "members", "hop",
)  # fmt: skip
"""What a kind is called after: the first of these that a plan has."""


class Block:
    """One world with its tools."""

    def __init__(self, rng: random.Random, recipe: Recipe, skin: str, pool: Sequence[str]) -> None:
        """Draw it.

        Args:
            rng: decides everything.
            recipe: what it is like.
            skin: the domain, a name or a file.
            pool: the domains that foreign tools come from.
        """
        self.recipe = recipe
        loaded = skins.read(Path(skin)) if skin.endswith(".toml") else skins.load(skin)
        self.world = draw_world(rng, trim(rng, loaded, recipe), recipe)
        self.shape = shape_of(self.world.skin)
        self.id = f"{rng.getrandbits(48):012x}"
        self.others = [redraw(rng, self.world) for _ in range(recipe.counterfactuals)]
        self.shuffled = shuffle(rng, self.world)
        paged, prose = rng.random() < recipe.pages, rng.random() < recipe.prose
        page_size = rng.randint(*recipe.page_size) if paged else 0
        self.style = draw_style(rng, keyed=self.world.keyed, prose=prose, page_size=page_size, plain=recipe.plain)
        money = "convert" in recipe.operators
        self.rates = {name: rng.randrange(11, 999) / 100 for name in rng.sample(CURRENCIES, 3)} if money else {}
        self._draw_tools(rng, pool)
        self._load()

    def _draw_tools(self, rng: random.Random, pool: Sequence[str]) -> None:
        recipe = self.recipe
        tools = derive(rng, self.world, self.style, recipe, [*self.rates])
        readers = [place for place, tool in enumerate(tools) if tool.operation.verb in ("field", "record", "members")]
        if not recipe.stateless and rng.random() < recipe.failing:
            place = rng.choice(readers)
            tools[place] = with_failure(tools[place])
        self.tools = {tool.operation: tool for tool in tools}
        similar, self._stale = duplicates(rng, tools, self.others[0], recipe.duplicates[1] * 2)
        self.similar = similar
        self.refusing = denied(rng, tools) if rng.random() < recipe.denied else None
        self.foreign, self._foreign = (
            foreign(rng, self.style, recipe, self.world, pool) if recipe.foreign[1] else ([], Tables())
        )

    def _load(self) -> None:
        every = [*self.tools.values(), *self.similar, *self.foreign, *([self.refusing] if self.refusing else [])]
        named = {tool.spec.name: tool for tool in reversed(every)}
        rates = {"currency": {name: {"rate": rate} for name, rate in self.rates.items()}} if self.rates else {}
        changing = any(tool.operation.verb in ("act", "move") for tool in self.tools.values())
        beside = {**rates, **self._stale, **self._foreign}
        tables = {**self.world.tables, **beside}
        self.source = source_of(tables, named.values(), self.style, changing=changing)
        self._here = Functions(tables, self.tools.values(), self.style)
        self._elsewhere = Functions({**self.shuffled.tables, **beside}, self.tools.values(), self.style)

    def grower(self, rng: random.Random) -> Grower:
        """Grows plans over the world."""
        return Grower(rng, self.world, self.recipe, self.rates)

    def task(
        self, rng: random.Random, plan: Scalar, calls: tuple[int, int], *, id: str, split: str, index: int, seed: int
    ) -> Task:
        """The task that asks for a plan.

        Args:
            rng: decides the words and the tools shown.
            plan: over this world.
            calls: the fewest and the most that are wanted.
            id: of the task.
            split: that it belongs to.
            index: its number.
            seed: of the generator.

        Raises:
            RejectedError: it does not hold up.
        """
        trace, answer, changes = self._carried_out(plan)
        if not calls[0] <= trace.calls <= calls[1]:
            raise RejectedError("calls", "too few or too many calls")
        if answer.value != plan.value(self.world):
            raise RuntimeError(f"{id}: tools give {answer.value!r}, rows {plan.value(self.world)!r}")
        missing = changes is None and rng.random() < self.recipe.missing
        told = missing or (self.recipe.missing > 0 and rng.random() < 0.5)
        question = Voice(rng, plain=self.recipe.plain).question(plan, unknowable=told)
        visible, shown = self._visible(rng, trace)
        draft = Draft(plan, question, trace, answer, {tool.operation: tool for tool in visible})
        with self._elsewhere.episode(plan) as function:
            facts = certify(draft, self.world, self.others, Trace(self.tools, function), self.shuffled)
        about = self._about(plan, trace, visible) | {
            "shortest": facts.shortest, "counterfactual": facts.counterfactual, "distractors": shown, "seed": seed,
            "index": index,
        }  # fmt: skip
        accepted, answer_type = _accepted(plan, answer.value)
        task = Task(
            id=id, question=question, ground_truth=accepted, env=self.source, tools=tuple(t.spec for t in visible),
            answer_type=answer_type, data_source="recall_procedural", split=split, depth=trace.calls,
            kind=f"{about['family']}{trace.calls}", reference=tuple(_finished(trace.items, answer)), changes=changes,
            extra={"synth": about},
        )  # fmt: skip
        return self._without(rng, draft, task) if missing else task

    def _carried_out(self, plan: Scalar) -> tuple[Trace, Bound, dict[str, Any] | None]:
        """The reference run, its answer, and what it changed, which is then undone."""
        with self._here.episode(plan) as function:
            trace = Trace(self.tools, function)
            try:
                answer = plan.run(trace)
            except CannotRunError as fault:
                raise RejectedError("solvable", "no tool reads what is needed") from fault
            return trace, answer, self._here.changes(plan)

    def _about(self, plan: Scalar, trace: Trace, visible: Sequence[Tool]) -> dict[str, Any]:
        """What the row says of the task's making."""
        levels = _levels(trace)
        operators = sorted({node.operator for node in plan.walk() if node.operator})
        return {
            "domain": self.world.skin.name, "world": self.id, "shape": self.shape, "template": plan.template,
            "structure": digest(self.shape, plan.template),
            "tool_set": digest(sorted(_told(tool) for tool in visible)), "calls": trace.calls, "depth": plan.depth,
            "family": next((name for name in _FAMILIES if name in operators), "read"), "operators": operators,
            "width": max(levels.count(level) for level in levels), "turns": max(levels) + 2,
            "max_calls": trace.calls + self.recipe.slack,
            "difficulty": round(trace.calls + 0.5 * plan.depth + 0.3 * log2(len(visible)), 3),
        }  # fmt: skip

    def _without(self, rng: random.Random, draft: Draft, task: Task) -> Task:
        """The task without a tool that it needs: the right answer is that it cannot be determined.

        Raises:
            RejectedError: there is another way.
        """
        lost = rng.choice([*draft.trace.used.values()])
        left = {operation: tool for operation, tool in draft.visible.items() if operation != lost.operation}
        if Shorter(self.world, (), left).found(draft.plan, draft.answer.value, draft.trace.calls + 3, ()) is not None:
            raise RejectedError("solvable", "the missing tool is not needed")
        distractors = {**task.extra["synth"]["distractors"], "missing": 1}
        return replace(
            task, ground_truth=(UNKNOWABLE,), answer_type=AnswerType("text"), depth=0,
            reference=({"value": UNKNOWABLE},),
            tools=tuple(tool for tool in task.tools if tool.name != lost.spec.name),
            extra={"synth": {**task.extra["synth"], "calls": 0, "shortest": 0, "distractors": distractors}},
        )  # fmt: skip

    def _visible(self, rng: random.Random, trace: Trace) -> tuple[list[Tool], dict[str, int]]:
        """The tools that a task shows, in no order, and how many of them are there to distract."""
        recipe = self.recipe
        shown = {"duplicates": 0, "foreign": 0, "denied": 0, "others": 0}
        visible = dict(trace.used)
        wanted = rng.randint(*recipe.tools)

        def add(tools: Sequence[Tool], count: int, sort: str) -> None:
            for tool in rng.sample(tools, min(count, len(tools))):
                if tool.spec.name not in visible:
                    visible[tool.spec.name] = tool
                    shown[sort] += 1

        near = [
            tool for tool in self.similar if any(name in _plain(tool.spec.name) for name in map(_plain, trace.used))
        ]
        add(near, rng.randint(*recipe.duplicates), "duplicates")
        add(self.foreign, rng.randint(*recipe.foreign), "foreign")
        if self.refusing is not None:
            add([self.refusing], 1, "denied")
        others = [tool for tool in self.tools.values() if tool.spec.name not in visible]
        add(others, max(0, wanted - len(visible)), "others")
        chosen = [*visible.values()]
        rng.shuffle(chosen)
        return chosen, shown


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _told(tool: Tool) -> str:
    return json.dumps([tool.spec.name, tool.spec.parameters], sort_keys=True)


def _finished(items: Sequence[dict[str, Any]], answer: Bound) -> list[dict[str, Any]]:
    """The program with the answer as its last value."""
    last = len(items) - 1
    return [*items] if answer.expression == {"$ref": last} else [*items, {"value": answer.expression}]


def _levels(trace: Trace) -> list[int]:
    """[items] the earliest turn in which each call can be made."""
    levels: list[int] = []
    barrier = 0
    for item in trace.items:
        level = max([barrier, *(levels[number] + 1 for number in references(item["arguments"]))])
        tool = trace.used[item["name"]]
        page = tool.roles.get("page")
        if page in item["arguments"]:
            level = max(
                level,
                max(
                    (
                        levels[n] + 1
                        for n, other in enumerate(trace.items[: len(levels)])
                        if other["name"] == item["name"] and page not in other["arguments"]
                    ),
                    default=0,
                ),
            )
        if tool.operation.verb in ("act", "move"):
            level = max(
                [
                    level,
                    *(
                        earlier + 1
                        for earlier, other in zip(levels, trace.items, strict=False)
                        if trace.used[other["name"]].operation.verb not in ("act", "move")
                    ),
                ]
            )
            barrier = level + 1
        levels.append(level)
    return levels


def _accepted(plan: Scalar, value: Any) -> tuple[tuple[str, ...], AnswerType]:
    """The accepted answer as text, and how it is compared."""
    while isinstance(plan, Acted | Moved):
        plan = plan.then
    if isinstance(plan, Listed):
        return (json.dumps(value, ensure_ascii=False),), AnswerType("set")
    if isinstance(plan, Days):
        return (str(value),), AnswerType("integer")
    if isinstance(plan, Convert):
        return (str(value),), AnswerType("number", 0.01)
    if isinstance(plan, Read) or isinstance(value, str):
        return (str(value),), plan.kind.answer
    if isinstance(value, int) and plan.kind.answer.kind == "integer":
        return (str(value),), AnswerType("integer")
    return (str(value),), AnswerType("number", 0.005)
