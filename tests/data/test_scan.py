"""Folders of every odd kind: what is in the set, what is left out and why, what is refused."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from transferscope.data.exclusions import HIDDEN, NO_PICTURE, SYSTEM_FILE, in_system_folder
from transferscope.data.scan import scan as scan_folder
from transferscope.errors import DataError, InputError
from transferscope.files import sha256_file

ODD_NAMES = (
    '<b>猫 & "狗"<br>',
    "Ünïcode",
    "e\u0301",
    "\u00e9",
    " spaces ",
    "-dash",
    "a;b,c",
    "01",
    "1",
)


def put(root: Path, *paths: str) -> Path:
    """Writes a small PNG of its own colour at each path."""
    for index, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        colour = (len(path) % 256, index % 256, hash(path) % 256)
        Image.new("RGB", (8, 8), colour).save(root / path, "PNG")
    return root


def several(*folders: str, count: int = 3) -> list[str]:
    return [f"{folder}/{number}.png" for folder in folders for number in range(count)]


def paths(found: object) -> list[str]:
    return [picture.path for picture in found.pictures]  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------- layouts


def test_class_folders(tmp_path: Path) -> None:
    found = scan_folder(put(tmp_path, *several("dog", "cat", "Ant")))
    assert found.classes == ("Ant", "cat", "dog")
    assert found.counts() == {"Ant": 3, "cat": 3, "dog": 3}
    assert paths(found) == sorted(several("dog", "cat", "Ant"))
    assert found.excluded == ()
    for picture in found.pictures:
        assert found.classes[picture.label or 0] == picture.path.split("/")[0]
        assert (picture.split, picture.group) == (None, None)
        assert picture.sha256 == sha256_file(found.file(picture))


def test_class_names_are_any_text_in_string_order(tmp_path: Path) -> None:
    found = scan_folder(put(tmp_path, *several(*ODD_NAMES, count=1)))
    names = sorted({"spaces", *ODD_NAMES} - {" spaces ", "e\u0301"})  # one name with "\u00e9"
    assert found.classes == tuple(names)
    assert list(found.counts()) == names
    assert found.merged == (("e\u0301", "\u00e9"),)


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "valid", "test"), ("train", "validation", "test")),
        (("Train", "VAL", "TEST"), ("train", "validation", "test")),
        (("train", "Validation"), ("train", "validation")),
        (("train", "test"), ("train", "test")),
        (("train",), ("train",)),
        (("test",), ("test",)),
    ],
)
def test_split_folders(folders: tuple[str, ...], splits: tuple[str, ...], tmp_path: Path) -> None:
    files = [file for folder in folders for file in several(f"{folder}/b", f"{folder}/a")]
    found = scan_folder(put(tmp_path, *files))
    assert found.classes == ("a", "b")
    assert found.counts() == {"a": 3 * len(folders), "b": 3 * len(folders)}
    by_folder = dict(zip(folders, splits, strict=True))
    for picture in found.pictures:
        folder, name, _ = picture.path.split("/")
        assert picture.split == by_folder[folder]
        assert found.classes[picture.label or 0] == name


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    """Vehicles: not a split, as the other folders are not."""
    found = scan_folder(put(tmp_path, *several("train", "bus", "test/deeper")))
    assert found.classes == ("bus", "test/deeper", "train")
    assert {picture.split for picture in found.pictures} == {None}


def test_a_class_missing_from_the_test_split_is_allowed(tmp_path: Path) -> None:
    found = scan_folder(put(tmp_path, *several("train/a", "train/b", "test/a")))
    assert found.counts() == {"a": 6, "b": 3}


def test_a_class_is_the_topmost_folder_that_holds_pictures_itself(tmp_path: Path) -> None:
    name = '<b>猫 & "狗"</b>'  # on a disk, the slash makes two folders of it
    found = scan_folder(put(tmp_path, *several("a/x", "b/x", "c", name), "c/more/9.png"))
    assert found.classes == (name, "a/x", "b/x", "c")
    assert found.counts()["c"] == 4


def test_a_class_is_the_same_in_every_split(tmp_path: Path) -> None:
    nested = put(
        tmp_path, *several("train/cat/old", "train/cat/young", "train/dog"), "test/cat/1.png"
    )
    assert scan_folder(nested).classes == ("cat", "dog")


def test_classes_in_folders_of_their_own_are_apart_in_every_split(tmp_path: Path) -> None:
    found = scan_folder(
        put(tmp_path, *several("train/a/x", "train/b/x", "train/c", "val/b/x", "test/a/x"))
    )
    assert found.classes == ("a/x", "b/x", "c")
    assert found.counts() == {"a/x": 6, "b/x": 6, "c": 3}
    of_test = [picture for picture in found.pictures if picture.split == "test"]
    assert {found.classes[picture.label or 0] for picture in of_test} == {"a/x"}


def test_pictures_are_found_at_any_depth_of_their_class(tmp_path: Path) -> None:
    found = scan_folder(put(tmp_path, "a/1.png", "a/x/y/2.png", "b/z/3.PNG", "b/4.jpg"))
    assert paths(found) == ["a/1.png", "a/x/y/2.png", "b/4.jpg", "b/z/3.PNG"]
    assert [picture.label for picture in found.pictures] == [0, 0, 1, 1]


def test_what_is_not_a_picture_is_not_taken_and_listed(tmp_path: Path) -> None:
    put(tmp_path, *several("a", "b"), "a/.hidden.png", ".git/x/1.png", "a/.thumbs/1.png")
    for name in ("a/Thumbs.db", "a/notes.txt", "b/no_ending", "labels.csv", ".DS_Store"):
        (tmp_path / name).write_bytes(b"not a picture")
    found = scan_folder(tmp_path)
    assert paths(found) == several("a", "b")
    assert dict(found.excluded) == {
        ".DS_Store": SYSTEM_FILE,
        ".git/x/1.png": in_system_folder(".git"),
        "a/.hidden.png": HIDDEN,
        "a/.thumbs/1.png": HIDDEN,
        "a/Thumbs.db": SYSTEM_FILE,
        "a/notes.txt": NO_PICTURE,
        "b/no_ending": NO_PICTURE,
        "labels.csv": NO_PICTURE,
    }


def test_loose_pictures_beside_class_folders_are_named(tmp_path: Path) -> None:
    found = scan_folder(put(tmp_path, *several("a", "b"), "cover.png"))
    assert paths(found) == several("a", "b")
    assert found.excluded == (("cover.png", "it lies outside every class folder"),)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    root = put(tmp_path / "set", *several("a", "b"))
    put(tmp_path / "elsewhere", "c/1.png")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "self").symlink_to("self")
    (root / "b" / "here").symlink_to(root / "b")
    (root / "c").symlink_to(tmp_path / "elsewhere" / "c")
    (root / "a" / "c").symlink_to(tmp_path / "elsewhere" / "c")
    put(tmp_path / "elsewhere", "more/1.png")
    (root / "a" / "more").symlink_to(tmp_path / "elsewhere" / "more")
    (root / "a" / "twice").symlink_to(tmp_path / "elsewhere" / "more")
    (root / "b" / "9.png").symlink_to(tmp_path / "elsewhere" / "c" / "1.png")
    found = scan_folder(root)
    more = [path for path in paths(found) if path in ("a/more/1.png", "a/twice/1.png")]
    assert len(more) == 1
    assert paths(found) == sorted([*several("a", "b"), *more, "b/9.png", "c/1.png"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of POSIX systems")
@pytest.mark.timeout(30)
def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    put(tmp_path, *several("a", "b"))
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "b" / "link.png").symlink_to(tmp_path / "a" / "pipe.png")
    found = scan_folder(tmp_path, lenient=True)
    assert paths(found) == several("a", "b")
    assert [path for path, _ in found.excluded] == ["a/pipe.png", "b/link.png"]
    assert all("pipe" in reason for _, reason in found.excluded)


def test_a_folder_beside_splits_is_refused_and_a_class_called_train_is_not(tmp_path: Path) -> None:
    put(tmp_path / "set", *several("train/a", "train/b", "tset/a", "val/a", "val/b"))
    assert "'tset' beside the splits 'train', 'val'" in refuse(tmp_path / "set")
    put(tmp_path / "vehicles", *several("bus", "train"))
    assert scan_folder(tmp_path / "vehicles").classes == ("bus", "train")


# ---------------------------------------------------------------------------- groups


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        ("p[0-9]+", ["p1", "p2", None, "p1"]),
        ("(p)[0-9]+", ["p", "p", None, "p"]),
        ("p([0-9]+)_(.)", ["1", "2", None, "1"]),
        ("p2|(p1)", ["p1", None, None, "p1"]),
        ("^a", ["a", "a", "a", None]),  # from the root: folders too
        ("[0-9]*$", None),  # matches everywhere, and nothing
    ],
)
def test_groups_are_read_off_the_paths(
    pattern: str, groups: list[str | None] | None, tmp_path: Path
) -> None:
    put(tmp_path, "a/p1_x.png", "a/p2_x.png", "a/q.png", "b/p1_y.png")
    if groups is None:
        with pytest.raises(InputError):
            scan_folder(tmp_path, group=pattern)
        return
    for lenient in (False, True):
        found = scan_folder(tmp_path, group=pattern, lenient=lenient)
        assert [picture.group for picture in found.pictures] == groups


def test_a_pattern_that_no_path_matches(tmp_path: Path) -> None:
    put(tmp_path, *several("a", "b"))
    with pytest.raises(InputError, match=r"'patient' finds no group .*, such as 'a/0\.png'; give"):
        scan_folder(tmp_path, group="patient")


def test_a_pattern_that_is_none(tmp_path: Path) -> None:
    put(tmp_path, *several("a", "b"))
    with pytest.raises(InputError, match=r"'\(p' is not a regular expression \(missing \)"):
        scan_folder(tmp_path, group="(p")


# ---------------------------------------------------------------------------- unreadable files


def test_an_unreadable_picture_is_excluded_with_its_reason(tmp_path: Path) -> None:
    put(tmp_path, *several("a", "b", count=20))
    (tmp_path / "a" / "7.png").write_bytes(b"")
    Image.effect_noise((64, 64), 90).save(tmp_path / "b" / "3.png")
    whole = (tmp_path / "b" / "3.png").read_bytes()
    (tmp_path / "b" / "3.png").write_bytes(whole[: len(whole) // 2])
    found = scan_folder(tmp_path)
    assert found.counts() == {"a": 19, "b": 19}
    assert [path for path, _ in found.excluded] == ["a/7.png", "b/3.png"]
    assert found.excluded[0][1] == "the file is empty (0 bytes)"
    assert "damaged or cut short" in found.excluded[1][1]
    assert not {"a/7.png", "b/3.png"} & set(paths(found))


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_link_to_nowhere_is_excluded_with_its_reason(tmp_path: Path) -> None:
    put(tmp_path, *several("a", "b", count=20))
    (tmp_path / "a" / "lost.png").symlink_to(tmp_path / "gone.png")
    found = scan_folder(tmp_path)
    assert found.excluded == (("a/lost.png", "there is no such file"),)


@pytest.mark.parametrize(("bad", "refused"), [(2, False), (3, True)])
def test_more_than_5_percent_unreadable_is_refused(bad: int, refused: bool, tmp_path: Path) -> None:
    put(tmp_path, *several("a", "b", count=20))
    for number in range(bad):
        (tmp_path / "a" / f"{number}.png").write_text("text")
    if not refused:
        assert len(scan_folder(tmp_path).excluded) == bad
        return
    with pytest.raises(DataError) as caught:
        scan_folder(tmp_path)
    message = str(caught.value)
    assert "3 of the 40 pictures" in message
    assert "7.5%" in message
    for number in range(3):
        assert f"'a/{number}.png': its bytes are not of a picture format" in message


def test_files_known_to_be_readable_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    module = importlib.import_module("transferscope.data.scan")
    put(tmp_path, *several("a", "b"))
    first = scan_folder(tmp_path)
    decoded = []
    real = module.read_with_facts
    monkeypatch.setattr(
        module,
        "read_with_facts",
        lambda file, **options: (decoded.append(file), real(file, **options)),
    )
    known = {picture.sha256 for picture in first.pictures[1:]}
    assert scan_folder(tmp_path, known_readable=known) == first
    assert decoded == [tmp_path / first.pictures[0].path]


def test_progress_counts_every_file(tmp_path: Path) -> None:
    put(tmp_path, *several("a", "b"))
    calls: list[tuple[int, int]] = []
    scan_folder(tmp_path, on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 6) for done in range(1, 7)]


def test_a_scan_leaves_no_threads(tmp_path: Path) -> None:
    before = threading.active_count()
    scan_folder(put(tmp_path, *several("a", "b")))
    assert threading.active_count() == before


def test_grey_sets_are_decoded_as_grey(tmp_path: Path) -> None:
    assert scan_folder(put(tmp_path, *several("a", "b")), channels=1).counts() == {"a": 3, "b": 3}


def test_time_grows_with_the_number_of_files(tmp_path: Path) -> None:
    """Eight times the files take far less than the 64 times of a quadratic scan."""
    file = put(tmp_path, "one.png") / "one.png"

    def seconds(count: int) -> float:
        root = tmp_path / str(count)
        for number in range(count):
            folder = root / f"class{number % 10}"
            folder.mkdir(parents=True, exist_ok=True)
            os.link(file, folder / f"{number}.png")
        known = {sha256_file(file)}
        start = time.perf_counter()
        scan_folder(root, known_readable=known)
        return time.perf_counter() - start

    seconds(20)
    assert seconds(2400) < 30 * seconds(300) + 0.2


# ---------------------------------------------------------------------------- refusals


def refuse(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        scan_folder(root)
    message = str(caught.value)
    assert "\n" not in message
    assert repr(str(root))[1:-1] in message
    assert ";" in message or ":" in message  # what was expected, and what to do
    return message


def test_a_missing_folder(tmp_path: Path) -> None:
    assert "there is no folder" in refuse(tmp_path / "none")


def test_a_file(tmp_path: Path) -> None:
    assert "is a file" in refuse(put(tmp_path, "a.png") / "a.png")


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "holds no pictures" in refuse(tmp_path)


def test_a_folder_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("x")
    assert "holds no pictures" in refuse(tmp_path)


def test_loose_pictures_only(tmp_path: Path) -> None:
    message = refuse(put(tmp_path, "1.png", "2.png"))
    assert "holds 2 pictures but none in a class folder" in message


def test_one_class(tmp_path: Path) -> None:
    assert "the one class 'a'" in refuse(put(tmp_path, *several("a")))
    assert "the one class 'a'" in refuse(put(tmp_path / "s", *several("train/a", "test/a")))


def test_an_empty_class_folder(tmp_path: Path) -> None:
    put(tmp_path, *several("a", "b"))
    (tmp_path / "c" / "deeper").mkdir(parents=True)
    assert "for 'c'" in refuse(tmp_path)


def test_a_class_whose_pictures_are_all_unreadable(tmp_path: Path) -> None:
    put(tmp_path, *several("a", "b", count=20))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "1.png").write_text("text")
    assert "no picture of 'c'" in refuse(tmp_path)


def test_a_class_that_is_not_in_training(tmp_path: Path) -> None:
    message = refuse(put(tmp_path, *several("train/a", "train/b", "test/a", "test/c")))
    assert "the training split" in message
    assert "no pictures of 'c'" in message


@pytest.mark.parametrize("files", [["test/1.png"], []])
def test_a_split_without_class_folders(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    message = refuse(put(tmp_path, *several("train/a", "train/b"), *files))
    assert "is a split without class folders" in message


def test_two_folders_for_one_split(tmp_path: Path) -> None:
    message = refuse(put(tmp_path, *several("train/a", "train/b", "val/a", "valid/a")))
    assert "two folders for the split validation: 'val' and 'valid'" in message


@pytest.mark.skipif(os.name == "nt", reason="names are UTF-16 there")
def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    put(tmp_path, *several("a", "b"))
    try:
        (tmp_path / os.fsdecode(b"\xff\xfe")).mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert "is not valid UTF-8" in refuse(tmp_path)
