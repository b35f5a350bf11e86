"""Objectives over a whole layer."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from transferscope.visualize.objectives.algebra import Activations, Objective, refuse_single
from transferscope.visualize.objectives.outputs import by_position


def layer_energy(layer: str) -> Objective:
    """The mean of the squares of a layer's output: more of whatever it sees already.

    Reference: Mordvintsev et al. 2015, "Inceptionism", where the sum stands for the mean.
    """
    return Objective(
        (layer,),
        lambda activations, _pictures: activations[layer].float().square().flatten(1).mean(1),
        f"layer_energy({layer})",
    )


def diversity(layer: str) -> Objective:
    """How little a picture's use of a layer resembles that of the other pictures of its batch.

    For each picture minus the mean, over the others, of the cosine between the Gram matrices of the
    channels: in [-1, 0] where no cosine is negative, and 0 when they have nothing in common. The one
    objective whose value for a picture depends on its neighbours: draw with `render_together`.

    Reference: Olah et al. 2017, after Gatys et al.'s style; the sum over pairs there is a mean here.

    Raises:
        InputError: on use, a batch of one picture.
    """

    def measure(activations: Activations, _pictures: torch.Tensor) -> torch.Tensor:
        seen = by_position(activations[layer], layer)
        count = len(seen)
        refuse_single(count, "diversity")
        grams = (seen @ seen.transpose(1, 2)).flatten(1)
        grams = F.normalize(grams, dim=1)
        alike = grams @ grams.T
        others = 1 - torch.eye(count, device=alike.device)
        return -(alike * others).sum(1) / (count - 1)

    return Objective((layer,), measure, f"diversity({layer})")
