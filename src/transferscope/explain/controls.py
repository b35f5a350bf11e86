"""Maps that know nothing of the network: what a method has to do better than."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from transferscope.explain.attribution import Method
from transferscope.explain.maps import Maps
from transferscope.explain.scores import Scores, Targets


def edge_maps(pictures: torch.Tensor) -> torch.Tensor:
    """Strength of edges (N, H, W) in pictures (N, C, H, W): Sobel's gradient of their mean over colours."""
    grey = functional.pad(pictures.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across = pictures.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    kernels = torch.stack([across, across.T])[:, None]
    return functional.conv2d(grey, kernels).square().sum(1).sqrt()


def _edges(_scores: Scores, pictures: torch.Tensor, _targets: Targets, **_options: Any) -> Maps:
    return Maps(edge_maps(pictures))


EDGES = Method("edges", "edges of the picture", _edges, "support", signed=False)
"""An edge detector as if it were a method: people take its maps for explanations.

Reference: Adebayo et al. 2018, section 5.
"""


def random_orders(count: int, cells: int, seed: int) -> NDArray[np.float32]:
    """(count, cells) of random values, by which cells are put in a random order."""
    found: NDArray[np.float32] = np.random.default_rng(seed).random((count, cells), np.float32)
    return found
