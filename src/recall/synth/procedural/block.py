"""A block: one world, its tools in one style, and the tasks over it."""

import json
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from math import log2
from typing import Any

from recall.programs import references
from recall.synth.procedural import unknowable
from recall.synth.procedural.certify import Draft, RejectedError, bare, certify, elsewhere, is_listing
from recall.synth.procedural.closure import cheaper_listings
from recall.synth.procedural.distractors import Distractors
from recall.synth.procedural.emulation import Emulation
from recall.synth.procedural.grow import Grower
from recall.synth.procedural.ledger import Ledger
from recall.synth.procedural.levels import levels_of
from recall.synth.procedural.plans import Scalar
from recall.synth.procedural.question import Voice
from recall.synth.procedural.recipe import Recipe
from recall.synth.procedural.scalars import Acted, Convert, Days, Listed, Moved, Read, Rescale
from recall.synth.procedural.skins.schema import Skin
from recall.synth.procedural.source import source_of, with_failure
from recall.synth.procedural.style import draw_style
from recall.synth.procedural.terrain import Terrain
from recall.synth.procedural.tools import Operation, Tool, derive
from recall.synth.procedural.trace import Bound, CannotRunError, Trace
from recall.synth.procedural.world import digest, draw_world
from recall.types import AnswerType, Task

CURRENCIES = ("florins", "ducats", "talers", "groats", "nobles", "marks", "guilders", "obols")
_FAMILIES = (
    "update", "conditional", "whichever", "both", "targets", "top", "range", "where", "convert", "days", "combine",
    "count", "total", "list", "members", "hop",
)  # fmt: skip
"""What a kind is called after: the first of these that a plan has."""


_READS = ("field", "record", "members")
"""What may fail for the moment."""
_TOOLS_USED = 3
"""About so many tools that may fail are used by a task."""


@dataclass(frozen=True, slots=True)
class Label:
    """What a task is called."""

    split: str
    seed: int
    index: int

    @property
    def id(self) -> str:
        """Unique among all splits and seeds of a recipe."""
        return f"{self.split}-{self.seed}-{self.index}"


@dataclass(frozen=True, slots=True)
class Certified:
    """A task that holds up, before the source of its tools is put together."""

    task: Task
    """The task, its `env` empty."""
    tools: tuple[Tool, ...]
    """The tools that it shows."""
    results: tuple[Any, ...]
    """What each call of its reference program returned here."""


