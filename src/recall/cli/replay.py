"""`recall replay`: recorded trajectories scored again, their calls run again, two runs on the same tasks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from recall.config import Positional
from recall.environment import Limits
from recall.errors import ConfigError
from recall.evaluation.local import SandboxSettings
from recall.viewer.index.find import Filter

if TYPE_CHECKING:
    from recall.viewer.index.index import Snapshot

SHOWN = 10
"""Changes that are printed one by one."""


class Replay(Filter):
    """Look at recorded trajectories again, and change nothing: give --score NAME, --rerun or --against RUN.

    --score puts another reward on them; --rerun runs their calls in fresh sandboxes and says which results differ;
    --against lays another run beside this one, task by task. The exit status is 1 when a call ended otherwise.
    """

    run: Positional[Path]
    """A run directory."""
    score: str | None = None
    """The reward to score by, such as exact or outcome."""
    rerun: bool = False
    """Run the recorded calls again."""
    against: Path | None = None
    """Another run directory, to put beside this one."""
    sandbox: SandboxSettings | None = None
    """Where calls run; none runs them where the run did."""
    limits: Limits | None = None
    """Time and length of results; none takes those of the run."""
    at_once: int = Field(default=8, ge=1, le=256)
    """Episodes whose calls run at the same time."""
    limit: int = Field(default=1000, ge=1)
    """At most so many trajectories."""
    cache: Path | None = None
    """Where indexes of trajectories are kept; by default recall/window in the user's cache directory."""
    as_json: bool = Field(default=False, alias="json")
    """Print one JSON object."""

    def main(self) -> int:
        """Do what is asked for, and print what it comes to."""
        if not (self.score or self.rerun or self.against):
            raise ConfigError("recall replay: give --score REWARD, --rerun, or --against RUN")
        from recall import store
        from recall.viewer.index.index import RunIndex

        index = RunIndex(store.Run.open(self.run).path, self.cache).refresh()
        told: dict[str, Any] = {}
        if self.score:
            told["score"] = self._score(index, self.score)
        if self.rerun:
            told["rerun"] = self._rerun(index)
        if self.against is not None:
            told["against"] = self._against(index, self.against)
        if self.as_json:
            print(json.dumps(told))
        else:
            from recall.viewer.text import visible

            for name, part in told.items():
                print("\n".join(visible(line) for line in _TEXTS[name](part)))
        return int(bool(told.get("rerun", {}).get("differences")))

    def _score(self, index: "Snapshot", name: str) -> dict[str, Any]:
        from dataclasses import asdict

        from recall import rewards
        from recall.replay.recorded import recorded
        from recall.replay.rescore import rescore

        result = rescore(recorded(index, self, self.limit), rewards.get(name))
        equal_before, equal_after = result.equal()
        count = max(1, result.count)
        return {
            "reward": name,
            "trajectories": result.count,
            "faults": result.faults,
            "mean_before": result.before / count,
            "mean_after": result.after / count,
            "changed": len(result.changes),
            "now_right": result.now_right,
            "now_wrong": result.now_wrong,
            "equal_groups_before": equal_before,
            "equal_groups_after": equal_after,
            "changes": [asdict(change) for change in result.changes],
        }

    def _rerun(self, index: "Snapshot") -> dict[str, Any]:
        import asyncio

        return asyncio.run(self._run_calls(index))

    async def _run_calls(self, index: "Snapshot") -> dict[str, Any]:
        import sys

        from rich.console import Console
        from rich.progress import Progress

        from recall.environment import ToolEnvironments
        from recall.replay.calls import rerun
        from recall.replay.recorded import recorded
        from recall.sandbox.base import SessionOptions
        from recall.viewer.index.find import find

        settings, limits = self._as_the_run_had()
        options = SessionOptions(settings.profile, transactional=settings.transactional)
        sandbox = settings.open_with_search()
        total = min(self.limit, find(index, self.model_copy(update={"limit": 1})).total)
        try:
            with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
                bar = bars.add_task("replay", total=total)
                result = await rerun(
                    recorded(index, self, self.limit),
                    ToolEnvironments(sandbox, limits, options),
                    at_once=self.at_once,
                    told=lambda: bars.advance(bar),
                )
        finally:
            await sandbox.close()
        return {
            "trajectories": result.trajectories,
            "calls": result.calls,
            "malformed": result.malformed,
            "differences": [
                {
                    **{name: getattr(each, name) for name in ("row", "task", "step", "turn", "name")},
                    "before": {"status": each.before.status, "result": each.before.result},
                    "after": {"status": each.after.status, "result": each.after.result},
                }
                for each in result.differences
            ],
            "unfinished": result.unfinished,
        }

    def _as_the_run_had(self) -> tuple[SandboxSettings, Limits]:
        """The sandbox and the limits of the run's own recipe, where the flags give none."""
        import tomllib

        from pydantic import ValidationError

        path = self.run / "config.toml"
        try:
            recipe = tomllib.loads(path.read_text(encoding="utf-8"))
            sandbox = self.sandbox or SandboxSettings.model_validate_json(json.dumps(recipe.get("sandbox", {})))
            limits = self.limits or Limits.model_validate(recipe.get("rollout", {}).get("limits", {}))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise ConfigError(f"{path}: {where}: is not of this version; give --sandbox and --limits") from error
        return sandbox, limits

    def _against(self, index: "Snapshot", other: Path) -> dict[str, Any]:
        from dataclasses import asdict

        from recall import store
        from recall.viewer.index.index import RunIndex
        from recall.viewer.index.pairs import pairs

        second = RunIndex(store.Run.open(other).path, self.cache).refresh()
        found = pairs(index, second, self.split)
        return {
            "first": str(self.run),
            "second": str(other),
            "tasks": len(found),
            "second_better": sum(pair.gap > 0 for pair in found),
            "second_worse": sum(pair.gap < 0 for pair in found),
            "pairs": [{**asdict(pair), "gap": pair.gap} for pair in found if pair.gap],
        }


