"""What a comparison of two networks found: rows a channel and witness, layers, drawings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from transferscope.comparison.change import (
    FDR,
    LEARNED,
    LOOKS_DIFFERENT,
    MATTERS,
    MOVED,
    Witnessed,
    learned_channels,
    load_rows,
    save_rows,
)
from transferscope.comparison.depth_trend import DepthTrend
from transferscope.comparison.drawings import DrawingTest, PooledDrawingTest
from transferscope.comparison.headline import headline, layer_table, sentences
from transferscope.comparison.interpretability import Interpretability
from transferscope.comparison.layer_measures import LayerMeasures
from transferscope.comparison.neighbours import UnitNeighbours
from transferscope.comparison.patching import Patching
from transferscope.comparison.picture_map import PictureMap
from transferscope.comparison.rewinding import Rewinding
from transferscope.comparison.timeline import LayerTimeline
from transferscope.comparison.unit_exemplars import UnitExemplars
from transferscope.comparison.weight_change import WeightChange
from transferscope.files import read_json, write_json
from transferscope.notebook import panel
from transferscope.records import Record

NETWORKS = ("base", "tuned")

LISTED = 10
"""Channels in `most_learned` and in `least_learned`."""


@dataclass(frozen=True)
class Exemplar:
    """A real picture that excites a channel.

    Attributes:
        path: relative to the data folder.
        activation: the channel's spatial mean, signed by the channel's sign.
    """

    path: str
    activation: float


@dataclass(frozen=True)
class Quartiles:
    """Of a value over a layer's channels."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Quartiles:
        """Of values (C,)."""
        return cls(*np.percentile(values, (25, 50, 75)).tolist())


