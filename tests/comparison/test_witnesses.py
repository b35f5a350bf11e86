"""Witnesses of change: each derived slowly, and what all of them must do."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter

import numpy as np
import pytest

from transferscope.comparison.nulls import freedom_of, half_differences, interval, split_halves
from transferscope.comparison.witnesses import WITNESSES
from transferscope.comparison.witnesses.best_class import best_class_auc, class_aucs
from transferscope.comparison.witnesses.class_information import class_information
from transferscope.comparison.witnesses.exemplar_turnover import exemplar_turnover
from transferscope.comparison.witnesses.mutual_information import mutual_information
from transferscope.comparison.witnesses.response_change import response_change

GAINS = ("class_information", "mutual_information", "best_class_auc")


def sample(
    classes: int,
    each: int,
    channels: int,
    *,
    shared: float = 0.7,
    before: float = 0.5,
    after: float = 1.0,
    skew: float = 0.2,
    seed: int = 0,
):
    """Responses whose class means have a spread of `before` and `after`, and noise of spread 1.

    `shared` is the correlation of the noise of both networks; all channels are draws of one law.
    """
    labels = np.repeat(np.arange(classes), each)
    means = np.random.default_rng(7).normal(size=(2, classes))
    means[:, 0] = 4.0  # the one class that a channel is highest for
    rng = np.random.default_rng(seed)
    one, two = rng.normal(size=(2, len(labels), channels))
    base = before * means[0, labels][:, None] + one
    tuned = after * means[1, labels][:, None] + shared * one + math.sqrt(1 - shared**2) * two
    return np.exp(skew * base), np.exp(skew * tuned), labels


# ---------------------------------------------------------------------------- each, slowly


def test_response_change_is_what_a_straight_line_leaves_unexplained():
    base, tuned, labels = sample(5, 8, 4)
    found = response_change(base, tuned, labels)
    for channel in range(4):
        x, y = base[:, channel], tuned[:, channel]
        slope, offset = np.polyfit(x, y, 1)
        left = ((y - slope * x - offset) ** 2).sum() / ((y - y.mean()) ** 2).sum()
        assert found[channel] == pytest.approx(left)
    turned = response_change(base, 3 - 7 * base, labels)
    assert turned == pytest.approx(np.zeros(4), abs=1e-12)
    still = np.full_like(base, 0.1)
    assert (response_change(still, still + 1, labels) == 0).all()
    assert (response_change(base, still, labels) == 1).all()


def test_class_information_is_one_less_the_ratio_of_mean_squares():
    responses, _, labels = sample(4, 6, 3, before=0.6)
    found = class_information(responses, labels)
    for channel in range(3):
        values = responses[:, channel].tolist()
        groups = [[v for v, k in zip(values, labels, strict=True) if k == one] for one in range(4)]
        within = sum(sum((v - statistics.fmean(g)) ** 2 for v in g) for g in groups) / (24 - 4)
        assert found[channel] == pytest.approx(1 - within / statistics.variance(values))
    assert class_information(np.full((24, 1), 0.1), labels) == 0
    assert class_information(labels[:, None] * 2.0, labels) == pytest.approx(1)


def test_class_information_is_zero_on_average_where_classes_mean_nothing():
    for classes, each in ((36, 10), (3, 5)):
        values = np.random.default_rng(0).normal(size=(classes * each, 3000))
        labels = np.repeat(np.arange(classes), each)
        found = class_information(values, labels)
        assert abs(found.mean()) < 4 * found.std() / math.sqrt(3000)
        assert 0.3 < (found < 0).mean() < 0.7


def test_mutual_information_is_counted_and_freed_of_its_bias():
    responses, _, labels = sample(3, 16, 2, before=1.0)
    found = mutual_information(responses, labels)
    for channel in range(2):
        values = responses[:, channel]
        cuts = np.quantile(values, (0.25, 0.5, 0.75))
        pairs = [(int(sum(v > cuts)), int(k)) for v, k in zip(values, labels, strict=True)]
        both, bins, n = Counter(pairs), Counter(b for b, _ in pairs), len(pairs)
        plain = sum(m / n * math.log(m / n / (bins[b] / n * 16 / n)) for (b, _), m in both.items())
        relevant = [sum((b, k) in both for b in range(4)) for k in range(3)]
        bias = (sum(r - 1 for r in relevant) - (len(bins) - 1)) / (2 * n)
        assert found[channel] == pytest.approx(plain - bias)
    noise = np.random.default_rng(1).normal(size=(360, 500))
    assert abs(mutual_information(noise, np.repeat(np.arange(10), 36)).mean()) < 0.005
    order = mutual_information(responses**3, labels)
    assert order == pytest.approx(found), "only the order of the responses counts"


def test_areas_are_shares_of_pairs_in_the_right_order():
    responses, _, labels = sample(3, 6, 2)
    responses = responses.round(1)  # some are equal
    found = class_aucs(responses, labels, np.arange(4))
    for channel, one in itertools.product(range(2), range(3)):
        inside = responses[labels == one, channel]
        outside = responses[labels != one, channel]
        right = [(a > b) + (a == b) / 2 for a in inside for b in outside]
        assert found[one, channel] == pytest.approx(statistics.fmean(right))
    assert (found[3] == 0.5).all(), "a class without pictures"


def test_the_best_class_is_not_judged_on_the_pictures_that_chose_it():
    noise = np.random.default_rng(2).normal(size=(200, 400))
    labels = np.repeat(np.arange(20), 10)
    assert abs(best_class_auc(noise, labels).mean() - 0.5) < 0.01
    assert class_aucs(noise, labels, np.arange(20)).max(0).mean() > 0.65, "which the largest is"
    assert best_class_auc(labels[:, None] == 3.0, labels) == 1


def test_turnover_counts_the_exemplars_that_are_others():
    base, tuned, labels = sample(6, 10, 3)
    found = exemplar_turnover(base, tuned, labels)
    for channel in range(3):
        best = [set(sorted(range(60), key=lambda n: -v[n, channel])[:6]) for v in (base, tuned)]
        assert found[channel] == pytest.approx(len(best[1] - best[0]) / 6)


# ---------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("name", WITNESSES)
def test_a_network_against_itself_gives_nothing(name):
    base, _, labels = sample(6, 10, 20)
    measure = WITNESSES[name].measure
    values = measure(base, base, labels)
    assert values.dtype == np.float64
    assert values.shape == (20,)
    assert values == pytest.approx(np.zeros(20), abs=1e-12)
    differences = half_differences(measure, base, base, labels, split_halves(labels, 10, 0))
    assert differences == pytest.approx(np.zeros((10, 20)), abs=1e-12)


@pytest.mark.parametrize("name", WITNESSES)
def test_it_takes_channels_one_by_one_and_leaves_its_arguments(name):
    base, tuned, labels = sample(6, 9, 5)
    before = base.copy(), tuned.copy()
    measure = WITNESSES[name].measure
    whole = measure(base, tuned, labels)
    single = [measure(base[:, [c]], tuned[:, [c]], labels)[0] for c in range(5)]
    assert whole == pytest.approx(single)
    assert np.array_equal(base, before[0])
    assert np.array_equal(tuned, before[1])
    assert measure(base * 3, tuned * 5, labels) == pytest.approx(whole), "units do not matter"


@pytest.mark.parametrize("name", WITNESSES)
def test_dead_channels_and_classes_of_one_picture_are_no_trouble(name):
    base, tuned, labels = sample(6, 9, 3)
    tuned[:, 1] = base[:, 1] = 0.1
    tuned[:, 2] = 0.0
    labels[-1] = 17
    measure = WITNESSES[name].measure
    with np.errstate(all="raise"):
        values = measure(base, tuned, labels)
        differences = half_differences(measure, base, tuned, labels, split_halves(labels, 10, 0))
    assert np.isfinite(values).all()
    assert np.isfinite(differences).all()
    assert values[1] == 0


@pytest.mark.parametrize("name", GAINS)
def test_gains_grow_with_what_is_learned(name):
    measure = WITNESSES[name].measure
    little = measure(*sample(10, 20, 100, after=0.6)).mean()
    much = measure(*sample(10, 20, 100, after=1.5)).mean()
    assert 0 < little < much
    lost = measure(*sample(10, 20, 100, before=1.0, after=0.5)).mean()
    assert lost < 0


@pytest.mark.parametrize("name", WITNESSES)
def test_intervals_cover_the_truth(name):
    """The channels are independent samples of one law: the share of intervals that hold its value."""
    measure = WITNESSES[name].measure
    truth = float(measure(*sample(10, 6000, 1, seed=1))[0])
    base, tuned, labels = sample(10, 36, 600)
    values = measure(base, tuned, labels)
    differences = half_differences(measure, base, tuned, labels, split_halves(labels, 40, 0))
    low, high = interval(values, differences, freedom_of(labels, 40))
    covered = ((low <= truth) & (truth <= high)).mean()
    assert 0.93 - 0.02 <= covered <= 0.97 + 0.02, (
        f"{covered:.3f}; 0.02 is what 600 samples leave open"
    )
    assert abs(values.mean() - truth) < 0.3 * values.std(), "the bias is small beside the error"
