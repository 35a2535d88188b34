"""Plays the reference programs of tasks in the real sandbox, twice each, in two processes that share nothing.

A program is played as a policy would play it: each call goes through the environment of an episode, with its checks of
arguments and its limits, and what the program reads of a result is read from the text that a policy is shown.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from recall import programs
from recall.environment import Limits, ToolEnvironment
from recall.errors import ConfigError
from recall.rewards import solved
from recall.sandbox.base import Sandbox
from recall.sandbox.local import LocalSandbox
from recall.synth.report.guesses import Copied, bare
from recall.synth.report.provenance import Known, source_of
from recall.synth.report.shapes import Shape, literals, shape_of
from recall.tools.results import as_text
from recall.types import AssistantTurn, CallRecord, CallStatus, StopReason, Task, ToolCall, Trajectory

LIMITS = Limits(max_turns=256, max_calls=256, call_timeout_s=30.0)
"""Wide enough for a busy machine; what a policy is shown of a result is cut as in any episode."""
AT_ONCE = 6
"""Tasks that are played at the same time."""


@dataclass(frozen=True, slots=True)
class Played:
    """A reference program, played once."""

    records: tuple[CallRecord, ...]
    """Its calls, in order, those that were made again included."""
    texts: tuple[str, ...]
    """[items] what each item came to, as text; shorter where it could not be played to its end."""
    solved: bool
    """Whether it solved the task."""
    problem: str
    """Why not, in words; empty where it did."""
    changes: Mapping[str, Any] | None
    """What it left behind, where the task is about that."""

    @property
    def bytes(self) -> tuple[Any, ...]:
        """All that has to come out the same again."""
        shown = tuple((record.name, as_text(record.arguments), record.result, record.status) for record in self.records)
        return shown, self.texts, as_text(self.changes)


@dataclass(slots=True)
class Replay:
    """What playing a task's reference program showed."""

    task: Task
    shape: Shape
    played: Played
    same: bool
    """Whether it came out byte for byte the same in another process."""
    nowhere: list[str] = field(default_factory=list)
    """Arguments that neither the question nor an earlier observation gives."""
    from_schema: int = 0
    """Arguments that the schema of their tool offers."""
    arguments: int = 0
    """Arguments that the program states itself."""

    def single_call(self) -> Copied | None:
        """The result of each call that can be made first, as an answer. None where one call is the whole program."""
        shown = self.played.texts
        guesses = {f"call {place}": bare(shown[item]) for place, item in enumerate(self.shape.first)}
        return Copied(self.task, guesses, {}) if self.shape.calls > 1 else None

    def last_observation(self) -> Copied | None:
        """The last result before the answer is known, as an answer: that of the last call that the answer needs where
        something is still to be worked out, else that of the call before it. None where one call gives the answer.
        """
        needed = self.shape.needed
        if len(needed) < 2:
            return None
        last = needed[-1] if self.shape.ends_in_the_head else needed[-2]
        return Copied(self.task, {"copy": bare(self.played.texts[last])}, self.played.changes or {})


async def replay(tasks: Sequence[Task], *, sandboxes: tuple[Sandbox, Sandbox]) -> AsyncIterator[Replay]:
    """Play each task in both sandboxes; replays come in the order of the tasks.

    Raises:
        SandboxError: a sandbox failed.
    """
    for start in range(0, len(tasks), AT_ONCE):
        for done in await asyncio.gather(*(_replay(task, sandboxes) for task in tasks[start : start + AT_ONCE])):
            yield done


@asynccontextmanager
async def two_sandboxes() -> AsyncIterator[tuple[Sandbox, Sandbox]]:
    """Two sandboxes of this machine; each forks its sessions from a process of its own."""
    one, other = LocalSandbox(), LocalSandbox()
    try:
        yield one, other
    finally:
        await one.close()
        await other.close()


async def _replay(task: Task, sandboxes: tuple[Sandbox, Sandbox]) -> Replay:
    one, other = await asyncio.gather(*(play(task, sandbox) for sandbox in sandboxes))
    found = Replay(task, shape_of(task.reference), one, same=one.bytes == other.bytes)
    _trace(found)
    return found


