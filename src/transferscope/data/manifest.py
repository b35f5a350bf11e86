"""A table that says which files make up a set of pictures: path, label and, if known, split and group.

CSV (also tab-separated) through the standard library, Parquet through pyarrow, which is read lazily and is an
extra: `pip install 'transferscope[parquet]'`.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transferscope.data.class_names import canonical, merged_names
from transferscope.data.exclusions import UNLABELLED
from transferscope.data.layouts import Layout
from transferscope.data.readings import SPLIT_NAMES, Candidate, listed
from transferscope.errors import DataError, InputError

MANIFESTS = (".csv", ".tsv", ".parquet")
"""Endings (lower case) of files that are read as a table of pictures."""

_EXPECTED = "a table needs the columns path and label, and may have split and group"


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the table: its number for messages, and its values without blanks around them."""

    number: int
    path: str
    label: str
    split: str
    group: str


def manifest_layout(path: Path, *, group: str | None = None) -> Layout:
    """The files that a table lists.

    Columns, in upper or lower case: path, label (or class), and where they are known split (the names of
    `readings.SPLIT_NAMES`, in every row or in none) and group. Others are passed over. A path starts
    from the table's own folder or is absolute, with slashes of either kind; a file that does not
    exist stays a candidate. A picture without a label is stray.

    Args:
        path: a .csv, .tsv or .parquet file. CSV is UTF-8, its values separated by commas (or by
            semicolons, where its header has no comma).
        group: name of the column with the groups, in place of group.

    Returns:
        The layout; its root is the table's folder where that holds every file, or else the deepest
        folder that does.

    Raises:
        DataError: no such file, not a table, no rows, a column that is missing, a path that is empty
            or listed twice, an unknown split, splits in some rows only, or no label at all. Rows are
            numbered as a spreadsheet shows them: the header of a CSV file is row 1; a Parquet file
            has no header, and its first row is 1.
        InputError: no column `group`.
    """
    rows: list[_Row] = []
    places: dict[str, _Row] = {}  # absolute path to the row that has it
    home = os.path.abspath(path.parent)  # noqa: PTH100 (a link is left as it is)
    for row in _rows(path, group):
        place = os.path.normpath(os.path.join(home, row.path.replace("\\", "/")))  # noqa: PTH118
        _refuse_path(path, row, places.get(place))
        places[place] = row
        rows.append(row)
    if not rows:
        raise DataError(
            f"{str(path)!r} has a header but no rows; list a picture a row: {_EXPECTED}"
        )
    splits = _splits(path, rows)
    if not any(row.label for row in rows):
        raise DataError(
            f"none of the {len(rows)} rows of {str(path)!r} has a label; fill the column label with "
            "the name of each picture's class"
        )
    root = _root(path, home, list(places))
    start = os.path.abspath(root)  # noqa: PTH100
    candidates, stray = [], []
    for (place, row), split in zip(places.items(), splits, strict=True):
        inside = Path(place).relative_to(start).as_posix()
        if row.label:
            candidates.append(Candidate(inside, canonical(row.label), split, row.group or None))
        else:
            stray.append((inside, UNLABELLED))
    candidates.sort(key=lambda candidate: candidate.path)
    merged = merged_names((row.label, canonical(row.label)) for row in rows if row.label)
    return Layout(root, tuple(candidates), tuple(sorted(stray)), merged=merged)


def has_column(path: Path, name: str) -> bool:
    """Whether a table has a column of that name, in upper or lower case.

    Raises:
        DataError: no such file, or not a table.
    """
    return _find(_header(path), name) is not None


