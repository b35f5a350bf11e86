"""What pictures are grouped by: tables, folders, patterns, EXIF."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import ExifTags, Image

from transferscope.data.columns import groups_of
from transferscope.data.exif import exif_field
from transferscope.data.scan import Picture
from transferscope.errors import DataError, InputError

PATHS = ("a/site1/0.jpg", "a/site2/1.jpg", "b/site1/2.jpg", "b/3.jpg")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("set")
    made = []
    for number, path in enumerate(PATHS):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if number < 3:
            exif[ExifTags.Base.Model] = "Kamera X" if number else "Kodak\0"
            exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = (
                f"20{19 + number // 2}:05:31 1{number}:45:09"
            )
        Image.new("RGB", (8, 8)).save(file, exif=exif)
        made.append(file)
    (root / "about.csv").write_text(
        "path,label,ward,age\n" + "".join(f"{p},x,w{n % 2},{n}\n" for n, p in enumerate(PATHS[:3])),
        encoding="utf-8",
    )
    (root / "notes.csv").write_text("this is,no table of pictures\n1,2\n", encoding="utf-8")
    return made


def grouped(files: list[Path], column: str, **options) -> list[str | None]:
    pictures = [
        Picture(path, 0, "test", "g" if path[0] == "a" else None, f"{n:064d}")
        for n, path in enumerate(PATHS)
    ]
    return groups_of(pictures, files, column, **options)


def test_a_column_of_a_table_beside_the_pictures(files):
    assert grouped(files, "ward") == ["w0", "w1", "w0", None]
    table = files[0].parents[2] / "about.csv"
    assert grouped(files, f"{table}:Ward") == ["w0", "w1", "w0", None]
    assert grouped(files, "ward", table=table) == ["w0", "w1", "w0", None]


def test_two_tables_with_the_column_are_not_guessed_between(files):
    other = files[0].parents[2] / "other.csv"
    other.write_text("path,ward\na/site1/0.jpg,z\n", encoding="utf-8")
    try:
        with pytest.raises(DataError, match=r"both have a column 'ward'.*about\.csv:ward"):
            grouped(files, "ward")
    finally:
        other.unlink()


def test_levels_of_folders_patterns_and_the_groups_of_the_split(files):
    assert grouped(files, "folder:1") == ["a", "a", "b", "b"]
    assert grouped(files, "folder:2") == ["site1", "site2", "site1", None]
    assert grouped(files, "folder:-1") == ["site1", "site2", "site1", "b"]
    assert grouped(files, "site([0-9])") == ["1", "2", "1", None]
    assert grouped(files, "group") == ["g", "g", None, None]


def test_fields_of_exif(files):
    assert grouped(files, "camera") == ["Kodak", "Kamera X", "Kamera X", None]
    assert grouped(files, "Model") == grouped(files, "camera")
    assert grouped(files, "year") == ["2019", "2019", "2020", None]
    assert exif_field(files[1], "hour") == "11"
    assert exif_field(files[1], "month") == "2019-05"


def test_a_file_that_is_no_picture_has_no_exif(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"no picture")
    assert exif_field(tmp_path / "x.jpg", "camera") is None


def test_many_numbers_are_cut_into_quarters(tmp_path):
    names = [f"{n}.png" for n in range(40)]
    table = tmp_path / "t.csv"
    table.write_text("path,age\n" + "".join(f"{p},{n}\n" for n, p in enumerate(names)))
    pictures = [Picture(p, 0, None, None, p) for p in names]
    found = groups_of(pictures, [tmp_path / p for p in names], "age", table=table)
    assert sorted({(found.count(one), one) for one in found}) == [
        (10, "0 to 9"),
        (10, "10 to 19"),
        (10, "20 to 29"),
        (10, "30 to 39"),
    ]


def test_what_is_no_grouping_is_refused(files):
    with pytest.raises(InputError, match="nothing called 'nobody'"):
        grouped(files, "nobody")
    with pytest.raises(InputError, match="the run's split has no groups"):
        groups_of([Picture("a.png", 0, None, None, "a")], [files[0]], "group")
    with pytest.raises(InputError, match="a value of its own for every picture"):
        grouped(files, r"/([0-9]+)\.jpg")
    with pytest.raises(InputError, match="no picture has a value of 'lens'"):
        grouped(files, "lens")
    with pytest.raises(InputError, match="not a regular expression"):
        grouped(files, "site(")
    other = files[0].parents[2].parent / "elsewhere.csv"
    other.write_text("path,ward\nz.jpg,1\n", encoding="utf-8")
    with pytest.raises(DataError, match="says nothing of these pictures"):
        grouped(files, f"{other}:ward")
