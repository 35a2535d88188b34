"""What is promised of the generated tasks: the same everywhere, right, not to be guessed, and apart by split."""

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from recall.datasets.rows import read_tasks, write_tasks
from recall.errors import ConfigError
from recall.programs import resolve, run
from recall.sandbox.local import LocalSandbox
from recall.synth.chains import draw_chain
from recall.synth.tasks import SPLITS, TABLED, TaskSettings, ToolTasks, functions_of, parse_label, spelling
from recall.synth.tools import draw_tool
from recall.synth.vocabulary import OPERATORS
from recall.synth.world import Word, draw_name, held_out
from recall.types import CallStatus, Task

KINDS = ("1", "2", "3", "4", "5", "6", "join", "join4", "join5")
MULTI = KINDS[1:]
DIGEST = """
import dataclasses, hashlib, json
from recall.synth.tasks import SPLITS, ToolTasks
tasks = [ToolTasks(kind, split=split, seed=3)[7] for split in SPLITS for kind in ("1", "4", "join5")]
print(hashlib.sha256(json.dumps([dataclasses.asdict(task) for task in tasks]).encode()).hexdigest())
"""


@cache
def tasks(kind: str, split: str = "train", count: int = 300) -> tuple[Task, ...]:
    return tuple(ToolTasks(kind, split=split, seed=1).take(count))


def results_of(task: Task) -> list[Any]:
    return run(task.reference, functions_of(task.env))


def inner(value: Any) -> Any:
    """The value in what a tool returned: bare, or alone under its key."""
    if isinstance(value, dict):
        (value,) = value.values()
    return value


def entity_names(text: str) -> set[str]:
    """The capitalised words that are names: every question starts with a capital of its own."""
    return set(re.findall(r"\b[A-Z][a-z]+", text.split(maxsplit=1)[1]))


# The same everywhere -----------------------------------------------------------------------------------------------


def test_two_processes_make_the_same_bytes_whatever_the_order_of_their_sets() -> None:
    digests = set()
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_a_task_depends_on_its_number_only() -> None:
    stream = ToolTasks("3", split="train", seed=0)
    backwards = [stream[index] for index in reversed(range(5))]
    assert backwards[::-1] == stream.take(5) == [task for task, _ in zip(stream, range(5), strict=False)]
    assert stream.take(2, start=3) == stream.take(5)[3:]
    assert ToolTasks("3", split="train", seed=1)[0] != stream[0]
    assert len({task.id for kind in KINDS for split in SPLITS for task in tasks(kind, split, 5)}) == 5 * 9 * len(SPLITS)


# Right -------------------------------------------------------------------------------------------------------------


async def test_the_ground_truth_is_what_the_reference_program_comes_to_in_the_sandbox() -> None:
    sandbox = LocalSandbox()
    try:
        for kind in KINDS:
            for task in tasks(kind, "held_out", 3):
                session = await sandbox.open(task.env)
                results: list[Any] = []
                for call in task.reference:
                    arguments = {name: resolve(value, results) for name, value in call["arguments"].items()}
                    done = await session.call(call["name"], arguments)
                    assert done.status is CallStatus.OK
                    results.append(done.result)
                await session.close()
                assert task.ground_truth == (str(inner(results[-1])),)
                assert task.depth == len(task.reference) == parse_label(kind)[1]
                assert task.answer_type.kind == ("integer" if isinstance(inner(results[-1]), int) else "text")
    finally:
        await sandbox.close()


