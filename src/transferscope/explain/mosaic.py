"""The mosaic game: four pictures of four classes as one, in which a map has to point at the class asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

CHANCE = 0.25


@dataclass(frozen=True, eq=False)
class Mosaics:
    """M mosaics of 2 x 2 pictures.

    Attributes:
        pictures: (M, C, H, W).
        index: int64 (M,), the class that is asked for.
        quarter: int64 (M,), where its picture is: 0 to 3, row by row.
    """

    pictures: torch.Tensor
    index: torch.Tensor
    quarter: NDArray[np.int64]


def mosaics(pictures: torch.Tensor, labels: torch.Tensor, *, seed: int) -> Mosaics | None:
    """A mosaic for each picture, with three of other classes, in which its class is asked for.

    Args:
        pictures: (N, C, H, W), each recognised by the network.
        labels: int64 (N,), their classes.
        seed: of the companions and places; the places are equally frequent.

    Returns:
        None where there are fewer than four classes.

    Reference: Arias-Duart et al. 2022.
    """
    rng = np.random.default_rng(seed)
    known = labels.cpu().numpy()
    if len(np.unique(known)) < 4:
        return None
    quarters = rng.permutation(np.arange(len(known)) % 4)
    height, width = pictures.shape[2:]
    found = []
    for row, quarter in enumerate(quarters):
        others = rng.choice(np.setdiff1d(known, known[row]), 3, replace=False)
        chosen = [int(rng.choice(np.flatnonzero(known == one))) for one in others]
        chosen.insert(int(quarter), row)
        canvas = torch.empty_like(pictures[0])
        for place, one in enumerate(chosen):
            rows, columns = quarter_of(place, height, width)
            canvas[:, rows, columns] = functional.interpolate(
                pictures[one][None],
                (rows.stop - rows.start, columns.stop - columns.start),
                mode="bilinear",
                antialias=True,
            )[0].clamp(0, 1)
        found.append(canvas)
    return Mosaics(torch.stack(found), labels, quarters.astype(np.int64))


def quarter_of(place: int, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a quarter."""
    down, across = divmod(place, 2)
    ends = (0, height // 2, height), (0, width // 2, width)
    return (
        slice(ends[0][down], ends[0][down + 1]),
        slice(ends[1][across], ends[1][across + 1]),
    )


def shares(support: NDArray[np.float32], quarter: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of each map's support (M, H, W), not negative, inside its quarter; chance where it is 0."""
    found = []
    for one, place in zip(support, quarter, strict=True):
        inside, total = float(one[quarter_of(int(place), *one.shape)].sum()), float(one.sum())
        found.append(inside / total if total else CHANCE)
    return np.array(found)
