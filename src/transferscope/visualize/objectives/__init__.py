"""What is maximised: channels, neurons, classes, whole layers, directions, and penalties of a picture.

Each function returns an `Objective`. Outputs of layers may be maps (N, C, H, W), tokens (N, T, D),
whose D are the channels, or vectors (N, D); the places of a map and the tokens are its positions.

Reference: Olah et al. 2017, "Feature Visualization", unless another is named.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from transferscope.visualize.objectives.algebra import LOGITS, Objective, blend, interpolate
from transferscope.visualize.objectives.channels import (
    channel,
    channels,
    logit,
    logits,
    neuron,
    neurons,
)
from transferscope.visualize.objectives.directions import caricature, caricature_target, direction
from transferscope.visualize.objectives.layers import diversity, layer_energy
from transferscope.visualize.objectives.penalties import (
    PENALTIES,
    blur,
    high_frequency,
    high_frequency_energy,
    l1,
    l2,
    total_variation,
)

__all__ = [
    "LOGITS",
    "OBJECTIVES",
    "PENALTIES",
    "Objective",
    "blend",
    "blur",
    "caricature",
    "caricature_target",
    "channel",
    "channels",
    "direction",
    "diversity",
    "high_frequency",
    "high_frequency_energy",
    "interpolate",
    "l1",
    "l2",
    "layer_energy",
    "logit",
    "logits",
    "neuron",
    "neurons",
    "total_variation",
]

OBJECTIVES: Mapping[str, Callable[..., Objective]] = MappingProxyType(
    {
        "channel": channel,
        "channels": channels,
        "neuron": neuron,
        "neurons": neurons,
        "logit": logit,
        "logits": logits,
        "direction": direction,
        "caricature": caricature,
        "layer_energy": layer_energy,
        "diversity": diversity,
    }
)
"""Every objective over a network by its name."""
