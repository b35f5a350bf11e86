"""The fit loop: from a fitted head and cached activations to the best epoch's weights.

Order of work is LP-FT (Kumar et al. 2022): the head is fitted first, exactly, and fine-tuning starts
from it. What lies below the freeze boundary is never run: its activations come from the cache.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from transferscope.activations import Resumed, modules_below, preserved
from transferscope.backbones import (
    Classifier,
    Precision,
    autocast,
    stages_of,
    training_precision,
)
from transferscope.data.augmentation import AugmentationName, augmentation
from transferscope.errors import DataError, InputError, RunError, WeightsError
from transferscope.storage import read_tensors, sha256_json, write_tensors


@dataclass(frozen=True)
class Recipe:
    """Everything that fine-tuning depends on besides data and start; a run stores it.

    Attributes:
        epochs: passes over the training split.
        learning_rate: peak of the schedule, for the body; the head has ten times less, as it starts
            from its optimum.
        batch_size: pictures a step.
        weight_decay: AdamW's, on weight matrices and kernels, not on biases and norms.
        label_smoothing: of the training loss only.
        warmup: share of all steps with a rising rate; a cosine to zero follows.
        clip: largest norm of the whole gradient.
        seed: of the permutations, of dropout, and of what augmentation draws.
        augment: what training does to its pictures: none, light or strong; see `data.augmentation`.
        flip: whether augmentation may mirror.
        views: how many augmented views of the training split are computed and cycled, an epoch each.
    """

    epochs: int = 12
    learning_rate: float = 3e-4
    batch_size: int = 32
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    warmup: float = 0.1
    clip: float = 1.0
    seed: int = 0
    augment: AugmentationName = "none"
    flip: bool = True
    views: int = 4

    def __post_init__(self) -> None:
        for name, value in (
            ("epochs", self.epochs),
            ("batch size", self.batch_size),
            ("views", self.views),
        ):
            if value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
        augmentation(self.augment)  # refuses a name that there is none of
        if not 0 < self.learning_rate < 1:
            raise InputError(f"learning rate is {self.learning_rate}; it must be between 0 and 1")


@dataclass(frozen=True)
class EpochRow:
    """One line of history.csv. Epoch 0 is the start: the probe's head on the untuned backbone.

    Losses are cross-entropy in nats without label smoothing; training figures are means over the
    epoch's steps, in the mode that training sees.
    """

    epoch: int
    train_loss: float
    train_top1: float
    validation_loss: float
    validation_top1: float
    learning_rate: float
    seconds: float
    best: bool = False


@dataclass(frozen=True, eq=False)
class FineTuned:
    """The result of `fine_tune`: a classifier with the best epoch's weights, and the history."""

    classifier: Classifier
    history: tuple[EpochRow, ...]
    best_epoch: int
    validation_logits: torch.Tensor


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
    boundary: str,
    train: tuple[torch.Tensor, torch.Tensor],
    validation: tuple[torch.Tensor, torch.Tensor],
    *,
    recipe: Recipe,
    activations_of: Callable[[int], torch.Tensor] | None = None,
    names: Sequence[str] = (),
    precision: Precision = "auto",
    checkpoints: Path | None = None,
    on_epoch: Callable[[EpochRow], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> FineTuned:
    """Tunes what lies behind `boundary`, BatchNorm statistics frozen throughout.

    The epoch with the lowest validation loss is kept; epoch 0, the start, takes part, so tuning can
    never leave a higher validation loss than it found.

    Args:
        start: a classifier whose head is fitted; unchanged.
        boundary: layer whose cached outputs are given; it and all before it stay bit-identical.
        train: activations (N, ...) at the boundary in any float dtype, and labels int64 (N,).
        validation: likewise.
        recipe: see `Recipe`.
        activations_of: the training pictures' activations in an epoch (1, 2, ...), where these are
            augmented; None: `train`'s own in every epoch.
        names: the training pictures' paths, to name a batch that breaks the loss.
        precision: of the forward and backward passes.
        checkpoints: folder to save each epoch in; an unfinished fit with the same inputs found there
            is continued, with the same result as an uninterrupted one.
        on_epoch: called with each new row.
        on_step: called with (steps done, steps in all).

    Raises:
        DataError: a non-finite loss; raised before the weights are touched.
        RunError: the checkpoint in the folder is of another recipe.
    """
    precision = training_precision(start.device, precision)
    classifier = copy.deepcopy(start).to(memory_format=torch.channels_last)
    network = classifier.network
    rest = Resumed(network, boundary, classifier.example())
    trainable = _freeze_below(classifier, boundary)
    optimizer = _optimizer(classifier, trainable, recipe)
    steps_an_epoch = math.ceil(len(train[1]) / recipe.batch_size)
    total = recipe.epochs * steps_an_epoch
    augmented = augmentation(recipe.augment, flip=recipe.flip)
    count = len(start.classes)
    journal = _Journal(checkpoints, recipe, boundary, start)

    state = journal.load(trainable, optimizer)
    if state is None:
        began = time.perf_counter()
        logits = _logits(classifier, rest, validation[0], precision)
        train_logits = _logits(classifier, rest, train[0], precision)
        row = EpochRow(
            0,
            *_loss_and_top1(train_logits, train[1]),
            *_loss_and_top1(logits, validation[1]),
            0.0,
            time.perf_counter() - began,
        )
        state = _State(0, [row], 0, _copy(trainable))
        if on_epoch:
            on_epoch(row)
    elif on_epoch:
        for row in state.history:
            on_epoch(row)

    for epoch in range(state.epoch + 1, recipe.epochs + 1):
        began = time.perf_counter()
        activations = activations_of(epoch) if activations_of else train[0]
        order = torch.randperm(len(train[1]), generator=_generator(recipe.seed, epoch))
        loss_sum = right = 0.0
        rate = 0.0
        for step, chosen in enumerate(order.split(recipe.batch_size)):
            done = (epoch - 1) * steps_an_epoch + step
            rate = _set_rate(optimizer, recipe, done, total)
            with _training_mode(classifier, _generator(recipe.seed, epoch, step)):
                activation = _batch(activations[chosen], classifier.device)
                labels = train[1][chosen].to(classifier.device)
                targets: torch.Tensor = labels
                if augmented.mixes:
                    activation, targets = augmented.mix(
                        activation, labels, count, seed=recipe.seed, view=done
                    )
                with autocast(classifier.device, precision):
                    logits = rest(activation)
                logits = logits.float()
                loss = functional.cross_entropy(
                    logits, targets, label_smoothing=recipe.label_smoothing
                )
                if not torch.isfinite(loss):
                    files = [names[int(i)] for i in chosen[:5]] if names else []
                    raise DataError(
                        f"the loss is {float(loss.detach())} at step {step} of epoch {epoch}; lower --lr "
                        f"(now {recipe.learning_rate})"
                        + (f"; the batch begins with {', '.join(files)}" if files else "")
                    )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
            nn.utils.clip_grad_norm_(list(trainable.values()), recipe.clip)
            optimizer.step()
            plain = functional.cross_entropy(logits.detach(), labels, reduction="sum")
            loss_sum += float(plain)
            right += float((logits.argmax(1) == labels).sum())
            if on_step:
                on_step(done + 1, total)
        logits = _logits(classifier, rest, validation[0], precision)
        row = EpochRow(
            epoch,
            loss_sum / len(order),
            right / len(order),
            *_loss_and_top1(logits, validation[1]),
            rate,
            time.perf_counter() - began,
        )
        better = row.validation_loss < state.history[state.best].validation_loss
        state = _State(
            epoch,
            [*state.history, row],
            epoch if better else state.best,
            _copy(trainable) if better else state.weights,
        )
        journal.save(state, trainable, optimizer)
        if on_epoch:
            on_epoch(row)

    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(state.weights[name])
    for parameter in classifier.parameters():
        parameter.requires_grad_(True)
        parameter.grad = None
    classifier.eval()
    return FineTuned(
        classifier=classifier,
        history=tuple(
            EpochRow(**{**asdict(row), "best": row.epoch == state.best}) for row in state.history
        ),
        best_epoch=state.best,
        validation_logits=_logits(classifier, rest, validation[0], "fp32"),
    )


# ---------------------------------------------------------------------------- parts of the loop


def _freeze_below(classifier: Classifier, boundary: str) -> dict[str, nn.Parameter]:
    """Freezes all that runs up to the boundary; returns the parameters that stay trainable."""
    network = classifier.network
    below = set(modules_below(network, boundary, classifier.example()))
    trainable = {}
    for name, parameter in network.named_parameters():
        owner = name.rpartition(".")[0]
        parameter.requires_grad_(owner not in below)
        if owner not in below:
            trainable[name] = parameter
    return trainable


def _optimizer(
    classifier: Classifier, trainable: Mapping[str, nn.Parameter], recipe: Recipe
) -> torch.optim.Optimizer:
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in trainable.items():
        is_head = name.startswith(f"{classifier.head}.")
        groups.setdefault((is_head, parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": recipe.weight_decay if decays else 0.0,
                "scale": 0.1 if is_head else 1.0,
            }
            for (is_head, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
        ],
        lr=recipe.learning_rate,
    )


def _set_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, total: int) -> float:
    """Linear warm-up, then a half cosine to zero; returns the body's rate."""
    warm = max(1, round(recipe.warmup * total))
    if step < warm:
        share = (step + 1) / warm
    else:
        share = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * group["scale"] * share
    return recipe.learning_rate * share


