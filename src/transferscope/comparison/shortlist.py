"""Which channels are drawn: those that learned most, mattered most, learned least, and some at random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle

import numpy as np

from transferscope.comparison.change import LEARNED, MATTERS, Witnessed

MOST_LEARNED, MOST_MATTERING, LEAST_LEARNED, AT_RANDOM = (
    "most learned",
    "most mattering",
    "least learned",
    "at random",
)

_ORDER = (MOST_LEARNED, MOST_MATTERING, AT_RANDOM, LEAST_LEARNED, MOST_LEARNED, AT_RANDOM)


def shortlist(
    rows: Sequence[Witnessed], layer: str, channels: int, count: int | None, *, seed: int
) -> dict[int, str]:
    """Channels of a layer to draw, each with the reason why, ascending.

    Places are given in turn to the channels that learned most (class information gained beyond the controls'
    mean), that matter most (patching), to some drawn at random, whatever is known of them, and to those that
    learned least: what is said of the first can be held against the others.

    Args:
        rows: of all witnesses.
        layer: dotted name.
        channels: how many the layer has.
        count: how many to choose; None: all.
        seed: of the random ones.
    """
    learned = _descending(rows, layer, LEARNED)
    choices: dict[str, Iterator[int]] = {
        MOST_LEARNED: iter(learned),
        MOST_MATTERING: iter(_descending(rows, layer, MATTERS)),
        LEAST_LEARNED: iter(learned[::-1]),
        AT_RANDOM: iter(np.random.default_rng([seed, channels]).permutation(channels).tolist()),
    }
    chosen: dict[int, str] = {}
    wanted = channels if count is None else min(count, channels)
    for reason in cycle(_ORDER):
        if len(chosen) >= wanted:
            break
        channel = next((one for one in choices[reason] if one not in chosen), None)
        if channel is not None:
            chosen[channel] = reason
    return dict(sorted(chosen.items()))


def _descending(rows: Sequence[Witnessed], layer: str, witness: str) -> list[int]:
    asked = [row for row in rows if row.witness == witness and row.layer == layer]
    return [
        row.channel for row in sorted(asked, key=lambda row: (row.null - row.value, row.channel))
    ]
