from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import same_state, state_of, tiny_classifier
from transferscope.errors import DataError, InputError, PictureError
from transferscope.features.exemplars import channel_responses
from transferscope.features.extraction import POOLED, cached_pictures, extract
from transferscope.features.probe import STRENGTHS, fit_probe
from transferscope.files import sha256_file
from transferscope.images import as_float
from transferscope.machine import cache_dir


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
        "transferscope.features.extraction._fill", lambda *args, **_: runs.append(list(args[2]))
    )
    again = extract(classifier, files[6::-1], hashes[6::-1])
    assert again.cached == 7
    assert not runs
    assert torch.equal(again.targets[POOLED], first.targets[POOLED].flip(0))
    assert cached_pictures(classifier) == set(hashes[:7])
    monkeypatch.undo()


def test_networks_of_equal_tensors_and_other_code_share_no_features(pictures):
    """As timm's resnet50 and resnetaa50 do: the same entries, and other strides."""
    files, hashes = pictures
    plain, other, hooked = tiny_classifier(), tiny_classifier(), tiny_classifier()
    other.network.stem.stride = (1, 1)
    hooked.network.stem.register_forward_hook(lambda _m, _i, output: output * 2)

    class Blurred(type(plain.network)):
        def forward(self, x):
            return super().forward(torch.nn.functional.avg_pool2d(x, 3, 1, 1))

    blurred = tiny_classifier()
    blurred.network.__class__ = Blurred
    digests = {one.architecture_hash() for one in (plain, other, hooked, blurred)}
    assert len({one.body_hash() for one in (plain, other, hooked, blurred)}) == 1
    assert len(digests) == 4
    assert tiny_classifier().architecture_hash() == plain.architecture_hash()
    head = torch.zeros(2, plain.head_layer.in_features)
    two = plain.with_head(head, torch.zeros(2), "ab")
    assert two.architecture_hash() == plain.architecture_hash()
    first = extract(plain, files, hashes).targets[POOLED]
    for one in (other, blurred):
        found = extract(one, files, hashes)
        assert found.cached == 0
        assert not torch.equal(found.targets[POOLED], first)


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
    found = extract(classifier, files, hashes)
    assert torch.equal(found.targets[POOLED], wanted)
    assert found.cached == 0
    assert extract(classifier, files, hashes).cached == len(files)
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


@pytest.mark.parametrize(("n", "classes", "width"), [(200, 2, 20), (240, 4, 20), (90, 3, 300)])
def test_the_probe_reaches_the_loss_and_logits_of_scikit_learn(n, classes, width):
    from sklearn.linear_model import LogisticRegression

    features, labels = separable(n, classes)
    noise = torch.randn(n, width - 20, generator=torch.Generator().manual_seed(1))
    features = torch.cat([features, noise], 1)
    probe = fit_probe(features, labels, classes, strengths=(0.01, 0.03, 0.1))
    x = features.double().numpy()
    x = (x - x.mean(0)) / x.std(0)
    oracle = LogisticRegression(C=probe.strength, tol=1e-10, max_iter=10_000).fit(x, labels.numpy())
    wanted = torch.from_numpy(oracle.predict_log_proba(x))
    found = probe.logits(features).double().log_softmax(1)
    torch.testing.assert_close(found, wanted, rtol=5e-3, atol=5e-3)
    losses = [torch.nn.functional.nll_loss(logs, labels) for logs in (found, wanted)]
    assert abs(losses[0] - losses[1]) < 1e-4


