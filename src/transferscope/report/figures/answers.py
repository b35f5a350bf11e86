"""Pictures with what a classifier says of them, as one figure in a file."""

from __future__ import annotations

import io
import math
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from transferscope.errors import InputError, PictureError
from transferscope.evaluation.answers import Guess, Prediction
from transferscope.files import write_bytes, write_text
from transferscope.images import read_picture
from transferscope.report.figures import style

FIGURE_SUFFIXES = (".svg", ".png", ".pdf")
"""Endings of the files that `write_answer_figure` writes."""

_COLUMNS = 3
_GUESSES = 5  # bars of a picture
_TILE = 360.0  # width of a picture with its bars, pixels
_TALL = 176.0  # its height
_GAP = 28.0
_MARGIN = 16.0
_SIDE = 132.0  # of the square that a picture fits into
_ROW = 26.0  # height of a guess
_STRIP = 64.0  # greatest height of a strip
_COLUMN = 26.0  # height of a certain guess for a piece of it
_FOOT = 28.0  # for the words below


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
    path: str | os.PathLike[str], answers: Sequence[Prediction], *, limit: int = 24
) -> int:
    """Draws each picture beside its guesses, and writes the figure whole or not at all.

    A picture has bars for its five best guesses at most; a strip, its pieces' below it. What was
    abstained from is marked as unsure, and a file that could not be read is a tile with the reason. The
    same pictures and answers give the same bytes.

    Args:
        path: ends in .svg, .png or .pdf.
        answers: at least one; their pictures are read again.
        limit: pictures drawn at most; the figure says how many there are more.

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
    shown = answers[:limit]
    columns = min(_COLUMNS, len(shown))
    width = 2 * _MARGIN + columns * _TILE + (columns - 1) * _GAP
    height = _MARGIN + math.ceil(len(shown) / columns) * (_TALL + _GAP) + _FOOT
    with style.drawing(width, height, _texts(shown)) as figure:
        figure.set_layout_engine("none")
        for place, answer in enumerate(shown):
            row, column = divmod(place, columns)
            corner = (_MARGIN + column * (_TILE + _GAP), _MARGIN + row * (_TALL + _GAP))
            _Tile(figure, *corner).draw(answer)
        if rest := len(answers) - len(shown):
            words = f"{rest} more {'picture is' if rest == 1 else 'pictures are'} not shown."
            figure.text(_MARGIN / width, _FOOT / height, words, va="bottom")
        _write(figure, Path(path), shown)
    return len(shown)


# ---------------------------------------------------------------------------- one picture


class _Tile:
    """A rectangle of the figure, in pixels from its own upper left corner."""

    def __init__(self, figure: Figure, left: float, top: float):
        self.figure = figure
        self.left, self.top = left, top
        self.width, self.height = (96 * side for side in figure.get_size_inches())

    def draw(self, answer: Prediction) -> None:
        self._caption(answer)
        if answer.error is not None:
            self._blank(_TILE, _SIDE, f"not read: {answer.error}")
        elif answer.strip is not None:
            self._strip(answer)
        else:
            if not self._picture(answer.path, _SIDE, _SIDE):
                self._blank(_SIDE, _SIDE, "the picture is gone")
            self._guesses(answer)

    def _axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Bare axes of this size, whose data are pixels downwards from its corner."""
        left, top = (self.left + x) / self.width, 1 - (self.top + y + height) / self.height
        axes = self.figure.add_axes((left, top, width / self.width, height / self.height))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        return axes

    def _caption(self, answer: Prediction) -> None:
        axes = self._axes(0, 0, _TILE, 20)
        _say(axes, 0, 9, style.clipped(_file_name(answer), 44), fontsize=style.TEXT)
        if answer.abstained:
            orange = {"fontsize": style.TEXT, "color": style.TUNED_COLOUR}
            _say(axes, _TILE, 9, "unsure", ha="right", **orange)

    def _picture(self, path: str, width: float, height: float) -> tuple[float, float] | None:
        """Fits the picture into a box below the caption; its size, or None if it can't be read."""
        try:
            picture = read_picture(path, least_side=round(2 * min(width, height)))
        except PictureError:
            return None
        scale = min(width / picture.width, height / picture.height)
        size = (max(picture.width * scale, 1.0), max(picture.height * scale, 1.0))
        # Twice the pixels, for dense screens; a small picture keeps its own.
        pixels = (round(2 * size[0]), round(2 * size[1]))
        if picture.width > pixels[0]:
            picture = picture.resize(pixels, Image.Resampling.LANCZOS)
        axes = self._axes(0, 24, *size)
        extent = (0, size[0], size[1], 0)
        axes.imshow(np.asarray(picture), extent=extent, aspect="auto", interpolation="none")
        return size

    def _blank(self, width: float, height: float, words: str) -> None:
        axes = self._axes(0, 24, width, height)
        style.shade(axes, (0, 0), (width, height), style.MUTED, 0.08)
        lines = textwrap.wrap(" ".join(words.split()), max(int(width / 6.2), 8))
        _say(axes, width / 2, height / 2, "\n".join(lines[:7]), ha="center")

    def _guesses(self, answer: Prediction) -> None:
        left = _SIDE + 16
        width = _TILE - left
        axes = self._axes(left, 24, width, _SIDE)
        for place, guess in enumerate(answer.top[:_GUESSES]):
            y = place * _ROW + 8
            _say(axes, 0, y, style.clipped(guess.name, 24))
            _say(axes, width, y, _share(guess), ha="right")
            style.shade(axes, (0, y + 8), (width, 4), style.MUTED, 0.13)
            sure = place == 0 and not answer.abstained
            colour, alpha = (style.TUNED_COLOUR, 1.0) if sure else (style.MUTED, 0.55)
            style.shade(axes, (0, y + 8), (width * guess.probability, 4), colour, alpha)

    def _strip(self, answer: Prediction) -> None:
        size = self._picture(answer.path, _TILE, _STRIP)
        if size is None:
            self._blank(_TILE, _STRIP, "the picture is gone")
        width, height = size or (_TILE, _STRIP)
        axes = self._axes(0, 24 + height + 6, _TILE, _TALL - 30 - height)
        _say(axes, 0, 12, style.clipped(answer.strip or "", 30), fontsize=1.5 * style.TEXT)
        step = width / len(answer.pieces)
        colour = style.MUTED if answer.abstained else style.TUNED_COLOUR
        for place, guess in enumerate(answer.pieces):
            _column(axes, (place + 0.5) * step, step, guess, colour)


def _column(axes: Axes, middle: float, step: float, guess: Guess, colour: str) -> None:
    """The guess for one piece of a strip, under the piece."""
    width, high = min(0.6 * step, 28.0), _COLUMN * guess.probability
    left, base = middle - width / 2, 28 + _COLUMN
    style.shade(axes, (left, base - _COLUMN), (width, _COLUMN), style.MUTED, 0.13)
    style.shade(axes, (left, base - high), (width, high), colour, 0.9)
    words = [style.clipped(guess.name, max(step / 7, 2)), *([_share(guess)] if step >= 34 else [])]
    for line, text in enumerate(words):
        _say(axes, middle, base + 10 + 14 * line, text, ha="center")


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
