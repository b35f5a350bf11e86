"""What travels with a classifier so that it can tell strangers: training features and validation scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from transferscope.errors import InputError, RunError
from transferscope.evaluation.strangers import (
    DEFAULT_SCORE,
    SCORES,
    Scored,
    Training,
    Values,
    familiarity,
    rounding,
    unit,
)
from transferscope.files import read_tensors, write_tensors

FILE = "strangers.safetensors"
"""Name of the file in a run's folder, and in an export for the Hub."""

MOST_BYTES = 10_000_000
"""Bytes of training features, at most; of larger sets, as many pictures of every class as fit."""

SHOWN = 3
"""Nearest training pictures that are named beside an answer."""


@dataclass(frozen=True)
class Neighbour:
    """A training picture that is near to a picture in the classifier's features.

    Attributes:
        path: of its file; None where the classifier came without the names (an export).
        name: its class.
        cosine: of the two pictures' pooled features.
    """

    path: str | None
    name: str
    cosine: float

    def to_dict(self) -> dict[str, Any]:
        """Under the names of the command line's contract."""
        return {"path": self.path, "class": self.name, "similarity": self.cosine}


@dataclass(frozen=True, eq=False)
class KnownPictures:
    """Training pictures that others are compared with, and what every score says of validation pictures.

    Attributes:
        features: float16 (M, D), the head's inputs, each of length 1.
        lengths: float32 (M,), which they had.
        labels: int64 (M,).
        energies: float32 (M,), see `strangers.centred_energy`.
        classes: K names.
        validation: float32 (n,) by the name of the score.
        of: training pictures there are, of which these M are kept.
        weights: sha256 of the classifier's weights and buffers.
        paths: of the M pictures, relative to `root`; or none.
        root: the folder that they start from.
        score: by which strangers are told.
    """

    features: NDArray[np.float16]
    lengths: Values
    labels: NDArray[np.int64]
    energies: Values
    classes: tuple[str, ...]
    validation: dict[str, Values]
    of: int
    weights: str
    paths: tuple[str, ...] = ()
    root: Path | None = None
    score: str = DEFAULT_SCORE

    @classmethod
    def of_features(
        cls,
        training: Training,
        validation: tuple[Values, Values],
        *,
        classes: Sequence[str],
        weights: str,
        of: int,
        paths: Sequence[str] = (),
        root: Path | None = None,
    ) -> KnownPictures:
        """What is to be kept of M training pictures and of the validation pictures' features and logits."""
        lengths = np.linalg.norm(training.features, axis=1).astype(np.float32)
        half = unit(training.features).astype(np.float16)
        arrays = (half, lengths, training.labels, training.energies)
        kept = cls(*arrays, tuple(classes), {}, of, weights, tuple(paths), root)
        scores: dict[str, Values] = {}
        for name, one in SCORES.items():
            known = kept.training._replace(validation=scores)
            scores[name] = np.sort(one.function(known)(*validation))
        return replace(kept, validation=scores)

    @property
    def n(self) -> int:
        """Validation pictures."""
        return len(self.validation[self.score])

    @cached_property
    def training(self) -> Training:
        """Features as they were, to the precision in which they are kept."""
        features = self._unit * self.lengths[:, None]
        return Training(features, self.labels, self.energies, self.validation)

    @cached_property
    def _unit(self) -> Values:
        return unit(self.features)

    @cached_property
    def _scored(self) -> Scored:
        return SCORES[self.score].function(self.training)

    def familiarity(self, features: Values, logits: Values) -> NDArray[np.float64]:
        """Of pictures with features (N, D) and logits (N, K): (N,), see `strangers.familiarity`."""
        return familiarity(self._scored(features, logits), self.validation[self.score])

    def familiarity_range(
        self, features: Values, logits: Values
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The least and the greatest that rounding could make of it, (N,) each."""
        scores, known = self._scored(features, logits), self.validation[self.score]
        within = rounding(self.validation)
        return familiarity(scores - within, known), familiarity(scores + within, known)

    def neighbours(self, features: Values, count: int = SHOWN) -> list[tuple[Neighbour, ...]]:
        """The nearest training pictures of every row of features (N, D), nearest first."""
        cosines = unit(features) @ self._unit.T
        count = min(count, cosines.shape[1])
        rows = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        return [
            tuple(
                Neighbour(self._path(at), self.classes[self.labels[at]], float(row[at]))
                for at in sorted(chosen, key=lambda at: -row[at])
            )
            for row, chosen in zip(cosines, rows, strict=True)
        ]

    def _path(self, at: int) -> str | None:
        if not self.paths:
            return None
        return self.paths[at] if self.root is None else str(self.root / self.paths[at])

    def without_names(self) -> KnownPictures:
        """The same without the files' names, for others."""
        return replace(self, paths=(), root=None)

    # ------------------------------------------------------------------ files

    def save(self, file: str | Path) -> None:
        """Writes one safetensors file."""
        tensors = {
            "features": torch.from_numpy(self.features),
            "lengths": torch.from_numpy(self.lengths),
            "labels": torch.from_numpy(self.labels),
            "energies": torch.from_numpy(self.energies),
            **{
                f"validation.{name}": torch.from_numpy(one) for name, one in self.validation.items()
            },
        }
        metadata = {
            "classes": list(self.classes),
            "of": self.of,
            "weights": self.weights,
            "paths": list(self.paths),
            "score": self.score,
        }
        write_tensors(file, tensors, metadata)

    @classmethod
    def load(cls, file: str | Path, *, root: Path | None = None) -> KnownPictures:
        """What `save` wrote, with the pictures' folder as it is now.

        Raises:
            WeightsError: missing or damaged.
            RunError: not what `save` writes, or by a score that this version does not have.
        """
        tensors, metadata = read_tensors(file)
        try:
            if metadata["score"] not in SCORES:
                raise KeyError(metadata["score"])
            arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
            return cls(
                arrays["features"],
                arrays["lengths"],
                arrays["labels"],
                arrays["energies"],
                tuple(metadata["classes"]),
                {name: arrays[f"validation.{name}"] for name in SCORES},
                metadata["of"],
                metadata["weights"],
                tuple(metadata["paths"]),
                root,
                metadata["score"],
            )
        except KeyError as error:
            raise RunError(
                f"{str(file)!r} has no {error}: it is of another version; remove it, and it is made again"
            ) from None


def kept_rows(
    labels: NDArray[np.int64], width: int, *, seed: int = 0, room: int | None = None
) -> NDArray[np.int64]:
    """Which training pictures are kept: all, or as many of every class as there is room for.

    Args:
        labels: (N,).
        width: D, of the features.
        seed: of the draw.
        room: pictures, at most; None: as `MOST_BYTES` hold.

    Returns:
        Indexes, ascending. A class has at least as many as a larger one, or all of its own.

    Raises:
        InputError: not one picture a class has room.
    """
    room = MOST_BYTES // (2 * width) if room is None else room
    if len(labels) <= room:
        return np.arange(len(labels))
    sizes = np.bincount(labels)
    quota = most_each(sizes, room)
    if quota < 1:
        raise InputError(
            f"{len(sizes)} classes of {width} features do not fit into {MOST_BYTES / 1e6:.0f} MB with one "
            "picture each; strangers are not told for so many"
        )
    draw = np.random.default_rng(seed)
    chosen = [draw.permutation(np.flatnonzero(labels == one))[:quota] for one in range(len(sizes))]
    return np.sort(np.concatenate(chosen))


def most_each(sizes: NDArray[np.int64], room: int) -> int:
    """The greatest number of pictures a class at which all classes together fit."""
    low, high = 0, int(sizes.max())
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(sizes, middle).sum() <= room else (low, middle - 1)
    return low
