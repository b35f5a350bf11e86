"""What two networks stood, as SVG text in the style of `style`, as rows of a table, and in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from transferscope.adversarial.corruptions import CORRUPTIONS, STRENGTHS
from transferscope.adversarial.robustness import Middle, Robustness, Share
from transferscope.report.figures import style
from transferscope.wording import counted, percent, signed

_NETWORKS = (("base", style.BASE_COLOUR, "s"), ("tuned", style.TUNED_COLOUR, "o"))


# ---------------------------------------------------------------------------- words


def share_rows(result: Robustness) -> list[tuple[str, str, str, str, str]]:
    """Condition, base, tuned, difference, its interval: every epsilon, then every corruption and strength."""
    rows = []
    for epsilon, share in zip(result.trial.epsilons, result.attacks, strict=True):
        name = "as they are" if epsilon == 0 else f"PGD, epsilon {epsilon:g}/255: at most"
        rows.append(_row(name, share))
    for name, shares in result.corruptions.items():
        for strength, share in enumerate(shares, 1):
            rows.append(_row(f"{CORRUPTIONS[name].title}, strength {strength}", share))
    return rows


def _row(name: str, share: Share) -> tuple[str, str, str, str, str]:
    low, high = share.interval
    return (
        name,
        percent(share.base),
        percent(share.tuned),
        _points(share.difference),
        f"{_points(low)} to {_points(high)}",
    )


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}".replace("-", "−")


def summary(result: Robustness) -> list[str]:
    """What was measured and what it says; never that there is no difference where it was not resolved."""
    drawn = "all" if result.n == result.of else f"{result.n} of {result.of}"
    said = [
        f"{drawn} pictures of the {result.split} split, {counted(result.classes, 'class', 'classes')}; "
        "base is the untuned network with its linear probe. Accuracy under attack is an upper bound: PGD with "
        f"{result.trial.steps} steps and {counted(result.trial.restarts, 'try', 'tries')} found these "
        "pictures, and a stronger attack may find more. Below 1/255 no 8-bit file holds the change."
    ]
    if result.distance is not None:
        said.append(
            "Smallest change by DeepFool (Euclidean, values in [0, 1]), median over the "
            f"{result.distance.n} pictures that both recognise: {_medians(result.distance, 3)}. It too is an "
            "upper bound."
        )
    if result.margin is not None:
        said.append(
            "Margin (logit of the true class less the next), median over the "
            f"{result.margin.n} that both recognise: {_medians(result.margin, 2)}. Logits have no common "
            "scale in two networks: the margin alone says "
            "nothing of robustness."
        )
    worst = min((share.tuned, share.base) for share in result.noise)
    said.append(
        "Control: under random noise of the same sizes at least "
        f"{percent(worst[1])} (base) and {percent(worst[0])} (tuned) stay right."
    )
    return said


def _medians(middle: Middle, digits: int) -> str:
    low, high = middle.interval
    words = (
        f"{middle.base:.{digits}f} for base, {middle.tuned:.{digits}f} for tuned; picture by picture "
        f"{signed(middle.difference, digits)} (95%: {signed(low, digits)} to {signed(high, digits)})"
    )
    return words + (
        ", which this number of pictures does not tell from 0" if low <= 0 <= high else ""
    )


# ---------------------------------------------------------------------------- the figure


def robustness_figure(result: Robustness) -> str:
    """Accuracy against epsilon, the smallest changes, and accuracy under four corruptions."""
    with style.drawing(900, 560) as figure:
        drawn = "All" if result.n == result.of else f"{result.n} of {result.of}"
        words = (
            f"{drawn} pictures of the {result.split} split. Bars are 95% intervals. Under attack, accuracy is "
            "an upper bound: a stronger attack may find more."
        )
        figure.supxlabel(words, x=0.01, ha="left", fontsize=style.SMALL)
        names = list(result.corruptions)
        rows: Any = [
            ["attacks"] * 7 + ["distances"] * 5,
            [name for name in names for _ in range(3)],
        ]
        panels = figure.subplot_mosaic(rows, height_ratios=(1.25, 1))
        _attacks(panels["attacks"], result)
        _distances(panels["distances"], result)
        for place, name in enumerate(names):
            axes, shares = panels[name], result.corruptions[name]
            _corruption(axes, CORRUPTIONS[name].title, [result.attacks[0], *shares])
            if place:
                axes.tick_params(labelleft=False)
            else:
                axes.set_ylabel("right")
        handles = [
            Line2D([], [], color=colour, marker=marker, markersize=5, linewidth=1.8, label=label)
            for (_, colour, marker), label in zip(
                _NETWORKS, ("base: untuned, with its probe", "tuned"), strict=True
            )
        ]
        grey = Line2D(
            [],
            [],
            color=style.MUTED,
            linewidth=1.2,
            linestyle=(0, (2, 2)),
            label="random noise of that size",
        )
        style.legend_above(figure, [*handles, grey], handlelength=2.0)
        return style.as_svg(figure, "robustness", "Accuracy under attack and under corruption")


def _bars(axes: Axes, places: Sequence[float], shares: Sequence[Share], apart: float) -> None:
    """Two curves with their intervals, `apart` from each other."""
    for (name, colour, marker), shift in zip(_NETWORKS, (-apart / 2, apart / 2), strict=True):
        x = np.array(places) + shift
        values = [getattr(share, name) for share in shares]
        low, high = np.array([getattr(share, f"{name}_interval") for share in shares]).T
        axes.vlines(x, low, high, colors=colour, linewidths=1.1, alpha=0.8)
        axes.plot(
            x, values, color=colour, marker=marker, markersize=4.5, linewidth=1.6, clip_on=False
        )
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(style.percent_tick)
    style.grid(axes, "y")


def _attacks(axes: Axes, result: Robustness) -> None:
    places = list(range(len(result.trial.epsilons)))
    dashes = (0, (2, 2))
    for name, colour, _ in _NETWORKS:
        values = [getattr(share, name) for share in result.noise]
        axes.plot(places, values, color=colour, linewidth=1.2, linestyle=dashes)
    _bars(axes, places, result.attacks, 0.08)
    names = ["as it is", *(f"{epsilon:g}" for epsilon in result.trial.epsilons[1:])]
    axes.set_xticks(places, names)
    axes.set(xlabel="epsilon: largest change of any value, of 255", ylabel="right, at most")
    style.panel_title(axes, "Attacked by PGD")


def _distances(axes: Axes, result: Robustness) -> None:
    """For each length, the share of pictures for which DeepFool needs no more."""
    largest = 0.0
    for name, colour, _ in _NETWORKS:
        rows = getattr(result, name)
        found = np.sort([one.distance for one in rows if one.distance is not None])
        if not len(found):
            continue
        largest = max(largest, float(np.quantile(found, 0.98)))
        left = 1 - np.arange(1, len(found) + 1) / len(rows)
        axes.step([0, *found], [1, *left], where="post", color=colour, linewidth=1.8)
    axes.set(xlim=(0, largest * 1.05 or 1), ylim=(0, 1), xlabel="Euclidean length of the change")
    axes.set_ylabel("right, at most")
    axes.yaxis.set_major_formatter(style.percent_tick)
    style.grid(axes, "y")
    style.panel_title(axes, "Smallest change, by DeepFool")


def _corruption(axes: Axes, title: str, shares: Sequence[Share]) -> None:
    _bars(axes, range(len(shares)), shares, 0.12)
    axes.set_xticks(range(STRENGTHS + 1), ["none", *map(str, range(1, STRENGTHS + 1))])
    axes.set_xlabel("strength")
    style.panel_title(axes, title)