async def play(task: Task, sandbox: Sandbox) -> Played:
    """Play the reference program of a task.

    Raises:
        SandboxError: the sandbox failed, not the program.
    """
    try:
        environment = ToolEnvironment(task, sandbox, LIMITS)
    except ConfigError as fault:
        return Played((), (), solved=False, problem=str(fault), changes=None)
    records: list[CallRecord] = []
    texts: list[str] = []
    values: list[Any] = []
    problem, changes, works = "", None, False
    try:
        await environment.start()
        for number, item in enumerate(task.reference):
            if "name" not in item:
                values.append(programs.resolve(item["value"], values))
                texts.append(as_text(values[-1]))
                continue
            record = await _call(environment, item, _arguments(task, item, values, texts), records)
            values.append(_read(record.result))
            texts.append(record.result)
            if record.status is not CallStatus.OK:
                problem = f"item {number}, {item['name']}: {record.status}: {record.result[:200]}"
                break
        else:
            step = await environment.step(AssistantTurn(""))
            changes = step.changes
            answer = bare(texts[-1])
            ended = Trajectory(task.id, (), StopReason.DONE, answer, tuple(records), changes=changes)
            works = solved(task, ended)
            problem = "" if works else _unsolved(task, answer, changes)
    except programs.ProgramError as fault:
        problem = str(fault)
    finally:
        await environment.close()
    return Played(tuple(records), tuple(texts), works, problem, changes)


async def _call(
    environment: ToolEnvironment, item: programs.Item, arguments: Mapping[str, Any], records: list[CallRecord]
) -> CallRecord:
    """Make a call, again where the program says so, and add what was recorded."""
    for _ in range(programs.ATTEMPTS):
        step = await environment.step(AssistantTurn("", calls=(ToolCall(item["name"], arguments),)))
        if not step.records:
            raise programs.ProgramError(f"makes more than {LIMITS.max_calls} calls")
        records.append(step.records[0])
        if records[-1].status is CallStatus.OK or not item.get("retry"):
            break
    return records[-1]


def _arguments(task: Task, item: programs.Item, values: Sequence[Any], texts: Sequence[str]) -> dict[str, Any]:
    schemas = _schemas(task, item)
    return {
        name: _argument(expression, schemas.get(name), values, texts) for name, expression in item["arguments"].items()
    }


def _schemas(task: Task, item: programs.Item) -> Mapping[str, Any]:
    """The schemas of the parameters of the tool that an item calls."""
    found = next((tool.parameters for tool in task.tools if tool.name == item["name"]), None)
    return found.get("properties", {}) if found is not None else {}


def _argument(expression: Any, schema: Any, values: Sequence[Any], texts: Sequence[str]) -> Any:
    """The value of an argument; a whole result is passed on as the text that it is where the schema wants text."""
    wants_text = isinstance(schema, Mapping) and schema.get("type") == "string"
    if wants_text and isinstance(expression, Mapping) and set(expression) == {"$ref"}:
        number = expression["$ref"]
        if isinstance(number, int) and 0 <= number < len(texts) and not isinstance(values[number], Mapping | list):
            return texts[number]
    return programs.resolve(expression, values)


def _read(text: str) -> Any:
    """The value of a result as it is shown: JSON where it reads as that, else the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _unsolved(task: Task, answer: str, changes: Mapping[str, Any] | None) -> str:
    if task.changes is not None:
        return f"answers {answer[:80]!r} and leaves the changes {as_text(changes)[:200]}"
    return f"answers {answer[:80]!r}, accepted: {' | '.join(task.ground_truth)[:120]!r}"


def _trace(found: Replay) -> None:
    """Ask of every argument that the program states where it comes from."""
    task, known = found.task, Known(found.task.question)
    earlier: dict[tuple[str, str], Any] = {}
    for item, text in zip(task.reference, found.played.texts, strict=False):
        if "name" not in item:
            continue
        schemas = _schemas(task, item)
        for name, expression in item["arguments"].items():
            for value in literals(expression):
                found.arguments += 1
                source = source_of(value, known, schemas.get(name))
                if source == "nowhere" and _counts_on(value, earlier.get((item["name"], name))):
                    source = "given"
                found.from_schema += source == "schema"
                if source == "nowhere":
                    found.nowhere.append(f"{item['name']}({name}={as_text(value)})")
            earlier[item["name"], name] = expression
        known.read(text)


def _counts_on(value: Any, before: Any) -> bool:
    """Whether a number is the one after that of the call before, as for the next page; the first page may go unsaid."""
    return type(value) is int and value == (before if type(before) is int else 1) + 1
