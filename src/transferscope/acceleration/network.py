"""Private, faster copies of a network for gradients of pictures.

BatchNorm is folded away, convolutions are frozen on a CPU, weights have no gradients, and ReLUs can be
told to let gradients through where they are shut. The user's network is never touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from transferscope.acceleration.convolutions import FrozenConv, ceiling_of, freeze, masked
from transferscope.acceleration.folding import TOLERANCE, folded
from transferscope.acceleration.precision import Precision, autocast
from transferscope.activations import TruncatedForward, capture, hooked
from transferscope.copies import copied, is_plain, still
from transferscope.errors import InputError


class FastNetwork:
    """A private copy of a network that ends at the deepest of the layers asked for.

    Args:
        network: unchanged.
        layers: dotted names; none: nothing is run.
        example: one normalised picture (1, C, H, W) on the network's device.
        precision: of the copy.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str],
        example: torch.Tensor,
        precision: Precision,
    ):
        fast, ceilings = _fast_copy(network, layers, example)
        fast = fast.to(memory_format=torch.channels_last)
        if example.device.type == "cpu":
            fast = _frozen(fast, layers, example, precision, ceilings)
        self._use(fast, layers, example, precision)

    def _use(
        self,
        network: nn.Module,
        layers: Sequence[str],
        example: torch.Tensor,
        precision: Precision,
    ) -> None:
        self._network, self._layers = network, tuple(layers)
        self._example, self._precision = example, precision
        self._relus = [m for m in network.modules() if isinstance(m, RedirectableReLU | FrozenConv)]
        if self._layers:
            with autocast(example.device, precision):
                self._forward = TruncatedForward(network, layers, example, channels_first=True)

    def twin(self) -> FastNetwork:
        """Another one for another thread: modules of its own, the same weights in memory."""
        network = copied(self._network, shared=True)
        twin = object.__new__(FastNetwork)
        twin._use(network, self._layers, self._example, self._precision)
        return twin

    def __call__(self, normalised: torch.Tensor) -> dict[str, torch.Tensor]:
        """Activations by layer for normalised pictures (N, C, H, W), to which gradients flow."""
        if not self._layers:
            return {}
        with autocast(self._example.device, self._precision):
            return self._forward(normalised)

    def takes(self, size: tuple[int, int]) -> bool:
        """Whether the layers can be reached from pictures of another size than the example's.

        Args:
            size: (height, width).
        """
        try:
            with torch.no_grad():
                self(self._example.new_zeros(1, self._example.shape[1], *size))
        except (AssertionError, RuntimeError, ValueError):  # how networks refuse a size
            return False
        return True

    @contextmanager
    def redirected(self) -> Iterator[None]:
        """Shut ReLUs let gradients through within the block."""
        for relu in self._relus:
            relu.redirected = True
        try:
            yield
        finally:
            for relu in self._relus:
                relu.redirected = False


def _fast_copy(
    network: nn.Module, names: Sequence[str], example: torch.Tensor
) -> tuple[nn.Module, dict[nn.Module, float]]:
    """A private copy, and those of its convolutions that may cut off themselves, with where.

    Every step of its making is held against the network, and left out where the layers then give something
    else. Folding does where one of them is, or ends with, a convolution whose BatchNorm comes behind it.

    Raises:
        InputError: even a plain copy gives something else.
    """
    running = still(network)
    own = _outputs(running, names, example)
    fast = with_redirectable_relus(folded(running, example))
    ceilings = _followed_by_relu(fast, names, example)
    cut: list[tuple[nn.Module, Any, bool]] = [
        (conv, lambda _m, _i, output, most=ceiling: output.clamp(0, most), False)
        for conv, ceiling in ceilings.items()
    ]
    with hooked(cut):
        if _alike(own, _outputs(fast, names, example)):
            return fast, ceilings
    plain = copied(running).eval().requires_grad_(False)
    for candidate in (fast, with_redirectable_relus(plain), plain):
        if _alike(own, _outputs(candidate, names, example)):
            return candidate, {}
    found = _outputs(plain, names, example)
    at = next(name for name in own if not _alike({name: own[name]}, found))
    raise InputError(
        f"a private copy of this {type(network).__name__}, in which pictures are drawn, gives something else "
        f"than the network at layer {at!r} for the same picture; in eval mode a network must answer the same "
        "every time, and its hooks and replaced forwards must work in a copy: take them off, or correct them"
    )


