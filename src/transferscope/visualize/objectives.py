"""What can be looked for in a network: channels, neurons, classes, whole layers, directions.

Each function returns an `Objective`. Outputs of layers may be maps (N, C, H, W), tokens (N, T, D),
whose D are the channels, or vectors (N, D); the places of a map and the tokens are its positions.

Reference: Olah et al. 2017, "Feature Visualization", unless another is named.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch.nn import functional as F

from transferscope.errors import InputError
from transferscope.visualize.algebra import LOGITS, Activations, Objective, refuse_single
from transferscope.visualize.directions import caricature, caricature_target, direction
from transferscope.visualize.outputs import by_position, channels_first
from transferscope.visualize.records import Sign

__all__ = [
    "LOGITS",
    "OBJECTIVES",
    "Objective",
    "caricature",
    "caricature_target",
    "channel",
    "channels",
    "direction",
    "diversity",
    "layer_energy",
    "logit",
    "logits",
    "neuron",
    "neurons",
]

Position = int | tuple[int, int]
"""(row, column) of a map, or the number of a token."""


# ---------------------------------------------------------------------------- one unit


def channel(layer: str, index: int, sign: Sign = "plus") -> Objective:
    """The spatial mean of one channel; for tokens (N, T, D) the mean over tokens.

    Args:
        layer: dotted name of a layer with output (N, C, H, W), (N, T, D) or (N, D).
        index: of the channel.
        sign: "minus" maximises the negative of the mean: the other direction of a signed channel.
    """
    factor = _factor(sign)
    return Objective(
        (layer,),
        lambda activations, _pictures: factor * _mean(_chosen(activations[layer], layer, index)),
        f"channel({layer}, {index}{_minus(sign)})",
    )


def channels(layer: str, indexes: Sequence[int], sign: Sign = "plus") -> Objective:
    """N objectives in one pass: the first channel for the first picture of a batch, and so on.

    Args:
        layer: see `channel`.
        indexes: one channel a picture; the batch must have as many pictures.
        sign: see `channel`.
    """
    wanted, factor = tuple(indexes), _factor(sign)
    return Objective(
        (layer,),
        lambda activations, _pictures: (
            factor * _mean(_chosen_each(activations[layer], layer, wanted))
        ),
        f"channels({layer}, {list(wanted)}{_minus(sign)})",
    )


def neuron(
    layer: str, index: int, sign: Sign = "plus", *, position: Position | None = None
) -> Objective:
    """One channel at one position.

    Args:
        layer: see `channel`.
        index: of the channel.
        sign: see `channel`.
        position: (row, column) of a map or the number of a token; None: the middle, row H // 2 and
            column W // 2, or token T // 2. A vector has no positions.
    """
    factor = _factor(sign)
    return Objective(
        (layer,),
        lambda activations, _pictures: (
            factor * _at(_chosen(activations[layer], layer, index), position, layer).float()
        ),
        f"neuron({layer}, {index}{_minus(sign)}{_placed(position)})",
    )


def neurons(
    layer: str, indexes: Sequence[int], sign: Sign = "plus", *, position: Position | None = None
) -> Objective:
    """N neurons in one pass, one a picture, all at the same position; see `channels` and `neuron`."""
    wanted, factor = tuple(indexes), _factor(sign)
    return Objective(
        (layer,),
        lambda activations, _pictures: (
            factor * _at(_chosen_each(activations[layer], layer, wanted), position, layer).float()
        ),
        f"neurons({layer}, {list(wanted)}{_minus(sign)}{_placed(position)})",
    )


def logit(index: int) -> Objective:
    """The logit of one class, before the temperature and the softmax.

    Reference: Simonyan et al. 2014, "Deep Inside Convolutional Networks", which also found that the
    probability in its place is raised by suppressing other classes.
    """
    return Objective(
        (LOGITS,),
        lambda activations, _pictures: _chosen(activations[LOGITS], "logits", index).float(),
        f"logit({index})",
    )


def logits(indexes: Sequence[int]) -> Objective:
    """N logits in one pass: the first class for the first picture of a batch, and so on."""
    wanted = tuple(indexes)
    return Objective(
        (LOGITS,),
        lambda activations, _pictures: _chosen_each(activations[LOGITS], "logits", wanted).float(),
        f"logits({list(wanted)})",
    )


# ---------------------------------------------------------------------------- a whole layer


def layer_energy(layer: str) -> Objective:
    """The mean of the squares of a layer's output: more of whatever it sees already.

    Reference: Mordvintsev et al. 2015, "Inceptionism", where the sum stands for the mean.
    """
    return Objective(
        (layer,),
        lambda activations, _pictures: activations[layer].float().square().flatten(1).mean(1),
        f"layer_energy({layer})",
    )


def diversity(layer: str) -> Objective:
    """How little a picture's use of a layer resembles that of the other pictures of its batch.

    For each picture minus the mean, over the others, of the cosine between the Gram matrices of the
    channels: in [-1, 0] where no cosine is negative, and 0 when they have nothing in common. The one
    objective whose value for a picture depends on its neighbours: draw with `render_together`.

    Reference: Olah et al. 2017, after Gatys et al.'s style; the sum over pairs there is a mean here.

    Raises:
        InputError: on use, a batch of one picture.
    """

    def measure(activations: Activations, _pictures: torch.Tensor) -> torch.Tensor:
        seen = by_position(activations[layer], layer)
        count = len(seen)
        refuse_single(count, "diversity")
        grams = (seen @ seen.transpose(1, 2)).flatten(1)
        grams = F.normalize(grams, dim=1)
        alike = grams @ grams.T
        others = 1 - torch.eye(count, device=alike.device)
        return -(alike * others).sum(1) / (count - 1)

    return Objective((layer,), measure, f"diversity({layer})")


OBJECTIVES: Mapping[str, Callable[..., Objective]] = MappingProxyType(
    {
        "channel": channel,
        "channels": channels,
        "neuron": neuron,
        "neurons": neurons,
        "logit": logit,
        "logits": logits,
        "direction": direction,
        "caricature": caricature,
        "layer_energy": layer_energy,
        "diversity": diversity,
    }
)
"""Every objective over a network by its name."""


# ---------------------------------------------------------------------------- outputs of layers


def _factor(sign: Sign) -> int:
    if sign not in ("plus", "minus"):
        raise InputError(f"sign is {sign!r}; it must be 'plus' or 'minus'")
    return 1 if sign == "plus" else -1


def _minus(sign: Sign) -> str:
    return "" if sign == "plus" else ", minus"


def _placed(position: Position | None) -> str:
    return "" if position is None else f", position={position}"


def _chosen(output: torch.Tensor, layer: str, index: int) -> torch.Tensor:
    """One channel of a batch, (N, ...); a vector's is (N,)."""
    first = channels_first(output)
    _check(index, first.shape[1], layer)
    return first[:, index]


