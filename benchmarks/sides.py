"""The sides of a timed comparison, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PEERS = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class Side:
    """What one side reported, and how long its process took.

    Attributes:
        report: its JSON line: epoch_seconds (since its imports were done), test_top1 after each, and
            untimed_seconds, spent on the test split.
        process_seconds: of the whole process, imports and all, less those spent on the test split.
    """

    report: dict[str, Any]
    process_seconds: float

    @property
    def seconds(self) -> float:
        """All epochs, without imports."""
        return float(self.report["epoch_seconds"][-1])

    @property
    def top1(self) -> float:
        """On the test split, at the end."""
        return float(self.report["test_top1"][-1])

    def epoch_reaching(self, target: float) -> int | None:
        """The first epoch (1, 2, ...) after which the test accuracy is at least `target`."""
        return next(
            (n for n, top1 in enumerate(self.report["test_top1"], 1) if top1 >= target), None
        )

    def seconds_to(self, target: float) -> float:
        """Until then; where it is never reached, of all epochs."""
        return float(self.report["epoch_seconds"][(self.epoch_reaching(target) or 0) - 1])

    def process_seconds_to(self, target: float) -> float:
        """Likewise with the process's start and end."""
        return self.process_seconds - self.seconds + self.seconds_to(target)


def run_side(script: str, *arguments: object, python: str | Path = sys.executable) -> Side:
    """Runs a script of `peers` and reads the JSON line that it ends with.

    Every side's OpenMP threads wait as our command line sets them to: by default they spin, which costs
    a loop much time wherever its own loader's workers want the same cores.
    """
    environment = {"GOMP_SPINCOUNT": "2000", **os.environ}
    command = [str(python), str(PEERS / script), *map(str, arguments)]
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    whole = time.perf_counter() - began
    report = json.loads(done.stdout.splitlines()[-1])
    print(script, json.dumps(report), file=sys.stderr, flush=True)  # kept, should a later side fail
    return Side(report, whole - report["untimed_seconds"])
