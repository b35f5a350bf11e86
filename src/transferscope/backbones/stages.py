"""Where a network divides into stages."""

from __future__ import annotations

from torch import nn

from transferscope.activations import layers
from transferscope.backbones.catalogue import EMBEDDED
from transferscope.backbones.classifier import Classifier


def stages_of(classifier: Classifier) -> tuple[str, ...]:
    """Layers that end a stage of the classifier's network, first to last, whatever its head.

    Taken from the catalogue; for other networks the top-level children that hold parameters. A child
    is divided into its own children if it holds more than 30% of the network without its head and
    their outputs differ in resolution (`features`, `blocks`), or more than 80% (a transformer's
    `encoder`).
    """
    if classifier.backbone in EMBEDDED:
        return EMBEDDED[classifier.backbone].stages
    network = classifier.network
    head = set(classifier.head_layer.parameters())

    def size(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters() if p not in head)

    total = size(network)
    described = {layer.name: layer for layer in layers(network, classifier.example())}
    order = {name: layer.order for name, layer in described.items()}

    def divisible(name: str, child: nn.Module, count: int) -> bool:
        inner = [f"{name}.{grandchild}" for grandchild, _ in child.named_children()]
        shapes = {described[one].output_shape[-2:] for one in inner if one in described}
        return (len(shapes) > 1 and count > 0.3 * total) or count > 0.8 * total

    def divide(prefix: str, module: nn.Module) -> list[str]:
        names: list[str] = []
        for child_name, child in module.named_children():
            count = size(child)
            name = f"{prefix}{child_name}"
            if not count:
                continue
            whole = name in order and not divisible(name, child, count)
            names += [name] if whole else divide(f"{name}.", child)
        return names or [prefix.rstrip(".")]

    holds_head = {
        classifier.head.rsplit(".", depth)[0] for depth in range(classifier.head.count(".") + 1)
    }
    found = [name for name in divide("", network) if name in order and name not in holds_head]
    return tuple(sorted(found, key=order.__getitem__))


def default_layers(classifier: Classifier) -> tuple[str, ...]:
    """The layers worth looking at: the catalogue's, or the ends of the last three stages."""
    if classifier.backbone in EMBEDDED:
        return EMBEDDED[classifier.backbone].layers
    return stages_of(classifier)[-3:]
