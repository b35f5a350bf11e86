"""Corruptions against slow references; each strength is worse than the one before."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import smooth_pictures
from transferscope.adversarial.corruptions import CORRUPTIONS, STRENGTHS, corrupted
from transferscope.errors import InputError


def picture(side: int = 224) -> torch.Tensor:
    return (smooth_pictures(1, 3, side, side)[0] * 255).round().to(torch.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_strength_is_worse_and_repeatable(name: str):
    clean = picture()
    apart = []
    for strength in range(1, STRENGTHS + 1):
        worse = corrupted(clean, name, strength)
        assert worse.dtype == torch.uint8
        assert worse.shape == clean.shape
        assert torch.equal(worse, corrupted(clean.clone(), name, strength))
        apart.append(float((worse.float() - clean.float()).square().mean()))
    assert apart == sorted(apart)
    assert apart[0] > 0


def test_noise_has_its_size_and_its_seed():
    grey = torch.full((3, 224, 224), 128, dtype=torch.uint8)
    noisy = corrupted(grey, "gaussian_noise", 1)
    assert float(noisy.float().std()) / 255 == pytest.approx(0.08, rel=0.02)
    assert float(noisy.float().mean()) == pytest.approx(128, abs=0.3)
    assert not torch.equal(noisy, corrupted(grey, "gaussian_noise", 1, seed=1))
    other = grey.clone()
    other[0, 0, 0] = 0
    assert not torch.equal(noisy[1], corrupted(other, "gaussian_noise", 1)[1])


def test_brightness_is_the_value_of_hsv():
    clean = picture(32)
    bright = corrupted(clean, "brightness", 3)
    before = np.asarray(Image.fromarray(clean.permute(1, 2, 0).numpy()).convert("HSV")).astype(int)
    after = np.asarray(Image.fromarray(bright.permute(1, 2, 0).numpy()).convert("HSV")).astype(int)
    assert abs(after[..., 2] - np.minimum(before[..., 2] + 0.3 * 255, 255)).max() <= 1
    turned = abs(after[..., 0] - before[..., 0])
    assert np.median(np.minimum(turned, 256 - turned)) <= 2


def test_blur_is_a_gaussian_scaled_to_the_picture():
    for side, sigma in ((224, 2.0), (448, 4.0)):
        point = torch.zeros(3, side, side, dtype=torch.uint8)
        point[:, side // 2 - 8 : side // 2 + 8, :] = 255
        line = corrupted(point, "gaussian_blur", 2)[0, :, side // 2].double()
        places = torch.arange(side).double()
        mean = (line * places).sum() / line.sum()
        spread = ((line * (places - mean).square()).sum() / line.sum()).sqrt()
        assert float(spread) == pytest.approx((sigma**2 + (16**2 - 1) / 12) ** 0.5, rel=0.02)


def test_jpeg_is_the_file_at_that_quality():
    clean = picture(64)
    data = io.BytesIO()
    Image.fromarray(clean.permute(1, 2, 0).numpy()).save(data, "JPEG", quality=10)
    with Image.open(data) as stored:
        wanted = np.asarray(stored)
    assert (corrupted(clean, "jpeg", 4).permute(1, 2, 0).numpy() == wanted).all()


def test_one_channel():
    grey = picture(48)[:1]
    for name in CORRUPTIONS:
        assert corrupted(grey, name, 2).shape == (1, 48, 48)


@pytest.mark.parametrize(("name", "strength"), [("fog", 1), ("jpeg", 0), ("jpeg", 6)])
def test_no_such_corruption(name: str, strength: int):
    with pytest.raises(InputError, match=rf"'{name}' of strength {strength}; use gaussian_noise"):
        corrupted(picture(16), name, strength)
