"""The networks that a picture is explained in: a model, and what it is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from transferscope.acceleration.precision import find_device
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError
from transferscope.workflows.open_model import open_model
from transferscope.workflows.run import Run

BASE, TUNED, RANDOM = "base", "tuned", "random head (control)"


@dataclass(frozen=True, eq=False)
class Networks:
    """Networks by what they are called, the earlier one first; of a run, `base` and `tuned`.

    Attributes:
        by_name: in the order in which they are drawn.
        name: of the one that is asked about.
        run: it is of; None: it is no run's.
        identical: whether nothing below the head differs between it and the other.
    """

    by_name: Mapping[str, Classifier]
    name: str
    run: Run | None
    identical: bool

    @property
    def own(self) -> Classifier:
        """The network that is asked about."""
        return self.by_name[self.name]

    @classmethod
    def open(
        cls,
        model: Run | Classifier | str | Path,
        against: str | Path | None,
        *,
        random_head: bool,
        seed: int,
        device: str | None,
    ) -> Networks:
        """A model and what it is held against, on a device.

        Args:
            model: see `explain`.
            against: `base` means nothing where the model is no run.
            random_head: adds the untuned network with a head of random weights.
            seed: of that head.
            device: None: the best here.

        Raises:
            InputError: a random head without a run.
            TransferscopeError: a model that cannot be opened.
        """
        run = _run_of(model)
        if run is not None:
            own = run.classifier
        else:
            own = model if isinstance(model, Classifier) else open_model(str(model), device=device)
        place = (
            own.device if isinstance(model, Classifier) and device is None else find_device(device)
        )
        if random_head and (run is None or against != BASE):
            raise InputError(
                "--random-head is a run's untuned network with a random head, a control beside 'base'; give a "
                "run folder, and leave --against out"
            )
        if against is None or (against == BASE and run is None):
            return cls({_called(model): own.to(place)}, _called(model), run, False)
        if against == BASE:
            assert run is not None
            base = run.base.to(place)
            rows = {RANDOM: with_random_head(base, seed)} if random_head else {}
            rows |= {BASE: base, TUNED: own.to(place)}
            return cls(rows, TUNED, run, run.untuned)
        second = open_model(str(against), device=device)
        name, other = _called(model), _called(against)
        other = other if other != name else f"{other} (second)"
        same = own.body_hash() == second.body_hash()
        return cls({name: own.to(place), other: second}, name, run, same)

    def labels(self) -> dict[str, str]:
        """The classes of the run's pictures by hash; empty where there is no run, or no list of them."""
        if self.run is None:
            return {}
        pictures = self.run.split.scan.pictures
        return {
            one.sha256: self.own.classes[one.label] for one in pictures if one.label is not None
        }


def with_random_head(base: Classifier, seed: int) -> Classifier:
    """A copy whose head has normal weights of the spread that the probe's have, and no bias."""
    weight = base.head_layer.weight
    assert isinstance(weight, torch.Tensor)
    spread = float(weight.detach().std())
    drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)) * spread
    return base.with_head(drawn, torch.zeros(len(weight)), base.classes)


def _run_of(model: Run | Classifier | str | Path) -> Run | None:
    if isinstance(model, Run):
        return model
    if not isinstance(model, Classifier) and (Path(model) / "run.json").is_file():
        return Run(model)
    return None


def _called(model: Run | Classifier | str | Path) -> str:
    if isinstance(model, Classifier):
        return model.backbone
    path = model.path if isinstance(model, Run) else Path(model)
    return path.resolve().name if path.exists() else str(model)
