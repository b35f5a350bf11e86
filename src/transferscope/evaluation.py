"""Predictions and what they are worth: accuracy with its interval, calibration, confusions."""

from __future__ import annotations

import glob
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from transferscope.backbones import Classifier, Precision, autocast
from transferscope.data import load_batches
from transferscope.errors import DataError, InputError, PictureError, WeightsError
from transferscope.images import SUFFIXES, as_float, read_picture
from transferscope.storage import read_tensors, write_csv, write_tensors

_DAMAGED = (
    "the network answers with NaN or infinity; its weights are damaged: restore or tune them again"
)

BINS = 15
"""Equal-width confidence bins of the expected calibration error (Guo et al. 2017)."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits of a classifier on labelled pictures.

    Attributes:
        paths: relative to the data folder.
        labels: int64 (N,).
        logits: float32 (N, K), before the temperature.
        classes: K names.
        temperature: that the classifier divides its logits by.
    """

    paths: tuple[str, ...]
    labels: torch.Tensor
    logits: torch.Tensor
    classes: tuple[str, ...]
    temperature: float = 1.0

    @property
    def probabilities(self) -> torch.Tensor:
        """Softmax of logits / temperature, (N, K)."""
        return torch.softmax(self.logits / self.temperature, dim=-1)

    @property
    def predicted(self) -> torch.Tensor:
        """Most probable class of every picture, int64 (N,)."""
        return self.logits.argmax(dim=-1)

    def save(self, folder: str | Path) -> None:
        """Writes predictions.safetensors (exact) and predictions.csv (to read)."""
        folder = Path(folder)
        metadata = {
            "paths": list(self.paths),
            "classes": list(self.classes),
            "temperature": self.temperature,
        }
        tensors = {"logits": self.logits, "labels": self.labels}
        write_tensors(folder / "predictions.safetensors", tensors, metadata)
        probabilities = self.probabilities
        rows = [
            (
                path,
                self.classes[int(label)],
                self.classes[int(said)],
                f"{float(probabilities[row, said]):.6f}",
                f"{float(probabilities[row, label]):.6f}",
            )
            for row, (path, label, said) in enumerate(
                zip(self.paths, self.labels, self.predicted, strict=True)
            )
        ]
        header = ("path", "class", "predicted", "probability", "probability_of_class")
        write_csv(folder / "predictions.csv", header, rows)

    @classmethod
    def load(cls, folder: str | Path) -> Predictions:
        """What `save` wrote.

        Raises:
            WeightsError: missing or damaged.
        """
        tensors, metadata = read_tensors(Path(folder) / "predictions.safetensors")
        return cls(
            paths=tuple(metadata["paths"]),
            labels=tensors["labels"],
            logits=tensors["logits"],
            classes=tuple(metadata["classes"]),
            temperature=metadata["temperature"],
        )


@dataclass(frozen=True)
class ClassResult:
    """One class: pictures and the share of them recognised."""

    n: int
    accuracy: float


@dataclass(frozen=True)
class Confusion:
    """Pictures of class `label` that were taken for class `prediction`."""

    label: str
    prediction: str
    n: int


@dataclass(frozen=True)
class Evaluation:
    """How good a classifier is on one split.

    Attributes:
        split: its name.
        n: pictures.
        top1: share whose most probable class is right.
        top1_interval: 95% Wilson score interval of it.
        top5: share whose class is among the five most probable (of fewer classes: all of them).
        mean_per_class: mean of the classes' accuracies.
        ece: expected calibration error, 15 equal-width bins, with the stored temperature.
        nll: mean negative log-likelihood in nats, with the stored temperature.
        per_class: by class name.
        confusions: pairs confused most often, most frequent first.
        confusable: accuracy with the named look-alikes counted as one class, or None.
    """

    split: str
    n: int
    top1: float
    top1_interval: tuple[float, float]
    top5: float
    mean_per_class: float
    ece: float
    nll: float
    per_class: dict[str, ClassResult]
    confusions: tuple[Confusion, ...]
    confusable: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able fields under the names of the command line's contract."""
        fields = asdict(self)
        fields["top1_interval"] = list(self.top1_interval)
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Evaluation:
        """The inverse of `to_dict`."""
        return cls(
            **{
                **fields,
                "top1_interval": tuple(fields["top1_interval"]),
                "per_class": {name: ClassResult(**r) for name, r in fields["per_class"].items()},
                "confusions": tuple(Confusion(**c) for c in fields["confusions"]),
            }
        )


# ---------------------------------------------------------------------------- predicting


