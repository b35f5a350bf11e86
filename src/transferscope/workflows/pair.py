"""The two networks of a comparison: a run's before and after, or a run and any other model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from transferscope.acceleration.precision import find_device
from transferscope.activations import layers as layers_of
from transferscope.backbones.classifier import Classifier
from transferscope.comparison.records import NETWORKS
from transferscope.errors import InputError
from transferscope.workflows.open_model import open_model
from transferscope.workflows.run import Run


@dataclass(frozen=True, eq=False)
class Pair:
    """Two networks, and what they share.

    Attributes:
        names: what they are called, the earlier one first.
        networks: "base", the earlier one, and "tuned".
        boundary: a layer up to which they and all transfers of the run are alike, whose activations the run's
            cache has; None: there is none.
        seen: hashes of the pictures that the second network was tuned on, as far as is known.
        of_run: whether these are a run's before and after, so that control transfers can be made.
    """

    names: tuple[str, str]
    networks: Mapping[str, Classifier]
    boundary: str | None
    seen: frozenset[str]
    of_run: bool

    @property
    def both(self) -> tuple[Classifier, Classifier]:
        """The earlier one and the later one."""
        return self.networks["base"], self.networks["tuned"]

    @property
    def one_architecture(self) -> bool:
        """Whether layers of one name have the same channels in both."""
        first, second = ({n: p.shape for n, p in _body(c)} for c in self.both)
        return first == second

    def channels(self, network: str) -> dict[str, int]:
        """Layer -> number of channels, shallow to deep, of layers that have any."""
        classifier = self.networks[network]
        described = sorted(
            layers_of(classifier.network, classifier.example()), key=lambda layer: layer.order
        )
        return {layer.name: layer.channels for layer in described if layer.channels}


def open_pair(
    run: Run,
    second: Run | Classifier | str | Path | None,
    *,
    weights: str | Path | None = None,
    device: str | None = None,
) -> Pair:
    """A run's before and after; with a second model, the run's network and that one.

    Args:
        run: a finished run.
        second: a run, a classifier, or what `open_model` takes: a run folder, a classifier's file such as one
            of timeline/, or a backbone by name.
        weights: for a backbone by name.
        device: None: the best here.

    Raises:
        InputError: weights without a backbone to put them into.
        TransferscopeError: a second model that cannot be opened.
    """
    place = find_device(device)
    if second is None:
        if weights is not None:
            raise InputError(
                f"--weights is {str(weights)!r}, and no second model is named; give the backbone that they "
                "are of behind RUN"
            )
        networks = dict(zip(NETWORKS, (run.base.to(place), run.classifier.to(place)), strict=True))
        boundary = run.results["boundary"]
        return Pair(NETWORKS, networks, boundary, frozenset(), of_run=True)
    seen: frozenset[str] = frozenset()
    if isinstance(second, str | Path) and (Path(second) / "run.json").is_file():
        second = Run(second)
    if isinstance(second, Run):
        pictures = second.split.scan.pictures
        seen = frozenset(p.sha256 for p in pictures if p.split in ("train", "validation"))
        other, name = second.classifier, second.path.resolve().name
    elif isinstance(second, Classifier):
        other, name = second, second.backbone
    else:
        other = open_model(second, weights=weights)
        name = Path(second).stem if Path(second).exists() else str(second)
    own = run.path.resolve().name
    names = (own, name if name != own else f"{name} (second)")
    networks = dict(zip(NETWORKS, (run.classifier.to(place), other.to(place)), strict=True))
    return Pair(names, networks, None, seen, of_run=False)


def _body(classifier: Classifier) -> list[tuple[str, torch.nn.Parameter]]:
    head = {id(parameter) for parameter in classifier.head_layer.parameters()}
    return [(n, p) for n, p in classifier.network.named_parameters() if id(p) not in head]
