"""Whether drawings show a change: from embeddings to records and sentences."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from transferscope.comparison.drawings import (
    DrawingTest,
    PairedDrawings,
    PooledDrawingTest,
    chance_pairs,
    chance_similarities,
    drawing_sentence,
    drawing_tests,
    paired_drawings,
    pooled_drawing_test,
    pooled_sentence,
)
from transferscope.errors import InputError

ALL = [True] * 8


def embeddings(
    channels: int, seeds: int, shift: float = 0.0, *, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """(channels, seeds, D) of base and tuned: a start that a seed's drawings share, noise, and a shift."""
    draw = torch.Generator().manual_seed(seed)
    own = torch.randn(channels, 1, 20, generator=draw)
    start, *noise = torch.randn(3, channels, seeds, 20, generator=draw)
    moved = torch.randn(channels, 1, 20, generator=draw)
    base = own + 0.3 * start + 0.3 * noise[0]
    tuned = own + shift * moved + 0.3 * start + 0.3 * noise[1]
    return functional.normalize(base, dim=2), functional.normalize(tuned, dim=2)


def drawn(channels: int, seeds: int, shift: float = 0.0, *, seed: int = 0) -> list[PairedDrawings]:
    base, tuned = embeddings(channels, seeds, shift, seed=seed)
    good = [True] * seeds
    return [paired_drawings("blocks.6", c, base[c], tuned[c], good) for c in range(channels)]


def test_u_is_what_networks_lack_of_the_similarity_within_each():
    base, tuned = embeddings(1, 5, 0.4)
    test = drawing_tests([paired_drawings("blocks.6", 3, base[0], tuned[0], ALL[:5])])[0]

    def mean(x, y):
        return np.mean([float(x[i] @ y[j]) for i, j in itertools.permutations(range(5), 2)])

    assert test.similarity == pytest.approx(mean(base[0], tuned[0]))
    assert test.rerender["base"] == pytest.approx(mean(base[0], base[0]))
    assert test.rerender["tuned"] == pytest.approx(mean(tuned[0], tuned[0]))
    ceiling = test.rerender["base"] + test.rerender["tuned"]
    assert test.u == pytest.approx(ceiling - 2 * test.similarity, rel=1e-4)
    assert test.spread == pytest.approx(2 - ceiling)
    assert test.low < test.u < test.high
    assert (test.layer, test.channel, test.seeds, test.usable) == ("blocks.6", 3, 5, 5)


def test_a_shift_is_found_and_nothing_where_nothing_changed():
    far = drawing_tests(drawn(20, 8, 1.0))
    assert all(test.q <= 0.05 and test.p == test.smallest_p == 1 / 128 for test in far)
    assert all(test.u > test.detectable for test in far)
    assert "look different" in drawing_sentence(far[0])
    none = [drawing_tests(drawn(20, 8, seed=seed)) for seed in range(20)]
    assert sum(any(test.q <= 0.05 for test in tests) for tests in none) <= 3
    assert np.mean([test.p <= 0.05 for tests in none for test in tests]) <= 0.08
    assert np.mean([test.u for tests in none for test in tests]) == pytest.approx(0, abs=1e-3)


def test_a_network_against_itself_has_no_distance():
    base, _ = embeddings(3, 6)
    same = [paired_drawings("a", c, base[c], base[c], ALL[:6]) for c in range(3)]
    assert all(test.u == 0 and test.p == test.q == 1 for test in drawing_tests(same))
    assert pooled_drawing_test("a", same).p == 1


def test_what_is_called_detectable_is_found_four_times_in_five():
    """On drawings and not on the simulation that the figure is from: shifted by what it says."""
    none = [test for seed in range(6) for test in drawing_tests(drawn(20, 8, seed=seed))]
    wanted = np.median([test.detectable for test in none])

    def power(shift: float) -> tuple[float, float]:
        tests = [one for seed in range(15) for one in drawing_tests(drawn(20, 8, shift, seed=seed))]
        return np.mean([t.u for t in tests]), np.mean([t.p <= 0.05 for t in tests])

    found = [power(shift) for shift in (0.1, 0.15, 0.2, 0.25, 0.3)]
    distances, powers = zip(*found, strict=True)
    assert powers == tuple(sorted(powers))
    assert np.interp(wanted, distances, powers) == pytest.approx(0.8, abs=0.08)


def test_few_seeds_say_that_nothing_could_be_found():
    for seeds, least in ((2, "0.500"), (4, "0.125"), (5, "0.0625")):
        test = drawing_tests(drawn(4, seeds, 3.0))[0]
        assert test.detectable is None
        assert test.smallest_p == float(least)
        assert f"with {seeds} seeds: the smallest p that so many can reach is {least}" in (
            drawing_sentence(test)
        )
        pooled = pooled_drawing_test("blocks.6", drawn(16, seeds, 3.0))
        assert pooled.p < 0.001
        assert "look different" in pooled_sentence(pooled)
    quiet = next(
        test for seed in range(9) for test in drawing_tests(drawn(2, 8, seed=seed)) if test.q > 0.05
    )
    assert "would have been found with 80% probability" in drawing_sentence(quiet)
    quiet = pooled_drawing_test("blocks.6", drawn(16, 4, seed=4))
    assert quiet.p > 0.05
    assert "would have been found with 80% probability" in pooled_sentence(quiet)
    alone = pooled_drawing_test("blocks.6", drawn(1, 4, 3.0))
    assert alone.detectable is None
    assert "smallest p" in pooled_sentence(alone)


