"""Whether a stated probability means what it says, and the temperature that makes it so."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from transferscope.evaluation.intervals import middle, wilson_interval
from transferscope.evaluation.predictions import Predictions
from transferscope.records import Record

BINS = 15
"""Equal-width confidence bins of the expected calibration error (Guo et al. 2017)."""

LEAST_EVIDENCE = 30
"""Pictures from which a temperature is fitted: of fewer, chance decides, and it stays 1."""

_SIMULATIONS = 2000
_EXACT = 1000  # pictures of a bin up to which each is simulated; of more, their sum is normal
_LOGITS = 10**7  # that a temperature is fitted on, at most


@dataclass(frozen=True)
class Bin:
    """The pictures whose confidence lies in one interval.

    Attributes:
        low: confidence from which they are.
        high: up to which.
        n: pictures.
        confidence: mean of their confidences.
        accuracy: share of them that is right.
        interval: 95% Wilson interval of it.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Calibration(Record):
    """Confidence against accuracy, before and after the temperature.

    A classifier that is calibrated perfectly has an expected calibration error too: as few pictures
    fall into a bin, its accuracy is off by chance. `band` is what such a classifier with these
    confidences would show in 95 of 100 such sets.

    Attributes:
        temperature: that the classifier divides its logits by, fitted on validation pictures.
        ece: expected calibration error with it, in [0, 1].
        ece_before: without it.
        nll: mean negative log-likelihood with it, in nats.
        nll_before: without it.
        band: central 95% of the error of perfectly calibrated classifiers with these confidences.
        bins: of equal width, those that have pictures, lowest confidence first; with the temperature.
    """

    temperature: float
    ece: float
    ece_before: float
    nll: float
    nll_before: float
    band: tuple[float, float]
    bins: tuple[Bin, ...]

    @property
    def within_chance(self) -> bool:
        """Whether `ece` is no larger than chance makes that of a perfectly calibrated classifier."""
        return self.ece <= self.band[1]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able fields."""
        return {**asdict(self), "within_chance": self.within_chance}


def calibration_of(predictions: Predictions, *, seed: int = 0) -> Calibration:
    """Calibration of at least one picture's predictions; `seed` is of the simulation behind `band`."""
    before = predictions.uncalibrated()
    confidence = predictions.probabilities.max(dim=-1).values
    return Calibration(
        temperature=predictions.temperature,
        ece=expected_calibration_error(predictions.probabilities, predictions.labels),
        ece_before=expected_calibration_error(before.probabilities, before.labels),
        nll=float(predictions.losses.mean()),
        nll_before=float(before.losses.mean()),
        band=chance_band(confidence, seed=seed),
        bins=_bins(confidence, predictions.right),
    )


def expected_calibration_error(probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    """Mean gap between confidence and accuracy, weighted by the pictures in each bin, in [0, 1].

    Args:
        probabilities: (N, K).
        labels: int64 (N,).

    Reference: Guo et al. 2017, eq. 3.
    """
    confidence, said = probabilities.max(dim=-1)
    right = (said == labels).double()
    gap = torch.zeros(BINS, dtype=torch.float64).index_add(
        0, _places(confidence), confidence.double() - right
    )
    return float(gap.abs().sum()) / max(len(labels), 1)


def chance_band(confidence: torch.Tensor, *, seed: int = 0) -> tuple[float, float]:
    """Central 95% of the calibration error of perfectly calibrated classifiers.

    Each simulation makes every picture right with the probability that its confidence (N,) states; of a
    bin with more than a thousand pictures, the number that is right is drawn from the normal law.

    Reference: Bröcker and Smith 2007 (consistency resampling).
    """
    rng = np.random.default_rng(seed)
    stated = confidence.double().numpy()
    place = _places(confidence).numpy()
    errors = np.zeros(_SIMULATIONS)
    for number in range(BINS):
        own = stated[place == number]
        if len(own) <= _EXACT:
            right = (rng.random((_SIMULATIONS, len(own))) < own).sum(1)
            errors += np.abs(own.sum() - right)
        else:
            errors += np.abs(rng.normal(0, np.sqrt((own * (1 - own)).sum()), _SIMULATIONS))
    return middle(errors / max(len(stated), 1))


def fit_temperature(
    logits: torch.Tensor, labels: torch.Tensor, *, least: int = LEAST_EVIDENCE
) -> float:
    """The temperature that minimises the negative log-likelihood, in [0.05, 20].

    Fitted on validation data, never on test data. A share 1 / (n + 2) of every label is given to the
    most probable other class: one error more, spread over the n pictures. Without it a few pictures that are
    all right would make the classifier certain of everything. The loss is convex in 1/T, so the
    bounded search finds its one minimum. Of more than 10^7 logits, evenly chosen rows are used.

    Args:
        logits: (n, K).
        labels: int64 (n,).
        least: of fewer pictures than these, chance decides: the temperature is 1.

    Reference: Guo et al. 2017, section 4.2; the share is that of Platt 1999, section 2.2.
    """
    from scipy.optimize import minimize_scalar

    if len(labels) < least:
        return 1.0
    step = math.ceil(logits.numel() / _LOGITS)
    logits, labels = logits[::step].double(), labels[::step]
    others = logits.clone()
    others[torch.arange(len(labels)), labels] = -torch.inf
    runner_up = others.argmax(dim=-1)
    share = 1 / (len(labels) + 2)

    def loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        given = functional.cross_entropy(scaled, labels)
        return float((1 - share) * given + share * functional.cross_entropy(scaled, runner_up))

    bounds = (math.log(0.05), math.log(20.0))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(math.exp(found.x))


def _places(confidence: torch.Tensor) -> torch.Tensor:
    """The bin of every confidence, int64 (N,); the last one includes 1.0."""
    return (confidence * BINS).long().clamp(max=BINS - 1)


def _bins(confidence: torch.Tensor, right: torch.Tensor) -> tuple[Bin, ...]:
    place = _places(confidence)
    found = []
    for number in place.unique().tolist():
        of = place == number
        hits, n = int(right[of].sum()), int(of.sum())
        found.append(
            Bin(
                low=number / BINS,
                high=(number + 1) / BINS,
                n=n,
                confidence=float(confidence[of].double().mean()),
                accuracy=hits / n,
                interval=wilson_interval(hits, n),
            )
        )
    return tuple(found)
