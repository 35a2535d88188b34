"""Intervals of means, and tests of differences between runs over the same questions. Seeded, so numbers repeat."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_RESAMPLES = 10_000
_CHUNK = 4_000_000
"""Numbers drawn at once by a bootstrap, which bounds its memory."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


def wilson(successes: int, n: int, z: float = 1.959963984540054) -> Interval:
    """The score interval of a share.

    Args:
        successes: how many of `n`.
        n: trials; at least 1.
        z: quantile of the normal distribution; the default is that of 95 %.

    Raises:
        ValueError: `n` is less than 1, or `successes` is not between 0 and `n`.

    Source: Wilson 1927, Journal of the American Statistical Association 22.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no share")
    share, spread = successes / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def bootstrap(values: Sequence[float], *, resamples: int = _RESAMPLES, seed: int = 0) -> Interval:
    """The percentile interval of the mean of `values`, at least one of them.

    Source: Efron 1979, The Annals of Statistics 7.
    """
    import numpy as np

    low, high = np.quantile(_resampled_means(values, resamples, seed), [0.025, 0.975])
    return Interval(float(low), float(high))


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided exact p-value that two paired classifiers have the same share of successes.

    Args:
        only_first: questions that only the first one solved.
        only_second: questions that only the second one solved.

    Source: McNemar 1947, Psychometrika 12; the exact form is a binomial test of the discordant pairs at 1/2.
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    # log-space: 2**-n is no float from 1,075 discordant pairs on.
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(fewer + 1)]
    largest = max(logs)
    tail = math.exp(largest - n * math.log(2) + math.log(math.fsum(math.exp(value - largest) for value in logs)))
    return min(1.0, 2 * tail)


def paired_bootstrap(
    first: Sequence[float], second: Sequence[float], *, resamples: int = _RESAMPLES, seed: int = 0
) -> tuple[Interval, float]:
    """The interval of the mean of `second - first`, and the two-sided p-value that it is 0.

    The p-value is twice the share of resampled means on the other side of 0, at least 1 / (resamples + 1).

    Args:
        first: [n] values by question.
        second: [n] values of the same questions, in the same order.
        resamples: how often the questions are drawn anew.
        seed: of the draws.

    Raises:
        ValueError: the two are of different lengths, or empty.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap; Koehn 2004, EMNLP.
    """
    import numpy as np

    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} and {len(second)} values cannot be paired")
    means = _resampled_means([b - a for a, b in zip(first, second, strict=True)], resamples, seed)
    low, high = np.quantile(means, [0.025, 0.975])
    other_side = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return Interval(float(low), float(high)), min(1.0, 2 * (other_side + 1) / (resamples + 1))


def _resampled_means(values: Sequence[float], resamples: int, seed: int) -> "np.typing.NDArray[np.float64]":
    """[resamples] means of `values` drawn with replacement."""
    import numpy as np

    generator = np.random.default_rng(seed)
    known = np.asarray(values, dtype=np.float64)
    rows = max(1, _CHUNK // len(known))
    means = [
        known[generator.integers(0, len(known), (min(rows, resamples - start), len(known)))].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    return np.concatenate(means)
