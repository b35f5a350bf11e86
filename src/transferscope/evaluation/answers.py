"""What a classifier says of picture files that nobody has labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from transferscope.backbones.classifier import Classifier
from transferscope.errors import PictureError
from transferscope.evaluation.known_pictures import Neighbour


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
        known: whether the picture is like those of the classes; None where that is not known: of a
            classifier without its training pictures, or where too few validation pictures are there.
        familiarity: share of validation pictures that are at most as familiar, 0 to 1; of a strip, that of its
            least familiar piece times their number (Bonferroni), so that false alarms are as rare.
        nearest: the training pictures nearest to it in the classifier's features; of a strip, none.
    """

    path: str
    top: tuple[Guess, ...] = ()
    strip: str | None = None
    pieces: tuple[Guess, ...] = ()
    error: str | None = None
    abstained: bool = False
    known: bool | None = None
    familiarity: float | None = None
    nearest: tuple[Neighbour, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Under the names of the command line's contract."""

        def listed(guesses: Sequence[Guess]) -> list[dict[str, Any]]:
            return [{"class": g.name, "probability": g.probability} for g in guesses]

        return {
            "path": self.path,
            "top": listed(self.top),
            "known": self.known,
            "familiarity": self.familiarity,
            "nearest": [one.to_dict() for one in self.nearest],
            "strip": self.strip,
            "pieces": listed(self.pieces),
            "error": self.error,
            "abstained": self.abstained,
        }


@dataclass(frozen=True, eq=False)
class Answer:
    """What is made of one file, before it is put into words.

    Attributes:
        probabilities: (pieces, K); one piece but for a strip.
        familiarity: of the file; None where it is not known.
        nearest: training pictures.
    """

    probabilities: torch.Tensor
    familiarity: float | None = None
    nearest: tuple[Neighbour, ...] = ()


def prediction_of(
    classifier: Classifier,
    path: str,
    answer: Answer | PictureError,
    top: int,
    strip: int | None,
    min_confidence: float,
    false_alarms: float | None = None,
) -> Prediction:
    """What is said of one file; `false_alarms` None: whether it is known is not said."""
    if isinstance(answer, PictureError):
        return Prediction(path, error=answer.reason)
    told = answer.familiarity is not None and false_alarms is not None
    found = Prediction(
        path,
        known=answer.familiarity > false_alarms if told else None,  # type: ignore[operator]
        familiarity=answer.familiarity,
        nearest=answer.nearest,
    )
    if strip is None:
        best = _best(classifier, answer.probabilities[0], top)
        return replace(found, top=best, abstained=best[0].probability < min_confidence)
    pieces = tuple(_best(classifier, piece, 1)[0] for piece in answer.probabilities)
    joint = "" if all(len(name) == 1 for name in classifier.classes) else " "
    return replace(
        found,
        strip=joint.join(guess.name for guess in pieces),
        pieces=pieces,
        abstained=any(guess.probability < min_confidence for guess in pieces),
    )


def _best(classifier: Classifier, probabilities: torch.Tensor, top: int) -> tuple[Guess, ...]:
    values, indexes = probabilities.topk(min(top, len(classifier.classes)))
    return tuple(
        Guess(classifier.classes[int(i)], float(v)) for v, i in zip(values, indexes, strict=True)
    )
