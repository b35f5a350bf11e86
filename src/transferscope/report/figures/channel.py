"""All witnesses of one channel as SVG, written directly: an atlas may have thousands of these."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from transferscope.comparison.records import NETWORKS
from transferscope.errors import InputError
from transferscope.report.figures import style, svg
from transferscope.report.questions import Answers, null_of, null_words, witness_words

if TYPE_CHECKING:
    from transferscope.comparison.change import Witnessed

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
    wide = (svg.WIDTH - 2 * svg.SIDE) / (high - low)

    def at(value: float) -> float:
        return svg.SIDE + (value - low) * wide

    height = _TOP + _STEP * len(rows) + _FOOT
    base = dict(zip(NETWORKS, answers.comparison.pair, strict=True))["base"]
    marks = [*_legend(style.clipped(f"as in {base}", 30))]
    for place, (row, one) in enumerate(zip(rows, places, strict=True)):
        top = _TOP + _STEP * place
        marks += _words(row, answers, top)
        marks += [svg.upright(at(0.0), top + 34, 9, "currentColor", 2, 0.45)]
        marks += [svg.upright(at(1.0), top + 34, 9, "currentColor", 1, 0.25)]
        marks += one.marks(at, top + 34, full=answers.rejected(row))
    marks += _axis(at, height - _FOOT)
    return svg.document(height, f"Witnesses of channel {channel} of {layer}", marks)


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
        yield svg.line((low, y), (high, y), colour, 2.5)
        for end, shown, way in zip(self.ends, self.cut, (-1, 1), strict=True):
            if end != shown:
                x = at(shown)
                yield (
                    f'<path class="arrow" d="M{x + 7 * way:.1f} {y}L{x:.1f} {y - 4}V{y + 4}Z" '
                    f'fill="{colour}"/>'
                )
        if self.base is not None:
            yield svg.upright(at(self.base), y, 6, style.BASE_COLOUR, 2.5, 1)
        yield svg.dot(at(self.value), y, colour, full=full)


def _legend(base: str) -> Iterator[str]:
    looks: Sequence[tuple[str, str, float]] = (
        ("this channel", style.TUNED_COLOUR, 0.95),
        (base, style.BASE_COLOUR, 0.95),
        ("held against", "currentColor", 0.45),
    )
    x = svg.SIDE
    for words, colour, opacity in looks:
        yield svg.swatch(x, 6, colour, opacity)
        yield svg.text(x + 20, 15, words, size=11.5)
        x += 30 + 6.2 * style.text_width(words)


def _words(row: Witnessed, answers: Answers, top: float) -> Iterator[str]:
    """The witness and its figures, above its line."""
    words = witness_words(row.witness)
    against = f"{null_words(answers.comparison, row.witness)} {words.say(null_of(row))}"
    said = f"{words.say(row.value)}, {against}"
    yield svg.text(
        svg.SIDE, top + 17, style.clipped(words.label, 54 - 0.9 * style.text_width(said))
    )
    yield svg.text(svg.WIDTH - svg.SIDE, top + 17, said, size=11.5, anchor="end")


def _axis(at: At, y: float) -> Iterator[str]:
    yield svg.line((svg.SIDE, y), (svg.WIDTH - svg.SIDE, y), opacity=0.6)
    for value, words in ((0.0, "held against"), (1.0, "layer's largest")):
        yield svg.upright(at(value), y + 2, 2, "currentColor", 1, 0.6)
        anchor = "end" if at(value) > svg.WIDTH - 60 else "middle"
        yield svg.text(at(value), y + 19, words, size=11.5, anchor=anchor)
