"""Overlapping tiles of a picture that fade into each other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch

GRID = 32
"""Tiles are multiples of it, so that few shapes occur; also the largest jitter, in pixels: the stride
of the deepest layer of most networks."""

_OVERLAP = 64
"""Pixels over which neighbouring tiles fade into each other; less where tiles are small."""

Span = tuple[int, int]
"""(start, stop) of a tile along an axis, in pixels."""


def spans(length: int, limit: int, jitter: int, shift: float, *, exact: bool) -> list[Span]:
    """Overlapping spans of at most `limit` that cover 0 to `length`, and may reach beyond both ends.

    Their lengths are multiples of 32, or exactly `limit`.
    """
    shared = overlap(limit)
    room = limit - shared - (0 if exact else GRID)  # what a span adds at most, before rounding up
    if length + GRID <= limit:
        long = limit if exact else -(-(length + GRID) // GRID) * GRID
        return [(-jitter, long - jitter)]
    count = max(2, math.ceil(1.1 * (length + GRID) / room))  # whatever the jitter is
    covered = length + jitter
    part = covered / count
    move = (2 * shift - 1) * min(room - part, part / 2)
    cuts = [0, *(round(part * k + move) for k in range(1, count)), covered]
    found = []
    for first, last in itertools.pairwise(cuts):
        start = first - (shared // 2 if first else 0)
        stop = last + (shared - shared // 2 if last < covered else 0)
        long = limit if exact else -(-(stop - start) // GRID) * GRID
        found.append((start - jitter, start + long - jitter))
    return found


def overlap(limit: int) -> int:
    """Pixels over which tiles of at most `limit` fade into each other."""
    return min(_OVERLAP, limit // 8)


def fades(spans: Sequence[Span], shared: int) -> list[torch.Tensor]:
    """For each span its weights by pixel: they fall towards neighbours, and add up to 1 everywhere."""
    begin, end = spans[0][0], max(stop for _, stop in spans)
    total = torch.zeros(end - begin)
    found = []
    for number, (start, stop) in enumerate(spans):
        place = torch.arange(stop - start) + 0.5
        fade = torch.ones(stop - start)
        if number:
            fade = (place / shared).clamp_max(1)
        if number < len(spans) - 1:
            fade = torch.minimum(fade, ((stop - start - place) / shared).clamp_max(1))
        found.append(fade)
        total[start - begin : stop - begin] += fade
    return [
        fade / total[start - begin : stop - begin]
        for fade, (start, stop) in zip(found, spans, strict=True)
    ]


def mirrored(span: Span, length: int) -> torch.Tensor:
    """Indexes of a span of an axis that is mirrored at both ends, as often as it takes."""
    place = torch.arange(*span) % (2 * length)
    return torch.where(place < length, place, 2 * length - 1 - place)


def add_inside(
    whole: torch.Tensor,
    part: torch.Tensor,
    spans: tuple[Span, Span],
    fades: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """Adds a tile's (C, h, w) to the picture's, faded; what belongs to mirrored pixels is left out."""
    (top, bottom), (left, right) = (
        (max(start, 0), min(stop, length))
        for (start, stop), length in zip(spans, whole.shape[1:], strict=True)
    )
    rows = slice(top - spans[0][0], bottom - spans[0][0])
    columns = slice(left - spans[1][0], right - spans[1][0])
    faded = part[:, rows, columns] * fades[0][rows, None] * fades[1][None, columns]
    whole[:, top:bottom, left:right] += faded
