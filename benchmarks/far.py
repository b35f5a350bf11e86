"""Far from home: does trying settings on grouped validation pay on test pictures?

    python benchmarks/far.py --data mri/ --work far/ [--seeds 0 1 2] [--group lookalikes]

`--data` has its own test part; training and validation are drawn with each seed. Two tunings a seed, in turns:
the default recipe on a split at random, and what `tune` does far from home on a split that keeps groups
together. Neither sees the test part. Finished runs stay in `--work`, and the same command goes on where it was
stopped. Prints the CPU's flags that matter and one JSON line: balanced accuracy on test of each, and the gain
with its 95% interval, by a bootstrap of the test pictures within their classes, the same draw for both and for
all seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from transferscope.evaluation.predictions import Predictions
from transferscope.machine import cpu_flags
from transferscope.training.recipe import Recipe
from transferscope.workflows.evaluate import evaluate_run
from transferscope.workflows.run import Run
from transferscope.workflows.tune import tune

DRAWS = 2000


def default_recipe() -> dict[str, Any]:
    """All that is tried far from home, given by name as it is by default, so that nothing is tried."""
    plain = Recipe()
    names = ("epochs", "learning_rate", "augment", "balance", "batch_norm")
    return {name: getattr(plain, name) for name in names}


def tuned(data: Path, out: Path, seed: int, group: str | None) -> Run:
    recipe = None if group else default_recipe()
    run = tune(data, out=out, seed=seed, group=group, recipe=recipe, resume=True)
    if not (out / "evaluation" / "metrics.json").is_file():
        evaluate_run(run)
    return run


def hits(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Labels and hits (N,) of the test pictures, in the order of their names."""
    found = Predictions.load(run.path / "evaluation")
    order = np.argsort(found.paths)
    return found.labels.numpy()[order], found.right.numpy()[order].astype(float)


def gain(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Balanced accuracy of `first` (seeds, N) less that of `second`, and its 95% interval."""
    difference = (first - second).mean(0)
    rng = np.random.default_rng(0)
    drawn = np.zeros(DRAWS)
    classes = np.unique(labels)
    for label in classes:
        own = difference[labels == label]
        drawn += rng.choice(own, (DRAWS, len(own))).mean(1) / len(classes)
    low, high = np.quantile(drawn, [0.025, 0.975])
    mean = np.mean([difference[labels == label].mean() for label in classes])
    return float(mean), float(low), float(high)


def balanced(labels: np.ndarray, right: np.ndarray) -> float:
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--group", default="lookalikes")
    given = parser.parse_args()
    sides: dict[str, list[Run]] = {"far": [], "default": []}
    for seed in given.seeds:
        for name, group in (("far", given.group), ("default", None)):
            sides[name].append(tuned(given.data, given.work / f"{name}-{seed}", seed, group))
    found = {name: [hits(run) for run in runs] for name, runs in sides.items()}
    labels = found["far"][0][0]
    right = {name: np.stack([one for _, one in of]) for name, of in found.items()}
    mean, low, high = gain(labels, right["far"], right["default"])
    result = {
        "test_pictures": len(labels),
        "gain": [round(one, 4) for one in (mean, low, high)],
        **{
            name: {
                "test_balanced": [round(balanced(labels, one), 4) for one in right[name]],
                "test": [round(float(one.mean()), 4) for one in right[name]],
                "validation": [round(run.results["validation"]["top1"], 4) for run in runs],
                "seconds": [run.results["seconds"] for run in runs],
                "kept": [run.results["strategy"] for run in runs],
                "changes": [
                    [
                        one["what"]
                        for one in run.results.get("far", {}).get("changes", [])
                        if one["kept"]
                    ]
                    for run in runs
                ],
                "epochs": [run.recipe.epochs for run in runs],
            }
            for name, runs in sides.items()
        },
        "cpu": sorted(cpu_flags()),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
