"""The lesson's kind of training loop, as plain as it is in the lesson, with its mistakes mended."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from transferscope.backbones.classifier import Classifier
from transferscope.images import as_float

RATE = 1e-3
"""Of Adam, as it is where nothing else is said."""


def uniform_bits(classes: int) -> float:
    """Cross-entropy of guesses that take every class for as likely, in bits: what a loss has to be below.

    >>> [round(uniform_bits(classes), 2) for classes in (2, 5, 10)]
    [1.0, 2.32, 3.32]
    >>> round(uniform_bits(3), 1)
    1.6
    """
    guess, truth = torch.zeros(1, classes), torch.zeros(1, dtype=torch.int64)
    return float(functional.cross_entropy(guess, truth)) / math.log(2)


@dataclass(frozen=True)
class Course:
    """What a loop took, and how it went.

    Attributes:
        seconds: of all epochs; pictures were decoded before.
        losses: mean training loss of each epoch, nats.
    """

    seconds: float
    losses: tuple[float, ...]


def lesson_loop(
    classifier: Classifier,
    pictures: torch.Tensor,
    labels: torch.Tensor,
    *,
    trained: Sequence[str],
    epochs: int,
    batch_size: int,
    seed: int = 0,
) -> Course:
    """Every picture through the whole network in every epoch; the classifier is trained in place.

    Args:
        classifier: of the example's own.
        pictures: uint8 (N, C, H, W).
        labels: int64 (N,).
        trained: layers whose weights are; "" is all of it. Frozen ones keep BatchNorm's statistics.
        epochs, batch_size, seed: the seed is of the order.
    """
    network = classifier.network.requires_grad_(False).eval()
    for name in trained:
        network.get_submodule(name).requires_grad_(True).train()
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], RATE)
    began, losses = time.perf_counter(), []
    for epoch in range(epochs):
        total = 0.0
        batches = order(len(labels), epoch, seed).split(batch_size)
        for batch in batches:
            logits = network(classifier.input.normalise(as_float(pictures[batch])))
            total += step(optimizer, logits, labels[batch])
        losses.append(total / len(batches))
    network.eval()
    return Course(time.perf_counter() - began, tuple(losses))


def epochs_until(
    wanted: float,
    head: nn.Module,
    train: tuple[torch.Tensor, torch.Tensor],
    held_out: tuple[torch.Tensor, torch.Tensor],
    *,
    batch_size: int,
    most: int,
    seed: int = 0,
) -> int | None:
    """Epochs after which `lesson_loop`, training this head alone, recognises this share; None: not in `most`.

    A frozen network gives a picture the same features in every epoch. So the loop's steps are taken here on
    stored features: the same steps, in a fraction of the time.

    Args:
        wanted: share of the held-out pictures.
        head: trained in place, from the start that the loop has.
        train, held_out: features (N, D) and labels int64 (N,).
    """
    optimizer = torch.optim.Adam(head.parameters(), RATE)
    for epoch in range(most):
        for batch in order(len(train[1]), epoch, seed).split(batch_size):
            step(optimizer, head(train[0][batch]), train[1][batch])
        with torch.inference_mode():
            right = (head(held_out[0]).argmax(1) == held_out[1]).float().mean()
        if float(right) >= wanted:
            return epoch + 1
    return None


def order(count: int, epoch: int, seed: int) -> torch.Tensor:
    """The pictures' order in an epoch."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed + 1000 * epoch))


def step(optimizer: torch.optim.Optimizer, logits: torch.Tensor, labels: torch.Tensor) -> float:
    """One step of training; the batch's mean loss."""
    loss = functional.cross_entropy(logits, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())
