"""Units that answer alike, within a layer and across networks."""

from __future__ import annotations

import json

import numpy as np
import pytest

from transferscope.comparison.neighbours import (
    UnitNeighbours,
    correlations,
    largest_by_chance,
    unit_neighbours,
)
from transferscope.errors import InputError


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_correlations_are_numpys():
    x, y = normal(20, 3), normal(20, 4, seed=1)
    assert correlations(x, y) == pytest.approx(np.corrcoef(x.T, y.T)[:3, 3:])
    y[:, 2] = 0.1
    assert (correlations(x, y)[:, 2] == 0).all()


def test_units_that_changed_places_are_found():
    base = normal(80, 12)
    base[:, 5] = base[:, 4] + 0.3 * base[:, 5]  # two that answer alike
    tuned = base[:, [1, 0, *range(2, 12)]] + 0.2 * normal(80, 12, seed=1)
    swapped, kept, paired = unit_neighbours(base, tuned, [0, 7, 4], count=2)
    assert swapped.in_base[0].channel == 1
    assert swapped.rank > 1
    assert abs(swapped.own) < swapped.by_chance < swapped.in_base[0].correlation
    assert (kept.rank, kept.in_base[0].channel) == (1, 7)
    assert kept.own == kept.in_base[0].correlation > 0.9
    assert paired.within_base[0].channel == paired.within_tuned[0].channel == 5
    assert all(one.channel != 4 for one in paired.within_base), "not itself"
    assert len(paired.within_base) == 2
    again = UnitNeighbours.from_dict(json.loads(json.dumps(swapped.to_dict())))
    assert again == swapped


def test_a_network_against_itself_and_noise():
    base = normal(60, 30)
    for one in unit_neighbours(base, base, list(range(30))):
        assert (one.rank, one.in_base[0].channel) == (1, one.channel)
        assert one.own == pytest.approx(1)
    beyond = [
        correlations(normal(60, 1, seed=s), normal(60, 30, seed=1000 + s)).max()
        > largest_by_chance(60, 30)
        for s in range(600)
    ]
    assert 0.025 <= np.mean(beyond) <= 0.08


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="6 channels in one network and 5"):
        unit_neighbours(normal(9, 6), normal(9, 5), [0])
    with pytest.raises(InputError, match="no channel 6"):
        unit_neighbours(normal(9, 6), normal(9, 6), [6])
