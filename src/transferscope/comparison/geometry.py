"""How alike two networks see the same pictures."""

from __future__ import annotations

import torch
from torch.nn import functional

from transferscope.activations import state_up_to
from transferscope.backbones.classifier import Classifier
from transferscope.images import as_float, to_picture


def frozen_up_to(base: Classifier, tuned: Classifier, layer: str) -> bool:
    """Whether every parameter and buffer that `layer`'s output depends on is bit-identical.

    Raises:
        UnknownName: no such layer.
    """
    old = state_up_to(base.network, layer, base.example())
    new = tuned.network.state_dict()
    return all(name in new and torch.equal(value, new[name]) for name, value in old.items())


def embed(base: Classifier, pictures: torch.Tensor, *, batch_size: int = 16) -> torch.Tensor:
    """Pooled features of pictures in the base network, scaled to length 1.

    Args:
        base: whose eyes judge both networks' pictures.
        pictures: uint8 (N, H, W, 3).
        batch_size: pictures a forward pass.

    Returns:
        float32 (N, D); the product of two rows is their cosine.
    """
    spec = base.input
    parts = []
    with base.inference():
        for part in pictures.split(batch_size):
            loaded = torch.stack([spec.load(to_picture(picture)) for picture in part])
            parts.append(base.pooled_features(as_float(loaded.to(base.device))).float().cpu())
    return functional.normalize(torch.cat(parts), dim=1)


def linear_cka(x: torch.Tensor, y: torch.Tensor) -> float:
    """Similarity of two representations of the same pictures, (n, p) and (n, q), in [0, 1].

    Invariant to rotation and to one common scale of the features, not to their mean.

    Reference: Kornblith et al. 2019, eq. 8, centred features. A representation without variance has
    no similarity to anything: 0.
    """
    x, y = (z.double() - z.double().mean(0) for z in (x, y))
    cross = (y.T @ x).square().sum()
    own = (x.T @ x).norm() * (y.T @ y).norm()
    return float(cross / own) if own > 0 else 0.0
