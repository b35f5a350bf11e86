"""Networks whose weights are redrawn from the top down: a map that stays the same does not show the weights."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import torch
from torch import nn

from transferscope.backbones.classifier import Classifier
from transferscope.backbones.stages import stages_of
from transferscope.copies import copied, still

EVERYTHING = "everything"


def cascade(classifier: Classifier) -> tuple[str, ...]:
    """What is redrawn, one after another: the head, the stages from the last to the first, and the rest."""
    stages = [name for name in reversed(stages_of(classifier)) if name != classifier.head]
    return (classifier.head, *stages, EVERYTHING)


def randomised(classifier: Classifier, groups: Sequence[str], *, seed: int) -> Classifier:
    """A private copy, in eval mode, with the weights of some groups redrawn and their statistics reset.

    Convolutions and linear layers get normal weights by He et al.'s rule, other parameters of several axes
    a normal law of their own spread; scales are 1, biases and means 0 and variances 1, as in networks that
    begin to learn.

    Args:
        classifier: unchanged.
        groups: names of modules, or `EVERYTHING`; of what `cascade` names, the first ones.
        seed: of the weights; a module's are the same whichever groups are redrawn.

    Reference: Adebayo et al. 2018, section 3.1.
    """
    network = copied(still(classifier.network)).eval().requires_grad_(False)
    others = EVERYTHING in groups
    with torch.no_grad():
        for name, module in network.named_modules():
            if others or any(name == one or name.startswith(f"{one}.") for one in groups):
                _redraw(module, torch.Generator().manual_seed(seed + zlib.crc32(name.encode())))
    return classifier.with_network(network)


def _redraw(module: nn.Module, generator: torch.Generator) -> None:
    """A module's own parameters and buffers, not those of the modules in it."""
    for name, values in module.named_parameters(recurse=False):
        if values.ndim < 2:
            values.fill_(0.0 if "bias" in name else 1.0)
            continue
        if name == "weight":
            spread = math.sqrt(2 / values[0].numel())
        else:
            spread = float(values.std()) if values.numel() > 1 else 1.0
        values.copy_(torch.randn(values.shape, generator=generator) * spread)
    if isinstance(module, nn.modules.batchnorm._NormBase):
        module.reset_running_stats()
