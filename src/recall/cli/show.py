"""`recall show`: a run, or its trajectories, as text in a terminal. Pages and pictures are `viewer/`'s."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from recall import store
from recall.config import Positional, Settings
from recall.errors import ConfigError
from recall.types import CallRecord, RewardResult, Segment, Task, Trajectory


class Show(Settings):
    """Summarise a run; with --step, print the trajectories of that step. A trajectories file is printed as it is."""

    run: Positional[Path]
    """A run directory, or one of its trajectories files."""
    step: int | None = None
    """The step whose trajectories are printed; none summarises the run."""
    split: str = "train"
    """The split of the trajectories."""
    task: str | None = None
    """Print only the trajectories of the task with this id."""
    limit: int = 3
    """Print at most so many trajectories."""
    prompt: bool = False
    """Print the prompt too."""

    def main(self) -> int:
        """Print."""
        from recall.viewer.text import visible

        lines = self._trajectories(self._file()) if self.step is not None or self.run.is_file() else self._summary()
        for line in lines:
            print(visible(line))
        return 0

    def _file(self) -> Path:
        if self.run.is_file():
            return self.run
        files = store.Run.open(self.run).trajectory_files(self.split)
        for file in files:
            if file.step == self.step:
                return file.path
        steps = ", ".join(str(file.step) for file in files) or "none"
        raise ConfigError(f"--step: {self.run} has no {self.split} trajectories of step {self.step}; it has {steps}")

    def _summary(self) -> Iterator[str]:
        run = store.Run.open(self.run)
        rows = run.read_metrics()
        yield f"run {run.path}"
        yield f"  metrics       {len(rows)} rows" + (f", steps {rows[0]['step']} to {rows[-1]['step']}" if rows else "")
        for split in sorted({file.split for file in run.trajectory_files()}):
            yield f"  trajectories  {split}: {_steps([file.step for file in run.trajectory_files(split)])}"
        yield f"  checkpoints   {_steps([store.checkpoint_step(path) for path in run.checkpoints()])}"
        yield from _metrics_table(rows)

    def _trajectories(self, file: Path) -> Iterator[str]:
        printed = 0
        for stored in store.read_groups(file):
            group = stored.group
            if self.task not in (None, group.task.id):
                continue
            for index, (trajectory, reward) in enumerate(zip(group.trajectories, group.rewards, strict=True)):
                if printed == self.limit:
                    yield f"(the first {self.limit}; --limit shows more)"
                    return
                printed += 1
                advantage = stored.advantages[index] if stored.advantages else None
                yield from trajectory_lines(
                    group.task, trajectory, reward, f"{index + 1}/{len(group.trajectories)}", advantage, self.prompt
                )
        if not printed:
            raise ConfigError(f"--task: {file} has no task {self.task!r}" if self.task else f"{file}: no trajectories")


def trajectory_lines(
    task: Task,
    trajectory: Trajectory,
    reward: RewardResult,
    place: str,
    advantage: float | None = None,
    prompt: bool = False,
) -> Iterator[str]:
    """One trajectory as lines of text: what it earned, what was asked, and who wrote what."""
    credit = "" if advantage is None else f"  advantage {advantage:+.3f}"
    verdict = "correct" if reward.correct else "wrong"
    yield f"━━ {task.id}  {place}  reward {reward.score:.3f} {verdict}{credit}"
    yield (
        f"   {trajectory.stop_reason}, {trajectory.turns} turns, {len(trajectory.calls)} calls,"
        f" {len(trajectory.token_ids)} tokens, {trajectory.duration_s:.1f} s"
    )
    if reward.parts:
        yield "   " + "  ".join(f"{name} {value:.3g}" for name, value in reward.parts.items())
    if trajectory.fault:
        yield f"   fault of ours: {trajectory.fault}"
    yield f"   question  {task.question}"
    yield f"   accepted  {' | '.join(task.ground_truth)}"
    for segment in trajectory.segments if prompt else trajectory.segments[1:]:
        yield from _segment_lines(segment)
    yield from (_call_line(call) for call in trajectory.calls)
    yield ""


def _segment_lines(segment: Segment) -> Iterator[str]:
    author = "environment"
    if segment.logprobs is not None:
        mean = sum(segment.logprobs) / max(1, len(segment.logprobs))
        author = f"policy, mean logprob {mean:.3f}"
    yield f"── {author}, {len(segment.token_ids)} tokens"
    yield from segment.text.strip("\n").split("\n")


def _call_line(call: CallRecord) -> str:
    result = call.result.replace("\n", "⏎")
    return f"   turn {call.turn} {call.name or '(malformed)'} → {call.status}, {call.duration_s:.3f} s: {result[:100]}"


def _steps(steps: Sequence[int]) -> str:
    return f"{len(steps)}, steps {steps[0]} to {steps[-1]}" if steps else "none"


def _metrics_table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    series: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step" and isinstance(value, (int, float)) and not isinstance(value, bool):
                series.setdefault(name, []).append(value)
    if not series:
        return
    width = max(map(len, series))
    yield ""
    yield f"  {'metric':{width}} {'first':>11} {'last':>11} {'lowest':>11} {'highest':>11}"
    for name, values in series.items():
        shown = (values[0], values[-1], min(values), max(values))
        yield f"  {name:{width}} " + " ".join(f"{value:11.5g}" for value in shown)
