"""Accuracy by group, as SVG text in the style of `style`."""

from __future__ import annotations

import numpy as np

from transferscope.errors import InputError
from transferscope.evaluation.metrics import Evaluation
from transferscope.report.figures import style

_SHOWN = 40  # groups, at most: the worst
_COLOUR = {"worse": style.TUNED_COLOUR, "better": style.BASE_COLOUR}


def groups_figure(evaluation: Evaluation) -> str:
    """Accuracy of each group with its Wilson interval, the worst first, beside that of all pictures.

    Orange and blue are worse and better than the rest by more than chance explains.

    Raises:
        InputError: the evaluation has no groups.
    """
    if not evaluation.groups or evaluation.group_test is None:
        raise InputError("the evaluation has no groups; evaluate it by a column to draw them")
    groups, test = evaluation.groups, evaluation.group_test
    names = list(groups)[:_SHOWN]
    shown = [groups[name] for name in names]
    with style.panel(760, 124 + 20 * len(names)) as (figure, axes):
        verdict = "differ by more than chance explains" if test.differ else "differ as by chance"
        more = f"; the {_SHOWN} worst" if len(groups) > _SHOWN else ""
        style.heading(
            figure,
            [
                f"{len(groups)} groups by {test.column} {verdict} (p = {test.p:.2g}){more}.",
                "Orange: worse than the rest by more than chance; blue: better; grey: neither is known.",
            ],
        )
        rows = np.arange(len(names))
        low, high = np.array([one.interval for one in shown]).T
        colours = [_COLOUR.get(one.standing, style.MUTED) for one in shown]
        overall = sum(one.accuracy * one.n for one in groups.values()) / test.n
        axes.axvline(overall, color=style.MUTED, linewidth=1, linestyle=(0, (4, 2)), alpha=0.7)
        axes.hlines(rows, low, high, colors=colours, linewidths=1.2, alpha=0.7)
        for row, one, colour in zip(rows, shown, colours, strict=True):
            axes.plot(one.accuracy, row, "o", markersize=6, color=colour, clip_on=False)
        style.named_rows(
            axes, [f"{style.clipped(name, 30)}  ({groups[name].n:,})" for name in names]
        )
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(style.percent_tick)
        style.grid(axes)
        axes.set_xlabel("pictures recognised, with 95% interval; dashed: all together")
        return style.as_svg(figure, "groups", f"Accuracy by {test.column}")
