"""Heads fitted before fine-tuning, kept in the run folder: a resumed run begins at the very same bits.

A fit repeated on another number of threads ends a rounding away from the first, and the checkpoints that
began there would be of another fit.
"""

from __future__ import annotations

from pathlib import Path

import torch

from transferscope.backbones.heads import MLPHead
from transferscope.distributed import is_first
from transferscope.errors import WeightsError
from transferscope.features.probe import Probe
from transferscope.files import read_tensors, write_tensors

START = "start"
"""The folder of an unfinished run that they are in."""

_PROBE, _MLP = "probe.safetensors", "mlp.safetensors"


def keep_probe(run: Path, probe: Probe) -> None:
    """Writes a probe's weights and strengths, in process 0; the folds' logits are not kept."""
    if not is_first():
        return
    strengths = {str(strength): loss for strength, loss in probe.strengths.items()}
    metadata = {"strength": probe.strength, "strengths": strengths}
    write_tensors(run / START / _PROBE, {"weight": probe.weight, "bias": probe.bias}, metadata)


def kept_probe(run: Path, device: torch.device) -> Probe | None:
    """What `keep_probe` wrote; None where there is nothing whole."""
    try:
        tensors, metadata = read_tensors(run / START / _PROBE)
        weight, bias = (tensors[name].to(device) for name in ("weight", "bias"))
        strengths = {float(strength): loss for strength, loss in metadata["strengths"].items()}
        return Probe(weight, bias, metadata["strength"], strengths)
    except (WeightsError, KeyError):
        return None


def keep_mlp(run: Path, head: MLPHead) -> None:
    """Writes an MLP head's weights, in process 0."""
    if is_first():
        write_tensors(run / START / _MLP, head.state_dict(), {"dropout": head.dropout.p})


def kept_mlp(run: Path, device: torch.device) -> MLPHead | None:
    """What `keep_mlp` wrote, in eval mode; None where there is nothing whole."""
    try:
        tensors, metadata = read_tensors(run / START / _MLP)
        hidden, features = tensors["hidden.weight"].shape
        with torch.device("meta"):  # draws nothing from the global random state
            head = MLPHead(
                features,
                len(tensors["logits.bias"]),
                hidden=hidden,
                dropout=metadata["dropout"],
            )
        head.load_state_dict(tensors, assign=True)
    except (WeightsError, KeyError, RuntimeError):
        return None
    return head.requires_grad_(True).eval().to(device)
