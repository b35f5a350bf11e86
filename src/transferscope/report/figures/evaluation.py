"""Figures of what a classifier is worth, as SVG text in the style of `figures`.

Orange is the tuned classifier (in a confusion matrix: what is wrong), blue the untuned one, grey
what it is measured against. Accuracies have their 95% Wilson intervals.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from transferscope.errors import InputError
from transferscope.evaluation import (
    Abstention,
    Bin,
    Calibration,
    Evaluation,
    Operating,
    Predictions,
    SizeTrend,
    confusion_counts,
)
from transferscope.evaluation.ordering import class_order
from transferscope.evaluation.told import trend_told
from transferscope.report.figures import (
    BASE_COLOUR,
    INK,
    MUTED,
    SMALL,
    TEXT,
    TUNED_COLOUR,
    as_svg,
    clipped,
    drawing,
    legend,
    plain_axes,
    text_width,
)

NUMBERED = 24
"""Classes up to which a confusion matrix has its counts written in, in the order of the classes; with
more, confused classes stand side by side."""

_NAMED = 6  # classes named beside the trend at most
_DEVIATES = 2.0  # standard deviations from the trend that a class is named from
_SAME_PLACE = 0.03  # difference in coverage below which two thresholds share a label
_TREND_HEIGHT = 290.0  # pixels of the axes of class sizes, about
_LINE = 13.0  # pixels from one label to the next


# ---------------------------------------------------------------------------- calibration


def reliability_figure(calibration: Calibration) -> str:
    """Accuracy against confidence by bin, with the diagonal, and how many pictures each bin has.

    The area of a dot is its bin's number of pictures; the bars are Wilson intervals. Below stand the
    confidences as a histogram.

    Returns:
        SVG text.
    """
    bins = calibration.bins
    total = max(sum(one.n for one in bins), 1)
    with drawing() as draw:
        figure = draw(500, 560)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4.2, 1))
        _heading(figure, calibration_told(calibration))
        for axes in (upper, lower):
            plain_axes(axes)
            axes.yaxis.set_major_formatter(FuncFormatter(_as_percent))
        upper.plot([0, 1], [0, 1], color=MUTED, alpha=0.6, linewidth=1, linestyle=(0, (4, 2)))
        upper.annotate(
            "as often right as stated",
            (0.03, 0.03),
            xytext=(0, 8),
            textcoords="offset points",
            rotation=45,
            rotation_mode="anchor",
            transform_rotates_text=True,
            fontsize=SMALL,
            color=MUTED,
        )
        _reliability_dots(upper, bins, total)
        upper.set_xlim(0, 1)
        upper.set_ylim(0, 1)
        upper.set_ylabel("of these, right")
        upper.grid(color=MUTED, alpha=0.15, linewidth=0.6)
        upper.set_axisbelow(True)
        lower.bar(
            [one.low for one in bins],
            [one.n / total for one in bins],
            [one.high - one.low for one in bins],
            align="edge",
            color=TUNED_COLOUR,
            alpha=0.55,
            linewidth=0,
        )
        lower.set_ylim(bottom=0)
        lower.yaxis.set_major_locator(MaxNLocator(3))
        lower.xaxis.set_major_formatter(FuncFormatter(_as_percent))
        lower.set_xlabel("confidence: probability stated for the answer")
        lower.set_ylabel("pictures")
        return as_svg(figure, "reliability", "Accuracy against confidence", ())


def calibration_told(calibration: Calibration) -> tuple[str, str]:
    """The calibration error before and after the temperature, and whether chance explains it."""
    low, high = calibration.band
    verdict = "above" if not calibration.within_chance else "inside"
    if calibration.ece < low:
        verdict = "below"
    return (
        f"Calibration error {calibration.ece:.1%}; before the temperature of "
        f"{calibration.temperature:.2f}: {calibration.ece_before:.1%}.",
        f"By chance a perfectly calibrated one would show {low:.1%} to {high:.1%}: this is {verdict}.",
    )


def _reliability_dots(axes: Axes, bins: Sequence[Bin], total: int) -> None:
    axes.add_collection(
        LineCollection(
            [[(one.confidence, end) for end in one.interval] for one in bins],
            colors=TUNED_COLOUR,
            linewidths=1.2,
        )
    )
    axes.scatter(
        [one.confidence for one in bins],
        [one.accuracy for one in bins],
        s=[14 + 260 * one.n / total for one in bins],
        color=TUNED_COLOUR,
        alpha=0.75,
        linewidths=0,
        clip_on=False,
        zorder=3,
    )


# ---------------------------------------------------------------------------- abstaining


def coverage_figure(abstention: Abstention) -> str:
    """Accuracy of the surest answers against their share, with the thresholds chosen on validation.

    A threshold that leaves nothing out, or out of which nothing comes, is not drawn.

    Returns:
        SVG text.
    """
    marks = [one for one in abstention.operating if one.accuracy is not None and one.coverage < 1]
    with drawing() as draw:
        figure = draw(760, 330)
        axes = figure.subplots()
        plain_axes(axes)
        _heading(
            figure,
            [
                f"All answered: {abstention.accuracy[-1]:.1%} right. Mean share of wrong answers over "
                f"all coverages: {abstention.area:.2%}."
            ],
        )
        axes.plot(abstention.coverage, abstention.accuracy, color=TUNED_COLOUR, linewidth=1.8)
        axes.plot(
            abstention.coverage[-1],
            abstention.accuracy[-1],
            "o",
            color=TUNED_COLOUR,
            markersize=6,
            clip_on=False,
        )
        _mark_thresholds(axes, marks)
        shown = [
            a for c, a in zip(abstention.coverage, abstention.accuracy, strict=True) if c >= 0.05
        ]
        lowest = min([*shown, *(one.accuracy or 0.0 for one in marks)])
        axes.set_ylim(max(0.0, math.floor(20 * (lowest - 0.02)) / 20), 1)
        axes.set_xlim(0, 1)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(_as_percent))
        axes.grid(color=MUTED, alpha=0.15, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel("pictures answered, the surest first")
        axes.set_ylabel("of these, right")
        return as_svg(figure, "coverage", "Accuracy against the share that is answered", ())


def _mark_thresholds(axes: Axes, marks: Sequence[Operating]) -> None:
    """Rings on the curve with what was wanted, and what they do as lines in the lower left corner."""
    groups: list[list[Operating]] = []
    for one in sorted(marks, key=lambda one: (one.coverage, -one.wanted)):
        if groups and one.coverage - groups[-1][-1].coverage < _SAME_PLACE:
            groups[-1].append(one)
        else:
            groups.append([one])
    for group in groups:
        for one in group:
            axes.plot(
                one.coverage,
                one.accuracy or 0.0,
                "o",
                markersize=8,
                markerfacecolor="none",
                markeredgecolor=INK,
                markeredgewidth=1.3,
                clip_on=False,
            )
        axes.annotate(
            ", ".join(f"{one.wanted:.0%}" for one in sorted(group, key=lambda one: one.wanted)),
            (group[0].coverage, group[0].accuracy or 0.0),
            xytext=(-7, -11),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=SMALL,
            color=INK,
        )
    lines = [
        f"{one.wanted:.0%} wanted: confidence ≥ {one.min_confidence:.3f}, {one.coverage:.1%} answered, "
        f"{one.accuracy or 0.0:.1%} of them right"
        for one in sorted(marks, key=lambda one: one.wanted)
    ]
    axes.text(
        0.015,
        0.03,
        "\n".join(lines),
        transform=axes.transAxes,
        va="bottom",
        linespacing=1.4,
        fontsize=SMALL,
        color=INK,
    )


# ---------------------------------------------------------------------------- class sizes


@dataclass(frozen=True)
class _SizedClass:
    """A class in the plane of its training pictures and its accuracy."""

    name: str
    training: int
    n: int
    accuracy: float
    deviation: float


def size_trend_figure(evaluation: Evaluation) -> str:
    """Accuracy of the classes against their numbers of training pictures, with the fitted trend.

    A dot is a class, its area the number of pictures evaluated. The grey band is the curve's 95%
    band. The classes farthest from the curve, in standard deviations of chance, are named.

    Returns:
        SVG text.

    Raises:
        InputError: the evaluation has no trend.
    """
    trend = evaluation.trend
    if trend is None:
        raise InputError(
            "the evaluation has no trend over class sizes: fewer than five classes, all of one size, or "
            "sizes that are not known; there is nothing to draw"
        )
    classes = _sized_classes(evaluation, trend)
    named = [one for one in classes if abs(one.deviation) >= _DEVIATES]
    named = sorted(named, key=lambda one: (-abs(one.deviation), one.name))[:_NAMED]
    most = max(one.n for one in classes)
    with drawing() as draw:
        figure = draw(760, 400)
        axes = figure.subplots()
        plain_axes(axes)
        _heading(figure, [trend_told(trend)])
        axes.set_xscale("log")
        axes.fill_between(trend.sizes, trend.low, trend.high, color=MUTED, alpha=0.16, linewidth=0)
        axes.plot(trend.sizes, trend.accuracy, color=INK, linewidth=1.4)
        axes.scatter(
            [one.training for one in classes],
            [one.accuracy for one in classes],
            s=[10 + 110 * one.n / most for one in classes],
            color=TUNED_COLOUR,
            alpha=0.5,
            linewidths=0,
            clip_on=False,
            zorder=3,
        )
        reach = max(trend.sizes) / min(trend.sizes)
        axes.set_xlim(min(trend.sizes) / reach**0.03, max(trend.sizes) * reach**0.14)
        lowest = min(one.accuracy for one in classes)
        axes.set_ylim(max(-0.02, math.floor(10 * lowest - 0.5) / 10), 1.02)
        _size_axis(axes)
        axes.yaxis.set_major_formatter(FuncFormatter(_as_percent))
        axes.grid(color=MUTED, alpha=0.15, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel("training pictures of the class")
        axes.set_ylabel("pictures recognised")
        _name_classes(axes, named)
        return as_svg(
            figure, "class-sizes", "Accuracy against training pictures", [one.name for one in named]
        )


def _sized_classes(evaluation: Evaluation, trend: SizeTrend) -> list[_SizedClass]:
    found = []
    for name, result in evaluation.per_class.items():
        if result.training:
            expected = float(
                np.interp(math.log(result.training), np.log(trend.sizes), trend.accuracy)
            )
            spread = math.sqrt(max(expected * (1 - expected), 1e-4) / result.n)
            deviation = (result.accuracy - expected) / spread
            found.append(_SizedClass(name, result.training, result.n, result.accuracy, deviation))
    return found


def _size_axis(axes: Axes) -> None:
    """Plain numbers of pictures: at 1, 2 and 5 of each power of ten, or closer on a short axis."""
    low, high = axes.get_xlim()
    subs = (1.0, 2.0, 5.0) if high / low > 4 else tuple(float(s) for s in range(1, 10))
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _name_classes(axes: Axes, named: Sequence[_SizedClass]) -> None:
    """Names to the right of their dots, moved down where one would stand on another."""
    place = -math.inf
    low, high = axes.get_ylim()
    for one in sorted(named, key=lambda one: (-one.accuracy, one.training)):
        own = _TREND_HEIGHT * (high - one.accuracy) / (high - low)
        place = max(own, place + _LINE)
        axes.annotate(
            clipped(one.name, 24),
            (one.training, one.accuracy),
            xytext=(10, (own - place) * 0.75),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            color=INK,
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkB": 3},
        )


# ---------------------------------------------------------------------------- classes


def confusion_figure(predictions: Predictions) -> str:
    """True classes in rows, predicted classes in columns; a row's shares sum to 1.

    Up to `NUMBERED` classes the counts are written into the cells, and the classes keep their order; of
    more, those that are confused stand side by side (`class_order`). The figure grows with the number
    of classes, so that its text never does the opposite.

    Returns:
        SVG text.
    """
    count = len(predictions.classes)
    order = list(range(count)) if count <= NUMBERED else class_order(predictions)
    classes = [predictions.classes[index] for index in order]
    counts = confusion_counts(predictions)[np.ix_(order, order)]
    cell = 34 if count <= 12 else 26 if count <= NUMBERED else 20 if count <= 50 else 15
    labels = [clipped(name, 22) for name in classes]
    reach = 24 + 7.2 * max(map(text_width, labels))
    with drawing() as draw:
        figure = draw(count * cell + reach + 24, count * cell + reach + 24)
        axes = figure.subplots()
        plain_axes(axes)
        _confusion_cells(axes, counts)
        axes.set_xlim(-0.5, count - 0.5)
        axes.set_ylim(count - 0.5, -0.5)
        axes.set_aspect("equal")
        size = TEXT if count <= 50 else 7.5
        axes.set_xticks(range(count), labels, rotation=90, fontsize=size)
        axes.set_yticks(range(count), labels, fontsize=size)
        axes.tick_params(length=0)
        axes.set_xticks(np.arange(0.5, count - 1), minor=True)
        axes.set_yticks(np.arange(0.5, count - 1), minor=True)
        axes.grid(which="minor", color=MUTED, alpha=0.12, linewidth=0.5)
        axes.tick_params(which="minor", length=0)
        axes.set_axisbelow(True)
        tall = count > NUMBERED
        if tall:  # taller than a screen: the names stand where one begins to read
            axes.xaxis.tick_top()
            axes.xaxis.set_label_position("top")
            axes.tick_params(length=0)
        axes.set_xlabel("predicted", loc="left" if tall else "center")
        axes.set_ylabel("true", loc="top" if tall else "center")
        return as_svg(figure, "confusion", "Confusion matrix", classes)


def _confusion_cells(axes: Axes, counts: np.ndarray) -> None:
    """Squares, grey on the diagonal and orange beside it, and of few classes the counts."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    filled = [(int(row), int(column)) for row, column in np.argwhere(counts)]
    for right in (True, False):
        cells = [(row, column) for row, column in filled if (row == column) == right]
        squares = [
            [(x - 0.5, y - 0.5), (x + 0.5, y - 0.5), (x + 0.5, y + 0.5), (x - 0.5, y + 0.5)]
            for y, x in cells
        ]
        colour = mpl.colors.to_rgb(MUTED if right else TUNED_COLOUR)
        least, most = (0.06, 0.40) if right else (0.22, 0.95)
        axes.add_collection(
            PolyCollection(
                squares,
                facecolors=[(*colour, least + (most - least) * shares[at]) for at in cells],
                linewidths=0,
            )
        )
    if len(counts) <= NUMBERED:
        for row, column in filled:
            axes.text(
                column,
                row,
                str(counts[row, column]),
                ha="center",
                va="center",
                fontsize=SMALL,
                color=INK,
            )


