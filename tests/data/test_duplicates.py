"""Copies: of equal bytes, and of equal looks."""

from __future__ import annotations

import io
import time
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

from transferscope.data import lookalikes
from transferscope.data.duplicates import (
    NearPair,
    dedupe,
    duplicates_across,
    exact_duplicates,
    refuse_duplicates,
)
from transferscope.data.inspection import THUMBNAIL, PictureFacts, measured
from transferscope.data.lookalikes import (
    MAX_EMBEDDED,
    MOST_DIFFERENCE,
    near_by_embedding,
    near_duplicates,
)
from transferscope.data.scan import Picture, Scan
from transferscope.data.split import Split
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
        DataError,
        match=r"7 pairs of them: .*'train0' \(train\) and 'test0' \(test\).*'train4'.*; and 2 more.*--dedupe",
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


def alone(count: int) -> Scan:
    pictures = tuple(Picture(f"{n:06d}", 0, None, None, f"{n:064x}") for n in range(count))
    return Scan(Path("photos"), pictures, ("cat",), ())


def thumbnails_of(kinds: list[int]) -> np.ndarray:
    """The same for the same kind, and unlike for others."""
    draw = np.random.default_rng(0)
    of_kind = draw.integers(0, 255, (max(kinds) + 1, THUMBNAIL, THUMBNAIL, 3), dtype=np.uint8)
    return of_kind[kinds]


def flipped(value: int, places: set[int]) -> int:
    return value ^ sum(1 << place for place in places)


FAR = [int(x) for x in np.random.default_rng(7).integers(0, 2**64, 200, dtype=np.uint64)]


def test_neighbours_that_are_looked_up_are_those_of_all_pairs() -> None:
    draw = np.random.default_rng(4)
    seeds = draw.integers(0, 2**64, 60, dtype=np.uint64)
    hashes = np.concatenate([seeds, *(seeds for _ in range(4))])
    for place in range(60, len(hashes)):
        for bit in draw.choice(64, int(draw.integers(0, 12)), replace=False):
            hashes[place] ^= np.uint64(1) << np.uint64(bit)
    for bits in (0, 1, 7, 8):
        found = {
            (int(i), int(j))
            for one, other in lookalikes._looked_up(hashes, bits)
            for i, j in zip(one, other, strict=True)
        }
        near = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= bits
        assert found == {
            (int(i), int(j)) for i, j in zip(*np.nonzero(np.triu(near, 1)), strict=True)
        }


def test_a_large_set_joins_what_a_small_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = np.array([flipped(FAR[n % 5], set(range(n // 5))) for n in range(40)], dtype=np.uint64)
    given_ = (alone(40), hashes, ~hashes, thumbnails_of([0] * 40))
    small = near_duplicates(*given_)
    monkeypatch.setattr(lookalikes, "_MANY", 1)
    large = near_duplicates(*given_)
    assert small == large
    assert len(large) > 5


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2), st.sets(st.integers(0, 63), max_size=7)),
        min_size=2,
        max_size=24,
    ),
    st.integers(0, 10),
)
def test_what_is_joined_is_what_comparing_all_pairs_joins(
    rows: list[tuple[int, int, set[int]]], bits: int
) -> None:
    hashes = [flipped(FAR[seed], places) for seed, _, places in rows]
    kinds = [kind for _, kind, _ in rows]
    mirrored = np.array(FAR[10 : 10 + len(rows)], dtype=np.uint64)
    found = near_duplicates(
        alone(len(rows)),
        np.array(hashes, dtype=np.uint64),
        mirrored,
        thumbnails_of(kinds),
        bits=bits,
    )
    edges = {
        (i, j)
        for i, j in combinations(range(len(rows)), 2)
        if kinds[i] == kinds[j] and (hashes[i] ^ hashes[j]).bit_count() <= bits
    }
    given_ = {(int(pair.paths[0]), int(pair.paths[1])) for pair in found}
    assert given_ <= edges
    assert components(len(rows), given_) == components(len(rows), edges)
    assert len(given_) == len(rows) - len(components(len(rows), edges))
    for pair in found:
        i, j = map(int, pair.paths)
        assert pair.distance == (hashes[i] ^ hashes[j]).bit_count()


def components(count: int, edges: set[tuple[int, int]]) -> set[frozenset[int]]:
    groups = {place: {place} for place in range(count)}
    for i, j in edges:
        if groups[i] is not groups[j]:
            groups[i] |= groups[j]
            for place in groups[j]:
                groups[place] = groups[i]
    return {frozenset(group) for group in groups.values()}


def test_equal_hashes_that_look_different_hide_nobody() -> None:
    hashes = np.array([8, 8, 8, 9], dtype=np.uint64)
    mirrored = np.array(FAR[:4], dtype=np.uint64)
    found = near_duplicates(alone(4), hashes, mirrored, thumbnails_of([0, 1, 1, 1]))
    assert [(pair.paths, pair.distance) for pair in found] == [
        (("000001", "000002"), 0.0),
        (("000001", "000003"), 1.0),
    ]


def test_thousands_of_frames_of_one_scene_take_seconds() -> None:
    draw = np.random.default_rng(0)
    bits = draw.random((6000, 64)) < 0.06
    hashes = np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)
    began = time.perf_counter()
    found = near_duplicates(alone(6000), hashes, ~hashes, thumbnails_of([0] * 6000))
    assert time.perf_counter() - began < 30
    assert len(found) > 5900


def test_a_hundred_thousand_pictures_that_look_the_same() -> None:
    count = 100_000
    scan = alone(count)
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


def test_one_scene_with_a_part_in_another_colour_is_not_near() -> None:
    original = photo("coffee")
    red, green, blue = original.split()
    changed = original.copy()
    width, height = original.size
    box = (width // 4, height // 4, width // 2, height // 2)
    changed.paste(Image.merge("RGB", (blue, green, red)).crop(box), box[:2])
    one, other = encoded(original), encoded(changed)
    assert (one.phash ^ other.phash).bit_count() <= 8
    pixels = [
        np.frombuffer(facts.thumbnail, dtype=np.uint8).astype(float) for facts in (one, other)
    ]
    assert np.abs(pixels[0] - pixels[1]).mean() / 255 < MOST_DIFFERENCE  # on average, not enough
    assert near([one, other]) == ()


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
