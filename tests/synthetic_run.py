"""A run directory as `recall train` leaves it, made up from a seed: learning curves, groups, held-out play."""

import json
import math
import random
from pathlib import Path

from recall.store import Run
from recall.types import CallRecord, CallStatus, Group, RewardResult, Segment, StopReason, Task, ToolSpec, Trajectory

KINDS = ("1", "2", "3", "join")
_START = {"1": 0.34, "2": 0.08, "3": 0.02, "join": 0.05}
_END = {"1": 0.98, "2": 0.93, "3": 0.81, "join": 0.88}
_NAMES = ("Orla", "Tomas", "Ines", "Kofi", "Mei", "Sven", "Lucia", "Arun", "Petra", "Diego")
_WORDS = (
    ("city_of", "The city that a person lives in.", ("Turin", "Lyon", "Porto", "Graz")),
    ("river_of", "The river that a city lies on.", ("Po", "Rhone", "Douro", "Mur")),
    ("length_of", "The length of a river in kilometres.", ("652", "813", "897", "464")),
)
CONFIG = """[task]
dataset = "synth"
depths = [1, 2, 3]

[train]
engine = "local"
learning_rate = 3e-4
groups_per_step = 16
group_size = 8
seed = 7
"""


def make_run(path: Path, *, seed: int = 0, steps: int = 240, files: int = 5) -> Path:
    """Write a run of `steps` steps into `path`, with trajectories of `files` of them, and return `path`."""
    rng = random.Random(seed)
    run = Run.create(path, CONFIG)
    for step in range(steps + 1):
        run.append_metrics(_metrics(step, steps, rng))
    for step in sorted({round(i * (steps - 1) / max(1, files - 1)) + 1 for i in range(files)}):
        groups = [_group(i, success(str(1 + i % 3), step / steps), rng) for i in range(12)]
        advantages = [_advantages(group) for group in groups]
        run.write_groups(step, groups, advantages=advantages)
    for step in (0, steps):
        held_out = [_group(100 + i, success(str(1 + i % 3), step / steps), rng, size=1) for i in range(24)]
        run.write_groups(step, held_out, split="held_out")
    rates = {
        when: {mode: _rates(at, mode) for mode in ("sampled", "greedy")} for when, at in (("before", 0), ("after", 1))
    }
    facts = {
        "minutes": 23.4,
        "steps": steps,
        "seed": seed,
        "trajectories": steps * 128,
        "command": f"recall train recipes/nano.toml --train.seed {seed}",
    }
    run.write_json("summary.json", {**rates, **facts})
    return path


def success(kind: str, progress: float) -> float:
    """A learning curve: deeper tasks are learned later."""
    middle = {"1": 0.18, "2": 0.36, "3": 0.58}.get(kind, 0.45)
    rise = 1 / (1 + math.exp(-(progress - middle) * 14))
    return _START[kind] + (_END[kind] - _START[kind]) * rise


def _rates(progress: float, mode: str) -> dict[str, float]:
    bonus = 1.04 if mode == "greedy" else 1.0
    return {kind: round(min(1.0, bonus * success(kind, progress)), 4) for kind in KINDS}


