"""Sets of procedural tasks: how a recipe, a seed and shares of splits become a directory of shards."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from recall.datasets.sets import Manifest
from recall.errors import ConfigError
from recall.synth.procedural.made import make
from recall.synth.procedural.recipe import Recipe
from recall.synth.procedural.tasks import SPLITS
from recall.synth.workers import Workers
from recall.synth.writer import SHARD_ROWS, Progress, write_set

SHARES: Mapping[str, float] = {
    "train": 0.9,
    "validation": 0.02,
    "new_worlds": 0.02,
    "new_templates": 0.02,
    "new_skins": 0.02,
    "deeper": 0.01,
    "more_tools": 0.01,
}
"""What part of a set each split has unless it is said otherwise."""

_BLOCK = 1024
"""Tasks of one request to a worker: each starts a sandbox of its own, which takes a tenth of a second."""


def shares_of(text: str) -> dict[str, float]:
    """Shares of splits from text such as `train=0.9,new_worlds=0.1`.

    Raises:
        ConfigError: a split is unknown, a share is no number, or they do not come to 1.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        split, equals, share = part.strip().partition("=")
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if not equals or split not in SPLITS or not 0 <= value <= 1 or split in shares:
            raise ConfigError(
                f"--splits: {part.strip()!r} is not accepted; it takes SPLIT=SHARE, … with each split once, of "
                f"{', '.join(SPLITS)}"
            )
        shares[split] = value
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ConfigError(f"--splits: the shares come to {sum(shares.values()):g}; they have to come to 1")
    return shares


def rows_of(rows: int, shares: Mapping[str, float]) -> dict[str, int]:
    """How many of `rows` each split has; what rounding leaves over goes to the largest remainders."""
    counts = {split: int(rows * share) for split, share in shares.items()}
    by_remainder = sorted(shares, key=lambda split: counts[split] - rows * shares[split])
    for split in by_remainder[: rows - sum(counts.values())]:
        counts[split] += 1
    return {split: count for split, count in counts.items() if count}


def write_procedural_set(
    directory: Path,
    recipe: Recipe,
    *,
    seed: int,
    splits: Mapping[str, int],
    workers: int = 1,
    shard_rows: int = SHARD_ROWS,
    on_progress: Progress | None = None,
) -> Manifest:
    """Make a set of procedural tasks, or go on with one; see `recall.synth.writer.write_set`."""
    makes = {split: partial(make, recipe, seed, split) for split in splits}
    with Workers(makes, splits, workers, block=_BLOCK, unit=recipe.tasks_per_world) as made:
        return write_set(
            directory,
            made.stream,
            kind="procedural",
            recipe=recipe.model_dump(mode="json"),
            seed=seed,
            splits=splits,
            shard_rows=shard_rows,
            on_progress=on_progress,
        )
