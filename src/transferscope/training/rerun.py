"""A fit that ends where another one ended: at a given epoch and share, chosen by nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from transferscope.acceleration.precision import Precision
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError
from transferscope.files import hash_tensors, sha256_json
from transferscope.training.batches import Part
from transferscope.training.checkpoints import Journal, Progress
from transferscope.training.fit import Fit
from transferscope.training.recipe import Recipe


def rerun(
    start: Classifier,
    boundary: str | None,
    train: Part,
    *,
    recipe: Recipe,
    epoch: int,
    share: float,
    precision: Precision = "auto",
    checkpoints: Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> dict[str, torch.Tensor]:
    """The weights behind a boundary after so many epochs of a recipe, mixed with the start's.

    `fine_tune` chooses the epoch and the share on validation; here both are given, so that a fit to
    other labels, or from another seed, takes exactly as many steps of the same schedule. With the
    labels, seed, best epoch and share of a `fine_tune` its classifier's weights come out, bit by bit.

    Args:
        start, boundary, train, recipe, precision: see `fine_tune`.
        epoch: the last one done, 1 or more; the schedule is that of all of the recipe's epochs.
        share: of the tuned weights, in (0, 1]; the rest are the start's.
        checkpoints: folder to save each epoch in; an unfinished fit with the same inputs found there
            is continued.
        on_step: called with (steps done, steps in all).

    Returns:
        Parameters and buffers of all modules that do not lie below the boundary, by name.

    Raises:
        InputError: an epoch that the recipe does not reach.
        DataError: a loss that is not finite.
        RunError: the checkpoint in the folder is of another fit.
    """
    if not 1 <= epoch <= recipe.epochs:
        raise InputError(f"epoch is {epoch}; the recipe has the epochs 1 to {recipe.epochs}")
    fit = Fit(start, boundary, train, recipe=recipe, precision=precision)
    identity = {
        "recipe": asdict(recipe),
        "boundary": boundary,
        "start": hash_tensors(start.network.state_dict()),
        "labels": sha256_json(train.labels.tolist()),
    }
    journal, progress = Journal(checkpoints, identity), Progress(epoch=1)
    if saved := journal.load():
        fit.restore(saved)
        progress = saved.progress
    while progress.epoch <= epoch:
        for _ in fit.epoch(progress, lambda: False):
            if on_step:
                on_step(fit.steps_done(progress), epoch * fit.steps_an_epoch)
        progress = Progress(epoch=progress.epoch + 1)
        journal.save(fit.saved(progress, {}), name=fit.steps_done(progress))
    with fit.averaged():
        return fit.tail.mixed(fit.tail.weights(), share)
