"""How weights are moved: the optimizer's groups, the schedule, gradual unfreezing, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from transferscope.training.head_fit import class_weights
from transferscope.training.recipe import Recipe
from transferscope.training.tail import Tail


def make_optimizer(tail: Tail, recipe: Recipe) -> torch.optim.Optimizer:
    """One group for each depth, and within it one for matrices and kernels, which alone decay.

    Each group carries its `depth` (0: the head) and its `scale`: its share of the schedule's rate.
    """
    depths = tail.depths()
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in tail.parameters.items():
        groups.setdefault((depths[name], parameter.ndim > 1), []).append(parameter)
    described: list[dict[str, Any]] = [
        {
            "params": parameters,
            "weight_decay": recipe.weight_decay if decays else 0.0,
            "depth": depth,
            "scale": recipe.layer_decay ** (depth - 1) if depth else recipe.head_rate,
        }
        for (depth, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(described, lr=recipe.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(described, lr=recipe.learning_rate)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Gives every group its share of this rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def scheduled_rate(recipe: Recipe, step: int, total: int) -> float:
    """The rate at a step (0, 1, ...) of `total`: a linear warm-up, then half a cosine to zero."""
    warm = max(1, round(recipe.warmup * total))
    if step < warm:
        return recipe.learning_rate * (step + 1) / warm
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))


def unfreeze_for(optimizer: torch.optim.Optimizer, recipe: Recipe, epoch: int) -> None:
    """Lets gradients into the stages that `gradual` has reached by an epoch (1, 2, ...)."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.requires_grad_(not recipe.gradual or group["depth"] <= epoch)


class Average:
    """Exponential moving average of weights; young averages follow faster.

    Args:
        tail: whose weights are averaged.
        decay: of the average once it is old; at step t it is at most (1 + t) / (10 + t).
    """

    def __init__(self, tail: Tail, decay: float):
        self._tail, self._decay = tail, decay
        self.weights = tail.weights()

    def follow(self, step: int) -> None:
        """Moves towards the present weights after a step (0, 1, ...); counters are copied."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, tensor in {**self._tail.parameters, **self._tail.buffers}.items():
            if tensor.is_floating_point():
                self.weights[name].lerp_(tensor.detach(), 1 - decay)
            else:
                self.weights[name].copy_(tensor)


def order_of(labels: torch.Tensor, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
    """int64 (N,): the pictures of an epoch in their order."""
    if recipe.balance == "sampling":
        chances = class_weights(labels, int(labels.max()) + 1)[labels]
        return torch.multinomial(chances, len(labels), replacement=True, generator=generator)
    return torch.randperm(len(labels), generator=generator)


def state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """An optimizer's state by flat names, for a file of tensors."""
    return {
        f"{index}.{key}": value
        for index, values in optimizer.state_dict()["state"].items()
        for key, value in values.items()
    }


def load_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """The inverse of `state_tensors`."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
