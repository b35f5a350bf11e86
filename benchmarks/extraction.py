"""Files to cached features, against the network's forward pass alone.

    python benchmarks/extraction.py --data photos/train     # any folder with pictures below it

Both sides alternate in one process: `forward` runs the same folded network over pictures that are in
memory already, `features` hashes, decodes, resizes and runs it, and writes the cache, which is empty every
time. Prints the CPU's flags that matter and one JSON line; `ratio` is features / forward.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the command line does

    import torch

    from transferscope.acceleration.folding import folded
    from transferscope.acceleration.memory import reuse_memory
    from transferscope.acceleration.precision import autocast
    from transferscope.backbones.weights import load_backbone
    from transferscope.data.loading import load_batches
    from transferscope.features.extraction import extract
    from transferscope.files import sha256_file
    from transferscope.formats import SUFFIXES
    from transferscope.images import as_float
    from transferscope.machine import cpu_flags

    reuse_memory()
    classifier = load_backbone(given.backbone)
    spec = classifier.input
    files = sorted(p for p in given.data.rglob("*") if p.suffix.lower() in SUFFIXES)
    network = folded(classifier.network, classifier.example()).to(memory_format=torch.channels_last)
    ready = list(load_batches(files[:256], spec, batch_size=16))

    def forward() -> int:
        with torch.inference_mode(), autocast(classifier.device, given.precision):
            for batch in ready:
                pictures = spec.normalise(as_float(batch))
                network(pictures.contiguous(memory_format=torch.channels_last))
        return sum(map(len, ready))

    def decode() -> int:
        return sum(len(batch) for batch in load_batches(files, spec, batch_size=16))

    def features() -> int:
        with tempfile.TemporaryDirectory() as cache:
            os.environ["TRANSFERSCOPE_CACHE"] = cache
            hashes = [sha256_file(file) for file in files]
            extract(classifier, files, hashes, precision=given.precision)
        return len(files)

    def speed(work: Callable[[], int]) -> float:
        began = time.perf_counter()
        count = work()
        return count / (time.perf_counter() - began)

    forward()
    rounds = [(speed(forward), speed(features), speed(forward)) for _ in range(given.rounds)]
    ratios = [2 * both / (before + after) for before, both, after in rounds]
    print("cpu:", " ".join(sorted(cpu_flags())) or "none of bf16, AMX, AVX-512")
    result = {
        "pictures": len(files),
        "backbone": given.backbone,
        "precision": given.precision,
        "forward_per_second": round(statistics.median(r for a, _, b in rounds for r in (a, b)), 1),
        "features_per_second": round(statistics.median(both for _, both, _ in rounds), 1),
        "decoding_alone_per_second": round(speed(decode), 1),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "ratio": round(statistics.median(ratios), 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
