"""Figures of a comparison, and what all figures share, as SVG text.

Each figure has a transparent ground, ink in `currentColor` and text that stays text: inside a page
it takes the page's colours and fonts, and as a file of its own it follows the reader's light or dark
setting. The same record gives the same bytes.
"""

from __future__ import annotations

import io
import math
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

from transferscope.errors import InputError

if TYPE_CHECKING:
    from transferscope.comparison import Comparison, LayerComparison

BASE_COLOUR = "#4477aa"
TUNED_COLOUR = "#d1622b"
"""The two networks' colours, in every figure and page: told apart by every kind of colour vision,
with a contrast of at least 3:1 on white and on near-black."""

INK = "#010203"
MUTED = "#010204"
"""Stand-ins that matplotlib draws with; `as_svg` puts the page's colours in their place."""

_PIXELS = 96.0
"""Pixels an inch: matplotlib's points are 1/72 inch, the browsers' pixels 1/96."""

TEXT = 9.0  # points: 12 px
SMALL = 8.0  # points: 10.7 px

_POINTS = 300
"""Points drawn beside a box at most; of more, every n-th is."""

_FALLBACKS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "PingFang SC",
    "Hiragino Sans GB",
    "Heiti TC",
    "Microsoft YaHei",
    "SimHei",
    "IPAexGothic",
    "IPAGothic",
    "TakaoGothic",
    "NanumGothic",
    "Arial Unicode MS",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Sans Bengali",
    "Noto Sans Tamil",
    "FreeSans",
    "Symbola",
)
"""Families asked for glyphs that DejaVu Sans does not have, where they are installed."""


# ---------------------------------------------------------------------------- comparison


def layer_box_plot(comparison: Comparison) -> str:
    """Similarity of base and tuned by layer, between the re-render ceiling and the chance floor.

    A layer has two boxes (quartiles; whiskers from the 5th to the 95th percentile; a point a
    channel, thinned where there are hundreds): similarity across the networks in the tuned
    network's colour, and within one network, from one seed to another, in the base network's.
    The grey band holds the central 90% of chance.
    A bit-identical layer is a line at 1.

    Returns:
        SVG text.

    Raises:
        InputError: no layer was compared.
    """
    if not comparison.layers:
        raise InputError("the comparison has no layers; compare at least one to draw it")
    rows = len(comparison.layers)
    with drawing() as draw:
        figure = draw(760, 88 + 66 * rows)
        axes = figure.subplots()
        plain_axes(axes)
        lowest = 1.0
        for row, layer in enumerate(comparison.layers):
            if layer.identical:
                axes.plot([1, 1], [row - 0.34, row + 0.34], color=TUNED_COLOUR, linewidth=2.5)
                axes.annotate(
                    "identical",
                    (1, row),
                    xytext=(-8, 0),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                    fontsize=SMALL,
                    color=INK,
                )
                continue
            if layer.chance_values:
                low, high = np.percentile(layer.chance_values, (5, 95))
                axes.add_patch(
                    Rectangle(
                        (low, row - 0.4),
                        high - low,
                        0.8,
                        facecolor=MUTED,
                        alpha=0.14,
                        linewidth=0,
                    )
                )
                lowest = min(lowest, float(low))
            axes.plot([layer.chance] * 2, [row - 0.4, row + 0.4], color=MUTED, linewidth=1)
            cross = [channel.similarity for channel in layer.channels]
            within = [value for channel in layer.channels for value in channel.rerender.values()]
            _box(axes, within, row - 0.18, BASE_COLOUR)
            _box(axes, cross, row + 0.18, TUNED_COLOUR)
            lowest = min([lowest, layer.chance, *filter(math.isfinite, cross + within)])
        axes.set_xlim(min(0.9, math.floor(lowest * 10 - 0.2) / 10), 1.03)
        axes.set_ylim(rows - 0.45, -0.55)
        names = [layer.layer for layer in comparison.layers]
        axes.set_yticks(range(rows), [clipped(name, 34) for name in names])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=MUTED, alpha=0.18, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel("similarity of two renders")
        legend(
            axes,
            [
                ("base against tuned", TUNED_COLOUR, 0.9),
                ("same network, another seed (ceiling)", BASE_COLOUR, 0.9),
                ("unrelated channels (chance)", MUTED, 0.3),
            ],
        )
        return as_svg(figure, "layers", "Similarity of base and tuned renders by layer", names)


