import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from fakes import InProcessSandbox, tool
from recall.environment import FunctionEnvironment, Limits, ToolEnvironment, ToolEnvironments
from recall.errors import ConfigError, SandboxError
from recall.sandbox.base import DEFAULT_OPTIONS, CallResult, Session, SessionOptions
from recall.sandbox.local import LocalSandbox
from recall.types import AssistantTurn, CallStatus, MalformedCall, Message, Step, StopReason, Task, ToolCall, ToolSpec

SOURCE = """
counter = 0
def count(by):
    global counter
    counter += by
    return counter
def echo(value):
    return value
def fail():
    raise ValueError("no such person")
def die():
    raise SystemExit
def hang():
    raise TimeoutError
"""
ANY = ToolSpec("echo", "", {"type": "object", "properties": {"value": {}}, "required": ["value"]})
TASK = Task(
    id="t",
    question="How many?",
    ground_truth=("3",),
    env=SOURCE,
    tools=(tool("count", by="integer"), ANY, tool("fail"), tool("die"), tool("hang")),
)


def turn(*calls: ToolCall | MalformedCall) -> AssistantTurn:
    return AssistantTurn("…", calls=calls)


async def started(env: ToolEnvironment) -> ToolEnvironment:
    await env.start()
    return env


async def step(*calls: ToolCall | MalformedCall, limits: Limits | None = None) -> Step:
    env = ToolEnvironment(TASK, InProcessSandbox(), limits)
    await env.start()
    try:
        return await env.step(turn(*calls))
    finally:
        await env.close()


async def told(*calls: ToolCall | MalformedCall) -> list[tuple[CallStatus, str]]:
    answer = await step(*calls)
    assert [message.content for message in answer.messages] == [record.result for record in answer.records]
    return [(record.status, record.result) for record in answer.records]


async def test_an_episode_starts_with_the_question() -> None:
    env = ToolEnvironment(TASK, InProcessSandbox())
    assert await env.start() == (Message("user", "How many?"),)
    assert env.tools == TASK.tools


async def test_a_turn_without_calls_ends_the_episode() -> None:
    assert await step() == Step(stop=StopReason.DONE)


async def test_results_come_in_the_order_of_the_calls_and_share_the_state_of_the_episode() -> None:
    calls = [ToolCall("count", {"by": n}) for n in (1, 2, 3)]
    assert [text for _, text in await told(*calls)] == ["1", "3", "6"]


async def test_state_lasts_for_the_episode_and_no_longer() -> None:
    sandbox = InProcessSandbox()
    for _ in range(2):
        env = await started(ToolEnvironment(TASK, sandbox))
        texts = [(await env.step(turn(ToolCall("count", {"by": 1})))).messages[0].content for _ in range(2)]
        assert texts == ["1", "2"]
        await env.close()
        await env.close()
    assert (sandbox.opened, sandbox.open_sessions) == (2, 0)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (False, "false"), ([], "[]"), ("", ""), (None, "null"), ({}, "{}"), ("é\n", "é\n"), (["é"], '["é"]')],
)
async def test_falsy_results_are_results(value: Any, shown: str) -> None:
    assert await told(ToolCall("echo", {"value": value})) == [(CallStatus.OK, shown)]


async def test_every_wrong_call_is_answered_in_words() -> None:
    assert await told(
        MalformedCall("{", "not valid JSON"),
        ToolCall("cuont", {}),
        ToolCall("count", {"by": "x"}),
        ToolCall("count", {}),
        ToolCall("count", {"by": 1, "to": 2}),
        ToolCall("fail", {}),
        ToolCall("hang", {}),
        ToolCall("die", {}),
    ) == [
        (CallStatus.MALFORMED, "error: malformed tool call: not valid JSON"),
        (CallStatus.UNKNOWN_TOOL, "error: unknown tool 'cuont'; the tools are: count, echo, fail, die, hang"),
        (CallStatus.BAD_ARGUMENTS, "error: argument 'by': 'x' is not of type 'integer'"),
        (CallStatus.BAD_ARGUMENTS, "error: missing argument 'by'; the arguments are: by"),
        (CallStatus.BAD_ARGUMENTS, "error: unexpected argument 'to'; the arguments are: by"),
        (CallStatus.EXCEPTION, "error: ValueError: no such person"),
        (CallStatus.TIMEOUT, "error: the call took longer than 5 s"),
        (CallStatus.CRASHED, "error: the process ended"),
    ]