def predict_files(
    classifier: Classifier,
    files: Sequence[Path],
    *,
    batch_size: int = 16,
    precision: Precision = "fp32",
    on_progress: Callable[[int, int], None] | None = None,
) -> torch.Tensor:
    """Logits of picture files.

    In fp32 (the default) a picture has the same probabilities alone and in any batch, to 1e-5.

    Returns:
        float32 (N, K), before the temperature.

    Raises:
        PictureError: a file cannot be decoded.
        WeightsError: the network's answer is not finite.
    """
    parts: list[torch.Tensor] = []
    done = 0
    with classifier.inference(), autocast(classifier.device, precision):
        for batch in load_batches(files, classifier.input, batch_size=batch_size):
            pictures = as_float(batch.to(classifier.device))
            pictures = pictures.contiguous(memory_format=torch.channels_last)
            logits = classifier(pictures).float().cpu()
            if not torch.isfinite(logits).all():
                raise WeightsError(_DAMAGED)
            parts.append(logits)
            done += len(batch)
            if on_progress:
                on_progress(done, len(files))
    return torch.cat(parts) if parts else torch.empty(0, len(classifier.classes))


# ---------------------------------------------------------------------------- judging


def evaluate(
    predictions: Predictions, *, split: str, confusable: Iterable[tuple[str, str]] = ()
) -> Evaluation:
    """Every figure of `Evaluation` from logits and labels.

    Args:
        predictions: N >= 1 pictures.
        split: the name to report.
        confusable: pairs of classes that look alike; accuracy is given a second time with each pair
            counted as one class, beside and never instead of the plain one.

    Raises:
        DataError: no pictures.
    """
    n = len(predictions.labels)
    if not n:
        raise DataError(f"the {split} split has no pictures to evaluate; choose another split")
    labels, said = predictions.labels, predictions.predicted
    right = said == labels
    names = predictions.classes
    per_class = {
        name: ClassResult(n=int(of.sum()), accuracy=float(right[of].float().mean()))
        for index, name in enumerate(names)
        if (of := labels == index).any()
    }
    top = predictions.logits.topk(min(5, len(names)), dim=-1).indices
    wrong = Counter(
        (names[int(label)], names[int(other)])
        for label, other in zip(labels[~right], said[~right], strict=True)
    )
    probabilities = predictions.probabilities
    return Evaluation(
        split=split,
        n=n,
        top1=float(right.float().mean()),
        top1_interval=wilson_interval(int(right.sum()), n),
        top5=float((top == labels[:, None]).any(dim=1).float().mean()),
        mean_per_class=sum(r.accuracy for r in per_class.values()) / len(per_class),
        ece=expected_calibration_error(probabilities, labels),
        nll=float(functional.cross_entropy(predictions.logits / predictions.temperature, labels)),
        per_class=per_class,
        confusions=tuple(
            Confusion(label=label, prediction=other, n=count)
            for (label, other), count in sorted(wrong.items(), key=lambda item: (-item[1], item[0]))
        ),
        confusable=_accuracy_with_pairs_merged(predictions, tuple(confusable)),
    )


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """95% score interval of a share.

    Reference: Wilson 1927; unlike the normal approximation it stays in [0, 1] at the ends.
    """
    from scipy.stats import binomtest

    interval = binomtest(right, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def expected_calibration_error(
    probabilities: torch.Tensor, labels: torch.Tensor, *, bins: int = BINS
) -> float:
    """Mean gap between confidence and accuracy, weighted by the pictures in each bin, in [0, 1].

    Args:
        probabilities: (N, K).
        labels: int64 (N,).
        bins: of equal width; the last one includes 1.0.

    Reference: Guo et al. 2017, eq. 3.
    """
    confidence, said = probabilities.max(dim=-1)
    right = (said == labels).double()
    place = (confidence * bins).long().clamp(max=bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64).index_add(0, place, confidence.double() - right)
    return float(gap.abs().sum()) / max(len(labels), 1)


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The temperature that minimises the negative log-likelihood, in [0.05, 20].

    Fitted on validation data, never on test data. The likelihood is convex in 1/T, so the bounded
    search finds its one minimum.

    Reference: Guo et al. 2017, section 4.2.
    """
    from scipy.optimize import minimize_scalar

    logits = logits.double()

    def loss(log_temperature: float) -> float:
        return float(functional.cross_entropy(logits / math.exp(log_temperature), labels))

    bounds = (math.log(0.05), math.log(20.0))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(math.exp(found.x))


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


# ---------------------------------------------------------------------------- single files

_PATTERN = "*?["


@dataclass(frozen=True)
class Guess:
    """A class and its probability."""

    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one file.

    Attributes:
        path: as given.
        top: most probable classes, best first; of a strip, None.
        strip: the text read from a strip's pieces, or None.
        pieces: the best guess for every piece of a strip.
        error: why the file could not be read, or None.
    """

    path: str
    top: tuple[Guess, ...] = ()
    strip: str | None = None
    pieces: tuple[Guess, ...] = ()
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Under the names of the command line's contract."""

        def listed(guesses: Sequence[Guess]) -> list[dict[str, Any]]:
            return [{"class": g.name, "probability": g.probability} for g in guesses]

        return {
            "path": self.path,
            "top": listed(self.top),
            "strip": self.strip,
            "pieces": listed(self.pieces),
            "error": self.error,
        }


def predict(
    classifier: Classifier,
    images: Sequence[str | Path],
    *,
    top: int = 5,
    strip: int | None = None,
    batch_size: int = 16,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Prediction]:
    """What the classifier says of picture files.

    Args:
        classifier: in fp32, a picture gets the same probabilities alone and among others, to 1e-5.
        images: files, folders (all pictures in them) and glob patterns.
        top: guesses a picture.
        strip: cut each picture into this many pieces of equal width and read them left to right.
        batch_size: pictures a forward pass.
        on_progress: called with (done, total) after every batch.

    Returns:
        One `Prediction` a file, in the order given. A file that cannot be read has its `error`; the
        others are predicted.

    Raises:
        InputError: nothing matches, or an option out of range.
    """
    for name, value in (("top", top), ("strip", strip)):
        if value is not None and value < 1:
            raise InputError(f"--{name} is {value}; it must be at least 1")
    paths = _expand(images)
    results: list[Prediction] = []
    with classifier.inference():
        for begin in range(0, len(paths), batch_size):
            part = paths[begin : begin + batch_size]
            results += _predict_part(classifier, part, top, strip, batch_size)
            if on_progress:
                on_progress(min(begin + batch_size, len(paths)), len(paths))
    return results


def _predict_part(
    classifier: Classifier, paths: Sequence[str], top: int, strip: int | None, batch_size: int
) -> list[Prediction]:
    loaded: list[tuple[str, list[torch.Tensor] | None, str | None]] = []
    for path in paths:
        try:
            loaded.append((path, _pieces(classifier, path, strip), None))
        except PictureError as error:
            loaded.append((path, None, error.reason))
    tensors = [piece for _, pieces, _ in loaded for piece in pieces or []]
    rows = iter(
        row
        for begin in range(0, len(tensors), batch_size)
        for row in _probabilities(classifier, tensors[begin : begin + batch_size])
    )
    results = []
    for path, pieces, reason in loaded:
        if pieces is None:
            results.append(Prediction(path, error=reason))
            continue
        answers = [next(rows) for _ in pieces]
        if strip is None:
            results.append(Prediction(path, top=_best(classifier, answers[0], top)))
            continue
        read = tuple(_best(classifier, answer, 1)[0] for answer in answers)
        joint = "" if all(len(name) == 1 for name in classifier.classes) else " "
        text = joint.join(guess.name for guess in read)
        results.append(Prediction(path, strip=text, pieces=read))
    return results


def _probabilities(classifier: Classifier, pictures: Sequence[torch.Tensor]) -> torch.Tensor:
    """(N, K) on the CPU, of uint8 pictures (C, H, W); NaN weights are an error, as in a file's batch."""
    batch = as_float(torch.stack(list(pictures)).to(classifier.device))
    found = classifier.probabilities(batch.contiguous(memory_format=torch.channels_last)).cpu()
    if not torch.isfinite(found).all():
        raise WeightsError(_DAMAGED)
    return found


def _pieces(classifier: Classifier, path: str, strip: int | None) -> list[torch.Tensor]:
    spec = classifier.input
    if strip is None:
        return [spec.load(path)]
    picture = read_picture(path, channels=spec.channels)
    edges = [round(index * picture.width / strip) for index in range(strip + 1)]
    if picture.width < strip:
        raise PictureError(path, f"{picture.width} pixels wide cannot be cut into {strip} pieces")
    return [
        spec.load(picture.crop((left, 0, right, picture.height))) for left, right in pairwise(edges)
    ]


def _best(classifier: Classifier, probabilities: torch.Tensor, top: int) -> tuple[Guess, ...]:
    values, indexes = probabilities.topk(min(top, len(classifier.classes)))
    return tuple(
        Guess(classifier.classes[int(i)], float(v)) for v, i in zip(values, indexes, strict=True)
    )


def _expand(images: Sequence[str | Path]) -> list[str]:
    """Files, folders and patterns as a list of files; a missing file stays, to get its own line."""
    found: list[str] = []
    for image in map(str, images):
        if Path(image).is_dir():
            inside = sorted(p for p in Path(image).rglob("*") if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise InputError(
                    f"{image!r} has no picture in it; give files or a folder of pictures"
                )
            found += map(str, inside)
        elif not Path(image).exists() and any(sign in image for sign in _PATTERN):
            matches = sorted(glob.glob(image, recursive=True))  # noqa: PTH207 - also absolute patterns
            if not matches:
                raise InputError(f"the pattern {image!r} matches no file")
            found += matches
        else:
            found.append(image)
    if not found:
        raise InputError("no picture was given; name files, folders or patterns")
    return found
