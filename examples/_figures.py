"""Two plain figures that several examples need, in the style of the package's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from transferscope.report.figures import style

Triple = tuple[float, float, float]
"""A value and the ends of its 95% interval."""

COLOURS = (style.TUNED_COLOUR, style.BASE_COLOUR, style.MUTED)


def groups_figure(
    groups: Mapping[str, NDArray[np.float64]],
    means: Mapping[str, Triple],
    *,
    label: str,
    lines: Sequence[str],
    first: int = 1,
) -> str:
    """A row a group, a dot a picture, and each group's mean with its 95% interval.

    Args:
        groups: name -> (N,) values, the first on top.
        means: of each.
        label: what is measured.
        lines: what the figure shows, in words above it.
        first: how many groups are orange; the others are controls, in blue.
    """
    with style.panel(760, 96 + 46 * len(groups)) as (figure, axes):
        style.heading(figure, lines)
        for row, (name, values) in enumerate(groups.items()):
            colour = style.TUNED_COLOUR if row < first else style.BASE_COLOUR
            # The golden ratio spreads the points without a random number.
            spread = (np.arange(len(values)) * 0.618034 % 1 - 0.5) * 0.5
            axes.plot(values, row + spread, "o", color=colour, markersize=3, alpha=0.4)
            mean, low, high = means[name]
            axes.plot([low, high], [row, row], color=style.INK, linewidth=1.6)
            axes.plot(mean, row, "D", color=style.INK, markersize=6)
        style.named_rows(axes, list(groups))
        style.grid(axes, "x")
        axes.set_xlabel(f"{label}; diamond: mean, with its 95% interval")
        return style.as_svg(figure, "groups", label)


def depth_figure(
    places: Sequence[str],
    series: Mapping[str, Sequence[Triple]],
    *,
    label: str,
    lines: Sequence[str],
) -> str:
    """A line a series over the depths of a network, with 95% intervals.

    Args:
        places: names of the depths, shallow to deep.
        series: name -> a value and its interval at each; three of them at most have colours of their own.
        label: what is measured.
        lines: what the figure shows, in words above it.
    """
    with style.panel(760, 330) as (figure, axes):
        style.heading(figure, lines)
        handles = []
        for (name, values), colour in zip(series.items(), COLOURS, strict=False):
            mean, low, high = np.array(values).T
            at = np.arange(len(places)) + 0.06 * (len(handles) - 1)
            axes.vlines(at, low, high, colors=colour, linewidths=1.2)
            axes.plot(at, mean, "o-", color=colour, linewidth=1.7, markersize=4)
            handles.append(Line2D([], [], color=colour, marker="o", markersize=4, label=name))
        axes.set_xticks(range(len(places)), [style.clipped(one, 14) for one in places])
        axes.set_ylabel(label)
        style.grid(axes, "y")
        axes.legend(handles=handles, loc="lower left")
        return style.as_svg(figure, "depth", label)
