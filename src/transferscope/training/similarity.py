"""How similar a set of pictures is to what a network was trained on: by its use, and by its statistics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from transferscope.acceleration.precision import Precision, autocast
from transferscope.activations import hooked
from transferscope.backbones.classifier import Classifier
from transferscope.copies import still
from transferscope.data.loading import load_batches
from transferscope.images import as_float

BATCH = 16
"""Pictures a forward pass."""


def transfer_gain(top1: float, control: float) -> float:
    """How much of the way from random features to perfection the pretrained ones cover, in [0, 1].

    (top1 - control) / (1 - control), where `control` is the accuracy of the same probe on the same
    architecture with random weights: what the architecture sees in the pictures without having learned.
    It says how useful the source task was for this one, whatever the pictures look like.
    """
    return float(np.clip((top1 - control) / max(1 - control, 1e-9), 0, 1))


def statistics_distance(
    mean: np.ndarray, variance: np.ndarray, source_mean: np.ndarray, source_variance: np.ndarray
) -> float:
    """Mean over channels of the squared Hellinger distance of two normal distributions, in [0, 1].

    0: the same mean and variance; 1: no overlap. Unlike a Frechet distance it is bounded, so that no
    single channel decides.

    Args:
        mean, variance: (C,) of the pictures at a layer; a variance is above 0.
        source_mean, source_variance: (C,) that the network remembers.
    """
    total = variance + source_variance
    overlap = np.sqrt(2 * np.sqrt(variance * source_variance) / total)
    overlap = overlap * np.exp(-((mean - source_mean) ** 2) / (4 * total))
    return float(np.mean(1 - overlap))


def picture_similarity(distances: Sequence[float], scrambled: Sequence[float]) -> float:
    """How near pictures are to a network's source, in [0, 1].

    1 - mean(distances) / mean(scrambled), at least 0. 1: every layer sees the mean and the variance that
    it saw in training. 0: the pictures are no nearer to the source than they are once their phases are
    scrambled, which keeps colours and spectrum and destroys every shape. It compares statistics of
    channels, not what is in the pictures, and it knows only the first two moments.

    Args:
        distances: `statistics_distance` by BatchNorm layer, of the pictures.
        scrambled: the same of the scrambled pictures.
    """
    return float(np.clip(1 - np.mean(distances) / max(float(np.mean(scrambled)), 1e-9), 0, 1))


def source_similarity(
    classifier: Classifier,
    files: Sequence[Path],
    *,
    seed: int = 0,
    precision: Precision = "auto",
) -> float | None:
    """How near pictures are to those that a network was trained on, by what its BatchNorms remember.

    Every BatchNorm keeps mean and variance of what it saw in training, by channel. The same are
    measured of the given pictures and of their phase-scrambled copies; see `picture_similarity`.

    Args:
        classifier: unchanged.
        files: some pictures; a hundred or more.
        seed: of the phases.

    Returns:
        In [0, 1], or None for a network without BatchNorm statistics.
    """
    own, scrambled = _Moments(classifier, precision), _Moments(classifier, precision)
    if not own.sums:
        return None
    generator = torch.Generator().manual_seed(seed)
    for batch in load_batches(files, classifier.input, batch_size=BATCH):
        pictures = as_float(batch)
        own.add(pictures)
        scrambled.add(phase_scrambled(pictures, generator))
    return picture_similarity(own.distances(), scrambled.distances())


def phase_scrambled(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Pictures (N, C, H, W) in [0, 1] with random phases, the same for all colours of a picture.

    Spectrum and mean colour stay, but for the clipping to [0, 1]; shapes do not.
    """
    noise = torch.rand(len(pictures), 1, *pictures.shape[2:], generator=generator)
    turns = torch.fft.rfft2(noise)
    turns = turns / turns.abs().clamp_min(1e-12)
    scrambled: torch.Tensor = torch.fft.irfft2(
        torch.fft.rfft2(pictures) * turns, s=pictures.shape[2:]
    )
    return scrambled.clamp(0, 1)


class _Moments:
    """Mean and variance by channel of what enters each BatchNorm of a network."""

    def __init__(self, classifier: Classifier, precision: Precision):
        self._running, self._precision = still(classifier), precision
        self._device = classifier.device
        self.sums: dict[_BatchNorm, torch.Tensor] = {
            module: torch.zeros(3, module.num_features).double()
            for module in self._running.modules()
            if isinstance(module, _BatchNorm)
            and module.running_mean is not None
            and module.running_var is not None
        }

    def add(self, pictures: torch.Tensor) -> None:
        """Takes pictures (N, C, H, W) in [0, 1] into account."""

        def note(norm: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            values = inputs[0].float()
            axes = [axis for axis in range(values.ndim) if axis != 1]
            count = torch.full((values.shape[1],), values.numel() / values.shape[1])
            sums = [count, values.sum(axes).cpu(), (values * values).sum(axes).cpu()]
            self.sums[norm] += torch.stack(sums).double()

        pictures = pictures.to(self._device).contiguous(memory_format=torch.channels_last)
        with (
            hooked([(norm, note, True) for norm in self.sums]),
            torch.inference_mode(),
            autocast(self._device, self._precision),
        ):
            self._running(pictures)

    def distances(self) -> list[float]:
        """`statistics_distance` from what each layer remembers, where the pictures came to it.

        The layer's own epsilon is added to both variances, as it does: a channel that is silent in
        both is no difference.
        """
        found = []
        for norm, (count, first, second) in self.sums.items():
            if count[0]:
                known = {name: value.double().cpu() for name, value in norm.named_buffers()}
                mean = first / count
                variance = (second / count - mean**2).clamp_min(0) + norm.eps
                source = known["running_mean"], known["running_var"] + norm.eps
                values = (value.numpy() for value in (mean, variance, *source))
                found.append(statistics_distance(*values))
        return found
