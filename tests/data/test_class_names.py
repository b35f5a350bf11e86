"""Names of classes: which are one name, and which only look alike."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from test_scan import put, several

from conftest import Heard, tiny_classifier
from transferscope.data.class_names import alike_names, canonical
from transferscope.data.findings import findings
from transferscope.data.scan import scan
from transferscope.training.config import TuneOptions
from transferscope.workflows.candidates import Job
from transferscope.workflows.inspect import inspect
from transferscope.workflows.tune import scan_pictures

COMPOSED = "caf\u00e9"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


@pytest.mark.parametrize(
    "other", ["dog ", " dog", "dog\u00a0", "dog\u3000", "dog\t", "\ufeffdog", "dog\u200b"]
)
def test_blanks_at_the_ends_make_no_class(other: str, tmp_path: Path) -> None:
    found = scan(put(tmp_path, *several("cat", "dog", other)))
    assert found.counts() == {"cat": 3, "dog": 6}
    assert found.merged == (tuple(sorted(("dog", other))),)


def test_composed_and_decomposed_are_one_class_in_folders_and_tables(tmp_path: Path) -> None:
    folders = scan(put(tmp_path / "f", *several("cat", COMPOSED, DECOMPOSED, count=2)))
    assert folders.counts() == {COMPOSED: 4, "cat": 2}
    put(tmp_path, *(f"{n}.png" for n in range(4)))
    table = tmp_path / "t.csv"
    rows = [f"0.png,{COMPOSED}", f"1.png,{DECOMPOSED}", "2.png,cat", "3.png,cat "]
    table.write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    assert scan(table).counts() == {COMPOSED: 2, "cat": 2}


@pytest.mark.parametrize(
    "pair",
    [
        ("Chair", "chair"), ("0", "0.0"), ("7", "07"), ("a b", "a  b"), ("a_b", "a-b"), ("co\u043c", "com"),
        ("\uff21", "A"), ("stra\u00dfe", "STRASSE"), ("ab", "a\u200bb"),
    ],
)  # fmt: skip
def test_names_that_look_alike_are_told_and_stay_apart(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    put(tmp_path, *several(*pair, "other"))
    found = inspect(tmp_path)
    assert len(found.scan.classes) == 3
    (told,) = [one for one in findings(found) if "look alike" in one.sentence]
    assert all(repr(name) in told.sentence for name in pair)


def test_names_that_differ_are_not_alike() -> None:
    assert alike_names(["cat", "cats", "1", "2", "0", "O", "l", "猫", "狗", "10", "1.5"]) == ()
    assert canonical(" ") == " "


@pytest.mark.parametrize("name", ["NaN", "null", "N/A"])
def test_a_label_that_stands_for_an_empty_cell_is_told(name: str, tmp_path: Path) -> None:
    put(tmp_path, *(f"{n}.png" for n in range(4)))
    rows = ["path,label", "0.png,a", f"1.png,{name}", "2.png,a", f"3.png,{name}"]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    told = [one.sentence for one in findings(inspect(tmp_path / "t.csv"))]
    assert any(f"{name!r} may stand for pictures without a label" in words for words in told)


def test_folders_that_hold_the_same_classes_are_told(tmp_path: Path) -> None:
    put(tmp_path, *several("part1/a", "part1/b", "part2/a", "part2/b"))
    told = [one.sentence for one in findings(inspect(tmp_path))]
    assert any("'part1' and 'part2' hold folders of the same names" in words for words in told)


def test_tune_tells_them_and_what_is_left_out_too(tmp_path: Path) -> None:
    put(tmp_path, *several("Chair", "chair", "accordion", "accordion "), "chair/@eaDir/1.png")
    heard = Heard()
    options = TuneOptions(data=str(tmp_path), out=tmp_path / "run")
    found = scan_pictures(Job(options, tiny_classifier(), heard), tmp_path)
    assert found.classes == ("Chair", "accordion", "chair")
    assert heard.lines[0] == "left out: 1 in @eaDir"
    assert "'Chair' and 'chair'" in heard.lines[1]
    assert "'accordion' and 'accordion '" in heard.lines[2]
