"""All witnesses of one channel as SVG, written directly: an atlas may have thousands of these."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from transferscope.comparison.records import NETWORKS
from transferscope.errors import InputError
from transferscope.report.figures import style
from transferscope.report.questions import Answers, null_of, null_words, witness_words

if TYPE_CHECKING:
    from transferscope.comparison.change import Witnessed

WIDTH = 360
_SIDE = 10.0  # margins to the left and right, pixels
_TOP, _STEP, _FOOT = 34.0, 50.0, 30.0
_BEYOND = 1.5  # intervals that reach further than so many times the layer's largest effect are cut

At = Callable[[float], float]
"""From units of the layer's largest effect to pixels."""


def channel_figure(answers: Answers, layer: str, channel: int) -> str:
    """All witnesses of a channel, from what each is held against (0) to the layer's largest effect (1).

    A dot is the value and its line the 95% interval; it is full where the null was rejected. The small
    line in base's colour is the untuned network, where it is not the null itself.

    Raises:
        InputError: the channel has no rows.
    """
    rows = [
        row
        for name, row in answers.rows.get((layer, channel), {}).items()
        if witness_words(name).tested and math.isfinite(row.value)
    ]
    if not rows:
        raise InputError(f"channel {channel} of layer {layer!r} has no witnesses")
    places = [_Places(row, answers.largest[row.layer, row.witness] or 1.0) for row in rows]
    ends = [end for one in places for end in one.shown]
    low, high = min(-0.12, *ends), max(1.05, *ends)
    wide = (WIDTH - 2 * _SIDE) / (high - low)

    def at(value: float) -> float:
        return _SIDE + (value - low) * wide

    height = _TOP + _STEP * len(rows) + _FOOT
    base = dict(zip(NETWORKS, answers.comparison.pair, strict=True))["base"]
    marks = [*_legend(style.clipped(f"as in {base}", 30))]
    for place, (row, one) in enumerate(zip(rows, places, strict=True)):
        top = _TOP + _STEP * place
        marks += _words(row, answers, top)
        marks += [_line(at(0.0), top + 34, 9, "currentColor", 2, 0.45)]
        marks += [_line(at(1.0), top + 34, 9, "currentColor", 1, 0.25)]
        marks += one.marks(at, top + 34, full=answers.rejected(row))
    marks += _axis(at, height - _FOOT)
    title = escape(f"Witnesses of channel {channel} of {layer}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{title}" width="{WIDTH}" '
        f'height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}" style="color:inherit">'
        f"<title>{title}</title>{''.join(marks)}</svg>\n"
    )


class _Places:
    """Where a row's value, interval and base lie, in units of the layer's largest effect from its null."""

    def __init__(self, row: Witnessed, largest: float):
        null = null_of(row)
        ends = [end if math.isfinite(end) else row.value for end in (row.low, row.high)]
        self.value, *self.ends = ((one - null) / largest for one in (row.value, *ends))
        before = -null / largest
        self.base = before if 0.02 < abs(before) <= _BEYOND else None

    @property
    def cut(self) -> list[float]:
        """The interval's ends as far as they are shown."""
        return [min(max(end, -_BEYOND), _BEYOND) for end in self.ends]

    @property
    def shown(self) -> list[float]:
        """All that must lie on the figure."""
        return [*self.cut, self.value, *([self.base] if self.base is not None else [])]

    def marks(self, at: At, y: float, *, full: bool) -> Iterator[str]:
        """Interval, arrows where it is cut, base and dot."""
        low, high = (at(end) for end in self.cut)
        colour = style.TUNED_COLOUR
        yield f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="{colour}" stroke-width="2.5"/>'
        for end, shown, way in zip(self.ends, self.cut, (-1, 1), strict=True):
            if end != shown:
                x = at(shown)
                yield (
                    f'<path class="arrow" d="M{x + 7 * way:.1f} {y}L{x:.1f} {y - 4}V{y + 4}Z" '
                    f'fill="{colour}"/>'
                )
        if self.base is not None:
            yield _line(at(self.base), y, 6, style.BASE_COLOUR, 2.5, 1)
        inside = colour if full else "none"
        yield (
            f'<circle class="{"full" if full else "empty"}" cx="{at(self.value):.1f}" cy="{y}" r="4.5" '
            f'fill="{inside}" stroke="{colour}" stroke-width="2"/>'
        )


def _line(x: float, y: float, half: float, colour: str, width: float, opacity: float) -> str:
    return (
        f'<line x1="{x:.1f}" y1="{y - half}" x2="{x:.1f}" y2="{y + half}" stroke="{colour}" '
        f'stroke-width="{width}" opacity="{opacity}"/>'
    )


def _text(x: float, y: float, words: str, *, size: float = 12, anchor: str = "start") -> str:
    muted = ' opacity="0.75"' if size < 12 else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor"{muted} '
        f'style="font-size: {size}px">{escape(words)}</text>'
    )


def _legend(base: str) -> Iterator[str]:
    looks: Sequence[tuple[str, str, float]] = (
        ("this channel", style.TUNED_COLOUR, 0.95),
        (base, style.BASE_COLOUR, 0.95),
        ("held against", "currentColor", 0.45),
    )
    x = _SIDE
    for words, colour, opacity in looks:
        yield f'<rect x="{x:.1f}" y="6" width="14" height="9" fill="{colour}" opacity="{opacity}"/>'
        yield _text(x + 20, 15, words, size=11.5)
        x += 30 + 6.2 * style.text_width(words)


def _words(row: Witnessed, answers: Answers, top: float) -> Iterator[str]:
    """The witness and its figures, above its line."""
    words = witness_words(row.witness)
    against = f"{null_words(answers.comparison, row.witness)} {words.say(null_of(row))}"
    said = f"{words.say(row.value)}, {against}"
    yield _text(_SIDE, top + 17, style.clipped(words.label, 54 - 0.9 * style.text_width(said)))
    yield _text(WIDTH - _SIDE, top + 17, said, size=11.5, anchor="end")


def _axis(at: At, y: float) -> Iterator[str]:
    yield (
        f'<line x1="{_SIDE}" y1="{y}" x2="{WIDTH - _SIDE}" y2="{y}" stroke="currentColor" opacity="0.6"/>'
    )
    for value, words in ((0.0, "held against"), (1.0, "layer's largest")):
        yield _line(at(value), y + 2, 2, "currentColor", 1, 0.6)
        anchor = "end" if at(value) > WIDTH - 60 else "middle"
        yield _text(at(value), y + 19, words, size=11.5, anchor=anchor)