async def test_a_function_that_is_no_tool_cannot_be_called() -> None:
    ((status, _),) = await told(ToolCall("__import__", {"name": "os"}))
    assert status is CallStatus.UNKNOWN_TOOL


async def test_a_task_without_tools_needs_no_session() -> None:
    sandbox = InProcessSandbox(broken=True)
    env = await started(ToolEnvironment(Task("t", "?", ("",)), sandbox))
    answer = await env.step(turn(ToolCall("f", {})))
    assert answer.messages[0].content == "error: unknown tool 'f'; there are no tools"
    await env.close()
    assert sandbox.opened == 0


async def test_a_call_outside_the_episode_is_a_bug() -> None:
    env = ToolEnvironment(TASK, InProcessSandbox())
    with pytest.raises(RuntimeError, match="before start, or after close"):
        await env.step(turn(ToolCall("fail", {})))


async def test_a_long_result_is_cut_in_the_middle() -> None:
    answer = await step(ToolCall("echo", {"value": "a" * 50 + "b" * 50}), limits=Limits(max_result_chars=10))
    assert answer.messages[0].content == "aaaaa[… 90 characters cut …]bbbbb"


async def test_an_error_is_cut_like_a_result_and_holds_no_lone_surrogate() -> None:
    answer = await step(ToolCall("x" * 100 + "\ud800", {}), limits=Limits(max_result_chars=300))
    answer.messages[0].content.encode()
    answer = await step(ToolCall("x" * 100, {}), limits=Limits(max_result_chars=20))
    assert "characters cut" in answer.messages[0].content


async def test_calls_beyond_the_limit_end_the_episode_unmade() -> None:
    env = await started(ToolEnvironment(TASK, InProcessSandbox(), Limits(max_calls=2)))
    assert (await env.step(turn(ToolCall("count", {"by": 1})))).stop is None
    assert await env.step(turn(*[ToolCall("count", {"by": 1})] * 2)) == Step(stop=StopReason.MAX_CALLS)


async def test_records_carry_the_turn_and_the_arguments_as_written() -> None:
    env = await started(ToolEnvironment(TASK, InProcessSandbox()))
    await env.step(turn(ToolCall("count", {"by": 1})))
    (record,) = (await env.step(turn(ToolCall("count", {"by": 5})))).records
    assert (record.turn, record.name, record.arguments, record.result) == (1, "count", {"by": 5}, "6")
    assert 0 < record.duration_s < 1


async def test_what_a_tool_printed_is_shown_after_its_result() -> None:
    class Printing:
        async def call(self, name: str, arguments: Mapping[str, Any], *, timeout_s: float | None = None) -> CallResult:
            return CallResult(CallStatus.OK, 0, output="hello\n")

        async def close(self) -> None: ...

    class Sandbox(InProcessSandbox):
        async def open(self, source: str, options: SessionOptions = DEFAULT_OPTIONS) -> Session:
            return Printing()

    answer = await (await started(ToolEnvironment(TASK, Sandbox()))).step(turn(ToolCall("fail", {})))
    assert answer.messages[0].content == "0\noutput:\nhello\n"


async def test_a_failure_of_the_sandbox_is_ours_and_raises() -> None:
    with pytest.raises(SandboxError):
        await ToolEnvironment(TASK, InProcessSandbox(broken=True)).start()
    env = await started(ToolEnvironment(TASK, InProcessSandbox(lasts_calls=0)))
    with pytest.raises(SandboxError):
        await env.step(turn(ToolCall("fail", {})))
    with pytest.raises(SandboxError):
        await env.step(turn(ToolCall("fail", {}), ToolCall("fail", {}), ToolCall("nothing", {})))


