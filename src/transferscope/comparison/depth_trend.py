"""Whether a value of channels rises or falls from layer to layer, with a test."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transferscope.comparison.nulls import q_values
from transferscope.errors import InputError
from transferscope.records import Record

Values = NDArray[np.float64]


@dataclass(frozen=True)
class DepthStep(Record):
    """From one layer to the next.

    Attributes:
        shallow: the layer before.
        deep: the layer after.
        effect: share of pairs of their channels of which the deeper's is higher, less the share of which
            it is lower; in [-1, 1].
        low: lower end of the 95% interval.
        high: upper end.
        p: two-sided, of Mann & Whitney's test.
        q: Benjamini-Hochberg adjusted over the steps of the trend.
    """

    shallow: str
    deep: str
    effect: float
    low: float
    high: float
    p: float
    q: float


@dataclass(frozen=True)
class DepthTrend(Record):
    """How a value of channels goes with depth.

    Attributes:
        layers: shallow to deep.
        counts: channels of each that have a value.
        medians: of each.
        effect: over all pairs of channels of different layers, the share of which the deeper's is higher
            less the share of which it is lower; in [-1, 1].
        low: lower end of the 95% interval.
        high: upper end.
        p: two-sided, of no trend.
        steps: from each layer to the next.
    """

    layers: tuple[str, ...]
    counts: tuple[int, ...]
    medians: tuple[float, ...]
    effect: float
    low: float
    high: float
    p: float
    steps: tuple[DepthStep, ...]

    @property
    def n(self) -> int:
        """Channels in all."""
        return sum(self.counts)

    @property
    def direction(self) -> str | None:
        """`rises` or `falls` with depth at p of 5% or less; None: neither could be shown."""
        if self.p > 0.05 or self.effect == 0:
            return None
        return "rises" if self.effect > 0 else "falls"

    @property
    def exceptions(self) -> tuple[DepthStep, ...]:
        """Steps that go against the trend, at a false discovery rate of 5%; none without a trend."""
        if self.direction is None:
            return ()
        return tuple(s for s in self.steps if s.q <= 0.05 and s.effect * self.effect < 0)


def depth_trend(values: Mapping[str, Values]) -> DepthTrend:
    """The trend of a value over layers, each channel being one observation.

    What it says is of these layers: their channels are compared, not a sample of layers, so a trend over
    three blocks is no law of depth. Channels of a layer that answer alike count as many observations.

    Args:
        values: layer -> (C,), layers shallow to deep; channels whose value is not finite, such as those of
            failed drawings, are left out.

    Raises:
        InputError: fewer than two layers with a value.

    Reference: Jonckheere 1954 and Terpstra 1952, which is Kendall's tau of the values and the layers' order
    (p by `scipy.stats.kendalltau`, corrected for ties); the effect is Somers 1962's D, its interval by
    Hajek's projection (as DeLong et al. 1988 for two groups).
    """
    from scipy.stats import kendalltau, mannwhitneyu

    finite = {layer: np.asarray(one, float) for layer, one in values.items()}
    finite = {layer: one[np.isfinite(one)] for layer, one in finite.items()}
    finite = {layer: one for layer, one in finite.items() if len(one)}
    if len(finite) < 2:
        raise InputError(
            f"{len(finite)} of {len(values)} layers have channels with a value; a trend takes 2 or more"
        )
    pooled = np.concatenate(list(finite.values()))
    depth = np.repeat(np.arange(len(finite)), [len(one) for one in finite.values()])
    p = float(kendalltau(depth, pooled).pvalue) if np.ptp(pooled) > 0 else 1.0
    pairs = list(itertools.pairwise(finite))
    chances = [
        float(mannwhitneyu(finite[a], finite[b], method="asymptotic").pvalue) for a, b in pairs
    ]
    adjusted = q_values(np.array(chances))
    return DepthTrend(
        layers=tuple(finite),
        counts=tuple(len(one) for one in finite.values()),
        medians=tuple(float(np.median(one)) for one in finite.values()),
        **_effect(list(finite.values())),
        p=p,
        steps=tuple(
            DepthStep(a, b, **_effect([finite[a], finite[b]]), p=chance, q=float(q))
            for (a, b), chance, q in zip(pairs, chances, adjusted, strict=True)
        ),
    )


def _effect(groups: list[Values]) -> dict[str, float]:
    """Somers' D of values and the order of their groups, with its 95% interval."""
    above = [
        np.zeros(len(group)) for group in groups
    ]  # of each value: pairs in order less the rest
    pairs = 0
    for first, second in itertools.combinations(range(len(groups)), 2):
        x, y = groups[first], groups[second]
        above[first] += len(y) - _below(x, y)
        above[second] += _below(y, x) - len(x)
        pairs += len(x) * len(y)
    effect = sum(float(one.sum()) for one in above) / (2 * pairs)
    variance = sum(len(one) * float(one.var(ddof=1)) for one in above if len(one) > 1) / (pairs**2)
    reach = 1.959964 * math.sqrt(variance)
    return {
        "effect": effect,
        "low": max(-1.0, effect - reach),
        "high": min(1.0, effect + reach),
    }


def _below(x: Values, y: Values) -> Values:
    """For each of x: how many of y are below it plus how many are not above it, 2 x its rank among y."""
    ordered = np.sort(y)
    count: Values = (
        np.searchsorted(ordered, x, "left") + np.searchsorted(ordered, x, "right")
    ).astype(float)
    return count
