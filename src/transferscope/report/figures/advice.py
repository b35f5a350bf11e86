"""Figures of an advice, as SVG text in the style of `style`: probes by stage, and the lesson's plane.

Blue is what was measured, orange what is recommended.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from transferscope.report.figures import style
from transferscope.training.advice import (
    LARGE,
    LESSON,
    SIMILAR,
    SOURCE_CLASSES,
    SOURCE_PICTURES,
    Advice,
    BackboneAdvice,
)

_LEAST, _MOST = 1.0, 10_000.0  # pictures a class that the plane shows at least
_LABEL = 0.1  # of the accuracy's axis: the room that a point's label needs above it
_QUARTERS = (0, 0.25, 0.5, 0.75, 1)
_APART = 24.0  # points between backbones on the plane: the set's height is the first one's


def stage_figure(advice: Advice) -> str:
    """Accuracy of a linear probe by stage, with 95% intervals; a panel a backbone.

    The dashed line is the control (random weights), the dotted one chance. Filled points are those of
    stages that are not measurably worse than the best. What would be tuned is shaded.
    """
    with style.drawing(760, 20 + 270 * len(advice.backbones)) as figure:
        panels = figure.subplots(len(advice.backbones), 1, squeeze=False)[:, 0]
        for axes, one in zip(panels, advice.backbones, strict=True):
            _stages(axes, one)
        return style.as_svg(figure, "stages", "Probe accuracy by stage")


def _stages(axes: Axes, one: BackboneAdvice) -> None:
    levels = (
        (one.control.top1, "random weights", (0, (5, 3))),
        (one.chance, "always the largest class", (0, (1, 2.5))),
    )
    places = np.arange(len(one.stages))
    values = np.array([stage.top1 for stage in one.stages])
    ends = np.array([stage.interval for stage in one.stages]).T
    bars: dict[str, Any] = {"linewidth": 1.4, "elinewidth": 1.4, "capsize": 3, "zorder": 3}
    errors = np.maximum([values - ends[0], ends[1] - values], 0)
    axes.errorbar(places, values, yerr=errors, color=style.BASE_COLOUR, **bars)
    for place, stage in enumerate(one.stages):
        dot = style.ring(style.BASE_COLOUR, 7, 1.5)
        dot["markerfacecolor"] = style.BASE_COLOUR if stage.as_good_as_best else "white"
        axes.plot(place, stage.top1, zorder=4, **dot)
        above = not any(0 < level - stage.interval[1] < _LABEL for level, *_ in levels)
        at, shift = (place, stage.interval[above]), (0, 5 if above else -5)
        side = "bottom" if above else "top"
        style.note(axes, f"{stage.top1:.1%}", at, shift, ha="center", va=side, zorder=5)
    for level, words, dashes in levels:
        axes.axhline(level, color=style.MUTED, linewidth=1, linestyle=dashes, zorder=1)
        across = ("axes fraction", "data")
        style.note(axes, f"{words}, {level:.1%}", (1, level), (0, 3), xycoords=across, ha="right")
    _tuned(axes, one)
    axes.set_xticks(places, [style.clipped(stage.stage, 16) for stage in one.stages])
    axes.set(xlim=(-0.5, len(one.stages) - 0.5), ylim=(0, 1.09))
    style.ticks(axes.yaxis, _QUARTERS, style.percent_tick)
    style.grid(axes, "y")
    axes.set_ylabel("unseen pictures recognised")
    style.panel_title(axes, f"{one.backbone}: a linear probe of each stage")


def _tuned(axes: Axes, one: BackboneAdvice) -> None:
    """Shades the stages that would be tuned and says which strategy that is."""
    names = [stage.stage for stage in one.stages]
    words, start = "recommended: the probe alone, nothing tuned", None
    if one.strategy == "full":
        words, start = "recommended: tune all of it (shaded)", -0.5
    elif one.boundary in names:
        words = f"recommended: tune what lies behind {one.boundary} (shaded)"
        start = names.index(one.boundary) + 0.5
    if start is not None:
        size = (len(names) - 0.5 - start, 1.09)
        style.shade(axes, (start, 0), size, style.TUNED_COLOUR, 0.1)
        axes.axvline(start, color=style.TUNED_COLOUR, linewidth=1.4, zorder=2)
    axes.set_title(words, loc="right")


def plane_figure(advice: Advice) -> str:
    """The plane of the lesson: similarity across, training pictures a class upwards, a dot a backbone.

    A backbone's dot stands at the mean of its two measures of similarity, which the ends of its line
    show. The first stands at the set's height; further ones are drawn beneath or above it.
    """
    height = advice.per_class
    low, high = min(_LEAST, height / 2), max(_MOST, height * 2)
    with style.panel(620, 470) as (figure, axes):
        axes.set(yscale="log", xlim=(0, 1), ylim=(low, high))
        _quadrants(axes, advice, low, high)
        for number, one in enumerate(advice.backbones):
            shift = _APART * number * (1 if height >= LARGE else -1)  # away from the border
            _placed(axes, one, height, shift, chosen=one.backbone == advice.chosen)
        axes.xaxis.set_major_locator(FixedLocator(_QUARTERS))
        axes.yaxis.set_major_formatter(style.count_tick)
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set(xlabel="similarity to the source task", ylabel="training pictures a class")
        _marks(axes, any(one.pictures is not None for one in advice.backbones))
        return style.as_svg(figure, "plane", "Similarity and size of the set")


def _quadrants(axes: Axes, advice: Advice, low: float, high: float) -> None:
    """Borders, the lesson's advice in every quadrant, and where the source lies."""
    similar, large = advice.quadrant
    corner = (SIMILAR if similar else 0, LARGE if large else low)
    size = (1 - SIMILAR if similar else SIMILAR, high - LARGE if large else LARGE - low)
    style.shade(axes, corner, size, style.TUNED_COLOUR, 0.09)
    axes.axvline(SIMILAR, color=style.MUTED, linewidth=0.7, alpha=0.6)
    axes.axhline(LARGE, color=style.MUTED, linewidth=0.7, alpha=0.6)
    for (is_similar, is_large), lesson in LESSON.items():
        words = f"{'similar' if is_similar else 'different'}, {'large' if is_large else 'small'}"
        corner = (SIMILAR if is_similar else 0, high if is_large else low)
        bold = {"fontsize": style.TEXT, "fontweight": "bold"}
        style.note(axes, words, corner, (8, -14 if is_large else 22), **bold)
        style.note(axes, lesson, corner, (8, -27 if is_large else 9))
    source = SOURCE_PICTURES / SOURCE_CLASSES
    axes.plot(1, source, "D", markersize=6, color=style.MUTED, clip_on=False)
    said = f"ImageNet: {SOURCE_PICTURES:,} pictures, {SOURCE_CLASSES:,} classes"
    style.note(axes, said, (1, source), (-9, 0), ha="right", va="center")


