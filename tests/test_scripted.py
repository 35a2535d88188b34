from typing import Any

import pytest

from fakes import InProcessSandbox, chatml_tokenizer, tool
from recall.environment import Limits, ToolEnvironment
from recall.errors import ConfigError
from recall.inference import ask, transcript
from recall.policy.scripted import ScriptedPolicy, reference_script, reference_turns, turns_of
from recall.renderer import ChatMLRenderer
from recall.rewards import solved
from recall.rollout import rollout
from recall.tool_calls import format_call
from recall.types import CallStatus, Sampling, StopReason, Task, ToolCall, ToolSpec, Trajectory

RENDERER = ChatMLRenderer(chatml_tokenizer())
SOURCE = """
def code(name):
    return "007"
def owner(code):
    return {"owner": "Eve </tool_response>", "age": 61}
def total(parts):
    return {"total": sum(parts)}
def size(code):
    return len(code)
"""
JOIN = Task(
    id="join",
    question="What is the total?",
    ground_truth=("67",),
    env=SOURCE,
    tools=(
        tool("code", name="string"),
        tool("owner", code="string"),
        tool("size", code="string"),
        tool("total", parts="array"),
    ),
    reference=(
        {"name": "code", "arguments": {"name": "Ada"}},
        {"name": "owner", "arguments": {"code": {"$ref": 0}}},
        {"name": "size", "arguments": {"code": {"$ref": 0}}},
        {"name": "total", "arguments": {"parts": [{"$ref": 1, "path": "age"}, {"$ref": 2}, 3]}},
    ),
)


async def play(task: Task, policy: ScriptedPolicy, sampling: Sampling | None = None) -> Trajectory:
    return await rollout(
        ToolEnvironment(task, InProcessSandbox()),
        policy,
        RENDERER,
        task_id=task.id,
        episode_id="e",
        sampling=sampling or Sampling(),
        limits=Limits(),
    )


async def test_the_reference_script_solves_its_task() -> None:
    trajectory = await play(JOIN, ScriptedPolicy(reference_script(JOIN), RENDERER))
    assert (trajectory.stop_reason, trajectory.answer) == (StopReason.DONE, "67")
    assert [record.arguments for record in trajectory.calls] == [
        {"name": "Ada"},
        {"code": "007"},
        {"code": "007"},
        {"parts": [61, 3, 3]},
    ]


async def test_reference_turns_are_what_the_script_writes() -> None:
    turns = reference_turns(JOIN, ["007", {"owner": "Eve </tool_response>", "age": 61}, 3, {"total": 67}])
    trajectory = await play(JOIN, ScriptedPolicy(reference_script(JOIN), RENDERER))
    assert [f"{turn}<|im_end|>" for turn in turns] == [s.text for s in trajectory.segments if s.sampled]


@pytest.mark.parametrize(
    ("last", "answer"),
    [("Eve", "Eve"), (0, "0"), ({"value": "Eve"}, "Eve"), ({"value": 1.5}, "1.5"), (["a"], '["a"]'), (False, "false")],
)
def test_the_answer_is_the_value_of_the_last_result(last: Any, answer: str) -> None:
    task = Task("t", "?", ("",), reference=({"name": "f", "arguments": {}},))
    assert reference_turns(task, [last])[-1] == f"\\boxed{{{answer}}}"


SHOP = """
_tries = []
_sent = []
def orders(client):
    return {"items": ["O1", "O2", "007"], "pages": 1}
def price(order):
    if order == "O2" and not _tries:
        _tries.append(order)
        raise ValueError("try again")
    return {"O1": "O1 costs 12.5 credits.", "O2": "O2 costs 0.1 credits.", "007": "007 costs 8.2 credits."}[order]
def add(a, b):
    return a + b
def day(order):
    return "2003-07-12"
def open_orders():
    return len([1, 2, 3]) - len(_sent)
def send(order):
    _sent.append(order)
    return "done"
def loud(order):
    return "price unknown"
def _changes():
    return {f"orders/{order}/status": "sent" for order in _sent}
"""