def _metrics(step: int, steps: int, rng: random.Random) -> dict[str, float]:
    at = step / steps

    def noisy(value: float, spread: float) -> float:
        return max(0.0, value + rng.gauss(0, spread))

    row: dict[str, float] = {"step": step}
    if step % max(1, steps // 24) == 0 or step == steps:
        for mode in ("sampled", "greedy"):
            row |= {
                f"val/held_out/{mode}/{kind}": min(1.0, noisy(value, 0.015)) for kind, value in _rates(at, mode).items()
            }
    if step == 0:
        return row
    mean = sum(success(kind, at) for kind in KINDS) / len(KINDS)
    used = round(16 * min(1.0, 4.4 * mean * (1 - mean)) * rng.uniform(0.85, 1))
    rollout, update = noisy(3.4 - at, 0.25), noisy(2.1, 0.12)
    return row | {
        "reward/mean": noisy(mean, 0.04),
        "reward/std": noisy(math.sqrt(mean * (1 - mean)), 0.03),
        "success/mean": min(1.0, noisy(mean, 0.04)),
        **{f"success/by/{kind}": min(1.0, noisy(success(kind, at), 0.07)) for kind in KINDS},
        "rollout/calls_mean": noisy(0.6 + 1.5 * mean, 0.08),
        "rollout/turns_mean": noisy(1.5 + 1.5 * mean, 0.08),
        "rollout/tokens_per_s": noisy(5200 + 900 * at, 260),
        "rollout/truncated": noisy(0.2 * (1 - at) ** 3, 0.01),
        "rollout/faults": 0.0,
        "rollout/malformed": noisy(0.3 * (1 - at) ** 6, 0.01),
        "time/step_s": rollout + update + 0.2,
        "time/rollout_s": rollout,
        "time/update_s": update,
        "time/tools_share": 0.11,
        "policy/entropy": noisy(0.9 * math.exp(-2.6 * at) + 0.06, 0.02),
        "policy/loss": rng.gauss(0, 0.02),
        "policy/clip_fraction": noisy(0.015, 0.004),
        "policy/kl_old": noisy(0.0012, 0.0003),
        "policy/grad_norm": noisy(0.6 + 0.5 * at, 0.12),
        "groups/used": used,
        "groups/zero_variance": 16 - used,
        "memory/rss_gb": 2.1 + 0.2 * at,
    }


def _group(number: int, rate: float, rng: random.Random, size: int = 8) -> Group:
    depth = 1 + number % 3
    task = _task(number, depth)
    played = [_play(task, depth, rng.random() < rate, rng) for _ in range(size)]
    return Group(task, [trajectory for trajectory, _ in played], [reward for _, reward in played])


def _task(number: int, depth: int) -> Task:
    name, spot = _NAMES[number % len(_NAMES)], number % 4
    asks = (
        "city that {} lives in",
        "river of the city that {} lives in",
        "length of the river of the city that {} lives in",
    )
    tools = tuple(
        ToolSpec(tool, text, {"type": "object", "properties": {"of": {"type": "string"}}}) for tool, text, _ in _WORDS
    )
    question = f"What is the {asks[depth - 1].format(name)}?"
    return Task(
        f"t{number:04d}",
        question,
        (_WORDS[depth - 1][2][spot],),
        tools=tools,
        split="train",
        depth=depth,
        kind="chain",
        extra={"spot": spot, "name": name},
    )


def _play(task: Task, depth: int, right: bool, rng: random.Random) -> tuple[Trajectory, RewardResult]:
    prompt = _turn_of("system", "You may call tools.") + _turn_of("user", task.question) + "<|im_start|>assistant\n"
    segments, calls = [_said(prompt)], []
    subject, spot = str(task.extra["name"]), int(task.extra["spot"])
    made = depth if right else rng.randrange(depth)
    for turn in range(made):
        tool, _, values = _WORDS[turn]
        body = json.dumps({"name": tool, "arguments": {"of": subject}})
        segments.append(_sampled(f"<tool_call>\n{body}\n</tool_call><|im_end|>", rng))
        calls.append(CallRecord(turn, tool, {"of": subject}, values[spot], CallStatus.OK, rng.uniform(0.0004, 0.003)))
        segments.append(_reply(values[spot]))
        subject = values[spot]
    if not right and rng.random() < 0.3:
        segments.append(_sampled('<tool_call>\n{"name": "river_of", "arguments": \n</tool_call><|im_end|>', rng))
        message = "Error: the call is not valid JSON: Expecting value at character 37"
        calls.append(CallRecord(made, "", {}, message, CallStatus.MALFORMED))
        segments.append(_reply(message))
    answer = task.ground_truth[0] if right else rng.choice(("Turin", "I am not sure", "Douro"))
    segments.append(_sampled(f"<think>The last result answers it.</think>\\boxed{{{answer}}}<|im_end|>", rng))
    reward = RewardResult(
        1.0 if right else 0.1 * made, right, {"correct": float(right), "format": 0.1 * (not right) * made}
    )
    return Trajectory(
        task.id, tuple(segments), StopReason.DONE, answer, tuple(calls), duration_s=rng.uniform(0.2, 1.4)
    ), reward


def _turn_of(role: str, text: str) -> str:
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


def _reply(result: str) -> Segment:
    turn = _turn_of("user", f"<tool_response>\n{result}\n</tool_response>")
    return _said(f"\n{turn}<|im_start|>assistant\n")


def _said(text: str) -> Segment:
    return Segment(tuple(map(ord, text)), None, text)


def _sampled(text: str, rng: random.Random) -> Segment:
    logprobs = tuple(-abs(rng.gauss(0, 0.2)) if rng.random() < 0.85 else -rng.uniform(0.5, 3) for _ in text)
    return Segment(tuple(map(ord, text)), logprobs, text, 0)


def _advantages(group: Group) -> list[float]:
    mean = sum(reward.score for reward in group.rewards) / len(group.rewards)
    return [reward.score - mean for reward in group.rewards]
