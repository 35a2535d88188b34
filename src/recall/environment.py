"""One episode of a task: its question, its live tools and their state, and what the policy is told of each call.

Whatever the policy writes is answered in words that it can act on; only a failure of the sandbox itself raises. Tokens
are the business of the renderer, and turns, token budgets and the clock of the episode that of the rollout.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from recall.errors import ConfigError
from recall.sandbox.base import DEFAULT_OPTIONS, CallResult, Sandbox, Session, SessionOptions
from recall.tools.arguments import Arguments
from recall.tools.base import TRIED_AGAIN, Marks, Toolbox, ToolSource
from recall.tools.functions import FunctionTools
from recall.tools.results import as_text, show
from recall.types import (
    AssistantTurn,
    CallRecord,
    CallStatus,
    MalformedCall,
    Message,
    Step,
    StopReason,
    Task,
    ToolCall,
    ToolSpec,
)

CHANGES = "_changes"
"""The function of a task's source that tells what the episode changed. It is no tool: a policy cannot call it."""
ATTEMPTS = 3
"""How often an idempotent tool is called before its time-out or crash is the answer."""
FIRST_PAUSE_S = 0.1
"""Seconds before the second attempt; the third waits twice as long."""

Observe = Callable[[int, CallRecord], None]
"""Told of a call's place in its turn and of its record, in the event loop, as soon as the call ends."""


class Limits(BaseModel):
    """How much of everything an episode may use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_turns: int = Field(default=8, ge=1)
    """Turns of the policy."""
    max_tokens: int = Field(default=4096, ge=1)
    """Tokens of the whole episode: prompt, sampled turns and replies."""
    max_turn_tokens: int = Field(default=1024, ge=1)
    """Tokens of one sampled turn, the stop token included."""
    max_calls: int = Field(default=32, ge=0)
    """Tool calls of the whole episode, malformed ones included. A turn that would exceed it ends the episode."""
    call_timeout_s: float = Field(default=5.0, gt=0)
    """Seconds for one call, not counting its wait for the calls before it."""
    episode_timeout_s: float | None = Field(default=None, gt=0)
    """Seconds of wall time for the episode, waiting for the engine included; None sets no limit."""
    max_result_chars: int = Field(default=8192, ge=1)
    """Characters of one result that the policy is shown; the middle of a longer one is cut out."""


class Environment(Protocol):
    """One episode: made for it, started once, closed once, and never used again."""

    @property
    def tools(self) -> Sequence[ToolSpec]:
        """What the policy is told of the tools."""

    async def start(self) -> Sequence[Message]:
        """The messages before the first turn: the user's, after a system message if there is one."""

    async def step(self, turn: AssistantTurn) -> Step:
        """Run the calls of a turn and answer each, in order; a turn without calls ends the episode.

        Raises:
            SandboxError: the sandbox failed, not a tool.
        """

    async def close(self) -> None:
        """Throw the state of the episode away. Safe to call twice, and without a start."""


