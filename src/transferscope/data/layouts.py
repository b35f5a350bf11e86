"""Which files make up a set of pictures, and what a layout says of each: class, split, group.

A layout is found without opening a picture: folders of classes, with or without splits above them, a
table that lists the files (`manifest`), or the original files of a well-known set (`datasets`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from transferscope.data.exclusions import NOT_UTF8, is_unlisted, summary
from transferscope.data.readings import Candidate, LayoutName, read_folders
from transferscope.data.walk import walk
from transferscope.errors import DataError, InputError

LAYOUTS = (
    "one folder a class (DATA/cat/1.jpg), or train, validation and test folders of those, or a CSV or "
    "Parquet table with the columns path and label"
)
"""What can be given, for messages."""


@dataclass(frozen=True)
class Layout:
    """The files of a set.

    Attributes:
        root: folder that paths start from.
        candidates: ordered by path.
        stray: (path, reason) of files that are not taken: pictures that belong to no class while others do,
            and what is no picture.
        empty: class folders without a picture.
        unsorted: split folders without class folders.
        merged: the spellings of each class that has several.
    """

    root: Path
    candidates: tuple[Candidate, ...]
    stray: tuple[tuple[str, str], ...] = ()
    empty: tuple[str, ...] = ()
    unsorted: tuple[str, ...] = ()
    merged: tuple[tuple[str, ...], ...] = ()


def folder_layout(root: Path, layout: LayoutName = "auto") -> Layout:
    """Class folders, or splits of class folders, at any depth.

    A class is the topmost folder that holds pictures itself. Where no folder is a class, the pictures
    lie directly in the set or in its splits, and have none. Names of classes that are canonically equal are one
    class (`class_names.canonical`).

    Args:
        root: the set's folder.
        layout: see `readings.read_folders`.

    Raises:
        DataError: no such folder, one that cannot be listed, folders that can be read in two ways, two folders
            for one split, a name that is not UTF-8, or no pictures at all.
    """
    if not root.exists():
        raise DataError(
            f"there is no folder {str(root)!r}; give a folder of pictures that exists: {LAYOUTS}"
        )
    if not root.is_dir():
        raise DataError(f"{str(root)!r} is a file, not a folder of pictures; give {LAYOUTS}")
    try:
        found = walk(root)
    except OSError as error:
        raise DataError(
            f"cannot list {str(root)!r}: {error.strerror or error}; make it readable"
        ) from error
    for path, reason in found.left_out:
        if reason == NOT_UTF8 or is_unlisted(reason):
            raise DataError(f"{path!r} in {str(root)!r} cannot be taken: {reason}")
    if not found.files:
        others = f" ({summary(found.left_out)})" if found.left_out else ""
        raise DataError(f"{str(root)!r} holds no pictures{others}; give {LAYOUTS}")
    read = read_folders(root, found.files, found.folders, layout)
    stray = tuple(sorted([*read.stray, *found.left_out]))
    return Layout(root, read.candidates, stray, read.empty, read.unsorted, read.merged)


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
