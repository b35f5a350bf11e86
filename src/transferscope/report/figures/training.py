"""Figures of how a tuning went, as SVG text in the style of `style`: history and learning rates.

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
from matplotlib.ticker import MaxNLocator

from transferscope.errors import InputError
from transferscope.report.figures import style
from transferscope.wording import rate_words

_DASHED = (0, (4, 2))
_DOTTED = (0, (1, 2))
_MARKED = 40  # epochs up to which each is a dot
_FAINT = 0.65  # of the ink, for what only accompanies
_RING = style.ring(style.TUNED_COLOUR, 9, 1.7)


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

    Raises:
        InputError: there are no rows, or a cell is not a number.
    """
    if not rows:
        raise InputError("the history has no rows; train for at least one epoch to draw it")
    epochs = _column(rows, "epoch")
    rates = np.where(epochs > 0, _column(rows, "learning_rate"), math.nan)
    calibrated = _column(rows, "calibrated_loss")
    known, rated = bool(np.isfinite(calibrated).any()), bool(np.isfinite(rates).any())
    bests = [at for at, row in zip(epochs, rows, strict=True) if row.get("best") == "1"]
    best = float(bests[-1]) if bests else None
    with style.drawing(760, 372 if rated else 290) as figure:
        cells = figure.add_gridspec(1 + rated, 2, height_ratios=(4.6, 1)[: 1 + rated])
        if rated:
            _rate_strip(figure.add_subplot(cells[1, :]), epochs, rates, best)
        for place, (measure, title) in enumerate((("loss", "Loss"), ("top1", "Accuracy"))):
            axes = figure.add_subplot(cells[0, place])
            train, validation = (_column(rows, f"{p}_{measure}") for p in ("train", "validation"))
            _epoch_axis(axes, epochs, best, title)
            _line(axes, epochs, train, colour=style.MUTED, dashes=_DASHED)
            if measure == "loss" and known:
                axes.plot(epochs, validation, color=style.TUNED_COLOUR, linewidth=0.9)
                validation = calibrated
            _line(axes, epochs, validation, colour=style.TUNED_COLOUR, dashes="-")
            if measure == "top1":
                axes.yaxis.set_major_formatter(style.percent_tick)
            if best is not None and math.isfinite(value := validation[epochs == best][-1]):
                said = f"{value:.3f}" if measure == "loss" else f"{value:.1%}"
                axes.set_title(f"{_epoch_name(best)}: {said}", loc="right")
                axes.plot(best, value, **_RING)
        _history_legend(figure, best, calibrated=known)
        return style.as_svg(figure, "history", "Loss, accuracy and learning rate by epoch")


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


def _rate_strip(axes: Axes, epochs: np.ndarray, rates: np.ndarray, best: float | None) -> None:
    _epoch_axis(axes, epochs, best, "Learning rate")
    _line(axes, epochs, rates, colour=style.MUTED, dashes="-")
    highest = float(np.nanmax(rates))
    axes.set(ylim=(-0.06 * highest, highest * 1.15 or 1), xlabel="epoch")
    style.ticks(axes.yaxis, [0, highest] if highest else [0], _rate_tick)


def _epoch_axis(axes: Axes, epochs: np.ndarray, best: float | None, title: str) -> None:
    margin = 0.03 * float(epochs[-1] - epochs[0]) or 0.5
    axes.set_xlim(epochs[0] - margin, epochs[-1] + margin)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(lambda epoch, _: "start" if epoch == 0 else f"{epoch:.0f}")
    style.panel_title(axes, title)
    style.grid(axes, "y", alpha=0.13)
    if best is not None:
        axes.axvline(best, color=style.TUNED_COLOUR, linewidth=0.9, linestyle=_DOTTED, zorder=0)


def _line(axes: Axes, epochs: np.ndarray, values: np.ndarray, *, colour: str, dashes: Any) -> None:
    """A line with a dot an epoch; of many epochs, only those between two gaps have theirs."""
    known = np.isfinite(values)
    left, right = np.append(False, known[:-1]), np.append(known[1:], False)
    dotted = known if len(values) <= _MARKED else known & ~left & ~right
    alpha = _FAINT if colour == style.MUTED else 1.0
    axes.plot(epochs, values, color=colour, alpha=alpha, linestyle=dashes, linewidth=1.7)
    axes.plot(epochs[dotted], values[dotted], "o", color=colour, alpha=alpha, markersize=3)


