"""Sampling: the torch engine against Hugging Face's `generate`, on the same episodes with tools.

Both play the same tasks with the same weights, limits, renderer and sandbox. `generate` gets the best simple loop: each
turn, all living episodes in one left-padded batch, then their tools at once, then the whole context again, for it keeps
no cache from turn to turn. It is spared the log-probabilities, which our engine returns.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from parts.setting import Bench, engine_seconds, given, middle
from recall.environment import Environment
from recall.policy.torch import TorchPolicy
from recall.types import Task


@dataclass(slots=True)
class Episode:
    """An episode that `generate` plays."""

    env: Environment
    token_ids: list[int] = field(default_factory=list)
    sampled: int = 0
    turns: int = 0


@dataclass(frozen=True, slots=True)
class Played:
    """What came of playing all episodes once."""

    token_ids: list[list[int]]
    """By episode, whole."""
    sampled: int
    """Tokens sampled in all."""
    turns: int
    """Turns in all."""
    wall_s: float
    """From the first episode's start to the last one's end, tools included."""
    engine_s: float
    """Of it, in the engine."""


async def play_with_generate(bench: Bench, tasks: Sequence[Task], temperature: float) -> Played:
    """Play every task `group_size` times with `model.generate`."""
    began, engine_s = time.perf_counter(), 0.0
    make = bench.environments()
    episodes = [Episode(make(task)) for task in tasks for _ in range(bench.setting.group_size)]
    for episode, messages in zip(episodes, await asyncio.gather(*(e.env.start() for e in episodes)), strict=True):
        episode.token_ids = bench.renderer.prompt(messages, episode.env.tools)
    alive = episodes
    while alive:
        rooms = [min(bench.limits.max_turn_tokens, bench.limits.max_tokens - len(e.token_ids)) for e in alive]
        started = time.perf_counter()
        sampled = generate(bench, [episode.token_ids for episode in alive], max(rooms), temperature)
        engine_s += time.perf_counter() - started
        turns = [ids[:room] for ids, room in zip(sampled, rooms, strict=True)]
        replies = await asyncio.gather(*(_reply(bench, e, ids) for e, ids in zip(alive, turns, strict=True)))
        for episode, reply in zip(alive, replies, strict=True):
            episode.token_ids += reply or []
        alive = [episode for episode, reply in zip(alive, replies, strict=True) if reply]
    await asyncio.gather(*(episode.env.close() for episode in episodes))
    wall_s = time.perf_counter() - began
    sampled_tokens, turns_taken = sum(e.sampled for e in episodes), sum(e.turns for e in episodes)
    return Played([episode.token_ids for episode in episodes], sampled_tokens, turns_taken, wall_s, engine_s)


async def _reply(bench: Bench, episode: Episode, sampled: list[int]) -> list[int] | None:
    """What follows a sampled turn; None when the episode is over, by the rules of `rollout`."""
    episode.token_ids += sampled
    episode.sampled += len(sampled)
    episode.turns += 1
    if sampled[-1] not in bench.renderer.stop_token_ids:
        return None
    step = await episode.env.step(bench.renderer.parse(sampled))
    if step.stop is not None or episode.turns == bench.limits.max_turns:
        return None
    reply = bench.renderer.reply(step.messages)
    return reply if len(episode.token_ids) + len(reply) < bench.limits.max_tokens else None


@torch.inference_mode()
def generate(bench: Bench, contexts: Sequence[Sequence[int]], room: int, temperature: float) -> list[list[int]]:
    """One turn after each context, up to its stop token, of at most `room` tokens."""
    from transformers import GenerationConfig

    stops = sorted(bench.renderer.stop_token_ids)
    pad = bench.tokenizer.pad_token_id
    longest = max(map(len, contexts))
    gaps = [longest - len(context) for context in contexts]
    how: dict[str, Any] = {"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=bool(temperature), max_new_tokens=room, eos_token_id=stops, pad_token_id=pad, use_cache=True, **how
    )
    output = bench.model.generate(
        input_ids=torch.tensor([[pad] * gap + list(ids) for gap, ids in zip(gaps, contexts, strict=True)]),
        attention_mask=torch.tensor([[0] * gap + [1] * (longest - gap) for gap in gaps]),
        generation_config=config,
    )
    return [_until_stop(row, stops) for row in output[:, longest:].tolist()]


def _until_stop(ids: list[int], stops: Sequence[int]) -> list[int]:
    ends = [number for number, token in enumerate(ids) if token in stops]
    return ids[: ends[0] + 1] if ends else ids


async def play_with_engine(
    bench: Bench, policy: TorchPolicy, tasks: Sequence[Task], temperature: float, seed: int
) -> Played:
    """Play every task `group_size` times with the engine, which has nothing in its cache, as after an update."""
    policy.version += 1
    began = time.perf_counter()
    groups = await bench.player(policy).play(
        tasks, samples=bench.setting.group_size, sampling=bench.sampling(temperature), seed=seed
    )
    wall_s = time.perf_counter() - began
    engine_s = engine_seconds(policy)
    played = [trajectory for group in groups for trajectory in group.trajectories]
    turns = sum(t.turns for t in played)
    return Played([t.token_ids for t in played], sum(sum(t.mask) for t in played), turns, wall_s, engine_s)


async def measure(bench: Bench) -> dict[str, Any]:
    """Greedy once with each, which warms up and shows that both play the same; then sampled, in turn."""
    tasks = bench.setting.tasks(0)
    policy = bench.policy()
    greedy = [await play_with_engine(bench, policy, tasks, 0.0, 0), await play_with_generate(bench, tasks, 0.0)]
    pairs = list(zip(greedy[0].token_ids, greedy[1].token_ids, strict=True))
    ours, theirs = list[Played](), list[Played]()
    for repeat in range(bench.setting.repeats):
        ours.append(await play_with_engine(bench, policy, tasks, 1.0, repeat + 1))
        torch.manual_seed(repeat + 1)
        theirs.append(await play_with_generate(bench, tasks, 1.0))
    policy.close()
    await bench.sandbox.close()
    rows = {"recall": _row(ours), "generate": _row(theirs)}
    return {
        **rows,
        "ratio": rows["recall"]["tokens_per_s"] / rows["generate"]["tokens_per_s"],
        "same_when_greedy": sum(a == b for a, b in pairs) / len(pairs),
    }


def _row(runs: Sequence[Played]) -> dict[str, float]:
    return {
        "tokens_per_s": middle([run.sampled / run.wall_s for run in runs]),
        "wall_s": middle([run.wall_s for run in runs]),
        "engine_s": middle([run.engine_s for run in runs]),
        "tokens": middle([run.sampled for run in runs]),
        "turns": middle([run.turns for run in runs]),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(Bench(given())))))
