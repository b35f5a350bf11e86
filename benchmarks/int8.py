"""What int8 costs and gains: both ONNX files on every test picture, and their pictures a second in turn.

    python benchmarks/int8.py --run runs/photos      # --data DIR where the pictures have moved
    python benchmarks/int8.py --run runs/photos --files fp32.onnx int8.onnx      # exported before

Exports the run twice into a temporary folder, in fp32 and in int8 (calibrated, and its layers chosen, on
validation pictures alone), unless `--files` names both. Gives every picture of the test split to both files
once, and lets them take turns on the same pictures in memory, in one process, with as many threads each.
Prints the CPU's flags that matter and one JSON line; `ratio` is int8 / fp32.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--files", type=Path, nargs=2)
    parser.add_argument("--int8-drop", type=float, default=0.5)
    given = parser.parse_args()

    import torch

    from transferscope.data.loading import load_batches
    from transferscope.evaluation.paired import paired_interval
    from transferscope.exports.onnx_file import load_onnx
    from transferscope.images import as_float
    from transferscope.machine import cpu_flags
    from transferscope.workflows.export import export
    from transferscope.workflows.run import Run, files_of, labels_of

    run = Run(given.run)
    files, pictures = files_of(run, "test", given.data)
    labels = labels_of(pictures)
    options = {"format": "onnx", "data": given.data}
    with tempfile.TemporaryDirectory() as folder:
        paths = given.files or [Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"]
        if given.files is None:
            export(run, out=paths[0], **options)
            export(run, out=paths[1], int8=True, int8_drop=given.int8_drop, **options)
        megabytes = [round(path.stat().st_size / 1e6, 2) for path in paths]
        opened = [load_onnx(path) for path in paths]
    sides = dict(zip(("fp32", "int8"), (run for run, _ in opened), strict=True))
    said: dict[str, list[torch.Tensor]] = {name: [] for name in sides}
    ready: list[torch.Tensor] = []
    for batch in load_batches(files, run.classifier.input, batch_size=given.batch_size):
        floats = as_float(batch)
        if len(ready) < 8:
            ready.append(floats)
        for name, side in sides.items():
            said[name].append(side(floats)[0].argmax(dim=1))
    answers = {name: torch.cat(parts) for name, parts in said.items()}
    right = {name: (one == labels).numpy() for name, one in answers.items()}

    def speed(name: str) -> float:
        began = time.perf_counter()
        for floats in ready:
            sides[name](floats)
        return sum(map(len, ready)) / (time.perf_counter() - began)

    rounds = [{name: speed(name) for name in sides} for _ in range(given.rounds)]
    ratios = [one["int8"] / one["fp32"] for one in rounds]
    print("cpu:", " ".join(sorted(cpu_flags())) or "none of bf16, AMX, AVX-512")
    result = {
        "backbone": run.classifier.backbone,
        "validation": dict(opened[1][1].int8 or {}),
        "test": {
            "n": len(labels),
            "top1": {name: round(float(one.mean()), 4) for name, one in right.items()},
            "points_lost": round(100 * float(right["fp32"].mean() - right["int8"].mean()), 2),
            "interval": [
                round(100 * end, 2) for end in paired_interval(right["fp32"], right["int8"])
            ],
            "changed": round(float((answers["fp32"] != answers["int8"]).float().mean()), 4),
        },
        "megabytes": dict(zip(sides, megabytes, strict=True)),
        "threads": torch.get_num_threads(),
        "batch_size": given.batch_size,
        "pictures_per_second": {
            name: round(statistics.median(one[name] for one in rounds), 1) for name in sides
        },
        "ratios": [round(one, 3) for one in ratios],
        "ratio": round(statistics.median(ratios), 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
