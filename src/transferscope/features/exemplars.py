"""Which real pictures excite a channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from transferscope.activations import TruncatedForward
from transferscope.backbones.classifier import Classifier
from transferscope.copies import still
from transferscope.data.loading import load_batches
from transferscope.images import as_float

Progress = Callable[[int, int], None]


def channel_responses(
    classifier: Classifier,
    files: Sequence[Path],
    layers: Sequence[str],
    *,
    batch_size: int = 8,
    on_progress: Progress | None = None,
) -> dict[str, torch.Tensor]:
    """How strongly real pictures excite every channel, in fp32.

    Returns:
        layer -> float32 (N, channels): the spatial mean of each channel; for tokens (T, D) the mean
        over tokens.

    Raises:
        UnknownName: no such layer.
    """
    forward = TruncatedForward(
        still(classifier.network), layers, classifier.example(), channels_first=True
    )
    collected: dict[str, list[torch.Tensor]] = {layer: [] for layer in layers}
    done = 0
    with torch.inference_mode():
        for batch in load_batches(files, classifier.input, batch_size=batch_size):
            pictures = classifier.input.normalise(as_float(batch.to(classifier.device)))
            for layer, output in forward(pictures).items():
                collected[layer].append(channel_means(output).float().cpu())
            done += len(batch)
            if on_progress:
                on_progress(done, len(files))
    return {layer: torch.cat(parts) for layer, parts in collected.items()}


def channel_means(output: torch.Tensor) -> torch.Tensor:
    """(N, C) from (N, C, H, W), tokens (N, T, C) or a vector (N, C)."""
    if output.ndim == 4:
        return output.mean((2, 3))
    return output.mean(1) if output.ndim == 3 else output


EXEMPLAR_POOL = 1000
"""Most training pictures among which the best ones for a channel are sought."""


def drawn_sample(count: int, seed: int) -> list[int]:
    """At most `EXEMPLAR_POOL` of so many indexes, ascending."""
    if count <= EXEMPLAR_POOL:
        return list(range(count))
    draw = np.random.default_rng(seed).choice(count, EXEMPLAR_POOL, replace=False)
    return sorted(int(index) for index in draw)
