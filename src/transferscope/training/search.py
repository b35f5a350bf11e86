"""A budgeted search over head, depth, learning rate and augmentation, decided on validation.

Trials are short fits from the boundary cache, so most of what training costs, the frozen part, is
paid once a depth and view.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from transferscope.data.augmentation import AugmentationName
from transferscope.errors import InputError
from transferscope.files import sha256_json
from transferscope.records import Record
from transferscope.training.config import HeadName
from transferscope.training.recipe import BalanceName, BatchNormMode, Recipe

RATES = (1e-4, 2e-3)
"""Least and largest learning rate that is tried; drawn evenly in the logarithm."""

SHORT = 3
"""A trial has this part of the recipe's epochs, and at least two."""


@dataclass(frozen=True)
class Settings(Record):
    """What a trial tries: `boundary` is the last frozen layer, None where every layer is tuned;
    `learning_rate` is the schedule's peak."""

    head: HeadName
    boundary: str | None
    learning_rate: float
    augment: AugmentationName
    batch_norm: BatchNormMode = "frozen"
    balance: BalanceName = "none"

    @classmethod
    def of(cls, recipe: Recipe, head: HeadName, boundary: str | None) -> Settings:
        """A recipe's own settings."""
        return cls(
            head,
            boundary,
            recipe.learning_rate,
            recipe.augment,
            recipe.batch_norm,
            recipe.balance,
        )

    def recipe(self, recipe: Recipe) -> Recipe:
        """A recipe with these settings and all else as given."""
        return replace(
            recipe,
            learning_rate=self.learning_rate,
            augment=self.augment,
            batch_norm=self.batch_norm,
            balance=self.balance,
        )


@dataclass(frozen=True)
class Trial(Record):
    """A finished trial: its settings, and validation top-1, loss in nats and seconds."""

    number: int
    settings: Settings
    top1: float
    loss: float
    seconds: float

    def sentence(self, count: int) -> str:
        """What this trial of `count` has found."""
        settings = self.settings
        return (
            f"trial {self.number + 1} of {count}: validation {self.top1:.1%}, loss {self.loss:.3f} "
            f"({settings.head} head, behind {settings.boundary or 'no layer'}, rate "
            f"{settings.learning_rate:g}, augmentation {settings.augment}; {self.seconds:.0f} s)"
        )


def draw_settings(
    first: Settings, boundaries: Sequence[str], *, count: int, seed: int
) -> list[Settings]:
    """What `count` trials try: first what would be done without a search, then draws from a seed.

    Every trial's draw depends on the seed and its own number alone, so a longer search begins with
    the trials of a shorter one. Learning rates fill the range evenly, however many there are.

    Args:
        first: the settings without a search.
        boundaries: the depths to choose from.
        count: trials, `first` included.
        seed: of the draws.

    Raises:
        InputError: fewer than one trial, or no boundary.
    """
    if count < 1 or not boundaries:
        raise InputError(
            f"--search is {count} over {len(boundaries)} depths; it must be at least 1 trial and 1 depth"
        )
    drawn = [first]
    low, high = math.log(RATES[0]), math.log(RATES[1])
    for number in range(1, count):
        digest = sha256_json(["transferscope search", seed, number])
        rng = np.random.default_rng(int(digest[:32], 16))
        # Van der Corput's sequence: each new rate falls into the widest gap between those before.
        place = int(f"{number:b}"[::-1], 2) / 2 ** number.bit_length()
        drawn.append(
            replace(
                first,
                head="mlp" if rng.random() < 0.25 else "linear",
                boundary=boundaries[int(rng.integers(len(boundaries)))],
                learning_rate=float(f"{math.exp(low + place * (high - low)):.3g}"),
                augment=get_args(AugmentationName)[int(rng.integers(3))],
            )
        )
    return drawn


def short(recipe: Recipe) -> Recipe:
    """The recipe of a trial: fewer epochs, all of them run."""
    return replace(recipe, epochs=max(2, recipe.epochs // SHORT), patience=0)


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The one with the highest validation accuracy; the lowest loss among equals."""
    return max(trials, key=lambda trial: (trial.top1, -trial.loss, -trial.number))
