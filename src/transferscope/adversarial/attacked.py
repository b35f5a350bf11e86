"""The network that is attacked: its exact answers, and fast gradients of a private copy."""

from __future__ import annotations

import torch

from transferscope.acceleration.network import FastNetwork
from transferscope.acceleration.numerics import full_precision
from transferscope.acceleration.precision import Precision
from transferscope.backbones.classifier import Classifier
from transferscope.copies import copied, still
from transferscope.images import as_float

BATCH = 16
"""Pictures a forward pass: more are no faster on a CPU."""

_ALIKE = 1e-3
"""Largest difference between the logits and the head's outputs that is put down to rounding."""


class Attacked:
    """A classifier as attacks see it; the user's network is neither run in another mode nor changed.

    Gradients come from a private, faster copy; whether a picture fools is asked of the network itself, in
    eval mode and fp32.

    Args:
        classifier: unchanged.
        precision: of the gradients; "auto" is bf16 where the hardware is fast at it.

    Raises:
        InputError: see `FastNetwork`.
    """

    def __init__(self, classifier: Classifier, precision: Precision = "auto"):
        self.classifier = classifier
        self._exact = still(classifier.network)
        self._head = classifier.head
        example = classifier.example()
        self._fast: FastNetwork | None = FastNetwork(
            classifier.network, [self._head], example, precision
        )
        with torch.no_grad(), full_precision(self.device):
            own = self._exact(example)
            head = FastNetwork(classifier.network, [self._head], example, "fp32")(example)[
                self._head
            ]
        if head.shape != own.shape or (own - head).abs().max() > _ALIKE * own.abs().max().clamp(1):
            self._fast = None  # something is done to the head's outputs before they are the logits
            self._plain = copied(self._exact).eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the network's weights are."""
        return self.classifier.device

    def logits(self, pictures: torch.Tensor) -> torch.Tensor:
        """Float32 logits (N, K) of pictures (N, C, H, W) in [0, 1], to which gradients flow."""
        normalised = self.classifier.input.normalise(pictures)
        if self._fast is None:
            plain: torch.Tensor = self._plain(normalised)
            return plain
        return self._fast(normalised)[self._head].float()

    def exact(self, pictures: torch.Tensor) -> torch.Tensor:
        """Logits (N, K) that the network itself gives, in fp32 and without gradients.

        Args:
            pictures: (N, C, H, W), uint8 or in [0, 1].
        """
        found = []
        with torch.no_grad(), full_precision(self.device):
            for part in pictures.split(BATCH):
                values = as_float(part) if part.dtype == torch.uint8 else part
                found.append(self._exact(self.classifier.input.normalise(values.to(self.device))))
        return torch.cat(found)

    def gradient(self, pictures: torch.Tensor, cotangent: torch.Tensor) -> torch.Tensor:
        """The gradient (N, C, H, W) of sum(logits * cotangent), by picture; cotangent: (N, K)."""
        leaf = pictures.detach().requires_grad_()
        with torch.enable_grad():
            value = (self.logits(leaf) * cotangent).sum()
        (found,) = torch.autograd.grad(value, leaf)
        return found


def leads(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """By how much the logit of a class is above the largest of the others, (N,): the margin.

    Args:
        logits: (N, K), K >= 2.
        labels: int64 (N,).
    """
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return (own - others.max(1, keepdim=True).values)[:, 0]