@contextmanager
def _training_mode(classifier: Classifier, generator: torch.Generator) -> Iterator[None]:
    """Train mode with every BatchNorm in eval mode; dropout draws from the generator's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        classifier.train()
        for module in classifier.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        try:
            yield
        finally:
            classifier.eval()


def _generator(*numbers: int) -> torch.Generator:
    """A generator whose stream is a function of these numbers alone."""
    digest = sha256_json(["transferscope", *numbers])
    return torch.Generator().manual_seed(int(digest[:15], 16))


def _batch(activations: torch.Tensor, device: torch.device) -> torch.Tensor:
    """fp32, channels last where there are channels: the layout in which CPUs convolve fastest."""
    batch = activations.to(device).float()
    return batch.contiguous(memory_format=torch.channels_last) if batch.ndim == 4 else batch


def _logits(
    classifier: Classifier, rest: Resumed, activations: torch.Tensor, precision: Precision
) -> torch.Tensor:
    parts = []
    with preserved(classifier), torch.inference_mode(), autocast(classifier.device, precision):
        classifier.eval()
        for part in activations.split(64):
            parts.append(rest(_batch(part, classifier.device)).float().cpu())
    return torch.cat(parts).clone()


def _loss_and_top1(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    loss = float(functional.cross_entropy(logits, labels))
    return loss, float((logits.argmax(1) == labels).float().mean())


def _copy(trainable: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in trainable.items()}


# ---------------------------------------------------------------------------- checkpoints


@dataclass(frozen=True, eq=False)
class _State:
    """Where a fit stands: last epoch done, its history, the best epoch and that epoch's weights."""

    epoch: int
    history: list[EpochRow]
    best: int
    weights: dict[str, torch.Tensor]


