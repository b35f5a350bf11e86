"""Does fine-tuning pay? `auto` against the linear probe on three sets, three seeds each.

    python benchmarks/strategies.py --clothing photos/ --caltech caltech101/ --work campaign/

Either set may be left out; the third, characters in fonts that training has not seen, is drawn in the work
folder. Takes hours on two cores: finished runs stay in the work folder, and the same command goes on where it
was stopped. benchmarks/caltech101.py uses the same runs. The probe of a run is fitted on the same split as
`--strategy probe` would, and judged on the same test pictures; clothing and characters have fixed splits,
where the seed changes the fit alone. Characters are never mirrored. Prints the CPU's flags that matter and one
JSON line: by set the gain in top-1 (`auto` less probe), its paired 95% interval, and whether it is not worse
than half a point (`not_worse`: the interval's lower end) and better beyond its interval (`better`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from campaign import SEEDS, Job, Outcome, caltech_job, difference, outcome, paired_interval, prepare

MARGIN = 0.005


def characters(work: Path) -> Path:
    """The folder of the generated set, drawn if it is not there yet."""
    from transferscope.data.demo import write_demo_set

    folder = work / "characters"
    if not folder.is_dir():
        write_demo_set(folder)
    return folder / "characters"


def told(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """One set's part of the result."""
    gain, (low, high) = difference(outcomes), paired_interval(outcomes)
    results = [found.result for found in outcomes]

    def mean(part: str) -> float:
        return round(float(np.mean([result[part]["top1"] for result in results])), 4)

    return {
        "auto_top1": mean("test"),
        "probe_top1": mean("probe_test"),
        "gain": round(gain, 4),
        "gain_interval": [round(low, 4), round(high, 4)],
        "gains": [round(difference([found]), 4) for found in outcomes],
        "chosen": [result["results"]["strategy"] for result in results],
        "seconds": [result["results"]["seconds"] for result in results],
        "test_pictures": [result["test"]["n"] for result in results],
        "not_worse": low >= -MARGIN,
        "better": low > 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clothing", type=Path)
    parser.add_argument("--caltech", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    prepare(given.work)
    drawn = characters(given.work)
    jobs = {"characters": [Job("characters", drawn, seed, flip=False) for seed in SEEDS]}
    if given.clothing:
        jobs["clothing"] = [Job("clothing", given.clothing, seed) for seed in SEEDS]
    if given.caltech:
        jobs["caltech101"] = [caltech_job(given.caltech, seed) for seed in SEEDS]
    result: dict[str, Any] = {
        name: told([outcome(job, given.work) for job in of]) for name, of in jobs.items()
    }
    sets = list(result.values())
    result["not_worse_on_all"] = all(one["not_worse"] for one in sets)
    result["better_on_one"] = any(one["better"] for one in sets)

    from transferscope.machine import cpu_flags

    print("cpu:", " ".join(sorted(cpu_flags())) or "none of bf16, AMX, AVX-512")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
