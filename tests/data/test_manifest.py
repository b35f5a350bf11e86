"""Tables of pictures: where the files are, what each row says, and every row that cannot be meant."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from transferscope.data.manifest import MANIFESTS, has_column, manifest_layout
from transferscope.data.readings import SPLIT_NAMES, Candidate
from transferscope.data.scan import scan
from transferscope.errors import DataError, InputError


def table(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    """Writes a text table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    return path


def columns(file: Path, **values: list[object]) -> Path:
    """Writes a Parquet table."""
    parquet.write_table(pyarrow.table(values), file)
    return file


def pictures(root: Path, *paths: str) -> None:
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 9, 99)).save(root / path, "PNG")


def refuse(path: Path, **options: str) -> str:
    with pytest.raises(DataError) as caught:
        manifest_layout(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert repr(str(path)) in message
    assert ";" in message or ": pip install" in message  # what to do
    return message


# ---------------------------------------------------------------------------- what rows say


def test_a_runs_split_file_is_a_table_too(tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_text(
        "path,sha256,class,split,group\na/1.png,0,cat,train,\nb/2.png,0,dog,test,g\n"
    )
    found = manifest_layout(tmp_path / "split.csv").candidates
    assert [(one.class_name, one.split, one.group) for one in found] == [
        ("cat", "train", None),
        ("dog", "test", "g"),
    ]


def test_paths_start_from_the_tables_folder(tmp_path: Path) -> None:
    file = table(tmp_path / "set" / "all.csv", "path,label", "b/2.png,dog", "1.png,cat")
    found = manifest_layout(file)
    assert found.root == file.parent
    assert found.candidates == (Candidate("1.png", "cat"), Candidate("b/2.png", "dog"))
    assert (found.stray, found.empty, found.unsorted) == ((), (), ())


@pytest.mark.parametrize(
    ("name", "lines", "encoding"),
    [
        ("t.csv", ("path,label", "a/1.png,猫", "a/2.png,Ü"), "utf-8"),
        ("t.csv", ("path,label", "a/1.png,猫", "a/2.png,Ü"), "utf-8-sig"),
        ("t.csv", ("LABEL,notes,Path", "猫,,a/1.png", "Ü,x,a/2.png"), "utf-8"),
        ("t.csv", ('"path", label ', '"a/1.png", 猫 ', "", "a/2.png,Ü"), "utf-8"),
        ("t.csv", ("path;label", "a/1.png;猫", "a/2.png;Ü"), "utf-8"),
        ("t.csv", ("path,label", "a\\1.png,猫", "./a/x/..//2.png,Ü"), "utf-8"),
        ("T.TSV", ("path\tlabel", "a/1.png\t猫", "a/2.png\tÜ"), "utf-8"),
    ],
)
def test_spellings_of_one_table(
    name: str, lines: tuple[str, ...], encoding: str, tmp_path: Path
) -> None:
    found = manifest_layout(table(tmp_path / name, *lines, encoding=encoding))
    assert found.candidates == (Candidate("a/1.png", "猫"), Candidate("a/2.png", "Ü"))


def test_a_value_in_quotes_holds_separators(tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv", "path,label", '"a, b.png","x, ""y"""')
    assert manifest_layout(file).candidates == (Candidate("a, b.png", 'x, "y"'),)


@pytest.mark.parametrize("given", [*SPLIT_NAMES, "Train", "VALID", " Test "])
def test_every_name_of_a_split(given: str, tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv", "path,label,split", f"1.png,cat,{given}")
    assert manifest_layout(file).candidates[0].split == SPLIT_NAMES[given.strip().lower()]


def test_a_split_column_may_be_empty(tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv", "path,label,split", "1.png,cat,", "2.png,dog,")
    assert {one.split for one in manifest_layout(file).candidates} == {None}


def test_groups(tmp_path: Path) -> None:
    file = table(
        tmp_path / "t.csv", "path,label,Group,patient", "1.png,a,x,p1", "2.png,b,,p1", "3.png,b,x,"
    )
    assert [one.group for one in manifest_layout(file).candidates] == ["x", None, "x"]
    by_patient = manifest_layout(file, group="Patient").candidates
    assert [one.group for one in by_patient] == ["p1", "p1", None]


def test_a_row_without_a_label_is_stray(tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv", "path,label", "1.png,cat", "3.png, ", "2.png")
    found = manifest_layout(file)
    assert found.candidates == (Candidate("1.png", "cat"),)
    assert found.stray == (("2.png", "it has no label"), ("3.png", "it has no label"))


def test_files_that_do_not_exist_stay_candidates(tmp_path: Path) -> None:
    pictures(tmp_path, *(f"{number}.png" for number in range(39)))
    rows = [f"{number}.png,{'ab'[number % 2]}" for number in range(40)]
    found = scan(table(tmp_path / "t.csv", "path,label", *rows, "40.png,"))
    assert len(found.pictures) == 39
    assert found.excluded == (("39.png", "there is no such file"), ("40.png", "it has no label"))


# ---------------------------------------------------------------------------- where files are


def test_absolute_paths_below_the_tables_folder(tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv", "path,label", f"{tmp_path}/a/1.png,x", "a/2.png,y")
    found = manifest_layout(file)
    assert found.root == tmp_path
    assert [one.path for one in found.candidates] == ["a/1.png", "a/2.png"]


def test_files_elsewhere_start_from_the_deepest_folder_above_them(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", "a/1.png", "a/deep/2.png", "b/3.png")
    file = table(
        tmp_path / "tables" / "t.csv",
        "path,label",
        f"{tmp_path}/photos/a/1.png,x",
        "../photos/a/deep/2.png,y",
    )
    found = manifest_layout(file)
    assert found.root == tmp_path / "photos" / "a"
    assert [one.path for one in found.candidates] == ["1.png", "deep/2.png"]
    assert scan(file).counts() == {"x": 1, "y": 1}
    beside = table(tmp_path / "tables" / "u.csv", "path,label", "../photos/b/3.png,x", "4.png,y")
    assert manifest_layout(beside).root == tmp_path
    assert all(".." not in one.path for one in manifest_layout(beside).candidates)


def test_a_table_named_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(tmp_path, "1.png", "2.png")
    table(tmp_path / "t.csv", "path,label", "1.png,x", f"{tmp_path}/2.png,y")
    monkeypatch.chdir(tmp_path)
    found = scan("t.csv")
    assert [picture.path for picture in found.pictures] == ["1.png", "2.png"]
    assert found.root == Path()


# ---------------------------------------------------------------------------- Parquet


def test_a_parquet_table(tmp_path: Path) -> None:
    file = columns(
        tmp_path / "t.parquet",
        Path=["2.png", "1.png", "3.png"],
        label=[10, 9, None],
        split=["train", "VAL", "test"],
        group=[1.0, None, 2.5],
        extra=[b"x", b"y", b"z"],
    )
    found = manifest_layout(file)
    assert found.candidates == (
        Candidate("1.png", "9", "validation"),
        Candidate("2.png", "10", "train", "1"),
    )
    assert found.stray == (("3.png", "it has no label"),)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1.0, float("nan"), 2.0], ["1", "2"]),
        ([True, None, False], ["True", "False"]),
        (pyarrow.array(["a", None, "b"]).dictionary_encode(), ["a", "b"]),
    ],
)
def test_labels_of_other_types(values: object, labels: list[str], tmp_path: Path) -> None:
    file = columns(tmp_path / "t.parquet", path=["1.png", "2.png", "3.png"], label=values)
    assert [one.class_name for one in manifest_layout(file).candidates] == labels


def test_numbers_are_sorted_as_text(tmp_path: Path) -> None:
    pictures(tmp_path, "1.png", "2.png", "3.png")
    file = columns(tmp_path / "t.parquet", path=["1.png", "2.png", "3.png"], label=[2, 10, 1])
    assert scan(file).classes == ("1", "10", "2")


def test_a_label_that_is_not_text(tmp_path: Path) -> None:
    file = columns(tmp_path / "t.parquet", path=["1.png", "2.png"], label=[["a"], ["b"]])
    assert "row 1: the label is ['a']; it must be text or a number" in refuse(file)


def test_not_parquet(tmp_path: Path) -> None:
    assert "is not a readable Parquet file" in refuse(
        table(tmp_path / "t.parquet", "path,label", "1.png,cat")
    )
    whole = columns(tmp_path / "w.parquet", path=["1.png"] * 9, label=["a"] * 9).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-20])
    assert "is not a readable Parquet file" in refuse(tmp_path / "cut.parquet")
    (tmp_path / "bent.parquet").write_bytes(whole[:8] + bytes(40) + whole[48:])
    assert "is not a readable Parquet file" in refuse(tmp_path / "bent.parquet")


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = columns(tmp_path / "t.parquet", path=["1.png"], label=["a"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'transferscope[parquet]'" in refuse(file)


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("ending", MANIFESTS)
def test_no_such_file(ending: str, tmp_path: Path) -> None:
    assert "there is no file" in refuse(tmp_path / f"none{ending}")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((), "is empty"),
        (("path,label",), "has a header but no rows"),
        (("path,kind", "1.png,cat"), "has no column label, only 'path', 'kind'"),
        (("file;x", "1.png;cat"), "has no column path and no column label, only 'file', 'x'"),
        (("path,label,label", "1.png,a,b"), "two columns 'label'"),
        (("path,label", "1.png,a", ",b"), "row 3: the path is ''"),
        (("path,label", "1.png,a", "a\0b,b"), r"row 3: the path is 'a\x00b'"),
        (
            ("path,label", "", "1.png,a", "x/../1.png,a"),
            "row 4: the path 'x/../1.png' is in row 3 already, with the same label; remove one",
        ),
        (
            ("path,label", "1.png,a", "2.png,b", "1.png,b"),
            "row 4: the path '1.png' has the label 'b', and 'a' in row 2",
        ),
        (
            ("path,label,split", "1.png,a,train", "2.png,b,extra"),
            "row 3: the split is 'extra'; use one of train, training, trn, ",
        ),
        (
            ("path,label,split", "1.png,a,train", "2.png,b,", "3.png,b,test"),
            "row 3: it has no split, and 2 of the 3 rows have one",
        ),
        (("path,label", "1.png,", "2.png,"), "none of the 2 rows"),
        (("path,label", "1.png,a", "2, 3.png,b"), "row 3: it has 3 values for 2 columns"),
        (("path,label", '1.png,"a'), "as CSV: unexpected end of data"),
    ],
)
def test_tables_that_cannot_be_meant(lines: tuple[str, ...], words: str, tmp_path: Path) -> None:
    assert words in refuse(table(tmp_path / "t.csv", *lines))


def test_not_utf_8(tmp_path: Path) -> None:
    latin = table(tmp_path / "latin.csv", "path,label", "1.png,Übung", encoding="latin1")
    assert "is not UTF-8 (byte 0xdc)" in refuse(latin)
    wide = table(tmp_path / "wide.csv", "path,label", "1.png,a", encoding="utf-16")
    assert "is not UTF-8 (byte 0xff)" in refuse(wide)


def test_an_unknown_column_of_groups(tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv", "path,label,patient", "1.png,a,x")
    assert has_column(file, "PATIENT")
    assert not has_column(file, "patients")
    with pytest.raises(InputError, match=r"no column 'patients' .*'path', 'label', 'patient'"):
        manifest_layout(file, group="patients")


# ---------------------------------------------------------------------------- through scan


def test_scan_reads_a_table_with_splits_and_groups(tmp_path: Path) -> None:
    pictures(tmp_path, *(f"{number}.png" for number in range(6)))
    rows = [f"{n}.png,{'ab'[n % 2]},{'train' if n < 4 else 'test'},p{n // 2}" for n in range(6)]
    found = scan(table(tmp_path / "t.csv", "path,label,split,patient", *rows), group="patient")
    assert found.root == tmp_path
    assert found.classes == ("a", "b")
    assert [picture.split for picture in found.pictures] == ["train"] * 4 + ["test"] * 2
    assert [picture.group for picture in found.pictures] == [f"p{n // 2}" for n in range(6)]


def test_a_group_of_a_table_is_a_column_or_a_pattern(tmp_path: Path) -> None:
    pictures(tmp_path, "ann1.png", "ann2.png", "bob1.png", "bob2.png")
    rows = ("ann1.png,a,1", "ann2.png,b,1", "bob1.png,a,1", "bob2.png,b,1")
    file = table(tmp_path / "t.csv", "path,label,a.b", *rows)
    assert [p.group for p in scan(file, group="^[a-z]+").pictures] == ["ann", "ann", "bob", "bob"]
    assert [p.group for p in scan(file, group="a.b").pictures] == ["1"] * 4  # a column all the same
    with pytest.raises(InputError, match="no column 'ann'"):
        scan(file, group="ann")


def test_a_folder_may_be_named_like_a_table(tmp_path: Path) -> None:
    pictures(tmp_path / "set.csv", "a/1.png", "b/1.png")
    assert scan(tmp_path / "set.csv").counts() == {"a": 1, "b": 1}


def test_too_many_missing_files_are_refused(tmp_path: Path) -> None:
    pictures(tmp_path, "1.png", "2.png")
    file = table(tmp_path / "t.csv", "path,label", "1.png,a", "2.png,b", "3.png,a")
    with pytest.raises(DataError, match=r"'3\.png': there is no such file"):
        scan(file)
    assert len(scan(file, lenient=True).pictures) == 2
