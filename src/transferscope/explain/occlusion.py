"""Attribution by covering parts of the picture."""

from __future__ import annotations

import torch

from transferscope.explain.maps import Maps, parts
from transferscope.explain.scores import Scores, Targets


def occlusion(
    scores: Scores,
    pictures: torch.Tensor,
    targets: Targets,
    *,
    batch_size: int,
    window: float = 1 / 7,
    stride: float = 0.5,
) -> Maps:
    """What the score loses when a square is covered with the mean colour; the mean over squares at a place.

    Args:
        scores, pictures, targets, batch_size: see `METHODS`.
        window: side of the square, as a share of the picture's shorter side.
        stride: from one square to the next, as a share of the window.

    Reference: Zeiler and Fergus 2014, section 4.2.
    """
    from captum.attr import Occlusion

    channels = pictures.shape[1]
    side = max(1, round(window * min(pictures.shape[2:])))
    step = max(1, round(stride * side))
    mean = pictures.new_tensor(scores.classifier.input.mean).view(1, -1, 1, 1)
    captum, found = Occlusion(scores.of), []
    for part, of in parts(pictures, targets, 1):
        with torch.no_grad():
            lost = captum.attribute(
                part,
                sliding_window_shapes=(channels, side, side),
                strides=(channels, step, step),
                baselines=mean.expand_as(part),
                additional_forward_args=(of.index, of.against),
                perturbations_per_eval=batch_size,
            )
        found.append(lost[:, 0].float())
    return Maps(torch.cat(found))
