"""The fit loop: from a fitted head and cached activations to the best epoch's weights.

Order of work is LP-FT (Kumar et al. 2022): the head is fitted first, exactly, and fine-tuning starts
from it. What lies below the freeze boundary is not run: its activations come from the cache.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from transferscope.acceleration.numerics import repeatable
from transferscope.acceleration.precision import Precision
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.stages import stages_of
from transferscope.distributed import is_first
from transferscope.errors import InputError
from transferscope.files import hash_tensors
from transferscope.training.batches import Part
from transferscope.training.checkpoints import EpochRow, Journal, Progress
from transferscope.training.fit import Fit, calibrated_loss, loss_and_top1
from transferscope.training.recipe import Recipe

SAVE_SECONDS = 600
"""Within a long epoch a checkpoint is written this often."""

SHARES = (1.0, 0.8, 0.6, 0.4)
"""Shares of the tuned weights that are tried in a mixture with the start's; 0 is epoch 0."""


@dataclass(frozen=True, eq=False)
class FineTuned:
    """The result of `fine_tune`.

    Attributes:
        classifier: has the best epoch's weights, or their mixture with the start's.
        history: a row an epoch, the start first.
        best_epoch: the one with the lowest calibrated validation loss.
        validation_logits: the classifier's, float32 (N, K).
        share: of the best epoch's weights in the classifier's; the rest are the start's.
    """

    classifier: Classifier
    history: tuple[EpochRow, ...]
    best_epoch: int
    validation_logits: torch.Tensor
    share: float


def plan_boundary(classifier: Classifier, unfreeze: int) -> str:
    """The layer whose output is cached when the last `unfreeze` stages are to be tuned.

    Raises:
        InputError: not between 1 and the number of stages less one.
    """
    stages = stages_of(classifier)
    if not 1 <= unfreeze < len(stages):
        raise InputError(
            f"--unfreeze is {unfreeze}; {classifier.backbone} has {len(stages)} stages, so it must be "
            f"between 1 and {len(stages) - 1}"
        )
    return stages[-unfreeze - 1]