def _chosen_each(output: torch.Tensor, layer: str, indexes: Sequence[int]) -> torch.Tensor:
    """Another channel for every picture of a batch, (N, ...)."""
    if len(output) != len(indexes):
        raise InputError(
            f"a batch of {len(output)} pictures met an objective for {len(indexes)} channels; "
            "give one channel a picture"
        )
    first = channels_first(output)
    for index in indexes:
        _check(index, first.shape[1], layer)
    rows = torch.arange(len(indexes), device=output.device)
    return first[rows, torch.tensor(indexes, device=output.device)]


def _mean(chosen: torch.Tensor) -> torch.Tensor:
    """(N,): the mean over the positions of (N, H, W) or (N, T), in fp32; (N,) as it is."""
    return chosen.reshape(len(chosen), -1).float().mean(1)


def _check(index: int, count: int, layer: str) -> None:
    try:
        operator.index(index)
    except TypeError:
        raise InputError(f"the index is {index!r}; give a whole number, 0 to {count - 1}") from None
    if not 0 <= index < count:
        raise InputError(
            f"channel {index} of {layer!r} does not exist: it has {count} channels, numbered 0 to "
            f"{count - 1}"
        )


def _at(chosen: torch.Tensor, position: Position | None, layer: str) -> torch.Tensor:
    """(N,) from one channel's (N, H, W), (N, T) or (N,)."""
    sizes = tuple(chosen.shape[1:])
    if position is None:
        wanted = tuple(size // 2 for size in sizes)
    else:
        wanted = (position,) if isinstance(position, int) else tuple(position)
    if len(wanted) != len(sizes):
        expected = ("no position", "the number of a token", "(row, column)")[len(sizes)]
        raise InputError(f"position is {position} where the output of {layer!r} needs {expected}")
    for place, size in zip(wanted, sizes, strict=True):
        if not 0 <= place < size:
            raise InputError(
                f"position {position} is outside the output of {layer!r}, which has "
                f"{' x '.join(map(str, sizes))} positions, counted from 0"
            )
    for place in wanted:
        chosen = chosen[:, place]
    return chosen
