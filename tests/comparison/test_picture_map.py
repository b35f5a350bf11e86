"""Maps of pictures: trusted where neighbours are kept, and turned to read alike."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.manifold import trustworthiness

from transferscope.comparison.picture_map import FEWEST, PictureMap, picture_map
from transferscope.errors import InputError
from transferscope.formats import QUIET_PILLOW


def clusters(n: int, width: int = 60, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    return rng.normal(size=(4, width))[labels] * 2 + rng.normal(size=(n, width)), labels


@pytest.mark.parametrize(("n", "method"), [(24, "PCA"), (90, "t-SNE")])
def test_classes_are_found_again_and_the_same_features_give_the_same_map(n, method):
    base, labels = clusters(n)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(60, 60)))[0]
    found = picture_map(base, base @ rotation, labels)
    assert found.method == method
    points = np.array(found.base)
    middles = np.stack([points[labels == one].mean(0) for one in range(4)])
    nearest = np.linalg.norm(points[:, None] - middles, axis=2).argmin(1)
    assert (nearest == labels).mean() > 0.85
    scattered = trustworthiness(base, np.random.default_rng(2).normal(size=(n, 2)), n_neighbors=10)
    assert found.trustworthiness["base"] > 0.75 > scattered
    assert np.sqrt(np.square(points).sum(1).mean()) == pytest.approx(1, abs=1e-3)
    if method == "PCA":
        assert found.disparity == pytest.approx(0, abs=1e-9)
        assert found.tuned == found.base
    assert picture_map(base, base @ rotation, labels) == found, "the same seed"
    assert PictureMap.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_unrelated_features_are_no_better_than_chance_at_reading_alike():
    base, labels = clusters(24)
    other = np.random.default_rng(5).normal(size=(24, 30))
    found = picture_map(base, other, labels)
    assert found.disparity > 0.6


def test_more_pictures_than_are_shown_are_drawn():
    base, labels = clusters(50)
    found = picture_map(base, base, labels, most=20)
    assert len(set(found.pictures)) == len(found.base) == len(found.tuned) == 20
    assert found.labels == tuple(labels[list(found.pictures)].tolist())
    one = picture_map(base[:, :1], base, labels, most=20)
    assert all(y == 0 for _, y in one.base), "one feature has one direction"


def test_no_map_of_nothing():
    base, labels = clusters(24)
    with pytest.raises(InputError, match="the same for all 24"):
        picture_map(base, np.ones((24, 3)), labels)
    with pytest.raises(InputError, match="5 pictures"):
        picture_map(base[:5], base[:5], labels[:5])


def test_a_picture_that_was_read_before_does_not_disturb_the_map():
    """scikit-learn hands the warning filters on to its threads, that of decoding among them."""
    with QUIET_PILLOW:
        pass
    rng = np.random.default_rng(0)
    base, tuned = (rng.normal(size=(FEWEST + 10, 12)) for _ in range(2))
    assert picture_map(base, tuned, rng.integers(0, 3, FEWEST + 10)).method == "t-SNE"
