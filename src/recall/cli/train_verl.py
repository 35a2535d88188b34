"""`recall train --engine verl`: start verl by a recipe, show how far it is, and leave a run directory."""

import json
import shutil
import signal
from pathlib import Path
from types import FrameType

from recall.errors import ConfigError
from recall.trainers.recipe import TrainRecipe


def train_on_verl(recipe: TrainRecipe, path: Path, *, resume: bool, dry_run: bool) -> int:
    """Train, then print the summary; with `dry_run` print the command that would train.

    Ctrl-C ends verl; it goes on from its last checkpoint.

    Returns:
        The exit status.

    Raises:
        ConfigError: verl is not there, or cannot do what the recipe says; no directory is left behind.
        RolloutError: verl failed.
    """
    from recall.trainers.verl.launch import VerlTrainer, open_run, planned

    if dry_run:
        print(planned(recipe, path).text())
        return 0
    from recall.viewer.live import LiveView

    run = open_run(path, recipe, resume=resume)
    try:
        with LiveView() as view:
            trainer = VerlTrainer(recipe, run, view, resume=resume)

            def interrupt(number: int, frame: FrameType | None) -> None:
                trainer.request_stop()

            before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
            try:
                summary = trainer.train()
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
    except ConfigError:
        if not resume and not run.metrics_path.exists():
            shutil.rmtree(path)
        raise
    if summary is None:
        return 130
    from recall.viewer.report import write_report

    print(f"report: {write_report(path)}")
    print(f"weights in Hugging Face's format: recall export {path}")
    print(json.dumps(summary))
    return 0
