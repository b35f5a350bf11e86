"""Figures of a comparison of two networks, as SVG text in the style of `style`.

They are as wide as a telephone, so that it shows them whole; a page with more room puts two beside each
other. The base network, the tuned one, and grey for what both are held against: controls and chance.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from transferscope.comparison.change import LEARNED, Witnessed
from transferscope.comparison.records import NETWORKS, ChannelDrawings, Comparison, Quartiles
from transferscope.errors import InputError
from transferscope.report.figures import style

WIDTH = 360
"""Of every figure, in pixels."""

_NAME, _ROW, _GAP = 20, 15, 16  # pixels: a layer's name, a box, and the room below a layer
_POINTS = 300  # drawn on a box at most; of more, every n-th is

Swatch = tuple[str, str, float]


@contextmanager
def _stack(height: float, label: str, swatches: Sequence[Swatch]) -> Iterator[tuple[Figure, Axes]]:
    """One panel whose y axis counts pixels from the top; swatches in as many lines as they need."""
    columns = _columns([style.text_width(words) + 6 for words, _, _ in swatches])
    lines = math.ceil(len(swatches) / columns)
    with style.panel(WIDTH, height + 58 + 16 * lines) as (figure, axes):
        axes.set_ylim(height, 0)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.set_xlabel(label)
        style.legend(axes, swatches, columns=columns)
        yield figure, axes


def _columns(widths: Sequence[float]) -> int:
    """In how many columns entries of so many letters stand side by side, as matplotlib fills them."""
    for columns in range(len(widths), 1, -1):
        if sum(part.max() for part in np.array_split(np.array(widths), columns)) <= 62:
            return columns
    return 1


def _line(axes: Axes, at: float, top: float, bottom: float, **look: Any) -> None:
    """A vertical line beside what is drawn, not through the words above it."""
    stroke: dict[str, Any] = {"color": style.MUTED, "linewidth": 0.9, "alpha": 0.7}
    axes.plot([at, at], [top, bottom], solid_capstyle="butt", **stroke | look)


def _rule(axes: Axes, bands: Sequence[tuple[float, float]]) -> None:
    """Lines at the ticks, and a darker one at zero, beside what is drawn: none through the words above."""
    low, high = axes.get_xlim()
    for at in axes.get_xticks():
        if low <= at <= high:
            for top, bottom in bands:
                look = {"zorder": 0} if abs(at) < 1e-12 else {"alpha": 0.18, "zorder": 0}
                _line(axes, at, top, bottom, **look)


def _name(axes: Axes, top: float, name: str, said: str = "") -> None:
    """A layer's name above what is drawn of it, and a few words at the right end of the line."""
    line: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center"}
    room = 54 - style.text_width(said) * 0.9
    axes.text(0, top + 8, style.clipped(name, room), fontsize=style.TEXT, **line)
    if said:
        axes.text(1, top + 8, said, ha="right", color=style.MUTED, **line)


# ---------------------------------------------------------------------------- class information by layer


_KINDS: Mapping[str, tuple[str, float, float]] = {
    "base": (style.BASE_COLOUR, 0.5, 1.0),
    "tuned": (style.TUNED_COLOUR, 0.5, 1.0),
    "retunings": (style.TUNED_COLOUR, 0.12, 0.7),
    "controls": (style.MUTED, 0.2, 0.5),
}
"""Of the box of each kind of network its colour, and the opacity of what is inside and of its lines."""


