"""`recall train --engine trl`: our loop plays, TRL's `GRPOTrainer` learns, in this process or in several."""

import json
import shutil
import signal
from contextlib import nullcontext
from pathlib import Path
from types import FrameType

from recall.cli.allocator import calm_allocator
from recall.errors import ConfigError
from recall.trainers.recipe import TrainRecipe


def train_on_trl(recipe: TrainRecipe, path: Path, *, resume: bool) -> int:
    """Train, then print the summary; Ctrl-C ends the step under way and writes a checkpoint.

    Under `accelerate launch` this runs in every process, of which the first one writes the run.

    Returns:
        The exit status.

    Raises:
        ConfigError: TRL is not there, or cannot do what the recipe says; no directory is left behind.
        RolloutError: every episode of a step failed for reasons of ours.
    """
    from recall.trainers.trl.honours import check, check_installed

    check(recipe)
    check_installed()
    calm_allocator()
    from accelerate import PartialState  # type: ignore[import-untyped]

    from recall.trainers.local import open_run
    from recall.trainers.trl.quiet import Quiet
    from recall.trainers.trl.trainer import TrlTrainer
    from recall.viewer.live import LiveView

    first = PartialState().is_main_process
    run = open_run(path, recipe, resume=resume) if first else None
    try:
        with LiveView() if first else nullcontext(Quiet()) as view:
            trainer = TrlTrainer(recipe, run, view, path=path, resume=resume)

            def interrupt(number: int, frame: FrameType | None) -> None:
                trainer.request_stop()

            before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
            try:
                outcome = trainer.train()
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
    except ConfigError:
        if run is not None and not resume and not run.metrics_path.exists():
            shutil.rmtree(path)
        raise
    if run is None:
        return 0
    if not outcome.finished:
        return 130
    from recall.viewer.report import write_report

    print(f"report: {write_report(path, decode=trainer.renderer.decode)}")
    print(json.dumps(outcome.summary))
    return 0
