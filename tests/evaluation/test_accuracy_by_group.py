"""Accuracy by group: a planted difference is found and named, chance is called chance, few are called few."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from transferscope.errors import DataError, InputError
from transferscope.evaluation.groups import ALPHA, LEAST, accuracy_by_group, group_sentences
from transferscope.evaluation.intervals import difference_interval
from transferscope.evaluation.predictions import Predictions


def answers(right: np.ndarray, labels: np.ndarray | None = None) -> Predictions:
    """Of four classes, right where it is said."""
    labels = np.arange(len(right)) % 4 if labels is None else labels
    said = np.where(right, labels, (labels + 1) % 4)
    logits = torch.nn.functional.one_hot(torch.tensor(said), 4).float()
    paths = tuple(f"{row}.png" for row in range(len(right)))
    return Predictions(paths, torch.tensor(labels), logits, tuple("abcd"))


def mixed(rates: dict[str, tuple[int, int]]) -> tuple[Predictions, list[str | None]]:
    """Groups with (right, wrong) pictures."""
    right = [value for hits, misses in rates.values() for value in [True] * hits + [False] * misses]
    groups = [name for name, (hits, misses) in rates.items() for _ in range(hits + misses)]
    return answers(np.array(right)), groups


def test_the_interval_of_a_difference_is_the_papers():
    # Newcombe 1998, table II, example (a): 56/70 - 48/80, method 10.
    assert difference_interval(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    low, high = difference_interval(10, 10, 0, 20)  # example (d)'s kind: no side is empty
    assert low > 0.6
    assert high == pytest.approx(1)


def test_a_planted_difference_is_found_and_named():
    predictions, groups = mixed({"new camera": (30, 30), "old": (180, 20), "phone": (190, 15)})
    study = accuracy_by_group(predictions, groups, column="camera")
    assert study.worst_group == "new camera" == next(iter(study.groups))
    assert study.test.differ
    assert study.groups["new camera"].standing == "worse"
    assert study.groups["new camera"].difference == pytest.approx(0.5 - 370 / 405)
    assert study.test.worst < study.test.worst_by_chance[0]
    words = " ".join(group_sentences(study))
    assert "more than chance explains" in words
    assert "'new camera' -41.4%" in words


def test_shuffled_groups_are_called_chance():
    rng = np.random.default_rng(0)
    alarms, named = 0, 0
    for seed in range(30):
        right = rng.random(200) < 0.8
        groups = [str(one) for one in rng.integers(0, 8, 200)]
        study = accuracy_by_group(answers(right), groups, column="x", seed=seed)
        alarms += study.test.differ
        named += sum(one.standing in ("worse", "better") for one in study.groups.values())
    assert alarms <= 5  # 5% of 30 are 1.5; 6 or more have a probability of 0.3%
    assert named <= alarms * 3


def test_p_is_uniform_where_nothing_differs():
    rng = np.random.default_rng(1)
    values = [
        accuracy_by_group(answers(rng.random(120) < 0.6), groups, column="x", seed=seed).test.p
        for seed in range(30)
        if (groups := [str(one) for one in rng.integers(0, 4, 120)])
    ]
    assert 0.33 < np.mean(values) < 0.67


def test_too_few_pictures_are_no_evidence_of_being_alike():
    predictions, groups = mixed({"few": (4, 2), "many": (800, 200), "more": (790, 210)})
    study = accuracy_by_group(predictions, groups, column="site")
    assert not study.test.differ
    assert study.groups["few"].standing == "too few to tell"
    assert study.groups["many"].standing == "alike"
    words = " ".join(group_sentences(study))
    assert "no proof that the groups are alike: 'few' has too few pictures" in words
    assert study.worst_group != "few", "six pictures are wrong by chance"
    assert len(predictions.paths) > LEAST


def test_a_group_of_hard_classes_is_said_to_be_one():
    labels = np.repeat([0, 1, 2, 3], 100)
    right = np.random.default_rng(0).random(400) < np.where(labels == 3, 0.4, 0.95)
    groups = ["hard" if label == 3 or row % 10 == 0 else "rest" for row, label in enumerate(labels)]
    for row in range(300, 400, 2):
        groups[row] = "rest"
    study = accuracy_by_group(answers(right, labels), groups, column="site")
    hard = study.groups["hard"]
    outside = [name == "rest" for name in groups]
    rates = [right[(labels == k) & outside].mean() for k in range(4)]
    own = [np.sum((labels == k) & ~np.array(outside)) for k in range(4)]
    assert hard.expected == pytest.approx(np.average(rates, weights=own))
    assert "Its classes are hard ones" in " ".join(group_sentences(study))


def test_pictures_without_a_group_are_counted_and_left_out():
    predictions, groups = mixed({"a": (30, 5), "b": (30, 5), "c": (20, 0)})
    groups = [None if name == "c" else name for name in groups]
    study = accuracy_by_group(predictions, groups, column="x")
    assert (study.test.n, study.test.without, list(study.groups)) == (70, 20, ["a", "b"])
    assert study.test.p > ALPHA


def test_what_cannot_be_compared_is_refused():
    predictions, groups = mixed({"a": (3, 1), "b": (2, 2)})
    with pytest.raises(DataError, match="only 'a'"):
        accuracy_by_group(predictions, ["a"] * 8, column="x")
    with pytest.raises(DataError, match="none"):
        accuracy_by_group(predictions, [None] * 8, column="x")
    with pytest.raises(InputError, match="7 groups are given for 8"):
        accuracy_by_group(predictions, groups[:7], column="x")
