"""Tools of real MCP servers, by stdio and by HTTP; one that dies in the middle of a call is an answer in words."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import chatml_tokenizer
from recall import ReCall
from recall.environment import Limits, SourceEnvironment
from recall.errors import ConfigError
from recall.policy.scripted import ScriptedPolicy
from recall.renderer import ChatMLRenderer
from recall.tool_calls import format_call, format_calls
from recall.tools.mcp import MCPTools
from recall.types import AssistantTurn, CallStatus, ToolCall

pytest.importorskip("mcp")
SERVER = str(Path(__file__).with_name("mcp_server.py"))
LIMITS = Limits(call_timeout_s=60, max_tokens=100_000)


def stdio(**settings: Any) -> MCPTools:
    return MCPTools(sys.executable, [SERVER, "stdio"], **settings)


class HTTPServer:
    """The server by HTTP, which can be killed and started again at the same port."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, SERVER, "http", str(self.port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise AssertionError("the server does not listen")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def http() -> Iterator[HTTPServer]:
    server = HTTPServer()
    yield server
    server.kill()


async def told(tools: MCPTools, *calls: ToolCall, limits: Limits = LIMITS) -> list[tuple[CallStatus, str]]:
    """What an episode's turn with these calls is told."""
    env = SourceEnvironment("?", [tools], limits)
    try:
        await env.start()
        step = await env.step(AssistantTurn("", calls=calls))
        return [(record.status, record.result) for record in step.records]
    finally:
        await env.close()


ORDER = ToolCall("order", {"items": [{"name": "pear", "count": 2}, {"name": "fig"}]})


async def test_a_server_by_stdio_offers_its_tools_and_answers_the_calls_of_a_turn() -> None:
    tools = stdio()
    try:
        assert await told(tools, ToolCall("add", {"a": 2, "b": -2}), ORDER, ToolCall("fail", {})) == [
            (CallStatus.OK, "0"),
            (CallStatus.OK, "2 pear, 1 fig"),
            (CallStatus.EXCEPTION, "error: Error executing tool fail: nothing to be had"),
        ]
        wrong = ToolCall("order", {"items": [{"name": "pear", "count": "two"}]})
        assert await told(tools, wrong) == [
            (CallStatus.BAD_ARGUMENTS, "error: argument 'items[0].count': 'two' is not of type 'integer'")
        ]
    finally:
        await tools.close()
        await tools.close()


async def test_a_server_that_dies_in_the_middle_of_a_call_is_an_answer_and_is_there_for_the_next() -> None:
    tools = stdio()
    try:
        ((status, text),) = await told(tools, ToolCall("die", {}))
        assert status is CallStatus.CRASHED
        assert "error: MCP server" in text
        assert await told(tools, ToolCall("add", {"a": 1, "b": 1})) == [(CallStatus.OK, "2")]
    finally:
        await tools.close()


async def test_an_idempotent_tool_is_called_again_where_the_server_died(tmp_path: Path) -> None:
    tools = stdio()
    try:
        assert await told(tools, ToolCall("die_once", {"mark": str(tmp_path / "m")})) == [
            (CallStatus.OK, "alive again")
        ]
    finally:
        await tools.close()


async def test_a_call_that_takes_too_long_is_answered_in_time() -> None:
    tools = stdio()
    try:
        await told(tools, ToolCall("add", {"a": 1, "b": 1}))
        started = time.monotonic()
        found = await told(tools, ToolCall("sleep", {"seconds": 60}), limits=Limits(call_timeout_s=0.5))
        assert found == [(CallStatus.TIMEOUT, "error: the call took longer than 0.5 s")]
        assert time.monotonic() - started < 30
    finally:
        await tools.close()


async def test_state_of_a_server_is_shared_or_an_episodes_own() -> None:
    shared, own = stdio(only=["note"]), stdio(only=["note"], per_episode=True)
    note = ToolCall("note", {"text": "x"})
    try:
        assert [(await told(tools, note))[0][1] for tools in (shared, shared, own, own)] == ["1", "2", "1", "1"]
    finally:
        await shared.close()
        await own.close()


async def test_a_server_by_http_that_is_killed_in_the_middle_of_a_call_is_an_answer_in_words(http: HTTPServer) -> None:
    renderer = ChatMLRenderer(chatml_tokenizer())
    turn = format_calls([ToolCall("sleep", {"seconds": 60}), ToolCall("add", {"a": 1, "b": 2})])
    again = format_call(ToolCall("add", {"a": 3, "b": 4}))
    policy = ScriptedPolicy((turn, again, "\\boxed{7}"), renderer)
    tools = MCPTools(url=http.url)
    agent = ReCall(policy=policy, renderer=renderer, tools=[tools], limits=LIMITS)
    asking = asyncio.create_task(agent.ask("?"))
    await asyncio.sleep(3)  # long enough for the call to be under way
    assert not asking.done()
    http.kill()
    await asyncio.to_thread(http.start)
    trajectory = await asking
    assert await told(tools, ToolCall("add", {"a": 3, "b": 4})) == [(CallStatus.OK, "7")]  # it is there again
    await agent.close()
    slept, added, _ = trajectory.calls
    assert slept.status in (CallStatus.CRASHED, CallStatus.EXCEPTION)
    assert slept.result.startswith("error: ")
    assert added.result == "3"
    assert (trajectory.fault, trajectory.answer) == (None, "7")


@pytest.mark.parametrize(
    ("tools", "why"),
    [
        (MCPTools("/nonexistent/server"), "MCP server /nonexistent/server: no such program"),
        (MCPTools(sys.executable, ["-c", "raise SystemExit('no key given')"]), "it said: no key given"),
        (MCPTools(url="http://127.0.0.1:9/mcp"), "cannot be reached"),
        (stdio(only=["multiply"]), "offers no tool 'multiply'; it offers add, order"),
    ],
)
async def test_a_server_that_was_never_there_is_the_users_failure_in_one_line(tools: MCPTools, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as raised:
        await told(tools)
    assert "\n" not in str(raised.value)
    await tools.close()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"command": "x", "url": "http://x"},
        {"url": "http://x", "args": ["a"]},
        {"command": "x", "headers": {"a": "b"}},
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="MCPTools: "):
        MCPTools(**settings)


async def test_the_environment_of_this_process_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_TESTS", "x")
    code = "import os, sys; sys.exit(str(sorted(n for n in os.environ if n in ('SECRET_OF_TESTS', 'GIVEN'))))"
    tools = MCPTools(sys.executable, ["-c", code], env={"GIVEN": "1"})
    with pytest.raises(ConfigError, match=r"it said: \['GIVEN'\]"):
        await told(tools)
    assert "SECRET_OF_TESTS" in os.environ
