"""Our side, in a process of its own as the peers have: `tune --strategy probe`; prints one JSON line.

    python benchmarks/peers/transferscope_probe.py --data photos/

The cache is empty. `seconds` runs from the call of `transferscope.tune` (it lists, hashes and decodes files,
loads the network, fills the cache, fits and calibrates the head) to the finished run folder; the imports
that `tune` needs come before it, as the peers' do. The test split is looked at afterwards. Threads and memory
are set as the command line sets them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from clock import Clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the command line does

    import torch

    from transferscope.acceleration.memory import reuse_memory
    from transferscope.workflows.tune import tune

    reuse_memory()  # as the command line does
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRANSFERSCOPE_CACHE"] = str(Path(folder) / "cache")
        clock = Clock()
        run = tune(given.data, out=Path(folder) / "run", strategy="probe", seed=given.seed)
        seconds = clock.seconds()
        with clock.stopped():
            test = run.evaluate("test")
        result = {
            "pictures": run.results["pictures"],
            "cached_at_first": run.results["cached"],
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "epoch_seconds": [seconds],
            "test_top1": [test.top1],
            "validation_top1": run.results["validation"]["top1"],
            "untimed_seconds": clock.untimed,
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
