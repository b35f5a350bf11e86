"""Errors, doubts and probably wrong labels."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import pytest
import torch
from test_calibration import honest
from test_metrics import drawn

from transferscope.evaluation.mistakes import (
    ErrorStudy,
    count_label_errors,
    doubts,
    error_study,
    label_suspicion,
    write_study,
)
from transferscope.evaluation.predictions import Predictions


def sure(n: int = 500, classes: int = 6, seed: int = 0) -> Predictions:
    """A good classifier's answers to rightly labelled pictures."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n,), generator=generator)
    logits = torch.randn(n, classes, generator=generator)
    logits[torch.arange(n), labels] += 5
    names = tuple(f"class {k}" for k in range(classes))
    return Predictions(tuple(f"{i:03d}.png" for i in range(n)), labels, logits, names)


def with_wrong_labels(predictions: Predictions, count: int) -> Predictions:
    labels = predictions.labels.clone()
    labels[:count] = (labels[:count] + 1) % len(predictions.classes)
    return replace(predictions, labels=labels)


def test_a_doubt_is_what_the_probabilities_say():
    predictions = drawn(40)
    for row, doubt in enumerate(doubts(predictions, split="test", judged_by="classifier")):
        p = predictions.probabilities[row].double().tolist()
        label = int(predictions.labels[row])
        ranked = sorted(p, reverse=True)
        assert doubt.path == f"{row}.png"
        assert doubt.label == predictions.classes[label]
        assert doubt.predicted == predictions.classes[p.index(ranked[0])]
        assert doubt.probability == pytest.approx(ranked[0], abs=1e-6)
        assert doubt.probability_of_label == pytest.approx(p[label], abs=1e-6)
        assert doubt.margin == pytest.approx(ranked[0] - ranked[1], abs=1e-6)
        assert doubt.entropy == pytest.approx(-sum(x * math.log(x) for x in p), abs=1e-4)
        other = max(x for k, x in enumerate(p) if k != label)
        assert doubt.suspicion == pytest.approx(math.log(other / p[label]), abs=1e-4)
        assert doubt.wrong == (doubt.suspicion > 0)


def test_rankings_are_in_their_order():
    predictions = drawn()
    study = error_study(predictions, split="test", out_of_fold=sure())
    assert len(study.worst) == int((~predictions.right).sum())
    assert all(doubt.wrong for doubt in study.worst)
    surest = [doubt.probability for doubt in study.worst]
    margins = [doubt.margin for doubt in study.uncertain]
    suspicions = [doubt.suspicion for doubt in study.suspects]
    assert surest == sorted(surest, reverse=True)
    assert margins == sorted(margins)
    assert suspicions == sorted(suspicions, reverse=True)
    assert (len(margins), len(suspicions)) == (300, 500)
    assert {doubt.judged_by for doubt in study.suspects} == {"out-of-fold probe"}
    assert {doubt.split for doubt in study.suspects} == {"train"}


def test_wrong_labels_are_ranked_first_and_counted():
    noisy = with_wrong_labels(sure(), 40)
    first = label_suspicion(noisy).argsort(descending=True)[:40]
    assert (first < 40).sum() >= 38
    assert 28 <= count_label_errors(noisy) <= 44
    assert count_label_errors(sure()) <= 8


def test_the_count_is_the_confident_joint_of_a_slow_loop():
    predictions = with_wrong_labels(honest(200), 30)
    p, labels = predictions.probabilities.tolist(), predictions.labels.tolist()
    thresholds = []
    for k in range(5):
        of = [row[k] for row, label in zip(p, labels, strict=True) if label == k]
        thresholds.append(sum(of) / len(of))
    count = 0
    for row, label in zip(p, labels, strict=True):
        reached = [k for k in range(5) if row[k] >= thresholds[k]]
        count += bool(reached) and max(reached, key=lambda k: row[k]) != label
    assert count_label_errors(predictions) == count


def test_a_class_without_pictures_is_never_the_better_label():
    predictions = sure(100, classes=3)
    kept = predictions.rows(torch.nonzero(predictions.labels != 2).flatten())
    assert count_label_errors(kept) <= 3


def test_without_training_pictures_nobody_is_suspected():
    study = error_study(drawn(), split="test")
    assert (study.suspects, study.probable) == ((), 0)


def test_all_pictures_are_in_the_csv_and_the_first_in_the_json(tmp_path):
    study = error_study(drawn(), split="test", out_of_fold=sure())
    write_study(study, tmp_path / "study.csv")
    with open(tmp_path / "study.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 800
    assert {row["judged_by"] for row in rows} == {"classifier", "out-of-fold probe"}
    assert rows[300]["path"] == study.suspects[0].path
    kept = ErrorStudy.from_dict(json.loads(json.dumps(study.to_dict(shown=7))))
    assert kept.worst == study.worst[:7]
    assert kept.suspects == study.suspects[:7]
    assert (kept.probable, kept.n) == (study.probable, study.n)
