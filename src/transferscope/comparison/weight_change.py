"""How far the weights behind each channel have moved, relative to where they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from transferscope.acceleration.folding import folded
from transferscope.activations import TruncatedForward, find_layer, hooked
from transferscope.backbones.classifier import Classifier
from transferscope.copies import copied
from transferscope.errors import InputError
from transferscope.records import Record

Values = NDArray[np.float64]


@dataclass(frozen=True)
class WeightChange(Record):
    """The weights of a layer in two networks.

    Attributes:
        layer: dotted name.
        whole: relative change of all weights of the layer, and of the layers in it. No p: weights are
            known exactly.
        modules: convolutions and linear layers whose output c goes into the layer's channel c alone;
            empty where there is none, as behind a concatenation, an attention or a normalisation over
            channels.
        channels: relative change of what those have for each channel; None without such modules.
    """

    layer: str
    whole: float
    modules: tuple[str, ...]
    channels: tuple[float, ...] | None


def weight_changes(
    base: Classifier, tuned: Classifier, layers: Sequence[str]
) -> dict[str, WeightChange]:
    """||w_tuned - w_base|| / ||w_base|| of every channel and of the layer as a whole.

    w is a filter and its bias with BatchNorm folded into them: a channel that BatchNorm alone rescales
    has changed. 0 exactly where nothing was trained; infinite where base's weights are all 0 and the
    tuned ones are not. The way past a residual block, and what lies before the layer, are not counted.

    Args:
        base, tuned: two networks of one architecture, both unchanged.
        layers: dotted names.

    Raises:
        UnknownName: no such layer.
        InputError: networks of other architectures.
    """
    _refuse_other_architecture(base, tuned)
    first, second = _folded_alike(base, tuned)
    return {layer: _changed(layer, first, second, base.example()) for layer in layers}


def _refuse_other_architecture(base: Classifier, tuned: Classifier) -> None:
    def shapes(one: Classifier) -> dict[str, tuple[int, ...]]:
        return {
            name: tuple(value.shape)
            for name, value in one.network.state_dict().items()
            if not name.startswith(f"{one.head}.")
        }

    old, new = shapes(base), shapes(tuned)
    if old != new:
        name = next(n for n in (*old, *new) if old.get(n) != new.get(n))
        raise InputError(
            f"{name!r} is {old.get(name, 'absent')} in one network and {new.get(name, 'absent')} in the "
            "other; weights compare between networks of one architecture only"
        )


def _folded_alike(base: Classifier, tuned: Classifier) -> tuple[nn.Module, nn.Module]:
    """Private copies on the CPU with BatchNorms folded, in both or in neither."""
    found = [folded(one.network, one.example()).cpu() for one in (base, tuned)]
    norms = [[n for n, m in one.named_modules() if isinstance(m, nn.BatchNorm2d)] for one in found]
    if norms[0] != norms[1]:
        found = [copied(one.network).eval().requires_grad_(False).cpu() for one in (base, tuned)]
    return found[0], found[1]


def _changed(layer: str, base: nn.Module, tuned: nn.Module, example: torch.Tensor) -> WeightChange:
    writers = _writers(base, layer, example.cpu())
    own = dict(find_layer(base, layer).named_parameters())
    names = [f"{layer}.{name}" for name in own] or [
        f"{module}.{name}"
        for module in writers
        for name, _ in find_layer(base, module).named_parameters()
    ]
    old, new = dict(base.named_parameters()), dict(tuned.named_parameters())
    whole = _relative(*([p[n].flatten()[None] for n in names] for p in (old, new)))
    channels = None
    if writers:
        rows = [
            [row for m in writers for row in _rows(find_layer(net, m))] for net in (base, tuned)
        ]
        channels = tuple(_relative(*rows).tolist())
    return WeightChange(layer, float(whole[0]) if names else 0.0, tuple(writers), channels)


def _rows(module: nn.Module) -> list[torch.Tensor]:
    """What a module has for each of its outputs: (C, values) of its weight and of its bias."""
    return [p.reshape(len(p), -1) for name, p in module.named_parameters() if name in _OF_OUTPUTS]


_OF_OUTPUTS = ("weight", "bias")


def _relative(old: Sequence[torch.Tensor], new: Sequence[torch.Tensor]) -> Values:
    """(C,) norms of differences over norms, of rows that are given in several pieces."""
    if not old:
        return np.zeros(1)
    before, after = (torch.cat(list(parts), 1).double() for parts in (old, new))
    moved, length = (after - before).norm(dim=1).numpy(), before.norm(dim=1).numpy()
    beyond = np.where(moved > 0, np.inf, 0.0)
    return np.asarray(np.divide(moved, length, out=beyond, where=length > 0))


# ---------------------------------------------------------------------------- who writes a channel


def _writers(network: nn.Module, layer: str, example: torch.Tensor) -> list[str]:
    """Names of the modules that write each channel, the last first.

    Found by trying: from the layer backwards, the filters of half of a module's outputs are changed, and
    these channels of the layer, and no others, must answer otherwise. Ends at the first for which that
    does not hold.

    Args:
        network: a private copy; its weights are given back.
        layer: dotted name.
        example: one batch as the network wants it.
    """
    forward = TruncatedForward(network, [layer], example, channels_first=True)
    with torch.no_grad():
        before = forward(example)[layer]
    generator = torch.Generator().manual_seed(0)
    channels = before.shape[-1 if before.ndim == 3 else 1]
    some = torch.randperm(channels, generator=generator)[: channels // 2]
    found = []
    for name in reversed(_filters_before(network, layer, example)):
        module = find_layer(network, name)
        assert isinstance(module.weight, torch.Tensor)
        if len(module.weight) != channels:
            break
        with torch.no_grad():
            kept = module.weight.detach().clone()
            step = _STEP * (float(kept.std()) or 1.0)
            directions = torch.randn(kept.shape, generator=generator).sign()
            module.weight[some] += step * directions[: len(some)]
            try:
                after = forward(example)[layer]
            finally:
                module.weight.copy_(kept)
        answered = _channels_that_differ(before, after)
        if not answered or not answered <= set(some.tolist()):
            break
        found.append(name)
    return found


_STEP = 1e4
"""Standard deviations by which filters are changed: it has to be seen behind a layer scale of 1e-6."""


def _filters_before(network: nn.Module, layer: str, example: torch.Tensor) -> list[str]:
    """Convolutions and linear layers that run before a layer has finished, in order."""
    target = find_layer(network, layer)
    names = {module: name for name, module in network.named_modules()}
    ran: list[str] = []
    until = 0

    def end(module: nn.Module, _inputs: object, _output: object) -> None:
        nonlocal until
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            ran.append(names[module])
        if module is target:
            until = len(ran)

    with torch.no_grad(), hooked([(module, end, False) for module in names]):
        network(example)
    return list(dict.fromkeys(ran[:until]))


def _channels_that_differ(before: torch.Tensor, after: torch.Tensor) -> set[int]:
    """Channels whose outputs differ by more than rounding."""
    last = before.ndim == 3
    difference = (after - before).abs()
    by_channel = difference.movedim(-1 if last else 1, 0).flatten(1).amax(1)
    return set(torch.nonzero(by_channel > 1e-5 * before.abs().max()).flatten().tolist())
