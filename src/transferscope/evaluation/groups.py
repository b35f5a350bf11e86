"""Accuracy by group: which groups fare worse than others, and which differences chance explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from transferscope.errors import DataError, InputError
from transferscope.evaluation.intervals import difference_interval, middle, wilson_interval
from transferscope.evaluation.predictions import Predictions
from transferscope.records import Record

ALPHA = 0.05
"""Level of the test of all groups together, and false discovery rate of those that follow it."""

MARGIN = 0.10
"""Difference in accuracy between a group and the rest that would matter: one is called alike only where
the whole interval of its difference is smaller."""

LEAST = 10
"""Pictures below which a group is never called the worst: one picture is wrong or right by chance."""

_DRAWS = 9999
_HARDER = 0.05  # accuracy that a group's classes cost it, from which they are named as a cause

Standing = Literal["worse", "better", "alike", "too few to tell"]


@dataclass(frozen=True)
class GroupResult:
    """One group.

    Attributes:
        n: pictures of it.
        accuracy: share of them that is recognised.
        interval: 95% Wilson interval of it.
        expected: accuracy that it would have if each of its pictures were recognised as often as the
            pictures of its class are outside of the group: what its mixture of classes alone would give. None
            where a class is in no other group.
        difference: accuracy of the group less that of all the others.
        difference_interval: 95% of it (Newcombe).
        p: two-sided exact test of group against rest (Fisher).
        q: p after Benjamini-Hochberg over all groups.
        standing: worse or better: q is at most `ALPHA`, and so is the test of all groups together. alike:
            the difference is smaller than `MARGIN` with 95% confidence. Else there are too few pictures.
    """

    n: int
    accuracy: float
    interval: tuple[float, float]
    expected: float | None
    difference: float
    difference_interval: tuple[float, float]
    p: float
    q: float
    standing: Standing


@dataclass(frozen=True)
class GroupTest:
    """What is said of all groups together.

    Attributes:
        column: what the groups are read from.
        n: pictures that have a group.
        without: pictures that have none; they are in none of the figures.
        p: of all groups being recognised equally often: Pearson's chi-square against its distribution where
            right and wrong answers are shuffled among the pictures.
        worst: accuracy of the worst group; None where none has `LEAST` pictures.
        worst_by_chance: 95% range of the worst group's accuracy where all groups are alike: of many small
            groups, one is always bad.
    """

    column: str
    n: int
    without: int
    p: float
    worst: float | None
    worst_by_chance: tuple[float, float] | None

    @property
    def differ(self) -> bool:
        """Whether chance does not explain the differences."""
        return self.p <= ALPHA


@dataclass(frozen=True)
class GroupStudy(Record):
    """Accuracy by group.

    Attributes:
        groups: by name, the lowest accuracy first.
        worst_group: the group of at least `LEAST` pictures with the lowest accuracy; None: there is none.
        test: of all groups together.
    """

    groups: dict[str, GroupResult]
    worst_group: str | None
    test: GroupTest


def accuracy_by_group(
    predictions: Predictions, groups: Sequence[str | None], *, column: str, seed: int = 0
) -> GroupStudy:
    """Accuracy of every group, with what chance explains of the differences.

    All groups are tested together first; only where that finds a difference are single groups called worse
    or better than the rest.

    Args:
        predictions: of N pictures.
        groups: of each picture; None: it has none.
        column: what they are read from, for messages.
        seed: of the shuffled answers.

    Raises:
        InputError: not N groups.
        DataError: no picture has a group, or all have the same.

    Reference: Benjamini & Hochberg 1995; Newcombe 1998.
    """
    if len(groups) != len(predictions.paths):
        raise InputError(
            f"{len(groups)} groups are given for {len(predictions.paths)} pictures; give one each, or None"
        )
    rows = np.array([row for row, name in enumerate(groups) if name is not None], dtype=int)
    names, codes = np.unique([str(groups[row]) for row in rows], return_inverse=True)
    if len(names) < 2:
        found = f"only {str(names[0])!r}" if len(names) else "none"
        raise DataError(
            f"{column!r} tells two groups of pictures apart where there are two, and here is {found}; give "
            "another column, folder level or EXIF field"
        )
    right = predictions.right.numpy()[rows]
    labels = predictions.labels.numpy()[rows]
    sizes, hits = np.bincount(codes), np.bincount(codes, right).astype(np.int64)
    drawn = _shuffled(sizes, int(right.sum()), seed)
    p = float(
        (1 + (_chi_square(drawn, sizes) >= _chi_square(hits, sizes) - 1e-9).sum()) / (1 + _DRAWS)
    )
    tests = _against_the_rest(sizes, hits)
    results = {
        str(name): _result(hits, sizes, at, _expected(codes == at, labels, right), *tests[at], p)
        for at, name in enumerate(names)
    }
    order = sorted(results, key=lambda name: (results[name].accuracy, -results[name].n, name))
    large = sizes >= LEAST
    worst = next((name for name in order if results[name].n >= LEAST), None)
    by_chance = middle((drawn[:, large] / sizes[large]).min(1)) if large.any() else None
    return GroupStudy(
        groups={name: results[name] for name in order},
        worst_group=worst,
        test=GroupTest(
            column=column,
            n=len(rows),
            without=len(groups) - len(rows),
            p=p,
            worst=None if worst is None else results[worst].accuracy,
            worst_by_chance=by_chance,
        ),
    )


def _result(
    hits: NDArray[np.int64],
    sizes: NDArray[np.int64],
    at: int,
    expected: float | None,
    p: float,
    q: float,
    together: float,
) -> GroupResult:
    n, right = int(sizes[at]), int(hits[at])
    rest, others = int(sizes.sum()) - n, int(hits.sum()) - right
    interval = difference_interval(right, n, others, rest)
    standing: Standing = "too few to tell"
    if together <= ALPHA and q <= ALPHA:
        standing = "worse" if right / n < others / rest else "better"
    elif interval[0] > -MARGIN and interval[1] < MARGIN:
        standing = "alike"
    return GroupResult(
        n=n,
        accuracy=right / n,
        interval=wilson_interval(right, n),
        expected=expected,
        difference=right / n - others / rest,
        difference_interval=interval,
        p=p,
        q=q,
        standing=standing,
    )


def _against_the_rest(
    sizes: NDArray[np.int64], hits: NDArray[np.int64]
) -> list[tuple[float, float]]:
    """p and q of each group."""
    from scipy.stats import false_discovery_control, fisher_exact

    total, right = int(sizes.sum()), int(hits.sum())
    values = [
        float(fisher_exact([[h, n - h], [right - h, total - n - right + h]])[1])
        for h, n in zip(hits.tolist(), sizes.tolist(), strict=True)
    ]
    values = [min(1.0, value) for value in values]
    return list(zip(values, false_discovery_control(values).tolist(), strict=True))


def _expected(
    inside: NDArray[np.bool_], labels: NDArray[np.int64], right: NDArray[np.bool_]
) -> float | None:
    """Accuracy of the same mixture of classes outside of a group."""
    count = int(labels.max()) + 1
    own = np.bincount(labels[inside], minlength=count)
    others = np.bincount(labels[~inside], minlength=count)
    if ((own > 0) & (others == 0)).any():
        return None
    rate = np.bincount(labels[~inside], right[~inside], minlength=count) / np.maximum(others, 1)
    return float((own * rate).sum() / own.sum())


def _shuffled(sizes: NDArray[np.int64], right: int, seed: int) -> NDArray[np.int64]:
    """(draws, groups) right answers of each group, where they are dealt to pictures at random."""
    rng = np.random.default_rng(seed)
    return rng.multivariate_hypergeometric(sizes, right, size=_DRAWS, method="marginals")


def _chi_square(hits: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Pearson's statistic of (..., groups) right answers, up to a factor that all draws share."""
    share = hits.sum(-1, keepdims=True) / sizes.sum()
    statistic: NDArray[np.float64] = ((hits - sizes * share) ** 2 / sizes).sum(-1)
    return statistic


