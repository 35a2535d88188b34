"""Asks a model behind an endpoint: how many tasks it solves with tools, and how many it answers without any."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recall import answers
from recall.environment import Limits, ToolEnvironment
from recall.errors import RolloutError
from recall.rewards import solved
from recall.rollout import rollout
from recall.sandbox.base import Sandbox
from recall.sandbox.local import LocalSandbox
from recall.synth.llm.budget import Budget
from recall.synth.llm.chat_policy import ChatPolicy, TextRenderer
from recall.synth.llm.client import Ask, ChatClient, EndpointSettings, Replies
from recall.synth.llm.errors import RefusedError
from recall.synth.llm.prompts import prompt
from recall.synth.llm.together import together
from recall.types import CallStatus, Sampling, StopReason, Task, Trajectory

_TURN_CHARS = 32_768


@dataclass(frozen=True, slots=True)
class Asking:
    """What a model is asked."""

    endpoint: EndpointSettings
    """Where the model is."""
    replies: Path
    """The file of what it answered; nothing in it is asked again."""
    tasks: int = 100
    """Tasks of the sample that it is asked about."""
    samples: int = 4
    """Episodes with tools, of each task."""
    guesses: int = 4
    """Answers without tools, of each task."""
    turn_tokens: int = 2048
    """The longest turn, and the longest answer without tools."""
    temperature: float = 1.0
    """Of the sampling."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a model made of one task."""

    task: Task
    episodes: tuple[Trajectory, ...]
    """With tools."""
    guesses: tuple[str, ...]
    """Without tools; empty for a task that asks for no answer."""
    refused: bool = False
    """Whether the endpoint would not answer."""


async def ask_model(tasks: Sequence[Task], asking: Asking, on_task: Callable[[], object]) -> dict[str, Any]:
    """The numbers of a report about a model.

    Raises:
        RolloutError: the endpoint or the sandbox failed.
        ConfigError: it knows no such model, or does not accept the key.
    """
    replies = Replies(asking.replies)
    client, sandbox = ChatClient(asking.endpoint, replies, Budget()), LocalSandbox()
    gate = asyncio.Semaphore(max(1, asking.endpoint.concurrency // max(1, asking.samples)))

    async def one(task: Task) -> Asked:
        async with gate:
            found = await _ask(task, asking, client, sandbox)
            on_task()
            return found

    try:
        return numbers_of(await together(one(task) for task in tasks), asking)
    finally:
        await client.close()
        await sandbox.close()
        replies.close()


def numbers_of(asked: Sequence[Asked], asking: Asking) -> dict[str, Any]:
    """What the answers come to."""
    known = [each for each in asked if not each.refused]
    wins = [[solved(each.task, episode) for episode in each.episodes] for each in known]
    guessed = [[_is_right(each.task, guess) for guess in each.guesses] for each in known if each.guesses]
    episodes = [(each.task, episode) for each in known for episode in each.episodes]
    calls = [call for _, episode in episodes for call in episode.calls]
    good = [(task, episode) for task, episode in episodes if task.depth and solved(task, episode)]
    by_calls: dict[int, list[bool]] = {}
    for each, won in zip(known, wins, strict=True):
        by_calls.setdefault(each.task.depth, []).extend(won)
    return {
        "model": asking.endpoint.model,
        "tasks": len(known),
        "refused": len(asked) - len(known),
        "samples": asking.samples,
        "guesses": asking.guesses,
        "pass_at_1": _mean([win for won in wins for win in won]),
        "pass_at_k": _mean([any(won) for won in wins]),
        "without_tools": {
            "tasks": len(guessed),
            "pass_at_1": _mean([hit for hits in guessed for hit in hits]),
            "pass_at_k": _mean([any(hits) for hits in guessed]),
        },
        "agreement": _mean([len({episode.answer for episode in each.episodes}) == 1 for each in known]),
        "over_calls": sum(len(e.calls) / t.depth for t, e in good) / len(good) if good else None,
        "malformed_calls": _mean([call.status is CallStatus.MALFORMED for call in calls]),
        "unanswered": _mean([episode.answer is None for _, episode in episodes]),
        "by_calls": [[depth, len(won), _mean(won)] for depth, won in sorted(by_calls.items())],
    }


async def _ask(task: Task, asking: Asking, client: ChatClient, sandbox: Sandbox) -> Asked:
    try:
        guesses = await together(
            client.ask(_guess(task, asking, number)) for number in range(asking.guesses if task.ground_truth else 0)
        )
        episodes = await together(_episode(task, number, asking, client, sandbox) for number in range(asking.samples))
    except RefusedError:
        return Asked(task, (), (), refused=True)
    return Asked(task, tuple(episodes), tuple(answers.extract_boxed(reply.text) or "" for reply in guesses))


def _guess(task: Task, asking: Asking, number: int) -> Ask:
    said = ({"role": "user", "content": prompt("guess", question=task.question)},)
    return Ask(said, asking.temperature, asking.turn_tokens, number, "guess")


async def _episode(task: Task, number: int, asking: Asking, client: ChatClient, sandbox: Sandbox) -> Trajectory:
    depth = max(1, task.depth)
    limits = Limits(
        max_turns=2 * depth + 4, max_calls=4 * depth + 8, max_tokens=64 * _TURN_CHARS, max_turn_tokens=_TURN_CHARS
    )
    trajectory = await rollout(
        ToolEnvironment(task, sandbox, limits),
        ChatPolicy(client, max_tokens=asking.turn_tokens, step="solve"),
        TextRenderer(),
        task_id=task.id,
        episode_id=f"{task.id}/{number}",
        sampling=Sampling(temperature=asking.temperature, max_tokens=_TURN_CHARS, seed=number),
        limits=limits,
    )
    if trajectory.stop_reason is StopReason.FAULT:
        raise RolloutError(trajectory.fault)
    return trajectory


def _is_right(task: Task, guess: str) -> bool:
    return answers.equal(guess, task.ground_truth, task.answer_type)


def _mean(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None
