"""Which units a question may ask for instead of the one that a value is in."""

from fractions import Fraction
from functools import cache

from recall.synth.procedural.kinds import KINDS, Kind

_UNCLEAR = ("", "money", "data")
"""What is worth what of money is for a tool to say, and a gigabyte has 1000 or 1024 megabytes."""
_PLACES = 4
"""The most decimals of a factor, and the most zeros."""


@cache
def conversions(kind: Kind) -> tuple[tuple[Kind, int | float], ...]:
    """The kinds in whose units a value of `kind` is a short decimal, each with the number to multiply by."""
    if kind.dimension in _UNCLEAR:
        return ()
    found: dict[str, tuple[Kind, int | float]] = {}
    for other in KINDS.values():
        factor = kind.scale / other.scale
        if other.dimension == kind.dimension and other.unit != kind.unit and _is_short(factor):
            number = int(factor) if factor.denominator == 1 else float(factor)
            found.setdefault(other.unit, (other, number))
    return tuple(found.values())


def _is_short(factor: Fraction) -> bool:
    return bool(factor * 10**_PLACES % 1 == 0) and factor <= 10**_PLACES
