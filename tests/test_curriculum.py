import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from recall.errors import ConfigError
from recall.trainers.curriculum import CurriculumSettings, Stages, Templates, share_in_band
from recall.trainers.levels import Levels, LevelSettings
from recall.types import Group, RewardResult, Segment, StopReason, Task, Trajectory

STAGES = (("1", "2"), ("3", "join"), ("4",))


def curriculum(**rates: float) -> Stages:
    made = Stages(STAGES, CurriculumSettings(unlock=0.6, floor=0.15, smoothing=0.5))
    made.smooth({name.removeprefix("k"): rate for name, rate in rates.items()})
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
    made.smooth({"1": 0.4})
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
    again = Stages(STAGES, made.settings)
    again.restore(json.loads(json.dumps(made.state())))
    assert again.rates == made.rates
    made.smooth({"1": 0.0})
    assert again.rates["1"] == 0.9


def test_without_a_curriculum_every_kind_is_in_the_mix_and_weighs_the_same() -> None:
    made = Stages(STAGES, CurriculumSettings(by="none"))
    made.smooth({"1": 1.0, "2": 0.0})
    assert made.unlocked() == ["1", "2", "3", "join", "4"]
    assert {made.weight(kind) for kind in made.unlocked()} == {1.0}


def group(kind: str, solved: Sequence[bool], *, levels: Mapping[str, int] | None = None, faults: int = 0) -> Group:
    """A group of a task; the last `faults` trajectories failed for reasons of ours."""
    task = Task("t", "?", ("x",), kind=kind, extra={"synth": {"levels": levels or {}}})
    fault = [None] * (len(solved) - faults) + ["SandboxError: gone"] * faults
    return Group(
        task,
        [Trajectory("t", (Segment((1,)),), StopReason.DONE, fault=each) for each in fault],
        [RewardResult(float(each), each) for each in solved],
    )


SOLVED, MIXED, FAILED = (True,) * 4, (True, False) * 2, (False,) * 4


def templates(**changes: Any) -> Templates:
    settings = CurriculumSettings(by="templates", floor=0.1)
    return Templates(settings.model_copy(update=changes), TOPS)


TOPS = {"calls": 3, "rows": 2}


@pytest.mark.parametrize(("outcome", "end"), [(FAILED, 0.0), (SOLVED, 1.0)])
def test_a_template_leaves_the_band_after_some_groups_of_one_outcome_and_comes_back(
    outcome: Sequence[bool], end: float
) -> None:
    made = templates()
    weights = []
    for _ in range(11):
        weights.append(made.weight("hop3"))
        made.observe([group("hop3", outcome)])
    assert weights == [1.0] * 8 + [0.1] * 3
    assert made.rates["hop3"] == pytest.approx(end, abs=0.05)
    made.observe([group("hop3", MIXED)])
    assert made.weight("hop3") == 1.0


def test_a_template_that_was_never_met_weighs_fully() -> None:
    assert templates().weight("hop3") == 1.0


def test_the_ends_of_the_band_are_outside_of_it() -> None:
    made = templates()
    assert [made.in_band(rate) for rate in (0.1, 0.11, 0.89, 0.9)] == [False, True, True, False]


def test_tasks_are_chosen_in_proportion_to_their_weights_and_kept_in_order() -> None:
    made = templates()
    for _ in range(12):
        made.observe([group("easy", SOLVED)])
    rng = random.Random(0)
    kinds = ["easy", "new"] * 4
    chosen = [place for _ in range(2000) for place in made.choose(kinds, 1, rng)]
    assert sum(kinds[place] == "easy" for place in chosen) / 2000 == pytest.approx(0.1 / 1.1, abs=0.02)
    places = made.choose(kinds, 5, rng)
    assert len(set(places)) == 5
    assert places == sorted(places)
    assert made.choose(kinds, 8, rng) == list(range(8))


def test_when_all_templates_are_outside_of_the_band_tasks_are_chosen_all_the_same() -> None:
    made = templates()
    for _ in range(12):
        made.observe([group("easy", SOLVED), group("hard", FAILED)])
    assert len(made.choose(["easy", "hard"], 2, random.Random(0))) == 2


def test_a_group_is_counted_without_its_faults_and_not_at_all_where_there_is_nothing_else() -> None:
    made = templates()
    made.observe([group("hop3", (True, True, False, False), faults=2), group("sum", FAILED, faults=4)])
    assert made.rates == {"hop3": pytest.approx(0.8 * 0.5 + 0.2)}