@pytest.mark.parametrize("kind", KINDS)
def test_every_argument_stands_in_the_question_or_in_an_earlier_result(kind: str) -> None:
    for task in tasks(kind)[:100]:
        results = results_of(task)
        known = set(re.findall(r"\w+", task.question))
        for call, result in zip(task.reference, results, strict=True):
            for value in call["arguments"].values():
                assert str(resolve(value, results)) in known
            known.add(str(inner(result)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_tools_are_those_of_the_program_and_distractors_within_their_number(kind: str) -> None:
    few, many = TaskSettings().distractors
    seen = set()
    for task in tasks(kind):
        names = [tool.name for tool in task.tools]
        needed = {call["name"] for call in task.reference}
        assert len(set(names)) == len(names)
        assert needed <= set(names)
        seen.add(len(set(names) - needed))
        namespace: dict[str, Any] = {}
        exec(task.env, namespace)
        assert {name for name in namespace if not name.startswith("__")} == set(names)
    assert seen == set(range(few, many + 1))


def test_the_number_of_distractors_is_a_setting() -> None:
    for distractors in ((0, 0), (12, 12), (40, 40)):
        task = ToolTasks("join5", split="train", seed=0, settings=TaskSettings(distractors=distractors))[0]
        assert len(task.tools) - len({call["name"] for call in task.reference}) == distractors[0]


def test_rows_say_the_same_tasks(tmp_path: Path) -> None:
    given = [task for kind in KINDS for task in tasks(kind, "held_out", 3)]
    for name in ("tasks.jsonl", "tasks.parquet"):
        write_tasks(tmp_path / name, given)
        back = read_tasks(tmp_path / name)
        assert [json.dumps(asdict(task)) for task in back] == [json.dumps(asdict(task)) for task in given]


# Not to be guessed -------------------------------------------------------------------------------------------------


def share(hits: Iterator[bool]) -> float:
    found = list(hits)
    return sum(found) / len(found)


def picks_one_of_two(task: Task) -> bool:
    """Whether the last call is the larger or the smaller of two numbers, which is one of those that it was given."""
    return any(word in task.reference[-1]["name"].lower() for word in ("larger", "smaller"))


@pytest.mark.parametrize("kind", MULTI)
def test_no_constant_and_no_word_of_the_question_is_the_answer(kind: str) -> None:
    given = tasks(kind)
    answers = [task.ground_truth[0] for task in given]
    assert max(answers.count(answer) for answer in set(answers)) / len(answers) < 0.02
    assert share(task.ground_truth[0] in task.question for task in given) < 0.02


def single_calls(task: Task) -> Iterator[str]:
    """What every single call on what the question names comes to."""
    call = functions_of(task.env)
    for tool in task.tools:
        for name in entity_names(task.question):
            if len(tool.parameters["properties"]) == 1:
                (parameter,) = tool.parameters["properties"]
                try:
                    yield str(inner(call(tool.name, {parameter: name})))
                except ValueError:
                    continue


@pytest.mark.parametrize("kind", MULTI)
def test_no_single_call_and_no_first_observation_is_the_answer(kind: str) -> None:
    given = tasks(kind)
    assert share(str(inner(results_of(task)[0])) == task.ground_truth[0] for task in given) < 0.02
    chance = random.Random(0)
    guesses = [(chance.choice(list(single_calls(task))), task.ground_truth[0]) for task in given]
    assert share(guess == answer for guess, answer in guesses) < 0.02


@pytest.mark.parametrize("kind", ["join", "join4", "join5"])
def test_no_join_asks_for_the_larger_or_the_smaller_which_half_a_solution_has_seen(kind: str) -> None:
    assert not any(picks_one_of_two(task) for task in tasks(kind))


def reachable(task: Task, calls: int) -> set[str]:
    """Every value that some program of at most so many calls comes to, from what the question names."""
    call = functions_of(task.env)
    known: set[str] = entity_names(task.question)
    fresh = known
    for _ in range(calls):
        found: set[str] = set()
        for tool in task.tools:
            if len(tool.parameters["properties"]) == 1:
                (parameter,) = tool.parameters["properties"]
                for value in fresh:
                    try:
                        found.add(str(inner(call(tool.name, {parameter: value}))))
                    except ValueError:
                        continue
        fresh = found - known
        known = known | fresh
    return known


@pytest.mark.parametrize(("kind", "most"), [("2", 0.0), ("3", 0.05), ("4", 0.2), ("5", 0.42), ("6", 0.68)])
def test_few_short_chains_have_a_shorter_way_to_their_answer(kind: str, most: float) -> None:
    """What is known to be weak: worlds are small, so long chains often have a detour, which no question tells of."""
    given = tasks(kind)[:150]
    depth = parse_label(kind)[1]
    assert all(task.ground_truth[0] in reachable(task, depth) for task in given)
    assert share(task.ground_truth[0] in reachable(task, depth - 1) for task in given) <= most


def wander(task: Task, calls: int, rng: random.Random) -> str:
    """Where calls chosen at random end, each on what the one before came to."""
    call = functions_of(task.env)
    value = rng.choice(sorted(entity_names(task.question)))
    for _ in range(calls):
        found = []
        for tool in task.tools:
            (parameter,) = tool.parameters["properties"]
            try:
                found.append(str(inner(call(tool.name, {parameter: value}))))
            except ValueError:
                continue
        if not found:
            break
        value = rng.choice(found)
    return value


@pytest.mark.parametrize("kind", ["2", "3", "4", "5", "6"])
def test_chance_finds_no_shorter_way(kind: str) -> None:
    rng, calls = random.Random(0), parse_label(kind)[1] - 1
    assert share(wander(task, calls, rng) == task.ground_truth[0] for task in tasks(kind) for _ in range(5)) < 0.04


# Apart by split ----------------------------------------------------------------------------------------------------


def names_in(task: Task) -> set[str]:
    """Every entity that a task knows of."""
    tables = [line.split("= ", 1)[1] for line in task.env.splitlines() if line.startswith("    table = ")]
    read: list[Mapping[str, Any]] = [json.loads(table) for table in tables]
    values = [value for table in read for value in table.values() if isinstance(value, str)]
    return entity_names(task.question) | {key for table in read for key in table} | set(values)


@pytest.mark.parametrize("split", SPLITS)
def test_names_are_held_out_in_the_splits_that_say_so_and_nowhere_else(split: str) -> None:
    for kind in KINDS:
        found = {name for task in tasks(kind, split, 30) for name in names_in(task)}
        assert found
        assert {held_out(name) for name in found} == {"names" in SPLITS[split]}


WORDS = {word.word for word in (*TABLED, *OPERATORS)}
OPERATOR_WORDS = {word.word for word in OPERATORS}


def program_of(task: Task) -> tuple[str, ...]:
    """The words of the program that a question asks for, as `spelling` has them."""
    words = re.findall(r"'s|\w+", task.question)
    inside_out = 1 if "'s" in words else -1

    def chain(part: list[str]) -> list[str]:
        return [word for word in part if word in WORDS][::inside_out]

    if not task.kind.startswith("join"):
        return tuple(chain(words))
    (operator,) = (word for word in words if word in OPERATOR_WORDS)
    start, middle = words.index(operator) + 1, words.index("and")
    return (operator, *chain(words[start:middle]), "and", *chain(words[middle:]))


def test_questions_say_whose_in_both_ways() -> None:
    for kind in KINDS:
        assert {"'s " in task.question for task in tasks(kind)[:60]} == {True, False}


@pytest.mark.parametrize("split", SPLITS)
def test_programs_are_held_out_in_the_splits_that_say_so_and_nowhere_else(split: str) -> None:
    for kind in MULTI:
        assert {held_out("program", *program_of(task)) for task in tasks(kind, split, 30)} == {
            "chains" in SPLITS[split]
        }


@pytest.mark.parametrize("split", SPLITS)
def test_tool_styles_are_held_out_in_the_splits_that_say_so_and_nowhere_else(split: str) -> None:
    every: list[Word] = [*TABLED[:9], *OPERATORS]
    old, new = (
        {
            (style_of(tool.name), tuple(tool.parameters["properties"]))
            for word in every
            for number in range(60)
            for tool in [draw_tool(random.Random(f"{word.word}{number}"), word, from_held_out=from_held_out).spec]
        }
        for from_held_out in (False, True)
    )
    assert not new & old
    used = {
        (style_of(tool.name), tuple(tool.parameters["properties"]))
        for kind in KINDS
        for task in tasks(kind, split, 30)
        for tool in task.tools
    }
    assert used
    assert not used & (old if "tools" in SPLITS[split] else new)


def style_of(name: str) -> str:
    """A tool's name with the word taken out."""
    word = max((word for word in WORDS if word in name.lower()), key=len)
    return name.replace(word, "{word}")


def test_no_two_splits_share_a_task() -> None:
    questions = [{task.env for kind in KINDS for task in tasks(kind, split, 30)} for split in SPLITS]
    assert sum(map(len, questions)) == len(set().union(*questions))


def test_what_is_held_out_is_a_fifth() -> None:
    rng = random.Random(0)
    names = [draw_name(rng, from_held_out=bool(index % 2)) for index in range(200)]
    assert [held_out(name) for name in names] == [bool(index % 2) for index in range(200)]
    chains = [spelling(draw_chain(rng, 3)) for _ in range(2000)]
    assert sum(held_out("program", *chain) for chain in chains) / 2000 == pytest.approx(0.2, abs=0.03)


# Refused -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "label", ["", "0", "-1", "10", "join2", "join10", "join²", "²", "3.5", "chain", "join 4", "03"]
)
def test_an_unknown_kind_is_refused_with_those_that_there_are(label: str) -> None:
    with pytest.raises(ConfigError, match="accepted are a number of calls from 1 to 9"):
        ToolTasks(label, split="train", seed=0)


def test_the_longest_programs_can_be_made() -> None:
    for kind in ("9", "join9"):
        assert tasks(kind, "held_out", 3)[2].depth == 9


def test_an_unknown_split_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="accepted are train, new_worlds"):
        ToolTasks("1", split="test", seed=0)


@pytest.mark.parametrize("distractors", [(-1, 2), (3, 2), (0, 41)])
def test_impossible_numbers_of_distractors_are_refused(distractors: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="the fewest and the most"):
        TaskSettings(distractors=distractors)


def test_the_tools_of_a_world_are_named_in_one_style_unless_they_are_to_be_mixed() -> None:
    def styles(task: Task) -> set[str]:
        words = [spec.description.split(" of ")[0] for spec in task.tools]
        names = [spec.name for spec in task.tools]
        return {
            name.replace(word, "{word}").replace(word.capitalize(), "{Word}")
            for name, word in zip(names, words, strict=True)
        }

    assert {len(styles(task)) for task in ToolTasks("3", split="train", seed=0).take(50)} == {1}
    mixed = ToolTasks("3", split="train", seed=0, settings=TaskSettings(mixed_naming=True))
    assert max(len(styles(task)) for task in mixed.take(50)) > 2