def information_figure(comparison: Comparison) -> str:
    """Class information of every layer's channels, shallow to deep: base, tuned, retunings, controls.

    A box holds the middle half of a layer's channels, its line the median.

    Raises:
        InputError: no layer differs between the networks, so nothing was measured.
    """
    layers = comparison.layers
    known = [one for layer in layers for one in layer.information.values()]
    if not known:
        raise InputError(
            "no layer of the comparison differs; compare one behind the freeze boundary"
        )
    kinds = [kind for kind in _KINDS if any(kind in layer.information for layer in layers)]
    called = _called(comparison)
    swatches = [(called.get(kind, kind), *_KINDS[kind][:2]) for kind in kinds]
    height = sum(_NAME + _ROW * len(layer.information) + _GAP for layer in layers) - _GAP + 4
    with _stack(height, "class information (share of variance)", swatches) as (figure, axes):
        top, bands = 0.0, []
        for layer in layers:
            _name(axes, top, layer.layer, "bit-identical" if layer.identical else "")
            for row, kind in enumerate(kind for kind in kinds if kind in layer.information):
                middle = top + _NAME + _ROW * (row + 0.5)
                _quartiles(axes, layer.information[kind], middle, *_KINDS[kind])
            bottom = top + _NAME + _ROW * len(layer.information)
            bands.append((top + _NAME, bottom))
            top = bottom + _GAP
        low, high = min(one.low for one in known), max(one.high for one in known)
        axes.set_xlim(min(0.0, low) - 0.03 * high, min(1.0, high * 1.06) + 0.005)
        _rule(axes, [(start, end) for start, end in bands if end > start])
        return style.as_svg(figure, "information", "Class information by layer and network")


def _called(comparison: Comparison) -> dict[str, str]:
    """What the two networks are called, in few letters."""
    names = (style.clipped(name, 12) for name in comparison.pair)
    return dict(zip(NETWORKS, names, strict=True))


def _quartiles(
    axes: Axes, known: Quartiles, row: float, colour: str, inside: float, lines: float
) -> None:
    """A box from the first quartile to the third."""
    half, rgb = 5.0, mpl.colors.to_rgb(colour)
    looks: dict[str, Any] = {
        "facecolor": (*rgb, inside),
        "edgecolor": (*rgb, lines),
        "linewidth": 1,
    }
    axes.add_patch(Rectangle((known.low, row - half), known.high - known.low, 2 * half, **looks))
    middle = [row - half, row + half]
    stroke: dict[str, Any] = {"linewidth": 2.4, "solid_capstyle": "butt"}
    axes.plot([known.median] * 2, middle, color=colour, alpha=lines, **stroke)


# ---------------------------------------------------------------------------- gains against controls


def gain_figure(comparison: Comparison, layer: str | None = None) -> str:
    """Gains of class information, and below each layer's line what its channels gain in the controls.

    Bars count channels, of both sides on one scale: up those of the tuned network, the ones that learned in
    full colour; down the same channels' mean over the controls.

    Args:
        comparison: of two networks.
        layer: one alone; None: all that differ.

    Raises:
        InputError: no channel was asked.
    """
    names = [one.layer for one in comparison.layers if layer in (None, one.layer)]
    every = {name: _finite(comparison.of_witness(LEARNED, name)) for name in names}
    gains = {name: rows for name, rows in every.items() if rows}
    if not gains:
        raise InputError(
            f"no gain of {layer or 'any layer'} was measured; compare a layer that differs"
        )
    learned = {(row.layer, row.channel) for row in comparison.found(LEARNED)}
    shown = [row.value for rows in gains.values() for row in rows]
    if comparison.controls:
        shown += [row.null for rows in gains.values() for row in rows]
    low, high = min(*shown, 0.0), max(*shown, 0.0)
    margin = max(0.04 * (high - low), (0.1 - (high - low)) / 2)
    bars = max(12, min(40, round(len(shown) ** 0.5 * 2)))
    edges = np.linspace(low - margin, high + margin, bars + 1)
    room = 110.0 if layer else 62.0
    swatches: list[Swatch] = [("channels", style.TUNED_COLOUR, 0.38)]
    if comparison.controls:
        swatches = [
            ("learned", style.TUNED_COLOUR, 0.95),
            ("others", style.TUNED_COLOUR, 0.38),
            ("controls, mean", style.MUTED, 0.35),
        ]
    height = len(gains) * (_NAME + room + _GAP) - _GAP + 4
    first, second = _called(comparison).values()
    label = f"gain of class information, {second} minus {first}"
    with _stack(height, label, swatches) as (figure, axes):
        bands = []
        for place, (name, rows) in enumerate(gains.items()):
            top = place * (_NAME + room + _GAP)
            found = [row.value for row in rows if (row.layer, row.channel) in learned]
            _name(axes, top, name, _counted(len(found), len(rows), comparison.controls))
            _mirrored(axes, rows, found, edges, (top + _NAME, room), nulls=comparison.controls > 0)
            bands.append((top + _NAME, top + _NAME + room))
        axes.set_xlim(edges[0], edges[-1])
        _rule(axes, bands)
        axes.xaxis.set_major_formatter(
            lambda value, _: f"{value:+.3g}".replace("-", "−") if value else "0"
        )
        title = f"Gain of class information in {layer or 'every layer'}, against the controls"
        return style.as_svg(figure, f"gain-{layer or 'all'}", title)


