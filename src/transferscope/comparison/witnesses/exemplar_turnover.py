"""How many of the pictures that excite a channel most are others than before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

TOP = 0.1
"""Share of the pictures that are a channel's exemplars: a fixed number would mean another thing with other
numbers of pictures."""


def exemplar_turnover(base: Values, tuned: Values, labels: NDArray[np.int64]) -> Values:
    """Share of the tenth of pictures that excite a channel most which was not in base's tenth.

    Args:
        base: (N, C) responses.
        tuned: (N, C), of the same pictures.
        labels: int64 (N,); not used.

    Returns:
        (C,) in [0, 1]; 0.9 where the two orders have nothing to do with each other. Of pictures with
        the same response the first are taken.
    """
    count = max(1, round(TOP * len(base)))
    first, second = (exemplars(values, count) for values in (base, tuned))
    turnover: Values = 1.0 - (first & second).sum(0) / count
    return turnover


def exemplars(responses: Values, count: int) -> NDArray[np.bool_]:
    """(N, C): which pictures are a channel's highest; the first of those with the same response."""
    order = np.argsort(-responses, axis=0, kind="stable")[:count]
    chosen = np.zeros(responses.shape, bool)
    np.put_along_axis(chosen, order, True, axis=0)
    return chosen
