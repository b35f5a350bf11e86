"""How alike two networks see the same pictures."""

from __future__ import annotations

import copy

import pytest
import torch

from conftest import same_state, state_of, tiny_classifier
from transferscope.comparison.geometry import embed, frozen_up_to, linear_cka
from transferscope.errors import UnknownName
from transferscope.images import as_float


def test_linear_cka_is_what_the_paper_defines():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    y = torch.randn(12, 7, generator=generator, dtype=torch.float64)
    centre = torch.eye(12, dtype=torch.float64) - 1 / 12

    def hsic(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(torch.trace(a @ a.T @ centre @ b @ b.T @ centre))

    wanted = hsic(x, y) / (hsic(x, x) * hsic(y, y)) ** 0.5
    assert linear_cka(x, y) == pytest.approx(wanted)
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))
    assert linear_cka(x, 3 * x @ rotation + 2) == pytest.approx(1)
    assert linear_cka(x, torch.ones(12, 3)) == 0


def test_embedding_is_the_base_networks_pooled_features_whatever_the_batch():
    classifier = tiny_classifier()
    before = state_of(classifier)
    pictures = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    found = embed(classifier, pictures, batch_size=2)
    features = classifier.pooled_features(as_float(pictures.permute(0, 3, 1, 2)))
    torch.testing.assert_close(found, torch.nn.functional.normalize(features, dim=1).detach())
    assert same_state(before, state_of(classifier))


def test_frozen_is_bit_by_bit_up_to_the_layer():
    base, tuned = tiny_classifier(), tiny_classifier()
    assert frozen_up_to(base, tuned, "stages.2")
    tuned.network.stages[1].bn2.running_mean[0] += 1e-7
    assert frozen_up_to(base, tuned, "stages.0")
    assert not frozen_up_to(base, tuned, "stages.1")
    assert not frozen_up_to(base, tuned, "stages.2")
    with pytest.raises(UnknownName):
        frozen_up_to(base, tuned, "stages.7")


def test_parameters_of_an_enclosing_module_count_too():
    from transferscope.backbones.weights import load_backbone

    base = load_backbone("timm/test_vit", weights="random")
    tuned = copy.deepcopy(base)
    assert frozen_up_to(base, tuned, "blocks.0")
    with torch.no_grad():
        tuned.network.pos_embed += 1e-3
    assert not frozen_up_to(base, tuned, "blocks.0")
