"""Where a classifier errs, where it is unsure, and where the label may be what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from transferscope.evaluation.predictions import Predictions
from transferscope.files import write_csv
from transferscope.records import Record

Judge = Literal["classifier", "out-of-fold probe"]


@dataclass(frozen=True)
class Doubt:
    """How one picture's label and its predicted class stand to each other.

    Attributes:
        path: relative to the data folder.
        split: that the picture is in.
        label: its class.
        predicted: what it is taken for.
        probability: of that.
        probability_of_label: of its class.
        margin: of the most probable class over the next one.
        entropy: of all probabilities, in nats.
        suspicion: log-odds of the most probable other class against the label; the higher, the
            likelier is an error of the label.
        judged_by: a judge that has not been trained on this picture's label: the tuned classifier,
            or a linear probe of the folds that lack the picture.
    """

    path: str
    split: str
    label: str
    predicted: str
    probability: float
    probability_of_label: float
    margin: float
    entropy: float
    suspicion: float
    judged_by: Judge

    @property
    def wrong(self) -> bool:
        """Whether label and predicted class differ."""
        return self.label != self.predicted


@dataclass(frozen=True)
class Suspect:
    """A training picture whose label is probably wrong.

    Attributes:
        path: relative to the data folder.
        label: its class.
        predicted: what probes that have not seen it take it for.
        suspicion: log-odds of that against the label.
    """

    path: str
    label: str
    predicted: str
    suspicion: float


@dataclass(frozen=True)
class ErrorStudy(Record):
    """The pictures of a run, ranked three ways.

    Attributes:
        worst: pictures evaluated that were taken for another class, the surest error first.
        uncertain: pictures evaluated, the smallest margin first.
        suspects: training pictures, the likeliest error of the label first.
        probable: how many of the suspects are probably label errors; see `count_label_errors`.
        n: pictures evaluated.
    """

    worst: tuple[Doubt, ...]
    uncertain: tuple[Doubt, ...]
    suspects: tuple[Doubt, ...]
    probable: int
    n: int
    made_by: ClassVar[str] = "transferscope evaluate"

    def flagged(self) -> tuple[Suspect, ...]:
        """The training pictures whose label is probably wrong, the likeliest error first."""
        return tuple(
            Suspect(one.path, one.label, one.predicted, one.suspicion)
            for one in self.suspects[: self.probable]
        )

    def to_dict(self, shown: int = 50) -> dict[str, Any]:
        """JSON-able: the first `shown` of each ranking; all are in the CSV."""
        ranked = {
            name: [asdict(doubt) for doubt in getattr(self, name)[:shown]]
            for name in ("worst", "uncertain", "suspects")
        }
        return {"n": self.n, "wrong": len(self.worst), "probable": self.probable, **ranked}


def error_study(
    predictions: Predictions, *, split: str, out_of_fold: Predictions | None = None
) -> ErrorStudy:
    """Ranks the pictures that were evaluated, and the training pictures by their labels' doubt.

    Args:
        predictions: of the split that is evaluated.
        split: its name.
        out_of_fold: of the training pictures, each by a fit that has not seen it; None: no suspects.
    """
    judged = doubts(predictions, split=split, judged_by="classifier")
    wrong = sorted((d for d in judged if d.wrong), key=lambda d: (-d.probability, d.path))
    suspects: Sequence[Doubt] = ()
    if out_of_fold is not None:
        suspects = doubts(out_of_fold, split="train", judged_by="out-of-fold probe")
    return ErrorStudy(
        worst=tuple(wrong),
        uncertain=tuple(sorted(judged, key=lambda d: (d.margin, d.path))),
        suspects=tuple(sorted(suspects, key=lambda d: (-d.suspicion, d.path))),
        probable=count_label_errors(out_of_fold) if out_of_fold is not None else 0,
        n=len(judged),
    )


def doubts(predictions: Predictions, *, split: str, judged_by: Judge) -> list[Doubt]:
    """One `Doubt` a picture, in the order of the predictions."""
    names, probabilities = predictions.classes, predictions.probabilities
    rows = torch.arange(len(predictions.labels))
    of_label = probabilities[rows, predictions.labels]
    best = probabilities.topk(min(2, len(names)), dim=-1).values
    entropy = torch.special.entr(probabilities).sum(-1)
    columns = zip(
        predictions.paths,
        predictions.labels.tolist(),
        predictions.predicted.tolist(),
        best[:, 0].tolist(),
        of_label.tolist(),
        (best[:, 0] - best[:, -1]).tolist(),
        entropy.tolist(),
        label_suspicion(predictions).tolist(),
        strict=True,
    )
    return [
        Doubt(path, split, names[label], names[said], p, q, margin, spread, odds, judged_by)
        for path, label, said, p, q, margin, spread, odds in columns
    ]


def label_suspicion(predictions: Predictions) -> torch.Tensor:
    """Log-odds of the most probable other class against the label, float32 (N,).

    Reference: the normalised margin of Northcutt et al. 2021, section 3.2, as log-odds.
    """
    logits = predictions.logits / predictions.temperature
    rows = torch.arange(len(logits))
    others = logits.clone()
    others[rows, predictions.labels] = -torch.inf
    return others.max(dim=-1).values - logits[rows, predictions.labels]


def count_label_errors(predictions: Predictions) -> int:
    """How many labels are probably wrong: the off-diagonal sum of the confident joint.

    A class's threshold is the mean probability of the class among the pictures labelled so. A picture
    belongs to the most probable of the classes whose threshold it reaches; where that is not its
    label, the label is counted.

    Reference: Northcutt et al. 2021, eq. 1 and 2.
    """
    probabilities, labels = predictions.probabilities, predictions.labels
    k = len(predictions.classes)
    of_label = probabilities[torch.arange(len(labels)), labels]
    sums = torch.zeros(k).index_add(0, labels, of_label)
    sizes = torch.bincount(labels, minlength=k)
    thresholds = torch.where(sizes > 0, sums / sizes.clamp_min(1), torch.inf)
    reached = torch.where(probabilities >= thresholds, probabilities, -1.0)
    best, said = reached.max(dim=-1)
    return int(((said != labels) & (best > 0)).sum())


def write_study(study: ErrorStudy, path: str | Path) -> None:
    """Every picture of the study as one CSV: those evaluated, then the training pictures by suspicion."""
    names = [field.name for field in fields(Doubt)]
    write_csv(path, names, _rows([*study.uncertain, *study.suspects], names))


def _rows(doubts: Iterable[Doubt], names: Sequence[str]) -> Iterable[tuple[Any, ...]]:
    for doubt in doubts:
        values = (getattr(doubt, name) for name in names)
        yield tuple(f"{value:.6f}" if isinstance(value, float) else value for value in values)
