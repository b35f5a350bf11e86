"""Objectives over one unit: a channel, a neuron or a class; or one unit for each picture of a batch."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial

import torch

from transferscope.errors import InputError
from transferscope.visualize.objectives.algebra import LOGITS, Objective
from transferscope.visualize.objectives.outputs import channels_first
from transferscope.visualize.records import Sign

Position = int | tuple[int, int]
"""(row, column) of a map, or the number of a token."""


def channel(layer: str, index: int, sign: Sign = "plus") -> Objective:
    """The spatial mean of one channel; for tokens (N, T, D) the mean over tokens.

    Args:
        layer: dotted name of a layer with output (N, C, H, W), (N, T, D) or (N, D).
        index: of the channel.
        sign: "minus" maximises the negative of the mean: the other direction of a signed channel.
    """
    return _driven("channel", layer, index, sign, _mean)


def channels(layer: str, indexes: Sequence[int], sign: Sign = "plus") -> Objective:
    """N objectives in one pass: the first channel for the first picture of a batch, and so on.

    `indexes` has one channel a picture, and the batch must have as many pictures; see `channel`.
    """
    return _driven("channels", layer, list(indexes), sign, _mean)


def neuron(
    layer: str, index: int, sign: Sign = "plus", *, position: Position | None = None
) -> Objective:
    """One channel at one position.

    Args as for `channel`; `position` is (row, column) of a map or the number of a token, and None the
    middle: row H // 2 and column W // 2, or token T // 2. A vector has no positions.
    """
    return _driven("neuron", layer, index, sign, partial(_at, position, layer), position)


def neurons(
    layer: str, indexes: Sequence[int], sign: Sign = "plus", *, position: Position | None = None
) -> Objective:
    """N neurons in one pass, one a picture, all at the same position; see `channels` and `neuron`."""
    return _driven("neurons", layer, list(indexes), sign, partial(_at, position, layer), position)


def logit(index: int) -> Objective:
    """The logit of one class, before the temperature and the softmax.

    Reference: Simonyan et al. 2014, "Deep Inside Convolutional Networks", which also found that the
    probability in its place is raised by suppressing other classes.
    """
    return _of_head("logit", index)


def logits(indexes: Sequence[int]) -> Objective:
    """N logits in one pass: the first class for the first picture of a batch, and so on."""
    return _of_head("logits", list(indexes))


# ---------------------------------------------------------------------------- outputs of layers


def _driven(
    kind: str,
    layer: str,
    wanted: int | list[int],
    sign: Sign,
    reduced: Callable[[torch.Tensor], torch.Tensor],
    position: Position | None = None,
) -> Objective:
    if sign not in ("plus", "minus"):
        raise InputError(f"sign is {sign!r}; it must be 'plus' or 'minus'")
    factor, minus = (1, "") if sign == "plus" else (-1, ", minus")
    placed = "" if position is None else f", position={position}"
    return Objective(
        (layer,),
        lambda activations, _pictures: factor * reduced(_chosen(activations[layer], layer, wanted)),
        f"{kind}({layer}, {wanted}{minus}{placed})",
    )


def _of_head(kind: str, wanted: int | list[int]) -> Objective:
    return Objective(
        (LOGITS,),
        lambda activations, _pictures: _chosen(activations[LOGITS], "logits", wanted).float(),
        f"{kind}({wanted})",
    )


def _chosen(output: torch.Tensor, layer: str, wanted: int | list[int]) -> torch.Tensor:
    """One channel of a batch, or another for every picture: (N, ...); a vector's is (N,)."""
    first = channels_first(output)
    if not isinstance(wanted, list):
        _check(wanted, first.shape[1], layer)
        return first[:, wanted]
    if len(output) != len(wanted):
        raise InputError(
            f"a batch of {len(output)} pictures met an objective for {len(wanted)} channels; "
            "give one channel a picture"
        )
    for index in wanted:
        _check(index, first.shape[1], layer)
    rows = torch.arange(len(wanted), device=output.device)
    return first[rows, torch.tensor(wanted, device=output.device)]


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


def _at(position: Position | None, layer: str, chosen: torch.Tensor) -> torch.Tensor:
    """(N,) float32 from one channel's (N, H, W), (N, T) or (N,)."""
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
    return chosen.float()
