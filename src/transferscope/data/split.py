"""Which picture trains, which chooses, which judges: stratified, seeded, and written down."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from transferscope.data.class_names import canonical
from transferscope.data.groups import draw_groups, listed_parts, quotas, refuse_torn_groups
from transferscope.data.readings import listed
from transferscope.data.scan import SPLITS, Picture, Scan
from transferscope.errors import DataError, InputError, RunError, UnknownName
from transferscope.files import read_csv, write_csv

COLUMNS = ("path", "sha256", "class", "split", "group")
"""The header of a split file."""


@dataclass(frozen=True)
class Split:
    """A scan whose every picture has its split.

    Attributes:
        scan: the pictures.
        ratio: shares of training, validation and test that were asked for.
        seed: that the drawn parts were drawn with.
    """

    scan: Scan
    ratio: tuple[int, int, int]
    seed: int

    def part(self, name: str) -> tuple[Picture, ...]:
        """The pictures of train, validation or test, ordered by path.

        Raises:
            UnknownName: another name.
        """
        if name not in SPLITS:
            raise UnknownName(
                "part", name, SPLITS, where="a split", remedy="use train, validation or test"
            )
        return tuple(picture for picture in self.scan.pictures if picture.split == name)


def parse_ratio(text: str) -> tuple[int, int, int]:
    """`70/15/15` as three whole numbers; they need not add up to 100.

    Raises:
        InputError: anything else.
    """
    try:
        train, validation, test = (int(share) for share in text.split("/"))
    except ValueError:
        raise InputError(
            f"the ratio is {text!r}; give three whole numbers for training, validation and test, "
            "such as 70/15/15"
        ) from None
    return _checked_ratio((train, validation, test))


def _checked_ratio(ratio: tuple[int, int, int]) -> tuple[int, int, int]:
    if len(ratio) != len(SPLITS) or min(ratio) < 1:
        raise InputError(
            f"the ratio is {'/'.join(map(str, ratio))}; training, validation and test each need a "
            "share of at least 1, such as 70/15/15"
        )
    return ratio


def make_split(scan: Scan, *, ratio: tuple[int, int, int] = (70, 15, 15), seed: int = 0) -> Split:
    """Draws the parts that the folder does not give, class by class, from its training pictures.

    Splits that the folder gives are kept. Where only the test part is given, validation is taken
    off the training pictures in the proportion validation/(train + validation), and so on. In every
    class each part gets its exact share, rounded by largest remainder, and at least one picture.
    Byte-identical files stay together, so that no part holds a copy from another drawn one. So do
    the pictures of one group, where there are groups: then the shares are as near as whole groups allow.

    Args:
        scan: from `scan`.
        ratio: shares of training, validation and test, each at least 1.
        seed: the same seed, pictures and ratio give the same split, wherever the folder lies. A
            class is drawn independently of the other classes.

    Raises:
        InputError: a share below 1.
        DataError: too few pictures or groups of a class to draw from, splits without training
            pictures, or a group that lies in two splits of the layout's own.
    """
    ratio = _checked_ratio(ratio)
    refuse_torn_groups(scan)
    given = {picture.split for picture in scan.pictures}
    if given != {None} and "train" not in given:
        raise DataError(
            f"{str(scan.root)!r} gives {' and '.join(sorted(map(str, given)))} but no training "
            "pictures; add a 'train' folder, or give one folder a class to have all three drawn"
        )
    shares = {
        name: share
        for name, share in zip(SPLITS, ratio, strict=True)
        if name == "train" or name not in given
    }
    drawn = _draw(scan, shares, seed) if len(shares) > 1 else {}
    pictures = tuple(replace(one, split=drawn.get(one.path, one.split)) for one in scan.pictures)
    return Split(replace(scan, pictures=pictures), ratio, seed)


def _draw(scan: Scan, shares: Mapping[str, int], seed: int) -> dict[str, str]:
    """Path to split of every picture that is not in a given validation or test part."""
    open_ = [p for p in scan.pictures if p.split in (None, "train") and p.label is not None]
    if any(picture.group is not None for picture in open_):
        return draw_groups(scan, open_, shares, seed)
    copies: dict[int, dict[str, list[str]]] = {label: {} for label in range(len(scan.classes))}
    for picture in open_:
        assert picture.label is not None
        copies[picture.label].setdefault(picture.sha256, []).append(picture.path)
    _refuse_small_classes(scan, {label: len(files) for label, files in copies.items()}, shares)
    place: dict[str, str] = {}  # sha256 to split; a file that lies in two classes is placed once
    for label, name in enumerate(scan.classes):
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        place.update(_draw_class(copies[label], place, shares, np.random.default_rng([seed, key])))
        _refuse_shared_files(scan, name, copies[label], place, shares)
    return {
        path: place[digest]
        for files in copies.values()
        for digest in files
        for path in files[digest]
    }


def _draw_class(
    copies: Mapping[str, Sequence[str]],
    place: Mapping[str, str],
    shares: Mapping[str, int],
    rng: np.random.Generator,
) -> dict[str, str]:
    """SHA-256 to split for one class.

    Args:
        copies: SHA-256 to the paths that hold those bytes.
        place: what other classes have decided already.
        shares: split to its share.
        rng: of this class.
    """
    need = quotas(sum(map(len, copies.values())), shares)
    empty = set(need)
    chosen: dict[str, str] = {}
    for digest in copies.keys() & place.keys():
        need[place[digest]] -= len(copies[digest])
        empty.discard(place[digest])
    free = sorted(copies.keys() - place.keys())
    free = [free[i] for i in rng.permutation(len(free))]
    free.sort(key=lambda digest: -len(copies[digest]))  # stable: large groups while there is room
    for left, digest in zip(range(len(free), 0, -1), free, strict=True):
        options = empty if left <= len(empty) else need.keys()
        part = max((name for name in shares if name in options), key=lambda name: need[name])
        chosen[digest] = part
        need[part] -= len(copies[digest])
        empty.discard(part)
    return chosen


def adopt_split(scan: Scan, other: Split) -> Split:
    """Gives every picture the part that it has in another split, whatever the layout says.

    Pictures are recognised by their bytes, so that the set may have moved or been renamed; the path
    decides only where the other split has the same bytes in two parts. Pictures of the other split that
    are gone are no hindrance. Where the scan has no groups, those of the other split are taken too.

    Returns:
        The split, with the other's ratio and seed.

    Raises:
        DataError: other classes, a picture that the other split does not have, or has in two parts under
            other paths, a group that the other split has in two parts, or a part or a class in training
            without pictures.
    """
    here, there = set(scan.classes), set(map(canonical, other.scan.classes))
    if here != there:
        new, gone = sorted(here - there), sorted(there - here)
        differences = [f"it has {listed(new)} besides"] * bool(new) + [
            f"lacks {listed(gone)}"
        ] * bool(gone)
        raise DataError(
            f"the classes of {str(scan.root)!r} are not those of the split to take: "
            f"{' and '.join(differences)}; take the split of a run on the same classes"
        )
    parts: dict[str, dict[str, str | None]] = defaultdict(dict)  # sha256 to path to part
    groups: dict[str, str | None] = {}
    for picture in other.scan.pictures:
        parts[picture.sha256][picture.path] = picture.split
        groups.setdefault(picture.sha256, picture.group)
    own = any(picture.group is not None for picture in scan.pictures)
    pictures, unknown = [], []
    for picture in scan.pictures:
        places = parts.get(picture.sha256, {})
        distinct = set(places.values())
        part = distinct.pop() if len(distinct) == 1 else places.get(picture.path)
        group = picture.group if own else groups.get(picture.sha256)
        pictures.append(replace(picture, split=part, group=group))
        unknown += [] if part else [picture.path]
    if unknown:
        raise DataError(
            f"{len(unknown)} of the {len(pictures)} pictures of {str(scan.root)!r} have no part in the "
            f"split to take: {listed(unknown)}; leave them out, or have a split drawn anew"
        )
    split = Split(replace(scan, pictures=tuple(pictures)), other.ratio, other.seed)
    refuse_torn_groups(
        split.scan,
        "leave out --split-from to have whole groups drawn, or --group to take the split as it is",
    )
    refuse_incomplete(split)
    return split


def refuse_incomplete(split: Split) -> None:
    """Refuses a split that cannot train, choose and judge.

    Raises:
        DataError: a part is empty, or a class has no picture to train on.
    """
    where = repr(str(split.scan.root))
    empty = [name for name in SPLITS if not split.part(name)]
    if empty:
        raise DataError(
            f"the split of {where} leaves no pictures for {' and '.join(empty)}; add some, or have a "
            "split drawn anew"
        )
    trained = {picture.label for picture in split.part("train")}
    lacking = [name for label, name in enumerate(split.scan.classes) if label not in trained]
    if lacking:
        raise DataError(
            f"the split of {where} leaves no picture of {listed(lacking)} to train on; add some, or have "
            "a split drawn anew"
        )


def _refuse_small_classes(scan: Scan, sizes: Mapping[int, int], shares: Mapping[str, int]) -> None:
    small = [
        f"{scan.classes[label]!r} ({size})" for label, size in sizes.items() if size < len(shares)
    ]
    if small:
        raise DataError(
            f"too few different pictures to draw {listed_parts(shares)} parts from: {', '.join(small)}; "
            f"each class needs at least {len(shares)}: add pictures, or remove the class"
        )


def _refuse_shared_files(
    scan: Scan,
    name: str,
    copies: Mapping[str, Sequence[str]],
    place: Mapping[str, str],
    shares: Mapping[str, int],
) -> None:
    """A class whose pictures are mostly another class's too may not fill every part."""
    if {place[digest] for digest in copies} >= shares.keys():
        return
    elsewhere = {
        picture.sha256: picture.path
        for picture in scan.pictures
        if picture.label is not None and scan.classes[picture.label] != name
    }
    pairs = [
        (paths[0], elsewhere[digest]) for digest, paths in copies.items() if digest in elsewhere
    ]
    examples = "; ".join(f"{one!r} and {other!r}" for one, other in pairs[:3])
    raise DataError(
        f"{len(pairs)} of the {len(copies)} pictures of {name!r} are byte for byte in another "
        f"class too, and no split without copies can be drawn: {examples}; keep each in one class"
    )


