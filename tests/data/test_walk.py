"""One walk for every verb: what is taken, what is not, and that every file is one or the other."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from PIL import Image
from test_scan import paths, put, several

from conftest import tiny_classifier
from transferscope.data.exclusions import summary
from transferscope.data.scan import scan
from transferscope.errors import DataError, InputError
from transferscope.workflows.predict import predict

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
SYSTEM = {
    "@eaDir/1.jpg/THUMB_M.jpg": "in @eaDir",
    "cat/@eaDir/1.jpg/THUMB_M.jpg": "in @eaDir",
    "__MACOSX/cat/._1.png": "in __MACOSX",
    ".Trash-1000/files/1.png": "in .Trash-1000",
    "$RECYCLE.BIN/1.png": "in $RECYCLE.BIN",
    "System Volume Information/1.png": "in System Volume Information",
    "lost+found/1.png": "in lost+found",
    ".ipynb_checkpoints/1-checkpoint.png": "in .ipynb_checkpoints",
    "cat/.AppleDouble/1.png": "in .AppleDouble",
    ".thumbnails/1.png": "in .thumbnails",
    "cat/._1.png": "of the system",
    "cat/Thumbs.db": "of the system",
    "cat/.1.png": "hidden",
    ".cache/1.png": "hidden",
}


@pytest.mark.parametrize("path", SYSTEM)
def test_what_systems_leave_behind_is_counted_and_never_a_picture(
    path: str, tmp_path: Path
) -> None:
    put(tmp_path, *several("cat", "dog"), path)
    found = scan(tmp_path)
    assert paths(found) == several("cat", "dog")
    assert [one for one, _ in found.excluded] == [path]
    assert summary(found.excluded).startswith(f"left out: 1 {SYSTEM[path]}")
    answers = []
    read = predict(tiny_classifier(), [tmp_path], on_excluded=answers.extend)
    assert len(read) == 6
    assert answers == [(str(tmp_path / one), why) for one, why in found.excluded]


@pytest.mark.parametrize(
    "name", ["1.heic", "1", "1.jpg_large", "1.jpeg~", "1.JPG.bak", "1.txt", "1.jpg?x=1"]
)
@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "AVIF", "JPEG2000"]
)
def test_bytes_decide_what_is_a_picture(name: str, kind: str, tmp_path: Path) -> None:
    put(tmp_path, *several("cat", "dog"))
    Image.effect_noise((32, 32), 60).convert("RGB").save(tmp_path / "cat" / name, kind)
    found = scan(tmp_path)
    assert f"cat/{name}" in paths(found)
    assert found.excluded == ()
    assert len(predict(tiny_classifier(), [tmp_path / "cat"])) == 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"BMW is a maker of cars", "that is no picture"),
        (b"P5 is a size of paper", "that is no picture"),
        (b"\0\0\1\0", "that is no picture"),
        (b"", "that is no picture"),
        (b"path,label\n", "that is no picture"),
        (HEIC, "HEIC picture (pip install 'transferscope[heif]')"),
        (b"<?xml version='1.0'?>\n<svg xmlns='x'/>", "SVG (save it as JPEG or PNG)"),
        (b"8BPS" + bytes(30), "Photoshop (save it as JPEG or PNG)"),
        (b"%PDF-1.7", "PDF (save it as JPEG or PNG)"),
        (b"\0\0\0\x18ftypisom\0\0\0\0mp42isom", "film (take pictures out of it)"),
        (bytes(128) + b"DICM", "DICOM (save it as JPEG or PNG)"),
    ],
)
def test_what_is_no_picture_that_is_read_is_counted_by_what_it_is(
    content: bytes, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transferscope.formats.readable", lambda: ("JPEG", "PNG"))
    put(tmp_path, *several("cat", "dog"))
    (tmp_path / "cat" / "other").write_bytes(content)
    found = scan(tmp_path)
    assert paths(found) == several("cat", "dog")
    assert summary(found.excluded) == f"left out: 1 {words}"


def test_a_cameras_raw_file_is_not_its_thumbnail(tmp_path: Path) -> None:
    put(tmp_path, *several("cat", "dog"))
    Image.new("RGB", (16, 12)).save(tmp_path / "cat" / "1.NEF", "TIFF")
    assert summary(scan(tmp_path).excluded) == "left out: 1 camera raw (save it as JPEG or PNG)"


def test_heic_is_read_where_pillow_heif_is_installed(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    put(tmp_path, *several("cat", "dog"))
    picture = Image.new("RGB", (64, 48), (200, 30, 30))
    pillow_heif.from_pillow(picture).save(tmp_path / "cat" / "9.heic")
    found = scan(tmp_path)
    assert "cat/9.heic" in paths(found)


def test_a_set_of_nothing_that_is_read_says_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transferscope.formats.readable", lambda: ("JPEG", "PNG"))
    (tmp_path / "cat").mkdir()
    for number in range(3):
        (tmp_path / "cat" / f"{number}.heic").write_bytes(HEIC)
    with pytest.raises(
        DataError, match=r"holds no pictures \(left out: 3 HEIC pictures \(pip install"
    ):
        scan(tmp_path)
    with pytest.raises(
        InputError, match=r"no picture in it \(left out: 3 HEIC pictures \(pip install"
    ):
        predict(tiny_classifier(), [tmp_path])


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_predict_and_tune_take_the_same_files(tmp_path: Path) -> None:
    root = put(
        tmp_path / "set", *several("cat", "dog/x.jpg"), "cat/.hidden.png", "cat/@eaDir/1.png"
    )
    put(tmp_path / "elsewhere", "bird/1.png", "bird/2.png")
    (root / "bird").symlink_to(tmp_path / "elsewhere" / "bird")
    (root / "cat" / "up").symlink_to(root)
    (root / "cat" / "above").symlink_to(tmp_path)
    found = scan(root, lenient=True)
    left: list[tuple[str, str]] = []
    answers = predict(tiny_classifier(), [root], on_excluded=left.extend)
    assert [answer.path for answer in answers] == [str(root / path) for path in paths(found)]
    assert not any(answer.error for answer in answers)
    assert [path for path, _ in left] == [str(root / path) for path, _ in found.excluded]
    reasons = dict(found.excluded)
    assert "read already" in reasons["cat/up"] or "lies in" in reasons["cat/up"]
    assert "the set itself lies in" in reasons["cat/above"]
    assert [answer.path for answer in predict(tiny_classifier(), [str(root / "d*")])] == [
        str(root / path) for path in several("dog/x.jpg")
    ]


@pytest.mark.skipif(
    os.name == "nt" or os.geteuid() == 0, reason="the owner of everything reads everything"
)
def test_a_system_folder_that_cannot_be_listed_is_no_matter(tmp_path: Path) -> None:
    put(tmp_path, *several("cat", "dog"), "lost+found/1.png")
    (tmp_path / "lost+found").chmod(0)
    assert scan(tmp_path).excluded == ()


def test_first_bytes_of_many_other_files_are_cheap(tmp_path: Path) -> None:
    """2,000 texts beside the pictures: well below a millisecond each."""
    put(tmp_path, *several("cat", "dog"))
    for number in range(2000):
        (tmp_path / "cat" / f"{number}.txt").write_text("0 0.5 0.5 0.2 0.2")
    scan(tmp_path)
    start = time.perf_counter()
    found = scan(tmp_path)
    assert time.perf_counter() - start < 2
    assert summary(found.excluded) == "left out: 2,000 that are no pictures"
