"""Numbers and lists in words, as figures, sheets and pages write them."""

from __future__ import annotations

import math
from collections.abc import Sequence


def number(value: float | None, digits: int = 2) -> str:
    """Fixed decimals with a true minus sign; a dash for what is not a number."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else f"{0:.{digits}f}"


def short(value: float | None) -> str:
    """Three significant digits with a true minus sign; a dash for None."""
    if value is None:
        return "–"
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.2e}".replace("-", "−")
    return number(value, 0 if not value else max(0, 2 - math.floor(math.log10(abs(value)))))


def signed(value: float | None, digits: int = 2) -> str:
    """`number`, with a plus sign where it is positive."""
    text = number(value, digits)
    return text if text[0] in "−–" or not float(text) else f"+{text}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share of 1 as a percentage; a dash for what is not a number."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{100 * value:.{digits}f}%"


def span(low: float, high: float, digits: int = 1) -> str:
    """Two shares of 1 as the ends of an interval in percent."""
    return f"{percent(low, digits)} – {percent(high, digits)}"


def probability(value: float | None) -> str:
    """A p or q value: three decimals, and never a plain 0."""
    if value is None or not math.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def rate_words(value: float) -> str:
    """A learning rate in few letters: 0, 0.02, 3e-4, 2.5e-5."""
    if value == 0 or 0.001 <= abs(value) < 1000:
        return f"{value:.3g}"
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(power)}"


def counted(n: int, one: str, more: str | None = None) -> str:
    """A number with its noun: 1 picture, 2,000 pictures."""
    return f"{n:,} {one if n == 1 else more or one + 's'}"


def listed(names: Sequence[str], most: int) -> str:
    """The first names, quoted, and how many there are more."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(f"“{name}”" for name in names[:most]) + more


def series(names: Sequence[str]) -> str:
    """The names in a sentence: a, b and c."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def duration(seconds: float) -> str:
    """`40 s`, `7 min` or `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
