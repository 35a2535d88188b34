"""An entry of the leaderboard as an environment: the same loop plays it as plays everything else."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

from recall.environment import Limits
from recall.evaluation.bfcl.checkers import Checkers
from recall.evaluation.bfcl.entries import Entry
from recall.evaluation.bfcl.functions import as_code, tools_of
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

UNKNOWN = "unknown_function()"
"""What the checkers are given for a call of no backend's method; it fails there, as the call itself would."""


@dataclass
class Played:
    """What a policy did with an entry, as the checkers want it."""

    turns: list[list[list[str]]] = field(default_factory=lambda: [[]])
    """By user turn and by step, the calls as code."""
    calls: list[ToolCall] = field(default_factory=list)
    """Of an entry of a single turn: the calls of its first step."""
    given_up: bool = False
    """Whether a turn had too many steps."""


class BfclEnvironment:
    """One episode of an entry.

    Entries of a single turn end with the policy's first turn, and nothing is executed. Entries of several turns run
    their calls in the leaderboard's backends; a turn of the policy without calls ends the user's turn.
    """

    def __init__(self, entry: Entry, checkers: Checkers, episode_id: str, limits: Limits | None = None) -> None:
        """Prepare an episode.

        Args:
            entry: what is played.
            checkers: where its backends run.
            episode_id: unique among the living episodes of `checkers`.
            limits: of results; None takes the defaults.
        """
        self.entry, self.tools, self.played = entry, tools_of(entry.functions), Played()
        self._checkers, self._id, self._limits = checkers, episode_id, limits or Limits()
        self._known: dict[str, ToolSpec] = {tool.name: tool for tool in self.tools}
        self._turn, self._steps, self._step, self._open = 0, 0, 0, False
        self._methods: frozenset[str] = frozenset()

    async def start(self) -> Sequence[Message]:
        """What the user says first."""
        if self.entry.sort == "multi_turn":
            self._methods = frozenset(await self._checkers.open(self._id, self.entry))
            self._open = True
        return self.entry.turns[0]

    async def step(self, turn: AssistantTurn) -> Step:
        """Run the calls of a turn, or go on to what the user says next."""
        if self.entry.sort != "multi_turn":
            return self._single(turn)
        self._step += 1
        if not turn.calls:
            return self._next()
        self._steps += 1
        self.played.turns[-1].append([self._written(call) for call in turn.calls if isinstance(call, ToolCall)])
        records = [await self._answer(call) for call in turn.calls]
        if self._steps > MOST_STEPS:
            self.played.given_up = True
            return Step(records=tuple(records), stop=StopReason.MAX_TURNS)
        return Step(tuple(Message("tool", record.result) for record in records), tuple(records))

    async def close(self) -> None:
        """Throw the backends away."""
        if self._open:
            self._open = False
            await self._checkers.close(self._id)

    def _single(self, turn: AssistantTurn) -> Step:
        self.played.calls = [call for call in turn.calls if isinstance(call, ToolCall)]
        records = []
        for call in turn.calls:
            status = CallStatus.MALFORMED if isinstance(call, MalformedCall) else CallStatus.OK
            name, arguments = ("", {}) if isinstance(call, MalformedCall) else (call.name, call.arguments)
            records.append(CallRecord(0, name, arguments, "", status))
        return Step(records=tuple(records), stop=StopReason.DONE)

    def _next(self) -> Step:
        """What the user says next, with the functions that appear."""
        self._turn += 1
        self._steps = 0
        if self._turn >= len(self.entry.turns):
            return Step(stop=StopReason.DONE)
        self.played.turns.append([])
        said = self.entry.turns[self._turn]
        if self._turn in self.entry.appearing:
            fresh = tools_of(self.entry.appearing[self._turn])
            self._known |= {tool.name: tool for tool in fresh}
            self.tools = tuple(self._known.values())
            said = (Message("user", "\n".join([*(schema_line(tool) for tool in fresh), APPEARED])),)
        return Step(said)

    def _written(self, call: ToolCall) -> str:
        """A call for the checkers, which evaluate it: what is no method of a backend becomes a call that fails."""
        code = as_code(call) if call.name in self._methods else None
        return UNKNOWN if code is None else code

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
