"""The benchmark of generated tasks runs, and says what a set cost."""

import importlib
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def part(name: str) -> Any:
    """A module of `benchmarks/`, which is no package of ours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module(name)


def test_a_run_makes_the_rows_asked_for_and_says_what_they_cost(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    run = part("parts.synth_run")
    cost = run.made(run.Run(str(tmp_path / "set"), rows=16, workers=1))
    assert cost["rows"] == 16
    assert cost["cpu_s"] > 0
    assert cost["tried"] == 16 + sum(sum(reasons.values()) for reasons in cost["rejected"].values())
    held = part("synth").held(tmp_path / "set", 4)
    assert held["replayed"] == held["same_in_two_processes"] == 1
    assert held["broken"] == []
