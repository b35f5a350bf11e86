"""The picture a class wants most, drawn three ways: what each part of the recipe is for.

Pixels alone give noise that convinces the network completely; a penalty on total variation gives
smooth blotches; the spectrum with decorrelated colours and small movements gives something to see.

Reference: Simonyan et al. 2014 for the class picture; Mahendran and Vedaldi 2015 for the penalty; Olah et
al. 2017 for the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from transferscope.backbones.classifier import Classifier
from transferscope.visualize.canvas import Parametrization, fourier, pixel
from transferscope.visualize.engine import Engine, Job
from transferscope.visualize.movement import Movement, seed_of
from transferscope.visualize.objectives.algebra import LOGITS, Objective
from transferscope.visualize.objectives.channels import logit
from transferscope.visualize.objectives.penalties import total_variation
from transferscope.visualize.recipe import RenderRecipe, make_recipe

IDEAL_STEPS = 256
"""A class takes more steps than a channel: its picture has parts that belong together."""

SMOOTHNESS = 300.0
"""What a total variation of 1 costs in logits, in the second version."""

_BARE_RATE = 0.15

_RATE = 0.05
"""At 0.15 as much is reached, in colours that are black, white and garish."""

WIDE = Movement(jitter=0.12, scale=(0.8, 1.15), rotation=12.0)
"""A logit is drawn with larger movements than a channel: an object is the same one anywhere."""


@dataclass(frozen=True, eq=False)
class Ideal:
    """One way of drawing a class.

    Attributes:
        version: "pixels", "smooth" or "full".
        said: what was done, for a caption.
        picture: uint8 (H, W, 3).
        logit: of the class, of the finished picture, untouched network, fp32.
        probability: of the class, with the classifier's temperature.
        total_variation: mean absolute difference of neighbouring pixels, both directions added.
    """

    version: str
    said: str
    picture: np.ndarray
    logit: float
    probability: float
    total_variation: float


def ideal(
    classifier: Classifier,
    index: int,
    *,
    seed: int = 0,
    steps: int | None = None,
    size: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Ideal]:
    """The three versions of a class's picture, from bare to full.

    Args:
        classifier: unchanged.
        index: of the class.
        seed, size: see `render_channels`.
        steps: of each; None: `IDEAL_STEPS`.
        on_progress: called with (versions done, 3).

    Raises:
        InputError: no such class, or an option out of range.
    """
    recipe = make_recipe(steps or IDEAL_STEPS, size)
    bare = replace(recipe, movement=None, detail=1.0, rate=_BARE_RATE)
    full = replace(recipe, movement=WIDE, rate=_RATE)
    smooth = logit(index) - SMOOTHNESS * total_variation()
    ways: tuple[tuple[str, str, RenderRecipe, Parametrization, Objective], ...] = (
        ("pixels", "pixels, nothing else", bare, pixel, logit(index)),
        ("smooth", "and total variation is penalised", bare, pixel, smooth),
        ("full", "the full recipe", full, fourier, logit(index)),
    )
    found = []
    for version, said, chosen, parametrization, objective in ways:
        engine = Engine(classifier, (LOGITS,), chosen, parametrization=parametrization)
        drawn = engine.draw([Job(objective, seed_of("ideal", version, index, seed))])
        batch = (drawn.pictures.float() / 255).to(classifier.device)
        with classifier.inference():
            found.append(
                Ideal(
                    version=version,
                    said=said,
                    picture=drawn.arrays()[0],
                    logit=float(classifier(batch)[0, index]),
                    probability=float(classifier.probabilities(batch)[0, index]),
                    total_variation=float(total_variation()({}, batch)[0]),
                )
            )
        if on_progress:
            on_progress(len(found), len(ways))
    return found
