"""Attributions by gradients of pictures: plain, times the input, over noise, along a path, guided."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from transferscope.errors import InputError
from transferscope.explain.maps import Maps, parts, slices
from transferscope.explain.scores import Scores, Targets, recorded

TOLERANCE = 0.01
"""Share of a score's difference that integrated gradients may miss before it is flagged."""


def gradient(scores: Scores, pictures: torch.Tensor, targets: Targets, *, batch_size: int) -> Maps:
    """The score's gradient with respect to the pixels: how it changes as a place gets brighter.

    Reference: Simonyan et al. 2014, section 3; colours are summed, which keeps the sign.
    """
    return Maps(_pixel_gradients(scores, pictures, targets, batch_size).sum(1))


def gradient_x_input(
    scores: Scores, pictures: torch.Tensor, targets: Targets, *, batch_size: int
) -> Maps:
    """The gradient times the pixels' distance from the mean colour, which is 0 to the network.

    Reference: Shrikumar et al. 2016.
    """
    found = _pixel_gradients(scores, pictures, targets, batch_size)
    return Maps((found * (pictures - _mean_colour(scores, pictures))).sum(1))


def smooth_grad(
    scores: Scores,
    pictures: torch.Tensor,
    targets: Targets,
    *,
    batch_size: int,
    seed: int,
    samples: int = 50,
    noise: float = 0.15,
) -> Maps:
    """The mean gradient over noisy versions of a picture; all pictures get the same noise.

    Args:
        scores, pictures, targets, batch_size: see `METHODS`.
        seed: of the noise.
        samples: noisy versions.
        noise: standard deviation, as a share of each picture's range of values.

    Reference: Smilkov et al. 2017.
    """
    shape = (samples, *pictures.shape[1:])
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(pictures)
    spread = noise * (pictures.amax((1, 2, 3)) - pictures.amin((1, 2, 3)))
    total = torch.zeros_like(pictures)
    for rows in slices(len(pictures), batch_size):
        some, of = pictures[rows], targets[rows]
        for part in drawn.split(max(1, batch_size // len(some))):
            noisy = some + part[:, None] * spread[rows, None, None, None]
            found = _pixel_gradients(
                scores, noisy.flatten(0, 1), of.repeated(len(part)), batch_size
            )
            total[rows] += found.unflatten(0, (len(part), len(some))).sum(0)
    return Maps(total.sum(1) / samples)


def integrated_gradients(
    scores: Scores,
    pictures: torch.Tensor,
    targets: Targets,
    *,
    batch_size: int,
    steps: int = 50,
    most_steps: int = 400,
) -> Maps:
    """The gradient averaged along the line from the mean colour, times the distance from there.

    The map sums to the score's difference between the picture and the mean colour, but for `delta`.
    Pictures of which it misses more than 1% are done again with twice the steps.

    Args:
        scores, pictures, targets, batch_size: see `METHODS`.
        steps: of the Gauss-Legendre rule.
        most_steps: where refining ends.

    Reference: Sundararajan et al. 2017.
    """
    from captum.attr import IntegratedGradients

    captum, base = IntegratedGradients(scores.of), _mean_colour(scores, pictures)
    with torch.no_grad():
        whole = torch.cat(
            [
                scores.of(part, *_pair(of)) - scores.of(base.expand_as(part), *_pair(of))
                for part, of in parts(pictures, targets, batch_size)
            ]
        )
    left = torch.arange(len(pictures), device=pictures.device)
    found, used = torch.zeros_like(pictures), torch.zeros_like(left)
    while True:
        for rows in left.split(batch_size):
            found[rows] = captum.attribute(
                pictures[rows],
                baselines=base,
                additional_forward_args=_pair(targets[rows]),
                n_steps=steps,
                internal_batch_size=batch_size,
            ).detach()
        used[left] = steps
        delta = found.sum((1, 2, 3)) - whole
        converged = delta.abs() <= TOLERANCE * whole.abs()
        left = (~converged).nonzero().flatten()
        if not len(left) or 2 * steps > most_steps:
            return Maps(found.sum(1), delta, converged, used)
        steps *= 2


def guided_backprop(
    scores: Scores, pictures: torch.Tensor, targets: Targets, *, batch_size: int
) -> Maps:
    """The gradient, of which every ReLU lets only the positive part through.

    The rule is put on the ReLUs of the recorded computation: those of modules and of functions alike,
    ReLU6 among them, whose gradient is also 0 where it is cut off. captum's, which looks for `nn.ReLU`
    modules, is the plain gradient on networks with ReLU6.

    Raises:
        InputError: a network without ReLUs, or with other activations beside them.

    Reference: Springenberg et al. 2015, section 3.4.
    """

    def logits(some: torch.Tensor) -> torch.Tensor:
        found = scores.exact_logits(some)
        _guide(found, scores.classifier.backbone)
        return found

    return Maps(_pixel_gradients(scores, pictures, targets, batch_size, logits).sum(1))


# ---------------------------------------------------------------------------- parts


def _pixel_gradients(
    scores: Scores,
    pictures: torch.Tensor,
    targets: Targets,
    batch_size: int,
    logits: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """The scores' gradients (N, C, H, W)."""
    found = []
    for part, of in parts(pictures, targets, batch_size):
        with recorded():
            given = part.detach().clone().requires_grad_()
            total = of.scores((logits or scores.logits)(given)).sum()
            (one,) = torch.autograd.grad(total, given)
        found.append(one.detach())
    return torch.cat(found)


def _pair(targets: Targets) -> tuple[torch.Tensor, torch.Tensor | None]:
    return targets.index, targets.against


def _mean_colour(scores: Scores, pictures: torch.Tensor) -> torch.Tensor:
    """(1, C, H, W) of what normalisation makes 0."""
    mean = pictures.new_tensor(scores.classifier.input.mean).view(1, -1, 1, 1)
    return mean.expand(1, *pictures.shape[1:])


_RELUS = ("ReluBackward0", "HardtanhBackward0")
"""Nodes of torch's recorded computation; ReLU6 is a hard tanh from 0 to 6 to it."""

_OTHERS = {
    "SiluBackward0": "SiLU",
    "GeluBackward0": "GELU",
    "HardswishBackward0": "Hardswish",
    "LeakyReluBackward0": "LeakyReLU",
    "PreluKernelBackward0": "PReLU",
    "RreluWithNoiseBackward0": "RReLU",
    "EluBackward0": "ELU",
    "MishBackward0": "Mish",
    "SoftplusBackward0": "Softplus",
}
"""Activations for which there is no such rule."""


def _guide(logits: torch.Tensor, backbone: str) -> None:
    """Lets the ReLUs that logits were computed by pass positive gradients only.

    Raises:
        InputError: there are none, or other activations.
    """
    relus, others = [], []
    for node in _nodes(logits):
        name = node.name()
        if name in _RELUS and getattr(node, "_saved_min_val", 0) == 0:
            relus.append(node)
        elif name in _OTHERS:
            others.append(_OTHERS[name])
        elif name == "HardtanhBackward0":
            others.append("Hardtanh")
    if others or not relus:
        what = f"has {others[0]} in it" if others else "has no ReLU that can be seen"
        raise InputError(
            f"guided backprop is a rule for ReLUs, and this {backbone} {what}; use 'gradient' or "
            "'smooth_grad' instead"
        )
    for node in relus:
        node.register_prehook(lambda gradients: tuple(one.clamp_min(0) for one in gradients))


def _nodes(logits: torch.Tensor) -> Iterator[torch.autograd.graph.Node]:
    """Every operation that a tensor was computed by."""
    waiting, seen = [logits.grad_fn], {logits.grad_fn}
    while waiting:
        node = waiting.pop()
        assert node is not None
        yield node
        for before, _ in node.next_functions:
            if before is not None and before not in seen:
                seen.add(before)
                waiting.append(before)
