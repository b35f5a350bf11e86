from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import same_state, state_of, tiny_classifier
from transferscope.errors import DataError, PictureError
from transferscope.features import (
    POOLED,
    cached_pictures,
    channel_responses,
    extract,
    fit_probe,
)
from transferscope.images import as_float
from transferscope.storage import cache_dir, sha256_file


@pytest.fixture
def pictures(tmp_path, make_folder):
    root = make_folder(tmp_path / "pictures", {"a": 5, "b": 6}, seed=3)
    files = sorted(root.rglob("*.png"))
    return files, [sha256_file(file) for file in files]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFERSCOPE_CACHE", str(tmp_path / "cache"))


def test_features_are_those_of_the_plain_network(pictures):
    files, hashes = pictures
    classifier = tiny_classifier()
    before = state_of(classifier)
    found = extract(
        classifier, files, hashes, targets=(POOLED, "stages.0"), precision="fp32", batch_size=4
    )
    assert same_state(before, state_of(classifier))
    batch = torch.stack([as_float(classifier.input.load(file)) for file in files])
    torch.testing.assert_close(found.targets[POOLED], classifier.pooled_features(batch))
    stage = classifier.network.stages[0](classifier.network.stem(classifier.input.normalise(batch)))
    torch.testing.assert_close(found.targets["stages.0"].float(), stage, rtol=2e-3, atol=2e-3)
    assert found.cached == 0


def test_features_are_computed_once_whatever_the_order(pictures, monkeypatch):
    files, hashes = pictures
    classifier = tiny_classifier()
    first = extract(classifier, files[:7], hashes[:7])
    runs = []
    monkeypatch.setattr(
        "transferscope.features._fill", lambda *args, **_: runs.append(list(args[2]))
    )
    again = extract(classifier, files[6::-1], hashes[6::-1])
    assert again.cached == 7
    assert not runs
    assert torch.equal(again.targets[POOLED], first.targets[POOLED].flip(0))
    assert cached_pictures(classifier) == set(hashes[:7])
    monkeypatch.undo()


def test_only_the_missing_pictures_are_computed(pictures):
    files, hashes = pictures
    classifier = tiny_classifier()
    extract(classifier, files[:4], hashes[:4])
    assert extract(classifier, files, hashes).cached == 4
    other_head = classifier.with_head(torch.zeros(2, 8), torch.zeros(2), ["x", "y"])
    assert extract(other_head, files, hashes).cached == len(files)
    assert extract(tiny_classifier(seed=1), files, hashes).cached == 0


def test_a_damaged_shard_is_never_used(pictures):
    files, hashes = pictures
    classifier = tiny_classifier()
    wanted = extract(classifier, files, hashes).targets[POOLED]
    (shard,) = cache_dir().rglob("*.safetensors")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-4] + b"\x00\x01\x02\x03")  # flipped bits: the checksum fails
    assert torch.equal(extract(classifier, files, hashes).targets[POOLED], wanted)
    shard.write_bytes(whole[: len(whole) // 2])  # cut short: the header does not fit
    assert torch.equal(extract(classifier, files, hashes).targets[POOLED], wanted)


def test_an_unreadable_picture_is_an_error_not_a_row(pictures, tmp_path):
    files, hashes = pictures
    broken = tmp_path / "broken.png"
    broken.write_bytes(files[0].read_bytes()[:200])
    with pytest.raises(PictureError, match=r"broken\.png"):
        extract(tiny_classifier(), [*files, broken], [*hashes, "0" * 64])


# ---------------------------------------------------------------------------- probe


def separable(n: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = draw.normal(0, 1, (classes, 20))
    features = centres[labels] + draw.normal(0, 0.8, (n, 20)) * np.linspace(0.1, 3, 20)
    return torch.from_numpy(features).float(), torch.from_numpy(labels)


@pytest.mark.parametrize("classes", [2, 5])
def test_the_probe_is_at_the_optimum_of_its_objective(classes):
    features, labels = separable(200, classes)
    probe = fit_probe(features, labels, classes)
    mean, std = features.double().mean(0), features.double().std(0, unbiased=False)
    x = (features.double() - mean) / std
    weight = (probe.weight.double() * std).requires_grad_()
    bias = (probe.bias.double() + probe.weight.double() @ mean).requires_grad_()
    torch.testing.assert_close(
        (x @ weight.T + bias).float(), probe.logits(features), rtol=1e-3, atol=1e-3
    )
    # scikit-learn's two-class model penalises the one row w1 - w0: half of the penalty of two rows.
    share = 1.0 if classes > 2 else 2.0
    penalty = share * weight.square().sum() / (2 * probe.strength)
    loss = torch.nn.functional.cross_entropy(x @ weight.T + bias, labels, reduction="sum") + penalty
    loss.backward()
    assert float(weight.grad.abs().max()) / len(x) < 2e-3
    assert probe.strength == min(probe.strengths, key=probe.strengths.__getitem__)


def test_the_strength_is_chosen_on_held_out_folds():
    _, labels = separable(60, 3)
    noise = torch.randn(60, 400, generator=torch.Generator().manual_seed(0))
    nothing_to_learn = fit_probe(noise, labels, 3)
    assert nothing_to_learn.strength == min(nothing_to_learn.strengths)
    features, labels = separable(300, 3)
    assert fit_probe(features, labels, 3).strength > 1e-2


def test_a_class_of_one_picture_has_no_folds_and_still_a_probe():
    features, labels = separable(21, 3)
    labels[:] = torch.arange(21) % 2
    labels[0] = 2
    probe = fit_probe(features, labels, 3)
    assert probe.strengths == {}
    assert probe.weight.shape == (3, 20)


def test_features_that_are_not_finite_are_refused():
    features, labels = separable(20, 2)
    features[3, 4] = float("nan")
    with pytest.raises(DataError, match="not finite"):
        fit_probe(features, labels, 2)


# ---------------------------------------------------------------------------- exemplars


def test_channel_responses_are_spatial_means_whatever_the_batch(pictures):
    files, _ = pictures
    classifier = tiny_classifier()
    before = state_of(classifier)
    found = channel_responses(classifier, files, ["stages.1", "head"], batch_size=3)
    alone = channel_responses(classifier, files, ["stages.1", "head"], batch_size=1)
    assert same_state(before, state_of(classifier))
    batch = torch.stack([as_float(classifier.input.load(file)) for file in files])
    x = classifier.network.stem(classifier.input.normalise(batch))
    wanted = classifier.network.stages[1](classifier.network.stages[0](x)).mean((2, 3))
    torch.testing.assert_close(found["stages.1"], wanted)
    torch.testing.assert_close(found["stages.1"], alone["stages.1"])
    torch.testing.assert_close(found["head"], classifier(batch))
