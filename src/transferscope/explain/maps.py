"""What every method returns, and how it goes through its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from transferscope.explain.scores import Targets


@dataclass(frozen=True, eq=False)
class Maps:
    """What a method found in N pictures.

    Attributes:
        maps: (N, H, W), summed over colours.
        delta: (N,), how much of the score the sum of the map misses; None: the method promises none.
        converged: bool (N,), whether that is under 1% of what it should sum to.
        steps: (N,) steps used.
    """

    maps: torch.Tensor
    delta: torch.Tensor | None = None
    converged: torch.Tensor | None = None
    steps: torch.Tensor | None = None


def parts(
    pictures: torch.Tensor, targets: Targets, size: int
) -> Iterator[tuple[torch.Tensor, Targets]]:
    """Pictures and their targets, `size` at a time."""
    for rows in slices(len(pictures), size):
        yield pictures[rows], targets[rows]


def slices(count: int, size: int) -> Iterator[slice]:
    """The rows of each part, `size` at a time."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
