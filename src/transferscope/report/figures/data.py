"""Figures of a set of pictures, as SVG text in the style of `style`: classes, sizes, shapes, tones.

Blue is the set, orange what deserves a look.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from transferscope.data.inspection import QUANTILES, Inspection
from transferscope.errors import InputError
from transferscope.report.figures import style

COLUMN_CAP = 60
"""Classes that one column of bars shows at most; of more than two columns the ends are shown."""

SHAPE_CAP = 40
"""Classes whose shapes are shown at most."""

_ONE_COLUMN = 30  # classes up to which the bars stand in one column
_CELLS = 48  # of the lattice on which pictures of about one size become one dot
_MARKED = 400  # outliers marked at most
_RATIOS = ((1, 8), (1, 4), (1, 2), (2, 3), (1, 1), (3, 2), (2, 1), (4, 1), (8, 1))
_STRENGTHS = {"train": 0.95, "validation": 0.52, "test": 0.26}  # of the blue, by split


def class_figure(inspection: Inspection) -> str:
    """Pictures by class, the largest class first, stacked by split.

    Up to 30 classes stand in one column and up to 120 in two; of more, the 60 largest and the 60
    smallest are shown.

    Raises:
        InputError: the set has no classes.
    """
    counts = inspection.counts()
    if not counts:
        raise InputError("the set has no classes; sort it into class folders to draw them")
    totals = {name: sum(parts.values()) for name, parts in counts.items()}
    names = sorted(totals, key=lambda name: (-totals[name], name))
    columns = _columns(names)
    rows = len(columns[0][1])
    strengths = {split: _STRENGTHS.get(split, 0.7) for split in inspection.splits}
    with style.drawing(760, 48 + 19 * rows + (18 if columns[0][0] else 0)) as figure:
        panels = figure.subplots(1, len(columns), squeeze=False)[0]
        for axes, (title, shown) in zip(panels, columns, strict=True):
            starts = np.zeros(len(shown))
            for split, alpha in strengths.items():
                values = np.array([counts[name][split] for name in shown], dtype=float)
                bars = {"height": 0.68, "color": style.BASE_COLOUR, "alpha": alpha, "linewidth": 0}
                axes.barh(range(len(shown)), values, left=starts, **bars)
                starts += values
            for row, name in enumerate(shown):
                place = (totals[name], row)
                style.note(axes, f"{totals[name]:,}", place, (4, 0), va="center_baseline")
            most = 34 if len(columns) == 1 else 22
            style.named_rows(axes, [style.clipped(name, most) for name in shown])
            axes.set(xlim=(0, max(totals.values()) * 1.12 or 1), ylim=(rows - 0.4, -0.6))
            axes.xaxis.set_major_locator(NullLocator())
            axes.spines["bottom"].set_visible(False)
            axes.set_title(title)
        if len(strengths) > 1:
            blues = [(split, style.BASE_COLOUR, alpha) for split, alpha in strengths.items()]
            style.legend(panels[0], blues)
        return style.as_svg(figure, "classes", "Pictures by class")


def _columns(names: Sequence[str]) -> list[tuple[str, Sequence[str]]]:
    """Names of classes, the largest first, as columns with their titles."""
    if len(names) <= _ONE_COLUMN:
        return [("", names)]
    if len(names) <= 2 * COLUMN_CAP:
        half = math.ceil(len(names) / 2)
        return [("", names[:half]), ("", names[half:])]
    return [
        (f"the {COLUMN_CAP} largest of {len(names):,}", names[:COLUMN_CAP]),
        (f"the {COLUMN_CAP} smallest", names[-COLUMN_CAP:]),
    ]


def size_figure(inspection: Inspection, *, side: int) -> str:
    """Width against height; pictures of about one size are one dot, its area their number.

    Args:
        inspection: of at least one picture.
        side: of what a network sees, in pixels: pictures below it are enlarged.

    Raises:
        InputError: there are no pictures.
    """
    _need_pictures(inspection)
    widths, heights = inspection.widths, inspection.heights
    low = 0.8 * min(float(min(widths.min(), heights.min())), side)
    high = 1.25 * max(float(max(widths.max(), heights.max())), side)
    with style.panel(500, 440) as (figure, axes):
        axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            style.ticks(axis, _pixel_ticks(low, high), style.count_tick)
        axes.plot([low, high], [low, high], color=style.MUTED, linewidth=0.6, alpha=0.5, zorder=0)
        seen = ([side, side, high], [high, side, side])
        axes.plot(*seen, color=style.TUNED_COLOUR, linewidth=1, zorder=0)
        style.note(axes, f"{side} px", (high, side), (0, -4), ha="right", va="top")
        _dots(axes, np.log(widths), np.log(heights), widths, heights)
        axes.set(xlabel="width, pixels", ylabel="height, pixels")
        return style.as_svg(figure, "sizes", "Widths and heights")


def aspect_figure(inspection: Inspection) -> str:
    """Width / height by class: median, quartiles and the central 90%.

    Of more than 40 classes those are shown whose median is the farthest from the whole set's.

    Raises:
        InputError: there are no pictures.
    """
    _need_pictures(inspection)
    shapes = {name: measures["aspect"] for name, measures in inspection.sizes().items()}
    middle = QUANTILES.index(0.5)
    whole = shapes.pop(None)
    far = sorted(
        (name for name in shapes if name is not None),
        key=lambda name: (-abs(math.log(shapes[name][middle] / whole[middle])), name),
    )
    shown = sorted(far[:SHAPE_CAP], key=lambda name: (shapes[name][middle], name))
    rows = [("all pictures", whole, style.MUTED)]
    rows += [(name, shapes[name], style.BASE_COLOUR) for name in shown]
    with style.panel(760, 56 + 19 * len(rows)) as (figure, axes):
        for row, (_, quantiles, colour) in enumerate(rows):
            _strip(axes, quantiles, row, colour)
        reach = max(1.6, *(1.08 * max(q[-2], 1 / q[1]) for _, q, _ in rows))
        axes.set(xscale="log", xlim=(1 / reach, reach), xlabel="width : height")
        known = [w / h for w, h in _RATIOS if 1 / reach < w / h < reach]
        style.ticks(axes.xaxis, known, _ratio)
        axes.axvline(1, color=style.MUTED, linewidth=0.6, alpha=0.5, zorder=0)
        style.named_rows(axes, [style.clipped(name, 34) for name, _, _ in rows])
        return style.as_svg(figure, "aspects", "Shapes by class")


def tone_figure(inspection: Inspection) -> str:
    """Brightness against contrast, outliers marked.

    Raises:
        InputError: there are no pictures.
    """
    _need_pictures(inspection)
    light, contrast = inspection.brightness, inspection.contrast
    with style.panel(500, 440) as (figure, axes):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.01, max(0.42, 1.05 * float(contrast.max()))))
        _dots(axes, light, contrast, light, contrast)
        place = {picture.path: at for at, picture in enumerate(inspection.scan.pictures)}
        marked = [place[one.path] for one in inspection.outliers[:_MARKED]]
        ring = style.ring(style.TUNED_COLOUR, 5, 1.1)
        axes.plot(light[marked], contrast[marked], clip_on=False, **ring)
        axes.set_xlabel("brightness: mean grey, black 0 to white 1")
        axes.set_ylabel("contrast: deviation of grey")
        return style.as_svg(figure, "tones", "Brightness and contrast")


# ---------------------------------------------------------------------------- parts of figures


def _need_pictures(inspection: Inspection) -> None:
    if not inspection.facts:
        raise InputError("the set has no readable pictures; there is nothing to draw")


def _dots(
    axes: Axes, x_cells: np.ndarray, y_cells: np.ndarray, x: np.ndarray, y: np.ndarray
) -> None:
    """One dot for the pictures of each lattice cell, at their mean, its area their number.

    Args:
        axes: with their limits set.
        x_cells: (n,) as the lattice divides them evenly.
        y_cells: (n,) the same.
        x: (n,) as the axes have them.
        y: (n,) the same.
    """
    low = min(x_cells.min(), y_cells.min())
    pitch = (max(x_cells.max(), y_cells.max()) - low) / _CELLS or 1.0
    columns, rows = (((cells - low) / pitch).astype(np.int64) for cells in (x_cells, y_cells))
    lattice = rows * (_CELLS + 1) + columns
    _, cell, number = np.unique(lattice, return_inverse=True, return_counts=True)
    places = np.stack([np.bincount(cell, x) / number, np.bincount(cell, y) / number], axis=1)
    diameters = np.round(3.2 + 13.0 * np.sqrt(number / max(number.max(), 40)))  # points
    looks: dict[str, Any] = {"alpha": 0.55, "markeredgewidth": 0, "clip_on": False}
    for diameter in np.unique(diameters):  # equal markers are one shape in the file
        own = places[diameters == diameter].T
        axes.plot(*own, "o", color=style.BASE_COLOUR, markersize=diameter, **looks)


def _strip(axes: Axes, quantiles: Sequence[float], row: int, colour: str) -> None:
    """A line over the central 90%, a bar over the quartiles, a tick at the median."""
    _, p5, q1, median, q3, p95, _ = quantiles
    axes.plot([p5, p95], [row, row], color=colour, linewidth=1, solid_capstyle="butt")
    style.shade(axes, (q1, row - 0.22), (q3 - q1, 0.44), colour, 0.4)
    axes.plot([median] * 2, [row - 0.32, row + 0.32], color=colour, linewidth=2.4)


def _pixel_ticks(low: float, high: float) -> list[float]:
    """Powers of two in reach, every n-th of many, and their halfway marks where there are few."""
    powers = [2.0**power for power in range(18) if low <= 2**power <= high]
    if len(powers) < 4:
        halfway = [1.5 * 2.0**power for power in range(18)]
        return sorted(powers + [value for value in halfway if low <= value <= high])
    return powers[:: math.ceil(len(powers) / 8)]


def _ratio(value: float, _: object = None) -> str:
    near = (f"{w}:{h}" for w, h in _RATIOS if math.isclose(value, w / h, rel_tol=1e-6))
    return next(near, f"{value:.2f}")
