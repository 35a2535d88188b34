"""The leaderboard with its own checkers: `make test-bfcl` sets them up; elsewhere these tests are skipped."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from recall.cli import main
from recall.evaluation.bfcl.checkers import Checkers, Opening
from recall.evaluation.bfcl.entries import CATEGORIES, OFFLINE, Entry, read_entries

PYTHON = os.environ.get("RECALL_BFCL_PYTHON", "")
pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="RECALL_BFCL_PYTHON names no interpreter with bfcl-eval: make test-bfcl"),
    pytest.mark.slow,
    pytest.mark.timeout(1200),
]
MULTI_TURN = [name for name, sort in CATEGORIES.items() if sort == "multi_turn"]


@pytest.fixture
def data() -> Path:
    (package,) = Path(PYTHON).parent.parent.glob("lib/python3*/site-packages/bfcl_eval")
    return package / "data"


def opening(entry: Entry) -> Opening:
    return Opening(entry.classes, entry.source["initial_config"])


async def right(entries: list[Entry]) -> int:
    async with Checkers(Path(PYTHON)) as checkers:
        verdicts = [
            await checkers.check_turns(e.source, e.truth, e.category, [[turn] if turn else [] for turn in e.truth])
            for e in entries
        ]
    return sum(verdict["valid"] for verdict in verdicts)


@pytest.mark.parametrize("category", MULTI_TURN)
async def test_the_checkers_accept_their_own_truth(data: Path, category: str) -> None:
    entries = read_entries(data, category)
    assert len(entries) == await right(entries) == 200


async def test_the_checkers_reject_what_is_not_done(data: Path) -> None:
    entry = read_entries(data, "multi_turn_base")[0]
    async with Checkers(Path(PYTHON)) as checkers:
        verdict = await checkers.check_turns(entry.source, entry.truth, entry.category, [[] for _ in entry.truth])
    assert not verdict["valid"]
    assert verdict["error_type"] == "multi_turn:empty_turn_model_response"


async def test_episodes_leave_no_backend_behind(data: Path) -> None:
    first, second = read_entries(data, "multi_turn_base")[:2]
    async with Checkers(Path(PYTHON)) as checkers:
        for entry in (first, second):
            assert "mv" in (await checkers.open("e", opening(entry))).methods
            assert await checkers.call("e", "mkdir", {"dir_name": "fresh"}) != ""
            assert "fresh" in await checkers.call("e", "ls", {})
            await checkers.close("e")
        await checkers.open("e", opening(first))
        assert "fresh" not in await checkers.call("e", "ls", {})
        assert "not defined" in await checkers.call("e", "_load_scenario", {"scenario": {}})
        assert "not defined" in await checkers.call("e", "eval", {"source": "1"})
        await checkers.close("e")
        assert (await checkers.usage())["open"] == 0


async def test_a_process_that_ended_is_started_anew(data: Path) -> None:
    entry = read_entries(data, "multi_turn_base")[0]
    async with Checkers(Path(PYTHON)) as checkers:
        process = checkers._process
        assert process is not None
        process.kill()
        await process.wait()
        assert "ls" in (await checkers.open("e", opening(entry))).methods


def played(capsys: pytest.CaptureFixture[str], *given: str) -> dict[str, Any]:
    assert main(["eval", "bfcl", "--checkers", PYTHON, *given]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_the_truth_scores_all_and_nothing_scores_what_it_should(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = played(capsys, "--script", "truth", "--out", str(tmp_path / "truth"))
    assert {name: found["accuracy"] for name, found in truth["categories"].items() if found["accuracy"] < 1} == {}
    assert truth["entries"] == 4441
    given = ("--script", "empty", "--official", "--out", str(tmp_path / "empty"))
    empty = played(capsys, *given)
    wanted = {name: float("irrelevance" in name) for name in OFFLINE}
    assert {name: found["accuracy"] for name, found in empty["categories"].items()} == wanted
    assert (empty["compared"], empty["differing"]) == (4441, [])
    lines = (tmp_path / "empty/verdicts.jsonl").read_text()
    assert played(capsys, *given) == empty  # nothing is played again
    assert (tmp_path / "empty/verdicts.jsonl").read_text() == lines


def test_mixed_answers_are_judged_as_by_bfcl_evaluate_entry_by_entry(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = played(capsys, "--script", "mixed", "--official", "--out", str(tmp_path / "run"))
    assert (found["compared"], found["differing"]) == (4441, [])
    assert len(found["errors"]) > 15
    assert all(0 < category["accuracy"] < 1 for category in found["categories"].values())


def test_a_memory_is_filled_before_it_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = "memory_kv,memory_rec_sum"
    found = played(
        capsys, "--categories", names, "--script", "truth", "--official", "--entries", "20", "--out", str(tmp_path)
    )
    assert [category["accuracy"] for category in found["categories"].values()] == [1.0, 1.0]
    assert (found["compared"], found["differing"]) == (40, [])
    kept = tmp_path / "result/recall/agentic/memory/rec_sum/memory_snapshot/customer_final.json"
    assert "Hey there" in json.loads(kept.read_text())["memory"]
