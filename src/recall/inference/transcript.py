"""Ask one question of a policy with tools, and show what happened.

The same rollout as in training, without a reward. Loading models and printing in colour are the commands' business.
"""

import json
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from recall.environment import Environment, FunctionEnvironment, Limits, ToolEnvironment
from recall.errors import ConfigError
from recall.policy.base import Policy
from recall.renderer import Renderer
from recall.rollout import rollout
from recall.sandbox.base import DEFAULT_OPTIONS, Sandbox, SessionOptions
from recall.types import CallRecord, Sampling, StopReason, Task, Trajectory
from recall.viewer.text import visible

_STOP_TOKEN = re.compile(r"<\|[^|<>]*\|>\s*\Z")


async def ask(
    question: str | Task,
    policy: Policy,
    renderer: Renderer,
    *,
    functions: Sequence[Callable[..., Any]] = (),
    sandbox: Sandbox | None = None,
    options: SessionOptions = DEFAULT_OPTIONS,
    system: str = "",
    sampling: Sampling | None = None,
    limits: Limits | None = None,
) -> Trajectory:
    """Play one episode and return it; the answer is its `answer`.

    Args:
        question: a text, whose tools are `functions`, or a task, whose tools are its own and run in `sandbox`.
        policy: writes the turns.
        renderer: of the policy's model.
        functions: trusted Python functions that run in this process.
        sandbox: where the tools of a task run.
        options: of the session there.
        system: a system message before the template, for a text.
        sampling: None samples greedily.
        limits: None takes the defaults.

    Raises:
        ConfigError: a task came without a sandbox, or with functions or a system message; or the prompt is too long.
    """
    limits = limits or Limits()
    env: Environment
    if isinstance(question, str):
        task_id = "question"
        env = FunctionEnvironment(question, functions, limits, system=system)
    else:
        task_id = question.id
        if sandbox is None:
            raise ConfigError(f"task {task_id!r}: its tools need a sandbox to run in")
        if functions or system:
            raise ConfigError(
                f"task {task_id!r}: brings its own tools and messages; functions and system are for a text"
            )
        env = ToolEnvironment(question, sandbox, limits, options=options)
    return await rollout(
        env,
        policy,
        renderer,
        task_id=task_id,
        episode_id=uuid.uuid4().hex,
        sampling=sampling or Sampling(temperature=0.0, max_tokens=limits.max_turn_tokens),
        limits=limits,
    )


def transcript(trajectory: Trajectory, task: Task | None = None) -> str:
    """An episode as plain text for a terminal: what was asked, each turn, each call with its result, and the end.

    Control characters are written out, so no text of a model or a tool can play tricks on the terminal.

    Args:
        trajectory: the episode.
        task: shows its question and accepted answers; without it, the whole prompt is shown.
    """
    return visible("\n\n".join(_paragraphs(trajectory, task))) + "\n"


def _paragraphs(trajectory: Trajectory, task: Task | None) -> Iterator[str]:
    if task is not None:
        yield _block("user", task.question)
    elif trajectory.segments:
        yield _block("prompt", trajectory.segments[0].text)
    sampled = [segment for segment in trajectory.segments if segment.sampled]
    for turn, segment in enumerate(sampled):
        yield _block(f"assistant, turn {turn + 1}, {len(segment.token_ids)} tokens", _STOP_TOKEN.sub("", segment.text))
        for record in trajectory.calls:
            if record.turn == turn:
                yield _block(_call_title(record), record.result)
    yield _ending(trajectory, task)


def _block(title: str, text: str) -> str:
    return f"[{title}]\n{text.strip()}"


def _call_title(record: CallRecord) -> str:
    call = f"{record.name}({json.dumps(dict(record.arguments), ensure_ascii=False)})" if record.name else "a call"
    return f"tool, {call}, {record.status.value}, {record.duration_s * 1000:.1f} ms"


def _ending(trajectory: Trajectory, task: Task | None) -> str:
    lines = [f"stopped: {trajectory.stop_reason.value}, {trajectory.turns} turns, {trajectory.duration_s:.2f} s"]
    if trajectory.stop_reason is StopReason.FAULT:
        lines.append(f"fault: {trajectory.fault}")
    lines.append(f"answer: {'none' if trajectory.answer is None else trajectory.answer}")
    if task is not None:
        lines.append(f"accepted: {' | '.join(task.ground_truth)}")
    return "\n".join(lines)
