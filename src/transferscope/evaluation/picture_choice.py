"""Which evaluated pictures are shown one by one, where not all can be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

import torch

from transferscope.evaluation.predictions import Predictions

EXPLAINED, WRONG, UNSURE, RIGHT = "explained", "wrong", "unsure", "right"
"""Why a picture is chosen."""

MOST = 60
"""Pictures that are chosen."""


def chosen_pictures(
    predictions: Predictions, *, first: Sequence[str] = (), most: int = MOST
) -> list[tuple[int, str]]:
    """Rows of the pictures that are shown, each with the reason, in groups of one reason.

    Those of `first` come before all others; then half of `most` is for wrong answers, the surest first, a
    fifth for right ones whose two most probable classes are closest, and the rest for right ones of every
    class in turn, from the middle of its probabilities outwards. Room that one of these leaves is the others'.

    Args:
        predictions: of all pictures evaluated.
        first: paths of pictures of which more is known.
        most: rows at most.
    """
    rows = {path: row for row, path in enumerate(predictions.paths)}
    probabilities, right = predictions.probabilities, predictions.right
    best = probabilities.topk(min(2, probabilities.shape[1]), dim=-1).values
    margin = best[:, 0] - best[:, -1]
    wrong = (~right).nonzero().flatten()
    sure = right.nonzero().flatten()
    surest = wrong[best[wrong, 0].argsort(descending=True, stable=True)].tolist()
    doubtful = sure[margin[sure].argsort(stable=True)].tolist()
    typical = list(_in_turn(predictions, best[:, 0]))
    queues: list[tuple[str, list[int], int]] = [
        (EXPLAINED, [rows[path] for path in first if path in rows], most),
        (WRONG, surest, most // 2),
        (UNSURE, doubtful, most // 5),
        (RIGHT, typical, most),
        (WRONG, surest, most),
    ]
    chosen: dict[int, str] = {}
    for reason, queue, room in queues:
        fresh = [row for row in dict.fromkeys(queue) if row not in chosen]
        chosen |= dict.fromkeys(fresh[: min(room, most - len(chosen))], reason)
    order = {EXPLAINED: 0, WRONG: 1, UNSURE: 2, RIGHT: 3}
    ranked = sorted(enumerate(chosen.items()), key=lambda item: (order[item[1][1]], item[0]))
    return [one for _, one in ranked]


def _in_turn(predictions: Predictions, sure: torch.Tensor) -> Iterator[int]:
    """Rows of right answers, one of each class, then another of each, from the median of a class outwards."""
    by_class = []
    for label in range(len(predictions.classes)):
        own = ((predictions.labels == label) & predictions.right).nonzero().flatten()
        ranked = own[sure[own].argsort(stable=True)].tolist()
        middle = (len(ranked) - 1) / 2
        outwards = sorted(range(len(ranked)), key=lambda at: (abs(at - middle), at))
        by_class.append([ranked[at] for at in outwards])
    for turn in zip_longest(*by_class):
        yield from (row for row in turn if row is not None)
