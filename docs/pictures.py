"""Draws the comparisons of docs/visualize.md again, and prints their figures.

    python docs/pictures.py --data caltech101/ --out docs/

Writes parametrizations.webp, caricatures.webp and diversity.webp.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import transferscope as ts
from transferscope.images import as_float
from transferscope.visualize.objectives.penalties import high_frequency_energy
from transferscope.visualize.records import Render

LAYER, CHANNELS, GAP = "blocks.4.2", (0, 3), 4
PHOTO = "Leopards/image_0003.jpg"


def joined(rows: list[list[np.ndarray]], side: int) -> Image.Image:
    """Pictures in rows, each `side` pixels wide."""
    step = side + GAP
    page = Image.new("RGB", (step * len(rows[0]) - GAP, step * len(rows) - GAP), "white")
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            small = Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS)
            page.paste(small, (column * step, row * step))
    return page


def told(drawn: Render) -> str:
    """Activation, and the share of power above 0.25 cycles a pixel."""
    pixels = torch.from_numpy(drawn.picture).permute(2, 0, 1)[None] / 255
    return f"{drawn.activation:.1f} ({float(high_frequency_energy(pixels, 0.25)):.1%})"


def main() -> None:
    """Draws and saves them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="Caltech-101, class folders")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    args = parser.parse_args()
    classifier = ts.load_backbone("efficientnet_lite0")

    def save(name: str, rows: list[list[np.ndarray]], side: int) -> None:
        joined(rows, side).save(args.out / name, quality=82, method=6)

    files = sorted(args.data.rglob("*.jpg"))
    chosen = np.random.default_rng(0).choice(len(files), 200, replace=False)
    photos = torch.stack([as_float(classifier.input.load(files[n])) for n in chosen])
    ways = {
        "fourier": ts.fourier,
        "pixel": ts.pixel,
        "maco": ts.maco,
        "maco, 200 photographs": partial(ts.maco, magnitude=ts.spectrum_of(photos)),
    }
    drawn = {
        name: [ts.render(classifier, ts.channel(LAYER, c), parametrization=way) for c in CHANNELS]
        for name, way in ways.items()
    }
    for name, both in drawn.items():
        print(f"{name}: {', '.join(map(told, both))}")
    rows = [[both[row].picture for both in drawn.values()] for row in range(len(CHANNELS))]
    save("parametrizations.webp", rows, 182)

    photo = args.data / PHOTO
    seen = classifier.input.load(photo).permute(1, 2, 0).numpy()
    shown = [seen]
    for layer in ("blocks.2.1", "blocks.4.2", "blocks.5.3"):
        target = ts.caricature_target(classifier, layer, photo)
        shown.append(ts.render(classifier, ts.caricature(layer, target)).picture)
    save("caricatures.webp", [shown], 224)

    alone = [ts.render(classifier, ts.channel(LAYER, 3), seed=seed) for seed in range(4)]
    both = ts.channel(LAYER, 3) + 20 * ts.diversity(LAYER)
    together = ts.render_together(classifier, both, 4)
    for name, four in (("alone", alone), ("diverse", together)):
        print(f"{name}: {', '.join(f'{one.activation:.1f}' for one in four)}")
    save("diversity.webp", [[one.picture for one in four] for four in (alone, together)], 168)


if __name__ == "__main__":
    main()
