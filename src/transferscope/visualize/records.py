"""What a rendering leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from transferscope.notebook import panel
from transferscope.visualize.movement import enlarged
from transferscope.wording import counted, short

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

    def _repr_html_(self) -> str:
        best = (
            ""
            if self.exemplar_max is None
            else f", {short(self.exemplar_max)} of the best real picture"
        )
        said = (
            f"Activation {short(self.activation)}{best}; {self.status.replace('_', ' ')} after "
            f"{counted(self.steps, 'step')}, seed {self.seed}."
        )
        title = f"{self.layer} channel {self.channel}, {self.sign}"
        return panel(title, sentences=[said], pictures=[(self.picture, title)])


@dataclass(frozen=True, eq=False)
class Drawn:
    """Pictures as the loop left them, before they are judged.

    Attributes:
        canvases: uint8 (N, C, h, w), what was optimized, as files hold it.
        size: (H, W) of the pictures.
        activation: float32 (N,), the objective of the finished pictures, untransformed, untouched
            network, fp32.
        start: float32 (N,), the same of the starts.
        blocked: bool (N,), True where no step ever had a gradient.
        finite: bool (N,), False where a gradient or the picture left the numbers.
        steps: int64 (N,), optimization steps taken.
        from_exemplar: bool (N,), True where the picture began from the real one.
    """

    canvases: torch.Tensor
    size: tuple[int, int]
    activation: torch.Tensor
    start: torch.Tensor
    blocked: torch.Tensor
    finite: torch.Tensor
    steps: torch.Tensor
    from_exemplar: torch.Tensor

    @property
    def pictures(self) -> torch.Tensor:
        """uint8 (N, C, H, W): the canvases, enlarged."""
        return finished(self.canvases, self.size)

    def arrays(self) -> list[np.ndarray]:
        """The pictures, each uint8 (H, W, 3) by itself; grey ones have three equal channels."""
        pictures = self.pictures.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
        return [np.ascontiguousarray(picture) for picture in pictures]


FIGURES = ("activation", "start", "blocked", "finite", "steps", "from_exemplar")
"""Fields of `Drawn` that have a value a picture."""


def finished(canvases: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """uint8 (N, C, H, W) of what was optimized, uint8 (N, C, h, w), enlarged bilinearly."""
    if tuple(canvases.shape[2:]) == tuple(size):
        return canvases
    return enlarged(canvases.float(), size).round().byte()
