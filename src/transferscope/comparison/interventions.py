"""A channel's activations replaced in one of two networks, and what its answers are then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from transferscope.acceleration.folding import TOLERANCE, folded
from transferscope.acceleration.numerics import full_precision
from transferscope.activations import Resumed, capture, modules_below
from transferscope.activations import layers as layers_of
from transferscope.backbones.classifier import Classifier
from transferscope.comparison.effects import Answers, Labels, Progress, Values, answers_of
from transferscope.copies import copied
from transferscope.errors import InputError
from transferscope.features.responses import BoundaryRows, resumed

Intervention = Literal["set_back", "brought", "ablated"]
"""A channel of tuned is given base's activations on the same picture; a channel of base is given tuned's;
a channel of tuned is given its own mean over the pictures, position by position."""

Channels = Mapping[str, NDArray[np.int64]]
"""Layer -> indices of channels."""

PICTURES, COPIES = 16, 64
"""Pictures whose activations are held at a time, and altered copies of them a forward pass."""


@dataclass(frozen=True)
class Changes:
    """What interventions on C channels of a layer change in N pictures' answers: after less before.

    Attributes:
        loss: float64 (N, C), of the true class, nats.
        logit: float64 (N, C), the true class's, less the mean of all classes' logits.
        before: bool (N,), what the network gets right as it is.
        after: bool (N, C), with the channel replaced.
    """

    loss: Values
    logit: Values
    before: NDArray[np.bool_]
    after: NDArray[np.bool_]


@dataclass(frozen=True)
class _Layer:
    name: str
    channels: int
    axis: int
    """Of the channels, in a batch."""
    base: Resumed
    tuned: Resumed


class Interventions:
    """Two networks on the same pictures, of which either can be given channels of the other.

    Everything runs in fp32 from the boundary's cached activations, and from a layer itself once it is
    reached: of a layer, two networks' activations of a few pictures are held at a time, whatever the number
    of pictures. The networks given are copied, and the copies' BatchNorms are folded into convolutions.

    Args:
        base, tuned: the same up to the boundary; unchanged.
        boundary: a layer, or None.
        rows: its activations of the pictures; without a boundary, normalised pictures.
        labels: int64, of all rows.
        layers: names of layers behind the boundary.
        pictures: indices of the N rows to use.
        on_progress: called with (pictures passed, all) of every pass.

    Raises:
        UnknownName, InputError: no such layer, one that is not behind the boundary, or one that something
            bypasses (a shortcut around it).
    """

    def __init__(
        self,
        base: Classifier,
        tuned: Classifier,
        boundary: str | None,
        rows: BoundaryRows,
        labels: Labels,
        layers: Sequence[str],
        pictures: NDArray[np.int64],
        on_progress: Progress | None = None,
    ):
        self._rows, self._on_progress = rows, on_progress
        self._pictures = torch.from_numpy(pictures)
        self._labels = torch.from_numpy(labels[pictures])
        self._device = tuned.device
        self._temperatures = {"base": base.temperature, "tuned": tuned.temperature}
        example = tuned.example()
        self._plain = {
            name: copied(one.network).eval().requires_grad_(False)
            for name, one in (("base", base), ("tuned", tuned))
        }
        self._rests = {name: resumed(one, boundary, example) for name, one in self._plain.items()}
        fast = {
            name: folded(one, example).to(memory_format=torch.channels_last)
            for name, one in self._plain.items()
        }
        known = {one.name: one for one in layers_of(self._plain["tuned"], example)}
        below = set(modules_below(self._plain["tuned"], boundary, example) if boundary else ())
        self._layers: list[_Layer] = []
        for name in dict.fromkeys(layers):
            if name in below:
                raise InputError(
                    f"layer {name!r} is not behind {boundary!r}, up to which the networks are the same; give "
                    "layers behind it"
                )
            tails = {which: _tail(self._plain[which], fast[which], name, example) for which in fast}
            found = known[name]
            last = found.channels_last or len(found.output_shape) == 2
            self._layers.append(_Layer(name, found.channels, -1 if last else 1, **tails))

    @property
    def channels(self) -> dict[str, int]:
        """Layer -> how many channels it has."""
        return {layer.name: layer.channels for layer in self._layers}

    def first_order(self) -> dict[str, Values]:
        """Estimates of the change of loss where a channel of tuned is set back: layer -> (N, C).

        The gradient of the loss with respect to the layer's activations, times base's less tuned's, summed
        over positions: all channels by one backward pass.

        Reference: Nanda 2023, attribution patching; Molchanov et al. 2017, eq. 8.
        """
        found: dict[str, list[torch.Tensor]] = {layer.name: [] for layer in self._layers}
        for places, activations in self._chunks():
            labels = self._labels[places].to(self._device)
            for layer in self._layers:
                base, tuned = activations[layer.name]
                given = tuned.clone().requires_grad_()
                with torch.enable_grad(), full_precision(self._device):
                    logits = layer.tuned(given.clone()) / self._temperatures["tuned"]
                    loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
                    (gradient,) = torch.autograd.grad(loss, given)
                change = (gradient * (base - tuned)).movedim(layer.axis, 1)
                found[layer.name].append(change.reshape(*change.shape[:2], -1).sum(2).cpu())
        return {name: torch.cat(parts).double().numpy() for name, parts in found.items()}

    def measure(self, intervention: Intervention, channels: Channels) -> dict[str, Changes]:
        """What the network answers with each channel replaced, one channel at a time, exactly.

        A channel whose activations of a picture are the same in both networks changes nothing there,
        and costs nothing.

        Args:
            intervention: what replaces it.
            channels: of layers among those given.
        """
        layers = [layer for layer in self._layers if len(channels.get(layer.name, ()))]
        if not layers:
            return {}
        means = self._means() if intervention == "ablated" else {}
        parts: dict[str, list[Changes]] = {layer.name: [] for layer in layers}
        for places, activations in self._chunks():
            labels = self._labels[places]
            for layer in layers:
                base, tuned = activations[layer.name]
                donor = {"set_back": base, "brought": tuned}.get(intervention)
                if donor is None:
                    donor = means[layer.name].expand_as(tuned)
                chosen = torch.from_numpy(channels[layer.name])
                changes = (
                    self._changes(layer, "base", base, donor, labels, chosen)
                    if intervention == "brought"
                    else self._changes(layer, "tuned", tuned, donor, labels, chosen)
                )
                parts[layer.name].append(changes)
        return {
            name: Changes(
                *(
                    np.concatenate([getattr(one, field) for one in found])
                    for field in ("loss", "logit", "before", "after")
                )
            )
            for name, found in parts.items()
        }

    def _changes(
        self,
        layer: _Layer,
        which: Literal["base", "tuned"],
        recipient: torch.Tensor,
        donor: torch.Tensor,
        labels: torch.Tensor,
        channels: torch.Tensor,
    ) -> Changes:
        """Of one batch of pictures."""
        tail = layer.base if which == "base" else layer.tuned

        def answers(activation: torch.Tensor, labels: torch.Tensor) -> Answers:
            with torch.inference_mode(), full_precision(self._device):
                logits = tail(_laid_out(activation))
            return answers_of(logits.cpu(), labels, self._temperatures[which])

        own = answers(recipient.clone(), labels)
        first, second = (one.movedim(layer.axis, 1)[:, channels] for one in (recipient, donor))
        pairs = (first != second).reshape(len(labels), len(channels), -1).any(2).nonzero().cpu()
        shape = (len(labels), len(channels))
        loss, logit = np.zeros(shape), np.zeros(shape)
        after = np.repeat(own.right[:, None], len(channels), axis=1)
        for some in pairs.split(COPIES):
            picture, place = some.unbind(1)
            copies = recipient[picture]
            copies.movedim(layer.axis, 1)[torch.arange(len(some)), channels[place]] = second[
                picture, place
            ]
            altered, at = answers(copies, labels[picture]), (picture.numpy(), place.numpy())
            loss[at] = altered.loss - own.loss[at[0]]
            logit[at] = altered.logit - own.logit[at[0]]
            after[at] = altered.right
        return Changes(loss, logit, own.right, after)

    def _means(self) -> dict[str, torch.Tensor]:
        """The tuned network's mean activations over the pictures, (1, ...)."""
        sums = {layer.name: torch.zeros(()).double() for layer in self._layers}
        for _, activations in self._chunks(quietly=True):
            for name, (_, tuned) in activations.items():
                sums[name] = sums[name] + tuned.double().sum(0, keepdim=True).cpu()
        count = len(self._pictures)
        return {name: (one / count).float().to(self._device) for name, one in sums.items()}

    def _chunks(
        self, *, quietly: bool = False
    ) -> Iterator[tuple[torch.Tensor, dict[str, tuple[torch.Tensor, torch.Tensor]]]]:
        """Positions of some pictures, and layer -> base's and tuned's activations of them."""
        done, count = 0, len(self._pictures)
        for places in torch.arange(count).split(PICTURES):
            rows = self._rows[self._pictures[places]].to(self._device).float()
            base, tuned = (self._activations(which, rows) for which in ("base", "tuned"))
            yield places, {name: (base[name], tuned[name]) for name in base}
            done += len(places)
            if self._on_progress and not quietly:
                self._on_progress(done, count)

    def _activations(self, which: str, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        names = [layer.name for layer in self._layers]
        with (
            torch.no_grad(),
            full_precision(self._device),
            capture(self._plain[which], names) as caught,
        ):
            self._rests[which](_laid_out(rows.clone()))
        return dict(caught)


def _tail(plain: nn.Module, fast: nn.Module, layer: str, example: torch.Tensor) -> Resumed:
    """What lies behind a layer, in the folded copy unless folding changed what the layer's output is."""
    own = Resumed(plain, layer, example)
    with torch.no_grad(), capture(plain, [layer]) as caught:
        wanted = plain(example)
    try:
        tail = Resumed(fast, layer, example)
    except InputError:
        return own
    with torch.no_grad():
        got = tail(caught[layer])
    same = bool((got - wanted).abs().max() <= TOLERANCE * wanted.abs().max())
    return tail if same else own


def _laid_out(activation: torch.Tensor) -> torch.Tensor:
    """Maps with channels last, which convolutions on CPUs are faster with."""
    if activation.ndim == 4:
        return activation.contiguous(memory_format=torch.channels_last)
    return activation
