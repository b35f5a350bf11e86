"""Likeness of representations: derived slowly, and where there is none."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch

from conftest import same_state, state_of, tiny_classifier
from transferscope.comparison.geometry import (
    debiased_cka,
    embed,
    frozen_up_to,
    procrustes_distance,
)
from transferscope.errors import InputError, UnknownName
from transferscope.images import as_float


def normal(n: int, p: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, p))


def rotation(p: int) -> np.ndarray:
    return np.linalg.qr(normal(p, p, 9))[0]


def hsic_by_tuples(x: np.ndarray, y: np.ndarray) -> float:
    """The U-statistic itself: over all ordered choices of four different pictures."""
    k, m = x @ x.T, y @ y.T
    n = len(x)
    total = 0.0
    for i, j, q, r in itertools.permutations(range(n), 4):
        total += k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
    return total / math.perm(n, 4)


def test_debiased_cka_is_the_ratio_of_u_statistics():
    x = normal(7, 3)
    y = np.hstack([x[:, :2] + 0.5 * normal(7, 2, 1), normal(7, 3, 2)]) + 4
    slow = hsic_by_tuples(x, y) / math.sqrt(hsic_by_tuples(x, x) * hsic_by_tuples(y, y))
    assert debiased_cka(x, y) == pytest.approx(slow)
    assert debiased_cka(3 * x @ rotation(3) + 1, y) == pytest.approx(slow)


def test_a_network_and_itself_are_one():
    x = normal(40, 120)
    assert debiased_cka(x, x) == pytest.approx(1)
    assert procrustes_distance(x, x) == pytest.approx(0, abs=1e-9)
    turned = 5 * x @ rotation(120) - 2
    assert debiased_cka(x, turned) == pytest.approx(1)
    assert procrustes_distance(x, turned) == pytest.approx(0, abs=1e-9)


def test_noise_has_nothing_in_common_however_many_features_it_has():
    for p, q in ((4, 4), (30, 400)):
        found = [debiased_cka(normal(50, p, s), normal(50, q, 99 + s)) for s in range(60)]
        assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(60)
    x, y = (normal(50, 400, seed) - normal(50, 400, seed).mean(0) for seed in (0, 1))
    plain = np.square(x.T @ y).sum() / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)
    assert plain > 0.8, "what the correction is for"


def test_procrustes_is_what_the_best_rotation_leaves():
    from scipy.linalg import orthogonal_procrustes

    x, y = normal(30, 5), normal(30, 5, 1)
    y[:, :3] += 2 * x[:, 2:]
    a, b = ((z - z.mean(0)) / np.linalg.norm(z - z.mean(0)) for z in (x, y))
    best, _ = orthogonal_procrustes(a, b)
    slow = np.square(a @ best - b).sum()
    assert procrustes_distance(x, y) == pytest.approx(slow)
    wide = np.hstack([y, np.zeros((30, 70))]) @ rotation(75)
    assert procrustes_distance(x, wide) == pytest.approx(slow), "further features that are always 0"
    assert procrustes_distance(y, x) == pytest.approx(slow)


def test_representations_that_share_nothing_are_two_apart():
    x, y = np.zeros((8, 1)), np.zeros((8, 1))
    x[:4], y[::2] = 1, 1
    assert procrustes_distance(x, y) == pytest.approx(2)
    still = np.full((8, 3), 0.1)
    assert procrustes_distance(x, still) == 2
    assert procrustes_distance(still, still) == 0
    assert debiased_cka(x, still) == 0


def test_other_pictures_are_refused():
    with pytest.raises(InputError, match="9 pictures and the other to 8"):
        debiased_cka(normal(9, 2), normal(8, 2))
    with pytest.raises(InputError, match="takes 4 or more"):
        debiased_cka(normal(3, 2), normal(3, 2))


def test_embedding_is_the_base_networks_pooled_features_whatever_the_batch():
    classifier = tiny_classifier()
    before = state_of(classifier)
    pictures = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    found = embed(classifier, pictures, batch_size=2)
    features = classifier.pooled_features(as_float(pictures.permute(0, 3, 1, 2)))
    torch.testing.assert_close(found, torch.nn.functional.normalize(features, dim=1).detach())
    assert same_state(before, state_of(classifier))


def test_no_picture_has_no_embedding():
    """As where no drawing of a channel succeeded."""
    found = embed(tiny_classifier(), torch.empty(0, 32, 32, 3, dtype=torch.uint8))
    assert found.shape == (0, embed(tiny_classifier(), torch.zeros(1, 32, 32, 3).byte()).shape[1])


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
