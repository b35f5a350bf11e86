"""How familiar a picture is, as a part of an exported graph."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from transferscope.errors import InputError
from transferscope.evaluation.known_pictures import KnownPictures
from transferscope.evaluation.strangers import DEFAULT_SCORE, NEIGHBOURS, scales


class Familiarity(nn.Module):
    """`KnownPictures.familiarity` by the score that is in use, on tensors.

    Args:
        known: training features stay float16; its arrays are not changed.

    Raises:
        InputError: strangers are told by another score.
    """

    known: torch.Tensor
    scale: torch.Tensor
    energies: torch.Tensor
    validation: torch.Tensor

    def __init__(self, known: KnownPictures):
        super().__init__()
        if known.score != DEFAULT_SCORE:
            raise InputError(
                f"strangers are told by {known.score!r}, and {DEFAULT_SCORE!r} is what exports can hold"
            )
        self.register_buffer("known", torch.from_numpy(known.features))
        lengths = np.linalg.norm(known.features.astype(np.float32), axis=1)  # 1, but for rounding
        self.register_buffer("scale", torch.from_numpy(1 / lengths))
        self.register_buffer("energies", torch.from_numpy(known.energies))
        self.register_buffer("validation", torch.from_numpy(known.validation[known.score]))
        self.neighbours = min(NEIGHBOURS, len(known.features))
        self.scales = scales(known.validation)

    def forward(self, features: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """(N,), of features (N, D) and logits (N, K)."""
        unit = features / features.norm(dim=1, keepdim=True).clamp_min(1e-30)
        cosines = unit @ self.known.float().T * self.scale
        near = cosines.topk(self.neighbours, dim=1).values[:, -1]
        guide = (cosines * self.energies).topk(self.neighbours, dim=1).values.mean(dim=1)
        guided = guide * (logits - logits.mean(dim=1, keepdim=True)).logsumexp(dim=1)
        unguided, away = (
            (centre - value) / width
            for value, (centre, width) in zip((guided, near), self.scales, strict=True)
        )
        score = -(unguided + (away - 1).clamp_min(0))
        below = (self.validation[None] <= score[:, None]).sum(dim=1)
        familiar: torch.Tensor = (below + 1).float() / (self.validation.shape[0] + 1)
        return familiar
