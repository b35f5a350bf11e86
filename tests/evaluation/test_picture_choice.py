"""Which pictures are shown one by one: errors, doubts and every class, never more than there is room for."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from transferscope.evaluation.picture_choice import (
    EXPLAINED,
    RIGHT,
    UNSURE,
    WRONG,
    chosen_pictures,
)
from transferscope.evaluation.predictions import Predictions


def predictions(count: int, classes: int, *, wrong: float, seed: int = 0) -> Predictions:
    """Random logits, of which a share of the largest is another class's."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    logits = torch.rand(count, classes, generator=draw)
    off = torch.rand(count, generator=draw) < wrong
    said = torch.where(off, (labels + 1) % classes, labels)
    logits[torch.arange(count), said] += 1 + 2 * torch.rand(count, generator=draw)
    names = tuple(f"class {place}" for place in range(classes))
    return Predictions(tuple(f"{row}.jpg" for row in range(count)), labels, logits, names)


@pytest.mark.parametrize("wrong", [0.0, 0.1, 0.9, 1.0])
@pytest.mark.parametrize(("count", "classes"), [(7, 3), (60, 4), (400, 10), (400, 150)])
def test_there_are_as_many_as_there_is_room_for_each_once_in_groups(count, classes, wrong):
    made = predictions(count, classes, wrong=wrong)
    chosen = chosen_pictures(made)
    rows = [row for row, _ in chosen]
    assert len(rows) == len(set(rows)) == min(count, 60)
    reasons = [reason for _, reason in chosen]
    order = [EXPLAINED, WRONG, UNSURE, RIGHT]
    assert reasons == sorted(reasons, key=order.index)
    for row, reason in chosen:
        assert bool(made.right[row]) is (reason != WRONG)


def test_the_surest_errors_and_the_closest_right_answers_come_first():
    made = predictions(400, 10, wrong=0.3)
    chosen = chosen_pictures(made)
    best = made.probabilities.topk(2, dim=-1).values
    of = {reason: [row for row, why in chosen if why == reason] for reason in (WRONG, UNSURE)}
    wrong = (~made.right).nonzero().flatten().tolist()
    right = made.right.nonzero().flatten().tolist()
    assert of[WRONG] == sorted(wrong, key=lambda row: -float(best[row, 0]))[:30]
    margin = (best[:, 0] - best[:, 1]).tolist()
    assert of[UNSURE] == sorted(right, key=lambda row: margin[row])[:12]


def test_every_class_has_as_many_right_ones_and_these_are_not_the_surest():
    made = predictions(400, 6, wrong=0.1)
    typical = [row for row, why in chosen_pictures(made) if why == RIGHT]
    counts = Counter(made.labels[typical].tolist())
    assert set(counts) == set(range(6))
    assert max(counts.values()) - min(counts.values()) <= 1
    sure = made.probabilities.max(dim=-1).values
    for label in range(6):
        own = ((made.labels == label) & made.right).nonzero().flatten()
        first = next(row for row in typical if int(made.labels[row]) == label)
        below = float((sure[own] < sure[first]).float().mean())
        assert 0.4 < below < 0.6


def test_pictures_of_which_more_is_known_come_before_all_others():
    made = predictions(400, 10, wrong=0.3)
    asked = ("399.jpg", "no such picture", "17.jpg")
    chosen = chosen_pictures(made, first=asked)
    assert chosen[:2] == [(399, EXPLAINED), (17, EXPLAINED)]
    assert len(chosen) == 60