def test_the_share_of_groups_in_the_band() -> None:
    groups = [group("a", SOLVED), group("a", MIXED), group("b", FAILED), group("b", FAILED, faults=4)]
    assert share_in_band(groups, CurriculumSettings()) == pytest.approx(1 / 3)
    assert share_in_band([], CurriculumSettings()) == 0.0


def test_metrics_name_the_templates_just_met_and_count_all() -> None:
    made = templates()
    for _ in range(12):
        made.observe([group("easy", SOLVED)])
    made.observe([group("hop3", MIXED)])
    assert made.metrics() == {
        "curriculum/pass/hop3": 0.5,
        "curriculum/templates": 2.0,
        "curriculum/templates_in_band": 0.5,
    }


def test_switched_off_every_template_weighs_the_same_and_is_reported() -> None:
    made = templates(by="none")
    for _ in range(12):
        made.observe([group("easy", SOLVED)])
    assert made.weight("easy") == 1.0
    assert made.metrics()["curriculum/pass/easy"] > 0.9


def levels(start: Mapping[str, int], **changes: Any) -> Levels:
    return Levels(LevelSettings(start=start, groups=4, up=0.6, down=0.15, **changes), TOPS)


def feed(made: Levels, at: Mapping[str, int], rate: float, count: int = 4) -> dict[str, int]:
    for _ in range(count):
        made.observe(at, rate)
    return made.now


def test_an_attribute_gets_harder_when_its_level_is_solved_and_easier_when_it_is_hopeless() -> None:
    made = levels({"calls": 1})
    assert feed(made, {"calls": 1}, 0.9) == {"calls": 2}
    assert feed(made, {"calls": 2}, 0.4) == {"calls": 2}
    assert feed(made, {"calls": 2}, 0.1) == {"calls": 1}
    assert feed(made, {"calls": 1}, 0.0, count=8) == {"calls": 0}
    assert feed(made, {"calls": 0}, 0.0, count=8) == {"calls": 0}


def test_an_attribute_stops_at_its_highest_level() -> None:
    made = levels({"rows": 2})
    assert feed(made, {"rows": 2}, 1.0, count=12) == {"rows": 2}


def test_only_what_was_played_at_the_present_level_decides_and_each_attribute_for_itself() -> None:
    made = levels({"calls": 1, "rows": 1})
    assert feed(made, {"calls": 0, "rows": 1}, 1.0, count=3) == {"calls": 1, "rows": 1}
    assert feed(made, {"calls": 0, "rows": 1}, 1.0, count=1) == {"calls": 1, "rows": 2}
    assert feed(made, {"calls": 1, "rows": 0}, 0.0) == {"calls": 0, "rows": 2}


def test_levels_below_the_present_one_come_back_now_and_then() -> None:
    made = levels({"calls": 2, "rows": 0}, back=0.3)
    drawn = [made.draw(random.Random(seed)) for seed in range(3000)]
    counts = Counter(each["calls"] for each in drawn)
    assert set(counts) == {0, 1, 2}
    assert counts[2] / 3000 == pytest.approx(0.7, abs=0.03)
    assert {each["rows"] for each in drawn} == {0}


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"call": 1}, "curriculum.levels.start: unknown attribute 'call'; accepted: calls, rows"),
        ({"calls": 4}, "curriculum.levels.start.calls: got 4; accepted: 0 to 3"),
        ({"calls": -1}, "curriculum.levels.start.calls: got -1; accepted: 0 to 3"),
    ],
)
def test_an_attribute_or_a_level_that_there_is_not_is_refused(start: Mapping[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        levels(start)


def test_the_state_of_templates_and_levels_goes_through_json_and_back() -> None:
    settings = CurriculumSettings(by="templates", levels=LevelSettings(start={"calls": 1}, groups=3))
    one, other = Templates(settings, TOPS), Templates(settings, TOPS)
    one.observe([group("hop1", MIXED, levels={"calls": 1})] * 2)
    other.restore(json.loads(json.dumps(one.state())))
    for made in (one, other):
        made.observe([group("hop1", SOLVED, levels={"calls": 1})])
    assert one.state() == other.state()
    assert one.levels.now == {"calls": 2}


def test_a_band_or_levels_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ValueError, match=r"curriculum\.low must be below curriculum\.high"):
        CurriculumSettings(low=0.9, high=0.1)
    with pytest.raises(ValueError, match=r"curriculum\.levels\.down must be below"):
        LevelSettings(up=0.1, down=0.5)
