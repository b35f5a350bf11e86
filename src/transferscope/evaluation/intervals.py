"""How far a figure may be from the truth: 95% intervals of shares, means and class averages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from transferscope.records import Record

DRAWS = 2000
"""Bootstrap draws. The ends of an interval vary by about 3% of its width from seed to seed."""

NORMAL = 20_000
"""Values above which drawn means follow the normal law: their distribution is no longer told from it."""

Method = Literal["Wilson", "bootstrap", "bootstrap within classes"]

Values = NDArray[np.float64]
Draws = NDArray[np.float64]


@dataclass(frozen=True)
class Interval(Record):
    """A 95% interval and where it comes from.

    Attributes:
        low: its lower end.
        high: its upper end.
        method: `Wilson`, the score interval of a share; `bootstrap`, percentiles over pictures drawn
            anew; `bootstrap within classes`, the same with every class keeping its number of pictures.
    """

    low: float
    high: float
    method: Method


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """95% score interval of a share.

    Reference: Wilson 1927; unlike the normal approximation it stays in [0, 1] at the ends.
    """
    from scipy.stats import binomtest

    interval = binomtest(right, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def difference_interval(right: int, n: int, other: int, m: int) -> tuple[float, float]:
    """95% interval of the difference right/n - other/m of two shares of different pictures.

    Reference: Newcombe 1998, Interval estimation for the difference between independent proportions,
    method 10: the two Wilson intervals, joined.
    """
    p, q = right / n, other / m
    (low, high), (under, over) = wilson_interval(right, n), wilson_interval(other, m)
    least = p - q - float(np.hypot(p - low, over - q))
    most = p - q + float(np.hypot(high - p, q - under))
    return least, most


def wilson(right: int, n: int) -> Interval:
    """`wilson_interval` as a record."""
    return Interval(*wilson_interval(right, n), "Wilson")


def middle(draws: Values, share: float = 0.95) -> tuple[float, float]:
    """The central `share` of a sample: two percentiles."""
    low, high = np.quantile(draws, ((1 - share) / 2, (1 + share) / 2))
    return float(low), float(high)


def bootstrap_mean(values: Values, *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Percentile interval of the mean of (N,) values.

    Reference: Efron 1979.
    """
    return Interval(*middle(drawn_means(values, draws=draws, seed=seed)), "bootstrap")


def drawn_means(values: Values, *, draws: int = DRAWS, seed: int = 0) -> Draws:
    """Means of N values drawn with replacement from (N,) values, (draws,).

    Of more than `NORMAL` values, by the central limit theorem: 2,000 draws of a million take half a minute.
    """
    rng = np.random.default_rng(seed)
    n = len(values)
    if n > NORMAL:
        return rng.normal(values.mean(), values.std() / np.sqrt(n), draws)
    return np.array([values[rng.integers(0, n, n)].mean() for _ in range(draws)])


def drawn_confusions(
    counts: NDArray[np.int64], *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Draws]:
    """Class averages over bootstrap draws in which every class keeps its number of pictures.

    Whether a picture is right and what it was taken for is all that they depend on, so a draw of
    pictures is a multinomial draw of each row of the confusion matrix.

    Args:
        counts: int64 (K, K), pictures by true and by predicted class.
        draws: how many.
        seed: of the draws.

    Returns:
        `mean_per_class` and `macro_f1`, each (draws,).
    """
    rng = np.random.default_rng(seed)
    classes, sizes = len(counts), counts.sum(1)
    hits, said = np.zeros((draws, classes)), np.zeros((draws, classes))
    for row in np.flatnonzero(sizes):
        taken = np.flatnonzero(counts[row])
        drawn = rng.multinomial(sizes[row], counts[row, taken] / sizes[row], size=draws)
        said[:, taken] += drawn
        hits[:, row] += drawn[:, taken == row].sum(1)
    present = sizes > 0
    return {
        "mean_per_class": (hits[:, present] / sizes[present]).mean(1),
        "macro_f1": f1_scores(hits, said, sizes)[:, present].mean(1),
    }


def f1_scores(hits: NDArray[Any], said: NDArray[Any], sizes: NDArray[Any]) -> Values:
    """Harmonic mean of precision and recall by class; 0 where a class is neither present nor said.

    Args:
        hits: (..., K) pictures of each class that were recognised.
        said: (..., K) pictures that were taken for each class.
        sizes: (K,) pictures of each class.
    """
    scores: Values = 2 * hits / np.maximum(said + sizes, 1)
    return scores
