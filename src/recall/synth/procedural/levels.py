"""How hard a task came out, attribute by attribute, on the scale of `recipe.LEVELS`."""

from collections.abc import Collection, Mapping
from typing import Any

from recall.synth.procedural.recipe import LEVELS


def levels_of(
    *, calls: int, operators: Collection[str], tools: int, rows: int, distracting: int, retries: int, keyed: str,
    output: Collection[str], unknowable: bool,
) -> dict[str, int]:  # fmt: skip
    """The lowest level of each attribute that has such tasks.

    Args:
        calls: of the reference program.
        operators: of the plan.
        tools: shown.
        rows: of the largest table.
        distracting: shown tools that are near-duplicates, foreign or refusing.
        retries: calls that have to be made again.
        keyed: what tools know entities by.
        output: which of `record`, `prose` and `pages` the needed tools answer in.
        unknowable: whether a needed tool is missing.
    """
    return {
        "calls": _within("calls", calls),
        "operators": _first("operators", lambda level: set(operators) <= {*level["operators"]}),
        "tools": _within("tools", tools),
        "rows": _within("rows", rows),
        "distractors": 0 if not distracting else 1 if distracting <= 3 else 2,
        "failures": int(retries > 0),
        "keys": 2 if keyed == "id" else 0,
        "output": min(2, len(set(output))),
        "unknowable": int(unknowable),
    }


def _within(attribute: str, value: int) -> int:
    return _first(attribute, lambda level: bool(value <= level[attribute][1]))


def _first(attribute: str, fits: Any) -> int:
    levels: tuple[Mapping[str, Any], ...] = LEVELS[attribute]
    return next((number for number, level in enumerate(levels) if fits(level)), len(levels) - 1)
