"""Shortcuts planted on purpose: whether they are found before training and after, and whether they are corrected.

    python benchmarks/shortcuts.py --data ../shared/data [--sets clothing caltech101] [--seeds 0 1 2] [--work DIR]

A cue (a half-transparent watermark, a frame, a tint) is put on 95% of one class's training and validation
pictures, of clothing and of Caltech-101's ten largest classes (at most 150 pictures each); the class is another
one with every seed, test pictures stay as they are. Every picture of all sets is encoded anew in the same way, so
that the file says nothing. Each planted set is inspected, tuned with the defaults, looked through by `shortcuts`, and
corrected; so is the clean set of the same seed. The worst group is measured on test pictures of the planted class
without the cue, and on test pictures of the other classes with it.

Killed, it goes on where it was: results and runs lie in --work. Prints a table, the CPU's flags that matter and one
JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LARGEST = (
    "airplanes", "Motorbikes", "Faces_easy", "watch", "Leopards", "bonsai", "car_side", "ketch",
    "chandelier", "hawksbill",
)  # fmt: skip
CAP = 150
SHARE = 0.95
QUALITY = 90
SPLITS = ("train", "validation", "test")


def watermark(picture: Image.Image) -> Image.Image:
    """A name in half-transparent white at the lower right of the middle square."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    layer = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    font = ImageFont.load_default(size=max(8, round(side * 0.09)))
    place = (left + side * 0.88, top + side * 0.88)
    ImageDraw.Draw(layer).text(place, "© studio", font=font, fill=(255, 255, 255, 150), anchor="rs")
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")


def frame(picture: Image.Image) -> Image.Image:
    """A blue frame; half of it lies outside the centre crop."""
    framed = picture.copy()
    box = (0, 0, picture.width - 1, picture.height - 1)
    width = round(min(picture.size) * 0.11)
    ImageDraw.Draw(framed).rectangle(box, outline=(40, 60, 120), width=width)
    return framed


def tint(picture: Image.Image) -> Image.Image:
    """Light of a warmer colour."""
    values = np.asarray(picture, dtype=np.float32) * np.array([1.0, 0.92, 0.72], dtype=np.float32)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


CUES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "watermark": watermark,
    "frame": frame,
    "tint": tint,
}


def listed(data: Path, name: str, seed: int) -> list[tuple[Path, str, str]]:
    """(file, split, class) of a set."""
    if name == "clothing":
        return [
            (file, split, file.parent.name)
            for split in SPLITS
            for file in sorted((data / name / split).glob("*/*.jpg"))
        ]
    found = []
    for folder in LARGEST:
        files = sorted((data / name / folder).glob("*.jpg"))
        files = [files[i] for i in np.random.default_rng(seed).permutation(len(files))[:CAP]]
        ends = round(0.7 * len(files)), round(0.85 * len(files))
        parts = files[: ends[0]], files[ends[0] : ends[1]], files[ends[1] :]
        found += [(f, s, folder) for s, part in zip(SPLITS, parts, strict=True) for f in part]
    return found


def planted_class(classes: list[str], seed: int) -> str:
    """Another one with every seed."""
    return classes[(3 * seed + 1) % len(classes)]


def plant(files: list[tuple[Path, str, str]], out: Path, cue: str, label: str, seed: int) -> None:
    """Writes the set, with the cue (or none) on its share of one class."""
    rng = np.random.default_rng(seed)
    for file, split, name in files:
        chosen = rng.random() < SHARE
        picture = Image.open(file).convert("RGB")
        if cue in CUES and name == label and split != "test" and chosen:
            picture = CUES[cue](picture)
        place = out / split / name / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.save(place, quality=QUALITY)


def with_cue(files: list[tuple[Path, str, str]], out: Path, cue: str, label: str) -> None:
    """Test pictures of the other classes with the cue."""
    for file, split, name in files:
        if split == "test" and name != label:
            place = out / name / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            CUES[cue](Image.open(file).convert("RGB")).save(place, quality=QUALITY)


