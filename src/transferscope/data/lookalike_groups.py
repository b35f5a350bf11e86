"""Groups of pictures that look alike, to be kept in one part: so that validation is of pictures that are new.

Two slices of one patient, two frames of one film or two photographs of one thing, on either side of a split,
make accuracy a measure of memory. Where nobody wrote down what belongs together, looks are what is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transferscope.data.duplicates import NearPair
from transferscope.data.scan import Picture, Scan
from transferscope.errors import DataError
from transferscope.records import Record
from transferscope.wording import counted

LOOKALIKES = "lookalikes"
"""What `--group` is given to have lookalikes kept together."""

CLOSENESS = 0.35
"""Two pictures of one class are lookalikes by features where their distance (1 - cosine) is at most this
share of the median distance of two pictures of the class. Relative, as cosines of narrow sets and of other
networks lie elsewhere: 0.9 is far apart for X-rays and near for photographs."""

MOST_OF_A_CLASS = 0.15
"""Share of a class that one group may have at most, which is what validation has of it by default: of anything
alike to something alike to something, a chain could be made that holds most of a class, and then there would be
nothing to validate on."""

_NEIGHBOURS = 10  # of each picture that are joined with it, the nearest first
_BLOCK = 512  # rows of a table of cosines
_TYPICAL = 1000  # pictures of a class whose distances are asked
_ROUNDING = 1e-6  # of a cosine in float32

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""Places of the ones, places of the others, and their distance."""


@dataclass(frozen=True)
class LookalikeGroups(Record):
    """What was kept together.

    Attributes:
        groups: of two pictures or more.
        pictures: in them.
        n: pictures that were looked at: those whose part is not given.
        largest: pictures of the largest group.
        left_apart: pairs of lookalikes in two groups, since together they would have had more than
            `MOST_OF_A_CLASS` of a class.
        features: whether features were looked at, or hashes alone.
    """

    groups: int
    pictures: int
    n: int
    largest: int
    left_apart: int
    features: bool

    @property
    def sentence(self) -> str:
        """The same in words."""
        how = (
            "hash and features"
            if self.features
            else "hash alone, as they are too many for features"
        )
        if not self.groups:
            return f"no lookalikes among {counted(self.n, 'picture')} (by {how}): the split is as without"
        words = (
            f"lookalikes kept together: {self.pictures:,} of {counted(self.n, 'picture')} are in "
            f"{counted(self.groups, 'group')}, the largest of {self.largest} (by {how})"
        )
        if self.left_apart:
            words += (
                f"; {counted(self.left_apart, 'pair')} of lookalikes may lie across the split, as their groups "
                f"together would be more than {MOST_OF_A_CLASS:.0%} of a class"
            )
        return words