class ToolEnvironment:
    """A task whose tools are Python source that runs in a sandbox session of the episode's own."""

    def __init__(
        self,
        task: Task,
        sandbox: Sandbox,
        limits: Limits | None = None,
        arguments: Arguments | None = None,
        options: SessionOptions = DEFAULT_OPTIONS,
        observe: Observe | None = None,
    ) -> None:
        """Prepare an episode of `task`.

        Args:
            task: its `env` defines the functions that `tools` names.
            sandbox: where the source runs.
            limits: of calls, results and time; None takes the defaults. The task may allow fewer calls.
            arguments: of `task.tools`, where episodes of one task share it, as those of `ToolEnvironments` do.
            options: of the session.
            observe: told of each call as it ends.

        Raises:
            ConfigError: the schema of a tool is wrong.
        """
        limits = limits or Limits()
        if task.max_calls is not None and task.max_calls < limits.max_calls:
            limits = limits.model_copy(update={"max_calls": task.max_calls})
        self.task = task
        self.tools = task.tools
        self._sandbox, self._options = sandbox, options
        self._timeout_s = limits.call_timeout_s
        names = tuple(tool.name for tool in task.tools)
        self._answers = _Answers(arguments or Arguments(task.tools), names, limits, observe=observe)
        self._session: Session | None = None

    async def start(self) -> Sequence[Message]:
        """The question.

        The session is opened here, so that its process gets ready while the policy samples the first turn.

        Raises:
            SandboxError: no session could be had.
        """
        if self.tools or self.task.changes is not None:
            self._session = await self._sandbox.open(self.task.env, self._options)
        return (Message("user", self.task.question),)

    async def step(self, turn: AssistantTurn) -> Step:
        """Run the calls of the turn in the session, which takes them one after another.

        When the turn ends the episode of a task about state, the step says what the episode changed.
        """
        step = await self._answers.step(turn, self._call)
        if step.stop is StopReason.DONE and self.task.changes is not None:
            return replace(step, changes=await self._changes())
        return step

    async def close(self) -> None:
        """End the session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _call(self, call: ToolCall) -> CallResult:
        if self._session is None:
            raise RuntimeError("a call before start, or after close")
        return await self._session.call(call.name, call.arguments, timeout_s=self._timeout_s)

    async def _changes(self) -> Mapping[str, Any] | None:
        """What the session says was changed; None where a tool ended its process or broke its state."""
        found = await self._call(ToolCall(CHANGES, {}))
        return found.result if isinstance(found.result, Mapping) else None


class ToolEnvironments:
    """Makes the environment of each episode; episodes of one task share the checked schemas of its tools."""

    def __init__(
        self, sandbox: Sandbox, limits: Limits | None = None, options: SessionOptions = DEFAULT_OPTIONS
    ) -> None:
        self.sandbox, self.options = sandbox, options
        self.limits = limits or Limits()
        self._known: OrderedDict[int, tuple[Task, Arguments]] = OrderedDict()

    def __call__(self, task: Task) -> ToolEnvironment:
        """A fresh environment for one episode of `task`.

        Raises:
            ConfigError: the schema of a tool is wrong.
        """
        known = self._known.get(id(task))
        if known is None or known[0] is not task:
            known = self._known[id(task)] = (task, Arguments(task.tools))  # holding the task keeps its id taken
            if len(self._known) > 256:
                self._known.popitem(last=False)
        return ToolEnvironment(task, self.sandbox, self.limits, known[1], self.options)


class SourceEnvironment:
    """Messages whose tools come from any sources: functions, objects, MCP servers, a retriever, and others.

    Every source is opened for the episode and closed with it. Calls of one turn run at the same time, as far as their
    source allows; each has its own time-out, and an idempotent tool that timed out or crashed is called again.
    """

    def __init__(
        self,
        messages: str | Sequence[Message],
        sources: Sequence[ToolSource],
        limits: Limits | None = None,
        *,
        observe: Observe | None = None,
    ) -> None:
        """Prepare an episode.

        Args:
            messages: what comes before the first turn; a text is the user's.
            sources: of the tools; they stay the caller's to close.
            limits: of calls, results and time; None takes the defaults.
            observe: told of each call as it ends.
        """
        self.messages = (Message("user", messages),) if isinstance(messages, str) else tuple(messages)
        self.tools: tuple[ToolSpec, ...] = ()
        self._sources, self._limits, self._observe = tuple(sources), limits or Limits(), observe
        self._answers = _Answers(Arguments(()), (), self._limits)
        self._places: dict[str, tuple[Session, Marks]] = {}
        self._open: list[Session] = []

    async def start(self) -> Sequence[Message]:
        """Open the sources and return the messages.

        Raises:
            ConfigError: two tools have one name, or a schema is wrong.
            RolloutError: a source cannot be reached.
        """
        outcomes = await asyncio.gather(*map(self._open_one, self._sources), return_exceptions=True)
        boxes = []
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome  # only now, when every source that did open is known and can be closed
            boxes.append(outcome)
        for box in boxes:
            for tool in box.tools:
                if tool.spec.name in self._places:
                    raise ConfigError(f"two tools are named {tool.spec.name!r}")
                self._places[tool.spec.name] = box.session, tool.marks
        self.tools = tuple(tool.spec for box in boxes for tool in box.tools)
        shown = {name: marks.max_result_chars for name, (_, marks) in self._places.items() if marks.max_result_chars}
        self._answers = _Answers(Arguments(self.tools), tuple(self._places), self._limits, shown, self._observe)
        return self.messages

    async def step(self, turn: AssistantTurn) -> Step:
        """Run the calls of the turn."""
        return await self._answers.step(turn, self._call)

    async def close(self) -> None:
        """Close what was opened."""
        sessions, self._open = self._open, []
        await asyncio.gather(*(session.close() for session in sessions))

    async def _open_one(self, source: ToolSource) -> Toolbox:
        box = await source.open()
        self._open.append(box.session)
        return box

    async def _call(self, call: ToolCall) -> CallResult:
        session, marks = self._places[call.name]
        timeout_s = marks.timeout_s or self._limits.call_timeout_s
        pause_s = FIRST_PAUSE_S
        for _ in range(ATTEMPTS - 1 if marks.idempotent else 0):
            result = await session.call(call.name, call.arguments, timeout_s=timeout_s)
            if result.status not in TRIED_AGAIN:
                return result
            await asyncio.sleep(pause_s)
            pause_s *= 2
        return await session.call(call.name, call.arguments, timeout_s=timeout_s)


class FunctionEnvironment(SourceEnvironment):
    """A question whose tools are the caller's own Python functions, trusted, in this process; see `FunctionTools`."""

    def __init__(
        self, question: str, functions: Sequence[Callable[..., Any]], limits: Limits | None = None, *, system: str = ""
    ) -> None:
        """Prepare an episode.

        Args:
            question: the user's turn.
            functions: the tools; their signatures and docstrings become the schemas.
            limits: of calls, results and time; None takes the defaults.
            system: a system message, if any.

        Raises:
            ConfigError: a signature cannot be told to a model, or two functions have one name.
        """
        user = Message("user", question)
        messages = (Message("system", system), user) if system else (user,)
        super().__init__(messages, [FunctionTools(functions)], limits)


