"""What a rendering leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Sign = Literal["plus", "minus"]
Status = Literal["optimized", "zero_gradient", "dead_on_data", "below_exemplar", "non_finite"]
"""How a rendering ended, decided from activations and gradients, never from the picture's look:

- optimized: the channel is driven to or beyond the best real picture (or above its start, if no
  real pictures were given).
- zero_gradient: the channel stayed blocked (a ReLU shut for every start tried).
- dead_on_data: it stayed blocked, and no real picture excites it either; or it is constant: neither a
  real picture nor the drawing gives more than noise.
- below_exemplar: the rendering excites the channel less than the best real picture does (or than
  its own start did, if no real pictures were given).
- non_finite: the optimization left the numbers.
"""


@dataclass(frozen=True, eq=False)
class Render:
    """One channel, drawn.

    Attributes:
        layer: dotted name.
        channel: index.
        sign: direction in which the channel was driven.
        seed: of the start and of the transforms.
        picture: uint8 (H, W, 3).
        activation: of the finished picture, untransformed, fp32: the channel's spatial mean, times
            -1 for the sign "minus".
        exemplar_max: the same quantity for the best real picture, or None if none were given.
        status: see `Status`.
        steps: optimization steps taken.
        from_exemplar: True where the drawing began from the best real picture, because a random start
            had no gradient or ended below that picture.
    """

    layer: str
    channel: int
    sign: Sign
    seed: int
    picture: np.ndarray
    activation: float
    exemplar_max: float | None
    status: Status
    steps: int
    from_exemplar: bool = False
