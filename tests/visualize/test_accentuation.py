"""Accentuation: its own channel rises, more than by another's, and the others are held."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import same_state, smooth_pictures, state_of
from transferscope.activations import capture
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError
from transferscope.visualize import accentuation
from transferscope.visualize.accentuation import GENTLE, RATE, accentuate
from transferscope.visualize.recipe import make_recipe

LAYER = "stages.1"
PICTURE = smooth_pictures(1, 3, 32, 32)[0]
QUICK = replace(
    make_recipe(16, precision="fp32"),
    movement=GENTLE,
    rate=RATE,
    detail=1.0,
    redirect=0,
    settled=0.0,
)


def means(classifier: Classifier, picture: np.ndarray) -> torch.Tensor:
    batch = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad(), capture(classifier.network, [LAYER]) as caught:
        classifier(batch)
    return caught[LAYER].mean((2, 3))[0]


def test_a_channel_rises_by_its_own_accentuation_and_less_by_anothers(tiny: Classifier):
    own, other = (
        accentuate(tiny, PICTURE, LAYER, one, sign="plus", recipe=QUICK) for one in (3, 5)
    )
    assert own.after > own.before
    assert own.after == pytest.approx(float(means(tiny, own.accentuated)[3]), rel=1e-4)
    assert own.after > float(means(tiny, other.accentuated)[3])
    down = accentuate(tiny, PICTURE, LAYER, 3, sign="minus", recipe=QUICK)
    assert down.after < own.before


def test_the_other_channels_are_held(tiny: Classifier, monkeypatch: pytest.MonkeyPatch):
    def moved() -> float:
        found = accentuate(tiny, PICTURE, LAYER, 3, sign="plus", recipe=QUICK)
        apart = means(tiny, found.accentuated) - means(tiny, found.picture)
        return float(apart[[0, 1, 2, 4, 5, 6, 7]].norm() / apart[3].abs())

    held = moved()
    monkeypatch.setattr(accentuation, "HELD", 0.0)
    assert held < moved()


def test_the_network_is_left_alone_and_a_wrong_channel_refused(tiny: Classifier):
    before = state_of(tiny)
    accentuate(tiny, PICTURE, LAYER, 3, recipe=QUICK)
    with pytest.raises(InputError, match="no channel 99"):
        accentuate(tiny, PICTURE, LAYER, 99, recipe=QUICK)
    assert same_state(before, state_of(tiny))
