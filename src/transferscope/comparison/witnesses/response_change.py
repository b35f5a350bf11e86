"""How differently a channel answers the same pictures: 1 - r^2."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def response_change(base: Values, tuned: Values, labels: NDArray[np.int64]) -> Values:
    """1 - r^2 of each channel's responses, r being Pearson's correlation, in [0, 1].

    The share of the tuned responses' variance that a straight line through base's does not explain, and
    the other way round: scale, offset and sign of the responses do not matter.

    Args:
        base: (N, C) responses, in any unit.
        tuned: (N, C), of the same pictures.
        labels: int64 (N,); not used.

    Returns:
        (C,). A channel that varies in neither network has not changed: 0; in one of them only: 1.
    """
    dead = [np.ptp(values, axis=0) == 0 for values in (base, tuned)]
    x, y = (values - values.mean(0) for values in (base.astype(float), tuned.astype(float)))
    product = (x * x).sum(0) * (y * y).sum(0)
    vary = ~dead[0] & ~dead[1] & (product > 0)
    explained = np.divide((x * y).sum(0) ** 2, product, out=np.zeros_like(product), where=vary)
    return np.where(dead[0] & dead[1], 0.0, 1.0 - np.minimum(explained, 1.0))
