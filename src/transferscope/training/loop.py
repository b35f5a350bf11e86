"""The fit loop: from a fitted head and cached activations to the best epoch's weights.

Order of work is LP-FT (Kumar et al. 2022): the head is fitted first, exactly, and fine-tuning starts
from it. What lies below the freeze boundary is not run: its activations come from the cache. Every
draw is a function of (seed, epoch, step) or of (seed, epoch, picture), so that an interrupted fit
continues to the same bits, however many workers decode.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from transferscope.backbones import Classifier, Precision, stages_of, training_precision
from transferscope.data.augmentation import augmentation
from transferscope.distributed import add_up, from_first, gathered, is_first, rank, share
from transferscope.errors import DataError, InputError
from transferscope.evaluation import fit_temperature
from transferscope.storage import hash_tensors, sha256_json
from transferscope.training.batches import Part
from transferscope.training.checkpoints import EpochRow, Journal, Progress, Saved
from transferscope.training.head_fit import class_weights
from transferscope.training.optimization import (
    Average,
    load_state,
    make_optimizer,
    order_of,
    scheduled_rate,
    set_rate,
    state_tensors,
    unfreeze_for,
)
from transferscope.training.recipe import Recipe
from transferscope.training.tail import Tail

SAVE_SECONDS = 600
"""Within a long epoch a checkpoint is written this often."""

SHARES = (1.0, 0.8, 0.6, 0.4)
"""Shares of the tuned weights that are tried in a mixture with the start's; 0 is epoch 0."""

_EVALUATED = 64
"""Pictures a batch where no gradients are needed."""


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

    The loss is taken at the best temperature, see `EpochRow`. Epoch 0, the start, takes part, so tuning
    can never leave a higher one than it found.
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
    journal = Journal(
        checkpoints,
        {
            "recipe": asdict(recipe),
            "boundary": boundary,
            "start": hash_tensors(start.network.state_dict()),
            "classes": list(start.classes),
        },
    )
    saved = journal.load()
    if saved:
        fit.restore(saved)
        progress, best = saved.progress, dict(saved.kinds["best"])
    else:
        progress, best = Progress(), fit.tail.weights()
    for row in progress.history:
        _tell(on_epoch, row)

    def save() -> None:
        if is_first():
            journal.save(fit.saved(progress, best), name=fit.steps_done(progress))

    def finish_epoch(seconds: float) -> None:
        nonlocal best
        with fit.averaged():
            now = fit.tail.weights()
            logits = fit.evaluate(validation)
        row = _row(progress, logits, validation, fit.rate(progress), seconds, len(train))
        if (
            not progress.history
            or row.calibrated_loss < progress.history[progress.best].calibrated_loss
        ):
            progress.best, best = row.epoch, now
        progress.history.append(row)
        if keep_every and on_keep and row.epoch % keep_every == 0 and is_first():
            on_keep(row.epoch, fit.tail.tuned(now))
        progress.epoch, progress.step = row.epoch + 1, 0
        progress.loss = progress.right = progress.seconds = 0.0
        save()
        _tell(on_epoch, row)

    with _interrupts() as interrupted:
        began = written = time.perf_counter()
        if not progress.history:
            finish_epoch(0.0)
        while progress.epoch <= recipe.epochs and not _stale(progress, recipe):
            began, before = time.perf_counter(), progress.seconds
            for stop in fit.epoch(progress, interrupted):
                now = time.perf_counter()
                progress.seconds = before + now - began
                if stop or now - written > SAVE_SECONDS:
                    save()
                    written = now
                if stop:
                    raise KeyboardInterrupt
                if on_step and is_first():
                    on_step(fit.steps_done(progress), fit.steps_in_all)
            finish_epoch(before + time.perf_counter() - began)

    mixes = recipe.wise_ft and recipe.batch_norm == "frozen" and progress.best > 0
    share, weights, logits = fit.mixture(best, validation, SHARES if mixes else (1.0,))
    return FineTuned(
        classifier=fit.tail.tuned(weights),
        history=tuple(replace(row, best=row.epoch == progress.best) for row in progress.history),
        best_epoch=progress.best,
        validation_logits=logits,
        share=share,
    )


