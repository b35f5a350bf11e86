"""What befalls pictures in practice: noise, blur, JPEG, brightness, in five strengths.

Reference: Hendrycks and Dietterich 2019, whose strengths for pictures of 224 pixels these are.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from transferscope.errors import InputError
from transferscope.images import to_picture, to_tensor

STRENGTHS = 5

_SIDE = 224
"""Pixels a side of the pictures that the published strengths are for."""

Values = NDArray[np.float64]


def _noise(values: Values, strength: float, rng: np.random.Generator) -> Values:
    drawn: Values = values + rng.normal(0, strength, values.shape)
    return drawn


def _blur(values: Values, sigma: float, _: np.random.Generator) -> Values:
    from scipy.ndimage import gaussian_filter

    scale = min(values.shape[:2]) / _SIDE
    blurred: Values = gaussian_filter(values, (sigma * scale, sigma * scale, 0), truncate=4.0)
    return blurred


def _jpeg(values: Values, quality: float, _: np.random.Generator) -> Values:
    data = io.BytesIO()
    to_picture(_bytes(values)).save(data, "JPEG", quality=int(quality))
    with Image.open(data) as picture:
        decoded = to_tensor(picture).permute(1, 2, 0).numpy()
    found: Values = decoded.astype(np.float64) / 255
    return found


def _brightness(values: Values, rise: float, _: np.random.Generator) -> Values:
    """The value of hue, saturation and value, raised."""
    brightest = values.max(2, keepdims=True)
    raised = np.clip(brightest + rise, 0, 1)
    found: Values = np.where(brightest > 0, values * raised / np.maximum(brightest, 1e-9), raised)
    return found


@dataclass(frozen=True)
class Corruption:
    """A way in which pictures get worse.

    Attributes:
        run: from values (H, W, C) in [0, 1], a strength and random numbers to values, before they are cut
            off and rounded.
        strengths: five, the mildest first.
        title: for people.
    """

    run: Callable[[Values, float, np.random.Generator], Values]
    strengths: tuple[float, ...]
    title: str


CORRUPTIONS: Mapping[str, Corruption] = {
    "gaussian_noise": Corruption(_noise, (0.08, 0.12, 0.18, 0.26, 0.38), "Gaussian noise"),
    "gaussian_blur": Corruption(_blur, (1, 2, 3, 4, 6), "Gaussian blur"),
    "jpeg": Corruption(_jpeg, (25, 18, 15, 10, 7), "JPEG"),
    "brightness": Corruption(_brightness, (0.1, 0.2, 0.3, 0.4, 0.5), "Brightness"),
}


def corrupted(picture: torch.Tensor, name: str, strength: int, *, seed: int = 0) -> torch.Tensor:
    """A picture as it would be in a file, made worse.

    Args:
        picture: uint8 (C, H, W) at the network's input size.
        name: one of `CORRUPTIONS`.
        strength: 1 to 5.
        seed: of the noise, which depends on the picture as well, and not on its batch.

    Returns:
        uint8 (C, H, W).

    Raises:
        InputError: no such corruption or strength.
    """
    if name not in CORRUPTIONS or not 1 <= strength <= STRENGTHS:
        raise InputError(
            f"there is no corruption {name!r} of strength {strength}; use {', '.join(CORRUPTIONS)} and 1 to "
            f"{STRENGTHS}"
        )
    one = CORRUPTIONS[name]
    pixels = picture.permute(1, 2, 0).contiguous().numpy()
    rng = np.random.default_rng(
        [seed, strength, zlib.crc32(pixels.tobytes()), zlib.crc32(name.encode())]
    )
    made = one.run(pixels.astype(np.float64) / 255, one.strengths[strength - 1], rng)
    return torch.from_numpy(_bytes(made)).permute(2, 0, 1).contiguous()


def _bytes(values: Values) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return found
