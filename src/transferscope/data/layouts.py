"""Which files make up a set of pictures, and what a layout says of each: class, split, group.

A layout is found without opening a picture: folders of classes, with or without splits above them, a
table that lists the files (`manifest`), or the original files of a well-known set (`datasets`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from transferscope.errors import DataError, InputError
from transferscope.images import SUFFIXES

LAYOUTS = (
    "one folder a class (DATA/cat/1.jpg), or train, validation and test folders of those, or a CSV or "
    "Parquet table with the columns path and label"
)
"""What can be given, for messages."""

OUTSIDE = "it lies outside every class folder"
UNLABELLED = "it has no label"
"""Why a file is stray: it may well be readable."""

SPLIT_NAMES = {
    "train": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
"""Names of a split, in lower case, as folders and tables have them."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that should be a picture, before it is opened.

    Attributes:
        path: from the set's root, with forward slashes.
        class_name: None where the layout does not say.
        split: train, validation, test, or None.
        group: pictures of one group belong into one split; None: alone.
    """

    path: str
    class_name: str | None
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Layout:
    """The files of a set.

    Attributes:
        root: folder that paths start from.
        candidates: ordered by path.
        stray: (path, reason) of pictures that belong to no class while others do.
        empty: class folders without a picture.
        unsorted: split folders without class folders.
    """

    root: Path
    candidates: tuple[Candidate, ...]
    stray: tuple[tuple[str, str], ...] = ()
    empty: tuple[str, ...] = ()
    unsorted: tuple[str, ...] = ()


def folder_layout(root: Path) -> Layout:
    """Class folders, or splits of class folders, at any depth.

    A class is the topmost folder that holds pictures itself. Where no folder is a class, the pictures
    lie directly in the set or in its splits, and have none.

    Raises:
        DataError: no such folder, one that cannot be listed, two folders for one split, a name that is
            not UTF-8, or no pictures at all.
    """
    if not root.exists():
        raise DataError(
            f"there is no folder {str(root)!r}; give a folder of pictures that exists: {LAYOUTS}"
        )
    if not root.is_dir():
        raise DataError(f"{str(root)!r} is a file, not a folder of pictures; give {LAYOUTS}")
    top, names = _listing(root, "")
    loose: list[tuple[str, str | None]] = [(name, None) for name in names]
    splits = _split_folders(root, top)
    homes: list[tuple[str, str | None]] = []  # folder, split
    unsorted = []
    if splits is None:
        homes += [(name, None) for name in top]
    else:
        for name, given in splits.items():
            inside, beside = _listing(root, f"{name}/")
            loose += [(path, given) for path in beside]
            homes += [(f"{name}/{child}", given) for child in inside]
            unsorted += [] if inside else [name]
    # A link to one of these, from below a class, does not make its pictures that class's.
    visited = {_identity(root / folder) for folder in ("", *top, *(home for home, _ in homes))}
    found: list[tuple[str, str, str | None]] = []  # split's folder and slash, path below it, split
    empty = []
    for home, split in homes:
        prefix = home[: home.rfind("/") + 1]
        files = [path.removeprefix(prefix) for path in _walk(root, home, visited)]
        found += [(prefix, path, split) for path in files]
        if not files:
            empty.append(home.removeprefix(prefix))
    holders = {path.rpartition("/")[0] for _, path, _ in found}
    candidates = [
        Candidate(pre + path, _class_of(path, holders), split) for pre, path, split in found
    ]
    missing = sorted(set(empty) - {path.partition("/")[0] for _, path, _ in found})
    stray: list[tuple[str, str]] = []
    if candidates:
        stray += [(path, OUTSIDE) for path, _ in loose]
    else:
        candidates = [Candidate(path, None, split) for path, split in loose]
    if not candidates:
        raise DataError(
            f"{str(root)!r} holds no pictures (files ending in .jpg, .png, .webp and the like); give "
            f"{LAYOUTS}"
        )
    candidates.sort(key=lambda candidate: candidate.path)
    return Layout(root, tuple(candidates), tuple(stray), tuple(missing), tuple(unsorted))


def grouped(layout: Layout, pattern: str) -> Layout:
    """A layout whose groups are read off the paths.

    Args:
        layout: groups that it has are replaced.
        pattern: a regular expression, searched in each path from the root. Its first capture group is
            the name of the picture's group, or the whole match where it has none. A picture that does
            not match, or matches nothing, is alone.

    Raises:
        InputError: not a regular expression, or one that no path matches.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"the group pattern {pattern!r} is not a regular expression ({error}); give one that finds "
            "the group in a picture's path, such as 'patient[0-9]+'"
        ) from None
    which = min(compiled.groups, 1)

    def group_of(path: str) -> str | None:
        found = compiled.search(path)
        return (found[which] or None) if found else None

    candidates = tuple(replace(one, group=group_of(one.path)) for one in layout.candidates)
    if candidates and all(candidate.group is None for candidate in candidates):
        raise InputError(
            f"the group pattern {pattern!r} finds no group in any picture's path, such as "
            f"{candidates[0].path!r}; give a regular expression that does, such as 'patient[0-9]+'"
        )
    return replace(layout, candidates=candidates)