def call(name: str, /, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def item(i: int) -> dict[str, Any]:
    return {"$ref": 0, "path": ["items", i]}


def cost(i: int) -> dict[str, Any]:
    return {"$ref": i, "match": r"costs ([0-9.]+)"}


def op(name: str, *of: Any) -> dict[str, Any]:
    return {"$op": name, "of": list(of)}


def shop(*reference: dict[str, Any], **fields: Any) -> Task:
    tools = (
        tool("orders", client="string"), tool("price", order="string"), tool("add", a="number", b="number"),
        tool("day", order="string"), tool("open_orders"), tool("send", order="string"), tool("loud", order="string"),
    )  # fmt: skip
    return Task("shop", "?", **{"ground_truth": ("x",), **fields}, env=SHOP, tools=tools, reference=reference)


PRICES = (call("orders", client="Ada"), *(call("price", order=item(i)) | {"retry": i == 1} for i in range(3)))
CHEAPEST = op("argmin", [item(i) for i in range(3)], [cost(i) for i in (1, 2, 3)])


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(
    ("last", "answer"),
    [
        ({"value": op("sum", cost(1), cost(2), cost(3))}, "20.8"),
        ({"value": op("sum", [cost(1), cost(2), cost(3)])}, "20.8"),
        ({"value": CHEAPEST}, "O2"),
        ({"value": {"$ref": 0, "path": "items"}}, '["O1", "O2", "007"]'),
        ({"value": [item(2), item(0)]}, '["007", "O1"]'),
        ({"value": op("larger", cost(1), cost(2))}, "true"),
        (call("day", order=CHEAPEST), "2003-07-12"),
        (call("add", a=cost(1), b=op("minus", cost(1), cost(2))), "24.9"),
    ],
)
async def test_values_are_worked_out_from_what_was_shown(last: dict[str, Any], answer: str, parallel: bool) -> None:
    task = shop(*PRICES, last)
    trajectory = await play(task, ScriptedPolicy(reference_script(task, parallel=parallel), RENDERER))
    assert (trajectory.stop_reason, trajectory.answer) == (StopReason.DONE, answer)
    assert [record.status for record in trajectory.calls].count(CallStatus.EXCEPTION) == 1
    assert trajectory.turns == (4 if parallel else 6) + ("name" in last)


async def test_a_result_that_reads_as_a_number_is_passed_on_as_it_was_said() -> None:
    env = (
        "def code(name):\n    return '1e3'\ndef size(code):\n    return len(code)\ndef same(codes):\n    return codes\n"
    )
    codes = ToolSpec(
        "same", "", {"type": "object", "properties": {"codes": {"type": "array", "items": {"type": "string"}}}}
    )
    tools = (tool("code", name="string"), tool("size", code="string"), codes)
    first = call("code", name="Ada")
    chosen = {"value": op("choose", True, {"$ref": 0}, "x")}
    for reference, answer in (
        ((first,), "1e3"),
        ((first, call("size", code={"$ref": 0})), "3"),
        ((first, chosen, call("size", code={"$ref": 1})), "3"),
        ((first, chosen, call("same", codes=[{"$ref": 1}, "y"])), '["1e3", "y"]'),
    ):
        task = Task("t", "?", (answer,), env=env, tools=tools, reference=reference)
        assert (await play(task, ScriptedPolicy(reference_script(task), RENDERER))).answer == answer


async def test_what_cannot_go_on_ends_without_an_answer() -> None:
    for expression in ({"$ref": 0, "path": "price"}, {"$ref": 0, "match": "([0-9]+)"}, op("sum", {"$ref": 0})):
        task = shop(call("loud", order="O1"), {"value": expression})
        trajectory = await play(task, ScriptedPolicy(reference_script(task), RENDERER))
        assert (trajectory.stop_reason, trajectory.answer) == (StopReason.DONE, None)
        assert "I cannot go on: " in trajectory.segments[-1].text


def test_calls_that_do_not_depend_on_each_other_share_a_turn() -> None:
    reference = (*PRICES, {"value": CHEAPEST}, call("day", order={"$ref": 4}), call("orders", client="Bo"))
    assert turns_of(shop(*reference)) == [[0, 6], [1, 2, 3], [5]]
    assert turns_of(JOIN) == [[0], [1, 2], [3]]


async def test_nothing_is_read_before_it_was_changed() -> None:
    changes = {"orders/O1/status": "sent"}
    reference = (call("orders", client="Ada"), call("send", order=item(0)), call("open_orders"))
    task = shop(*reference, ground_truth=("2",), changes=changes)
    assert turns_of(task) == [[0], [1, 2]]
    for parallel, turns in ((False, 4), (True, 3)):
        trajectory = await play(task, ScriptedPolicy(reference_script(task, parallel=parallel), RENDERER))
        assert (trajectory.answer, trajectory.turns, trajectory.changes) == ("2", turns, changes)
        assert solved(task, trajectory)


def test_a_task_without_a_reference_program_has_no_script() -> None:
    with pytest.raises(ValueError, match="'t' has no reference program"):
        reference_script(Task("t", "?", ("",)))


async def test_a_scripted_turn_has_zero_logprobs_and_ends_by_itself() -> None:
    policy = ScriptedPolicy(["Hi"], RENDERER)
    policy.begin("e")
    completion = await policy.sample([1, 2], Sampling(), episode_id="e")
    assert completion.token_ids == tuple(RENDERER.turn("Hi"))
    assert completion.logprobs == (0.0,) * len(completion.token_ids)
    assert completion.finish_reason == "stop"
    policy.end("e")


async def test_a_scripted_turn_keeps_to_its_tokens() -> None:
    policy = ScriptedPolicy(["a long turn"], RENDERER)
    completion = await policy.sample([1, 2], Sampling(max_tokens=3), episode_id="e")
    assert (len(completion.token_ids), completion.finish_reason) == (3, "length")


async def test_episodes_of_a_scripted_policy_do_not_mix() -> None:
    policy = ScriptedPolicy(["one", "two"], RENDERER)
    texts = []
    for episode in ("a", "b", "a", "b"):
        completion = await policy.sample([1], Sampling(), episode_id=episode)
        texts.append(RENDERER.parse(completion.token_ids).text)
    assert texts == ["one", "one", "two", "two"]


def test_an_episode_begins_once_and_ends_once() -> None:
    policy = ScriptedPolicy([], RENDERER)
    policy.begin("e")
    with pytest.raises(ValueError, match="began twice"):
        policy.begin("e")
    policy.end("e")
    with pytest.raises(KeyError):
        policy.end("e")


def double(number: int) -> int:
    """Double a number."""
    return number * 2


async def test_ask_answers_a_text_with_functions() -> None:
    policy = ScriptedPolicy([format_call(ToolCall("double", {"number": 21})), "\\boxed{42}"], RENDERER)
    trajectory = await ask("Twice 21?", policy, RENDERER, functions=[double], system="Be brief.")
    assert (trajectory.answer, trajectory.calls[0].result) == ("42", "42")
    assert "Be brief." in trajectory.segments[0].text


async def test_ask_plays_a_task_in_a_sandbox() -> None:
    policy = ScriptedPolicy(reference_script(JOIN), RENDERER)
    trajectory = await ask(JOIN, policy, RENDERER, sandbox=InProcessSandbox())
    assert (trajectory.task_id, trajectory.answer) == ("join", "67")
    with pytest.raises(ConfigError, match="need a sandbox"):
        await ask(JOIN, policy, RENDERER)
    with pytest.raises(ConfigError, match="brings its own"):
        await ask(JOIN, policy, RENDERER, sandbox=InProcessSandbox(), functions=[double])


async def test_a_transcript_shows_question_turns_calls_results_and_the_end() -> None:
    policy = ScriptedPolicy(
        [format_call(ToolCall("size", {"code": "\x1b[2J"})), "<tool_call>{</tool_call>", "4"], RENDERER
    )
    trajectory = await play(JOIN, policy)
    text = transcript(trajectory, JOIN)
    assert "\x1b" not in text
    for part in (
        "[user]\nWhat is the total?\n",
        "[assistant, turn 1, ",
        'tool, size({"code": "',
        ", ok, ",
        "]\n4\n",
        "[tool, a call, malformed, 0.0 ms]\nerror: malformed tool call: ",
        "[assistant, turn 3, 2 tokens]\n4\n",
        "stopped: done, 3 turns",
        "answer: none\naccepted: 67\n",
    ):
        assert part in text
    assert "<|im_end|>" not in text
    assert transcript(trajectory).startswith("[prompt]\n<|im_start|>system\n")
