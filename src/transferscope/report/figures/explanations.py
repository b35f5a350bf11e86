"""A picture with its attribution maps, one row a network, as a PNG of four panels."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from transferscope.explain.attribution import METHODS
from transferscope.explain.records import Explanation, NetworkMap, resized
from transferscope.features.exemplar_crops import Polygon, outline
from transferscope.files import write_bytes
from transferscope.report.figures import style
from transferscope.wording import number, percent, signed

Values = NDArray[np.float32]

SIGNED, MAGNITUDE = "RdBu_r", "magma"
"""Colour maps: blue, white at 0, red; and black to light yellow. Both are told apart by every kind of colour
vision, the second by brightness alone."""

GREY = "#5c646d"
WARNING = "#a3320b"

_MARGIN, _LEFT, _SIDE, _GAP = 22.0, 176.0, 212.0, 12.0
_FITTING = 18  # letters of a network's name beside its picture; of a longer one they are smaller
_HEAD, _NAMES, _FOOT, _LINE = 58.0, 20.0, 54.0, 17.0
_GAMMA = 0.7  # of the overlay: half of the largest value keeps three fifths of the colour
_LINE_COLOUR = "#111418"
_RATIO = 2  # pixels of the file a pixel of the page


@dataclass(frozen=True, eq=False)
class MapRow:
    """What is drawn of one network.

    Attributes:
        picture: uint8 (H, W, C), as the network sees it.
        map: float32 (H, W).
        support: what speaks for the target, not negative, (H, W).
        told: its figures.
        control: it has scales of its own: logits of random weights may be many times the others'.
    """

    picture: NDArray[np.uint8]
    map: Values
    support: Values
    told: NetworkMap
    control: bool = False


def write_explanation_figure(path: Path, told: Explanation, rows: Sequence[MapRow]) -> None:
    """Draws input, signed map, magnitude and overlay, a row a network; all but a control share scales.

    Args:
        path: of the PNG.
        told: what stands above and below.
        rows: one a network, in the order of `told.networks`.

    Raises:
        OutputError: the file cannot be written.
    """
    foot = _foot(told)
    width = 2 * _MARGIN + _LEFT + 4 * _SIDE + 3 * _GAP
    top = _MARGIN + _HEAD + _NAMES
    below = top + len(rows) * (_SIDE + _GAP)
    height = below + _FOOT + len(foot) * _LINE + _MARGIN / 2
    with canvas(width, height, texts_of(told)) as (figure, axes):
        _head(axes, told)
        shared = [row for row in rows if not row.control] or rows
        scale, heats = _scale(shared), iter(_heat(shared, told.method))
        for place, row in enumerate(rows):
            alone = row.control and shared is not rows
            ends = _scale([row]) if alone else scale
            heat = _heat([row], told.method)[0] if alone else next(heats)
            _row(axes, top + place * (_SIDE + _GAP), row, ends, heat, told)
        _scales(axes, below, scale, told, "all" if len(shared) == len(rows) else "the other")
        for line, (words, colour) in enumerate(foot):
            y = below + _FOOT + line * _LINE
            axes.text(_MARGIN, y, words, color=colour, va="center", fontsize=style.TEXT)
        save(figure, path, texts_of(told))


def texts_of(told: Explanation) -> list[str]:
    """Names that a figure writes, in whatever script."""
    names = [told.target, told.against or "", file_name(told.picture)]
    return [*names, *(text for one in told.networks for text in (one.network, one.predicted))]


def file_name(path: str) -> str:
    """Without its folders; letters that are not UTF-8 become question marks."""
    return Path(path).name.encode("utf-8", "replace").decode("utf-8")


@contextmanager
def canvas(width: float, height: float, texts: Sequence[str]) -> Iterator[tuple[Figure, Axes]]:
    """One panel whose units are pixels, downwards, without anything around it."""
    with style.panel(width, height, texts) as (figure, axes):
        figure.set_layout_engine("none")
        axes.set(position=(0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        yield figure, axes


def save(figure: Figure, path: Path, texts: Sequence[str]) -> None:
    """Writes a PNG on white, whole or not at all."""
    style.write_font_note(figure, texts)
    data = io.BytesIO()
    options: dict[str, Any] = {
        "dpi": 96 * _RATIO,
        "facecolor": "white",
        "metadata": {"Software": None},
    }
    figure.savefig(data, format="png", **options)
    write_bytes(path, data.getvalue())


# ---------------------------------------------------------------------------- parts


def _head(axes: Axes, told: Explanation) -> None:
    versus = f" rather than “{told.against}”" if told.against else ""
    title = style.clipped(f"“{told.target}”{versus}", 100)
    axes.text(_MARGIN, _MARGIN + 8, title, fontsize=15, fontweight="bold", va="center")
    layer = next((one.layer for one in told.networks if one.layer), None)
    method = METHODS[told.method].title + (f" at {layer}" if layer else "")
    under = f"{method[0].upper()}{method[1:]}  ·  {style.clipped(file_name(told.picture), 70)}"
    axes.text(_MARGIN, _MARGIN + 33, under, fontsize=style.TEXT, color=GREY, va="center")
    names = ("as the network sees it", "signed", "magnitude", "overlay")
    for column, name in enumerate(names):
        axes.text(_column(column), _MARGIN + _HEAD + 8, name, color=GREY, va="center")


def _column(number_: int) -> float:
    return _MARGIN + _LEFT + number_ * (_SIDE + _GAP)


def _row(
    axes: Axes,
    top: float,
    row: MapRow,
    scale: float,
    heat: Values,
    told: Explanation,
) -> None:
    one = row.told
    name = style.clipped(one.network, 24)
    axes.text(
        *(_MARGIN, top + 12, name),
        color=network_colour(one.network),
        fontsize=12 * min(1, _FITTING / style.text_width(name)),
        fontweight="bold",
        va="center",
    )
    score = "logit difference" if told.against else "logit"
    facts = [
        (score, signed(one.logit)),
        ("probability", _sure(one.probability)),
        ("answers", style.clipped(one.predicted, 20)),
    ]
    if told.object_share is not None:
        facts.append(("on the object", percent(one.inside, 0)))
        facts.append(("object's area", percent(told.object_share, 0)))
    if one.converged is False:
        facts.append(("sum misses", signed(one.delta)))
    if row.control:
        facts.append(("its own scale, to", _end(scale)))
    for line, (label, value) in enumerate(facts):
        y = top + 42 + line * 34
        axes.text(_MARGIN, y, label, color=GREY, va="center")
        axes.text(_MARGIN, y + 14, value, fontsize=style.TEXT, va="center")
    painted(axes, _column(0), top, _SIDE, row.picture)
    painted(axes, _column(1), top, _SIDE, coloured(row.map, -scale, scale, SIGNED))
    painted(axes, _column(2), top, _SIDE, coloured(np.abs(row.map), 0, scale, MAGNITUDE))
    painted(axes, _column(3), top, _SIDE, overlaid(row.picture, heat))
    outlined(axes, _column(3), top, _SIDE, heat)


def _sure(value: float) -> str:
    if value >= 0.9995:
        return "> 99.9%"
    return "< 0.1%" if value < 0.0005 else percent(value)


def _scales(axes: Axes, top: float, scale: float, told: Explanation, which: str) -> None:
    """Colour bars below the panels that have one."""
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None]
    ends = {
        1: (ramp * 2 - 1, SIGNED, -1, (f"−{_end(scale)}", "0", _end(scale))),
        2: (ramp, MAGNITUDE, 0, ("0", "", _end(scale))),
    }
    for column, (values, name, low, words) in ends.items():
        left = _column(column)
        axes.imshow(
            coloured(values, low, 1, name),
            extent=(left, left + _SIDE, top + 8, top),
            aspect="auto",
            interpolation="none",
        )
        for share, word, side in zip((0, 0.5, 1), words, ("left", "center", "right"), strict=True):
            axes.text(left + share * _SIDE, top + 18, word, color=GREY, ha=side, va="center")
    says = METHODS[told.method].says
    meaning = (
        "logits a place brings, or costs"
        if says == "support"
        else "logits a unit of brightness: the sign says which way"
    )
    if told.method in ("grad_cam", "layer_cam"):
        meaning = "activation by its weight, positive part"
    axes.text(_column(1), top + 33, meaning, color=GREY, va="center")
    blurred = ", smoothed" if is_grainy(told.method) else ""
    legend = f"in colour: what speaks for it{blurred}\nline: half of the row's largest value"
    axes.text(_column(3), top + 4, legend, color=GREY, va="top", linespacing=1.5)
    if len(told.networks) > 1:
        axes.text(_MARGIN, top + 4, f"one scale for {which} rows", color=GREY, va="center")


def _end(scale: float) -> str:
    return f"{scale:.2g}"


def _foot(told: Explanation) -> list[tuple[str, str]]:
    """What is said below: (words, colour)."""
    lines: list[tuple[str, str]] = []
    if told.change is not None:
        first, second = (one.network for one in told.networks[-2:])
        change = told.change
        lines.append(
            (
                f"{first} and {second}: rank correlation of the maps {number(change.rank_correlation)}, SSIM "
                f"{number(change.ssim)} (1: the same map)",
                style.INK,
            )
        )
    if told.identical:
        lines.append(
            (
                "Nothing below the head was trained: the backbone is bit-identical, only the head's weights "
                "differ.",
                style.INK,
            )
        )
    colour = WARNING if told.passed is False else GREY
    lines += [(words, colour) for words in textwrap.wrap(told.verdict, 165)]
    return lines


# ---------------------------------------------------------------------------- maps as colours


def _scale(rows: Sequence[MapRow]) -> float:
    """The magnitude at which the colours end: that which 99.5% of all rows' values keep within."""
    every = np.concatenate([np.abs(row.map).ravel() for row in rows])
    return float(np.quantile(every, 0.995)) or float(every.max()) or 1.0


