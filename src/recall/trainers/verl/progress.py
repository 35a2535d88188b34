"""What verl logs, under the names that the local trainer uses. Nothing is read or written here but one growing file."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_OURS = ("reward/", "success/", "rollout/")
"""What our own replay buffer adds to verl's metrics."""
_NAMES = {
    "actor/pg_loss": "policy/loss",
    "actor/entropy": "policy/entropy",
    "actor/pg_clipfrac": "policy/clip_fraction",
    "actor/ppo_kl": "policy/kl_old",
    "actor/kl_loss": "policy/kl_reference",
    "actor/grad_norm": "policy/grad_norm",
    "actor/lr": "learner/learning_rate",
    "rollout_corr/kl": "policy/kl_sampler",
    "training/rollout_probs_diff_max": "policy/probability_gap_max",
    "training/off_policy/trajectory_staleness/mean": "rollout/staleness_mean",
    "training/off_policy/trajectory_staleness/max": "rollout/staleness_max",
    "timing_s/step": "time/step_s",
    "timing_s/gen": "time/rollout_s",
    "timing_s/update_actor": "time/update_s",
    "timing_s/update_weights": "time/sync_s",
    "perf/throughput": "time/tokens_per_s_gpu",
    "actor/perf/max_memory_allocated_gb": "memory/gpu_gb",
    "actor/perf/cpu_memory_used_gb": "memory/host_gb",
}
_VALIDATION = re.compile(r"val-core/([^/]+)/(.+)/acc/mean@\d+")


@dataclass(frozen=True, slots=True)
class Logged:
    """One line of verl's log."""

    step: int
    """Updates done."""
    metrics: Mapping[str, float]
    """Under our names."""

    @property
    def trained(self) -> bool:
        """Whether an update is told of, and not only a validation before the first one."""
        return "time/step_s" in self.metrics


def our_names(data: Mapping[str, Any]) -> dict[str, float]:
    """Verl's metrics that have a name with us; the others stay in verl's own file."""
    found: dict[str, float] = {}
    for name, value in data.items():
        if not isinstance(value, int | float):
            continue
        validation = _VALIDATION.fullmatch(name)
        if validation is not None:
            found[f"val/{validation[1]}/sampled/{validation[2]}"] = float(value)
        elif name.startswith(_OURS) or name in _NAMES:
            found[_NAMES.get(name, name)] = float(value)
    return found


class LogReader:
    """Reads the lines that verl's file logger has finished since the last look."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0

    def new(self) -> Iterator[Logged]:
        """Every line that is whole and was not there before."""
        if not self._path.exists():
            return
        with open(self._path, "rb") as file:
            file.seek(self._read)
            text = file.read()
        whole, newline, _ = text.rpartition(b"\n")
        self._read += len(whole) + len(newline)
        for line in whole.split(b"\n") if whole else ():
            row = json.loads(line)
            yield Logged(int(row["step"]), our_names(row["data"]))
