"""Held-out success of a policy as it is, by mode, split and kind. It chooses no tasks and trains nothing."""

from collections.abc import Sequence
from dataclasses import replace

from recall.errors import RolloutError
from recall.evaluation.play import Player, seed_of, success, success_by_kind
from recall.store import Run
from recall.types import Group, Sampling, Task


async def measure(
    player: Player,
    tasks: Sequence[Task],
    sampling: Sampling,
    splits: Sequence[str],
    *,
    step: int,
    seed: int,
    run: Run | None = None,
    modes: Sequence[str] = ("sampled", "greedy"),
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Play each task once in each mode.

    Args:
        player: plays.
        tasks: of all splits together.
        sampling: of the mode `sampled`; `greedy` is the same at temperature 0.
        splits: their names; with several, success is reported by split, else by kind.
        step: the updates done.
        seed: of the run.
        run: where the sampled trajectories are written; None keeps none.
        modes: which of the two.

    Returns:
        Success by mode, and the metrics with all of it.

    Raises:
        RolloutError: every episode failed for reasons of ours.
    """
    found: dict[str, dict[str, float]] = {}
    metrics: dict[str, float] = {}
    for mode in modes:
        how = sampling if mode == "sampled" else replace(sampling, temperature=0.0)
        groups = await player.play(tasks, samples=1, sampling=how, label=f"{mode}/{step}/", seed=seed_of(seed, 2))
        refuse_only_faults(groups)
        found[mode] = {}
        for split in splits:
            of_split = [group for group in groups if len(splits) == 1 or group.task.split == split]
            rates = success_by_kind(of_split)
            found[mode] |= rates if len(splits) == 1 else {split: success(of_split)}
            metrics |= {f"val/{split}/{mode}/{kind}": rate for kind, rate in rates.items()}
            if run is not None and mode == "sampled":
                run.write_groups(step, of_split, split=split)
    return found, metrics


def refuse_only_faults(groups: Sequence[Group]) -> None:
    """Refuse to go on from episodes that all failed.

    Raises:
        RolloutError: none of them is sound.
    """
    faults = [trajectory.fault for group in groups for trajectory in group.trajectories]
    if None not in faults:
        raise RolloutError(f"all of {len(faults)} episodes failed, the first one by {faults[0]}")
