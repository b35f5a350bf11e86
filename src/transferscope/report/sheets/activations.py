"""Sheets of activation maps: every channel of a layer on one picture, with its index.

A sheet's head has the picture as the network saw it, the layer and the colour scale; below it come
the maps, enlarged to squares of their own pixels. In every sheet zero is black, positive values are
warm and negative ones blue. Maps that are single values (a vector, logits) are bars.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from transferscope.errors import InputError
from transferscope.records import Record
from transferscope.report.figures.style import INK_RGB, MUTED_RGB, clipped, font_note, write_line
from transferscope.wording import short

Scale = Literal["layer", "channel"]
"""What the colours of a sheet end at: one value for the whole layer, or each channel's own."""

COVERED = 0.99
"""Share of a layer's values, by size, that lie within its colours; larger ones have the last colour."""

_WIDTH = 1440  # of the maps side by side, pixels
_MARGIN = 28
_HEAD = 128  # side of the picture
_TILE = 84  # wanted side of a map: 7, 14 and 28 times a whole number
_LARGEST = 144  # longer side above which maps are averaged down
_GAP = 6
_LABEL = 17  # height of an index
_BARS, _BAR_ROW, _BAR_ROWS = 100, 96, 21  # values a row, height of a row, rows a page

_PAPER = (255, 255, 255)
_NOT_FINITE = (255, 0, 200)
_BLACK = (13, 15, 19)
_WARM = ((92, 26, 12), (205, 74, 18), (249, 170, 66), (255, 246, 214))
_COLD = ((16, 43, 92), (33, 98, 184), (98, 178, 236), (224, 246, 255))

_LEVELS = 255  # of colour on either side of zero


@dataclass(frozen=True)
class LayerMaps:
    """What one layer made of one picture.

    Attributes:
        layer: dotted name.
        type: class name of the module.
        shape: its output as the network has it, of one picture.
        values: float32 (C, h, w), or (D,) where a channel has one value.
        note: what was done to the output to get maps of it; empty if nothing was.
        names: of the values of a vector, such as class names; empty if they have none.
    """

    layer: str
    type: str
    shape: tuple[int, ...]
    values: np.ndarray
    note: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerSheet(Record):
    """A layer's sheets as files, and its maps in numbers.

    Attributes:
        layer: see `LayerMaps`, as `type`, `shape` and `note`.
        pages: file names, in the order of the channels.
        channels: how many maps there are.
        dead: how many of them are zero everywhere on this picture.
        min: least finite value; None if there is none, as `max` and `mean`.
        non_finite: how many values are NaN or infinite.
    """

    layer: str
    type: str
    shape: tuple[int, ...]
    pages: tuple[str, ...]
    channels: int
    dead: int
    min: float | None
    max: float | None
    mean: float | None
    non_finite: int
    note: str = ""


def write_sheet(
    folder: Path, order: int, maps: LayerMaps, picture: Image.Image, *, scale: Scale = "layer"
) -> LayerSheet:
    """Draws a layer into PNG files named after its place and name, and measures it.

    The colours of a layer end at the size that 99% of its values keep within, so that a few extreme
    values do not darken all others; the head says where, and from what to what the values go.

    Args:
        folder: exists.
        order: first number of the files' names, such as 7 for 007-blocks.0.png.
        maps: what to draw.
        picture: as the network saw it.
        scale: `channel`: each map's colours end at its own largest value.
    """
    sheet = _measured(maps)
    count, vector = len(maps.values), maps.values.ndim == 1
    stem = f"{order:03d}-" + re.sub(r"[^\w.-]+", "_", maps.layer)[:80]
    per_page = _BARS * _BAR_ROWS if vector else _Tiling.of(maps.values).per_page
    pages = [range(start, min(start + per_page, count)) for start in range(0, count, per_page)]
    limits = _limits(maps.values, scale)
    files = []
    for page, shown in enumerate(pages, start=1):
        body = _bars(maps.values, shown) if vector else _tiles(maps.values, limits, shown)
        place = ""
        if len(pages) > 1:
            first, last = shown[0], shown[-1]
            place = f"channels {first:,} to {last:,}, page {page} of {len(pages)}"
        files.append(f"{stem}-{page}.png" if place else f"{stem}.png")
        whole = _below_head(body, picture, maps, list(_lines(maps, sheet, place)))
        if not vector:
            end = short(float(limits[0, 0, 0])) if scale == "layer" else None
            _scale_bar(whole, end, negative=(sheet.min or 0) < 0)
        whole.save(folder / files[-1], compress_level=1)
    return replace(sheet, pages=tuple(files))