def least_cosine(features: NDArray[np.float32]) -> float:
    """Cosine from which two of a class's pictures are lookalikes; see `CLOSENESS`.

    Args:
        features: (N, D) of the class; of many, `_TYPICAL` spread evenly are asked. Of fewer than three pictures
            there is no typical distance, and only equal features are alike.
    """
    few = normalised(features[:: max(1, len(features) // _TYPICAL)])
    if len(few) < 3:
        return 1 - _ROUNDING
    distances = 1 - (few @ few.T)[np.triu_indices(len(few), k=1)]
    return float(1 - CLOSENESS * max(0.0, float(np.median(distances))) - _ROUNDING)


def alike_by_features(features: NDArray[np.float32], labels: NDArray[np.int64]) -> Pairs:
    """Pairs of one class that are lookalikes: each picture with the nearest ten of them.

    Args:
        features: (N, D), pooled.
        labels: (N,).
    """
    unit = normalised(features)
    found = []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        own, least = unit[places], least_cosine(features[places])
        count = min(_NEIGHBOURS, len(places) - 1)
        for start in range(0, len(places) if count else 0, _BLOCK):
            cosines = own[start : start + _BLOCK] @ own.T
            rows = np.arange(len(cosines))
            cosines[rows, start + rows] = -1
            near = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
            row, column = np.nonzero(np.take_along_axis(cosines, near, 1) >= least)
            other = near[row, column]
            found.append((places[start + row], places[other], 1 - cosines[row, other]))
    one, other, distance = (
        np.concatenate([part[i] for part in found] or [np.zeros(0)]) for i in range(3)
    )
    return one.astype(np.int64), other.astype(np.int64), np.maximum(0, distance.astype(np.float64))


def normalised(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (features / np.maximum(length, 1e-12)).astype(np.float32)
    return unit


def is_drawn(picture: Picture) -> bool:
    """Whether a split decides the part of a picture, and no layout has given it one to be judged on."""
    return picture.split in (None, "train") and picture.label is not None


def refuse_given_parts(scan: Scan) -> None:
    """Refuses a set of which nothing is drawn.

    Raises:
        DataError: the layout gives validation and test pictures.
    """
    if {"validation", "test"} <= {picture.split for picture in scan.pictures}:
        raise DataError(
            f"{str(scan.root)!r} gives its own validation and test pictures, so there is no split to draw in "
            f"which lookalikes could be kept together; leave out --group {LOOKALIKES}, or the validation folder"
        )


def group_lookalikes(
    scan: Scan, near: Iterable[NearPair], alike: Pairs | None
) -> tuple[dict[str, str], LookalikeGroups]:
    """Which pictures belong together since they look alike.

    The nearest pairs are joined first, those by hash before those by features, and none that would give a
    group more than `MOST_OF_A_CLASS` of a class (of a small class, two pictures).

    Args:
        scan: of N labelled pictures, of which a split will be drawn.
        near: near duplicates; those with another picture are passed over.
        alike: places among them, from `alike_by_features`; None: not looked at.

    Returns:
        Group by path, of pictures that are not alone.
    """
    pictures = scan.pictures
    place_of = {picture.path: place for place, picture in enumerate(pictures)}
    pairs = [
        (place_of[one.paths[0]], place_of[one.paths[1]])
        for one in sorted(near, key=lambda one: one.distance)
        if place_of.keys() >= set(one.paths)
    ]
    if alike is not None:
        order = np.argsort(alike[2], kind="stable")
        pairs += zip(alike[0][order].tolist(), alike[1][order].tolist(), strict=True)
    roots, refused = _joined(pairs, np.array([one.label for one in pictures], dtype=np.int64))
    members: dict[int, list[str]] = {}
    for place, root in enumerate(roots):
        members.setdefault(root, []).append(pictures[place].path)
    several = [paths for paths in members.values() if len(paths) > 1]
    sizes = [len(paths) for paths in several]
    return {path: f"like {paths[0]}" for paths in several for path in paths}, LookalikeGroups(
        groups=len(sizes),
        pictures=sum(sizes),
        n=len(pictures),
        largest=max(sizes, default=0),
        left_apart=sum(roots[one] != roots[other] for one, other in refused),
        features=alike is not None,
    )


def _joined(
    pairs: Sequence[tuple[int, int]], labels: NDArray[np.int64]
) -> tuple[list[int], set[tuple[int, int]]]:
    """A number of each place's group, and the pairs that were not joined.

    Kruskal's algorithm with a limit to what may grow together.
    """
    totals = np.bincount(labels, minlength=1)
    limits = np.maximum((MOST_OF_A_CLASS * totals).astype(int), np.where(totals >= 6, 2, 1))
    parent = list(range(len(labels)))
    counts = {place: {int(label): 1} for place, label in enumerate(labels.tolist())}
    refused: set[tuple[int, int]] = set()

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = place = parent[parent[place]]
        return place

    for one, other in pairs:
        a, b = sorted((root(one), root(other)))
        if a == b:
            continue
        both = {
            label: counts[a].get(label, 0) + counts[b].get(label, 0)
            for label in counts[a] | counts[b]
        }
        if any(count > limits[label] for label, count in both.items()):
            refused.add((min(one, other), max(one, other)))
            continue
        parent[b], counts[a] = a, both
    return [root(place) for place in range(len(labels))], refused
