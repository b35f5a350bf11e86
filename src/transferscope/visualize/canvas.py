"""What is optimized in place of pixels, and how it becomes a picture in [0, 1].

A parametrization is a function that returns a `Canvas`: free numbers and the way from them to
pictures. Each picture starts from its own generator, so it is the same in whatever batch. Options
beyond the protocol's are given with `functools.partial`.

Reference: Mordvintsev et al. 2018, "Differentiable Image Parameterizations"; colours as in lucid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
from torch.nn import functional as F

from transferscope.errors import InputError
from transferscope.images import refuse_range

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
        decode: free -> (N, C, H, W) in [0, 1]; for any number of rows.
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


# ---------------------------------------------------------------------------- ways to a picture


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

    A random start differs from grey by a standard deviation of 0.002 to 0.005, at any size.

    Args:
        generators: one a picture, on the CPU.
        shape: (C, H, W); with C = 1 there is no colour to decorrelate.
        device: of the free numbers.
        start: (N, C, H, W) in [0, 1]; None draws a near-grey picture.
        decay: 1 gives natural pictures' amplitudes; more is softer.
        sd: of the spectrum drawn.

    Reference: Olah et al. 2017, with lucid's numbers.
    """
    channels, height, width = shape
    scale = _frequencies(height, width).pow(-decay).to(device)
    if start is None:
        rows = [torch.randn(channels, *scale.shape, 2, generator=g) * sd for g in generators]
        free = torch.stack(rows).to(device)
    else:
        free = torch.view_as_real(_spectrum(start.to(device)) * 4 / scale).contiguous()
    scale = scale.unsqueeze(-1) / 4
    return Canvas(free.requires_grad_(), _decoder(shape, device, lambda free: free * scale))


def pixel(
    generators: Sequence[torch.Generator],
    shape: tuple[int, int, int],
    *,
    device: torch.device,
    start: torch.Tensor | None = None,
    sd: float = 0.01,
) -> Canvas:
    """Pixels before the sigmoid, with decorrelated colours; args as for `fourier`.

    The plainest way, and the one that fills with noise.
    """
    channels = shape[0]
    if start is None:
        free = torch.stack([torch.randn(*shape, generator=g) * sd for g in generators]).to(device)
    else:
        free = _plain(start.to(device)).contiguous()
    correlate = _correlation(channels, device)
    return Canvas(free.requires_grad_(), lambda free: torch.sigmoid(correlate(free)))


def maco(
    generators: Sequence[torch.Generator],
    shape: tuple[int, int, int],
    *,
    device: torch.device,
    start: torch.Tensor | None = None,
    magnitude: torch.Tensor | None = None,
    contrast: float = 1.0,
) -> Canvas:
    """The phases of a spectrum whose magnitude stays that of natural pictures.

    No frequency can be driven up, so noise cannot either; what is free is where things are. The start
    has random phases: coloured clouds of full contrast, not grey.

    Args as for `fourier`, and

        start: (N, C, H, W) in [0, 1], whose phases are taken, not whose magnitude.
        magnitude: (C, h, w // 2 + 1) from `spectrum_of`, resampled to the canvas; None: 1 / f in each of
            the decorrelated colours.
        contrast: standard deviation of R, G and B before the sigmoid, whatever the scale of
            `magnitude`: 1 is the original's.

    Reference: Fel et al. 2023, "Unlocking Feature Visualization for Deeper Networks with MAgnitude
    Constrained Optimization". The default magnitude is 1 / f where theirs is ImageNet's average; the
    colours are lucid's; the mean is middle grey. Their transparency map from the accumulated gradient
    is left out.

    Raises:
        InputError: a magnitude of other channels, or a contrast that is not above 0.
    """
    channels, height, width = shape
    if not 0 < contrast < math.inf:
        raise InputError(f"contrast is {contrast:g}; it must be above 0 and finite")
    if magnitude is None:
        law = _frequencies(height, width).pow(-1.0).expand(channels, -1, -1)
    else:
        law = _resampled(magnitude, shape)
    law = _calibrated(law, width, contrast).to(device)
    if start is None:
        rows = [torch.rand(channels, *law.shape[1:], generator=g) for g in generators]
        free = (torch.stack(rows) * (2 * math.pi) - math.pi).to(device)
    else:
        free = _spectrum(start.to(device)).angle().contiguous()

    def waves(free: torch.Tensor) -> torch.Tensor:
        phase = _of_real_pictures(free, width)
        return torch.stack([law * phase.cos(), law * phase.sin()], dim=-1)

    return Canvas(free.requires_grad_(), _decoder(shape, device, waves))


