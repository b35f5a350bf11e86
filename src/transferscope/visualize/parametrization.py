"""What is optimized in place of pixels, and how it becomes a picture in [0, 1].

A parametrization is a function that returns a `Canvas`: free numbers and the way from them to
pictures. Each picture starts from its own generator, so it is the same in whatever batch.

Reference: Mordvintsev et al. 2018, "Differentiable Image Parameterizations"; colours as in lucid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

_COLOURS = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
COLOUR_MATRIX = _COLOURS / _COLOURS.norm(dim=0).max()
"""(3, 3): how the colours of natural pictures vary together (a square root of the covariance of
ImageNet's pixels, by lucid). Its columns are light-dark, warm-cold and green-magenta."""

_CLAMP = 0.01
"""A start picture is kept this far from black and white, where the sigmoid has no gradient."""


@dataclass(frozen=True, eq=False)
class Canvas:
    """Free numbers for N pictures and the way from them to pixels.

    Attributes:
        free: (N, ...), a leaf that requires gradients. Row i concerns picture i alone.
        decode: free -> (N, C, H, W) in [0, 1].
    """

    free: torch.Tensor
    decode: Callable[[torch.Tensor], torch.Tensor]

    def pictures(self) -> torch.Tensor:
        """(N, C, H, W) in [0, 1], with gradients."""
        return self.decode(self.free)


class Parametrization(Protocol):
    """A function that prepares a `Canvas`."""

    def __call__(
        self,
        generators: Sequence[torch.Generator],
        shape: tuple[int, int, int],
        *,
        device: torch.device,
        start: torch.Tensor | None = None,
    ) -> Canvas:
        """N pictures of `shape` (C, H, W), from N generators (CPU) or from `start`."""


def fourier(
    generators: Sequence[torch.Generator],
    shape: tuple[int, int, int],
    *,
    device: torch.device,
    start: torch.Tensor | None = None,
    decay: float = 1.0,
    sd: float = 0.01,
) -> Canvas:
    """The spectrum of a picture with decorrelated colours, every frequency scaled by 1 / f^decay.

    Args:
        generators: one a picture, on the CPU.
        shape: (C, H, W); with C = 1 there is no colour to decorrelate.
        device: of the free numbers.
        start: (N, C, H, W) in [0, 1]; None draws a near-grey picture.
        decay: 1 gives natural pictures' amplitudes; more is softer.
        sd: of the spectrum drawn.
    """
    channels, height, width = shape
    scale = _frequency_scale(height, width, decay).to(device)
    if start is None:
        rows = [torch.randn(channels, *scale.shape, 2, generator=g) * sd for g in generators]
        free = torch.stack(rows).to(device)
    else:
        correlated = torch.logit(start.to(device, torch.float32).clamp(_CLAMP, 1 - _CLAMP))
        spectrum = torch.fft.rfft2(_decorrelate(correlated) * 4, norm="ortho") / scale
        free = torch.view_as_real(spectrum).contiguous()

    def decode(free: torch.Tensor) -> torch.Tensor:
        spectrum = torch.view_as_complex(free) * scale
        plain: torch.Tensor = torch.fft.irfft2(spectrum, s=(height, width), norm="ortho") / 4
        return torch.sigmoid(_correlate(plain))

    return Canvas(free.requires_grad_(), decode)


def pixel(
    generators: Sequence[torch.Generator],
    shape: tuple[int, int, int],
    *,
    device: torch.device,
    start: torch.Tensor | None = None,
    sd: float = 0.01,
) -> Canvas:
    """Pixels before the sigmoid, with decorrelated colours; args as for `fourier`."""
    if start is None:
        free = torch.stack([torch.randn(*shape, generator=g) * sd for g in generators]).to(device)
    else:
        correlated = torch.logit(start.to(device, torch.float32).clamp(_CLAMP, 1 - _CLAMP))
        free = _decorrelate(correlated).contiguous()
    return Canvas(free.requires_grad_(), lambda free: torch.sigmoid(_correlate(free)))


def _frequency_scale(height: int, width: int, decay: float) -> torch.Tensor:
    """(H, W // 2 + 1): 1 / f^decay, f in cycles a pixel and at least one cycle a picture."""
    down = torch.fft.fftfreq(height)[:, None]
    across = torch.fft.rfftfreq(width)[None, :]
    frequency = (down.square() + across.square()).sqrt()
    scale: torch.Tensor = frequency.clamp_min(1 / max(height, width)).pow(-decay)
    return scale


def _correlate(plain: torch.Tensor) -> torch.Tensor:
    """Decorrelated colours to R, G, B before the sigmoid; grey unchanged."""
    if plain.shape[1] == 1:
        return plain
    colours: torch.Tensor = torch.einsum("nchw,dc->ndhw", plain, COLOUR_MATRIX.to(plain))
    return colours


def _decorrelate(colours: torch.Tensor) -> torch.Tensor:
    """The inverse of `_correlate`."""
    if colours.shape[1] == 1:
        return colours
    inverse = torch.linalg.inv(COLOUR_MATRIX).to(colours)
    plain: torch.Tensor = torch.einsum("nchw,dc->ndhw", colours, inverse)
    return plain