class Fit:
    """A network being fitted: its tuned part, its optimizer, and one step of both.

    Args:
        start, boundary, recipe, precision: see `fine_tune`.
        train: the training split.
    """

    def __init__(
        self,
        start: Classifier,
        boundary: str | None,
        train: Part,
        *,
        recipe: Recipe,
        precision: Precision = "auto",
    ):
        precision = training_precision(start.device, precision)
        self.recipe, self.train = recipe, train
        self.tail = Tail(start, boundary, precision=precision, batch_norm=recipe.batch_norm)
        self.optimizer = make_optimizer(self.tail, recipe)
        self.steps_an_epoch = math.ceil(len(train) / recipe.batch_size)
        self.steps_in_all = self.steps_an_epoch * recipe.epochs
        self._scaler = torch.amp.GradScaler(start.device.type, enabled=precision == "fp16")
        self._average = Average(self.tail, recipe.ema) if recipe.ema else None
        self._classes = len(start.classes)
        self._augmentation = augmentation(recipe.augment, flip=recipe.flip)
        ones = torch.ones(self._classes)
        weighted = recipe.balance == "weights"
        self._weights = class_weights(train.labels, self._classes) if weighted else ones

    # ------------------------------------------------------------------ one epoch, one step

    def epoch(self, progress: Progress, interrupted: Callable[[], bool]) -> Iterator[bool]:
        """Works through what is left of an epoch; yields after each step whether to stop there."""
        recipe, epoch = self.recipe, progress.epoch
        unfreeze_for(self.optimizer, recipe, epoch)
        generator = torch.Generator().manual_seed(_seed(recipe.seed, epoch))
        order = order_of(self.train.labels, recipe, generator)
        chunks = order.split(recipe.batch_size)[progress.step :]
        wanted = chunks if self._augmentation.mixes else [_shared(chunk) for chunk in chunks]
        for chunk, batch in zip(chunks, self.train.batches.of(epoch, wanted), strict=True):
            done = self.steps_done(progress)
            set_rate(self.optimizer, scheduled_rate(recipe, done, self.steps_in_all))
            loss, right, stop = self.step(chunk, batch, number=done, stop=interrupted())
            if self._average:
                self._average.follow(done)
            progress.step += 1
            progress.loss += loss
            progress.right += right
            yield stop

    def at_rates(
        self, chunks: Sequence[torch.Tensor], rate_of: Callable[[int], float]
    ) -> Iterator[tuple[int, float, float]]:
        """Steps over these batches, each at a rate of its own; yields (number, rate, mean loss)."""
        wanted = chunks if self._augmentation.mixes else [_shared(chunk) for chunk in chunks]
        batches = self.train.batches.of(1, wanted)
        for number, (chunk, batch) in enumerate(zip(chunks, batches, strict=True)):
            rate = rate_of(number)
            set_rate(self.optimizer, rate)
            loss, _, _ = self.step(chunk, batch, number=number)
            yield number, rate, loss / len(chunk)

    def step(
        self, chunk: torch.Tensor, batch: torch.Tensor, *, number: int, stop: bool = False
    ) -> tuple[float, float, bool]:
        """One step of the optimizer on one batch, of which each process works on its share.

        Args:
            chunk: int64 (n,), the whole batch's pictures.
            batch: activations of this process's share, or of the whole batch where it is mixed.
            number: of the step in the whole fit; decides what dropout and mixing draw.
            stop: whether this process wants to end here.

        Returns:
            Over the whole batch: the sum of the plain losses, how many were right, and whether any
            process wants to end.

        Raises:
            DataError: a loss that is not finite, in any process; no weight has been touched.
        """
        device, recipe = self.tail.classifier.device, self.recipe
        labels = self.train.labels[chunk]
        targets = functional.one_hot(labels, self._classes).float()
        if self._augmentation.mixes:
            batch, targets = self._augmentation.mix(
                batch, labels, self._classes, seed=recipe.seed, view=number
            )
            batch = _shared(batch)
        mine, labels, targets = _shared(chunk), _shared(labels), _shared(targets)
        self.optimizer.zero_grad(set_to_none=True)
        told = torch.zeros(4, dtype=torch.float64)
        bad: list[str] = []
        size = max(1, math.ceil(len(mine) / recipe.accumulate))
        pieces = torch.arange(len(mine)).split(size) if len(mine) else ()
        for piece, positions in enumerate(pieces):
            goal = targets[positions].to(device)
            weights = goal @ self._weights.to(device)
            with self.tail.training(_seed(recipe.seed, number, rank(), piece)):
                logits = self.tail.logits(batch[positions])
            losses = weights * functional.cross_entropy(
                logits, goal, label_smoothing=recipe.label_smoothing, reduction="none"
            )
            if not bool(torch.isfinite(losses).all()):
                bad += self._names(mine[positions], losses)
                break
            self._scaler.scale(losses.sum() / len(chunk)).backward()
            answers = logits.detach().cpu()
            truth = labels[positions]
            told[0] += float(functional.cross_entropy(answers, truth, reduction="sum"))
            told[1] += float((answers.argmax(1) == truth).sum())
        told[2], told[3] = stop, bool(bad)
        add_up([told])
        if told[3]:
            self._refuse(bad, number)
        add_up(self._gradients())
        self._scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(list(self.tail.parameters.values()), recipe.clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return float(told[0]), float(told[1]), bool(told[2])

    def _gradients(self) -> list[torch.Tensor]:
        """Of all that is being trained; zeros where this process had no part of the batch."""
        gradients = []
        for parameter in self.tail.parameters.values():
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        return gradients

    def _names(self, pictures: torch.Tensor, losses: torch.Tensor) -> list[str]:
        at_fault = (~torch.isfinite(losses)).nonzero().flatten().tolist()
        numbers = [int(pictures[place]) for place in at_fault]
        return [self.train.names[n] if self.train.names else f"picture {n}" for n in numbers]

    def _refuse(self, bad: list[str], number: int) -> None:
        names = [name for found in gathered(bad) for name in found]
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        epoch, step = divmod(number, self.steps_an_epoch)
        raise DataError(
            f"the loss is not finite at step {step + 1} of epoch {epoch + 1}, for {', '.join(names[:8])}"
            f"{more}; look at these files, or lower --lr (now {self.recipe.learning_rate:g}); the "
            "weights of the last checkpoint are untouched, --resume continues from there"
        )

    # ------------------------------------------------------------------ without gradients

    def evaluate(self, part: Part) -> torch.Tensor:
        """Logits float32 (N, K) of a split as prediction sees it, in eval mode."""
        if self.recipe.batch_norm == "train":  # each process has gathered statistics of its own
            from_first(self.tail.buffers.values())
        chunks = torch.arange(len(part)).split(_EVALUATED)
        mine = list(share(chunks))
        found = []
        with torch.no_grad():
            for batch in part.batches.of(0, mine):
                found.append(self.tail.logits(batch).cpu())
        logits = torch.empty(len(part), self._classes)
        for places, rows in gathered((mine, found)):
            for chunk, values in zip(places, rows, strict=True):
                logits[chunk] = values
        return logits

    def mixture(
        self, tuned: Mapping[str, torch.Tensor], validation: Part, shares: Sequence[float]
    ) -> tuple[float, dict[str, torch.Tensor], torch.Tensor]:
        """The share of tuned weights, the rest being the start's, with the lowest calibrated loss.

        Returns:
            The share, the weights, and their logits of the validation split.

        Reference: Wortsman et al. 2022, Robust fine-tuning of zero-shot models (WiSE-FT), eq. 1, with
        the share chosen on validation.
        """
        found = []
        for portion in shares:
            weights = self.tail.mixed(tuned, portion)
            self.tail.load(weights)
            logits = self.evaluate(validation)
            loss = calibrated_loss(logits, validation.labels)
            found.append((loss, portion, weights, logits))
        return min(found, key=lambda one: one[0])[1:]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights in place of the present ones, where the recipe has an average."""
        if self._average is None:
            yield
            return
        now = self.tail.weights()
        self.tail.load(self._average.weights)
        try:
            yield
        finally:
            self.tail.load(now)

    # ------------------------------------------------------------------ where it stands

    def steps_done(self, progress: Progress) -> int:
        """Steps since the start."""
        return max(0, progress.epoch - 1) * self.steps_an_epoch + progress.step

    def rate(self, progress: Progress) -> float:
        """The learning rate of the last step done; 0 at the start."""
        done = self.steps_done(progress)
        return scheduled_rate(self.recipe, done - 1, self.steps_in_all) if done else 0.0

    def saved(self, progress: Progress, best: dict[str, torch.Tensor]) -> Saved:
        """All that `restore` needs."""
        kinds = {
            "now": self.tail.weights(),
            "best": best,
            "optimizer": state_tensors(self.optimizer),
        }
        if self._average:
            kinds["average"] = self._average.weights
        return Saved(progress, kinds, self._scaler.state_dict())

    def restore(self, saved: Saved) -> None:
        """Continues where `saved` was written."""
        self.tail.load(saved.kinds["now"])
        load_state(self.optimizer, saved.kinds.get("optimizer", {}))
        if self._average:
            self._average.weights = dict(saved.kinds["average"])
        if saved.scale:
            self._scaler.load_state_dict(dict(saved.scale))


# ---------------------------------------------------------------------------- parts of the loop


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


def loss_and_top1(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Cross-entropy in nats and accuracy, of logits (N, K) and labels int64 (N,)."""
    loss = float(functional.cross_entropy(logits, labels))
    return loss, float((logits.argmax(1) == labels).float().mean())


def calibrated_loss(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Cross-entropy in nats at the temperature that makes it least."""
    return loss_and_top1(logits / fit_temperature(logits, labels), labels)[0]


def _shared(items: torch.Tensor) -> torch.Tensor:
    """This process's part of a batch."""
    positions: Sequence[int] = share(range(len(items)))
    return items if len(positions) == len(items) else items[list(positions)]


def _tell(on_epoch: Callable[[EpochRow], None] | None, row: EpochRow) -> None:
    if on_epoch and is_first():
        on_epoch(row)


def _seed(*numbers: int) -> int:
    """A seed that is a function of these numbers alone."""
    return int(sha256_json(["transferscope", *numbers])[:15], 16)


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


def history_rows(history: Sequence[EpochRow]) -> Iterator[tuple[Any, ...]]:
    """Rows of history.csv, in the order of `EpochRow`'s fields; an empty cell where there is none."""
    for row in history:
        values = asdict(row).values()
        yield tuple("" if v is None else int(v) if isinstance(v, bool) else v for v in values)
