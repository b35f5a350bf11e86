"""Objectives that hold an activation against a reference: a direction, or what a picture gave.

Reference: Olah et al. 2018, "The Building Blocks of Interpretability".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from transferscope.activations import TruncatedForward, evaluating
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError
from transferscope.images import as_float, refuse_range
from transferscope.visualize.objectives.algebra import LOGITS, Activations, Objective
from transferscope.visualize.objectives.outputs import by_position, channels_first

_LEAST_COSINE = 0.1
"""Cosines below it count as it, so that an activation that points elsewhere still has a gradient."""

_EPSILON = 1e-12


def direction(
    layer: str,
    vector: torch.Tensor | np.ndarray | Sequence[float],
    *,
    cossim_power: float = 0.0,
) -> Objective:
    """The mean over positions of the activation's length along a direction of the channels' space.

    Args:
        layer: see `channel`.
        vector: (C,), of any length above 0: it is scaled to length 1, so the value is in units of the
            activation. The unit vector of a channel gives `channel`.
        cossim_power: each position's dot product is multiplied by max(0.1, cosine) to this power;
            above 0, activations that go elsewhere too count less.

    Reference: lucid's `direction` with `cossim_pow` (Carter et al. 2019, "Activation Atlas").

    Raises:
        InputError: not a vector of finite numbers, or no direction at all.
    """
    unit = _reference(vector, "vector", most_axes=1)
    unit = unit / unit.norm()
    _refuse_power(cossim_power, "cossim_power")

    def measure(activations: Activations, _pictures: torch.Tensor) -> torch.Tensor:
        seen = by_position(activations[layer], layer)
        _refuse_width(len(unit), seen.shape[1], layer, "vector")
        along = torch.einsum("ncp,c->np", seen, unit.to(seen.device))
        if cossim_power:
            length = (seen.square().sum(1) + _EPSILON).sqrt()
            along = along * (along / length).clamp_min(_LEAST_COSINE).pow(cossim_power)
        return along.mean(1)

    power = f", cossim_power={cossim_power:g}" if cossim_power else ""
    return Objective((layer,), measure, f"direction({layer}{power})")


def caricature(layer: str, target: torch.Tensor | np.ndarray, *, power: float = 1.0) -> Objective:
    """How far an activation goes the way of another one, times how alike in direction they are.

    With the target scaled to a root mean square length of 1 a position, the dot product is averaged
    over positions and multiplied by max(0.1, cosine) to a power, where the cosine is that of the two
    whole activations. What a layer saw in a picture is drawn exaggerated; what it did not is left out.

    Args:
        layer: see `channel`.
        target: (C, H, W), tokens (T, D) or a vector (C,), see `caricature_target`. A map of another
            size than the activation's is resized bilinearly (with another size of picture the
            positions are others); a vector is wanted at every position.
        power: of the cosine; 0 exaggerates freely, 2 and more keep close to the target.

    Reference: Olah et al. 2018, "The Building Blocks of Interpretability"; lucid's `dot_compare`, whose
    cosine is left undivided by the activation's own length.

    Raises:
        InputError: a target without finite numbers other than 0 or, on use, of other channels.
    """
    wanted = _reference(target, "target", most_axes=3)
    _refuse_power(power, "power")

    def measure(activations: Activations, _pictures: torch.Tensor) -> torch.Tensor:
        output = activations[layer]
        seen = by_position(output, layer)
        goal = _fitted(wanted.to(seen.device), output, layer)
        goal = goal / goal.square().sum(0).mean().sqrt()
        along = (seen * goal).sum(1).mean(1)
        if not power:
            return along
        length = (seen.square().sum(1).mean(1) + _EPSILON).sqrt()
        return along * (along / length).clamp_min(_LEAST_COSINE).pow(power)

    return Objective((layer,), measure, f"caricature({layer}, power={power:g})")


def caricature_target(
    classifier: Classifier, layer: str, picture: torch.Tensor | str | Path | Image.Image
) -> torch.Tensor:
    """What a layer makes of a picture, for `caricature`, `direction` or one's own objective.

    Args:
        classifier: unchanged.
        layer: dotted name, or `LOGITS`.
        picture: (C, H, W) in [0, 1] at the network's input size, or a file or picture, which is
            decoded, resized and cropped as for a prediction.

    Returns:
        (C, H, W), (T, D) or (D,), float32, without gradients, on the classifier's device.

    Raises:
        UnknownName: no such layer.
        PictureError: the file cannot be read.
        InputError: a tensor of another shape, or not in [0, 1].
    """
    if isinstance(picture, torch.Tensor):
        if picture.ndim != 3:
            raise InputError(f"the picture has shape {tuple(picture.shape)}; give one, (C, H, W)")
        refuse_range(picture)
        pixels = picture.float()
    else:
        pixels = as_float(classifier.input.load(picture))
    name = classifier.head if layer == LOGITS else layer
    network, example = classifier.network, classifier.example()
    with evaluating(network), torch.no_grad():
        forward = TruncatedForward(network, (name,), example, channels_first=True)
        seen = forward(classifier.input.normalise(pixels[None].to(classifier.device)))
    return seen[name][0].float()


# ---------------------------------------------------------------------------- references


def _reference(
    values: torch.Tensor | np.ndarray | Sequence[float], name: str, *, most_axes: int
) -> torch.Tensor:
    """A float32 copy of what activations are held against, once it makes sense."""
    tensor = torch.as_tensor(values).detach().to(torch.float32, copy=True)
    if not 1 <= tensor.ndim <= most_axes:
        expected = "(C,)" if most_axes == 1 else "(C, H, W), (T, D) or (C,)"
        raise InputError(f"{name} has shape {tuple(tensor.shape)}; give {expected}")
    if not torch.isfinite(tensor).all() or not tensor.any():
        raise InputError(f"{name} has no direction: it is all zero, or not all numbers are finite")
    return tensor


def _fitted(target: torch.Tensor, output: torch.Tensor, layer: str) -> torch.Tensor:
    """(C, P) of a target, at the positions that the output has; (C, 1) of a vector."""
    if target.ndim == 1:
        _refuse_width(len(target), channels_first(output).shape[1], layer, "target")
        return target[:, None]
    if target.ndim != output.ndim - 1 or (target.ndim == 2 and target.shape != output.shape[1:]):
        raise InputError(
            f"target has shape {tuple(target.shape)} and the output of {layer!r} "
            f"{tuple(output.shape[1:])}; make it with caricature_target, at the same size"
        )
    if target.ndim == 2:
        return target.T
    _refuse_width(len(target), output.shape[1], layer, "target")
    if target.shape[1:] != output.shape[2:]:
        size = tuple(output.shape[2:])
        target = F.interpolate(target[None], size, mode="bilinear", antialias=True)[0]
    return target.flatten(1)


def _refuse_width(given: int, count: int, layer: str, name: str) -> None:
    if given != count:
        raise InputError(f"{name} has {given} numbers a position and {layer!r} {count} channels")


def _refuse_power(power: float, name: str) -> None:
    if not 0 <= power < math.inf:
        raise InputError(f"{name} is {power:g}; it must be 0 or above, and finite")