class Block:
    """One world with its tools."""

    def __init__(self, rng: random.Random, recipe: Recipe, skin: Skin, shape: str, pool: Sequence[str]) -> None:
        """Draw it.

        Args:
            rng: decides everything.
            recipe: what it is like.
            skin: the domain, trimmed.
            shape: of the trimmed domain.
            pool: the domains that foreign tools come from.
        """
        self.recipe, self.shape = recipe, shape
        self.world = draw_world(rng, skin, recipe)
        self.id = f"{rng.getrandbits(48):012x}"
        self.others = [self.world.redrawn(f"{self.id}/{number}") for number in range(recipe.counterfactuals)]
        self.shuffled = self.world.shuffled(rng)
        self._terrain = Terrain(self.world)
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
        if not recipe.stateless and recipe.failing:
            share = recipe.failing / _TOOLS_USED
            tools = [with_failure(t) if t.operation.verb in _READS and rng.random() < share else t for t in tools]
        self.tools = {tool.operation: tool for tool in tools}
        self.distractors = Distractors(rng, self.style, recipe, self.world, tools, pool)

    def _load(self) -> None:
        rates = {"currency": {name: {"rate": rate} for name, rate in self.rates.items()}} if self.rates else {}
        self._tables = {**self.world.tables(), **rates}
        self._told: dict[str, str] = {}
        own = [*self.tools.values()]
        self._here = Emulation(self.world, own, self.style, self.rates)
        self._elsewhere = Emulation(self.shuffled, own, self.style, self.rates)

    def with_source(self, certified: Sequence[Certified]) -> list[Task]:
        """Tasks of this world with the source that they share: the tools that any of them shows, over all rows."""
        shown = {tool.spec.name for each in certified for tool in each.tools}
        every = [tool for tool in (*self.tools.values(), *self.distractors.tools) if tool.spec.name in shown]
        sources = "".join(tool.source for tool in every if tool.operation.verb == "other")
        beside = {name: rows for name, rows in self.distractors.tables.items() if f'"{name}"' in sources}
        changing = any(each.task.changes is not None for each in certified)
        source = source_of({**self._tables, **beside}, every, self.style, changing=changing)
        return [replace(each.task, env=source) for each in certified]

    def grower(self, rng: random.Random) -> Grower:
        """Grows plans over the world."""
        return Grower(rng, self._terrain, self.recipe, self.rates, self.tools)

    def check_calls(self, plan: Scalar, calls: tuple[int, int]) -> None:
        """Refuse a plan that takes another number of calls than wanted, before it is carried out.

        Raises:
            RejectedError: it does, or no tool tells what it needs.
        """
        ledger = Ledger(self.world, self.tools)
        try:
            plan.value(ledger)
        except CannotRunError as fault:
            raise RejectedError("solvable", "no tool reads what is needed") from fault
        if not calls[0] <= ledger.calls <= calls[1]:
            raise RejectedError("calls", "too few or too many calls")

    def task(self, rng: random.Random, plan: Scalar, label: Label) -> Certified:
        """The task that asks for a plan.

        Args:
            rng: decides the words and the tools shown.
            plan: over this world.
            label: what the task is called.

        Raises:
            RejectedError: it does not hold up.
        """
        draft, shown = self.draft(rng, plan)
        shortest = self.certify(draft)
        if draft.changes is None and rng.random() < self.recipe.missing:
            return self._unknowable(rng, draft, label, shown)
        changed = sum(value != draft.answer.value for _, value in draft.answers) / len(draft.answers)
        about = self._about(draft, shown) | {"shortest": shortest, "counterfactual": changed}
        accepted, answer_type = _accepted(plan, draft.answer.value)
        program = _finished(plan, draft.trace, draft.answer)
        return self._certified(label, draft, about, [*draft.visible.values()], accepted, answer_type, program)

    def draft(self, rng: random.Random, plan: Scalar) -> tuple[Draft, dict[str, int]]:
        """What is to be certified, and how many of the tools that it shows are there to distract, by sort.

        Raises:
            RejectedError: the answer stays when the facts change.
        """
        value = plan.value(self.world)
        answers = elsewhere(plan, value, self.others)
        trace, answer, changes = self._carried_out(plan)
        if answer.value != value:
            raise RuntimeError(f"{plan.template}: the tools give {answer.value!r}, the rows {value!r}")
        voice = Voice(rng, plain=self.recipe.plain, ids=self.world.keyed == "id")
        question = voice.question(plan, unknowable=self.recipe.missing > 0)
        hidden = cheaper_listings(plan, self.world, self.tools, len(trace.items))
        visible, shown = self._visible(rng, trace, hidden)
        by_operation = {tool.operation: tool for tool in visible}
        stateless = self.recipe.stateless
        return Draft(plan, question, trace, answer, changes, by_operation, answers, stateless=stateless), shown

    def certify(self, draft: Draft) -> int:
        """Check a draft, and say how many calls it takes at least; see `certify.certify`."""
        with self._elsewhere.episode() as function:
            return certify(draft, self.world, self.others, Trace(self.tools, function), self.shuffled)

    def _certified(
        self, label: Label, draft: Draft, about: dict[str, Any], tools: Sequence[Tool], accepted: tuple[str, ...],
        answer_type: AnswerType, program: Sequence[Mapping[str, Any]],
    ) -> Certified:  # fmt: skip
        about |= {"seed": label.seed, "index": label.index}
        budget = len(draft.trace.items) + about["retries"] + self.recipe.slack
        task = Task(
            id=label.id, question=draft.question, ground_truth=accepted,
            tools=tuple(tool.spec for tool in tools),
            answer_type=answer_type, data_source="recall_procedural", split=label.split, depth=about["calls"],
            max_calls=budget,
            kind=f"{about['family']}{len(draft.trace.items)}", reference=tuple(program), changes=draft.changes,
            extra={"synth": about},
        )  # fmt: skip
        return Certified(task, tuple(tools), tuple(draft.trace.results) if about["calls"] else ())

    def _carried_out(self, plan: Scalar) -> tuple[Trace, Bound, dict[str, Any] | None]:
        """The reference run, its answer, and what it changed, which is then undone."""
        with self._here.episode() as function:
            trace = Trace(self.tools, function)
            answer = plan.run(trace)
            return trace, answer, self._here.changes(plan)

    def _about(self, draft: Draft, shown: dict[str, int]) -> dict[str, Any]:
        """What the row says of the task's making."""
        plan, trace, visible = draft.plan, draft.trace, draft.visible
        after, turns = _order(trace, changing=draft.changes is not None)
        template = plan.template
        calls, retries = len(trace.items), sum(tool.failing for tool in trace.used.values())
        operators = sorted({node.operator for node in plan.nodes if node.operator})
        output = {"record" for tool in trace.used.values() if tool.operation.verb == "record"}
        output |= {"pages" for tool in trace.used.values() if tool.page_size}
        output |= {"prose" for tool in trace.used.values() if tool.match}
        levels = levels_of(
            calls=calls, operators=operators, tools=len(visible),
            rows=max(len(rows) for rows in self.world.named.values()),
            distracting=shown["duplicates"] + shown["foreign"] + shown["denied"], retries=retries,
            keyed=self.world.keyed, output=output, unknowable=False,
        )  # fmt: skip
        return {
            "domain": self.world.skin.name, "world": self.id, "shape": self.shape, "template": template,
            "structure": digest(self.shape, template),
            "tool_set": digest(sorted(map(self._tell, visible.values()))),
            "family": next((name for name in _FAMILIES if name in operators), "read"), "operators": operators,
            "calls": calls, "depth": max(after, default=0), "width": max(map(turns.count, turns)),
            "turns": max(turns) + 2, "retries": retries,
            "levels": levels, "distractors": shown,
            "difficulty": round(calls + 0.5 * max(after) + 0.3 * log2(len(visible)), 3),
        }  # fmt: skip

    def _tell(self, tool: Tool) -> str:
        """A tool's name and schema, as text."""
        told = self._told.get(tool.spec.name)
        if told is None:
            told = self._told[tool.spec.name] = f"{tool.spec.name} {tool.spec.parameters}"
        return told

    def _unknowable(self, rng: random.Random, draft: Draft, label: Label, shown: dict[str, int]) -> Certified:
        """The task without the tools that tell of something that it needs.

        Raises:
            RejectedError: the answer does not hang on any one thing.
        """
        hidden, _ = unknowable.without(rng, draft.plan, self.world, draft.visible)
        if len(hidden) == len(draft.visible):
            raise RejectedError("solvable", "no tool would be left")
        about = self._about(draft, {**shown, "missing": 1})
        about |= {"calls": 0, "depth": 0, "shortest": 0, "width": 0, "turns": 1, "retries": 0}
        about["levels"] = {**about["levels"], "unknowable": 1}
        tools = [tool for operation, tool in draft.visible.items() if operation not in hidden]
        said = unknowable.UNKNOWABLE
        return self._certified(label, draft, about, tools, (said,), AnswerType("text"), [{"value": said}])

    def _visible(
        self, rng: random.Random, trace: Trace, hidden: Collection[Operation]
    ) -> tuple[list[Tool], dict[str, int]]:
        """The tools that a task shows, in no order, and how many of them are there to distract."""
        recipe, distractors = self.recipe, self.distractors
        shown = {"duplicates": 0, "foreign": 0, "denied": 0, "others": 0}
        visible = dict(trace.used)
        wanted = rng.randint(*recipe.tools)

        def add(tools: Sequence[Tool], count: int, sort: str) -> None:
            for tool in rng.sample(tools, min(max(0, count), len(tools))):
                visible[tool.spec.name] = tool
                shown[sort] += 1

        readers = [tool for tool in trace.used.values() if tool.operation.verb in ("field", "record")]
        for tool in rng.sample(readers, min(len(readers), rng.randint(*recipe.duplicates))):
            add([similar] if (similar := distractors.like(tool)) is not None else [], 1, "duplicates")
        add(distractors.foreign, rng.randint(*recipe.foreign), "foreign")
        add(distractors.refusing, 1, "denied")
        others = [tool for op, tool in self.tools.items() if tool.spec.name not in visible and op not in hidden]
        add(others, wanted - len(visible), "others")
        if recipe.foreign[1]:
            add(
                [tool for tool in distractors.foreign if tool.spec.name not in visible],
                wanted - len(visible),
                "foreign",
            )
        chosen = [*visible.values()]
        rng.shuffle(chosen)
        return chosen, shown


