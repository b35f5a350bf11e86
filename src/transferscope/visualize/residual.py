"""Residual blocks of the private copy as one step: sums and ReLUs inside the convolutions.

Done by itself, the sum with the shortcut reads two layers and writes one, forwards and backwards, and
the ReLU behind it as much again. Inside the last convolution, and the first one's gradient, both are free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from transferscope.visualize.convolutions import FrozenConv, handed_over, is_owned, masked

_CHAINS: dict[type[nn.Module], tuple[str, ...]] = {
    BasicBlock: ("conv1", "conv2"),
    Bottleneck: ("conv1", "conv2", "conv3"),
}


class FrozenBlock(nn.Module):
    """Convolutions with ReLUs between them, plus a shortcut, and a ReLU.

    Args:
        block: whose children it takes over, under their names.
        chain: its convolutions in order; all but the last cut off themselves.
        shortcut: the convolution of the way around them, if there is one.
    """

    def __init__(self, block: nn.Module, chain: Sequence[str], shortcut: str | None):
        super().__init__()
        for name, child in block.named_children():
            self.add_module(name, child)
        self._chain, self._shortcut = tuple(chain), shortcut

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        chain = [self._conv(name) for name in self._chain]
        shortcut = self._conv(self._shortcut) if self._shortcut else None
        redirected = [conv.redirected for conv in chain[:-1]]
        redirected.append(bool(self.get_submodule("relu").redirected))
        pictures = pictures.to(chain[0].weight.dtype)
        output: torch.Tensor = _Block.apply(pictures, chain, shortcut, redirected)
        return output

    def _conv(self, name: str) -> FrozenConv:
        return cast("FrozenConv", self.get_submodule(name))


def freeze_blocks(network: nn.Module, names: Sequence[str]) -> None:
    """Replaces torchvision's residual blocks by `FrozenBlock` where that changes nothing.

    Args:
        network: changed; its BatchNorms are folded and its convolutions frozen already, or it stays.
        names: of layers whose outputs are wanted: a block that holds one stays.
    """
    for name, block in list(network.named_modules()):
        chain = _CHAINS.get(type(block))
        inside = any(wanted.startswith(f"{name}.") for wanted in names)
        if chain is None or inside or not name:
            continue
        shortcut = "downsample.0" if getattr(block, "downsample", None) is not None else None
        if _is_frozen(block, chain, shortcut):
            network.set_submodule(name, FrozenBlock(block, chain, shortcut).eval())


def _is_frozen(block: nn.Module, chain: Sequence[str], shortcut: str | None) -> bool:
    """Whether nothing but frozen convolutions and ReLUs is left of a block."""
    parts = dict(block.named_modules())
    inner, last = [parts[name] for name in chain[:-1]], parts[chain[-1]]
    norms = [parts[name.replace("conv", "bn")] for name in chain]
    known = isinstance(last, FrozenConv) and last.ceiling is None
    if shortcut is not None:
        around = parts.get(shortcut)
        known &= isinstance(around, FrozenConv) and around.ceiling is None
        known &= isinstance(parts["downsample"], nn.Sequential) and len(parts["downsample"]) == 2
        norms.append(parts["downsample.1"])
    return (
        known
        and all(isinstance(norm, nn.Identity) for norm in norms)
        and all(isinstance(conv, FrozenConv) and conv.ceiling == math.inf for conv in inner)
        and getattr(parts["relu"], "ceiling", None) == math.inf
    )


class _Block(torch.autograd.Function):
    """The block, with the gradient of the pictures alone."""

    @staticmethod
    def forward(
        ctx: Any,
        pictures: torch.Tensor,
        chain: Sequence[FrozenConv],
        shortcut: FrozenConv | None,
        redirected: Sequence[bool],
    ) -> torch.Tensor:
        ctx.redirected, ctx.around, ctx.giver = redirected, None, pictures.grad_fn
        plus = pictures
        if shortcut is not None:
            ctx.around = shortcut.plan(pictures)
            plus = ctx.around.forwards(pictures, None)
        ctx.plans, outputs = [], [pictures]
        for conv in chain:
            ctx.plans.append(conv.plan(outputs[-1]))
            added = plus if conv is chain[-1] else None
            outputs.append(ctx.plans[-1].forwards(outputs[-1], math.inf, added))
        ctx.save_for_backward(*outputs[1:])
        return outputs[-1]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        outputs, (*inner, last) = ctx.saved_tensors, ctx.redirected
        gradient = grads[0].contiguous(memory_format=torch.channels_last)
        owned = is_owned(gradient, ctx)
        around = gradient = masked(gradient, outputs[-1], math.inf, redirected=last, owned=owned)
        first, *others = ctx.plans
        for plan, output, redirected in zip(
            reversed(others), outputs[-2::-1], reversed(inner), strict=True
        ):
            gradient = plan.backwards(gradient)
            gradient = masked(gradient, output, math.inf, redirected=redirected, owned=True)
        if ctx.around is None:
            gradient = first.backwards(gradient, around)
        else:
            gradient = ctx.around.backwards(around, first.backwards(gradient))
        return handed_over(gradient, ctx.giver), None, None, None
