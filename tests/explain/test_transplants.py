"""Parts of pictures are moved exactly, followed beyond their control, and taken out of a head exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import SPEC, same_state, state_of
from transferscope.data.cues import PATCH_STEPS
from transferscope.explain.transplants import (
    Part,
    answers,
    border_part,
    patch_part,
    quick,
    reweighted_head,
    shift,
    without_directions,
)
from transferscope.images import InputSpec

CROPPED = InputSpec((224, 224), crop=0.875)


def test_the_border_and_patches_lie_where_they_should():
    border = border_part(SPEC).mask
    assert border is not None
    assert border[0].all() and border[:, -1].all() and not border[4:-4, 4:-4].any()  # noqa: PT018
    whole = patch_part([(r, c) for r in range(1, 8) for c in range(1, 8)], SPEC).mask
    assert whole is not None
    assert whole.all()
    corner = patch_part([(1, 1)], SPEC).mask
    assert corner is not None
    assert corner[:8, :8].all()
    assert corner.sum() == 64
    # a sixteenth of the middle square lies outside the network's view on every side
    seen = patch_part([(PATCH_STEPS, PATCH_STEPS)], CROPPED).mask
    assert seen is not None
    rows = torch.nonzero(seen.any(1)).flatten()
    assert (rows.min().item(), rows.max().item()) == (round((0.75 - 0.0625) / 0.875 * 224), 223)


def test_what_is_moved_is_the_donors_and_the_rest_stays():
    pictures, donors = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    part = border_part(SPEC)
    moved = part.moved(pictures, donors)
    assert torch.equal(moved[..., part.mask], donors[..., part.mask])
    assert torch.equal(moved[..., ~part.mask], pictures[..., ~part.mask])
    colours = Part("colour", None).moved(pictures, donors * 0.5)
    assert colours.quantile(0.99) == pytest.approx(0.5, abs=0.03)
    same = Part("colour", None).moved(pictures, pictures)
    torch.testing.assert_close(same, pictures, atol=1e-5, rtol=0)


def test_answers_are_the_networks_and_leave_it_as_it_was(tiny):
    before = state_of(tiny)
    pictures = torch.rand(5, 3, 32, 32)
    logits, features = answers(tiny, pictures, batch_size=2)
    assert same_state(before, state_of(tiny))
    with tiny.inference():
        # in bf16, where the processor is fast at it
        torch.testing.assert_close(logits, tiny(pictures), atol=0.05, rtol=0.05)
    assert features.shape == (5, tiny.head_layer.in_features)
    torch.testing.assert_close(answers(quick(tiny), pictures)[0], logits, atol=0.05, rtol=0.05)
    assert same_state(before, state_of(tiny))


def test_an_effect_is_told_beyond_its_control():
    rng = torch.Generator().manual_seed(0)
    control = torch.randn(40, 3, generator=rng)
    cue = control.clone()
    cue[:, 1] += 4
    found = shift(cue, control, 1, towards=True, temperature=1.0)
    assert found.low > 0.3
    assert found.p < 1e-6
    assert found.turned == pytest.approx(
        float((cue.argmax(1) == 1).double().mean() - (control.argmax(1) == 1).double().mean())
    )
    assert shift(cue, control, 1, towards=False, temperature=1.0).p > 0.99
    nothing = shift(control, control, 1, towards=True, temperature=1.0)
    assert (nothing.effect, nothing.p) == (0.0, 1.0)
    chance = torch.randn(40, 3, generator=rng)
    assert shift(chance, control, 1, towards=True, temperature=1.0).p > 0.01


def test_a_head_without_a_direction_answers_as_if_every_picture_were_at_the_mean():
    rng = torch.Generator().manual_seed(1)
    weight, bias = torch.randn(4, 9, generator=rng), torch.randn(4, generator=rng)
    directions, mean = torch.randn(2, 9, generator=rng), torch.randn(9, generator=rng)
    features = torch.randn(20, 9, generator=rng)
    new_weight, new_bias = without_directions(weight, bias, directions, mean)
    basis = torch.linalg.svd(directions, full_matrices=False)[2]
    placed = features - (features - mean) @ basis.T @ basis
    torch.testing.assert_close(features @ new_weight.T + new_bias, placed @ weight.T + bias)
    along = features + 3 * directions[0] - 2 * directions[1]
    torch.testing.assert_close(along @ new_weight.T, features @ new_weight.T, atol=1e-4, rtol=1e-4)


def test_a_head_fitted_anew_drops_what_some_groups_contradict():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    real, cue = labels + rng.normal(0, 0.8, 400), labels + rng.normal(0, 0.05, 400)
    turned = 1 - labels + rng.normal(0, 0.05, 400)
    first = torch.from_numpy(np.stack([real, cue], 1)).float()
    other = torch.from_numpy(np.stack([real, turned], 1)).float()
    start = torch.tensor([[0.0, -5.0], [0.0, 5.0]]), torch.tensor([2.5, -2.5])
    rows, own = torch.cat([first, other]), np.concatenate([labels, labels])
    new = reweighted_head(rows, own, np.ones(800), start, strength=1e-3)
    right = [
        (np.asarray((other @ weight.T + bias).argmax(1)) == labels).mean()
        for weight, bias in (start, new)
    ]
    assert right[0] < 0.05
    assert right[1] > 0.65
    assert start[0][1, 1] == 5  # what was given stays
