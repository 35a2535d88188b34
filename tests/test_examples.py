"""The tour in `examples/` and the page `docs/agent.md`: what they show runs as it stands and does what they say."""

import importlib
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from recall.cli import main

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The lines that an example prints, started as a user would."""
    path = str(EXAMPLES / name)
    monkeypatch.setattr(sys, "argv", [path, *arguments])
    runpy.run_path(path, run_name="__main__")
    return capsys.readouterr().out.splitlines()


def test_every_file_of_the_tour_has_a_test() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'run("{path.name}"' not in source] == []


def test_nano_calls_functions_and_a_class(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = run("function_tools.py", monkeypatch, capsys)
    assert [re.sub(r" in [\d.]+ ms$", "", line) for line in lines] == [
        "lookup_branch({'subject': 'Kizedi'}) -> Falo",
        "answer: Falo",
        "lookup_supplier({'name': 'Tota'}) -> Gebe",
        "answer: Gebe",
    ]


def test_nano_calls_the_tool_of_a_server(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mcp")
    lines = run("mcp_server.py", monkeypatch, capsys)
    assert "[lookup_supplier: ok, Tota]" in lines
    assert lines[-1] == "answer: Tota"


def test_an_index_is_searched_twice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("bm25s")
    lines = run("search_agent.py", monkeypatch, capsys)
    assert "Charles Babbage was born in London in 1791." in lines
    assert "answer: London" in lines


def test_a_group_in_an_environment_of_ones_own_moves_the_weights(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    *scored, metrics = run("own_environment.py", monkeypatch, capsys)
    assert len(scored) == 16
    assert {line.split()[1] for line in scored} <= {"0.0", "0.7", "0.8", "0.9"}
    assert len({line.split()[1] for line in scored}) > 1
    assert "'groups/used': 1.0" in metrics


def test_a_policy_is_measured_before_and_after(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = run("before_after.py", monkeypatch, capsys, "1", "2", "4")
    assert lines[-3].split()[:3] == ["calls", "before", "after"]
    assert [re.sub(r"\d+%", "%", line).split() for line in lines[-2:]] == [[kind, *["%"] * 4] for kind in ("1", "2")]


PAGE = (EXAMPLES.parent / "docs" / "agent.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of the page in one language; `""` for those that name none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [block for named, block in found if named == language]


def test_the_python_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    program = "\n".join(block for block in blocks("python") if "openai" not in block)
    exec(compile(program, "docs/agent.md", "exec", dont_inherit=True), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Tota"
    assert [line for line in lines if line.startswith("lookup_supplier returned Gebe in ")]
    assert lines[-1] == "Gebe"


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that holds what the page's commands name, and is the current one."""
    (tmp_path / "examples").symlink_to(EXAMPLES)
    (tmp_path / "mcp.json").write_text(blocks("json")[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_the_commands_of_the_page_run(beside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mcp")
    lines = [
        line for block in blocks("") for line in block.splitlines() if line.startswith(("recall run", "recall syn"))
    ]
    shown = []
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, line
        shown.append(capsys.readouterr().out)
    asked, served, _, row = shown
    assert asked.splitlines()[-1] == "answer: Tota"
    assert json.loads(served)["answer"] == "Tota"
    assert "accepted: " in row


def test_the_service_of_the_page_is_served_and_asked(beside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openai")
    (line,) = [line for block in blocks("") for line in block.splitlines() if line.startswith("recall serve")]
    command = [sys.executable, "-m", "recall.cli", *shlex.split(line)[1:-1], "0"]
    with subprocess.Popen(command, cwd=beside, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert port is not None
            (client,) = [block for block in blocks("python") if "openai" in block]
            exec(compile(client.replace("8902", port[1]), "docs/agent.md", "exec", dont_inherit=True), {})
        finally:
            process.terminate()
    assert capsys.readouterr().out.splitlines() == ["\\boxed{Tota}", "ok"]
    assert process.returncode == 0


def test_the_table_of_the_page_counts_the_programs_as_they_are() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES.parent / "benchmarks"))
        peers = importlib.import_module("peers")
    for agent, (what, _) in peers.AGENTS.items():
        files = [peers.PROGRAMS / f"{agent}_{library}.py" for library in peers.LIBRARIES]
        counts = [str(peers.lines_of(file.read_text(encoding="utf-8"))) for file in files]
        assert f"| {what} | {' | '.join(counts)} |" in PAGE
