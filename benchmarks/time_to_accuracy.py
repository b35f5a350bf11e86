"""Time to 85% test accuracy: our probe, fastai's frozen learner, and a plain PyTorch loop without a cache.

    python benchmarks/time_to_accuracy.py --data photos/ --peer-python peer-fastai/bin/python

`photos` has train/, validation/ and test/; benchmarks/peers/fastai_frozen.py says how fastai's environment
is made. Without --peer-python that side is left out. All sides have the same ImageNet weights of lite0, the
same files, batches of 64, and torch's default threads, which wait as sides.py says; each runs in a process
of its own, one after the other, on a machine that should do nothing else. What every side does is written
in its file in benchmarks/peers. `seconds` starts when a side's imports are done, and stands still while the
test split is looked at; `process_seconds` is the whole process less that. A side that never gets there
counts with the time of all its epochs; one that does is stopped there. Prints the CPU's flags that matter
and one JSON line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sides import Side, run_side

LEAST_RATIO = {"fastai": 20, "plain_loop": 8}


def told(side: Side, target: float) -> dict[str, Any]:
    """A side's row of the result."""
    known = ("threads", "torch", "fastai", "workers", "learning_rate", "pictures")
    return {
        "seconds_to_target": round(side.seconds_to(target), 2),
        "process_seconds_to_target": round(side.process_seconds_to(target), 2),
        "epoch_of_target": side.epoch_reaching(target),
        "epochs": len(side.report["test_top1"]),
        "seconds_in_all": round(side.seconds, 2),
        "validation_seconds": round(side.report.get("validation_seconds", 0.0), 2),
        "test_top1": [round(top1, 4) for top1 in side.report["test_top1"]],
        **{name: side.report[name] for name in known if name in side.report},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peer-python", type=Path, help="of an environment that has fastai")
    parser.add_argument("--target", type=float, default=0.85)
    parser.add_argument("--epochs", type=int, default=10, help="of each peer")
    given = parser.parse_args()
    same = ("--data", given.data.resolve())
    loop = ("--epochs", given.epochs, "--batch-size", 64, "--target", given.target)
    ours = run_side("transferscope_probe.py", *same)
    peers = {"plain_loop": run_side("plain_loop.py", *same, *loop, "--train", "head")}
    if given.peer_python:
        fastai = run_side("fastai_frozen.py", *same, *loop, python=given.peer_python.absolute())
        peers = {"fastai": fastai, **peers}

    from transferscope.machine import cpu_flags

    print("cpu:", " ".join(sorted(cpu_flags())) or "none of bf16, AMX, AVX-512")
    result: dict[str, Any] = {"target": given.target, "transferscope": told(ours, given.target)}
    if "fastai" not in peers:
        result["fastai"] = "left out: give --peer-python"
    for name, peer in peers.items():
        result[name] = told(peer, given.target)
        ratios = {
            f"ratio_{name}": peer.seconds_to(given.target) / ours.seconds_to(given.target),
            f"ratio_{name}_whole_process": peer.process_seconds_to(given.target)
            / ours.process_seconds_to(given.target),
        }
        result |= {key: round(ratio, 2) for key, ratio in ratios.items()}
        result[f"ratio_{name}_at_least"] = LEAST_RATIO[name]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
