"""Confidence against accuracy, and what is gained by abstaining."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from test_metrics import drawn

from transferscope.evaluation.calibration import (
    LEAST_EVIDENCE,
    Calibration,
    calibration_of,
    chance_band,
    expected_calibration_error,
    fit_temperature,
)
from transferscope.evaluation.metrics import evaluate
from transferscope.evaluation.predictions import Predictions
from transferscope.evaluation.selective import Abstention, abstention_of, threshold_for


def honest(n: int = 4000, classes: int = 5, seed: int = 0) -> Predictions:
    """Labels that are drawn with the probabilities stated."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=generator) * 2
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    names = tuple(f"class {k}" for k in range(classes))
    return Predictions(tuple(f"{i}.png" for i in range(n)), labels, logits, names)


def test_calibration_error_is_the_binned_gap():
    probabilities = drawn().probabilities
    labels = drawn().labels
    confidence, said = probabilities.max(1)
    total = 0.0
    for index in range(15):
        low, high = index / 15, (index + 1) / 15
        inside = (confidence >= low) & ((confidence < high) | (index == 14))
        if inside.any():
            gap = confidence[inside].mean() - (said == labels)[inside].float().mean()
            total += float(inside.float().mean()) * abs(float(gap))
    assert expected_calibration_error(probabilities, labels) == pytest.approx(total, abs=1e-6)


def test_the_temperature_undoes_overconfidence():
    predictions = drawn(2000)
    best = fit_temperature(predictions.logits, predictions.labels)
    hot = fit_temperature(predictions.logits * 3, predictions.labels)
    assert hot == pytest.approx(3 * best, rel=1e-2)
    losses = {
        t: float(torch.nn.functional.cross_entropy(predictions.logits / t, predictions.labels))
        for t in (best * 0.97, best, best * 1.03)
    }
    assert min(losses, key=losses.__getitem__) == best


