"""Copies in a set: files of equal bytes, and pictures that look the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from transferscope.data.scan import SPLITS, Picture, Scan
from transferscope.data.split import Split, refuse_incomplete
from transferscope.errors import DataError

HASH_BITS = 8
"""Perceptual hashes (64 bits) of near duplicates differ in at most so many."""

LEAST_CORRELATION = 0.97
"""Grey thumbnails of near duplicates correlate at least so much."""

MOST_DIFFERENCE = 0.03
"""Colour thumbnails of near duplicates differ by at most so much of the full range, on average, once
their mean brightness is made equal."""

MOST_LOCAL_DIFFERENCE = 0.12
"""Likewise 95% of a thumbnail's pixels, in their most different channel: a catalogue's pictures of one
thing in two colours are not near duplicates."""

LEAST_COSINE = 0.95
"""Pooled features of near duplicates have at least this cosine."""

MAX_EMBEDDED = 20_000
"""Pictures, at most, whose features are compared each with each."""

_BLOCK = 1024  # rows of a table that are compared at once
_PENDING = 1_000_000  # pairs that are kept before they are thinned


@dataclass(frozen=True, slots=True)
class Copies:
    """Files of equal bytes.

    Attributes:
        paths: two or more, sorted.
        classes: of each path; None where it has none.
        splits: of each path; None before a split is made.
    """

    paths: tuple[str, ...]
    classes: tuple[str | None, ...]
    splits: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two pictures that look the same but are not byte for byte the same.

    Attributes:
        paths: the two, sorted.
        classes: of each.
        splits: of each.
        measure: `phash` (distance in bits of 64), `mirrored phash` (one is the other's mirror image) or
            `embedding` (1 - cosine of pooled features).
        distance: 0 is the same.
    """

    paths: tuple[str, str]
    classes: tuple[str | None, str | None]
    splits: tuple[str | None, str | None]
    measure: str
    distance: float


# ---------------------------------------------------------------------------- equal bytes


def exact_duplicates(scan: Scan) -> tuple[Copies, ...]:
    """Files of equal bytes, ordered by their first path."""
    found = []
    for pictures in _by_content(scan.pictures):
        names = tuple(_class_of(scan, picture) for picture in pictures)
        paths = tuple(picture.path for picture in pictures)
        found.append(Copies(paths, names, tuple(picture.split for picture in pictures)))
    return tuple(sorted(found, key=lambda copies: copies.paths))


def duplicates_across(split: Split) -> list[tuple[str, str]]:
    """Pairs of paths in different splits with the same bytes: test pictures that were trained on.

    Returns:
        For each file's content, its first path in one split beside its first in each other split
        (order train, validation, test); pairs ordered by path.
    """
    pairs = []
    for pictures in _by_content(split.scan.pictures):
        first: dict[str | None, str] = {}
        for picture in pictures:
            first.setdefault(picture.split, picture.path)
        ordered = [first[name] for name in SPLITS if name in first]
        pairs += [(ordered[0], other) for other in ordered[1:]]
    return sorted(pairs)


def refuse_duplicates(split: Split) -> None:
    """Refuses a split with the same bytes in two parts.

    Raises:
        DataError: names up to five pairs.
    """
    pairs = duplicates_across(split)
    if pairs:
        examples = "; ".join(f"{one!r} and {other!r}" for one, other in pairs[:5])
        more = f"; and {len(pairs) - 5} more" if len(pairs) > 5 else ""
        raise DataError(
            f"{len(pairs)} pictures of {str(split.scan.root)!r} lie in two splits, byte for byte: {examples}"
            f"{more}; remove one of each, or --dedupe keeps them in the training split alone"
        )


def dedupe(split: Split) -> Split:
    """Keeps what lies in two parts in the training part alone.

    Copies in validation and test are excluded, with the training picture in the reason. Of bytes that lie
    in validation and test only, the first file moves to training. Copies within one part stay: they
    are no leak.

    Raises:
        DataError: a part is left without pictures.
    """
    moved: dict[str, Picture] = {}
    dropped: dict[str, str] = {}  # path to reason
    for pictures in _by_content(split.scan.pictures):
        parts = [name for name in SPLITS if any(p.split == name for p in pictures)]
        if len(parts) < 2:
            continue
        kept = [picture for picture in pictures if picture.split == "train"]
        if not kept:
            first = next(picture for picture in pictures if picture.split == parts[0])
            kept = [replace(first, split="train")]
            moved[first.path] = kept[0]
        stay = {picture.path for picture in kept}
        for picture in pictures:
            if picture.path not in stay:
                reason = f"the same bytes as {kept[0].path}, which is trained on"
                if picture.label != kept[0].label:
                    reason += f" as {_class_of(split.scan, kept[0])}"
                dropped[picture.path] = reason
    scan = split.scan
    left = tuple(moved.get(p.path, p) for p in scan.pictures if p.path not in dropped)
    excluded = tuple(sorted([*scan.excluded, *dropped.items()]))
    result = replace(split, scan=replace(scan, pictures=left, excluded=excluded))
    refuse_incomplete(result)
    return result


