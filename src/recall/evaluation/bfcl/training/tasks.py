"""Makes tasks over the backends: planned, and played once for the state that they must leave behind."""

import asyncio
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from recall.errors import ConfigError
from recall.evaluation.bfcl.checkers import Checkers, Opening
from recall.evaluation.bfcl.entries import documents_of
from recall.evaluation.bfcl.functions import tools_of
from recall.evaluation.bfcl.training.backends import source_of
from recall.evaluation.bfcl.training.dialogue import LATER
from recall.evaluation.bfcl.training.held import held_out
from recall.evaluation.bfcl.training.places import HELD_OUT, TRAINED, WORLDS
from recall.evaluation.bfcl.training.plan import Draw, Plan
from recall.synth.made import Made
from recall.types import Task, ToolCall, ToolSpec

SPLITS = ("train", "validation", "new_backends")
"""In the last one, the backends are those that the others do not have."""
CALLS = "calls_by_turn"
"""Where a task keeps the calls that solve it, by turn of the user, in `extra`."""
SOURCE = "bfcl_backends"
"""The data source of every task."""
_ATTEMPTS = 50
"""So many attempts at one task, and there is something wrong with the templates."""


class BackendTasks:
    """Makes tasks by split and number; the same ones for the same settings and version of bfcl-eval."""

    def __init__(
        self,
        interpreter: Path,
        data: Path,
        *,
        seed: int,
        turns: tuple[int, int],
        mixed: float,
        worlds: Sequence[str],
        tools: int,
        brief: bool,
    ) -> None:
        """Prepare.

        Args:
            interpreter: of the checkers' environment.
            data: the leaderboard's, whose words and calls are held out.
            seed: of everything.
            turns: the fewest and the most turns of the user.
            mixed: the share of tasks over two backends.
            worlds: those of the splits `train` and `validation`.
            tools: how many functions a task shows at least, of those of its backends; 0 shows all.
            brief: describe functions in one sentence.

        Raises:
            ConfigError: a world is unknown or held out, or the data cannot be read.
        """
        if wrong := [name for name in worlds if name not in TRAINED]:
            why = "held out for the split new_backends" if wrong[0] in HELD_OUT else "unknown"
            raise ConfigError(f"--worlds: {wrong[0]!r} is {why}; accepted: {', '.join(TRAINED)}")
        self._interpreter, self._seed, self._turns, self._mixed = interpreter, seed, turns, mixed
        self._worlds, self._tools, self._brief = tuple(worlds), tools, brief
        self._data, self._held = data, held_out(data)
        self._documents: dict[str, tuple[ToolSpec, ...]] = {}

    def stream(self, split: str, start: int) -> Iterator[Made]:
        """The attempts at the tasks of a split from a number on; see `recall.synth.made.Stream`."""
        with asyncio.Runner() as runner:
            checkers = Checkers(self._interpreter)
            try:
                for number in itertools.count(start):
                    yield from runner.run(self._made(checkers, split, number))
            finally:
                runner.run(checkers.stop())

    async def _made(self, checkers: Checkers, split: str, number: int) -> list[Made]:
        attempts: list[Made] = []
        for attempt in range(_ATTEMPTS):
            plan = self._plan(random.Random(f"bfcl/{self._seed}/{split}/{number}/{attempt}"), split)
            gate, reason = "held_out", self._held.why_not(plan)
            changes = None
            if not reason:
                gate = "plays"
                changes, reason = await _played(checkers, plan)
            if changes is not None and not reason:
                return [*attempts, Made(number, self._task(plan, split, number, changes))]
            attempts.append(Made(number, None, gate, reason))
        raise ConfigError(f"task {number} of {split}: {_ATTEMPTS} attempts failed, the last one at {gate}: {reason}")

    def _plan(self, rng: random.Random, split: str) -> Plan:
        names = HELD_OUT if split == "new_backends" else self._worlds
        several = len(names) > 1 and rng.random() < self._mixed
        chosen = rng.sample(list(names), 2 if several else 1)
        turns = rng.randint(*self._turns)
        return WORLDS.plan(Draw(rng, self._held.words), chosen[:turns], turns)

    def _task(self, plan: Plan, split: str, number: int, changes: dict[str, object]) -> Task:
        flat = [call for turn in plan.turns for call in turn.calls]
        tools = self._shown(plan, {call.name for call in flat}, random.Random(f"tools/{self._seed}/{split}/{number}"))
        first, *later = (turn.said for turn in plan.turns)
        return Task(
            id=f"bfcl-{split}-{self._seed}-{number:06}",
            question=first,
            ground_truth=(),
            env=source_of([tool.name for tool in tools], plan.config),
            tools=tools,
            data_source=SOURCE,
            split=split,
            depth=len(flat),
            kind=plan.kind,
            changes=changes,
            reference=tuple(map(_written, flat)),
            extra={LATER: later, CALLS: [list(map(_written, turn.calls)) for turn in plan.turns]},
        )

    def _shown(self, plan: Plan, needed: set[str], rng: random.Random) -> tuple[ToolSpec, ...]:
        """The functions that a task shows: those it needs, and others of its backends."""
        known = [tool for backend in plan.config for tool in self._of(backend)]
        others = [tool.name for tool in known if tool.name not in needed]
        count = len(others) if self._tools == 0 else max(0, self._tools - len(needed))
        shown = needed | set(rng.sample(others, min(count, len(others))))
        return tuple(tool for tool in known if tool.name in shown)

    def _of(self, backend: str) -> tuple[ToolSpec, ...]:
        if backend not in self._documents:
            tools = tools_of(documents_of(self._data, backend))
            self._documents[backend] = tuple(map(_brief, tools)) if self._brief else tools
        return self._documents[backend]


async def _played(checkers: Checkers, plan: Plan) -> tuple[dict[str, object] | None, str]:
    """What the plan's calls change, or why they will not do."""
    opening = Opening(tuple(plan.config), plan.config, watch=True)
    await checkers.open("made", opening)
    try:
        for turn in plan.turns:
            for call in turn.calls:
                text = await checkers.call("made", call.name, call.arguments)
                if _is_error(text):
                    return None, f"{call.name} failed"
        changes: dict[str, object] = await checkers.changes("made")
    finally:
        await checkers.close("made")
    return (changes, "") if changes else (None, "nothing changes")


def _is_error(text: str) -> bool:
    try:
        value = json.loads(text)
    except ValueError:
        return text.startswith("Error during execution:")
    return isinstance(value, dict) and "error" in value


def _written(call: ToolCall) -> dict[str, object]:
    return {"name": call.name, "arguments": dict(call.arguments)}


def _brief(tool: ToolSpec) -> ToolSpec:
    """The function in one sentence, its parameters by name and type."""
    about = tool.description.split("Tool description: ")[-1].split(". ")[0]
    properties = {
        name: {key: each for key, each in schema.items() if key in ("type", "items", "enum", "default")}
        for name, schema in tool.parameters["properties"].items()
    }
    return ToolSpec(tool.name, about, {**tool.parameters, "properties": properties})
