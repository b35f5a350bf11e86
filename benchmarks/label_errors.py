"""How many wrong labels the ranking finds: some training pictures are given a random other class.

    python benchmarks/label_errors.py --data caltech101/ [--wrong 300] [--seeds 0,1,2]

Half of the pictures are training pictures, as in benchmarks/caltech101.py. Of the first `--wrong` pictures
of the ranking, `precision` is the share whose label was changed; what else is ranked there may be a true label
error of the set, and counts as a miss. Two plain rankings of the same out-of-fold answers stand beside it: by
the least probability of the label, and by the greatest entropy. The probe's strength is chosen by
cross-validation on the wrong labels, as it would be in earnest. Prints the CPU's flags that matter and one
JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transferscope.backbones.weights import load_backbone
from transferscope.data.scan import Picture, scan
from transferscope.data.split import make_split
from transferscope.evaluation.calibration import fit_temperature
from transferscope.evaluation.mistakes import count_label_errors, label_suspicion
from transferscope.evaluation.predictions import Predictions
from transferscope.features.extraction import POOLED, extract
from transferscope.features.probe import fit_probe
from transferscope.machine import cpu_flags

LEAST_PRECISION = 0.70


def found(ranking: torch.Tensor, changed: np.ndarray) -> float:
    """Share of the first pictures of a ranking, as many as were changed, that are the changed ones."""
    first = set(ranking.argsort(descending=True)[: len(changed)].tolist())
    return len(first & set(changed.tolist())) / len(changed)


def one_seed(
    pictures: tuple[Picture, ...],
    classes: tuple[str, ...],
    features: torch.Tensor,
    wrong: int,
    seed: int,
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    labels = torch.tensor([picture.label for picture in pictures])
    changed = rng.choice(len(labels), wrong, replace=False)
    labels[changed] += torch.from_numpy(rng.integers(1, len(classes), wrong))
    labels %= len(classes)
    began = time.perf_counter()
    probe = fit_probe(features, labels, len(classes), seed=seed)
    assert probe.held_out is not None
    paths = tuple(picture.path for picture in pictures)
    temperature = fit_temperature(probe.held_out, labels)
    answers = Predictions(paths, labels, probe.held_out, classes, temperature)
    probabilities = answers.probabilities
    return {
        "seed": seed,
        "precision": round(found(label_suspicion(answers), changed), 4),
        "by_probability_of_label": round(
            found(-probabilities[torch.arange(len(labels)), labels], changed), 4
        ),
        "by_entropy": round(found(torch.special.entr(probabilities).sum(1), changed), 4),
        "counted_as_probable": count_label_errors(answers),
        "out_of_fold_top1": round(float(answers.right.float().mean()), 4),
        "strength": probe.strength,
        "seconds": round(time.perf_counter() - began, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--wrong", type=int, default=300)
    parser.add_argument("--seeds", default="0,1,2")
    given = parser.parse_args()
    source = load_backbone()
    scanned = scan(given.data)
    rows = []
    for seed in map(int, given.seeds.split(",")):
        pictures = make_split(scanned, ratio=(50, 25, 25), seed=seed).part("train")
        files = [scanned.file(picture) for picture in pictures]
        features = extract(source, files, [picture.sha256 for picture in pictures])
        rows.append(
            one_seed(pictures, scanned.classes, features.targets[POOLED], given.wrong, seed)
        )
    print("cpu:", " ".join(sorted(cpu_flags())) or "none of bf16, AMX, AVX-512")
    result = {
        "training_pictures": len(pictures),
        "wrong": given.wrong,
        "precision": round(float(np.mean([row["precision"] for row in rows])), 4),
        "precision_at_least": LEAST_PRECISION,
        "runs": rows,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
