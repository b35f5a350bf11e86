"""How far a classifier's probabilities can be trusted, as SVG text in the style of `style`.

Orange is the tuned classifier, grey what it is measured against; the bars of accuracies are 95% Wilson
intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from transferscope.evaluation.calibration import Calibration
from transferscope.evaluation.selective import Abstention, Operating
from transferscope.evaluation.sentences import calibration_heading
from transferscope.report.figures import style

_SAME_PLACE = 0.03  # difference in coverage below which two thresholds share a label


# ---------------------------------------------------------------------------- calibration


def reliability_figure(calibration: Calibration) -> str:
    """Accuracy against confidence by bin, with the diagonal, and how many pictures each bin has.

    The area of a dot is its bin's number of pictures; the bars are Wilson intervals. Below stand the
    confidences as a histogram.
    """
    bins = calibration.bins
    total = max(sum(one.n for one in bins), 1)
    with style.drawing(500, 560) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4.2, 1))
        style.heading(figure, calibration_heading(calibration))
        for axes in (upper, lower):
            axes.yaxis.set_major_formatter(style.percent_tick)
        upper.plot([0, 1], [0, 1], color=style.MUTED, alpha=0.6, linewidth=1, linestyle=(0, (4, 2)))
        along = {"rotation": 45, "rotation_mode": "anchor", "transform_rotates_text": True}
        words = "as often right as stated"
        style.note(upper, words, (0.03, 0.03), (0, 8), color=style.MUTED, **along)
        low, high = np.array([one.interval for one in bins]).reshape(-1, 2).T
        places = np.array([(one.confidence, one.accuracy) for one in bins]).reshape(-1, 2).T
        areas = [14 + 260 * one.n / total for one in bins]
        colour = style.TUNED_COLOUR
        upper.vlines(places[0], low, high, colors=colour, linewidths=1.2)
        upper.scatter(
            *places, areas, color=colour, alpha=0.75, linewidths=0, clip_on=False, zorder=3
        )
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="of these, right")
        style.grid(upper)
        edges, sides = [one.low for one in bins], [one.high - one.low for one in bins]
        shares = [one.n / total for one in bins]
        lower.bar(edges, shares, sides, align="edge", color=colour, alpha=0.55, linewidth=0)
        lower.set_ylim(bottom=0)
        lower.yaxis.set_major_locator(MaxNLocator(3))
        lower.xaxis.set_major_formatter(style.percent_tick)
        lower.set(xlabel="confidence: probability stated for the answer", ylabel="pictures")
        return style.as_svg(figure, "reliability", "Accuracy against confidence")


# ---------------------------------------------------------------------------- abstaining


def coverage_figure(abstention: Abstention) -> str:
    """Accuracy of the surest answers against their share, with the thresholds chosen on validation.

    A threshold that leaves nothing out, or out of which nothing comes, is not drawn.
    """
    marks = [one for one in abstention.operating if one.accuracy is not None and one.coverage < 1]
    with style.panel(760, 330) as (figure, axes):
        said = (
            f"All answered: {abstention.accuracy[-1]:.1%} right. Mean share of wrong answers over "
            f"all coverages: {abstention.area:.2%}."
        )
        style.heading(figure, [said])
        coverage, accuracy = np.array(abstention.coverage), np.array(abstention.accuracy)
        axes.plot(coverage, accuracy, color=style.TUNED_COLOUR, linewidth=1.8)
        last = (coverage[-1], accuracy[-1])
        axes.plot(*last, "o", color=style.TUNED_COLOUR, markersize=6, clip_on=False)
        _mark_thresholds(axes, marks)
        lowest = min([*accuracy[coverage >= 0.05], *(one.accuracy or 0.0 for one in marks)])
        axes.set(xlim=(0, 1), ylim=(max(0.0, math.floor(20 * (lowest - 0.02)) / 20), 1))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(style.percent_tick)
        style.grid(axes)
        axes.set(xlabel="pictures answered, the surest first", ylabel="of these, right")
        return style.as_svg(figure, "coverage", "Accuracy against the share that is answered")


def _mark_thresholds(axes: Axes, marks: Sequence[Operating]) -> None:
    """Rings on the curve with what was wanted, and what they do as lines in the lower left corner."""
    groups: list[list[Operating]] = []
    for one in sorted(marks, key=lambda one: (one.coverage, -one.wanted)):
        if groups and one.coverage - groups[-1][-1].coverage < _SAME_PLACE:
            groups[-1].append(one)
        else:
            groups.append([one])
    ring = style.ring(style.INK, 8, 1.3)
    for group in groups:
        for one in group:
            axes.plot(one.coverage, one.accuracy or 0.0, clip_on=False, **ring)
        wanted = ", ".join(f"{one.wanted:.0%}" for one in sorted(group, key=lambda one: one.wanted))
        place = (group[0].coverage, group[0].accuracy or 0.0)
        style.note(axes, wanted, place, (-7, -11), ha="right", va="center")
    lines = [
        f"{one.wanted:.0%} wanted: confidence ≥ {one.min_confidence:.3f}, {one.coverage:.1%} answered, "
        f"{one.accuracy or 0.0:.1%} of them right"
        for one in sorted(marks, key=lambda one: one.wanted)
    ]
    words = "\n".join(lines)
    axes.text(0.015, 0.03, words, transform=axes.transAxes, va="bottom", linespacing=1.4)
