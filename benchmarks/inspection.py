"""How long a look at a set takes, and how much memory: a real set, and 10,000 and 100,000 tiny files.

    python benchmarks/inspection.py --data photos/ [--tiny 10000 100000]

Whole processes of `transferscope inspect --json` on an empty cache are timed; the tiny sets (32 x 32
noise over a gradient, JPEG and PNG by turns, 100 classes) are generated in a temporary folder. Prints the
CPU's flags that matter and one JSON line; `per_file_ratio` is seconds a file of the largest set over
the smallest: 1 is linear.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 32


def generate(folder: Path, count: int) -> None:
    """Writes `count` pictures that all differ into 100 class folders."""
    rng = np.random.default_rng(count)
    ramp = np.linspace(0, 160, SIDE)
    for number in range(count):
        home = folder / f"class_{number % 100:02d}"
        home.mkdir(parents=True, exist_ok=True)
        angle = rng.uniform(0, 2 * np.pi)
        plain = np.add.outer(np.cos(angle) * ramp, np.sin(angle) * ramp)[..., None]
        values = plain - plain.min() + rng.uniform(0, 90, (SIDE, SIDE, 3))
        picture = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
        picture.save(home / f"{number:06d}.{('jpg', 'png')[number % 2]}")


def inspect(data: Path, cache: Path) -> dict[str, float]:
    """Seconds, and peak memory in MiB, of one whole process."""
    environment = {**os.environ, "TRANSFERSCOPE_CACHE": str(cache)}
    program = (
        "import resource, sys; from transferscope.cli import main\n"
        "try: main()\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, "inspect", str(data), "--json", "--quiet"]
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - began
    found = json.loads(done.stdout)
    peak = int(done.stderr.split()[-1]) / (1024 if sys.platform != "darwin" else 1024**2)
    return {
        "pictures": found["n"],
        "near_duplicates": len(found["near_duplicates"]),
        "seconds": round(seconds, 1),
        "milliseconds_a_file": round(1000 * seconds / found["n"], 2),
        "peak_mib": round(peak),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tiny", type=int, nargs="*", default=[10_000, 100_000])
    given = parser.parse_args()
    result: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        result[given.data.name] = inspect(given.data, cache)
        tiny = {}
        for count in given.tiny:
            generate(Path(folder) / str(count), count)
            tiny[str(count)] = inspect(Path(folder) / str(count), cache)
    result |= tiny
    if len(tiny) > 1:
        speeds = [tiny[str(count)]["milliseconds_a_file"] for count in sorted(given.tiny)]
        result["per_file_ratio"] = round(speeds[-1] / speeds[0], 2)
    from transferscope.machine import cpu_flags

    print("cpu:", " ".join(sorted(cpu_flags())) or "none of bf16, AMX, AVX-512")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