# ---------------------------------------------------------------------------- numbers


def _measured(maps: LayerMaps) -> LayerSheet:
    values = maps.values
    if values.ndim not in (1, 3) or not values.size:
        raise InputError(
            f"layer {maps.layer!r} has values of shape {values.shape}; a sheet is drawn of maps (C, H, W) "
            "or of a vector (D,)"
        )
    finite = values[np.isfinite(values)]
    return LayerSheet(
        layer=maps.layer,
        type=maps.type,
        shape=maps.shape,
        pages=(),
        channels=len(values),
        dead=int((values.reshape(len(values), -1) == 0).all(axis=1).sum()),
        min=float(finite.min()) if finite.size else None,
        max=float(finite.max()) if finite.size else None,
        mean=float(finite.mean(dtype=np.float64)) if finite.size else None,
        non_finite=values.size - finite.size,
        note=maps.note,
    )


def _limits(values: np.ndarray, scale: Scale) -> np.ndarray:
    """For each channel the size at which its colours end, above zero: (C, 1, 1)."""
    sizes = np.abs(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0))
    largest = sizes.reshape(len(values), -1).max(axis=1)
    if scale == "layer":
        within = float(np.quantile(sizes, COVERED)) or float(largest.max())
        largest = np.full(len(values), within, np.float32)
    limits: np.ndarray = np.where(largest > 0, largest, 1).reshape(-1, 1, 1)
    return limits


# ---------------------------------------------------------------------------- colours


@lru_cache(maxsize=1)
def _palette() -> np.ndarray:
    """Blue to black to warm, and last the colour of what is not a number: uint8 (2 levels + 2, 3)."""
    anchors = (*_COLD[::-1], _BLACK, *_WARM)
    points = np.linspace(-1, 1, len(anchors))
    places = np.arange(-_LEVELS, _LEVELS + 1) / _LEVELS
    colours = [np.interp(places, points, channel) for channel in zip(*anchors, strict=True)]
    return np.vstack([np.stack(colours, axis=1).round(), _NOT_FINITE]).astype(np.uint8)


def _coloured(values: np.ndarray, limits: np.ndarray | float) -> np.ndarray:
    """Values as colours whose scale ends at `limits`: uint8, with a last axis of 3."""
    with np.errstate(invalid="ignore"):
        levels = np.rint(np.clip(values / limits, -1, 1) * _LEVELS) + _LEVELS
    levels[~np.isfinite(values)] = 2 * _LEVELS + 1
    colours: np.ndarray = _palette()[levels.astype(np.intp)]
    return colours


# ---------------------------------------------------------------------------- maps


