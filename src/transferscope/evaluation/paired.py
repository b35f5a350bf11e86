"""Two classifiers on the same pictures: how much better one is, and on which pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transferscope.errors import DataError
from transferscope.evaluation.intervals import drawn_means, middle
from transferscope.evaluation.predictions import Predictions
from transferscope.records import Record

_DRAWS = 10_000  # each is three numbers, whatever the number of pictures


@dataclass(frozen=True)
class Disagreement:
    """A picture of which the two say different things.

    Attributes:
        path: relative to the data folder.
        label: its class.
        first: what the first classifier takes it for.
        first_probability: with which probability.
        second: what the second takes it for.
        second_probability: with which probability.
    """

    path: str
    label: str
    first: str
    first_probability: float
    second: str
    second_probability: float


@dataclass(frozen=True)
class PairedDifference(Record):
    """First classifier minus second on the same pictures.

    The pictures are the same for both, so most of the chance in either accuracy is shared and falls
    out of the difference: its interval is far narrower than two intervals side by side suggest.

    Attributes:
        first: name of the first.
        second: name of the second.
        n: pictures.
        left_out: pictures of the first's split that the second was trained or chosen on, or does not
            know; they are in none of the figures.
        top1: of the first.
        second_top1: of the second.
        difference: top1 - second_top1.
        interval: 95% of the difference, bootstrap over pictures.
        only_first: pictures that the first alone gets right.
        only_second: pictures that the second alone gets right.
        p: two-sided exact McNemar test of both being equally good.
        nll_difference: mean negative log-likelihood of the first minus that of the second, nats;
            negative where the first is better.
        nll_interval: 95% of it, bootstrap over pictures.
        disagreements: pictures of which they say different things, those first that one alone has right.

    Reference: McNemar 1947; Dietterich 1998.
    """

    first: str
    second: str
    n: int
    left_out: int
    top1: float
    second_top1: float
    difference: float
    interval: tuple[float, float]
    only_first: int
    only_second: int
    p: float
    nll_difference: float
    nll_interval: tuple[float, float]
    disagreements: tuple[Disagreement, ...]


def paired_difference(
    first: Predictions,
    second: Predictions,
    *,
    names: tuple[str, str] = ("first", "second"),
    left_out: int = 0,
    seed: int = 0,
) -> PairedDifference:
    """Compares two classifiers' predictions for the same pictures.

    Args:
        first: of N >= 1 pictures.
        second: of the same, in the same order; its classes may stand in another order.
        names: of the two.
        left_out: reported as it is.
        seed: of the bootstrap.

    Raises:
        DataError: no pictures, or not the same ones.
        InputError: not the same classes.
    """
    if first.paths != second.paths or not first.paths:
        raise DataError(
            f"{names[0]!r} has {len(first.paths)} pictures and {names[1]!r} {len(second.paths)}, and they "
            "are not the same; a paired difference needs the same pictures in the same order"
        )
    from scipy.stats import binomtest

    second = second.for_classes(first.classes)
    right, other = first.right, second.right
    only_first, only_second = int((right & ~other).sum()), int((other & ~right).sum())
    n, apart = len(right), only_first + only_second
    losses = (first.losses - second.losses).numpy()
    return PairedDifference(
        first=names[0],
        second=names[1],
        n=n,
        left_out=left_out,
        top1=float(right.double().mean()),
        second_top1=float(other.double().mean()),
        difference=(only_first - only_second) / n,
        interval=paired_interval(right.numpy(), other.numpy(), seed=seed),
        only_first=only_first,
        only_second=only_second,
        p=float(binomtest(only_first, apart).pvalue) if apart else 1.0,
        nll_difference=float(losses.mean()),
        nll_interval=middle(drawn_means(losses, seed=seed)),
        disagreements=_disagreements(first, second),
    )


def paired_interval(
    first: NDArray[np.bool_], second: NDArray[np.bool_], *, seed: int = 0
) -> tuple[float, float]:
    """95% interval of the share of hits in `first` less that in `second`, by a paired bootstrap.

    Pictures are drawn with replacement; as a picture counts 1, -1 or 0, drawing how many of each there
    are is the same thing. What it leaves out: the training set and the fitted weights stay as they are.

    Args:
        first: bool (N,).
        second: bool (N,), of the same pictures.
        seed: of the draws.
    """
    n = len(first)
    won, lost = int((first & ~second).sum()), int((second & ~first).sum())
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n, [won / n, lost / n, 1 - (won + lost) / n], size=_DRAWS)
    return middle((drawn[:, 0] - drawn[:, 1]) / n)


def _disagreements(first: Predictions, second: Predictions) -> tuple[Disagreement, ...]:
    ours, theirs = first.probabilities, second.probabilities
    settled = (first.right | second.right).int()
    rows = (first.predicted != second.predicted).nonzero().flatten().tolist()
    rows.sort(key=lambda row: (-int(settled[row]), int(second.right[row]), row))
    found = []
    for row in rows:
        said, other = int(first.predicted[row]), int(second.predicted[row])
        found.append(
            Disagreement(
                path=first.paths[row],
                label=first.classes[int(first.labels[row])],
                first=first.classes[said],
                first_probability=float(ours[row, said]),
                second=first.classes[other],
                second_probability=float(theirs[row, other]),
            )
        )
    return tuple(found)
