import json
import random
from collections import Counter

import pytest

from recall.trainers.curriculum import Curriculum, CurriculumSettings

STAGES = (("1", "2"), ("3", "join"), ("4",))


def curriculum(**rates: float) -> Curriculum:
    made = Curriculum(STAGES, CurriculumSettings(unlock=0.6, floor=0.15, smoothing=0.5))
    made.observe({name.removeprefix("k"): rate for name, rate in rates.items()})
    return made


@pytest.mark.parametrize(
    ("rate", "weight"), [(0.0, 1.0), (0.25, 1.0), (0.5, 1.0), (0.75, 0.75), (1.0, 0.15), (0.99, 0.15)]
)
def test_a_kind_weighs_less_the_more_of_it_is_solved_down_to_a_floor(rate: float, weight: float) -> None:
    assert curriculum(k1=rate).weight("1") == pytest.approx(weight)


def test_an_unseen_kind_weighs_most() -> None:
    assert curriculum().weight("4") == 1.0


def test_a_stage_joins_when_all_of_the_one_before_is_solved_often_enough() -> None:
    assert curriculum().unlocked() == ["1", "2"]
    assert curriculum(k1=0.9).unlocked() == ["1", "2"]
    assert curriculum(k1=0.9, k2=0.59).unlocked() == ["1", "2"]
    assert curriculum(k1=0.6, k2=0.6).unlocked() == ["1", "2", "3", "join"]
    assert curriculum(k1=0.9, k2=0.9, k3=0.7, join=0.7).unlocked() == ["1", "2", "3", "join", "4"]


def test_a_later_stage_waits_for_every_one_before_it() -> None:
    assert curriculum(k1=0.9, k2=0.1, k3=0.9, join=0.9).unlocked() == ["1", "2"]


def test_pass_rates_are_smoothed_from_the_first_one_seen() -> None:
    made = curriculum(k1=0.8)
    made.observe({"1": 0.4})
    assert made.rates == {"1": pytest.approx(0.6)}


def test_draws_follow_the_weights_and_name_unlocked_kinds_only() -> None:
    counts = Counter(curriculum(k1=0.99, k2=0.0).draw(4000, random.Random(0)))
    assert set(counts) == {"1", "2"}
    assert counts["1"] / 4000 == pytest.approx(0.15 / 1.15, abs=0.02)


def test_draws_are_a_function_of_state_and_chance() -> None:
    made = curriculum(k1=0.7, k2=0.3)
    assert made.draw(50, random.Random(1)) == curriculum(k2=0.3, k1=0.7).draw(50, random.Random(1))


def test_the_state_goes_through_json_and_back() -> None:
    made = curriculum(k1=0.9, k2=0.7, k3=0.123456789)
    again = Curriculum(STAGES, made.settings)
    again.restore(json.loads(json.dumps(made.state())))
    assert again.rates == made.rates
    made.observe({"1": 0.0})
    assert again.rates["1"] == 0.9
