"""Every certificate of a task lets good tasks pass and rejects a planted fault, in the real sandbox."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from llm_marina import FEES, LICENCE, MOVE, QUESTIONS, RATE, TASKS, TOOLS, marina
from recall.sandbox.limits import SandboxLimits
from recall.sandbox.local import LocalSandbox
from recall.synth.llm.bench import Bench
from recall.synth.llm.blueprint import form_of, read_blueprint
from recall.synth.llm.certify import Certified, Certifier
from recall.synth.llm.certify_world import CertificateSettings
from recall.synth.llm.errors import RejectedError
from recall.synth.llm.questions import ask, check_phrasing
from recall.synth.llm.schemas import tools_of
from recall.synth.llm.source import World

SETTINGS = CertificateSettings(counterfactual_worlds=5, guess_worlds=10, most_guessed=0.2, search_calls=500)
SEEDS = list(range(1, 16))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[LocalSandbox]:
    shared = LocalSandbox(SandboxLimits(open_timeout_s=2.0))
    yield shared
    asyncio.run(shared.close())


def with_tools(code: str) -> World:
    world = marina()
    return World(world.schema, world.world_code, code, tools_of(code))


@pytest.fixture(scope="module")
def rate(sandbox: LocalSandbox) -> Certified:
    """The first task, certified."""
    return asyncio.run(certify(sandbox, RATE))


async def certify(
    sandbox: LocalSandbox,
    blueprint: dict[str, Any],
    world: World | None = None,
    settings: CertificateSettings = SETTINGS,
) -> Certified:
    world = world or marina()
    bench = Bench(sandbox)
    return await Certifier(bench, world, settings, SEEDS).certify(read_blueprint(blueprint, world), 0)


@pytest.mark.parametrize("task", TASKS, ids=["rate", "licence", "fees", "move"])
async def test_the_good_tasks_hold(sandbox: LocalSandbox, task: dict[str, Any]) -> None:
    certified = await certify(sandbox, task)
    assert len(certified.instances) == 5
    assert certified.changed >= 0.95
    assert len({instance.outcome for instance in certified.instances}) == 5
    assert certified.shortest == (1 if task is MOVE else form_of(certified.blueprint.program).depth)


def put(code: str, old: str, new: str) -> str:
    assert old in code
    return code.replace(old, new)


STEPS = RATE["program"]
UNREADABLE = {
    "no such tool": {"program": [{"name": "find_ship", "arguments": {}}]},
    "missing argument": {"program": [{"name": "find_boat", "arguments": {}}]},
    "later item": {"program": [{"name": "find_boat", "arguments": {"name": {"$ref": 1}}}]},
    "unknown anchor": {"program": [{"name": "find_boat", "arguments": {"name": {"$anchor": "ship"}}}]},
    "unknown operation": {"program": [*STEPS, {"value": {"$op": "guess", "of": []}}]},
    "no such field": {"anchors": {"boat": {"table": "boats", "field": "colour"}}},
    "anchor not used": {"anchors": {"boat": {"table": "boats", "field": "name"}, "more": {"between": [1, 9]}}},
    "no call": {"program": [{"value": {"$anchor": "boat"}}]},
    "empty range": {"anchors": {"boat": {"between": [9, 1]}}},
    "unknown type": {"answer_type": "colour"},
    "further keys": {"hint": "x"},
}


@pytest.mark.parametrize("change", UNREADABLE.values(), ids=UNREADABLE)
def test_a_blueprint_that_says_no_program_is_rejected(change: dict[str, Any]) -> None:
    with pytest.raises(RejectedError, match="blueprint"):
        read_blueprint(RATE | change, marina())


async def test_a_program_that_never_comes_to_an_answer_is_rejected(sandbox: LocalSandbox) -> None:
    wrong = RATE | {"program": [*STEPS[:3], {"value": {"$ref": 2, "path": "price"}}]}
    with pytest.raises(RejectedError, match=r"solvable: the program comes to no answer.*nothing under 'price'"):
        await certify(sandbox, wrong)


async def test_an_answer_of_another_type_is_rejected(sandbox: LocalSandbox) -> None:
    with pytest.raises(RejectedError, match="does not read as date"):
        await certify(sandbox, RATE | {"answer_type": "date"})


async def test_a_program_beyond_the_budget_of_calls_is_rejected(sandbox: LocalSandbox) -> None:
    with pytest.raises(RejectedError, match="solvable: too long"):
        await certify(sandbox, FEES, settings=SETTINGS.model_copy(update={"max_calls": 3}))


async def test_a_call_that_nothing_needs_is_rejected(sandbox: LocalSandbox) -> None:
    idle = {"name": "get_owner", "arguments": {"owner_id": {"$ref": 1, "path": "owner"}}}
    program = [*STEPS[:2], idle, *STEPS[2:3], {"value": {"$ref": 3, "path": "rate"}}]
    with pytest.raises(RejectedError, match="minimal: a call is not needed"):
        await certify(sandbox, RATE | {"program": program})


async def test_a_call_that_nothing_reads_but_that_changes_something_is_needed(sandbox: LocalSandbox) -> None:
    program = [
        *MOVE["program"],
        {"name": "get_boat", "arguments": {"boat_id": {"$ref": 0}}},
        {"value": {"$ref": 2, "path": "fee"}},
    ]
    certified = await certify(sandbox, MOVE | {"program": program, "answer_type": "integer"})
    assert all(instance.played.changes for instance in certified.instances)


async def test_an_answer_that_no_world_changes_is_rejected(sandbox: LocalSandbox) -> None:
    same = put(TOOLS, 'return dict(WORLD["berths"][berth_id])', 'return {"rate": len(berth_id) * 0 + 7}')
    with pytest.raises(RejectedError, match="counterfactual: the answer stays the same"):
        await certify(sandbox, RATE, with_tools(same))


async def test_anchors_that_exist_in_one_world_only_are_rejected(sandbox: LocalSandbox) -> None:
    by_code = RATE | {
        "anchors": {"boat": {"table": "boats", "field": "id"}},
        "program": [
            {"name": "get_boat", "arguments": {"boat_id": {"$anchor": "boat"}}},
            {"name": "get_berth", "arguments": {"berth_id": {"$ref": 0, "path": "berth"}}},
            {"value": {"$ref": 1, "path": "rate"}},
        ],
    }
    with pytest.raises(RejectedError, match="counterfactual: cannot be asked in other worlds"):
        await certify(sandbox, by_code)


async def test_an_answer_that_a_constant_guesses_is_rejected(sandbox: LocalSandbox) -> None:
    few = put(TOOLS, 'return dict(WORLD["berths"][berth_id])', 'return {"rate": WORLD["berths"][berth_id]["rate"] % 3}')
    settings = SETTINGS.model_copy(update={"least_changed": 0.0})
    with pytest.raises(RejectedError, match="guess: constant"):
        await certify(sandbox, RATE, with_tools(few), settings)


async def test_an_answer_that_the_question_states_is_rejected(sandbox: LocalSandbox) -> None:
    echo = RATE | {"program": [*STEPS[:2], {"value": {"$ref": 1, "path": "name"}}], "answer_type": "entity"}
    settings = SETTINGS.model_copy(update={"least_changed": 0.0, "most_guessed": 0.5})
    with pytest.raises(RejectedError, match="guess: echo"):
        await certify(sandbox, echo, settings=settings)


async def test_an_answer_that_a_single_call_shows_is_rejected(sandbox: LocalSandbox) -> None:
    shortcut = (
        TOOLS
        + '''

def rate_of(name: str) -> int:
    """Tell what the berth of a boat costs.

    Args:
        name: The name of the boat.
    """
    boat = next(boat for boat in WORLD["boats"].values() if boat["name"] == name)
    return WORLD["berths"][boat["berth"]]["rate"]
'''
    )
    with pytest.raises(RejectedError, match=r"minimal: there is a shorter way.*rate_of"):
        await certify(sandbox, RATE, with_tools(shortcut))


async def test_an_answer_that_the_order_of_rows_decides_is_rejected(sandbox: LocalSandbox) -> None:
    first = put(TOOLS, 'return dict(WORLD["berths"][berth_id])', 'return dict(next(iter(WORLD["berths"].values())))')
    with pytest.raises(RejectedError, match="unique: the order of rows decides"):
        await certify(sandbox, RATE, with_tools(first))


async def test_a_tool_that_answers_by_chance_is_rejected(sandbox: LocalSandbox) -> None:
    dice = put(TOOLS, 'return dict(WORLD["berths"][berth_id])', 'return {"rate": random.randint(1, 10**9)}')
    with pytest.raises(RejectedError, match=r"pure: .*random|deterministic"):
        await certify(sandbox, RATE, with_tools(dice))


async def test_a_tool_whose_answer_depends_on_hashes_is_rejected(sandbox: LocalSandbox) -> None:
    hashes = put(TOOLS, 'return dict(WORLD["berths"][berth_id])', 'return {"rate": hash(berth_id)}')
    with pytest.raises(RejectedError, match="deterministic: another result in another process"):
        await certify(sandbox, RATE, with_tools(hashes))


async def test_a_tool_that_never_returns_is_rejected_at_once(sandbox: LocalSandbox) -> None:
    endless = put(TOOLS, 'return dict(WORLD["berths"][berth_id])', "while True:\n        pass")
    world = with_tools(endless)
    certifier = Certifier(Bench(sandbox, call_timeout_s=0.5), world, SETTINGS, SEEDS)
    with pytest.raises(RejectedError, match="solvable: a call dies: item 2: get_berth: timeout"):
        await certifier.certify(read_blueprint(RATE, world), 0)


async def test_a_result_that_is_too_long_is_rejected(sandbox: LocalSandbox) -> None:
    long = put(
        TOOLS, 'return dict(WORLD["berths"][berth_id])', 'return WORLD["berths"][berth_id] | {"more": "x" * 9000}'
    )
    with pytest.raises(RejectedError, match="size: a result is too long"):
        await certify(sandbox, RATE, with_tools(long))


@pytest.mark.parametrize(
    ("phrasing", "fault"),
    [
        ("What does a night cost where the boat lies?", "question: placeholders"),
        ("What does a night cost where {boat} lies near {place}?", "question: placeholders"),
        ("Call get_berth to see what {boat} pays a night, please.", "question: names a tool"),
        ("{boat}?", "question: too short"),
    ],
)
def test_a_question_that_does_not_fit_its_task_is_rejected(rate: Certified, phrasing: str, fault: str) -> None:
    with pytest.raises(RejectedError, match=fault):
        check_phrasing(phrasing, rate, marina().tools)


def test_a_question_that_gives_the_answer_or_an_id_away_is_rejected(rate: Certified) -> None:
    instance = rate.instances[2]
    found = instance.played.arguments[2][1]["berth_id"]
    for phrasing, fault in (
        (f"What does {{boat}} pay a night, is it {instance.answer} cents?", "states the answer"),
        (f"What does {{boat}} pay a night at {found} of ours?", "gives away"),
    ):
        with pytest.raises(RejectedError, match=fault):
            check_phrasing(phrasing, rate, marina().tools)


async def test_an_argument_that_the_question_does_not_say_is_rejected(sandbox: LocalSandbox) -> None:
    fixed = RATE | {"program": [{"name": "find_boat", "arguments": {"name": "Osprey"}}, *FEES["program"][1:]]}
    fixed |= {"anchors": {"second": {"table": "boats", "field": "name"}}}
    certified = await certify(sandbox, fixed, settings=SETTINGS.model_copy(update={"most_guessed": 0.5, "draws": 60}))
    with pytest.raises(RejectedError, match="provenance: an argument is not stated: 'Osprey'"):
        check_phrasing("By how many cents do the fees of {second} and of Quill differ?", certified, marina().tools)
    check_phrasing("By how many cents do the fees of {second} and of Osprey differ?", certified, marina().tools)


async def test_good_questions_hold_and_name_what_their_world_has(sandbox: LocalSandbox) -> None:
    certified = await certify(sandbox, LICENCE)
    (phrasing,) = QUESTIONS[LICENCE["intent"]]
    check_phrasing(phrasing, certified, marina().tools)
    instance = certified.instances[0]
    assert str(instance.anchors["boat"]) in ask(phrasing, instance)
