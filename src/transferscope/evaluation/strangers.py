"""How familiar a picture is to a classifier: scores that tell strangers, pictures of none of its classes.

A score is one function of plain arrays, registered under its name; what it makes of the training pictures
once is used for any number of others:

    @score("energy", "Liu et al. 2020", "energy")
    def energy(training: Training) -> Scored:
        return lambda features, logits: ...

What a score's values mean is said by validation pictures, to which nothing was fitted: `familiarity`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transferscope.errors import InputError

Values = NDArray[np.float32]
"""Features (N, D), logits (N, K) or scores (N,)."""

DEFAULT_SCORE = "guided_and_near"
"""The score by which strangers are told."""

NEIGHBOURS = 10
"""The nearest training picture whose similarity counts: a stray one or a copy is not enough to be familiar."""


class Training(NamedTuple):
    """What a score knows of the training pictures.

    Attributes:
        features: float32 (M, D), the head's inputs.
        labels: int64 (M,).
        energies: float32 (M,), see `centred_energy`.
        validation: what scores that were registered before say of the validation pictures, (n,) by name.
    """

    features: Values
    labels: NDArray[np.int64]
    energies: Values
    validation: Mapping[str, Values] = MappingProxyType({})


Scored = Callable[[Values, Values], Values]
"""Features (N, D) and logits (N, K), before the temperature, to how familiar each is, (N,): the more, the
higher."""

Function = Callable[[Training], Scored]


@dataclass(frozen=True)
class Score:
    """A registered score: its name, its paper, its words in a table, and the function."""

    name: str
    reference: str
    title: str
    function: Function


SCORES: dict[str, Score] = {}
"""Every score by its name."""


def score(name: str, reference: str, title: str) -> Callable[[Function], Function]:
    """Registers the function below it; see `Score` for the arguments."""

    def register(function: Function) -> Function:
        assert name not in SCORES, f"two scores are called {name!r}"
        SCORES[name] = Score(name, reference, title, function)
        return function

    return register


@score("probability", "Hendrycks and Gimpel 2017", "largest probability")
def largest_probability(training: Training) -> Scored:
    """The probability of the best guess, as log-odds: rounding does not make many of them 1."""

    def scored(features: Values, logits: Values) -> Values:
        ordered = np.sort(logits.astype(np.float64), axis=1)
        odds: Values = (ordered[:, -1] - _log_sum_exp(ordered[:, :-1])).astype(np.float32)
        return odds

    return scored


@score("energy", "Liu et al. 2020", "energy")
def energy(training: Training) -> Scored:
    """Minus the free energy: the logarithm of the sum of the logits' exponentials."""
    return lambda features, logits: _log_sum_exp(logits.astype(np.float64)).astype(np.float32)


@score("nearest", "Sun et al. 2022", f"{NEIGHBOURS}th nearest training picture")
def nearest(training: Training) -> Scored:
    """Cosine to the 10th nearest training picture; of fewer, to the farthest."""
    known = unit(training.features)
    return lambda features, logits: kth_largest(unit(features) @ known.T, NEIGHBOURS)


@score("mahalanobis", "Lee et al. 2018", "Mahalanobis distance")
def mahalanobis(training: Training) -> Scored:
    """Minus the squared Mahalanobis distance to the nearest class mean.

    The covariance within classes is shared, with the ridge of Ledoit and Wolf 2004: there may be fewer pictures
    than features.
    """
    means, residuals, ridge = _within_classes(training)
    distances = _squared_distances(means, residuals, ridge)
    return lambda features, logits: -distances(features).min(axis=1)


@score("relative_mahalanobis", "Ren et al. 2021", "relative Mahalanobis distance")
def relative_mahalanobis(training: Training) -> Scored:
    """The same, less the squared distance to the mean of all pictures in the covariance of all.

    That has the same ridge: with one of its own, distances to the mean of all would be on another scale.
    """
    middle = training.features.mean(axis=0, keepdims=True)
    _, _, ridge = _within_classes(training)
    to_all = _squared_distances(middle, training.features - middle, ridge)
    to_class = mahalanobis(training)
    return lambda features, logits: to_class(features, logits) + to_all(features)[:, 0]


