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

from conftest import BACKBONE, command
from forks import python
from transferscope.files import read_csv, read_json, read_tensors, sha256_json

KILLS = 20
EPOCHS = 200


def tuning(photos: Path, weights: Path, out: Path, *more: str) -> list[str]:
    return [
        *("tune", str(photos), "--out", str(out), "--backbone", BACKBONE, "--weights"),
        *(str(weights), "--strategy", "partial", "--unfreeze", "3", "--batch-size", "8"),
        *("--ema", "0.9", "--augment", "strong", "--patience", "0", "--quiet", *more),
    ]


def started(
    command: list[str], cache: Path, *, folder: Path | None = None
) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "TRANSFERSCOPE_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, cwd=folder)


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


@pytest.fixture(scope="module")
def few(tmp_path_factory, make_folder) -> Path:
    """37 of them are for training."""
    return make_folder(tmp_path_factory.mktemp("few") / "set", {"a": 17, "b": 17, "c": 19})


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_twenty_kills_leave_the_weights_that_no_kill_leaves(many, weights, tmp_path):
    options = ("--epochs", str(EPOCHS), "--keep-every", "10")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    tune = [sys.executable, "-m", "transferscope", *tuning(many, weights, whole, *options)]
    began = time.monotonic()
    process = started(tune, tmp_path / "cache")
    while not newest(whole) and process.poll() is None:
        time.sleep(0.02)
    before_training = time.monotonic() - began
    assert process.wait() == 0
    epoch = (time.monotonic() - began - before_training) / EPOCHS
    tune = [
        sys.executable,
        "-m",
        "transferscope",
        *tuning(many, weights, killed, *options, "--resume"),
    ]
    draw = random.Random(0)
    cache = tmp_path / "other"  # its own, so that filling it is killed too
    for kill in range(KILLS):
        before = newest(killed)
        process = started(tune, cache)
        if kill < 6:  # while it imports, reads, splits, extracts, fits the probe
            time.sleep(draw.uniform(0.5, before_training))
        else:
            while newest(killed) == before and process.poll() is None:
                time.sleep(0.02)
            time.sleep(draw.uniform(0, 2 * epoch))
        assert process.poll() is None, "it ended before it could be killed"
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert started(tune, cache).wait() == 0
    assert digest(killed) == digest(whole)
    kept = {file.name for file in (killed / "timeline").iterdir()}
    assert kept == {f"epoch-{n:04d}.safetensors" for n in range(0, EPOCHS + 1, 10)}
    for name in kept:
        old, _ = read_tensors(whole / "timeline" / name)
        new, _ = read_tensors(killed / "timeline" / name)
        assert all(torch.equal(old[key], new[key]) for key in old)


def newest(run: Path) -> str:
    return max((file.name for file in (run / "checkpoints").glob("step-*.safetensors")), default="")


STOPPED = """
import os, signal, sys
from itertools import count
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transferscope.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
steps = count(1)

def ctrl_c(*_):
    if next(steps) == 8:
        os.kill(os.getpid(), signal.SIGINT)

register_optimizer_step_pre_hook(ctrl_c)
main()
"""


@pytest.fixture
def one_thread():
    """As the processes that are started here have."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_ctrl_c_finishes_the_step_and_resume_ends_as_if_nothing_had_been(
    few, weights, tmp_path, one_thread
):
    def options(name: str) -> list[str]:
        return tuning(few, weights, tmp_path / name, "--epochs", "4")

    assert command(*options("whole")).exit_code == 0
    loud = [option for option in options("stopped") if option != "--quiet"]
    done = subprocess.run(
        [*python(), "-c", STOPPED, *loud],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130
    assert (
        "interrupted; what was finished is kept: tune and demo go on with --resume" in done.stderr
    )
    assert "Traceback" not in done.stderr
    out = tmp_path / "stopped"
    # The step that Ctrl-C came in, and the one that is told of it: within the second epoch.
    assert newest(out) == "step-000000009.safetensors"
    assert (out / "started.json").is_file()
    assert command(*options("stopped"), "--resume").exit_code == 0
    assert digest(out) == digest(tmp_path / "whole")


BOTH = """
import sys
from transferscope.cli import app
from transferscope.distributed import joined

with joined():
    for strategy in ("partial", "full"):
        app([*sys.argv[1:], "--strategy", strategy, "--out", strategy], standalone_mode=False)
"""


@pytest.fixture(scope="module")
def together(few, weights, tmp_path_factory) -> tuple[list[str], Path]:
    """Options, and the folder of what two processes made with each strategy.

    From the boundary cache and from files; the caches are filled by both processes.
    """
    home = tmp_path_factory.mktemp("together")
    (home / "both.py").write_text(BOTH)
    options = [
        *("tune", str(few), "--backbone", BACKBONE, "--weights", str(weights)),
        *("--epochs", "2", "--batch-size", "12", "--precision", "fp32", "--quiet"),
    ]
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    both = [*python(), "-m", *launch, *python(), "both.py", *options]
    assert started(both, home / "cache", folder=home).wait() == 0
    return options, home


@pytest.mark.parametrize("strategy", ["partial", "full"])
def test_torchrun_ends_with_the_run_that_one_process_makes(together, tmp_path, strategy):
    options, home = together
    alone, both = tmp_path / "alone", home / strategy
    assert command(*options, "--strategy", strategy, "--out", alone).exit_code == 0
    one, two = (read_json(run / "run.json")["results"] for run in (alone, both))
    assert one["pictures"]["train"] % 12 == 1, (
        "the last batch should leave a process without a part"
    )
    assert one["validation"] == pytest.approx(two["validation"], rel=0.02)
    assert (alone / "split.csv").read_bytes() == (both / "split.csv").read_bytes()
    for a, b in zip(read_csv(alone / "history.csv"), read_csv(both / "history.csv"), strict=True):
        for name in ("train_loss", "validation_loss"):
            assert float(a[name] or 0) == pytest.approx(float(b[name] or 0), rel=0.02)
    old, _ = read_tensors(alone / "classifier.safetensors")
    new, _ = read_tensors(both / "classifier.safetensors")
    for name, tensor in old.items():
        assert torch.allclose(tensor.float(), new[name].float(), rtol=0.05, atol=5e-3), name
