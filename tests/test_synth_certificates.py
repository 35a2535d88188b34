"""Each certificate rejects what is planted against it, and names itself; all of them accept the same without it."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from procedural_worlds import ALL_SHOWN, block_of, draft_of
from recall.environment import Limits, ToolEnvironment
from recall.policy.scripted import turns_of
from recall.programs import resolve
from recall.rewards import solved
from recall.sandbox.local import LocalSandbox
from recall.synth.procedural import closure, unknowable
from recall.synth.procedural.block import Block
from recall.synth.procedural.certify import Draft, RejectedError, bare, elsewhere, provenance
from recall.synth.procedural.distractors import Distractors
from recall.synth.procedural.grow import DeadEndError
from recall.synth.procedural.ledger import Ledger
from recall.synth.procedural.plans import Above, Anchor, Hop, Many, One, Scalar, Where
from recall.synth.procedural.recipe import PRESETS, Recipe
from recall.synth.procedural.replay import replay
from recall.synth.procedural.scalars import Read, Total
from recall.synth.procedural.skins.schema import Label, Link
from recall.synth.procedural.tasks import ProceduralTasks
from recall.synth.procedural.trace import Bound, Trace
from recall.synth.procedural.world import Key, World
from recall.tools.results import as_text
from recall.types import AssistantTurn, CallStatus, StopReason, Task, ToolCall, Trajectory


def rejection(run: Callable[[], object]) -> tuple[str, str]:
    """The gate that rejects, and why."""
    with pytest.raises(RejectedError) as caught:
        run()
    return caught.value.gate, caught.value.reason


def has(text: str) -> Callable[[Scalar], bool]:
    """Accepts plans whose template begins so."""
    return lambda plan: plan.template.startswith(text)


@pytest.fixture(scope="module")
def chain() -> tuple[Block, Draft]:
    """A number of an entity two hops away, in three calls."""
    return draft_of(ALL_SHOWN, lambda grower: grower.chain, 3, has("read:integer(hop(hop(anchor"))


def anchor_of(draft: Draft) -> Anchor:
    """The entity that its question names."""
    return next(node for node in draft.plan.nodes if isinstance(node, Anchor))


# Solvable


def test_a_plan_that_no_tool_carries_out_is_not_solvable(chain: tuple[Block, Draft]) -> None:
    block, draft = chain
    block.check_calls(draft.plan, (3, 3))
    lost = dict(block.tools)
    try:
        block.tools = {op: tool for op, tool in block.tools.items() if tool.spec.name not in draft.trace.used}
        assert rejection(lambda: block.check_calls(draft.plan, (3, 3))) == ("solvable", "no tool reads what is needed")
    finally:
        block.tools = lost
    assert rejection(lambda: block.check_calls(draft.plan, (4, 7)))[0] == "calls"


def test_an_empty_answer_is_none(chain: tuple[Block, Draft]) -> None:
    block, draft = chain
    empty = replace(draft, answer=Bound("", draft.answer.expression))
    assert rejection(lambda: block.certify(empty)) == ("solvable", "the answer is empty")


def test_what_the_published_sandbox_shows_as_nothing_is_not_solvable_there(chain: tuple[Block, Draft]) -> None:
    block, draft = chain
    trace = replace(draft.trace, results=[0, *draft.trace.results[1:]])
    hidden = replace(draft, trace=trace, stateless=True)
    assert rejection(lambda: block.certify(hidden)) == ("solvable", "a result is shown as nothing")


async def test_the_reference_program_solves_the_task_within_the_budget_that_the_row_states() -> None:
    tasks = ProceduralTasks(PRESETS["hard"].model_copy(update={"failing": 0.9}), seed=3).take(8)
    assert any(task.extra["synth"]["retries"] for task in tasks)
    sandbox = LocalSandbox()
    try:
        for task in tasks:
            claims = task.extra["synth"]
            assert claims["turns"] == len(turns_of(task)) + 1
            limits = Limits(max_turns=64, max_calls=64, call_timeout_s=60)  # the task allows fewer calls
            assert await played(task, sandbox, limits)
    finally:
        await sandbox.close()


async def played(task: Task, sandbox: LocalSandbox, limits: Limits) -> bool:
    """Whether the reference program, played call by call as a policy would, solves the task."""
    environment = ToolEnvironment(task, sandbox, limits)
    values: list[Any] = []
    try:
        await environment.start()
        for item in task.reference:
            if "name" not in item:
                values.append(resolve(item["value"], values))
                continue
            arguments = {name: resolve(value, values) for name, value in item["arguments"].items()}
            call = AssistantTurn("", calls=(ToolCall(item["name"], arguments),))
            step = await environment.step(call)
            if step.records[0].status is CallStatus.EXCEPTION and item.get("retry"):
                step = await environment.step(call)
            assert step.records[0].status is CallStatus.OK, step.records[0].result
            values.append(read(step.records[0].result))
        answer = as_text(bare(values[-1]))
        step = await environment.step(AssistantTurn("", answer=answer))
    finally:
        await environment.close()
    return solved(task, Trajectory(task.id, (), StopReason.DONE, answer, (), changes=step.changes))


def read(text: str) -> Any:
    """What a result says: JSON where it is that."""
    try:
        return json.loads(text)
    except ValueError:
        return text


# Information flow


def test_an_argument_from_nowhere_is_rejected(chain: tuple[Block, Draft]) -> None:
    _, draft = chain
    items, results = draft.trace.items, draft.trace.results
    provenance(draft.question, items, results)
    (name,) = items[0]["arguments"].values()
    without = draft.question.replace(name, name[:-1])
    assert rejection(lambda: provenance(without, items, results)) == ("provenance", "an argument comes from nowhere")
    longer = draft.question.replace(name, f"{name}-2")
    assert rejection(lambda: provenance(longer, items, results)) == ("provenance", "an argument comes from nowhere")


def test_an_argument_that_is_only_seen_later_is_rejected(chain: tuple[Block, Draft]) -> None:
    _, draft = chain
    items = [draft.trace.items[1], draft.trace.items[0]]
    assert rejection(lambda: provenance(draft.question, items, draft.trace.results)) == (
        "provenance", "an argument was not seen before",
    )  # fmt: skip


def test_a_question_that_leaves_a_bound_out_is_rejected() -> None:
    block, draft = draft_of(ALL_SHOWN, lambda grower: grower.total, 7, lambda plan: "above" in plan.template)
    (bound,) = [str(node.bound) for node in draft.plan.nodes if isinstance(node, Above)]
    vague = replace(draft, question=draft.question.replace(bound, "some value"))
    assert rejection(lambda: block.certify(vague)) == ("provenance", "the question leaves a literal out")


# Minimality


def test_a_shorter_way_that_holds_in_every_world_is_rejected(chain: tuple[Block, Draft]) -> None:
    """The entity named is given what is asked of the one two hops away, here and wherever the facts are others."""
    block, draft = chain
    anchor = anchor_of(draft)

    def planted(world: World) -> World:
        return world.changed(anchor.entity.name, anchor.entity.fields[0].name, {anchor.key: draft.plan.value(world)})

    assert shortest(draft, block.world, block.others) is None
    assert shortest(draft, planted(block.world), [planted(other) for other in block.others]) == 1


def test_a_shorter_way_to_an_entity_on_the_way_is_rejected() -> None:
    """A second link of the entity named is made to lead where two links lead, here and elsewhere."""
    block, draft = draft_of(ALL_SHOWN, lambda grower: grower.chain, 4, with_a_second_link)
    anchor = anchor_of(draft)
    second, link = second_link(draft.plan)
    assert link is not None

    def planted(world: World) -> World:
        return world.changed(anchor.entity.name, link.name, {anchor.key: second.value(world)})

    assert shortest(draft, block.world, block.others) is None
    assert shortest(draft, planted(block.world), [planted(other) for other in block.others]) == 3


def second_link(plan: Scalar) -> tuple[One, Link | None]:
    """The entity two hops away, and another link of the one named that leads to its type."""
    *_, second, first, anchor = [node for node in plan.nodes if isinstance(node, One)]
    assert isinstance(first, Hop)
    links = (each for each in anchor.entity.links if each.to == second.entity.name and each is not first.link)
    return second, next(links, None)


def with_a_second_link(plan: Scalar) -> bool:
    return has("read:integer(hop(hop(hop(anchor")(plan) and second_link(plan)[1] is not None


def shortest(draft: Draft, world: World, others: Sequence[World]) -> int | None:
    """The calls of a shorter solution in a world, given others."""
    answers = [(number, draft.plan.value(other)) for number, other in enumerate(others)]
    return closure.shorter(
        draft.plan, draft.plan.value(world), len(draft.trace.items), answers, world=world, others=others,
        tools=draft.visible,
    )  # fmt: skip


def test_a_list_that_spares_reading_one_by_one_is_not_shown_and_rejected_where_it_is() -> None:
    block, draft = draft_of(ALL_SHOWN, lambda grower: grower.total, 7, reads_labels)
    (node,) = [node for node in draft.plan.nodes if isinstance(node, Where)]
    assert node.listing in block.tools
    assert node.listing not in draft.visible
    seen = replace(draft, visible={**draft.visible, node.listing: block.tools[node.listing]})
    assert rejection(lambda: block.certify(seen)) == ("minimal", "fewer calls give the answer")


def reads_labels(plan: Scalar) -> bool:
    """Whether a plan reads the label of each of several."""
    filters = [node for node in plan.nodes if isinstance(node, Where)]
    return len(filters) == 1 and isinstance(filters[0].label, Label) and not filters[0].by_list


# Uniqueness


@dataclass(frozen=True, eq=False)
class First(One):
    """The first of several in the order of the rows."""

    source: Many

    def value(self, world: World) -> Key:
        return self.source.value(world)[0]

    def run(self, trace: Trace) -> Bound:
        return self.source.run(trace)[0]


def test_an_answer_that_hangs_on_the_order_of_the_rows_is_rejected() -> None:
    block, draft = draft_of(ALL_SHOWN, lambda grower: grower.total, 4)
    assert isinstance(draft.plan, Total)
    plan = Read(draft.plan.kind, First(draft.plan.source.entity, draft.plan.source), draft.plan.column)
    trace, answer, _ = block._carried_out(plan)
    ordered = replace(draft, plan=plan, trace=trace, answer=answer, answers=elsewhere(plan, answer.value, block.others))
    gates = set()
    for seed in range(8):
        block.shuffled = block.world.shuffled(random.Random(seed))
        fresh = Block.__new__(Block)
        fresh.__dict__.update(block.__dict__)
        fresh._load()
        try:
            fresh.certify(ordered)
        except RejectedError as fault:
            gates.add((fault.gate, fault.reason))
    assert ("unique", "the order of the rows decides") in gates


# Guessing


def test_a_question_that_says_the_answer_is_rejected(chain: tuple[Block, Draft]) -> None:
    block, draft = chain
    echo = replace(draft, question=f"{draft.question} Not {draft.answer.value}!")
    assert rejection(lambda: block.certify(echo)) == ("guessable", "the question says the answer")


def test_an_answer_that_was_observed_before_the_end_is_rejected(chain: tuple[Block, Draft]) -> None:
    block, draft = chain
    first, second, last = draft.trace.items
    items = [first, second, {**first, "name": "another"}, last]
    results = [*draft.trace.results[:2], {"result": draft.answer.value}, draft.trace.results[2]]
    early = replace(
        draft, trace=replace(draft.trace, items=items, results=results), answer=Bound(draft.answer.value, {"$ref": 3})
    )
    assert rejection(lambda: block.certify(early)) == ("guessable", "an earlier result is the answer")


def test_a_single_call_that_says_the_answer_is_rejected(chain: tuple[Block, Draft]) -> None:
    block, draft = chain
    first = replace(draft, answer=Bound(draft.answer.value, {"$ref": 0}))
    assert rejection(lambda: block.certify(first)) == ("guessable", "a single call says the answer")


def test_a_value_that_one_call_reads_is_no_answer_even_by_chance(chain: tuple[Block, Draft]) -> None:
    """Unlike a longer way, a single call counts although it gives other values in other worlds."""
    block, draft = chain
    anchor = anchor_of(draft)
    field = anchor.entity.fields[0].name
    lucky = block.world.changed(anchor.entity.name, field, {anchor.key: draft.answer.value})
    assert shortest(draft, lucky, block.others) == 1


# Counterfactual worlds


def test_an_answer_that_stays_when_the_facts_change_is_rejected(chain: tuple[Block, Draft]) -> None:
    block, draft = chain
    same = [block.world, *block.others[1:]]
    assert rejection(lambda: elsewhere(draft.plan, draft.answer.value, same)) == (
        "counterfactual", "the answer stays when the facts change",
    )  # fmt: skip


# Unanswerable tasks


def test_a_question_without_an_answer_has_none_by_any_tool_that_is_left() -> None:
    """There is a world that looks the same through the tools that are shown, with another answer."""
    tasks = ProceduralTasks(Recipe(missing=1.0, tasks_per_world=4), seed=2).take(24)
    unanswerable = [task for task in tasks if task.ground_truth == (unknowable.UNKNOWABLE,)]
    assert len(unanswerable) > 12
    for task in unanswerable:
        assert task.reference == ({"value": unknowable.UNKNOWABLE},)
        assert unknowable.UNKNOWABLE in task.question
        assert task.changes is None


def test_what_tells_of_a_hidden_column_is_hidden_whatever_it_is_named(chain: tuple[Block, Draft]) -> None:
    block, draft = chain
    hidden, (entity, word) = unknowable.without(random.Random(1), draft.plan, block.world, draft.visible)
    left = {op: tool for op, tool in draft.visible.items() if op not in hidden}
    told = {pair for op in left for pair in unknowable.told_by(op, block.world)}
    assert (entity, word) not in told
    assert set(hidden) >= {op for op in draft.visible if op.word == word and op.entity == entity and op.verb != "other"}
    other = block.world.with_other(entity, word, "another")
    for op in left:
        for pair in unknowable.told_by(op, block.world):
            if pair[1] and pair[0] in block.world.named and op.verb != "move":
                assert block.world.column(*pair) == other.column(*pair)


def test_an_answer_that_hangs_on_nothing_hidden_is_rejected(chain: tuple[Block, Draft]) -> None:
    block, draft = chain

    class Known(Scalar):
        def value(self, world: World) -> Any:
            return 7

    plan = Known(draft.plan.kind)
    assert rejection(lambda: unknowable.without(random.Random(1), plan, block.world, draft.visible)) == (
        "solvable", "the missing tool is not needed",
    )  # fmt: skip


# In the sandbox


async def problem_of(task: Task, results: tuple[Any, ...]) -> str:
    sandbox = LocalSandbox()
    try:
        (problem,) = await replay(sandbox, [(task, results)])
    finally:
        await sandbox.close()
    return problem


def certified(recipe: Recipe, fits: Callable[[Task], bool]) -> tuple[Task, tuple[Any, ...]]:
    tasks = ProceduralTasks(recipe, seed=5)
    for index in range(400):
        attempt = tasks.attempts(index)[-1]
        assert attempt.task is not None
        if fits(attempt.task):
            return attempt.task, attempt.results
    raise AssertionError("no such task")


async def test_a_source_that_does_not_give_the_same_again_is_found_out() -> None:
    task, results = certified(PRESETS["default"], lambda task: task.depth >= 3 and task.changes is None)
    assert await problem_of(task, results) == ""
    name = next(item["name"] for item in task.reference)
    unsteady = f"\nimport os\n\ndef {name}(*given, **named):\n    return os.urandom(4).hex()\n"
    assert await problem_of(replace(task, env=task.env + unsteady), results) == "another result comes out"
    broken = f"\ndef {name}():\n    pass\n"
    assert await problem_of(replace(task, env=task.env + broken), results) == "a call ends with exception"
    assert await problem_of(replace(task, ground_truth=("nobody",)), results) == "another answer comes out"
    unreadable = await problem_of(replace(task, env=f"{task.env}\nthis is no Python"), results)
    assert unreadable.startswith("the source ends with exception")
    lost = replace(task, reference=({"name": name, "arguments": {"of": {"$ref": 7}}}, *task.reference[1:]))
    assert (await problem_of(lost, results)).startswith("the program does not run")


async def test_a_distractor_in_the_place_of_a_needed_tool_is_found_out() -> None:
    def near(task: Task) -> tuple[str, str] | None:
        """A needed tool, and one that is named and described almost like it."""
        called = {item["name"] for item in task.reference if "name" in item}
        pairs = ((name, tool.name) for name in called for tool in task.tools if tool.name.endswith(f"_{name}"))
        return next(pairs, None)

    task, results = certified(PRESETS["hard"], lambda task: near(task) is not None)
    needed, similar = near(task) or ("", "")
    assert await problem_of(task, results) == ""
    mistaken = replace(task, env=f"{task.env}\n{needed} = {similar}\n")
    assert await problem_of(mistaken, results) == "another result comes out"


async def test_a_state_in_which_too_much_or_too_little_changed_is_found_out() -> None:
    task, results = certified(PRESETS["default"], lambda task: task.changes is not None)
    assert task.changes is not None
    assert await problem_of(task, results) == ""
    act = task.reference[results.index("done")]["name"]
    touching = f"""