def _class_of(path: str, holders: Set[str]) -> str:
    """The topmost folder on the way to a picture that holds pictures itself: `cat`, or `cat/siamese`."""
    folders = path.split("/")[:-1]
    above = ("/".join(folders[:depth]) for depth in range(1, len(folders)))
    return next((folder for folder in above if folder in holders), "/".join(folders))


def _split_folders(root: Path, names: Sequence[str]) -> dict[str, str] | None:
    """Folder name to split when the top of a set is made of splits; None when it is of classes."""
    found: dict[str, str] = {}
    known = {name for name in names if name.lower() in SPLIT_NAMES}
    if known != set(names):
        listings = [_listing(root, f"{name}/") for name in known]
        of_classes = [bool(folders) and not files for folders, files in listings]
        if len({SPLIT_NAMES[name.lower()] for name in known}) > 1 and all(of_classes):
            raise DataError(
                f"{str(root)!r} has {listed(sorted(set(names) - known))} beside the splits "
                f"{listed(sorted(known))}, so neither splits nor classes can be meant; rename it "
                "(train, validation, test), or move it out of the set"
            )
        return None  # a class may well be called train
    for name in names:
        split = SPLIT_NAMES[name.lower()]
        for other, taken in found.items():
            if taken == split:
                raise DataError(
                    f"{str(root)!r} has two folders for the split {split}: {other!r} and {name!r}; "
                    "merge them, or rename one"
                )
        found[name] = split
    return found or None


def _listing(root: Path, prefix: str) -> tuple[list[str], list[str]]:
    """Folder names, and paths of files named like pictures, directly below a folder; sorted."""
    folders, files = [], []
    try:
        with os.scandir(root / prefix) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    folders.append(_spelled(root, prefix, entry.name))
                elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:  # noqa: PTH122 (a name)
                    files.append(prefix + _spelled(root, prefix, entry.name))
    except OSError as error:
        raise DataError(
            f"cannot list {str(root / prefix)!r}: {error.strerror or error}; make it readable, or "
            "move it out of the set"
        ) from error
    return sorted(folders), sorted(files)


def _walk(root: Path, home: str, visited: set[tuple[int, int]]) -> Iterator[str]:
    """Paths of files named like pictures at any depth; a folder reached twice is read once."""
    waiting = [home]
    while waiting:
        folder = waiting.pop()
        folders, files = _listing(root, f"{folder}/")
        yield from files
        for child in (f"{folder}/{name}" for name in folders):
            identity = _identity(root / child)
            if identity not in visited:  # otherwise a link back up, or a second one to a folder
                visited.add(identity)
                waiting.append(child)


def _identity(folder: Path) -> tuple[int, int]:
    """What two names of one folder have in common."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _spelled(root: Path, prefix: str, name: str) -> str:
    """`name`, if it can be written down: split files and reports are UTF-8."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(
            f"the name {name!r} in {str(root / prefix)!r} is not valid UTF-8; rename it"
        ) from None
    return name


def listed(names: Sequence[str]) -> str:
    """Up to five names, quoted, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more
