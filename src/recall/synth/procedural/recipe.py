"""What procedural tasks are made of: the settings, their presets, and difficulty as attributes with levels."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from recall.config import Settings, load
from recall.errors import ConfigError
from recall.synth.procedural import skins

Operator = Literal[
    "hop", "members", "where", "range", "top", "total", "count", "combine", "days", "convert", "both", "targets",
    "whichever", "conditional", "list", "update",
]  # fmt: skip
"""What questions are composed of; `docs/synth.md` describes each."""
OPERATORS: tuple[Operator, ...] = get_args(Operator)

Keyed = Literal["name", "id"]
"""Whether tools know entities by their names or by ids that have to be looked up."""


def _in_order(value: tuple[int, int]) -> tuple[int, int]:
    if not 0 <= value[0] <= value[1]:
        raise ValueError("the fewest and the most, in this order, neither below 0")
    return value


Span = Annotated[tuple[int, int], AfterValidator(_in_order)]
"""The fewest and the most, both included."""
Share = Annotated[float, Field(ge=0, le=1)]


class Recipe(Settings):
    """How worlds, tools and tasks are drawn. A span is drawn from evenly, a share is a probability."""

    skins: tuple[str, ...] = ()
    """The domains, by name or as .toml files; none means all of the house's that are not held out."""
    held_out_skins: tuple[str, ...] = ()
    """The domains of the split `new_skins`; none means the house's that are held out."""
    tasks_per_world: int = Field(default=8, ge=1, le=256)
    """Tasks that share a world; each has a question, a choice of visible tools and a program of its own."""
    operators: tuple[Operator, ...] = OPERATORS
    """What questions may be composed of."""
    calls: Span = (2, 7)
    """Calls of the reference program."""
    entities: Span = (3, 5)
    """Types of entity of a world."""
    fields: Span = (2, 4)
    """Fields of each type."""
    rows: Span = (8, 28)
    """Entities of each type."""
    tools: Span = (5, 14)
    """Tools that a task shows; more where its program needs more."""
    ids: Share = 0.4
    """Worlds whose tools know entities by id."""
    records: Share = 0.4
    """Types of entity whose tools return whole records, instead of one value each."""
    prose: Share = 0.15
    """Worlds whose tools answer in sentences where they give one value."""
    pages: Share = 0.25
    """Worlds whose lists come in pages."""
    page_size: Span = (3, 6)
    """Entries of a page."""
    duplicates: Span = (0, 2)
    """Visible tools that look like a needed one and answer otherwise: of last year, estimated, archived."""
    foreign: Span = (0, 3)
    """Visible tools of another domain."""
    decoys: Share = 0.15
    """Entities with a name that begins like another's."""
    failing: Share = 0.08
    """About the tasks that need a tool which fails the first time it is called."""
    denied: Share = 0.1
    """Tasks that show a tool which refuses everybody."""
    missing: Share = 0.0
    """Tasks whose needed tool is not there, so that the answer is that it cannot be determined. Every template has its
    part of them; above 0.015 that answer is right too often to be learned from."""
    slack: int = Field(default=4, ge=0)
    """Calls beyond those of the reference program that an episode may make."""
    counterfactuals: int = Field(default=4, ge=1)
    """Worlds with the same entities and other facts, in each of which the answer must be another."""
    shared_shapes: Share = 0.2
    """Shapes of worlds (a shape is what is left of a world without its words) that several splits have tasks of, each
    template then belonging to one of them. All other shapes belong to one split, which is sooner found; a recipe with
    few shapes needs more that are shared."""
    plain: bool = False
    """Ask in one phrase of genitives, as nano's questions do."""
    stateless: bool = False
    """Only what a sandbox can run that forgets everything between two calls: no updates, no failing tools."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.calls[0] < 1:
            raise ValueError("calls: at least 1")
        if self.rows[0] < 4:
            raise ValueError("rows: at least 4")
        if self.entities[0] < 1 or self.fields[0] < 1:
            raise ValueError("entities and fields: at least 1")
        for name in (*self.skins, *self.held_out_skins):
            if name not in (*skins.NAMES, *skins.PLAIN) and not name.endswith(".toml"):
                raise ValueError(f"skins: no {name!r}; accepted: a .toml file, or one of {', '.join(skins.NAMES)}")
        if both := {*self.skins} & {*self.held_out_skins}:
            raise ValueError(f"held_out_skins: {sorted(both)[0]!r} is trained on too")
        if not self.operators:
            raise ValueError("operators: at least one")
        return self

    def at(self, levels: Mapping[str, int]) -> "Recipe":
        """The recipe with some attributes of difficulty at a level, from 0 for the easiest.

        Raises:
            ConfigError: there is no such attribute or level.
        """
        changes: dict[str, Any] = {}
        for attribute, level in levels.items():
            if attribute not in LEVELS:
                nearest = difflib.get_close_matches(attribute, LEVELS, n=1)
                hint = f", did you mean {nearest[0]!r}" if nearest else ""
                raise ConfigError(f"levels: unknown attribute {attribute!r}{hint}; accepted: {', '.join(LEVELS)}")
            if not 0 <= level < len(LEVELS[attribute]):
                raise ConfigError(f"levels.{attribute}: {level} is not accepted; 0 to {len(LEVELS[attribute]) - 1}")
            changes |= LEVELS[attribute][level]
        return self.model_copy(update=changes)


def _spans(name: str, *spans: tuple[int, int]) -> tuple[Mapping[str, Any], ...]:
    return tuple({name: span} for span in spans)


LEVELS: Mapping[str, tuple[Mapping[str, Any], ...]] = MappingProxyType(
    {
        "calls": _spans("calls", (1, 1), (2, 2), (2, 3), (3, 5), (4, 8), (6, 12)),
        "operators": (
            {"operators": ("hop",)},
            {"operators": ("hop", "combine", "days")},
            {"operators": ("hop", "combine", "days", "members", "total", "list")},
            {"operators": ("hop", "combine", "days", "members", "total", "list", "where", "range", "top", "count")},
            {"operators": tuple(operator for operator in OPERATORS if operator != "update")},
            {"operators": OPERATORS},
        ),
        "tools": _spans("tools", (3, 5), (5, 9), (8, 14), (14, 28), (28, 60)),
        "rows": _spans("rows", (4, 8), (8, 28), (28, 80), (80, 400)),
        "distractors": (
            {"duplicates": (0, 0), "foreign": (0, 0), "decoys": 0.0, "denied": 0.0},
            {"duplicates": (0, 1), "foreign": (0, 2), "decoys": 0.1, "denied": 0.05},
            {"duplicates": (1, 3), "foreign": (1, 4), "decoys": 0.3, "denied": 0.2},
        ),
        "failures": ({"failing": 0.0}, {"failing": 0.1}, {"failing": 0.3}),
        "keys": ({"ids": 0.0}, {"ids": 0.5}, {"ids": 1.0}),
        "output": (
            {"records": 0.0, "prose": 0.0, "pages": 0.0},
            {"records": 0.4, "prose": 0.15, "pages": 0.25},
            {"records": 1.0, "prose": 0.2, "pages": 0.7},
        ),
        "unknowable": ({"missing": 0.0}, {"missing": 0.015}),
    }
)
"""Attributes of difficulty: what each level sets, the easiest first."""

PRESETS: Mapping[str, Recipe] = MappingProxyType(
    {
        "default": Recipe(),
        "nano": Recipe(
            operators=("hop", "combine"), calls=(1, 4), entities=(3, 4), fields=(2, 3), rows=(4, 6), tools=(3, 6),
            ids=0.0, records=0.0, prose=0.0, pages=0.0, duplicates=(0, 0), foreign=(0, 1), decoys=0.0, failing=0.0,
            denied=0.0, skins=skins.PLAIN[:2], held_out_skins=skins.PLAIN[2:],
            plain=True, shared_shapes=1.0,
        ),
        "published": Recipe(
            operators=tuple(operator for operator in OPERATORS if operator != "update"), failing=0.0, stateless=True
        ),
        "hard": Recipe(
            calls=(5, 12), rows=(20, 80), tools=(12, 30), duplicates=(1, 3), foreign=(1, 4), decoys=0.3, failing=0.2,
            denied=0.2, missing=0.01, pages=0.5,
        ),
    }
)  # fmt: skip
"""Recipes by name."""


def recipe_of(name: str | Path) -> Recipe:
    """A preset by name, or a recipe from a TOML file.

    Raises:
        ConfigError: there is none, or the file is no recipe.
    """
    if str(name) in PRESETS:
        return PRESETS[str(name)]
    if Path(name).suffix != ".toml":
        raise ConfigError(f"no recipe {str(name)!r}; accepted: a .toml file, or one of {', '.join(PRESETS)}")
    return load(Recipe, Path(name))
