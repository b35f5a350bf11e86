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
from torch.quasirandom import SobolEngine

from transferscope.errors import InputError

GREY = 0.5
"""What lies beyond the border of a picture in [0, 1]."""


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


def movements_of(seed: int) -> SobolEngine:
    """A picture's own movements, for `draw_moves`.

    They are quasi-random: any few that follow each other are spread evenly. Independent draws crowd here
    and leave gaps there, and a gradient's average over the last few steps is the noisier for it.

    Reference: Sobol 1967; Owen 1998 for the scrambling.
    """
    return SobolEngine(4, scramble=True, seed=seed)


def draw_moves(movements: Sequence[SobolEngine]) -> torch.Tensor:
    """(N, 4) in [-1, 1): the next four numbers of each picture, for one step."""
    return torch.cat([own.draw(1) for own in movements]) * 2 - 1


def move(
    pictures: torch.Tensor,
    moves: torch.Tensor,
    movement: Movement,
    size: tuple[int, int] | None = None,
    *,
    beyond: torch.Tensor | None = None,
) -> torch.Tensor:
    """Turns, scales and shifts each picture.

    Args:
        pictures: (N, C, H, W).
        moves: (N, 4) in [-1, 1): horizontal and vertical shift, scale, rotation.
        movement: what -1 and 1 mean.
        size: (height, width) of the result, of the same proportions; None: (H, W).
        beyond: (1, C, 1, 1), what lies beyond the border; None: middle grey of pictures in [0, 1].

    Returns:
        (N, C, height, width) in channels-last memory, resampled once, bilinearly.
    """
    if beyond is None:
        beyond = torch.full((1, pictures.shape[1], 1, 1), GREY).to(pictures)
    places = _places(moves.to(pictures), movement, pictures.shape, size or pictures.shape[2:])
    moved = F.grid_sample(
        pictures - beyond, places, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return moved.contiguous(memory_format=torch.channels_last) + beyond


def _places(
    moves: torch.Tensor, movement: Movement, shape: Sequence[int], size: Sequence[int]
) -> torch.Tensor:
    """(N, height, width, 2): where each pixel is looked up, -1 and 1 being the borders.

    An affine map's two terms are added up here, since `affine_grid` multiplies matrices for every pixel
    and takes five times as long.
    """
    (height, width), (low, high) = shape[2:], movement.scale
    zoom = 1 / ((low + high) / 2 + moves[:, 2] * (high - low) / 2)
    angle = moves[:, 3] * math.radians(movement.rotation)
    cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    across = torch.stack([cosine, sine * width / height], -1)[:, None, None]
    down = torch.stack([-sine * height / width, cosine], -1)[:, None, None]
    shift = (moves[:, :2] * (2 * movement.jitter))[:, None, None]
    rows, columns = (
        (torch.arange(side, device=moves.device, dtype=moves.dtype) * 2 + 1) / side - 1
        for side in size
    )
    return (rows[:, None, None] * down + shift) + columns[:, None] * across


def enlarged(pictures: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(N, C, H, W) at another size, bilinearly; `move` does it in one go."""
    if tuple(pictures.shape[2:]) == tuple(size):
        return pictures
    return F.interpolate(pictures, size, mode="bilinear", align_corners=False)
