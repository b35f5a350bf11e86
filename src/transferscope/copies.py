"""Private copies of networks, with tensors of their own or on the same ones, and what a copy may leave out."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from transferscope.errors import InputError


def copied(network: nn.Module, *, shared: bool = False) -> nn.Module:
    """A private copy of a network, also where modules hold tensors that have a history (weight norm).

    Args:
        network: unchanged.
        shared: the copy has modules of its own and the network's tensors; otherwise it has its own of both.
    """
    memo: dict[int, Any] = {}
    for module in network.modules():
        own = vars(module)
        held = [
            *own.values(),
            *own.get("_parameters", {}).values(),
            *own.get("_buffers", {}).values(),
        ]
        for value in held:
            if not isinstance(value, torch.Tensor):
                continue
            if shared:
                memo[id(value)] = value
            elif not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(network, memo)


def still(network: nn.Module) -> nn.Module:
    """The network in eval mode: itself if it is, otherwise a copy of its modules on the same tensors.

    The network's own modes stay as they are, for whoever else is using it.

    Raises:
        InputError: it is in train mode and a replaced `forward` calls its modules, which a copy cannot reach.
    """
    if not any(module.training for module in network.modules()):
        return network
    for name, module in network.named_modules():
        if _calls_modules(vars(module).get("forward")):
            raise InputError(
                f"the forward of layer {name or type(network).__name__!r} was replaced by a function, and the "
                "network is in train mode, in which it cannot be used here; call its .eval() first"
            )
    return copied(network, shared=True).eval()


def is_plain(module: nn.Module) -> bool:
    """Whether a module has no hook, no replaced `forward` and no parametrization.

    Then it does what its class and its tensors say, and may be replaced in a copy by what computes the same.
    """
    own = vars(module)
    hooked_by = (own.get(name) for name in _HOOKS)
    changed = "forward" in own or "parametrizations" in own.get("_modules", {})
    return not changed and not any(hooked_by)


_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
"""Where `nn.Module` keeps hooks; those of `weight_norm` and `spectral_norm` are among them."""


def _calls_modules(forward: Any) -> bool:
    """Whether a function holds modules, or methods of them, that a deep copy would not replace."""
    cells = getattr(forward, "__closure__", None) or ()
    held = [cell.cell_contents for cell in cells]
    return any(isinstance(one, nn.Module) or hasattr(one, "__self__") for one in held)
