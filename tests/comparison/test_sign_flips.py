"""Sign flips: p, interval and power against slow derivations and simulated truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from transferscope.comparison.sign_flips import (
    FLIPS,
    detectable_mean_share,
    detectable_ratio,
    effective_dimensions,
    flip_test,
    mean_apart,
    share_weight,
    squared_distance,
)

DIMENSIONS = 12


def differences(
    draws: int, seeds: int, distance: float = 0.0, *, uneven: bool = False, seed: int = 0
) -> np.ndarray:
    """(draws, seeds, D): variance 1 in all, and means of this squared length in a direction of their own.

    Uneven: the variance lies mostly in a few directions, and has heavy tails.
    """
    rng = np.random.default_rng(seed)
    weight = 1 / np.arange(1, 41) if uneven else np.ones(DIMENSIONS)
    noise = rng.normal(size=(draws, seeds, len(weight))) * np.sqrt(weight / weight.sum())
    if uneven:
        noise *= np.sqrt(1 / rng.gamma(2, 1, (draws, seeds, 1)))
    mean = rng.normal(size=(draws, 1, len(weight)))
    return noise + mean * math.sqrt(distance) / np.linalg.norm(mean, axis=2, keepdims=True)


def products_of(values: np.ndarray) -> np.ndarray:
    return values @ values.transpose(0, 2, 1)


def found_share(seeds: int, distance: float, draws: int = 1500, **options) -> float:
    each = products_of(differences(draws, seeds, distance, **options))
    return float(np.mean([flip_test([one])[0] <= 0.05 for one in each]))


def pooled_p(channels: int, seeds: int, distance: float, draws: int, seed: int = 0) -> np.ndarray:
    """p of several channels together, whose differences are of very different size."""
    rng = np.random.default_rng(seed)
    values = differences(draws * channels, seeds, distance, seed=seed)
    values *= np.exp(rng.normal(size=(draws * channels, 1, 1)))
    each = products_of(values).reshape(draws, channels, seeds, seeds)
    return np.array([flip_test(list(one), seed=place)[0] for place, one in enumerate(each)])


def test_p_counts_the_flips_whose_distance_is_as_large():
    for seeds in (2, 3, 5):
        for values in differences(10, seeds, 0.3, seed=seeds):
            p, smallest = flip_test([values @ values.T])

            def distance(signs, values=values):
                turned = values * np.array(signs)[:, None]
                pairs = itertools.permutations(range(len(values)), 2)
                return np.mean([turned[i] @ turned[j] for i, j in pairs])

            every = [distance(s) for s in itertools.product((1, -1), repeat=seeds)]
            own = distance([1] * seeds)
            assert p == pytest.approx(np.mean([one >= own - 1e-12 for one in every]))
            assert smallest == 1 / 2 ** (seeds - 1)
            assert squared_distance(values @ values.T)[0] == pytest.approx(own)


def test_all_flips_of_several_channels_are_tried_or_many_drawn():
    values = differences(3, 3, 0.5)
    few = products_of(values)
    p, smallest = flip_test(list(few))
    assert smallest == 1 / 2**6
    sums = [0.0]
    for one in few:
        signs = [np.array((1, *rest)) for rest in itertools.product((1, -1), repeat=2)]
        own = [mean_apart(one * np.outer(s, s)) * share_weight(one) for s in signs]
        sums = [before + here for before in sums for here in own]
    assert p == pytest.approx(np.mean([one >= sums[0] - 1e-12 for one in sums]))
    many = list(products_of(differences(10, 4, 0.02)))
    drawn, least = flip_test(many)
    assert least == 1 / FLIPS
    assert drawn == flip_test(many)[0] != flip_test(many, seed=1)[0]
    assert drawn == pytest.approx(flip_test(many, seed=1)[0], abs=0.05)


def test_drawings_that_do_not_differ_have_no_evidence():
    assert flip_test([np.zeros((6, 6))])[0] == 1
    assert flip_test([np.zeros((2, 2))] * 20)[0] == 1
    assert squared_distance(np.zeros((4, 4))) == (0, 0, 0)
    assert detectable_mean_share([np.zeros((4, 4))]) is None


@pytest.mark.parametrize("seeds", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("uneven", [False, True])
def test_p_is_not_too_small_where_nothing_changed(seeds, uneven):
    each = products_of(differences(1500, seeds, uneven=uneven, seed=seeds))
    p = np.array([flip_test([one])[0] for one in each])
    for level in (0.05, 0.125, 0.25, 0.5):
        error = math.sqrt(level * (1 - level) / len(p))
        reached = math.floor(level * 2 ** (seeds - 1)) / 2 ** (seeds - 1)
        assert (p <= level).mean() <= level + 3 * error
        assert (p <= level).mean() == pytest.approx(reached, abs=3.5 * error)  # nor too large


@pytest.mark.parametrize(("channels", "seeds"), [(16, 2), (16, 3), (6, 4), (4, 8)])
def test_p_of_channels_together_is_not_too_small_where_nothing_changed(channels, seeds):
    p = pooled_p(channels, seeds, 0.0, draws=300)
    assert (p <= 0.05).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / len(p))
    assert p.mean() == pytest.approx(0.5, abs=0.06)


def test_power_grows_as_stated():
    for seeds in (6, 8):
        ratio = detectable_ratio(seeds, DIMENSIONS)
        assert found_share(seeds, ratio) == pytest.approx(0.8, abs=0.05)
        assert found_share(seeds, ratio / 4) < 0.5
        assert found_share(seeds, 4 * ratio) > 0.99
    assert detectable_ratio(8, DIMENSIONS) < detectable_ratio(6, DIMENSIONS)
    assert detectable_ratio(8, 4 * DIMENSIONS) < detectable_ratio(8, DIMENSIONS)


def test_too_few_seeds_can_find_nothing_however_far():
    for seeds in (2, 3, 4, 5):
        assert detectable_ratio(seeds, DIMENSIONS) is None
        assert found_share(seeds, 1e6, draws=20) == 0
    assert found_share(6, 1e6, draws=20) == 1


@pytest.mark.parametrize(("channels", "seeds"), [(16, 2), (16, 4)])
def test_channels_together_find_what_each_alone_cannot(channels, seeds):
    def outcomes(distance: float, draws: int) -> np.ndarray:
        """Mean share, found or not, and what is called detectable, of every draw."""
        each = products_of(differences(draws * channels, seeds, distance, seed=seeds))
        return np.array(
            [
                (
                    np.mean([mean_apart(x) * share_weight(x) for x in one]),
                    flip_test(list(one), seed=place)[0] <= 0.05,
                    detectable_mean_share(list(one)),
                )
                for place, one in enumerate(each.reshape(draws, channels, seeds, seeds))
            ],
            float,
        )

    stated = outcomes(0.0, 50)[:, 2].mean()
    distances = [factor * stated / (1 - stated) for factor in (0.9, 1.15, 1.4)]
    shares, powers, _ = np.transpose([outcomes(one, 200).mean(0) for one in distances])
    assert np.interp(stated, shares, powers) == pytest.approx(0.8, abs=0.06)
    assert powers[0] < powers[1] < powers[2]
    assert found_share(seeds, distances[1], draws=100) < 0.2 * powers[1]


def test_effective_dimensions_count_equal_directions():
    for seeds in (3, 6):
        each = list(products_of(differences(2000, seeds, 0.4)))
        assert effective_dimensions(each) == pytest.approx(DIMENSIONS, rel=0.15)
    assert effective_dimensions(list(products_of(differences(50, 2)))) is None
    assert effective_dimensions([np.zeros((4, 4))]) is None


@pytest.mark.parametrize("seeds", [3, 4, 8])
@pytest.mark.parametrize("distance", [0.0, 0.3, 1.0, 3.0])
def test_the_interval_holds_the_distance_at_least_as_often_as_it_says(seeds, distance):
    each = products_of(differences(2000, seeds, distance))
    ends = np.array([squared_distance(one) for one in each], float)
    assert ends[:, 0].mean() == pytest.approx(distance, abs=0.06)
    covered = ((ends[:, 1] <= distance) & (distance <= ends[:, 2])).mean()
    assert 0.93 <= covered <= (0.98 if distance >= 1 else 1)
    assert squared_distance(each[0][:2, :2])[1:] == (None, None)
