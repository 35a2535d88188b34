"""When what an episode changed is what it had to change: JSON values compared one by one, and nothing besides."""

import math
import sys
from collections.abc import Mapping
from typing import Any

ROUNDING = 1e-9
"""Two numbers that differ by this share of the larger, or by this much, are one: sums taken in another order may."""


def same_changes(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether two mappings of changes have the same paths with the same values."""
    return _same(found, wanted)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other  # Python holds True to be 1, JSON does not
    if float in (type(one), type(other)) and isinstance(one, int | float) and isinstance(other, int | float):
        # An integer of JSON can be too large for the float that `isclose` makes of it.
        near = max(abs(one), abs(other)) < sys.float_info.max
        return one == other or (near and math.isclose(one, other, rel_tol=ROUNDING, abs_tol=ROUNDING))
    return type(one) is type(other) and bool(one == other)