@score("guided", "Park et al. 2023", "energy guided by the nearest pictures")
def guided_energy(training: Training) -> Scored:
    """Energy times the mean, over the 10 nearest training pictures, of cosine times theirs.

    NNGuide, with `centred_energy` in place of the energy, so that all factors but the cosine are positive.
    """
    known = unit(training.features) * training.energies[:, None]

    def scored(features: Values, logits: Values) -> Values:
        guides = unit(features) @ known.T
        k = min(NEIGHBOURS, guides.shape[1])
        guide: Values = np.partition(guides, -k, axis=1)[:, -k:].mean(axis=1)
        return guide * centred_energy(logits)

    return scored


PARTS = ("guided", "nearest")
"""Scores that the one in use is made of."""


@score(DEFAULT_SCORE, "Park et al. 2023, Sun et al. 2022", "guided energy, and not too far")
def guided_and_near(training: Training) -> Scored:
    """`guided_energy`, less how much farther from training pictures it is than nine tenths of validation are.

    Near strangers lie among the training pictures of a class that they are not of, and have no large logit; far
    ones may well have one, but lie far from all pictures. Each score is measured from its median on
    validation, in units of the distance from there to its first tenth.
    """
    parts = [SCORES[name].function(training) for name in PARTS]
    known = scales(training.validation)

    def scored(features: Values, logits: Values) -> Values:
        unguided, away = (
            (centre - part(features, logits).astype(np.float64)) / width
            for part, (centre, width) in zip(parts, known, strict=True)
        )
        return -(unguided + np.maximum(away - 1, 0)).astype(np.float32)

    return scored


def centred_energy(logits: Values) -> Values:
    """The energy of logits (N, K) less their mean: at least log K, whatever constant a head adds to all."""
    values = logits.astype(np.float64)
    return _log_sum_exp(values - values.mean(axis=1, keepdims=True)).astype(np.float32)


def scales(validation: Mapping[str, Values]) -> tuple[tuple[float, float], ...]:
    """For each of `PARTS`, the median of the validation pictures, and how far below it a tenth of them is."""
    found = []
    for name in PARTS:
        values = validation.get(name)
        if values is None or not len(values):
            found.append((0.0, 1.0))
            continue
        centre, low = (float(one) for one in np.quantile(values, (0.5, 0.1)))
        found.append((centre, centre - low if centre > low else 1.0))
    return tuple(found)


def rounding(validation: Mapping[str, Values]) -> float:
    """How far the score in use may be off by another order of summation in float32."""
    (guided, width), (_, reach) = scales(validation)
    return 1e-4 * max(1.0, abs(guided)) / width + 1e-5 / reach


def unit(features: NDArray[Any]) -> Values:
    """Rows of length 1, float32; a row of zeros stays."""
    features = features.astype(np.float32)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    scaled: Values = features / np.maximum(length, np.finfo(np.float32).tiny)
    return scaled


def kth_largest(values: Values, k: int) -> Values:
    """The k-th largest value of every row; of fewer, the least."""
    k = min(k, values.shape[1])
    found: Values = np.partition(values, -k, axis=1)[:, -k]
    return found


def class_means(training: Training) -> tuple[Values, NDArray[np.int64]]:
    """Mean features of the classes that have pictures, and for every picture the row of its class's."""
    present, rows = np.unique(training.labels, return_inverse=True)
    sums = np.zeros((len(present), training.features.shape[1]), np.float64)
    np.add.at(sums, rows, training.features)
    means: Values = (sums / np.bincount(rows)[:, None]).astype(np.float32)
    return means, rows


