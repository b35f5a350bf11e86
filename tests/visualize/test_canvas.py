"""What is optimized in place of pixels, against slow re-derivations."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from torch import nn

from conftest import gens, smooth_pictures
from transferscope.errors import InputError
from transferscope.visualize.canvas import (
    COLOUR_MATRIX,
    PARAMETRIZATIONS,
    fourier,
    from_image,
    maco,
    pixel,
    spectrum_of,
)

CPU = torch.device("cpu")


SHAPES = [(3, 32, 48), (3, 33, 31), (1, 33, 32), (1, 32, 31)]


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_parametrization_draws_the_same_picture_in_any_batch(name, shape):
    parametrization = PARAMETRIZATIONS[name]
    canvas = parametrization(gens(1, 2), shape, device=CPU)
    assert canvas.free.is_leaf
    assert canvas.free.requires_grad
    both = canvas.pictures()
    assert both.shape == (2, *shape)
    assert float(both.detach().min()) >= 0
    assert float(both.detach().max()) <= 1
    alone = parametrization(gens(2), shape, device=CPU)
    torch.testing.assert_close(both[1:].detach(), alone.pictures().detach())
    assert not torch.equal(both[0], both[1])
    torch.testing.assert_close(alone.decode(canvas.free), both)
    both[1].square().sum().backward()
    assert float(canvas.free.grad[1].abs().sum()) > 0
    assert float(canvas.free.grad[0].abs().sum()) == 0


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_gradients_reach_what_is_free(name):
    canvas = PARAMETRIZATIONS[name](gens(1), (3, 8, 9), device=CPU)
    weights = torch.randn(1, 3, 8, 9, generator=torch.Generator().manual_seed(9)).double()
    (gradient,) = torch.autograd.grad((canvas.pictures() * weights).sum(), canvas.free)
    free, step = canvas.free.detach(), 1e-2
    for place in range(0, free.numel(), 5):
        moved = torch.zeros(free.numel())
        moved[place] = step
        up, down = (
            (canvas.decode(free + sign * moved.view_as(free)).double() * weights).sum()
            for sign in (1, -1)
        )
        slope = float((up - down) / (2 * step))
        assert slope == pytest.approx(
            float(gradient.flatten()[place]), abs=0.01 * float(gradient.abs().max())
        )


@pytest.mark.parametrize("base", [fourier, pixel])
@pytest.mark.parametrize("shape", SHAPES)
def test_from_image_gives_the_picture_back(base, shape):
    picture = smooth_pictures(1, *shape)[0]
    canvas = from_image(picture, base)(gens(1, 2), shape, device=CPU)
    again = canvas.pictures().detach()
    assert again.shape == (2, *shape)
    assert float((again - picture).abs().max()) <= 1 / 255
    other = smooth_pictures(1, *shape) * 0.5
    restarted = from_image(picture, base)(gens(1), shape, device=CPU, start=other).pictures()
    assert float((restarted.detach() - other.clamp_min(0.01)).abs().max()) <= 1 / 255
    extreme = torch.zeros(*shape)
    black = from_image(extreme, base)(gens(1), shape, device=CPU).pictures().detach()
    assert float((black - 0.01).abs().max()) < 1e-3


def test_from_image_resizes_and_refuses_what_is_no_picture():
    picture = smooth_pictures(1, 3, 40, 50)[0]
    small = from_image(picture)(gens(0), (3, 20, 25), device=CPU).pictures().detach()
    wanted = nn.functional.interpolate(picture[None], (20, 25), mode="bilinear", antialias=True)
    assert float((small - wanted).abs().max()) <= 1 / 255
    for wrong, message in [
        (picture * 255, "give \\[0, 1\\]"),
        (picture - 1, "give \\[0, 1\\]"),
        (picture * math.nan, "give \\[0, 1\\]"),
        (picture[None], "give one, \\(C, H, W\\)"),
    ]:
        with pytest.raises(InputError, match=message):
            from_image(wrong)
    with pytest.raises(InputError, match="3 channels; the network takes 1"):
        from_image(picture)(gens(0), (1, 20, 25), device=CPU)


def test_fourier_starts_as_near_to_grey_at_every_size():
    spreads = []
    for side in (64, 128, 143, 224, 320):
        x = fourier(gens(*range(8)), (3, side, side), device=CPU).pictures().detach()
        spreads.append(float((x - 0.5).square().mean().sqrt()))
    assert min(spreads) > 0.002
    assert max(spreads) < 0.005
    assert max(spreads) / min(spreads) < 1.3


@pytest.mark.parametrize("shape", SHAPES)
def test_fourier_is_scaled_frequencies_then_colours_then_a_sigmoid(shape):
    canvas = fourier(gens(3), shape, device=CPU, sd=1.0, decay=1.5)
    channels_, height, width = shape
    free = canvas.free.detach().double().numpy()[0]
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    scale = np.maximum(np.hypot(down, across), 1 / max(height, width)) ** -1.5
    plain = np.fft.irfft2((free[..., 0] + 1j * free[..., 1]) * scale, (height, width), norm="ortho")
    if channels_ == 3:
        plain = np.einsum("dc,chw->dhw", COLOUR_MATRIX.double().numpy(), plain)
    wanted = torch.from_numpy(1 / (1 + np.exp(-plain / 4))).float()
    assert float((canvas.pictures()[0].detach() - wanted).abs().max()) < 1e-5


def plain_spectrum(picture: torch.Tensor) -> torch.Tensor:
    """The whole spectrum (C, H, W) before the sigmoid, colours decorrelated, in float64."""
    colours = torch.logit(picture.double())
    if len(colours) == 3:
        inverse = torch.linalg.inv(COLOUR_MATRIX.double())
        colours = torch.einsum("dc,chw->dhw", inverse, colours)
    return torch.fft.fft2(colours, norm="ortho")


@pytest.mark.parametrize("shape", SHAPES)
def test_maco_keeps_the_magnitude_whatever_its_phases(shape):
    draw = torch.Generator().manual_seed(0)
    canvas = maco(gens(1), shape, device=CPU, contrast=0.8)
    first = plain_spectrum(canvas.pictures()[0].detach()).abs()
    other = canvas.free.detach() + torch.randn(canvas.free.shape, generator=draw)
    second = plain_spectrum(canvas.decode(other)[0]).abs()
    assert float(first.max()) > 1
    torch.testing.assert_close(second, first, rtol=1e-3, atol=1e-3)
    down, across = torch.fft.fftfreq(shape[1])[:, None], torch.fft.fftfreq(shape[2])[None]
    frequency = torch.hypot(down, across).double()
    law = (first * frequency)[:, 1:, 1:]
    torch.testing.assert_close(law, law.mean().expand(law.shape), rtol=0.01, atol=0)
    assert float(first[:, 0, 0].abs().max()) < 1e-3


@pytest.mark.parametrize("side", [64, 143, 224])
@pytest.mark.parametrize("channels_", [1, 3])
def test_macos_contrast_is_the_one_asked_for_at_every_size(side, channels_):
    for contrast in (0.5, 1.0):
        x = maco(gens(*range(8)), (channels_, side, side), device=CPU, contrast=contrast)
        spread = torch.logit(x.pictures().detach()).square().mean().sqrt()
        exact = channels_ == 1  # of three, the phases decide how they add up
        assert float(spread) == pytest.approx(contrast, rel=1e-3 if exact else 0.1)


def test_maco_takes_the_spectrum_of_pictures_at_any_size():
    x = smooth_pictures(4, 3, 40, 32)
    magnitude = spectrum_of(x)
    assert magnitude.shape == (3, 40, 17)
    wanted = torch.stack([plain_spectrum(one).abs() for one in x]).mean(0)[..., :17]
    wanted[:, 0, 0] = 0
    torch.testing.assert_close(magnitude, wanted.float(), rtol=1e-3, atol=1e-3)
    own = maco(gens(1), (3, 40, 32), device=CPU, magnitude=magnitude).pictures()[0].detach()
    ratio = plain_spectrum(own).abs()[..., :17] / wanted
    ratio = ratio[wanted > 0.05 * wanted.max()]
    torch.testing.assert_close(ratio, ratio.mean().expand(ratio.shape), rtol=0.02, atol=0)


@pytest.mark.parametrize("size", [(24, 20), (25, 31), (64, 96), (40, 33)])
def test_a_resampled_magnitude_follows_the_same_law(size):
    """1 / f, steeper along one axis, is the same function of cycles a pixel at any size."""

    def law(height: int, width: int) -> torch.Tensor:
        down, across = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
        scale = (1 + down.abs()) / torch.hypot(down, across).clamp_min(1e-9)
        scale[0, 0] = 0
        return scale.expand(3, -1, -1).clone()

    canvas = maco(gens(1), (3, *size), device=CPU, magnitude=law(40, 32))
    drawn = plain_spectrum(canvas.pictures()[0].detach()).abs()[..., : size[1] // 2 + 1]
    ratio = drawn[:, 1:, 1:] / law(*size)[:, 1:, 1:]
    torch.testing.assert_close(ratio, ratio.mean().expand(ratio.shape), rtol=0.05, atol=0)


def test_magnitudes_that_cannot_be_used_are_refused():
    make = functools.partial(maco, gens(1), (3, 16, 16), device=CPU)
    with pytest.raises(InputError, match="3 channels"):
        make(magnitude=torch.ones(1, 16, 9))
    with pytest.raises(InputError, match="3 channels"):
        make(magnitude=-torch.ones(3, 16, 9))
    with pytest.raises(InputError, match="zero everywhere"):
        make(magnitude=torch.zeros(3, 16, 9))
    with pytest.raises(InputError, match="contrast is 0"):
        make(contrast=0)
    with pytest.raises(InputError, match=r"give \(N, C, H, W\)"):
        spectrum_of(torch.zeros(3, 16, 16))
    for outside in (torch.full((1, 3, 16, 16), 255.0), torch.full((1, 3, 16, 16), torch.nan)):
        with pytest.raises(InputError, match="give \\[0, 1\\]"):
            spectrum_of(outside)


def test_maco_from_a_picture_keeps_its_phases():
    picture = smooth_pictures(1, 3, 32, 33)
    canvas = maco(gens(1), (3, 32, 33), device=CPU, start=picture)
    wanted, found = plain_spectrum(picture[0]), plain_spectrum(canvas.pictures()[0].detach())
    strong = wanted.abs() > 0.1 * wanted.abs()[:, 1:].amax()
    strong[:, 0, 0] = False
    agree = (wanted * found.conj()).real / (wanted.abs() * found.abs())
    assert int(strong.sum()) > 20
    assert float(agree[strong].min()) > 0.999