def _counted(found: int, rows: int, controls: int) -> str:
    if not controls:
        return f"{rows:,} channels"
    return f"{found:,} of {rows:,} learned" if found else f"none found of {rows:,}"


def _mirrored(
    axes: Axes,
    rows: Sequence[Witnessed],
    found: Sequence[float],
    edges: np.ndarray,
    place: tuple[float, float],
    *,
    nulls: bool,
) -> None:
    """Histogram of the gains upwards, of the nulls downwards."""
    top, room = place
    every = np.histogram([row.value for row in rows], edges)[0]
    yes = np.histogram(found, edges)[0]
    down = np.histogram([row.null for row in rows], edges)[0] if nulls else np.zeros_like(every)
    scale = room / max(1, every.max() + down.max())
    line = top + every.max() * scale
    for counts, start, colour, alpha in (
        (yes, np.zeros_like(yes), style.TUNED_COLOUR, 0.95),
        (every - yes, yes, style.TUNED_COLOUR, 0.38),
        (-down, np.zeros_like(down), style.MUTED, 0.35),
    ):
        bars: dict[str, Any] = {"color": colour, "alpha": alpha, "linewidth": 0, "align": "edge"}
        widths = np.diff(edges) * 0.9
        axes.bar(edges[:-1], -counts * scale, widths, bottom=line - start * scale, **bars)
    axes.axhline(line, color=style.MUTED, linewidth=0.7, alpha=0.8)


def _finite(rows: Sequence[Witnessed]) -> list[Witnessed]:
    return [row for row in rows if math.isfinite(row.value)]


# ---------------------------------------------------------------------------- drawings by layer


