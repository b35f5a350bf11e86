"""Which drawn channels the atlas's front page shows, by why they were drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transferscope.comparison.change import LEARNED, MATTERS, MOVED
from transferscope.comparison.shortlist import (
    AT_RANDOM,
    LEAST_LEARNED,
    MOST_LEARNED,
    MOST_MATTERING,
)
from transferscope.report.pages.channels import Layer, Unit
from transferscope.report.questions import excess_of


def by_reason(layers: Sequence[Layer], most: int) -> dict[str, list[Unit]]:
    """Drawn channels of all layers by why they were drawn, `most` of each, best first."""
    orders = {
        MOST_LEARNED: _by(LEARNED, 1.0),
        LEAST_LEARNED: _by(LEARNED, -1.0),
        MOST_MATTERING: _by(MATTERS, 1.0),
        AT_RANDOM: _by(MOVED, 0.0),
    }
    units = [unit for layer in layers for unit in layer.units]
    reasons = dict.fromkeys([*orders, *(unit.record.reason for unit in units)])
    found = {reason: [unit for unit in units if unit.record.reason == reason] for reason in reasons}
    for reason, order in orders.items():
        found[reason].sort(key=order)
    return {reason: several[:most] for reason, several in found.items() if several}


def _by(witness: str, sign: float) -> Any:
    """Sort key: the value less its null, the largest first where `sign` is 1; layers keep their order at 0."""

    def key(unit: Unit) -> float:
        row = next((a.row for a in unit.answers if a.question.witness == witness), None)
        row = unit.gain if witness == LEARNED else row
        return -sign * (excess_of(row) or 0.0)

    return key
