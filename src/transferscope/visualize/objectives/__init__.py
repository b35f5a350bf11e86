"""What is maximised: channels, neurons, classes, whole layers, directions, and penalties of a picture.

Each function returns an `Objective`. Outputs of layers may be maps (N, C, H, W), tokens (N, T, D),
whose D are the channels, or vectors (N, D); the places of a map and the tokens are its positions.

Reference: Olah et al. 2017, "Feature Visualization", unless another is named.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from transferscope.visualize.objectives import channels, directions, layers
from transferscope.visualize.objectives.algebra import Objective

OBJECTIVES: Mapping[str, Callable[..., Objective]] = MappingProxyType(
    {
        "channel": channels.channel,
        "channels": channels.channels,
        "neuron": channels.neuron,
        "neurons": channels.neurons,
        "logit": channels.logit,
        "logits": channels.logits,
        "direction": directions.direction,
        "caricature": directions.caricature,
        "layer_energy": layers.layer_energy,
        "diversity": layers.diversity,
    }
)
"""Every objective over a network by its name."""
