"""How well a channel tells its best class from all others: area under the ROC curve."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Values = NDArray[np.float64]


def class_aucs(responses: Values, labels: NDArray[np.int64], classes: NDArray[np.int64]) -> Values:
    """Areas under the ROC curve of every class against all others, (K, C), ties counting half.

    Args:
        responses: (N, C).
        labels: int64 (N,).
        classes: int64 (K,), the classes asked for; of one without pictures, or with all, it is 0.5.

    Reference: Mann & Whitney 1947.
    """
    ranks = rankdata(responses, axis=0)
    member = (labels[None, :] == classes[:, None]).astype(float)
    inside = member.sum(1)[:, None]
    pairs = inside * (len(labels) - inside)
    above = member @ ranks - inside * (inside + 1) / 2
    areas: Values = np.divide(above, pairs, out=np.full_like(above, 0.5), where=pairs > 0)
    return areas


def best_class_auc(responses: Values, labels: NDArray[np.int64]) -> Values:
    """The area of the class that a channel is highest for, (C,), in [0, 1]; 0.5 is chance.

    The largest of many areas is large by chance, so the class is chosen on one half of the pictures and
    its area taken on the other, both ways round: unbiased for the class chosen. Halves take a class's
    pictures in turn. Where two classes are about as good the halves may choose different ones, and 95%
    intervals hold the value only 87 to 92% of the time.

    Args:
        responses: (N, C).
        labels: int64 (N,).
    """
    classes = np.unique(labels)
    odd = np.zeros(len(labels), bool)
    for one in classes:
        odd[np.flatnonzero(labels == one)[1::2]] = True
    halves = [class_aucs(responses[part], labels[part], classes) for part in (odd, ~odd)]
    found = [
        np.take_along_axis(there, here.argmax(0)[None], 0)[0]
        for here, there in (halves, halves[::-1])
    ]
    area: Values = (found[0] + found[1]) / 2
    return area


def best_class_auc_gain(base: Values, tuned: Values, labels: NDArray[np.int64]) -> Values:
    """`best_class_auc` of tuned less that of base, (C,); each network has a best class of its own.

    Args:
        base: (N, C) responses.
        tuned: (N, C), of the same pictures.
        labels: int64 (N,).
    """
    return best_class_auc(tuned, labels) - best_class_auc(base, labels)
