"""The statistic of change, and what it is where nothing changed."""

from __future__ import annotations

import itertools

import torch


def change_statistic(similarity: torch.Tensor) -> float:
    """Mean within-network minus mean cross-network similarity, from different seeds throughout.

    Args:
        similarity: (2 S, 2 S) of S renders of one network followed by S of the other, both from the
            same S seeds in the same order.

    Returns:
        Around 0 if the networks draw alike; at most 2. Pairs that share a seed (and so a start) never
        enter: they look alike for that reason alone.
    """
    half = len(similarity) // 2
    apart = ~torch.eye(half, dtype=torch.bool)
    within = torch.cat([similarity[:half, :half][apart], similarity[half:, half:][apart]])
    return float(within.mean() - similarity[:half, half:][apart].mean())


def null_statistics(similarity: torch.Tensor) -> list[float]:
    """Statistics of one network against itself, from 2 S renders of 2 S seeds.

    Every way to call S of them one network and the rest the other, each with every alignment of the
    two groups' seeds, is a draw of `change_statistic` where nothing changed. The draws of one channel
    share renders, so they are not independent; pooled over a layer's channels they describe how
    large the statistic gets by noise alone.

    Args:
        similarity: (2 S, 2 S).
    """
    count = len(similarity)
    draws = []
    for first in itertools.combinations(range(count), count // 2):
        if 0 not in first:
            continue  # the two groups change places: the same draw
        rest = [index for index in range(count) if index not in first]
        for second in itertools.permutations(rest):
            order = [*first, *second]
            draws.append(change_statistic(similarity[order][:, order]))
    return draws
