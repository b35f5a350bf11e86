"""Receptive fields: planted ones are measured, of every kind of layer."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from conftest import narrow, same_state, state_of, tiny_classifier
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError
from transferscope.features.receptive_field import ReceptiveField, as_maps, receptive_field
from transferscope.images import InputSpec

PICTURES = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class Patches(nn.Module):
    """A layer whose field is known: one linear map of each patch of 16 x 8 pixels."""

    def __init__(self, shift: int = 0):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, (16, 8), stride=(16, 8))
        self.shift = shift
        self.roll = nn.Identity()
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.roll(self.conv(x).roll(self.shift, 3))
        return self.head(maps.mean((2, 3)))


def of(network: nn.Module, side: int = 64) -> Classifier:
    return Classifier(network.eval(), InputSpec((side, side), 3), list("abcd"))


def test_a_field_that_is_known_is_measured():
    torch.manual_seed(0)
    classifier = of(Patches())
    field = receptive_field(classifier, "conv", PICTURES)
    assert (field.kind, field.grid) == ("receptive field", (4, 8))
    assert field.box(0, 0) == pytest.approx((0, 0, 1 / 8, 1 / 4))
    assert field.box(3, 7) == pytest.approx((7 / 8, 3 / 4, 1, 1))
    moved = receptive_field(of(Patches(shift=1)), "roll", PICTURES)
    left, _, right, _ = moved.box(2, 4)
    assert (left, right) == pytest.approx((3 / 8, 5 / 8)), (
        "the place's own share, and where it looks"
    )
    assert ReceptiveField.from_dict(json.loads(json.dumps(field.to_dict()))) == field


def test_deeper_layers_look_further_and_the_network_stays_as_it_was():
    classifier = tiny_classifier()
    before = state_of(classifier)
    pictures = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    fields = [receptive_field(classifier, f"stages.{n}", pictures) for n in range(3)]
    widths = [field.reach[2] - field.reach[0] for field in fields]
    assert widths == sorted(widths)
    assert widths[0] < widths[2]
    assert 1 / 16 <= widths[0] <= 11 / 32, (
        "two 3 x 3 kernels on a stem of stride 2 reach over 11 pixels"
    )
    left, top, right, bottom = fields[2].box(0, 0)
    assert (left, top) == (0, 0)
    assert 0 < right < 1
    assert 0 < bottom < 1
    assert same_state(before, state_of(classifier))
    with pytest.raises(InputError, match="no pictures"):
        receptive_field(classifier, "stages.0", pictures[:0])


def test_the_box_holds_the_energy_of_another_place_too():
    """What the field of the middle says is so elsewhere: pixels outside the box hardly matter."""
    classifier = tiny_classifier()
    pictures = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    field = receptive_field(classifier, "stages.2", pictures)
    row, column = 4, 10
    given = pictures.clone().requires_grad_()
    from transferscope.activations import capture

    with capture(classifier.network, ["stages.2"]) as outputs:
        classifier(given)
    outputs["stages.2"][:, :, row, column].square().sum().backward()
    energy = given.grad.square().sum((0, 1))
    left, top, right, bottom = (round(end * 32) for end in field.box(row, column))
    assert energy[top:bottom, left:right].sum() > 0.8 * energy.sum()
    assert (right - left) * (bottom - top) < 0.7 * 32 * 32


def test_a_tokens_field_is_its_patch():
    classifier = of(narrow("vit_b_16", classes=4))
    layer = "encoder.layers.encoder_layer_1"
    field = receptive_field(classifier, layer, PICTURES)
    assert (field.kind, field.grid) == ("patch", (4, 4))
    assert field.box(1, 2) == pytest.approx((0.5, 0.25, 0.75, 0.5))


def test_a_vector_and_a_dead_layer_have_the_picture():
    classifier = tiny_classifier()
    pictures = torch.rand(2, 3, 32, 32)
    vector = receptive_field(classifier, "head", pictures)
    assert (vector.kind, vector.box(0, 0)) == ("picture", (0, 0, 1, 1))
    with torch.no_grad():
        for parameter in classifier.network.stem.parameters():
            parameter.zero_()
    dead = receptive_field(classifier, "stem", pictures)
    assert (dead.kind, dead.box(3, 3)) == ("picture", (0, 0, 1, 1))


def test_tokens_are_laid_out_as_the_picture_is():
    tokens = torch.arange(2 * 3 * 7.0).view(1, 14, 3)
    maps = as_maps(tokens, (64, 128))  # six without a place, then 2 x 4 patches
    assert maps.shape == (1, 3, 2, 4)
    assert maps[0, :, 1, 2].tolist() == tokens[0, 6 + 6].tolist()
    for extra in (0, 1, 2, 5):
        assert as_maps(torch.zeros(1, 196 + extra, 2), (224, 224)).shape == (1, 2, 14, 14)
    with pytest.raises(InputError, match="no patches"):
        as_maps(torch.zeros(1, 99, 2), (224, 224))
