"""The main job as a newcomer runs it, with its figures. Minutes long: `make test-slow`."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

MINUTES, GIGABYTES = 8, 3.0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_keeps_its_promises(tmp_path):
    environment = {**os.environ, "TRANSFERSCOPE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "transferscope", "demo", "--out", "demo", "--resume", "--json"]

    def run() -> tuple[float, dict[str, object]]:
        began = time.monotonic()
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return time.monotonic() - began, json.loads(done.stdout)

    seconds, told = run()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    characters, strips = told["characters"], told["strips"]
    assert characters["top1"] >= 0.975, characters["top1"]
    assert characters["confusable"] >= characters["top1"]
    assert strips["share"] >= 0.9, strips
    assert seconds <= MINUTES * 60, f"{seconds:.0f} s"
    assert peak < GIGABYTES, f"{peak:.2f} GB"

    root = tmp_path / "demo"
    comparison = json.loads((root / "comparison" / "comparison.json").read_text())
    assert len(comparison["layers"]) == 3
    for layer in comparison["layers"]:
        assert len(layer["channels"]) == 16
        assert not layer["identical"]
        assert len(layer["chance_values"]) >= 200
    atlas = root / "atlas"
    assert Path(told["atlas"]).name == "index.html"
    assert len(list((atlas / "units").glob("*.html"))) == 48
    again, retold = run()
    assert retold == told
    assert again < 30
