"""Drawings of channels on sheets: each with its number, how far it got, and the best real picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image, ImageDraw

from transferscope.report.figures.style import INK_RGB, MUTED_RGB, clipped, write_line
from transferscope.visualize.records import Render, Status

PAGE = 64
"""Drawings a page."""

_COLUMNS = 8
_SIDE, _INSET, _GAP, _CAPTION, _HEAD = 168, 52, 10, 20, 62
_WARNING = (176, 48, 32)

_SAID: dict[Status, str] = {
    "optimized": "",
    "below_exemplar": "below the real picture",
    "zero_gradient": "no gradient",
    "dead_on_data": "dead on the pictures",
    "non_finite": "not finite",
}


@dataclass(frozen=True, eq=False)
class Tile:
    """One drawing on a sheet.

    Attributes:
        render: what is shown.
        exemplar: the best real picture for the channel, or None if none were given.
        name: what it is called: the channel's number, or a class.
    """

    render: Render
    exemplar: Image.Image | None
    name: str


def write_sheets(
    folder: Path, tiles: Iterable[Tile], *, title: str, unit: str = "channel"
) -> list[str]:
    """Writes pages of `PAGE` drawings: sheet.png, or sheet-001.png and so on if there are several.

    Tiles are asked for as they are needed, so a page of them is in memory at a time.

    Args:
        folder: exists.
        tiles: at least one.
        title: what is drawn, for the head of every page.
        unit: what one drawing is of.

    Returns:
        Names of the files, in order.
    """
    source = iter(tiles)
    pages: list[str] = []
    page = list(islice(source, PAGE))
    while page:
        following = list(islice(source, PAGE))
        name, head = "sheet.png", title
        if pages or following:
            number = len(pages) + 1
            name, head = f"sheet-{number:03d}.png", f"{title}, page {number}"
        sheet(page, title=head, unit=unit).save(folder / name)
        pages.append(name)
        page = following
    return pages


def sheet(tiles: Sequence[Tile], *, title: str, unit: str = "channel") -> Image.Image:
    """One page; drawings keep their proportions."""
    height, width = tiles[0].render.picture.shape[:2]
    scale = _SIDE / max(width, height)
    across, down = round(width * scale), round(height * scale)
    columns = min(_COLUMNS, max(3, len(tiles)))
    rows = -(-len(tiles) // columns)
    size = (_GAP + columns * (across + _GAP), _HEAD + rows * (down + _CAPTION + _GAP) + _GAP)
    page = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(page)
    write_line(pen, (_GAP, 28), clipped(title, page.width / 11), size=19, colour=INK_RGB)
    words = f"{unit}, and its activation"  # short enough for a page of three drawings
    if any(tile.exemplar is not None for tile in tiles):
        words += " as a multiple of the best real picture's (corner)"
    write_line(pen, (_GAP, 50), words, size=13)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        left = _GAP + column * (across + _GAP)
        top = _HEAD + row * (down + _CAPTION + _GAP)
        drawn = Image.fromarray(tile.render.picture)
        page.paste(drawn.resize((across, down), Image.Resampling.LANCZOS), (left, top))
        if tile.exemplar is not None:
            inset = tile.exemplar.convert("RGB")
            inset.thumbnail((_INSET, _INSET), Image.Resampling.LANCZOS)
            x, y = left + across - inset.width, top + down - inset.height
            pen.rectangle((x - 2, y - 2, left + across - 1, top + down - 1), "white")
            page.paste(inset, (x, y))
        _caption(pen, tile, left, top + down + 3, across)
    return page


def _caption(pen: ImageDraw.ImageDraw, tile: Tile, left: int, top: int, width: int) -> None:
    render = tile.render
    sign = "" if render.sign == "plus" else " (−)"
    said = _SAID[render.status]
    alarming = said and render.status != "dead_on_data"
    said, colour = said or reached(render), _WARNING if alarming else MUTED_RGB
    name = clipped(f"{tile.name}{sign}", (width - 7 * len(said)) / 8)
    write_line(pen, (left, top + 11), name, size=13, colour=INK_RGB)
    write_line(pen, (left + width, top + 11), said, size=13, colour=colour, right=True)


def reached(render: Render) -> str:
    """The activation as a multiple of the best real picture's, or by itself where that says nothing."""
    best = render.exemplar_max
    if best is None or best <= 0:
        return f"{render.activation:.3g}"
    return f"{render.activation / best:.1f}×"
