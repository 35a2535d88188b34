"""Replaying reference programs in the sandbox: ground truth is what comes out there, through the boundary that an
agent's calls pass.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from recall import answers
from recall.programs import ATTEMPTS, Item, ProgramError, resolve
from recall.sandbox.base import CallResult, Sandbox, Session
from recall.synth.procedural.certify import bare
from recall.synth.procedural.source import RESET
from recall.types import CallStatus, Task

AT_ONCE = 8
"""Sessions open at a time."""
TIMEOUT_S = 20.0
"""For one call; generous, as other work may have the processors."""


async def replay(sandbox: Sandbox, tasks: Sequence[Task]) -> list[str]:
    """What is wrong with each task's reference program, in a few words; empty where it gives the answer.

    Tasks that share a source share a session, whose state is set back to the first after each that may have changed it.

    Args:
        sandbox: where the sources run.
        tasks: what to replay.

    Raises:
        SandboxError: the sandbox failed.
    """
    shared: dict[str, list[int]] = {}
    for number, task in enumerate(tasks):
        shared.setdefault(task.env, []).append(number)
    problems = [""] * len(tasks)
    gate = asyncio.Semaphore(AT_ONCE)

    async def together(source: str, numbers: Sequence[int]) -> None:
        async with gate:
            session = await sandbox.open(source + RESET)
            try:
                for number in numbers:
                    problems[number] = await _replayed(session, tasks[number])
            finally:
                await session.close()

    async with asyncio.TaskGroup() as group:
        for source, numbers in shared.items():
            group.create_task(together(source, numbers))
    return problems


async def _replayed(session: Session, task: Task) -> str:
    results: list[Any] = []
    retried = any(item.get("retry") for item in task.reference)
    try:
        for item in task.reference:
            if "name" not in item:
                results.append(resolve(item["value"], results))
                continue
            arguments = {name: resolve(value, results) for name, value in item["arguments"].items()}
            result = await _called(session, item, arguments)
            if result.status is not CallStatus.OK:
                return f"a call ends with {result.status.value}"
            results.append(result.result)
        return await _compared(session, task, results)
    except ProgramError:
        return "the program does not run"
    finally:
        if task.changes is not None or retried:
            await session.call("_reset", {}, timeout_s=TIMEOUT_S)


async def _compared(session: Session, task: Task, results: Sequence[Any]) -> str:
    last = bare(results[-1])
    answer = last if isinstance(last, str) else json.dumps(last, ensure_ascii=False)
    if not answers.equal(answer, task.ground_truth, task.answer_type):
        return "another answer comes out"
    if task.changes is not None:
        found = await session.call("_changes", {}, timeout_s=TIMEOUT_S)
        if found.status is not CallStatus.OK or found.result != task.changes:
            return "another state comes out"
    return ""


async def _called(session: Session, item: Item, arguments: Mapping[str, Any]) -> CallResult:
    for _ in range(ATTEMPTS if item.get("retry") else 1):
        result = await session.call(item["name"], arguments, timeout_s=TIMEOUT_S)
        if result.status is not CallStatus.EXCEPTION:
            break
    return result