def channel_null_figure(layer: LayerComparison) -> str:
    """The null distribution of one layer and the statistics of its channels.

    Returns:
        SVG text.

    Raises:
        InputError: the layer is identical or has no null, so there is nothing to draw.
    """
    null = np.asarray([value for value in layer.null if math.isfinite(value)], dtype=float)
    values = np.asarray(
        [channel.statistic for channel in layer.channels if math.isfinite(channel.statistic)],
        dtype=float,
    )
    if layer.identical or not len(null) or not len(values):
        raise InputError(
            f"layer {layer.layer!r} has {len(null)} null statistics and {len(values)} channels with "
            "one; a null is drawn of layers that were rendered from two seeds in both networks"
        )
    low = float(min(null.min(), values.min()))
    high = float(max(null.max(), values.max()))
    margin = 0.05 * (high - low) or 0.05
    edges = np.linspace(low - margin, high + margin, 33)
    with drawing() as draw:
        figure = draw(760, 270)
        axes = figure.subplots()
        plain_axes(axes)
        for sample, colour, fill, label in (
            (null, BASE_COLOUR, 0.35, f"null: one network re-rendered ({len(null)})"),
            (values, TUNED_COLOUR, 0.0, f"channels: base against tuned ({len(values)})"),
        ):
            shares = np.histogram(sample, edges)[0] / len(sample)
            axes.stairs(shares, edges, fill=False, color=colour, linewidth=1.6, label=label)
            if fill:
                axes.stairs(shares, edges, fill=True, color=colour, alpha=fill, linewidth=0)
        axes.plot(
            values,
            np.full(len(values), -0.02),
            "|",
            color=TUNED_COLOUR,
            markersize=7,
            transform=axes.get_xaxis_transform(),
            clip_on=False,
        )
        changed = [channel.statistic for channel in layer.channels if channel.changed]
        if changed:
            axes.axvline(min(changed), color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
            axes.annotate(
                "changed from here",
                (min(changed), 0.97),
                xycoords=("data", "axes fraction"),
                xytext=(5, 0),
                textcoords="offset points",
                va="top",
                fontsize=SMALL,
                color=INK,
            )
        axes.set_ylim(bottom=0)
        axes.margins(x=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
        axes.tick_params(axis="x", pad=7)
        axes.set_xlabel("statistic: similarity within a network − similarity across")
        axes.set_ylabel("share")
        legend(
            axes,
            [
                (f"null: one network re-rendered ({len(null)})", BASE_COLOUR, 0.5),
                (f"channels: base against tuned ({len(values)})", TUNED_COLOUR, 0.9),
            ],
        )
        name = f"null-{layer.layer}"
        return as_svg(figure, name, f"Null and channel statistics of {layer.layer}", (layer.layer,))


# ---------------------------------------------------------------------------- text in any script


def font_note(texts: Iterable[str]) -> str | None:
    """What to install if letters of `texts` are in no font of this machine, or None if all are.

    The figures' text stays text, so a reader's browser draws it with the reader's own fonts; the
    note is for the reader who has none either.
    """
    lacking = sorted(
        {
            letter
            for text in texts
            for letter in text
            if not letter.isspace()
            and unicodedata.category(letter) not in ("Cf", "Cc", "Cs", "Mn")
            and not _drawable(letter)
        }
    )
    if not lacking:
        return None
    packages = sorted({_font_package(letter) for letter in lacking})
    shown = "".join(lacking[:6]) + ("…" if len(lacking) > 6 else "")
    return f"Boxes in place of {shown}? Fonts with these letters: package {', '.join(packages)}."


def _font_package(letter: str) -> str:
    name = unicodedata.name(letter, "")
    if any(
        word in name for word in ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "FULLWIDTH")
    ):
        return "fonts-noto-cjk"
    if unicodedata.category(letter) == "So":
        return "fonts-noto-color-emoji"
    return "fonts-noto-core"


@lru_cache(maxsize=1)
def _families() -> tuple[str, ...]:
    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *(family for family in _FALLBACKS if family in installed))


@lru_cache(maxsize=4096)
def _drawable(letter: str) -> bool:
    for family in _families():
        font = font_manager.get_font(font_manager.findfont(family))
        if font.get_char_index(ord(letter)):
            return True
    return False


def text_width(text: str) -> float:
    """Width in units of a Latin letter; an East Asian one is two wide."""
    return sum(1.8 if unicodedata.east_asian_width(letter) in "WF" else 1.0 for letter in text)


def clipped(text: str, width: float) -> str:
    """`text`, on one line, cut in its middle to about `width` Latin letters."""
    text = " ".join(text.split())
    if text_width(text) <= width:
        return text
    head, tail = text, text
    while text_width(head) > width * 0.6:
        head = head[:-1]
    while text_width(tail) > width * 0.4 - 1:
        tail = tail[1:]
    return f"{head}…{tail}"