def _epoch_name(epoch: float) -> str:
    return "the start" if epoch == 0 else f"epoch {epoch:g}"


def _history_legend(figure: Figure, best: float | None, *, calibrated: bool) -> None:
    strong, dashed = _sample("validation", style.TUNED_COLOUR, 1.7), {"linestyle": _DASHED}
    handles = [_sample("training", style.MUTED, 1.7, alpha=_FAINT, **dashed), strong]
    if calibrated:
        handles.append(_sample("validation loss before calibration", style.TUNED_COLOUR, 0.9))
    if best is not None:
        handles.append(Line2D([], [], label=f"best: {_epoch_name(best)}", **_RING))
    style.legend_above(figure, handles)


def _sample(label: str, colour: str, width: float, **settings: Any) -> Line2D:
    """A line of a legend."""
    return Line2D([], [], label=label, color=colour, linewidth=width, **settings)


# ---------------------------------------------------------------------------- learning rates


def lr_figure(
    rates: Sequence[float],
    losses: Sequence[float],
    suggestion: float | None = None,
    *,
    smoothed: Sequence[float],
) -> str:
    """The learning-rate range test: loss against rate, as measured and smoothed.

    The axis of losses ends a little above where the test began: what diverges at its right end
    leaves the picture instead of flattening it, and non-finite losses are not drawn.

    Args:
        rates: of the test's steps, rising, above 0.
        losses: of the same steps.
        suggestion: the rate to be marked; None where the test found none.
        smoothed: the losses as the test smoothed them to find its suggestion.

    Raises:
        InputError: fewer than two finite losses, rates that do not rise from above 0, or not as many
            of the one as of the other.

    Reference: Smith 2017, "Cyclical learning rates for training neural networks", section 3.3.
    """
    steps, values, smooth = (np.asarray(one, dtype=float) for one in (rates, losses, smoothed))
    if len({len(steps), len(values), len(smooth)}) > 1:
        raise InputError(
            f"{len(steps)} rates and {len(values)} losses, {len(smooth)} of them smoothed; give one "
            "loss a rate, as measured and smoothed"
        )
    if not (np.isfinite(steps).all() and (steps > 0).all() and (np.diff(steps) > 0).all()):
        raise InputError("the rates of a range test must rise from above 0; sort them")
    known = np.isfinite(values)
    if known.sum() < 2:
        raise InputError(
            f"{known.sum()} of {len(values)} losses are finite; begin the range test at a lower rate"
        )
    steps, values, smooth = steps[known], values[known], smooth[known]
    with style.panel(760, 300) as (figure, axes):
        axes.set(xscale="log", xlabel="learning rate", ylabel="training loss")
        axes.plot(steps, values, color=style.MUTED, linewidth=1, alpha=0.35)
        axes.plot(steps, smooth, color=style.BASE_COLOUR, linewidth=2.2)
        axes.set(xlim=(steps[0], steps[-1]), ylim=_loss_limits(values, smooth))
        _decades(axes, float(steps[0]), float(steps[-1]))
        style.grid(axes, alpha=0.13)
        if suggestion is not None:
            _mark_suggestion(axes, steps, smooth, suggestion)
        handles = [
            _sample("loss, smoothed", style.BASE_COLOUR, 2.2),
            _sample("loss of each step", style.MUTED, 1, alpha=0.5),
        ]
        style.legend_above(figure, handles)
        return style.as_svg(figure, "rates", "Learning-rate range test")


def _mark_suggestion(axes: Axes, steps: np.ndarray, smooth: np.ndarray, suggestion: float) -> None:
    axes.axvline(suggestion, color=style.TUNED_COLOUR, linewidth=1.1, linestyle=_DOTTED, zorder=1)
    height = float(np.interp(math.log(suggestion), np.log(steps), smooth))
    axes.plot(suggestion, height, **_RING)
    left = suggestion < math.sqrt(float(steps[0] * steps[-1]))
    words, side = f"suggested: {rate_words(suggestion)}", 6 if left else -6
    looks = {"ha": "left" if left else "right", "fontsize": style.TEXT, "fontweight": "bold"}
    across = ("data", "axes fraction")
    style.note(axes, words, (suggestion, 0.03), (side, 0), xycoords=across, **looks)


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
    style.ticks(axes.xaxis, ticks, _rate_tick)


def _rate_tick(value: float, _: object) -> str:
    return rate_words(value)
