"""How good a classifier is on labelled pictures, every figure with how far it may be off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from transferscope.errors import DataError
from transferscope.evaluation.calibration import Calibration, calibration_of
from transferscope.evaluation.class_size import SizeTrend, size_trend
from transferscope.evaluation.detection import Detection
from transferscope.evaluation.gap import ValidationGap
from transferscope.evaluation.groups import GroupResult, GroupTest
from transferscope.evaluation.intervals import (
    Interval,
    bootstrap_mean,
    drawn_confusions,
    f1_scores,
    middle,
    wilson,
    wilson_interval,
)
from transferscope.evaluation.mistakes import Doubt, Suspect
from transferscope.evaluation.paired import PairedDifference
from transferscope.evaluation.predictions import Predictions
from transferscope.evaluation.selective import Abstention, abstention_of
from transferscope.evaluation.sentences import measure_rows, summary_sentences
from transferscope.evaluation.tta import ViewsGain
from transferscope.notebook import panel
from transferscope.records import Record

SUREST = 10
"""Errors that an evaluation names."""


@dataclass(frozen=True)
class ClassResult:
    """One class.

    Attributes:
        n: pictures of it.
        accuracy: share of them that is recognised (recall).
        interval: 95% Wilson interval of it.
        precision: share of the pictures taken for the class that are of it; None if there are none.
        f1: harmonic mean of the two.
        training: pictures of the class that were trained on; None where that is not known.
    """

    n: int
    accuracy: float
    interval: tuple[float, float]
    precision: float | None
    f1: float
    training: int | None = None


@dataclass(frozen=True)
class Confusion:
    """Pictures of class `label` that were taken for class `prediction`."""

    label: str
    prediction: str
    n: int


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that was not taken, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Evaluation(Record):
    """How good a classifier is on one split.

    Attributes:
        split: its name.
        n: pictures.
        top1: share whose most probable class is right.
        top1_interval: 95% Wilson score interval of it.
        top5: share whose class is among the five most probable (of fewer classes: all of them).
        mean_per_class: mean of the classes' accuracies.
        macro_f1: mean of the classes' F1.
        ece: expected calibration error, 15 equal-width bins, with the stored temperature.
        nll: mean negative log-likelihood (cross-entropy) in nats, with the stored temperature.
        intervals: 95% intervals of top1, top5, mean_per_class, macro_f1 and nll, by these names.
        per_class: by class name; classes without a picture are absent.
        confusions: pairs confused most often, most frequent first.
        calibration: before and after the temperature, by bins, and what chance alone would show.
        abstention: accuracy against the share of pictures that is answered.
        trend: accuracy of the classes against their numbers of training pictures, or None where
            none has twice as many as another, or their numbers are not known.
        confusable: accuracy with the named look-alikes counted as one class, or None.
        seen: pictures of another set left out because their very bytes were trained or chosen on.
        excluded: files of another set left out because they could not be used.
        left_out: every file of another set that was not taken, also those that are no pictures.
        views: what averaging over several views would gain, or None where it was not asked for.
        gain: the difference to the untuned base with its probe on the same pictures; None for a probe.
        against: the difference to another run on the same pictures, or None.
        strangers: how well pictures of none of the classes are told, or None where it was not asked for.
        chosen_on: validation pictures that epoch, strategy, temperature and thresholds rest on; None: not
            known.
        probable_label_errors: training labels that are probably wrong; None where they were not looked for.
        label_suspects: these training pictures, the likeliest error first.
        groups: accuracy by group, the lowest first; empty where it was not asked for.
        worst_group: the group with the lowest accuracy, of those with enough pictures; None: there is none.
        group_test: what is said of all groups together.
        gap: the difference to validation, and its causes where chance does not explain it; None where the
            answers on validation are not known.
        surest_errors: the pictures taken for another class that the classifier was surest of, at most `SUREST`.
    """

    split: str
    n: int
    top1: float
    top1_interval: tuple[float, float]
    top5: float
    mean_per_class: float
    macro_f1: float
    ece: float
    nll: float
    intervals: dict[str, Interval]
    per_class: dict[str, ClassResult]
    confusions: tuple[Confusion, ...]
    calibration: Calibration
    abstention: Abstention
    trend: SizeTrend | None = None
    confusable: float | None = None
    seen: int = 0
    excluded: int = 0
    left_out: tuple[LeftOut, ...] = ()
    views: ViewsGain | None = None
    gain: PairedDifference | None = None
    against: PairedDifference | None = None
    strangers: Detection | None = None
    chosen_on: int | None = None
    probable_label_errors: int | None = None
    label_suspects: tuple[Suspect, ...] = ()
    surest_errors: tuple[Doubt, ...] = ()
    groups: dict[str, GroupResult] = field(default_factory=dict)
    worst_group: str | None = None
    group_test: GroupTest | None = None
    gap: ValidationGap | None = None
    made_by: ClassVar[str] = "transferscope evaluate"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able fields under the names of the command line's contract."""
        return {
            **asdict(self),
            "top1_interval": list(self.top1_interval),
            "calibration": self.calibration.to_dict(),
        }

    def _repr_html_(self) -> str:
        return panel(
            f"Evaluation of {self.n:,} {self.split} pictures",
            sentences=summary_sentences(self),
            columns=("measure", "-value", ""),
            rows=measure_rows(self),
        )


