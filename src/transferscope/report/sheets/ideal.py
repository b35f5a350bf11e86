"""The three versions of a class's picture, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from transferscope.report.figures.style import INK_RGB, MUTED_RGB, clipped, font_note, write_line
from transferscope.visualize.ideal import Ideal

_SIDE, _GAP, _HEAD, _FOOT = 320, 16, 58, 60


def ideal_figure(versions: Sequence[Ideal], *, name: str, model: str) -> Image.Image:
    """Pictures with how each was drawn and what the network says to it.

    Args:
        versions: from bare to full, of one size.
        name: of the class.
        model: what was asked.
    """
    height, width = versions[0].picture.shape[:2]
    scale = _SIDE / max(height, width)
    across, down = round(width * scale), round(height * scale)
    size = (_GAP + len(versions) * (across + _GAP), _HEAD + down + _FOOT)
    page = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(page)
    write_line(
        pen, (_GAP, 38), clipped(f"{name}, as {model} wants it", 80), size=24, colour=INK_RGB
    )
    for number, one in enumerate(versions):
        left = _GAP + number * (across + _GAP)
        picture = Image.fromarray(one.picture).resize((across, down), Image.Resampling.LANCZOS)
        page.paste(picture, (left, _HEAD))
        write_line(pen, (left, _HEAD + down + 20), one.said, size=15, colour=INK_RGB)
        said = f"{one.probability:.1%}, logit {one.logit:.1f}"
        write_line(pen, (left, _HEAD + down + 42), said, size=15, colour=MUTED_RGB)
    if lacking := font_note((name, model)):
        write_line(pen, (_GAP, 54), lacking, size=13)
    return page
