"""Gram matrices of feature maps, and distances that the layers' sizes do not decide."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import same_state, state_of, tiny_classifier
from transferscope.activations import capture
from transferscope.backbones.classifier import Classifier
from transferscope.comparison import gram_matrices
from transferscope.comparison.drawings import drawing_tests, paired_drawings
from transferscope.comparison.gram_matrices import (
    gram_distances,
    gram_features,
    gram_layers,
    gram_scale,
    scaled_gram,
)
from transferscope.errors import InputError
from transferscope.images import as_float, to_picture


def textures(count: int, grain: int, seed: int = 0) -> torch.Tensor:
    """uint8 (count, 32, 32, 3): squares of so many pixels, each of a colour of its own."""
    draw = np.random.default_rng(seed)
    squares = draw.integers(0, 256, (count, 32 // grain, 32 // grain, 3), dtype=np.uint8)
    return torch.from_numpy(squares.repeat(grain, 1).repeat(grain, 2))


def test_gram_features_are_the_matrices_of_the_maps(tiny: Classifier):
    pictures = textures(3, 8)
    found = gram_features(tiny, pictures)
    assert tuple(found) == gram_layers(tiny)
    assert found
    assert "head" not in found
    spec = tiny.input
    loaded = torch.stack([spec.load(to_picture(one)) for one in pictures])
    with torch.no_grad(), capture(tiny.network, list(found)) as maps:
        tiny.network(spec.normalise(as_float(loaded)))
    for name, rows in found.items():
        flat = maps[name].flatten(2)
        full = torch.einsum("ncp,ndp->ncd", flat, flat) / flat.shape[2]
        assert rows.shape == (3, 8 * 9 // 2)
        distance = (full[0] - full[1]).norm()  # Frobenius
        assert float((rows[0] - rows[1]).norm()) == pytest.approx(float(distance), rel=1e-4)


def test_pictures_in_batches_are_those_alone_and_the_network_is_as_before(tiny: Classifier):
    pictures = textures(5, 4)
    before = state_of(tiny.network)
    whole = gram_features(tiny, pictures)
    parts = gram_features(tiny, pictures, batch_size=2)
    for name, rows in whole.items():
        assert torch.allclose(rows, parts[name], atol=1e-5)
    tiny.network.train()
    assert torch.allclose(gram_features(tiny, pictures)[name], whole[name], atol=1e-5)
    assert tiny.network.training
    tiny.network.eval()
    with pytest.raises(InputError, match="no places"):
        gram_features(tiny, pictures, layers=["head"])
    assert same_state(before, state_of(tiny.network))


def test_wide_maps_are_projected_and_keep_which_pictures_are_near(
    tiny: Classifier, monkeypatch: pytest.MonkeyPatch
):
    pictures = torch.cat([textures(6, grain) for grain in (1, 2, 8)])
    full = gram_features(tiny, pictures)
    monkeypatch.setattr(gram_matrices, "WIDTH", 5)
    narrow = gram_features(tiny, pictures)
    for name, rows in narrow.items():
        assert rows.shape == (18, 5 * 6 // 2)
        pairs = torch.stack([torch.pdist(rows), torch.pdist(full[name])])
        assert torch.corrcoef(pairs)[0, 1] > 0.8


def test_tokens_have_gram_matrices_of_their_places():
    from conftest import SPEC, narrow
    from transferscope.images import InputSpec

    spec = InputSpec((64, 64), 3, SPEC.mean, SPEC.std, "bilinear", 1.0)
    network = Classifier(narrow("vit_b_16").eval(), spec, [f"c{i}" for i in range(10)])
    layer = "encoder.layers.encoder_layer_3"
    found = gram_features(network, textures(2, 8), layers=[layer])
    assert found[layer].shape == (2, 64 * 65 // 2)


def test_distances_are_of_other_seeds_and_in_units_of_unrelated_channels():
    rows = {"a": torch.tensor([[0.0], [1.0], [3.0]]), "b": torch.tensor([[0.0], [10.0], [30.0]])}
    other = {name: values + 1 for name, values in rows.items()}
    pairs = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    wanted = np.mean([abs(rows["a"][i] - other["a"][j]).item() for i, j in pairs])
    assert gram_distances(rows, other)["a"] == pytest.approx(wanted)
    assert gram_scale(rows, {"a": rows["a"] * 2, "b": rows["b"] * 3}) == {"a": 1, "b": 20}
    own = gram_distances(rows, rows)
    assert scaled_gram(own, {"a": 1.0, "b": 10.0}) == pytest.approx(own["a"])
    assert scaled_gram(own, {"a": 0.0, "b": 10.0}) == pytest.approx(own["b"] / 10)
    assert scaled_gram(own, {"a": 0.0, "b": 0.0}) is None


def test_a_channel_whose_texture_stayed_is_nearer_than_one_whose_texture_changed():
    base = tiny_classifier(3)
    first, again, other = (
        gram_features(base, textures(4, grain, seed)) for grain, seed in ((1, 0), (1, 1), (8, 2))
    )
    scale = gram_scale(first, other)
    vectors = torch.eye(4)
    tests = drawing_tests(
        [
            paired_drawings("x", place, vectors, vectors, [True] * 4, grams=(first, tuned))
            for place, tuned in enumerate((again, other))
        ],
        scales={"x": scale},
    )
    kept, changed = tests
    assert kept.gram < 0.6
    assert changed.gram == pytest.approx(1, abs=0.25)
    assert kept.gram == pytest.approx(kept.gram_rerender["base"], rel=0.3)
    assert changed.gram > 1.5 * max(changed.gram_rerender.values())
    assert drawing_tests([paired_drawings("x", 0, vectors, vectors, [True] * 4)])[0].gram is None
