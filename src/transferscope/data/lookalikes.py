"""Pictures that look the same: by perceptual hash and thumbnail, or by a network's features."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np

from transferscope.data.duplicates import NearPair
from transferscope.data.scan import Scan

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

LEAST_COSINE = 0.96
"""Pooled features of near duplicates have at least this cosine."""

MAX_EMBEDDED = 20_000
"""Pictures, at most, whose features are compared each with each."""

_BLOCK = 256  # rows of a table of cosines
_CHUNK = 2048  # pairs whose thumbnails are compared at once
_CELLS = 250_000  # hashes compared at once: what a processor has at hand
_MANY = 200_000  # hashes above which neighbours are looked up, not compared within a band's runs
_WIDE = 3  # bands of a hash that is looked up
_ROUNDS = 8  # kinds of pictures that are told apart among equal hashes
_MIRRORED = 0.5  # added to a pair's whole number of bits, so that it comes after one that is not
_FLAT = 4.0  # grey levels by which a thumbnail must deviate for its hash to mean anything


# ---------------------------------------------------------------------------- by hash


def near_duplicates(
    scan: Scan,
    hashes: np.ndarray,
    mirrored: np.ndarray,
    thumbnails: np.ndarray,
    *,
    bits: int = HASH_BITS,
) -> tuple[NearPair, ...]:
    """Pictures that look the same: re-encoded, resized, brightened, cropped a little, mirrored.

    Perceptual hashes propose pairs, thumbnails confirm them. Of n pictures that all look the same,
    n - 1 pairs that join them are given, not all n (n - 1) / 2. Of files of equal bytes only the first
    takes part. Blank pictures have a hash of noise and are left out.

    Args:
        scan: of N pictures.
        hashes, mirrored: uint64 (N,), of the pictures and of their mirror images.
        thumbnails: uint8 (N, T, T, 3).
        bits: in which the hashes may differ.

    Returns:
        The nearest first.
    """
    first: dict[str, int] = {}
    for place, picture in enumerate(scan.pictures):
        first.setdefault(picture.sha256, place)
    places = np.array([*first.values()], dtype=int)
    parts = np.split(places, range(_CHUNK, len(places), _CHUNK))
    grey = (thumbnails[part].mean(3, dtype=np.float32) for part in parts)
    places = places[np.concatenate([one.std((1, 2)) >= _FLAT for one in grey])]
    looks = _Looks(places, hashes, mirrored, thumbnails)
    looks.join_near(looks.join_equal(), bits)
    return looks.forest.pairs(scan, "phash")


class _Looks:
    """The search among M pictures and their mirror images: indices 0..M-1, and M..2M-1.

    Args:
        places: of the M pictures in the set.
        hashes, mirrored, thumbnails: of all the set's pictures; see `near_duplicates`.
    """

    def __init__(
        self, places: np.ndarray, hashes: np.ndarray, mirrored: np.ndarray, thumbnails: np.ndarray
    ):
        self._places = places
        self._hashes = np.concatenate([hashes[places], mirrored[places]])
        self._thumbnails = thumbnails
        self.forest = _Forest(len(hashes))

    def join_equal(self) -> np.ndarray:
        """Joins what looks the same among equal hashes; returns an index for each kind that is left."""
        left = np.argsort(self._hashes, kind="stable")
        kinds = [left[:0]]
        for _ in range(_ROUNDS):
            hashes = self._hashes[left]
            first = np.r_[True, hashes[1:] != hashes[:-1]][: len(left)]
            kinds.append(left[first])
            pivots, others = left[first][np.cumsum(first) - 1][~first], left[~first]
            if not len(others):
                break
            self._join(pivots, others)
            left = others[~self._joined(pivots, others)]
        return np.concatenate(kinds)

    def join_near(self, indices: np.ndarray, bits: int) -> None:
        """Joins what looks the same among hashes that differ in at most `bits` bits.

        Of bits + 1 bands of a hash, two such hashes share at least one (pigeonhole), so only hashes
        with an equal band are compared. As these grow with the square of the set, the neighbours of many
        hashes are looked up instead.
        """
        hashes = self._hashes[indices]
        if len(indices) > _MANY:
            for one, other in _looked_up(hashes, bits):
                self._join(indices[one], indices[other])
            return
        for low, high in pairwise(np.linspace(0, 64, bits + 2).astype(int)):
            band = (hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
            order = np.argsort(band, kind="stable")
            for run in np.split(order, np.flatnonzero(np.diff(band[order])) + 1):
                if len(run) < 2 or self._joined(indices[run[:1]], indices[run]).all():
                    continue
                for one, other in _near(hashes, run, bits):
                    self._join(indices[one], indices[other])

    def _joined(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        count = max(1, len(self._places))
        return self.forest.joined(self._places[one % count], self._places[other % count])

    def _join(self, one: np.ndarray, other: np.ndarray) -> None:
        """Confirms pairs that are not joined yet, and keeps those that look the same."""
        count = len(self._places)
        one, other = np.sort(np.stack([one, other]), axis=0)
        # Two mirror images say what their pictures say, and a picture may look like its own.
        new = (one < count) & (other != one + count)
        one, other = one[new], other[new]
        distance = np.bitwise_count(self._hashes[one] ^ self._hashes[other]).astype(np.float64)
        turned = other >= count
        distance[turned] += _MIRRORED
        pairs = np.stack([self._places[one], self._places[other % count], turned])
        order = np.argsort(distance, kind="stable")
        pairs, distance = pairs[:, order], distance[order]
        while True:
            fresh = ~self.forest.joined(pairs[0], pairs[1])
            pairs, distance = pairs[:, fresh], distance[fresh]
            if not len(distance):
                return
            a, b, mirror = pairs[:, :_CHUNK]
            same = _look_the_same(self._thumbnails, a, b, mirror.astype(bool))
            self.forest.add(a[same], b[same], distance[:_CHUNK][same])
            pairs, distance = pairs[:, _CHUNK:], distance[_CHUNK:]


def _near(
    hashes: np.ndarray, run: np.ndarray, bits: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of places in a run whose hashes differ in at most `bits` bits, some rows at a time."""
    rows = max(1, _CELLS // len(run))
    for start in range(0, len(run) - 1, rows):
        left, right = run[start : start + rows], run[start:]
        near = np.bitwise_count(hashes[left, None] ^ hashes[None, right]) <= bits
        one, other = np.nonzero(np.triu(near, k=1))
        if len(one):
            yield left[one], right[other]


def _looked_up(hashes: np.ndarray, bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of places whose hashes differ in at most `bits` bits; a pair may come more than once.

    Of three bands of a hash, two such hashes have one in which at most a third of the bits differ: every
    value that a band would have then is looked up among all.
    """
    edges = np.linspace(0, 64, _WIDE + 1).astype(int)
    for low, high in pairwise(edges):
        width = int(high - low)
        band = ((hashes >> np.uint64(low)) & np.uint64((1 << width) - 1)).astype(np.int64)
        order = np.argsort(band, kind="stable")
        ends = np.bincount(band, minlength=1 << width).cumsum(dtype=np.int32)
        for flipped in range(bits // _WIDE + 1):
            for places in combinations(range(width), flipped):
                wanted = band ^ sum(1 << place for place in places)
                begins = np.where(wanted > 0, ends[wanted - 1], 0)
                yield from _paired(hashes, order, begins, ends[wanted] - begins, bits)


def _paired(
    hashes: np.ndarray, order: np.ndarray, begins: np.ndarray, counts: np.ndarray, bits: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each place with those in `order` from its begin on, as many as its count, where they are near."""
    some = np.flatnonzero(counts)
    parts = np.flatnonzero(np.diff(counts[some].cumsum() // _CELLS)) + 1
    for part in np.split(some, parts):
        count = counts[part]
        one = np.repeat(part, count)
        within = np.arange(len(one)) - np.repeat(count.cumsum() - count, count)
        other = order[np.repeat(begins[part], count) + within]
        near = (one < other) & (np.bitwise_count(hashes[one] ^ hashes[other]) <= bits)
        if near.any():
            yield one[near], other[near]


def _look_the_same(
    thumbnails: np.ndarray, one: np.ndarray, other: np.ndarray, turned: np.ndarray
) -> np.ndarray:
    """Whether thumbnails (N, T, T, 3) of pairs agree: bool (M,); the second is mirrored where `turned`."""
    a, b = thumbnails[one].astype(np.float32), thumbnails[other].astype(np.float32)
    b[turned] = b[turned, :, ::-1]
    a -= a.mean((1, 2, 3), keepdims=True)
    b -= b.mean((1, 2, 3), keepdims=True)
    grey, twin = a.mean(3), b.mean(3)
    size = np.sqrt((grey**2).sum((1, 2)) * (twin**2).sum((1, 2)))
    alike = (grey * twin).sum((1, 2)) >= LEAST_CORRELATION * np.maximum(size, 1e-6)
    apart = np.abs(a - b)
    alike &= apart.mean((1, 2, 3)) <= 255 * MOST_DIFFERENCE
    far = (apart[alike].max(3) > 255 * MOST_LOCAL_DIFFERENCE).mean((1, 2))
    alike[alike] = far <= 0.05
    return np.asarray(alike)


# ---------------------------------------------------------------------------- by features


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
        order = np.argsort(-cosines[rows, columns], kind="stable")
        rows, columns = rows[order], columns[order]
        forest.add(start + rows, start + columns, np.maximum(0, 1 - cosines[rows, columns]))
    return forest.pairs(scan, "embedding")


class _Forest:
    """Pairs that join some of `count` places, none of which joins what is joined already."""

    def __init__(self, count: int):
        self._component = np.arange(count)
        self._edges: list[np.ndarray] = []  # (3, n): place, place, distance

    def joined(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether places are joined, directly or by others: bool (M,)."""
        return np.asarray(self._component[one] == self._component[other])

    def add(self, one: np.ndarray, other: np.ndarray, distance: np.ndarray) -> None:
        """Joins places, the nearest of the pairs given first; those that join nothing new are dropped."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

        ends = np.sort(self._component[np.stack([one, other])], axis=0)
        order = np.lexsort([distance, *ends])
        order = order[ends[0, order] != ends[1, order]]
        if not len(order):
            return
        # Of two places that several pairs would join, the nearest; then the tree of least distances.
        order = order[np.r_[True, (np.diff(ends[:, order], axis=1) != 0).any(0)]]
        shape = (len(self._component), len(self._component))
        rank = np.argsort(np.argsort(distance[order], kind="stable")) + 1.0  # 0 would be no edge
        table = coo_array((rank, (ends[0, order], ends[1, order])), shape=shape).tocsr()
        tree = minimum_spanning_tree(table).tocoo()
        kept = order[np.argsort(rank)[tree.data.astype(int) - 1]]
        self._edges.append(np.stack([one[kept], other[kept], distance[kept]]))
        self._component = connected_components(tree, directed=False)[1][self._component]

    def pairs(self, scan: Scan, measure: str) -> tuple[NearPair, ...]:
        """The pairs, the nearest first."""
        found = []
        for one, other, distance in np.concatenate([np.zeros((3, 0)), *self._edges], axis=1).T:
            ends = (scan.pictures[int(one)], scan.pictures[int(other)])
            a, b = sorted(ends, key=lambda picture: picture.path)
            names = scan.class_of(a), scan.class_of(b)
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
