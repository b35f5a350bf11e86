"""Outputs of layers in one form: maps (N, C, H, W), tokens (N, T, D) and vectors (N, D)."""

from __future__ import annotations

import torch

from transferscope.errors import InputError


def channels_first(output: torch.Tensor) -> torch.Tensor:
    """(N, C, ...) from (N, C, H, W), tokens (N, T, C) or a vector (N, C)."""
    return output.transpose(1, 2) if output.ndim == 3 else output


def by_position(output: torch.Tensor, layer: str) -> torch.Tensor:
    """float32 (N, C, P): maps, tokens and vectors alike."""
    if output.ndim not in (2, 3, 4):
        raise InputError(
            f"layer {layer!r} has an output of shape {tuple(output.shape)}; choose one with maps "
            "(N, C, H, W), tokens (N, T, D) or vectors (N, D)"
        )
    first = channels_first(output).float()
    return first.unsqueeze(2) if output.ndim == 2 else first.flatten(2)