def _by_content(pictures: Iterable[Picture]) -> list[list[Picture]]:
    """Two or more pictures of equal bytes, each group in the order of paths."""
    groups: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        groups[picture.sha256].append(picture)
    return [sorted(found, key=lambda p: p.path) for found in groups.values() if len(found) > 1]


def _class_of(scan: Scan, picture: Picture) -> str | None:
    return None if picture.label is None else scan.classes[picture.label]


# ---------------------------------------------------------------------------- looking the same


def near_duplicates(
    scan: Scan,
    hashes: np.ndarray,
    mirrored: np.ndarray,
    thumbnails: np.ndarray,
    *,
    bits: int = HASH_BITS,
    least_correlation: float = LEAST_CORRELATION,
    most_difference: float = MOST_DIFFERENCE,
    most_local_difference: float = MOST_LOCAL_DIFFERENCE,
) -> tuple[NearPair, ...]:
    """Pictures that look the same: re-encoded, resized, brightened, cropped a little, mirrored.

    Perceptual hashes propose pairs, thumbnails confirm them. Of n pictures that all look the same
    the n - 1 nearest pairs that join them are given, not all n (n - 1) / 2. Of files of equal bytes
    only the first takes part. Blank pictures have a hash of noise and are left out.

    Args:
        scan: of N pictures.
        hashes: uint64 (N,).
        mirrored: uint64 (N,), of the mirror images.
        thumbnails: uint8 (N, T, T, 3).
        bits: in which the hashes may differ.
        least_correlation: of grey thumbnails.
        most_difference: of colour thumbnails, as a share of 255; see `MOST_DIFFERENCE`.
        most_local_difference: likewise; see `MOST_LOCAL_DIFFERENCE`.

    Returns:
        The nearest first.
    """
    first: dict[str, int] = {}
    for place, picture in enumerate(scan.pictures):
        first.setdefault(picture.sha256, place)
    places = np.array(sorted(first.values()), dtype=int)
    places = places[thumbnails[places].mean(3).std((1, 2)) >= _FLAT]
    count = len(places)
    both = np.concatenate([hashes[places], mirrored[places]])
    looks = np.concatenate([thumbnails[places], thumbnails[places, :, ::-1]])
    looks = looks.reshape(2 * count, thumbnails.shape[1] * thumbnails.shape[2], 3)
    limits = least_correlation, most_difference, most_local_difference
    forest = _Forest(len(hashes))
    for ends in _near_hashes(both, bits):
        one, other = np.sort(np.stack(ends), axis=0)
        # Two mirror images say what their pictures say, and a picture may look like its own.
        new = (one < count) & (other != one + count)
        one, other = one[new], other[new]
        same = _look_the_same(looks, one, other, *limits)
        one, other = one[same], other[same]
        distances = np.bitwise_count(both[one] ^ both[other])
        turned = other >= count
        other = other - count * turned
        forest.add(places[one], places[other], distances + _MIRRORED * turned)
    return forest.pairs(scan, "phash")


_MIRRORED = 0.5
"""Added to the distance of a pair of mirror images, which is a whole number: they come after others."""

_FLAT = 4.0  # grey levels by which a thumbnail must deviate for its hash to mean anything


def near_by_embedding(
    scan: Scan, features: np.ndarray, *, least_cosine: float = LEAST_COSINE
) -> tuple[NearPair, ...]:
    """Pictures that a network sees as the same: also other crops and views of one thing.

    Args:
        scan: of N pictures, at most `MAX_EMBEDDED`.
        features: float (N, D), pooled.
        least_cosine: of two pictures' features.

    Returns:
        The nearest first; files of equal bytes are left out.

    Raises:
        ValueError: more pictures than `MAX_EMBEDDED`.
    """
    if len(features) > MAX_EMBEDDED:
        raise ValueError(
            f"{len(features)} pictures are too many to compare each with each; at most {MAX_EMBEDDED}"
        )
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    unit = unit.astype(np.float32)
    content = np.unique([picture.sha256 for picture in scan.pictures], return_inverse=True)[1]
    forest = _Forest(len(unit))
    for start in range(0, len(unit), _BLOCK):
        cosines = unit[start : start + _BLOCK] @ unit[start:].T
        rows, columns = np.nonzero(np.triu(cosines >= least_cosine, k=1))
        new = content[start + rows] != content[start + columns]
        rows, columns = rows[new], columns[new]
        forest.add(start + rows, start + columns, np.maximum(0, 1 - cosines[rows, columns]))
    return forest.pairs(scan, "embedding")


