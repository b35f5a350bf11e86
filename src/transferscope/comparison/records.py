"""What a comparison found: a record a channel, a layer and a pair of networks."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from transferscope.files import read_json, write_csv, write_json
from transferscope.records import Record

NETWORKS = ("base", "tuned")


class Drawing(Protocol):
    """What is needed of a render (`visualize.Render`): a picture and how it came about."""

    @property
    def channel(self) -> int:
        """Index within its layer."""

    @property
    def sign(self) -> str:
        """Direction: "plus" or "minus"."""

    @property
    def seed(self) -> int:
        """Of its start and movements."""

    @property
    def picture(self) -> np.ndarray:
        """uint8 (H, W, 3)."""

    @property
    def activation(self) -> float:
        """What it excites the channel to, times the sign."""

    @property
    def exemplar_max(self) -> float | None:
        """What the best real picture does."""

    @property
    def status(self) -> str:
        """How the rendering ended."""

    @property
    def steps(self) -> int:
        """Optimization steps taken; a drawing that has settled takes fewer than others."""


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
class ChannelComparison:
    """One channel of one layer in both networks.

    Attributes:
        layer: dotted name.
        channel: index.
        sign: direction compared, "plus" or "minus".
        similarity: cross-network similarity of renders from different seeds, cosine of pooled base
            embeddings, in [-1, 1].
        similarities: further measures by name, each cross-network (at least `pixels` and
            `activations`: Pearson correlation of the channel's responses to the same real pictures).
        rerender: within-network similarity between seeds, by network ("base", "tuned").
        chance: mean similarity of unrelated channels of the layer.
        statistic: mean within-network minus cross-network similarity; large means changed.
        p: share of the layer's null statistics at least as large, never 0.
        q: Benjamini-Hochberg adjusted over all channels compared.
        changed: q <= the comparison's fdr.
        identical: everything up to this layer is bit-identical in both networks.
        statuses: render status by network, the worse of the seeds.
        activation: of the shown render (first seed), by network.
        exemplar_max: of the best real picture, by network.
        exemplars: pictures that excite it most, best first, by network.
        shared_top20: share of the 20 best pictures that both networks have in common, or of as many
            as there are.
        class_effect: effect on the classes' logits, or None where it was not measured.
    """

    layer: str
    channel: int
    sign: str
    similarity: float
    similarities: dict[str, float]
    rerender: dict[str, float]
    chance: float
    statistic: float
    p: float
    q: float
    changed: bool
    identical: bool
    statuses: dict[str, str]
    activation: dict[str, float]
    exemplar_max: dict[str, float | None]
    exemplars: dict[str, tuple[Exemplar, ...]]
    shared_top20: float
    class_effect: float | None = None


@dataclass(frozen=True)
class LayerComparison:
    """One layer in both networks.

    Attributes:
        layer: dotted name.
        channels: those compared, in order of their index.
        total: number of channels that the layer has.
        identical: everything up to this layer is bit-identical; nothing was rendered twice.
        similarity: median cross-network similarity; 1.0 for an identical layer.
        rerender: median within-network similarity of both networks (the ceiling).
        chance: mean similarity of unrelated channel pairs (the floor).
        chance_pairs: how many pairs.
        chance_values: their similarities.
        null: the layer's null statistics (one network re-rendered against itself).
        cka: linear CKA of all of the layer's pooled channels on real pictures.
    """

    layer: str
    channels: tuple[ChannelComparison, ...]
    total: int
    identical: bool
    similarity: float
    rerender: float
    chance: float
    chance_pairs: int
    chance_values: tuple[float, ...]
    null: tuple[float, ...]
    cka: float


@dataclass(frozen=True)
class Comparison(Record):
    """Two networks compared, layer by layer, shallow to deep.

    Attributes:
        layers: in order of depth.
        fdr: false discovery rate at which a channel is called changed.
        seeds: seeds that every channel was rendered from.
        pictures: number of real pictures that exemplars were sought among.
        steps: most optimization steps that a render took.
        size: side of a render in pixels.
    """

    layers: tuple[LayerComparison, ...]
    fdr: float
    seeds: tuple[int, ...]
    pictures: int
    steps: int
    size: int
    made_by: ClassVar[str] = "transferscope compare"

    def to_dict(self) -> dict[str, Any]:
        """The command line's JSON: see the keys of the contract; 1.0 stands for identical layers."""
        layers = {
            layer.layer: {
                "channels": len(layer.channels),
                "total": layer.total,
                "identical": layer.identical,
                "similarity": layer.similarity,
                "rerender": layer.rerender,
                "chance": layer.chance,
                "changed": sum(channel.changed for channel in layer.channels),
                "cka": layer.cka,
                "status": {
                    network: dict(Counter(c.statuses[network] for c in layer.channels))
                    for network in NETWORKS
                },
            }
            for layer in self.layers
        }
        ranked = sorted(
            (channel for layer in self.layers if not layer.identical for channel in layer.channels),
            key=lambda channel: (-channel.statistic, channel.layer, channel.channel),
        )
        return {
            "layers": layers,
            "most_changed": [_brief(channel) for channel in ranked[:LISTED]],
            "least_changed": [_brief(channel) for channel in ranked[::-1][:LISTED]],
            "fdr": self.fdr,
        }

    def save(self, folder: str | Path) -> None:
        """Writes comparison.csv (a row a channel, to read) and comparison.json (all of it)."""
        rows = [_row(channel) for layer in self.layers for channel in layer.channels]
        header = tuple(rows[0]) if rows else ()
        write_csv(Path(folder) / "comparison.csv", header, [tuple(row.values()) for row in rows])
        write_json(Path(folder) / "comparison.json", _without_nan(asdict(self)))

    @classmethod
    def load(cls, folder: str | Path) -> Comparison:
        """What `save` wrote.

        Raises:
            RunError: missing or not readable.
        """
        fields = read_json(Path(folder) / "comparison.json")
        for layer in fields["layers"]:
            for channel in layer["channels"]:  # JSON has no NaN
                reached = channel["activation"].items()
                channel["activation"] = {k: math.nan if v is None else v for k, v in reached}
        return cls.from_dict(fields)


LISTED = 10
"""Channels in `most_changed` and in `least_changed`."""


def _brief(channel: ChannelComparison) -> dict[str, Any]:
    names = ("layer", "channel", "sign", "statistic", "p", "q", "similarity", "changed")
    return {name: getattr(channel, name) for name in names}


def _row(channel: ChannelComparison) -> dict[str, Any]:
    """A line of the CSV by its columns' names."""
    return {
        **{name: getattr(channel, name) for name in ("layer", "channel", "sign", "similarity")},
        **{f"rerender_{network}": channel.rerender[network] for network in NETWORKS},
        **{name: getattr(channel, name) for name in ("chance", "statistic", "p", "q")},
        "changed": int(channel.changed),
        "identical": int(channel.identical),
        "shared_top20": channel.shared_top20,
        "activations": channel.similarities.get("activations", ""),
        **{f"status_{network}": channel.statuses[network] for network in NETWORKS},
    }


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: a rendering that left the numbers has an activation of null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    return [_without_nan(one) for one in value] if isinstance(value, list | tuple) else value
