"""An order of the classes in which those that are taken for each other stand side by side."""

from __future__ import annotations

import numpy as np
import torch

from transferscope.evaluation.metrics import confusion_counts
from transferscope.evaluation.predictions import Predictions

_TURNED = 500
"""Classes up to which the tree's branches are turned: the time for it grows with the cube."""

_LEAST_SHARE = 1e-5  # closer to never than a mean probability can be told from it

_ROWS = 8192  # pictures whose probabilities are in memory at a time


def class_order(predictions: Predictions) -> list[int]:
    """Indices of the classes, confused ones next to each other.

    Two classes are the nearer, the larger the share of either's pictures that is taken for the other,
    and the more probability either's pictures give the other; the shares alone would leave classes apart
    that were nearly confused. The order is that of the leaves of a tree (average linkage), turned so
    that neighbours are as near as the tree permits (of up to 500 classes), and so that the class named
    first in the list of classes stands in the first half.

    Args:
        predictions: of any number of pictures; a class may have none.

    Returns:
        Each index once.

    Reference: Bar-Joseph et al. 2001 (optimal leaf ordering).
    """
    k = len(predictions.classes)
    if k < 3:
        return list(range(k))
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    # Of a class's pictures: the share that is taken for each class, and their mean probabilities.
    sizes = torch.bincount(predictions.labels, minlength=k).clamp_min(1).numpy()[:, None]
    summed = torch.zeros(k, k, dtype=torch.float64)
    scaled = predictions.logits.split(_ROWS)
    for labels, logits in zip(predictions.labels.split(_ROWS), scaled, strict=True):
        summed.index_add_(0, labels, (logits.double() / predictions.temperature).softmax(-1))
    shares = (confusion_counts(predictions) + summed.numpy()) / (2 * sizes)
    distance = -np.log(np.maximum((shares + shares.T) / 2, _LEAST_SHARE))
    distance -= distance.min()
    np.fill_diagonal(distance, 0)
    condensed = squareform(distance, checks=False)
    tree = linkage(condensed, method="average")
    if k <= _TURNED:
        tree = optimal_leaf_ordering(tree, condensed)
    order = [int(leaf) for leaf in leaves_list(tree)]
    return order if order.index(0) < (k + 1) // 2 else order[::-1]
