"""Pictures of one group never lie in two parts."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transferscope.data.scan import SPLITS, Picture, Scan
from transferscope.data.split import Split, adopt_split, make_split
from transferscope.errors import DataError


def grouped(classes: int, groups: int, each: int, *, seed: int = 0, by_class: bool = False) -> Scan:
    """`each` pictures of every group on average, of one class or of any."""
    draw = np.random.default_rng(seed)
    pictures = []
    for number in range(groups * each):
        group = int(draw.integers(groups))
        label = group % classes if by_class else int(draw.integers(classes))
        pictures.append(
            Picture(f"class{label}/{number:05d}", label, None, f"patient {group}", f"{number:064x}")
        )
    names = tuple(f"class{label}" for label in range(classes))
    return Scan(Path("photos"), tuple(sorted(pictures, key=lambda p: p.path)), names, ())


def torn(split: Split) -> list[str]:
    parts = defaultdict(set)
    for picture in split.scan.pictures:
        if picture.group is not None:
            parts[picture.group].add(picture.split)
    return [group for group, found in parts.items() if len(found) > 1]


@settings(max_examples=30, deadline=None)  # the first one loads scikit-learn
@given(st.integers(2, 4), st.integers(12, 40), st.integers(2, 5), st.integers(0, 3), st.booleans())
def test_no_group_is_torn_and_every_class_is_everywhere(classes, groups, each, seed, by_class):
    scan = grouped(classes, groups, each, seed=seed, by_class=by_class)
    owners = defaultdict(set)
    for picture in scan.pictures:
        owners[picture.label].add(picture.group)
    if any(len(owners[label]) < 3 for label in range(classes)):
        with pytest.raises(DataError, match="too few groups"):
            make_split(scan, seed=seed)
        return
    split = make_split(scan, seed=seed)
    assert torn(split) == []
    cells = Counter((picture.label, picture.split) for picture in split.scan.pictures)
    assert all(cells[label, part] for label in range(classes) for part in SPLITS)
    assert sum(cells.values()) == len(scan.pictures)


@pytest.mark.parametrize("ratio", [(70, 15, 15), (50, 25, 25), (8, 1, 1)])
def test_shares_are_near_the_ratio(ratio):
    scan = grouped(5, 200, 10)
    split = make_split(scan, ratio=ratio)
    for name, share in zip(SPLITS, ratio, strict=True):
        assert len(split.part(name)) / len(scan.pictures) == pytest.approx(
            share / sum(ratio), abs=0.03
        )
        labels = Counter(picture.label for picture in split.part(name))
        assert max(labels.values()) < 1.5 * min(labels.values())


def test_a_seed_decides_the_split_and_another_gives_another():
    scan = grouped(3, 40, 5)
    assert make_split(scan, seed=4) == make_split(scan, seed=4)
    assert make_split(scan, seed=4) != replace(make_split(scan, seed=5), seed=4)


def test_files_of_equal_bytes_bring_their_groups_together():
    scan = grouped(2, 30, 4)
    by_group = defaultdict(list)
    for place, picture in enumerate(scan.pictures):
        by_group[picture.group].append(place)
    pictures = list(scan.pictures)
    pairs = [("patient 0", "patient 1"), ("patient 1", "patient 2"), ("patient 7", "patient 3")]
    for one, other in pairs:
        first, second = by_group[one][0], by_group[other][-1]
        pictures[second] = replace(pictures[second], sha256=pictures[first].sha256)
    split = make_split(replace(scan, pictures=tuple(pictures)))
    part = {picture.group: picture.split for picture in split.scan.pictures}
    assert torn(split) == []
    assert part["patient 0"] == part["patient 1"] == part["patient 2"]
    assert part["patient 7"] == part["patient 3"]


def test_pictures_without_a_group_are_alone():
    scan = grouped(2, 30, 4)
    pictures = tuple(
        replace(picture, group=None if number % 3 else picture.group)
        for number, picture in enumerate(scan.pictures)
    )
    split = make_split(replace(scan, pictures=pictures))
    assert torn(split) == []
    alone = Counter(picture.split for picture in split.scan.pictures if picture.group is None)
    assert set(alone) == set(SPLITS)


def test_a_given_test_part_is_kept_and_validation_drawn_by_groups():
    scan = grouped(2, 30, 6)
    pictures = tuple(
        replace(picture, split="test" if int(picture.group.split()[1]) < 6 else "train")
        for picture in scan.pictures
    )
    split = make_split(replace(scan, pictures=pictures))
    assert torn(split) == []
    assert {p.path for p in split.part("test")} == {p.path for p in pictures if p.split == "test"}
    assert split.part("validation")


def test_a_group_in_two_given_splits_is_refused():
    scan = grouped(2, 10, 6)
    pictures = tuple(
        replace(picture, split=("train", "test")[number % 2])
        for number, picture in enumerate(scan.pictures)
    )
    with pytest.raises(DataError, match=r"groups of 'photos' lie in more than one split: 'patient"):
        make_split(replace(scan, pictures=pictures))


def test_too_few_groups_are_refused_by_class():
    scan = grouped(2, 2, 10)
    with pytest.raises(DataError, match=r"'class0' \(2\), 'class1' \(2\); .* at least 3 groups"):
        make_split(scan)


def test_ten_thousand_pictures_in_two_thousand_groups_take_seconds():
    scan = grouped(10, 2000, 5)
    began = time.perf_counter()
    make_split(scan)
    assert time.perf_counter() - began < 30


# ---------------------------------------------------------------------------- another run's split


def test_another_split_is_taken_by_content_wherever_the_files_lie():
    scan = grouped(2, 20, 5)
    plain = replace(scan, pictures=tuple(replace(p, group=None) for p in scan.pictures))
    other = make_split(plain, ratio=(50, 25, 25), seed=3)
    moved = tuple(replace(p, path=f"moved/{p.path}", split=None) for p in plain.pictures[5:])
    taken = adopt_split(replace(plain, pictures=moved), other)
    assert (taken.ratio, taken.seed) == (other.ratio, other.seed)
    before = {p.sha256: p.split for p in other.scan.pictures}
    assert all(p.split == before[p.sha256] for p in taken.scan.pictures)


def test_the_layouts_own_splits_give_way():
    scan = replace(
        grouped(2, 20, 5),
        pictures=tuple(replace(p, group=None) for p in grouped(2, 20, 5).pictures),
    )
    other = make_split(scan)
    given_ = replace(scan, pictures=tuple(replace(p, split="train") for p in scan.pictures))
    assert adopt_split(given_, other).scan == other.scan


def test_equal_bytes_in_two_parts_are_told_apart_by_path():
    scan = Scan(
        Path("photos"),
        tuple(
            Picture(f"{part}/{n}", n % 2, part, None, f"{n if n < 2 else part + str(n):0>64}")
            for part in SPLITS
            for n in range(4)
        ),
        ("a", "b"),
        (),
    )
    other = Split(scan, (70, 15, 15), 0)
    assert adopt_split(scan, other).scan == scan
    renamed = replace(scan, pictures=tuple(replace(p, path=f"x/{p.path}") for p in scan.pictures))
    with pytest.raises(DataError, match=r"6 of the 12 pictures"):
        adopt_split(renamed, other)


def test_unknown_pictures_and_classes_are_named():
    scan = grouped(2, 20, 5)
    other = make_split(scan)
    extra = replace(scan.pictures[0], path="new.png", sha256="f" * 64)
    with pytest.raises(DataError, match=r"1 of the 101 pictures .*'new\.png'"):
        adopt_split(replace(scan, pictures=(*scan.pictures, extra)), other)
    with pytest.raises(DataError, match=r"it has 'class2' besides"):
        adopt_split(replace(scan, classes=(*scan.classes, "class2")), other)


def test_a_split_that_leaves_a_part_empty_is_refused():
    scan = grouped(2, 20, 5)
    other = make_split(scan)
    kept = tuple(p for p in other.scan.pictures if p.split != "test")
    with pytest.raises(DataError, match="no pictures for test"):
        adopt_split(replace(scan, pictures=kept), other)