class _Journal:
    """The last two epochs' checkpoints in a folder; each complete or absent."""

    def __init__(self, folder: Path | None, recipe: Recipe, boundary: str, start: Classifier):
        self.folder = folder
        self._identity = {
            "recipe": asdict(recipe),
            "boundary": boundary,
            "start": start.body_hash(),
            "classes": list(start.classes),
        }

    def save(
        self,
        state: _State,
        trainable: Mapping[str, torch.Tensor],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Writes epoch-NNNN.safetensors and removes all but the last two."""
        if self.folder is None:
            return
        tensors = {f"now.{name}": tensor for name, tensor in trainable.items()}
        tensors |= {f"best.{name}": tensor for name, tensor in state.weights.items()}
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in values.items()}
        metadata: dict[str, Any] = {
            "identity": self._identity,
            "epoch": state.epoch,
            "best": state.best,
            "history": [asdict(row) for row in state.history],
        }
        write_tensors(self.folder / f"epoch-{state.epoch:04d}.safetensors", tensors, metadata)
        for old in self._found()[:-2]:
            old.unlink()

    def load(
        self, trainable: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> _State | None:
        """The newest whole checkpoint, put into parameters and optimizer; None if there is none."""
        for path in reversed(self._found()):
            try:
                tensors, metadata = read_tensors(path)
            except WeightsError:
                continue  # damaged: the one before it is whole
            if metadata["identity"] != self._identity:
                raise RunError(
                    f"{str(path)!r} was made with other settings than these; repeat the options of "
                    "the first call, or choose another --out"
                )
            with torch.no_grad():
                for name, parameter in trainable.items():
                    parameter.copy_(tensors[f"now.{name}"])
            restored = optimizer.state_dict()
            restored["state"] = _optimizer_state(tensors)
            optimizer.load_state_dict(restored)
            return _State(
                epoch=metadata["epoch"],
                history=[EpochRow(**row) for row in metadata["history"]],
                best=metadata["best"],
                weights={n[5:]: t for n, t in tensors.items() if n.startswith("best.")},
            )
        return None

    def _found(self) -> list[Path]:
        return sorted(self.folder.glob("epoch-*.safetensors")) if self.folder else []


def _optimizer_state(tensors: Mapping[str, torch.Tensor]) -> dict[int, dict[str, torch.Tensor]]:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = tensor
    return state


def history_rows(history: Sequence[EpochRow]) -> Iterator[tuple[Any, ...]]:
    """Rows of history.csv, in the order of `EpochRow`'s fields."""
    for row in history:
        yield tuple(int(v) if isinstance(v, bool) else v for v in asdict(row).values())
