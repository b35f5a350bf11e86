"""How alike pictures are in texture: Gram matrices of feature maps, and distances in units of a layer's own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from transferscope.activations import TruncatedForward
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.stages import stages_of
from transferscope.copies import still
from transferscope.errors import InputError
from transferscope.images import as_float, to_picture

WIDTH = 64
"""Channels of a Gram matrix: wider feature maps are projected at random onto so many directions."""

Grams = Mapping[str, torch.Tensor]
"""Layer -> Gram matrices (N, P) of the same N pictures."""


def gram_layers(base: Classifier) -> tuple[str, ...]:
    """The stages whose feature maps describe texture: the first half of a network's."""
    stages = stages_of(base)
    return stages[: math.ceil(len(stages) / 2)]


def gram_features(
    base: Classifier,
    pictures: torch.Tensor,
    *,
    layers: Sequence[str] | None = None,
    batch_size: int = 16,
) -> dict[str, torch.Tensor]:
    """Gram matrices of the base network's feature maps: which channels are active in the same places.

    Each matrix is the mean over places of the outer product of the channels' values, written as its upper
    triangle with the off-diagonal entries times the root of 2: the distance of two rows is the Frobenius
    distance of their matrices. Maps of more than `WIDTH` channels are first projected onto as many random
    orthogonal directions, the same for all pictures.

    Args:
        base: whose feature maps describe the pictures; unchanged.
        pictures: uint8 (N, H, W, 3).
        layers: dotted names of layers that put out maps or tokens; `gram_layers` if not given.
        batch_size: pictures a forward pass; feature maps of no more than these are in memory.

    Returns:
        layer -> float32 (N, P), P at most WIDTH (WIDTH + 1) / 2.

    Raises:
        UnknownName: no such layer.
        InputError: a layer without places, such as pooled features.

    Reference: Gatys et al. 2016, eq. 3, with the mean over places for the sum; Ding et al. 2021 compare
    the same statistics of early and late maps, texture and structure, in one measure.
    """
    spec = base.input
    names = gram_layers(base) if layers is None else tuple(layers)
    forward = TruncatedForward(still(base.network), names, base.example(), channels_first=True)
    found: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    with torch.inference_mode():
        for part in pictures.split(batch_size):
            loaded = torch.stack([spec.load(to_picture(picture)) for picture in part])
            outputs = forward(spec.normalise(as_float(loaded.to(base.device))))
            for name, output in outputs.items():
                found[name].append(_triangles(_by_place(output, name)).cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}


def _by_place(output: torch.Tensor, name: str) -> torch.Tensor:
    """(N, C, places), in fp32, of at most `WIDTH` channels."""
    if output.ndim == 4:
        maps = output.flatten(2)
    elif output.ndim == 3:
        maps = output.transpose(1, 2)
    else:
        raise InputError(
            f"layer {name!r} puts out {tuple(output.shape)}, which has no places; Gram matrices take maps "
            "(N, C, H, W) or tokens (N, T, C)"
        )
    maps = maps.float()
    channels = maps.shape[1]
    if channels <= WIDTH:
        return maps
    draw = torch.Generator().manual_seed(channels)
    directions = torch.linalg.qr(torch.randn(channels, WIDTH, generator=draw)).Q
    projected: torch.Tensor = directions.T.to(maps.device) @ maps
    return projected


def _triangles(maps: torch.Tensor) -> torch.Tensor:
    """Upper triangles (N, P) of the Gram matrices of (N, C, places)."""
    gram = maps @ maps.transpose(1, 2) / maps.shape[2]
    rows, columns = torch.triu_indices(*gram.shape[1:], device=gram.device)
    weight = torch.where(rows == columns, 1.0, math.sqrt(2))
    triangles: torch.Tensor = gram[:, rows, columns] * weight
    return triangles


def gram_distances(first: Grams, second: Grams) -> dict[str, float]:
    """Mean distance, by layer, of a picture of one from a picture of the other that has another seed.

    Args:
        first: layer -> (S, P), drawings from S >= 2 seeds.
        second: the same of other drawings, from the same seeds in the same order; or `first` itself.
    """
    found = {}
    for layer, values in first.items():
        apart = ~torch.eye(len(values), dtype=torch.bool)
        found[layer] = float(torch.cdist(values.double(), second[layer].double())[apart].mean())
    return found


def gram_scale(first: Grams, second: Grams) -> dict[str, float]:
    """Median distance, by layer, of row n of one from row n of the other: drawings of unrelated channels."""
    return {
        layer: float((values.double() - second[layer].double()).norm(dim=1).median())
        for layer, values in first.items()
    }


def scaled_gram(distances: Mapping[str, float], scale: Mapping[str, float]) -> float | None:
    """Distance in units of that between unrelated channels: 0 the same texture, 1 as far as those.

    Each layer's distance is divided by that layer's scale, because Gram matrices of different layers are of
    different sizes, and the quotients are averaged. None where nothing differs between unrelated channels.
    """
    shares = [distance / scale[layer] for layer, distance in distances.items() if scale[layer] > 0]
    return sum(shares) / len(shares) if shares else None
