"""A classifier's classes, as SVG text in the style of `style`: sizes, confusions, accuracies.

Orange is the tuned classifier (in a confusion matrix: what is wrong), blue the untuned one, grey
what it is measured against. Accuracies have their 95% Wilson intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.ticker import LogLocator, NullLocator

from transferscope.errors import InputError
from transferscope.evaluation.class_order import class_order
from transferscope.evaluation.class_size import SizedClass, sized_classes
from transferscope.evaluation.metrics import Evaluation, confusion_counts
from transferscope.evaluation.predictions import Predictions
from transferscope.evaluation.sentences import trend_told
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
        style.heading(figure, [trend_told(trend)])
        axes.set_xscale("log")
        axes.fill_between(
            trend.sizes, trend.low, trend.high, color=style.MUTED, alpha=0.16, linewidth=0
        )
        axes.plot(trend.sizes, trend.accuracy, color=style.INK, linewidth=1.4)
        axes.scatter(
            [one.training for one in classes],
            [one.accuracy for one in classes],
            s=[10 + 110 * one.n / most for one in classes],
            color=style.TUNED_COLOUR,
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
        axes.yaxis.set_major_formatter(style.percent_tick)
        style.grid(axes)
        axes.set_xlabel("training pictures of the class")
        axes.set_ylabel("pictures recognised")
        _name_classes(axes, named)
        return style.as_svg(
            figure, "class-sizes", "Accuracy against training pictures", [one.name for one in named]
        )


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
    for one in sorted(named, key=lambda one: (-one.accuracy, one.training)):
        own = _TREND_HEIGHT * (high - one.accuracy) / (high - low)
        place = max(own, place + _LINE)
        style.note(
            axes,
            style.clipped(one.name, 24),
            (one.training, one.accuracy),
            (10, (own - place) * 0.75),
            va="center",
            arrowprops={"arrowstyle": "-", "color": style.MUTED, "linewidth": 0.6, "shrinkB": 3},
        )


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
        axes.set_xlim(-0.5, count - 0.5)
        axes.set_ylim(count - 0.5, -0.5)
        axes.set_aspect("equal")
        size = style.TEXT if count <= 50 else 7.5
        axes.set_xticks(range(count), labels, rotation=90, fontsize=size)
        axes.set_yticks(range(count), labels, fontsize=size)
        axes.tick_params(length=0)
        axes.set_xticks(np.arange(0.5, count - 1), minor=True)
        axes.set_yticks(np.arange(0.5, count - 1), minor=True)
        axes.grid(which="minor", color=style.MUTED, alpha=0.12, linewidth=0.5)
        axes.tick_params(which="minor", length=0)
        axes.set_axisbelow(True)
        tall = count > NUMBERED
        if tall:  # taller than a screen: the names stand where one begins to read
            axes.xaxis.tick_top()
            axes.xaxis.set_label_position("top")
            axes.tick_params(length=0)
        axes.set_xlabel("predicted", loc="left" if tall else "center")
        axes.set_ylabel("true", loc="top" if tall else "center")
        return style.as_svg(figure, "confusion", "Confusion matrix", classes)


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
        colour = mpl.colors.to_rgb(style.MUTED if right else style.TUNED_COLOUR)
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
            said = str(counts[row, column])
            axes.text(
                column, row, said, ha="center", va="center", fontsize=style.SMALL, color=style.INK
            )


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
    names = sorted(
        evaluation.per_class, key=lambda name: (evaluation.per_class[name].accuracy, name)
    )
    with style.panel(760, 84 + 20 * len(names)) as (figure, axes):
        results = [evaluation.per_class[name] for name in names]
        axes.add_collection(
            LineCollection(
                [[(end, row) for end in one.interval] for row, one in enumerate(results)],
                colors=style.TUNED_COLOUR,
                alpha=0.6,
                linewidths=1,
            )
        )
        before = base.per_class if base is not None else {}
        known = [(before[name].accuracy, row) for row, name in enumerate(names) if name in before]
        tuned = [(one.accuracy, row) for row, one in enumerate(results)]
        for dots, size, colour in ((known, 8, style.BASE_COLOUR), (tuned, 6, style.TUNED_COLOUR)):
            places = np.array(dots).reshape(-1, 2).T
            axes.plot(*places, "o", markersize=size, color=colour, clip_on=False)
        labels = [
            f"{style.clipped(name, 30)}  ({one.n})"
            for name, one in zip(names, results, strict=True)
        ]
        style.named_rows(axes, labels, fontsize=style.SMALL)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(style.percent_tick)
        style.grid(axes)
        axes.set_xlabel("pictures recognised, with 95% interval (in brackets: how many there are)")
        if base is not None:
            style.legend(
                axes,
                [("base with a probe", style.BASE_COLOUR, 1.0), ("tuned", style.TUNED_COLOUR, 1.0)],
            )
        return style.as_svg(figure, "per-class", f"Accuracy by class on {evaluation.split}", names)