def _heat(rows: Sequence[MapRow], method: str) -> list[Values]:
    """Support in [0, 1] on one scale, smoothed where it is of single pixels."""
    return shared_heat([row.support for row in rows], grainy=is_grainy(method))


def is_grainy(method: str) -> bool:
    """Whether a method's maps are of single pixels, which no overlay can show."""
    return not METHODS[method].layer and method != "occlusion"


def shared_heat(supports: Sequence[Values], *, grainy: bool) -> list[Values]:
    """Supports in [0, 1] on the scale of the largest.

    Args:
        supports: (H, W) each, not negative.
        grainy: whether they are smoothed, by a fiftieth of the side.
    """
    from scipy.ndimage import gaussian_filter

    smooth = [
        gaussian_filter(one, max(one.shape) / 50, mode="nearest") if grainy else one
        for one in supports
    ]
    largest = max(float(one.max()) for one in smooth) or 1.0
    return [np.asarray(one / largest, np.float32) for one in smooth]


def coloured(values: Values, low: float, high: float, name: str) -> NDArray[np.uint8]:
    """A map as uint8 (H, W, 3)."""
    shares = np.clip((values - low) / (high - low), 0, 1)
    found: NDArray[np.uint8] = (mpl.colormaps[name](shares)[..., :3] * 255).round().astype(np.uint8)
    return found


