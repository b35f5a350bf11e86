"""What a set of pictures holds: every file hashed and decoded once, unreadable ones named."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from transferscope.data.datasets import dataset_layout
from transferscope.data.exclusions import is_damage, summary
from transferscope.data.layouts import LAYOUTS, Layout, folder_layout, grouped
from transferscope.data.loading import in_order
from transferscope.data.manifest import MANIFESTS, has_column, manifest_layout
from transferscope.data.readings import Candidate, LayoutName, listed
from transferscope.errors import DataError, PictureError
from transferscope.files import sha256_file
from transferscope.images import NO_MEMORY, FileFacts, read_with_facts

SPLITS = ("train", "validation", "test")
"""Names of the three parts, in the order of a ratio."""

UNREADABLE_CAP = 0.05
"""Share of a set's files that may be unreadable; with more of them the set itself is in doubt."""

MEASURED_SIDE = 256
"""Shorter side, in pixels, at which files are read to see whether they can be: a JPEG's every byte is
still read when it is decoded at 1/8 of its size."""


@dataclass(frozen=True)
class Picture:
    """One picture file of a set.

    Attributes:
        path: from the set's root, with forward slashes.
        label: index into the set's classes, None where it is not known.
        split: train, validation or test; None before a split is made.
        group: pictures of one group belong into one split (one patient, one video); None: alone.
        sha256: hex digest of the file.
    """

    path: str
    label: int | None
    split: str | None
    group: str | None
    sha256: str


@dataclass(frozen=True)
class Scan:
    """The readable pictures of a set, and why the others are left out.

    Attributes:
        root: the folder that paths start from.
        pictures: ordered by path.
        classes: names in label order, sorted as plain strings when scanned and stored ever after.
        excluded: (path, reason) of each file that is not among the pictures.
        merged: the spellings of each class that was written in several ways that are one name.
    """

    root: Path
    pictures: tuple[Picture, ...]
    classes: tuple[str, ...]
    excluded: tuple[tuple[str, str], ...]
    merged: tuple[tuple[str, ...], ...] = ()

    def file(self, picture: Picture) -> Path:
        """Where the file of `picture` is."""
        return self.root / picture.path

    def class_of(self, picture: Picture) -> str | None:
        """The name of a picture's class; None where it has none."""
        return None if picture.label is None else self.classes[picture.label]

    def counts(self) -> dict[str, int]:
        """Pictures of each class, in class order."""
        labels = Counter(picture.label for picture in self.pictures)
        return {name: labels[label] for label, name in enumerate(self.classes)}


Measure = Callable[[Picture, Image.Image, FileFacts], None]
"""Is shown every picture while it is decoded, from several threads at once."""


