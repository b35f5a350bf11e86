"""How well strangers are told, as SVG text in the style of `style`."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from transferscope.evaluation.detection import Detection
from transferscope.evaluation.strangers import SCORES
from transferscope.report.figures import style
from transferscope.wording import counted, number, percent


def strangers_figure(found: Detection) -> str:
    """Share called strangers for every share of false alarms allowed, and AUROC by score."""
    with style.drawing(900, 330) as figure:
        words = (
            f"{counted(found.n, 'stranger')}; {counted(found.own, 'picture')} of the {found.split} split; "
            f"thresholds of {counted(found.validation, 'validation picture')}. Bars are 95% intervals."
        )
        figure.supxlabel(words, x=0.01, ha="left", fontsize=style.SMALL)
        panels = figure.subplot_mosaic([["told", "told", "told", "scores", "scores"]])
        _told(panels["told"], found)
        _scores(panels["scores"], found)
        handles = [
            Line2D([], [], color=style.TUNED_COLOUR, linewidth=1.8, label="strangers"),
            Line2D([], [], color=style.BASE_COLOUR, linewidth=1.8, label="pictures of the classes"),
            Line2D(
                [],
                [],
                color=style.MUTED,
                linewidth=1.2,
                linestyle=(0, (2, 2)),
                label="as many as allowed",
            ),
        ]
        style.legend_above(figure, handles, handlelength=2.0)
        return style.as_svg(figure, "strangers", "How well strangers are told")


def _told(axes: Axes, found: Detection) -> None:
    """Both kinds' cumulative familiarity: what a threshold at any share calls strangers."""
    for values, colour in (
        (found.familiarity_own, style.BASE_COLOUR),
        (found.familiarity_strangers, style.TUNED_COLOUR),
    ):
        shares = np.arange(1, len(values) + 1) / len(values)
        axes.step([0, *values, 1], [0, *shares, 1], where="post", color=colour, linewidth=1.8)
    axes.plot([0, 1], [0, 1], color=style.MUTED, linewidth=1.2, linestyle=(0, (2, 2)))
    axes.axvline(found.allowed, color=style.MUTED, linewidth=1.0, alpha=0.6)
    if found.caught is not None and found.false_alarms is not None:
        said = f"{percent(found.allowed)} allowed: {percent(found.caught)} caught, "
        said += f"{percent(found.false_alarms)} false alarms"
        style.note(axes, said, (found.allowed, 0.04), (5, 0), fontsize=style.SMALL)
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    axes.set_xlabel("share of false alarms allowed")
    axes.set_ylabel("called strangers")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(style.percent_tick)
    style.grid(axes)
    style.panel_title(axes, "At every threshold")


def _scores(axes: Axes, found: Detection) -> None:
    """AUROC with its interval, the best at the top; the one in use in colour."""
    order = sorted(found.scores, key=lambda name: found.scores[name].auroc)
    for row, name in enumerate(order):
        one = found.scores[name]
        colour = style.TUNED_COLOUR if name == found.score else style.MUTED
        axes.hlines(row, *one.auroc_interval, colors=colour, linewidths=1.6)
        axes.plot(one.auroc, row, "o", color=colour, markersize=5)
        axes.text(
            1.02, row, number(one.auroc, 3), va="center", transform=axes.get_yaxis_transform()
        )
    axes.axvline(0.5, color=style.MUTED, linewidth=1.2, linestyle=(0, (2, 2)))
    axes.set_yticks(range(len(order)), [SCORES[name].title for name in order])
    least = min(one.auroc_interval[0] for one in found.scores.values())
    axes.set(xlim=(min(0.45, least - 0.02), 1.005), ylim=(-0.6, len(order) - 0.4))
    axes.set_xlabel("AUROC; 0.5 tells nothing")
    style.grid(axes, "x")
    style.panel_title(axes, "By every score")