def from_image(picture: torch.Tensor, base: Parametrization = fourier) -> Parametrization:
    """A parametrization that starts at a given picture in place of noise.

    Every drawing starts there, whatever its seed, which then moves the picture only. What is nearer
    to black or white than 0.01 is brought to it, where the sigmoid still has a gradient.

    Args:
        picture: (C, H, W) in [0, 1], resized to the canvas.
        base: what is optimized. `maco` keeps the picture's phases only.

    Raises:
        InputError: not one picture in [0, 1] or, on use, of other channels than the network's.
    """
    if picture.ndim != 3:
        raise InputError(f"the picture has shape {tuple(picture.shape)}; give one, (C, H, W)")
    given = picture.detach().float()
    refuse_range(given)

    def started(
        generators: Sequence[torch.Generator],
        shape: tuple[int, int, int],
        *,
        device: torch.device,
        start: torch.Tensor | None = None,
    ) -> Canvas:
        if start is not None:
            return base(generators, shape, device=device, start=start)
        if len(given) != shape[0]:
            raise InputError(f"the picture has {len(given)} channels; the network takes {shape[0]}")
        sized = given[None]
        if tuple(given.shape) != tuple(shape):
            sized = F.interpolate(sized, shape[1:], mode="bilinear", antialias=True).clamp(0, 1)
        start = sized.expand(len(generators), -1, -1, -1)
        return base(generators, shape, device=device, start=start)

    return started


PARAMETRIZATIONS: Mapping[str, Parametrization] = MappingProxyType(
    {"fourier": fourier, "pixel": pixel, "maco": maco}
)
"""Every parametrization by its name; the first is the default."""


# ---------------------------------------------------------------------------- spectra


def spectrum_of(pictures: torch.Tensor) -> torch.Tensor:
    """The mean magnitude of pictures' spectra, for `maco`.

    Args:
        pictures: (N, C, H, W) in [0, 1]; a few hundred natural ones give a smooth spectrum.

    Returns:
        (C, H, W // 2 + 1), as `torch.fft.rfft2` orders it with norm "ortho", of the decorrelated
        colours before the sigmoid; frequency zero, the mean colour, is set to 0.

    Raises:
        InputError: not a batch of pictures in [0, 1].
    """
    if pictures.ndim != 4 or not len(pictures):
        raise InputError(f"the pictures have shape {tuple(pictures.shape)}; give (N, C, H, W)")
    refuse_range(pictures)
    magnitude = torch.zeros(())
    for picture in pictures.detach().split(1):
        magnitude = magnitude + _spectrum(picture)[0].abs() / len(pictures)
    magnitude[:, 0, 0] = 0
    return magnitude


