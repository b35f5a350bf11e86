"""Parts that are exact, seeded, free of copies of each other, and survive their file."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transferscope.data.duplicates import duplicates_across
from transferscope.data.groups import quotas
from transferscope.data.scan import SPLITS, Picture, Scan
from transferscope.data.split import (
    Split,
    adopt_split,
    make_split,
    parse_ratio,
    read_split,
    write_split,
)
from transferscope.errors import DataError, InputError, OutputError, RunError, UnknownName
from transferscope.files import sha256_bytes

ODD_CLASSES = ('<b>猫 & "狗"</b>', "a,b", "line\nbreak\r", "é", "01")


def made(*counts: int, split: str | None = None, start: int = 0) -> Scan:
    """A scan of so many different pictures of each class, without files."""
    classes = tuple(f"class{label}" for label in range(len(counts)))
    pictures = []
    for label, count in enumerate(counts):
        for number in range(start, start + count):
            path = f"{split or ''}/{classes[label]}/{number:04d}.png".lstrip("/")
            digest = sha256_bytes(f"{label} {number} {split}".encode())
            pictures.append(Picture(path, label, split, None, digest))
    return Scan(Path("photos"), tuple(pictures), classes, ())


def joined(*scans: Scan) -> Scan:
    pictures = sorted((p for scan in scans for p in scan.pictures), key=lambda p: p.path)
    return replace(scans[0], pictures=tuple(pictures))


def sizes(split: Split, label: int | None = None) -> tuple[int, ...]:
    return tuple(
        sum(label is None or picture.label == label for picture in split.part(name))
        for name in SPLITS
    )


def assignment(split: Split) -> dict[str, str | None]:
    return {picture.path: picture.split for picture in split.scan.pictures}


# ---------------------------------------------------------------------------- ratio


@pytest.mark.parametrize(
    ("text", "ratio"),
    [("70/15/15", (70, 15, 15)), ("8/1/1", (8, 1, 1)), (" 60 / 20 / 20 ", (60, 20, 20))],
)
def test_ratios(text: str, ratio: tuple[int, int, int]) -> None:
    assert parse_ratio(text) == ratio


@pytest.mark.parametrize(
    "text", ["", "70", "70/30", "70/15/15/0", "a/b/c", "0.7/0.15/0.15", "80/20/0", "-70/15/15"]
)
def test_ratios_that_cannot_be(text: str) -> None:
    with pytest.raises(InputError, match="70/15/15"):
        parse_ratio(text)


def test_make_split_checks_its_ratio() -> None:
    with pytest.raises(InputError, match="100/0/0"):
        make_split(made(10, 10), ratio=(100, 0, 0))


# ---------------------------------------------------------------------------- drawing


def test_every_class_has_its_exact_share() -> None:
    split = make_split(made(100, 20, 7, 3), ratio=(70, 15, 15), seed=1)
    assert sizes(split, 0) == (70, 15, 15)
    assert sizes(split, 1) == (14, 3, 3)
    assert sizes(split, 2) == (5, 1, 1)
    assert sizes(split, 3) == (1, 1, 1)
    assert (split.ratio, split.seed) == ((70, 15, 15), 1)
    assert {picture.path for picture in split.scan.pictures} == {
        picture.path for picture in made(100, 20, 7, 3).pictures
    }


@settings(max_examples=150, deadline=None)
@given(
    count=st.integers(3, 500),
    shares=st.tuples(st.integers(1, 100), st.integers(1, 100), st.integers(1, 100)),
)
def test_quotas_are_within_one_of_the_exact_share(count: int, shares: tuple[int, int, int]) -> None:
    quota = quotas(count, dict(zip(SPLITS, shares, strict=True)))
    assert sum(quota.values()) == count
    assert min(quota.values()) >= 1
    if all(count * share >= sum(shares) for share in shares):
        for name, share in zip(SPLITS, shares, strict=True):
            assert abs(quota[name] - count * share / sum(shares)) < 1


def test_the_seed_decides_and_nothing_else() -> None:
    scan = made(40, 40)
    first = assignment(make_split(scan, seed=0))
    assert assignment(make_split(scan, seed=0)) == first
    assert assignment(make_split(replace(scan, root=Path("elsewhere")), seed=0)) == first
    assert assignment(make_split(scan, seed=1)) != first


def test_a_class_is_drawn_independently_of_the_others() -> None:
    alone, among = made(40, 40), made(40, 40, 40)
    first = assignment(make_split(alone))
    assert first.items() <= assignment(make_split(among)).items()
    labels = [
        [picture.path[-8:] for picture in make_split(alone).part("test") if picture.label == label]
        for label in (0, 1)
    ]
    assert labels[0] != labels[1]


def test_a_draw_is_spread_over_the_folder() -> None:
    """Sorted file names often follow time or source: a block of them would be a biased part."""
    tested = [int(picture.path[-8:-4]) for picture in make_split(made(400, 400)).part("test")]
    for quarter in range(4):
        inside = sum(quarter * 100 <= number < (quarter + 1) * 100 for number in tested)
        assert 15 <= inside <= 45


def test_small_classes_are_all_named() -> None:
    with pytest.raises(DataError) as caught:
        make_split(made(10, 2, 1, 3))
    message = str(caught.value)
    assert "'class1' (2), 'class2' (1)" in message
    assert "class0" not in message
    assert "class3" not in message
    assert "each class needs at least 3" in message


# ---------------------------------------------------------------------------- given splits


def test_given_splits_are_kept() -> None:
    scan = joined(
        made(8, 8, split="train"), made(2, 2, split="validation"), made(3, 3, split="test")
    )
    split = make_split(scan)
    assert split.scan == scan
    assert sizes(split) == (16, 4, 6)


def test_validation_is_taken_off_training() -> None:
    scan = joined(made(85, 17, split="train"), made(5, 5, split="test"))
    split = make_split(scan, ratio=(70, 15, 15))
    assert sizes(split, 0) == (70, 15, 5)
    assert sizes(split, 1) == (14, 3, 5)
    assert all(picture.path.startswith("test/") for picture in split.part("test"))
    assert all(picture.path.startswith("train/") for picture in split.part("validation"))


def test_test_is_taken_off_training() -> None:
    scan = joined(made(80, 40, split="train"), made(5, 5, split="validation"))
    split = make_split(scan, ratio=(60, 20, 20))
    assert sizes(split, 0) == (60, 5, 20)
    assert sizes(split, 1) == (30, 5, 10)


def test_training_alone_is_divided_in_three() -> None:
    assert sizes(make_split(made(20, 20, split="train"))) == (28, 6, 6)


def test_two_pictures_are_enough_where_one_part_is_drawn() -> None:
    scan = joined(made(2, 9, split="train"), made(1, 1, split="test"))
    assert sizes(make_split(scan), 0) == (1, 1, 1)
    with pytest.raises(DataError, match=r"'class0' \(1\); each class needs at least 2"):
        make_split(joined(made(1, 9, split="train"), made(1, 1, split="test")))


def test_splits_without_training_are_refused() -> None:
    with pytest.raises(DataError, match="gives test and validation but no training"):
        make_split(joined(made(9, 9, split="test"), made(9, 9, split="validation")))


# ---------------------------------------------------------------------------- copies


def with_copies(scan: Scan, copies: dict[str, str]) -> Scan:
    """The scan with the file at each key made byte-identical to that at its value."""
    digests = {picture.path: picture.sha256 for picture in scan.pictures}
    return replace(
        scan,
        pictures=tuple(
            replace(picture, sha256=digests[copies[picture.path]])
            if picture.path in copies
            else picture
            for picture in scan.pictures
        ),
    )


def path(label: int, number: int) -> str:
    return f"class{label}/{number:04d}.png"


@pytest.mark.parametrize("seed", range(10))
def test_copies_stay_together(seed: int) -> None:
    """Ten pictures twice, one ten times, and one that lies in both classes."""
    copies = {path(0, number + 10): path(0, number) for number in range(10)}
    copies |= {path(1, number): path(1, 0) for number in range(1, 10)}
    copies[path(1, 30)] = path(0, 35)
    split = make_split(with_copies(made(40, 40), copies), seed=seed)
    assert duplicates_across(split) == []
    assert sizes(split, 0) == (28, 6, 6)
    assert sizes(split, 1) == (28, 6, 6)


@pytest.mark.parametrize("seed", range(5))
def test_every_part_is_filled_though_copies_are_large(seed: int) -> None:
    copies = {path(0, number): path(0, number % 3) for number in range(9)}
    split = make_split(with_copies(made(9, 9), copies), seed=seed)
    assert duplicates_across(split) == []
    assert sizes(split, 0) == (3, 3, 3)


def test_copies_do_not_count_as_different_pictures() -> None:
    copies = {path(0, number): path(0, number % 2) for number in range(9)}
    with pytest.raises(DataError, match=r"too few different pictures.*'class0' \(2\)"):
        make_split(with_copies(made(9, 9), copies))


def test_classes_that_share_all_their_files_are_refused_with_examples() -> None:
    """Each of class1's three pictures is in class0's training part: nothing is left to test on."""
    trained = [picture.path for picture in make_split(made(20, 3)).part("train")]
    shared = [one for one in trained if one.startswith("class0")][:4]
    copies = {path(1, number): shared[number] for number in range(3)}
    with pytest.raises(DataError) as caught:
        make_split(with_copies(made(20, 3), copies))
    message = str(caught.value)
    assert "3 of the 3 pictures of 'class1'" in message
    assert message.count(" and 'class0/") == 3


def test_copies_across_given_splits_are_reported() -> None:
    scan = joined(*(made(6, 6, split=name) for name in SPLITS))
    copies = {
        "test/class0/0001.png": "train/class0/0003.png",
        "test/class1/0002.png": "train/class1/0000.png",
        "validation/class1/0005.png": "train/class1/0000.png",
        "train/class0/0004.png": "train/class0/0005.png",
    }
    assert duplicates_across(make_split(with_copies(scan, copies))) == [
        ("train/class0/0003.png", "test/class0/0001.png"),
        ("train/class1/0000.png", "test/class1/0002.png"),
        ("train/class1/0000.png", "validation/class1/0005.png"),
    ]
    assert duplicates_across(make_split(scan)) == []


# ---------------------------------------------------------------------------- Split and its file


def test_parts_are_disjoint_and_complete() -> None:
    split = make_split(made(30, 30))
    together = [picture.path for name in SPLITS for picture in split.part(name)]
    assert Counter(together) == Counter(picture.path for picture in split.scan.pictures)
    with pytest.raises(UnknownName, match="did you mean 'validation'"):
        split.part("valid")


def odd_split() -> Split:
    scan = made(*(4 for _ in ODD_CLASSES))
    pictures = [
        replace(
            picture,
            path=f"{ODD_CLASSES[picture.label or 0]}/{picture.path}",
            group=f"patient, {number % 4}",
        )
        for number, picture in enumerate(scan.pictures)
    ]
    return make_split(replace(scan, classes=ODD_CLASSES, pictures=tuple(pictures)), seed=3)


def test_a_split_survives_its_file(tmp_path: Path) -> None:
    split = odd_split()
    write_split(split, tmp_path / "split.csv")
    read = read_split(
        tmp_path / "split.csv", "photos", classes=ODD_CLASSES, ratio=split.ratio, seed=3
    )
    assert read == split
    header = (tmp_path / "split.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "path,sha256,class,split,group"


def test_the_stored_class_order_rules(tmp_path: Path) -> None:
    write_split(make_split(made(3, 3)), tmp_path / "split.csv")
    read = read_split(tmp_path / "split.csv", "photos", classes=("class1", "class0"))
    assert {picture.path[:6]: picture.label for picture in read.scan.pictures} == {
        "class0": 1,
        "class1": 0,
    }


def test_a_split_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError):
        write_split(make_split(made(3, 3)), tmp_path / "file" / "split.csv")


GOOD = f"a/1.png,{'0' * 64},a,train,"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds no pictures"),
        ("path,sha256,class,split,group\n", "holds no pictures"),
        (f"path,class,split,group\n{GOOD}\n", "no sha256"),
        (f"path,sha256,class,split,group\na/1.png,{'0' * 64}\n", "no class and no split"),
        (f"path,sha256,class,split,group\n{GOOD},more\n", "more values than columns"),
        (
            f"path,sha256,class,split,group\n{GOOD}\n{GOOD}\n",
            "picture 2: it has the path 'a/1.png'",
        ),
        ("path,sha256,class,split,group\na/1.png,abc,a,train,\n", "SHA-256 'abc'"),
        (f"path,sha256,class,split,group\na/1.png,{'G' * 64},a,train,\n", "not 64 hex"),
        (f"path,sha256,class,split,group\na/1.png,{'0' * 64},z,train,\n", "class 'z'"),
        (f"path,sha256,class,split,group\na/1.png,{'0' * 64},a,dev,\n", "split 'dev'"),
        (f"path,sha256,class,split,group\n/etc/1.png,{'0' * 64},a,train,\n", "not inside"),
        (f"path,sha256,class,split,group\na/../../1,{'0' * 64},a,train,\n", "not inside"),
        (f"path,sha256,class,split,group\n,{'0' * 64},a,train,\n", "the path ''"),
    ],
)
def test_malformed_files_are_refused_by_row(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(RunError) as caught:
        read_split(tmp_path / "split.csv", "photos", classes=("a", "b"))
    assert problem in str(caught.value)
    assert "split.csv" in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is missing"):
        read_split(tmp_path / "split.csv", "photos", classes=("a", "b"))


def test_a_taken_split_that_tears_groups_is_refused() -> None:
    """Another run drew without groups: its parts may cut through those that are asked for now."""
    pictures = tuple(
        Picture(f"{name}/{n}.png", label, part, None, f"{label}{n:063d}")
        for label, name in enumerate("ab")
        for n, part in enumerate(("train", "train", "validation", "test"))
    )
    other = Split(Scan(Path("photos"), pictures, ("a", "b"), ()), (70, 15, 15), 0)
    torn = tuple(
        replace(one, split=None, group="anna" if n in (0, 2) else None)
        for n, one in enumerate(pictures)
    )
    with pytest.raises(DataError, match=r"1 groups .*'anna' .*leave out --split-from .*or --group"):
        adopt_split(replace(other.scan, pictures=torn), other)
    whole = tuple(replace(one, split=None) for one in pictures)
    grouped = tuple(replace(one, group=f"of {one.split} {one.label}") for one in pictures)
    taken = adopt_split(
        replace(other.scan, pictures=whole),
        replace(other, scan=replace(other.scan, pictures=grouped)),
    )
    assert [one.group for one in taken.scan.pictures] == [one.group for one in grouped]
