"""Copies: of equal bytes, and of equal looks."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from skimage import data as photographs

from transferscope.data import Picture, Scan, Split
from transferscope.data.duplicates import (
    MAX_EMBEDDED,
    NearPair,
    _near_hashes,
    dedupe,
    duplicates_across,
    exact_duplicates,
    near_by_embedding,
    near_duplicates,
    refuse_duplicates,
)
from transferscope.data.inspection import THUMBNAIL, PictureFacts, measured
from transferscope.errors import DataError
from transferscope.images import read_with_facts

CLASSES = ("cat", "dog")


def set_of(*rows: tuple[str, str, str | None, str]) -> Scan:
    """Rows of (path, class, split, content)."""
    pictures = tuple(
        Picture(path, CLASSES.index(name), split, None, f"{content:0>64}")
        for path, name, split, content in rows
    )
    return Scan(Path("photos"), pictures, CLASSES, ())


def split_of(*rows: tuple[str, str, str | None, str]) -> Split:
    """With pictures enough beside them for every part and class."""
    filler = [
        (f"{part}/{name}/{n}", name, part, f"{part}{name}{n}")
        for part in ("train", "validation", "test")
        for name in CLASSES
        for n in range(2)
    ]
    return Split(set_of(*filler, *rows), (70, 15, 15), 0)


# ---------------------------------------------------------------------------- equal bytes


def test_equal_bytes_are_found_wherever_they_lie() -> None:
    scan = set_of(
        ("b", "dog", "test", "1"),
        ("a", "cat", "train", "1"),
        ("c", "cat", None, "2"),
        ("d", "cat", None, "1"),
    )
    (copies,) = exact_duplicates(scan)
    assert copies.paths == ("a", "b", "d")
    assert copies.classes == ("cat", "dog", "cat")
    assert copies.splits == ("train", "test", None)


def test_copies_across_splits_are_refused_with_the_pairs_named() -> None:
    rows = [(f"{part}{n}", "cat", part, str(n)) for n in range(7) for part in ("train", "test")]
    with pytest.raises(
        DataError, match=r"7 pictures .*'train0' and 'test0'.*'train4'.*; and 2 more.*--dedupe"
    ):
        refuse_duplicates(split_of(*rows))


def test_copies_within_a_split_are_no_leak() -> None:
    split = split_of(("a", "cat", "train", "1"), ("b", "cat", "train", "1"))
    refuse_duplicates(split)
    assert dedupe(split) == split


def test_dedupe_keeps_the_training_copies_alone() -> None:
    split = split_of(
        ("t", "cat", "train", "1"),
        ("u", "cat", "train", "1"),
        ("v", "cat", "validation", "1"),
        ("x", "dog", "test", "1"),
    )
    found = dedupe(split)
    assert duplicates_across(found) == []
    paths = {picture.path: picture for picture in found.scan.pictures}
    assert {"t", "u"} <= set(paths)
    reasons = dict(found.scan.excluded)
    assert reasons == {
        "v": "the same bytes as t, which is trained on",
        "x": "the same bytes as t, which is trained on as cat",
    }


def test_dedupe_moves_what_is_in_validation_and_test_into_training() -> None:
    split = split_of(("x", "cat", "test", "1"), ("w", "cat", "validation", "1"))
    found = dedupe(split)
    parts = {picture.path: picture.split for picture in found.scan.pictures}
    assert parts["w"] == "train"
    assert [path for path, _ in found.scan.excluded] == ["x"]
    assert Counter(parts.values())["test"] == 4


def test_dedupe_that_would_leave_no_test_pictures_is_refused() -> None:
    scan = set_of(
        *((f"{part}{name}", name, part, name) for part in ("train", "test") for name in CLASSES),
        ("v", "cat", "validation", "9"),
    )
    with pytest.raises(DataError, match="no pictures for test"):
        dedupe(Split(scan, (70, 15, 15), 0))


# ---------------------------------------------------------------------------- the search


def pairs_by_hand(hashes: np.ndarray, bits: int) -> set[tuple[int, int]]:
    return {
        (i, j)
        for i, j in combinations(range(len(hashes)), 2)
        if bin(int(hashes[i]) ^ int(hashes[j])).count("1") <= bits
    }


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.sets(st.integers(0, 63), max_size=11)), max_size=30),
    st.integers(0, 10),
)
def test_the_search_finds_the_near_hashes_and_no_others(
    seeds: list[int], flips: list[tuple[int, set[int]]], bits: int
) -> None:
    values = [*seeds]
    for at, places in flips:
        values.append(seeds[at % len(seeds)] ^ sum(1 << place for place in places))
    hashes = np.array(list(dict.fromkeys(values)), dtype=np.uint64)  # equal ones are chained: below
    found = [
        (min(i, j), max(i, j))
        for one, other in _near_hashes(hashes, bits)
        for i, j in zip(one.tolist(), other.tolist(), strict=True)
    ]
    assert len(found) == len(set(found))
    assert set(found) == pairs_by_hand(hashes, bits)


def test_equal_hashes_are_joined_without_comparing_all() -> None:
    hashes = np.zeros(50_000, dtype=np.uint64)
    (ends,) = _near_hashes(hashes, 8)
    assert len(ends[0]) == 49_999
    assert set(ends[0].tolist()) == {0}


def test_a_hundred_thousand_pictures_that_look_the_same() -> None:
    count = 100_000
    pictures = tuple(Picture(f"{n:06d}", 0, None, None, f"{n:064x}") for n in range(count))
    scan = Scan(Path("photos"), pictures, ("cat",), ())
    draw = np.random.default_rng(0)
    thumbnail = draw.integers(0, 255, (THUMBNAIL, THUMBNAIL, 3), dtype=np.uint8)
    same = np.broadcast_to(thumbnail, (count, *thumbnail.shape))
    zeros = np.zeros(count, dtype=np.uint64)
    ones = np.full(count, 2**64 - 1, dtype=np.uint64)
    assert len(near_duplicates(scan, zeros, ones, same)) == count - 1


# ---------------------------------------------------------------------------- looks


def photo(name: str) -> Image.Image:
    picture = Image.fromarray(getattr(photographs, name)()).convert("RGB")
    picture.thumbnail((320, 320))
    return picture


PHOTOS = ("astronaut", "coffee", "chelsea", "rocket", "camera", "coins")


def encoded(picture: Image.Image, quality: int = 90) -> PictureFacts:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    file.seek(0)
    return measured(*read_with_facts(file, least_side=256))


def near(facts: list[PictureFacts], **options: float) -> tuple[NearPair, ...]:
    pictures = tuple(Picture(str(n), n % 2, None, None, f"{n:064x}") for n in range(len(facts)))
    thumbnails = np.frombuffer(b"".join(one.thumbnail for one in facts), dtype=np.uint8)
    return near_duplicates(
        Scan(Path("photos"), pictures, CLASSES, ()),
        np.array([one.phash for one in facts], dtype=np.uint64),
        np.array([one.mirrored for one in facts], dtype=np.uint64),
        thumbnails.reshape(-1, THUMBNAIL, THUMBNAIL, 3),
        **options,
    )


def cropped(picture: Image.Image, share: float) -> Image.Image:
    width, height = picture.size
    left, top = round(width * share / 2), round(height * share / 2)
    return picture.crop((left, top, width - left, height - top))


CHANGES = {
    "encoded again": lambda p: encoded(p, 40),
    "half the size": lambda p: encoded(p.resize((p.width // 2, p.height // 2))),
    "brighter": lambda p: encoded(ImageEnhance.Brightness(p).enhance(1.08)),
    "cropped": lambda p: encoded(cropped(p, 0.02)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", PHOTOS)
def test_a_changed_copy_is_found(name: str, change: str) -> None:
    original = photo(name)
    pairs = near([encoded(original), CHANGES[change](original)])
    assert [pair.measure for pair in pairs] == ["phash"]
    assert pairs[0].classes == CLASSES


@pytest.mark.parametrize("name", PHOTOS)
def test_a_mirror_image_is_found_and_said_to_be_one(name: str) -> None:
    original = photo(name)
    mirrored = original.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    (pair,) = near([encoded(original), encoded(mirrored)])
    assert pair.measure == "mirrored phash"
    assert pair.distance <= 4


def test_different_photographs_are_not_near() -> None:
    assert near([encoded(photo(name)) for name in PHOTOS]) == ()


def test_one_thing_in_two_colours_is_not_near() -> None:
    red, green, blue = photo("coffee").split()
    assert (
        near(
            [
                encoded(Image.merge("RGB", order))
                for order in ((red, green, blue), (blue, green, red))
            ]
        )
        == ()
    )


def test_a_symmetric_picture_is_not_its_own_mirror_image() -> None:
    half = photo("astronaut")
    whole = Image.new("RGB", (2 * half.width, half.height))
    whole.paste(half, (0, 0))
    whole.paste(half.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (half.width, 0))
    assert near([encoded(whole), encoded(photo("rocket"))]) == ()


def test_blank_pictures_are_left_out() -> None:
    blank = [encoded(Image.new("RGB", (64, 64), colour)) for colour in ("white", "white", "grey")]
    assert near(blank) == ()


def test_equal_bytes_take_part_once() -> None:
    one = encoded(photo("coffee"))
    other = encoded(photo("coffee"), 50)
    pictures = tuple(
        Picture(path, 0, None, None, digest * 64)
        for path, digest in (("a", "1"), ("b", "1"), ("c", "2"))
    )
    facts = [one, one, other]
    thumbnails = np.frombuffer(b"".join(f.thumbnail for f in facts), dtype=np.uint8)
    pairs = near_duplicates(
        Scan(Path("photos"), pictures, ("cat",), ()),
        np.array([f.phash for f in facts], dtype=np.uint64),
        np.array([f.mirrored for f in facts], dtype=np.uint64),
        thumbnails.reshape(-1, THUMBNAIL, THUMBNAIL, 3),
    )
    assert [pair.paths for pair in pairs] == [("a", "c")]


def test_n_pictures_that_look_the_same_give_n_less_one_pairs() -> None:
    original = photo("chelsea")
    pairs = near([encoded(original, quality) for quality in (95, 80, 60, 45, 30)])
    assert len(pairs) == 4
    joined = {"0"}
    for _ in pairs:
        joined |= {end for pair in pairs for end in pair.paths if joined & set(pair.paths)}
    assert joined == set("01234")


# ---------------------------------------------------------------------------- features


def test_near_by_embedding_is_what_cosines_say() -> None:
    draw = np.random.default_rng(0)
    features = draw.normal(size=(1500, 16)).astype(np.float32)
    features[700] = 3 * features[3] + 0.01 * features[4]
    features[1400] = features[1399]
    pictures = tuple(
        Picture(f"{n:04d}", 0, None, None, f"{min(n, 1399):064x}") for n in range(1500)
    )
    scan = Scan(Path("photos"), pictures, ("cat",), ())
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = np.triu(unit @ unit.T, 1)
    cosines[1399:, 1399:] = 0  # from there on, files of equal bytes
    expected = {(f"{i:04d}", f"{j:04d}") for i, j in np.argwhere(cosines >= 0.95)}
    found = near_by_embedding(scan, features, least_cosine=0.95)
    assert {pair.paths for pair in found} == expected
    assert ("0003", "0700") in expected
    assert found[0].distance == pytest.approx(0, abs=1e-4)
    assert {pair.measure for pair in found} == {"embedding"}


def test_too_many_pictures_for_embeddings_are_refused() -> None:
    scan = Scan(Path("photos"), (), (), ())
    with pytest.raises(ValueError, match=str(MAX_EMBEDDED)):
        near_by_embedding(scan, np.zeros((MAX_EMBEDDED + 1, 1), dtype=np.float32))


def test_no_pictures_and_one_picture() -> None:
    assert near([]) == ()
    assert near([encoded(photo("coffee"))]) == ()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scan = replace(set_of(("a", "cat", None, "1")))
        assert near_by_embedding(scan, np.ones((1, 4), dtype=np.float32)) == ()