def table_column(path: Path, name: str) -> dict[str, str]:
    """What a column says of each picture of a table; rows without a value are left out.

    Returns:
        Value by the picture's absolute path, and by its path as the table has it.

    Raises:
        DataError: no such file, not a table, or no column path.
        InputError: no column `name`.
    """
    header = _header(path)
    places = {"path": _find(header, "path"), name: _find(header, name)}
    if places["path"] is None:
        raise DataError(
            f"{str(path)!r} has no column path, only {listed(header)}; {_EXPECTED}: rename its columns"
        )
    if places[name] is None:
        raise InputError(
            f"{str(path)!r} has no column {name!r}; its columns are {listed(header)}: give one of them"
        )
    columns = [header[place] for place in places.values() if place is not None]
    read = _parquet_rows if _is_parquet(path) else _csv_rows
    found: dict[str, str] = {}
    home = os.path.abspath(path.parent)  # noqa: PTH100
    for number, values in read(path, columns):
        where, value = (_text(path, number, column, values[column]) for column in columns)
        where = where.replace("\\", "/")
        if value:
            found[where] = found[os.path.normpath(os.path.join(home, where))] = value  # noqa: PTH118
    return found


# ---------------------------------------------------------------------------- rows


def _rows(path: Path, group: str | None) -> Iterator[_Row]:
    """The rows, once the header is found to have what is needed."""
    header = _header(path)
    chosen = {name: _find(header, name) for name in ("path", "label", "split")}
    if chosen["label"] is None:
        chosen["label"] = _find(header, "class")  # as in a run's split.csv
    chosen["group"] = _find(header, group or "group")
    missing = [name for name in ("path", "label") if chosen[name] is None]
    if missing:
        raise DataError(
            f"{str(path)!r} has no column {' and no column '.join(missing)}, only {listed(header)}; "
            f"{_EXPECTED}: rename its columns"
        )
    if group is not None and chosen["group"] is None:
        raise InputError(
            f"{str(path)!r} has no column {group!r} for the groups; its columns are {listed(header)}: "
            "give one of them, or a regular expression that finds the group in a picture's path"
        )
    columns = {name: header[place] for name, place in chosen.items() if place is not None}
    for column in columns.values():
        if header.count(column) > 1:
            raise DataError(f"{str(path)!r} has two columns {column!r}; rename or remove one")
    read = _parquet_rows if _is_parquet(path) else _csv_rows
    for number, values in read(path, list(columns.values())):
        row = {
            name: _text(path, number, column, values[column]) for name, column in columns.items()
        }
        yield _Row(number, row["path"], row["label"], row.get("split", ""), row.get("group", ""))


def _find(header: Sequence[str], name: str) -> int | None:
    """Place of a column: the one spelled so, or else the one that differs in case and blanks only."""
    if name in header:
        return header.index(name)
    plain = [column.strip().lower() for column in header]
    wanted = name.strip().lower()
    return plain.index(wanted) if wanted in plain else None


def _text(path: Path, number: int, column: str, value: Any) -> str:
    """A cell as text without blanks around it; empty where there is none."""
    if value is None or value != value:  # None, or not a number: pandas' empty cell
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a column of whole numbers with an empty cell is one of floats
    if isinstance(value, str | int | float):
        return str(value).strip()
    raise DataError(
        f"{str(path)!r}, row {number}: the {column} is {value!r}; it must be text or a number: write "
        "the table again"
    )


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _header(path: Path) -> list[str]:
    """The names of the columns."""
    if not path.is_file():
        raise DataError(
            f"there is no file {str(path)!r}; give a table of pictures that exists: {_EXPECTED}"
        )
    if _is_parquet(path):
        with closing(_parquet_file(path)) as file:
            return [str(name) for name in file.schema_arrow.names]
    header = next((line for _, line in _csv_lines(path)), None)
    if not header:
        raise DataError(f"{str(path)!r} is empty; {_EXPECTED}, named in its first row")
    return header


# ---------------------------------------------------------------------------- CSV


def _csv_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, str | None]]]:
    """Row number and the values of `columns`; lines without any value are passed over."""
    lines = _csv_lines(path)
    _, header = next(lines)
    places = {column: header.index(column) for column in columns}
    for number, line in lines:
        if not any(line):
            continue
        if len(line) > len(header):
            raise DataError(
                f"{str(path)!r}, row {number}: it has {len(line)} values for {len(header)} columns; put "
                f"a value that holds a separator into quotes: {listed(line)}"
            )
        yield number, {name: line[at] if at < len(line) else None for name, at in places.items()}


