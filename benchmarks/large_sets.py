"""A set of 100,000 pictures and 1,000 classes, within a memory that laptops have.

    python benchmarks/large_sets.py [--pictures 100000] [--classes 1000] [--width 1280] [--gigabytes 4]
        [--without-probe]

Features are synthetic: a seeded centre a class, and noise around it as wide as makes a few in a hundred
pictures look like another class. What is timed is what such a set grows with: the probe with its choice of
strength (as `tune` fits it), every figure of an evaluation, the order of the classes, the study of errors and
labels, and the search for lookalikes among as many hashes. The process may not take more than
`--gigabytes` of memory at its peak, features included: the run fails otherwise. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from transferscope.data.lookalikes import near_duplicates
from transferscope.data.scan import Picture, Scan
from transferscope.evaluation.calibration import fit_temperature
from transferscope.evaluation.class_order import class_order
from transferscope.evaluation.metrics import evaluate
from transferscope.evaluation.mistakes import error_study
from transferscope.evaluation.predictions import Predictions
from transferscope.features.probe import fit_probe
from transferscope.machine import cpu_flags

_PART = 4096
_SPREAD = 2.5  # of the noise, where neighbouring centres are about 1.4 apart


def synthetic(pictures: int, classes: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features float32 (N, D) and labels int64 (N,)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(pictures) % classes
    centres = torch.randn(classes, width, generator=generator)
    features = torch.empty(pictures, width)
    for part, own in zip(features.split(_PART), labels.split(_PART), strict=True):
        part.normal_(0, _SPREAD, generator=generator)
        part += centres[own]
    return features, labels


def peak() -> float:
    """The most memory that the process has held, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--width", type=int, default=1_280)
    parser.add_argument("--without-probe", action="store_true", help="logits of a seeded draw")
    parser.add_argument("--gigabytes", type=float, default=4.0)
    given = parser.parse_args()
    seconds: dict[str, float] = {}
    peaks: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds[name], peaks[name] = round(time.perf_counter() - began, 1), round(peak(), 2)
        print(f"{name}: {seconds[name]} s, peak {peaks[name]} GB", file=sys.stderr, flush=True)

    features, labels = synthetic(given.pictures, given.classes, given.width)
    strengths: dict[float, float] = {}
    if given.without_probe:
        logits = torch.randn(
            given.pictures, given.classes, generator=torch.Generator().manual_seed(1)
        )
        logits[torch.arange(given.pictures), labels] += 4
    else:
        with timed("probe"):
            probe = fit_probe(features, labels, given.classes, held_out=False)
        strengths = probe.strengths
        logits = torch.cat([probe.logits(part) for part in features.split(_PART)])
    del features
    names = tuple(f"class {number}" for number in range(given.classes))
    paths = tuple(f"{number:07d}.jpg" for number in range(given.pictures))
    with timed("temperature"):
        temperature = fit_temperature(logits, labels)
    answers = Predictions(paths, labels, logits, names, temperature)
    with timed("figures"):
        result = evaluate(answers, split="synthetic")
    with timed("class order"):
        class_order(answers)
    with timed("errors and labels"):
        error_study(answers, split="synthetic", out_of_fold=answers)
    del answers, logits
    draw = np.random.default_rng(0)
    hashes = [draw.integers(0, 2**64, given.pictures, dtype=np.uint64) for _ in range(2)]
    thumbnails = draw.integers(0, 256, (given.pictures, 16, 16, 3), dtype=np.uint8)
    pictures = tuple(Picture(path, 0, None, None, f"{n:064x}") for n, path in enumerate(paths))
    with timed("lookalikes"):
        near_duplicates(Scan(Path(), pictures, names, ()), *hashes, thumbnails)
    print("cpu:", " ".join(sorted(cpu_flags())) or "none of bf16, AMX, AVX-512")
    print(
        json.dumps(
            {
                "pictures": given.pictures,
                "classes": given.classes,
                "width": given.width,
                "top1": round(result.top1, 4),
                "strengths": list(strengths),
                "seconds": seconds,
                "peak_gb": peaks,
                "peak_gb_at_most": given.gigabytes,
            }
        )
    )
    if peak() > given.gigabytes:
        raise SystemExit(f"{peak():.2f} GB at the peak, and {given.gigabytes:g} are allowed")


if __name__ == "__main__":
    main()
