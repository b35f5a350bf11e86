"""Whole processes that are killed, interrupted, or several."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from conftest import BACKBONE
from transferscope.storage import read_csv, read_json, read_tensors, sha256_json

KILLS = 20
EPOCHS = 200


def tuning(photos: Path, weights: Path, out: Path, *more: str) -> list[str]:
    return [
        *("tune", str(photos), "--out", str(out), "--backbone", BACKBONE, "--weights"),
        *(str(weights), "--strategy", "partial", "--unfreeze", "3", "--batch-size", "8"),
        *("--ema", "0.9", "--augment", "strong", "--patience", "0", "--quiet", *more),
    ]


def started(command: list[str], cache: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "TRANSFERSCOPE_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", *command], env=environment)


def digest(run: Path) -> str:
    """Of weights, statistics and history, all but how long things took."""
    tensors, _ = read_tensors(run / "classifier.safetensors")
    newest = max((run / "checkpoints").glob("step-*"))
    state, metadata = read_tensors(newest)
    history = [{**row, "seconds": ""} for row in read_csv(run / "history.csv")]
    results = {**read_json(run / "run.json")["results"], "seconds": 0, "cached": 0}
    progress = {**metadata["progress"], "history": [], "seconds": 0}
    values = {name: tensor.float().tolist() for name, tensor in {**tensors, **state}.items()}
    return sha256_json([values, history, results, progress])


@pytest.fixture(scope="module")
def many(tmp_path_factory, make_folder) -> Path:
    return make_folder(tmp_path_factory.mktemp("many") / "set", {"a": 40, "b": 40, "c": 41})


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_twenty_kills_leave_the_weights_that_no_kill_leaves(many, weights, tmp_path):
    options = ("--epochs", str(EPOCHS), "--keep-every", "10")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = ["transferscope", *tuning(many, weights, whole, *options)]
    began = time.monotonic()
    process = started(command, tmp_path / "cache")
    while not newest(whole) and process.poll() is None:
        time.sleep(0.02)
    before_training = time.monotonic() - began
    assert process.wait() == 0
    epoch = (time.monotonic() - began - before_training) / EPOCHS
    command = ["transferscope", *tuning(many, weights, killed, *options, "--resume")]
    draw = random.Random(0)
    cache = tmp_path / "other"  # its own, so that filling it is killed too
    for kill in range(KILLS):
        before = newest(killed)
        process = started(command, cache)
        if kill < 6:  # while it imports, reads, splits, extracts, fits the probe
            time.sleep(draw.uniform(0.5, before_training))
        else:
            while newest(killed) == before and process.poll() is None:
                time.sleep(0.02)
            time.sleep(draw.uniform(0, 2 * epoch))
        assert process.poll() is None, "it ended before it could be killed"
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert started(command, cache).wait() == 0
    assert digest(killed) == digest(whole)
    kept = {file.name for file in (killed / "timeline").iterdir()}
    assert kept == {f"epoch-{n:04d}.safetensors" for n in range(0, EPOCHS + 1, 10)}
    for name in kept:
        old, _ = read_tensors(whole / "timeline" / name)
        new, _ = read_tensors(killed / "timeline" / name)
        assert all(torch.equal(old[key], new[key]) for key in old)


def newest(run: Path) -> str:
    return max((file.name for file in (run / "checkpoints").glob("step-*.safetensors")), default="")


def test_ctrl_c_finishes_the_step_and_resume_ends_as_if_nothing_had_been(many, weights, tmp_path):
    cache = tmp_path / "cache"
    options = ("--epochs", "6")
    command = ["transferscope", *tuning(many, weights, tmp_path / "whole", *options)]
    assert started(command, cache).wait() == 0
    out = tmp_path / "stopped"
    command = ["transferscope", *tuning(many, weights, out, *options)]
    process = started(command, cache)
    while newest(out) < "step-000000011":
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert (out / "started.json").is_file()
    assert started([*command, "--resume"], cache).wait() == 0
    assert digest(out) == digest(tmp_path / "whole")


@pytest.mark.parametrize("strategy", ["partial", "full"])
def test_torchrun_ends_with_the_run_that_one_process_makes(many, weights, tmp_path, strategy):
    """From the boundary cache and from files; the caches are filled by both processes."""
    command = [
        *("transferscope", "tune", str(many), "--backbone", BACKBONE, "--weights", str(weights)),
        *("--strategy", strategy, "--epochs", "2", "--batch-size", "12", "--precision", "fp32"),
        "--quiet",
    ]
    alone, together = tmp_path / "alone", tmp_path / "together"
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    both = [*torchrun, *command, "--out", str(together)]
    runs = [started([*command, "--out", str(alone)], tmp_path / "1"), started(both, tmp_path / "2")]
    assert [run.wait() for run in runs] == [0, 0]
    one, two = (read_json(run / "run.json")["results"] for run in (alone, together))
    assert one["pictures"]["train"] % 12 == 1, (
        "the last batch should leave a process without a part"
    )
    assert one["validation"] == pytest.approx(two["validation"], rel=0.02)
    assert (alone / "split.csv").read_bytes() == (together / "split.csv").read_bytes()
    for a, b in zip(
        read_csv(alone / "history.csv"), read_csv(together / "history.csv"), strict=True
    ):
        for name in ("train_loss", "validation_loss"):
            assert float(a[name] or 0) == pytest.approx(float(b[name] or 0), rel=0.02)
    old, _ = read_tensors(alone / "classifier.safetensors")
    new, _ = read_tensors(together / "classifier.safetensors")
    for name, tensor in old.items():
        assert torch.allclose(tensor.float(), new[name].float(), rtol=0.05, atol=5e-3), name