@dataclass
class _Answers:
    """Answers the turns of one episode; where a call really runs is given to `step`."""

    arguments: Arguments
    names: tuple[str, ...]
    limits: Limits
    shown_chars: Mapping[str, int] = field(default_factory=dict)
    """Of tools that say it, the characters of a result that the policy is shown."""
    observe: Observe | None = None
    turn: int = field(default=0, init=False)
    calls: int = field(default=0, init=False)

    async def step(self, turn: AssistantTurn, run: Callable[[ToolCall], Awaitable[CallResult]]) -> Step:
        if not turn.calls:
            return Step(stop=StopReason.DONE)
        self.calls += len(turn.calls)
        if self.calls > self.limits.max_calls:
            return Step(stop=StopReason.MAX_CALLS)
        records = await _all([self._observed(index, call, run) for index, call in enumerate(turn.calls)])
        self.turn += 1
        messages = [
            Message("tool", record.result, name=record.name, call_id=call.id if isinstance(call, ToolCall) else "")
            for call, record in zip(turn.calls, records, strict=True)
        ]
        return Step(tuple(messages), records)

    async def _observed(
        self, index: int, call: ToolCall | MalformedCall, run: Callable[[ToolCall], Awaitable[CallResult]]
    ) -> CallRecord:
        record = await self._answer(call, run)
        if self.observe is not None:
            self.observe(index, record)
        return record

    async def _answer(
        self, call: ToolCall | MalformedCall, run: Callable[[ToolCall], Awaitable[CallResult]]
    ) -> CallRecord:
        if isinstance(call, MalformedCall):
            return self._record("", {}, CallStatus.MALFORMED, f"error: malformed tool call: {call.problem}")
        if call.name not in self.names:
            known = f"the tools are: {', '.join(self.names)}" if self.names else "there are no tools"
            text = f"error: unknown tool {call.name!r}; {known}"
            return self._record(call.name, call.arguments, CallStatus.UNKNOWN_TOOL, text)
        problem = self.arguments.problem(call.name, call.arguments)
        if problem is not None:
            return self._record(call.name, call.arguments, CallStatus.BAD_ARGUMENTS, f"error: {problem}")
        started = perf_counter()
        outcome = await run(call)
        text = _told(outcome)
        return self._record(call.name, call.arguments, outcome.status, text, perf_counter() - started)

    def _record(
        self, name: str, arguments: Mapping[str, Any], status: CallStatus, text: str, duration_s: float = 0.0
    ) -> CallRecord:
        shown = show(text, self.shown_chars.get(name, self.limits.max_result_chars))
        return CallRecord(self.turn, name, arguments, shown, status, duration_s)


def _told(outcome: CallResult) -> str:
    """What the model reads of a call that ran: the value, or what went wrong, and then what the tool printed."""
    if outcome.status is CallStatus.OK:
        text = as_text(outcome.result)
    else:
        text = f"error: {outcome.error or outcome.status.value}"
    return f"{text}\noutput:\n{outcome.output}" if outcome.output else text


async def _all(answers: Sequence[Awaitable[CallRecord]]) -> tuple[CallRecord, ...]:
    """The records in order. When one call raises, the others are waited for before that is passed on."""
    if len(answers) == 1:
        return (await answers[0],)  # the common case, without a task of its own
    outcomes = await asyncio.gather(*answers, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return tuple(outcome for outcome in outcomes if isinstance(outcome, CallRecord))