def scan(
    root: str | Path,
    *,
    channels: int = 3,
    known_readable: Collection[str] = (),
    lenient: bool = False,
    group: str | None = None,
    layout: LayoutName = "auto",
    dataset: str | None = None,
    download: bool = False,
    measure: Measure | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """Finds, hashes and completely decodes the pictures of a set.

    The set is folders of classes, with or without splits above them (`layouts.folder_layout`), a table of
    files (`manifest.manifest_layout`), or the original files of a well-known set (`datasets.DATASETS`).

    Args:
        root: the folder, or a .csv, .tsv or .parquet file.
        channels: how pictures will be decoded, 3 (RGB) or 1 (grey).
        known_readable: SHA-256 digests of files that need not be decoded again.
        lenient: takes a set as it is, for looking at it: also one that cannot be trained on, without
            classes or with many unreadable files.
        group: where a picture's group is found: the name of a table's column, or a regular
            expression that is searched in its path (`layouts.grouped`).
        layout: whether folders called train, test and the like are splits (`readings.read_folders`).
        dataset: name of a well-known set, whose original files `root` holds.
        download: with `dataset`, fetches the files that are missing.
        measure: is shown every readable picture. With it, known pictures are decoded too.
        on_progress: called with (files done, files in all) after every file.

    Returns:
        The set; an unreadable file is in `excluded` and nothing takes its place.

    Raises:
        InputError: a group that is neither a column nor found in any path.
        UnknownName: a dataset of another name.
        DataError: no folder, no pictures, a table that cannot be meant, a dataset that is not there;
            and unless `lenient`, no classes to tell apart, a class without (training) pictures, or
            more than 5% of the files unreadable.
    """
    files = _layout(Path(root), layout, group=group, dataset=dataset, download=download)
    if not lenient:
        _refuse_layout(files)
    root, candidates = files.root, files.candidates
    known = frozenset(known_readable) if measure is None else frozenset()
    names = {candidate.class_name for candidate in candidates} - {None}
    classes = tuple(sorted(name for name in (*names, *files.empty) if name is not None))
    labels: dict[str | None, int] = {name: label for label, name in enumerate(classes)}

    def check(one: Candidate) -> Picture | str:
        label = labels.get(one.class_name)
        try:
            digest = _digest(root / one.path)
            picture = Picture(one.path, label, one.split, one.group, digest)
            if digest not in known:
                decoded, facts = read_with_facts(
                    root / one.path, channels=channels, least_side=MEASURED_SIDE
                )
                if measure is not None:
                    measure(picture, decoded, facts)
        except (PictureError, OSError, MemoryError) as error:
            return _why_not(error)
        return picture

    pictures: list[Picture] = []
    excluded = list(files.stray)
    checked = zip(candidates, in_order(check, candidates), strict=True)
    for done, (candidate, found) in enumerate(checked, start=1):
        if isinstance(found, str):
            excluded.append((candidate.path, found))
        else:
            pictures.append(found)
        if on_progress is not None:
            on_progress(done, len(candidates))
    result = Scan(root, tuple(pictures), classes, tuple(sorted(excluded)), files.merged)
    if not lenient:
        refuse_untrainable(result)
    return result


def _digest(file: Path) -> str:
    """SHA-256 of a file that can be read to its end."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise PictureError(file, "it is a pipe, a socket or a device, not a file")
    return sha256_file(file)


def _why_not(error: PictureError | OSError | MemoryError) -> str:
    if isinstance(error, PictureError):
        return error.reason
    if isinstance(error, MemoryError):
        return NO_MEMORY
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return f"it cannot be opened ({error.strerror or error})"


def _layout(
    root: Path, layout: LayoutName, *, group: str | None, dataset: str | None, download: bool
) -> Layout:
    """The files that make up a set, with their groups."""
    if dataset is not None:
        found = dataset_layout(dataset, root, download=download)
    elif root.suffix.lower() in MANIFESTS and not root.is_dir():
        if group is not None and (not _like_a_pattern(group) or has_column(root, group)):
            return manifest_layout(root, group=group)
        found = manifest_layout(root)
    else:
        found = folder_layout(root, layout)
    return found if group is None else grouped(found, group)


def _like_a_pattern(text: str) -> bool:
    """Whether a regular expression has a character that means more than itself."""
    return any(character in r".^$*+?{}[]\|()" for character in text)


# ---------------------------------------------------------------------------- refusing


def _refuse_layout(layout: Layout) -> None:
    if layout.unsorted:
        raise DataError(
            f"{str(layout.root / layout.unsorted[0])!r} is a split without class folders; put its "
            "pictures into one folder a class, or remove it to have it drawn from the training pictures; if it "
            "is a class, use --layout classes"
        )
    if layout.empty:
        others = f" ({summary(layout.stray)})" if layout.stray else ""
        raise DataError(
            f"no pictures in {str(layout.root)!r} for {listed(layout.empty)}{others}; every class folder "
            "needs some: add them, or remove the folder"
        )
    if all(candidate.class_name is None for candidate in layout.candidates):
        _refuse_no_classes(layout.root, len(layout.candidates))


def refuse_untrainable(found: Scan) -> None:
    """Refuses a set that no classifier can be trained on.

    Raises:
        DataError: no classes, one class alone, a class without a readable picture or without one in the
            training split that the layout gives, or more than 5% of the files unreadable.
    """
    if not found.classes:
        _refuse_no_classes(found.root, len(found.pictures))
    refuse_unreadable(found)
    _refuse_empty_classes(found)


def refuse_unreadable(found: Scan) -> None:
    """Refuses a set of which so many files cannot be read that what is left is only a part of it.

    Files that were never taken for pictures, without a label or outside every class folder are not counted.

    Raises:
        DataError: more than `UNREADABLE_CAP` of the files unreadable; three of them are named.
    """
    unreadable = [one for one in found.excluded if is_damage(*one)]
    total = len(found.pictures) + len(unreadable)
    if len(unreadable) <= UNREADABLE_CAP * total:
        return
    examples = "; ".join(f"{path!r}: {reason}" for path, reason in unreadable[:3])
    more = f"; and {len(unreadable) - 3} more" if len(unreadable) > 3 else ""
    raise DataError(
        f"{len(unreadable)} of the {total} pictures in {str(found.root)!r} "
        f"({len(unreadable) / total:.1%}; at most {UNREADABLE_CAP:.0%} may be) cannot be read: "
        f"{examples}{more}; repair or remove them"
    )


def _refuse_no_classes(root: Path, count: int) -> None:
    raise DataError(
        f"{str(root)!r} holds {count} pictures but none in a class folder; sort them into {LAYOUTS}"
    )


def _refuse_empty_classes(found: Scan) -> None:
    if len(found.classes) < 2:
        raise DataError(
            f"{str(found.root)!r} holds the one class {found.classes[0]!r}; a classifier needs at "
            f"least two: give {LAYOUTS}"
        )
    empty = [name for name, count in found.counts().items() if not count]
    if empty:
        raise DataError(
            f"no picture of {listed(empty)} in {str(found.root)!r} can be read; repair them, or "
            "remove the class"
        )
    trained = {picture.label for picture in found.pictures if picture.split == "train"}
    lacking = [name for label, name in enumerate(found.classes) if label not in trained]
    if trained and lacking:
        raise DataError(
            f"the training split of {str(found.root)!r} has no pictures of {listed(lacking)}, "
            "which other splits have; add some, or remove the class from the other splits"
        )
