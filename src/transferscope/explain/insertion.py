"""Insertion and deletion: how fast an answer comes and goes as a map's best places do."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from transferscope.explain.scores import Scores

GRID = 14
"""Cells along a side: places are inserted and deleted in squares. Pixels by themselves would be noise to
the network, whatever their order."""

STEPS = 10

BLURS = (16, 8, 4, 2)
"""Shares of the side that a Gaussian's spread is, in the order in which they are tried: 1/16, ..."""

Cells = NDArray[np.float32]
"""(N, cells), of which those with the largest values come first."""


def cells(maps: NDArray[np.float32]) -> Cells:
    """Means of maps (N, H, W) over the cells, (N, cells)."""
    side = grid(maps.shape[1:])
    pooled = functional.adaptive_avg_pool2d(torch.from_numpy(maps)[:, None], side)
    found: Cells = pooled.flatten(1).numpy()
    return found


def grid(size: Sequence[int]) -> tuple[int, int]:
    """Cells along either side of pictures of a size (height, width)."""
    return (min(GRID, size[0]), min(GRID, size[1]))


def insertion_less_deletion(
    scores: Scores,
    pictures: torch.Tensor,
    index: torch.Tensor,
    order: Cells,
    base: torch.Tensor,
    *,
    batch_size: int,
    seed: int = 0,
) -> NDArray[np.float64]:
    """The mean probability of a class as the best cells are inserted, less that as they are deleted, (N,).

    Insertion starts from the baseline and deletion ends there; the probability is averaged over
    `STEPS` equal steps. An order that says nothing has about 0.

    Args:
        scores: of the network.
        pictures: (N, C, H, W) in [0, 1].
        index: int64 (N,), classes.
        order: (N, cells), see `cells`; equal ones come in a random order.
        base: (N, C, H, W), see `baseline`.
        batch_size: pictures a pass.
        seed: of the order of equal ones.

    Reference: Petsiuk et al. 2018, section 3.3, with a blurred baseline for both, on cells.
    """
    side = grid(pictures.shape[2:])
    ties = np.random.default_rng(seed).random(order.shape)
    rank = np.lexsort((ties, -order), axis=1).argsort(1)  # 0: the best cell
    place = torch.from_numpy(rank / order.shape[1]).to(pictures).view(-1, 1, *side)
    place = functional.interpolate(place, pictures.shape[2:], mode="nearest")

    def mean_probability(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        found = []
        for step in range(STEPS + 1):
            mixed = torch.where(place < step / STEPS, first, second)
            weight = 0.5 if step in (0, STEPS) else 1.0  # the trapezoidal rule
            found.append(weight * probability(scores, mixed, index, batch_size))
        return torch.stack(found).sum(0) / STEPS

    inserted = mean_probability(pictures, base)
    deleted = mean_probability(base, pictures)
    result: NDArray[np.float64] = (inserted - deleted).double().cpu().numpy()
    return result


def probability(
    scores: Scores, pictures: torch.Tensor, index: torch.Tensor, batch_size: int
) -> torch.Tensor:
    """(N,) of each picture's class."""
    with torch.no_grad():
        logits = torch.cat([scores.logits(part) for part in pictures.split(batch_size)])
    temperature = scores.classifier.temperature
    found: torch.Tensor = torch.softmax(logits / temperature, 1).gather(1, index[:, None])[:, 0]
    return found


def baseline(
    scores: Scores, pictures: torch.Tensor, index: torch.Tensor, *, batch_size: int
) -> torch.Tensor:
    """Pictures blurred until the mean probability of their classes has halved; at last, the mean colour.

    A fixed blur would leave some classes, such as those that are a matter of colour, as sure as before.
    """
    whole = probability(scores, pictures, index, batch_size).mean()
    for share in BLURS:
        found = blurred(pictures, min(pictures.shape[2:]) / share)
        if probability(scores, found, index, batch_size).mean() <= whole / 2:
            return found
    mean = pictures.new_tensor(scores.classifier.input.mean).view(1, -1, 1, 1)
    return mean.expand_as(pictures)


def blurred(pictures: torch.Tensor, sigma: float) -> torch.Tensor:
    """Pictures under a Gaussian of a spread in pixels, as wide as reflection at the borders allows."""
    from torchvision.transforms.v2.functional import gaussian_blur

    most = 2 * (min(pictures.shape[2:]) - 1) - 1
    kernel = max(1, min(2 * math.ceil(3 * sigma) + 1, most))
    found: torch.Tensor = gaussian_blur(pictures, [kernel, kernel], [sigma, sigma])
    return found
