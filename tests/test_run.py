"""`recall run`: questions with tools from files, tasks, and what a terminal shows meanwhile."""

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from fakes import chatml_tokenizer
from recall import ReCall
from recall.cli import main
from recall.environment import Limits
from recall.inference.live import LiveEpisode
from recall.policy.scripted import ScriptedPolicy
from recall.renderer import ChatMLRenderer
from recall.tool_calls import format_calls
from recall.types import ToolCall

RENDERER = ChatMLRenderer(chatml_tokenizer())
TOOLS = (
    'def lookup_supplier(name: str) -> str:\n    """Supplier of a company."""\n    return {"Kizedi": "Tota"}[name]\n'
)
MCP = """
from mcp.server.mcpserver import MCPServer
server = MCPServer("companies")
@server.tool()
def lookup_supplier(name: str) -> str:
    "Supplier of a company."
    return {"Kizedi": "Tota"}[name]
server.run("stdio")
"""
QUESTION = "Find Kizedi's supplier."


def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["run", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_question_is_asked_with_the_functions_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tools.py").write_text(TOOLS)
    status, out, _ = ran(capsys, QUESTION, "--model", "nano", "--tools", str(tmp_path / "tools.py"))
    assert status == 0
    assert 'tool, lookup_supplier({"name": "Kizedi"}), ok' in out
    assert out.splitlines()[-1] == "answer: Tota"


def test_a_question_is_asked_with_the_servers_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mcp")
    (tmp_path / "server.py").write_text(MCP)
    servers = {"companies": {"command": sys.executable, "args": [str(tmp_path / "server.py")]}}
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
    status, out, _ = ran(capsys, QUESTION, "--model", "nano", "--tools", str(tmp_path / "mcp.json"), "--json")
    trajectory = json.loads(out)
    assert (status, trajectory["answer"]) == (0, "Tota")
    assert [call["result"] for call in trajectory["calls"]] == ["Tota"]


def test_a_row_brings_its_question_and_its_tools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    assert main(["synth", "nano", str(rows), "--rows", "3", "--kinds", "1"]) == 0
    capsys.readouterr()
    status, out, _ = ran(capsys, "--model", "nano", "--tools", f"{rows}#2")
    assert status == 0
    assert "accepted: " in out.splitlines()[-1]
    status, out, _ = ran(capsys, "What is the age of baba?", "--model", "nano", "--tools", f"{rows}#2")
    assert status == 0
    assert "What is the age of baba?" in out
    assert "accepted: " not in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["?", "--tools", "nowhere.py"], "--tools nowhere.py: no such file; accepted: tools.py, mcp.json"),
        (["--tools", "http://127.0.0.1:9/mcp"], "QUESTION is missing"),
        (["?", "--model", "nowhere"], "nowhere"),
        (["?", "--policy.api", "chat"], "--policy.api: is for a server"),
        (["?", "--colour", "red"], "--colour"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = ran(capsys, *arguments)
    assert status == 2
    assert why in err
    assert len(err.strip().splitlines()) == 1


async def test_a_terminal_shows_calls_and_the_answer_and_obeys_no_text() -> None:
    def read(page: str) -> str:
        """Read a page."""
        return f"\x1b]0;{page} owns your terminal\x07\x1b[2J"

    calls = format_calls([ToolCall("read", {"page": "x"}), ToolCall("gone", {})])
    policy = ScriptedPolicy([f"<think>\nhm\n</think>\n{calls}", "It is \\boxed{\x1b[31mred}"], RENDERER)
    agent = ReCall(policy=policy, renderer=RENDERER, tools=[read], limits=Limits(max_tokens=100_000))
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, height=24, color_system=None)
    with LiveEpisode(console) as view:
        await agent.ask("Which colour?", observe=view.observe)
    shown = screen.getvalue()
    for text in ("Which colour?", "tools: read", "hm", '✓ read(page="x")', "✗ gone()", "unknown tool", "answer", "red"):
        assert text in shown, text
    assert "\x1b]0;" not in shown
    assert "\x1b[31mred" not in shown
    assert "\x07" not in shown
