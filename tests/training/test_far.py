"""Far from home: which settings are tried, when a change is kept, and when more epochs are worth it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from transferscope.training.checkpoints import EpochRow
from transferscope.training.far import (
    FASTER,
    compared,
    picture_losses,
    settled,
    variants,
    with_change,
)
from transferscope.training.search import Settings

FIRST = Settings("linear", "blocks.3", 3e-4, "light")


def row(epoch: int, loss: float, train: float | None) -> EpochRow:
    return EpochRow(epoch, None, train, loss, 0.5, loss, 1e-4, 1.0)


def test_settings_are_changed_one_at_a_time_and_balance_where_classes_differ():
    even, uneven = torch.tensor([0, 1] * 6), torch.tensor([0] * 9 + [1] * 3)
    changed = [
        {n for n, v in one.to_dict().items() if v != FIRST.to_dict()[n]}
        for _, one in variants(FIRST, uneven)
    ]
    assert changed == [{"learning_rate"}, {"batch_norm"}, {"augment"}, {"balance"}]
    assert len(variants(FIRST, even)) == 3
    kept = variants(FIRST, uneven, {"learning_rate", "augment"})
    assert {one.batch_norm for _, one in kept} == {"train", "frozen"}
    assert all(one.learning_rate == FIRST.learning_rate for _, one in kept), "what is given stays"


def test_a_change_is_made_to_what_was_found_so_far():
    rate, norm = (one for _, one in variants(FIRST, torch.tensor([0, 1]))[:2])
    both = with_change(rate, FIRST, norm)
    assert both.learning_rate == pytest.approx(FASTER * FIRST.learning_rate)
    assert both.batch_norm == "train"
    assert both.augment == FIRST.augment


@pytest.mark.parametrize("n", [40, 400])
def test_noise_is_kept_as_rarely_as_one_standard_error_allows(n):
    rng = np.random.default_rng(0)
    kept = [compared("noise", *rng.normal(size=(2, n))).kept for _ in range(400)]
    assert 0.10 < np.mean(kept) < 0.22, "the upper tail beyond one standard error is 16%"
    assert not compared("itself", [0.3] * n, [0.3] * n).kept
    assert not compared("one picture", [2.0], [0.1]).kept


def test_a_fall_on_the_same_pictures_is_found_where_their_losses_differ_much():
    rng = np.random.default_rng(1)
    before = rng.exponential(3, 100)
    change = compared("learning rate 0.001", before, before - 0.1 + rng.normal(0, 0.1, 100))
    assert change.kept
    assert change.fall == pytest.approx(0.1, abs=0.04)
    assert change.error < 0.02
    assert "loss -0.1" in change.sentence
    assert not compared("worse", before, before + 0.1).kept


def test_losses_of_pictures_do_not_depend_on_how_sure_a_network_is():
    labels = torch.arange(50) % 4
    noise = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    logits = noise + 2 * torch.nn.functional.one_hot(labels, 4)
    np.testing.assert_allclose(
        picture_losses(logits, labels), picture_losses(3 * logits, labels), rtol=0.01
    )


@pytest.mark.parametrize(
    ("losses", "train", "done"),
    [
        ((1.0, 0.8, 0.7, 0.6, 0.5), 0.84, False),  # both still rise
        ((1.0, 0.8, 0.7, 0.6, 0.5), 0.995, True),  # nothing is left to learn
        ((1.0, 0.5, 0.7, 0.8, 0.9), 0.84, True),  # validation was best long before the end
    ],
)
def test_a_course_has_settled_where_validation_stopped_falling(losses, train, done):
    history = [row(n, loss, train if n else None) for n, loss in enumerate(losses)]
    assert settled(history) is done
