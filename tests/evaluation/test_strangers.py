"""Scores of familiarity beside slow references, what validation makes of them, and what is kept of training."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import distance
from scipy.special import logsumexp, softmax
from scipy.stats import mannwhitneyu
from sklearn.covariance import ledoit_wolf
from sklearn.neighbors import NearestNeighbors

from transferscope.errors import DataError, InputError, RunError
from transferscope.evaluation import known_pictures
from transferscope.evaluation.detection import Pictures, auroc_of, detection
from transferscope.evaluation.known_pictures import KnownPictures, kept_rows, most_each
from transferscope.evaluation.strangers import (
    DEFAULT_SCORE,
    PARTS,
    SCORES,
    Training,
    allowance,
    centred_energy,
    familiarity,
    refuse_false_alarms,
)

K, D = 4, 12


def drawn(n: int, seed: int, *, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features around K centres, their labels and logits."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 3, (K, D)).astype(np.float32)
    labels = draw.integers(0, K, n)
    scale = spread * np.linspace(0.4, 1.6, D)  # some features vary more
    features = (centres[labels] + draw.normal(0, 1, (n, D)) * scale).astype(np.float32)
    return features, labels, (features @ centres.T / 4).astype(np.float32)


def strange(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features far from every centre, and their logits."""
    draw = np.random.default_rng(seed)
    features = draw.normal(0, 3, (n, D)).astype(np.float32)
    centres = np.random.default_rng(99).normal(0, 3, (K, D)).astype(np.float32)
    return features, (features @ centres.T / 4).astype(np.float32)


@pytest.fixture(scope="module")
def training() -> Training:
    features, labels, logits = drawn(90, 0)
    plain = Training(features, labels, centred_energy(logits))
    held_out, _, logits = drawn(60, 10)
    parts = {name: SCORES[name].function(plain)(held_out, logits) for name in PARTS}
    return plain._replace(validation=parts)


@pytest.fixture(scope="module")
def known(training: Training) -> KnownPictures:
    features, _, logits = drawn(199, 1)
    return KnownPictures.of_features(
        training,
        (features, logits),
        classes=list("abcd"),
        weights="w",
        of=90,
        paths=[f"{n}.png" for n in range(90)],
    )


def slow_distance(
    x: np.ndarray, means: np.ndarray, residuals: np.ndarray, within: np.ndarray
) -> np.ndarray:
    """With the ridge that Ledoit and Wolf find for the residuals within classes."""
    _, share = ledoit_wolf(within.astype(float), assume_centered=True)
    ridge = share / (1 - share) * np.mean(within.astype(float) ** 2)
    covariance = residuals.T @ residuals / len(residuals) + ridge * np.eye(D)
    precision = np.linalg.inv(covariance.astype(float))
    return np.array([[distance.mahalanobis(row, m, precision) ** 2 for m in means] for row in x])