# ---------------------------------------------------------------------------- drawing


@contextmanager
def drawing() -> Iterator[Callable[[float, float], Figure]]:
    """Sets matplotlib's parameters, gives a function from (width, height) in pixels to a figure."""
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "transferscope",
        "text.parse_math": False,
        "text.usetex": False,
        "font.family": list(_families()),
        "font.size": TEXT,
        "axes.edgecolor": MUTED,
        "axes.linewidth": 0.7,
        "axes.labelcolor": INK,
        "axes.labelsize": SMALL,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "text.color": INK,
        "axes.unicode_minus": True,
    }
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        # Only the room for a letter is measured here; `font_note` tells who lacks a font.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")

        def draw(width: float, height: float) -> Figure:
            return Figure(figsize=(width / _PIXELS, height / _PIXELS), layout="constrained")

        yield draw


def as_svg(figure: Figure, name: str, title: str, texts: Iterable[str]) -> str:
    """The figure as SVG text that can stand in a page or alone."""
    if note := font_note(texts):
        figure.text(0.01, 0.0, note, fontsize=SMALL, color=MUTED, ha="left", va="bottom")
        line = 20 / (figure.get_figheight() * _PIXELS)
        if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
            figure.set_layout_engine("constrained", rect=(0, line, 1, 1 - line))
    raw = io.StringIO()
    figure.savefig(raw, format="svg", transparent=True)
    svg = raw.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    width, height = (round(side * _PIXELS) for side in figure.get_size_inches())
    head, body = svg[: svg.index(">")], svg[svg.index(">") + 1 :]
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    prefix = re.sub(r"[^A-Za-z0-9]+", "-", name)

    def localised(tag: re.Match[str]) -> str:
        text = re.sub(r"(\bid=\"|url\(#|href=\"#)", rf"\g<1>{prefix}-", tag.group())
        return text.replace(INK, "currentColor").replace(MUTED, "currentColor")

    body = re.sub(r"<[^>]*>", localised, body)  # the tags alone: what stands between is names
    style = (  # of a file alone: inside a page the root is not an svg
        "svg:root{color-scheme:light dark;color:#22262b}"
        "@media(prefers-color-scheme:dark){svg:root{color:#e6e6e3}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'role="img" aria-label="{escape(title)}" width="{width}" height="{height}" {box.group()}>'
        f"<title>{escape(title)}</title><style>{style}</style>{body}\n"
    )


def plain_axes(axes: Axes) -> None:
    """Takes the frame's upper and right side away, and the ground."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.patch.set_visible(False)


def _box(axes: Axes, values: Sequence[float], row: float, colour: str) -> None:
    """A horizontal box: quartiles, whiskers from the 5th to the 95th percentile, the points."""
    sample = np.asarray([value for value in values if math.isfinite(value)], dtype=float)
    if not len(sample):
        return
    p5, q1, median, q3, p95 = np.percentile(sample, (5, 25, 50, 75, 95))
    half = 0.11
    axes.plot([p5, q1], [row, row], color=colour, linewidth=1)
    axes.plot([q3, p95], [row, row], color=colour, linewidth=1)
    axes.add_patch(
        Rectangle(
            (q1, row - half),
            q3 - q1,
            2 * half,
            facecolor=(*mpl.colors.to_rgb(colour), 0.22),
            edgecolor=colour,
            linewidth=1,
        )
    )
    axes.plot([median] * 2, [row - half, row + half], color=colour, linewidth=2.2)
    sample = sample[:: math.ceil(len(sample) / _POINTS)]
    # The golden ratio spreads the points without a random number.
    spread = (np.arange(len(sample)) * 0.618034 % 1 - 0.5) * 1.5 * half
    axes.plot(
        sample, row + spread, "o", markersize=2.6, color=colour, alpha=0.55, markeredgewidth=0
    )


def legend(axes: Axes, entries: Sequence[tuple[str, str, float]]) -> None:
    """Swatches with labels in one line above the axes."""
    handles = [
        Rectangle((0, 0), 1, 1, facecolor=colour, alpha=alpha, linewidth=0)
        for _, colour, alpha in entries
    ]
    axes.figure.legend(
        handles,
        [label for label, _, _ in entries],
        loc="outside upper left",
        ncols=len(entries),
        frameon=False,
        fontsize=SMALL,
        labelcolor=INK,
        handlelength=1.1,
        handleheight=0.7,
        columnspacing=1.4,
        borderaxespad=0.2,
    )