def _finished(plan: Scalar, trace: Trace, answer: Bound) -> list[dict[str, Any]]:
    """The program with the answer as its last value: what the last call says, or what is worked out from the calls."""
    last = len(trace.items) - 1
    listed = is_listing(plan) and bare(trace.results[last]) == answer.value
    return [*trace.items, *([] if listed or answer.expression == {"$ref": last} else [{"value": answer.expression}])]


def _order(trace: Trace, *, changing: bool) -> tuple[list[int], list[int]]:
    """[calls] how many calls stand on the longest way to each, itself included; and the turn of each, from 0.

    A call is made as soon as what it needs is known; where something changes, not before the call before it.
    """
    after: list[int] = []
    turns: list[int] = []
    for item in trace.items:
        needs = [*references(item["arguments"])]
        after.append(1 + max((after[number] for number in needs), default=0))
        turn = max((turns[number] + 1 for number in needs), default=0)
        turns.append(max([turn, *turns]) if changing else turn)
    return after, turns


def _accepted(plan: Scalar, value: Any) -> tuple[tuple[str, ...], AnswerType]:
    """The accepted answer as text, and how it is compared."""
    while isinstance(plan, Acted | Moved):
        plan = plan.then
    if isinstance(plan, Listed):
        return (json.dumps(value, ensure_ascii=False),), AnswerType("set")
    if isinstance(plan, Read) or isinstance(value, str):
        return (str(value),), plan.kind.answer
    if isinstance(plan, Days) or (isinstance(value, int) and plan.kind.answer.kind == "integer"):
        return (str(value),), AnswerType("integer")
    places = 2 if isinstance(plan, Convert) else _places(value) if isinstance(plan, Rescale) else plan.kind.places
    return (str(value),), AnswerType("number", 0.5 * 10 ** -max(places, 1))


def _places(value: int | float) -> int:
    """The decimals that a number is written with."""
    exponent = Decimal(str(value)).normalize().as_tuple().exponent
    assert isinstance(exponent, int), "it is a number"
    return max(0, -exponent)
