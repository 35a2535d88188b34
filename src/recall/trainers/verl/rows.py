"""A trajectory as verl trains on it: prompt, response, mask and log-probabilities, and the numbers that it reports.

Nothing is decoded or encoded here: the ids are the trajectory's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recall.trainers.verl.policy import Versions
from recall.types import CallStatus, RewardResult, Trajectory

MALFORMED_KEY = "malformed_calls"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of verl's batch."""

    prompt_ids: list[int]
    """[P] what the policy saw before it wrote anything."""
    response_ids: list[int]
    """[R] everything after, up to the last token that the policy wrote."""
    response_mask: list[int]
    """[R] 1 where the policy wrote the token, else 0."""
    response_logprobs: list[float]
    """[R] nats of the sampled tokens, 0.0 elsewhere."""
    score: float
    """The reward."""


def row_of(trajectory: Trajectory, reward: RewardResult) -> Row | None:
    """The row of a trajectory, or None where there is nothing to learn from it.

    That is so after a fault of ours, and where the policy wrote nothing. What the environment wrote after the last
    sampled token is left out: nobody read it, and verl puts the score on the last token, which has to be a sampled one.
    """
    if trajectory.fault is not None or not any(trajectory.mask):
        return None
    start = len(trajectory.prompt_ids)
    end = len(trajectory.mask) - trajectory.mask[::-1].index(True)
    return Row(
        prompt_ids=trajectory.token_ids[:start],
        response_ids=trajectory.token_ids[start:end],
        response_mask=[int(sampled) for sampled in trajectory.mask[start:end]],
        response_logprobs=trajectory.logprobs[start:end],
        score=float(reward.score),
    )


def report_of(trajectory: Trajectory, reward: RewardResult) -> dict[str, float]:
    """What a trajectory reports to verl's logger; the same names for every trajectory.

    `acc` is what verl takes as success in validation.
    """
    calls = trajectory.calls
    return {
        "acc": float(reward.correct),
        "calls": float(len(calls)),
        "failed_calls": float(sum(call.status is not CallStatus.OK for call in calls)),
        MALFORMED_KEY: float(sum(call.status is CallStatus.MALFORMED for call in calls)),
        "turns": float(trajectory.turns),
        "sampled_tokens": float(sum(trajectory.mask)),
        "truncated": float(trajectory.truncated),
        "tool_s": sum(call.duration_s for call in calls),
        "episode_s": trajectory.duration_s,
    }


def output_fields(row: Row, report: Mapping[str, float], versions: Versions, sampled_s: float) -> dict[str, Any]:
    """The fields of verl's `AgentLoopOutput`, but for `metrics`, which is a class of verl's.

    Every field is set in every output, because verl takes the names from the first one of a batch.

    Args:
        row: the tokens.
        report: see `report_of`.
        versions: of the weights that sampled it; verl tells by them how stale it is.
        sampled_s: seconds that the episode waited for the engine.
    """
    return {
        "prompt_ids": row.prompt_ids,
        "response_ids": row.response_ids,
        "response_mask": row.response_mask,
        "response_logprobs": row.response_logprobs,
        "reward_score": row.score,
        "num_turns": int(2 * report["turns"]),
        "metrics": {
            "generate_sequences": sampled_s,
            "tool_calls": report["tool_s"],
            "compute_score": 0.0,
            "num_preempted": -1,
        },
        "extra_fields": {
            "reward_extra_info": dict(report),
            "min_global_steps": versions.oldest,
            "max_global_steps": versions.newest,
            "turn_scores": [],
            "tool_rewards": [],
        },
    }


def batch_metrics(reports: Sequence[Mapping[str, float]], scores: Sequence[float], wanted: int) -> dict[str, float]:
    """The metrics of a batch, under the names that the local trainer uses.

    Args:
        reports: of the trajectories that are trained on, at least one.
        scores: their rewards, in order.
        wanted: how many were to be played; those that are missing failed through a fault of ours.
    """
    count = len(reports)
    total = {name: sum(report[name] for report in reports) for name in reports[0]}
    mean = sum(scores) / count
    return {
        "reward/mean": mean,
        "reward/std": (sum((score - mean) ** 2 for score in scores) / count) ** 0.5,
        "success/mean": total["acc"] / count,
        "rollout/calls_mean": total["calls"] / count,
        "rollout/turns_mean": total["turns"] / count,
        "rollout/sampled_tokens_mean": total["sampled_tokens"] / count,
        "rollout/truncated": total["truncated"] / count,
        "rollout/faults": max(0, wanted - count) / max(wanted, count),
        "rollout/failed_calls": total["failed_calls"] / max(1.0, total["calls"]),
        "rollout/malformed": total[MALFORMED_KEY] / max(1.0, total["calls"]),
        "rollout/tool_s_mean": total["tool_s"] / count,
        "rollout/episode_s_mean": total["episode_s"] / count,
        "rollout/episode_s_max": max(report["episode_s"] for report in reports),
    }
