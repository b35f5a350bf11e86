"""Thin, mutated and odd pictures through scan, inspection, training's crops and prediction, at a memory limit.

    python benchmarks/odd_pictures.py [--pictures 10000] [--limit-gb 2] [--out DIR]

Expected: no crash, and every file is among the pictures or among those left out with a reason. The limit
of the address space (`RLIMIT_AS`) is set so that memory in use cannot grow above it: what libraries reserve
and do not use is not counted. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import struct
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "AVIF", "JPEG2000", "TGA")
ENDINGS = (".jpg", ".png", "", ".heic", ".txt", ".jpeg~", ".tif", ".tga")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--limit-gb", type=float, default=2.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = given.out or Path(temporary) / "set"
        shapes = build(root, given.pictures)
        print(json.dumps(measure(root, shapes, given.limit_gb)))


def measure(root: Path, shapes: Counter[str], limit_gb: float) -> dict[str, object]:
    """Everything that reads pictures, once; what it took and what it left out."""
    import torch

    from transferscope.backbones.classifier import Classifier
    from transferscope.data.augmentation import augmentation
    from transferscope.data.exclusions import summary
    from transferscope.images import InputSpec
    from transferscope.workflows.inspect import inspect
    from transferscope.workflows.predict import predict

    spec = InputSpec()
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 7, 4),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 2),
    )
    classifier = Classifier(network.eval(), spec, ["a", "b"])
    predict(classifier, [root / "a" / "p0.png"])  # libraries that are loaded late
    reserved, used = (int(pages) * resource.getpagesize() for pages in statm())
    limit = int(limit_gb * 2**30) - used + reserved
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    began = time.perf_counter()
    found = inspect(root).scan
    left: list[tuple[str, str]] = []
    answers = predict(classifier, [root], on_excluded=left.extend)
    crops = 0
    light = augmentation("light", flip=True)
    for picture in found.pictures[::10]:
        file = found.file(picture)
        light.load(file, spec, seed=0, view=0, identity=picture.sha256)
        crops += 1
    told = len(found.pictures) + len(found.excluded)
    assert told == sum(shapes.values()), "a file is neither taken nor told"
    assert len(answers) + len(left) == told, "prediction takes other files than inspection"
    read = {answer.path for answer in answers if not answer.error}
    assert read == {str(found.file(picture)) for picture in found.pictures}
    return {
        "files": told,
        "shapes": dict(shapes),
        "pictures": len(found.pictures),
        "left_out": summary(found.excluded),
        "crops": crops,
        "limit_gb": limit_gb,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "seconds": round(time.perf_counter() - began, 1),
    }


def statm() -> list[str]:
    """Pages reserved, and pages in use."""
    return Path("/proc/self/statm").read_text().split()[:2]


def build(root: Path, count: int) -> Counter[str]:
    """Files of every odd kind in two classes; how many of each."""
    draw = np.random.default_rng(0)
    made: Counter[str] = Counter()
    makers = (thin, mutated, cut, bomb, texts, odd)
    for number in range(count):
        maker = makers[number % len(makers)]
        content = maker(draw)
        ending = ENDINGS[int(draw.integers(len(ENDINGS)))]
        folder = root / "ab"[number // len(makers) % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:05d}{ending}").write_bytes(content)
        made[maker.__name__] += 1
    for name in "ab":  # enough that is plain
        for number in range(20):
            Image.fromarray(draw.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(
                root / name / f"p{number}.png"
            )
            made["plain"] += 1
    return made


def encoded(draw: np.random.Generator, size: tuple[int, int], kind: str | None = None) -> bytes:
    kind = kind or KINDS[int(draw.integers(len(KINDS)))]
    if kind == "ICO":
        size = (min(size[0], 256), min(size[1], 256))
    if kind in ("AVIF", "WEBP"):
        size = (min(size[0], 2000), min(size[1], 2000))
    file = io.BytesIO()
    colour = tuple(int(value) for value in draw.integers(0, 256, 3))
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def thin(draw: np.random.Generator) -> bytes:
    long, short = int(draw.integers(1_000, 60_000)), int(draw.integers(1, 6))
    kind = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "PPM")[int(draw.integers(6))]
    return encoded(draw, (long, short) if draw.random() < 0.5 else (short, long), kind)


def mutated(draw: np.random.Generator) -> bytes:
    content = bytearray(encoded(draw, (int(draw.integers(8, 80)), int(draw.integers(8, 80)))))
    for _ in range(int(draw.integers(1, 12))):
        at = int(draw.integers(min(len(content), 600)))
        content[at] = int(draw.integers(256))
    return bytes(content)


def cut(draw: np.random.Generator) -> bytes:
    content = encoded(draw, (60, 40))
    return content[: int(draw.integers(len(content)))]


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def bomb(draw: np.random.Generator) -> bytes:
    """A header of many pixels, few bytes behind it."""
    width, height = int(10 ** draw.uniform(0, 7)), int(10 ** draw.uniform(0, 7))
    header = struct.pack(">IIBBBBB", width, height, 8, (0, 2, 6)[int(draw.integers(3))], 0, 0, 0)
    rows = zlib.compress(bytes(int(10 ** draw.uniform(1, 6))), 1)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def texts(draw: np.random.Generator) -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("prompt", "x" * int(10 ** draw.uniform(2, 6.7)), zip=True)
    file = io.BytesIO()
    Image.new("RGB", (20, 30), "red").save(file, "PNG", pnginfo=text)
    return file.getvalue()


def odd(draw: np.random.Generator) -> bytes:
    """Signs of a format before noise, and noise alone."""
    starts = (
        b"",
        b"BM",
        b"P6 9 9 255 ",
        b"\0\0\1\0",
        b"\xff\xd8\xff",
        b"GIF89a",
        b"II*\0",
        b"MM\0*",
        b"8BPS",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        b"\0\0\0\x1cftypavif",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"<svg ",
    )
    start = starts[int(draw.integers(len(starts)))]
    return start + draw.integers(0, 256, int(draw.integers(0, 300)), dtype=np.uint8).tobytes()


if __name__ == "__main__":
    main()
