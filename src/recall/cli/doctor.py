"""`recall doctor`: say what would go wrong with a recipe, before anything runs for long."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from recall.trainers.recipe import TrainRecipe

if TYPE_CHECKING:
    from recall.doctor.findings import Finding


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


def examined_first(recipe: TrainRecipe, run: Path) -> int:
    """Check a recipe before its run, and print what is wrong with it; 1 where anything is.

    What a run refuses to start with anyway is left to the run, which says it in its own words.
    """
    import sys
    import time

    from recall.doctor.examine import examine

    async def findings() -> list["Finding"]:
        return [finding async for finding in examine(recipe, run)]

    began = time.perf_counter()
    found = asyncio.run(findings())
    bad = [finding for finding in found if finding.state == "wrong" and not finding.refused]
    for finding in bad:
        print(finding.line())
    if bad:
        print("recall: the doctor advises against this run; --no-doctor starts it all the same", file=sys.stderr)
    elif not any(finding.state == "wrong" for finding in found):
        print(f"doctor: {len(found)} checks, nothing wrong ({time.perf_counter() - began:.1f} s)")
    return int(bool(bad))


async def examined(recipe: TrainRecipe, run: Path, ports: tuple[int, ...] = (), *, as_json: bool = False) -> int:
    """Print the findings on a recipe; 1 where any is wrong."""
    from recall.doctor.examine import examine
    from recall.doctor.findings import failed

    findings = []
    async for finding in examine(recipe, run, ports=ports):
        findings.append(finding)
        print(json.dumps(asdict(finding), ensure_ascii=False) if as_json else finding.line(), flush=True)
    return int(failed(findings))
