"""Where units answer in their exemplars: planted places, outlines, signs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from conftest import SPEC, narrow, same_state, state_of, tiny_classifier
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError, UnknownName
from transferscope.features.exemplar_crops import (
    ExemplarCrop,
    Unit,
    exemplar_crops,
    outline,
    top_pictures,
)
from transferscope.features.exemplars import channel_responses
from transferscope.images import InputSpec


class Brightness(nn.Module):
    """Channel c of `pool` is colour c less 0.5, averaged over squares of 4 pixels."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool2d(4)
        self.head = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(x).mean((2, 3)))


@pytest.fixture
def spots(tmp_path: Path) -> list[Path]:
    """Grey pictures with a red square at a place of each one's own, and a blue one elsewhere."""
    files = []
    for number, (x, y) in enumerate([(4, 4), (20, 8), (12, 24), (28, 28)]):
        picture = np.full((32, 32, 3), 100, np.uint8)
        picture[y : y + 4, x : x + 4, 0] = 200 + number
        picture[0:4, 28:32, 2] = 0
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(picture).save(files[-1])
    return files


def brightness() -> Classifier:
    torch.manual_seed(0)
    spec = InputSpec((32, 32), 3, (0.4, 0.4, 0.4), (1, 1, 1), "bilinear", 1.0)
    return Classifier(Brightness().eval(), spec, list("abcd"))


def inside(polygon: tuple[tuple[float, float], ...], x: float, y: float) -> bool:
    from matplotlib.path import Path as Shape

    return bool(Shape(polygon).contains_point((x, y)))


def test_the_place_and_the_outline_are_where_the_channel_answers(spots):
    classifier = brightness()
    before = state_of(classifier)
    red, blue = Unit("pool", 0), Unit("pool", 2, "minus")
    told: list[tuple[int, int]] = []
    found = exemplar_crops(
        classifier,
        spots,
        {red: [3, 1, 0], blue: [1]},
        names=list("abcd"),
        batch_size=2,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert [crop.path for crop in found[red]] == ["d", "b", "a"]
    assert found[red][1].box == pytest.approx((20 / 32, 8 / 32, 24 / 32, 12 / 32))
    assert found[red][0].box == pytest.approx((28 / 32, 28 / 32, 1, 1)), "at the border"
    for crop, x, y in zip(found[red], (30, 22, 6), (30, 10, 6), strict=True):
        (polygon,) = crop.outline
        assert inside(polygon, x / 32, y / 32)
        assert not inside(polygon, 0.5, 0.5)
        assert polygon[0] == polygon[-1]
    assert found[blue][0].box == pytest.approx((28 / 32, 0, 1, 4 / 32)), (
        "what makes it most negative"
    )
    responses = channel_responses(classifier, spots, ["pool"])["pool"]
    assert found[red][1].activation == pytest.approx(float(responses[1, 0]), abs=1e-6)
    assert found[blue][0].activation == pytest.approx(-float(responses[1, 2]), abs=1e-6)
    assert found[blue][0].peak == pytest.approx(0.4, abs=1e-6)
    assert told == [(2, 3), (3, 3)]
    assert same_state(before, state_of(classifier))
    crop = found[red][0]
    assert ExemplarCrop.from_dict(json.loads(json.dumps(crop.to_dict()))) == crop


def test_tokens_vectors_and_several_layers_at_once(spots):
    torch.manual_seed(0)
    vit = Classifier(narrow("vit_b_16", classes=4).eval(), InputSpec((64, 64), 3), list("abcd"))
    layer = "encoder.layers.encoder_layer_2"
    tokens, vector = Unit(layer, 5), Unit("heads.head", 1)
    found = exemplar_crops(vit, spots, {tokens: [0, 2], vector: [2]})
    left, top, right, bottom = found[tokens][0].box
    assert (found[tokens][0].field, right - left, bottom - top) == ("patch", 0.25, 0.25)
    assert (found[vector][0].field, found[vector][0].outline) == ("picture", ())
    responses = channel_responses(vit, spots, [layer])[layer]
    assert found[tokens][1].activation == pytest.approx(float(responses[2, 5]), abs=1e-5)


def test_batches_do_not_matter_and_order_is_kept(spots):
    classifier = tiny_classifier()
    wanted = {
        Unit("stages.1", 2): [2, 0, 2],
        Unit("stages.2", 0, "minus"): [],
        Unit("stem", 1): [3],
    }
    one, four = (exemplar_crops(classifier, spots, wanted, batch_size=n) for n in (1, 4))
    assert list(one) == list(wanted)
    assert one[Unit("stages.2", 0, "minus")] == ()
    assert one[Unit("stages.1", 2)][0] == one[Unit("stages.1", 2)][2]
    for unit in wanted:
        for a, b in zip(one[unit], four[unit], strict=True):
            assert (a.box, a.field) == (b.box, b.field)
            assert a.peak == pytest.approx(b.peak, rel=1e-5)
    assert exemplar_crops(classifier, spots, {}) == {}


def test_what_is_not_there_is_refused(spots):
    classifier = tiny_classifier()
    before = state_of(classifier)
    with pytest.raises(InputError, match="no channel 8"):
        exemplar_crops(classifier, spots, {Unit("stages.1", 8): [0]})
    with pytest.raises(InputError, match="0 to 4 are asked for among 4"):
        exemplar_crops(classifier, spots, {Unit("stages.1", 1): [0, 4]})
    with pytest.raises(UnknownName):
        exemplar_crops(classifier, spots, {Unit("stages.7", 1): [0]})
    assert same_state(before, state_of(classifier))


def test_an_outline_holds_what_reaches_half_of_the_maximum():
    activation = np.zeros((8, 8))
    activation[2, 5], activation[6, 1] = 4.0, 3.0
    polygons = outline(activation)
    assert len(polygons) == 2
    assert any(inside(one, 5.5 / 8, 2.5 / 8) for one in polygons)
    assert any(inside(one, 1.5 / 8, 6.5 / 8) for one in polygons)
    activation[6, 1] = 1.0
    assert len(outline(activation)) == 1
    (whole,) = outline(np.ones((3, 5)))
    assert min(x for x, _ in whole) < 0.01
    assert max(x for x, _ in whole) > 0.99
    assert outline(-np.ones((3, 3))) == outline(np.zeros((3, 3))) == ()


def test_the_pictures_that_excite_most():
    responses = np.array([[1.0, 0], [3, 0], [-2, 0], [3, 0]])
    assert top_pictures(responses, 0, count=3) == [1, 3, 0]
    assert top_pictures(responses, 0, sign="minus", count=9) == [2, 0, 1, 3]
    assert SPEC.size == (32, 32)
