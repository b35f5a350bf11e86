"""A made-up record of what two networks stood."""

from __future__ import annotations

from transferscope.adversarial.corruptions import CORRUPTIONS, STRENGTHS
from transferscope.adversarial.robustness import Endured, Robustness, Trial, robustness_of


def rows(stood: int, distance: float | None) -> list[Endured]:
    """Twenty pictures, of which each epsilon fools one more than `stood` lets stand."""
    trial = Trial()
    found = []
    for number in range(20):
        right = tuple(number < stood - 3 * at for at in range(len(trial.epsilons)))
        worse = {
            name: tuple(number < stood - at for at in range(STRENGTHS)) for name in CORRUPTIONS
        }
        noise = (number < stood,) * len(right)
        way = None if distance is None else distance * (number + 1)
        found.append(Endured(f"{number}.png", number % 2, 1.0, right, noise, way, worse))
    return found


def result(distance: float | None = 0.02) -> Robustness:
    return robustness_of(
        rows(16, distance), rows(18, distance), trial=Trial(), split="test", of=50, classes=2
    )
