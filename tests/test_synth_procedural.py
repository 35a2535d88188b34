"""Procedural tasks as wholes: what holds for every recipe, split and seed, in the sandbox and out of it."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st

from recall import answers
from recall.datasets.published import published_row
from recall.datasets.row import row_from_task, task_from_row
from recall.errors import ConfigError
from recall.programs import calls_of, references, run
from recall.sandbox.local import LocalSandbox
from recall.synth.procedural import phrases, skins
from recall.synth.procedural.certify import bare, provenance
from recall.synth.procedural.made import make
from recall.synth.procedural.recipe import LEVELS, OPERATORS, PRESETS, Recipe, recipe_of
from recall.synth.procedural.replay import replay
from recall.synth.procedural.tasks import SPLITS, Attempt, ProceduralTasks
from recall.synth.procedural.unknowable import UNKNOWABLE
from recall.synth.stateless import state_of
from recall.types import Task

DEFAULT = PRESETS["default"]


def spans(least: int, most: int, wide: int = 4) -> st.SearchStrategy[tuple[int, int]]:
    """A span within two bounds."""
    return st.tuples(st.integers(least, most), st.integers(0, wide)).map(lambda two: (two[0], min(most, sum(two))))


SHARES = st.sampled_from((0.0, 0.3, 1.0))
RECIPES = st.builds(
    Recipe,
    skins=st.sampled_from(((), ("library",), ("mine", "school"))),
    tasks_per_world=st.integers(1, 3),
    operators=st.sets(st.sampled_from(OPERATORS)).map(lambda some: tuple(sorted({*some, "hop", "combine"}))),
    calls=spans(1, 6),
    entities=spans(2, 5),
    fields=spans(2, 5),
    rows=spans(8, 30, 12),
    tools=spans(1, 30, 10),
    ids=SHARES, records=SHARES, prose=SHARES, pages=SHARES, page_size=spans(1, 6),
    duplicates=spans(0, 3), foreign=spans(0, 4), decoys=SHARES, failing=SHARES, denied=SHARES,
    missing=st.sampled_from((0.0, 0.3)),
    slack=st.integers(0, 4),
    counterfactuals=st.integers(1, 5),
    shared_shapes=st.just(1.0),
    plain=st.booleans(),
    stateless=st.booleans(),
)  # fmt: skip


def replayed(attempts: Iterable[Attempt]) -> list[str]:
    """What the sandbox finds wrong with some tasks."""

    async def run() -> list[str]:
        sandbox = LocalSandbox()
        try:
            return await replay(sandbox, [(each.task, each.results) for each in attempts if each.task is not None])
        finally:
            await sandbox.close()

    return asyncio.run(run())


def check(attempt: Attempt, tasks: ProceduralTasks) -> None:
    """What holds for every task of a recipe."""
    task, recipe = attempt.task, tasks.recipe
    assert task is not None
    claims = task.extra["synth"]
    calls = calls_of(task.reference)
    names = [tool.name for tool in task.tools]
    unknown = task.ground_truth == (UNKNOWABLE,)
    assert task.split == tasks.split
    assert task.question.strip() == task.question
    assert not {"{", "\x00"} & {*task.question}
    assert len(names) == len(set(names))
    assert len(calls) == claims["calls"] == claims["shortest"] == task.depth
    assert task.max_calls is not None
    assert task.max_calls >= len(calls) + claims["retries"]
    assert unknown or recipe.calls[0] <= len(calls) <= recipe.calls[1]
    assert unknown or {call["name"] for call in calls} <= set(names)
    assert set(claims["operators"]) <= set(recipe.operators)
    assert claims["levels"].keys() == LEVELS.keys()
    assert unknown or claims["counterfactual"] == 1
    (truth,) = task.ground_truth
    assert answers.equal(truth, task.ground_truth, task.answer_type)
    assert unknown or not answers.equal("0", task.ground_truth, task.answer_type)
    assert truth not in task.question or unknown
    if not unknown:
        items = [item for item in task.reference if "name" in item]
        provenance(task.question, items, attempt.results)
        guesses = [bare(result) for item, result in zip(items, attempt.results, strict=True) if not refers(item)]
        if len(items) > 1:
            assert not any(same(guess, task) for guess in guesses)
    if recipe.stateless:
        assert state_of(task) is None
        assert all(attempt.results)
    assert task_from_row(json.loads(json.dumps(row_from_task(task))), "row") == task


def refers(item: dict[str, Any] | Any) -> bool:
    return any(True for _ in references(item["arguments"]))


def same(value: Any, task: Task) -> bool:
    text = value if isinstance(value, str) else json.dumps(value)
    return answers.equal(text, task.ground_truth, task.answer_type)


@settings(
    max_examples=25, derandomize=True, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)  # fmt: skip
@given(RECIPES, st.integers(0, 10**6), st.sampled_from([split for split in SPLITS if split != "new_skins"]))
def test_every_task_of_every_recipe_replays_in_the_sandbox_and_holds_what_it_claims(
    recipe: Recipe, seed: int, split: str
) -> None:
    tasks = ProceduralTasks(recipe, seed=seed, split=split)
    try:
        attempts = [tasks.attempts(index)[-1] for index in range(recipe.tasks_per_world)]
    except ConfigError:  # it asks for what its worlds do not have
        reject()
    for attempt in attempts:
        check(attempt, tasks)
    assert set(replayed(attempts)) == {""}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("split", SPLITS)
def test_every_preset_has_tasks_of_every_split(preset: str, split: str) -> None:
    tasks = ProceduralTasks(PRESETS[preset], seed=1, split=split)
    for index in range(4):
        check(tasks.attempts(index)[-1], tasks)


@pytest.fixture(scope="module")
def many() -> list[Task]:
    """A few hundred tasks of the default recipe."""
    return ProceduralTasks(DEFAULT, seed=21).take(560)


# What is drawn


def test_skins_operators_and_answers_of_all_kinds_occur(many: list[Task]) -> None:
    domains = Counter(task.extra["synth"]["domain"] for task in many)
    assert len(domains) >= 20
    assert {*domains} <= {*skins.NAMES} - {*skins.HELD_OUT}
    assert len(skins.NAMES) >= 25
    operators = Counter(name for task in many for name in task.extra["synth"]["operators"])
    assert set(operators) == set(OPERATORS)
    assert {task.answer_type.kind for task in many} == {"integer", "number", "date", "entity", "set"}


def test_calls_are_spread_evenly_over_the_span_and_some_can_be_made_at_once(many: list[Task]) -> None:
    calls = Counter(task.depth for task in many)
    assert set(calls) == set(range(DEFAULT.calls[0], DEFAULT.calls[1] + 1))
    assert min(calls.values()) > len(many) / 15
    assert any(task.extra["synth"]["width"] > 3 for task in many)
    assert any(task.extra["synth"]["depth"] > 4 for task in many)


def test_a_failing_tool_is_met_by_about_the_share_of_tasks_that_the_recipe_says() -> None:
    tasks = ProceduralTasks(DEFAULT.model_copy(update={"failing": 0.3}), seed=2).take(240)
    share = sum(task.extra["synth"]["retries"] > 0 for task in tasks) / len(tasks)
    assert 0.15 < share < 0.45
    assert all(("retry" in str(task.reference)) == (task.extra["synth"]["retries"] > 0) for task in tasks)


def test_worlds_share_nothing_but_words(many: list[Task]) -> None:
    assert len({task.env for task in many}) == len({task.extra["synth"]["world"] for task in many}) == len(many) / 8
    assert len({task.question for task in many}) == len(many)


def test_no_question_is_broken(many: list[Task]) -> None:
    for task in many:
        text = task.question
        assert re.fullmatch(r"[A-Z].*[.?]", text), text
        assert not re.search(r"\ba [aeio]\w|\ban [bcdfgjklmnpqrstvwxyz]\w", text), text
        assert not re.search(r"\b(the the|of of|a a|all all|each of each|these those|is is)\b", text), text
        assert not re.search(r"  |,\.|,,|\.\.", text), text
        assert not re.search(r"(?<![.?:] )(?<!^)\b(Find|Tell|Give|Take|What|Which|Compare)\b", text), text
        if letters := re.findall(r"Call (?:it|them) ([\w -]+?)\.", text):
            assert len(letters) == len(set(letters)), text


WAYS: dict[str, tuple[phrases.Ways, ...]] = {
    "hop": (phrases.STEPS,), "members": (phrases.MEMBERS, ("the skin's own",)), "range": (phrases.BETWEEN,),
    "where": (phrases.LABELLED, ("the skin's own",)), "top": (phrases.TOPS, phrases.TOPS_APART),
    "total": (phrases.TOTALS,), "count": (phrases.TIMES,), "combine": (phrases.SUMS, phrases.DIFFERENCES),
    "days": (phrases.DAYS, phrases.LATER), "convert": (phrases.CONVERSIONS, phrases.RESCALES),
    "both": (phrases.BOTH, phrases.BOTH_APART), "targets": (phrases.TARGETS, phrases.TARGETS_APART),
    "whichever": (phrases.WHICHEVERS, phrases.WHICHEVERS_APART), "conditional": (phrases.CHOICES,),
    "list": (phrases.LISTS,), "update": (phrases.ACTS, phrases.MOVES),
}  # fmt: skip


def test_every_operator_is_said_in_six_ways_at_least() -> None:
    assert set(WAYS) == set(OPERATORS)
    for operator, ways in WAYS.items():
        every = [way for group in ways for way in group]
        assert len(set(every)) == len(every) >= 6, operator


# Splits


def test_no_structure_question_or_environment_is_in_two_splits() -> None:
    seen: dict[str, dict[str, str]] = {"structure": {}, "env": {}, "question": {}}
    for split in SPLITS:
        for task in ProceduralTasks(DEFAULT, seed=9, split=split).take(64 if split == "train" else 24):
            parts = {"structure": task.extra["synth"]["structure"], "env": task.env, "question": task.question}
            for name, value in parts.items():
                assert seen[name].setdefault(value, split) == split, (name, value)


def test_splits_differ_in_what_they_are_named_after() -> None:
    def drawn(split: str) -> list[Task]:
        return ProceduralTasks(DEFAULT, seed=4, split=split).take(32)

    trained = {task.extra["synth"]["template"] for task in drawn("train")}
    assert not trained & {task.extra["synth"]["template"] for task in drawn("new_templates")}
    assert {task.extra["synth"]["domain"] for task in drawn("new_skins")} <= {*skins.HELD_OUT}
    assert {task.depth for task in drawn("deeper")} == {8, 9}
    low, high = DEFAULT.tools
    shown = [len(task.tools) for task in drawn("more_tools")]
    assert min(shown) >= 2 * low
    assert max(shown) > high
    assert sum(shown) / len(shown) > 1.7 * sum(len(task.tools) for task in drawn("train")) / 32


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ConfigError, match="split 'test': accepted are train, validation, "):
        ProceduralTasks(DEFAULT, split="test")


# Numbers


def test_tasks_by_number_are_the_same_in_any_order_and_from_any_instance() -> None:
    forward = ProceduralTasks(DEFAULT, seed=8).take(20)
    again = ProceduralTasks(DEFAULT, seed=8)
    assert [again[index] for index in (19, 3, 11, 0)] == [forward[index] for index in (19, 3, 11, 0)]
    assert ProceduralTasks(DEFAULT, seed=9)[3] != forward[3]
    assert ProceduralTasks(DEFAULT.model_copy(update={"slack": 5}), seed=8)[3] != forward[3]


def test_what_the_writer_is_given_is_every_attempt_in_order_and_replayed() -> None:
    made = make(DEFAULT, 8, "train", range(16))
    assert [each.index for each in made] == sorted(each.index for each in made)
    assert [each.task for each in made if each.task is not None] == ProceduralTasks(DEFAULT, seed=8).take(16)
    assert all(each.gate and each.reason for each in made if each.task is None)


# Published rows


def test_published_rows_run_where_nothing_is_remembered_between_two_calls() -> None:
    """As the published sandbox runs them: the whole source anew for each call, the call written as Python."""
    tasks = ProceduralTasks(PRESETS["published"], seed=3)
    for index in range(24):
        attempt = tasks.attempts(index)[-1]
        task = attempt.task
        assert task is not None
        row = published_row(task)
        assert set(row) == {"data_source", "question", "ability", "reward_model", "extra_info"}
        assert task.changes is None

        def call(name: str, arguments: Any, source: str = row["extra_info"]["env"]) -> Any:
            space: dict[str, Any] = {}
            written = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
            exec(f"{source}\n\nresult = {name}({written})", space)
            assert space["result"], "the published sandbox hides it"
            return space["result"]

        results = run(task.reference, call)
        assert tuple(results[: len(attempt.results)]) == attempt.results
        assert same(bare(results[-1]), task)


# Recipes


@pytest.mark.parametrize("attribute", LEVELS)
def test_every_level_of_an_attribute_has_tasks(attribute: str) -> None:
    for level in range(len(LEVELS[attribute])):
        tasks = ProceduralTasks(Recipe(tasks_per_world=2).at({attribute: level}), seed=level)
        for index in range(2):
            check(tasks.attempts(index)[-1], tasks)
            assert tasks[index].extra["synth"]["levels"][attribute] <= level or attribute in ("keys", "tools")


def test_levels_and_presets_that_are_not_there_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="unknown attribute 'call', did you mean 'calls'"):
        DEFAULT.at({"call": 1})
    with pytest.raises(ConfigError, match=r"levels\.calls: 9 is not accepted; 0 to 5"):
        DEFAULT.at({"calls": 9})
    with pytest.raises(ConfigError, match=r"no recipe 'defualt'; accepted: a \.toml file, or one of default, nano"):
        recipe_of("defualt")


def test_a_recipe_that_asks_for_too_much_says_so() -> None:
    asked = Recipe(operators=("hop",), calls=(12, 12), entities=(2, 2))
    with pytest.raises(ConfigError, match="recipe: no train task was found in"):
        ProceduralTasks(asked, seed=1)[0]
