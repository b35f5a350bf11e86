"""The learning-rate range test: a short fit whose rate rises until the loss does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from transferscope.acceleration.precision import Precision
from transferscope.backbones.classifier import Classifier
from transferscope.errors import DataError
from transferscope.training.batches import Part
from transferscope.training.fit import Fit
from transferscope.training.recipe import Recipe

LOWEST, HIGHEST = 1e-6, 1.0
"""Rates that the test begins and at most ends with."""

STEPS = 100
"""Of the whole range: a factor of 1.15 a step."""

DIVERGED = 3.0
"""The test ends when the smoothed loss is this many times its lowest."""

SAFETY = 10.0
"""The suggestion is the rate of the lowest smoothed loss divided by this."""

_SMOOTHING = 0.9


@dataclass(frozen=True)
class RateTest:
    """What the range test saw.

    Attributes:
        rates: one a step, rising.
        losses: of the training batches, in nats.
        smoothed: their exponential moving average, corrected for its start.
        suggestion: the rate to train with.
        found: False where the loss fell at no rate, so that there was nothing to learn from the test;
            the suggestion is then the recipe's rate.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float
    found: bool


def find_rate(
    start: Classifier,
    boundary: str | None,
    train: Part,
    *,
    recipe: Recipe,
    precision: Precision = "auto",
    steps: int = STEPS,
    on_step: Callable[[int, int], None] | None = None,
) -> RateTest:
    """Tries rising rates on a copy of the network and says which to train with.

    A fine-tuning that starts from a fitted head begins near its optimum, so the loss hardly falls and
    the place of its steepest fall means little. The rate where the smoothed loss is lowest, divided by
    `SAFETY`, does not depend on that.

    Args:
        start: unchanged.
        boundary, train, recipe, precision: see `fine_tune`.
        steps: of the range from `LOWEST` to `HIGHEST`.
        on_step: called with (steps done, steps).

    Raises:
        DataError: the loss is not finite at the first step.

    Reference: Smith 2017, section 3.3, with an exponential range as fastai has it.
    """
    fit = Fit(start, boundary, train, recipe=replace(recipe, gradual=False), precision=precision)
    size = min(recipe.batch_size, len(train))
    generator = torch.Generator().manual_seed(recipe.seed)
    chunks: list[torch.Tensor] = []
    while len(chunks) < steps:  # an epoch after the other, without what is left of each
        order = torch.randperm(len(train), generator=generator)
        chunks += [chunk for chunk in order.split(size) if len(chunk) == size]
    low, high = math.log(LOWEST), math.log(HIGHEST)
    rates = [math.exp(low + n / max(1, steps - 1) * (high - low)) for n in range(steps)]
    seen: list[tuple[float, float, float]] = []  # rate, loss, smoothed loss
    average, lowest = 0.0, (math.inf, 0.0)
    try:
        for number, rate, loss in fit.at_rates(chunks[:steps], rates.__getitem__):
            average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
            smoothed = average / (1 - _SMOOTHING ** (number + 1))
            seen.append((rate, loss, smoothed))
            lowest = min(lowest, (smoothed, rate))
            if on_step:
                on_step(number + 1, steps)
            if smoothed > DIVERGED * lowest[0]:
                break
    except DataError:  # a rate so high that the loss overflows: the test has found its end
        if not seen:
            raise
    suggestion = lowest[1] / SAFETY
    found = suggestion > LOWEST
    tried, losses, averages = zip(*seen, strict=True)
    rate = suggestion if found else recipe.learning_rate
    return RateTest(tried, losses, averages, rate, found)
