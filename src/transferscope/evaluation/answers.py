"""What a classifier says of picture files that nobody has labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from transferscope.backbones.classifier import Classifier
from transferscope.errors import PictureError


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
        top: most probable classes, best first; of a strip, none.
        strip: the text read from a strip's pieces, or None.
        pieces: the best guess for every piece of a strip.
        error: why the file could not be read, or None.
        abstained: whether the best guess (of a strip, of any piece) is less probable than was asked
            for, so that it is not to be relied on.
    """

    path: str
    top: tuple[Guess, ...] = ()
    strip: str | None = None
    pieces: tuple[Guess, ...] = ()
    error: str | None = None
    abstained: bool = False

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
            "abstained": self.abstained,
        }


def prediction_of(
    classifier: Classifier,
    path: str,
    answer: torch.Tensor | PictureError,
    top: int,
    strip: int | None,
    min_confidence: float,
) -> Prediction:
    """What is said of one file, from its probabilities (pieces, K) or the reason why it has none."""
    if isinstance(answer, PictureError):
        return Prediction(path, error=answer.reason)
    if strip is None:
        best = _best(classifier, answer[0], top)
        return Prediction(path, top=best, abstained=best[0].probability < min_confidence)
    pieces = tuple(_best(classifier, piece, 1)[0] for piece in answer)
    joint = "" if all(len(name) == 1 for name in classifier.classes) else " "
    return Prediction(
        path,
        strip=joint.join(guess.name for guess in pieces),
        pieces=pieces,
        abstained=any(guess.probability < min_confidence for guess in pieces),
    )


def _best(classifier: Classifier, probabilities: torch.Tensor, top: int) -> tuple[Guess, ...]:
    values, indexes = probabilities.topk(min(top, len(classifier.classes)))
    return tuple(
        Guess(classifier.classes[int(i)], float(v)) for v, i in zip(values, indexes, strict=True)
    )
