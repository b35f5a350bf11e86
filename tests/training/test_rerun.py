"""A fit that ends where another one ended."""

from __future__ import annotations

import pytest
import torch

from conftest import same_state, state_of, tiny_classifier
from transferscope.errors import InputError
from transferscope.training.batches import Part
from transferscope.training.loop import fine_tune
from transferscope.training.recipe import Recipe
from transferscope.training.rerun import rerun

BOUNDARY = "stages.0"


def parts() -> tuple[Part, Part]:
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(48) % 4
    maps = torch.rand(48, 8, 16, 16, generator=generator)
    maps[torch.arange(48), labels] += 1.0
    return Part.of_tensor(maps[:32], labels[:32]), Part.of_tensor(maps[32:], labels[32:])


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}, {"batch_norm": "train"}])
def test_it_repeats_a_fine_tuning_bit_by_bit(changes):
    train, validation = parts()
    start = tiny_classifier()
    recipe = Recipe(epochs=4, learning_rate=3e-3, batch_size=8, augment="none", **changes)
    tuned = fine_tune(start, BOUNDARY, train, validation, recipe=recipe, precision="fp32")
    assert tuned.best_epoch > 0
    before = state_of(start)
    weights = rerun(
        start,
        BOUNDARY,
        train,
        recipe=recipe,
        epoch=tuned.best_epoch,
        share=tuned.share,
        precision="fp32",
    )
    assert same_state(before, state_of(start))
    state = tuned.classifier.network.state_dict()
    assert weights
    assert all(torch.equal(tensor, state[name]) for name, tensor in weights.items())
    bits = start.network.state_dict()
    moved = [name for name in weights if not torch.equal(weights[name], bits[name])]
    assert len(moved) > 5


def test_the_share_mixes_with_the_start_and_the_schedule_is_the_whole_recipes():
    train, _ = parts()
    start = tiny_classifier()
    recipe = Recipe(epochs=4, learning_rate=3e-3, batch_size=8, augment="none")
    given = {"recipe": recipe, "epoch": 1, "precision": "fp32"}
    whole = rerun(start, BOUNDARY, train, share=1.0, **given)
    half = rerun(start, BOUNDARY, train, share=0.5, **given)
    for name, tensor in half.items():
        if tensor.is_floating_point():
            middle = (whole[name] + start.network.state_dict()[name]) / 2
            torch.testing.assert_close(tensor, middle)
    short = Recipe(epochs=1, learning_rate=3e-3, batch_size=8, augment="none")
    other = rerun(start, BOUNDARY, train, share=1.0, **(given | {"recipe": short}))
    assert any(not torch.equal(whole[name], other[name]) for name in whole)


@pytest.mark.parametrize("epoch", [0, 5])
def test_an_epoch_outside_the_recipe_is_refused(epoch):
    train, _ = parts()
    recipe = Recipe(epochs=4, augment="none")
    with pytest.raises(InputError, match=f"epoch is {epoch}"):
        rerun(tiny_classifier(), BOUNDARY, train, recipe=recipe, epoch=epoch, share=1.0)
