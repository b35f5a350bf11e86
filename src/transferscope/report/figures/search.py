"""The figure of a search for settings, as SVG text in the style of `style`.

Orange is the trial that was chosen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from transferscope.errors import InputError
from transferscope.report.figures import style
from transferscope.wording import rate_words

TRIAL_CAP = 60
"""Trials of a search that are listed at most: the best."""


def search_figure(trials: Sequence[Mapping[str, Any]]) -> str:
    """A budgeted search: what each stretch of time found, and all trials by their accuracy.

    Above, a dot a trial at the time when it ended, with the best so far as a staircase. Below, a
    line a trial, the best first (60 of them at most): its settings in words and its accuracy. Trials that were
    stopped early are hollow.

    Args:
        trials: in the order they were run, each with trial (a number), settings (a mapping of names
            to values), top1 (on validation, in [0, 1]), loss, seconds (of this trial alone), status
            ("finished" or "stopped early") and chosen.

    Raises:
        InputError: there are no trials.
    """
    if not trials:
        raise InputError("the search has no trials; give it a budget of at least one")
    ranked = sorted(trials, key=_rank)
    shown = ranked[:TRIAL_CAP]
    names = list(dict.fromkeys(name for trial in shown for name in trial["settings"]))
    height = 216 + 20 * len(shown) + (16 if len(ranked) > len(shown) else 0)
    with style.drawing(760, height) as figure:
        above, below = figure.subplots(2, 1, height_ratios=(132, 40 + 20 * len(shown)))
        _time_panel(above, trials)
        _trial_table(below, shown, names)
        if len(ranked) > len(shown):
            below.set_xlabel(f"the best {len(shown)} of {len(ranked)} trials")
        legend = [Line2D([], [], label="chosen", **_trial_dot({"chosen": True}))]
        for status in ("finished", "stopped early"):
            if any(trial.get("status") == status for trial in trials):
                legend.append(Line2D([], [], label=status, **_trial_dot({"status": status})))
        style.legend_above(figure, legend)
        return style.as_svg(figure, "search", "Trials of the search")


def _rank(trial: Mapping[str, Any]) -> tuple[float, float, int]:
    """Higher accuracies first, then lower losses; what is not a number comes last."""
    top1, loss = float(trial["top1"]), float(trial["loss"])
    accuracy, loss = (one if math.isfinite(one) else math.inf for one in (-top1, loss))
    return accuracy, loss, int(trial["trial"])


def _trial_dot(trial: Mapping[str, Any]) -> dict[str, Any]:
    chosen = trial.get("chosen")
    colour = style.TUNED_COLOUR if chosen else style.BASE_COLOUR
    dot = style.ring(colour, 8 if chosen else 5.5, 1.3)
    return dot if trial.get("status") == "stopped early" else dot | {"markerfacecolor": colour}


def _time_panel(axes: Axes, trials: Sequence[Mapping[str, Any]]) -> None:
    ended = np.cumsum([float(trial["seconds"]) for trial in trials])
    top1 = np.array([float(trial["top1"]) for trial in trials])
    best = np.maximum.accumulate(np.nan_to_num(top1, nan=-math.inf))
    seen = np.isfinite(best)
    unit, name = (60.0, "minutes") if ended[-1] > 180 else (1.0, "seconds")
    line: dict[str, Any] = {"color": style.MUTED, "alpha": 0.5, "linewidth": 1.2}
    axes.step(ended[seen] / unit, best[seen], where="post", **line)
    dots = zip(trials, ended / unit, top1, strict=True)
    for trial, x, y in sorted(dots, key=lambda one: bool(one[0].get("chosen"))):
        axes.plot(x, y, clip_on=False, **_trial_dot(trial))
    axes.set_xlim(0, ended[-1] / unit * 1.02 or 1)
    axes.yaxis.set_major_formatter(style.percent_tick)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    low, high = np.nanmin(top1, initial=1.0), np.nanmax(top1, initial=0.0)
    room = max(0.12 * (high - low), 0.01)
    axes.set_ylim(max(0.0, low - room), min(1.0, high + room))  # dots may stand on the edge
    style.grid(axes, "y", alpha=0.13)
    axes.set_xlabel(f"{name} of searching")
    style.panel_title(axes, "Validation accuracy by time; the line is the best so far")


def _trial_table(axes: Axes, shown: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Columns of words, then a dot on a scale and the accuracy itself."""
    cells: dict[str, list[str]] = {
        "trial": [str(trial["trial"]) for trial in shown],
        **{n: [_setting(trial["settings"].get(n)) for trial in shown] for n in names},
        "seconds": [f"{float(trial['seconds']):.1f}" for trial in shown],
    }
    widths = {n: max(map(style.text_width, [n, *column])) + 2.5 for n, column in cells.items()}
    words = min(0.72, sum(widths.values()) * 6.1 / 740)  # of the panel's width
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.set(xlim=(0, 1), ylim=(len(shown) - 0.4, -1.4), xticks=[], yticks=[])
    starts = words * (np.cumsum([0.0, *widths.values()]) / sum(widths.values()))
    for (name, column), start in zip(cells.items(), starts[:-1], strict=True):
        _word(axes, start, -1, name.replace("_", " "), muted=True)
        for row, text in enumerate(column):
            _word(axes, start, row, text, fontweight=_weight(shown[row]))
    _word(axes, words, -1, "validation accuracy", muted=True)
    left, right = words + 0.01, 0.915
    known = [float(t["top1"]) for t in shown if math.isfinite(float(t["top1"]))]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    for row, trial in enumerate(shown):
        axes.plot([left, right], [row, row], color=style.MUTED, alpha=0.16, linewidth=0.7, zorder=0)
        top1 = float(trial["top1"])
        if math.isfinite(top1):
            place = left + (right - left) * ((top1 - low) / (high - low) if high > low else 1.0)
            axes.plot(place, row, clip_on=False, **_trial_dot(trial))
        said = f"{top1:.1%}" if math.isfinite(top1) else "none"
        _word(axes, 1.0, row, said, fontweight=_weight(trial), ha="right")


def _weight(trial: Mapping[str, Any]) -> str:
    return "bold" if trial.get("chosen") else "normal"


def _word(axes: Axes, x: float, row: int, text: str, *, muted: bool = False, **looks: Any) -> None:
    if muted:
        looks |= {"color": style.MUTED, "alpha": 0.7}
    axes.text(x, row, text, va="center_baseline", **looks)


def _setting(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return rate_words(value)
    return style.clipped(str(value), 18)