def _within_classes(training: Training) -> tuple[Values, Values, float]:
    """Class means, what the features are beside them, and a ridge for the covariance of that.

    With one picture of every class, or copies of one, nothing varies within classes: the ridge is 1, and the
    distance to a class Euclid's.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    means, rows = class_means(training)
    residuals = training.features - means[rows]
    variance = float((residuals.astype(np.float64) ** 2).mean())
    size = float((training.features.astype(np.float64) ** 2).mean())
    if variance <= np.finfo(np.float32).eps ** 2 * size:
        return means, np.zeros_like(residuals, np.float32), 1.0
    share = min(float(ledoit_wolf_shrinkage(residuals, assume_centered=True)), 0.999)
    ridge = variance * share / (1 - share)
    least = max(1e-6 * variance, float(np.finfo(np.float32).tiny))
    return means, residuals.astype(np.float32), max(ridge, least)


def _squared_distances(
    means: Values, residuals: Values, ridge: float
) -> Callable[[Values], Values]:
    """Features (N, D) to squared Mahalanobis distances to every mean, (N, len(means))."""
    from scipy.linalg import cholesky, solve_triangular

    spread = residuals.astype(np.float64)
    covariance = spread.T @ spread / len(spread)
    covariance[np.diag_indices_from(covariance)] += ridge
    root = cholesky(covariance, lower=True)
    middle = means.mean(axis=0)  # what all have in common would cost digits below

    def whitened(points: Values) -> NDArray[np.float64]:
        found: NDArray[np.float64] = solve_triangular(
            root, (points - middle).T.astype(np.float64), lower=True
        ).T
        return found

    centres = whitened(means)

    def distances(features: Values) -> Values:
        points = whitened(features)
        squares = (points**2).sum(1)[:, None] + (centres**2).sum(1) - 2 * points @ centres.T
        found: Values = np.maximum(squares, 0).astype(np.float32)
        return found

    return distances


def _log_sum_exp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    top = values.max(axis=1)
    total: NDArray[np.float64] = top + np.log(np.exp(values - top[:, None]).sum(axis=1))
    return total


# ---------------------------------------------------------------------------- what validation says


def familiarity(scores: Values, validation: Values) -> NDArray[np.float64]:
    """The share of validation pictures that are at most as familiar, the picture itself counted among them.

    A picture drawn as they were has a familiarity of at most a with a probability of at most a, for any a: it
    is a conformal p-value, exact whatever the score and however few the pictures.

    Args:
        scores: of pictures, (N,).
        validation: of the n validation pictures, in any order.

    Returns:
        (N,), of 1 / (n + 1), 2 / (n + 1), ... 1.

    Reference: Vovk et al. 2005; Bates et al. 2023.
    """
    below = np.searchsorted(np.sort(validation), scores, side="right")
    shares: NDArray[np.float64] = (below + 1) / (len(validation) + 1)
    return shares


@dataclass(frozen=True)
class Allowance:
    """A share of false alarms that is allowed, and what holding it rests on.

    Attributes:
        allowed: share of pictures of the classes that may be called strangers.
        n: validation pictures.
        range: where the true share of false alarms is for 95% of draws of so many validation pictures; None
            where there are too few of them to call anything a stranger.
    """

    allowed: float
    n: int
    range: tuple[float, float] | None

    @property
    def needed(self) -> int:
        """Validation pictures without which no picture can be told to be unfamiliar enough."""
        return math.ceil(1 / self.allowed - 1 - 1e-9)

    @property
    def sentence(self) -> str:
        """What may be relied on."""
        if self.range is None:
            least = 1 / (self.n + 1)
            return (
                f"Strangers are not told: of {self.n} validation pictures none is rarer than {least:.1%}, and "
                f"{self.allowed:.1%} of false alarms needs {self.needed}; allow more (--false-alarms "
                f"{math.ceil(1000 * least) / 1000:g}), or tune with more validation pictures."
            )
        low, high = self.range
        return (
            f"A picture is a stranger where at most {self.allowed:.1%} of {self.n:,} validation pictures are "
            f"as unfamiliar; so many hold the true share of false alarms between {low:.1%} and {high:.1%}."
        )


def refuse_false_alarms(allowed: float) -> None:
    """Before any work.

    Raises:
        InputError: no share between 0 and 1.
    """
    if not 0 < allowed < 1:
        raise InputError(
            f"--false-alarms is {allowed:g}; it must be more than 0 and less than 1, such as 0.05"
        )


def allowance(allowed: float, n: int) -> Allowance:
    """What a share of false alarms rests on with so many validation pictures.

    The threshold is the k-th least familiar one's score, k = floor(allowed (n + 1)); the share of pictures
    below it is distributed as Beta(k, n + 1 - k).

    Reference: Vovk 2012.
    """
    from scipy.stats import beta

    k = math.floor(allowed * (n + 1) + 1e-9)
    if k < 1:
        return Allowance(allowed, n, None)
    low, high = beta.ppf((0.025, 0.975), k, n + 1 - k)
    return Allowance(allowed, n, (float(low), float(high)))
