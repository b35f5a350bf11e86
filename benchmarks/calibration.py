"""Whether the stored temperature makes probabilities mean what they say, on test pictures.

    python benchmarks/calibration.py --caltech caltech101/ --clothing photos/ --work campaign/

The runs are those of benchmarks/strategies.py, tuned now or found in the work folder: `auto`, seeds 0, 1,
2; the temperature was fitted on their validation pictures. `band` is where 95% of perfectly calibrated
classifiers with these confidences would be. Prints the CPU's flags that matter and one JSON line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from campaign import SEEDS, Job, caltech_job, outcome, prepare

MOST_ECE = 0.03  # on Caltech-101, after the temperature


def calibrated(job: Job, work: Path) -> dict[str, Any]:
    from transferscope.evaluation.calibration import calibration_of
    from transferscope.evaluation.predictions import Predictions

    outcome(job, work)
    found = calibration_of(Predictions.load(work / "runs" / job.key / "evaluation"))
    return {
        "seed": job.seed,
        "n": sum(one.n for one in found.bins),
        "temperature": round(found.temperature, 4),
        "ece": round(found.ece, 4),
        "ece_before": round(found.ece_before, 4),
        "band": [round(end, 4) for end in found.band],
        "within_chance": found.within_chance,
        "nll": round(found.nll, 4),
        "nll_before": round(found.nll_before, 4),
        "nll_not_worse": found.nll <= found.nll_before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--caltech", type=Path, required=True)
    parser.add_argument("--clothing", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    prepare(given.work)
    caltech = [calibrated(caltech_job(given.caltech, seed), given.work) for seed in SEEDS]
    clothing = [calibrated(Job("clothing", given.clothing, seed), given.work) for seed in SEEDS]

    from transferscope.machine import cpu_flags

    print("cpu:", " ".join(sorted(cpu_flags())) or "none of bf16, AMX, AVX-512")
    result = {
        "caltech101": caltech,
        "clothing": clothing,
        "caltech_ece_at_most": MOST_ECE,
        "caltech_met": all(run["ece"] <= MOST_ECE for run in caltech),
        "clothing_met": all(run["within_chance"] and run["nll_not_worse"] for run in clothing),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
