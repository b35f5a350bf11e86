"""`predict` on files against the network alone on pictures that are decoded already.

    python benchmarks/prediction.py --data photos/ [--n 1000] [--precision fp32] [--run RUN]

Both run the same copy of the network with folded BatchNorm, in batches of 32 at the same precision; `predict`
decodes, resizes and ranks too. With the extra `onnx` the same pictures go through ONNX Runtime as well, from
files and alone (fp32 always). All sides alternate in one process, after one round that does not count;
medians of the rounds. Prints the CPU's flags that matter and one JSON line; `ratio` is `predict` / network
alone in pictures a second.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from transferscope.acceleration.memory import reuse_memory
from transferscope.acceleration.precision import autocast
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.weights import load_backbone
from transferscope.data.loading import load_batches
from transferscope.evaluation.predictions import answered
from transferscope.formats import SUFFIXES
from transferscope.machine import cpu_flags
from transferscope.workflows.predict import fast_copy, predict

BATCH = 32
LEAST_RATIO = 0.70


def timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def network_alone(
    classifier: Classifier, batches: list[torch.Tensor], precision: Any
) -> Callable[[], None]:
    fast = fast_copy(classifier)

    def work() -> None:
        with fast.inference(), autocast(fast.device, precision):
            for batch in batches:
                answered(fast, batch)

    return work


def onnx_sides(
    classifier: Classifier, files: list[Path], batches: list[torch.Tensor]
) -> dict[str, Callable[[], None]]:
    """ONNX Runtime from files and alone, or nothing where it is not installed."""
    if find_spec("onnxruntime") is None or find_spec("onnxscript") is None:
        return {}
    import onnxruntime

    from transferscope.exports.onnx_file import export_onnx

    with tempfile.TemporaryDirectory() as folder:
        export_onnx(classifier, Path(folder) / "network.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(
            (Path(folder) / "network.onnx").read_bytes(), options, ["CPUExecutionProvider"]
        )

    def run(given: Iterator[torch.Tensor]) -> None:
        for batch in given:
            session.run(None, {"pictures": batch.numpy().astype(np.float32) / 255})

    return {
        "onnx_from_files": lambda: run(load_batches(files, classifier.input, batch_size=BATCH)),
        "onnx_alone": lambda: run(iter(batches)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--run", type=Path, help="a run folder; default: the backbone itself")
    given = parser.parse_args()
    reuse_memory()
    classifier = load_backbone()
    if given.run:
        from transferscope.workflows.open_model import open_model

        classifier = open_model(given.run, device="cpu")
    found = sorted(path for path in given.data.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        parser.error(f"--data {str(given.data)!r} has no pictures in it")
    files = [found[round(at)] for at in np.linspace(0, len(found) - 1, given.n)]
    batches = list(load_batches(files, classifier.input, batch_size=BATCH))

    def from_files() -> None:
        predict(classifier, files, batch_size=BATCH, precision=given.precision)

    sides: dict[str, Callable[[], None]] = {
        "network_alone": network_alone(classifier, batches, given.precision),
        "predict": from_files,
        **onnx_sides(classifier, files, batches),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(given.rounds + 1):
        for name, work in sides.items():
            spent = timed(work)
            if number:
                seconds[name].append(spent)
    rates = {name: given.n / median(of) for name, of in seconds.items()}
    print("cpu:", " ".join(sorted(cpu_flags())) or "none of bf16, AMX, AVX-512")
    result = {
        "n": given.n,
        "precision": given.precision,
        "threads": torch.get_num_threads(),
        "mean_bytes": round(sum(file.stat().st_size for file in files) / len(files)),
        "pictures_per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "ratio": round(rates["predict"] / rates["network_alone"], 3),
        "ratio_at_least": LEAST_RATIO,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
