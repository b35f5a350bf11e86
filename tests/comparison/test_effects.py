"""What an intervention does: means over pictures, their intervals and one-sided p, changes of accuracy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest, t, ttest_1samp
from torch import nn

from conftest import tiny_classifier
from transferscope.comparison.effects import (
    accuracy_interval,
    answers_of,
    check_pair,
    effects_of,
    mean_test,
)
from transferscope.comparison.nulls import half_differences, split_halves
from transferscope.copies import copied
from transferscope.errors import InputError, UnknownName

ONE_CLASS = np.zeros(40, np.int64)


def skewed(rng: np.random.Generator, labels: np.ndarray, samples: int) -> np.ndarray:
    """Changes of loss as patching gives them, (N, samples) with mean 0: mostly small, a few large, and of
    another spread in every class."""
    spread = 0.2 + 0.4 * (labels % 5)
    mean = 0.3 * (labels % 5) - 0.3 * (labels % 5).mean()
    draws = rng.lognormal(0, 0.9, (len(labels), samples)) - np.exp(0.9**2 / 2)
    return mean[:, None] + spread[:, None] * draws


# ---------------------------------------------------------------------------- means


def test_a_symmetric_sample_has_students_interval_and_p():
    half = np.abs(np.random.default_rng(0).normal(size=(20, 3)))
    values = np.concatenate([half, -half]) + 0.1
    found, known = mean_test(values, ONE_CLASS), ttest_1samp(values, 0, alternative="greater")
    assert found.value == pytest.approx([0.1] * 3)
    assert found.p == pytest.approx(known.pvalue)
    reach = t.ppf(0.975, 39) * values.std(0, ddof=1) / np.sqrt(40)
    assert found.low == pytest.approx(0.1 - reach)
    assert found.high == pytest.approx(0.1 + reach)


def test_the_variance_is_the_one_that_half_samples_estimate():
    """Within classes, of which each here is symmetric about a mean of its own."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(4), 10)
    half = rng.normal(size=(20, 3)) * (1 + labels[:20, None])
    values = np.concatenate([half, -half]) + 3 * labels[:, None]
    differences = half_differences(
        lambda _, changed, __: changed.mean(0),
        values,
        values,
        labels,
        split_halves(labels, 4000, 0),
    )
    slow = sum(values[labels == k].var(0, ddof=1) * 10 for k in range(4)) / 40**2
    assert (differences**2).mean(0) == pytest.approx(slow, rel=0.1)
    found = mean_test(values, labels)
    assert found.high - found.low == pytest.approx(2 * t.ppf(0.975, 36) * np.sqrt(slow))


def test_skewness_moves_the_interval_to_the_long_tail():
    """Re-derived from Hall's polynomial, the interval's ends as roots of it."""
    values = np.random.default_rng(1).lognormal(0, 1, (40, 1))
    found = mean_test(values, ONE_CLASS)
    mean, error = values.mean(), values.std(ddof=1) / np.sqrt(40)
    third = ((values - mean) ** 3).sum() * 40 / (39 * 38)
    skew = third / 40**2 / error**3

    def bent(x: float) -> float:
        return x + skew * (x**2 / 3 + 1 / 6) + skew**2 * x**3 / 27

    assert found.p[0] == pytest.approx(t.sf(bent(mean / error), 39))
    for end, quantile in ((found.low[0], 0.975), (found.high[0], 0.025)):
        assert bent((mean - end) / error) == pytest.approx(t.ppf(quantile, 39))
    assert found.high[0] - mean > mean - found.low[0]


@pytest.mark.parametrize("shift", [-2.0, 0.0, 0.03, 0.6, 3.0])
def test_interval_and_p_say_the_same(shift):
    rng = np.random.default_rng(2)
    for sign in (1, -1):
        values = sign * rng.lognormal(0, 1, (40, 200)) + shift
        found = mean_test(values, ONE_CLASS)
        assert np.array_equal(found.low > 0, found.p < 0.025)
        assert np.array_equal(found.high < 0, found.p > 0.975)


@pytest.mark.parametrize("sign", [1, -1], ids=["long tail above", "long tail below"])
@pytest.mark.parametrize(("classes", "each"), [(10, 20), (36, 10)])
def test_intervals_of_skewed_changes_cover_the_truth(classes, each, sign):
    labels = np.repeat(np.arange(classes), each)
    values = sign * skewed(np.random.default_rng(0), labels, 4000)
    truth = sign * (0.3 * (labels % 5) - 0.3 * (labels % 5).mean()).mean()
    found = mean_test(values, labels)
    covered = ((found.low <= truth) & (truth <= found.high)).mean()
    assert 0.93 <= covered <= 0.97
    assert kstest(found.p, "uniform").statistic < 0.03
    assert (found.p < 0.005).mean() < 0.0125, (
        "of t itself .020 to .024 where the long tail is below"
    )