# ---------------------------------------------------------------------------- the split file


def write_split(split: Split, path: str | Path) -> None:
    """Writes a row a picture (`COLUMNS`), whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    scan = split.scan
    rows = (
        (one.path, one.sha256, scan.class_of(one) or "", one.split or "", one.group or "")
        for one in scan.pictures
    )
    write_csv(path, COLUMNS, rows)


def read_split(
    path: str | Path,
    root: str | Path,
    *,
    classes: Sequence[str],
    ratio: tuple[int, int, int] = (70, 15, 15),
    seed: int = 0,
) -> Split:
    """The split in a file from `write_split`.

    Args:
        path: the CSV file.
        root: the folder that its paths start from; it need not exist.
        classes: names in label order, as stored with the run: a CSV file does not hold their order.
        ratio: what the split was asked for.
        seed: what it was drawn with.

    Raises:
        RunError: missing, not CSV, or a row that no split file can hold; names the line.
    """
    labels = {name: label for label, name in enumerate(classes)}
    pictures: dict[str, Picture] = {}
    rows = read_csv(path)
    if not rows:
        raise RunError(f"{str(path)!r} holds no pictures; write it again")
    for number, row in enumerate(rows, start=1):
        problem = _row_problem(row, labels)
        if problem is None and row["path"] in pictures:
            problem = f"the path {row['path']!r} again"
        if problem is not None:
            raise RunError(
                f"{str(path)!r}, picture {number}: it has {problem}; the columns are "
                f"{', '.join(COLUMNS)}: restore the file or make the split again"
            )
        pictures[row["path"]] = picture_in(row, labels)
    found = Scan(Path(root), tuple(pictures.values()), tuple(classes), ())
    return Split(found, _checked_ratio(ratio), seed)


def picture_in(row: Mapping[str, str], labels: Mapping[str, int]) -> Picture:
    """The picture in a row of a CSV file with `COLUMNS`."""
    split, group = row["split"] or None, row["group"] or None
    return Picture(row["path"], labels.get(row["class"]), split, group, row["sha256"])


def _row_problem(row: Mapping[Any, Any], labels: Mapping[str, int]) -> str | None:
    """What is wrong with a row of csv.DictReader, or None.

    A value that is missing is None there, and values beyond the header stand under the key None.
    """
    missing = [column for column in COLUMNS if row.get(column) is None]
    if missing:
        return f"no {' and no '.join(missing)}"
    if None in row:
        return "more values than columns"
    path, digest = row["path"], row["sha256"]
    where = PurePosixPath(path)
    if not path or where.is_absolute() or ".." in where.parts:
        return f"the path {path!r}, which is not inside a folder of pictures"
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        return f"the SHA-256 {digest!r}, which is not 64 hexadecimal digits"
    if row["class"] not in labels:
        return f"the class {row['class']!r}, which is none of the {len(labels)} classes"
    if row["split"] not in SPLITS:
        return f"the split {row['split']!r}, which is not one of {', '.join(SPLITS)}"
    return None
