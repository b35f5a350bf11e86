"""Convolutions of the private copy: the ReLU behind them inside, and gradients that are fast on a CPU.

Nothing is learned while pictures are drawn, so weights are laid out once as the library wants them:
forwards and, turned round, for the gradient of the pictures, which is a convolution itself. A ReLU by
itself reads and writes a whole layer again, which costs as much as many a convolution; inside, nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from transferscope.backbones.depthwise import pair_of, same_padding

BATCH = 8
"""Pictures for which weights are laid out; any other number works too."""

_THIN = 16
"""Most channels, over all phases, whose gradient is taken by one convolution for all of them."""

_DEEP = 128
"""Channels from which on a product of matrices and then a ReLU are faster than a 1 x 1 convolution that
adds and cuts off."""

_WIDER, _LARGE = 4, 3_000_000
"""A 1 x 1 convolution to so many times the channels, whose output has so many numbers, keeps its input for
the ReLU's gradient and computes the output again: in EfficientNet-Lite0 three layers, a third of all that
is kept, for a hundredth of the time. With all of its expansions it would be a half, for a tenth."""

_Pair = tuple[int, int]


class FrozenConv(nn.Module):
    """A convolution without gradients of its weights, and the ReLU that may follow it.

    Args:
        conv: one for which `freezes` holds.
        dtype: of the arithmetic and of the output.
        ceiling: where the ReLU cuts off, infinity for a plain one; None: no ReLU.
    """

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype, ceiling: float | None = None):
        super().__init__()
        self.ceiling, self.redirected = ceiling, False
        self.register_buffer("weight", conv.weight.detach().to(dtype))
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().to(dtype))
        self.weight: torch.Tensor
        self.bias: torch.Tensor | None
        self._plans = _Plans(_Layout(conv, self.weight, self.bias))

    def plan(self, pictures: torch.Tensor) -> Plan:
        """How it is computed for pictures of this size."""
        return self._plans.of(pictures.shape[2:])

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C', H', W'); `ceiling_of` tells a ReLU behind it what is done already."""
        pictures = pictures.to(self.weight.dtype)
        output: torch.Tensor = _Frozen.apply(pictures, self._plans, self.ceiling, self.redirected)
        if self.ceiling is not None:
            output.rectified = self.ceiling  # type: ignore[attr-defined]
        return output


def ceiling_of(output: torch.Tensor) -> float | None:
    """Where a `FrozenConv` has cut its output off; None if it has not."""
    return getattr(output, "rectified", None)


def masked(
    gradient: torch.Tensor,
    output: torch.Tensor,
    ceiling: float,
    *,
    redirected: bool,
    owned: bool = False,
) -> torch.Tensor:
    """The gradient in front of a ReLU.

    Args:
        gradient: behind it.
        output: of the ReLU (its input does as well).
        ceiling: where it cuts off, infinity for a plain one.
        redirected: lets through, too, what would open it where it is shut.
        owned: `gradient` may be overwritten, which is a write less to memory.

    Reference: lucid's `redirected_relu_grad`.
    """
    if redirected:
        opens = (output <= 0) & (gradient > 0)
        closes = (output >= ceiling) & (gradient < 0)
        inside = (output > 0) & (output < ceiling)
        return gradient * (inside | opens | closes)
    behind: torch.Tensor
    if ceiling == math.inf:
        threshold = torch.ops.aten.threshold_backward
        if owned:
            threshold.grad_input(gradient, output, 0, grad_input=gradient)
            return gradient
        behind = threshold(gradient, output, 0)
    else:
        hardtanh = torch.ops.aten.hardtanh_backward
        if owned:
            hardtanh.grad_input(gradient, output, 0, ceiling, grad_input=gradient)
            return gradient
        behind = hardtanh(gradient, output, 0, ceiling)
    return behind


def handed_over(gradient: torch.Tensor, receiver: Any) -> torch.Tensor:
    """A gradient that nobody else has, marked as its receiver's, so that it may overwrite it.

    Args:
        gradient: new, and given away.
        receiver: the node of autograd that it goes to at once, `grad_fn` of what it is the gradient of.
            Where several gradients meet there, or a node lies between, the mark is lost or names another.
    """
    gradient.receiver = receiver  # type: ignore[attr-defined]
    return gradient


def is_owned(gradient: torch.Tensor, node: Any) -> bool:
    """Whether a gradient was `handed_over` to this very node."""
    return node is not None and getattr(gradient, "receiver", None) is node


