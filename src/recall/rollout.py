"""Plays one episode: the loop that training, evaluation, inference and synthesis share.

It joins tokens and counts them. What the text means is the renderer's business, what calls do the environment's, and
what the episode is worth the reward's.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from recall.environment import Environment, Limits
from recall.errors import ConfigError, RolloutError
from recall.policy.base import Policy
from recall.renderer import Renderer
from recall.tool_calls import typed
from recall.types import CallRecord, Sampling, Segment, StopReason, Trajectory


async def rollout(
    env: Environment,
    policy: Policy,
    renderer: Renderer,
    *,
    task_id: str,
    episode_id: str,
    sampling: Sampling,
    limits: Limits,
) -> Trajectory:
    """Play one episode to its end, and close `env`.

    The episode is announced to the policy before anything is awaited, and ended with it exactly once. A `RolloutError`
    becomes the trajectory's `fault`, with the segments so far; when cancelled, everything is closed and the
    cancellation goes on.

    Args:
        env: fresh, and used for nothing else.
        policy: samples the turns.
        renderer: of the policy's model.
        task_id: goes into the trajectory.
        episode_id: unique among the policy's living episodes.
        sampling: of the episode; turn n is sampled with a seed made of this seed and n.
        limits: the budget of turns, tokens and time.

    Raises:
        ConfigError: the prompt leaves no room for a turn.
    """
    policy.begin(episode_id)
    episode = _Episode(env, policy, renderer, task_id, episode_id, sampling, limits)
    started = perf_counter()
    fault: str | None = None
    try:
        try:
            stop = await episode.play_in_time()
        finally:
            policy.end(episode_id)
            await env.close()
    except RolloutError as error:
        stop, fault = StopReason.FAULT, f"{type(error).__name__}: {error}"
    return Trajectory(
        task_id=task_id,
        segments=tuple(episode.segments),
        stop_reason=stop,
        answer=episode.answer,
        calls=tuple(episode.calls),
        fault=fault,
        duration_s=perf_counter() - started,
        seed=sampling.seed,
        changes=episode.changes,
    )


@dataclass
class _Episode:
    """An episode in progress; what it holds is good whenever it stops."""

    env: Environment
    policy: Policy
    renderer: Renderer
    task_id: str
    episode_id: str
    sampling: Sampling
    limits: Limits
    segments: list[Segment] = field(default_factory=list)
    calls: list[CallRecord] = field(default_factory=list)
    answer: str | None = None
    changes: Mapping[str, Any] | None = None

    async def play_in_time(self) -> StopReason:
        try:
            async with asyncio.timeout(self.limits.episode_timeout_s) as deadline:
                return await self.play()
        except TimeoutError:
            if not deadline.expired():
                raise
            return StopReason.TIMEOUT

    async def play(self) -> StopReason:
        limits, renderer = self.limits, self.renderer
        context = renderer.prompt(await self.env.start(), self.env.tools)
        if len(context) >= limits.max_tokens:
            raise ConfigError(
                f"task {self.task_id!r}: the prompt has {len(context)} tokens, and max_tokens is {limits.max_tokens}"
            )
        self.segments.append(Segment(tuple(context), text=renderer.decode(context)))
        for turn_number in range(limits.max_turns):
            room = min(limits.max_tokens - len(context), limits.max_turn_tokens)
            sampling = self.sampling.within(room, turn=turn_number)
            completion = await self.policy.sample(context, sampling, episode_id=self.episode_id)
            ids = completion.token_ids
            self.segments.append(
                Segment(ids, completion.logprobs, renderer.decode(ids), completion.policy_version, completion.from_text)
            )
            if completion.finish_reason == "length":
                return StopReason.MAX_TOKENS
            turn = typed(renderer.parse(ids), self.env.tools)
            step = await self.env.step(turn)
            self.calls += step.records
            if step.stop is not None:
                if step.stop is StopReason.DONE and not turn.calls:
                    self.answer = turn.answer
                self.changes = step.changes
                return step.stop
            # A reply that no turn can follow would be read by nobody, so it is not part of the trajectory.
            if turn_number + 1 == limits.max_turns:
                break
            reply = renderer.reply(step.messages)
            if len(context) + len(ids) + len(reply) >= limits.max_tokens:
                return StopReason.MAX_TOKENS
            self.segments.append(Segment(tuple(reply), text=renderer.decode(reply)))
            context = [*context, *ids, *reply]
        return StopReason.MAX_TURNS
