"""What a classifier says of labelled pictures, before anything is made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from transferscope.acceleration.precision import Precision, autocast
from transferscope.backbones.classifier import Classifier
from transferscope.data.loading import load_batches
from transferscope.errors import InputError, RunError, WeightsError
from transferscope.files import read_tensors, write_csv, write_tensors
from transferscope.images import as_float

_DAMAGED = (
    "the network answers with NaN or infinity; its weights are damaged: restore or tune them again"
)


_ROWS = 8192  # pictures whose losses are computed at a time, in float64


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

    @property
    def right(self) -> torch.Tensor:
        """Whether the most probable class is the label, bool (N,)."""
        return self.predicted == self.labels

    @property
    def losses(self) -> torch.Tensor:
        """Negative log-likelihood of every label in nats, with the temperature, float64 (N,)."""
        parts = [
            torch.nn.functional.cross_entropy(
                logits.double() / self.temperature, labels, reduction="none"
            )
            for logits, labels in zip(
                self.logits.split(_ROWS), self.labels.split(_ROWS), strict=True
            )
        ]
        return torch.cat(parts)

    def uncalibrated(self) -> Predictions:
        """The same logits with temperature 1."""
        return replace(self, temperature=1.0)

    def rows(self, indices: torch.Tensor) -> Predictions:
        """Only the pictures with these indices, in their order."""
        return replace(
            self,
            paths=tuple(self.paths[int(index)] for index in indices),
            labels=self.labels[indices],
            logits=self.logits[indices],
        )

    def for_classes(self, classes: Sequence[str]) -> Predictions:
        """The same answers with the classes in another order.

        Raises:
            InputError: not the same classes.
        """
        refuse_other_classes(self.classes, classes)
        order = torch.tensor([self.classes.index(name) for name in classes])
        return replace(
            self,
            labels=torch.argsort(order)[self.labels],
            logits=self.logits[:, order],
            classes=tuple(classes),
        )

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
        header = ("path", "class", "predicted", "probability", "probability_of_class")
        write_csv(folder / "predictions.csv", header, self._csv_rows())

    def _csv_rows(self) -> Iterator[tuple[Any, ...]]:
        probabilities = self.probabilities
        for row, (path, label, said) in enumerate(
            zip(self.paths, self.labels, self.predicted, strict=True)
        ):
            yield (
                path,
                self.classes[int(label)],
                self.classes[int(said)],
                f"{float(probabilities[row, said]):.6f}",
                f"{float(probabilities[row, label]):.6f}",
            )

    @classmethod
    def load(cls, folder: str | Path) -> Predictions:
        """What `save` wrote.

        Raises:
            WeightsError: missing or damaged.
            RunError: not what `save` writes.
        """
        file = Path(folder) / "predictions.safetensors"
        tensors, metadata = read_tensors(file)
        try:
            return cls(
                paths=tuple(metadata["paths"]),
                labels=tensors["labels"],
                logits=tensors["logits"],
                classes=tuple(metadata["classes"]),
                temperature=metadata["temperature"],
            )
        except KeyError as error:
            raise RunError(
                f"{str(file)!r} has no {error}; 'transferscope evaluate' writes it again"
            ) from None


def refuse_other_classes(classes: Sequence[str], other: Sequence[str]) -> None:
    """Refuses two lists that do not hold the same classes, in whatever order.

    Raises:
        InputError: a class is in one of them alone.
    """
    if odd := sorted(set(classes) ^ set(other)):
        raise InputError(
            f"the classes differ: {', '.join(map(repr, odd[:5]))} are in one list and not in the other; two "
            "classifiers are compared on the same classes"
        )


def predict_files(
    classifier: Classifier,
    files: Sequence[Path],
    *,
    batch_size: int = 16,
    precision: Precision = "fp32",
    load: Callable[[int], torch.Tensor] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> torch.Tensor:
    """Logits of picture files.

    In fp32 (the default) a picture has the same probabilities alone and in any batch, to 1e-5.

    Args:
        classifier: unchanged.
        files: of any sizes and formats.
        batch_size: pictures a forward pass.
        precision: of the forward pass.
        load: makes the picture uint8 (C, H, W) of the file with this index; None: as prediction does.
        on_progress: called with (done, total) after every batch.

    Returns:
        float32 (N, K), before the temperature.

    Raises:
        PictureError: a file cannot be decoded.
        WeightsError: the network's answer is not finite.
    """
    parts: list[torch.Tensor] = []
    done = 0
    with classifier.inference(), autocast(classifier.device, precision):
        for batch in load_batches(files, classifier.input, batch_size=batch_size, load=load):
            parts.append(answered(classifier, batch))
            done += len(batch)
            if on_progress:
                on_progress(done, len(files))
    return torch.cat(parts) if parts else torch.empty(0, len(classifier.classes))


def answered(classifier: Classifier, batch: torch.Tensor) -> torch.Tensor:
    """Logits float32 (n, K) on the CPU, of uint8 pictures (n, C, H, W).

    Raises:
        WeightsError: they are not finite.
    """
    return _finite(classifier(_given(classifier, batch)))


def answered_with_features(
    classifier: Classifier, batch: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same, and the head's inputs float32 (n, D), from one forward pass.

    Raises:
        WeightsError: the logits are not finite.
    """
    logits, features = classifier.logits_and_features(_given(classifier, batch))
    return _finite(logits), features.float().cpu()


def _given(classifier: Classifier, batch: torch.Tensor) -> torch.Tensor:
    pictures = as_float(batch.to(classifier.device))
    return pictures.contiguous(memory_format=torch.channels_last)


def _finite(logits: torch.Tensor) -> torch.Tensor:
    logits = logits.float().cpu()
    if not torch.isfinite(logits).all():
        raise WeightsError(_DAMAGED)
    return logits