def _frozen(
    fast: nn.Module,
    names: Sequence[str],
    example: torch.Tensor,
    precision: Precision,
    ceilings: dict[nn.Module, float],
) -> nn.Module:
    """A fast copy with its convolutions frozen, or as it is where they then give something else."""
    with autocast(example.device, precision) as dtype:
        own = _outputs(fast, names, example)
        spare = copied(fast, shared=True)
        freeze(fast, dtype, ceilings)
        tolerance = TOLERANCE if dtype == torch.float32 else _COARSE
        if _alike(own, _outputs(fast, names, example), tolerance):
            return fast
    return spare


_COARSE = 0.2
"""Largest relative difference in half precision, in which two orders of a sum differ."""


def _outputs(
    network: nn.Module, names: Sequence[str], example: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What layers give."""
    with torch.no_grad(), capture(network, names) as caught:
        network(example)
    return caught


def _alike(
    own: dict[str, torch.Tensor], others: dict[str, torch.Tensor], tolerance: float = TOLERANCE
) -> bool:
    """Whether layers give the same, up to rounding."""
    return all(_near(own[name], others[name], tolerance) for name in own)


def _near(own: torch.Tensor, other: torch.Tensor, tolerance: float) -> bool:
    if own.shape != other.shape or not torch.equal(own.isfinite(), other.isfinite()):
        return False
    own, other = (one.nan_to_num(0.0, 0.0, 0.0) for one in (own, other))
    return bool((own - other).abs().max() <= tolerance * own.abs().max())


def _followed_by_relu(
    network: nn.Module, names: Sequence[str], example: torch.Tensor
) -> dict[nn.Module, float]:
    """Convolutions whose output a ReLU's module takes, and where that cuts off.

    No other module takes it, and none of the layers named has it as its output. What is done with it
    outside of modules is not seen.
    """
    wanted = {network.get_submodule(name) for name in names}
    outputs: dict[int, tuple[nn.Module, torch.Tensor, int]] = {}  # held, so that ids stay unique
    takers: dict[nn.Module, list[nn.Module]] = {}

    def took(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        for one in inputs:
            if id(one) in outputs and not isinstance(module, nn.Identity):
                source, _, version = outputs[id(one)]
                added_to = one._version != version  # in place, such as a shortcut
                takers[source] += [module, module] if added_to else [module]

    def gave(module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(module, nn.Conv2d) and module in takers:
            takers[module] += [module, module]  # it runs twice
        elif isinstance(module, nn.Conv2d):
            outputs[id(output)], takers[module] = (module, output, output._version), []
        elif module in wanted and id(output) in outputs:  # such as a folded BatchNorm
            takers[outputs[id(output)][0]].append(module)

    leaves = [m for m in network.modules() if not next(m.children(), None)]
    hooks: list[tuple[nn.Module, Any, bool]] = []
    for module in network.modules():
        hooks += [(module, gave, False)] + ([(module, took, True)] if module in leaves else [])
    with hooked(hooks), torch.no_grad():
        network(example)
    return {
        conv: found[0].ceiling
        for conv, found in takers.items()
        if conv not in wanted and len(found) == 1 and isinstance(found[0], RedirectableReLU)
    }


# ---------------------------------------------------------------------------- redirected ReLUs


class _Redirect(torch.autograd.Function):
    """ReLU or ReLU6 whose gradient passes through where it is shut, if it would open it."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, ceiling: float) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.ceiling = ceiling
        return x.clamp(0, ceiling)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (x,) = ctx.saved_tensors
        return masked(grads[0], x, ctx.ceiling, redirected=True), None


class RedirectableReLU(nn.Module):
    """A ReLU of the private copy; `redirected` changes its gradient only."""

    def __init__(self, relu: nn.ReLU | nn.ReLU6):
        super().__init__()
        self.ceiling = 6.0 if isinstance(relu, nn.ReLU6) else float("inf")
        self.redirected = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` cut off at 0 and at the ceiling, if a convolution has not done so already."""
        if ceiling_of(x) == self.ceiling:
            return x
        if self.redirected:
            result: torch.Tensor = _Redirect.apply(x, self.ceiling)
            return result
        return nn.functional.relu6(x) if self.ceiling == 6.0 else nn.functional.relu(x)


def with_redirectable_relus(network: nn.Module) -> nn.Module:
    """A copy whose ReLU modules can be redirected, if they are no more than that; layer names stay."""
    network = copied(network)
    replaced: dict[nn.Module, RedirectableReLU] = {}
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if name and type(module) in (nn.ReLU, nn.ReLU6) and is_plain(module):
            if module not in replaced:  # one module may have several names
                replaced[module] = RedirectableReLU(module).eval()
            network.set_submodule(name, replaced[module])
    return network