_ACT = {act}


def {act}(**named):
    for rows in _ROWS.values():
        for row in rows.values():
            row["touched"] = True
    return _ACT(**named)
"""
    tolerant = task.env.replace("first[kind][key][name]", "first[kind][key].get(name)")
    assert await problem_of(replace(task, env=tolerant + touching), results) == "another state comes out"
    nothing = f"\ndef {act}(**named):\n    return 'done'\n"
    assert await problem_of(replace(task, env=task.env + nothing), results) != ""
    too_little = replace(task, changes={**task.changes, "book/nobody/branch": "elsewhere"})
    assert await problem_of(too_little, results) == "another state comes out"


# Distractors


def test_no_two_tools_of_a_world_have_one_name_whatever_they_do() -> None:
    for seed in range(12):
        block = block_of(PRESETS["hard"], seed)
        for tool in block.tools.values():
            block.distractors.like(tool)
        names = [tool.spec.name for tool in (*block.tools.values(), *block.distractors.tools)]
        assert len(names) == len(set(names))
    world, pool = (block.style, block.recipe, block.world), ("museum", "freight", "library")
    tools = [*block.tools.values()]
    drawn = Distractors(random.Random(1), *world, tools, pool).tools
    again = Distractors(random.Random(1), *world, [*tools, *drawn], pool).tools
    assert drawn
    assert not {tool.spec.name for tool in again} & {tool.spec.name for tool in (*tools, *drawn)}


def test_what_looks_like_a_needed_tool_is_the_same_whenever_it_is_asked_for() -> None:
    one, other = block_of(PRESETS["hard"], 5), block_of(PRESETS["hard"], 5)
    forward = {tool.spec.name: one.distractors.like(tool) for tool in one.tools.values()}
    backward = {tool.spec.name: other.distractors.like(tool) for tool in reversed(other.tools.values())}
    assert forward == backward
    assert one.distractors.tables == other.distractors.tables


# Determinism


def test_tasks_are_the_same_bytes_in_processes_that_hash_otherwise() -> None:
    program = (
        "import hashlib, sys\n"
        "from recall.datasets.row import row_from_task\n"
        "from recall.synth.procedural.recipe import PRESETS\n"
        "from recall.synth.procedural.tasks import ProceduralTasks\n"
        "tasks = ProceduralTasks(PRESETS['default'], seed=6)\n"
        "order = map(int, sys.argv[1].split(','))\n"
        "rows = {number: repr(row_from_task(tasks[number])) for number in order}\n"
        "print(hashlib.sha256(repr(sorted(rows.items())).encode()).hexdigest())\n"
    )
    said = set()
    for seed, order in (("0", "0,1,9,20"), ("1", "20,9,1,0"), ("77", "9,0,20,1")):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", program, order]
        said.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(said) == 1


# The count of calls


@pytest.mark.parametrize("name", ["default", "hard", "nano"])
def test_a_plan_costs_what_its_program_calls(name: str) -> None:
    block = block_of(PRESETS[name], 3, "plain_first" if name == "nano" else "clinic")
    grower, counted = block.grower(random.Random(4)), 0
    for _ in range(400):
        try:
            plan = grower.form(4)(4)
        except DeadEndError:
            continue
        ledger = Ledger(block.world, block.tools)
        plan.value(ledger)
        trace, answer, _ = block._carried_out(plan)
        assert ledger.calls == len(trace.items)
        assert answer.value == plan.value(block.world)
        counted += 1
    assert counted > 40
