"""An MLP head fitted on cached pooled features, in seconds; where a linear head is too simple."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from transferscope.backbones.heads import MLPHead
from transferscope.errors import DataError, InputError
from transferscope.files import sha256_json

WEIGHT_DECAY = 0.5
"""AdamW's, on the two weight matrices."""


@dataclass(frozen=True)
class HeadEpoch:
    """One epoch of a head's fit: mean losses in nats, both with the class weights.

    The training loss has label smoothing and dropout in it.
    """

    train_loss: float
    validation_loss: float


@dataclass(frozen=True, eq=False)
class FittedHead:
    """An MLP head with its best epoch's weights.

    Attributes:
        head: in eval mode; takes pooled features as they are, the scaling is inside.
        history: an entry an epoch, up to the one where patience ended.
        best_epoch: the one with the lowest validation loss, counted from 1.
    """

    head: MLPHead
    history: tuple[HeadEpoch, ...]
    best_epoch: int

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """(N, K) of pooled features (N, D)."""
        with torch.inference_mode():
            result: torch.Tensor = self.head(features.float())
        return result.clone()


def class_weights(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Weights float32 (K,) under which every class counts alike: N / (K * pictures of the class).

    Their mean over the N pictures is 1.

    Args:
        labels: int64 (N,) in 0..classes-1.
        classes: K.

    Raises:
        DataError: a class without a picture.
    """
    counts = torch.bincount(labels, minlength=classes)
    if not bool(counts.all()):
        absent = counts.argmin().item()
        raise DataError(
            f"class {absent} of {classes} has no picture in the training split, so it can have no "
            "weight; add pictures of it, or leave the class out"
        )
    return (len(labels) / (classes * counts.double())).float()


def fit_mlp_head(
    features: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    validation: tuple[torch.Tensor, torch.Tensor],
    *,
    class_weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    seed: int = 0,
    epochs: int = 30,
    learning_rate: float = 1e-3,
    batch_size: int | None = None,
    dropout: float = 0.4,
    patience: int = 8,
    names: Sequence[str] = (),
) -> FittedHead:
    """Trains Linear, ReLU, Dropout, Linear on pooled features: AdamW, cosine schedule, early stopping.

    Features are standardised inside, and the scaling is folded into the first layer at the end. All that
    is drawn is a function of (seed, epoch, step): two calls on one machine give the same bits.

    Args:
        features: (N, D), of the training split alone; the fit runs on their device.
        labels, classes: int64 (N,) in 0..K-1, and K.
        validation: features (M, D) and labels int64 (M,); they choose the epoch.
        class_weights: (K,), of both losses; see `class_weights`. None: every picture counts alike.
        label_smoothing, seed: of the training loss only; of all that is drawn.
        epochs, learning_rate: at most so many; a half cosine from the rate to zero is as long.
        batch_size: pictures a step; None: a 32nd of all, though at least 16 and at most 128.
        dropout, patience: of the hidden layer; epochs without a lower validation loss.
        names: the training pictures' paths, to name a batch that breaks the loss.

    Raises:
        InputError: an option outside its range, or no validation picture.
        DataError: features or a loss that are not finite, before the step is taken.
    """
    batch_size = min(max(len(labels) // 32, 16), 128) if batch_size is None else batch_size
    _refuse_unusable(features, labels, validation, epochs, learning_rate, batch_size, patience)
    place = features.device
    mean, std = features.float().mean(0), features.float().std(0, correction=0)
    std = torch.where(std < 1e-8, 1.0, std)
    head = _untrained(features.shape[1], classes, dropout, seed).to(place)
    weights = None if class_weights is None else class_weights.float().to(place)
    held = (validation[0].to(place).float() - mean) / std
    labels, held_labels = labels.to(place), validation[1].to(place)
    steps = epochs * math.ceil(len(labels) / batch_size)
    optimizer, schedule = _optimizer(head, learning_rate, steps)
    history: list[HeadEpoch] = []
    best, best_state = 0, copy.deepcopy(head.state_dict())
    for epoch in range(1, epochs + 1):
        total = 0.0
        order = torch.randperm(len(labels), generator=_generator(seed, epoch)).to(place)
        for step, chosen in enumerate(order.split(batch_size)):
            batch = (features[chosen].float() - mean) / std
            logits = _trained_on(head, batch, _generator(seed, epoch, step))
            loss = functional.cross_entropy(
                logits, labels[chosen], weights, label_smoothing=label_smoothing
            )
            value = float(loss.detach())
            when = f"at step {step} of epoch {epoch}"
            _refuse_broken("head's loss", value, when, learning_rate, names, chosen)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += value * len(chosen)
        with torch.no_grad():
            judged = float(functional.cross_entropy(head(held), held_labels, weight=weights))
        _refuse_broken("validation loss", judged, f"after epoch {epoch} of the head", learning_rate)
        history.append(HeadEpoch(total / len(labels), judged))
        if not best or judged < history[best - 1].validation_loss:
            best, best_state = epoch, copy.deepcopy(head.state_dict())
        if epoch - best >= patience:
            break
    head.load_state_dict(best_state)
    _fold_scaling(head, mean, std)
    head.requires_grad_(True).zero_grad(set_to_none=True)
    return FittedHead(head, tuple(history), best)


# ---------------------------------------------------------------------------- parts of the fit


def _refuse_unusable(
    features: torch.Tensor,
    labels: torch.Tensor,
    validation: tuple[torch.Tensor, torch.Tensor],
    epochs: int,
    learning_rate: float,
    batch_size: int,
    patience: int,
) -> None:
    for name, value in (
        ("number of training pictures", len(labels)),
        ("number of validation pictures", len(validation[1])),
        ("number of epochs", epochs),
        ("batch size", batch_size),
        ("patience", patience),
    ):
        if value < 1:
            raise InputError(f"the {name} is {value}; a head needs at least 1 to be fitted")
    if not learning_rate > 0:
        raise InputError(f"the head's learning rate is {learning_rate}; it must be above 0")
    if not (torch.isfinite(features).all() and torch.isfinite(validation[0]).all()):
        raise DataError(
            "the network's features are not finite; its weights are damaged: load others"
        )


def _refuse_broken(
    name: str,
    loss: float,
    when: str,
    rate: float,
    names: Sequence[str] = (),
    chosen: Sequence[int] | torch.Tensor = (),
) -> None:
    if not math.isfinite(loss):
        files = ", ".join(names[int(i)] for i in chosen[:5]) if names else ""
        raise DataError(
            f"the {name} is {loss} {when}; lower its learning rate (now {rate})"
            + (f"; the batch begins with {files}" if files else "")
        )


def _untrained(in_features: int, classes: int, dropout: float, seed: int) -> MLPHead:
    """A head in eval mode with PyTorch's own initialisation for Linear, drawn from the seed alone."""
    with torch.device("meta"):  # draws nothing from the global random state
        head = MLPHead(in_features, classes, dropout=dropout)
    head = head.to_empty(device="cpu").eval()
    generator = _generator(seed)
    with torch.no_grad():
        for layer in (head.hidden, head.logits):
            bound = 1 / math.sqrt(layer.in_features)
            for parameter in (layer.weight, layer.bias):
                parameter.uniform_(-bound, bound, generator=generator)
    return head


def _optimizer(
    head: MLPHead, rate: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW whose rate falls to zero in `steps` steps, along half a cosine."""
    optimizer = torch.optim.AdamW(
        [
            {"params": [head.hidden.weight, head.logits.weight], "weight_decay": WEIGHT_DECAY},
            {"params": [head.hidden.bias, head.logits.bias], "weight_decay": 0.0},
        ],
        lr=rate,
        fused=True,
    )
    return optimizer, torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps))
    )


def _trained_on(head: MLPHead, batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Logits as training sees them: `head.forward` with its dropout drawn from the generator."""
    units = head.relu(head.hidden(batch))
    keep = 1 - head.dropout.p
    kept = torch.rand(units.shape, generator=generator).to(units.device) < keep
    result: torch.Tensor = head.logits(units * kept / keep)
    return result


def _fold_scaling(head: MLPHead, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Makes a head for (x - mean) / std one for x; in double precision, as means can be large."""
    with torch.no_grad():
        weight = head.hidden.weight.double() / std.double()
        head.hidden.bias.copy_(head.hidden.bias.double() - weight @ mean.double())
        head.hidden.weight.copy_(weight)


def _generator(*numbers: int) -> torch.Generator:
    """A generator whose stream is a function of these numbers alone."""
    digest = sha256_json(["transferscope.head", *numbers])
    return torch.Generator().manual_seed(int(digest[:15], 16))
