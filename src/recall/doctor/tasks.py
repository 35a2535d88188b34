"""Checks of tasks under a recipe: budgets, tools, rewards and the mask, by episodes played without a model."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recall.doctor.dialogue import Writer
from recall.doctor.findings import Finding, ok, wrong
from recall.doctor.rehearsal import rehearse, said, wrong_script
from recall.environment import Environment, Limits
from recall.errors import ConfigError
from recall.renderer import Renderer
from recall.rewards.base import Reward
from recall.types import CallStatus, Completion, Message, StopReason, Task, Trajectory

MOST_REHEARSED = 12
"""Tasks that are played."""
_OUR_FAULT = re.compile(
    r"error: (?:NameError|ImportError|ModuleNotFoundError|SyntaxError|AttributeError|IndentationError)"
)
"""How a tool fails whatever it is called with."""
_BROKEN = frozenset(CallStatus) - {CallStatus.OK, CallStatus.EXCEPTION, CallStatus.BAD_ARGUMENTS}
"""How no call ends that a tool could take."""


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """A task that was played without a model."""

    task: Task
    """The task."""
    good: Trajectory
    """By its reference program, or by a call of each tool and an accepted answer."""
    written: tuple[Completion, ...]
    """What was written in it."""
    bad: Trajectory
    """With an answer that no task accepts, and no call."""


async def rehearse_all(
    tasks: Sequence[Task], environment: Callable[[Task], Environment], renderer: Writer, limits: Limits
) -> list[Rehearsed]:
    """Play each task well and badly.

    Raises:
        ConfigError: a prompt is too long, or the dialect has no words for a task.
    """
    found = []
    for task in tasks:
        good, written = await rehearse(task, environment(task), renderer, limits)
        bad, _ = await rehearse(task, environment(task), renderer, limits, wrong_script())
        found.append(Rehearsed(task, good, tuple(written), bad))
    return found


def check_budget(tasks: Sequence[Task], renderer: Renderer, limits: Limits, context: int | None) -> Finding:
    """The longest prompt leaves room for a turn.

    Args:
        tasks: those to look at.
        renderer: of the model.
        limits: of an episode.
        context: the most tokens that the model can read; None where it does not say.
    """
    cost = "episodes that end at the limit before they can answer, all with the same reward, so nothing is learned"
    if context is not None and limits.max_tokens > context:
        found = f"max_tokens is {limits.max_tokens}, and the model reads {context} tokens"
        cure = f"set rollout.limits.max_tokens to at most {context}"
        return Finding("budget", "wrong", found, "an engine that fails in mid-run", cure, refused=True)
    longest, name = max((len(renderer.prompt([Message("user", task.question)], task.tools)), task.id) for task in tasks)
    needed = longest + limits.max_turn_tokens
    if needed > limits.max_tokens:
        found = (
            f"the prompt of task {name!r} has {longest} tokens and a turn may take {limits.max_turn_tokens}, and "
            f"max_tokens is {limits.max_tokens}"
        )
        cure = f"set rollout.limits.max_tokens to at least {needed}"
        return Finding("budget", "wrong", found, cost, cure, refused=True)
    return ok(
        "budget", f"the longest of {len(tasks)} prompts has {longest} tokens, of {limits.max_tokens} for an episode"
    )


_LIMITED = {
    StopReason.MAX_TURNS: "max_turns",
    StopReason.MAX_CALLS: "max_calls",
    StopReason.MAX_TOKENS: "max_tokens or rollout.limits.max_turn_tokens",
    StopReason.TIMEOUT: "episode_timeout_s",
}


def check_length(played: Sequence[Rehearsed], limits: Limits) -> Finding:
    """Episodes of policies that know the way end within the limits."""
    for one in played:
        setting = _LIMITED.get(one.good.stop_reason)
        if setting is not None:
            kind = "reference program" if one.task.reference else "call of each tool"
            return wrong(
                "length",
                f"the {kind} of task {one.task.id!r} ends at {one.good.stop_reason.value}, after {one.good.turns} "
                f"turns and {len(one.good.token_ids)} tokens",
                cost="tasks that no policy can solve, however well it is trained",
                cure=f"raise rollout.limits.{setting}",
            )
    longest = max((len(one.good.token_ids) for one in played), default=0)
    turns = max((one.good.turns for one in played), default=0)
    return ok("length", f"{len(played)} rehearsals end within the limits, of up to {longest} tokens and {turns} turns")


def check_tools(played: Sequence[Rehearsed]) -> Finding:
    """Tools execute: the calls of reference programs work, and no tool fails whatever it is called with."""
    calls = 0
    for one in played:
        if one.good.stop_reason is StopReason.FAULT:
            return wrong(
                "tools",
                f"task {one.task.id!r}: {one.good.fault}",
                cost="episodes that are all left out of the gradient",
                cure="start what does not answer: the sandbox (sandbox.urls) or the retriever (sandbox.search)",
            )
        for call in one.good.calls:
            calls += 1
            bad = call.status in _BROKEN or _OUR_FAULT.match(call.result) is not None
            if one.task.reference:
                bad = bad or (call.status is not CallStatus.OK and not _is_retried(one.task, call.name))
            if bad:
                return wrong(
                    "tools",
                    f"task {one.task.id!r}: {call.name or 'a call'} ends in {call.status.value}: {call.result[:200]!r} "
                    f"(calls: {said(one.good)[:200]})",
                    cost="a policy that is trained against a broken tool, and learns to leave it alone",
                    cure="mend the tool's source in the row (extra_info.env), or leave the row out",
                )
    offered = sum(len(one.task.tools) for one in played)
    return ok("tools", f"{calls} calls in {len(played)} tasks with {offered} tools ran as they should")


def _is_retried(task: Task, name: str) -> bool:
    return any(item.get("name") == name and item.get("retry") for item in task.reference)


def check_mask(played: Sequence[tuple[Trajectory, Sequence[Completion]]]) -> Finding:
    """What counts as sampled is exactly what was sampled."""
    tokens = 0
    for trajectory, written in played:
        given = [token for completion in written for token in completion.token_ids]
        trained = [token for token, own in zip(trajectory.token_ids, trajectory.mask, strict=True) if own]
        tokens += len(given)
        if trained == given:
            continue
        at = next((n for n, pair in enumerate(zip(trained, given, strict=False)) if pair[0] != pair[1]), None)
        what = (
            f"from sampled token {at} on" if at is not None else f"{len(trained)} tokens for {len(given)} sampled ones"
        )
        return wrong(
            "mask",
            f"task {trajectory.task_id!r}: the mask covers other tokens than were sampled: {what}",
            cost="a gradient on tokens that the environment wrote, which teaches the policy to invent results",
            cure="this is a fault of the loop that made the trajectory; see docs/doctor.md and report it",
        )
    return ok("mask", f"{tokens} sampled tokens of {len(played)} episodes, and no others, are trained on")


def check_ends(played: Sequence[Trajectory], renderer: Renderer) -> Finding:
    """Turns that were not cut end in a stop token, and it is one of the trained tokens."""
    ended = cut = 0
    for trajectory in played:
        sampled = [segment for segment in trajectory.segments if segment.sampled]
        for number, segment in enumerate(sampled):
            last = number + 1 == len(sampled)
            if last and trajectory.stop_reason in (StopReason.MAX_TOKENS, StopReason.TIMEOUT, StopReason.FAULT):
                cut += 1
                continue
            ends = segment.token_ids and segment.token_ids[-1] in renderer.stop_token_ids
            if not ends and not any(segment.text.rstrip().endswith(text) for text in renderer.stop_texts):
                return wrong(
                    "ends",
                    f"task {trajectory.task_id!r}: turn {number + 1} ended, and its last token is "
                    f"{renderer.decode(segment.token_ids[-1:])!r}, which is no stop token, so none is trained",
                    cost="a policy that forgets how to end a turn, and runs into the limit more and more",
                    cure="have the engine return the stop token among the sampled ones",
                )
            ended += 1
    if cut and not ended:
        return wrong(
            "ends",
            f"none of {cut} sampled turns ended before its limit",
            cost="episodes that are all cut before they call or answer",
            cure="check that the model speaks this dialect (policy.dialect), or raise rollout.limits.max_turn_tokens",
        )
    return ok("ends", f"{ended} turns end in a trained stop token; {cut} were cut at a limit")


def check_reward(played: Sequence[Rehearsed], reward: Reward, name: str) -> Finding:
    """A known good trajectory scores 1, and a bad one less."""
    cost = "a run that optimises something else than solving the task"
    looked = 0
    for one in played:
        known = bool(one.task.reference) or (one.task.changes is None and bool(one.task.ground_truth))
        if not known or one.good.stop_reason is not StopReason.DONE:
            continue
        looked += 1
        good, bad = reward(one.task, one.good), reward(one.task, one.bad)
        where = f"task {one.task.id!r}: reward {name!r} gives"
        if not good.correct or abs(good.score - 1) > 1e-6:
            found = f"{where} {good.score:g} to a good trajectory with the answer {one.good.answer!r}"
            cure = "mend the row's ground truth or answer type, or choose another reward (recipe: reward)"
            return wrong("reward", found, cost=cost, cure=cure)
        if bad.correct or bad.score >= good.score:
            found = (
                f"{where} {bad.score:g} to a trajectory with the answer {one.bad.answer!r}, as much as to a good one"
            )
            return wrong("reward", found, cost=cost, cure="choose a reward that tells the two apart (recipe: reward)")
    if not looked:
        return Finding("reward", "skipped", "no task says what a good trajectory is")
    return ok("reward", f"{name}: 1 for good trajectories of {looked} tasks, less for bad ones")


async def rehearsals(
    tasks: Sequence[Task], environment: Callable[[Task], Environment], renderer: Writer, limits: Limits
) -> list[Rehearsed] | Finding:
    """The tasks as they were played, or why they could not be."""
    try:
        return await rehearse_all(tasks[:MOST_REHEARSED], environment, renderer, limits)
    except ConfigError as fault:
        return wrong(
            "rehearsal",
            f"a task cannot be played without a model: {fault}",
            cost="the same, hours later",
            cure="mend what it says",
        )
