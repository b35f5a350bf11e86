"""Runs that several benchmarks share: each is tuned once, judged on test once, and kept in a work folder.

A campaign takes hours. Every finished run leaves its result as a JSON file, an interrupted one is resumed, and
starting the same command again does only what is missing.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SEEDS = (0, 1, 2)
CALTECH_RATIO = (50, 25, 25)


@dataclass(frozen=True)
class Job:
    """One run of `tune` with its default recipe.

    Attributes:
        name: of the set; names the run's folder.
        data: its folder.
        seed: of the split, where the folder gives none, and of the fit.
        backbone: see `transferscope backbones`.
        ratio: of the split, where the folder gives none.
        flip: False where left and right mean something.
    """

    name: str
    data: Path
    seed: int
    backbone: str = "efficientnet_lite0"
    ratio: tuple[int, int, int] = (70, 15, 15)
    flip: bool = True

    @property
    def key(self) -> str:
        """Of the run's folder and of its result."""
        return f"{self.name}-{self.backbone}-{self.seed}"


@dataclass(frozen=True, eq=False)
class Outcome:
    """A finished run on its test pictures: the run and its own linear probe, the fair *before*.

    Attributes:
        result: what its JSON file holds.
        paths: of N pictures.
        tuned: bool (N,): right by the run.
        probe: bool (N,): right by the probe on the untuned network, the same that `--strategy probe` gives.
    """

    result: dict[str, Any]
    paths: tuple[str, ...]
    tuned: np.ndarray
    probe: np.ndarray


def caltech_job(data: Path, seed: int, backbone: str = "efficientnet_lite0") -> Job:
    """A run on Caltech-101: half for training, a quarter each for validation and test."""
    return Job("caltech101", data, seed, backbone, CALTECH_RATIO)


def prepare(work: Path) -> None:
    """Makes the work folder, with the cache in it unless set elsewhere; memory as the command line."""
    work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TRANSFERSCOPE_CACHE", str((work / "cache").resolve()))
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

    from transferscope.acceleration.memory import reuse_memory

    reuse_memory()


def outcome(job: Job, work: Path) -> Outcome:
    """The finished run of a job: done now, continued, or found.

    Whatever `tune` chooses, it chooses on validation. The test split is evaluated when a run is finished, and
    once: what comes out is kept.

    Raises:
        RunError: the folder holds a run of other options; another work folder is needed.
    """
    from transferscope.evaluation.predictions import Predictions
    from transferscope.files import read_json, write_json
    from transferscope.workflows.tune import tune

    folder, file = work / "runs" / job.key, work / "results" / f"{job.key}.json"
    run = tune(
        job.data,
        out=folder,
        backbone=job.backbone,
        strategy="auto",
        ratio=job.ratio,
        flip=job.flip,
        seed=job.seed,
        resume=True,
    )
    if not (file.is_file() and (folder / "evaluation" / "metrics.json").is_file()):
        test = run.evaluate("test")
        before = read_json(folder / "evaluation" / "metrics.json")["base"]
        names = ("n", "top1", "top5", "top1_interval", "mean_per_class")
        file.parent.mkdir(parents=True, exist_ok=True)
        result = {
            "set": job.name,
            "backbone": job.backbone,
            "seed": job.seed,
            "results": run.results,
            "test": {name: test.to_dict()[name] for name in names},
            "probe_test": {name: before[name] for name in names},
            "environment": run.record["environment"],
        }
        write_json(file, result)
    tuned = Predictions.load(folder / "evaluation")
    probe = (
        Predictions.load(folder / "evaluation" / "base")
        if (folder / "evaluation" / "base").is_dir()
        else tuned
    )
    assert tuned.paths == probe.paths
    return Outcome(
        read_json(file),
        tuned.paths,
        (tuned.predicted == tuned.labels).numpy(),
        (probe.predicted == probe.labels).numpy(),
    )


def paired_interval(outcomes: Sequence[Outcome], *, draws: int = 10_000) -> tuple[float, float]:
    """95% interval of the accuracy of the runs less that of their probes, pooled over seeds.

    By bootstrap of pictures, each with what it got in every seed whose test split it is in: a picture's
    answers under several seeds are no independent observations, so it is drawn with all of them. What it
    leaves out: other training sets than these.
    """
    gains: defaultdict[str, list[int]] = defaultdict(list)
    for found in outcomes:
        for path, gain in zip(found.paths, found.tuned.astype(int) - found.probe, strict=True):
            gains[path].append(int(gain))
    sums = np.array([sum(of) for of in gains.values()])
    counts = np.array([len(of) for of in gains.values()])
    rng = np.random.default_rng(0)
    drawn = (rng.integers(len(sums), size=len(sums)) for _ in range(draws))
    means = [sums[places].sum() / counts[places].sum() for places in drawn]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def difference(outcomes: Sequence[Outcome]) -> float:
    """Accuracy of the runs less that of their probes, over all their test pictures."""
    gains = np.concatenate([found.tuned.astype(int) - found.probe for found in outcomes])
    return float(gains.mean())
