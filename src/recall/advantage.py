"""From the rewards of a group to the advantages of its trajectories. The losses that use them are the trainers'."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

EQUAL = 1e-9
"""Rewards that differ by no more than this are equal: less is rounding, which a division by std would blow up to 1."""


def group_advantages(rewards: Sequence[float], *, scale_by_std: bool = False) -> list[float]:
    """Centre each reward on the mean of its group.

    Args:
        rewards: [G] one scalar per trajectory of the same task, in reward units.
        scale_by_std: divide by the group's population standard deviation, as GRPO does.

    Returns:
        [G] advantages; exactly 0.0 when the rewards are equal, hence no gradient.

    Raises:
        ValueError: `rewards` is empty or holds NaN or an infinity.

    Source: GRPO, Shao et al. 2024, arXiv:2402.03300; Dr. GRPO, Liu et al. 2025, arXiv:2503.20783.
    """
    if _all_equal(rewards):
        return [0.0] * len(rewards)
    mean = math.fsum(rewards) / len(rewards)
    centred = [reward - mean for reward in rewards]
    if not scale_by_std:
        return centred
    std = math.sqrt(math.fsum(value * value for value in centred) / len(centred))
    return [value / std for value in centred]


def rloo_advantages(rewards: Sequence[float]) -> list[float]:
    """Compare each reward with the mean of the others in its group (leave-one-out), an unbiased baseline.

    Args:
        rewards: [G] one scalar per trajectory of the same task, in reward units.

    Returns:
        [G] advantages; exactly 0.0 when the rewards are equal, a group of one included.

    Raises:
        ValueError: `rewards` is empty or holds NaN or an infinity.

    Source: RLOO, Ahmadian et al. 2024, arXiv:2402.14740.
    """
    if _all_equal(rewards):
        return [0.0] * len(rewards)
    total = math.fsum(rewards)
    return [reward - (total - reward) / (len(rewards) - 1) for reward in rewards]


def pass_rate(correct: Sequence[bool]) -> float:
    """The share of a group's [G] trajectories that solved the task.

    Raises:
        ValueError: `correct` is empty.
    """
    if not correct:
        raise ValueError("no pass rate of an empty group")
    return sum(correct) / len(correct)


def raw_rewards(rewards: Sequence[float]) -> list[float]:
    """No baseline within the group: [G] the rewards themselves, for algorithms that compare within a batch.

    Raises:
        ValueError: `rewards` is empty or holds NaN or an infinity.
    """
    _all_equal(rewards)
    return list(rewards)


Advantage = Callable[[Sequence[float]], list[float]]
"""[G] rewards of one group to its [G] advantages."""

_scaled: Advantage = partial(group_advantages, scale_by_std=True)

ADVANTAGES: Mapping[str, Advantage] = MappingProxyType(
    {
        "grpo": _scaled,
        "dr_grpo": group_advantages,
        "dapo": _scaled,
        "gspo": _scaled,
        "cispo": _scaled,
        "rloo": rloo_advantages,
        "none": raw_rewards,
    }
)
"""The estimator of each algorithm. DAPO (arXiv:2503.14476), GSPO (arXiv:2507.18071) and CISPO (arXiv:2506.13585) share
GRPO's and differ in their losses."""


def _all_equal(rewards: Sequence[float]) -> bool:
    if not rewards:
        raise ValueError("no advantages of an empty group")
    if not all(math.isfinite(reward) for reward in rewards):
        raise ValueError(f"rewards must be finite, got {list(rewards)}")
    return max(rewards) - min(rewards) <= EQUAL
