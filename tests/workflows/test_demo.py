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

from transferscope.comparison.change import LEARNED
from transferscope.comparison.records import Comparison
from transferscope.errors import RunError
from transferscope.workflows.demo import demo

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
    comparison = Comparison.load(root / "comparison")
    assert len(comparison.layers) == 3
    assert not any(layer.identical for layer in comparison.layers)
    learned = sum(len(comparison.found(LEARNED, name)) for name in ("blocks.5", "blocks.6"))
    assert learned >= 150, learned
    assert sum(comparison.false_in_controls) / (3 * comparison.tested) <= 0.05
    atlas = root / "atlas"
    assert Path(told["atlas"]).name == "index.html"
    assert len(list((atlas / "units").glob("*.html"))) == len(comparison.drawings) == 9
    again, retold = run()
    assert retold == told
    assert again < 30


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_takes_ones_own_pictures(make_folder, tmp_path):
    photos = make_folder(tmp_path / "photos", {"a": 14, "b": 12, "c": 13})
    run = demo(tmp_path / "run", data=photos, seed=0)
    assert run.results["strategy"] == "partial"
    pages = {page.name for page in (run.path / "atlas").glob("*.html")}
    assert {"index.html", "evaluation.html", "classes.html", "map.html"} <= pages
    assert not (run.path / "evaluation" / "strips.json").exists()
    before = (run.path / "atlas" / "index.html").stat().st_mtime_ns
    demo(tmp_path / "run", data=photos, seed=0, resume=True)
    assert (run.path / "atlas" / "index.html").stat().st_mtime_ns == before
    with pytest.raises(RunError, match="--resume"):
        demo(tmp_path / "run", data=photos)