def test_drawings_that_failed_do_not_enter():
    base, tuned = embeddings(1, 6, 0.5)
    usable = [True, False, True, True, False, True]
    kept = [i for i, good in enumerate(usable) if good]
    broken = tuned.clone()
    broken[0, [1, 4]] = torch.nan
    one = paired_drawings("a", 0, base[0], broken[0], usable)
    few = paired_drawings("a", 0, base[0, kept], tuned[0, kept], ALL[:4])
    assert np.array_equal(one.products, few.products)
    test = drawing_tests([one])[0]
    assert (test.seeds, test.usable) == (6, 4)
    lonely = paired_drawings("a", 1, base[0], broken[0], [False] * 5 + [True])
    tests = drawing_tests([one, lonely])
    assert tests[1].p is tests[1].q is tests[1].u is tests[1].similarity is None
    assert "drawings from 1 of 6 seeds ended 'optimized' in both networks" in tests[1].reason
    assert drawing_sentence(tests[1]).startswith("Not tested: drawings from 1 of 6 seeds")
    assert tests[0].q == tests[0].p
    pooled = pooled_drawing_test("a", [lonely])
    assert pooled.p is None
    assert pooled_sentence(pooled).startswith("Not tested: in none of 1 channel")
    assert pooled_drawing_test("a", [one, lonely]).tested == 1


def test_one_noisy_channel_does_not_hide_the_others():
    calm = drawn(12, 3, 0.4, seed=3)
    noise = torch.randn(1, 3, 20, generator=torch.Generator().manual_seed(0)) * 100
    noisy = paired_drawings("blocks.6", 99, torch.zeros(3, 20), noise[0], ALL[:3])
    assert pooled_drawing_test("a", calm).p <= 0.01
    assert pooled_drawing_test("a", [*calm, noisy]).p <= 0.02


def test_records_survive_json():
    lonely = paired_drawings("a", 1, *(x[0] for x in embeddings(1, 2)), [True, False])
    for test in drawing_tests([*drawn(2, 6), lonely]):
        assert (
            DrawingTest.from_dict(json.loads(json.dumps(test.to_dict(), allow_nan=False))) == test
        )
    pooled = pooled_drawing_test("blocks.6", drawn(4, 3))
    assert PooledDrawingTest.from_dict(json.loads(json.dumps(pooled.to_dict()))) == pooled


def test_embeddings_of_other_shapes_are_refused():
    base, tuned = embeddings(1, 4)
    with pytest.raises(InputError, match="same S seeds"):
        paired_drawings("a", 0, base[0], tuned[0, :3], ALL[:4])
    with pytest.raises(InputError, match="3 usable flags"):
        paired_drawings("a", 0, base[0], tuned[0], ALL[:3])


# ---------------------------------------------------------------------------- chance


def test_chance_pairs_are_of_other_channels_and_seeds_that_were_drawn():
    usable = np.random.default_rng(0).random((50, 4)) < 0.7
    pairs = chance_pairs(usable)
    assert pairs.shape == (400, 2, 2)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert usable[pairs[..., 0], pairs[..., 1]].all()
    assert len(np.unique(pairs.reshape(400, 4), axis=0)) == 400
    assert len(np.unique(pairs[:, 0, 0])) > 45
    assert np.array_equal(pairs, chance_pairs(usable))
    assert not np.array_equal(pairs, chance_pairs(usable, seed=1))
    few = chance_pairs(np.ones((2, 2), bool))
    assert sorted(map(tuple, few.reshape(-1, 4).tolist())) == [
        (0, 0, 1, 1),
        (0, 1, 1, 0),
        (1, 0, 0, 1),
        (1, 1, 0, 0),
    ]
    assert len(chance_pairs(np.zeros((3, 2), bool))) == 0
    assert len(chance_pairs(np.ones((1, 4), bool))) == 0


def test_chance_takes_memory_for_the_pairs_alone():
    import tracemalloc

    usable = np.ones((7168, 4), bool)
    tracemalloc.start()
    pairs = chance_pairs(usable)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(pairs) == 400
    assert peak < 8 * 2**20


def test_chance_similarity_is_the_cosine_of_unrelated_drawings():
    base, tuned = embeddings(6, 3)
    pairs = chance_pairs(np.ones((6, 3), bool), count=20)
    found = chance_similarities(base, tuned, pairs)
    for ((c, s), (k, r)), value in zip(pairs.tolist(), found, strict=True):
        assert float(value) == pytest.approx(float(base[c, s] @ tuned[k, r]), abs=1e-6)