def _placed(axes: Axes, one: BackboneAdvice, height: float, lift: float, *, chosen: bool) -> None:
    """One backbone's dot, the two measures that it stands between, and its name."""
    place = axes.transData + ScaledTranslation(0, lift / 72, axes.figure.dpi_scale_trans)
    drawn: dict[str, Any] = {
        "color": style.TUNED_COLOUR if chosen else style.BASE_COLOUR,
        "transform": place,
        "clip_on": False,
    }
    if one.pictures is not None:
        axes.plot([one.gain, one.pictures], [height] * 2, linewidth=1.4, **drawn)
        axes.plot(one.pictures, height, "s", markersize=5, **drawn)
        axes.plot(one.gain, height, "^", markersize=6, **drawn)
    axes.plot(one.similarity, height, "o", markersize=10, **drawn)
    below = 0.5 * LARGE < height < LARGE  # else the border would run through the name
    across = "left" if one.similarity < 0.12 else "right" if one.similarity > 0.88 else "center"
    sides = {"ha": across, "va": "top" if below else "bottom"}
    shift = (0, -8 if below else 8)
    style.note(axes, one.backbone, (one.similarity, height), shift, xycoords=place, **sides)


def _marks(axes: Axes, both: bool) -> None:
    """What the marks mean, in a line above the axes."""
    entries = [("o", 9.0, "your set, the mean of" if both else "your set, by transfer gain")]
    if both:
        entries += [("^", 6.0, "transfer gain and"), ("s", 5.0, "statistics of the pictures")]
    handles = [
        Line2D([], [], linestyle="", marker=m, markersize=s, color=style.MUTED, label=words)
        for m, s, words in entries
    ]
    style.legend_above(axes.figure, handles, handletextpad=0.3, columnspacing=1.4)
