"""Counts of values, and what a report says of them."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

BARS = 24
"""A histogram has about so many bars at most."""


def spread(values: Iterable[float] | Mapping[float, int]) -> dict[str, Any] | None:
    """Least, mean, median, 95th percentile, most, and a histogram; None where there are no values.

    Args:
        values: the values, or how often each occurs.

    Returns:
        `n`, `min`, `mean`, `p50`, `p95`, `max` and `bars`: pairs of the lower end of a bar and its count. Percentiles
        are values that occur: the least that so large a share of all does not exceed.
    """
    counts = Counter(values) if not isinstance(values, Counter) else values
    total = counts.total()
    if not total:
        return None
    order = sorted(counts)
    return {
        "n": total,
        "min": order[0],
        "mean": sum(value * count for value, count in counts.items()) / total,
        "p50": _percentile(order, counts, 0.5 * total),
        "p95": _percentile(order, counts, 0.95 * total),
        "max": order[-1],
        "bars": _bars(order, counts),
    }


def entropy_bits(counts: Iterable[int]) -> float:
    """The entropy, in bits, of a distribution given by counts. Source: Shannon 1948."""
    kept = [count for count in counts if count]
    total = sum(kept)
    return max(0.0, -sum(count / total * math.log2(count / total) for count in kept)) if total else 0.0


def gini(counts: Iterable[int]) -> float:
    """The Gini coefficient of counts: 0 when all are equal, near 1 when one has everything. Source: Gini 1912."""
    order = sorted(counts)
    total = sum(order)
    if not total:
        return 0.0
    weighted = sum(rank * count for rank, count in enumerate(order, 1))
    return 2 * weighted / (len(order) * total) - (len(order) + 1) / len(order)


def lower_bound(share: float, n: int) -> float:
    """The lower end of the 95 % Wilson interval of a share that was seen in `n` trials. Source: Wilson 1927."""
    if not n:
        return 0.0
    z = 1.959964
    middle = share + z * z / (2 * n)
    margin = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (middle - margin) / (1 + z * z / n))


def _percentile(order: list[float], counts: Mapping[float, int], wanted: float) -> float:
    passed = 0
    for value in order:
        passed += counts[value]
        if passed >= wanted:
            return value
    return order[-1]


def _bars(order: list[float], counts: Mapping[float, int]) -> list[list[float]]:
    low, high = order[0], order[-1]
    if all(float(value).is_integer() for value in (low, high)) and high - low < BARS and all(map(_integral, order)):
        return [[value, counts.get(value, 0)] for value in range(int(low), int(high) + 1)]
    width = (high - low) / BARS or 1.0
    if all(map(_integral, order)):
        width = math.ceil(width)
    bars = [0] * BARS
    for value in order:
        bars[min(int((value - low) / width), BARS - 1)] += counts[value]
    return [[low + number * width, count] for number, count in enumerate(bars)]


def _integral(value: float) -> bool:
    return float(value).is_integer()
