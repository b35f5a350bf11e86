"""What a careful look at a set tells before it is trained on: an `Inspection`, gathered in one pass.

While the scan decodes a picture it is measured too (`measured`), so looking costs one reading of the
files. Nothing here draws or prints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from PIL import Image

from transferscope.data.duplicates import Copies, NearPair
from transferscope.data.scan import Picture, Scan
from transferscope.images import FileFacts

THUMBNAIL = 16
"""Side in pixels of the grey thumbnail that confirms a near duplicate."""


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What was measured of one picture.

    Attributes:
        width: in pixels, upright.
        height: in pixels, upright.
        mode: Pillow's mode as stored: RGB, L, P, CMYK, RGBA, I;16...
        format: JPEG, PNG...
        animated: more than one frame.
        brightness: mean of the grey picture, in [0, 1].
        contrast: standard deviation of the grey picture, in [0, 0.5].
        phash: 64-bit perceptual hash of the DCT's low frequencies (imagehash.phash).
        thumbnail: THUMBNAIL x THUMBNAIL grey values, row by row.
    """

    width: int
    height: int
    mode: str
    format: str
    animated: bool
    brightness: float
    contrast: float
    phash: int
    thumbnail: bytes


def measured(picture: Image.Image, file: FileFacts) -> PictureFacts:
    """Measures a decoded picture (RGB or L, possibly a JPEG's draft of the file)."""
    grey = picture.convert("L")
    small = grey.resize((THUMBNAIL * 4, THUMBNAIL * 4), Image.Resampling.BOX)
    values = np.asarray(grey, dtype=np.float32) / 255
    bits = imagehash.phash(small).hash.ravel()
    width, height = file.size
    return PictureFacts(
        width,
        height,
        file.mode,
        file.format,
        file.animated,
        float(values.mean()),
        float(values.std()),
        int.from_bytes(np.packbits(bits).tobytes(), "big"),
        small.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX).tobytes(),
    )


@dataclass(frozen=True)
class Inspection:
    """A set of pictures, looked at.

    Attributes:
        scan: the readable pictures, with their splits where those are given or were drawn.
        facts: of every picture, in the scan's order.
        duplicates: files of equal bytes.
        near_duplicates: pictures that look the same and are not byte for byte the same.
        split_drawn: whether the splits are those that `tune` would draw, not the folder's own.
        problems: why the set cannot be trained on as it is, a sentence each; empty: it can be.
        embedding: name of the network whose features took part in the near duplicates, or None.
    """

    scan: Scan
    facts: tuple[PictureFacts, ...]
    duplicates: tuple[Copies, ...]
    near_duplicates: tuple[NearPair, ...]
    split_drawn: bool = False
    problems: tuple[str, ...] = ()
    embedding: str | None = None
