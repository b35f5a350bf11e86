"""The small figures at the head of an atlas: how good it is, and how far it can be believed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from transferscope.report.figures import style, svg
from transferscope.wording import percent

if TYPE_CHECKING:
    from transferscope.evaluation.calibration import Calibration

Accuracy = tuple[str, str, float, tuple[float, float] | None]
"""Pictures, network, share that is right, its 95% interval."""

_COLOURS = {"base": style.BASE_COLOUR, "tuned": style.TUNED_COLOUR}
_STEP, _FOOT = 44.0, 30.0


def accuracy_figure(rows: Sequence[Accuracy], start: float) -> str:
    """A row a network and set of pictures: a dot at the share that is right, a line for its interval.

    Args:
        rows: from the top.
        start: where the scale begins; it ends at 1.
    """
    wide = svg.WIDTH - 2 * svg.SIDE

    def at(value: float) -> float:
        return svg.SIDE + wide * (max(value, start) - start) / (1 - start)

    height = _STEP * len(rows) + _FOOT
    marks: list[str] = []
    for place, (pictures, network, value, interval) in enumerate(rows):
        top, colour = _STEP * place, _COLOURS.get(network, "currentColor")
        y = top + 30
        words = f"{network}, {pictures} pictures"
        marks += [svg.text(svg.SIDE, top + 16, words), _right(top + 16, percent(value))]
        marks += [svg.line((svg.SIDE, y), (svg.WIDTH - svg.SIDE, y), opacity=0.15)]
        if interval:
            marks += [svg.line((at(interval[0]), y), (at(interval[1]), y), colour, 2.5)]
        marks += [svg.dot(at(value), y, colour, full=interval is not None)]
    marks += _scale(at, (start, 1.0), height - _FOOT + 6)
    return svg.document(height, "Share of pictures that are right, before and after", marks)


def trust_figure(calibration: Calibration) -> str:
    """How often answers are right against how probable they were called; the diagonal is what was promised.

    The area of a dot is its bin's number of pictures, its line a 95% Wilson interval.
    """
    side, left, top = 200.0, 70.0, 12.0
    total = max(1, sum(one.n for one in calibration.bins))

    def place(confidence: float, accuracy: float) -> tuple[float, float]:
        return left + side * confidence, top + side * (1 - accuracy)

    marks = [svg.line(place(0, 0), place(1, 1), opacity=0.5)]
    marks += [svg.line(place(0, y), place(1, y), opacity=0.15) for y in (0.0, 0.5, 1.0)]
    marks += [
        svg.text(left - 8, place(0, y)[1] + 4, percent(y, 0), size=11.5, anchor="end")
        for y in (0.0, 0.5, 1.0)
    ]
    for one in calibration.bins:
        x, y = place(one.confidence, one.accuracy)
        low, high = (place(one.confidence, end)[1] for end in one.interval)
        radius = 2 + 10 * (one.n / total) ** 0.5
        marks += [svg.line((x, low), (x, high), style.TUNED_COLOUR, 1.5)]
        marks += [svg.dot(x, y, style.TUNED_COLOUR, radius=radius)]
    words = "how probable the answer was called"
    marks += [svg.text(left + side / 2, top + side + 36, words, size=11.5, anchor="middle")]
    marks += [
        svg.text(place(x, 0)[0], top + side + 18, percent(x, 0), size=11.5, anchor="middle")
        for x in (0.0, 0.5, 1.0)
    ]
    marks += [svg.text(left + side + 12, top + 14, "right", size=11.5)]
    return svg.document(top + side + 44, "Accuracy against confidence", marks)


def _right(y: float, words: str) -> str:
    return svg.text(svg.WIDTH - svg.SIDE, y, words, anchor="end")


def _scale(at: Callable[[float], float], ends: tuple[float, float], y: float) -> Iterator[str]:
    """A line with its ends named."""
    yield svg.line((svg.SIDE, y), (svg.WIDTH - svg.SIDE, y), opacity=0.6)
    for value, anchor in zip(ends, ("start", "end"), strict=True):
        yield svg.text(at(value), y + 18, percent(value, 0), size=11.5, anchor=anchor)