def freezes(conv: nn.Module) -> bool:
    """Whether a module is a convolution that `FrozenConv` can stand for."""
    same = _is_same(conv)
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


# ---------------------------------------------------------------------------- arithmetic


class _Frozen(torch.autograd.Function):
    """The convolution, cut off, with the gradient of the pictures alone."""

    @staticmethod
    def forward(
        ctx: Any,
        pictures: torch.Tensor,
        plans: _Plans,
        ceiling: float | None,
        redirected: bool,
    ) -> torch.Tensor:
        ctx.plan = plan = plans.of(pictures.shape[2:])
        ctx.ceiling, ctx.redirected, ctx.giver = ceiling, redirected, pictures.grad_fn
        output = plan.forwards(pictures, ceiling)
        if ceiling is not None:
            ctx.again = plan.expands and output.numel() >= _LARGE
            ctx.save_for_backward(pictures if ctx.again else output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradient = grads[0].contiguous(memory_format=torch.channels_last)
        if ctx.ceiling is not None:
            (kept,) = ctx.saved_tensors
            owned = is_owned(gradient, ctx)
            if ctx.again:
                gradient = _masked_again(ctx, gradient if owned else gradient.clone(), kept)
            else:
                gradient = masked(
                    gradient, kept, ctx.ceiling, redirected=ctx.redirected, owned=owned
                )
        return handed_over(ctx.plan.backwards(gradient), ctx.giver), None, None, None


def _masked_again(ctx: Any, gradient: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    """The gradient in front of the ReLU, in place: each picture is computed again, and stays in the cache."""
    for one, picture in zip(gradient.split(1), pictures.split(1), strict=True):
        output = ctx.plan.forwards(picture, ctx.ceiling)
        behind = masked(one, output, ctx.ceiling, redirected=ctx.redirected, owned=True)
        if ctx.redirected:
            one.copy_(behind)
    return gradient


class _Layout:
    """Weights of a convolution and where they are laid.

    Args:
        conv: whose geometry it is.
        weight: (C', C / groups, h, w).
        bias: (C',) or None.
    """

    def __init__(self, conv: nn.Conv2d, weight: torch.Tensor, bias: torch.Tensor | None):
        self.weight, self.bias, self.groups = weight, bias, conv.groups
        self.stride, self.dilation = pair_of(conv.stride), pair_of(conv.dilation)
        self._padding = None if _is_same(conv) else pair_of(conv.padding)

    def around(self, size: Sequence[int]) -> list[_Pair]:
        """Zeros before and behind along each axis of pictures of (height, width)."""
        if self._padding is not None:
            return [(padding, padding) for padding in self._padding]
        kernel = self.weight.shape[2:]
        return [same_padding(*of_axis) for of_axis in zip(size, kernel, self.stride, strict=True)]


class _Plans:
    """How a convolution and its gradient are computed, by the size of the pictures.

    Copies are itself, so that the copies of a network share what is laid out.
    """

    def __init__(self, layout: _Layout):
        self._layout = layout
        self._by_size: dict[tuple[int, ...], Plan] = {}

    def __deepcopy__(self, _memo: Any) -> _Plans:
        return self

    def of(self, size: torch.Size) -> Plan:
        """For pictures of (height, width)."""
        plan = self._by_size.get(size)
        if plan is None:
            plan = self._by_size[size] = Plan(self._layout, size)  # twice at worst, by two threads
        return plan


@dataclass(frozen=True)
class _Part:
    """Pixels whose gradient comes from one part of the kernel.

    Attributes:
        kernel: the convolution of the gradient; None where nothing reaches these pixels.
        found: where they are in its result.
        pixels: where they are in the picture.
        whole: the result is the picture's gradient, no more and no less.
    """

    kernel: _Kernel | None
    found: tuple[slice, ...]
    pixels: tuple[slice, ...]
    whole: bool = False


class Plan:
    """A convolution and its gradient for pictures of one size.

    Attributes:
        expands: whether its output is much larger than the pictures, and soon computed again from them.
    """

    def __init__(self, layout: _Layout, size: torch.Size):
        self._layout, self._size = layout, tuple(size)
        weight, stride, groups = layout.weight, layout.stride, layout.groups
        self._around = around = layout.around(size)
        # More zeros behind than before: as many before, for which the kernel gets rows of zeros.
        rows, columns = (behind - before for before, behind in around)
        behind = (around[0][1], around[1][1])
        self._forward = _Kernel(
            F.pad(weight, (columns, 0, rows, 0)),
            layout.bias,
            stride,
            behind,
            layout.dilation,
            groups,
        )
        reach = [d * (k - 1) for d, k in zip(layout.dilation, weight.shape[2:], strict=True)]
        self._output = [
            (side + sum(zeros) - along - 1) // step + 1
            for side, zeros, along, step in zip(size, around, reach, stride, strict=True)
        ]
        self._down, self._across = (
            list(_phases(*of_axis))
            for of_axis in zip(size, stride, (zeros[0] for zeros in around), strict=True)
        )
        thin = weight.shape[1] * stride[0] * stride[1] <= _THIN
        self._at_once = groups == 1 and max(stride) > 1 and thin
        self.expands = self._forward.pointwise and weight.shape[0] >= _WIDER * weight.shape[1]
        alike = all(before == behind for before, behind in around)
        dense = groups == 1 and max(weight.shape[2:]) > 1 and max(stride) > 1
        self._by_library = dense and alike and not self._at_once
        self._parts: list[_Part] = []

    def forwards(
        self, pictures: torch.Tensor, ceiling: float | None, plus: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The convolution and what is added to it, cut off at 0 and the ceiling if there is one."""
        return self._forward(pictures, ceiling, plus)

    def backwards(self, gradient: torch.Tensor, plus: torch.Tensor | None = None) -> torch.Tensor:
        """The gradient of the pictures from that of the output.

        Args:
            gradient: of the output, channels last.
            plus: is added to it and may be overwritten.
        """
        if self._by_library:
            found = self._of_library(gradient)
            return found if plus is None else found.add_(plus)
        if not self._parts:
            self._parts = list(self._thin_parts() if self._at_once else self._phase_parts())
        only = self._parts[0] if len(self._parts) == 1 else None
        if only is not None and only.kernel is not None and only.whole and plus is not None:
            return only.kernel.onto(plus, gradient)
        if only is not None and only.kernel is not None and plus is None:
            return only.kernel(gradient)[only.found]
        shape = (len(gradient), self._layout.weight.shape[1] * self._layout.groups, *self._size)
        whole = _empty(gradient, shape) if plus is None else plus
        results: dict[_Kernel, torch.Tensor] = {}
        for part in self._parts:
            if part.kernel is None:
                if plus is None:
                    whole[part.pixels] = 0
                continue
            if part.kernel not in results:
                results[part.kernel] = part.kernel(gradient)
            found = results[part.kernel][part.found]
            if plus is None:
                whole[part.pixels] = found
            else:
                whole[part.pixels] += found
        return whole

    def _phase_parts(self) -> Iterator[_Part]:
        """A convolution a phase."""
        weight, (down, across), dilation = (
            self._layout.weight,
            self._layout.stride,
            self._layout.dilation,
        )
        for y in self._down:
            for x in self._across:
                pixels = (_ALL, _ALL, slice(y.first, None, down), slice(x.first, None, across))
                part = weight[:, :, y.remainder :: down, x.remainder :: across]
                if not part.numel():
                    yield _Part(None, (), pixels)
                    continue
                reach = [d * (k - 1) for d, k in zip(dilation, part.shape[2:], strict=True)]
                padding = (
                    y.padding(reach[0], self._output[0]),
                    x.padding(reach[1], self._output[1]),
                )
                turned = _turned(part, self._layout.groups)
                kernel = _Kernel(turned, None, (1, 1), padding, dilation, self._layout.groups)
                found = y.places(reach[0], padding[0]), x.places(reach[1], padding[1])
                sides = [
                    length + 2 * zeros - along
                    for length, zeros, along in zip(self._output, padding, reach, strict=True)
                ]
                whole = (down, across) == (1, 1) and tuple(sides) == self._size
                yield _Part(kernel, (_ALL, _ALL, *found), pixels, whole)

    def _thin_parts(self) -> Iterator[_Part]:
        """All phases as channels of one convolution: faster where a picture has few."""
        weight, (down, across) = self._layout.weight, self._layout.stride
        channels = weight.shape[1]
        tall, wide = -(-weight.shape[2] // down), -(-weight.shape[3] // across)
        padding = (
            max(y.padding(tall - 1, self._output[0]) for y in self._down),
            max(x.padding(wide - 1, self._output[1]) for x in self._across),
        )
        turned = []
        for y in self._down:
            for x in self._across:
                part = weight[:, :, y.remainder :: down, x.remainder :: across]
                lacking = (0, wide - part.shape[3], 0, tall - part.shape[2])
                turned.append(_turned(F.pad(part, lacking), 1))
        kernel = _Kernel(torch.cat(turned), None, (1, 1), padding, self._layout.dilation)
        number = 0
        for y in self._down:
            for x in self._across:
                found = y.places(tall - 1, padding[0]), x.places(wide - 1, padding[1])
                block = slice(number * channels, (number + 1) * channels)
                pixels = slice(y.first, None, down), slice(x.first, None, across)
                yield _Part(kernel, (_ALL, block, *found), (_ALL, _ALL, *pixels))
                number += 1

    def _of_library(self, gradient: torch.Tensor) -> torch.Tensor:
        """Where phases, which cost copies, are no faster: dense kernels of more than one pixel."""
        own, padding = self._layout, [before for before, _ in self._around]
        pictures = _empty(gradient, (len(gradient), own.weight.shape[1], *self._size))
        found: torch.Tensor = torch.ops.aten.convolution_backward(
            *(gradient, pictures, own.weight, None, own.stride, padding, own.dilation),
            *(False, (0, 0), 1, (True, False, False)),
        )[0]
        return found


_ALL = slice(None)


@dataclass(frozen=True)
class _Phase:
    """The pixels with one remainder modulo the stride, along one axis.

    Pixel p lies at p + before of the padded picture, which is stride * m + remainder. What reaches it
    of the kernel is weight[remainder::stride], and its gradient the sum over j of
    gradient[m - j] * part[j].

    Attributes:
        first: the first such pixel.
        count: of such pixels.
        remainder: where the part of the kernel begins.
        shift: m of the first pixel.
    """

    first: int
    count: int
    remainder: int
    shift: int

    def padding(self, reach: int, length: int) -> int:
        """Zeros around a gradient of some length, so that a part of some reach covers all pixels."""
        return max(reach - self.shift, self.count + self.shift - length, 0)

    def places(self, reach: int, padding: int) -> slice:
        """Where the pixels are in the result."""
        begin = padding - reach + self.shift
        return slice(begin, begin + self.count)


def _phases(size: int, stride: int, before: int) -> Iterator[_Phase]:
    for first in range(min(stride, size)):
        count = -(-(size - first) // stride)
        yield _Phase(first, count, (first + before) % stride, (first + before) // stride)


# ---------------------------------------------------------------------------- the library


_Geometry = tuple[list[int], list[int], list[int], int]


class _Kernel:
    """A convolution whose weights never change, laid out at its first use.

    Args:
        weight: (C', C / groups, h, w).
        bias: (C',) or None.
        stride: down and across, as the next two.
        padding: zeros on both sides.
        dilation: of the kernel.
        groups: of channels.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        stride: _Pair = (1, 1),
        padding: _Pair = (0, 0),
        dilation: _Pair = (1, 1),
        groups: int = 1,
    ):
        self._weight = weight.contiguous(memory_format=torch.channels_last)
        self._bias = bias
        self._geometry = (list(padding), list(stride), list(dilation), groups)
        self.pointwise = weight.shape[2:] == (1, 1) and self._geometry[:2] == ([0, 0], [1, 1])
        self.pointwise &= groups == 1
        self._laid_out: torch.Tensor | None = None
        self._matrix: torch.Tensor | None = None
        self._turned: torch.Tensor | None = None

    def __call__(
        self,
        pictures: torch.Tensor,
        ceiling: float | None = None,
        plus: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if not _lays_out(pictures.device.type, pictures.dtype):
            padding, stride, dilation, groups = self._geometry
            found = F.conv2d(pictures, self._weight, self._bias, stride, padding, dilation, groups)
            found = found if plus is None else found.add_(plus)
            return found if ceiling is None else _cut_off(found, ceiling)
        if self.pointwise and (plus is None or pictures.shape[1] >= _DEEP):
            if self._matrix is None:
                self._matrix = _matrix(self._weight, pictures.shape[2] * pictures.shape[3])
            if plus is None:
                return _product(pictures, self._matrix, self._bias, ceiling)
            found = _product(pictures, self._matrix, self._bias, None, plus)
            return found if ceiling is None else _cut_off(found, ceiling)
        if self._laid_out is None:
            shape = [BATCH, *pictures.shape[1:]]
            self._laid_out = _laid_out(self._weight, self._geometry, shape)
        return _convolved(pictures, self._laid_out, self._bias, self._geometry, ceiling, plus)

    def onto(self, plus: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
        """The convolution added to `plus`, which may be overwritten: a third less goes to memory.

        Without a bias.
        """
        if not self.pointwise or not plus.is_contiguous(memory_format=torch.channels_last):
            return self(pictures, None, plus)
        if self._turned is None:
            self._turned = self._weight.flatten(1).t().contiguous()
        rows, sums = (one.permute(0, 2, 3, 1).flatten(0, 2) for one in (pictures, plus))
        sums.addmm_(rows, self._turned)
        return plus


def _matrix(weight: torch.Tensor, pixels: int) -> torch.Tensor:
    """A 1 x 1 kernel, laid out for pictures of so many pixels."""
    rows = weight.flatten(1).contiguous()
    laid_out: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(rows, BATCH * pixels)
    return laid_out


def _product(
    pictures: torch.Tensor,
    matrix: torch.Tensor,
    bias: torch.Tensor | None,
    ceiling: float | None,
    plus: torch.Tensor | None = None,
) -> torch.Tensor:
    """1 x 1: a product of matrices, which the library begins in half the time; cut off or added to."""
    rows, linear = pictures.permute(0, 2, 3, 1), torch.ops.mkldnn._linear_pointwise
    found: torch.Tensor
    if plus is None:
        found = linear(rows, matrix, bias, *_behind(ceiling), "")
    else:
        found = linear.binary(rows, plus.permute(0, 2, 3, 1), matrix, bias, "add")
    return found.permute(0, 3, 1, 2).data  # no view, which a network could not add to in place


def _cut_off(found: torch.Tensor, ceiling: float) -> torch.Tensor:
    """In place."""
    return found.relu_() if ceiling == math.inf else found.clamp_(0, ceiling)


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
    plus: torch.Tensor | None = None,
) -> torch.Tensor:
    """The library's convolution as PyTorch's own compiler calls it."""
    convolution = torch.ops.mkldnn._convolution_pointwise
    found: torch.Tensor
    if plus is None:
        found = convolution(pictures, laid_out, bias, *geometry, *_behind(ceiling), "")
    else:
        name, scalars = _behind(ceiling)
        unary = None if ceiling is None else name
        found = convolution.binary(
            pictures, plus, laid_out, bias, *geometry, "add", None, unary, scalars, None
        )
    return found


def _behind(ceiling: float | None) -> tuple[str, list[float]]:
    """What the library calls a ReLU inside."""
    if ceiling is None:
        return "none", []
    return ("relu", []) if ceiling == math.inf else ("hardtanh", [0.0, ceiling])


@cache
def _lays_out(device: str, dtype: torch.dtype) -> bool:
    """Whether the library here takes weights that are laid out: tried, since not every build does."""
    if device != "cpu":
        return False
    pictures = torch.ones(1, 16, 4, 4, dtype=dtype).to(memory_format=torch.channels_last)
    geometry: _Geometry = ([0, 0], [1, 1], [1, 1], 1)
    weight, plus = torch.ones(16, 16, 3, 3, dtype=dtype), _empty(pictures, (1, 16, 2, 2)).fill_(1)
    try:
        laid_out = _laid_out(weight, geometry, list(pictures.shape))
        found = [
            _convolved(pictures, laid_out, None, geometry, 6.0),
            _convolved(pictures, laid_out, None, geometry, math.inf, plus),
        ]
        matrix = _matrix(weight[:, :, :1, :1], 16)
        found += [
            _product(pictures, matrix, None, math.inf),
            _product(pictures, matrix, None, None, pictures),
        ]
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    wanted = (6, 9 * 16 + 1, 16, 17)
    return all(bool(one.eq(value).all()) for one, value in zip(found, wanted, strict=True))


# ---------------------------------------------------------------------------- shapes


def _turned(weight: torch.Tensor, groups: int) -> torch.Tensor:
    """(C, C' / groups, h, w) from (C', C / groups, h, w): the kernel of the gradient."""
    each: torch.Tensor = weight.unflatten(0, (groups, -1)).transpose(1, 2)
    return each.flatten(0, 1).flip(2, 3)


def _empty(like: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


def _is_same(conv: nn.Module) -> bool:
    """Whether it is timm's convolution that pads as TensorFlow does."""
    return type(conv).__name__ == "Conv2dSame"
