"""What a picture costs on this machine: reading it, a forward pass, a step of training."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import torch
from torch import nn

from transferscope.acceleration.folding import folded
from transferscope.acceleration.precision import Precision, autocast, training_precision
from transferscope.backbones.classifier import Classifier
from transferscope.data.loading import load_batches
from transferscope.images import as_float
from transferscope.training.batches import frozen_front
from transferscope.training.recipe import Recipe
from transferscope.training.tail import Tail

BATCH = 16
"""Pictures a batch."""

TIMED = 5
"""Batches and steps that are timed, after one to warm up."""


@dataclass(frozen=True)
class Speed:
    """Measured seconds a picture.

    Attributes:
        network: the whole forward pass, nothing read; of the fastest batch.
        features: reading a picture and the forward pass, as features are extracted.
        tail_step: a step of training behind the boundary: forward and backward.
        whole_step: the same for the whole network.
    """

    network: float
    features: float
    tail_step: float
    whole_step: float


def tuning_seconds(
    speed: Speed, recipe: Recipe, *, train: int, validation: int, whole: bool
) -> float:
    """Seconds that fine-tuning will take, all its epochs run.

    Args:
        speed: measured.
        recipe: whose epochs and views count.
        train, validation: pictures.
        whole: the whole network is tuned, from files; else what lies behind a boundary, from the cache.
    """
    steps = train + validation / 3  # an epoch's: a judged picture has no backward pass
    if whole:
        reading = (train + validation) * max(0.0, speed.features - speed.network)
        return recipe.epochs * (reading + steps * speed.whole_step)
    views = 1 if recipe.augment == "none" else min(recipe.views, recipe.epochs)
    looks = views * train + validation
    return looks * speed.features + recipe.epochs * steps * speed.tail_step


def measure_speed(
    source: Classifier,
    files: Sequence[Path],
    boundary: str | None,
    *,
    classes: int,
    precision: Precision,
) -> Speed:
    """Times reading, forward passes and training steps, on private copies of a network.

    Args:
        source: the pretrained network; unchanged.
        files: pictures, repeated where there are too few.
        boundary: behind which the tail would be tuned; None: the whole network.
        classes: of the head that would be tuned.
    """
    files = list(islice(cycle(files), BATCH * (TIMED + 1)))
    network = folded(source.network, source.example()).to(memory_format=torch.channels_last)
    within: list[float] = []
    between: list[float] = []
    batch = torch.zeros(0)
    last = time.perf_counter()
    for loaded in load_batches(files, source.input, batch_size=BATCH):
        batch = source.input.normalise(as_float(loaded.to(source.device)))
        batch = batch.contiguous(memory_format=torch.channels_last)
        began = time.perf_counter()
        with torch.inference_mode(), autocast(source.device, precision):
            network(batch)
        _wait(source.device)
        now = time.perf_counter()
        within.append(now - began)
        between.append(now - last)
        last = now
    whole = tail = _step_seconds(source, None, batch, classes, precision)
    if boundary is not None:
        activation = frozen_front(source, boundary, precision)(batch)
        tail = _step_seconds(source, boundary, activation, classes, precision)
    # The best batch compares networks; what is predicted has to live with the machine as it is.
    best, total = min(within[1:]), statistics.median(between[1:])
    return Speed(best / BATCH, total / BATCH, tail, whole)


def _step_seconds(
    source: Classifier,
    boundary: str | None,
    batch: torch.Tensor,
    classes: int,
    precision: Precision,
) -> float:
    """Median seconds a picture of a training step behind a boundary, on a private copy."""
    head = torch.zeros(classes, source.head_layer.in_features)
    start = source.with_head(head, torch.zeros(classes), [str(number) for number in range(classes)])
    tail = Tail(start, boundary, precision=training_precision(source.device, precision))
    labels = torch.zeros(len(batch), dtype=torch.int64, device=source.device)
    seconds = []
    for _ in range(TIMED):
        began = time.perf_counter()
        with tail.training(0), torch.enable_grad():
            nn.functional.cross_entropy(tail.logits(batch), labels).backward()
        _wait(source.device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:]) / len(batch)


def _wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
