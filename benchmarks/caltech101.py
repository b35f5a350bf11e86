"""Caltech-101: top-1 and top-5 on test of `tune` with its default recipe, seeds 0, 1 and 2.

    python benchmarks/caltech101.py --data caltech101/ --work campaign/

`caltech101` has class folders; 100 classes without Faces and the background, split 50/25/25 by the seed. Takes
hours on two cores: finished runs stay in the work folder, and the same command goes on where it was
stopped. benchmarks/strategies.py uses the same runs. Lite0 runs with three seeds, lite2 with seed 0; beside
each stands the linear probe on the same test pictures. The test split chooses nothing.

Caltech-101 holds mirrored and near copies (half of the leopards are the other half mirrored), and a random
split tears them apart: so accuracy is given a second time without the test pictures that have a twin in
training. Prints the CPU's flags that matter and one JSON line. (A VGG-16 tutorial's table says 88.65 /
98.00.)
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from campaign import SEEDS, Outcome, caltech_job, difference, outcome, paired_interval, prepare

LEAST = {
    "efficientnet_lite0": {"top1": 0.950, "top5": 0.993},
    "efficientnet_lite2": {"top1": 0.960},
}
SEEDS_OF = {"efficientnet_lite0": SEEDS, "efficientnet_lite2": (0,)}


def looks(data: Path, work: Path) -> dict[str, str]:
    """Picture by path: the name of the group of pictures that look the same, for those that are in one.

    Pairs of near duplicates (by perceptual hash, mirrored or not) are joined, so that what looks like the
    same third picture is one group.
    """
    from transferscope.files import read_json, write_json
    from transferscope.workflows.inspect import inspect

    file = work / "caltech101-twins.json"
    if not file.is_file():
        found = inspect(data)
        pairs = [pair for pair in found.near_duplicates if pair.measure != "embedding"]
        write_json(file, [list(pair.paths) for pair in pairs])
    group: dict[str, str] = {}
    for first, second in read_json(file):
        keep, drop = group.setdefault(first, first), group.setdefault(second, second)
        group = {path: keep if name == drop else name for path, name in group.items()}
    return group


def has_twin(found: Outcome, folder: Path, group: Mapping[str, str]) -> np.ndarray:
    """bool (N,): the test pictures of a run that look the same as one of its training pictures."""
    from transferscope.workflows.run import Run

    trained = {picture.path for picture in Run(folder).split.part("train")}
    seen = {group[path] for path in trained & group.keys()}
    return np.array([group.get(path) in seen for path in found.paths])


def row(found: Outcome, twins: np.ndarray) -> dict[str, Any]:
    """One run's line of the result."""
    result = found.result
    return {
        "seed": result["seed"],
        "strategy": result["results"]["strategy"],
        "seconds": result["results"]["seconds"],
        "n": result["test"]["n"],
        "top1": round(result["test"]["top1"], 4),
        "top5": round(result["test"]["top5"], 4),
        "probe_top1": round(result["probe_test"]["top1"], 4),
        "probe_top5": round(result["probe_test"]["top5"], 4),
        "with_twin_in_training": round(float(twins.mean()), 4),
        "top1_without_twins": round(float(found.tuned[~twins].mean()), 4),
        "probe_top1_without_twins": round(float(found.probe[~twins].mean()), 4),
    }


def summary(outcomes: Sequence[Outcome], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and what tuning gained over the probe on the same pictures."""
    low, high = paired_interval(outcomes)
    means = (
        *("top1", "top5", "probe_top1", "probe_top5"),
        *("with_twin_in_training", "top1_without_twins", "probe_top1_without_twins"),
    )
    return {
        **{name: round(float(np.mean([row[name] for row in rows])), 4) for name in means},
        "gain": round(difference(outcomes), 4),
        "gain_interval": [round(low, 4), round(high, 4)],
        "runs": list(rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--backbones", nargs="+", choices=SEEDS_OF, default=list(SEEDS_OF))
    given = parser.parse_args()
    prepare(given.work)
    jobs = {
        name: [caltech_job(given.data, seed, name) for seed in SEEDS_OF[name]]
        for name in given.backbones
    }
    found = {name: [outcome(job, given.work) for job in of] for name, of in jobs.items()}
    group = looks(given.data, given.work)
    result: dict[str, Any] = {}
    for name, outcomes in found.items():
        rows = [
            row(one, has_twin(one, given.work / "runs" / job.key, group))
            for job, one in zip(jobs[name], outcomes, strict=True)
        ]
        result[name] = summary(outcomes, rows)
        result[name] |= {f"{key}_at_least": least for key, least in LEAST[name].items()}
    from transferscope.machine import cpu_flags

    print("cpu:", " ".join(sorted(cpu_flags())) or "none of bf16, AMX, AVX-512")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
