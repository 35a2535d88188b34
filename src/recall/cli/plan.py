"""`recall plan`: whether a recipe fits some GPUs, before any are had."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from recall.trainers.recipe import TrainRecipe

if TYPE_CHECKING:
    from recall.trainers.plan import Plan


class PlanRecipe(TrainRecipe):
    """Count what a recipe takes: a GPU's memory by part, tokens a step, the load on services, and what will not fit.

    It takes a recipe and the flags of `recall train`. Nothing is loaded or started; the model may be elsewhere. The
    exit status is 1 where something will not fit.
    """

    takes_recipe: ClassVar[bool] = True

    gpus: int | None = Field(default=None, ge=1)
    """GPUs that train; by default those that the recipe names, and one with the local trainer."""
    gpu_memory: float = Field(default=80.0, gt=0)
    """Memory of each, GiB."""
    as_json: bool = Field(default=False, alias="json")
    """Print one JSON object instead."""

    def main(self) -> int:
        """Count, and print."""
        from recall.trainers.plan import Machines, plan

        recipe = TrainRecipe(**{name: getattr(self, name) for name in TrainRecipe.model_fields})
        named = recipe.cluster.nodes * recipe.cluster.gpus_per_node if recipe.engine == "verl" else 1
        found = plan(recipe, Machines(self.gpus or named, self.gpu_memory))
        print(as_json(found) if self.as_json else as_text(found, recipe))
        return int(bool(found.problems))


def as_json(found: "Plan") -> str:
    """A plan as one line of JSON."""
    return json.dumps(
        {
            "parameters": found.size.parameters,
            "gpus": found.machines.gpus,
            "gpu_memory_gib": found.machines.gpu_gib,
            "phases": {phase.name: dict(phase.parts) for phase in found.phases},
            "step": dict(found.step),
            "load": dict(found.load),
            "problems": list(found.problems),
        }
    )


def as_text(found: "Plan", recipe: TrainRecipe) -> str:
    """A plan as tables."""
    from recall.trainers.plan import LIBRARIES_GIB

    gpus, gib = found.machines.gpus, found.machines.gpu_gib
    names = list(dict.fromkeys(part for phase in found.phases for part in phase.parts))
    rows = [
        [
            "memory, GiB" if recipe.policy.device == "cpu" else "memory of a GPU, GiB",
            *(phase.name for phase in found.phases),
        ]
    ]
    rows += [[name, *(_gib(phase.parts.get(name)) for phase in found.phases)] for name in names]
    rows.append([f"sum, of {gib:g}", *(_gib(phase.total) for phase in found.phases)])
    where = f"{gpus} GPU{'s' if gpus > 1 else ''} of {gib:g} GiB"
    if recipe.policy.device == "cpu":
        where = f"the CPU, with {gib:g} GiB"
    active = f" ({_count(found.size.active_parameters)} for a token)" if found.size.experts else ""
    lines = [
        f"{Path(recipe.policy.model).name}: {_count(found.size.parameters)} parameters{active}, "
        f"{recipe.engine} on {where}",
        "",
        *_table(rows),
        f"(libraries: a guess of {LIBRARIES_GIB:g}; activations and logits by tensor; the rest exact)",
        "",
        *_table([["a step", ""], *([name, _count(value)] for name, value in found.step.items())]),
        "",
        *_table([["load", ""], *([name, _count(value)] for name, value in found.load.items())]),
        "",
        *(f"will not fit: {problem}" for problem in found.problems),
    ]
    if not found.problems:
        lines.append("all of it fits")
    return "\n".join(lines)


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        row[0].ljust(widths[0])
        + "".join("  " + cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]


def _gib(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _count(value: float) -> str:
    if value >= 1e9:
        return f"{value / 1e9:.2f} billion"
    if value >= 1e6:
        return f"{value / 1e6:.2f} million"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"
