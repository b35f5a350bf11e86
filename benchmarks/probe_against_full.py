"""A probe from the cache, filling it included, against training the same network for 10 epochs.

    python benchmarks/probe_against_full.py --data photos/ [--epochs 1]

`photos` has train/, validation/ and test/. Our side is benchmarks/peers/transferscope_probe.py on an empty
cache; the other is benchmarks/peers/plain_loop.py --train whole (lite0, all of it in train mode, AdamW,
batches of 64, 2 loader workers, fp32). Of its 10 epochs only --epochs really run: their mean is
multiplied by 10, `extrapolated` says so, and its accuracy is that after the epochs that ran. Prints the
CPU's flags that matter and one JSON line; `ratio` is 10 epochs / probe.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sides import run_side

EPOCHS = 10
LEAST_RATIO = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=1, help=f"that really run, 1 to {EPOCHS}")
    given = parser.parse_args()
    if not 1 <= given.epochs <= EPOCHS:
        parser.error(f"--epochs is {given.epochs}; it must be 1 to {EPOCHS}")
    same = ("--data", given.data.resolve())
    probe = run_side("transferscope_probe.py", *same)
    full = run_side("plain_loop.py", *same, "--train", "whole", "--epochs", given.epochs)
    seconds = full.seconds / given.epochs * EPOCHS

    from transferscope.machine import cpu_flags

    print("cpu:", " ".join(sorted(cpu_flags())) or "none of bf16, AMX, AVX-512")
    result = {
        "probe_seconds": round(probe.seconds, 2),
        "probe_process_seconds": round(probe.process_seconds, 2),
        "probe_test_top1": round(probe.top1, 4),
        "full_epochs_run": given.epochs,
        "full_seconds_run": round(full.seconds, 2),
        "full_test_top1_after_epochs_run": [round(top1, 4) for top1 in full.report["test_top1"]],
        f"full_seconds_{EPOCHS}_epochs": round(seconds, 1),
        "extrapolated": given.epochs < EPOCHS,
        "training_pictures": full.report["pictures"],
        "threads": [probe.report["threads"], full.report["threads"]],
        "ratio": round(seconds / probe.seconds, 2),
        "ratio_at_least": LEAST_RATIO,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
