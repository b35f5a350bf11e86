"""An inspection's numbers are those of a slow count, and survive being written down."""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections import Counter
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image

import inspection_content as made
from transferscope.data.duplicates import Copies, NearPair
from transferscope.data.inspection import (
    COLUMNS,
    OUTLIER_Z,
    QUANTILES,
    THUMBNAIL,
    Inspection,
    across_classes,
    across_splits,
    measured,
)
from transferscope.data.scan import Scan
from transferscope.files import read_csv, read_json
from transferscope.images import FileFacts


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Inspection:
    return made.inspection(tmp_path_factory.mktemp("set"))


def bare(*tones: tuple[float, float]) -> Inspection:
    """An inspection of pictures with these brightnesses and contrasts."""
    whole = made.many(1, len(tones))
    facts = tuple(
        dataclasses.replace(one, brightness=light, contrast=contrast)
        for one, (light, contrast) in zip(whole.facts, tones, strict=True)
    )
    return dataclasses.replace(whole, facts=facts)


# ---------------------------------------------------------------------------- measuring


@pytest.mark.parametrize("size", [(224, 224), (31, 500), (1, 1)])
def test_tones_are_those_of_the_pixels(size: tuple[int, int]) -> None:
    draw = np.random.default_rng(3)
    picture = Image.fromarray(draw.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    one = measured(picture, FileFacts("PNG", "RGB", size, False))
    pixels = np.asarray(picture.convert("L"), dtype=np.float64) / 255
    assert one.brightness == pytest.approx(pixels.mean(), abs=1e-9)
    assert one.contrast == pytest.approx(pixels.std(), abs=1e-9)
    assert (one.width, one.height) == size
    assert len(one.thumbnail) == 3 * THUMBNAIL**2


def test_the_hash_is_imagehashs() -> None:
    ramp = np.add.outer(np.arange(64) * 3, np.arange(64)).astype(np.uint8)
    picture = Image.fromarray(ramp)
    one = measured(picture, FileFacts("PNG", "L", (64, 64), False))
    assert f"{one.phash:016x}" == str(imagehash.phash(picture))


# ---------------------------------------------------------------------------- summaries


def test_counts_are_those_of_a_slow_count(record: Inspection) -> None:
    slow = Counter((picture.label, picture.split) for picture in record.scan.pictures)
    counts = record.counts()
    assert list(counts) == list(record.scan.classes)
    assert record.splits == ("train", "validation", "test")
    for label, name in enumerate(record.scan.classes):
        assert counts[name] == {split: slow[label, split] for split in record.splits}
    assert counts["0"] == {"train": 13, "validation": 4, "test": 2}
    assert record.imbalance == pytest.approx(13 / 3)


def test_a_set_without_splits_has_the_one_part_all() -> None:
    record = made.many(3, 5)
    slow = Counter(picture.label for picture in record.scan.pictures)
    assert record.splits == ("all",)
    assert [parts["all"] for parts in record.counts().values()] == [
        slow[label] for label in range(3)
    ]
    assert record.to_dict()["splits"] == {}


def test_pictures_without_a_class_are_in_no_class() -> None:
    record = made.many(2, 4)
    first = dataclasses.replace(record.scan.pictures[0], label=None)
    pictures = (first, *record.scan.pictures[1:])
    less = dataclasses.replace(record, scan=dataclasses.replace(record.scan, pictures=pictures))
    assert sum(parts["all"] for parts in less.counts().values()) == len(pictures) - 1
    assert less.to_dict()["n"] == len(pictures)


def test_sizes_are_quantiles_by_class(record: Inspection) -> None:
    sizes = record.sizes()
    assert set(sizes) == {None, *record.scan.classes}
    for label, name in enumerate(record.scan.classes):
        own = [
            (one.width, one.height)
            for picture, one in zip(record.scan.pictures, record.facts, strict=True)
            if picture.label == label
        ]
        middle = QUANTILES.index(0.5)
        assert sizes[name]["width"][middle] == statistics.median(w for w, _ in own)
        assert sizes[name]["height"][middle] == statistics.median(h for _, h in own)
        assert sizes[name]["aspect"][-1] == max(w / h for w, h in own)


def test_kinds_of_files_are_counted(record: Inspection) -> None:
    assert record.formats == dict(Counter(one.format for one in record.facts).most_common())
    assert record.modes == {"RGB": len(record.facts)}
    assert record.animated == 0


def test_outliers_are_told_by_reason_the_farthest_first() -> None:
    usual = 3 * [(0.5 + 0.01 * step, 0.2 + 0.005 * step) for step in range(-10, 11)]
    odd = [(1.0, 0.0), (0.02, 0.15), (0.1, 0.2), (0.97, 0.15), (0.5, 0.012), (0.5, 0.45)]
    record = bare(*usual, *odd)
    found = [(one.reason, one.value) for one in record.outliers]
    assert found == [
        ("blank", 0.0),
        ("dark", 0.02),
        ("dark", 0.1),
        ("bright", 0.97),
        ("flat", 0.012),
        ("harsh", 0.45),
    ]
    lights = [light for light, _ in [*usual, *odd]]
    middle = statistics.median(lights)
    scale = 1.4826 * statistics.median(abs(light - middle) for light in lights)
    assert record.outliers[1].z == pytest.approx((0.02 - middle) / scale)
    assert all(abs(one.z) > OUTLIER_Z for one in record.outliers[1:])


def test_in_a_set_of_equals_a_small_difference_is_no_outlier() -> None:
    record = bare(*[(0.5, 0.2)] * 20, (0.56, 0.23))
    assert record.outliers == ()


def test_what_a_tenth_of_the_set_is_like_is_no_outlier() -> None:
    day, night = [(0.6, 0.2)] * 90, [(0.1, 0.2)] * 10
    assert bare(*day, *night).outliers == ()
    assert len(bare(*day, *night[:4]).outliers) == 4


def test_leaks_and_conflicts() -> None:
    paths, same = ("a", "b"), ("cat", "cat")
    assert across_splits(Copies(paths, same, ("train", "test")))
    assert not across_splits(Copies(paths, same, ("train", None)))
    assert across_classes(NearPair(paths, ("cat", "dog"), (None, None), "phash", 0.0))
    assert not across_classes(NearPair(paths, ("cat", None), (None, None), "phash", 0.0))


# ---------------------------------------------------------------------------- written down


def test_the_json_keys_hold(record: Inspection) -> None:
    told = json.loads(json.dumps(record.to_dict(), allow_nan=False))
    assert told["n"] == len(record.scan.pictures)
    assert told["classes"] == record.scan.counts()
    assert told["excluded"] == [
        {
            "path": "train/0/bad.png",
            "reason": "its bytes are not of a picture format that is read here",
        }
    ]
    assert told["duplicates"][0]["paths"] == list(record.duplicates[0].paths)
    assert told["near_duplicates"][0]["measure"] == "phash"
    assert told["splits"]["train"] == {"0": 13, made.CLASSES[1]: 6, "قطة": 3}
    assert [one["path"] for one in told["outliers"] if one["reason"] == "blank"] == [
        "train/0/blank.png"
    ]


def test_an_empty_set_is_told_too(tmp_path: Path) -> None:
    empty = Inspection(Scan(tmp_path, (), (), (("a.jpg", "the file is empty"),)), (), (), ())
    told = json.loads(json.dumps(empty.to_dict(), allow_nan=False))
    assert (told["n"], told["classes"], told["imbalance"]) == (0, {}, None)
    assert empty.outliers == ()


def test_what_was_saved_is_read_back(record: Inspection, tmp_path: Path) -> None:
    record.save(tmp_path)
    rows = read_csv(tmp_path / "pictures.csv")
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == len(record.scan.pictures)
    assert read_json(tmp_path / "inspection.json") == json.loads(json.dumps(record.to_dict()))
    back = Inspection.load(tmp_path, root=record.scan.root)
    assert back == made.without_thumbnails(record)
    assert back.to_dict() == record.to_dict()


def test_a_hundred_thousand_pictures_are_summed_up_in_seconds() -> None:
    record = made.many(1000, 100)
    start = time.perf_counter()
    told = record.to_dict()
    assert time.perf_counter() - start < 10  # about 1 on an idle machine
    assert sum(told["classes"].values()) == told["n"] == 100_000
