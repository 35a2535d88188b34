"""`recall show`: a run, or its trajectories, as text in a terminal. Pages and pictures are `viewer/`'s."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recall import store
from recall.config import Positional
from recall.errors import ConfigError
from recall.types import CallRecord, RewardResult, Segment, Task, Trajectory
from recall.viewer.index.find import Filter

if TYPE_CHECKING:
    from recall.viewer.index.index import Snapshot


_COLUMNS = "{:>8} {:>6} {:1}  {:>7} {:>6} {:>5} {:>6}  {}"


class Show(Filter):
    """Summarise a run; with a filter, print the trajectories that match, by the same filters as `recall view`.

    With --lines each is one line, and counts come before them. A trajectories file is printed as it is.
    """

    run: Positional[Path]
    """A run directory, or one of its trajectories files."""
    lines: bool = False
    """Print a line for each, and how many there are of which sort."""
    limit: int = 3
    """Print at most so many trajectories."""
    prompt: bool = False
    """Print the prompt too."""
    cache: Path | None = None
    """Where indexes of trajectories are kept; by default recall/window in the user's cache directory."""

    def main(self) -> int:
        """Print."""
        from recall.viewer.text import visible

        for line in self._lines():
            print(visible(line))
        return 0

    def _lines(self) -> Iterator[str]:
        asked = {name for name, field in Filter.model_fields.items() if getattr(self, name) != field.default}
        asked -= {"limit"}
        if self.run.is_file():
            if asked - {"task"} or self.lines:
                raise ConfigError(f"{self.run}: filters other than --task need the run directory, not one of its files")
            return self._of_file(self.run)
        return self._matching() if asked or self.lines else self._summary()

    def _matching(self) -> Iterator[str]:
        from recall.viewer.index.find import brief, facets, find
        from recall.viewer.index.index import RunIndex

        run = self._run()
        index = RunIndex(run, self.cache).refresh()
        found = find(index, self)
        if not found.total:
            raise ConfigError(f"{run}: no trajectory matches; of {index.rows} there are {_kept(store.Run(run))}")
        if self.lines:
            for name, counts in facets(index, found.mask).items():
                most = sorted(counts.items(), key=lambda item: -item[1])[:8]
                yield f"{name:8} " + "  ".join(f"{text} {count:,}" for text, count in most)
            yield ""
            yield _COLUMNS.format("row", "step", "", "reward", "adv", "calls", "tokens", "stop, question → answer")
            yield from map(_line, brief(index, found.rows))
        else:
            yield from self._whole(index, found.rows)
        if found.total > self.start + len(found.rows):
            first = f"the first {len(found.rows)}" if not self.start else f"{len(found.rows)} from {self.start} on"
            yield f"({first} of {found.total:,}; --limit shows more)"

    def _whole(self, index: "Snapshot", rows: Sequence[int]) -> Iterator[str]:
        from recall.replay.recorded import of_rows

        kept = {each.row: each for each in of_rows(index, rows)}
        for each in (kept[row] for row in rows):
            advantage = float(index.columns["advantage"][each.row])
            place = f"row {each.row}  step {each.step} {index.file(each.row).split}"
            credit = None if advantage != advantage else advantage
            yield from trajectory_lines(each.task, each.trajectory, each.reward, place, credit, self.prompt)

    def _run(self) -> Path:
        """The run directory, or that of an evaluation that kept its trajectories."""
        if (self.run / "trajectories").is_dir():
            return self.run
        return store.Run.open(self.run).path

    def _of_file(self, file: Path) -> Iterator[str]:
        printed = 0
        for stored in store.read_groups(file):
            group = stored.group
            if self.task not in ("", group.task.id):
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

    def _summary(self) -> Iterator[str]:
        run = store.Run.open(self.run)
        rows = run.read_metrics()
        yield f"run {run.path}"
        yield f"  metrics       {len(rows)} rows" + (f", steps {rows[0]['step']} to {rows[-1]['step']}" if rows else "")
        for split, steps in _splits(run):
            yield f"  trajectories  {split}: {steps}"
        yield f"  checkpoints   {_steps([store.checkpoint_step(path) for path in run.checkpoints()])}"
        yield from _metrics_table(rows)


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


def _line(row: Mapping[str, Any]) -> str:
    """One trajectory of a list."""
    advantage = "" if row["advantage"] is None else f"{row['advantage']:+.2f}"
    reward = "" if row["reward"] is None else f"{row['reward']:.3f}"
    said = f"{row['stop']}, {row['question'][:80]} → {row['answer'][:40] or row['problem'][:60]}".replace("\n", "⏎")
    mark = "✓" if row["correct"] else "✗"
    return _COLUMNS.format(row["row"], row["step"], mark, reward, advantage, row["calls"], row["tokens"], said)


def _splits(run: store.Run) -> list[tuple[str, str]]:
    """The splits that trajectories were kept of, each with its steps in words."""
    splits = sorted({file.split for file in run.trajectory_files()})
    return [(split, _steps([file.step for file in run.trajectory_files(split)])) for split in splits]


def _kept(run: store.Run) -> str:
    return "; ".join(f"{split}: {steps}" for split, steps in _splits(run)) or "none"


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
