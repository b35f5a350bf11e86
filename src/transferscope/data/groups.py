"""Splits that keep together what belongs together: pictures of one patient, one video, one object."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from transferscope.data.scan import Picture, Scan
from transferscope.errors import DataError

_FOLDS = 20  # 70/15/15 is 14, 3 and 3 of them
_TRIES = 4  # seeds of the folds
_DEALS = 200  # ways to deal folds to parts, for each seed
_MISSING = 1e6  # cost of a class without pictures in a part: more than any distance to the ratio


def draw_groups(
    scan: Scan, pool: Sequence[Picture], shares: Mapping[str, int], seed: int
) -> dict[str, str]:
    """Draws whole groups, every class as near to its share as they allow.

    scikit-learn's StratifiedGroupKFold makes up to 20 folds, which are dealt to the parts in the
    best of many ways; then single groups move while that brings the classes nearer to the ratio.
    """
    units = _units(pool)
    labels = np.array([picture.label for picture in pool])
    pairs = np.unique(np.stack([units, labels]), axis=1)
    groups = np.bincount(pairs[1], minlength=len(scan.classes))  # of each class

    def named(chosen: np.ndarray) -> str:
        return ", ".join(f"{scan.classes[label]!r} ({groups[label]})" for label in chosen)

    few = np.flatnonzero(groups < len(shares))
    if len(few):
        raise DataError(
            f"too few groups to draw {listed_parts(shares)} parts from: {named(few)}; each class needs at "
            f"least {len(shares)} groups that share no file: add some, or remove the class"
        )
    tally = _Tally.of(units, labels, shares)
    tries: list[np.ndarray] = []
    for attempt in range(_TRIES):
        rng = np.random.default_rng([seed, attempt])
        tries.append(_improved(tally, _dealt(tally, _folds(units, labels, rng), shares, rng)))
        if tally.cost(tries[-1]) < _MISSING:
            break
    best = min(tries, key=lambda parts: round(tally.cost(parts), 9))
    lacking = np.flatnonzero((tally.counts(best) == 0).any(axis=0))
    if len(lacking):
        raise DataError(
            f"no split was found that keeps groups whole and has every class in {listed_parts(shares)}: "
            f"{named(lacking)}; add groups of these classes, or remove the classes"
        )
    names = list(shares)
    return {p.path: names[best[unit]] for p, unit in zip(pool, units.tolist(), strict=True)}


def _units(pool: Sequence[Picture]) -> np.ndarray:
    """Which pictures cannot be separated: one number a unit, int64 (n,).

    Pictures of one group belong together, and so do files of equal bytes; groups that share a file
    are one unit.
    """
    names = [f"file {picture.sha256}" for picture in pool]
    names += [f"group {one.group}" if one.group else f"alone {one.path}" for one in pool]
    nodes = np.unique(names, return_inverse=True)[1].reshape(2, len(pool))
    joined = coo_array((np.ones(len(pool)), nodes), shape=(nodes.max() + 1,) * 2)
    found = connected_components(joined, directed=False)[1][nodes[0]]
    _, first, units = np.unique(found, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[units])  # numbered by their first picture


@dataclass(frozen=True)
class _Tally:
    """How many pictures of each class every unit has; only where it has some.

    Attributes:
        unit, label, size: (m,), of each entry; the size is in pictures.
        targets: (parts, classes) pictures that each part would have by the ratio alone.
    """

    unit: np.ndarray
    label: np.ndarray
    size: np.ndarray
    targets: np.ndarray

    @classmethod
    def of(cls, units: np.ndarray, labels: np.ndarray, shares: Mapping[str, int]) -> _Tally:
        width = int(labels.max()) + 1
        cells, size = np.unique(units * width + labels, return_counts=True)
        weights = np.array(list(shares.values()), dtype=np.float64)
        totals = np.bincount(labels, minlength=width)
        targets = np.outer(weights / weights.sum(), totals)
        return cls(cells // width, cells % width, size.astype(np.float64), targets)

    def counts(self, parts: np.ndarray) -> np.ndarray:
        """(parts, classes) pictures, where unit u goes to part `parts[u]`."""
        shape = self.targets.shape
        cells = parts[self.unit] * shape[1] + self.label
        return np.bincount(cells, self.size, minlength=shape[0] * shape[1]).reshape(shape)

    def cost(self, parts: np.ndarray) -> float:
        """Chi-square distance to the ratio, and `_MISSING` for every class that a part lacks."""
        counts = self.counts(parts)
        distance = float(((counts - self.targets) ** 2 / self.targets).sum())
        return distance + _MISSING * int((counts == 0).sum())


def _folds(units: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fold of every unit."""
    from sklearn.model_selection import StratifiedGroupKFold

    count = int(units.max()) + 1
    folds = min(_FOLDS, count, int(np.bincount(labels).max()))
    folder = StratifiedGroupKFold(folds, shuffle=True, random_state=int(rng.integers(2**31)))
    fold = np.zeros(count, dtype=np.int64)
    with warnings.catch_warnings():  # of classes with fewer pictures than folds: expected here
        warnings.simplefilter("ignore", UserWarning)
        for number, (_, held_out) in enumerate(folder.split(labels, labels, units)):
            fold[units[held_out]] = number
    return fold