# ---------------------------------------------------------------------------- in words


def group_rows(groups: Mapping[str, GroupResult]) -> list[tuple[str, ...]]:
    """Rows of a table: group, pictures, right, 95% interval, against the rest, its 95% interval, standing."""
    return [
        (
            name,
            f"{one.n:,}",
            f"{one.accuracy:.1%}",
            f"{one.interval[0]:.0%} to {one.interval[1]:.0%}",
            f"{100 * one.difference:+.1f}",
            f"{100 * one.difference_interval[0]:+.0f} to {100 * one.difference_interval[1]:+.0f}",
            one.standing,
        )
        for name, one in groups.items()
    ]


def group_sentences(study: GroupStudy) -> list[str]:
    """What the groups say, a sentence each."""
    test, groups = study.test, study.groups
    few = [name for name, one in groups.items() if one.standing == "too few to tell"]
    sentences = []
    if test.differ:
        sentences.append(
            f"By {test.column}, accuracy differs by more than chance explains (p = {test.p:.2g}, {len(groups)} "
            f"groups of {test.n:,} pictures)."
        )
    else:
        sentences.append(
            f"By {test.column}, chance explains the differences in accuracy (p = {test.p:.2g}, {len(groups)} "
            f"groups of {test.n:,} pictures)"
            + (
                "; that is no proof that the groups are alike: " + _too_few(few)
                if few
                else f", and every group is within {MARGIN:.0%} of the others with 95% confidence."
            )
        )
    if study.worst_group is not None:
        sentences.append(_worst_sentence(study))
    for words in ("worse", "better"):
        named = [name for name, one in groups.items() if one.standing == words]
        if named:
            each = "; ".join(_against(name, groups[name]) for name in named[:5])
            more = f"; and {len(named) - 5} more" if len(named) > 5 else ""
            sentences.append(f"Recognised {words} than the rest: {each}{more}.")
    if test.differ and few:
        sentences.append(_too_few(few, begin=True))
    if test.without:
        sentences.append(f"{test.without:,} pictures have no {test.column} and are left out.")
    return sentences


