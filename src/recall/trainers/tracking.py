"""Where metrics go besides `metrics.jsonl`: TensorBoard's files, Weights & Biases, Trackio, each behind two methods.

Keys are read from the environment by the trackers themselves, and stand in no file of a run and on no command line.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from recall.errors import ConfigError
from recall.store import Run

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EVENT_FILES = "events.out.tfevents.*"
"""The names that TensorBoard looks for in a directory."""
IDS = "trackers.json"
"""The file of a run with the ids that trackers gave it, so that a resumed run goes on there."""


class Tracker(Protocol):
    """Takes the metrics of a run as they come."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of one step."""

    def close(self) -> None:
        """Finish. Safe to call twice."""


class TensorBoard:
    """TensorBoard's files beside `metrics.jsonl`, a copy of it that is made anew on a resume."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._writer: SummaryWriter | None = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `Tracker`; the first call writes what `metrics.jsonl` holds, that step included."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # takes a second, so only once training is under way

            for left in self._run.path.glob(EVENT_FILES):
                left.unlink()
            self._writer = SummaryWriter(str(self._run.path))
            for row in self._run.read_metrics():
                self._write(self._writer, row["step"], row)
        else:
            self._write(self._writer, step, metrics)
        self._writer.flush()

    def close(self) -> None:
        """See `Tracker`."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    @staticmethod
    def _write(writer: "SummaryWriter", step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if name != "step" and isinstance(value, int | float):
                writer.add_scalar(name, value, step)


class WandB:
    """Weights & Biases. With WANDB_MODE=offline it writes into the run directory, for `wandb sync` to send later."""

    def __init__(self, run: Run, project: str, name: str, config: Mapping[str, Any]) -> None:
        """Begin, or on a resume go on with, a run there.

        Raises:
            ConfigError: there is no key in the environment, or the service cannot be used.
        """
        import wandb

        if not os.environ.get("WANDB_API_KEY") and os.environ.get("WANDB_MODE") not in ("offline", "disabled"):
            raise ConfigError(
                "tracking.to: wandb: WANDB_API_KEY is not in the environment; with WANDB_MODE=offline none is needed"
            )
        known = _ids(run).get("wandb")
        try:
            self._there: Any = wandb.init(
                project=project,
                name=name,
                id=known,
                resume="allow",
                dir=str(run.path),
                config=dict(config),
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.errors.Error as error:
            raise ConfigError(f"tracking.to: wandb: {error}") from error
        # Steps of a resumed run come again; with an axis of their own they are drawn where they belong.
        self._there.define_metric("step")
        self._there.define_metric("*", step_metric="step")
        run.write_json(IDS, {**_ids(run), "wandb": self._there.id})

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._there.log({**metrics, "step": step})

    def close(self) -> None:
        """See `Tracker`."""
        if self._there is not None:
            self._there.finish()
        self._there = None


class Trackio:
    """Trackio, on this machine or, with TRACKIO_SPACE_ID and HF_TOKEN, on a Space."""

    def __init__(self, run: Run, project: str, name: str, config: Mapping[str, Any]) -> None:
        """Begin, or on a resume go on with, a run there."""
        import trackio

        self._there: Any = trackio.init(
            project=project,
            name=name,
            config=dict(config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._there.log(dict(metrics), step=step)

    def close(self) -> None:
        """See `Tracker`."""
        if self._there is not None:
            self._there.finish()
        self._there = None


Opener = Callable[[Run, str, str, Mapping[str, Any]], Tracker]
TRACKERS: Mapping[str, Opener] = MappingProxyType({"wandb": WandB, "trackio": Trackio})
"""The trackers that `tracking.to` names; each is a package of that name."""


def open_trackers(run: Run, to: Sequence[str], *, project: str, name: str, config: Mapping[str, Any]) -> list[Tracker]:
    """Open the trackers of a run.

    Args:
        run: whose metrics go there.
        to: names of `TRACKERS`.
        project: of the run there.
        name: of the run there; empty takes that of its directory.
        config: JSON values that are shown beside the metrics.

    Raises:
        ConfigError: one is not installed, or has no key.
    """
    for tracker in to:
        if find_spec(tracker) is None:
            raise ConfigError(f"tracking.to: {tracker} is not installed; it comes with: pip install 'recall[tracking]'")
    return [TRACKERS[tracker](run, project, name or run.path.name, config) for tracker in to]


def _ids(run: Run) -> dict[str, str]:
    path = run.path / IDS
    found: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    return found