def per_class_figure(evaluation: Evaluation, *, base: Evaluation | None = None) -> str:
    """Accuracy by class, the hardest class first, beside the base network's if it is given.

    The thin bars are the tuned classifier's Wilson intervals. Where both are equal, the base network's dot
    shows around the other.

    Args:
        evaluation: of the tuned classifier.
        base: of the untuned backbone's probe on the same pictures.

    Returns:
        SVG text.

    Raises:
        InputError: the evaluation has no classes.
    """
    if not evaluation.per_class:
        raise InputError("the evaluation has no classes; evaluate at least one picture to draw it")
    names = sorted(
        evaluation.per_class, key=lambda name: (evaluation.per_class[name].accuracy, name)
    )
    with drawing() as draw:
        figure = draw(760, 84 + 20 * len(names))
        axes = figure.subplots()
        plain_axes(axes)
        results = [evaluation.per_class[name] for name in names]
        axes.add_collection(
            LineCollection(
                [[(end, row) for end in one.interval] for row, one in enumerate(results)],
                colors=TUNED_COLOUR,
                alpha=0.6,
                linewidths=1,
            )
        )
        before = base.per_class if base is not None else {}
        known = [(before[name].accuracy, row) for row, name in enumerate(names) if name in before]
        tuned = [(one.accuracy, row) for row, one in enumerate(results)]
        for dots, size, colour in ((known, 8, BASE_COLOUR), (tuned, 6, TUNED_COLOUR)):
            places = np.array(dots).reshape(-1, 2).T
            axes.plot(*places, "o", markersize=size, color=colour, clip_on=False)
        axes.set_yticks(
            range(len(names)),
            [f"{clipped(name, 30)}  ({evaluation.per_class[name].n})" for name in names],
            fontsize=SMALL,
        )
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(FuncFormatter(_as_percent))
        axes.grid(axis="both", color=MUTED, alpha=0.15, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("pictures recognised, with 95% interval (in brackets: how many there are)")
        if base is not None:
            legend(axes, [("base with a probe", BASE_COLOUR, 1.0), ("tuned", TUNED_COLOUR, 1.0)])
        return as_svg(figure, "per-class", f"Accuracy by class on {evaluation.split}", names)


# ---------------------------------------------------------------------------- words


def _heading(figure: Figure, lines: Sequence[str]) -> None:
    """What the figure shows, in words above it."""
    letters = int(figure.get_figwidth() * 96 / 5.7)
    broken = [part for line in lines for part in textwrap.wrap(line, letters)]
    figure.suptitle("\n".join(broken), x=0.01, ha="left", fontsize=SMALL, color=INK)


def _as_percent(value: float, _: object = None) -> str:
    return f"{round(100 * value, 1):g}%"
