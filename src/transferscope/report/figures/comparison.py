"""Figures of a comparison of two networks, as SVG text in the style of `style`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from transferscope.comparison.records import Comparison, LayerComparison
from transferscope.errors import InputError
from transferscope.report.figures import style

_POINTS = 300  # drawn beside a box at most; of more, every n-th is


def layer_box_plot(comparison: Comparison) -> str:
    """Similarity of base and tuned by layer, between the re-render ceiling and the chance floor.

    A layer has two boxes (quartiles; whiskers from the 5th to the 95th percentile; a point a
    channel, thinned where there are hundreds): similarity across the networks in the tuned
    network's colour, and within one network, from one seed to another, in the base network's.
    The grey band holds the central 90% of chance.
    A bit-identical layer is a line at 1.

    Raises:
        InputError: no layer was compared.
    """
    if not comparison.layers:
        raise InputError("the comparison has no layers; compare at least one to draw it")
    rows = len(comparison.layers)
    with style.panel(760, 88 + 66 * rows) as (figure, axes):
        lowest = min(_layer_row(axes, layer, row) for row, layer in enumerate(comparison.layers))
        names = [layer.layer for layer in comparison.layers]
        style.named_rows(axes, [style.clipped(name, 34) for name in names])
        start = min(0.9, math.floor(lowest * 10 - 0.2) / 10)
        axes.set(xlim=(start, 1.03), ylim=(rows - 0.45, -0.55))
        style.grid(axes, "x", alpha=0.18)
        axes.set_xlabel("similarity of two renders")
        swatches = [
            ("base against tuned", style.TUNED_COLOUR, 0.9),
            ("same network, another seed (ceiling)", style.BASE_COLOUR, 0.9),
            ("unrelated channels (chance)", style.MUTED, 0.3),
        ]
        style.legend(axes, swatches)
        title = "Similarity of base and tuned renders by layer"
        return style.as_svg(figure, "layers", title)


def _layer_row(axes: Axes, layer: LayerComparison, row: int) -> float:
    """Draws one layer; the least similarity that is shown of it."""
    if layer.identical:
        axes.plot([1, 1], [row - 0.34, row + 0.34], color=style.TUNED_COLOUR, linewidth=2.5)
        style.note(axes, "identical", (1, row), (-8, 0), ha="right", va="center")
        return 1.0
    shown = [1.0, layer.chance]
    if layer.chance_values:
        low, high = np.percentile(layer.chance_values, (5, 95))
        style.shade(axes, (low, row - 0.4), (high - low, 0.8), style.MUTED, 0.14)
        shown.append(float(low))
    axes.plot([layer.chance] * 2, [row - 0.4, row + 0.4], color=style.MUTED, linewidth=1)
    cross = [channel.similarity for channel in layer.channels]
    within = [value for channel in layer.channels for value in channel.rerender.values()]
    _box(axes, within, row - 0.18, style.BASE_COLOUR)
    _box(axes, cross, row + 0.18, style.TUNED_COLOUR)
    return min(filter(math.isfinite, shown + cross + within))


def _box(axes: Axes, values: Sequence[float], row: float, colour: str) -> None:
    """A horizontal box: quartiles, whiskers from the 5th to the 95th percentile, the points."""
    sample = np.asarray([value for value in values if math.isfinite(value)], dtype=float)
    if not len(sample):
        return
    p5, q1, median, q3, p95 = np.percentile(sample, (5, 25, 50, 75, 95))
    half = 0.11
    axes.plot([p5, q1], [row, row], color=colour, linewidth=1)
    axes.plot([q3, p95], [row, row], color=colour, linewidth=1)
    inside = (*mpl.colors.to_rgb(colour), 0.22)
    looks: dict[str, Any] = {"facecolor": inside, "edgecolor": colour, "linewidth": 1}
    axes.add_patch(Rectangle((q1, row - half), q3 - q1, 2 * half, **looks))
    axes.plot([median] * 2, [row - half, row + half], color=colour, linewidth=2.2)
    sample = sample[:: math.ceil(len(sample) / _POINTS)]
    # The golden ratio spreads the points without a random number.
    spread = (np.arange(len(sample)) * 0.618034 % 1 - 0.5) * 1.5 * half
    dots: dict[str, Any] = {"markersize": 2.6, "alpha": 0.55, "markeredgewidth": 0}
    axes.plot(sample, row + spread, "o", color=colour, **dots)


def channel_null_figure(layer: LayerComparison) -> str:
    """The null distribution of one layer and the statistics of its channels.

    Raises:
        InputError: the layer is identical or has no null, so there is nothing to draw.
    """
    null, values = (
        np.array([value for value in sample if math.isfinite(value)], dtype=float)
        for sample in (layer.null, [channel.statistic for channel in layer.channels])
    )
    if layer.identical or not len(null) or not len(values):
        raise InputError(
            f"layer {layer.layer!r} has {len(null)} null statistics and {len(values)} channels with "
            "one; a null is drawn of layers that were rendered from two seeds in both networks"
        )
    known = np.concatenate([null, values])
    margin = 0.05 * np.ptp(known) or 0.05
    edges = np.linspace(known.min() - margin, known.max() + margin, 33)
    with style.panel(760, 270) as (figure, axes):
        for sample, colour in ((null, style.BASE_COLOUR), (values, style.TUNED_COLOUR)):
            shares = np.histogram(sample, edges)[0] / len(sample)
            axes.stairs(shares, edges, fill=False, color=colour, linewidth=1.6)
            if sample is null:
                axes.stairs(shares, edges, fill=True, color=colour, alpha=0.35, linewidth=0)
        below: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False}
        heights = np.full(len(values), -0.02)
        axes.plot(values, heights, "|", color=style.TUNED_COLOUR, markersize=7, **below)
        changed = [channel.statistic for channel in layer.channels if channel.changed]
        if changed:
            least = min(changed)
            axes.axvline(least, color=style.MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
            across = ("data", "axes fraction")
            style.note(axes, "changed from here", (least, 0.97), (5, 0), xycoords=across, va="top")
        axes.set_ylim(bottom=0)
        axes.margins(x=0)
        axes.yaxis.set_major_formatter(style.percent_tick)
        axes.tick_params(axis="x", pad=7)
        axes.set_xlabel("statistic: similarity within a network − similarity across")
        axes.set_ylabel("share")
        swatches = [
            (f"null: one network re-rendered ({len(null)})", style.BASE_COLOUR, 0.5),
            (f"channels: base against tuned ({len(values)})", style.TUNED_COLOUR, 0.9),
        ]
        style.legend(axes, swatches)
        title = f"Null and channel statistics of {layer.layer}"
        return style.as_svg(figure, f"null-{layer.layer}", title)