def similarity_figure(comparison: Comparison) -> str:
    """How alike the drawings of the two networks are, by layer, between ceiling and chance.

    Boxes are quartiles, whiskers reach from the 5th to the 95th percentile, and there is a point a channel.
    The ceiling is how alike one network's own drawings from different seeds are; the grey line is chance,
    the mean of unrelated channels. Drawings that failed are counted beside the name.

    Raises:
        InputError: no similarity is known, as with one seed.

    Reference: Szabó et al. 2020, Figure 9.
    """
    by_layer = {
        layer.layer: [one for one in comparison.drawings if one.layer == layer.layer]
        for layer in comparison.layers
    }
    drawn = {name: several for name, several in by_layer.items() if _similarities(several)[-1][0]}
    if not drawn:
        raise InputError("no similarity of drawings is known; compare with two seeds or more")
    chance = {layer.layer: layer.chance for layer in comparison.layers}
    first, second = _called(comparison).values()
    swatches: list[Swatch] = [
        (f"{first}, another seed", style.BASE_COLOUR, 0.6),
        (f"{second}, another seed", style.TUNED_COLOUR, 0.6),
        (f"{first} against {second}", style.INK, 0.6),
        ("chance", style.MUTED, 0.35),
    ]
    step, head = _ROW + 3, _NAME + 15
    height = len(drawn) * (head + 3 * step + _GAP) - _GAP + 4
    with _stack(height, "similarity of two drawings", swatches) as (figure, axes):
        shown, bands = [1.0], []
        for place, (name, several) in enumerate(drawn.items()):
            top = place * (head + 3 * step + _GAP)
            _name(axes, top, name, f"{len(several)} drawn")
            axes.text(
                0, top + _NAME + 4, style.clipped(_failed(several), 58), va="center",
                color=style.MUTED, transform=axes.get_yaxis_transform(),
            )  # fmt: skip
            bands.append((top + head, top + head + 3 * step))
            floor = chance[name]
            if floor is not None and math.isfinite(floor):
                shown.append(floor)
                style.shade(axes, (-1, top + head), (floor + 1, 3 * step), style.MUTED, 0.16)
                _line(axes, floor, top + head, top + head + 3 * step, linewidth=1.4, alpha=0.6)
            for row, (values, colour) in enumerate(_similarities(several)):
                shown += values
                _box(axes, values, top + head + step * (row + 0.5), colour)
        least = min(shown)
        axes.set_xlim(least - 0.04 * (1 - least) - 0.01, 1 + 0.02 * (1 - least) + 0.005)
        _rule(axes, bands)
        return style.as_svg(
            figure, "drawings", "Similarity of base's and tuned's drawings by layer"
        )


def _similarities(several: Sequence[ChannelDrawings]) -> list[tuple[list[float], str]]:
    """Values and colours of a layer's boxes, the two networks against each other last."""
    colours = (style.BASE_COLOUR, style.TUNED_COLOUR)
    tests = [one.test for one in several if one.test is not None]
    boxes = [
        ([test.rerender.get(network) for test in tests], colour)
        for network, colour in zip(NETWORKS, colours, strict=True)
    ]
    boxes.append(([test.similarity for test in tests], style.INK))
    return [
        ([value for value in values if value is not None and math.isfinite(value)], colour)
        for values, colour in boxes
    ]


def _failed(several: Sequence[ChannelDrawings]) -> str:
    """How drawings ended, each network's and seed's counted."""
    counts = Counter(status for one in several for n in NETWORKS for status in one.statuses[n])
    good = counts.pop("optimized", 0)
    total = good + sum(counts.values())
    if not counts:
        return f"all {total} drawings optimized"
    failed = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in counts.most_common())
    return f"{total} drawings: {failed}"


def _box(axes: Axes, values: Sequence[float], row: float, colour: str) -> None:
    """A horizontal box: quartiles, whiskers from the 5th to the 95th percentile, the points."""
    if not values:
        return
    sample = np.asarray(values, dtype=float)
    p5, q1, median, q3, p95 = np.percentile(sample, (5, 25, 50, 75, 95))
    half = 5.5
    for start, end in ((p5, q1), (q3, p95)):
        axes.plot([start, end], [row, row], color=colour, linewidth=1)
    inside = (*mpl.colors.to_rgb(colour), 0.15)
    looks: dict[str, Any] = {"facecolor": inside, "edgecolor": colour, "linewidth": 1}
    axes.add_patch(Rectangle((q1, row - half), q3 - q1, 2 * half, **looks))
    stroke: dict[str, Any] = {"linewidth": 2.4, "solid_capstyle": "butt"}
    axes.plot([median] * 2, [row - half, row + half], color=colour, **stroke)
    sample = sample[:: math.ceil(len(sample) / _POINTS)]
    # The golden ratio spreads the points without a random number.
    spread = (np.arange(len(sample)) * 0.618034 % 1 - 0.5) * 1.3 * half
    dots: dict[str, Any] = {"markersize": 2.8, "alpha": 0.6, "markeredgewidth": 0}
    axes.plot(sample, row + spread, "o", color=colour, **dots)
