"""The tour in `examples/`: each file runs as it stands and does what it says."""

import re
import runpy
import sys
from pathlib import Path

import pytest

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
