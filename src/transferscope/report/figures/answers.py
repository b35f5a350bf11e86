"""Pictures with what a classifier says of them, as one figure in a file."""

from __future__ import annotations

import io
import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageOps

from transferscope.errors import InputError, PictureError
from transferscope.evaluation.answers import Guess, Prediction
from transferscope.files import write_bytes, write_text
from transferscope.images import read_picture
from transferscope.report.figures import style
from transferscope.wording import number, percent

FIGURE_SUFFIXES = (".svg", ".png", ".pdf")
"""Endings of the files that `write_answer_figure` writes."""

_COLUMNS = 3
_GUESSES = 5  # bars of a picture
_LIKELIEST = 3  # classes that a stranger would be taken for
_TILE = 360.0  # width of a picture with its bars, pixels
_TALL = 176.0  # its height
_GAP = 28.0
_MARGIN = 16.0
_SIDE = 132.0  # of the square that a picture fits into
_BETWEEN = 8.0  # a picture and what explains it
_ROW = 26.0  # height of a guess
_STRIP = 64.0  # greatest height of a strip
_COLUMN = 26.0  # height of a certain guess for a piece of it
_FOOT = 28.0  # for the words below
_NEAR = 44.0  # side of a nearest training picture
_NEAREST = 74.0  # height of the row of these, with its heading


SHOWN = 24
"""Pictures of a figure, where no other number is asked for."""

Overlay = NDArray[np.uint8]
"""A picture (H, W, 3) that shows what its best guess comes from."""


def refuse_figure_suffix(path: str | os.PathLike[str]) -> None:
    """Refuses a file name that no figure is written to, before any work is done for it.

    Raises:
        InputError: the suffix is not one of `FIGURE_SUFFIXES`.
    """
    suffix = Path(path).suffix
    if suffix.lower() not in FIGURE_SUFFIXES:
        raise InputError(
            f"a figure cannot be written to {os.fspath(path)!r}: its name ends in "
            f"{suffix or 'nothing'!r}; give a name that ends in {', '.join(FIGURE_SUFFIXES)}"
        )


def write_answer_figure(
    path: str | os.PathLike[str],
    answers: Sequence[Prediction],
    *,
    limit: int = SHOWN,
    overlays: Mapping[str, Overlay] | None = None,
    overlay_words: str = "",
) -> int:
    """Draws each picture beside its guesses, and writes the figure whole or not at all.

    A picture has bars for its five best guesses at most; a strip, its pieces' below it. A stranger has none: it
    is said to be of none of the classes, and what it would be called otherwise. Below stand the training
    pictures nearest to it, where these are known. What was abstained from is marked as unsure, and a file
    that could not be read is a tile with the reason. The same pictures and answers give the same bytes.

    Args:
        path: ends in .svg, .png or .pdf.
        answers: at least one; their pictures are read again.
        limit: pictures drawn at most; the figure says how many there are more.
        overlays: path -> what is shown beside the picture; a whole picture's alone.
        overlay_words: what they are, below all.

    Returns:
        How many were drawn.

    Raises:
        InputError: another suffix, nothing to draw, or a limit below 1.
        OutputError: the file cannot be written.
    """
    refuse_figure_suffix(path)
    if not answers or limit < 1:
        raise InputError(
            f"{len(answers)} answers and a limit of {limit} give no figure; both must be at least 1"
        )
    shown, overlays = answers[:limit], overlays or {}
    tile = _TILE + (_SIDE + _BETWEEN if overlays else 0)
    columns = min(_COLUMNS - bool(overlays), len(shown))
    width = 2 * _MARGIN + columns * tile + (columns - 1) * _GAP
    tall = _TALL + (_NEAREST if any(answer.nearest for answer in shown) else 0)
    height = _MARGIN + math.ceil(len(shown) / columns) * (tall + _GAP) + _FOOT
    with style.panel(width, height, _texts(shown)) as (figure, axes):
        figure.set_layout_engine("none")
        axes.set(position=(0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))  # in pixels, downwards
        axes.set_axis_off()
        for place, answer in enumerate(shown):
            row, column = divmod(place, columns)
            left, top = _MARGIN + column * (tile + _GAP), _MARGIN + row * (tall + _GAP)
            _tile(axes, left, top, tile, answer, overlays)
        words = overlay_words if overlays else ""
        if rest := len(answers) - len(shown):
            words = (
                f"{rest} more {'picture is' if rest == 1 else 'pictures are'} not shown. {words}"
            )
        if words:
            axes.text(_MARGIN, height - _FOOT, words, va="bottom")
        _write(figure, Path(path), shown)
    return len(shown)


