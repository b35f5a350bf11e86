"""How many changed copies of photographs are found again, and how many pairs a set has.

    python benchmarks/lookalikes.py --data photos/ [--sample 400]

Pictures of the set are changed on purpose (encoded again, halved, brightened, cropped, mirrored) and each is
looked for beside its original. Prints one JSON line: the share found of every change, and the number of
pairs in the set itself, by measure.
"""

from __future__ import annotations

import argparse
import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from transferscope.data.inspection import THUMBNAIL, PictureFacts, measured
from transferscope.data.loading import in_order
from transferscope.data.lookalikes import near_duplicates
from transferscope.data.scan import Picture, Scan, scan
from transferscope.images import FileFacts, read_picture, read_with_facts


def encoded(picture: Image.Image, quality: int = 85) -> PictureFacts:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    file.seek(0)
    return measured(*read_with_facts(file, least_side=256))


def halved(picture: Image.Image) -> Image.Image:
    return picture.resize((max(1, picture.width // 2), max(1, picture.height // 2)))


def without_border(picture: Image.Image) -> Image.Image:
    x, y = round(0.01 * picture.width), round(0.01 * picture.height)
    return picture.crop((x, y, picture.width - x, picture.height - y))


def without_corner(picture: Image.Image) -> Image.Image:
    x, y = round(0.02 * picture.width), round(0.02 * picture.height)
    return picture.crop((x, y, picture.width, picture.height))


def brighter(picture: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(1.05)


CHANGES: dict[str, Callable[[Image.Image], PictureFacts]] = {
    "quality 40": lambda picture: encoded(picture, 40),
    "half the size": lambda picture: encoded(halved(picture)),
    "5% brighter": lambda picture: encoded(brighter(picture)),
    "2% less at the borders": lambda picture: encoded(without_border(picture)),
    "2% less at one corner": lambda picture: encoded(without_corner(picture)),
    "mirrored": lambda picture: encoded(ImageOps.mirror(picture)),
    "all but the last two": lambda picture: encoded(halved(brighter(without_border(picture))), 40),
}


def pairs_of(found: Scan, facts: list[PictureFacts]) -> Counter[str]:
    thumbnails = np.frombuffer(b"".join(one.thumbnail for one in facts), dtype=np.uint8)
    pairs = near_duplicates(
        found,
        np.array([one.phash for one in facts], dtype=np.uint64),
        np.array([one.mirrored for one in facts], dtype=np.uint64),
        thumbnails.reshape(-1, THUMBNAIL, THUMBNAIL, 3),
    )
    return Counter(pair.measure for pair in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sample", type=int, default=400)
    given = parser.parse_args()
    facts: dict[str, PictureFacts] = {}

    def measure(picture: Picture, decoded: Image.Image, file: FileFacts) -> None:
        facts[picture.path] = measured(decoded, file)

    found = scan(given.data, lenient=True, measure=measure)
    chosen = np.random.default_rng(0).permutation(len(found.pictures))[: given.sample]
    two = Scan(
        Path(), (Picture("a", 0, None, None, "1"), Picture("b", 0, None, None, "2")), ("x",), ()
    )

    def found_again(place: int) -> list[bool]:
        picture = read_picture(found.file(found.pictures[place]))
        original = encoded(picture, 95)
        return [bool(pairs_of(two, [original, change(picture)])) for change in CHANGES.values()]

    rows = np.array(list(in_order(found_again, chosen.tolist())))
    result = {
        "pictures": len(found.pictures),
        "sample": len(chosen),
        "found": {name: round(float(s), 3) for name, s in zip(CHANGES, rows.mean(0), strict=True)},
        "pairs": dict(pairs_of(found, [facts[picture.path] for picture in found.pictures])),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
