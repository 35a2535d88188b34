"""`recall doctor`: say what would go wrong with a recipe, before anything runs for long."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from recall.trainers.recipe import TrainRecipe


class Doctor(TrainRecipe):
    """Check a recipe before training or serving: each check is a line, ok or what is wrong, its cost and its cure.

    It takes a recipe and the flags of `recall train`. The exit status is 1 where anything is wrong.
    """

    takes_recipe: ClassVar[bool] = True

    run: Path = Path("runs")
    """Where the run would go, for its room on disk."""
    ports: tuple[int, ...] = ()
    """Ports that something of the run will listen on."""
    as_json: bool = Field(default=False, alias="json")
    """Print the findings as JSON lines instead."""

    def main(self) -> int:
        """Check, and print as it goes."""
        recipe = TrainRecipe(**{name: getattr(self, name) for name in TrainRecipe.model_fields})
        return asyncio.run(examined(recipe, self.run, self.ports, as_json=self.as_json))


async def examined(recipe: TrainRecipe, run: Path, ports: tuple[int, ...] = (), *, as_json: bool = False) -> int:
    """Print the findings on a recipe; 1 where any is wrong."""
    from recall.doctor.examine import examine
    from recall.doctor.findings import failed

    findings = []
    async for finding in examine(recipe, run, ports=ports):
        findings.append(finding)
        print(json.dumps(asdict(finding), ensure_ascii=False) if as_json else finding.line(), flush=True)
    return int(failed(findings))