def slow(name: str, training: Training, x: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Every score again, one picture at a time, by other libraries."""
    if name == "probability":
        top = softmax(logits.astype(float), axis=1).max(1)
        return np.log(top / (1 - top))
    if name == "energy":
        return logsumexp(logits.astype(float), axis=1)
    if name == "nearest":
        found = NearestNeighbors(n_neighbors=10, metric="cosine").fit(training.features)
        return 1 - found.kneighbors(x)[0][:, -1]
    if name == "guided":
        energies = [logsumexp(row.astype(float) - row.mean()) for row in logits]
        cosine = 1 - distance.cdist(x, training.features, "cosine")
        guides = [np.sort(row * training.energies)[-10:].mean() for row in cosine]
        return np.multiply(guides, energies)
    if name == DEFAULT_SCORE:
        away = []
        for part in ("guided", "nearest"):
            values = training.validation[part]
            middle, low = np.median(values), np.percentile(values, 10)
            away.append((middle - slow(part, training, x, logits)) / (middle - low))
        return -(away[0] + np.maximum(away[1] - 1, 0))
    by_class = [training.features[training.labels == k] for k in range(K)]
    means = np.array([one.mean(0) for one in by_class])
    within = np.concatenate([one - one.mean(0) for one in by_class])
    nearest = -slow_distance(x, means, within, within).min(1)
    if name == "mahalanobis":
        return nearest
    middle = training.features.mean(0)
    return nearest + slow_distance(x, middle[None], training.features - middle, within)[:, 0]


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_those_of_other_libraries(name, training):
    x, _, logits = drawn(40, 2)
    scored = SCORES[name].function(training)
    got = scored(x, logits)
    assert got.dtype == np.float32
    assert got.shape == (40,)
    np.testing.assert_allclose(got, slow(name, training, x, logits), rtol=2e-4, atol=2e-4)
    alone = np.concatenate([scored(x[i : i + 1], logits[i : i + 1]) for i in range(40)])
    np.testing.assert_allclose(alone, got, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SCORES)
def test_no_score_fails_on_few_pictures_classes_without_any_and_dead_features(name):
    features, labels, logits = drawn(6, 3)
    features[:, 0] = 0.0
    kept = labels != labels[0]
    few = Training(features[kept], labels[kept], centred_energy(logits[kept]))
    assert np.isfinite(SCORES[name].function(few)(features, logits)).all()


def test_familiarity_is_a_conformal_p_value():
    draw = np.random.default_rng(0)
    shares = []
    for _ in range(400):
        validation, new = draw.normal(size=39), draw.normal(size=20)
        shares.append((familiarity(new, validation) <= 0.05).mean())
    assert np.mean(shares) == pytest.approx(0.05, abs=0.006)
    values = familiarity(np.array([-9.0, 0.0, 9.0]), np.array([0.0, 1.0, -1.0, 2.0]))
    np.testing.assert_allclose(values, [1 / 5, 3 / 5, 1.0])


def test_the_score_in_use_holds_the_share_though_validation_scales_it(training):
    shares = []
    for seed in range(150):
        (held_out, _, one), (new, _, other) = drawn(59, 100 + seed), drawn(40, 900 + seed)
        known = KnownPictures.of_features(
            training, (held_out, one), classes=list("abcd"), weights="", of=90
        )
        shares.append((known.familiarity(new, other) <= 0.05).mean())
    assert np.mean(shares) == pytest.approx(0.05, abs=0.008)


def test_what_a_threshold_rests_on_is_said():
    assert allowance(0.05, 19).range is not None
    few = allowance(0.05, 18)
    assert few.range is None
    assert few.needed == 19
    assert "18 validation pictures" in few.sentence
    assert "needs 19" in few.sentence
    assert "--false-alarms 0.053" in few.sentence
    assert allowance(0.053, 18).range is not None
    low, high = allowance(0.05, 341).range
    draw = np.random.default_rng(0)
    true = [np.sort(draw.uniform(size=341))[16] for _ in range(4000)]  # the 17th of 342 * .05
    np.testing.assert_allclose(np.quantile(true, (0.025, 0.975)), (low, high), atol=0.002)
    assert "2.9% and 7.5%" in allowance(0.05, 341).sentence
    assert allowance(0.05, 0).range is None


def test_own_pictures_are_known_and_strangers_are_not(known):
    own, _, logits = drawn(400, 4)
    far, far_logits = strange(300, 5)
    ours = Pictures([f"{n}" for n in range(400)], own, logits)
    theirs = Pictures([f"s{n}" for n in range(300)], far, far_logits)
    found = detection(known, ours, theirs, allowed=0.05)
    low, high = found.range
    assert low - 0.03 < found.false_alarms < high + 0.03
    assert found.caught > 0.9
    assert found.auroc > 0.95
    assert set(found.scores) == set(SCORES)
    assert sum(found.called.values()) == found.n == 300
    assert (found.auroc, found.caught) == (
        found.scores[DEFAULT_SCORE].auroc,
        found.scores[DEFAULT_SCORE].caught,
    )
    assert len(found.missed) == min(12, round(300 * (1 - found.caught)))
    assert all(one.familiarity > 0.05 for one in found.missed)
    assert all(one.familiarity <= 0.05 for one in found.alarmed)
    assert not found.drifted
    assert type(found).from_dict(found.to_dict()) == found


def test_strangers_that_are_own_pictures_cannot_be_told(known):
    """The negative control: every score, on two draws of the same pictures."""
    first, _, one = drawn(300, 6)
    second, _, other = drawn(300, 7)
    ours = Pictures([""] * 300, first, one)
    found = detection(known, ours, Pictures([""] * 300, second, other), allowed=0.05)
    for name, told in found.scores.items():
        low, high = told.auroc_interval
        assert abs(told.auroc - 0.5) < 0.07, name
        assert low < 0.53, name
        assert high > 0.47, name
        assert told.caught < 0.12, name


def test_pictures_unlike_validation_are_said_to_drift(known):
    wide, _, logits = drawn(400, 8, spread=2.0)
    far, far_logits = strange(50, 9)
    found = detection(
        known,
        Pictures([""] * 400, wide, logits),
        Pictures([""] * 50, far, far_logits),
        allowed=0.05,
    )
    assert found.drifted
    with pytest.raises(DataError, match="0 strangers and 400"):
        detection(
            known,
            Pictures([""] * 400, wide, logits),
            Pictures([], far[:0], far_logits[:0]),
            allowed=0.05,
        )


def test_auroc_is_that_of_mann_and_whitney_and_covers():
    draw = np.random.default_rng(0)
    own, others = draw.normal(1, 1, 80).round(1), draw.normal(0, 1, 50).round(1)
    area, _ = auroc_of(own, others)
    assert area == pytest.approx(mannwhitneyu(own, others).statistic / (80 * 50))
    true, covered = 0.7602, 0  # P(N(1, 1) > N(0, 1))
    for _ in range(300):
        _, (low, high) = auroc_of(draw.normal(1, 1, 60), draw.normal(0, 1, 40))
        covered += low <= true <= high
    assert 0.92 * 300 < covered < 0.99 * 300
    area, (low, high) = auroc_of(np.ones(5), np.zeros(3))
    assert (area, high) == (1.0, 1.0)
    assert low < 0.7, "three pictures show little"


def test_what_is_kept_is_read_again_and_bounded(known, tmp_path, monkeypatch):
    np.testing.assert_allclose(np.linalg.norm(known.features.astype(float), axis=1), 1, atol=1e-3)
    known.save(tmp_path / "s.safetensors")
    again = KnownPictures.load(tmp_path / "s.safetensors")
    far, logits = strange(20, 3)
    np.testing.assert_array_equal(again.familiarity(far, logits), known.familiarity(far, logits))
    assert again.paths == known.paths
    assert again.without_names().neighbours(far)[0][0].path is None
    monkeypatch.setitem(known_pictures.SCORES, "another", SCORES["energy"])
    with pytest.raises(RunError, match=r"no 'validation\.another'"):
        KnownPictures.load(tmp_path / "s.safetensors")


def test_neighbours_are_the_nearest_training_pictures(known, training):
    near = known.neighbours(training.features[:5] * 7.0)
    assert [one[0].path for one in near] == [f"{n}.png" for n in range(5)], (
        "itself, whatever its length"
    )
    assert [one[0].name for one in near] == ["abcd"[k] for k in training.labels[:5]]
    assert all(one[0].cosine == pytest.approx(1, abs=1e-3) for one in near)
    assert all(a.cosine >= b.cosine >= c.cosine for a, b, c in near)


def test_of_large_sets_every_class_keeps_its_share(monkeypatch):
    labels = np.repeat([0, 1, 2], [1000, 30, 5])
    assert len(kept_rows(labels, 8)) == 1035
    monkeypatch.setattr(known_pictures, "MOST_BYTES", 2 * 8 * 100)
    rows = kept_rows(labels, 8)
    assert np.bincount(labels[rows]).tolist() == [65, 30, 5]
    assert (np.diff(rows) > 0).all()
    assert most_each(np.array([1000, 30, 5]), 100) == 65
    monkeypatch.setattr(known_pictures, "MOST_BYTES", 2 * 8 * 2)
    with pytest.raises(InputError, match="3 classes of 8 features do not fit"):
        kept_rows(labels, 8)


@pytest.mark.parametrize("copies", [1, 3])
def test_with_one_picture_of_every_class_the_distance_is_euclids(copies):
    """Nothing varies within classes: the least set that a run is tuned on."""
    draw = np.random.default_rng(5)
    each = draw.normal(0, 3, (K, D)).astype(np.float32)
    features, labels = np.repeat(each, copies, axis=0), np.repeat(np.arange(K), copies)
    training = Training(features, labels, np.ones(len(labels), np.float32))
    others, logits = strange(20, 6)
    expected = -(distance.cdist(others, each).min(axis=1) ** 2)
    found = SCORES["mahalanobis"].function(training)(others, logits)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    relative = SCORES["relative_mahalanobis"].function(training)(others, logits)
    assert np.isfinite(relative).all()


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan"), float("inf")])
def test_a_share_of_false_alarms_that_is_none_is_refused(share):
    with pytest.raises(InputError, match=r"--false-alarms is .* more than 0 and less than 1"):
        refuse_false_alarms(share)