def smoothed_loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Mean over n pictures of -log p, 1 / (n + 2) of each weighing the most probable other class."""
    share, total = 1 / (len(labels) + 2), 0.0
    for row, label in zip(logits.astype(np.float64), labels, strict=True):
        log_p = row / temperature - np.logaddexp.reduce(row / temperature)
        other = max(np.delete(log_p, label))
        total -= (1 - share) * log_p[label] + share * other
    return total / len(labels)


@pytest.mark.parametrize("wrong", [0, 2])
def test_a_few_pictures_make_nobody_certain(wrong):
    logits = honest(9).logits * 4
    labels = logits.argmax(1)
    labels[:wrong] = (labels[:wrong] + 1) % 5
    grid = np.geomspace(0.05, 20, 1201)  # a step is half a percent
    losses = [smoothed_loss(logits.numpy(), labels.numpy(), t) for t in grid]
    best = int(np.argmin(losses))
    assert 0 < best < len(grid) - 1, (
        "the minimum lies inside, and not at a bound as without smoothing"
    )
    found = fit_temperature(logits, labels, least=1)
    assert grid[best - 1] < found < grid[best + 1]


def test_honest_probabilities_are_within_chance_and_overconfident_ones_are_not():
    inside = 0
    for seed in range(40):
        found = calibration_of(honest(400, seed=seed))
        inside += found.band[0] <= found.ece <= found.band[1]
    assert inside >= 34, (
        "95% of honest classifiers are in the band; 34 of 40 are short of that by chance"
    )
    hot = honest()
    hot = Predictions(hot.paths, hot.labels, hot.logits * 3, hot.classes)
    found = calibration_of(hot)
    assert found.ece > found.band[1]
    assert not found.within_chance


def test_the_band_is_where_simulated_errors_are():
    predictions = honest(300)
    probabilities = predictions.probabilities
    low, high = chance_band(probabilities.max(1).values)
    generator = torch.Generator().manual_seed(9)
    errors = []
    for _ in range(1000):
        labels = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
        errors.append(expected_calibration_error(probabilities, labels))
    assert low == pytest.approx(np.quantile(errors, 0.025), abs=0.004)
    assert high == pytest.approx(np.quantile(errors, 0.975), abs=0.006)


def test_before_is_without_the_temperature():
    predictions = drawn()
    found = calibration_of(predictions)
    plain = predictions.logits.softmax(1)
    assert found.ece_before == pytest.approx(expected_calibration_error(plain, predictions.labels))
    assert found.nll_before == pytest.approx(
        float(torch.nn.functional.cross_entropy(predictions.logits, predictions.labels)), rel=1e-5
    )
    assert found.temperature == 1.3
    assert found.ece != found.ece_before


def test_bins_hold_every_picture_once():
    predictions = drawn()
    found = calibration_of(predictions)
    assert sum(one.n for one in found.bins) == 300
    gap = sum(one.n * abs(one.accuracy - one.confidence) for one in found.bins) / 300
    assert gap == pytest.approx(found.ece, abs=1e-6)
    assert all(one.low <= one.confidence <= one.high for one in found.bins)
    assert all(one.interval[0] <= one.accuracy <= one.interval[1] for one in found.bins)


def test_records_survive_json():
    predictions = drawn()
    calibration = calibration_of(predictions)
    assert Calibration.from_dict(json.loads(json.dumps(calibration.to_dict()))) == calibration
    abstention = abstention_of(predictions, validation=honest(classes=7))
    assert abstention.operating
    assert Abstention.from_dict(json.loads(json.dumps(abstention.to_dict()))) == abstention


# ---------------------------------------------------------------------------- abstaining


def test_the_curve_is_that_of_a_slow_loop():
    predictions = drawn(120)
    found = abstention_of(predictions)
    confidence = predictions.probabilities.max(1).values.tolist()
    right = predictions.right.tolist()
    ranked = sorted(zip(confidence, right, strict=True), key=lambda pair: -pair[0])
    shares = [sum(hit for _, hit in ranked[:k]) / k for k in range(1, 121)]
    assert list(found.accuracy) == pytest.approx(shares)
    assert found.coverage == pytest.approx([k / 120 for k in range(1, 121)])
    assert found.confidence == pytest.approx([c for c, _ in ranked])
    assert found.area == pytest.approx(1 - sum(shares) / 120)
    assert found.accuracy[-1] == evaluate(predictions, split="test").top1
    assert not found.operating


def test_many_pictures_give_a_short_curve_with_both_ends():
    found = abstention_of(drawn(5000))
    assert len(found.coverage) == 200
    assert found.coverage[0] == 1 / 5000
    assert found.coverage[-1] == 1


def test_a_threshold_is_chosen_on_validation_and_told_of_the_others():
    validation, test = honest(seed=5), honest(seed=6)
    found = abstention_of(test, validation=validation)
    (one,) = [o for o in found.operating if o.wanted == 0.90]
    kept = validation.probabilities.max(1).values >= one.min_confidence
    assert float(validation.right[kept].float().mean()) >= 0.90
    kept = test.probabilities.max(1).values >= one.min_confidence
    assert one.coverage == pytest.approx(float(kept.float().mean()))
    assert one.accuracy == pytest.approx(float(test.right[kept].float().mean()))
    assert 0.85 < one.accuracy < 0.95


def test_an_accuracy_out_of_reach_has_no_threshold():
    predictions = drawn()
    wrong = Predictions(
        predictions.paths,
        (predictions.predicted + 1) % 7,
        predictions.logits,
        predictions.classes,
    )
    assert threshold_for(wrong, 0.9) is None
    assert threshold_for(predictions, 0.0) == pytest.approx(
        float(predictions.probabilities.max(1).values.min())
    )


def test_a_threshold_is_not_chosen_on_a_handful():
    right = honest(40)
    right = Predictions(right.paths, right.predicted, right.logits, right.classes)
    assert threshold_for(right, 0.9) is not None
    assert threshold_for(right.rows(torch.arange(29)), 0.9) is None


def test_equal_confidences_are_kept_or_left_out_together():
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    labels = torch.tensor([0, 0, 1, 0])
    predictions = Predictions(("a", "b", "c", "d"), labels, logits, ("x", "y"))
    assert threshold_for(predictions, 0.9, least=1) is None, "of the three equal ones one is wrong"
    assert threshold_for(predictions, 0.7, least=1) == pytest.approx(
        float(predictions.probabilities[3, 0])
    )


@pytest.mark.parametrize(("n", "fitted"), [(1, False), (3, False), (29, False), (30, True)])
def test_below_the_stated_evidence_the_temperature_is_one(n, fitted):
    logits = torch.tensor([[4.0, 0.0, 0.0]]).repeat(n, 1)
    labels = torch.zeros(n, dtype=torch.int64)
    assert (fit_temperature(logits, labels) != 1.0) is fitted
    assert LEAST_EVIDENCE == 30


def test_a_large_set_has_the_temperature_and_band_of_all_its_pictures(monkeypatch):
    predictions = honest(4000)
    whole = fit_temperature(predictions.logits * 3, predictions.labels)
    confidence = predictions.probabilities.max(1).values
    band = chance_band(confidence)
    monkeypatch.setattr("transferscope.evaluation.calibration._LOGITS", 4000)
    monkeypatch.setattr("transferscope.evaluation.calibration._EXACT", 10)
    assert fit_temperature(predictions.logits * 3, predictions.labels) == pytest.approx(whole, 0.1)
    assert chance_band(confidence) == pytest.approx(band, rel=0.1)
