"""Splits that keep together what belongs together: pictures of one patient, one video, one object."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from transferscope.data.layouts import listed
from transferscope.data.scan import Picture, Scan
from transferscope.errors import DataError

FOLDS = 20
"""Folds that the parts are dealt from, at most: a share is exact to a twentieth."""

_TRIES = 12
_FEW_TRIES = 200
"""Shuffles, of which the split nearest to the ratio is kept: of folds, and of few groups (quick)."""

_LARGE = (
    5_000  # groups times shuffles: with many groups every shuffle comes near, and takes seconds
)


def draw_groups(
    scan: Scan, pictures: Sequence[Picture], shares: Mapping[str, int], seed: int
) -> dict[str, str]:
    """Path to split, stratified by class as far as whole groups allow.

    Pictures without a group are alone; pictures of the same bytes count as one group, and so do the
    groups that they lie in. Folds of scikit-learn's StratifiedGroupKFold are dealt to the parts (the
    groups themselves, where they are few), for several shuffles, and the deal whose counts by class
    are nearest to the shares is kept.

    Args:
        scan: that the pictures are of.
        pictures: to be dealt out, each with a label.
        shares: split to its share.
        seed: the same seed gives the same split.

    Raises:
        DataError: a class has too few groups for every part to have one.
    """
    labels = np.array([picture.label for picture in pictures])
    groups = _merged(pictures)
    _refuse_few_groups(scan, labels, groups, shares)
    weight = np.array(list(shares.values())) / sum(shares.values())
    wanted = np.outer(np.bincount(labels, minlength=len(scan.classes)), weight)
    best: tuple[float, np.ndarray] | None = None
    for number, folds in enumerate(_shuffles(labels, groups, seed)):
        parts = _deal(folds, labels, wanted, cover=bool(number % 2))
        table = _table(parts, labels, wanted.shape)
        far = float((((table - wanted) ** 2) / np.maximum(wanted, 1)).sum())
        if (table[wanted.sum(1) > 0] > 0).all() and (best is None or far < best[0]):
            best = far, parts
    if best is None:
        raise DataError(
            f"no split of the groups of {str(scan.root)!r} was found in which every part has every class; "
            "give more groups, or merge small classes"
        )
    names = list(shares)
    return {picture.path: names[part] for picture, part in zip(pictures, best[1], strict=True)}


def _shuffles(labels: np.ndarray, groups: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Ways to put whole groups into folds: (N,) numbers of folds each."""
    count = int(groups.max()) + 1
    if count <= FOLDS:
        for trial in range(_FEW_TRIES):
            yield np.random.default_rng([seed, trial]).permutation(count)[groups]
        return
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(FOLDS, int(np.bincount(labels).max()))
    for trial in range(min(_TRIES, max(3, _LARGE // count))):
        state = int(np.random.default_rng([seed, trial]).integers(2**31))
        found = np.empty(len(labels), dtype=int)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # classes with fewer pictures than folds
            splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=state)
            for number, (_, held) in enumerate(splitter.split(labels, labels, groups)):
                found[held] = number
        yield found
        yield found


def refuse_torn_groups(scan: Scan) -> None:
    """Refuses splits of the layout's own that a group lies across.

    Raises:
        DataError: as said; names three groups.
    """
    places: dict[str, dict[str, str]] = defaultdict(dict)  # group to split to a path
    for picture in scan.pictures:
        if picture.group is not None and picture.split is not None:
            places[picture.group].setdefault(picture.split, picture.path)
    torn = {group: found for group, found in places.items() if len(found) > 1}
    if torn:
        examples = "; ".join(
            f"{group!r} ({', '.join(f'{path!r} in {split}' for split, path in found.items())})"
            for group, found in list(torn.items())[:3]
        )
        raise DataError(
            f"{len(torn)} groups of {str(scan.root)!r} lie in more than one split: {examples}; move each "
            "into one split, or leave out the splits to have them drawn"
        )


def _merged(pictures: Sequence[Picture]) -> np.ndarray:
    """A number for every picture, the same for what must stay together: union-find over groups and bytes."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for picture in pictures:
        bytes_ = root(("bytes", picture.sha256))
        if picture.group is not None:
            parent[bytes_] = root(("group", picture.group))
    numbers: dict[tuple[str, str], int] = {}
    found = [root(("bytes", picture.sha256)) for picture in pictures]
    return np.array([numbers.setdefault(key, len(numbers)) for key in found])


def _refuse_few_groups(
    scan: Scan, labels: np.ndarray, groups: np.ndarray, shares: Mapping[str, int]
) -> None:
    counts = {label: len(np.unique(groups[labels == label])) for label in np.unique(labels)}
    few = [f"{scan.classes[label]} ({n})" for label, n in counts.items() if n < len(shares)]
    if few:
        raise DataError(
            f"too few groups to draw {', '.join(shares)} from: {listed(few)}; each class needs at least "
            f"{len(shares)} groups: add some, or remove the class"
        )


def _deal(folds: np.ndarray, labels: np.ndarray, wanted: np.ndarray, *, cover: bool) -> np.ndarray:
    """The part of every picture: folds, the largest first, go where most is lacking of their classes.

    Args:
        folds: (N,) number of each picture's fold.
        labels: (N,).
        wanted: (classes, parts) pictures that each part should have.
        cover: whether a part that lacks a class of the fold altogether goes first.
    """
    content = _table(folds, labels, (len(wanted), folds.max() + 1))
    place = np.zeros(content.shape[1], dtype=int)
    lacking = wanted.astype(float)
    empty = set(range(wanted.shape[1]))
    largest = np.argsort(-content.sum(0), kind="stable")
    for left, fold in zip(range(len(largest), 0, -1), largest, strict=True):
        held = content[:, fold, None]
        worse = ((((lacking - held) ** 2) - lacking**2) / np.maximum(wanted, 1)).sum(0)
        if cover:
            worse = worse - _FIRST * ((lacking == wanted) & (held > 0)).sum(0)
        options = sorted(empty) if left <= len(empty) else range(wanted.shape[1])
        place[fold] = min(options, key=worse.__getitem__)
        lacking[:, place[fold]] -= content[:, fold]
        empty.discard(int(place[fold]))
    return np.asarray(place[folds])


_FIRST = 1e12  # outweighs every number of pictures


def _table(parts: np.ndarray, labels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(classes, parts) counts."""
    table = np.zeros(shape, dtype=int)
    np.add.at(table, (labels, parts), 1)
    return table
