"""Control transfers and retunings of a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import transferscope as ts
from conftest import BACKBONE, Heard
from transferscope.data.scan import Picture
from transferscope.errors import DataError, RunError, WeightsError
from transferscope.files import read_csv, read_tensors, write_csv
from transferscope.training import rerun as rerun_file
from transferscope.workflows import controls
from transferscope.workflows.controls import (
    control_tails,
    load_tail,
    retunings,
    shuffled_labels,
)
from transferscope.workflows.run import Run

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def photos(tmp_path_factory, make_folder) -> Path:
    return make_folder(tmp_path_factory.mktemp("controls") / "set", {"a": 14, "b": 12, "c": 13})


@pytest.fixture(scope="module")
def make(photos, weights, tmp_path_factory) -> Callable[..., Run]:
    def tuned(**options) -> Run:
        out = tmp_path_factory.mktemp("run") / "run"
        defaults = {"strategy": "partial", "epochs": 3, "batch_size": 8, "lr": 3e-3}
        return ts.tune(photos, out=out, backbone=BACKBONE, weights=weights, **(defaults | options))

    return tuned


def ends_at(run: Run, epoch: int) -> Run:
    """The run as if this epoch had been its best."""
    rows = [row | {"best": int(int(row["epoch"]) == epoch)} for row in run.history]
    write_csv(run.path / "history.csv", list(rows[0]), [list(row.values()) for row in rows])
    return run


@pytest.fixture(scope="module")
def run(make) -> Run:
    return ends_at(make(), 2)


def bare(run: Run, out: Path) -> Run:
    """A copy of the run without the controls that other tests made."""
    return Run(shutil.copytree(run.path, out, ignore=shutil.ignore_patterns("controls")))


def test_the_runs_own_seed_and_labels_give_the_runs_own_weights(make, monkeypatch):
    run = make(strategy="scratch", epochs=2)
    best = next(int(row["epoch"]) for row in run.history if row["best"] == "1")
    assert best > 0, "the run must have moved, or nothing is tested"
    monkeypatch.setattr(controls, "_seed", lambda run, kind, number: run.config.seed)
    (tail,) = retunings(run, 1)
    tensors, _ = read_tensors(tail.file)
    state = run.classifier.network.state_dict()
    assert tensors
    assert all(torch.equal(tensor, state[name]) for name, tensor in tensors.items())


def test_a_control_begins_at_a_head_of_its_own_labels(run, tmp_path):
    """Whichever was made before it in the same folder; and what was fitted for it is not left to the run."""
    both, alone = (bare(run, tmp_path / name) for name in ("both", "alone"))
    first, second = control_tails(both, 2)
    (alone.path / "controls").mkdir()
    shutil.copy(first.file, alone.path / "controls")
    tensors, _ = read_tensors(control_tails(alone, 2)[1].file)
    again, _ = read_tensors(second.file)
    assert all(torch.equal(tensor, again[name]) for name, tensor in tensors.items())
    kept = {file.relative_to(both.path) for file in both.path.rglob("*") if file.is_file()}
    before = {file.relative_to(run.path) for file in run.path.rglob("*") if file.is_file()}
    files = {Path("controls") / tail.file.name for tail in (first, second)}
    assert {one for one in kept - before if one.name != ".lock"} == files


def test_controls_are_tails_of_their_own_and_are_made_once(run):
    tails = control_tails(run, 2)
    names = [tail.file.relative_to(run.path).as_posix() for tail in tails]
    assert names == ["controls/control-000.safetensors", "controls/control-001.safetensors"]
    first, metadata = read_tensors(tails[0].file)
    second, _ = read_tensors(tails[1].file)
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert {"seed", "labels", "recipe", "epoch", "share", "body"} <= set(metadata)
    assert metadata["epoch"] == 2
    below = set(run.base.network.state_dict()) - set(first)
    assert below, "what lies below the boundary is not stored"
    written = [tail.file.stat().st_mtime_ns for tail in tails]
    heard = Heard()
    again = control_tails(run, 2, reporter=heard)
    assert again == tails
    assert [tail.file.stat().st_mtime_ns for tail in again] == written
    assert not heard.progress, "nothing was done"
    more = control_tails(run, 3)
    assert more[:2] == tails
    assert more[0].file.stat().st_mtime_ns == written[0]
    assert not [path for path in (run.path / "controls").iterdir() if path.is_dir()]


def test_a_control_shares_the_body_and_differs_behind_the_boundary(run):
    (tail,) = control_tails(run, 1)
    control, tuned = load_tail(run, tail), run.classifier
    stored, _ = read_tensors(tail.file)
    state, own = control.network.state_dict(), tuned.network.state_dict()
    for name, tensor in state.items():
        if name in stored:
            assert torch.equal(tensor, stored[name])
            assert tensor.data_ptr() != own[name].data_ptr()
        else:
            assert tensor.data_ptr() == own[name].data_ptr()
            assert torch.equal(tensor, run.base.network.state_dict()[name])
    assert control.classes == tuned.classes
    assert not control.network.training
    assert any(not torch.equal(state[name], own[name]) for name in stored)


def test_an_interrupted_control_goes_on_to_the_same_bits(run, tmp_path, monkeypatch):
    other = bare(run, tmp_path / "other")
    (whole,) = control_tails(run, 1)
    real = rerun_file.Journal.save

    def dies(journal, saved, *, name):
        real(journal, saved, name=name)
        raise KeyboardInterrupt

    monkeypatch.setattr(rerun_file.Journal, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        control_tails(other, 1)
    monkeypatch.setattr(rerun_file.Journal, "save", real)
    assert not (other.path / "controls" / "control-000.safetensors").exists()
    heard = Heard()
    (resumed,) = control_tails(other, 1, reporter=heard)
    assert heard.progress[-1][0] > heard.progress[-1][1] / 2
    expected, _ = read_tensors(whole.file)
    found, _ = read_tensors(resumed.file)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_damaged_or_foreign_tail_is_made_again(run):
    tails = control_tails(run, 1)
    expected, _ = read_tensors(tails[0].file)
    start = tails[0].file.read_bytes()[:1000]
    tails[0].file.unlink()  # `expected` may be a map of it
    tails[0].file.write_bytes(start)
    with pytest.raises(WeightsError, match="safetensors"):
        load_tail(run, tails[0])
    control_tails(run, 1)
    found, _ = read_tensors(tails[0].file)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    "options",
    [{"head": "mlp"}, {"strategy": "full", "augment": "none"}, {"strategy": "scratch"}],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_every_strategy_and_head_has_controls(make, options):
    run = ends_at(make(epochs=1, **options), 1)
    tails = (*control_tails(run, 1), *retunings(run, 1))
    pictures = torch.rand(2, *run.base.input.shape)
    logits = [load_tail(run, tail)(pictures) for tail in tails]
    assert all(bool(torch.isfinite(one).all()) for one in logits)
    assert not torch.equal(*logits)


def test_a_backbone_as_it_was_is_refused(make, run, tmp_path):
    with pytest.raises(RunError, match="strategy is probe"):
        control_tails(make(strategy="probe"), 1)
    untuned = ends_at(bare(run, tmp_path / "untuned"), 0)
    with pytest.raises(RunError, match="best epoch is the start"):
        retunings(untuned, 1)


# ---------------------------------------------------------------------------- shuffling


def pictures_of(labels: str, groups: str | None = None) -> list[Picture]:
    return [
        Picture(str(n), int(label), "train", groups[n] if groups else None, str(n))
        for n, label in enumerate(labels)
    ]


def test_shuffled_labels_keep_the_classes_sizes_and_mean_nothing():
    pictures = pictures_of("0" * 300 + "1" * 200 + "2" * 100)
    true = torch.tensor([picture.label for picture in pictures])
    agreed = []
    for seed in range(40):
        shuffled = shuffled_labels(pictures, seed)
        assert torch.equal(shuffled.bincount(), true.bincount())
        assert torch.equal(shuffled, shuffled_labels(pictures, seed))
        agreed.append(float((shuffled == true).float().mean()))
    chance = (300**2 + 200**2 + 100**2) / 600**2
    assert abs(sum(agreed) / 40 - chance) < 0.01


def test_groups_are_shuffled_whole():
    groups = "aaaabbbbccccddddeeffgg"
    pictures = pictures_of("0000111122220000112222"[:22], groups)
    moved = 0
    for seed in range(20):
        shuffled = shuffled_labels(pictures, seed)
        for name in set(groups):
            assert len({int(shuffled[n]) for n, g in enumerate(groups) if g == name}) == 1
        assert len(shuffled.unique()) == 3
        moved += int((shuffled != torch.tensor([p.label for p in pictures])).any())
    assert moved >= 18
    with pytest.raises(DataError, match="one group"):
        shuffled_labels(pictures_of("0011", "aaaa"), 0)


def test_the_history_says_where_a_run_ended(run):
    assert [row["best"] for row in read_csv(run.path / "history.csv")].count("1") == 1
