"""Small random movements between a picture and the network, without which noise excites best.

Every picture moves by its own random numbers, and all pictures of a batch in one resampling.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from transferscope.errors import InputError

_GREY = 0.5
"""What lies beyond the border of a picture."""


def seed_of(*parts: object) -> int:
    """A 63-bit seed that depends on every part, the same on every machine."""
    digest = hashlib.sha256("\x1f".join(map(repr, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class Movement:
    """How far a picture may be moved.

    Attributes:
        jitter: largest shift along each axis, as a share of the picture's side; at most 1.
        scale: enlargement, drawn uniformly from (low, high), within 0.1 to 10. Below 1 the network sees
            the picture in a grey frame, so that it cannot be drawn for the network's own border.
        rotation: largest turn to either side, in degrees; at most 180.
    """

    jitter: float = 0.04
    scale: tuple[float, float] = (0.92, 1.04)
    rotation: float = 5.0

    def __post_init__(self) -> None:
        if not 0 <= self.jitter <= 1:
            raise InputError(f"jitter is {self.jitter}; it must be at least 0 and at most 1")
        try:
            low, high = self.scale
        except TypeError:
            raise InputError(f"scale is {self.scale!r}; give (low, high)") from None
        if not 0.1 <= low <= high <= 10:
            raise InputError(f"scale is {self.scale}; it must be (low, high) within 0.1 to 10")
        if not 0 <= self.rotation <= 180:
            raise InputError(f"rotation is {self.rotation}; it must be 0 to 180 degrees")


def draw_moves(generators: Sequence[torch.Generator]) -> torch.Tensor:
    """(N, 4) in [-1, 1): four numbers of each picture's own generator, for one step."""
    return torch.stack([torch.rand(4, generator=g) for g in generators]) * 2 - 1


def move(
    pictures: torch.Tensor,
    moves: torch.Tensor,
    movement: Movement,
    size: tuple[int, int] | None = None,
) -> torch.Tensor:
    """Turns, scales and shifts each picture; what comes in from outside is middle grey.

    Args:
        pictures: (N, C, H, W).
        moves: (N, 4) in [-1, 1): horizontal and vertical shift, scale, rotation.
        movement: what -1 and 1 mean.
        size: (height, width) of the result, of the same proportions; None: (H, W).

    Returns:
        (N, C, height, width) in channels-last memory, resampled once, bilinearly.
    """
    count, channels, height, width = pictures.shape
    moves = moves.to(pictures)
    low, high = movement.scale
    zoom = 1 / ((low + high) / 2 + moves[:, 2] * (high - low) / 2)
    angle = moves[:, 3] * math.radians(movement.rotation)
    reach = 2 * movement.jitter
    cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    matrix = torch.stack(
        [
            torch.stack([cosine, -sine * height / width, moves[:, 0] * reach]),
            torch.stack([sine * width / height, cosine, moves[:, 1] * reach]),
        ]
    ).permute(2, 0, 1)
    places = F.affine_grid(matrix, [count, channels, *(size or (height, width))], False)
    moved = F.grid_sample(
        pictures - _GREY, places, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return (moved + _GREY).contiguous(memory_format=torch.channels_last)


def enlarged(pictures: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(N, C, H, W) at another size, bilinearly; `move` does it in one go."""
    if tuple(pictures.shape[2:]) == tuple(size):
        return pictures
    return F.interpolate(pictures, size, mode="bilinear", align_corners=False)
