"""Copies in a set: files of equal bytes, and pictures that look the same."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from transferscope.data.scan import SPLITS, Picture, Scan
from transferscope.data.split import Split, refuse_incomplete
from transferscope.errors import DataError
from transferscope.records import Record
from transferscope.wording import counted


@dataclass(frozen=True, slots=True)
class Copies(Record):
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
class NearPair(Record):
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

COPY = "the same bytes as"
"""How the reason begins for which `dedupe` leaves a picture out."""


def exact_duplicates(scan: Scan) -> tuple[Copies, ...]:
    """Files of equal bytes, ordered by their first path."""
    found = [
        Copies(
            tuple(picture.path for picture in pictures),
            tuple(scan.class_of(picture) for picture in pictures),
            tuple(picture.split for picture in pictures),
        )
        for pictures in _by_content(scan.pictures)
    ]
    return tuple(sorted(found, key=lambda copies: copies.paths))


def duplicates_across(split: Split) -> list[tuple[str, str]]:
    """Pairs of paths in different splits with the same bytes: test pictures that were trained on.

    Returns:
        For each file's content, its first path in one split beside its first in each other split
        (order train, validation, test); pairs ordered by path.
    """
    pairs = []
    for pictures in _by_content(split.scan.pictures):
        first = {picture.split: picture.path for picture in reversed(pictures)}
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
        where = {picture.path: picture.split for picture in split.scan.pictures}
        examples = [f"{a!r} ({where[a]}) and {b!r} ({where[b]})" for a, b in pairs[:5]]
        examples += [f"and {len(pairs) - 5} more"] if len(pairs) > 5 else []
        raise DataError(
            f"files of {str(split.scan.root)!r} are equal byte for byte and lie in two splits, "
            f"{counted(len(pairs), 'pair')} of them: {'; '.join(examples)}; remove one of each, or --dedupe "
            "keeps them in the training split alone"
        )


def dedupe(split: Split) -> Split:
    """Keeps what lies in two parts in the training part alone.

    Copies in validation and test are excluded, with the training picture in the reason. Of bytes that lie
    in validation and test only, the first file moves to training; but a picture whose group stays behind in
    its part does not move: then the file in validation stays, and those in test are excluded. Copies within one
    part stay: they are no leak.

    Raises:
        DataError: a part is left without pictures.
    """
    members = Counter(picture.group for picture in split.scan.pictures if picture.group is not None)
    moved: dict[str, Picture] = {}
    dropped: dict[str, str] = {}  # path to reason
    for pictures in _by_content(split.scan.pictures):
        parts = [name for name in SPLITS if any(p.split == name for p in pictures)]
        if len(parts) < 2:
            continue
        kept = [picture for picture in pictures if picture.split == parts[0]]
        if parts[0] != "train" and _is_free(kept[0], pictures, members):
            kept = [replace(kept[0], split="train")]
            moved[kept[0].path] = kept[0]
        stay = {picture.path for picture in kept}
        use = "which is trained on" if kept[0].split == "train" else f"which is in {kept[0].split}"
        for picture in pictures:
            if picture.path not in stay:
                reason = f"{COPY} {kept[0].path}, {use}"
                if picture.label != kept[0].label:
                    reason += f" as {split.scan.class_of(kept[0])}"
                dropped[picture.path] = reason
    scan = split.scan
    left = tuple(moved.get(p.path, p) for p in scan.pictures if p.path not in dropped)
    excluded = tuple(sorted([*scan.excluded, *dropped.items()]))
    result = replace(split, scan=replace(scan, pictures=left, excluded=excluded))
    refuse_incomplete(result)
    return result


def _is_free(one: Picture, copies: Iterable[Picture], members: Mapping[str, int]) -> bool:
    """Whether a picture may change its part: its group has no other pictures than its copies."""
    of_group = sum(picture.group == one.group for picture in copies)
    return one.group is None or members[one.group] == of_group


def _by_content(pictures: Iterable[Picture]) -> list[list[Picture]]:
    """Two or more pictures of equal bytes, each group in the order of paths."""
    groups: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        groups[picture.sha256].append(picture)
    return [sorted(found, key=lambda p: p.path) for found in groups.values() if len(found) > 1]