def overlaid(picture: NDArray[np.uint8], heat: Values) -> NDArray[np.uint8]:
    """The picture, in its colours where heat in [0, 1] is high and fading to a pale grey where it is not."""
    light = np.clip(resized(heat, picture.shape[:2]), 0, 1)[..., None] ** _GAMMA
    colour = np.broadcast_to(picture, (*picture.shape[:2], 3)).astype(np.float32) / 255
    ground = 0.8 + 0.14 * colour.mean(2, keepdims=True)
    mixed = ground * (1 - light) + colour * light
    found: NDArray[np.uint8] = (np.clip(mixed, 0, 1) * 255).round().astype(np.uint8)
    return found


def outlined(axes: Axes, left: float, top: float, side: float, heat: Values) -> None:
    """A line around the places that reach half of a map's own largest value."""
    outline_at(axes, left, top, side, heat.shape, outline(heat))


def outline_at(
    axes: Axes,
    left: float,
    top: float,
    side: float,
    size: tuple[int, ...],
    polygons: Sequence[Polygon],
) -> None:
    """Polygons, in fractions of a picture of this (height, width), where `painted` paints it."""
    width, height = (side * length / max(size) for length in (size[1], size[0]))
    for polygon in polygons:
        x, y = np.asarray(polygon).T
        for colour, thick in (("white", 2.4), (_LINE_COLOUR, 1.1)):
            thick *= 0.5 + 0.5 * min(1.0, side / _SIDE)
            axes.plot(left + x * width, top + y * height, color=colour, linewidth=thick)


def network_colour(name: str) -> str:
    """Of what is written of a network."""
    return {"base": style.BASE_COLOUR, "tuned": style.TUNED_COLOUR}.get(name, "#33383e")


def painted(axes: Axes, left: float, top: float, side: float, picture: NDArray[np.uint8]) -> None:
    """A picture (H, W, C) fitted into a square from its upper left corner."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    extent = (left, left + width * scale, top + height * scale, top)
    shown = picture[..., 0] if picture.shape[-1] == 1 else picture
    grey: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255} if shown.ndim == 2 else {}
    axes.imshow(shown, extent=extent, aspect="auto", interpolation="bilinear", **grey)
