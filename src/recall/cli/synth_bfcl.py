"""`recall synth bfcl`: tasks to train on over the stateful backends of the function-calling leaderboard."""

from pathlib import Path

from pydantic import Field, model_validator

from recall.config import Settings
from recall.errors import ConfigError


class Bfcl(Settings):
    """Make a set of dialogues over the leaderboard's backends, none of them the leaderboard's own, checked by state.

    The backends run in the checkers' environment, which `recall eval bfcl --setup` makes. The same command goes on
    after an interruption. The last line printed is the set's summary as JSON.
    """

    out: Path
    """The directory of the set."""
    rows: int = Field(default=1000, ge=1)
    """Tasks of the split train; validation and new_backends have a tenth of it each, and one at least."""
    seed: int = 0
    """Of everything."""
    turns: tuple[int, int] = (1, 4)
    """The fewest and the most turns of the user."""
    mixed: float = Field(default=0.3, ge=0, le=1)
    """The share of tasks over two backends."""
    worlds: tuple[str, ...] = ("files", "messages", "posts", "stocks", "car")
    """The worlds to train on; those of new_backends are tickets and journeys, whatever stands here."""
    tools: int = Field(default=0, ge=0)
    """Functions that a task shows at least, those it needs among them; 0 shows all of its backends."""
    brief: bool = False
    """Describe functions in one sentence, for models with little context."""
    checkers: Path | None = None
    """An interpreter that has bfcl-eval; none takes what `recall eval bfcl --setup` made."""

    @model_validator(mode="after")
    def _check(self) -> "Bfcl":
        if not 1 <= self.turns[0] <= self.turns[1] <= 12:
            raise ValueError("turns: takes the fewest and the most, such as 1,4, from 1 to 12")
        return self

    def main(self) -> int:
        """Make the set and say what is in it."""
        import asyncio
        import json
        import sys

        from rich.console import Console
        from rich.progress import Progress

        from recall.evaluation.bfcl.checkers import Checkers
        from recall.evaluation.bfcl.setup import PACKAGE, default_home, interpreter_of
        from recall.evaluation.bfcl.training.tasks import BackendTasks
        from recall.synth.writer import write_set

        interpreter = self.checkers or interpreter_of(default_home())

        async def data() -> Path:
            async with Checkers(interpreter) as checkers:
                return await checkers.package() / "data"

        if not self.worlds:
            raise ConfigError("--worlds: none; name one at least")
        tasks = BackendTasks(
            interpreter,
            asyncio.run(data()),
            seed=self.seed,
            turns=self.turns,
            mixed=self.mixed,
            worlds=self.worlds,
            tools=self.tools,
            brief=self.brief,
        )
        small = max(1, self.rows // 10)
        splits = {"train": self.rows, "validation": small, "new_backends": small}
        recipe = self.model_dump(mode="json", exclude={"out", "rows", "checkers", "seed"}) | {"package": PACKAGE}
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
            bar = {split: bars.add_task(split, total=rows) for split, rows in splits.items()}
            manifest = write_set(
                self.out,
                tasks.stream,
                kind="bfcl",
                recipe=recipe,
                seed=self.seed,
                splits=splits,
                on_progress=lambda split, rows, tried: bars.update(bar[split], completed=rows),
            )
        found = {"rows": manifest.rows, "splits": splits, "tried": manifest.tried, "rejected": manifest.rejected}
        print(json.dumps({"set": str(self.out), **found}))
        return 0
