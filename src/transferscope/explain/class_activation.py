"""Attributions by a layer's activations, weighted by their gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import interpolate

from transferscope.explain.maps import Maps, parts
from transferscope.explain.scores import Scores, Targets, recorded
from transferscope.features.receptive_field import as_maps


def grad_cam(scores: Scores, pictures: torch.Tensor, targets: Targets, *, batch_size: int) -> Maps:
    """A layer's channels weighted by their mean gradients, the positive part, in the picture's size.

    Tokens (N, T, D) are laid out as the patches they belong to; class and register tokens are left out.

    Reference: Selvaraju et al. 2017, eq. 1 and 2.
    """
    return _weighted(
        *(scores, pictures, targets, batch_size),
        lambda activation, gradient: (activation * gradient.mean((2, 3), keepdim=True)).sum(1),
    )


def layer_cam(scores: Scores, pictures: torch.Tensor, targets: Targets, *, batch_size: int) -> Maps:
    """A layer's activations weighted place by place by their positive gradients, the positive part.

    Reference: Jiang et al. 2021, eq. 5 and 6; the map is not rescaled to [0, 1].
    """
    return _weighted(
        *(scores, pictures, targets, batch_size),
        lambda activation, gradient: (activation * gradient.relu()).sum(1),
    )


def _weighted(
    scores: Scores,
    pictures: torch.Tensor,
    targets: Targets,
    batch_size: int,
    combine: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Maps:
    size, found = (pictures.shape[2], pictures.shape[3]), []
    for part, of in parts(pictures, targets, batch_size):
        with recorded():
            given = part.detach().clone().requires_grad_()  # so that everything is recorded
            activation, logits = scores.with_activations(given)
            total = of.scores(logits).sum()
            (gradient,) = torch.autograd.grad(total, activation)
        small = combine(as_maps(activation.detach(), size), as_maps(gradient, size)).relu()
        found.append(interpolate(small[:, None], size, mode="bilinear", align_corners=False)[:, 0])
    return Maps(torch.cat(found))
