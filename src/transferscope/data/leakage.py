"""How many validation pictures have a lookalike in training: what makes validation flatter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transferscope.data.duplicates import NearPair
from transferscope.data.lookalike_groups import LOOKALIKES, least_cosine, normalised
from transferscope.data.scan import Scan
from transferscope.records import Record

MUCH = 0.15
"""Share of validation pictures with a lookalike in training, from which it is said what that means. Photographs
of clothing have 8 to 10%, of which grouping them moves validation by no more than chance; slices of scans, of
which it takes six points, 43 to 45%."""

_BLOCK = 512  # rows of a table of cosines


@dataclass(frozen=True)
class Leakage(Record):
    """Validation pictures that have a lookalike among the training pictures.

    Attributes:
        n: validation pictures.
        by_hash: that have one by perceptual hash and thumbnail, of any class; None: not looked at.
        by_features: that have one of their class by pooled features (`lookalike_groups.CLOSENESS`); None:
            not looked at.
        either: that have one by either.
    """

    n: int
    by_hash: int | None
    by_features: int | None
    either: int

    @property
    def share(self) -> float:
        """Of the validation pictures."""
        return self.either / self.n

    @property
    def much(self) -> bool:
        """Whether validation may flatter."""
        return self.share >= MUCH

    @property
    def sentence(self) -> str:
        """What was found."""
        looked = {"hash": self.by_hash, "features": self.by_features}
        how = " and ".join(name for name, count in looked.items() if count is not None)
        return (
            f"{self.share:.1%} of the validation pictures ({self.either:,} of {self.n:,}) have a lookalike in "
            f"training, by {how}."
        )

    @property
    def meaning(self) -> str:
        """What that means, and what to do; empty where they are few."""
        if not self.much:
            return ""
        return (
            "Accuracy on them is partly memory: validation will say how well pictures like those already seen "
            "are recognised, and new patients, places or things may fare far worse. Keep together what belongs "
            f"together: '--group COLUMN|PATTERN' where it is known, else '--group {LOOKALIKES}'."
        )


def leakage(
    scan: Scan,
    near: Iterable[NearPair] | None,
    features: NDArray[np.float32] | None,
) -> Leakage | None:
    """Counts them; None where the scan has no training or no validation pictures.

    Args:
        scan: of N pictures, with their splits.
        near: near duplicates by hash, which also join what is alike through others; None: not looked at.
        features: (N, D), pooled; rows of pictures of other parts are not looked at. None: not looked at.
    """
    parts = np.array([one.split or "" for one in scan.pictures])
    labels = np.array([-1 if one.label is None else one.label for one in scan.pictures])
    train, validation = parts == "train", parts == "validation"
    if not train.any() or not validation.any():
        return None
    by_hash = None if near is None else _joined_with(scan, near, train)[validation]
    by_features = None
    if features is not None:
        by_features = has_lookalike(
            features[train], labels[train], features[validation], labels[validation]
        )
    known = [one for one in (by_hash, by_features) if one is not None]
    return Leakage(
        n=int(validation.sum()),
        by_hash=None if by_hash is None else int(by_hash.sum()),
        by_features=None if by_features is None else int(by_features.sum()),
        either=int(np.any(known, axis=0).sum()) if known else 0,
    )


def has_lookalike(
    train: NDArray[np.float32],
    train_labels: NDArray[np.int64],
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Whether a training picture of its class is a lookalike of each picture: bool (N,).

    Args:
        train, train_labels: (T, D), pooled, and (T,).
        features, labels: (N, D) and (N,).
    """
    found = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        others = train[train_labels == label]
        if len(others):
            found[own] = nearest_cosines(others, features[own]) >= least_cosine(others)
    return found


def nearest_cosines(
    train: NDArray[np.float32], features: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Largest cosine of each row (N, D) with the rows of training pictures (T, D): float64 (N,)."""
    known = normalised(train).T
    return np.concatenate([(part @ known).max(1) for part in _blocks(normalised(features))]).astype(
        np.float64
    )


def _blocks(rows: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]


def _joined_with(
    scan: Scan, near: Iterable[NearPair], train: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Whether pictures are joined with a training picture by pairs, directly or through others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    place_of = {picture.path: place for place, picture in enumerate(scan.pictures)}
    ends = [(place_of[one.paths[0]], place_of[one.paths[1]]) for one in near]
    rows, columns = np.array(ends, dtype=int).reshape(-1, 2).T
    count = len(scan.pictures)
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(count, count))
    component = connected_components(graph, directed=False)[1]
    with_training = np.zeros(count, dtype=bool)
    with_training[component[train]] = True
    return np.asarray(with_training[component])