def _csv_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number, from 1, and values of every line, the header among them."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            if path.suffix.lower() == ".tsv":
                delimiter = "\t"
            else:  # spreadsheets write semicolons where a comma is the decimal sign
                delimiter = ";" if ";" in first and "," not in first else ","
            yield from enumerate(csv.reader(file, delimiter=delimiter, strict=True), start=1)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{str(path)!r} is not UTF-8 (byte {error.object[error.start]:#04x}); save it again as "
            "CSV in UTF-8"
        ) from error
    except (OSError, csv.Error) as error:
        raise DataError(
            f"cannot read {str(path)!r} as CSV: {error}; save it again as CSV in UTF-8"
        ) from error


# ---------------------------------------------------------------------------- Parquet


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Row number, from 1, and the values of `columns`; no other column is read."""
    import pyarrow

    with closing(_parquet_file(path)) as file:
        number = 0
        try:
            for batch in file.iter_batches(columns=list(columns)):
                for values in batch.to_pylist():
                    number += 1
                    yield number, values
        except (pyarrow.ArrowException, OSError) as error:
            raise _not_parquet(path, error) from error


def _parquet_file(path: Path) -> Any:
    """An open `pyarrow.parquet.ParquetFile`."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(
            f"{str(path)!r} is a Parquet file, which pyarrow reads, and that is not installed: "
            "pip install 'transferscope[parquet]', or save the table as CSV"
        ) from None
    try:
        return parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise _not_parquet(path, error) from error


def _not_parquet(path: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0].rstrip(".")
    return DataError(
        f"{str(path)!r} is not a readable Parquet file ({reason}); write it again, or save the table as CSV"
    )


# ---------------------------------------------------------------------------- what rows say together


def _root(path: Path, home: str, places: Sequence[str]) -> Path:
    """The table's folder where all files lie under it, or else the deepest folder above them all."""
    if all(Path(place).is_relative_to(home) for place in places):
        return path.parent
    try:
        return Path(os.path.commonpath([os.path.dirname(place) for place in places]))  # noqa: PTH120
    except ValueError:  # drives of Windows
        raise DataError(
            f"the pictures of {str(path)!r} lie on several drives; copy them into one folder"
        ) from None


def _splits(path: Path, rows: Sequence[_Row]) -> list[str | None]:
    """The split of each row.

    Raises:
        DataError: an unknown name, or rows with and rows without one.
    """
    for row in rows:
        if row.split and row.split.lower() not in SPLIT_NAMES:
            raise DataError(
                f"{str(path)!r}, row {row.number}: the split is {row.split!r}; use one of "
                f"{', '.join(SPLIT_NAMES)}"
            )
    bare = [row for row in rows if not row.split]
    if bare and len(bare) < len(rows):
        raise DataError(
            f"{str(path)!r}, row {bare[0].number}: it has no split, and {len(rows) - len(bare)} of the "
            f"{len(rows)} rows have one; give every row a split, or none to have them drawn"
        )
    return [SPLIT_NAMES.get(row.split.lower()) for row in rows]


def _refuse_path(path: Path, row: _Row, earlier: _Row | None) -> None:
    """Refuses a path that names no file, and one that an earlier row has."""
    where = f"{str(path)!r}, row {row.number}"
    if not row.path or "\0" in row.path:
        raise DataError(
            f"{where}: the path is {row.path!r}; give the name of a picture file, or remove the row"
        )
    if earlier is None:
        return
    if canonical(earlier.label) == canonical(row.label):
        raise DataError(
            f"{where}: the path {row.path!r} is in row {earlier.number} already, with the same label; "
            "remove one of the two rows"
        )
    raise DataError(
        f"{where}: the path {row.path!r} has the label {row.label!r}, and {earlier.label!r} in row "
        f"{earlier.number}; a picture has one label: keep the right row"
    )
