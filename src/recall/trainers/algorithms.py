"""Policy-gradient algorithms by name, as data: how credit, ratio, clipping and averaging are chosen.

All of them maximise, over the tokens that the policy sampled, a weighted sum of `ratio * advantage`; what differs is in
the fields below. Nothing here touches a model.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from recall.advantage import EQUAL


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One way of turning advantages into a gradient."""

    advantage: str
    """The name of its advantages in `recall.advantage.ADVANTAGES`."""
    ratio: Literal["token", "sequence"] = "token"
    """`sequence`: one ratio a trajectory, the geometric mean of its tokens' (GSPO)."""
    clip: Literal["ppo", "detached", "none"] = "ppo"
    """`ppo`: the smaller of the clipped and the unclipped term. `detached`: the clipped ratio is a constant weight of
    the log-probability (CISPO). `none`: the ratio as it is."""
    clip_low: float = 0.2
    """Ratios below 1 - clip_low are clipped."""
    clip_high: float = 0.2
    """Ratios above 1 + clip_high are clipped."""
    average: Literal["sequence", "token", "constant"] = "token"
    """`sequence`: mean over trajectories of the mean over their tokens. `token`: mean over all tokens. `constant`: sum
    over tokens, divided by trajectories and by a constant length."""
    whiten: bool = False
    """Whether advantages are whitened over a batch, each trajectory counting by its sampled tokens (REINFORCE++)."""
    kl: float = 0.0
    """The weight of the divergence from the weights at the start, unless the recipe says another."""


ALGORITHMS: Mapping[str, Algorithm] = MappingProxyType(
    {
        # Shao et al. 2024, arXiv:2402.03300; the KL coefficient is that of the published ReCall
        "grpo": Algorithm("grpo", average="sequence", kl=0.001),
        # Liu et al. 2025, arXiv:2503.20783: no division by the standard deviation or by the length
        "dr_grpo": Algorithm("dr_grpo", average="constant"),
        # Yu et al. 2025, arXiv:2503.14476: clip higher, token mean
        "dapo": Algorithm("dapo", clip_high=0.28),
        # Zheng et al. 2025, arXiv:2507.18071: sequence ratio with a narrow clip
        "gspo": Algorithm("gspo", ratio="sequence", clip_low=3e-4, clip_high=4e-4, average="sequence"),
        # MiniMax 2025, arXiv:2506.13585: no lower clip, the upper one on a detached weight
        "cispo": Algorithm("cispo", clip="detached", clip_low=1.0, clip_high=2.0),
        # Ahmadian et al. 2024, arXiv:2402.14740: REINFORCE with a leave-one-out baseline; log-probabilities are summed
        "rloo": Algorithm("rloo", clip="none", average="constant"),
        # Hu et al. 2025, arXiv:2501.03262: no baseline but the batch's mean; or the group's mean before it
        "reinforce_pp": Algorithm("none", average="token", whiten=True),
        "reinforce_pp_baseline": Algorithm("dr_grpo", average="token", whiten=True),
    }
)


def whitened(advantages: Sequence[float], lengths: Sequence[int]) -> list[float]:
    """Centre advantages on their mean over the tokens of a batch, and divide them by their standard deviation there.

    Args:
        advantages: [S] of the trajectories.
        lengths: [S] sampled tokens of each.

    Returns:
        [S] advantages; exactly 0.0 where all of them are equal, hence no gradient.

    Source: REINFORCE++, Hu et al. 2025, arXiv:2501.03262, whose batch statistics are over tokens.
    """
    total = sum(lengths)
    if not total or max(advantages) - min(advantages) <= EQUAL:
        return [0.0] * len(advantages)
    mean = math.fsum(value * length for value, length in zip(advantages, lengths, strict=True)) / total
    square = math.fsum((value - mean) ** 2 * length for value, length in zip(advantages, lengths, strict=True)) / total
    return [(value - mean) / math.sqrt(square) for value in advantages] if square else [0.0] * len(advantages)


def token_weights(lengths: Tensor, algorithm: Algorithm, constant_length: int) -> Tensor:
    """The weight of each token in the sum, by trajectory.

    Args:
        lengths: [S] sampled tokens of each trajectory of one optimizer step.
        algorithm: its `average` decides.
        constant_length: the divisor of `constant`, in tokens.

    Returns:
        [S] the weight of every token of a trajectory.
    """
    if algorithm.average == "sequence":
        return 1.0 / (len(lengths) * lengths)
    if algorithm.average == "token":
        return torch.full_like(lengths, 1.0 / float(lengths.sum()))
    return torch.full_like(lengths, 1.0 / (len(lengths) * constant_length))


@dataclass(frozen=True, slots=True)
class Surrogate:
    """The objective of some tokens, and what is worth watching about it."""

    objective: Tensor
    """[M] to be maximised, before weights."""
    ratio: Tensor
    """[M] the probability ratio of each token, or of its trajectory; detached."""
    clipped: Tensor
    """[M] 1.0 where clipping took the gradient away or capped it, else 0.0."""


def surrogate(logprobs: Tensor, old: Tensor, advantages: Tensor, sequence: Tensor, algorithm: Algorithm) -> Surrogate:
    """The objective per token.

    Args:
        logprobs: [M] nats under the policy that is trained, with gradient.
        old: [M] nats under the policy that sampled.
        advantages: [M] of each token's trajectory.
        sequence: [M] the number of each token's trajectory, 0 to S - 1.
        algorithm: decides the rest.
    """
    difference = logprobs - old
    if algorithm.ratio == "sequence":
        count = int(sequence.max()) + 1
        lengths = torch.bincount(sequence, minlength=count).to(difference)
        mean = torch.zeros(count, dtype=difference.dtype, device=difference.device)
        mean = mean.index_add(0, sequence, difference) / lengths.clamp(min=1)
        # The gradient of a token is its own, its size that of the sequence's ratio.
        difference = mean.detach()[sequence] + logprobs - logprobs.detach()
    ratio = difference.exp()
    low, high = 1 - algorithm.clip_low, 1 + algorithm.clip_high
    outside = ((advantages > 0) & (ratio > high)) | ((advantages < 0) & (ratio < low))
    if algorithm.clip == "ppo":
        objective = torch.minimum(ratio * advantages, ratio.clamp(low, high) * advantages)
    elif algorithm.clip == "detached":
        outside = (ratio > high) | (ratio < low)
        objective = ratio.detach().clamp(low, high) * advantages * logprobs
    else:
        outside = torch.zeros_like(outside)
        objective = ratio * advantages
    return Surrogate(objective, ratio.detach(), outside.to(ratio.dtype))