async def test_calls_of_a_turn_wait_together() -> None:
    class Slow:
        async def call(self, name: str, arguments: Mapping[str, Any], *, timeout_s: float | None = None) -> CallResult:
            await asyncio.sleep(0.05)
            return CallResult(CallStatus.OK, 1)

        async def close(self) -> None: ...

    class Sandbox(InProcessSandbox):
        async def open(self, source: str, options: SessionOptions = DEFAULT_OPTIONS) -> Session:
            return Slow()

    env = await started(ToolEnvironment(TASK, Sandbox()))
    begun = time.perf_counter()
    await env.step(turn(*[ToolCall("fail", {})] * 8))
    assert time.perf_counter() - begun < 0.3


def test_a_wrong_schema_is_refused_before_anything_starts() -> None:
    task = Task("t", "?", ("",), tools=(ToolSpec("f", "", {"type": "object", "properties": {"a": {"type": "dict"}}}),))
    with pytest.raises(ConfigError, match=r"tool 'f': parameters: properties\.a\.type: 'dict' is not valid"):
        ToolEnvironment(task, InProcessSandbox())


async def test_environments_of_one_task_share_schemas_and_nothing_else() -> None:
    environments = ToolEnvironments(InProcessSandbox())
    for _ in range(2):
        answer = await (await started(environments(TASK))).step(turn(ToolCall("count", {"by": 1})))
        assert answer.messages[0].content == "1"
    for n in range(600):
        task = Task(str(n), "?", ("",), env=f"def f{n}(): return {n}", tools=(tool(f"f{n}"),))
        answer = await (await started(environments(task))).step(turn(ToolCall(f"f{n}", {})))
        assert answer.messages[0].content == str(n)


ORDERS = """
import copy, os
orders = {"O1": {"status": "open"}, "O2": {"status": "open"}}
_before = copy.deepcopy(orders)
def ship(order):
    orders[order]["status"] = "sent"
    return "done"
def crash():
    os._exit(1)
def corrupt():
    global orders
    orders = None
    return "done"
def _changes():
    return {f"orders/{k}/status": v["status"] for k, v in orders.items() if v != _before[k]}
"""
SHIP = Task(
    id="ship",
    question="Send O1.",
    ground_truth=(),
    env=ORDERS,
    tools=(tool("ship", order="string"), tool("crash"), tool("corrupt")),
    changes={"orders/O1/status": "sent"},
)


async def changes_after(task: Task, *turns: AssistantTurn, limits: Limits | None = None) -> Step:
    """The step of the last turn, in the real sandbox."""
    box = LocalSandbox()
    env = ToolEnvironment(task, box, limits)
    try:
        await env.start()
        for one in turns[:-1]:
            await env.step(one)
        return await env.step(turns[-1])
    finally:
        await env.close()
        await box.close()


async def test_the_turn_that_ends_an_episode_tells_what_it_changed() -> None:
    shipped = await changes_after(SHIP, turn(ToolCall("ship", {"order": "O1"})), turn())
    assert shipped == Step(stop=StopReason.DONE, changes={"orders/O1/status": "sent"})
    assert await changes_after(SHIP, turn()) == Step(stop=StopReason.DONE, changes={})
    assert (await changes_after(SHIP, turn(ToolCall("ship", {"order": "O1"})))).changes is None


@pytest.mark.parametrize("name", ["crash", "corrupt"])
async def test_a_tool_that_broke_the_state_leaves_no_changes(name: str) -> None:
    assert await changes_after(SHIP, turn(ToolCall(name, {})), turn()) == Step(stop=StopReason.DONE)


async def test_an_episode_that_a_limit_ends_is_not_asked_for_changes() -> None:
    calls = turn(*[ToolCall("ship", {"order": "O1"})] * 3)
    assert await changes_after(SHIP, calls, limits=Limits(max_calls=2)) == Step(stop=StopReason.MAX_CALLS)