def _decoder(
    shape: tuple[int, int, int],
    device: torch.device,
    waves: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Free numbers to pictures, by `waves`: their spectrum's real and imaginary parts.

    Colours are mixed in the spectrum, which is the same by linearity and leaves the pixels, the last to be
    computed, in order.
    """
    correlate = _correlation(shape[0], device)

    def decode(free: torch.Tensor) -> torch.Tensor:
        spectrum = torch.view_as_complex(correlate(waves(free)))
        return torch.sigmoid(torch.fft.irfft2(spectrum, s=shape[1:], norm="ortho"))

    return decode


def _spectrum(pictures: torch.Tensor) -> torch.Tensor:
    """Complex (N, C, H, W // 2 + 1) of pictures in [0, 1], before the sigmoid, decorrelated."""
    spectrum: torch.Tensor = torch.fft.rfft2(_plain(pictures), norm="ortho")
    return spectrum


def _frequencies(height: int, width: int) -> torch.Tensor:
    """(H, W // 2 + 1): cycles a pixel, at least one cycle a picture."""
    down = torch.fft.fftfreq(height)[:, None]
    across = torch.fft.rfftfreq(width)[None, :]
    cycles: torch.Tensor = (down.square() + across.square()).sqrt()
    return cycles.clamp_min(1 / max(height, width))


def _calibrated(magnitude: torch.Tensor, width: int, contrast: float) -> torch.Tensor:
    """Without a mean, and scaled so that R, G and B have a standard deviation of `contrast`.

    By Parseval's theorem; colours whose phases are independent add up by their variance.
    """
    magnitude = magnitude.clone()
    magnitude[:, 0, 0] = 0
    twice = torch.full((width // 2 + 1,), 2.0)
    twice[_own_mirrors(width)] = 1
    variance = (magnitude.square() * twice).sum((1, 2)) / (magnitude.shape[1] * width)
    if len(magnitude) == 3:
        variance = COLOUR_MATRIX.square() @ variance
    calibrated: torch.Tensor = magnitude * (contrast / variance.mean().sqrt())
    return calibrated


def _resampled(magnitude: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """A magnitude (C, h, w // 2 + 1) at another size; frequencies are the same in cycles a pixel.

    What is interpolated is the magnitude times the frequency, which natural pictures keep level.
    """
    channels, height, width = shape
    if magnitude.ndim != 3 or len(magnitude) != channels or not bool((magnitude >= 0).all()):
        raise InputError(
            f"magnitude has shape {tuple(magnitude.shape)}; give what spectrum_of makes of pictures "
            f"with {channels} channels"
        )
    own = magnitude.detach().float().cpu()
    if not own.any():
        raise InputError("magnitude is zero everywhere; give pictures with some contrast")
    rows = own.shape[1]
    level = own * _frequencies(rows, 2 * (own.shape[2] - 1))
    level[:, 0, 0] = (level[:, 0, 1] + level[:, 1, 0]) / 2
    # Rows from -h/2 to h/2 in order; the first is repeated at the end, as the spectrum repeats itself.
    ordered = torch.fft.fftshift(level, dim=1)
    ordered = torch.cat([ordered, ordered[:, :1]], dim=1)
    wanted = torch.fft.fftshift(torch.fft.fftfreq(height))
    places = (wanted * rows + rows // 2) / rows * 2 - 1
    across = torch.fft.rfftfreq(width) * 4 - 1
    grid = torch.stack(torch.meshgrid(places, across, indexing="ij")[::-1], dim=-1)
    smooth = F.grid_sample(
        ordered[None], grid[None], mode="bilinear", padding_mode="border", align_corners=True
    )[0]
    resampled: torch.Tensor = torch.fft.ifftshift(smooth, dim=1) / _frequencies(height, width)
    return resampled


def _of_real_pictures(phase: torch.Tensor, width: int) -> torch.Tensor:
    """Phases (N, C, H, W // 2 + 1) as a real picture's spectrum can have them.

    Columns that are their own mirrors get phases that are opposite at opposite rows; otherwise they
    would cancel in part, and the magnitude would not be the one that is wanted.
    """
    ends = phase[..., _own_mirrors(width)]
    odd = (ends - ends.flip(-2).roll(1, -2)) / 2
    last = phase.shape[-1] - (width % 2 == 0)
    return torch.cat([odd[..., :1], phase[..., 1:last], odd[..., 1:]], dim=-1)


def _own_mirrors(width: int) -> list[int]:
    """Columns of a half spectrum that hold both a frequency and its opposite."""
    return [0, width // 2] if width % 2 == 0 else [0]


# ---------------------------------------------------------------------------- colours


def _correlation(channels: int, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """Decorrelated colours (N, C, ...) to R, G, B before the sigmoid; grey unchanged."""
    if channels != 3:
        return lambda plain: plain
    matrix = COLOUR_MATRIX.to(device)

    def correlate(plain: torch.Tensor) -> torch.Tensor:
        return torch.matmul(matrix, plain.flatten(2)).view(plain.shape)

    return correlate


def _plain(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures (N, C, H, W) in [0, 1] before the sigmoid, with decorrelated colours."""
    colours = torch.logit(pictures.float().clamp(_CLAMP, 1 - _CLAMP))
    if colours.shape[1] != 3:
        return colours
    inverse = torch.linalg.inv(COLOUR_MATRIX).to(colours)
    return torch.matmul(inverse, colours.flatten(2)).view(colours.shape)
