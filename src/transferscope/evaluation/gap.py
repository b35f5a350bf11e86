"""Where validation flatters: the gap between validation and test, and what it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from transferscope.evaluation.intervals import (
    difference_interval,
    drawn_means,
    middle,
    wilson_interval,
)
from transferscope.evaluation.predictions import Predictions
from transferscope.records import Record

ALPHA = 0.01
"""Level at which a gap is more than chance explains: of a hundred runs without one, one is told of a gap."""

_LEAST_WRONG = 10  # errors on validation, from which they are related to the distance from training
_MOSTLY = 0.4  # share of the gap in one class, from which the class is named

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ClassGap:
    """The class in which most of the gap lies, and whose own gap is more than chance explains (Bonferroni).

    Attributes:
        name: of the class.
        validation: share of its validation pictures that is recognised.
        accuracy: share of its evaluated pictures.
        share: of the whole gap that it accounts for.
    """

    name: str
    validation: float
    accuracy: float
    share: float


@dataclass(frozen=True)
class Familiarity:
    """How near the training pictures the others are, by the cosine to the nearest in features of the base.

    Attributes:
        validation: mean over validation pictures.
        evaluated: mean over evaluated pictures.
        difference: evaluated less validation, within classes.
        interval: 95% of it, bootstrap within classes.
        expected: accuracy that validation pictures so far from training would have, by a logistic regression
            of being right on that cosine; None where fewer than ten validation pictures are wrong, or the
            cosine says nothing of them.
    """

    validation: float
    evaluated: float
    difference: float
    interval: tuple[float, float]
    expected: float | None

    @property
    def differs(self) -> bool:
        """Whether chance does not explain the difference."""
        return not self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True)
class ToldApart:
    """Whether pictures of one class show which part they are of.

    Attributes:
        auc: probability that an evaluated picture has a higher score than a validation picture of its class;
            0.5 is chance.
        interval: 95% of it (DeLong).
    """

    auc: float
    interval: tuple[float, float]

    @property
    def differs(self) -> bool:
        """Whether they can be told apart better than by chance."""
        return self.interval[0] > 0.5


@dataclass(frozen=True)
class LookalikeCause:
    """Lookalikes in training, of either part.

    Attributes:
        validation: share of the validation pictures that have one.
        evaluated: share of the evaluated pictures.
        without: accuracy of the validation pictures that have none; None: all have one.
        without_interval: 95% of it (Wilson).
        without_n: how many there are.
    """

    validation: float
    evaluated: float
    without: float | None
    without_interval: tuple[float, float] | None
    without_n: int


@dataclass(frozen=True)
class ValidationGap(Record):
    """Accuracy on validation beside that on other pictures.

    Attributes:
        validation: accuracy on it.
        validation_n: its pictures.
        accuracy: on the evaluated pictures.
        n: of them.
        difference: accuracy less validation.
        interval: 95% of it (Newcombe).
        p: two-sided exact test of both being equal (Fisher).
        class_shares: accuracy on validation, its classes weighted as they are among the evaluated pictures;
            None where one of them has no validation picture.
        most_in: the class in which most of the gap lies, or None.
        lookalikes: in training, or None where they were not looked for.
        familiarity: or None, likewise.
        told_apart: by a linear classifier of the base's features, or None, likewise.
        cues: single properties of file and picture by which the parts can be told apart beyond chance, the
            clearest first; None: not looked for.
    """

    validation: float
    validation_n: int
    accuracy: float
    n: int
    difference: float
    interval: tuple[float, float]
    p: float
    class_shares: float | None
    most_in: ClassGap | None
    lookalikes: LookalikeCause | None = None
    familiarity: Familiarity | None = None
    told_apart: ToldApart | None = None
    cues: dict[str, ToldApart] | None = None

    @property
    def by_chance(self) -> bool:
        """Whether chance explains the gap."""
        return self.p > ALPHA


def validation_gap(validation: Predictions, evaluated: Predictions) -> ValidationGap:
    """The gap alone; its causes need features.

    Args:
        validation: of the pictures that the epoch and strategy were chosen on.
        evaluated: of others, with the classes in the same order.
    """
    from scipy.stats import fisher_exact

    right, other = evaluated.right.numpy(), validation.right.numpy()
    hits, n, base, m = int(right.sum()), len(right), int(other.sum()), len(other)
    table = [[hits, n - hits], [base, m - base]]
    return ValidationGap(
        validation=base / m,
        validation_n=m,
        accuracy=hits / n,
        n=n,
        difference=hits / n - base / m,
        interval=difference_interval(hits, n, base, m),
        p=min(1.0, float(fisher_exact(table)[1])),
        class_shares=_weighted(validation, evaluated),
        most_in=_most_in(validation, evaluated),
    )


def _rates(predictions: Predictions) -> tuple[Floats, Floats]:
    """Pictures and share recognised of every class, (K,) each; of a class without pictures 0."""
    count = len(predictions.classes)
    labels = predictions.labels.numpy()
    sizes = np.bincount(labels, minlength=count).astype(float)
    hits = np.bincount(labels, predictions.right.numpy(), minlength=count)
    return sizes, hits / np.maximum(sizes, 1)


def _weighted(validation: Predictions, evaluated: Predictions) -> float | None:
    (have, rate), (want, _) = _rates(validation), _rates(evaluated)
    if ((want > 0) & (have == 0)).any():
        return None
    return float((rate * want).sum() / want.sum())


def _most_in(validation: Predictions, evaluated: Predictions) -> ClassGap | None:
    from scipy.stats import fisher_exact

    (have, rate), (want, now) = _rates(validation), _rates(evaluated)
    weight = np.where(have > 0, want, 0)
    lost = weight * (now - rate)
    whole = float(lost.sum())
    if not whole:
        return None
    share = lost / whole
    at = int(share.argmax())
    table = [
        [round(rates[at] * sizes[at]), round((1 - rates[at]) * sizes[at])]
        for sizes, rates in ((have, rate), (want, now))
    ]
    if share[at] < _MOSTLY or fisher_exact(table)[1] * (weight > 0).sum() > ALPHA:
        return None
    name = evaluated.classes[at]
    return ClassGap(name, float(rate[at]), float(now[at]), float(share[at]))


# ---------------------------------------------------------------------------- causes


def familiarity_of(
    validation: tuple[Floats, NDArray[np.int64]],
    evaluated: tuple[Floats, NDArray[np.int64]],
    right: NDArray[np.bool_],
    *,
    seed: int = 0,
) -> Familiarity:
    """Whether evaluated pictures lie farther from training than validation pictures do.

    Args:
        validation: cosines (V,) to the nearest training picture, and labels.
        evaluated: likewise.
        right: which validation pictures are recognised.
        seed: of the bootstrap.
    """
    (ours, own), (theirs, other) = validation, evaluated
    shared = [label for label in np.unique(other) if (own == label).any()]
    weights = np.array([(other == label).sum() for label in shared], dtype=float)
    weights /= weights.sum()
    difference, draws = 0.0, np.zeros(1)
    for number, (label, weight) in enumerate(zip(shared, weights, strict=True)):
        a, b = theirs[other == label], ours[own == label]
        difference += weight * float(a.mean() - b.mean())
        drawn = drawn_means(a, seed=seed + 2 * number) - drawn_means(b, seed=seed + 2 * number + 1)
        draws = draws + weight * drawn
    return Familiarity(
        validation=float(ours.mean()),
        evaluated=float(theirs.mean()),
        difference=difference,
        interval=middle(draws),
        expected=_expected(ours, right, theirs),
    )


def _expected(ours: Floats, right: NDArray[np.bool_], theirs: Floats) -> float | None:
    """Accuracy at other distances, by what distance does to validation pictures."""
    from sklearn.linear_model import LogisticRegression

    if (~right).sum() < _LEAST_WRONG or right.sum() < _LEAST_WRONG:
        return None
    middle_, spread = ours.mean(), max(float(ours.std()), 1e-6)
    fitted = LogisticRegression(C=1e3).fit(((ours - middle_) / spread)[:, None], right)
    slope = float(fitted.coef_[0, 0])
    chances = fitted.predict_proba(((ours - middle_) / spread)[:, None])[:, 1]
    error = 1 / np.sqrt((chances * (1 - chances) * ((ours - middle_) / spread) ** 2).sum())
    if slope < 1.96 * error:  # nearer is not righter: distance explains nothing
        return None
    return float(fitted.predict_proba(((theirs - middle_) / spread)[:, None])[:, 1].mean())


def told_apart(
    scores: Floats, part: NDArray[np.bool_], labels: NDArray[np.int64], *, tests: int = 1
) -> ToldApart | None:
    """How well scores tell two parts apart within classes; None where no class has pictures of both.

    Args:
        scores: (N,), of pictures that the scorer was not fitted on; higher for evaluated pictures.
        part: whether a picture is of the evaluated part.
        labels: (N,).
        tests: how many such questions are asked at once: the interval is as much wider (Bonferroni).

    Reference: DeLong et al. 1988, the variance of an area under the ROC curve; of classes, the mean weighted
    by pairs.
    """
    areas, variances, weights = [], [], []
    for label in np.unique(labels):
        a, b = scores[(labels == label) & part], scores[(labels == label) & ~part]
        if not len(a) or not len(b):
            continue
        wins = (a[:, None] > b).astype(float) + 0.5 * (a[:, None] == b)
        rows, columns = wins.mean(1), wins.mean(0)
        spread = rows.var(ddof=1) / len(a) if len(a) > 1 else 0.25
        spread += columns.var(ddof=1) / len(b) if len(b) > 1 else 0.25
        areas.append(float(wins.mean()))
        variances.append(float(spread))
        weights.append(len(a) * len(b) / (len(a) + len(b)))
    if not areas:
        return None
    share = np.array(weights) / sum(weights)
    area = float((share * areas).sum())
    reach = NormalDist().inv_cdf(1 - 0.025 / tests) * float(np.sqrt((share**2 * variances).sum()))
    return ToldApart(area, (max(0.0, area - reach), min(1.0, area + reach)))


def telling_cues(
    values: Mapping[str, Floats], part: NDArray[np.bool_], labels: NDArray[np.int64]
) -> dict[str, ToldApart]:
    """Single properties by which two parts can be told apart within classes, the clearest first.

    Args:
        values: a number a picture (N,) by the property's name; NaN where it is not known.
        part, labels: see `told_apart`.
    """
    found = {}
    for name, column in values.items():
        known = np.isfinite(column)
        one = told_apart(column[known], part[known], labels[known], tests=len(values))
        if one is not None and one.auc < 0.5:  # the lower, the likelier of the evaluated part
            one = ToldApart(1 - one.auc, (1 - one.interval[1], 1 - one.interval[0]))
        if one is not None and one.differs:
            found[name] = one
    return dict(sorted(found.items(), key=lambda item: -item[1].auc))


def lookalike_cause(
    validation: NDArray[np.bool_], evaluated: NDArray[np.bool_], right: NDArray[np.bool_]
) -> LookalikeCause:
    """Which pictures have a lookalike in training, and how well the validation pictures without one fare.

    Args:
        validation: (V,) whether a validation picture has one.
        evaluated: likewise of the evaluated pictures.
        right: (V,) whether it is recognised.
    """
    alone = right[~validation]
    interval = wilson_interval(int(alone.sum()), len(alone)) if len(alone) else None
    return LookalikeCause(
        validation=float(validation.mean()),
        evaluated=float(evaluated.mean()),
        without=float(alone.mean()) if len(alone) else None,
        without_interval=interval,
        without_n=len(alone),
    )


# ---------------------------------------------------------------------------- in words


def gap_sentences(gap: ValidationGap, *, split: str) -> list[str]:
    """The gap and its measured causes, a sentence each; none where chance explains it."""
    if gap.by_chance:
        return []
    low, high = gap.interval
    lower = gap.difference < 0
    first = (
        f"Validation {gap.validation:.1%} ({gap.validation_n:,} pictures), {split} {gap.accuracy:.1%}: "
        f"{100 * gap.difference:+.1f} points (95% interval {100 * low:+.0f} to {100 * high:+.0f}, p = "
        f"{gap.p:.1g}), more than chance explains."
    )
    if lower:
        first += (
            f" Of new pictures such as those of {split}, expect what {split} says, not validation."
        )
    causes = [
        *_class_words(gap, split),
        *_lookalike_words(gap, split),
        *_familiarity_words(gap, split),
        *_apart_words(gap, split),
    ]
    if not causes:
        causes = ["No cause was found among those that are measured."]
    return [first, *causes]


def _class_words(gap: ValidationGap, split: str) -> list[str]:
    words = []
    if gap.class_shares is not None:
        moved = 100 * (gap.class_shares - gap.validation)
        words.append(
            f"The shares of the classes explain {moved:+.1f} of the {100 * gap.difference:+.1f} points: "
            f"weighted as in {split}, validation has {gap.class_shares:.1%}."
        )
    if gap.most_in is not None:
        one = gap.most_in
        words.append(
            f"{one.share:.0%} of the rest is in the class {one.name!r}: {one.validation:.1%} on validation, "
            f"{one.accuracy:.1%} on {split}. Look at its pictures and labels in both."
        )
    return words


def _lookalike_words(gap: ValidationGap, split: str) -> list[str]:
    found = gap.lookalikes
    if found is None:
        return []
    words = (
        f"{found.validation:.1%} of the validation pictures have a lookalike in training, of those of {split} "
        f"{found.evaluated:.1%}."
    )
    if found.without is not None and found.without_interval is not None and found.validation > 0:
        low, high = found.without_interval
        words += (
            f" The {found.without_n:,} validation pictures without one are recognised in {found.without:.1%} "
            f"(95% interval {low:.0%} to {high:.0%})."
        )
    return [words]


def _familiarity_words(gap: ValidationGap, split: str) -> list[str]:
    found = gap.familiarity
    if found is None:
        return []
    if not found.differs:
        return [
            f"Pictures of {split} are as near to the training pictures as validation pictures are, as far as "
            f"can be told (cosine to the nearest {found.evaluated:.3f} and {found.validation:.3f})."
        ]
    where = "farther from" if found.difference < 0 else "nearer to"
    low, high = found.interval
    words = (
        f"Pictures of {split} lie {where} the training pictures than validation pictures: cosine to the "
        f"nearest {found.evaluated:.3f} against {found.validation:.3f} (within classes "
        f"{found.difference:+.3f}, 95% interval {low:+.3f} to {high:+.3f}, features of the untuned network)."
    )
    if found.expected is not None:
        words += (
            f" By what this distance does to validation pictures, {found.expected:.1%} would be "
            "recognised."
        )
    return [words]


def _apart_words(gap: ValidationGap, split: str) -> list[str]:
    words, found = [], gap.told_apart
    if found is not None and found.differs:
        low, high = found.interval
        words.append(
            f"Within classes, pictures of {split} can be told from validation pictures by the untuned "
            f"network's features: AUC {found.auc:.2f} (95% interval {low:.2f} to {high:.2f}; 0.5 is chance). "
            "They are of another kind, such as of another source, time or camera; training pictures of that "
            "kind are what helps."
        )
    elif found is not None:
        words.append(
            f"Pictures of {split} could not be told from validation pictures by features (AUC {found.auc:.2f}, "
            f"95% interval {found.interval[0]:.2f} to {found.interval[1]:.2f})."
        )
    if gap.cues:
        listed = ", ".join(f"{name} ({one.auc:.2f})" for name, one in list(gap.cues.items())[:3])
        words.append(
            f"Single properties tell them apart too, within classes (AUC): {listed}. A network that was "
            "trained on one look meets another."
        )
    return words