class _Tiling(NamedTuple):
    """How maps of one size lie on a sheet; all in pixels."""

    reduced: int  # side of the squares that are averaged to one pixel
    enlarged: int  # side of the square that a pixel becomes
    width: int  # of a map, drawn
    height: int
    label: int  # width of what stands above it
    columns: int
    step: int  # from the left side of one to that of the next
    row: int  # from the upper side of one to that of the next
    per_page: int  # maps: as many rows as make the page somewhat higher than it is wide

    @classmethod
    def of(cls, values: np.ndarray) -> _Tiling:
        reduced = math.ceil(max(values.shape[1:]) / _LARGEST)
        height, width = (math.ceil(side / reduced) for side in values.shape[1:])
        enlarged = max(1, round(_TILE / max(height, width)))
        height, width = height * enlarged, width * enlarged
        label = max(width, 8 * len(str(len(values) - 1)) + 4)  # room for the last index
        columns = (_WIDTH + _GAP) // (label + _GAP)
        step = (_WIDTH - label) // max(columns - 1, 1)
        row = height + _LABEL + _GAP
        per_page = columns * max(1, round(1.2 * _WIDTH / row))
        return cls(reduced, enlarged, width, height, label, columns, step, row, per_page)


def _tiles(values: np.ndarray, limits: np.ndarray, shown: range) -> Image.Image:
    """The maps of some channels in rows, each below its index."""
    tiling = _Tiling.of(values)
    chosen = slice(shown.start, shown.stop)
    coloured = _coloured(_averaged(values[chosen], tiling.reduced), limits[chosen])
    coloured = coloured.repeat(tiling.enlarged, axis=1).repeat(tiling.enlarged, axis=2)
    rows = math.ceil(len(shown) / tiling.columns)
    sheet = Image.new("RGB", (_WIDTH, rows * tiling.row), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, (channel, tile) in enumerate(zip(shown, coloured, strict=True)):
        row, column = divmod(place, tiling.columns)
        top, left = row * tiling.row, column * tiling.step
        sheet.paste(Image.fromarray(tile), (left, top + _LABEL))
        dead, line = not values[channel].any(), top + _LABEL - 4
        colour = MUTED_RGB if dead else INK_RGB
        write_line(draw, (left, line), str(channel), size=12, colour=colour)
        if dead and tiling.label >= 70:
            write_line(draw, (left + tiling.label, line), "zero", size=12, right=True)
    return sheet


def _averaged(values: np.ndarray, side: int) -> np.ndarray:
    """Means over squares; those at the right and lower edge may be smaller."""
    if side == 1:
        return values
    rows, columns = (range(0, length, side) for length in values.shape[1:])
    sums, counts = (
        np.add.reduceat(np.add.reduceat(one, rows, axis=-2), columns, axis=-1)
        for one in (values, np.ones(values.shape[1:], np.float32))
    )
    means: np.ndarray = sums / counts
    return means


# ---------------------------------------------------------------------------- bars


def _bars(values: np.ndarray, shown: range) -> Image.Image:
    """Values of a vector as bars from a common zero line, a hundred a row, with every tenth index."""
    finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = min(0.0, float(finite.min())), max(0.0, float(finite.max()))
    unit = (_BAR_ROW - _LABEL - 8) / ((high - low) or 1)
    rows = math.ceil(len(shown) / _BARS)
    sheet = Image.new("RGB", (_WIDTH, rows * _BAR_ROW), _PAPER)
    draw = ImageDraw.Draw(sheet)
    step = _WIDTH / _BARS
    for place, index in enumerate(shown):
        row, column = divmod(place, _BARS)
        zero, left = row * _BAR_ROW + round(high * unit), round(column * step)
        value, right = float(values[index]), left + round(step) - 4
        if not math.isfinite(value):
            draw.rectangle((left, zero - 6, right, zero + 6), fill=_NOT_FINITE)
        elif end := round(value * unit):
            colour = (_WARM[1], _COLD[1])[value < 0]
            draw.rectangle((left, min(zero, zero - end), right, max(zero, zero - end)), fill=colour)
        if column % 10 == 0:
            write_line(draw, (left, (row + 1) * _BAR_ROW - 12), str(index), size=12)
    for row in range(rows):
        zero = row * _BAR_ROW + round(high * unit)
        used = min(_BARS, len(shown) - row * _BARS)
        draw.line((0, zero, round(used * step) - 4, zero), fill=MUTED_RGB)
    return sheet


def _largest(maps: LayerMaps) -> str:
    """The five largest values of a vector, by name or index."""
    order = np.argsort(np.nan_to_num(-maps.values, nan=np.inf), kind="stable")[:5]
    named = [(clipped(maps.names[i], 22) if maps.names else str(i), maps.values[i]) for i in order]
    return "largest: " + ", ".join(f"{name} {short(float(value))}" for name, value in named)


# ---------------------------------------------------------------------------- the head


def _below_head(
    body: Image.Image, picture: Image.Image, maps: LayerMaps, lines: Sequence[str]
) -> Image.Image:
    """The whole page: above the maps the picture, the layer and what is said of it."""
    top = 2 * _MARGIN + _HEAD
    page = Image.new("RGB", (_WIDTH + 2 * _MARGIN, top + body.height + _MARGIN), _PAPER)
    page.paste(body, (_MARGIN, top))
    ratio = _HEAD / max(picture.size)
    width, height = (max(1, round(side * ratio)) for side in picture.size)
    small = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    page.paste(small, (_MARGIN, _MARGIN))
    draw = ImageDraw.Draw(page)
    left = _MARGIN + width + 24
    write_line(draw, (left, _MARGIN + 28), clipped(maps.layer, 56), size=30, colour=INK_RGB)
    for line, text in enumerate(lines):
        colour = MUTED_RGB if line else INK_RGB
        write_line(draw, (left, _MARGIN + 62 + 25 * line), text, size=17, colour=colour)
    return page


def _lines(maps: LayerMaps, sheet: LayerSheet, place: str) -> Iterator[str]:
    """What is said of a layer, a line each; `place`: which of its channels, on which page."""
    vector, dot = maps.values.ndim == 1, "  ·  "
    what = f"{sheet.channels:,} values" if vector else f"{sheet.channels:,} channels of "
    what += " × ".join(map(str, maps.values.shape[1:]))
    yield dot.join(filter(None, (maps.type, what, sheet.note)))
    facts = [f"values from {short(sheet.min)} to {short(sheet.max)}, mean {short(sheet.mean)}"]
    if sheet.dead:
        facts.append(f"{sheet.dead:,} of {sheet.channels:,} zero everywhere")
    if sheet.non_finite:
        facts.append(f"{sheet.non_finite:,} not a finite number (magenta)")
    yield dot.join(facts)
    last = []
    if not vector and (reduced := _Tiling.of(maps.values).reduced) > 1:
        last.append(f"a pixel is the mean of {reduced} × {reduced}")
    if place:
        last.append(place)
    if vector:
        last.append(_largest(maps))
    if note := font_note((sheet.layer, *last)):
        last.append(note)
    yield dot.join(last)


def _scale_bar(page: Image.Image, end: str | None, *, negative: bool) -> None:
    """The colours from end to end in the page's upper right corner.

    Args:
        page: is drawn on.
        end: the value at which the layer's colours end; None: each channel has its own.
        negative: whether there are values below zero; else the warm half is drawn alone.
    """
    draw = ImageDraw.Draw(page)
    words = f"one scale; {COVERED:.0%} of the values within"
    if end is None:
        end, words = "own largest", "each channel has its own scale"
    width, right = 260, _MARGIN + _WIDTH
    left, top = right - width, _MARGIN + _HEAD - 40
    ramp = _coloured(np.linspace(-1 if negative else 0, 1, width, dtype=np.float32), 1.0)
    page.paste(Image.fromarray(ramp[None].repeat(14, axis=0)), (left, top))
    write_line(draw, (right, top - 10), words, size=13, right=True)
    write_line(draw, (right, top + 32), end, size=13, right=True)
    write_line(draw, (left, top + 32), f"−{end}" if negative else "0", size=13)
    if negative:
        write_line(draw, (left + width // 2 - 4, top + 32), "0", size=13)
