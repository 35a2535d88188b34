"""The soft punishment of length, and the watch over engine and trainer."""

import pytest

pytest.importorskip("torch")

from recall.environment import Limits
from recall.errors import ConfigError, PolicyError
from recall.rewards import get
from recall.trainers.following import FAR, PATIENCE, Drift, DriftWatch
from recall.trainers.recipe import LearnerSettings, RolloutSettings, TrainRecipe
from recall.trainers.shaping import overlong, reward_of
from recall.types import Segment, StopReason, Task, Trajectory

TASK = Task("t", "2 + 2?", ("4",))


def episode(tokens: int, stop: StopReason = StopReason.DONE, answer: str | None = "4") -> Trajectory:
    prompt, turn = Segment((1,) * 10), Segment((2,) * (tokens - 10), (-1.0,) * (tokens - 10))
    return Trajectory("t", (prompt, turn), stop, answer=answer)


def test_punishment_falls_evenly_over_the_last_tokens_before_the_limit() -> None:
    punished = [overlong(episode(tokens), limit=100, ramp=40) for tokens in (50, 60, 70, 80, 100)]
    assert punished == pytest.approx([0.0, 0.0, -0.25, -0.5, -1.0])


def test_an_episode_that_the_limit_ended_is_punished_in_full_however_long() -> None:
    assert overlong(episode(40, StopReason.MAX_TOKENS), limit=100, ramp=40) == -1.0


def recipe(ramp: int) -> TrainRecipe:
    limits = Limits(max_turns=2, max_tokens=100, max_turn_tokens=90)
    return TrainRecipe(rollout=RolloutSettings(limits=limits), learner=LearnerSettings(overlong_tokens=ramp))


def test_shaping_moves_the_score_and_leaves_success_alone() -> None:
    result = reward_of(recipe(40))(TASK, episode(80))
    assert (result.score, result.correct, result.parts["overlong"]) == (0.5, True, -0.5)


def test_without_a_ramp_the_reward_is_the_named_one() -> None:
    assert reward_of(recipe(0)) is get("exact")


def test_a_ramp_as_long_as_the_episode_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"learner\.overlong_tokens"):
        reward_of(recipe(100))


def test_drift_within_the_tolerance_is_reported_and_nothing_more() -> None:
    seen = DriftWatch(1e-3, float32=True).saw(Drift(1e-5, 9e-4))
    assert seen == {"engine/drift_mean": 1e-5, "engine/drift_max": 9e-4, "engine/drifted": 0.0}


def test_drift_is_counted_and_ends_the_run_when_it_stays() -> None:
    watch = DriftWatch(1e-3, float32=True)
    for _ in range(PATIENCE - 1):
        assert watch.saw(Drift(1e-3, 2e-3))["engine/drifted"] == 1.0
    with pytest.raises(PolicyError, match=r"policy\.vllm\.tolerance"):
        watch.saw(Drift(1e-3, 2e-3))


def test_drift_that_passes_is_forgotten() -> None:
    watch = DriftWatch(1e-3, float32=True)
    for _ in range(3 * PATIENCE):
        watch.saw(Drift(1e-3, 2e-3))
        assert watch.saw(Drift(0.0, 0.0))["engine/drifted"] == 0.0


@pytest.mark.parametrize("far", [FAR * 1.1e-3, float("nan")])
def test_a_drift_that_no_rounding_explains_ends_the_run_at_once(far: float) -> None:
    with pytest.raises(PolicyError):
        DriftWatch(1e-3, float32=True).saw(Drift(far, far))


def test_in_bfloat16_the_mean_counts() -> None:
    assert DriftWatch(0.05, float32=False).saw(Drift(0.01, 2.0))["engine/drifted"] == 0.0
