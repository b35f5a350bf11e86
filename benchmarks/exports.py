"""What other programs make of a run's exports: parity on every test picture, and throughput.

    python benchmarks/exports.py --run runs/photos      # --data DIR where the pictures have moved

Exports the run as ONNX and as a torch.export program into a temporary folder, gives every picture of the
test split to the classifier and to both files, and compares probabilities and classes. Then the
classifier's own forward pass (fp32, and at the precision that prediction uses here), ONNX Runtime and the
program take turns on the same pictures in memory, in one process, with as many threads each. Prints the
CPU's flags that matter and one JSON line.
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
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    given = parser.parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the command line does

    import torch

    from transferscope.acceleration.folding import folded
    from transferscope.acceleration.memory import reuse_memory
    from transferscope.acceleration.precision import autocast
    from transferscope.data.loading import load_batches
    from transferscope.exports.onnx_file import load_onnx
    from transferscope.exports.program import load_program
    from transferscope.images import as_float
    from transferscope.machine import cpu_flags
    from transferscope.workflows.export import export
    from transferscope.workflows.run import Run, files_of

    reuse_memory()
    run = Run(given.run)
    classifier = run.classifier
    spec = classifier.input
    files, _ = files_of(run, "test", given.data)
    with tempfile.TemporaryDirectory() as folder:
        done = {
            name: export(
                run,
                format=name,
                out=Path(folder) / f"classifier{suffix}",
                pictures=0,
                data=given.data,
            )
            for name, suffix in (("onnx", ".onnx"), ("torch", ".pt2"))
        }
        onnx, _ = load_onnx(done["onnx"].path)
        program, _ = load_program(done["torch"].path)
    network = folded(classifier.network, classifier.example()).to(memory_format=torch.channels_last)
    ready = [
        as_float(batch) for batch in load_batches(files[:128], spec, batch_size=given.batch_size)
    ]

    def ours(precision: str) -> Callable[[torch.Tensor], object]:
        def forward(pictures: torch.Tensor) -> object:
            with torch.inference_mode(), autocast(classifier.device, precision):
                pictures = spec.normalise(pictures)
                return network(pictures.contiguous(memory_format=torch.channels_last))

        return forward

    def torch_program(pictures: torch.Tensor) -> object:
        with torch.inference_mode():
            return program(pictures)

    sides = {
        "classifier_fp32": ours("fp32"),
        "classifier_auto": ours("auto"),
        "onnx_runtime": onnx,
        "torch_program": torch_program,
    }

    def speed(work: Callable[[torch.Tensor], object]) -> float:
        began = time.perf_counter()
        for pictures in ready:
            work(pictures)
        return sum(map(len, ready)) / (time.perf_counter() - began)

    for work in sides.values():
        work(ready[0])
    rounds = [{name: speed(work) for name, work in sides.items()} for _ in range(given.rounds)]
    median = {name: statistics.median(one[name] for one in rounds) for name in sides}
    print("cpu:", " ".join(sorted(cpu_flags())) or "none of bf16, AMX, AVX-512")
    result = {
        "backbone": classifier.backbone,
        "parity": {name: export.parity.to_dict() for name, export in done.items()},
        "megabytes": {name: round(export.bytes / 1e6, 1) for name, export in done.items()},
        "export_seconds": {name: round(export.seconds, 1) for name, export in done.items()},
        "threads": torch.get_num_threads(),
        "batch_size": given.batch_size,
        "pictures_per_second": {name: round(value, 1) for name, value in median.items()},
        "onnx_against_fp32": [
            round(one["onnx_runtime"] / one["classifier_fp32"], 3) for one in rounds
        ],
        "ratio": round(
            statistics.median(one["onnx_runtime"] / one["classifier_fp32"] for one in rounds), 3
        ),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
