"""Which part of a picture a place of a layer's map answers to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from transferscope.activations import TruncatedForward
from transferscope.backbones.classifier import Classifier
from transferscope.copies import still
from transferscope.errors import InputError
from transferscope.records import Record

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in fractions of the network's input, within [0, 1]."""

FieldKind = Literal["receptive field", "patch", "picture"]

ENERGY = 0.95
"""Share of the gradient's energy that a field holds in each direction."""

MOST_PREFIX_TOKENS = 16
"""Tokens without a place (class, distillation, registers) that a token layer may have."""


@dataclass(frozen=True)
class ReceptiveField(Record):
    """How far around a place of its map a layer looks.

    Attributes:
        layer: dotted name.
        kind: `receptive field`, measured; `patch`, of a token: the patch that it was made from, though by
            attention it answers to all others too; `picture`, of a layer without places or without a
            gradient.
        grid: (rows, columns) of the map; (1, 1) for a layer without places.
        reach: left, top, right, bottom of the field from the centre of the place, in fractions of the
            input; the first two negative.
    """

    layer: str
    kind: FieldKind
    grid: tuple[int, int]
    reach: Box

    def box(self, row: int, column: int) -> Box:
        """The part of the picture at a place of the map, cut off at the picture's borders."""
        if self.kind == "picture":
            return (0.0, 0.0, 1.0, 1.0)
        y, x = (row + 0.5) / self.grid[0], (column + 0.5) / self.grid[1]
        left, top, right, bottom = self.reach
        ends = np.clip((x + left, y + top, x + right, y + bottom), 0.0, 1.0).round(4).tolist()
        return (ends[0], ends[1], ends[2], ends[3])


def receptive_field(
    classifier: Classifier, layer: str, pictures: torch.Tensor, *, seed: int = 0
) -> ReceptiveField:
    """The effective receptive field of a layer, measured by gradients.

    That which the layers' kernels allow is the whole picture for most deep layers. Most of it has next
    to no influence, and the field is the box that holds 95% of the squared gradients of the middle
    place, by rows and by columns, summed over channels and pictures. It is at least the place's own share
    of the picture.

    Args:
        classifier: unchanged.
        layer: dotted name.
        pictures: float (N, C, H, W) in [0, 1]; eight real ones are enough.
        seed: of the signs by which channels are summed.

    Raises:
        UnknownName: no such layer.
        InputError: no pictures.

    Reference: Luo et al. 2016, section 3, with the gradients of all channels at once by random signs
    (Hutchinson 1989), on real pictures instead of noise.
    """
    if not len(pictures):
        raise InputError("there are no pictures to measure a receptive field on; give 1 or more")
    forward = TruncatedForward(
        still(classifier.network), [layer], classifier.example(), channels_first=True
    )
    whole = ReceptiveField(layer, "picture", (1, 1), (-0.5, -0.5, 0.5, 0.5))
    energy = torch.zeros(classifier.input.size, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    grid = (1, 1)
    for picture in pictures.split(1):
        given = classifier.input.normalise(picture.to(classifier.device)).requires_grad_()
        with torch.enable_grad():
            output = forward(given)[layer]
            if output.ndim < 3:
                return whole
            maps = as_maps(output, classifier.input.size)
            grid = (maps.shape[2], maps.shape[3])
            if output.ndim == 3:
                half = (0.5 / grid[1], 0.5 / grid[0])
                return ReceptiveField(layer, "patch", grid, (-half[0], -half[1], *half))
            place = maps[0, :, grid[0] // 2, grid[1] // 2]
            signs = torch.randint(0, 2, place.shape, generator=generator).to(place) * 2 - 1
            (gradient,) = torch.autograd.grad((place * signs).sum(), given)
        energy += gradient[0].double().square().sum(0).cpu()
    if not float(energy.sum()) > 0:  # nothing, or not a number
        return ReceptiveField(layer, "picture", grid, whole.reach)
    (top, bottom), (left, right) = (
        _reach(energy.sum(1 - axis).numpy(), grid[axis]) for axis in (0, 1)
    )
    return ReceptiveField(layer, "receptive field", grid, (left, top, right, bottom))


def _reach(energy: np.ndarray, places: int) -> tuple[float, float]:
    """Where a field begins and ends, from the centre of the middle place, in fractions of the side.

    Args:
        energy: (pixels,) along one side.
        places: of the map, along the same side.
    """
    share = np.cumsum(energy) / energy.sum()
    first = int(np.searchsorted(share, (1 - ENERGY) / 2))
    last = int(np.searchsorted(share, (1 + ENERGY) / 2))
    centre, half = (places // 2 + 0.5) / places, 0.5 / places
    begin, end = (
        first / len(energy) - centre,
        (min(last, len(energy) - 1) + 1) / len(energy) - centre,
    )
    return min(begin, -half), max(end, half)


def as_maps(output: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A layer's output as maps (N, C, h, w), channels first.

    Args:
        output: (N, C, h, w); tokens (N, T, C), of which those before the patches are left out; or a vector
            (N, C), which has one place.
        size: (height, width) of the network's input, whose proportions the patches have.

    Raises:
        InputError: tokens that are no patches of such a picture.
    """
    if output.ndim == 4:
        return output
    if output.ndim == 2:
        return output[:, :, None, None]
    tokens = output.shape[1]
    for tolerance in (1, max(size)):  # first in the very proportions, then within a row or a column
        for prefix in range(min(MOST_PREFIX_TOKENS, tokens - 1) + 1):
            rows = round(((tokens - prefix) * size[0] / size[1]) ** 0.5)
            columns = (tokens - prefix) // max(rows, 1)
            alike = abs(rows * size[1] - columns * size[0]) < tolerance
            if rows and rows * columns == tokens - prefix and alike:
                maps: torch.Tensor = output[:, prefix:].movedim(-1, 1)
                return maps.reshape(*maps.shape[:2], rows, columns)
    raise InputError(
        f"a layer has {tokens} tokens, which are no patches of a {size[0]} x {size[1]} picture; choose a "
        "layer whose tokens are ('transferscope layers MODEL')"
    )
