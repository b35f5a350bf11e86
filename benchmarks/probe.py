"""The linear probe against scikit-learn's, on the same features, folds and strengths.

    python benchmarks/probe.py --data clothing/ caltech101/ [--rounds 3]

Every folder is read as `tune` reads it, and the demo's characters are drawn beside them. Pooled features of
lite0 come from the cache, or fill it, untimed. Both sides standardise the training part's features, fit every
fold at the strengths that `fit_probe` tried, choose by the held-out log-loss (`chosen` is each side's choice)
and fit all rows at the strength that `fit_probe` chose, so that the objectives compare. The other side is
`LogisticRegression` (lbfgs, its default tolerance, float32) with a warm start from strength to strength, the
weakest first, and from the mean of the folds for the last fit. Sides alternate.

The objective is that of the last fit, penalty and log-loss in nats a picture, computed in float64 for both.
`one` is the same without a choice: five folds and the fit to all rows at the chosen strength alone, from zero.
Prints the CPU's flags that matter and one JSON line a set; `ratio` is scikit-learn's seconds / the probe's. On
a machine that does other work, set OMP_NUM_THREADS=1: OpenBLAS's threads lose much time there, to
scikit-learn's disadvantage.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from torch.nn.functional import cross_entropy

FOLDS, SEED, MOST_STEPS = 5, 0, 10_000


def standardised(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features (N, D) with mean 0 and deviation 1, and the mean and deviation they had."""
    std, mean = torch.std_mean(features, 0, correction=0)
    std[std < 1e-8] = 1.0
    return (features - mean) / std, mean, std


def by_scikit_learn(
    features: torch.Tensor, labels: torch.Tensor, strengths: Sequence[float], last: float
) -> tuple[float, torch.Tensor, torch.Tensor]:
    """The strength chosen, and weight (K, D) and bias (K,) at the strength `last` for standardised features."""
    x, y = standardised(features)[0].numpy(), labels.numpy()
    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(x, y))
    models = [LogisticRegression(warm_start=True, max_iter=MOST_STEPS) for _ in folds]
    losses, starts = {}, {}
    for strength in sorted(strengths):
        loss = 0.0
        for model, (train, held) in zip(models, folds, strict=True):
            model.set_params(C=strength).fit(x[train], y[train])
            logits = torch.from_numpy(model.decision_function(x[held])).double()
            loss += float(cross_entropy(logits, labels[held], reduction="sum"))
        losses[strength] = loss
        starts[strength] = [
            np.mean([model.coef_ for model in models], 0),
            np.mean([model.intercept_ for model in models], 0),
        ]
    final = LogisticRegression(C=last, warm_start=True, max_iter=MOST_STEPS)
    final.classes_, (final.coef_, final.intercept_) = models[0].classes_, starts[last]
    final.fit(x, y)
    chosen = min(losses, key=losses.__getitem__)
    return chosen, torch.from_numpy(final.coef_), torch.from_numpy(final.intercept_)


def objective(
    features: torch.Tensor,
    labels: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    strength: float,
) -> float:
    """Penalised log-loss in nats a picture of weights (K, D) for standardised features."""
    x = standardised(features)[0].double()
    loss = cross_entropy(x @ weight.double().T + bias.double(), labels, reduction="sum")
    return float((loss + weight.double().square().sum() / (2 * strength)) / len(labels))


def measured(features: torch.Tensor, labels: torch.Tensor, rounds: int) -> dict[str, Any]:
    """Both sides, in turns, over all strengths and at the chosen one alone."""
    from transferscope.features.probe import STRENGTHS, fit_probe

    count = int(labels.max()) + 1
    _, mean, std = standardised(features)
    result: dict[str, Any] = {"pictures": len(labels), "classes": count}
    strengths: Sequence[float] = STRENGTHS
    for name in ("path", "one"):
        seconds: dict[str, list[float]] = {"probe": [], "scikit_learn": []}
        for _ in range(rounds):
            began = time.perf_counter()
            probe = fit_probe(features, labels, count, strengths=strengths, seed=SEED, folds=FOLDS)
            middle = time.perf_counter()
            chosen, weight, bias = by_scikit_learn(
                features, labels, tuple(probe.strengths), probe.strength
            )
            seconds["scikit_learn"].append(time.perf_counter() - middle)
            seconds["probe"].append(middle - began)
        assert probe.held_out is not None
        medians = {side: statistics.median(values) for side, values in seconds.items()}
        ours = probe.weight * std, probe.bias + probe.weight @ mean
        result[name] = {
            "strengths": list(probe.strengths),
            "chosen": [probe.strength, chosen],
            "held_out_top1": round(float((probe.held_out.argmax(1) == labels).double().mean()), 4),
            "probe_seconds": round(medians["probe"], 2),
            "scikit_learn_seconds": round(medians["scikit_learn"], 2),
            "probe_objective": round(objective(features, labels, *ours, probe.strength), 8),
            "scikit_learn_objective": round(
                objective(features, labels, weight, bias, probe.strength), 8
            ),
            "ratio": round(medians["scikit_learn"] / medians["probe"], 2),
        }
        strengths = (probe.strength,)
    return result


def features_of(data: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Pooled features (N, D) of a set's training part, and its labels."""
    from transferscope.backbones.weights import load_backbone
    from transferscope.data.scan import scan
    from transferscope.data.split import make_split
    from transferscope.features.extraction import POOLED, extract

    classifier = load_backbone("efficientnet_lite0")
    split = make_split(scan(data), seed=SEED)
    pictures = split.part("train")
    files = [split.scan.file(picture) for picture in pictures]
    found = extract(classifier, files, [picture.sha256 for picture in pictures])
    return found.targets[POOLED], torch.tensor([picture.label for picture in pictures])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the command line does

    from transferscope.data.demo import write_demo_set
    from transferscope.machine import cpu_flags

    print("cpu:", " ".join(sorted(cpu_flags())) or "none of bf16, AMX, AVX-512")
    with tempfile.TemporaryDirectory() as work:
        demo = write_demo_set(Path(work) / "demo", seed=SEED, strips=0) / "characters"
        for data in (*given.data, demo):
            result = measured(*features_of(data), given.rounds)
            print(json.dumps({"data": data.name, **result}), flush=True)


if __name__ == "__main__":
    main()
