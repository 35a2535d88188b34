"""Where metrics go besides the run directory, with the real packages and no network."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from recall.errors import ConfigError
from recall.store import Run
from recall.trainers.metrics import MetricsLog
from recall.trainers.recipe import TrackingSettings, TrainRecipe
from recall.trainers.verl.settings import VerlSettings

KEY = "0123456789" * 4


def recipe(*to: str) -> TrainRecipe:
    return TrainRecipe(tracking=TrackingSettings(to=to, project="small"), verl=VerlSettings(env={"SECRET": KEY}))  # type: ignore[arg-type]


PROGRAM = """
import sys
from pathlib import Path

from recall.store import Run
from recall.trainers.metrics import MetricsLog
from recall.trainers.recipe import TrackingSettings, TrainRecipe

run = Run(Path(sys.argv[1]))
recipe = TrainRecipe(tracking=TrackingSettings(to=(sys.argv[2],), project="small"))
log = MetricsLog(run, tensorboard=False, recipe=recipe)
for step in map(int, sys.argv[3:]):
    log.append(step, {"reward/mean": step / 10})
log.close()
log.close()
"""


def log_in_a_process(run: Path, to: str, *steps: str, **env: str) -> None:
    """Trackers leave threads and hooks behind, so they run in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(run), to, *steps],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_without_trackers_metrics_are_written_all_the_same(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", "")
    log = MetricsLog(run, tensorboard=False, recipe=recipe())
    log.append(1, {"reward/mean": 0.5})
    log.close()
    assert run.read_metrics() == [{"step": 1, "reward/mean": 0.5}]


def test_wandb_without_a_key_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = Run.create(tmp_path / "run", "")
    with pytest.raises(ConfigError, match=r"tracking\.to: wandb: WANDB_API_KEY is not in the environment"):
        MetricsLog(run, tensorboard=False, recipe=recipe("wandb"))
    assert [path.name for path in run.path.iterdir()] == ["config.toml"]


def test_wandb_offline_keeps_one_run_over_a_resume_and_no_key(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    run = Run.create(tmp_path / "run", "")
    env = {"WANDB_MODE": "offline", "WANDB_API_KEY": KEY, "WANDB_CACHE_DIR": str(tmp_path / "cache")}
    for steps in (("1", "2"), ("2", "3")):
        log_in_a_process(run.path, "wandb", *steps, **env)
    written = list((run.path / "wandb").glob("offline-run-*/run-*.wandb"))
    known = json.loads((run.path / "trackers.json").read_text())["wandb"]
    assert {re.fullmatch(r"run-(\w+)\.wandb", path.name)[1] for path in written} == {known}  # type: ignore[index]
    assert all(b"reward/mean" in path.read_bytes() for path in written)
    assert len(run.read_metrics()) == 4
    assert [p for p in run.path.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()] == []


def test_trackio_keeps_metrics_by_step(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    run = Run.create(tmp_path / "run", "")
    log_in_a_process(run.path, "trackio", "1", "2", TRACKIO_DIR=str(tmp_path / "trackio"))
    (database,) = (tmp_path / "trackio").glob("small.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("select run_name, step, metrics from metrics order by step").fetchall()
    connection.close()
    assert [(name, step, json.loads(metrics)["reward/mean"]) for name, step, metrics in rows] == [
        ("run", 1, 0.1),
        ("run", 2, 0.2),
    ]


def test_what_is_shown_of_a_recipe_leaves_its_environment_out() -> None:
    assert KEY not in json.dumps(recipe().model_dump(mode="json", exclude={"verl": {"env"}}))
