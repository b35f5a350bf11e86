"""Integrated gradients and SmoothGrad against captum, picture by picture with its defaults.

    python benchmarks/attribution.py --data photos/ [--n 32] [--rounds 3]

Both sides get the same decoded pictures, classes and seeds: 50 steps from the mean colour, and 50 noisy
versions of 0.15 of each picture's range. captum is given the same classifier in eval mode. The sides
alternate in one process; `ratio` is captum's seconds / ours, medians of the rounds. Prints the CPU's flags
that matter and one JSON line, with the largest difference of the maps as a share of their largest value; and,
of integrated gradients of two pictures, how far either side's map is from captum's in float64: a network of
ReLUs has gradients with steps, which single precision takes at other pixels.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from captum.attr import IntegratedGradients, NoiseTunnel, Saliency

from transferscope.acceleration.memory import reuse_memory
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.weights import load_backbone
from transferscope.explain.attribution import attribute, exact_logits, load
from transferscope.formats import SUFFIXES
from transferscope.machine import cpu_flags

STEPS = 50
LEAST_RATIO = 2.0
MOST_DIFFERENCE = 1e-4
EXACT = 2
"""Pictures that are asked in float64 too."""

Side = Callable[[Classifier, torch.Tensor, list[int]], torch.Tensor]


def captum_integrated(
    classifier: Classifier, pictures: torch.Tensor, targets: list[int]
) -> torch.Tensor:
    mean = pictures.new_tensor(classifier.input.mean).view(1, -1, 1, 1)
    method, found = IntegratedGradients(classifier), []
    for picture, target in zip(pictures.split(1), targets, strict=True):
        base = mean.expand_as(picture)
        found.append(method.attribute(picture, base, target=target, n_steps=STEPS).detach())
    return torch.cat(found).sum(1).float()


def captum_smooth(
    classifier: Classifier, pictures: torch.Tensor, targets: list[int]
) -> torch.Tensor:
    method, found = NoiseTunnel(Saliency(classifier)), []
    for picture, target in zip(pictures.split(1), targets, strict=True):
        torch.manual_seed(0)  # so that its noise is ours
        given = picture.clone().requires_grad_()
        spread = 0.15 * float(picture.max() - picture.min())
        found.append(
            method.attribute(
                given, nt_samples=STEPS, stdevs=spread, target=target, abs=False
            ).detach()
        )
    return torch.cat(found).sum(1)


def exact_integrated(
    classifier: Classifier, pictures: torch.Tensor, targets: list[int]
) -> torch.Tensor:
    """captum's maps (N, H, W) of the same network in float64."""
    network = copy.deepcopy(classifier.network).double()
    shape = (1, -1, 1, 1)
    mean, std = (
        torch.tensor(one, dtype=torch.float64).view(shape)
        for one in (classifier.input.mean, classifier.input.std)
    )
    method, found = IntegratedGradients(lambda given: network((given - mean) / std)), []
    for picture, target in zip(pictures.double().split(1), targets, strict=True):
        base = mean.expand_as(picture)
        found.append(method.attribute(picture, base, target=target, n_steps=STEPS).detach())
    return torch.cat(found).sum(1).float()


def apart(maps: torch.Tensor, others: torch.Tensor) -> float:
    """The largest difference of any map (N, H, W), as a share of the other's largest value."""
    largest = others.abs().amax((1, 2))
    return float(f"{float(((maps - others).abs().amax((1, 2)) / largest).max()):.2g}")


def ours(method: str, **options: int) -> Side:
    def side(classifier: Classifier, pictures: torch.Tensor, targets: list[int]) -> torch.Tensor:
        found = attribute(classifier, list(pictures), method=method, target=targets, **options)
        return torch.from_numpy(np.stack([one.map for one in found]))

    return side


PAIRS: dict[str, tuple[Side, Side]] = {
    "integrated_gradients": (ours("integrated_gradients", most_steps=STEPS), captum_integrated),
    "smooth_grad": (ours("smooth_grad"), captum_smooth),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--n", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    reuse_memory()
    classifier = load_backbone()
    files = sorted(path for path in given.data.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        parser.error(f"--data {str(given.data)!r} has no pictures in it")
    chosen = [files[round(at)] for at in np.linspace(0, len(files) - 1, given.n)]
    pictures, _ = load(classifier, chosen)
    targets = exact_logits(classifier, pictures, 16).argmax(1).tolist()
    report: dict[str, Any] = {"n": given.n, "steps": STEPS, "threads": torch.get_num_threads()}
    ratios = []
    for name, sides in PAIRS.items():
        seconds: tuple[list[float], list[float]] = ([], [])
        maps = []
        for _ in range(given.rounds):
            maps = []
            for side, spent in zip(sides, seconds, strict=True):
                began = time.perf_counter()
                maps.append(side(classifier, pictures, targets))
                spent.append(time.perf_counter() - began)
        own, captum = (median(spent) for spent in seconds)
        ratios.append(captum / own)
        report[name] = {
            "seconds": round(own, 1),
            "captum_seconds": round(captum, 1),
            "ratio": round(captum / own, 2),
            "largest_difference": apart(*maps),
        }
        if name == "integrated_gradients":
            exact = exact_integrated(classifier, pictures[:EXACT], targets[:EXACT])
            report[name] |= {
                "from_float64": apart(maps[0][:EXACT], exact),
                "captum_from_float64": apart(maps[1][:EXACT], exact),
            }
    print("cpu:", " ".join(sorted(cpu_flags())) or "none of bf16, AMX, AVX-512")
    report |= {
        "ratio": round(min(ratios), 2),
        "ratio_at_least": LEAST_RATIO,
        "difference_at_most": MOST_DIFFERENCE,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
