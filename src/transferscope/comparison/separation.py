"""How far apart the classes lie in a layer: the share of distances that is between classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def class_separation(responses: Values, labels: NDArray[np.int64]) -> float:
    """1 - the mean distance of pictures of one class over the mean distance of all pictures, at most 1.

    Distances are 1 - cosine, so neither the scale of the responses nor the number of channels matters,
    and layers and networks of any width compare. Every class weighs the same, and so does every pair of
    classes. No picture is paired with itself: where classes mean nothing the value is 0 on average, and
    below 0 about half of the time.

    Args:
        responses: (N, C), all of a layer's channels or a network's pooled features. A picture without
            any response is at distance 1 from all others.
        labels: int64 (N,); classes of fewer than two pictures do not count.

    Returns:
        1 where all pictures of a class answer alike; 0 where pictures do not differ, or fewer than two
        classes count.

    Reference: Kornblith et al. 2021, section 4.1, "class separation" R^2, without the pairs of a picture
    with itself, which make it larger the fewer pictures a class has.
    """
    names, sizes = np.unique(labels, return_counts=True)
    names = names[sizes > 1]
    if len(names) < 2:
        return 0.0
    x = responses.astype(float)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(float).tiny)
    groups = [x[labels == one] for one in names]
    sizes = np.array([len(group) for group in groups])
    sums = np.stack([group.sum(0) for group in groups])
    own = np.array([np.square(group).sum() for group in groups])
    cosines = sums @ sums.T / np.outer(sizes, sizes)
    within = (np.diag(sums @ sums.T) - own) / (sizes * (sizes - 1))
    np.fill_diagonal(cosines, within)
    apart = 1 - cosines.mean()
    return float(1 - (1 - within.mean()) / apart) if apart > np.finfo(float).eps * len(x) else 0.0
