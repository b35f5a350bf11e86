"""Convolutions without gradients of their weights, and the ReLU behind them inside.

Nothing is learned while pictures are drawn. The gradient of the pictures is a convolution itself, by the
turned kernel; where the stride is s, it is s * s of them. On a CPU these are much faster than the library's
own gradients of depthwise convolutions, see `depthwise`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from transferscope.acceleration.depthwise import is_same, pair_of, phases, same_padding


class FrozenConv(nn.Module):
    """A convolution without gradients of its weights, and the ReLU that may follow it.

    Args:
        conv: one for which `freezes` holds.
        dtype: of the arithmetic and of the output.
        ceiling: where the ReLU cuts off, infinity for a plain one; None: no ReLU.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype, ceiling: float | None = None):
        super().__init__()
        self.ceiling, self.redirected = ceiling, False
        self.stride, self.dilation = pair_of(conv.stride), pair_of(conv.dilation)
        self.groups = conv.groups
        self._padding = None if is_same(conv) else pair_of(conv.padding)
        weight = conv.weight.detach().to(dtype, memory_format=torch.channels_last)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().to(dtype))
        if self.by_phases:
            for y in range(self.stride[0]):
                for x in range(self.stride[1]):
                    part = weight[:, :, y :: self.stride[0], x :: self.stride[1]]
                    self.register_buffer(f"turned_{y}_{x}", _turned(part, self.groups))

    @property
    def by_phases(self) -> bool:
        """Whether its gradient is taken by phases: dense strided kernels are left to the library."""
        return self.groups > 1 or max(self.stride) == 1

    def around(self, size: Sequence[int]) -> list[tuple[int, int]]:
        """Zeros before and behind along each axis of pictures of (height, width)."""
        if self._padding is not None:
            return [(padding, padding) for padding in self._padding]
        axes = zip(size, self.weight.shape[2:], self.stride, strict=True)
        return [same_padding(*axis) for axis in axes]

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C', H', W'); `ceiling_of` tells a ReLU behind it what is done already."""
        output: torch.Tensor = _Frozen.apply(pictures.to(self.weight.dtype), self)
        if self.ceiling is not None:
            output.rectified = self.ceiling  # type: ignore[attr-defined]
        return output


def ceiling_of(output: torch.Tensor) -> float | None:
    """Where a `FrozenConv` has cut its output off; None if it has not."""
    return getattr(output, "rectified", None)


def masked(
    gradient: torch.Tensor, output: torch.Tensor, ceiling: float, *, redirected: bool
) -> torch.Tensor:
    """The gradient in front of a ReLU.

    Args:
        gradient: behind it.
        output: of the ReLU (its input does as well).
        ceiling: where it cuts off, infinity for a plain one.
        redirected: lets through, too, what would open it where it is shut.

    Reference: lucid's `redirected_relu_grad`.
    """
    if redirected:
        opens = (output <= 0) & (gradient > 0)
        closes = (output >= ceiling) & (gradient < 0)
        inside = (output > 0) & (output < ceiling)
        return gradient * (inside | opens | closes)
    if ceiling == math.inf:
        plain: torch.Tensor = torch.ops.aten.threshold_backward(gradient, output, 0)
        return plain
    cut: torch.Tensor = torch.ops.aten.hardtanh_backward(gradient, output, 0, ceiling)
    return cut


def freezes(conv: nn.Module) -> bool:
    """Whether a module is a convolution that `FrozenConv` can stand for."""
    same = is_same(conv)
    if not isinstance(conv, nn.Conv2d) or not (same or type(conv) is nn.Conv2d):
        return False
    dilated = max(conv.dilation) > 1
    named = isinstance(conv.padding, str) and not same
    return not (
        named or conv.padding_mode != "zeros" or (dilated and (same or max(conv.stride) > 1))
    )


def freeze(network: nn.Module, dtype: torch.dtype, ceilings: Mapping[nn.Module, float]) -> None:
    """Replaces convolutions of a network by `FrozenConv` wherever that is possible.

    Args:
        network: changed.
        dtype: of the convolutions.
        ceilings: for convolutions that a ReLU and nothing else follows, where it cuts off.
    """
    replaced: dict[nn.Module, FrozenConv] = {}
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if isinstance(module, nn.Conv2d) and name and freezes(module):
            if module not in replaced:
                replaced[module] = FrozenConv(module, dtype, ceilings.get(module)).eval()
            network.set_submodule(name, replaced[module])


class _Frozen(torch.autograd.Function):
    """The convolution, cut off, with the gradient of the pictures alone."""

    @staticmethod
    def forward(ctx: Any, pictures: torch.Tensor, conv: FrozenConv) -> torch.Tensor:
        ctx.conv, ctx.size, ctx.redirected = conv, pictures.shape[2:], conv.redirected
        (top, bottom), (left, right) = conv.around(ctx.size)
        padding = (top, left)
        if padding != (bottom, right):
            pictures, padding = F.pad(pictures, (left, right, top, bottom)), (0, 0)
        output = F.conv2d(
            *(pictures, conv.weight, conv.bias, conv.stride, padding, conv.dilation, conv.groups)
        )
        if conv.ceiling is not None:
            output = output.relu_() if conv.ceiling == math.inf else output.clamp_(0, conv.ceiling)
            ctx.save_for_backward(output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        gradient, conv = grads[0].contiguous(memory_format=torch.channels_last), ctx.conv
        if conv.ceiling is not None:
            (output,) = ctx.saved_tensors
            gradient = masked(gradient, output, conv.ceiling, redirected=ctx.redirected)
        return _of_pictures(gradient, conv, ctx.size), None


def _of_pictures(gradient: torch.Tensor, conv: FrozenConv, size: Sequence[int]) -> torch.Tensor:
    """The gradient of pictures of (height, width) from that of the convolution's output."""
    around, channels = conv.around(size), conv.weight.shape[1] * conv.groups
    if not conv.by_phases:
        (top, bottom), (left, right) = around
        padded = (len(gradient), channels, size[0] + top + bottom, size[1] + left + right)
        whole = torch.ops.aten.convolution_backward(
            *(gradient, _empty(gradient, padded), conv.weight, None, conv.stride, (0, 0)),
            *(conv.dilation, False, (0, 0), 1, (True, False, False)),
        )[0]
        found: torch.Tensor = whole[:, :, top : top + size[0], left : left + size[1]]
        return found
    whole = _empty(gradient, (len(gradient), channels, *size))
    axes = zip(
        *(size, conv.weight.shape[2:], conv.stride, around, gradient.shape[2:], conv.dilation),
        strict=True,
    )
    down, across = (list(phases(*axis)) for axis in axes)
    for y in down:
        for x in across:
            turned = conv.get_buffer(f"turned_{y.remainder}_{x.remainder}")
            if not turned.numel():
                whole[:, :, y.pixels, x.pixels] = 0
                continue
            padding = (y.padding, x.padding)
            part = F.conv2d(gradient, turned, None, 1, padding, conv.dilation, conv.groups)
            part = part[:, :, y.found, x.found]
            if conv.stride == (1, 1):
                return part
            whole[:, :, y.pixels, x.pixels] = part
    return whole


def _turned(weight: torch.Tensor, groups: int) -> torch.Tensor:
    """(C, C' / groups, h, w) from (C', C / groups, h, w): the kernel of the gradient."""
    each: torch.Tensor = weight.unflatten(0, (groups, -1)).transpose(1, 2)
    return each.flatten(0, 1).flip(2, 3).contiguous(memory_format=torch.channels_last)


def _empty(like: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )
