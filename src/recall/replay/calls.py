"""Runs the recorded calls of trajectories again, each episode in a fresh environment, and says which results differ.

A call that could not be parsed ran nothing and is not run now. Calls of one turn are made together, as they were.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby

from recall.environment import Environment
from recall.errors import RolloutError
from recall.replay.recorded import Recorded
from recall.types import AssistantTurn, CallRecord, CallStatus, Task, ToolCall


@dataclass(frozen=True, slots=True)
class Difference:
    """One call that ended otherwise."""

    row: int
    task: str
    step: int
    turn: int
    name: str
    before: CallRecord
    after: CallRecord


@dataclass
class Rerun:
    """What running calls again comes to."""

    trajectories: int = 0
    calls: int = 0
    """Calls that were run."""
    malformed: int = 0
    """Calls that could not be parsed, and were not run."""
    differences: list[Difference] = field(default_factory=list)
    unfinished: dict[int, str] = field(default_factory=dict)
    """Rows whose calls could not be run for a reason of ours, and the reason."""


async def rerun(
    found: Iterable[Recorded],
    environment: Callable[[Task], Environment],
    *,
    at_once: int = 8,
    told: Callable[[], None] = lambda: None,
) -> Rerun:
    """Run the calls of every trajectory again.

    Args:
        found: the trajectories.
        environment: a fresh one for an episode of a task.
        at_once: episodes at the same time.
        told: called after each trajectory.

    Raises:
        ConfigError: a task cannot be played.
    """
    result = Rerun()
    pending: set[asyncio.Task[None]] = set()

    async def one(each: Recorded) -> None:
        await _episode(each, environment(each.task), result)
        told()

    try:
        for each in found:
            result.trajectories += 1
            if len(pending) >= at_once:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            pending.add(asyncio.create_task(one(each)))
        for task in pending:
            await task
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    result.differences.sort(key=lambda difference: (difference.row, difference.turn))
    return result


async def _episode(one: Recorded, env: Environment, result: Rerun) -> None:
    try:
        await env.start()
        for _, records in groupby(one.trajectory.calls, key=lambda call: call.turn):
            together = list(records)
            parsed = [record for record in together if record.status is not CallStatus.MALFORMED]
            result.malformed += len(together) - len(parsed)
            if not parsed:
                continue
            calls = tuple(ToolCall(record.name, record.arguments) for record in parsed)
            step = await env.step(AssistantTurn("", calls=calls))
            result.calls += len(step.records)
            for before, after in zip(parsed, step.records, strict=False):
                if (before.result, before.status) != (after.result, after.status):
                    result.differences.append(
                        Difference(one.row, one.task.id, one.step, before.turn, before.name, before, after)
                    )
    except RolloutError as error:
        result.unfinished[one.row] = str(error)
    finally:
        await env.close()