class _Forest:
    """Pairs of near places, thinned while they come to the nearest ones that join what belongs together.

    Args:
        count: of places.
    """

    def __init__(self, count: int):
        self._count = count
        self._edges = np.zeros((3, 0))  # place, place, distance

    def add(self, one: np.ndarray, other: np.ndarray, distance: np.ndarray) -> None:
        """Takes pairs; of one that comes again the least distance counts."""
        ends = np.sort(np.stack([one, other]), axis=0)
        self._edges = np.concatenate([self._edges, np.stack([*ends, distance])], axis=1)
        if self._edges.shape[1] > max(_PENDING, 2 * self._count):
            self._thin()

    def _thin(self) -> None:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import minimum_spanning_tree

        order = np.lexsort(self._edges[[2, 1, 0]])
        edges = self._edges[:, order]
        again = (edges[:2, 1:] == edges[:2, :-1]).all(0)  # the same pair, and not nearer
        one, other, distance = edges[:, np.r_[True, ~again][: edges.shape[1]]]
        places = one.astype(int), other.astype(int)
        table = coo_array((distance + 1, places), shape=(self._count, self._count))  # 0 is no edge
        kept = minimum_spanning_tree(table.tocsr()).tocoo()
        self._edges = np.stack([kept.row, kept.col, kept.data - 1])

    def pairs(self, scan: Scan, measure: str) -> tuple[NearPair, ...]:
        """The pairs that are left, the nearest first."""
        self._thin()
        found = []
        for one, other, distance in self._edges.T:
            ends = (scan.pictures[int(one)], scan.pictures[int(other)])
            a, b = sorted(ends, key=lambda picture: picture.path)
            names = _class_of(scan, a), _class_of(scan, b)
            turned = measure == "phash" and distance % 1 == _MIRRORED
            found.append(
                NearPair(
                    (a.path, b.path),
                    names,
                    (a.split, b.split),
                    f"mirrored {measure}" if turned else measure,
                    round(float(distance - _MIRRORED * turned), 6),
                )
            )
        return tuple(sorted(found, key=lambda pair: (pair.distance, pair.paths)))


def _near_hashes(hashes: np.ndarray, bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places of hashes that differ in at most `bits` bits, as blocks of two arrays; each pair once.

    Of bits + 1 bands of a hash, two such hashes share at least one (pigeonhole), so only hashes
    with an equal band are compared. A pair is reported by the first band that it shares.
    """
    unique, first, members = np.unique(hashes, return_index=True, return_inverse=True)
    equal = np.flatnonzero(first[members] != np.arange(len(hashes)))
    if len(equal):
        yield first[members[equal]], equal
    edges = np.linspace(0, 64, bits + 2).astype(int)
    bands = [
        (unique >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        for low, high in pairwise(edges)
    ]
    for number, band in enumerate(bands):
        order = np.argsort(band, kind="stable")
        limits = np.flatnonzero(np.diff(band[order])) + 1
        for run in np.split(order, limits):
            yield from _within(run, unique, bands[:number], bits, first)


def _within(
    run: np.ndarray,
    unique: np.ndarray,
    earlier: Sequence[np.ndarray],
    bits: int,
    first: np.ndarray,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Near pairs among hashes that share a band, without those that an earlier band has reported."""
    for start in range(0, len(run) - 1, _BLOCK):
        left, right = run[start : start + _BLOCK], run[start:]
        near = np.bitwise_count(unique[left, None] ^ unique[None, right]) <= bits
        rows, columns = np.nonzero(np.triu(near, k=1))
        a, b = left[rows], right[columns]
        new = np.ones(len(a), dtype=bool)
        for band in earlier:
            new &= band[a] != band[b]
        if new.any():
            yield first[a[new]], first[b[new]]


def _look_the_same(
    small: np.ndarray,
    one: np.ndarray,
    other: np.ndarray,
    least_correlation: float,
    most_difference: float,
    most_local_difference: float,
) -> np.ndarray:
    """Of pairs of places (M,), whether their thumbnails agree: bool (M,).

    Args:
        small: uint8 (N, P, 3).
        one: places of the first pictures; `other`: of the second ones.
    """
    same = np.zeros(len(one), dtype=bool)
    for start in range(0, len(one), _BLOCK):
        part = slice(start, start + _BLOCK)
        a, b = small[one[part]].astype(np.float32), small[other[part]].astype(np.float32)
        a -= a.mean((1, 2), keepdims=True)
        b -= b.mean((1, 2), keepdims=True)
        grey, twin = a.mean(2), b.mean(2)
        size = np.sqrt((grey**2).sum(1) * (twin**2).sum(1))
        alike = (grey * twin).sum(1) >= least_correlation * np.maximum(size, 1e-6)
        apart = np.abs(a - b)
        alike &= apart.mean((1, 2)) <= 255 * most_difference
        worst = np.quantile(apart.max(2), 0.95, axis=1)
        same[part] = alike & (worst <= 255 * most_local_difference)
    return same