def _dealt(
    tally: _Tally, fold: np.ndarray, shares: Mapping[str, int], rng: np.random.Generator
) -> np.ndarray:
    """Part of every unit: the folds dealt to the parts in the best of many ways."""
    number = max(int(fold.max()) + 1, len(shares))
    hand = np.repeat(np.arange(len(shares)), list(quotas(number, shares).values()))
    deals = (rng.permutation(hand)[fold] for _ in range(_DEALS))
    return min(deals, key=tally.cost)


def _improved(tally: _Tally, parts: np.ndarray) -> np.ndarray:
    """Moves single units to other parts, always the one that gains most, until none gains."""
    parts = parts.copy()
    total = len(parts)
    unit, label, size, targets = tally.unit, tally.label, tally.size, tally.targets
    for _ in range(2 * total):
        counts = tally.counts(parts)
        home = parts[unit]
        have, want = counts[home, label], targets[home, label]
        leave = (size**2 - 2 * size * (have - want)) / want + _MISSING * (have == size)
        leaving = np.bincount(unit, leave, minlength=total)
        gains = np.empty((len(targets), total))
        for part, (have, want) in enumerate(zip(counts, targets, strict=True)):
            enter = (size**2 + 2 * size * (have - want)[label]) / want[label]
            enter -= _MISSING * (have[label] == 0)
            gains[part] = leaving + np.bincount(unit, enter, minlength=total)
            gains[part, parts == part] = 0.0
        part, mover = divmod(int(gains.argmin()), total)
        if gains[part, mover] > -1e-6:
            break
        parts[mover] = part
    return parts


def listed_parts(shares: Mapping[str, int]) -> str:
    """`train, validation and test`, for messages."""
    names = list(shares)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def refuse_torn_groups(scan: Scan, remedy: str = "leave out the splits to have them drawn") -> None:
    """Refuses splits that a group lies across: of the layout's own, or of another run.

    Args:
        scan: whose pictures may have a split.
        remedy: what else can be done than moving the pictures.

    Raises:
        DataError: as said; names three groups.
    """
    places: dict[str, dict[str, str]] = defaultdict(dict)  # group to split to a path
    for picture in scan.pictures:
        if picture.group is not None:  # what has no split yet is drawn from the training pictures
            places[picture.group].setdefault(picture.split or "train", picture.path)
    torn = {group: found for group, found in places.items() if len(found) > 1}
    if torn:
        examples = "; ".join(
            f"{group!r} ({', '.join(f'{path!r} in {split}' for split, path in found.items())})"
            for group, found in list(torn.items())[:3]
        )
        raise DataError(
            f"{len(torn)} groups of {str(scan.root)!r} lie in more than one split: {examples}; move each "
            f"into one split, or {remedy}"
        )


def quotas(count: int, shares: Mapping[str, int]) -> dict[str, int]:
    """`count` divided in proportion to `shares`: largest remainder, at least one each.

    Args:
        count: at least the number of shares.
        shares: name to a positive weight. Equal remainders favour the earlier name.
    """
    whole = sum(shares.values())
    quota = {name: count * share // whole for name, share in shares.items()}
    remainders = {name: count * share % whole for name, share in shares.items()}
    for name in sorted(shares, key=lambda name: -remainders[name])[: count - sum(quota.values())]:
        quota[name] += 1
    for name in shares:
        if not quota[name]:
            quota[name] += 1
            quota[max(quota, key=lambda other: quota[other])] -= 1
    return quota
