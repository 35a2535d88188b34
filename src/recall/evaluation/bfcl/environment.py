"""An entry of the leaderboard as an environment: the same loop plays it as plays everything else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from recall.environment import Limits
from recall.evaluation.bfcl.checkers import Checkers, Opening
from recall.evaluation.bfcl.entries import PREREQUISITE, Entry
from recall.evaluation.bfcl.functions import as_code, as_official, tools_of
from recall.renderer import schema_line
from recall.tools.results import show
from recall.types import (
    AssistantTurn,
    CallRecord,
    CallStatus,
    MalformedCall,
    Message,
    Step,
    StopReason,
    ToolCall,
    ToolSpec,
)

MOST_STEPS = 20
"""Steps of one user turn, after which the leaderboard gives the entry up."""
APPEARED = "I have updated some more functions you can choose from. What about now?"
"""What the leaderboard says when functions appear in the middle of a dialogue."""

UNKNOWN = "unknown_function"
"""What the checkers are told for a call of no backend's method; it fails there, as the call itself would."""

Said = list[dict[str, dict[str, Any]]] | str
"""What a step said: its calls as `{name: arguments}`, or its words where it made none."""


@dataclass
class Played:
    """What a policy did with an entry."""

    turns: list[list[Said]] = field(default_factory=lambda: [[]])
    """By user turn and by step."""
    finished: bool = False
    """Whether it went to its end, by the policy's word or by the leaderboard's limit of steps."""
    given_up: bool = False
    """Whether a turn had too many steps."""

    @property
    def first(self) -> Said:
        """What the first step said; of entries of a single turn there is no other."""
        return self.turns[0][0] if self.turns and self.turns[0] else ""

    @property
    def last_words(self) -> str | None:
        """The last step that made no call, in words."""
        words = [said for turn in self.turns for said in turn if isinstance(said, str)]
        return words[-1] if words else None

    def code(self) -> list[list[list[str]]]:
        """The calls as the checkers evaluate them, by user turn and by step; steps in words are left out."""
        return [
            [
                [as_code(name, arguments) or f"{UNKNOWN}()" for call in said for name, arguments in call.items()]
                for said in turn
                if not isinstance(said, str)
            ]
            for turn in self.turns
        ]


class BfclEnvironment:
    """One episode of an entry.

    Entries of a single turn end with the policy's first turn, and nothing is executed. All others run their calls in
    the leaderboard's backends; a turn of the policy without calls ends the user's turn.
    """

    def __init__(
        self,
        entry: Entry,
        checkers: Checkers,
        episode_id: str,
        limits: Limits | None = None,
        *,
        memory: Path = Path(),
    ) -> None:
        """Prepare an episode.

        Args:
            entry: what is played.
            checkers: where its backends run.
            episode_id: unique among the living episodes of `checkers`.
            limits: of results; None takes the defaults.
            memory: the folder where what a memory holds is kept between entries.
        """
        self.entry, self.played = entry, Played()
        self.tools = tools_of(entry.functions, entry.language)
        self._checkers, self._id, self._limits = checkers, episode_id, limits or Limits()
        self._memory = memory
        self._known: dict[str, ToolSpec] = {tool.name: tool for tool in self.tools}
        self._turn, self._steps, self._step, self._open = 0, 0, 0, False
        self._methods: frozenset[str] = frozenset()

    async def start(self) -> Sequence[Message]:
        """What the user says first."""
        if not self.entry.classes:
            return self.entry.turns[0]
        opened = await self._checkers.open(self._id, self._opening())
        self._methods, self._open = opened.methods, True
        if not opened.instruction:
            return self.entry.turns[0]
        return (Message("system", opened.instruction), *self.entry.turns[0])

    async def step(self, turn: AssistantTurn) -> Step:
        """Run the calls of a turn, or go on to what the user says next."""
        calls = [call for call in turn.calls if isinstance(call, ToolCall)]
        if not self.entry.classes:
            self.played.turns[0].append(_said(turn, [as_official(call) for call in calls]))
            self.played.finished = True
            return Step(records=tuple(map(_unplayed, turn.calls)), stop=StopReason.DONE)
        self.played.turns[-1].append(_said(turn, [self._written(call) for call in calls]))
        self._step += 1
        if not turn.calls:
            return await self._next()
        self._steps += 1
        records = tuple([await self._answer(call) for call in turn.calls])
        if self._steps > MOST_STEPS:
            self.played.given_up = self.played.finished = True
            return Step(records=records, stop=StopReason.MAX_TURNS)
        return Step(tuple(map(_result, records, turn.calls)), records)

    async def close(self) -> None:
        """Throw the backends away."""
        if self._open:
            self._open = False
            await self._checkers.close(self._id)

    def _opening(self) -> Opening:
        entry = self.entry
        config: Mapping[str, Any] = entry.source.get("initial_config", {})
        if entry.scenario:
            kept = {
                "model_result_dir": str(self._memory.absolute()),
                "scenario": entry.scenario,
                "test_id": entry.id,
                "test_category": entry.category.removesuffix(PREREQUISITE),
            }
            config = dict.fromkeys(entry.classes, kept)
        return Opening(
            entry.classes, config, "long_context" in entry.category, entry.scenario, conversation=entry.conversation
        )

    async def _next(self) -> Step:
        """What the user says next, with the functions that appear."""
        self._turn += 1
        self._steps = 0
        if self._turn >= len(self.entry.turns):
            if self.entry.conversation:
                await self._checkers.flush(self._id)
            self.played.finished = True
            return Step(stop=StopReason.DONE)
        self.played.turns.append([])
        said = self.entry.turns[self._turn]
        if self._turn in self.entry.appearing:
            fresh = tools_of(self.entry.appearing[self._turn])
            self._known |= {tool.name: tool for tool in fresh}
            self.tools = tuple(self._known.values())
            said = (Message("user", "\n".join([*(schema_line(tool) for tool in fresh), APPEARED])),)
        return Step(said)

    def _written(self, call: ToolCall) -> dict[str, dict[str, Any]]:
        """A call for the checkers, which evaluate it: what is no method of a backend becomes a call that fails."""
        if call.name not in self._methods or as_code(call.name, call.arguments) is None:
            return {UNKNOWN: {}}
        return as_official(call)

    async def _answer(self, call: ToolCall | MalformedCall) -> CallRecord:
        if isinstance(call, MalformedCall):
            return CallRecord(self._step, "", {}, f"error: malformed tool call: {call.problem}", CallStatus.MALFORMED)
        if call.name not in self._methods:
            text = f"error: unknown tool {call.name!r}; the tools are: {', '.join(self._known)}"
            return CallRecord(self._step, call.name, call.arguments, text, CallStatus.UNKNOWN_TOOL)
        began = perf_counter()
        result = await self._checkers.call(self._id, call.name, call.arguments)
        status = CallStatus.EXCEPTION if result.startswith("Error during execution:") else CallStatus.OK
        text = show(result, self._limits.max_result_chars)
        return CallRecord(self._step, call.name, call.arguments, text, status, perf_counter() - began)


def _said(turn: AssistantTurn, calls: list[dict[str, dict[str, Any]]]) -> Said:
    return calls or turn.content or turn.text


def _unplayed(call: ToolCall | MalformedCall) -> CallRecord:
    if isinstance(call, MalformedCall):
        return CallRecord(0, "", {}, "", CallStatus.MALFORMED)
    return CallRecord(0, call.name, call.arguments, "", CallStatus.OK)


def _result(record: CallRecord, call: ToolCall | MalformedCall) -> Message:
    return Message("tool", record.result, name=record.name, call_id=getattr(call, "id", ""))
