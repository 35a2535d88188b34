"""The leaderboard with its own checkers: `make test-bfcl` sets them up; elsewhere these tests are skipped."""

import json
import os
from pathlib import Path

import pytest

from recall.cli import main
from recall.evaluation.bfcl.checkers import Checkers
from recall.evaluation.bfcl.entries import CATEGORIES, Entry, read_entries

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


async def right(entries: list[Entry]) -> int:
    async with Checkers(Path(PYTHON)) as checkers:
        return sum(
            [(await checkers.check_turns(e, [[turn] if turn else [] for turn in e.truth]))["valid"] for e in entries]
        )


@pytest.mark.parametrize("category", MULTI_TURN)
async def test_the_checkers_accept_their_own_truth(data: Path, category: str) -> None:
    entries = read_entries(data, category)
    assert len(entries) == await right(entries) == 200


async def test_the_checkers_reject_what_is_not_done(data: Path) -> None:
    entry = read_entries(data, "multi_turn_base")[0]
    async with Checkers(Path(PYTHON)) as checkers:
        verdict = await checkers.check_turns(entry, [[] for _ in entry.truth])
    assert not verdict["valid"]
    assert verdict["error_type"] == "multi_turn:empty_turn_model_response"


async def test_episodes_leave_no_backend_behind(data: Path) -> None:
    first, second = read_entries(data, "multi_turn_base")[:2]
    async with Checkers(Path(PYTHON)) as checkers:
        for entry in (first, second):
            assert "mv" in await checkers.open("e", entry)
            assert await checkers.call("e", "mkdir", {"dir_name": "fresh"}) != ""
            assert "fresh" in await checkers.call("e", "ls", {})
            await checkers.close("e")
        await checkers.open("e", first)
        assert "fresh" not in await checkers.call("e", "ls", {})
        assert "not defined" in await checkers.call("e", "_load_scenario", {"scenario": {}})
        assert "not defined" in await checkers.call("e", "eval", {"source": "1"})


def test_the_truth_scores_all_and_nothing_scores_what_it_should(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for script in ("truth", "empty"):
        out = tmp_path / script
        given = ["--checkers", PYTHON, "--script", script, "--entries", "12", "--out", str(out)]
        assert main(["eval", "bfcl", *given]) == 0
        found[script] = json.loads(capsys.readouterr().out.splitlines()[-1])["categories"]
        assert main(["eval", "bfcl", *given]) == 0  # nothing is played again
        assert len((out / "verdicts.jsonl").read_text().splitlines()) == 12 * len(CATEGORIES)
    assert all(category["accuracy"] == 1 for category in found["truth"].values())
    wanted = {name: float("irrelevance" in name) for name in CATEGORIES}
    assert {name: category["accuracy"] for name, category in found["empty"].items()} == wanted
    line = (tmp_path / "truth/result/recall/multi_turn/BFCL_v4_multi_turn_base_result.json").read_text().splitlines()[0]
    row = json.loads(line)
    assert row["id"] == "multi_turn_base_0"
    assert row["result"][0][0].startswith("[cd(folder='document'), mkdir(dir_name='temp'), mv(")