def evaluate(
    predictions: Predictions,
    *,
    split: str,
    confusable: Iterable[tuple[str, str]] = (),
    training: Mapping[str, int] | None = None,
    validation: Predictions | None = None,
    seed: int = 0,
) -> Evaluation:
    """Every figure of `Evaluation` from logits and labels.

    Args:
        predictions: N >= 1 pictures of at least two classes.
        split: the name to report.
        confusable: pairs of classes that look alike; accuracy is given a second time with each pair
            counted as one class, beside and never instead of the plain one.
        training: how many pictures of each class were trained on; None: not known.
        validation: predictions on which thresholds for abstaining may be chosen; None: none are.
        seed: of bootstrap and simulation.

    Raises:
        DataError: no pictures, or all of one class.
    """
    counts = confusion_counts(predictions)
    _refuse_uninformative(predictions, counts, split)
    n, names = len(predictions.labels), predictions.classes
    top = predictions.logits.topk(min(5, len(names)), dim=-1).indices
    in_top = int((top == predictions.labels[:, None]).any(dim=1).sum())
    hits = int(predictions.right.sum())
    per_class = _per_class(counts, names, training)
    calibration = calibration_of(predictions, seed=seed)
    drawn = drawn_confusions(counts, seed=seed)
    return Evaluation(
        split=split,
        n=n,
        top1=hits / n,
        top1_interval=wilson_interval(hits, n),
        top5=in_top / n,
        mean_per_class=float(np.mean([result.accuracy for result in per_class.values()])),
        macro_f1=float(np.mean([result.f1 for result in per_class.values()])),
        ece=calibration.ece,
        nll=calibration.nll,
        intervals={
            "top1": wilson(hits, n),
            "top5": wilson(in_top, n),
            **{k: Interval(*middle(v), "bootstrap within classes") for k, v in drawn.items()},
            "nll": bootstrap_mean(predictions.losses.numpy(), seed=seed),
        },
        per_class=per_class,
        confusions=_confusions(counts, names),
        calibration=calibration,
        abstention=abstention_of(predictions, validation=validation),
        trend=_trend(per_class, seed),
        confusable=_accuracy_with_pairs_merged(predictions, tuple(confusable)),
    )


def confusion_counts(predictions: Predictions) -> NDArray[np.int64]:
    """Pictures by true class (rows) and predicted class (columns), int64 (K, K)."""
    k = len(predictions.classes)
    cells = predictions.labels * k + predictions.predicted
    return torch.bincount(cells, minlength=k * k).view(k, k).numpy()


def _refuse_uninformative(predictions: Predictions, counts: NDArray[np.int64], split: str) -> None:
    present = np.flatnonzero(counts.sum(1))
    if not len(present):
        raise DataError(
            f"the {split} split has no pictures to evaluate; choose another split with --split"
        )
    if len(present) == 1:
        raise DataError(
            f"all {len(predictions.labels)} pictures of the {split} split are of one class, "
            f"{predictions.classes[present[0]]!r}; how often it is taken for others, and others for it, "
            "needs at least two: evaluate a split with more classes, or use 'transferscope predict'"
        )


def _per_class(
    counts: NDArray[np.int64], names: Sequence[str], training: Mapping[str, int] | None
) -> dict[str, ClassResult]:
    sizes, said, hits = counts.sum(1), counts.sum(0), counts.diagonal()
    scores = f1_scores(hits, said, sizes)
    return {
        name: ClassResult(
            n=int(sizes[k]),
            accuracy=float(hits[k] / sizes[k]),
            interval=wilson_interval(int(hits[k]), int(sizes[k])),
            precision=float(hits[k] / said[k]) if said[k] else None,
            f1=float(scores[k]),
            training=training.get(name) if training is not None else None,
        )
        for k, name in enumerate(names)
        if sizes[k]
    }


def _confusions(counts: NDArray[np.int64], names: Sequence[str]) -> tuple[Confusion, ...]:
    found = [
        Confusion(names[label], names[other], int(counts[label, other]))
        for label, other in np.argwhere(counts)
        if label != other
    ]
    return tuple(sorted(found, key=lambda one: (-one.n, one.label, one.prediction)))


def _trend(per_class: Mapping[str, ClassResult], seed: int) -> SizeTrend | None:
    known = [result for result in per_class.values() if result.training]
    return size_trend(
        [result.training or 0 for result in known],
        [round(result.accuracy * result.n) for result in known],
        [result.n for result in known],
        seed=seed,
    )


def _accuracy_with_pairs_merged(
    predictions: Predictions, pairs: Sequence[tuple[str, str]]
) -> float | None:
    known = [pair for pair in pairs if set(pair) <= set(predictions.classes)]
    if not known:
        return None
    merged = torch.arange(len(predictions.classes))
    for first, second in known:
        merged[predictions.classes.index(second)] = predictions.classes.index(first)
    return float((merged[predictions.predicted] == merged[predictions.labels]).float().mean())