def test_held_out_logits_are_those_of_fits_that_did_not_see_the_row():
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    features, labels = separable(150, 3)
    probe = fit_probe(features, labels, 3, strengths=(0.01, 0.03), seed=5)
    x = ((features - features.mean(0)) / features.std(0, correction=0)).double().numpy()
    wanted = np.empty((150, 3))
    for train, held in StratifiedKFold(5, shuffle=True, random_state=5).split(x, labels.numpy()):
        model = LogisticRegression(C=probe.strength, tol=1e-8, max_iter=1000)
        wanted[held] = model.fit(x[train], labels.numpy()[train]).predict_log_proba(x[held])
    found = probe.held_out.double().log_softmax(1)
    torch.testing.assert_close(found, torch.from_numpy(wanted), rtol=0.05, atol=0.05)
    loss = float(torch.nn.functional.nll_loss(found, labels))
    assert probe.strengths[probe.strength] == pytest.approx(loss, rel=1e-5)
    assert probe.strength == min(probe.strengths, key=probe.strengths.__getitem__)


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_folds():
    features, labels = separable(200, 4)
    first, second, other = (fit_probe(features, labels, 4, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.held_out, second.held_out)
    assert not torch.equal(first.held_out, other.held_out)


def test_views_of_a_picture_share_a_fold_and_count_as_one_picture():
    features, labels = separable(120, 3)
    once = fit_probe(features, labels, 3)
    twice = fit_probe(features.repeat(2, 1), labels, 3, views=2)
    assert once.strength == twice.strength
    torch.testing.assert_close(once.logits(features), twice.logits(features), rtol=0.01, atol=0.01)
    torch.testing.assert_close(twice.held_out[:120], twice.held_out[120:])
    torch.testing.assert_close(once.held_out, twice.held_out[:120], rtol=0.05, atol=0.05)
    with pytest.raises(InputError, match="120 rows of features for 2 views of 120 pictures"):
        fit_probe(features, labels, 3, views=2)


def test_rows_are_summed_in_parts_without_a_difference(monkeypatch):
    features, labels = separable(100, 3)
    whole = fit_probe(features, labels, 3)
    monkeypatch.setattr("transferscope.features.probe._LOGITS", 7 * 5 * 3)
    monkeypatch.setattr("transferscope.features.probe._PART", 7)
    torch.testing.assert_close(
        fit_probe(features, labels, 3).weight, whole.weight, rtol=0.01, atol=1e-3
    )


def test_the_strength_is_chosen_on_held_out_folds():
    _, labels = separable(60, 3)
    noise = torch.randn(60, 400, generator=torch.Generator().manual_seed(0))
    nothing_to_learn = fit_probe(noise, labels, 3)
    assert nothing_to_learn.strength == min(nothing_to_learn.strengths)
    features, labels = separable(300, 3)
    assert fit_probe(features, labels, 3).strength > 1e-2


@pytest.mark.parametrize("strength", [0.01, 3.0])
def test_a_fit_of_one_strength_reaches_the_held_out_loss_of_scikit_learn(strength):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    features, labels = separable(400, 20)
    noise = torch.randn(400, 300, generator=torch.Generator().manual_seed(2))
    features = torch.cat([features, noise], 1) @ torch.diag(torch.logspace(-2, 2, 320))
    probe = fit_probe(features, labels, 20, strengths=(strength,))
    x = ((features - features.mean(0)) / features.std(0, correction=0)).double().numpy()
    wanted = 0.0
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    for train, held in folds.split(x, labels.numpy()):
        model = LogisticRegression(C=strength, tol=1e-6, max_iter=10_000, solver="newton-cg")
        logs = model.fit(x[train], labels.numpy()[train]).predict_log_proba(x[held])
        wanted -= logs[np.arange(len(held)), labels.numpy()[held]].sum() / len(labels)
    assert probe.strengths[strength] == pytest.approx(wanted, rel=0.02)


def few_and_wide(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """24 rows of three classes that are told apart, in 1,280 dimensions, none below 0."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(24) % 3
    centres = 0.3 * torch.randn(3, 1280, generator=generator)
    return (centres[labels] + torch.randn(24, 1280, generator=generator)).relu(), labels


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_no_strength_is_left_before_its_optimum_from_a_cold_start(seed, strength):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    features, labels = few_and_wide(seed)
    probe = fit_probe(features, labels, 3, strengths=(strength,))
    x = ((features - features.mean(0)) / features.std(0, correction=0)).double().numpy()
    rotation, singular, _ = np.linalg.svd(x, full_matrices=False)
    x = (
        rotation * singular
    )  # turned: neither the loss nor the penalty changes, and 24 columns are left
    wanted = np.empty((24, 3))
    for train, held in StratifiedKFold(5, shuffle=True, random_state=0).split(x, labels.numpy()):
        model = LogisticRegression(C=strength, tol=1e-8, max_iter=10_000, solver="newton-cg")
        wanted[held] = model.fit(x[train], labels.numpy()[train]).predict_log_proba(x[held])
    loss = -wanted[np.arange(24), labels.numpy()].mean()
    assert probe.strengths[strength] == pytest.approx(loss, rel=0.1, abs=0.01)
    right = (probe.held_out.argmax(1) == labels).float().mean()
    assert float(right) == pytest.approx((wanted.argmax(1) == labels.numpy()).mean(), abs=0.05)


def test_a_fit_that_does_not_converge_is_refused_and_never_used(monkeypatch):
    features, labels = few_and_wide(0)
    monkeypatch.setattr("transferscope.features.probe._STEPS", 1)
    monkeypatch.setattr("transferscope.features.probe._ROUNDS", 1)
    with pytest.raises(DataError, match=r"did not converge at C = 0\.03: .* are allowed"):
        fit_probe(features, labels, 3)
    monkeypatch.setattr("transferscope.features.probe._STEPS", 20)
    monkeypatch.setattr("transferscope.features.probe._ROUNDS", 50)
    assert fit_probe(features, labels, 3).held_out is not None  # begun anew until it does


def test_a_large_set_is_fitted_fold_by_fold_and_chosen_by_one(monkeypatch):
    features, labels = separable(300, 6)
    whole = fit_probe(features, labels, 6)
    monkeypatch.setattr("transferscope.features.probe._TOGETHER", 1)
    monkeypatch.setattr("transferscope.features.probe._PART", 37)
    apart = fit_probe(features, labels, 6)
    assert apart.strength == whole.strength
    told = [probe.held_out.softmax(1) for probe in (apart, whole)]
    torch.testing.assert_close(*told, rtol=0, atol=0.03)
    monkeypatch.setattr("transferscope.features.probe._ALL_FOLDS", 1)
    by_one = fit_probe(features, labels, 6)
    assert by_one.strengths.keys() & whole.strengths.keys()
    assert by_one.held_out.isfinite().all()
    without = fit_probe(features, labels, 6, held_out=False)
    assert without.held_out is None
    assert torch.equal(without.weight, by_one.weight)


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


def test_class_weights_make_a_rare_class_count_as_much_as_a_common_one():
    generator = torch.Generator().manual_seed(0)
    labels = torch.cat([torch.zeros(90), torch.ones(10)]).long()
    features = torch.randn(100, 3, generator=generator) + 0.8 * labels[:, None]
    plain = fit_probe(features, labels, 2, strengths=[0.1])
    alike = fit_probe(features, labels, 2, strengths=[0.1], class_weights=torch.ones(2))
    assert torch.equal(plain.weight, alike.weight)
    balanced = fit_probe(
        features, labels, 2, strengths=[0.1], class_weights=torch.tensor([100 / 180, 5.0])
    )
    repeated = torch.cat([features, features[90:].repeat(8, 1)])  # 90 of each class
    oracle = fit_probe(repeated, torch.cat([labels, torch.ones(80).long()]), 2, strengths=[0.1])

    def found(probe):
        return float((probe.logits(features[90:]).argmax(1) == 1).float().mean())

    assert found(plain) < found(balanced)
    assert torch.allclose(
        balanced.logits(features).softmax(1), oracle.logits(features).softmax(1), atol=0.05
    )
