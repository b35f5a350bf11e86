"""The real pictures that excite a unit, in both networks, among held-out and among training pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transferscope.backbones.classifier import Classifier
from transferscope.comparison.change import Responses
from transferscope.comparison.geometry import refuse_unpaired
from transferscope.comparison.witnesses.exemplar_turnover import exemplars
from transferscope.features.exemplar_crops import (
    ExemplarCrop,
    Unit,
    exemplar_crops,
    receptive_fields,
    top_pictures,
)
from transferscope.records import Record

Values = NDArray[np.float64]

SHOWN = 9
"""Exemplars of a unit, network and part that are shown."""

SHARED = 20
"""Exemplars whose share in common is counted."""


@dataclass(frozen=True)
class PicturePart:
    """Pictures of one part of a set, and how networks answer them.

    Attributes:
        files: N.
        names: N, as the result is to name them.
        responses: network -> layer -> (N, C).
    """

    files: Sequence[Path]
    names: Sequence[str]
    responses: Mapping[str, Responses]


@dataclass(frozen=True)
class UnitExemplars(Record):
    """A unit's exemplars.

    Attributes:
        layer: dotted name.
        channel: index.
        sign: `plus` or `minus`.
        crops: part ("held_out", "training") -> network ("base", "tuned") -> best first.
        shared: part -> share of the 20 best pictures of base that are among the 20 best of tuned.
        shared_by_chance: part -> the same of two orders that have nothing to do with each other.
    """

    layer: str
    channel: int
    sign: str
    crops: dict[str, dict[str, tuple[ExemplarCrop, ...]]]
    shared: dict[str, float]
    shared_by_chance: dict[str, float]


def unit_exemplars(
    networks: Mapping[str, Classifier],
    parts: Mapping[str, PicturePart],
    units: Sequence[Unit],
    *,
    count: int = SHOWN,
    batch_size: int = 8,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[UnitExemplars, ...]:
    """Exemplars of every unit: which they are by the responses given, where by forward passes.

    Args:
        networks: "base" and "tuned"; both unchanged.
        parts: "held_out" and, where wanted, "training".
        units: layers and channels, with their direction.
        count: exemplars of each.
        batch_size: pictures a forward pass.
        on_progress: called with (pictures done, in all) of each network and part.

    Raises:
        UnknownName, InputError, PictureError: see `exemplar_crops`.
    """
    layers = list(dict.fromkeys(unit.layer for unit in units))
    measured_on = next(iter(parts.values())).files if parts else ()
    fields = {
        name: receptive_fields(classifier, layers, measured_on) if layers and measured_on else {}
        for name, classifier in networks.items()
    }
    crops = {
        part: {
            name: exemplar_crops(
                classifier,
                given.files,
                {
                    unit: top_pictures(
                        given.responses[name][unit.layer], unit.channel, sign=unit.sign, count=count
                    )
                    for unit in units
                },
                names=given.names,
                fields=fields[name],
                batch_size=batch_size,
                on_progress=on_progress,
            )
            for name, classifier in networks.items()
        }
        for part, given in parts.items()
    }
    return tuple(
        UnitExemplars(
            *unit,
            crops={
                part: {name: of[unit] for name, of in by_network.items()}
                for part, by_network in crops.items()
            },
            shared={part: _shared(given, unit) for part, given in parts.items()},
            shared_by_chance={
                part: min(1.0, SHARED / len(given.files)) for part, given in parts.items()
            },
        )
        for unit in units
    )


def _shared(part: PicturePart, unit: Unit) -> float:
    one = slice(unit.channel, unit.channel + 1)
    base, tuned = (part.responses[name][unit.layer][:, one] for name in ("base", "tuned"))
    direction = 1 if unit.sign == "plus" else -1
    return float(shared_top(direction * base, direction * tuned)[0])


def shared_top(base: Values, tuned: Values, *, top: int = SHARED) -> Values:
    """Share of the `top` pictures that excite a channel most which both networks have in common, (C,).

    Args:
        base: (N, C) responses.
        tuned: (N, C), to the same pictures.
        top: how many, or all if there are fewer; of equal pictures the first.

    Raises:
        InputError: other numbers of pictures, or none.
    """
    refuse_unpaired(base, tuned, least=1)
    count = min(top, len(base))
    share: Values = (exemplars(base, count) & exemplars(tuned, count)).sum(0) / count
    return share
