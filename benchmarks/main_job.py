"""The main job on a folder of pictures: time, accuracy, and one answer for one picture.

    python benchmarks/main_job.py --data photos/     # with train/, validation/ and test/ in it

Whole processes are timed, from typing the command to its end, on a cache that starts empty. Prints the
CPU's flags that matter and one JSON line. On clothing photographs (10 classes, 1,905 pictures), two
cores: 85.8% test top-1 (95% interval 81.8% to 88.9%).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def transferscope(*arguments: object, cache: Path) -> tuple[float, str]:
    """Seconds of the whole process and what it printed on stdout."""
    environment = {**os.environ, "TRANSFERSCOPE_CACHE": str(cache)}
    command = [sys.executable, "-m", "transferscope", *map(str, arguments)]
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return time.perf_counter() - began, done.stdout


def answers_differ(run: Path, files: list[Path], printed: str) -> float:
    """Largest difference of a probability: alone, in a batch, after reload, through the CLI."""
    import torch

    from transferscope.workflows.open_model import open_model
    from transferscope.workflows.predict import predict

    classifier = open_model(run)
    names = classifier.classes

    def table(answers: list[dict[str, float]]) -> torch.Tensor:
        return torch.tensor([[answer[name] for name in names] for answer in answers])

    def asked(*, alone: bool, reload: bool) -> torch.Tensor:
        model = open_model(run) if reload else classifier
        groups = [[file] for file in files] if alone else [files]
        found = [a for group in groups for a in predict(model, group, top=len(names))]
        return table([{guess.name: guess.probability for guess in a.top} for a in found])

    cli = table([{g["class"]: g["probability"] for g in a["top"]} for a in json.loads(printed)])
    batch = asked(alone=False, reload=False)
    others = (asked(alone=True, reload=False), asked(alone=False, reload=True), cli)
    return max(float((batch - other).abs().max()) for other in others)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        cache = work / "cache"
        help_seconds = statistics.median(transferscope("--help", cache=cache)[0] for _ in range(7))
        probe = ("--strategy", "probe", "--json", "--quiet")
        first, told = transferscope("tune", data, "--out", work / "first", *probe, cache=cache)
        again, retold = transferscope(
            "tune", data, "--out", work / "again", *probe, "--seed", 1, cache=cache
        )
        evaluated = json.loads(transferscope("evaluate", work / "first", "--json", cache=cache)[1])
        files = sorted(p for p in (data / "test").rglob("*") if p.is_file())[::16][:24]
        printed = transferscope(
            *("predict", work / "first", *files, "--top", 1000, "--json", "--quiet"), cache=cache
        )[1]
        from transferscope.machine import cpu_flags

        print("cpu:", " ".join(sorted(cpu_flags())) or "none of bf16, AMX, AVX-512")
        result = {
            "help_seconds": round(help_seconds, 3),
            "tune_probe_seconds": round(first, 1),
            "tune_probe_cached_at_first": json.loads(told)["cached"],
            "tune_other_seed_seconds": round(again, 1),
            "tune_other_seed_cached": json.loads(retold)["cached"],
            "test_pictures": evaluated["n"],
            "test_top1": round(evaluated["top1"], 4),
            "test_top1_interval": [round(bound, 4) for bound in evaluated["top1_interval"]],
            "largest_difference_of_a_probability": answers_differ(work / "first", files, printed),
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
