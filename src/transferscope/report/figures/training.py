"""Figures of how a tuning went, as SVG text in the style of `figures`: history, rates, trials.

Orange is what is kept or advised, grey what led to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from transferscope.errors import InputError
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
    plain_axes,
    text_width,
)

TRIAL_CAP = 60
"""Trials of a search that are listed at most: the best."""

_DASHED = (0, (4, 2))
_DOTTED = (0, (1, 2))
_MARKED = 40  # epochs up to which each is a dot
_FAINT = 0.65  # of the ink, for what only accompanies
_SMOOTHED = 20  # the smoothing window is about a 20th of the rates on either side


# ---------------------------------------------------------------------------- history


def history_figure(rows: Sequence[Mapping[str, str]]) -> str:
    """Loss, accuracy and learning rate by epoch, with the best epoch marked.

    Epoch 0 is the start, before any step: its place on the axis is called so, and no rate belongs to
    it. Where the loss at the best temperature is known, it is the strong line, as it decides which
    epoch is the best.

    Args:
        rows: of history.csv, with the columns epoch, train_loss, train_top1, validation_loss,
            validation_top1, calibrated_loss, learning_rate and best. An empty cell is a gap in the
            line; without any rate the panel of rates is left out.

    Returns:
        SVG text.

    Raises:
        InputError: there are no rows, or a cell is not a number.
    """
    if not rows:
        raise InputError("the history has no rows; train for at least one epoch to draw it")
    epochs = _column(rows, "epoch")
    rates = np.where(epochs > 0, _column(rows, "learning_rate"), math.nan)
    calibrated = _column(rows, "calibrated_loss")
    best = _best_epoch(rows, epochs)
    with drawing() as draw:
        if np.isfinite(rates).any():
            figure = draw(760, 372)
            grid = figure.add_gridspec(2, 2, height_ratios=(4.6, 1))
            strip = figure.add_subplot(grid[1, :])
            _rate_strip(strip, epochs, rates, best)
        else:
            figure = draw(760, 290)
            grid = figure.add_gridspec(1, 2)
        for place, (measure, title) in enumerate((("loss", "Loss"), ("top1", "Accuracy"))):
            axes = figure.add_subplot(grid[0, place])
            train, validation = (_column(rows, f"{p}_{measure}") for p in ("train", "validation"))
            _epoch_axis(axes, epochs, best, title)
            _line(axes, epochs, train, colour=MUTED, style=_DASHED)
            if measure == "loss" and np.isfinite(calibrated).any():
                axes.plot(epochs, validation, color=TUNED_COLOUR, linewidth=0.9)
                validation = calibrated
            _line(axes, epochs, validation, colour=TUNED_COLOUR, style="-")
            if measure == "top1":
                axes.yaxis.set_major_formatter(FuncFormatter(_percent))
            if best is not None and math.isfinite(value := validation[epochs == best][-1]):
                said = f"{value:.3f}" if measure == "loss" else f"{value:.1%}"
                said = f"{_epoch_name(best)}: {said}"
                axes.set_title(said, loc="right", fontsize=SMALL, color=INK)
                axes.plot(best, value, **_ring())
        _history_legend(figure, best, calibrated=bool(np.isfinite(calibrated).any()))
        return as_svg(figure, "history", "Loss, accuracy and learning rate by epoch", ())


def _best_epoch(rows: Sequence[Mapping[str, str]], epochs: np.ndarray) -> float | None:
    best = None
    for epoch, row in zip(epochs, rows, strict=True):
        if str(row.get("best", "")).strip().lower() in ("1", "1.0", "true", "yes"):
            best = float(epoch)
    return best


def _rate_strip(axes: Axes, epochs: np.ndarray, rates: np.ndarray, best: float | None) -> None:
    _epoch_axis(axes, epochs, best, "Learning rate")
    _line(axes, epochs, rates, colour=MUTED, style="-")
    highest = float(np.nanmax(rates))
    axes.set_ylim(-0.06 * highest, highest * 1.15 or 1)
    axes.yaxis.set_major_locator(FixedLocator([0, highest] if highest else [0]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _rate(value)))
    axes.set_xlabel("epoch")


def _epoch_axis(axes: Axes, epochs: np.ndarray, best: float | None, title: str) -> None:
    plain_axes(axes)
    margin = 0.03 * float(epochs[-1] - epochs[0]) or 0.5
    axes.set_xlim(epochs[0] - margin, epochs[-1] + margin)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda epoch, _: "start" if epoch == 0 else f"{epoch:.0f}")
    )
    axes.set_title(title, loc="left", fontsize=TEXT, fontweight="bold", color=INK)
    axes.grid(axis="y", color=MUTED, alpha=0.13, linewidth=0.6)
    axes.set_axisbelow(True)
    if best is not None:
        axes.axvline(best, color=TUNED_COLOUR, linewidth=0.9, linestyle=_DOTTED, zorder=0)


def _line(axes: Axes, epochs: np.ndarray, values: np.ndarray, *, colour: str, style: Any) -> None:
    """A line with a dot an epoch; of many epochs, only those between two gaps have theirs."""
    known = np.isfinite(values)
    left, right = np.append(False, known[:-1]), np.append(known[1:], False)
    dotted = known if len(values) <= _MARKED else known & ~left & ~right
    alpha = _FAINT if colour == MUTED else 1.0
    axes.plot(epochs, values, color=colour, alpha=alpha, linestyle=style, linewidth=1.7)
    axes.plot(epochs[dotted], values[dotted], "o", color=colour, alpha=alpha, markersize=3)


def _epoch_name(epoch: float) -> str:
    return "the start" if epoch == 0 else f"epoch {epoch:g}"


def _ring() -> dict[str, Any]:
    return {
        "marker": "o",
        "linestyle": "none",
        "markersize": 9,
        "markeredgewidth": 1.7,
        "markerfacecolor": "none",
        "markeredgecolor": TUNED_COLOUR,
    }


def _history_legend(figure: Figure, best: float | None, *, calibrated: bool) -> None:
    handles = [
        Line2D(
            [], [], color=MUTED, alpha=_FAINT, linestyle=_DASHED, linewidth=1.7, label="training"
        ),
        Line2D([], [], color=TUNED_COLOUR, linewidth=1.7, label="validation"),
    ]
    if calibrated:
        name = "validation loss before calibration"
        handles.append(Line2D([], [], color=TUNED_COLOUR, linewidth=0.9, label=name))
    if best is not None:
        handles.append(Line2D([], [], label=f"best: {_epoch_name(best)}", **_ring()))
    _lines_legend(figure, handles)


def _lines_legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=len(handles),
        frameon=False,
        fontsize=SMALL,
        labelcolor=INK,
        handlelength=2,
        columnspacing=1.6,
        borderaxespad=0.2,
    )


# ---------------------------------------------------------------------------- learning rates


def lr_figure(
    rates: Sequence[float],
    losses: Sequence[float],
    suggestion: float | None = None,
    *,
    smoothed: Sequence[float] | None = None,
) -> str:
    """The learning-rate range test: loss against rate, as measured and smoothed.

    The axis of losses ends a little above where the test began: what diverges at its right end
    leaves the picture instead of flattening it, and non-finite losses are not drawn.

    Args:
        rates: of the test's steps, rising, above 0.
        losses: of the same steps.
        suggestion: the rate to be marked; None where the test found none.
        smoothed: the losses as the test smoothed them to find its suggestion; None: means over a
            window centred on each.

    Returns:
        SVG text.

    Raises:
        InputError: fewer than two finite losses, rates that do not rise from above 0, or not as many
            of the one as of the other.

    Reference: Smith 2017, "Cyclical learning rates for training neural networks", section 3.3.
    """
    steps, values = np.asarray(rates, dtype=float), np.asarray(losses, dtype=float)
    if len({len(steps), len(values), len(values if smoothed is None else smoothed)}) > 1:
        raise InputError(f"{len(steps)} rates and {len(values)} losses; give one loss a rate")
    if not (np.isfinite(steps).all() and (steps > 0).all() and (np.diff(steps) > 0).all()):
        raise InputError("the rates of a range test must rise from above 0; sort them")
    known = np.isfinite(values)
    if known.sum() < 2:
        raise InputError(
            f"{known.sum()} of {len(values)} losses are finite; begin the range test at a lower rate"
        )
    steps, values = steps[known], values[known]
    smooth = _smoothed(values) if smoothed is None else np.asarray(smoothed, dtype=float)[known]
    low, high = _loss_limits(values, smooth)
    with drawing() as draw:
        figure = draw(760, 300)
        axes = figure.subplots()
        plain_axes(axes)
        axes.set_xscale("log")
        axes.plot(steps, values, color=MUTED, linewidth=1, alpha=0.35)
        axes.plot(steps, smooth, color=BASE_COLOUR, linewidth=2.2)
        axes.set_ylim(low, high)
        axes.set_xlim(steps[0], steps[-1])
        _decades(axes, float(steps[0]), float(steps[-1]))
        axes.grid(color=MUTED, alpha=0.13, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel("learning rate")
        axes.set_ylabel("training loss")
        if suggestion is not None:
            _mark_suggestion(axes, steps, smooth, suggestion)
        _lines_legend(
            figure,
            [
                Line2D([], [], color=BASE_COLOUR, linewidth=2.2, label="loss, smoothed"),
                Line2D([], [], color=MUTED, linewidth=1, alpha=0.5, label="loss of each step"),
            ],
        )
        return as_svg(figure, "rates", "Learning-rate range test", ())


def _mark_suggestion(axes: Axes, steps: np.ndarray, smooth: np.ndarray, suggestion: float) -> None:
    axes.axvline(suggestion, color=TUNED_COLOUR, linewidth=1.1, linestyle=_DOTTED, zorder=1)
    height = float(np.interp(math.log(suggestion), np.log(steps), smooth))
    axes.plot(suggestion, height, **_ring())
    middle = math.sqrt(float(steps[0] * steps[-1]))
    axes.annotate(
        f"suggested: {_rate(suggestion)}",
        (suggestion, 0.03),
        xycoords=("data", "axes fraction"),
        xytext=(6 if suggestion < middle else -6, 0),
        textcoords="offset points",
        ha="left" if suggestion < middle else "right",
        fontsize=TEXT,
        fontweight="bold",
        color=INK,
    )


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Means over a triangular window centred on each value, so that the minimum stays in place."""
    reach = max(1, len(values) // _SMOOTHED)
    weights = 1.0 - np.abs(np.arange(-reach, reach + 1)) / (reach + 1)
    clipped_values = np.minimum(values, 1e6)  # one overflow would hide its neighbours' shape
    total = np.convolve(clipped_values, weights, mode="full")[reach:-reach]
    return total / np.convolve(np.ones(len(values)), weights, mode="full")[reach:-reach]


def _loss_limits(values: np.ndarray, smooth: np.ndarray) -> tuple[float, float]:
    """From under the least loss to a third above what came before the least smoothed one."""
    lowest = int(np.argmin(smooth))
    before = values[: lowest + 1]
    floor = float(min(values.min(), smooth.min()))
    ceiling = float(max(before.max(), np.median(smooth)))
    room = (ceiling - floor) or abs(floor) or 1.0
    return floor - 0.18 * room, ceiling + 0.3 * room


def _decades(axes: Axes, low: float, high: float) -> None:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [10.0**power for power in powers if low * 0.999 <= 10.0**power <= high * 1.001]
    if len(ticks) < 3:
        ticks = [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _rate(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


# ---------------------------------------------------------------------------- search


def search_figure(trials: Sequence[Mapping[str, Any]]) -> str:
    """A budgeted search: what each stretch of time found, and all trials by their accuracy.

    Above, a dot a trial at the time when it ended, with the best so far as a staircase. Below, a
    line a trial, the best first (60 of them at most): its settings in words and its accuracy. Trials that were
    stopped early are hollow.

    Args:
        trials: in the order they were run, each with trial (a number), settings (a mapping of names
            to values), top1 (on validation, in [0, 1]), loss, seconds (of this trial alone), status
            ("finished" or "stopped early") and chosen.

    Returns:
        SVG text.

    Raises:
        InputError: there are no trials.
    """
    if not trials:
        raise InputError("the search has no trials; give it a budget of at least one")
    ranked = sorted(trials, key=_rank)
    shown = ranked[:TRIAL_CAP]
    names = list(dict.fromkeys(name for trial in shown for name in trial["settings"]))
    with drawing() as draw:
        figure = draw(760, 216 + 20 * len(shown) + (16 if len(ranked) > len(shown) else 0))
        above, below = figure.subplots(2, 1, height_ratios=(132, 40 + 20 * len(shown)))
        _time_panel(above, trials)
        _trial_table(below, shown, names)
        if len(ranked) > len(shown):
            below.set_xlabel(f"the best {len(shown)} of {len(ranked)} trials")
        legend = [Line2D([], [], label="chosen", **_trial_dot({"chosen": True}))]
        for status in ("finished", "stopped early"):
            if any(trial.get("status") == status for trial in trials):
                legend.append(Line2D([], [], label=status, **_trial_dot({"status": status})))
        _lines_legend(figure, legend)
        texts = [_setting(value) for trial in shown for value in trial["settings"].values()]
        return as_svg(figure, "search", "Trials of the search", texts)


def _rank(trial: Mapping[str, Any]) -> tuple[bool, float, float, int]:
    top1, loss = float(trial["top1"]), float(trial["loss"])
    known = math.isfinite(top1)
    return (
        not known,
        -top1 if known else 0.0,
        loss if math.isfinite(loss) else math.inf,
        int(trial["trial"]),
    )


def _trial_dot(trial: Mapping[str, Any]) -> dict[str, Any]:
    colour = TUNED_COLOUR if trial.get("chosen") else BASE_COLOUR
    hollow = trial.get("status") == "stopped early"
    return {
        "marker": "o",
        "linestyle": "none",
        "markersize": 8 if trial.get("chosen") else 5.5,
        "markeredgewidth": 1.3,
        "markeredgecolor": colour,
        "markerfacecolor": "none" if hollow else colour,
    }


def _time_panel(axes: Axes, trials: Sequence[Mapping[str, Any]]) -> None:
    plain_axes(axes)
    ended = np.cumsum([float(trial["seconds"]) for trial in trials])
    top1 = np.array([float(trial["top1"]) for trial in trials])
    best = np.maximum.accumulate(np.nan_to_num(top1, nan=-math.inf))
    seen = np.isfinite(best)
    unit, name = (60.0, "minutes") if ended[-1] > 180 else (1.0, "seconds")
    axes.step(ended[seen] / unit, best[seen], where="post", color=MUTED, alpha=0.5, linewidth=1.2)
    for trial, x, y in sorted(
        zip(trials, ended / unit, top1, strict=True), key=lambda one: bool(one[0].get("chosen"))
    ):
        axes.plot(x, y, clip_on=False, **_trial_dot(trial))
    axes.set_xlim(0, ended[-1] / unit * 1.02 or 1)
    axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    low, high = np.nanmin(top1, initial=1.0), np.nanmax(top1, initial=0.0)
    room = max(0.12 * (high - low), 0.01)
    axes.set_ylim(max(0.0, low - room), min(1.0, high + room))  # dots may stand on the edge
    axes.grid(axis="y", color=MUTED, alpha=0.13, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"{name} of searching")
    title = "Validation accuracy by time; the line is the best so far"
    axes.set_title(title, loc="left", fontsize=TEXT, fontweight="bold", color=INK)


def _trial_table(axes: Axes, shown: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Columns of words, then a dot on a scale and the accuracy itself."""
    cells: dict[str, list[str]] = {
        "trial": [str(trial["trial"]) for trial in shown],
        **{n: [_setting(trial["settings"].get(n)) for trial in shown] for n in names},
        "seconds": [f"{float(trial['seconds']):.1f}" for trial in shown],
    }
    widths = {n: max(map(text_width, [n, *column])) + 2.5 for n, column in cells.items()}
    words = min(0.72, sum(widths.values()) * 6.1 / 740)  # of the panel's width
    plain_axes(axes)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(shown) - 0.4, -1.4)
    axes.xaxis.set_major_locator(NullLocator())
    axes.yaxis.set_major_locator(NullLocator())
    starts = words * (np.cumsum([0.0, *widths.values()]) / sum(widths.values()))
    for (name, column), start in zip(cells.items(), starts[:-1], strict=True):
        _word(axes, start, -1, name.replace("_", " "), muted=True)
        for row, text in enumerate(column):
            _word(axes, start, row, text, bold=bool(shown[row].get("chosen")))
    _word(axes, words, -1, "validation accuracy", muted=True)
    left, right = words + 0.01, 0.915
    known = [float(t["top1"]) for t in shown if math.isfinite(float(t["top1"]))]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    for row, trial in enumerate(shown):
        axes.plot([left, right], [row, row], color=MUTED, alpha=0.16, linewidth=0.7, zorder=0)
        top1 = float(trial["top1"])
        if math.isfinite(top1):
            place = left + (right - left) * ((top1 - low) / (high - low) if high > low else 1.0)
            axes.plot(place, row, clip_on=False, **_trial_dot(trial))
        said = f"{top1:.1%}" if math.isfinite(top1) else "none"
        bold = bool(trial.get("chosen"))
        _word(axes, 1.0, row, said, bold=bold, align="right")


def _word(
    axes: Axes,
    x: float,
    row: int,
    text: str,
    *,
    bold: bool = False,
    muted: bool = False,
    align: str = "left",
) -> None:
    axes.text(
        x,
        row,
        text,
        fontsize=SMALL,
        color=MUTED if muted else INK,
        alpha=0.7 if muted else 1.0,
        fontweight="bold" if bold else "normal",
        ha=align,
        va="center_baseline",
    )


def _setting(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return _rate(value)
    return clipped(str(value), 18)


# ---------------------------------------------------------------------------- numbers


def _percent(value: float, _: object = None) -> str:
    return f"{100 * value:.4g}%"


def _rate(value: float) -> str:
    """A learning rate in few letters: 0, 0.02, 3e-4, 2.5e-5."""
    if value == 0 or 0.001 <= abs(value) < 1000:
        return f"{value:.3g}"
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(power)}"


def _column(rows: Sequence[Mapping[str, str]], name: str) -> np.ndarray:
    """One column as floats; an empty or missing cell is NaN."""
    values = []
    for row in rows:
        cell = str(row.get(name) or "").strip()
        try:
            values.append(float(cell) if cell else math.nan)
        except ValueError:
            raise InputError(
                f"history column {name!r} holds {cell!r}, which is not a number; restore the file"
            ) from None
    return np.asarray(values, dtype=float)