def _score_text(told: dict[str, Any]) -> Iterator[str]:
    yield f"{told['trajectories']:,} trajectories scored by {told['reward']}"
    yield f"  mean          {told['mean_before']:.4f} before, {told['mean_after']:.4f} now"
    verdicts = f"{told['now_right']:,} now right and {told['now_wrong']:,} now wrong"
    yield f"  changed       {told['changed']:,}, of them {verdicts}"
    yield (
        f"  groups whose rewards are all equal, which teach nothing: {told['equal_groups_before']:,} before,"
        f" {told['equal_groups_after']:,} now"
    )
    for change in told["changes"][:SHOWN]:
        moved = f"{change['before']:.3f} → {change['after']:.3f}"
        yield f"  row {change['row']}  step {change['step']}  {change['task']}  {moved}  {change['verdict']}".rstrip()
    yield from _more(told["changes"])


def _rerun_text(told: dict[str, Any]) -> Iterator[str]:
    same = told["calls"] - len(told["differences"])
    yield (
        f"{told['calls']:,} calls of {told['trajectories']:,} trajectories run again: {same:,} ended as recorded,"
        f" {len(told['differences']):,} otherwise; {told['malformed']:,} malformed ones ran nothing"
    )
    for row, reason in list(told["unfinished"].items())[:SHOWN]:
        yield f"  row {row} could not be run: {reason}"
    for each in told["differences"][:SHOWN]:
        yield f"  row {each['row']}  step {each['step']}  {each['task']}  turn {each['turn'] + 1}  {each['name']}"
        for when in ("before", "after"):
            yield f"    {when:6}  {each[when]['status']}: {each[when]['result'][:160]}"
    yield from _more(told["differences"])


def _against_text(told: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{told['tasks']:,} tasks were played by both: {told['second']} does better on {told['second_better']:,}"
        f" and worse on {told['second_worse']:,}"
    )
    for pair in told["pairs"][:SHOWN]:
        sides = (
            f"{pair[side]['right']}/{pair[side]['count']} at step {pair[side]['step']}" for side in ("first", "second")
        )
        yield f"  {pair['task']}  {' → '.join(sides)}"
    yield from _more(told["pairs"])


def _more(found: list[Any]) -> Iterator[str]:
    if len(found) > SHOWN:
        yield f"  and {len(found) - SHOWN:,} more; --json prints all"


_TEXTS = {"score": _score_text, "rerun": _rerun_text, "against": _against_text}
