"""What all figures share: colours, fonts, parts of axes, and how a figure becomes SVG text.

Each figure has a transparent ground, ink in `currentColor` and text that stays text: inside a page
it takes the page's colours and fonts, and as a file of its own it follows the reader's light or dark
setting. The same record gives the same bytes.
"""

from __future__ import annotations

import io
import logging
import re
import textwrap
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from html import escape
from typing import Any, Literal

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure, SubFigure
from matplotlib.ft2font import FT2Font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, NullLocator
from PIL import ImageDraw, ImageFont

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

INK_RGB, MUTED_RGB = (29, 33, 38), (92, 100, 109)
"""The same on white sheets of pictures."""

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


# ---------------------------------------------------------------------------- text in any script


def font_note(texts: Iterable[str]) -> str | None:
    """What to install if letters of `texts` are in no font of this machine, or None if all are.

    For pictures of text alone (PNG, PDF, sheets): in SVG and pages text stays text, and a reader's browser
    finds its own fonts. The letters themselves are not repeated, as they would be boxes here too.
    """
    lacking = {
        letter
        for text in texts
        for letter in text
        if not letter.isspace()
        and unicodedata.category(letter) not in ("Cf", "Cc", "Cs", "Mn")
        and not _drawable(letter)
    }
    if not lacking:
        return None
    scripts = sorted({_script(letter) for letter in lacking})
    packages = sorted({_font_package(letter) for letter in lacking})
    what = f"{len(lacking)} letter is" if len(lacking) == 1 else f"{len(lacking)} letters are"
    return (
        f"{what} in no font here and drawn as boxes ({', '.join(scripts[:4])}): install a font, such as "
        f"package {', '.join(packages)}."
    )


def _script(letter: str) -> str:
    """Of a letter, by the first word of its name: CJK, DEVANAGARI, or its number where it has none."""
    return unicodedata.name(letter, f"U+{ord(letter):04X}").split()[0]


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
def _installed() -> list[font_manager.FontEntry]:
    """Every font of this machine, those installed since matplotlib last made its list among them."""
    manager = font_manager.fontManager
    known = {entry.fname for entry in manager.ttflist}
    for file in font_manager.findSystemFonts():
        if file not in known:
            with suppress(
                OSError, RuntimeError, ValueError
            ):  # a file that is damaged, or of bitmaps
                manager.addfont(file)
    return list(manager.ttflist)


_found: list[str] = []
"""Families beyond the usual ones that have been found to have a letter."""

_searches = 8
"""Searches through every font that may find nothing; then a machine is taken to lack such letters."""


def _families() -> tuple[str, ...]:
    names = {entry.name for entry in _installed()}
    return ("DejaVu Sans", *(one for one in _FALLBACKS if one in names), *_found)


@lru_cache(maxsize=4096)
def _font_file(letter: str) -> str | None:
    """The first of the families' files that has the letter, or of any font where they have not."""
    for family in _families():
        file = str(font_manager.findfont(family))
        if font_manager.get_font(file).get_char_index(ord(letter)):
            return file
    return _file_elsewhere(letter)


def _file_elsewhere(letter: str) -> str | None:
    global _searches
    if not _searches:
        return None
    for entry in sorted(_installed(), key=lambda entry: (entry.style != "normal", entry.fname)):
        with suppress(OSError, RuntimeError):
            if FT2Font(entry.fname).get_char_index(ord(letter)):
                _found.append(entry.name)
                return str(entry.fname)
    _searches -= 1
    return None


def _drawable(letter: str) -> bool:
    return _font_file(letter) is not None


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


def write_line(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    *,
    size: int,
    colour: tuple[int, int, int] = MUTED_RGB,
    right: bool = False,
) -> None:
    """Draws a line of text on a picture, in any script that has a font here.

    Its baseline begins, or with `right` ends, at `place`, (x, y) in pixels.
    """
    runs = list(_runs(text, size))
    x = place[0] - (sum(font.getlength(run) for font, run in runs) if right else 0)
    for font, run in runs:
        draw.text((x, place[1]), run, font=font, fill=colour, anchor="ls")
        x += font.getlength(run)


def _runs(text: str, size: int) -> Iterator[tuple[ImageFont.FreeTypeFont, str]]:
    """Pieces of `text`, each with the first font that has its letters."""
    run, file = "", ""
    for letter in text.encode("utf-8", "replace").decode("utf-8"):
        found = file if letter.isspace() and file else _font_file(letter) or _font_file("a") or ""
        if found != file and run:
            yield _font(file, size), run
            run = ""
        run, file = run + letter, found
    if run:
        yield _font(file, size), run


@lru_cache(maxsize=64)
def _font(file: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


# ---------------------------------------------------------------------------- drawing


@contextmanager
def drawing(width: float, height: float, texts: Iterable[str] = ()) -> Iterator[Figure]:
    """An empty figure, sides in pixels, while matplotlib's parameters are ours.

    Args:
        width, height: in pixels.
        texts: what will be drawn with this machine's fonts, so that one is found for every letter.
    """
    for letter in {letter for text in texts for letter in text if ord(letter) > 0x7F}:
        _font_file(letter)
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "transferscope",
        "text.parse_math": False,
        "text.color": INK,
        "font.family": list(_families()),
        "font.size": SMALL,
        "figure.titlesize": "medium",
        "axes.titlesize": "medium",
        "axes.titlelocation": "left",
        "axes.edgecolor": MUTED,
        "axes.linewidth": 0.7,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "grid.color": MUTED,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.borderaxespad": 0.2,
        "legend.columnspacing": 1.6,
    }
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        # Only the room for a letter is measured here; `font_note` tells who lacks a font.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        with _without_advice():
            yield Figure(figsize=(width / _PIXELS, height / _PIXELS), layout="constrained")


