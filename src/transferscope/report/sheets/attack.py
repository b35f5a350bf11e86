"""One attacked picture: before, the change, after, and how the network's mind was changed."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from transferscope.adversarial.attacks import Perturbation, amplification, difference_picture
from transferscope.adversarial.budgets import epsilon_said
from transferscope.report.figures import style
from transferscope.wording import percent

_SIDE, _GAP, _MARGIN = 236.0, 20.0, 20.0
_HEAD, _TITLE, _FOOT = 44.0, 24.0, 62.0
_CURVE, _LEFT = 300.0, 52.0

_DASHES: Any = (0, (4, 2))
_GREY = "#" + bytes(style.MUTED_RGB).hex()

TARGET_COLOUR = "#aa3377"
"""Of the class that is wanted; the class that was is grey and dashed. Neither is a network's colour."""


def attack_figure(made: Perturbation, *, model: str) -> bytes:
    """A PNG: original, amplified difference on grey, attacked picture, curve of probability over steps.

    Args:
        made: verified.
        model: what was attacked.
    """
    height, width = made.original.shape[:2]
    across, down = (_SIDE * side / max(height, width) for side in (width, height))
    whole = 2 * _MARGIN + 3 * (across + _GAP) + _LEFT + _CURVE
    tall = _HEAD + _TITLE + down + _FOOT
    factor = amplification(made)
    texts = [made.source, made.target, made.noise_answer, model]
    with style.drawing(whole, tall, texts) as figure:
        figure.set_layout_engine("none")
        page = figure.add_axes((0, 0, 1, 1), xlim=(0, whole), ylim=(tall, 0))
        page.set_axis_off()
        sentence = f"{style.clipped(model, 30)} takes the changed picture for {style.clipped(made.target, 40)}"
        page.text(_MARGIN, 27, sentence, fontsize=13, fontweight="bold")
        change = f"{epsilon_said(made.distance, made.norm)}"
        what = "largest change of a value" if made.norm == "linf" else "length of the change"
        tiles: list[tuple[str, NDArray[np.uint8], str, str]] = [
            ("original", made.original, made.source, percent(made.source_probability)),
            (f"difference × {factor}, on grey", difference_picture(made, factor), what, change),
            ("changed", made.adversarial, made.target, percent(made.probability)),
        ]
        for place, (title, picture, words, number) in enumerate(tiles):
            left = _MARGIN + place * (across + _GAP)
            page.text(left, _HEAD + 14, title, color=_GREY, fontsize=style.TEXT)
            top = _HEAD + _TITLE
            shown = picture[..., 0] if picture.shape[2] == 1 else picture
            extent = (left, left + across, top + down, top)
            page.imshow(
                shown,
                cmap="gray",
                vmin=0,
                vmax=255,
                extent=extent,
                aspect="auto",
                interpolation="none",
            )
            y = top + down + 19
            room = across / 7 - len(number) - 2
            page.text(left, y, style.clipped(words, room), fontsize=style.TEXT)
            page.text(left + across, y, number, fontsize=style.TEXT, ha="right")
        page.set(xlim=(0, whole), ylim=(tall, 0))
        noise = (
            f"Random noise of the same size: {style.clipped(made.noise_answer, 40)}, "
            f"{percent(made.noise_probability)}. Changed: what its PNG, read back, is taken for."
        )
        page.text(_MARGIN, tall - 14, noise, color=_GREY)
        box = (whole - _MARGIN - _CURVE, _HEAD + _TITLE, _CURVE, down)
        _curve(
            figure, made, (box[0] / whole, 1 - (box[1] + down) / tall, _CURVE / whole, down / tall)
        )
        for dashes, colour, name, left in (
            ("-", TARGET_COLOUR, made.target, box[0]),
            (_DASHES, _GREY, made.source, box[0] + _CURVE / 2),
        ):
            y = _HEAD + 10
            page.plot([left, left + 18], [y, y], color=colour, linewidth=2, linestyle=dashes)
            word = style.clipped(name, (_CURVE / 2 - 36) / 7)
            page.text(left + 24, _HEAD + 14, word, color=colour, fontsize=style.TEXT)
        if lacking := style.font_note(texts):
            page.text(whole - _MARGIN, tall - 14, lacking, color=_GREY, ha="right")
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=192, facecolor="white", metadata={"Software": None})
        return data.getvalue()


def _curve(figure: Figure, made: Perturbation, box: tuple[float, float, float, float]) -> None:
    axes: Axes = figure.add_axes(box)
    curve = np.array(made.curve).reshape(-1, 2)
    steps = np.arange(len(curve))
    axes.plot(steps, curve[:, 0], color=_GREY, linewidth=1.6, linestyle=_DASHES)
    axes.plot(steps, curve[:, 1], color=TARGET_COLOUR, linewidth=2.2)
    if len(curve) <= 12:  # few steps: a dot each
        axes.plot(steps, curve[:, 1], "o", color=TARGET_COLOUR, markersize=4, clip_on=False)
    axes.set(xlim=(0, max(len(curve) - 1, 1)), ylim=(0, 1), xlabel="probability over steps")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(style.percent_tick)
    style.grid(axes, "y")