def _too_few(few: Sequence[str], *, begin: bool = False) -> str:
    listed = ", ".join(map(repr, few[:5])) + (f" and {len(few) - 5} more" if len(few) > 5 else "")
    verb = "has" if len(few) == 1 else "have"
    return f"{listed} {verb} too few pictures to tell a difference of {MARGIN:.0%}" + (
        " from none." if begin else "."
    )


def _worst_sentence(study: GroupStudy) -> str:
    assert study.worst_group is not None
    assert study.test.worst_by_chance is not None, "a worst group was found"
    one, (low, high) = study.groups[study.worst_group], study.test.worst_by_chance
    sentence = (
        f"The worst group is {study.worst_group!r}: {one.accuracy:.1%} of {one.n} pictures (95% interval "
        f"{one.interval[0]:.0%} to {one.interval[1]:.0%}); the worst of groups that are alike would have "
        f"{low:.0%} to {high:.0%} by chance."
    )
    overall = one.accuracy - one.difference
    if one.expected is not None and overall - one.expected > _HARDER:
        sentence += (
            f" Its classes are hard ones: elsewhere, such a mixture has {one.expected:.1%}, and the rest of "
            f"the pictures {overall:.1%}."
        )
    return sentence


def _against(name: str, one: GroupResult) -> str:
    low, high = one.difference_interval
    return f"{name!r} {one.difference:+.1%} ({low:+.0%} to {high:+.0%}, q = {one.q:.2g})"
