"""Contact sheets of a set's pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from transferscope.errors import InputError, PictureError
from transferscope.images import read_picture

TILE = 96
"""Side of a picture on a contact sheet, in pixels."""


def sample_sheet(
    files: Iterable[Path], *, columns: int = 6, side: int = TILE, gap: int = 4
) -> Image.Image:
    """A contact sheet of centre crops, row by row, on a transparent ground.

    Args:
        files: at least one. One that cannot be read any more leaves a grey tile.
        columns: of the sheet, which keeps its width where there are fewer files.
        side: of a crop, in pixels.
        gap: between crops, in pixels.

    Raises:
        InputError: no files.
    """
    tiles = [_crop(file, side) for file in files]
    if not tiles:
        raise InputError("a contact sheet needs at least one picture")
    rows = -(-len(tiles) // columns)
    pitch = side + gap
    sheet = Image.new("RGBA", (columns * pitch - gap, rows * pitch - gap))
    for place, tile in enumerate(tiles):
        sheet.paste(tile, (place % columns * pitch, place // columns * pitch))
    return sheet


def _crop(file: Path, side: int) -> Image.Image:
    try:
        picture = read_picture(file, least_side=side)
    except PictureError:
        return Image.new("RGBA", (side, side), (128, 128, 128, 70))
    return ImageOps.fit(picture, (side, side), Image.Resampling.BICUBIC, bleed=0).convert("RGBA")


def sampled(places: Sequence[int], count: int, *, seed: int) -> list[int]:
    """`count` of `places`, spread over them: one drawn from each of as many equal stretches."""
    if len(places) <= count:
        return list(places)
    edges = np.linspace(0, len(places), count + 1)
    drawn = np.random.default_rng(seed).uniform(edges[:-1], edges[1:])
    return [places[min(int(at), len(places) - 1)] for at in drawn]
