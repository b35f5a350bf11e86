"""Convolutions without gradients of their weights, and the ReLU behind them inside.

Nothing is learned while pictures are drawn, so weights are laid out once as the library wants them:
forwards and, turned round, for the gradient of the pictures, which is a convolution itself; where the
stride is s, it is s * s of them. On a CPU these are much faster than the library's own gradients of
depthwise convolutions, see `depthwise`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from transferscope.acceleration.depthwise import (
    Part,
    gradient_of_pictures,
    is_same,
    pair_of,
    zeros_around,
)
from transferscope.copies import is_plain

BATCH = 8
"""Pictures for which weights are laid out; any other number works too."""


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
        self.padding = None if is_same(conv) else pair_of(conv.padding)
        self.register_buffer("weight", conv.weight.detach().to(dtype))
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().to(dtype))
        self._kernels = _Kernels()

    def kernel(self, rows: int, columns: int) -> _Kernel:
        """Forwards, with so many rows and columns of zeros before the kernel's own."""
        return self._kernels.of(
            ("forwards", rows, columns),
            lambda: (F.pad(self.weight, (columns, 0, rows, 0)), self.bias),
        )

    def turned(self, y: int, x: int) -> _Kernel | None:
        """That of the gradient, of one remainder modulo the stride; None where nothing is left."""
        part = self.weight[:, :, y :: self.stride[0], x :: self.stride[1]]
        if not part.numel():
            return None

        def make() -> tuple[torch.Tensor, None]:
            each = part.unflatten(0, (self.groups, -1)).transpose(1, 2)
            return each.flatten(0, 1).flip(2, 3), None

        return self._kernels.of(("turned", y, x), make)

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
    if not is_plain(conv):
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
        # More zeros behind than before: as many before, for which the kernel gets rows of zeros.
        ctx.padding = zeros_around(ctx.size, conv.weight.shape[2:], conv.stride, conv.padding)
        (top, bottom), (left, right) = ctx.padding
        kernel = conv.kernel(bottom - top, right - left)
        geometry = ([bottom, right], list(conv.stride), list(conv.dilation), conv.groups)
        output = kernel(pictures, geometry, conv.ceiling)
        if conv.ceiling is not None:
            ctx.save_for_backward(output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        gradient, conv = grads[0].contiguous(memory_format=torch.channels_last), ctx.conv
        if conv.ceiling is not None:
            (output,) = ctx.saved_tensors
            gradient = masked(gradient, output, conv.ceiling, redirected=ctx.redirected)
        (top, _), (left, _) = ctx.padding
        channels = conv.weight.shape[1] * conv.groups

        def part(y: int, x: int) -> Part | None:
            kernel = conv.turned(y, x)
            if kernel is None:
                return None
            sizes = zip(conv.dilation, kernel.weight.shape[2:], strict=True)
            geometry = [1, 1], list(conv.dilation), conv.groups
            reach = tuple(dilation * (size - 1) for dilation, size in sizes)
            return reach, lambda zeros: kernel(gradient, (zeros, *geometry))

        whole = gradient_of_pictures(gradient, channels, ctx.size, conv.stride, (top, left), part)
        return whole, None


# ---------------------------------------------------------------------------- the library


_Geometry = tuple[list[int], list[int], list[int], int]
"""Padding, stride, dilation and groups."""


class _Kernel:
    """Weights that never change, laid out for each size of pictures at its first use.

    Args:
        weight: (C', C / groups, h, w).
        bias: (C',) or None.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None):
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self._bias = bias
        self._laid_out: dict[tuple[int, ...], torch.Tensor] = {}

    def __call__(
        self, pictures: torch.Tensor, geometry: _Geometry, ceiling: float | None = None
    ) -> torch.Tensor:
        """The convolution, cut off at 0 and the ceiling if there is one."""
        if not _lays_out(pictures.device.type, pictures.dtype):
            padding, stride, dilation, groups = geometry
            found = F.conv2d(pictures, self.weight, self._bias, stride, padding, dilation, groups)
            if ceiling is None:
                return found
            return found.relu_() if ceiling == math.inf else found.clamp_(0, ceiling)
        key = (*geometry[0], *pictures.shape[2:])
        laid_out = self._laid_out.get(key)
        if laid_out is None:  # twice at worst, by two threads
            shape = [BATCH, *pictures.shape[1:]]
            laid_out = self._laid_out[key] = _laid_out(self.weight, geometry, shape)
        return _convolved(pictures, laid_out, self._bias, geometry, ceiling)


class _Kernels:
    """A convolution's kernels by their use; a copy is itself, so that copies of a network share them."""

    def __init__(self) -> None:
        self._made: dict[Hashable, _Kernel] = {}

    def __deepcopy__(self, _memo: Any) -> _Kernels:
        return self

    def of(
        self, use: Hashable, make: Callable[[], tuple[torch.Tensor, torch.Tensor | None]]
    ) -> _Kernel:
        """The kernel for a use; `make` gives its weight and bias the first time."""
        kernel = self._made.get(use)
        if kernel is None:
            kernel = self._made[use] = _Kernel(*make())
        return kernel


def _laid_out(weight: torch.Tensor, geometry: _Geometry, shape: list[int]) -> torch.Tensor:
    laid_out: torch.Tensor = torch.ops.aten.mkldnn_reorder_conv2d_weight(
        weight.to_mkldnn(), *geometry, shape
    )
    return laid_out


def _convolved(
    pictures: torch.Tensor,
    laid_out: torch.Tensor,
    bias: torch.Tensor | None,
    geometry: _Geometry,
    ceiling: float | None,
) -> torch.Tensor:
    """The library's convolution as PyTorch's own compiler calls it, with a ReLU inside."""
    behind: tuple[str, list[float]] = ("none", [])
    if ceiling is not None:
        behind = ("relu", []) if ceiling == math.inf else ("hardtanh", [0.0, ceiling])
    found: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
        pictures, laid_out, bias, *geometry, *behind, ""
    )
    return found


@cache
def _lays_out(device: str, dtype: torch.dtype) -> bool:
    """Whether the library here takes weights that are laid out: tried, since not every build does."""
    if device != "cpu":
        return False
    pictures = torch.ones(1, 16, 4, 4, dtype=dtype).to(memory_format=torch.channels_last)
    geometry: _Geometry = ([0, 0], [1, 1], [1, 1], 1)
    try:
        laid_out = _laid_out(torch.ones(16, 16, 3, 3, dtype=dtype), geometry, list(pictures.shape))
        found = _convolved(pictures, laid_out, None, geometry, 6.0)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return bool(found.eq(6).all())
