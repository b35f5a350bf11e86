"""How alike two attribution maps are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]

_SIGMA = 1.5
_WINDOW = 11


def rank_correlation(first: Map, second: Map) -> float:
    """Spearman's correlation of two maps (H, W), pixel by pixel; 0 where one is the same everywhere.

    Reference: Spearman 1904; Adebayo et al. 2018, section 3.
    """
    from scipy.stats import rankdata

    ranks = [rankdata(one) for one in (first, second)]
    centred = [one - one.mean() for one in ranks]
    lengths = [float(np.linalg.norm(one)) for one in centred]
    if min(lengths) == 0:
        return 0.0
    return float(centred[0] @ centred[1] / (lengths[0] * lengths[1]))


def ssim(first: Map, second: Map) -> float:
    """Structural similarity of the magnitudes of two maps (H, W), each divided by its largest.

    With a Gaussian window of 1.5 pixels; 0 where one map is 0 everywhere and the other is not.

    Reference: Wang et al. 2004, eq. 13, with its constants for a range of 1.
    """
    from scipy.ndimage import gaussian_filter

    x, y = (np.abs(one).astype(np.float64) for one in (first, second))
    if not (x.max() and y.max()):
        return float(x.max() == y.max())
    x, y = x / x.max(), y / y.max()

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = gaussian_filter(values, _SIGMA, radius=_WINDOW // 2)
        return found

    mx, my = mean(x), mean(y)
    vx, vy, both = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    found = (2 * mx * my + c1) * (2 * both + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return float(found.mean())