# ---------------------------------------------------------------------------- one picture


def _tile(
    axes: Axes,
    left: float,
    top: float,
    width: float,
    answer: Prediction,
    overlays: Mapping[str, Overlay],
) -> None:
    """One picture with its guesses; like all below, from its upper left corner."""
    _say(axes, left, top + 9, style.clipped(_file_name(answer), 44), fontsize=style.TEXT)
    if answer.abstained and answer.known is not False:
        looks = {"fontsize": style.TEXT, "color": style.TUNED_COLOUR, "ha": "right"}
        _say(axes, left + width, top + 9, "unsure", **looks)
    top, corner = top + 24, left
    if answer.error is not None:
        _blank(axes, left, top, _TILE, _SIDE, f"not read: {answer.error}")
    elif answer.strip is not None:
        _strip(axes, left, top, answer)
    else:
        _picture(axes, left, top, _SIDE, _SIDE, answer.path)
        if overlays:
            left += _SIDE + _BETWEEN
            if (overlay := overlays.get(answer.path)) is not None:
                scale = _SIDE / max(overlay.shape[:2])
                extent = (
                    left,
                    left + overlay.shape[1] * scale,
                    top + overlay.shape[0] * scale,
                    top,
                )
                axes.imshow(overlay, extent=extent, aspect="auto", interpolation="bilinear")
        write = _stranger if answer.known is False else _guesses
        write(axes, left + _SIDE + 16, top, answer)
        if answer.nearest:
            _neighbours(axes, corner, top + _SIDE + 12, answer)


def _picture(
    axes: Axes, left: float, top: float, width: float, height: float, path: str
) -> tuple[float, float]:
    """Fits the picture into a box, and gives the size that it has there; a file may be gone by now."""
    try:
        picture = read_picture(path, least_side=round(2 * min(width, height)))
    except PictureError:
        _blank(axes, left, top, width, height, "the picture is gone")
        return width, height
    scale = min(width / picture.width, height / picture.height)
    size = (max(picture.width * scale, 1.0), max(picture.height * scale, 1.0))
    # Twice the pixels, for dense screens; a small picture keeps its own.
    pixels = (round(2 * size[0]), round(2 * size[1]))
    if picture.width > pixels[0]:
        picture = picture.resize(pixels, Image.Resampling.LANCZOS)
    extent = (left, left + size[0], top + size[1], top)
    axes.imshow(np.asarray(picture), extent=extent, aspect="auto", interpolation="none")
    return size


def _blank(axes: Axes, left: float, top: float, width: float, height: float, words: str) -> None:
    style.shade(axes, (left, top), (width, height), style.MUTED, 0.08)
    lines = textwrap.wrap(" ".join(words.split()), max(int(width / 6.2), 8))
    _say(axes, left + width / 2, top + height / 2, "\n".join(lines[:7]), ha="center")


def _guesses(axes: Axes, left: float, top: float, answer: Prediction) -> None:
    width = _TILE - _SIDE - 16
    for place, guess in enumerate(answer.top[:_GUESSES]):
        y = top + place * _ROW + 8
        _say(axes, left, y, style.clipped(guess.name, 24))
        _say(axes, left + width, y, _share(guess), ha="right")
        style.shade(axes, (left, y + 8), (width, 4), style.MUTED, 0.13)
        sure = place == 0 and not answer.abstained
        colour, alpha = (style.TUNED_COLOUR, 1.0) if sure else (style.MUTED, 0.55)
        style.shade(axes, (left, y + 8), (width * guess.probability, 4), colour, alpha)


def _stranger(axes: Axes, left: float, top: float, answer: Prediction) -> None:
    """In place of bars: that it is of none of the classes, and what it would be called otherwise."""
    _say(axes, left, top + 10, "none of these classes", fontsize=1.25 * style.TEXT, weight="bold")
    if answer.top:
        _say(axes, left, top + 38, "if it had to be one:", color=style.MUTED)
        for place, guess in enumerate(answer.top[:_LIKELIEST]):
            y = top + 58 + place * 20
            _say(axes, left, y, style.clipped(guess.name, 24), color=style.MUTED)
            looks = {"ha": "right", "color": style.MUTED}
            _say(axes, left + _TILE - _SIDE - 16, y, _share(guess), **looks)


