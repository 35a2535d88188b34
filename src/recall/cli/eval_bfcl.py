"""`recall eval bfcl`: the Berkeley function-calling leaderboard, judged by its own checkers."""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from recall.config import Settings
from recall.environment import Limits
from recall.errors import ConfigError
from recall.evaluation.engines import ServedPolicySettings

if TYPE_CHECKING:
    from recall.evaluation.bfcl.entries import Entry
    from recall.evaluation.bfcl.play import Judged
    from recall.evaluation.bfcl.results import Verdicts

BFCL_LIMITS = Limits(max_turns=200, max_tokens=32_768, max_turn_tokens=1024, max_calls=1000, max_result_chars=32_768)
"""The budget of an entry; the leaderboard itself allows 20 steps of each user turn."""
WIDE = BFCL_LIMITS.model_copy(update={"max_tokens": 10_000_000, "max_turn_tokens": 100_000})
"""Of a script, whose tokens are nobody's."""


class EvalBfcl(Settings):
    """Play the leaderboard's entries with a policy and have its own checkers judge them.

    The checkers live in an environment of their own, made once by --setup. What was played is kept in --out; the same
    command goes on there after an interruption. The last line printed is the result as JSON.
    """

    categories: tuple[str, ...] = ("all",)
    """Which categories, or `all` that can be played offline."""
    out: Path | None = None
    """The folder of the results."""
    setup: bool = False
    """Make the checkers' environment and stop."""
    checkers: Path | None = None
    """An interpreter that has bfcl-eval; none takes what --setup made."""
    data: Path | None = None
    """The leaderboard's data; none takes that of the package."""
    entries: int | None = Field(default=None, ge=1)
    """Play only so many of each category, the first ones."""
    script: Literal["truth", "empty"] | None = None
    """Play the ground truth, or nothing, instead of a model: the ends of the scale."""
    at_once: int = Field(default=32, ge=1, le=1024)
    """Entries under way at the same time."""
    temperature: float = Field(default=0.001, ge=0)
    """Of sampling; the leaderboard's own is 0.001."""
    seed: int = 0
    """Of sampling."""
    policy: ServedPolicySettings = ServedPolicySettings()
    limits: Limits = BFCL_LIMITS

    def main(self) -> int:
        """Set up, or measure and print."""
        from recall.evaluation.bfcl.setup import default_home, interpreter_of, make

        if self.setup:
            print(f"checkers: {make(default_home())}")
            return 0
        if self.out is None:
            raise ConfigError("--out: missing; the folder of the results")
        return asyncio.run(self._measure(self.checkers or interpreter_of(default_home()), self.out))

    async def _measure(self, interpreter: Path, out: Path) -> int:
        from recall.evaluation.bfcl.checkers import Checkers
        from recall.evaluation.bfcl.entries import CATEGORIES, read_entries
        from recall.evaluation.bfcl.results import Verdicts

        names = tuple(CATEGORIES) if self.categories == ("all",) else self.categories
        async with Checkers(interpreter) as checkers:
            data = self.data or await checkers.package() / "data"
            entries = [entry for name in names for entry in read_entries(data, name)[: self.entries]]
            verdicts = Verdicts(out, self._manifest(names))
            if any(entry.id not in verdicts.known for entry in entries):
                await self._play(checkers, entries, verdicts)
        summary = verdicts.summary(names)
        verdicts.write("summary.json", summary)
        results = verdicts.write_official()
        _show(summary)
        print(f"results as bfcl evaluate reads them: {results}")
        print(json.dumps({"model": self.script or self.policy.model, **summary}))
        return int(summary["faults"] > 0)

    def _manifest(self, names: tuple[str, ...]) -> dict[str, Any]:
        policy = {"model": self.policy.model, "url": self.policy.url, "dialect": self.policy.dialect}
        return {
            "categories": names,
            "entries": self.entries,
            "policy": self.script or policy,
            "temperature": self.temperature,
            "seed": self.seed,
            "limits": self.limits.model_dump(),
        }

    async def _play(self, checkers: Any, entries: "list[Entry]", verdicts: "Verdicts") -> None:
        from recall.evaluation.bfcl.play import Judged, play
        from recall.evaluation.bfcl.script import empty_script, truth_script
        from recall.evaluation.engines import open_engine
        from recall.policy.scripted import ScriptedPolicy
        from recall.types import Sampling

        async with open_engine(self.policy) as engine:
            policy, renderer, limits = engine.policy, engine.renderer, self.limits if self.script is None else WIDE
            scripts = {"truth": truth_script, "empty": empty_script}
            judged = Judged(
                policy=lambda entry: (
                    policy if self.script is None else ScriptedPolicy(scripts[self.script](entry), renderer)
                ),
                renderer=renderer,
                checkers=checkers,
                limits=limits,
                sampling=Sampling(self.temperature, max_tokens=limits.max_turn_tokens),
            )
            await self._shown(judged, entries, verdicts, play)

    async def _shown(self, judged: "Judged", entries: "list[Entry]", verdicts: "Verdicts", play: Any) -> None:
        import sys

        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
            done = sum(entry.id in verdicts.known for entry in entries)
            bar = bars.add_task("bfcl", total=len(entries), completed=done)

            def told(verdict: Any) -> None:
                verdicts.add(verdict)
                bars.advance(bar)

            await play(
                judged, entries, done=lambda e: e.id in verdicts.known, told=told, seed=self.seed, at_once=self.at_once
            )


def _show(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("category", "accuracy", "95 %", "entries", "turns", "calls", "seconds")
    for name, each in summary["categories"].items():
        interval = f"{each['low']:.1%} to {each['high']:.1%}"
        numbers = (f"{each['turns']:.2f}", f"{each['calls']:.2f}", f"{each['seconds']:.2f}")
        table.add_row(name, f"{each['accuracy']:.1%}", interval, str(each["entries"]), *numbers)
    table.add_section()
    for name, group in summary["groups"].items():
        table.add_row(name, f"{group['accuracy']:.1%}" + ("" if group["complete"] else " (incomplete)"))
    console = Console()
    console.print(table)
    if summary["errors"]:
        console.print("errors: " + ", ".join(f"{kind} {count}" for kind, count in summary["errors"].items()))