def test_nothing_that_changes_is_no_evidence():
    values = np.zeros((40, 3))
    values[:, 1], values[7, 2] = 0.2, 0.5
    found = mean_test(values, ONE_CLASS)
    assert found.p[0] == 1
    assert (found.low[0], found.high[0]) == (0, 0)
    assert 0 < found.p[1] < 1e-9
    assert found.p[2] > 0.02, "one picture of forty says little"


def test_a_class_of_one_picture_counts_as_a_draw_from_all():
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.repeat([0, 1], 15), np.arange(2, 12)])
    found = mean_test(rng.normal(size=(40, 2000)), labels)
    assert 0.93 <= ((found.low <= 0) & (found.high >= 0)).mean() <= 0.98
    alone = mean_test(rng.normal(size=(3, 5)), np.arange(3))
    assert np.isfinite(alone.low).all()


# ---------------------------------------------------------------------------- accuracy


@pytest.mark.parametrize(("won", "lost"), [(0.01, 0.02), (0.05, 0.05), (0.0, 0.1)])
def test_intervals_of_accuracy_cover_the_truth(won, lost):
    drawn = np.random.default_rng(0).multinomial(200, [won, lost, 1 - won - lost], 4000)
    low, high = accuracy_interval(drawn[:, 0], drawn[:, 1], 200)
    assert 0.93 <= ((low <= won - lost) & (won - lost <= high)).mean() <= 0.99


def test_an_intervention_that_changes_no_answer_still_has_an_interval():
    low, high = accuracy_interval(np.array([0]), np.array([0]), 200)
    assert low[0] == -high[0]
    assert 0.005 < high[0] < 0.02
    low, high = accuracy_interval(np.array([6]), np.array([2]), 48)
    middle, reach = 4 / 50, 1.959964 * math.sqrt((9 / 50 - (4 / 50) ** 2) / 50)
    assert (low[0], high[0]) == pytest.approx((middle - reach, middle + reach))


def test_effects_count_what_was_won_and_lost():
    labels = np.arange(6) % 2
    before = np.array([1, 1, 0, 0, 1, 1], bool)
    after = np.array([[1, 1, 0, 0, 1, 1], [0, 0, 1, 0, 0, 1]], bool).T
    loss = np.random.default_rng(0).normal(size=(6, 2))
    first, second = effects_of(loss, before, after, labels)
    assert first.accuracy == 0
    assert second.accuracy == pytest.approx((1 - 3) / 6)
    assert second.accuracy_low < second.accuracy < second.accuracy_high
    assert (first.loss, second.loss) == pytest.approx(loss.mean(0))


# ---------------------------------------------------------------------------- answers, pairs


def test_answers_are_those_of_cross_entropy_at_the_temperature():
    logits = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(9) % 4
    found, moved = (answers_of(one, labels, 0.5) for one in (logits, logits + 7))
    known = nn.functional.cross_entropy(logits / 0.5, labels, reduction="none")
    assert found.loss == pytest.approx(known.numpy(), rel=1e-5)
    assert np.array_equal(found.right, (logits.argmax(1) == labels).numpy())
    assert moved.logit == pytest.approx(found.logit, abs=1e-5), "a shift of all logits is no change"
    assert found.logit[0] == pytest.approx(float(logits[0, 0] - logits[0].mean()) / 0.5, rel=1e-5)


def test_pairs_that_cannot_be_crossed_are_refused():
    base, labels = tiny_classifier(), np.arange(8) % 4
    check_pair(base, base, "stages.0", 8, labels)
    with pytest.raises(InputError, match="5 classes\\) do not have the same layers"):
        check_pair(base, tiny_classifier(classes=5), "stages.0", 8, labels)
    other = base.with_network(copied(base.network))
    other.network.stem.weight.data += 1
    with pytest.raises(InputError, match=r"differ up to layer 'stages.0'"):
        check_pair(base, other, "stages.0", 8, labels)
    with pytest.raises(InputError, match="9 pictures and 8 labels"):
        check_pair(base, base, "stages.0", 9, labels)
    with pytest.raises(InputError, match="of 4 classes"):
        check_pair(base, base, "stages.0", 8, labels + 1)
    with pytest.raises(UnknownName, match=r"stages\.9"):
        check_pair(base, base, "stages.9", 8, labels)
