"""Lines of text on pictures, in any script that has a font here."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import matplotlib as mpl
from matplotlib import font_manager
from PIL import ImageDraw, ImageFont

from transferscope.report.figures import drawing

INK, MUTED = (29, 33, 38), (92, 100, 109)


def write_line(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    *,
    size: int,
    colour: tuple[int, int, int] = MUTED,
    right: bool = False,
) -> None:
    """Draws a line of text whose baseline begins, or with `right` ends, at (x, y)."""
    runs = list(_runs(text, size))
    x = place[0] - (sum(font.getlength(run) for font, run in runs) if right else 0)
    for font, run in runs:
        draw.text((x, place[1]), run, font=font, fill=colour, anchor="ls")
        x += font.getlength(run)


def _runs(text: str, size: int) -> Iterator[tuple[ImageFont.FreeTypeFont, str]]:
    """Pieces of `text`, each with the first font that has its letters."""
    run, file = "", ""
    for letter in text.encode("utf-8", "replace").decode("utf-8"):
        found = file if letter.isspace() and file else _font_file(letter)
        if found != file and run:
            yield _font(file, size), run
            run = ""
        run, file = run + letter, found
    if run:
        yield _font(file, size), run


@lru_cache(maxsize=4096)
def _font_file(letter: str) -> str:
    for file in _font_files():
        if font_manager.get_font(file).get_char_index(ord(letter)):
            return file
    return _font_files()[0]


@lru_cache(maxsize=1)
def _font_files() -> tuple[str, ...]:
    """Of the families that the figures are drawn with."""
    with drawing():
        families = list(mpl.rcParams["font.family"])
    return tuple(str(font_manager.findfont(family)) for family in families)


@lru_cache(maxsize=64)
def _font(file: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)
