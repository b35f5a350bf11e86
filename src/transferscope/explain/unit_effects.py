"""Which channels of a layer decide between two classes in one picture: an estimate, and what ablation shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from transferscope.acceleration.precision import autocast
from transferscope.activations import TruncatedForward, find_layer, hooked
from transferscope.activations import layers as layers_of
from transferscope.backbones.classifier import Classifier
from transferscope.copies import still
from transferscope.errors import InputError
from transferscope.explain.attribution import BATCH
from transferscope.explain.scores import Scores, Targets, recorded, refuse_layer
from transferscope.features.receptive_field import as_maps
from transferscope.records import Record


@dataclass(frozen=True)
class UnitEffect(Record):
    """How much a channel contributes to a score in one picture.

    Attributes:
        layer: dotted name.
        channel: index.
        estimate: gradient times activation, summed over places: what the score would lose were it linear.
        ablated: what it loses when the channel is 0 everywhere.
        activation: mean over places.
    """

    layer: str
    channel: int
    estimate: float
    ablated: float
    activation: float


def deciding_channels(
    classifier: Classifier,
    picture: torch.Tensor,
    target: int,
    against: int | None,
    layer: str,
    *,
    count: int = 6,
    channels: Sequence[int] | None = None,
) -> tuple[UnitEffect, ...]:
    """The channels of a layer that contribute most to a score in a picture, each checked by ablation.

    Args:
        classifier: unchanged.
        picture: (C, H, W) in [0, 1].
        target: index of the class.
        against: of the one whose logit is subtracted; None: none.
        layer: dotted name; the answer has to depend on it.
        count: of the channels with the largest estimates, either way.
        channels: these in place of the largest, in this order.

    Raises:
        UnknownName: no such layer.
        InputError: the answer does not depend on the layer, it runs several times, or has no such channel.

    Reference: Olah et al. 2018, "The Building Blocks of Interpretability", for gradient times activation of
    a layer's channels.
    """
    refuse_layer(classifier, layer)
    if count < 1:
        raise InputError(f"{count} channels were asked for; ask for 1 or more")
    with torch.inference_mode(False):
        given = picture.detach().clone()[None].to(classifier.device)
        versus = None if against is None else torch.tensor([against], device=given.device)
        targets = Targets(torch.tensor([target], device=given.device), versus)
        scores = Scores(classifier, layer)
        with recorded():
            activation, logits = scores.with_activations(given.requires_grad_())
            (gradient,) = torch.autograd.grad(targets.scores(logits).sum(), activation)
        places = 1 if activation.ndim == 3 else tuple(range(2, activation.ndim))
        estimates = (activation.detach() * gradient).sum(places)[0].float().cpu().numpy()
        means = activation.detach().mean(places)[0].float().cpu().numpy()
        if channels is None:
            channels = np.argsort(-np.abs(estimates), kind="stable")[:count].tolist()
        _refuse_channels(channels, len(estimates), layer)
        lost = _ablated(classifier, given.detach(), targets, layer, channels)
    return tuple(
        UnitEffect(layer, one, float(estimates[one]), loss, float(means[one]))
        for one, loss in zip(channels, lost, strict=True)
    )


def _refuse_channels(channels: Sequence[int], count: int, layer: str) -> None:
    for one in channels:
        if not 0 <= one < count:
            raise InputError(f"there is no channel {one} in {layer!r}; it has 0 to {count - 1}")


def _ablated(
    classifier: Classifier,
    picture: torch.Tensor,
    targets: Targets,
    layer: str,
    channels: Sequence[int],
) -> list[float]:
    """What a score loses, by the network itself, when each of the channels is 0."""
    network = still(classifier.network)
    known = {one.name: one for one in layers_of(network, classifier.example())}[layer]
    if known.calls > 1:
        raise InputError(
            f"layer {layer!r} runs {known.calls} times in a forward pass, so that no one output of it can be "
            "ablated; choose the end of a stage"
        )
    axis = -1 if known.channels_last or len(known.output_shape) == 2 else 1
    normalised = classifier.input.normalise(picture)

    def scored(rows: torch.Tensor | None) -> torch.Tensor:
        """Scores with one of the channels shut in each copy of the picture; None: as it is."""
        count = 1 if rows is None else len(rows)

        def shut(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
            if rows is None:
                return None
            changed = output.clone()
            changed.movedim(axis, 1)[torch.arange(count, device=output.device), rows] = 0
            return changed

        with (
            hooked([(find_layer(network, layer), shut, False)]),
            torch.no_grad(),
            autocast(normalised.device, "fp32"),
        ):
            logits = network(normalised.expand(count, -1, -1, -1).contiguous())
        return targets.repeated(count).scores(logits).float().cpu()

    whole = float(scored(None)[0])
    indices = torch.tensor(channels, device=normalised.device)
    return [whole - float(one) for part in indices.split(BATCH) for one in scored(part)]


def channel_maps(
    classifier: Classifier, pictures: torch.Tensor, layer: str, channels: Sequence[int]
) -> NDArray[np.float32]:
    """Activations of channels place by place, float32 (N, number of channels, h, w).

    Args:
        classifier: unchanged.
        pictures: (N, C, H, W) in [0, 1].
        layer: dotted name.
        channels: indices.

    Raises:
        UnknownName: no such layer.
        InputError: no such channel, or tokens that are no patches.
    """
    forward = TruncatedForward(
        still(classifier.network), [layer], classifier.example(), channels_first=True
    )
    with torch.inference_mode(), autocast(classifier.device, "fp32"):
        given = classifier.input.normalise(pictures.to(classifier.device))
        found = as_maps(forward(given)[layer], classifier.input.size)
    _refuse_channels(channels, found.shape[1], layer)
    maps: NDArray[np.float32] = found[:, list(channels)].float().cpu().numpy()
    return maps
