"""Replaying reference programs in the sandbox: ground truth is what comes out there, through the boundary that an
agent's calls pass.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from recall import answers
from recall.programs import ATTEMPTS, ProgramError, resolve
from recall.sandbox.base import Sandbox, Session
from recall.synth.procedural.certify import bare
from recall.types import CallStatus, Task

TIMEOUT_S = 120.0
"""For the tasks of one world; generous, as other work may have the processors."""
_PLAYER = f"""
import json


def play(source, episodes):
    space = {{}}
    exec(compile(source, "tools", "exec"), space)
    rows = json.dumps(space["_ROWS"]) if any(changing for _, changing in episodes) else ""
    played = []
    for calls, changing in episodes:
        results = [_call(space[name], arguments, again) for name, arguments, again in calls]
        played.append([results, space["_changes"]() if changing else None])
        if changing:
            space["_ROWS"].clear()
            space["_ROWS"].update(json.loads(rows))
        space.get("_CALLED", {{}}).clear()
    return played


def _call(function, arguments, again):
    for attempt in range({ATTEMPTS} if again else 1):
        try:
            return ["ok", json.loads(json.dumps(function(**arguments)))]
        except Exception as fault:
            said = f"{{type(fault).__name__}}: {{fault}}"
    return ["exception", said]
"""
"""What plays the episodes of a world within a session, each from the first state on: a session for each would take
twice the time of everything else.
"""


async def replay(sandbox: Sandbox, tasks: Sequence[tuple[Task, Sequence[Any]]]) -> list[str]:
    """What is wrong with each task's reference program, in a few words; empty where it gives the answer.

    Args:
        sandbox: where the sources run.
        tasks: each with what its calls returned where it was made, which they have to return again.

    Raises:
        SandboxError: the sandbox failed.
    """
    shared: dict[str, list[int]] = {}
    for number, (task, _) in enumerate(tasks):
        shared.setdefault(task.env, []).append(number)
    problems = [""] * len(tasks)
    session = await sandbox.open(_PLAYER)
    try:
        for source, numbers in shared.items():
            found = await _played(session, source, [tasks[number] for number in numbers])
            for number, problem in zip(numbers, found, strict=True):
                problems[number] = problem
    finally:
        await session.close()
    return problems


async def _played(session: Session, source: str, tasks: Sequence[tuple[Task, Sequence[Any]]]) -> list[str]:
    """What is wrong with each of some tasks of one source."""
    try:
        episodes = [(_calls(task, results), task.changes is not None) for task, results in tasks]
    except ProgramError as fault:
        return [f"the program does not run: {fault}"] * len(tasks)
    played = await session.call("play", {"source": source, "episodes": episodes}, timeout_s=TIMEOUT_S)
    if played.status is not CallStatus.OK:
        return [f"the source ends with {played.status.value}: {played.error}"] * len(tasks)
    return [
        _problem(task, expected, results, changes)
        for (task, expected), (results, changes) in zip(tasks, played.result, strict=True)
    ]


def _calls(task: Task, results: Sequence[Any]) -> list[tuple[str, Mapping[str, Any], bool]]:
    """The calls of a program, with the arguments that they have when each returns what it should."""
    return [
        (
            item["name"],
            {name: resolve(value, results[:number]) for name, value in item["arguments"].items()},
            "retry" in item,
        )
        for number, item in enumerate(task.reference)
        if "name" in item
    ]


def _problem(task: Task, expected: Sequence[Any], results: Sequence[tuple[str, Any]], changes: Any) -> str:
    for (status, result), value in zip(results, expected, strict=True):
        if status != "ok":
            return f"a call ends with {status}"
        if result != value:
            return "another result comes out"
    last = task.reference[-1]
    answer = bare(results[-1][1] if "name" in last else resolve(last["value"], expected))
    text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    if not answers.equal(text, task.ground_truth, task.answer_type):
        return "another answer comes out"
    return "" if changes == task.changes else "another state comes out"
