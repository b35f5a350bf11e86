"""A classifier's classes, as SVG text in the style of `style`: sizes, confusions, accuracies.

Orange is the tuned classifier (in a confusion matrix: what is wrong), blue the untuned one, grey
what it is measured against. Accuracies have their 95% Wilson intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.ticker import LogLocator, NullLocator

from transferscope.errors import InputError
from transferscope.evaluation.class_order import class_order
from transferscope.evaluation.class_size import SizedClass, sized_classes
from transferscope.evaluation.metrics import Evaluation, confusion_counts
from transferscope.evaluation.predictions import Predictions
from transferscope.evaluation.sentences import trend_sentence
from transferscope.report.figures import style

NUMBERED = 24
"""Classes up to which a confusion matrix has its counts written in, in the order of the classes; with
more, confused classes stand side by side."""

_NAMED = 6  # classes named beside the trend at most
_DEVIATES = 2.0  # standard deviations from the trend that a class is named from
_TREND_HEIGHT = 290.0  # pixels of the axes of class sizes, about
_LINE = 13.0  # pixels from one label to the next


def size_trend_figure(evaluation: Evaluation) -> str:
    """Accuracy of the classes against their numbers of training pictures, with the fitted trend.

    A dot is a class, its area the number of pictures evaluated. The grey band is the curve's 95%
    band. The classes farthest from the curve, in standard deviations of chance, are named.

    Raises:
        InputError: the evaluation has no trend.
    """
    trend = evaluation.trend
    if trend is None:
        raise InputError(
            "the evaluation has no trend over class sizes: fewer than five classes, all of one size, or "
            "sizes that are not known; there is nothing to draw"
        )
    known = {
        name: (one.training, one.n, one.accuracy)
        for name, one in evaluation.per_class.items()
        if one.training
    }
    classes = sized_classes(trend, known)
    named = [one for one in classes if abs(one.deviation) >= _DEVIATES]
    named = sorted(named, key=lambda one: (-abs(one.deviation), one.name))[:_NAMED]
    most = max(one.n for one in classes)
    with style.panel(760, 400) as (figure, axes):
        style.heading(figure, [trend_sentence(trend)])
        axes.set(xlabel="training pictures of the class", ylabel="pictures recognised")
        axes.set_xscale("log")
        band = (trend.sizes, trend.low, trend.high)
        axes.fill_between(*band, color=style.MUTED, alpha=0.16, linewidth=0)
        axes.plot(trend.sizes, trend.accuracy, color=style.INK, linewidth=1.4)
        sizes, accuracies = np.array([(one.training, one.accuracy) for one in classes]).T
        areas = [10 + 110 * one.n / most for one in classes]
        looks: dict[str, Any] = {
            "color": style.TUNED_COLOUR,
            "linewidths": 0,
            "clip_on": False,
            "zorder": 3,
        }
        axes.scatter(sizes, accuracies, s=areas, alpha=0.5, **looks)
        reach = max(trend.sizes) / min(trend.sizes)
        axes.set_xlim(min(trend.sizes) / reach**0.03, max(trend.sizes) * reach**0.14)
        lowest = min(one.accuracy for one in classes)
        axes.set_ylim(max(-0.02, math.floor(10 * lowest - 0.5) / 10), 1.02)
        _size_axis(axes)
        axes.yaxis.set_major_formatter(style.percent_tick)
        style.grid(axes)
        _name_classes(axes, named)
        return style.as_svg(figure, "class-sizes", "Accuracy against training pictures")


def _size_axis(axes: Axes) -> None:
    """Plain numbers of pictures: at 1, 2 and 5 of each power of ten, or closer on a short axis."""
    low, high = axes.get_xlim()
    subs = (1.0, 2.0, 5.0) if high / low > 4 else tuple(float(s) for s in range(1, 10))
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(style.count_tick)


def _name_classes(axes: Axes, named: Sequence[SizedClass]) -> None:
    """Names to the right of their dots, moved down where one would stand on another."""
    place = -math.inf
    low, high = axes.get_ylim()
    line = {"arrowstyle": "-", "color": style.MUTED, "linewidth": 0.6, "shrinkB": 3}
    for one in sorted(named, key=lambda one: (-one.accuracy, one.training)):
        own = _TREND_HEIGHT * (high - one.accuracy) / (high - low)
        place = max(own, place + _LINE)
        name, dot = style.clipped(one.name, 24), (one.training, one.accuracy)
        style.note(axes, name, dot, (10, (own - place) * 0.75), va="center", arrowprops=line)


def confusion_figure(predictions: Predictions) -> str:
    """True classes in rows, predicted classes in columns; a row's shares sum to 1.

    Up to `NUMBERED` classes the counts are written into the cells, and the classes keep their order; of
    more, those that are confused stand side by side (`class_order`). The figure grows with the number
    of classes, so that its text never does the opposite.
    """
    count = len(predictions.classes)
    order = list(range(count)) if count <= NUMBERED else class_order(predictions)
    classes = [predictions.classes[index] for index in order]
    counts = confusion_counts(predictions)[np.ix_(order, order)]
    cell = 34 if count <= 12 else 26 if count <= NUMBERED else 20 if count <= 50 else 15
    labels = [style.clipped(name, 22) for name in classes]
    reach = 24 + 7.2 * max(map(style.text_width, labels))
    with style.panel(count * cell + reach + 24, count * cell + reach + 24) as (figure, axes):
        _confusion_cells(axes, counts)
        axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), aspect="equal")
        size = style.TEXT if count <= 50 else 7.5
        axes.set_xticks(range(count), labels, rotation=90, fontsize=size)
        axes.set_yticks(range(count), labels, fontsize=size)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(np.arange(0.5, count - 1), minor=True)
        axes.grid(which="minor", alpha=0.12, linewidth=0.5)
        axes.set_axisbelow(True)
        tall = count > NUMBERED
        if tall:  # taller than a screen: the names stand where one begins to read
            axes.xaxis.tick_top()
            axes.xaxis.set_label_position("top")
        axes.tick_params(which="both", length=0)
        axes.set_xlabel("predicted", loc="left" if tall else "center")
        axes.set_ylabel("true", loc="top" if tall else "center")
        return style.as_svg(figure, "confusion", "Confusion matrix")


def _confusion_cells(axes: Axes, counts: np.ndarray) -> None:
    """Squares, grey on the diagonal and orange beside it, and of few classes the counts."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    filled = np.argwhere(counts)
    for right in (True, False):
        cells = filled[(filled[:, 0] == filled[:, 1]) == right]
        corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
        colour = mpl.colors.to_rgb(style.MUTED if right else style.TUNED_COLOUR)
        least, most = (0.06, 0.40) if right else (0.22, 0.95)
        colours = [(*colour, least + (most - least) * shares[tuple(at)]) for at in cells]
        squares = cells[:, None, ::-1] + corners
        axes.add_collection(PolyCollection(squares, facecolors=colours, linewidths=0))
    if len(counts) <= NUMBERED:
        for row, column in filled:
            axes.text(column, row, str(counts[row, column]), ha="center", va="center")


