"""A whole step of `recall train` on a batch of fresh tasks, with a breakdown of where its time goes.

The parts and their order are the local trainer's: play the groups, score them, update, store the trajectories and the
metrics. What tools cost is the difference to the same rollouts with every answer of a tool known beforehand. The last
step is not timed; there memory is measured, tools' processes included.
"""

import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from parts.memory import Peak
from parts.remembered import Remembered
from parts.setting import LEARNER, Bench, engine_seconds, given, middle
from recall.config import dump
from recall.evaluation.play import seed_of
from recall.policy.torch import TorchPolicy
from recall.rewards import get
from recall.sandbox.base import Sandbox
from recall.store import Run
from recall.trainers.learner import Learner, credits
from recall.types import RewardResult, Task, Trajectory


class TimedReward:
    """The recipe's reward, and the seconds spent in it."""

    def __init__(self, name: str) -> None:
        self._reward, self.seconds = get(name), 0.0

    def __call__(self, task: Task, trajectory: Trajectory) -> RewardResult:
        """Score a trajectory."""
        began = time.perf_counter()
        scored = self._reward(task, trajectory)
        self.seconds += time.perf_counter() - began
        return scored


async def one_step(bench: Bench, policy: TorchPolicy, learner: Learner, run: Run, step: int) -> dict[str, float]:
    """Take a step; returns its seconds by part, and what was played."""
    reward = TimedReward(bench.recipe.reward)
    player = bench.player(policy, reward)
    tasks = bench.setting.tasks(step)
    began = time.perf_counter()
    groups = await player.play(
        tasks, samples=bench.setting.group_size, sampling=bench.sampling(), label=f"{step}/", seed=seed_of(0, 1, step)
    )
    played = time.perf_counter()
    sampling = engine_seconds(policy)
    learned = learner.update(groups, step=0, total_steps=1, seed=0)
    policy.version += 1
    updated = time.perf_counter()
    run.write_groups(step + 1, groups, advantages=[credits(group, learner.algorithm) for group in groups])
    run.append_metrics({"step": step + 1, **learned})
    ended = time.perf_counter()
    trajectories = [trajectory for group in groups for trajectory in group.trajectories]
    return {
        "wall_s": ended - began,
        "sampling_s": sampling,
        "tools_and_loop_s": played - began - sampling - reward.seconds,
        "reward_s": reward.seconds,
        "update_s": updated - played,
        "storing_s": ended - updated,
        "completion_tokens": sum(len(t.token_ids) - len(t.prompt_ids) for t in trajectories) / len(trajectories),
        "turns": sum(t.turns for t in trajectories) / len(trajectories),
        "groups_with_a_gradient": learned["groups/used"],
    }


async def rollout_s(bench: Bench, policy: TorchPolicy, step: int, sandbox: Sandbox) -> float:
    """Seconds to play the episodes of a step anew, with the tools in `sandbox`."""
    policy.version += 1  # nothing is left in the engine's cache
    player, tasks, seed = bench.player(policy, sandbox=sandbox), bench.setting.tasks(step), seed_of(0, 1, step)
    began = time.perf_counter()
    await player.play(tasks, samples=bench.setting.group_size, sampling=bench.sampling(), label=f"{step}/", seed=seed)
    return time.perf_counter() - began


async def tools_s(bench: Bench, policy: TorchPolicy, step: int) -> float:
    """What the tools add to the wall time of a rollout."""
    memory = Remembered(bench.sandbox)
    await rollout_s(bench, policy, step, memory)
    real, asked = await rollout_s(bench, policy, step, bench.sandbox), memory.asked
    free = await rollout_s(bench, policy, step, memory)
    if memory.asked != asked:
        raise RuntimeError("the same seed played other episodes, so their times cannot be compared")
    return real - free


async def measure(bench: Bench) -> dict[str, Any]:
    """A step that warms up, the timed ones, and one for memory."""
    policy, learner = bench.policy(), Learner(bench.model, LEARNER)
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", dump(bench.recipe))
        rows = [await one_step(bench, policy, learner, run, step) for step in range(bench.setting.repeats + 1)]
        tools = middle([await tools_s(bench, policy, step) for step in range(bench.setting.repeats)])
        with Peak() as peak:
            await one_step(bench, policy, learner, run, bench.setting.repeats + 1)
    policy.close()
    await bench.sandbox.close()
    found = {name: middle([row[name] for row in rows[1:]]) for name in rows[0]}
    count = bench.setting.groups * bench.setting.group_size
    return {
        "trajectories_per_s": count / found["wall_s"],
        "completion_tokens_per_s": count * found["completion_tokens"] / found["wall_s"],
        "peak_mb": peak.mb,
        "grown_mb": peak.grown_mb,
        "tools_mb": peak.children_mb,
        "tools_s": tools,
        "tools_share": tools / found["wall_s"],
        **found,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(Bench(given())))))
