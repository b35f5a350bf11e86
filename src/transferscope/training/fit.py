"""A network being fitted: its tuned part, its optimizer, and one step of both.

Every draw is a function of (seed, epoch, step) or of (seed, epoch, picture), so that an interrupted fit
continues to the same bits, however many workers decode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

from transferscope.acceleration.precision import Precision, training_precision
from transferscope.backbones.classifier import Classifier
from transferscope.data.augmentation import augmentation
from transferscope.distributed import add_up, from_first, gathered, rank, share
from transferscope.errors import DataError
from transferscope.evaluation.calibration import fit_temperature
from transferscope.files import sha256_json
from transferscope.training.batches import Part
from transferscope.training.checkpoints import Progress, Saved
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

_EVALUATED = 64
"""Pictures a batch where no gradients are needed."""


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
        sums = torch.zeros(4, dtype=torch.float64)
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
            sums[0] += float(functional.cross_entropy(answers, truth, reduction="sum"))
            sums[1] += float((answers.argmax(1) == truth).sum())
        sums[2], sums[3] = stop, bool(bad)
        add_up([sums])
        if sums[3]:
            self._refuse(bad, number)
        add_up(self._gradients())
        self._scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(list(self.tail.parameters.values()), recipe.clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return float(sums[0]), float(sums[1]), bool(sums[2])

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
            self._average.weights = self.tail.placed(saved.kinds["average"])
        if saved.scale:
            self._scaler.load_state_dict(dict(saved.scale))


def loss_and_top1(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Cross-entropy in nats and accuracy, of logits (N, K) and labels int64 (N,)."""
    loss = float(functional.cross_entropy(logits, labels))
    return loss, float((logits.argmax(1) == labels).float().mean())


def calibrated_loss(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Cross-entropy in nats at the temperature that makes it least, of however few pictures.

    It compares networks, and the one that is right as often but too sure is not the worse.
    """
    return loss_and_top1(logits / fit_temperature(logits, labels, least=1), labels)[0]


def _shared(items: torch.Tensor) -> torch.Tensor:
    """This process's part of a batch."""
    positions: Sequence[int] = share(range(len(items)))
    return items if len(positions) == len(items) else items[list(positions)]


def _seed(*numbers: int) -> int:
    """A seed that is a function of these numbers alone."""
    return int(sha256_json(["transferscope", *numbers])[:15], 16)
