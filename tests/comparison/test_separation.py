"""Separation of classes: derived pair by pair, and where classes mean nothing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from transferscope.comparison.separation import class_separation


def clusters(classes: int, each: int, width: int, apart: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    means = rng.normal(size=(classes, width)) * apart
    return 1 + means[labels] + rng.normal(size=(len(labels), width)), labels


def test_it_is_one_less_the_ratio_of_mean_distances():
    x, labels = clusters(3, 4, 5, 1.0)
    x, labels = x[:-1], labels[:-1]  # classes of 4, 4 and 3

    def distance(i: int, j: int) -> float:
        return 1 - x[i] @ x[j] / math.sqrt((x[i] @ x[i]) * (x[j] @ x[j]))

    means = {}
    for a, b in itertools.product(range(3), repeat=2):
        pairs = [
            (i, j)
            for i in np.flatnonzero(labels == a)
            for j in np.flatnonzero(labels == b)
            if i != j
        ]
        means[a, b] = np.mean([distance(i, j) for i, j in pairs])
    within = np.mean([means[one, one] for one in range(3)])
    assert class_separation(x, labels) == pytest.approx(1 - within / np.mean(list(means.values())))
    alone = np.append(labels, 9)
    again = class_separation(np.vstack([x, 7 * x[:1]]), alone)
    assert again == pytest.approx(class_separation(x, labels)), "a class of one picture"
    assert class_separation(3 * x, labels) == pytest.approx(class_separation(x, labels))


def test_classes_that_mean_nothing_are_not_separated_however_few_pictures_they_have():
    for classes, each, width in ((20, 3, 300), (4, 30, 5)):
        x, labels = clusters(classes, each, width, 0.0)
        rng = np.random.default_rng(1)
        found = np.array([class_separation(x, rng.permutation(labels)) for _ in range(300)])
        assert abs(found.mean()) < 4 * found.std() / math.sqrt(300)
        assert 0.3 < (found < 0).mean() < 0.7


def test_it_rises_with_what_lies_between_classes_and_not_with_width():
    found = [class_separation(*clusters(6, 20, 200, apart)) for apart in (0.2, 0.6, 2.0)]
    assert found == sorted(found)
    assert found[0] > 0
    x, labels = clusters(6, 20, 200, 0.6)
    doubled = class_separation(np.hstack([x, x]), labels)
    assert doubled == pytest.approx(class_separation(x, labels))


def test_its_ends():
    labels = np.repeat([0, 1], 4)
    assert class_separation(np.eye(2)[labels], labels) == pytest.approx(1)
    assert class_separation(np.full((8, 3), 0.1), labels) == 0
    assert class_separation(np.eye(8), np.zeros(8, int)) == 0
