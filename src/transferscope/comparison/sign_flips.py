"""Sign flips of paired differences: the test of a squared distance, its interval and its power.

Everything is computed from the scalar products (n, n) of a channel's n differences d.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

ALPHA = 0.05
"""Level at which power is stated."""

POWER = 0.8
"""Probability with which a difference that is called detectable would be found."""

FLIPS = 4096
"""Ways to turn signs up to which all are tried; where there are more, all but one of so many are drawn."""


def squared_distance(products: Values) -> tuple[float, float | None, float | None]:
    """U, the mean of d_i . d_j over i != j, and its 95% interval, Student's with the jackknife's variance.

    The interval covers the squared distance at least 95% of the time: 99% where it is 0, 95 to 97% where it
    is as large as the spread of d.

    Args:
        products: (n, n) for n >= 2 seeds. Two have no interval.

    Reference: Arvesen 1969, the jackknife of U-statistics.
    """
    count = len(products)
    u = mean_apart(products)
    if count < 3:
        return u, None, None
    from scipy.stats import t

    without = [mean_apart(np.delete(np.delete(products, one, 0), one, 1)) for one in range(count)]
    reach = float(t.ppf(0.975, count - 1)) * math.sqrt(np.var(without) * (count - 1))
    return u, u - reach, u + reach


def flip_test(products: Sequence[Values], *, seed: int = 0) -> tuple[float, float]:
    """p of the sum over channels of U / mean |d|^2 by sign flips, and the smallest that could have come out.

    A channel of n seeds has 2^(n-1) different flips, because all signs turned are none. All flips of all
    channels are tried where they are at most `FLIPS`; otherwise FLIPS - 1 are drawn. p counts the signs as
    they are among the flips, so P(p <= a) <= a for every a where a seed's two drawings could be swapped.

    Args:
        products: (n, n) a channel, of its differences, n >= 2.
        seed: of the draw.

    Returns:
        p, and the smallest p.

    Reference: Fisher 1935, section 21; Phipson & Smyth 2010 for drawn flips.
    """
    totals: Values | float = 0.0
    largest = 0.0
    for one, signs in zip(products, _signs([len(one) for one in products], seed), strict=True):
        scaled = (
            share_weight(one) * one / (len(one) * (len(one) - 1))
        )  # no flip changes its diagonal
        totals = totals + ((signs @ scaled) * signs).sum(1)
        largest += float(np.abs(scaled).sum())
    reached = np.asarray(totals)
    # the first flip turns nothing; rounding must not part what is equal
    count = int((reached >= reached[0] - 1e-9 * largest).sum())
    return count / len(reached), 1 / len(reached)


def _signs(sizes: Sequence[int], seed: int) -> Iterator[Values]:
    """Signs (flips, n) of every channel, the first flip all +1; drawn only as they are asked for."""
    free = sum(size - 1 for size in sizes)
    exact = 2**free <= FLIPS
    count = 2**free if exact else FLIPS
    rng, numbers = np.random.default_rng(seed), np.arange(count)
    for size in sizes:
        signs = np.ones((count, size))
        for place in range(1, size):
            if exact:
                turned, numbers = numbers % 2, numbers // 2
            else:
                turned = rng.integers(0, 2, count)
                turned[0] = 0
            signs[:, place] -= 2 * turned
        yield signs


def share_weight(products: Values) -> float:
    """1 / mean |d|^2, which no flip changes; 0 where no drawing differs."""
    mean = float(np.trace(products)) / len(products)
    return 1 / mean if mean > 0 else 0.0


def mean_apart(square: Values) -> float:
    """Mean of what is not on the diagonal of (n, n)."""
    count = len(square)
    return float(square.sum() - np.trace(square)) / (count * (count - 1))


# ---------------------------------------------------------------------------- power


def effective_dimensions(products: Sequence[Values]) -> float | None:
    """How many directions of equal variance the differences d spread in: (tr C)^2 / tr C^2.

    Both are unbiased estimates from each channel's seeds, relative to its spread, pooled over channels.

    Args:
        products: (n, n) a channel; those of fewer than 3 seeds say nothing.

    Returns:
        At least 1; None where no channel says anything.

    Reference: Srivastava 2005, for tr C^2 of normal samples.
    """
    above = below = 0.0
    for one in products:
        n = len(one) - 1
        if n < 2:
            continue
        centred = one - one.mean(0) - one.mean(1)[:, None] + one.mean()
        trace, square = float(np.trace(centred)) / n, float((centred**2).sum()) / n**2
        if trace <= 0:
            continue
        squares = n**2 / ((n - 1) * (n + 2)) * (square - trace**2 / n)
        above += 1 - 2 * squares / (n * trace**2)
        below += squares / trace**2
    if not above:
        return None
    return max(1.0, above / below) if below > 0 else math.inf


@cache
def detectable_ratio(
    seeds: int, dimensions: int, *, alpha: float = ALPHA, power: float = POWER
) -> float | None:
    """The squared distance, in units of the variance of d, that a channel's test finds with this probability.

    By simulation of the test itself: d is normal with the same variance in so many directions.

    Args:
        seeds: n >= 2.
        dimensions: see `effective_dimensions`.
        alpha: p up to which a difference is found.
        power: the probability.

    Returns:
        None if none can be found: the smallest p of so many seeds is above alpha.
    """
    flips = next(_signs([seeds], 0))
    if 1 / len(flips) > alpha:
        return None
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(1000, seeds, dimensions)) / math.sqrt(dimensions)
    still = ((noise @ noise.transpose(0, 2, 1) @ flips.T) * flips.T).sum(1)
    along, sums = noise[:, :, 0] @ flips.T, flips.sum(1)

    def found(ratio: float) -> float:
        shift = math.sqrt(ratio)
        reached = still + 2 * shift * along * sums + ratio * sums**2
        p = (reached >= reached[:, :1] * (1 - 1e-12)).mean(1)
        return float((p <= alpha).mean())

    low, high = 0.0, 1.0
    while found(high) < power:
        low, high = high, 2 * high
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) >= power else (middle, high)
    return high


def detectable_mean_share(products: Sequence[Values]) -> float | None:
    """The mean share that the sum over channels finds at `ALPHA` with probability `POWER`.

    A normal approximation, for a sum over channels. Its variance over flips is known from the products; a
    share r that is common to the seeds adds 2 r (1 - r) (n - 1) of it, where d spreads evenly in all
    directions.

    Args:
        products: (n, n) a channel, n >= 2.

    Returns:
        In (0, 1]; None where no drawing differs, or no share would be found.
    """
    from scipy.stats import norm

    still = grown = 0.0
    for one in products:
        squares = float((one**2).sum() - (np.diag(one) ** 2).sum())
        count = len(one) * (len(one) - 1)
        variance = 2 * squares * (share_weight(one) / count) ** 2 / len(products) ** 2
        still += variance
        grown += 2 * (len(one) - 1) * variance
    critical, beyond = norm.ppf(1 - ALPHA) * math.sqrt(still), norm.ppf(POWER)
    share = 0.0
    for _ in range(20):
        share = float(critical + beyond * math.sqrt(still + grown * share * max(0.0, 1 - share)))
    return share if 0 < share <= 1 else None
