"""Which units answer pictures alike, within a layer and across two networks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transferscope.comparison.geometry import refuse_unpaired
from transferscope.errors import InputError
from transferscope.records import Record

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Neighbour(Record):
    """A unit that answers pictures as another one does.

    Attributes:
        channel: its index.
        correlation: Pearson's, of the two units' responses to the same pictures.
    """

    channel: int
    correlation: float


@dataclass(frozen=True)
class UnitNeighbours(Record):
    """The units nearest to one, nearest first.

    Attributes:
        channel: index of the unit, in both networks.
        within_base: units of base that answer as base's does; itself left out.
        within_tuned: the same in the tuned network.
        in_base: units of base that answer as the tuned network's unit does, its own predecessor included.
        own: correlation of the unit with its own predecessor in base.
        rank: of the predecessor among base's units, 1 for the nearest; more if it took another's part.
        by_chance: correlation that the nearest of so many unrelated units exceeds in one case of twenty;
            a neighbour below it is none that could be shown.
    """

    channel: int
    within_base: tuple[Neighbour, ...]
    within_tuned: tuple[Neighbour, ...]
    in_base: tuple[Neighbour, ...]
    own: float
    rank: int
    by_chance: float


def unit_neighbours(
    base: Values, tuned: Values, channels: list[int], *, count: int = 5
) -> tuple[UnitNeighbours, ...]:
    """The nearest units of each channel asked for.

    Args:
        base: (N, C) responses of a layer in base.
        tuned: (N, C), of the same layer to the same pictures.
        channels: indexes.
        count: neighbours of each kind.

    Raises:
        InputError: other numbers of pictures or of channels, fewer than 4 pictures, or no such channel.
    """
    refuse_unpaired(base, tuned, least=4)
    n, width = base.shape
    if tuned.shape[1] != width:
        raise InputError(
            f"the layer has {width} channels in one network and {tuned.shape[1]} in the other; a unit has a "
            "counterpart in a network of the same architecture only"
        )
    if wrong := [one for one in channels if not 0 <= one < width]:
        raise InputError(f"there is no channel {wrong[0]}; the layer has 0 to {width - 1}")
    chance = largest_by_chance(n, width)
    within = {name: correlations(x[:, channels], x) for name, x in (("b", base), ("t", tuned))}
    across = correlations(tuned[:, channels], base)
    return tuple(
        UnitNeighbours(
            channel=channel,
            within_base=_nearest(within["b"][row], count, without=channel),
            within_tuned=_nearest(within["t"][row], count, without=channel),
            in_base=_nearest(across[row], count),
            own=float(across[row, channel]),
            rank=1 + int((across[row] > across[row, channel]).sum()),
            by_chance=chance,
        )
        for row, channel in enumerate(channels)
    )


def correlations(x: Values, y: Values) -> Values:
    """Pearson's correlation of every channel of one with every channel of the other, (p, q).

    Args:
        x: (N, p) responses.
        y: (N, q), to the same pictures. A channel that does not vary is correlated with none: 0.
    """
    found: Values = np.clip(_standardised(x).T @ _standardised(y), -1.0, 1.0)
    return found


def _standardised(x: Values) -> Values:
    varies = np.ptp(x, axis=0) > 0
    x = x.astype(float) - x.mean(0)
    length = np.linalg.norm(x, axis=0)
    scaled: Values = np.divide(x, length, out=np.zeros_like(x), where=varies & (length > 0))
    return scaled


def largest_by_chance(pictures: int, units: int, level: float = 0.05) -> float:
    """The correlation that the largest of `units` independent ones exceeds with probability `level`.

    Reference: Student's t of a correlation, at Sidak's level.
    """
    from scipy.stats import t

    quantile = float(t.isf(1 - (1 - level) ** (1 / units), pictures - 2))
    return quantile / math.sqrt(pictures - 2 + quantile**2)


def _nearest(row: Values, count: int, without: int | None = None) -> tuple[Neighbour, ...]:
    order = [int(one) for one in np.argsort(-row, kind="stable") if one != without]
    return tuple(Neighbour(one, float(row[one])) for one in order[:count])
