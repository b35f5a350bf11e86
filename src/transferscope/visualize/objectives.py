"""What a picture is optimized for: a small algebra of quantities that are maximised.

An objective knows which layers it needs and turns their activations into one number a picture.
Objectives add, subtract, multiply and divide, among themselves and with numbers:

    channel("blocks.4.2", 7) - 0.1 * total_variation()

Reference: Olah et al. 2017, "Feature Visualization"; the algebra is lucid's.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from transferscope.errors import InputError
from transferscope.visualize.records import Sign

LOGITS = "<logits>"
"""Stands for the classifier's head in `Objective.layers` and in the activations."""

Activations = Mapping[str, torch.Tensor]
Measure = Callable[[Activations, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Objective:
    """A quantity of a picture, one number each, to be maximised.

    Attributes:
        layers: dotted names of the layers whose activations it needs; `LOGITS` is the head.
        measure: (activations, pictures) -> (N,); activations by layer name, pictures (N, C, H, W)
            in [0, 1].
        name: how it is written, for captions.
    """

    layers: tuple[str, ...]
    measure: Measure
    name: str = "objective"

    def __call__(self, activations: Activations, pictures: torch.Tensor) -> torch.Tensor:
        """(N,) float32: the value of every picture."""
        return self.measure(activations, pictures)

    def __add__(self, other: Objective | float) -> Objective:
        return self._with(other, operator.add, "+")

    def __radd__(self, other: float) -> Objective:
        return self._with(other, operator.add, "+")

    def __sub__(self, other: Objective | float) -> Objective:
        return self._with(other, operator.sub, "-")

    def __rsub__(self, other: float) -> Objective:
        return (-self)._with(other, operator.add, "+")

    def __mul__(self, other: Objective | float) -> Objective:
        return self._with(other, operator.mul, "*")

    def __rmul__(self, other: float) -> Objective:
        return self._with(other, operator.mul, "*")

    def __truediv__(self, other: Objective | float) -> Objective:
        return self._with(other, operator.truediv, "/")

    def __rtruediv__(self, other: float) -> Objective:
        return Objective(
            self.layers,
            lambda activations, pictures: other / self(activations, pictures),
            f"({other:g} / {self.name})",
        )

    def __neg__(self) -> Objective:
        return Objective(
            self.layers,
            lambda activations, pictures: -self(activations, pictures),
            f"-{self.name}",
        )

    def _with(
        self,
        other: Objective | float,
        operation: Callable[[torch.Tensor, torch.Tensor | float], torch.Tensor],
        symbol: str,
    ) -> Objective:
        if isinstance(other, Objective):
            layers = tuple(dict.fromkeys((*self.layers, *other.layers)))
            return Objective(
                layers,
                lambda activations, pictures: operation(
                    self(activations, pictures), other(activations, pictures)
                ),
                f"({self.name} {symbol} {other.name})",
            )
        if not isinstance(other, int | float):
            return NotImplemented
        return Objective(
            self.layers,
            lambda activations, pictures: operation(self(activations, pictures), other),
            f"({self.name} {symbol} {other:g})",
        )


def channel(layer: str, index: int, sign: Sign = "plus") -> Objective:
    """The spatial mean of one channel; for tokens (N, T, D) the mean over tokens.

    Args:
        layer: dotted name of a layer with output (N, C, H, W), (N, T, D) or (N, D).
        index: of the channel.
        sign: "minus" maximises the negative of the mean: the other direction of a signed channel.
    """
    return Objective(
        (layer,),
        lambda activations, _pictures: (
            _factor(sign) * _chosen(activations[layer], layer, index).flatten(1).float().mean(1)
        ),
        f"channel({layer}, {index}{'' if sign == 'plus' else ', minus'})",
    )


def channels(layer: str, indexes: Sequence[int], sign: Sign = "plus") -> Objective:
    """N objectives in one pass: the first channel for the first picture of a batch, and so on.

    Args:
        layer: see `channel`.
        indexes: one channel a picture; the batch must have as many pictures.
        sign: see `channel`.
    """
    wanted = tuple(indexes)

    def measure(activations: Activations, _pictures: torch.Tensor) -> torch.Tensor:
        output = activations[layer]
        if len(output) != len(wanted):
            raise InputError(
                f"a batch of {len(output)} pictures met an objective for {len(wanted)} channels; "
                "give one channel a picture"
            )
        for index in wanted:
            _check(index, _channel_count(output), layer)
        rows = torch.arange(len(wanted), device=output.device)
        picked = _channels_first(output)[rows, torch.tensor(wanted, device=output.device)]
        return _factor(sign) * picked.flatten(1).float().mean(1)

    return Objective((layer,), measure, f"channels({layer}, {list(wanted)})")


def neuron(layer: str, index: int, sign: Sign = "plus") -> Objective:
    """One channel at the middle of the map: row H // 2, column W // 2; of tokens, token T // 2."""

    def measure(activations: Activations, _pictures: torch.Tensor) -> torch.Tensor:
        chosen = _chosen(activations[layer], layer, index).float()
        for size in chosen.shape[1:]:
            chosen = chosen[:, size // 2]
        return _factor(sign) * chosen

    return Objective((layer,), measure, f"neuron({layer}, {index})")


def logit(index: int) -> Objective:
    """The logit of one class, before the temperature and the softmax."""
    return Objective(
        (LOGITS,),
        lambda activations, _pictures: _chosen(activations[LOGITS], "logits", index).float(),
        f"logit({index})",
    )


def total_variation() -> Objective:
    """Mean absolute difference of neighbouring pixels, in [0, 2]; subtract it for smooth pictures."""

    def measure(_activations: Activations, pictures: torch.Tensor) -> torch.Tensor:
        down = (pictures[:, :, 1:] - pictures[:, :, :-1]).abs().flatten(1).mean(1)
        across = (pictures[..., 1:] - pictures[..., :-1]).abs().flatten(1).mean(1)
        return down + across

    return Objective((), measure, "total_variation()")


def _factor(sign: Sign) -> int:
    if sign not in ("plus", "minus"):
        raise InputError(f"sign is {sign!r}; it must be 'plus' or 'minus'")
    return 1 if sign == "plus" else -1


def _channels_first(output: torch.Tensor) -> torch.Tensor:
    """(N, C, ...) from (N, C, H, W), tokens (N, T, C) or a vector (N, C)."""
    return output.transpose(1, 2) if output.ndim == 3 else output


def _channel_count(output: torch.Tensor) -> int:
    return int(_channels_first(output).shape[1])


def _chosen(output: torch.Tensor, layer: str, index: int) -> torch.Tensor:
    """One channel of a batch, (N, ...); a vector's is (N,)."""
    _check(index, _channel_count(output), layer)
    return _channels_first(output)[:, index]


def _check(index: int, count: int, layer: str) -> None:
    if not 0 <= index < count:
        raise InputError(
            f"channel {index} of {layer!r} does not exist: it has {count} channels, numbered 0 to "
            f"{count - 1}"
        )
