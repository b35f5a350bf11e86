"""Measures of whole layers, between networks of any width."""

from __future__ import annotations

import json

import numpy as np
import pytest

from transferscope.comparison.layer_measures import LayerMeasures, layer_measures
from transferscope.comparison.separation import class_separation
from transferscope.errors import InputError

CLASSES, EACH, WIDTH = 8, 15, 40
LABELS = np.repeat(np.arange(CLASSES), EACH)


def networks(seed: int, gain: float = 1.0, controls: int = 3):
    """A base; a tuned network with its class means `gain` times as far apart; controls that only move."""
    rng = np.random.default_rng(seed)
    means, noise = rng.normal(0, 0.5, (CLASSES, WIDTH)), rng.normal(size=(len(LABELS), WIDTH))

    def of(factor: float) -> np.ndarray:
        moved = rng.normal(0, 0.15, means.shape)
        return 1 + (means * factor + moved)[LABELS] + noise + 0.2 * rng.normal(size=noise.shape)

    return 1 + means[LABELS] + noise, of(gain), [of(1.0) for _ in range(controls)]


def test_a_network_against_itself():
    base, _, controls = networks(0)
    found = layer_measures(base, base, LABELS, controls=controls, draws=10)
    assert (found.cka.value, found.cka.low, found.cka.high) == pytest.approx((1, 1, 1))
    assert found.procrustes.value == pytest.approx(0, abs=1e-9)
    gain = found.separation_gain
    assert (gain.value, gain.low, gain.high, found.p) == (0, 0, 0, 1)


def test_networks_of_other_widths_compare_and_one_that_gained_is_told_from_the_controls():
    base, tuned, controls = networks(1, gain=2.0)
    wide = np.hstack([tuned, tuned[:, :30]])
    found = layer_measures(base, wide, LABELS, controls=controls, draws=40)
    assert found.channels == (WIDTH, WIDTH + 30)
    assert found.separation_tuned.value == class_separation(wide, LABELS)
    assert found.separation_gain.low > max(found.control_gains)
    assert found.p is not None
    assert found.p < 0.01
    assert 0 < found.procrustes.value < found.unrelated < 2
    assert 0 < found.cka.low < found.cka.value < found.cka.high < 1
    assert LayerMeasures.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_networks_that_have_nothing_in_common_are_as_far_apart_as_shuffled_pictures():
    noise = np.random.default_rng(0).normal(size=(len(LABELS), 300))
    found = layer_measures(networks(0)[0], noise, LABELS, draws=20)
    assert found.cka.low < 0 < found.cka.high
    assert found.procrustes.value == pytest.approx(found.unrelated, abs=0.03)
    assert found.unrelated < 1.6, "with fewer pictures than features noise is not 2 apart"
    assert found.separation_tuned.low < 0 < found.separation_tuned.high
    assert found.p is None


def test_a_further_control_is_rarely_beyond_the_controls():
    p = [
        layer_measures(base, tuned, LABELS, controls=controls, draws=10, seed=seed).p
        for seed in range(40)
        for base, tuned, controls in [networks(seed)]
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.1
    assert np.mean(np.array(p) <= 0.5) > 0.2


@pytest.mark.slow
def test_the_intervals_hold_the_truth():
    """The truth is the mean over samples: what each measure is for so many pictures."""
    found = []
    for seed in range(150):
        rng = np.random.default_rng([7, seed])
        means = np.random.default_rng(3).normal(0, 0.5, (2, CLASSES, WIDTH))
        noise = rng.normal(size=(2, len(LABELS), WIDTH))
        base = 1 + means[0][LABELS] + noise[0]
        tuned = 1 + (means[0] + means[1])[LABELS] + 0.8 * noise[0] + 0.6 * noise[1]
        found.append(layer_measures(base, tuned, LABELS, draws=60, seed=seed))
    for name in ("cka", "procrustes", "separation_base", "separation_gain"):
        estimates = [getattr(one, name) for one in found]
        truth = np.mean([one.value for one in estimates])
        held = np.mean([one.low <= truth <= one.high for one in estimates])
        print(name, round(float(truth), 3), held)
        assert 0.88 <= held <= 1, name


def test_what_does_not_fit_is_refused():
    base, tuned, _ = networks(0)
    with pytest.raises(InputError, match="other to 119"):
        layer_measures(base, tuned[:-1], LABELS)
    with pytest.raises(InputError, match="7 pictures; this takes 8"):
        layer_measures(base[:7], tuned[:7], LABELS[:7])
    with pytest.raises(InputError, match="5 labels"):
        layer_measures(base, tuned, LABELS[:5])
