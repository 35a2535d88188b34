"""Advantages of a group."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recall.advantage import ADVANTAGES, group_advantages, pass_rate, rloo_advantages

REWARDS = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=16)
CENTRED = {name: estimate for name, estimate in ADVANTAGES.items() if name != "none"}
ESTIMATORS = pytest.mark.parametrize("estimate", list(CENTRED.values()), ids=list(CENTRED))
Estimator = Callable[[list[float]], list[float]]


@ESTIMATORS
@settings(deadline=None)
@given(rewards=REWARDS)
def test_advantages_sum_to_zero_and_keep_the_order(estimate: Estimator, rewards: list[float]) -> None:
    advantages = estimate(rewards)
    assert len(advantages) == len(rewards)
    assert math.fsum(advantages) == pytest.approx(0.0, abs=1e-5)
    ranked = [a for _, a in sorted(zip(rewards, advantages, strict=True))]
    assert all(low <= high + 1e-9 for low, high in pairwise(ranked))


@ESTIMATORS
@pytest.mark.parametrize("rewards", [[0.1] * 3, [0.0], [0.3, 0.1 + 0.2], [1.0] * 8])
def test_equal_rewards_teach_nothing(estimate: Estimator, rewards: list[float]) -> None:
    assert estimate(rewards) == [0.0] * len(rewards)


@ESTIMATORS
@pytest.mark.parametrize("rewards", [[], [math.nan, 1.0], [math.inf]])
def test_rewards_that_are_none_are_refused(estimate: Estimator, rewards: list[float]) -> None:
    with pytest.raises(ValueError):
        estimate(rewards)


def test_known_values() -> None:
    assert group_advantages([1.0, 0.0, 0.0, 0.0]) == [0.75, -0.25, -0.25, -0.25]
    assert group_advantages([1.0, 0.0], scale_by_std=True) == [1.0, -1.0]
    assert rloo_advantages([1.0, 0.0, 0.0]) == [1.0, -0.5, -0.5]
    assert pass_rate([True, False, False, False]) == 0.25


@settings(deadline=None)
@given(rewards=REWARDS)
def test_scaled_advantages_have_unit_variance(rewards: list[float]) -> None:
    advantages = group_advantages(rewards, scale_by_std=True)
    if any(advantages):
        assert math.fsum(a * a for a in advantages) / len(advantages) == pytest.approx(1.0, rel=1e-4)


def test_pass_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError):
        pass_rate([])


def test_without_a_baseline_advantages_are_the_rewards() -> None:
    assert ADVANTAGES["none"]([1.0, 1.0, 0.25]) == [1.0, 1.0, 0.25]
    with pytest.raises(ValueError):
        ADVANTAGES["none"]([math.nan])
