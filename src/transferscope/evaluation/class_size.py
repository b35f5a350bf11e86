"""Whether classes with more training pictures are recognised better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transferscope.evaluation.intervals import middle
from transferscope.records import Record

_DRAWS = 1000
_STEPS = 30
_RIDGE = 1e-3  # keeps a fit finite where every class is always right
_LEAST_CLASSES = 5
_LEAST_SPREAD = 2  # of the largest class over the smallest: within less there is no trend to see


@dataclass(frozen=True)
class SizeTrend(Record):
    """Logistic regression of being recognised on the logarithm of a class's training pictures.

    Attributes:
        odds_ratio: by what the odds of being recognised are multiplied where a class has twice the
            training pictures.
        interval: 95% of it, percentiles over classes drawn anew.
        sizes: training pictures, from the least class to the largest, at which the curve is given.
        accuracy: expected there.
        low: lower end of the curve's 95% band.
        high: upper end.
    """

    odds_ratio: float
    interval: tuple[float, float]
    sizes: tuple[float, ...]
    accuracy: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def clear(self) -> bool:
        """Whether the interval leaves no doubt about the direction."""
        return not self.interval[0] <= 1 <= self.interval[1]


def size_trend(
    training: Sequence[int], right: Sequence[int], n: Sequence[int], *, seed: int = 0
) -> SizeTrend | None:
    """The trend over C classes; None for fewer than five, or where none is twice as large as another.

    Args:
        training: training pictures of each class, at least 1.
        right: evaluated pictures of it that were recognised.
        n: evaluated pictures of it.
        seed: of the bootstrap over classes.
    """
    if len(training) < _LEAST_CLASSES or max(training) < _LEAST_SPREAD * min(training):
        return None
    x = np.log2(np.asarray(training, dtype=float))
    hits, trials = np.asarray(right, dtype=float), np.asarray(n, dtype=float)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(x), np.full(len(x), 1 / len(x)), size=_DRAWS).astype(float)
    largest = np.where(drawn > 0, x, -np.inf).max(1)
    drawn = drawn[largest > np.where(drawn > 0, x, np.inf).min(1)]  # a slope needs two sizes
    (fitted,) = _fitted(x, hits, trials, np.ones((1, len(x))))
    samples = _fitted(x, hits, trials, drawn)
    at = np.linspace(x.min(), x.max(), 41)
    curves = _logistic(samples[:, :1] + samples[:, 1:] * at)
    low, high = np.quantile(curves, (0.025, 0.975), axis=0)
    least, most = middle(samples[:, 1])
    return SizeTrend(
        odds_ratio=float(np.exp(fitted[1])),
        interval=(float(np.exp(least)), float(np.exp(most))),
        sizes=tuple((2.0**at).tolist()),
        accuracy=tuple(_logistic(fitted[0] + fitted[1] * at).tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
    )


@dataclass(frozen=True)
class SizedClass:
    """A class beside the trend.

    Attributes:
        name: of the class.
        training: its training pictures.
        n: its evaluated pictures.
        accuracy: share of these that were recognised.
        deviation: of the accuracy from the trend, in standard deviations of chance.
    """

    name: str
    training: int
    n: int
    accuracy: float
    deviation: float


def sized_classes(
    trend: SizeTrend, classes: Mapping[str, tuple[int, int, float]]
) -> list[SizedClass]:
    """Where classes stand beside the trend.

    Args:
        trend: over their sizes.
        classes: name to training pictures (at least 1), evaluated pictures and accuracy.
    """
    found = []
    for name, (training, n, accuracy) in classes.items():
        expected = float(np.interp(math.log(training), np.log(trend.sizes), trend.accuracy))
        spread = math.sqrt(max(expected * (1 - expected), 1e-4) / n)
        found.append(SizedClass(name, training, n, accuracy, (accuracy - expected) / spread))
    return found


def _fitted(
    x: NDArray[np.float64],
    hits: NDArray[np.float64],
    trials: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(B, 2) intercepts and slopes by Newton's method, one for each row of weights (B, C)."""
    centre, design = x.mean(), np.stack([np.ones_like(x), x - x.mean()], axis=1)
    found = np.zeros((len(weights), 2))
    for _ in range(_STEPS):
        p = _logistic(found @ design.T)
        gradient = (weights * (hits - trials * p)) @ design - _RIDGE * found
        curvature = np.einsum("bc,ci,cj->bij", weights * trials * p * (1 - p), design, design)
        curvature += _RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        found += np.clip(step, -2, 2)  # far from the optimum the curvature is nearly flat
    found[:, 0] -= found[:, 1] * centre
    return found


def _logistic(values: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = 1 / (1 + np.exp(-values))
    return result