@dataclass(frozen=True)
class ChannelDrawings:
    """A channel of the shortlist: its drawings in both networks and the pictures that excite it.

    Attributes:
        layer: dotted name.
        channel: index.
        sign: direction drawn, "plus" or "minus".
        reason: why it is on the shortlist, such as "most learned".
        seeds: that it was drawn from in both networks.
        statuses: of its drawings by network, in the order of the seeds.
        activation: of the shown drawing (first seed), by network.
        exemplar_max: of the best real picture, by network; None where there is none.
        exemplars: pictures that excite it most, held-out and training ones, best first, by network.
        crops: where in the pictures, with the receptive field and the outline of the activation.
        neighbours: the units that answer most alike.
        shared_top20: share of the 20 best pictures that both networks have in common, or of as many
            as there are.
        test: whether its drawings show the change, with their similarities; None with one seed.
        interpretability: by network, how well a judge tells by its exemplars, and by its drawings, which
            pictures excite it; empty where too few pictures are held out.
    """

    layer: str
    channel: int
    sign: str
    reason: str
    seeds: tuple[int, ...]
    statuses: dict[str, tuple[str, ...]]
    activation: dict[str, float | None]
    exemplar_max: dict[str, float | None]
    exemplars: dict[str, tuple[Exemplar, ...]]
    shared_top20: float
    crops: UnitExemplars | None = None
    neighbours: UnitNeighbours | None = None
    test: DrawingTest | None = None
    interpretability: dict[str, tuple[Interpretability, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class LayerComparison:
    """One layer in both networks.

    Attributes:
        layer: dotted name.
        channels: how many the layer has.
        identical: everything up to this layer is bit-identical, so no channel of it is tested.
        information: class information of its channels on the held-out pictures, by network: "base", "tuned",
            "controls" and "retunings" (all of one kind pooled); those that there are.
        measures: CKA, Procrustes distance and separation of the classes of all its channels together; None
            where nothing was measured, or on fewer pictures than they take.
        weights: how far the weights that write each channel have moved; None where it was not asked.
        drawings: whether the drawings of its shortlist show a change together; None where nothing was drawn.
        chance: mean similarity of drawings of unrelated channels; None where fewer than two were drawn.
    """

    layer: str
    channels: int
    identical: bool
    information: dict[str, Quartiles]
    measures: LayerMeasures | None = None
    weights: WeightChange | None = None
    drawings: PooledDrawingTest | None = None
    chance: float | None = None

    @property
    def cka(self) -> float | None:
        """Debiased linear CKA of both networks' responses; 1 where they are identical."""
        return 1.0 if self.identical else self.measures.cka.value if self.measures else None


@dataclass(frozen=True)
class Comparison(Record):
    """Two networks compared, layer by layer, shallow to deep.

    Attributes:
        pair: what the two networks are called, the earlier one first.
        split: of the pictures that were held out: "test", or "validation".
        pictures: how many they are.
        classes: how many classes these pictures have.
        layers: in order of depth.
        rows: a row a channel and witness, of the layers that are not identical; see `Witnessed`.
        drawings: of the shortlist, in order of layer and channel.
        controls: number of control transfers.
        false_in_controls: channels that each control seems to have learned, taken as the tuned network and
            held against the others; empty with fewer than three.
        retunings: number of retunings.
        reproduced: for each retuning, how many of the channels that learned gained there too, beyond the
            controls.
        patching: what setting channels back to base does to the tuned network's answers, channel by channel;
            None where it was not asked. `rows` have its effects too.
        rewinding: what setting whole stages back does, and which pictures the transfer won and lost.
        paths: of the held-out pictures that `rewinding` names by their index, relative to the data folder.
        timeline: what every channel knew of the classes through training; empty without kept epochs.
        trends: over depth: "class_information", its gain, and "drawings", the similarity of drawings; those
            that there are two layers for.
        map: the held-out pictures placed by both networks.
        judge: whose eyes interpretability scores are, in a sentence.
        fdr: false discovery rate at which a channel is called.
        seeds: that drawings were made from.
        steps: most optimization steps of a drawing; 0 where nothing was drawn.
        size: side of a drawing in pixels.
    """

    pair: tuple[str, str]
    split: str
    pictures: int
    classes: int
    layers: tuple[LayerComparison, ...]
    rows: tuple[Witnessed, ...]
    drawings: tuple[ChannelDrawings, ...]
    controls: int
    false_in_controls: tuple[int, ...] = ()
    retunings: int = 0
    reproduced: tuple[int, ...] = ()
    patching: Patching | None = None
    rewinding: Rewinding | None = None
    paths: tuple[str, ...] = ()
    timeline: tuple[LayerTimeline, ...] = ()
    trends: dict[str, DepthTrend] = field(default_factory=dict)
    map: PictureMap | None = None
    judge: str = ""
    fdr: float = FDR
    seeds: tuple[int, ...] = ()
    steps: int = 0
    size: int = 0
    made_by: ClassVar[str] = "transferscope compare"

    def of_witness(self, name: str, layer: str | None = None) -> tuple[Witnessed, ...]:
        """The rows of one witness, of one layer or of all."""
        return tuple(row for row in self.rows if row.witness == name and layer in (None, row.layer))

    def found(self, name: str, layer: str | None = None) -> tuple[Witnessed, ...]:
        """The channels for which a witness answers yes, at the false discovery rate.

        Of the classes' information: those that learned, see `learned_channels`.
        """
        asked = self.of_witness(name, layer)
        if name == LEARNED:
            return learned_channels(asked, fdr=self.fdr) if self.controls else ()
        return tuple(row for row in asked if row.q <= self.fdr)

    @property
    def tested(self) -> int:
        """Channels that were asked whether they learned."""
        return len(self.of_witness(LEARNED)) if self.controls else 0

    def ranked(self) -> list[Witnessed]:
        """Channels from the most learned to the least: by the gain of class information over the controls'."""
        return sorted(
            self.of_witness(LEARNED),
            key=lambda row: (-(row.value - row.null), row.layer, row.channel),
        )

    def to_dict(self) -> dict[str, Any]:
        """The command line's JSON: see the keys of the contract; None stands for what was not asked."""
        layers = {layer.layer: self._layer_counts(layer) for layer in self.layers}
        ranked = self.ranked()
        return {
            "pair": list(self.pair),
            "split": self.split,
            "pictures": self.pictures,
            "layers": layers,
            "learned": {
                "channels": len(self.found(LEARNED)) if self.controls else None,
                "tested": self.tested,
                "fdr": self.fdr,
                "controls": self.controls,
                "false_in_controls": list(self.false_in_controls),
                "retunings": self.retunings,
                "reproduced": list(self.reproduced),
            },
            "most_learned": [self._brief(row) for row in ranked[:LISTED]],
            "least_learned": [self._brief(row) for row in ranked[::-1][:LISTED]],
            "stages": [
                {
                    "stage": one.stage,
                    "accuracy": one.effect.accuracy,
                    "accuracy_interval": [one.effect.accuracy_low, one.effect.accuracy_high],
                    "loss": one.effect.loss,
                    "loss_interval": [one.effect.loss_low, one.effect.loss_high],
                    "gives_back": len(one.gives_back),
                }
                for one in (self.rewinding.stages if self.rewinding else ())
            ],
            "headline": headline(self),
        }

    def _layer_counts(self, layer: LayerComparison) -> dict[str, Any]:
        name = layer.layer
        drawn = [one for one in self.drawings if one.layer == name]

        def count(witness: str) -> int | None:
            if layer.identical:
                return 0
            return len(self.found(witness, name)) if self.of_witness(witness, name) else None

        return {
            "channels": layer.channels,
            "identical": layer.identical,
            "moved": count(MOVED),
            "learned": count(LEARNED) if self.controls or layer.identical else None,
            "matters": count(MATTERS),
            "looks_different": count(LOOKS_DIFFERENT),
            "drawn": len(drawn),
            "class_information": {
                network: value.median for network, value in layer.information.items()
            },
            "cka": layer.cka,
            "procrustes": layer.measures.procrustes.value if layer.measures else None,
            "separation": {
                "base": layer.measures.separation_base.value,
                "tuned": layer.measures.separation_tuned.value,
                "controls": list(layer.measures.control_gains),
            }
            if layer.measures
            else None,
            "status": {
                network: dict(Counter(s for one in drawn for s in one.statuses[network]))
                for network in NETWORKS
            },
        }

    def _brief(self, row: Witnessed) -> dict[str, Any]:
        return {
            "layer": row.layer,
            "channel": row.channel,
            "gain": row.value,
            "low": row.low,
            "high": row.high,
            "controls": row.null,
            "q": row.q,
            "learned": row in self.found(LEARNED),
        }

    def _repr_html_(self) -> str:
        columns, rows, note = layer_table(self)
        said = [*([f"{note[0].upper()}{note[1:]}."] if note else []), *sentences(self)]
        first, second = self.pair
        title = f"Comparison of {first} and {second} on {self.pictures:,} {self.split} pictures"
        return panel(title, sentences=said, columns=columns, rows=rows)

    def save(self, folder: str | Path) -> None:
        """Writes comparison.csv (tidy rows, one a channel and witness) and comparison.json (the rest)."""
        save_rows(self.rows, Path(folder) / "comparison.csv")
        fields = replace(self, rows=()).fields()
        # Without indents: outlines are thousands of points, which would be a line each.
        write_json(
            Path(folder) / "comparison.json", fields | {"headline": headline(self)}, indent=None
        )

    def fields(self) -> dict[str, Any]:
        """All fields, JSON-able."""
        found: dict[str, Any] = _without_nan(super().to_dict())
        return found

    @classmethod
    def load(cls, folder: str | Path) -> Comparison:
        """What `save` wrote.

        Raises:
            RunError: missing, not readable, or of an earlier version.
        """
        fields = read_json(Path(folder) / "comparison.json")
        found = cls.from_dict({**fields, "rows": ()})
        return replace(found, rows=load_rows(Path(folder) / "comparison.csv"))


def channels_of(rows: Sequence[Witnessed]) -> list[tuple[str, int]]:
    """(layer, channel) of rows."""
    return [(row.layer, row.channel) for row in rows]


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: a drawing that left the numbers has an activation of null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    return [_without_nan(one) for one in value] if isinstance(value, list | tuple) else value