def _neighbours(axes: Axes, left: float, top: float, answer: Prediction) -> None:
    """The training pictures nearest to a picture, and how familiar that makes it."""
    _say(axes, left, top + 6, "nearest in training, by cosine", color=style.MUTED)
    if answer.familiarity is not None:
        words = f"familiarity {percent(answer.familiarity)}"
        _say(axes, left + _TILE, top + 6, words, ha="right", color=style.MUTED)
    step, top = _TILE / len(answer.nearest), top + 20
    for place, one in enumerate(answer.nearest):
        x = left + place * step
        style.shade(axes, (x, top), (_NEAR, _NEAR), style.MUTED, 0.08)
        with suppress(PictureError):  # an export comes without names, and a file may be gone by now
            picture = read_picture(one.path or "", least_side=round(2 * _NEAR))
            square = ImageOps.fit(picture, (round(2 * _NEAR),) * 2, Image.Resampling.LANCZOS)
            extent = (x, x + _NEAR, top + _NEAR, top)
            axes.imshow(np.asarray(square), extent=extent, aspect="auto", interpolation="none")
        room = (step - _NEAR - 14) / 6.4
        _say(axes, x + _NEAR + 7, top + 14, style.clipped(one.name, room))
        _say(axes, x + _NEAR + 7, top + 31, number(one.cosine), color=style.MUTED)


def _strip(axes: Axes, left: float, top: float, answer: Prediction) -> None:
    """A strip's pieces, and below each its guess as a column."""
    width, height = _picture(axes, left, top, _TILE, _STRIP, answer.path)
    top += height + 6
    _say(axes, left, top + 12, style.clipped(answer.strip or "", 30), fontsize=1.5 * style.TEXT)
    step = width / len(answer.pieces)
    colour, side, base = style.TUNED_COLOUR, min(0.6 * step, 28.0), top + 28 + _COLUMN
    if answer.abstained:
        colour = style.MUTED
    for place, guess in enumerate(answer.pieces):
        middle, high = left + (place + 0.5) * step, _COLUMN * guess.probability
        corner = middle - side / 2
        style.shade(axes, (corner, base - _COLUMN), (side, _COLUMN), style.MUTED, 0.13)
        style.shade(axes, (corner, base - high), (side, high), colour, 0.9)
        _say(axes, middle, base + 10, style.clipped(guess.name, max(step / 7, 2)), ha="center")
        if step >= 34:
            _say(axes, middle, base + 24, _share(guess), ha="center")


def _say(axes: Axes, x: float, y: float, text: str, **settings: Any) -> None:
    axes.text(x, y, text, va="center", **settings)


def _share(guess: Guess) -> str:
    """A probability as a percentage that never says 100% or 0% of what is not."""
    if guess.probability >= 0.9995:
        return "> 99.9%"
    return "< 0.1%" if guess.probability < 0.0005 else f"{guess.probability:.1%}"


# ---------------------------------------------------------------------------- the file


def _file_name(answer: Prediction) -> str:
    """Without its folders; letters that are not UTF-8 become question marks."""
    return Path(answer.path).name.encode("utf-8", "replace").decode("utf-8")


def _texts(answers: Sequence[Prediction]) -> list[str]:
    names = [guess.name for answer in answers for guess in (*answer.top, *answer.pieces)]
    names += [near.name for answer in answers for near in answer.nearest]
    return [*names, *map(_file_name, answers)]


def _write(figure: Figure, path: Path, answers: Sequence[Prediction]) -> None:
    suffix = path.suffix.lower()
    if suffix == ".svg":
        write_text(path, style.as_svg(figure, "answers", "Pictures with their guesses"))
        return
    style.write_font_note(figure, _texts(answers))
    metadata = {"CreationDate": None} if suffix == ".pdf" else {"Software": None}
    data = io.BytesIO()
    figure.savefig(data, format=suffix[1:], dpi=192, facecolor="white", metadata=metadata)
    write_bytes(path, data.getvalue())
