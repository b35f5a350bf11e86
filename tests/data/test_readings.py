"""Folders called as splits: splits where the folders show it, classes where not, both readings told else."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from test_scan import paths, put, several

from conftest import command
from transferscope.data.scan import scan
from transferscope.errors import DataError


def of(*folders: str, count: int = 2) -> list[str]:
    return several(*folders, count=count)


def parts(root: Path, **options: str) -> dict[tuple[str | None, str | None], int]:
    """(split, class) to number of pictures."""
    found = scan(root, **options)  # type: ignore[arg-type]
    return dict(Counter((picture.split, found.class_of(picture)) for picture in found.pictures))


NAMES = {
    "train": (
        "train",
        "TRAIN",
        "Training",
        "trn",
        "training_set",
        "train-images",
        "seg_train",
        "TrainSet",
        "训练集",
    ),
    "validation": ("val", "Valid", "VALIDATION", "dev", "devel", "eval", "val_set", "验证集"),
    "test": ("test", "Testing", "TST", "test_set", "Test Images", "seg_test", "测试集"),
}


@pytest.mark.parametrize("train", NAMES["train"])
@pytest.mark.parametrize("other", [*NAMES["validation"], *NAMES["test"]])
def test_any_name_of_a_split_where_the_classes_are_the_same(
    train: str, other: str, tmp_path: Path
) -> None:
    put(tmp_path, *of(f"{train}/cat", f"{train}/dog", f"{other}/cat", f"{other}/dog"))
    split = "test" if other in NAMES["test"] else "validation"
    assert parts(tmp_path) == {
        (name, kind): 2 for name in ("train", split) for kind in ("cat", "dog")
    }


@pytest.mark.parametrize(
    "form",
    [
        "dataset/{split}/{kind}",
        "data/images/{split}/{kind}",
        "{split}/{split}/{kind}",
        "{kind}/{split}",
        "photos/{kind}/{split}",
        "{split}/{kind}/more/deeper",
    ],
)
def test_splits_at_any_depth(form: str, tmp_path: Path) -> None:
    folders = [
        form.format(split=split, kind=kind)
        for split in ("Training", "Testing")
        for kind in ("cat", "dog")
    ]
    put(tmp_path, *of(*folders))
    found = parts(tmp_path)
    names = ("cat/more/deeper", "dog/more/deeper") if "deeper" in form else ("cat", "dog")
    assert found == {(split, kind): 2 for split in ("train", "test") for kind in names}


def test_classes_of_classes_with_splits_between(tmp_path: Path) -> None:
    folders = [
        f"{fruit}/{split}/{state}"
        for fruit in ("apple", "pear")
        for split in ("train", "test")
        for state in ("fresh", "rotten")
    ]
    found = parts(put(tmp_path, *of(*folders)))
    assert {kind for _, kind in found} == {
        "apple/fresh",
        "apple/rotten",
        "pear/fresh",
        "pear/rotten",
    }
    assert {split for split, _ in found} == {"train", "test"}


DOUBTFUL = {
    "a folder beside": (
        ("train/a", "train/b", "test/a", "test/b", "more"),
        "'more' beside the splits",
    ),
    "one split and its like": (
        ("train/a", "train/b", "tset/a", "tset/b"),
        "'tset' beside the splits 'train'",
    ),
    "no class in common": (
        ("train/steam", "train/diesel", "test/x", "test/y"),
        "no class in common",
    ),
    "nearly splits, flat": (("train_images", "test_images"), "nearly as splits"),
    "one class with splits": (("cat/train", "cat/test", "dog"), "outside its splits"),
}


@pytest.mark.parametrize("case", DOUBTFUL)
def test_what_is_not_certain_is_refused_with_both_readings_and_the_option(
    case: str, tmp_path: Path
) -> None:
    folders, why = DOUBTFUL[case]
    put(tmp_path, *of(*folders))
    with pytest.raises(DataError) as caught:
        scan(tmp_path, lenient=True)
    message = str(caught.value)
    for words in ("as the splits", "classes, '", why, "--layout splits or --layout classes"):
        assert words in message
    assert "\n" not in message
    as_classes = scan(tmp_path, layout="classes")
    assert set(as_classes.classes) == set(folders)
    assert {picture.split for picture in as_classes.pictures} == {None}
    as_splits = scan(tmp_path, layout="splits", lenient=True)
    assert {picture.split for picture in as_splits.pictures} <= {"train", "test"}
    assert not any("train" in name or "test" in name for name in as_splits.classes)


def test_what_lies_beside_chosen_splits_is_listed(tmp_path: Path) -> None:
    put(tmp_path, *of("train/a", "train/b", "test/a", "test/b", "more"), "cover.png")
    found = scan(tmp_path, layout="splits")
    assert found.classes == ("a", "b")
    assert [path for path, _ in found.excluded] == ["cover.png", "more/0.png", "more/1.png"]


@pytest.mark.parametrize(
    "folders",
    [
        ("bus", "train"),
        ("toy/train", "toy/bus", "real/train", "real/bus"),
        ("test tube", "flask"),
        ("a/x", "a/y", "b/x", "b/y"),
        ("training shoes", "sandals"),
    ],
)
def test_classes_that_are_called_like_splits_stay_classes(
    folders: tuple[str, ...], tmp_path: Path
) -> None:
    found = scan(put(tmp_path, *of(*folders)))
    assert found.classes == tuple(sorted(folders))
    assert {picture.split for picture in found.pictures} == {None}


def test_a_class_called_train_within_splits(tmp_path: Path) -> None:
    put(tmp_path, *of("train/train", "train/bus", "test/train", "test/bus"))
    assert scan(tmp_path).classes == ("bus", "train")


def test_folders_without_pictures_beside_splits_are_no_matter(tmp_path: Path) -> None:
    put(tmp_path, *of("train/a", "train/b", "test/a", "test/b"))
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "a.xml").write_text("<annotation/>")
    assert scan(tmp_path).classes == ("a", "b")


def test_no_folder_is_a_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .* has the name of a split"):
        scan(put(tmp_path, *of("a", "b")), layout="splits")


def test_two_folders_for_one_split_at_any_depth(tmp_path: Path) -> None:
    put(tmp_path, *of("set/train/a", "set/train/b", "set/val/a", "set/dev/a"))
    with pytest.raises(DataError, match="two folders for the split validation: 'dev' and 'val'"):
        scan(tmp_path)


def test_paths_stay_those_of_the_files(tmp_path: Path) -> None:
    files = of("dataset/Training/cat", "dataset/Training/dog", "dataset/Testing/cat")
    assert paths(scan(put(tmp_path, *files))) == sorted(files)


@pytest.mark.parametrize("verb", ["inspect", "tune", "advise"])
def test_the_command_line_shows_both_readings(verb: str, tmp_path: Path) -> None:
    put(tmp_path / "set", *of("Training/a", "Training/b", "Testing/a", "Testing/b", "more"))
    out = ("--out", tmp_path / "run") if verb == "tune" else ()
    answer = command(verb, tmp_path / "set", *out)
    assert answer.exit_code == 1
    assert "--layout splits or --layout classes" in answer.stderr
    assert not (tmp_path / "run").exists()


def test_the_command_line_takes_the_chosen_reading(tmp_path: Path) -> None:
    put(tmp_path, *of("Training/a", "Training/b", "Testing/a", "Testing/b", "more"))
    answer = command("inspect", tmp_path, "--layout", "splits", "--json", "--quiet")
    assert json.loads(answer.stdout)["classes"] == {"a": 4, "b": 4}