def fine_tune(
    start: Classifier,
    boundary: str | None,
    train: Part,
    validation: Part,
    *,
    recipe: Recipe,
    precision: Precision = "auto",
    checkpoints: Path | None = None,
    keep_every: int = 0,
    on_keep: Callable[[int, Classifier], None] | None = None,
    on_epoch: Callable[[EpochRow], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> FineTuned:
    """Tunes what lies behind `boundary`; the epoch with the lowest validation loss is kept.

    The loss is taken at the best temperature, see `EpochRow`. Epoch 0, the start, takes part.
    With several processes (`distributed.joined`) each works on its share of every batch.

    Args:
        start: a classifier whose head is fitted; unchanged.
        boundary: layer whose outputs the batches are; it and all before it stay bit-identical. None:
            the batches are normalised pictures, and the whole network is tuned.
        train: the training split.
        validation: decides which epoch is kept and when to stop.
        recipe: see `Recipe`.
        precision: of the forward and backward passes.
        checkpoints: folder to save each epoch in; an unfinished fit with the same inputs found there
            is continued, with the same result as an uninterrupted one.
        keep_every: after every so many epochs, and at the start, `on_keep` is called with the epoch
            and a classifier of the weights that were evaluated; 0: never.
        on_keep: see `keep_every`.
        on_epoch: called with each new row.
        on_step: called with (steps done, steps in all).

    Raises:
        DataError: a non-finite loss; raised before the weights are touched, with the files named.
        RunError: the checkpoint in the folder is of another recipe.
        KeyboardInterrupt: after Ctrl-C: the step is finished and saved first.
    """
    fit = Fit(start, boundary, train, recipe=recipe, precision=precision)
    identity = {
        "recipe": asdict(recipe),
        "boundary": boundary,
        "start": hash_tensors(start.network.state_dict()),
        "classes": list(start.classes),
    }
    keep = on_keep if keep_every else None
    course = _Course(fit, Journal(checkpoints, identity), validation, keep, keep_every, on_epoch)
    with repeatable(start.device):
        course.run(on_step)
        best = course.progress.best
        mixes = recipe.wise_ft and recipe.batch_norm == "frozen" and best > 0
        share, weights, logits = fit.mixture(course.best, validation, SHARES if mixes else (1.0,))
    return FineTuned(
        classifier=fit.tail.tuned(weights),
        history=tuple(replace(r, best=r.epoch == best) for r in course.progress.history),
        best_epoch=best,
        validation_logits=logits,
        share=share,
    )


class _Course:
    """A fit from its start, or from its newest checkpoint, to its last epoch.

    Attributes:
        progress: where it stands.
        best: the best epoch's weights.
    """

    def __init__(
        self,
        fit: Fit,
        journal: Journal,
        validation: Part,
        keep: Callable[[int, Classifier], None] | None,
        keep_every: int,
        on_epoch: Callable[[EpochRow], None] | None,
    ):
        self._fit, self._journal, self._validation = fit, journal, validation
        self._keep, self._keep_every = keep, keep_every
        self._on_epoch = on_epoch if is_first() else None
        saved = journal.load()
        if saved:
            fit.restore(saved)
            self.progress, self.best = saved.progress, fit.tail.placed(saved.kinds["best"])
        else:
            self.progress, self.best = Progress(), fit.tail.weights()

    def run(self, on_step: Callable[[int, int], None] | None) -> None:
        """Fits until the last epoch, or the recipe's patience; Ctrl-C saves first."""
        fit, progress = self._fit, self.progress
        if self._on_epoch:
            for row in progress.history:
                self._on_epoch(row)
        with _interrupts() as interrupted:
            written = time.perf_counter()
            if not progress.history:
                self._finish_epoch(0.0)
            while progress.epoch <= fit.recipe.epochs and not _stale(progress, fit.recipe):
                began, before = time.perf_counter(), progress.seconds
                for stop in fit.epoch(progress, interrupted):
                    now = time.perf_counter()
                    progress.seconds = before + now - began
                    if stop or now - written > SAVE_SECONDS:
                        self._save()
                        written = now
                    if stop:
                        raise KeyboardInterrupt
                    if on_step and is_first():
                        on_step(fit.steps_done(progress), fit.steps_in_all)
                self._finish_epoch(before + time.perf_counter() - began)

    def _save(self) -> None:
        if is_first():
            saved = self._fit.saved(self.progress, self.best)
            self._journal.save(saved, name=self._fit.steps_done(self.progress))

    def _finish_epoch(self, seconds: float) -> None:
        fit, progress = self._fit, self.progress
        with fit.averaged():
            now = fit.tail.weights()
            logits = fit.evaluate(self._validation)
        row = _row(progress, logits, self._validation, fit.rate(progress), seconds, len(fit.train))
        history = progress.history
        if not history or row.calibrated_loss < history[progress.best].calibrated_loss:
            progress.best, self.best = row.epoch, now
        history.append(row)
        if self._keep and row.epoch % self._keep_every == 0 and is_first():
            self._keep(row.epoch, fit.tail.tuned(now))
        progress.epoch, progress.step = row.epoch + 1, 0
        progress.loss = progress.right = progress.seconds = 0.0
        self._save()
        if self._on_epoch:
            self._on_epoch(row)


def _row(
    progress: Progress,
    logits: torch.Tensor,
    validation: Part,
    rate: float,
    seconds: float,
    pictures: int,
) -> EpochRow:
    loss, top1 = loss_and_top1(logits, validation.labels)
    begun = progress.epoch > 0
    return EpochRow(
        epoch=progress.epoch,
        train_loss=progress.loss / pictures if begun else None,
        train_top1=progress.right / pictures if begun else None,
        validation_loss=loss,
        validation_top1=top1,
        calibrated_loss=calibrated_loss(logits, validation.labels),
        learning_rate=rate,
        seconds=seconds,
    )


def _stale(progress: Progress, recipe: Recipe) -> bool:
    """Whether the validation loss has not fallen for as long as the recipe's patience.

    The start is not counted: from a head that is fitted exactly, the first steps lead uphill before
    they lead further down.
    """
    losses = [row.calibrated_loss for row in progress.history[1:]]
    return 0 < recipe.patience <= len(losses) - 1 - losses.index(min(losses)) if losses else False


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C within the block into a wish, so that a step can be finished.

    A second one interrupts at once. Outside the main thread signals stay as they are.
    """
    wished = False

    def wish(number: int, frame: FrameType | None) -> None:
        nonlocal wished
        if wished:
            raise KeyboardInterrupt
        wished = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before: Any = signal.signal(signal.SIGINT, wish)
    try:
        yield lambda: wished
    finally:
        signal.signal(signal.SIGINT, before)
    if wished:  # it came after the last step: all is saved
        raise KeyboardInterrupt
