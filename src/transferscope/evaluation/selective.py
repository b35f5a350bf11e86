"""What a classifier is worth if it may leave the pictures out that it is least sure of."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from transferscope.evaluation.predictions import Predictions
from transferscope.records import Record

_POINTS = 200
"""Points of a curve at most; of more pictures, evenly chosen ones."""

WANTED = (0.90, 0.95, 0.99)
"""Accuracies for which a threshold is looked for."""

LEAST_ANSWERED = 30
"""Validation pictures that must be left for a threshold to be chosen on: of fewer, chance decides."""


@dataclass(frozen=True)
class Operating:
    """A minimum confidence, chosen on validation pictures, and what it does to others.

    Attributes:
        wanted: accuracy for which it was chosen.
        min_confidence: answers below it are left out; the least with which the answers that are left
            were right this often on validation.
        coverage: share of the pictures evaluated that are still answered.
        accuracy: share of those that is right; None if none is left.
    """

    wanted: float
    min_confidence: float
    coverage: float
    accuracy: float | None


@dataclass(frozen=True)
class Abstention(Record):
    """Accuracy of the surest answers against their share.

    Attributes:
        coverage: shares of the pictures, surest first, ascending to 1.
        accuracy: of each share.
        confidence: least confidence in each share, which as a threshold gives it.
        area: mean over all coverages of the share of answers that is wrong (area under the
            risk-coverage curve); 0 is perfect.
        operating: thresholds chosen on validation; empty where there were no such predictions.

    Reference: El-Yaniv and Wiener 2010; Geifman and El-Yaniv 2017.
    """

    coverage: tuple[float, ...]
    accuracy: tuple[float, ...]
    confidence: tuple[float, ...]
    area: float
    operating: tuple[Operating, ...] = ()


def abstention_of(predictions: Predictions, *, validation: Predictions | None = None) -> Abstention:
    """The curve of at least one picture's predictions.

    Args:
        predictions: of the split that is evaluated.
        validation: of the pictures that thresholds may be chosen on; None: none are chosen.
    """
    confidence, correct = _surest_first(predictions)
    n = len(confidence)
    chosen = torch.linspace(1, n, min(n, _POINTS), dtype=torch.float64).round().long() - 1
    return Abstention(
        coverage=tuple((at + 1) / n for at in chosen.tolist()),
        accuracy=tuple(correct[chosen].tolist()),
        confidence=tuple(confidence[chosen].tolist()),
        area=float((1 - correct).mean()),
        operating=tuple(_operating(predictions, validation)) if validation is not None else (),
    )


def threshold_for(
    predictions: Predictions, accuracy: float, *, least: int = LEAST_ANSWERED
) -> float | None:
    """The least confidence such that the answers at or above it are right this often, or None.

    Args:
        predictions: on which it is chosen.
        accuracy: wanted of the answers that are left.
        least: pictures that must be left; with fewer there is no such confidence.
    """
    confidence, correct = _surest_first(predictions)
    last = torch.ones(len(confidence), dtype=torch.bool)
    last[:-1] = confidence[1:] < confidence[:-1]  # equal confidences are kept or left out together
    many = torch.arange(1, len(confidence) + 1) >= least
    enough = torch.nonzero((correct >= accuracy) & last & many).flatten()
    return float(confidence[enough[-1]]) if len(enough) else None


def _operating(predictions: Predictions, validation: Predictions) -> list[Operating]:
    confidence = predictions.probabilities.max(dim=-1).values
    found = []
    for wanted in WANTED:
        if (least := threshold_for(validation, wanted)) is not None:
            kept = confidence >= least
            accuracy = float(predictions.right[kept].float().mean()) if kept.any() else None
            found.append(Operating(wanted, least, float(kept.float().mean()), accuracy))
    return found


def _surest_first(predictions: Predictions) -> tuple[torch.Tensor, torch.Tensor]:
    """Confidences in descending order, and the accuracy of all up to each of them."""
    confidence, order = predictions.probabilities.max(dim=-1).values.sort(
        descending=True, stable=True
    )
    right = predictions.right[order].double()
    return confidence, right.cumsum(0) / torch.arange(1, len(right) + 1)
