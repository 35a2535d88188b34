"""Each algorithm is the formula of its paper: written out slowly here, token by token, in float64."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from recall.advantage import ADVANTAGES  # noqa: E402
from recall.trainers.algorithms import ALGORITHMS, Algorithm, surrogate, token_weights, whitened  # noqa: E402

LENGTH = 7
"""The constant length of the algorithms that divide by one."""


def slow_objective(name: str, logprobs: Sequence[Any], old: Sequence[Any], advantages: Sequence[float]) -> Any:
    """What an algorithm maximises over one batch, by its paper.

    Args:
        name: of the algorithm.
        logprobs: [S] tensors [T] of nats under the policy that is trained.
        old: [S] tensors [T] of nats under the policy that sampled.
        advantages: [S] of the trajectories.
    """
    S, tokens, total = len(logprobs), sum(len(row) for row in logprobs), torch.zeros((), dtype=torch.float64)  # noqa: N806
    for new_row, old_row, advantage in zip(logprobs, old, advantages, strict=True):
        length = len(new_row)
        if name == "gspo":
            ratio = torch.exp((new_row - old_row).mean())
            total = total + torch.minimum(ratio * advantage, ratio.clamp(1 - 3e-4, 1 + 4e-4) * advantage) / S
            continue
        for new, before in zip(new_row, old_row, strict=True):
            ratio = torch.exp(new - before)
            clipped = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.28 if name == "dapo" else 1.2) * advantage)
            if name == "grpo":
                total = total + clipped / length / S
            elif name == "dr_grpo":
                total = total + clipped / LENGTH / S
            elif name in ("dapo", "reinforce_pp", "reinforce_pp_baseline"):
                total = total + clipped / tokens
            elif name == "cispo":
                total = total + ratio.detach().clamp(max=3.0) * advantage * new / tokens
            elif name == "rloo":
                total = total + ratio * advantage / LENGTH / S
            else:
                raise ValueError(name)
    return total


@dataclass(frozen=True)
class Batch:
    logprobs: list[Any]
    old: list[Any]
    advantages: list[float]


def batch(seed: int) -> Batch:
    """Five trajectories, one of them without any credit; ratios from 0.2 to 5, some of them exactly 1."""
    rng = random.Random(seed)
    lengths = [1, *(rng.randint(2, 9) for _ in range(4))]
    old = [torch.tensor([-rng.expovariate(1.0) - 0.05 for _ in range(n)], dtype=torch.float64) for n in lengths]
    moved = [row + torch.tensor([rng.choice((0.0, rng.gauss(0, 0.5))) for _ in row]) for row in old]
    return Batch([row.requires_grad_() for row in moved], old, [0.0, *(rng.gauss(0, 1) for _ in range(4))])


def flat(batch: Batch, algorithm: Algorithm) -> tuple[Any, Any]:
    """The weighted objective as the learner computes it, and what there is to watch."""
    lengths = torch.tensor([len(row) for row in batch.logprobs], dtype=torch.float64)
    sequence = torch.repeat_interleave(torch.arange(len(lengths)), lengths.long())
    terms = surrogate(
        torch.cat(batch.logprobs),
        torch.cat(batch.old),
        torch.tensor(batch.advantages, dtype=torch.float64)[sequence],
        sequence,
        algorithm,
    )
    return (terms.objective * token_weights(lengths, algorithm, LENGTH)[sequence]).sum(), terms


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ALGORITHMS)
def test_objective_and_gradient_are_those_of_the_paper(name: str, seed: int) -> None:
    given = batch(seed)
    expected = slow_objective(name, given.logprobs, given.old, given.advantages)
    found, _ = flat(given, ALGORITHMS[name])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    wanted = torch.autograd.grad(expected, given.logprobs)
    for mine, theirs in zip(torch.autograd.grad(found, given.logprobs), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_where_the_policy_did_not_move_every_algorithm_is_the_plain_policy_gradient(name: str) -> None:
    given = batch(0)
    unmoved = Batch([row.clone().requires_grad_() for row in given.old], given.old, given.advantages)
    found, terms = flat(unmoved, ALGORITHMS[name])
    lengths = torch.tensor([len(row) for row in unmoved.old], dtype=torch.float64)
    weights = token_weights(lengths, ALGORITHMS[name], LENGTH)
    for gradient, weight, advantage in zip(
        torch.autograd.grad(found, unmoved.logprobs), weights, unmoved.advantages, strict=True
    ):
        torch.testing.assert_close(gradient, torch.full_like(gradient, float(weight) * advantage))
    assert terms.clipped.sum() == 0
    assert terms.ratio.tolist() == [1.0] * int(lengths.sum())


@pytest.mark.parametrize("name", ["grpo", "dapo", "gspo"])
def test_a_token_counts_as_clipped_exactly_where_the_clip_takes_its_gradient(name: str) -> None:
    for seed in range(5):
        given = batch(seed)
        found, terms = flat(given, ALGORITHMS[name])
        gradient = torch.cat(torch.autograd.grad(found, given.logprobs))
        credit = torch.repeat_interleave(
            torch.tensor(given.advantages), torch.tensor([len(row) for row in given.logprobs])
        )
        assert terms.clipped.bool().tolist() == ((gradient == 0) & (credit != 0)).tolist()


@pytest.mark.parametrize(
    ("average", "expected"), [("sequence", [1 / 8, 1 / 24]), ("token", [1 / 8, 1 / 8]), ("constant", [1 / 14, 1 / 14])]
)
def test_token_weights_average_as_named(average: Any, expected: list[float]) -> None:
    algorithm = replace(ALGORITHMS["grpo"], average=average)
    lengths = torch.tensor([4.0, 12.0] if average == "sequence" else [2.0, 6.0])
    assert token_weights(lengths, algorithm, LENGTH).tolist() == pytest.approx(expected)


def test_every_algorithm_names_an_advantage_that_there_is() -> None:
    assert {algorithm.advantage for algorithm in ALGORITHMS.values()} <= set(ADVANTAGES)
    assert all(math.isfinite(algorithm.clip_high) for algorithm in ALGORITHMS.values())


def test_whitening_counts_every_token_of_a_batch_once() -> None:
    """REINFORCE++ written out: one entry a token, centred on the batch's mean, divided by its standard deviation."""
    advantages, lengths = [1.0, 0.0, 0.0, 0.25], [3, 5, 1, 7]
    tokens = [value for value, length in zip(advantages, lengths, strict=True) for _ in range(length)]
    mean = sum(tokens) / len(tokens)
    std = math.sqrt(sum((value - mean) ** 2 for value in tokens) / len(tokens))
    assert whitened(advantages, lengths) == pytest.approx([(value - mean) / std for value in advantages], rel=1e-12)


def test_a_batch_without_variance_is_whitened_to_nothing() -> None:
    assert whitened([0.3, 0.1 + 0.2], [4, 9]) == [0.0, 0.0]
    assert whitened([1.0, 0.0], [0, 0]) == [0.0, 0.0]
    assert whitened([1.0, 0.0], [5, 0]) == [0.0, 0.0]
