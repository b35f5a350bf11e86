"""How channels behind the freeze boundary answer pictures, from the boundary cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import nn

from transferscope.activations import Resumed, capture, evaluating
from transferscope.activations import layers as layers_of
from transferscope.backbones.classifier import Classifier
from transferscope.features.exemplars import channel_means


class BoundaryRows(Protocol):
    """Activations of N pictures at a layer: a tensor, or a memory-mapped cache."""

    def __getitem__(self, chosen: torch.Tensor, /) -> torch.Tensor: ...

    def __len__(self) -> int: ...


def resumed(
    network: nn.Module, boundary: str | None, example: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network from the boundary on; without one, all of it, whose rows are normalised pictures."""
    return network if boundary is None else Resumed(network, boundary, example)


def resumed_responses(
    classifier: Classifier,
    boundary: str,
    rows: BoundaryRows,
    layers: Sequence[str],
    *,
    batch_size: int = 32,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, torch.Tensor]:
    """How strongly pictures excite every channel of layers behind a boundary, in fp32.

    Networks that share what lies below the boundary share its activations, so each further network
    costs its tail alone. The result is `channel_responses` up to the precision that the rows have.

    Args:
        classifier: unchanged.
        boundary: the layer whose activations the rows are.
        rows: of N pictures.
        layers: dotted names of layers behind the boundary.
        batch_size: pictures a forward pass.
        on_progress: called with (pictures done, N).

    Returns:
        layer -> float32 (N, channels): the spatial mean of each channel; for tokens the mean over tokens.

    Raises:
        UnknownName, InputError: no such layer, or something bypasses the boundary.
    """
    network, example = classifier.network, classifier.example()
    rest = Resumed(network, boundary, example)
    last = {one.name for one in layers_of(network, example) if one.channels_last}
    found: dict[str, list[torch.Tensor]] = {layer: [] for layer in layers}
    done = 0
    with evaluating(classifier), torch.inference_mode(), capture(network, layers) as outputs:
        for chosen in torch.arange(len(rows)).split(batch_size):
            batch = rows[chosen].to(classifier.device).float()
            if batch.ndim == 4:
                batch = batch.contiguous(memory_format=torch.channels_last)
            rest(batch)
            for layer in layers:
                output = outputs[layer]
                first = output.movedim(-1, 1) if layer in last else output
                found[layer].append(channel_means(first).float().cpu())
            done += len(chosen)
            if on_progress:
                on_progress(done, len(rows))
    return {layer: torch.cat(parts) for layer, parts in found.items()}
