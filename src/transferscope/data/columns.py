"""What pictures are grouped by: a column of a table, a level of folders, a part of the path, EXIF."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import ExifTags

from transferscope.data.exif import FIELDS, exif_field
from transferscope.data.loading import in_order
from transferscope.data.manifest import MANIFESTS, has_column, table_column
from transferscope.data.scan import Picture
from transferscope.errors import DataError, InputError

COLUMNS = (
    "a column of a table beside the pictures (or TABLE.csv:COLUMN), folder:1 for the first level of folders "
    "and folder:-1 for the last, a pattern such as '(camera[0-9]+)' that is searched in the paths, group for "
    f"the groups of the split, or a field of EXIF: {', '.join(FIELDS)} or EXIF's own name"
)
"""What can be asked for, for messages."""

MANY = 12
"""Numbers, of which a column has more different ones, are cut into quarters."""

_PATTERN = frozenset(r"^$*+?{}[]\|()")


def groups_of(
    pictures: Sequence[Picture],
    files: Sequence[Path],
    column: str,
    *,
    table: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[str | None]:
    """The group of every picture; None where it has none.

    A column of more than `MANY` different numbers is cut into quarters of the pictures.

    Args:
        pictures: N of a set.
        files: of each.
        column: what they are grouped by; see `COLUMNS`. A table's column comes before a field of EXIF of
            the same name.
        table: that the set was read from; None: tables in the folder that the paths start from.
        on_progress: called with (done, total) where files are read.

    Raises:
        InputError: nothing of that name, or a column in which every picture has a value of its own.
        DataError: a table that cannot be read, or several that have the column.
    """
    values = _values(pictures, files, column, table, on_progress)
    known = {value for value in values if value is not None}
    if not known:
        raise InputError(f"no picture has a value of {column!r}; give {COLUMNS}")
    if len(known) > MANY and all(map(_is_number, known)):
        return _quarters(values)
    if len(known) > 1 and len(known) == sum(value is not None for value in values):
        raise InputError(
            f"{column!r} has a value of its own for every picture, such as {min(known)!r}; groups are of "
            f"several pictures: give {COLUMNS}"
        )
    return values


def _values(
    pictures: Sequence[Picture],
    files: Sequence[Path],
    column: str,
    table: Path | None,
    on_progress: Callable[[int, int], None] | None,
) -> list[str | None]:
    level = re.fullmatch(r"folder:(-?[1-9][0-9]*)", column)
    if level:
        return [_folder(picture.path, int(level[1])) for picture in pictures]
    named, _, within = column.rpartition(":")
    if named and Path(named).suffix.lower() in MANIFESTS:
        return _looked_up(pictures, files, Path(named), within)
    tables = [table] if table is not None else _tables(pictures, files)
    having = [one for one in tables if _has(one, column)]
    if len(having) > 1:
        raise DataError(
            f"{str(having[0])!r} and {str(having[1])!r} both have a column {column!r}; name the one that is "
            f"meant: {having[0]}:{column}"
        )
    if having:
        return _looked_up(pictures, files, having[0], column)
    if column == "group" and any(picture.group for picture in pictures):
        return [picture.group for picture in pictures]
    if column in FIELDS or column in ExifTags.TAGS.values():
        found = []
        for done, value in enumerate(in_order(lambda file: exif_field(file, column), files), 1):
            found.append(value)
            if on_progress is not None:
                on_progress(done, len(files))
        return found
    if _PATTERN.intersection(column):
        return _matches(pictures, column)
    if column == "group":
        raise InputError(
            "the run's split has no groups, which 'tune --group' makes; give another of these: "
            + COLUMNS
        )
    raise InputError(f"there is nothing called {column!r} to group by; give {COLUMNS}")


def _folder(path: str, level: int) -> str | None:
    folders = PurePosixPath(path).parts[:-1]
    place = level - 1 if level > 0 else level
    return folders[place] if -len(folders) <= place < len(folders) else None


def _matches(pictures: Sequence[Picture], pattern: str) -> list[str | None]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"{pattern!r} is not a regular expression ({error}); give {COLUMNS}"
        ) from None
    found = [compiled.search(picture.path) for picture in pictures]
    return [(one[min(compiled.groups, 1)] or None) if one else None for one in found]


def _tables(pictures: Sequence[Picture], files: Sequence[Path]) -> list[Path]:
    """Tables in the folder that the paths start from."""
    above = len(PurePosixPath(pictures[0].path).parts) - 1
    root = files[0].absolute().parents[above]
    return sorted(one for one in root.iterdir() if one.suffix.lower() in MANIFESTS)


def _has(table: Path, column: str) -> bool:
    """Whether a table says something of pictures, and has a column."""
    try:
        return has_column(table, "path") and has_column(table, column)
    except DataError:  # another kind of file beside the pictures
        return False


def _looked_up(
    pictures: Sequence[Picture], files: Sequence[Path], table: Path, column: str
) -> list[str | None]:
    said = table_column(table, column)
    places = [os.path.abspath(file) for file in files]  # noqa: PTH100 - a link is left as it is
    found = [
        said.get(place, said.get(picture.path))
        for place, picture in zip(places, pictures, strict=True)
    ]
    if not any(found):
        raise DataError(
            f"{str(table)!r} says nothing of these pictures, such as {pictures[0].path!r}; its column path "
            "must hold their paths from the table's folder, or as the run has them"
        )
    return found


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _quarters(values: Sequence[str | None]) -> list[str | None]:
    """Numbers by quarter, each named by its least and largest number."""
    numbers = np.array([float(value) for value in values if value is not None])
    edges = np.unique(np.quantile(numbers, (0.25, 0.5, 0.75), method="lower"))
    part = np.searchsorted(edges, numbers, side="left")
    names = {
        one: f"{numbers[part == one].min():.6g} to {numbers[part == one].max():.6g}"
        for one in np.unique(part)
    }
    rest = iter(part)
    return [None if value is None else names[next(rest)] for value in values]
