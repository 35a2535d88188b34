"""`recall train`: train a policy by a recipe, watch it, and leave a run directory with a report."""

import asyncio
import json
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from recall.cli.allocator import calm_allocator
from recall.config import load
from recall.errors import ConfigError
from recall.trainers.recipe import TrainRecipe

if TYPE_CHECKING:
    from rich.console import Console

    from recall.trainers.local import LocalTrainer, Outcome


class Train(TrainRecipe):
    """Train a policy on tasks with tools, by reinforcement from the reward alone.

    Without a recipe it trains nano, the policy that comes with ReCall, on generated tasks. The last line printed is the
    summary as JSON. Ctrl-C ends the step under way and writes a checkpoint; a second one stops at once.
    """

    takes_recipe: ClassVar[bool] = True

    run: Path | None = None
    """The run directory to make; by default runs/ and the time."""
    resume: Path | None = None
    """A run directory to go on with, by its own recipe."""
    dry_run: bool = False
    """With the engine verl, print its command and start nothing."""
    doctor: bool = True
    """Look first for what would go wrong, as recall doctor does, and start nothing where something would."""
    ray_address: str = ""
    """With the engine verl, the Ray cluster to run on; the same as cluster.ray_address."""

    def main(self) -> int:
        """Train, then print the summary."""
        if self.resume is not None and (others := self.model_fields_set - {"resume", "ray_address"}):
            raise ConfigError(f"--resume takes the recipe of the run itself; leave out {', '.join(sorted(others))}")
        if self.resume is not None:
            recipe = load(TrainRecipe, self.resume / "config.toml") if self.resume.is_dir() else TrainRecipe()
            path = self.resume
        else:
            recipe = TrainRecipe(**{name: getattr(self, name) for name in TrainRecipe.model_fields})
            path = self.run or Path("runs") / time.strftime("%Y-%m-%d-%H%M%S")
        if self.ray_address:
            cluster = recipe.cluster.model_copy(update={"ray_address": self.ray_address})
            recipe = recipe.model_copy(update={"cluster": cluster})
        if recipe.engine == "verl":
            if self.doctor and self.resume is None and not self.dry_run and self._doctor_objects(recipe, path):
                return 1
            from recall.cli.train_verl import train_on_verl

            return train_on_verl(recipe, path, resume=self.resume is not None, dry_run=self.dry_run)
        for name in ("dry_run", "ray_address"):
            if getattr(self, name):
                raise ConfigError(f"--{name}: is for the engine verl, and engine is {recipe.engine!r}")
        if recipe.engine == "trl":
            if self.doctor and self.resume is None and self._doctor_objects(recipe, path):
                return 1
            from recall.cli.train_trl import train_on_trl

            return train_on_trl(recipe, path, resume=self.resume is not None)
        return self._train_here(recipe, path)

    def _doctor_objects(self, recipe: TrainRecipe, path: Path) -> bool:
        from recall.cli.doctor import examined_first
        from recall.trainers.tasks import check_validation_file

        check_validation_file(recipe)  # without torch, which takes the doctor seconds to load
        return examined_first(recipe, path) != 0

    def _train_here(self, recipe: TrainRecipe, path: Path) -> int:
        calm_allocator()
        if self.doctor and self.resume is None and self._doctor_objects(recipe, path):
            return 1
        from rich.console import Console

        from recall.trainers.local import LocalTrainer, open_run
        from recall.viewer.live import LiveView

        # A recipe that will not do must leave no directory behind.
        run = open_run(path, recipe, resume=self.resume is not None)
        try:
            with LiveView() as view:
                trainer = LocalTrainer(recipe, run, view, resume=self.resume is not None)
                outcome = asyncio.run(_train(trainer))
        except ConfigError:
            if self.resume is None and not run.metrics_path.exists():
                shutil.rmtree(path)
            raise
        if not outcome.finished:
            return 130
        from recall.viewer.report import write_report

        console = Console()
        _show_pair(trainer, console)
        report = write_report(path, decode=trainer.renderer.decode)
        console.print(f"report: {report}", highlight=False, soft_wrap=True)
        print(json.dumps(outcome.summary))
        return 0


async def _train(trainer: "LocalTrainer") -> "Outcome":
    """Train, with Ctrl-C asking for a stop the first time and stopping the second time."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    asked = False

    def interrupt() -> None:
        nonlocal asked
        if asked:
            task.cancel()
        else:
            asked = True
            trainer.request_stop()
            trainer.observer.note("stopping after this step; press Ctrl-C again to stop at once")

    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, interrupt)
    try:
        return await trainer.train()
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _show_pair(trainer: "LocalTrainer", console: "Console") -> None:
    """Show a held-out task that the policy failed before and solved after, the longest one."""
    from recall.inference import transcript
    from recall.store import read_groups
    from recall.viewer.live import side_by_side

    files = trainer.run.trajectory_files(trainer.splits[0])
    if len(files) < 2:
        return
    before = {stored.group.task.id: stored.group for stored in read_groups(files[0].path)}
    mended = [
        (before[stored.group.task.id], stored.group)
        for stored in read_groups(files[-1].path)
        if stored.group.rewards[0].correct and not before[stored.group.task.id].rewards[0].correct
    ]
    if mended:
        old, new = max(mended, key=lambda pair: pair[1].task.depth)
        was, now = (transcript(group.trajectories[0], group.task) for group in (old, new))
        console.print(side_by_side(was, now, console.width))
