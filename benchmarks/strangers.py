"""How well every score of familiarity tells strangers, far ones and near ones, and what `predict` pays for it.

    python benchmarks/strangers.py --run RUN --strangers DIR [DIR ...] [--data photos/] [--near] [--rounds 5]

Far: the pictures of each folder, against the run's test pictures, by thresholds of its validation pictures at
5% of false alarms. Near (`--near`): each class of the run in turn is left out, a probe is fitted to the
untuned features of the others, and the pictures of the class left out are the strangers. The control:
one half of the test pictures as strangers to the other. Prints the CPU's flags that matter and one JSON line;
`slower` is the time of `predict` with familiarity / without, medians of alternating rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch

from transferscope.evaluation.detection import Pictures, detection
from transferscope.evaluation.known_pictures import KnownPictures
from transferscope.evaluation.strangers import Training, centred_energy
from transferscope.features.extraction import POOLED, extract
from transferscope.features.probe import fit_probe
from transferscope.machine import cpu_flags
from transferscope.workflows.known_pictures import answers_of, detect, known_pictures
from transferscope.workflows.predict import predict
from transferscope.workflows.run import Run, files_of, labels_of

ALLOWED = 0.05
MOST_SLOWER = 1.05


def told(found: Any) -> dict[str, Any]:
    """AUROC, share caught and share of false alarms by score."""
    return {
        name: [round(one.auroc, 4), round(one.caught or 0, 3), round(one.false_alarms or 0, 3)]
        for name, one in found.scores.items()
    }


def far(run: Run, folder: Path) -> dict[str, Any]:
    files, pictures = files_of(run, "test", None)
    found = detect(
        run, folder, split="test", files=files, pictures=pictures, false_alarms=ALLOWED, keep=False
    )
    return {"n": found.n, "own": found.own, "scores": told(found)}


def control(run: Run, known: KnownPictures) -> dict[str, Any]:
    """AUROC of half of the test pictures against the other half."""
    files, _ = files_of(run, "test", None)
    features, logits = answers_of(run.classifier, files)
    halves = [
        Pictures([""] * len(x), x, y) for x, y in ((features[k::2], logits[k::2]) for k in (0, 1))
    ]
    return told(detection(known, *halves, allowed=ALLOWED))


def near(run: Run) -> dict[str, Any]:
    """Mean over the classes, each left out once, and the least favourable one's AUROC."""
    parts = {}
    for part in ("train", "validation", "test"):
        files, pictures = files_of(run, part, None)
        hashes = [one.sha256 for one in pictures]
        found = extract(run.base, files, hashes, precision=run.precision)
        parts[part] = found.targets[POOLED], labels_of(pictures)
    rows: dict[str, list[list[float]]] = {}
    for left_out in range(len(run.classifier.classes)):
        for name, values in told(_without(parts, left_out, run)).items():
            rows.setdefault(name, []).append(values)
    return {
        name: [round(mean(column), 4) for column in zip(*values, strict=True)]
        + [min(one[0] for one in values)]
        for name, values in rows.items()
    }


def _without(parts: dict[str, tuple[torch.Tensor, torch.Tensor]], left_out: int, run: Run) -> Any:
    """The strangers are all pictures of a class that a probe has not seen."""
    kept = {}
    for part, (features, labels) in parts.items():
        own = labels != left_out
        kept[part] = features[own], (labels[own] - (labels[own] > left_out).long())
    strange = torch.cat([features[labels == left_out] for features, labels in parts.values()])
    classes = [name for at, name in enumerate(run.classifier.classes) if at != left_out]
    features, labels = kept["train"]
    strength = run.results["probe_strength"]
    probe = fit_probe(features, labels, len(classes), strengths=(strength,), held_out=False)

    def seen(x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        return x.float().numpy(), probe.logits(x).numpy()

    known = KnownPictures.of_features(
        Training(features.float().numpy(), labels.numpy(), centred_energy(seen(features)[1])),
        seen(kept["validation"][0]),
        classes=classes,
        weights="",
        of=len(labels),
    )
    own, others = seen(kept["test"][0]), seen(strange)
    return detection(
        known,
        Pictures([""] * len(own[0]), *own),
        Pictures([""] * len(others[0]), *others),
        allowed=ALLOWED,
    )


def slower(run: Run, known: KnownPictures, rounds: int) -> float:
    files, _ = files_of(run, "test", None)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(rounds + 1):
        for with_it in (True, False):
            began = time.perf_counter()
            predict(run.classifier, files, known=known if with_it else None)
            if number:
                seconds[with_it].append(time.perf_counter() - began)
    return round(median(seconds[True]) / median(seconds[False]), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--strangers", type=Path, nargs="+", default=[])
    parser.add_argument("--data", type=Path, help="where the run's pictures are now")
    parser.add_argument("--near", action="store_true", help="also leave each class out in turn")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    run = Run(given.run, data=given.data)
    known = known_pictures(run)
    if known is None:
        parser.error(f"the pictures of --run {given.run} are gone; say with --data where they are")
    result = {
        "classes": len(run.classifier.classes),
        "validation": known.n,
        "score": known.score,
        "columns": ["auroc", "caught", "false_alarms"],
        "far": {folder.name: far(run, folder) for folder in given.strangers},
        "near": near(run) if given.near else None,
        "control": control(run, known),
        "slower": slower(run, known, given.rounds) if given.rounds else None,
        "slower_at_most": MOST_SLOWER,
    }
    print("cpu:", " ".join(sorted(cpu_flags())) or "none of bf16, AMX, AVX-512")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
