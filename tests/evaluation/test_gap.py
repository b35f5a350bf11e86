"""Validation beside test: chance is told as chance, a planted gap with the cause that was planted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from transferscope.evaluation.gap import (
    ValidationGap,
    familiarity_of,
    gap_sentences,
    lookalike_cause,
    telling_cues,
    told_apart,
    validation_gap,
)
from transferscope.evaluation.predictions import Predictions


def answers(right: np.ndarray, labels: np.ndarray) -> Predictions:
    said = np.where(right, labels, (labels + 1) % 4)
    logits = torch.nn.functional.one_hot(torch.tensor(said), 4).float()
    paths = tuple(map(str, range(len(labels))))
    return Predictions(paths, torch.tensor(labels), logits, tuple("abcd"))


def drawn(n: int, rates: tuple[float, ...], seed: int, shares=(1, 1, 1, 1)) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, n, p=np.array(shares) / sum(shares))
    return answers(rng.random(n) < np.array(rates)[labels], labels)


def test_two_draws_of_the_same_pictures_are_no_gap():
    found = [
        validation_gap(drawn(200, (0.9,) * 4, seed), drawn(300, (0.9,) * 4, 1000 + seed))
        for seed in range(40)
    ]
    told = [gap for gap in found if not gap.by_chance]
    assert len(told) <= 2  # at a level of 1%, 3 of 40 have a probability of 0.7%
    assert all(gap_sentences(gap, split="test") == [] for gap in found if gap.by_chance)


def test_a_gap_in_one_class_is_told_with_its_class():
    validation = drawn(400, (0.95, 0.95, 0.95, 0.95), 0)
    gap = validation_gap(validation, drawn(400, (0.95, 0.95, 0.3, 0.95), 1))
    assert not gap.by_chance
    assert gap.interval[0] < gap.difference < gap.interval[1] < 0
    assert gap.most_in.name == "c"
    assert gap.most_in.share > 0.8
    words = " ".join(gap_sentences(gap, split="test"))
    assert "more than chance explains" in words
    assert "in the class 'c'" in words
    assert ValidationGap.from_dict(gap.to_dict()) == gap


def test_a_gap_that_is_of_class_shares_is_told_as_one():
    rates = (0.99, 0.99, 0.99, 0.4)
    validation = drawn(2000, rates, 0, (3, 3, 3, 1))
    test = drawn(2000, rates, 1, (1, 1, 1, 3))
    gap = validation_gap(validation, test)
    assert not gap.by_chance
    assert gap.class_shares == pytest.approx(gap.accuracy, abs=0.04)
    assert gap.most_in is None, "no class is recognised less often than it was"
    assert "The shares of the classes explain -2" in " ".join(gap_sentences(gap, split="test"))


def test_a_better_test_is_not_called_what_to_expect():
    gap = validation_gap(drawn(400, (0.7,) * 4, 0), drawn(400, (0.95,) * 4, 1))
    assert "expect" not in gap_sentences(gap, split="test")[0]


def test_pictures_that_lie_farther_are_found_and_equal_ones_are_not():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    near = rng.normal(0.85, 0.05, 300)
    right = rng.random(300) < 1 / (1 + np.exp(-(near - 0.75) * 40))
    far = familiarity_of((near, labels), (rng.normal(0.7, 0.05, 300), labels), right)
    assert far.differs
    assert far.difference == pytest.approx(-0.15, abs=0.02)
    assert far.expected == pytest.approx(0.2, abs=0.12)
    same = familiarity_of((near, labels), (rng.normal(0.85, 0.05, 300), labels), right)
    assert not same.differs
    coin = familiarity_of((near, labels), (near - 0.2, labels), rng.random(300) < 0.5)
    assert coin.expected is None, "distance says nothing of coins"


def test_familiarity_is_compared_within_classes():
    """A class that lies far and has a larger share of the test is no sign that test pictures are strange."""
    rng = np.random.default_rng(0)
    own, other = rng.choice(2, 400, p=(0.8, 0.2)), rng.choice(2, 400, p=(0.2, 0.8))
    cosines = [0.9 - 0.2 * labels + rng.normal(0, 0.02, 400) for labels in (own, other)]
    found = familiarity_of((cosines[0], own), (cosines[1], other), rng.random(400) < 0.9)
    assert found.evaluated < found.validation - 0.1
    assert not found.differs


def test_scores_of_chance_tell_nothing_apart_and_others_do_within_classes():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 400)
    part = rng.random(400) < 0.5
    alarms = sum(told_apart(rng.normal(size=400), part, labels).differs for _ in range(40))
    assert alarms <= 4  # 2.5% of 40 are 1; 5 have a probability of 0.3%
    found = told_apart(part + rng.normal(size=400), part, labels)
    assert found.differs
    assert found.interval[0] < 0.76 < found.interval[1]  # Phi(1 / sqrt(2))
    by_class = told_apart(labels.astype(float), labels == 1, labels)
    assert by_class is None, "no class has pictures of both parts"


def test_a_planted_property_is_told_and_those_of_chance_are_not():
    rng = np.random.default_rng(6)
    labels, part = rng.integers(0, 3, 300), rng.random(300) < 0.5
    chance = {f"chance {n}": rng.normal(size=300) for n in range(23)}
    darker = rng.normal(size=300) - part
    darker[:20] = np.nan
    assert list(telling_cues({**chance, "brightness": darker}, part, labels)) == ["brightness"]
    assert telling_cues({"constant": np.ones(300)}, part, labels) == {}


def test_delongs_interval_has_the_bootstraps_width():
    rng = np.random.default_rng(4)
    part = np.repeat([True, False], (60, 90))
    scores = part * 0.8 + rng.normal(size=150)
    labels = np.zeros(150, dtype=int)
    found = told_apart(scores, part, labels)
    drawn_again = []
    for _ in range(400):
        rows = np.concatenate([rng.integers(0, 60, 60), rng.integers(60, 150, 90)])
        drawn_again.append(told_apart(scores[rows], part[rows], labels).auc)
    low, high = np.quantile(drawn_again, (0.025, 0.975))
    assert found.interval == pytest.approx((low, high), abs=0.02)


def test_validation_pictures_without_a_lookalike_are_told_apart():
    alike = np.repeat([True, False], (70, 30))
    right = np.repeat([True, False, True], (70, 12, 18))
    found = lookalike_cause(alike, np.zeros(50, dtype=bool), right)
    assert (found.validation, found.evaluated, found.without, found.without_n) == (0.7, 0, 0.6, 30)
