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

COLUMNS, GAP = 6, 4
"""Of a contact sheet, which is as wide where there are fewer pictures; between them, in pixels."""


def sample_sheet(files: Iterable[Path]) -> Image.Image:
    """A contact sheet of centre crops, row by row, on a transparent ground.

    Args:
        files: at least one. One that cannot be read any more leaves a grey tile.

    Raises:
        InputError: no files.
    """
    tiles = [_crop(file) for file in files]
    if not tiles:
        raise InputError("a contact sheet needs at least one picture")
    rows = -(-len(tiles) // COLUMNS)
    pitch = TILE + GAP
    sheet = Image.new("RGBA", (COLUMNS * pitch - GAP, rows * pitch - GAP))
    for place, tile in enumerate(tiles):
        sheet.paste(tile, (place % COLUMNS * pitch, place // COLUMNS * pitch))
    return sheet


def _crop(file: Path) -> Image.Image:
    size = (TILE, TILE)
    try:
        picture = read_picture(file, least_side=TILE)
    except PictureError:
        return Image.new("RGBA", size, (128, 128, 128, 70))
    return ImageOps.fit(picture, size, Image.Resampling.BICUBIC, bleed=0).convert("RGBA")


def sampled(places: Sequence[int], count: int, *, seed: int) -> list[int]:
    """`count` of `places`, spread over them: one drawn from each of as many equal stretches."""
    if len(places) <= count:
        return list(places)
    edges = np.linspace(0, len(places), count + 1)
    drawn = np.random.default_rng(seed).uniform(edges[:-1], edges[1:])
    return [places[min(int(at), len(places) - 1)] for at in drawn]