def per_class_figure(evaluation: Evaluation, *, base: Evaluation | None = None) -> str:
    """Accuracy by class, the hardest class first, beside the base network's if it is given.

    The thin bars are the tuned classifier's Wilson intervals. Where both are equal, the base network's dot
    shows around the other.

    Args:
        evaluation: of the tuned classifier.
        base: of the untuned backbone's probe on the same pictures.

    Raises:
        InputError: the evaluation has no classes.
    """
    if not evaluation.per_class:
        raise InputError("the evaluation has no classes; evaluate at least one picture to draw it")
    classes, before = evaluation.per_class, base.per_class if base is not None else {}
    names = sorted(classes, key=lambda name: (classes[name].accuracy, name))
    with style.panel(760, 84 + 20 * len(names)) as (figure, axes):
        rows = range(len(names))
        low, high = np.array([classes[name].interval for name in names]).T
        axes.hlines(rows, low, high, colors=style.TUNED_COLOUR, alpha=0.6, linewidths=1)
        tuned = [(classes[name].accuracy, row) for row, name in enumerate(names)]
        known = [(before[name].accuracy, row) for row, name in enumerate(names) if name in before]
        for dots, size, colour in ((known, 8, style.BASE_COLOUR), (tuned, 6, style.TUNED_COLOUR)):
            places = np.array(dots).reshape(-1, 2).T
            axes.plot(*places, "o", markersize=size, color=colour, clip_on=False)
        style.named_rows(axes, [f"{style.clipped(one, 30)}  ({classes[one].n})" for one in names])
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(style.percent_tick)
        style.grid(axes)
        axes.set_xlabel("pictures recognised, with 95% interval (in brackets: how many there are)")
        if base is not None:
            networks = {"base with a probe": style.BASE_COLOUR, "tuned": style.TUNED_COLOUR}
            style.legend(axes, [(name, colour, 1.0) for name, colour in networks.items()])
        return style.as_svg(figure, "per-class", f"Accuracy by class on {evaluation.split}")
