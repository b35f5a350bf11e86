"""How much a channel knows about the classes: the share of its variance that lies between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def class_information(responses: Values, labels: NDArray[np.int64]) -> Values:
    """Epsilon squared: eta squared of the classes, corrected for what chance alone would explain.

    1 - MS_within / MS_total, the adjusted R squared of a one-way analysis of variance. It estimates the
    share of a channel's variance that lies between classes, is 0 on average where classes mean nothing,
    and is below 0 there half of the time: it is not clipped, or it would be biased again.

    Args:
        responses: (N, C), in any unit.
        labels: int64 (N,); classes without pictures do not count.

    Returns:
        (C,), at most 1. 0 for a channel that does not vary, or where no class has two pictures.

    Reference: Kelley 1935. Of eta, omega and epsilon squared it has the least bias (Okada 2013).
    """
    x = responses.astype(float)
    x = x - x.mean(0)
    _, place, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    n, classes = len(x), len(sizes)
    if n <= classes or classes < 2:
        return np.zeros(x.shape[1])
    member = (place[None, :] == np.arange(classes)[:, None]).astype(float)
    between = ((member @ x) ** 2 / sizes[:, None]).sum(0)
    total = (x * x).sum(0)
    within = np.maximum(total - between, 0.0) / (n - classes)
    varies = (np.ptp(responses, axis=0) > 0) & (total > 0)
    share = np.divide(within * (n - 1), total, out=np.ones_like(total), where=varies)
    information: Values = 1.0 - share
    return information


def class_information_gain(base: Values, tuned: Values, labels: NDArray[np.int64]) -> Values:
    """`class_information` of tuned less that of base, (C,), in shares of variance.

    Args:
        base: (N, C) responses.
        tuned: (N, C), of the same pictures.
        labels: int64 (N,).
    """
    return class_information(tuned, labels) - class_information(base, labels)
