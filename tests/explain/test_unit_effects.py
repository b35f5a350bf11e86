"""Channels that decide: gradient times activation, and ablation by the network itself."""

from __future__ import annotations

import pytest
import timm
import torch

from conftest import SPEC, same_state, smooth_pictures, state_of, tiny_classifier
from transferscope.activations import capture
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError, UnknownName
from transferscope.explain.records import MapChange
from transferscope.explain.unit_effects import channel_maps, deciding_channels

PICTURE = smooth_pictures(1, 3, 32, 32)[0]
LAYER = "stages.1"


def test_ablation_is_what_the_rest_of_the_network_says_without_the_channel(tiny: Classifier):
    found = deciding_channels(tiny, PICTURE, 0, 2, LAYER, count=8)
    network = tiny.network
    with torch.no_grad(), capture(network, [LAYER]) as caught:
        logits = tiny(PICTURE[None])[0]
    for one in found:
        changed = caught[LAYER].clone()
        changed[:, one.channel] = 0
        with torch.no_grad():
            last = network.stages[2](changed).mean((2, 3))
            other = network.head(last)[0]
        wanted = (logits[0] - logits[2]) - (other[0] - other[2])
        assert one.ablated == pytest.approx(float(wanted), abs=1e-5)
        assert one.activation == pytest.approx(
            float(caught[LAYER][0, one.channel].mean()), abs=1e-5
        )


def test_the_estimate_is_exact_where_the_rest_is_linear(tiny: Classifier):
    """Behind the last stage there are a mean and a linear head alone."""
    found = deciding_channels(tiny, PICTURE, 1, None, "stages.2", count=8)
    for one in found:
        assert one.estimate == pytest.approx(one.ablated, abs=1e-4)
    strengths = [abs(one.estimate) for one in found]
    assert strengths == sorted(strengths, reverse=True)


def test_a_channel_that_the_answer_ignores_contributes_nothing():
    deaf = tiny_classifier()
    with torch.no_grad():
        deaf.network.head.weight[:, 3] = 0
    (one,) = deciding_channels(deaf, PICTURE, 0, 1, "stages.2", channels=[3])
    assert one.estimate == one.ablated == 0


def test_tokens_have_channels_too():
    torch.manual_seed(0)
    network = timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, img_size=32, depth=2, num_classes=3
    )
    vit = Classifier(network.eval(), SPEC, ["a", "b", "c"])
    (one,) = deciding_channels(vit, PICTURE, 0, 1, "blocks.0", count=1)
    assert one.ablated != 0
    assert channel_maps(vit, PICTURE[None], "blocks.0", [one.channel]).shape == (1, 1, 2, 2)


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_alone(tiny: Classifier, training: bool):
    tiny.train(training)
    before = state_of(tiny)
    deciding_channels(tiny, PICTURE, 0, 1, LAYER, count=2)
    for wrong in ({"channels": [99]}, {"count": 0}):
        with pytest.raises(InputError):
            deciding_channels(tiny, PICTURE, 0, 1, LAYER, **wrong)
    with pytest.raises(UnknownName):
        deciding_channels(tiny, PICTURE, 0, 1, "stages.7")
    assert same_state(before, state_of(tiny))


def test_two_maps_of_other_sizes_are_compared():
    ramp = torch.linspace(0, 1, 32).expand(32, 32).numpy().copy()
    small = torch.linspace(0, 1, 16).expand(16, 16).numpy().copy()
    assert MapChange.of(ramp, small).rank_correlation > 0.99
    assert MapChange.of(ramp, small.T.copy()).rank_correlation < 0.1
