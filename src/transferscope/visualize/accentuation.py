"""Feature accentuation: what a channel answers to in a given picture, exaggerated there.

Reference: Hamblin et al. 2024, "Feature Accentuation: Revealing 'What' Features Respond to in Natural
Images". The picture is the start and what the ascent is held to. In place of their distance between latent
maps, place by place, that of the layer's other channels' means is penalised: movements shift the places.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError
from transferscope.visualize.canvas import from_image
from transferscope.visualize.movement import Movement
from transferscope.visualize.objectives.algebra import Activations, Objective
from transferscope.visualize.objectives.directions import caricature_target
from transferscope.visualize.objectives.outputs import by_position
from transferscope.visualize.recipe import RenderRecipe, make_recipe
from transferscope.visualize.records import Sign
from transferscope.visualize.render import render

STEPS, RATE = 64, 0.02
"""Few and short ones: what comes out is still the photograph."""

HELD = 1.0
"""What a change of the other channels by their own length costs, in the channel's own size."""

GENTLE = Movement(jitter=0.03, scale=(0.95, 1.05), rotation=3.0)


@dataclass(frozen=True, eq=False)
class Accentuation:
    """A picture in which a channel answers more strongly.

    Attributes:
        layer: dotted name.
        channel: index.
        sign: direction in which it was driven.
        picture: uint8 (H, W, C), what was given.
        accentuated: uint8 (H, W, C).
        before: the channel's mean over places for `picture`, untouched network, fp32.
        after: the same for `accentuated`.
    """

    layer: str
    channel: int
    sign: Sign
    picture: np.ndarray
    accentuated: np.ndarray
    before: float
    after: float


def accentuate(
    classifier: Classifier,
    picture: torch.Tensor,
    layer: str,
    channel: int,
    *,
    sign: Sign | None = None,
    seed: int = 0,
    recipe: RenderRecipe | None = None,
) -> Accentuation:
    """Changes a picture so that a channel answers more strongly to it, and the layer's others as before.

    Args:
        classifier: unchanged.
        picture: (C, H, W) in [0, 1], of the network's input size.
        layer: dotted name.
        channel: index.
        sign: "minus" makes it more negative; None: whichever of the two its mean already is.
        seed: of the movements.
        recipe: in place of the usual one.

    Raises:
        UnknownName: no such layer.
        InputError: no such channel.
    """
    seen = _means(caricature_target(classifier, layer, picture), layer)
    if not 0 <= channel < len(seen):
        raise InputError(f"there is no channel {channel} in {layer!r}; it has 0 to {len(seen) - 1}")
    if sign is None:
        sign = "minus" if seen[channel] < 0 else "plus"
    usual = replace(
        make_recipe(STEPS), movement=GENTLE, rate=RATE, detail=1.0, redirect=0, settled=0.0
    )
    drawn = render(
        classifier,
        held(layer, channel, seen, sign),
        seed=seed,
        parametrization=from_image(picture),
        recipe=recipe or usual,
    )
    pixels = torch.from_numpy(drawn.picture.copy()).permute(2, 0, 1).float() / 255
    after = _means(caricature_target(classifier, layer, pixels), layer)
    given = (picture.detach().cpu() * 255).round().byte().permute(1, 2, 0).numpy()
    return Accentuation(
        *(layer, channel, sign, given, drawn.picture), float(seen[channel]), float(after[channel])
    )


def held(layer: str, channel: int, reference: torch.Tensor, sign: Sign = "plus") -> Objective:
    """A channel's mean, less `HELD` times how far the other channels' means go from a reference.

    Args:
        layer: dotted name.
        channel: index.
        reference: (C,), means over places; both parts are relative to its size.
        sign: "minus" for the negative of the channel's mean.
    """
    others = torch.ones_like(reference)
    others[channel] = 0
    size = float((reference * others).square().mean().sqrt()) or 1.0
    direction = 1 if sign == "plus" else -1
    own = max(abs(float(reference[channel])), size)

    def measure(activations: Activations, _pictures: torch.Tensor) -> torch.Tensor:
        means = by_position(activations[layer], layer).mean(2)
        apart = (means - reference.to(means)) * others.to(means)
        return (
            direction * means[:, channel] / own
            - HELD * (apart.square().mean(1) + 1e-12).sqrt() / size
        )

    return Objective((layer,), measure, f"accentuation({layer}, {channel})")


def _means(seen: torch.Tensor, layer: str) -> torch.Tensor:
    return by_position(seen[None], layer).mean(2)[0].cpu()