@contextmanager
def _without_advice() -> Iterator[None]:
    """matplotlib does not say that a fallback has no bold letters."""
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def panel(width: float, height: float, texts: Iterable[str] = ()) -> Iterator[tuple[Figure, Axes]]:
    """`drawing` with one panel."""
    with drawing(width, height, texts) as figure:
        yield figure, figure.subplots()


def write_font_note(figure: Figure, texts: Iterable[str]) -> None:
    """`font_note` in the lower left corner, where there is one."""
    if lacking := font_note(texts):
        figure.text(0.01, 0.0, lacking, color=MUTED, va="bottom")
        line = 20 / (figure.get_figheight() * _PIXELS)
        if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
            figure.set_layout_engine("constrained", rect=(0, line, 1, 1 - line))


def as_svg(figure: Figure, name: str, title: str) -> str:
    """The figure as SVG text that can stand in a page or alone.

    Args:
        figure: its axes lose their ground.
        name: that its ids begin with, so that several figures can stand in one page.
        title: what it shows.
    """
    for axes in figure.axes:
        axes.patch.set_visible(False)
    raw = io.StringIO()
    figure.savefig(raw, format="svg", transparent=True)
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", raw.getvalue(), flags=re.DOTALL)
    head, _, body = svg[svg.index("<svg") :].strip().partition(">")
    width, height = (round(side * _PIXELS) for side in figure.get_size_inches())
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


# ---------------------------------------------------------------------------- parts of axes


def grid(axes: Axes, axis: Literal["both", "x", "y"] = "both", *, alpha: float = 0.15) -> None:
    """Faint lines below what is drawn."""
    axes.grid(axis=axis, alpha=alpha)
    axes.set_axisbelow(True)


def ticks(axis: Axis, places: Sequence[float], said: Callable[[float, object], str]) -> None:
    """Ticks at `places` alone, each in the words that `said` has for it."""
    axis.set_major_locator(FixedLocator(places))
    axis.set_major_formatter(said)
    axis.set_minor_locator(NullLocator())


def named_rows(axes: Axes, names: Sequence[str]) -> None:
    """A name at each of the rows 0, 1, ... from the top, without a frame beside them."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def shade(
    axes: Axes, corner: tuple[float, float], size: tuple[float, float], colour: str, alpha: float
) -> None:
    """A rectangle without a border, from the corner of its least values."""
    axes.add_patch(Rectangle(corner, *size, facecolor=colour, alpha=alpha, linewidth=0))


def ring(colour: str, size: float, width: float) -> dict[str, Any]:
    """What `Axes.plot` needs for hollow dots."""
    dot = {"marker": "o", "linestyle": "none", "markersize": size, "markeredgewidth": width}
    return dot | {"markerfacecolor": "none", "markeredgecolor": colour}


def note(
    axes: Axes, text: str, at: tuple[float, float], shift: tuple[float, float], **settings: Any
) -> None:
    """Small text beside the point `at`, `shift` points from it."""
    axes.annotate(text, at, xytext=shift, textcoords="offset points", **settings)


def panel_title(axes: Axes, text: str) -> None:
    """A bold line over the left end of the axes."""
    axes.set_title(text, fontsize=TEXT, fontweight="bold")


def heading(figure: Figure, lines: Sequence[str]) -> None:
    """What the figure shows, in words above it."""
    letters = int(figure.get_figwidth() * _PIXELS / 5.7)
    broken = [part for line in lines for part in textwrap.wrap(line, letters)]
    figure.suptitle("\n".join(broken), x=0.01, ha="left")


def percent_tick(value: float, _: object = None) -> str:
    """A share of 1 as a percentage of at most four digits."""
    return f"{100 * value:.4g}%"


def count_tick(value: float, _: object = None) -> str:
    """A whole number with commas."""
    return f"{value:,.0f}"


def legend(
    axes: Axes, entries: Sequence[tuple[str, str, float]], *, columns: int | None = None
) -> None:
    """Swatches, each (label, colour, alpha), above the axes: in one line, or in so many columns."""
    handles = [
        Rectangle((0, 0), 1, 1, facecolor=colour, alpha=alpha, linewidth=0, label=label)
        for label, colour, alpha in entries
    ]
    look: dict[str, Any] = {"handlelength": 1.1, "handleheight": 0.7, "columnspacing": 1.4}
    legend_above(axes.figure, handles, ncols=columns or len(handles), **look)


def legend_above(figure: Figure | SubFigure, handles: Sequence[Artist], **settings: Any) -> None:
    """Labelled handles above all axes, in one line unless `ncols` says otherwise."""
    settings = {"ncols": len(handles), **settings}
    figure.legend(handles=handles, loc="outside upper left", **settings)