async def test_the_policy_cannot_ask_for_the_changes() -> None:
    (record,) = (await changes_after(SHIP, turn(ToolCall("_changes", {})))).records
    assert record.status is CallStatus.UNKNOWN_TOOL


async def test_a_task_that_is_not_about_state_costs_no_call() -> None:
    sandbox = InProcessSandbox(lasts_calls=1)
    env = await started(ToolEnvironment(replace(SHIP, changes=None, ground_truth=("x",)), sandbox))
    await env.step(turn(ToolCall("ship", {"order": "O1"})))
    assert await env.step(turn()) == Step(stop=StopReason.DONE)
    assert sandbox.lasts_calls == 0


async def test_a_source_without_changes_to_tell_leaves_none() -> None:
    for source in ("def ship(order): return 1", "def ship(order): return 1\ndef _changes(): return [1]"):
        task = replace(SHIP, env=source, tools=SHIP.tools[:1])
        assert await changes_after(task, turn()) == Step(stop=StopReason.DONE)


@pytest.mark.parametrize("wrong", [{"max_turns": 0}, {"max_tokens": 0}, {"call_timeout_s": 0}, {"max_trns": 3}])
def test_limits_refuse_what_makes_no_sense(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        Limits.model_validate(wrong)


class Accounts:
    """State of one episode, in methods."""

    def __init__(self) -> None:
        self.balance = 0

    def deposit(self, amount: int) -> int:
        """Put money in."""
        self.balance += amount
        return self.balance

    async def look(self) -> dict[str, int]:
        """See the balance."""
        return {"balance": self.balance}

    def steal(self) -> object:
        """Return what JSON cannot say."""
        return object()

    def wait(self, seconds: float) -> None:
        """Take a while."""
        time.sleep(seconds)


def bank(limits: Limits | None = None, system: str = "") -> FunctionEnvironment:
    accounts = Accounts()
    functions = (accounts.deposit, accounts.look, accounts.steal, accounts.wait)
    return FunctionEnvironment("How much?", functions, limits, system=system)


async def results(env: FunctionEnvironment, *calls: ToolCall) -> Sequence[str]:
    return [message.content for message in (await env.step(turn(*calls))).messages]


async def test_functions_are_tools_with_the_state_of_their_instance() -> None:
    one, other = bank(), bank(system="Be brief.")
    assert await one.start() == (Message("user", "How much?"),)
    assert await other.start() == (Message("system", "Be brief."), Message("user", "How much?"))
    assert await results(one, ToolCall("deposit", {"amount": 5}), ToolCall("deposit", {"amount": 2})) == ["5", "7"]
    assert await results(one, ToolCall("look", {})) == ['{"balance": 7}']
    assert await results(other, ToolCall("look", {})) == ['{"balance": 0}']
    await one.close()


async def test_what_a_function_does_wrong_is_told_to_the_model() -> None:
    env = bank(Limits(call_timeout_s=0.05))
    await env.start()
    step = await env.step(turn(ToolCall("steal", {}), ToolCall("wait", {"seconds": 0.2}), ToolCall("deposit", {})))
    assert [record.status for record in step.records] == [
        CallStatus.EXCEPTION,
        CallStatus.TIMEOUT,
        CallStatus.BAD_ARGUMENTS,
    ]
    assert step.records[0].result == "error: TypeError: Object of type object is not JSON serializable"


def test_two_functions_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two functions are named 'deposit'"):
        FunctionEnvironment("?", [Accounts().deposit, Accounts().deposit])


async def test_a_task_may_allow_fewer_calls_than_the_limits_and_never_more() -> None:
    for allowed, limit, made in ((1, 9, 2), (9, 1, 2), (2, 9, 2), (None, 2, 2), (9, 2, 2)):
        env = ToolEnvironment(replace(TASK, max_calls=allowed), InProcessSandbox(), Limits(max_calls=limit))
        await env.start()
        stop = (await env.step(turn(*[ToolCall("count", {"by": 1})] * made))).stop
        assert (stop is StopReason.MAX_CALLS) == (made > min(limit, 99 if allowed is None else allowed))
