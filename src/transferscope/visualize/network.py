"""Private, faster copies of a network that pictures are drawn with.

BatchNorm is folded away, depthwise convolutions have fast gradients on a CPU, weights have none, and
ReLUs can be told to let gradients through where they are shut. The user's network is never touched.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from transferscope.activations import TruncatedForward, evaluating
from transferscope.backbones import Classifier, Precision, autocast, folded
from transferscope.backbones.depthwise import phased
from transferscope.backbones.folding import TOLERANCE
from transferscope.visualize.objectives import LOGITS


class DrawingNetwork:
    """A private copy of a classifier's network that ends at the deepest of the layers asked for.

    Args:
        classifier: unchanged.
        layers: dotted names, `LOGITS` for the head; none: nothing is run.
        precision: of the copy.
    """

    def __init__(self, classifier: Classifier, layers: Sequence[str], precision: Precision):
        fast = _folded_but_for(classifier, layers)
        if classifier.device.type == "cpu":
            fast = phased(fast)
        fast = with_redirectable_relus(fast).to(memory_format=torch.channels_last)
        self._use(fast, classifier, layers, precision)

    def _use(
        self,
        network: nn.Module,
        classifier: Classifier,
        layers: Sequence[str],
        precision: Precision,
    ) -> None:
        self._network, self._classifier, self._layers = network, classifier, tuple(layers)
        self._precision = precision
        self._names = _actual(classifier, layers)
        self._relus = [m for m in network.modules() if isinstance(m, RedirectableReLU)]
        if self._names:
            wanted = list(self._names.values())
            self._forward = TruncatedForward(
                network, wanted, classifier.example(), channels_first=True
            )

    def twin(self) -> DrawingNetwork:
        """Another one for another thread: modules of its own, the same weights in memory."""
        shared = [*self._network.parameters(), *self._network.buffers()]
        network = copy.deepcopy(self._network, {id(tensor): tensor for tensor in shared})
        twin = object.__new__(DrawingNetwork)
        twin._use(network, self._classifier, self._layers, self._precision)
        return twin

    def __call__(self, normalised: torch.Tensor) -> dict[str, torch.Tensor]:
        """Activations by layer for normalised pictures (N, C, H, W), to which gradients flow."""
        if not self._names:
            return {}
        with autocast(self._classifier.device, self._precision):
            found = self._forward(normalised)
        return {name: found[actual] for name, actual in self._names.items()}

    def takes(self, size: tuple[int, int]) -> bool:
        """Whether the layers can be reached from pictures of another size than the network's own.

        Args:
            size: (height, width).
        """
        spec = self._classifier.input
        try:
            with torch.no_grad():
                self(torch.zeros(1, spec.channels, *size, device=self._classifier.device))
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


def _actual(classifier: Classifier, layers: Sequence[str]) -> dict[str, str]:
    """What the network calls the layers."""
    return {name: classifier.head if name == LOGITS else name for name in layers}


def _folded_but_for(classifier: Classifier, layers: Sequence[str]) -> nn.Module:
    """A folded copy, if the layers give in it what they give in the network; else an unfolded one.

    They do not where a layer is, or ends with, a convolution whose BatchNorm comes behind it.
    """
    network, example = classifier.network, classifier.example()
    fast = folded(network, example)
    wanted = list(_actual(classifier, layers).values())
    if not wanted:
        return fast
    with evaluating(network), torch.no_grad():
        own = TruncatedForward(network, wanted, example)(example)
        other = TruncatedForward(fast, wanted, example)(example)
    for name in wanted:
        allowed = TOLERANCE * own[name].abs().max()
        if (own[name] - other[name]).abs().max() > allowed:
            return copy.deepcopy(network).eval().requires_grad_(False)
    return fast


# ---------------------------------------------------------------------------- redirected ReLUs


class _Redirect(torch.autograd.Function):
    """ReLU or ReLU6 whose gradient passes through where it is shut, if it would open it.

    Reference: lucid's `redirected_relu_grad`.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, ceiling: float) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.ceiling = ceiling
        return x.clamp(0, ceiling)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (x,) = ctx.saved_tensors
        grad = grads[0]
        opens = (x <= 0) & (grad > 0)
        closes = (x >= ctx.ceiling) & (grad < 0)
        inside = (x > 0) & (x < ctx.ceiling)
        return grad * (inside | opens | closes), None


class RedirectableReLU(nn.Module):
    """A ReLU of the private copy; `redirected` changes its gradient only."""

    def __init__(self, relu: nn.ReLU | nn.ReLU6):
        super().__init__()
        self.ceiling = 6.0 if isinstance(relu, nn.ReLU6) else float("inf")
        self.redirected = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` cut off at 0 and at the ceiling."""
        if self.redirected:
            result: torch.Tensor = _Redirect.apply(x, self.ceiling)
            return result
        return nn.functional.relu6(x) if self.ceiling == 6.0 else nn.functional.relu(x)


def with_redirectable_relus(network: nn.Module) -> nn.Module:
    """A copy whose ReLU modules can be redirected; layer names stay."""
    network = copy.deepcopy(network)
    replaced: dict[nn.Module, RedirectableReLU] = {}
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if name and type(module) in (nn.ReLU, nn.ReLU6):
            if module not in replaced:  # one module may have several names
                replaced[module] = RedirectableReLU(module).eval()
            network.set_submodule(name, replaced[module])
    return network
