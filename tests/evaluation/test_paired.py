"""Two classifiers on the same pictures, and several views of each picture."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_metrics import drawn

from conftest import same_state, state_of, tiny_classifier
from transferscope.data.augmentation import augmentation
from transferscope.errors import DataError, InputError
from transferscope.evaluation.paired import PairedDifference, paired_difference, paired_interval
from transferscope.evaluation.predictions import Predictions, predict_files
from transferscope.evaluation.sentences import difference_sentence, views_sentence
from transferscope.evaluation.tta import ViewsGain, views_gain, with_probabilities
from transferscope.files import sha256_file
from transferscope.images import as_float


def pair() -> tuple[Predictions, Predictions]:
    first = drawn()
    noise = torch.randn(first.logits.shape, generator=torch.Generator().manual_seed(3))
    return first, replace(first, logits=first.logits + 1.5 * noise, temperature=1.0)


def test_the_difference_is_that_of_a_slow_loop():
    first, second = pair()
    found = paired_difference(first, second, names=("tuned", "other"), left_out=3)
    only_first = only_second = differ = 0
    for label, one, two in zip(
        first.labels.tolist(), first.predicted.tolist(), second.predicted.tolist(), strict=True
    ):
        only_first += one == label != two
        only_second += two == label != one
        differ += one != two
    assert (found.only_first, found.only_second) == (only_first, only_second)
    assert found.difference == pytest.approx((only_first - only_second) / 300)
    assert found.difference == pytest.approx(found.top1 - found.second_top1)
    n, k = only_first + only_second, min(only_first, only_second)
    p = min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)
    assert found.p == pytest.approx(p, rel=1e-6)
    assert len(found.disagreements) == differ
    assert found.left_out == 3
    assert found.nll_interval[0] < found.nll_difference < found.nll_interval[1]
    assert found.nll_difference == pytest.approx(float((first.losses - second.losses).mean()))


def test_pictures_that_one_alone_has_right_come_first():
    first, second = pair()
    found = paired_difference(first, second).disagreements
    kinds = [0 if d.label == d.first else 1 if d.label == d.second else 2 for d in found]
    assert kinds == sorted(kinds)
    assert {0, 1, 2} == set(kinds)


def test_the_interval_is_that_of_drawing_pictures_anew():
    gains = np.repeat([1, -1, 0], [30, 12, 258])
    rng = np.random.default_rng(1)
    means = [gains[rng.integers(0, 300, 300)].mean() for _ in range(20_000)]
    low, high = paired_interval(gains == 1, gains == -1)
    assert low == pytest.approx(np.quantile(means, 0.025), abs=0.0034)  # one picture is 0.0033
    assert high == pytest.approx(np.quantile(means, 0.975), abs=0.0034)


def test_equal_classifiers_do_not_differ():
    first, _ = pair()
    found = paired_difference(first, first)
    assert (found.difference, found.interval, found.p) == (0, (0, 0), 1)
    assert not found.disagreements


def test_another_order_of_the_classes_changes_nothing():
    first, second = pair()
    shuffled = second.for_classes([f"class {k}" for k in (6, 2, 0, 1, 5, 3, 4)])
    assert paired_difference(first, shuffled) == paired_difference(first, second)


def test_other_pictures_and_other_classes_are_refused():
    first, second = pair()
    with pytest.raises(DataError, match="same pictures in the same order"):
        paired_difference(first, second.rows(torch.arange(299)))
    other = replace(second, classes=(*second.classes[:-1], "zebra"))
    with pytest.raises(InputError, match="zebra"):
        paired_difference(first, other)


def test_a_difference_survives_json_and_is_told():
    found = paired_difference(*pair(), names=("tuned", "base"))
    assert PairedDifference.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    words = difference_sentence(found)
    assert f"{found.difference:+.2%}" in words
    assert "McNemar" in words
    assert "left out" not in words


# ---------------------------------------------------------------------------- views


@pytest.fixture
def pictures(tmp_path, make_folder):
    files = sorted(make_folder(tmp_path / "pictures", {"a": 6, "b": 6}).rglob("*.png"))
    labels = torch.tensor([0] * 6 + [1] * 6)
    return files, [sha256_file(file) for file in files], labels


def test_views_are_averaged_as_a_slow_loop_does(pictures):
    files, hashes, labels = pictures
    classifier = tiny_classifier()
    classifier.temperature = 1.7
    plain = predict_files(classifier, files)
    paths = tuple(file.name for file in files)
    predictions = Predictions(paths, labels, plain, classifier.classes, 1.7)
    before = state_of(classifier.network)
    found = views_gain(classifier, predictions, files, hashes, views=3, seconds=1.0)
    assert same_state(before, state_of(classifier.network))
    crops, right, loss = augmentation("light"), 0, 0.0
    for file, digest, label in zip(files, hashes, labels.tolist(), strict=True):
        seen = classifier.input.load(file)
        crop = crops.load(file, classifier.input, seed=0, view=3, identity=digest)
        batch = as_float(torch.stack([seen, seen.flip(-1), crop]))
        mean = classifier.probabilities(batch).mean(0).detach()
        right += int(mean.argmax()) == label
        loss -= math.log(float(mean[label]))
    assert found.top1 == pytest.approx(right / 12)
    assert found.nll == pytest.approx(loss / 12, rel=1e-4)
    assert found.gain == pytest.approx(found.top1 - float(predictions.right.float().mean()))
    assert found.cost > 1
    assert ViewsGain.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert "3 views" in views_sentence(found)


def test_without_flip_nothing_is_mirrored(pictures):
    files, hashes, labels = pictures
    classifier = tiny_classifier()
    paths = tuple(file.name for file in files)
    predictions = Predictions(paths, labels, predict_files(classifier, files), classifier.classes)
    found = views_gain(classifier, predictions, files, hashes, views=2, flip=False, seconds=1.0)
    crops, loss = augmentation("light", flip=False), 0.0
    for file, digest, label in zip(files, hashes, labels.tolist(), strict=True):
        crop = crops.load(file, classifier.input, seed=0, view=2, identity=digest)
        batch = as_float(torch.stack([classifier.input.load(file), crop]))
        loss -= math.log(float(classifier.probabilities(batch).mean(0).detach()[label]))
    assert found.nll == pytest.approx(loss / 12, rel=1e-4)


def test_one_view_is_no_average(pictures):
    files, hashes, labels = pictures
    classifier = tiny_classifier()
    paths = tuple(file.name for file in files)
    predictions = Predictions(paths, labels, predict_files(classifier, files), classifier.classes)
    with pytest.raises(InputError, match=r"--tta is 1.*at least 2"):
        views_gain(classifier, predictions, files, hashes, views=1, seconds=1.0)


def test_probabilities_stand_in_for_logits():
    predictions = drawn(9)
    mixed = (predictions.probabilities + 1 / 7) / 2
    assert torch.allclose(with_probabilities(predictions, mixed).probabilities, mixed, atol=1e-6)
