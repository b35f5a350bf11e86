"""Trends over depth: counted, tested, and none where layers were shuffled."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from scipy.stats import kstest, somersd

from transferscope.comparison.depth_trend import DepthTrend, depth_trend
from transferscope.errors import InputError


def layers(shifts: tuple[float, ...], each: int = 30, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f"b.{place}": rng.normal(shift, 1, each) for place, shift in enumerate(shifts)}


def test_effect_and_p_are_those_of_pairs_of_channels():
    values = layers((0.0, 0.5, 0.2), each=9)
    values["b.1"] = np.append(values["b.1"].round(1), values["b.0"][:3])  # ties
    found = depth_trend(values)
    balance = [
        np.sign(y - x)
        for a, b in itertools.combinations(values, 2)
        for x in values[a]
        for y in values[b]
    ]
    assert found.effect == pytest.approx(np.mean(balance))
    depth = np.repeat([0, 1, 2], [9, 12, 9])
    assert found.effect == pytest.approx(
        somersd(depth, np.concatenate(list(values.values()))).statistic
    )
    step = found.steps[0]
    own = [np.sign(y - x) for x in values["b.0"] for y in values["b.1"]]
    assert (step.shallow, step.deep, step.effect) == ("b.0", "b.1", pytest.approx(np.mean(own)))
    assert found.counts == (9, 12, 9)
    assert found.n == 30


def test_a_fall_but_for_the_last_block_is_told():
    found = depth_trend(layers((3.0, 2.0, 0.0, 1.5)))
    assert found.direction == "falls"
    assert found.high < 0
    assert [step.deep for step in found.exceptions] == ["b.3"]
    assert depth_trend(layers((0.0, 1.0, 2.0))).direction == "rises"
    assert DepthTrend.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_without_a_trend_p_is_even_and_the_interval_holds_zero():
    found = [depth_trend(layers((0.0, 0.0, 0.0), seed=seed)) for seed in range(300)]
    assert kstest([one.p for one in found], "uniform").pvalue > 0.001
    held = np.mean([one.low <= 0 <= one.high for one in found])
    assert 0.91 <= held <= 0.98
    assert np.mean([one.direction is None for one in found]) > 0.9
    assert all(not one.exceptions for one in found if one.direction is None)


def test_the_interval_holds_the_effect():
    truth = np.mean(
        [depth_trend(layers((0.0, 0.8, 0.4), each=300, seed=100 + s)).effect for s in range(40)]
    )
    found = [depth_trend(layers((0.0, 0.8, 0.4), seed=seed)) for seed in range(300)]
    assert 0.91 <= np.mean([one.low <= truth <= one.high for one in found]) <= 0.98


def test_values_that_are_missing_or_all_the_same():
    values = layers((0.0, 2.0))
    with_gaps = {layer: np.append(one, [np.nan, np.inf]) for layer, one in values.items()}
    assert depth_trend(with_gaps) == depth_trend(values)
    same = depth_trend({"a": np.ones(5), "b": np.ones(6)})
    assert (same.effect, same.p, same.direction) == (0, 1, None)
    with pytest.raises(InputError, match="1 of 2 layers"):
        depth_trend({"a": np.ones(5), "b": np.full(4, np.nan)})
