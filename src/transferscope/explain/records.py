"""What is kept of explanations: a map's figures in each network, how it changed, and which methods passed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from transferscope.explain.checks import KEPT, SAME, MethodVerdict
from transferscope.explain.mosaic import CHANCE
from transferscope.explain.similarity import Map, rank_correlation, ssim
from transferscope.explain.unit_effects import UnitEffect
from transferscope.records import Record

CHECK_TITLES = {
    "randomisation": "weights redrawn",
    "beats_random": "above random",
    "beats_edges": "above edges",
    "mosaic": "mosaic",
    "class_sensitivity": "other class",
}
"""The checks of a method, and what they are called in a table."""

CHECK_WORDS = (
    "Weights redrawn, other class: how much of the map stays when all weights are random, or for another "
    f"class (rank correlation; it passes below {KEPT:.2f} and {SAME:.2f}). Above random, above edges: how much "
    "more the map's places matter to the answer than random ones, or edges. Mosaic: share of the map on the "
    f"right one of four pictures (chance {CHANCE:.2f}). Open: these pictures do not settle it."
)
"""What the table's figures are."""


@dataclass(frozen=True)
class NetworkMap(Record):
    """One network's map of a picture, in figures.

    Attributes:
        network: what it is called.
        logit: the score that is explained: the target's logit, less that of `against`.
        probability: of the target, with the classifier's temperature.
        predicted: the class that the network answers.
        layer: whose map it is; None: the pixels'.
        delta: how much of the score the sum of the map misses; None: the method promises no sum.
        converged: whether that is at most 1%; None likewise.
        inside: share of what speaks for the target that lies on the object; None: no mask, or an empty map.
    """

    network: str
    logit: float
    probability: float
    predicted: str
    layer: str | None = None
    delta: float | None = None
    converged: bool | None = None
    inside: float | None = None


@dataclass(frozen=True)
class MapChange(Record):
    """How alike one picture's maps of one class in two networks are; 1: the same.

    Attributes:
        rank_correlation: Spearman's, pixel by pixel.
        ssim: structural similarity of magnitudes, each map divided by its largest.
    """

    rank_correlation: float
    ssim: float

    @classmethod
    def of(cls, first: Map, second: Map) -> MapChange:
        """Of two maps (H, W); the second is enlarged or reduced to the first's size."""
        second = resized(second, first.shape)
        return cls(rank_correlation(first, second), ssim(first, second))


@dataclass(frozen=True)
class Explanation(Record):
    """One picture explained by one method, in one network or several.

    Attributes:
        picture: path, as given.
        sha256: of its bytes.
        method: name in `METHODS`.
        target: the class that is explained, in all networks.
        against: the class whose logit is subtracted; None: none is.
        networks: the earlier one first; of several the last two are compared.
        change: of the map, between them; None: one network.
        object_share: of the picture, that the mask covers; None: no mask.
        passed: whether the method passed the checks on the network asked about; None: not settled, or not
            checked.
        verdict: in words.
        identical: whether nothing below the head differs between the two networks.
        figure: file, beside the record.
        maps: file of float32 (H, W) by network, beside the record.
    """

    picture: str
    sha256: str
    method: str
    target: str
    against: str | None
    networks: tuple[NetworkMap, ...]
    change: MapChange | None
    object_share: float | None
    passed: bool | None
    verdict: str
    identical: bool
    figure: str
    maps: str
    made_by: ClassVar[str] = "transferscope explain"


@dataclass(frozen=True)
class Verdicts(Record):
    """Which methods deserve belief on a network, and what that was found on.

    Attributes:
        network: hash of its weights.
        pictures: that were recognised and used.
        source: where they and their labels come from, in words.
        seed: of the draw and of the checks.
        methods: a verdict each.
    """

    network: str
    pictures: int
    source: str
    seed: int
    methods: tuple[MethodVerdict, ...] = field(default=())
    made_by: ClassVar[str] = "transferscope explain --check"

    def of(self, method: str) -> MethodVerdict | None:
        """The verdict of a method; None: it was not checked."""
        return next((one for one in self.methods if one.method == method), None)


@dataclass(frozen=True)
class DecidingChannels(Record):
    """The channels that decide between two classes in one picture.

    Attributes:
        picture: path, as given.
        target: the class.
        against: the class whose logit is subtracted.
        layer: whose channels.
        score: the logits' difference, by network.
        effects: by network, of the same channels in the same order: those that contribute most in the network
            asked about.
        figure: file, beside the record.
    """

    picture: str
    target: str
    against: str
    layer: str
    score: dict[str, float]
    effects: dict[str, tuple[UnitEffect, ...]]
    figure: str
    made_by: ClassVar[str] = "transferscope explain --units"


@dataclass(frozen=True)
class AccentuatedChannel(Record):
    """How strongly a channel answers to a picture, and to that picture with the channel accentuated.

    Attributes:
        picture: path, as given.
        layer: dotted name.
        channel: index.
        sign: direction in which it was driven, by network.
        before: its mean over places, by network.
        after: the same for the picture accentuated in that network.
        figure: file, beside the record.
    """

    picture: str
    layer: str
    channel: int
    sign: dict[str, str]
    before: dict[str, float]
    after: dict[str, float]
    figure: str
    made_by: ClassVar[str] = "transferscope explain --accentuate"


def inside_share(support: Map, mask: NDArray[np.bool_]) -> float | None:
    """Share of a map's support (H, W), not negative, that lies within a mask; None: there is none at all."""
    total = float(support.sum(dtype=np.float64))
    return float(support[mask].sum(dtype=np.float64)) / total if total > 0 else None


def resized(values: Map, size: tuple[int, ...]) -> Map:
    """A map in another size (H, W), bilinearly."""
    if values.shape == tuple(size):
        return values
    import torch
    from torch.nn.functional import interpolate

    given = torch.from_numpy(np.ascontiguousarray(values))[None, None]
    found: Map = interpolate(given, size, mode="bilinear", antialias=True)[0, 0].numpy()
    return found
