"""Quantities of a picture alone, without a network: subtract them from what is maximised.

Each is a mean over the picture, so that its weight means the same at every size. None is part of the
default recipe, which keeps noise out by its spectrum and by its movements.

Reference: Mahendran and Vedaldi 2015, "Understanding Deep Image Representations by Inverting Them",
for norms and total variation; the others as named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch.nn import functional as F

from transferscope.errors import InputError
from transferscope.visualize.objectives.algebra import Activations, Objective

_EPSILON = 1e-12
"""Under a square root, where the gradient of a perfectly flat picture would be no number."""


def total_variation() -> Objective:
    """Mean absolute difference of neighbouring pixels, in [0, 2]; subtract it for smooth pictures.

    Reference: Rudin, Osher and Fatemi 1992; the anisotropic form, as in lucid.
    """

    def measure(_activations: Activations, pictures: torch.Tensor) -> torch.Tensor:
        down = (pictures[:, :, 1:] - pictures[:, :, :-1]).abs().flatten(1).mean(1)
        across = (pictures[..., 1:] - pictures[..., :-1]).abs().flatten(1).mean(1)
        return down + across

    return Objective((), measure, "total_variation()")


def l1() -> Objective:
    """Mean absolute distance from middle grey, in [0, 0.5]; lucid's `L1` with constant 0.5."""
    return Objective((), lambda _, pictures: (pictures - 0.5).abs().flatten(1).mean(1), "l1()")


def l2() -> Objective:
    """Root mean square distance from middle grey, in [0, 0.5]; lucid's `L2` with constant 0.5."""
    return Objective((), lambda _, pictures: _root_mean_square(pictures - 0.5), "l2()")


def blur(sigma: float = 1.0) -> Objective:
    """Root mean square distance of a picture from its own Gaussian-blurred copy, in [0, 1].

    Args:
        sigma: of the Gaussian in pixels; it is cut off at three of them, and borders are mirrored.

    Reference: lucid's `blur_input_each_step`. There the copy is a constant for the gradient and the
    filter a 3 x 3 box; here the gradient is that of the whole expression.

    Raises:
        InputError: a sigma that is not above 0 or, on use, pictures smaller than the filter.
    """
    if not 0 < sigma < math.inf:
        raise InputError(f"sigma is {sigma:g} pixels; it must be above 0 and finite")
    reach = math.ceil(3 * sigma)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma).square())
    weights = weights / weights.sum()

    def measure(_activations: Activations, pictures: torch.Tensor) -> torch.Tensor:
        count, channels, height, width = pictures.shape
        if min(height, width) <= reach:
            raise InputError(
                f"pictures of {width} x {height} pixels are too small for blur(sigma={sigma:g}); "
                f"give a sigma of at most {(min(height, width) - 1) / 3:.2g}"
            )
        kernel = weights.to(pictures)
        planes = pictures.reshape(count * channels, 1, height, width)
        planes = F.pad(planes, (reach,) * 4, mode="reflect")
        planes = F.conv2d(F.conv2d(planes, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
        return _root_mean_square(pictures - planes.view(pictures.shape))

    return Objective((), measure, f"blur(sigma={sigma:g})")


def high_frequency(cutoff: float = 0.25) -> Objective:
    """`high_frequency_energy` as an objective, in [0, 1].

    Raises:
        InputError: a cutoff out of range.
    """
    _refuse_cutoff(cutoff)
    return Objective(
        (),
        lambda _activations, pictures: high_frequency_energy(pictures, cutoff),
        f"high_frequency(cutoff={cutoff:g})",
    )


def high_frequency_energy(pictures: torch.Tensor, cutoff: float = 0.25) -> torch.Tensor:
    """The share of a picture's power at frequencies above a cutoff.

    Power is the squared magnitude of the discrete Fourier transform of each colour channel, added up
    over the channels, without frequency zero (the means). A frequency's height is its distance from
    zero, sqrt(fy^2 + fx^2). As the transform repeats the picture, a border that does not fit the one
    opposite counts as an edge. White noise has about 1 - pi * cutoff^2; photographs a few percent or
    less. A picture without any contrast has 0.

    Args:
        pictures: (N, C, H, W); any scale, since a share is the same at all.
        cutoff: in cycles a pixel, above 0 and below 0.5, half a sampling's rate.

    Returns:
        (N,) in [0, 1], with gradients.

    Raises:
        InputError: a cutoff out of range.
    """
    _refuse_cutoff(cutoff)
    height, width = pictures.shape[2:]
    centred = pictures - pictures.mean((2, 3), keepdim=True)
    spectrum = torch.view_as_real(torch.fft.rfft2(centred, norm="ortho"))
    twice = torch.full((width // 2 + 1,), 2.0, device=pictures.device)
    twice[0] = 1  # a real picture's spectrum is symmetric: all columns but these stand for two
    if width % 2 == 0:
        twice[-1] = 1
    power = spectrum.square().sum((1, 4)) * twice
    down = torch.fft.fftfreq(height, device=pictures.device)[:, None]
    across = torch.fft.rfftfreq(width, device=pictures.device)
    fine = (down.square() + across.square()).sqrt() > cutoff
    share: torch.Tensor = (power * fine).sum((1, 2)) / power.sum((1, 2)).clamp_min(_EPSILON)
    return share


PENALTIES: Mapping[str, Callable[[], Objective]] = MappingProxyType(
    {
        "total_variation": total_variation,
        "l1": l1,
        "l2": l2,
        "blur": blur,
        "high_frequency": high_frequency,
    }
)
"""Every penalty by its name; called without arguments, each has its defaults."""


def _root_mean_square(difference: torch.Tensor) -> torch.Tensor:
    return (difference.square().flatten(1).mean(1) + _EPSILON).sqrt()


def _refuse_cutoff(cutoff: float) -> None:
    if not 0 < cutoff < 0.5:
        raise InputError(
            f"cutoff is {cutoff:g} cycles a pixel; it must be above 0 and below 0.5, the finest "
            "that pixels can hold along an axis"
        )
