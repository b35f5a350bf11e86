"""A set of pictures made up for its inspection: three classes, copies, leaks, blanks, a bad file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from transferscope.data.duplicates import Copies, NearPair
from transferscope.data.inspection import Inspection, PictureFacts, measured
from transferscope.data.scan import Picture, Scan, scan
from transferscope.images import FileFacts

NASTY = "<b>猫 & \"狗\"</b> $x^2$ '_'"
CLASSES = ("0", NASTY.replace("/", "|"), "قطة")
"""Class folders: a name with every special letter that a folder's name can have, and other scripts."""


def write_set(root: Path) -> Path:
    """Pictures under split folders: 12, 6 and 3 training, 4 validation and 2 test ones, a bad file."""
    draw = np.random.default_rng(0)
    for label, (name, train) in enumerate(zip(CLASSES, (12, 6, 3), strict=True)):
        for split, count in (("train", train), ("val", 4 - label), ("test", 2)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = draw.integers(60, 190, (24 + 8 * label, 32, 3), dtype=np.uint8)
                suffix = "png" if label == 1 else "jpg"
                Image.fromarray(noise).save(folder / f"片 #%{number}.{suffix}")
    Image.new("RGB", (40, 40), "white").save(root / "train" / "0" / "blank.png")
    (root / "train" / "0" / "bad.png").write_bytes(b"not a picture")
    return root


def inspection(root: Path) -> Inspection:
    """Of `write_set`, with copies and near duplicates put in by hand."""
    facts: dict[str, PictureFacts] = {}

    def measure(picture: Picture, decoded: Image.Image, file: FileFacts) -> None:
        facts[picture.path] = measured(decoded, file)

    found = scan(write_set(root), lenient=True, measure=measure)

    def of(split: str, label: int) -> Picture:
        return next(p for p in found.pictures if p.split == split and p.label == label)

    train, test, other = of("train", 0), of("test", 0), of("train", 1)
    first, second = sorted((train.path, test.path))
    splits = ("test", "train") if first == test.path else ("train", "test")
    return Inspection(
        found,
        tuple(facts[picture.path] for picture in found.pictures),
        (Copies((first, second), ("0", "0"), splits),),
        (
            NearPair((second, other.path), ("0", CLASSES[1]), ("train", "train"), "phash", 2.0),
            NearPair((first, second), ("0", "0"), splits, "embedding", 0.01),
        ),
    )


def many(classes: int, each: int, *, seed: int = 0) -> Inspection:
    """Facts alone, without files: one or more and on average `each` pictures of a class, in no split."""
    draw = np.random.default_rng(seed)
    further = draw.integers(0, classes, classes * (each - 1))
    labels = np.sort(np.concatenate([np.arange(classes), further]))
    sizes = draw.integers(100, 900, (len(labels), 2)).tolist()
    tones = draw.uniform(0.2, 0.45, (len(labels), 2)).tolist()
    names = tuple(f"class <{number:04d}> 猫" for number in range(classes))
    pictures = tuple(
        Picture(f"{names[label]}/{number}.jpg", int(label), None, None, f"{number:064x}")
        for number, label in enumerate(labels)
    )
    facts = tuple(
        PictureFacts(width, height, "RGB", "JPEG", False, light, contrast, number, 0, b"")
        for number, ((width, height), (light, contrast)) in enumerate(
            zip(sizes, tones, strict=True)
        )
    )
    return Inspection(Scan(Path("nowhere"), pictures, names, ()), facts, (), ())


def without_thumbnails(record: Inspection) -> Inspection:
    """What `Inspection.load` gives back of it."""
    facts = tuple(dataclasses.replace(one, thumbnail=b"", mirrored=0) for one in record.facts)
    return dataclasses.replace(record, facts=facts)
