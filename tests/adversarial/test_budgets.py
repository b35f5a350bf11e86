"""What two networks stood: monotone in epsilon, zero of a network against itself, no false certainty."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from conftest import same_state, smooth_pictures, state_of, tiny_classifier
from transferscope.adversarial.attacked import Attacked
from transferscope.adversarial.corruptions import CORRUPTIONS, STRENGTHS
from transferscope.adversarial.robustness import (
    Endured,
    Robustness,
    Trial,
    balanced,
    endure,
    robustness_of,
)
from transferscope.backbones.classifier import Classifier
from transferscope.errors import DataError, RunError
from transferscope.images import as_float

TRIAL = Trial(epsilons=(0.0, 0.5, 8.0, 64.0), steps=5, restarts=2)
PATHS = [f"{n}.png" for n in range(6)]


def shown() -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures and labels, of which the network of seed 0 has five of six right."""
    pictures = (smooth_pictures(6, 3, 32, 32) * 255).round().to(torch.uint8)
    labels = tiny_classifier()(as_float(pictures)).argmax(1)
    labels[3] = (labels[3] + 1) % 4
    return pictures, labels


def endured(classifier: Classifier) -> list[Endured]:
    return endure(Attacked(classifier, "fp32"), *shown(), PATHS, TRIAL)


@pytest.fixture(scope="module")
def base() -> list[Endured]:
    return endured(tiny_classifier(0))


@pytest.fixture(scope="module")
def tuned() -> list[Endured]:
    return endured(tiny_classifier(1))


def of(base: list[Endured], tuned: list[Endured]) -> Robustness:
    return robustness_of(base, tuned, trial=TRIAL, split="test", of=9, classes=4)


def test_rows(base: list[Endured]):
    logits = tiny_classifier()(as_float(shown()[0])).detach()
    for row, one in enumerate(base):
        own = float(logits[row, one.label])
        others = logits[row, [k for k in range(4) if k != one.label]]
        assert one.margin == pytest.approx(own - float(others.max()), abs=1e-5)
        assert one.right[0] == (one.margin > 0) == (row != 3)
        assert list(one.right) == sorted(one.right, reverse=True), "fooled once is fooled for good"
        assert one.noise[0] == one.right[0]
        assert set(one.corruptions) == set(CORRUPTIONS)
        assert all(len(flags) == STRENGTHS for flags in one.corruptions.values())
    assert base[3].distance == 0
    assert all((one.distance or 1) > 0 for one in base if one.right[0])
    assert not any(one.right[-1] for one in base), "64/255 is more than this network stands"
    assert sum(one.noise[-1] for one in base) >= 4, "and random noise of that size leaves it right"


def test_deepfool_and_pgd_agree(base: list[Endured]):
    """In an L-inf ball of radius r lies the L2 ball of radius r: what DeepFool reaches there, PGD must."""
    for one in base:
        for epsilon, stood in zip(TRIAL.epsilons[1:], one.right[1:], strict=True):
            if one.distance is not None and one.distance < 0.9 * epsilon / 255:
                assert not stood


def test_a_network_against_itself_has_no_differences(base: list[Endured]):
    again = endured(tiny_classifier(0))
    assert again == base
    result = of(base, again)
    shares = [
        *result.attacks,
        *result.noise,
        *(s for row in result.corruptions.values() for s in row),
    ]
    assert {share.difference for share in shares} == {0.0}
    assert all(share.interval[0] < 0 < share.interval[1] for share in shares), (
        "six pictures prove little"
    )
    assert result.distance is not None
    assert result.margin is not None
    assert result.distance.difference == result.margin.difference == 0


def test_shares_and_medians(base: list[Endured], tuned: list[Endured]):
    result = of(base, tuned)
    assert result.n == 6
    assert result.attacks[0].base == pytest.approx(5 / 6)
    for at, share in enumerate(result.attacks):
        right = np.array([[one.right[at] for one in rows] for rows in (base, tuned)])
        assert [share.base, share.tuned] == pytest.approx(right.mean(1))
        assert share.difference == pytest.approx(right[1].mean() - right[0].mean())
        assert share.interval[0] <= share.difference <= share.interval[1]
        assert share.base_interval[0] <= share.base <= share.base_interval[1]
    both = [(a, b) for a, b in zip(base, tuned, strict=True) if a.right[0] and b.right[0]]
    if both:
        assert result.margin is not None
        assert result.margin.n == len(both)
        assert result.margin.difference == pytest.approx(
            np.median([b.margin - a.margin for a, b in both])
        )
    else:
        assert result.margin is None


def test_a_distance_that_was_not_found_is_left_out(base: list[Endured]):
    lost = [dataclasses.replace(base[0], distance=None), *base[1:]]
    result = of(base, lost)
    assert result.distance is not None
    assert result.margin is not None
    assert (result.distance.n, result.margin.n) == (4, 5)
    none = [dataclasses.replace(one, distance=None) for one in base]
    assert of(base, none).distance is None


def test_it_saves_and_loads_itself(base: list[Endured], tuned: list[Endured]):
    result = of(base, tuned)
    assert Robustness.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    with pytest.raises(RunError, match="'transferscope robustness' makes it again"):
        Robustness.from_dict({"n": 3})


def test_other_pictures_are_refused(base: list[Endured]):
    with pytest.raises(DataError, match="base has 6 pictures and tuned 5"):
        of(base, base[1:])
    with pytest.raises(DataError, match="0 pictures"):
        of([], [])


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(training: bool):
    classifier = tiny_classifier().train(training)
    before = state_of(classifier.network)
    endure(Attacked(classifier), *shown(), PATHS, dataclasses.replace(TRIAL, epsilons=(0.0, 1.0)))
    assert same_state(before, state_of(classifier.network))


def test_progress_ends_complete():
    told: list[tuple[int, int]] = []
    trial = Trial(epsilons=(0.0, 1.0), steps=1, restarts=1)
    attacked = Attacked(tiny_classifier(), "fp32")
    endure(attacked, *shown(), PATHS, trial, on_progress=lambda *one: told.append(one))
    assert told == [(done, 7) for done in range(1, 8)]


def test_pictures_are_drawn_evenly_and_by_their_seed():
    labels = [0] * 50 + [1] * 10 + [2] * 3
    drawn = balanced(labels, 12)
    assert np.bincount([labels[row] for row in drawn]).tolist() in ([4, 5, 3], [5, 4, 3])
    assert drawn == sorted(set(drawn)) == balanced(labels, 12)
    assert drawn != balanced(labels, 12, seed=1)
    assert balanced(labels, 1000) == list(range(63))
    few = {labels[row] for seed in range(20) for row in balanced(labels, 2, seed=seed)}
    assert few == {0, 1, 2}, "which class is left out is by chance"
