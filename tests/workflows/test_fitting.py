"""Far from home `tune` tries settings on validation and goes on until it settles; near home it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import transferscope as ts
from conftest import BACKBONE, Heard
from transferscope.files import read_json
from transferscope.training.advice import Cut
from transferscope.training.loop import plan_boundary
from transferscope.training.speed import Speed
from transferscope.workflows import fitting, time_budget

pytestmark = pytest.mark.usefixtures("undrawn")

FAST = Speed(network=1e-3, features=1e-3, tail_step=1e-3, whole_step=1e-3)
SLOW = replace(FAST, tail_step=100.0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory, make_folder) -> Path:
    return make_folder(tmp_path_factory.mktemp("far") / "set", {"a": 12, "b": 12})


@pytest.fixture(scope="module")
def measured():
    """What is measured of the pictures, once for each size of the input."""
    found, place = {}, fitting.place

    def once(source, sample):
        size = source.input.size
        if size not in found:
            found[size] = place(source, sample)
        return found[size]

    return once


@pytest.fixture
def tuned(photos, weights, tmp_path, monkeypatch, measured):
    """With the gain, the speed and the settling of courses that are given."""

    def make(name: str, *, gain: float, speed: Speed = FAST, settles: bool = True, **options):
        def placed(source, sample):
            cut = Cut(plan_boundary(source, 2), "made up")
            return replace(measured(source, sample), gain=gain, strategy="partial", cut=cut)

        heard = Heard()
        with monkeypatch.context() as patch:
            patch.setattr(fitting, "place", placed)
            patch.setattr(time_budget, "measure_speed", lambda *_, **__: speed)
            patch.setattr(fitting, "settled", lambda _: settles)
            run = ts.tune(
                photos, out=tmp_path / name, backbone=BACKBONE, weights=weights, batch_size=8,
                reporter=heard, **options,
            )  # fmt: skip
        return run, heard

    return make


def test_near_home_nothing_is_tried_and_nothing_takes_longer(tuned):
    run, heard = tuned("near", gain=0.7, settles=False)
    assert not {"far", "search", "courses", "settings"} & run.results.keys()
    assert run.recipe.epochs == 12
    assert not any("far from home" in line for line in heard.lines)
    assert not list(run.path.glob("checkpoints-*"))


def test_far_from_home_settings_are_tried_and_recorded(tuned):
    run, heard = tuned("far", gain=0.4, epochs=3)
    changes = run.results["far"]["changes"]
    assert [one["what"].split()[0] for one in changes] == ["learning", "BatchNorm", "augmentation"]
    assert len(run.results["search"]) == len(changes) + 1
    for change, name in zip(changes, ("learning_rate", "batch_norm", "augment"), strict=True):
        same = getattr(run.recipe, name) == getattr(run.config.recipe, name)
        assert same is not change["kept"], "what was kept is what the recipe has, and nothing else"
    assert run.recipe.epochs == 3, "given by name, and so not exceeded"
    (line,) = [line for line in heard.lines if "far from home" in line]
    assert "cover 0.40 of the way" in line
    assert "4 short trials of one setting each" in line
    assert (run.path / "search" / "search.svg").is_file()


def test_a_larger_input_is_taken_where_its_probe_is_measurably_better(tuned, monkeypatch):
    monkeypatch.setattr(fitting, "shorter_side", lambda _: 10_000)
    better = {"interval": (0.02, 0.2)}
    monkeypatch.setattr(fitting, "paired_interval", lambda *_, **__: better["interval"])
    run, heard = tuned("large", gain=0.4, epochs=2, lr=1e-3, augment="none")
    near, _ = tuned("near", gain=0.9, epochs=2)
    assert not (near.path / "size.json").exists()
    side = fitting.larger_side(near.base.input.size)
    assert run.classifier.input.size == run.base.input.size == (side, side)
    assert run.config.size is None
    assert any(f"{side} pixels" in line and line.endswith("taken") for line in heard.lines)
    better["interval"] = (-0.01, 0.2)
    run, heard = tuned("same", gain=0.4, epochs=2, lr=1e-3, augment="none")
    assert run.base.input.size == near.base.input.size


def test_the_size_that_is_asked_for_is_what_every_network_of_the_run_sees(tuned):
    run, _ = tuned("asked", gain=0.4, size=48, epochs=2, lr=1e-3, augment="none")
    assert run.classifier.input.size == run.base.input.size == (48, 48)
    assert not (run.path / "size.json").exists(), "what is given is not tried"


def test_given_settings_are_not_changed(tuned):
    run, _ = tuned(
        "given", gain=0.4, epochs=2, lr=1e-3, augment="none", recipe={"batch_norm": "train"}
    )
    assert run.results["far"]["changes"] == []
    assert (run.recipe.learning_rate, run.recipe.augment) == (1e-3, "none")


def test_courses_grow_while_validation_gains_and_the_best_is_kept(tuned, monkeypatch):
    monkeypatch.setattr(fitting, "MOST_EPOCHS", 24)
    run, heard = tuned("grows", gain=0.4, settles=False, lr=1e-3, augment="none")
    assert run.results["courses"] == [12, 24]
    least = {
        folder: min(row.calibrated_loss for row in fitting_history(run.path / folder))
        for folder in ("checkpoints", "checkpoints-24")
    }
    better = least["checkpoints-24"] < least["checkpoints"]
    assert run.recipe.epochs == (24 if better else 12)
    assert any("anew with 24 epochs, about" in line for line in heard.lines)


def fitting_history(folder: Path):
    from transferscope.training.checkpoints import last_progress

    found = last_progress(folder)
    assert found is not None
    return found.history


def test_minutes_bound_trials_and_courses(tuned):
    run, heard = tuned("bounded", gain=0.4, speed=SLOW, settles=False, minutes=1000, epochs=2)
    assert read_json(run.path / "search" / "plan.json")["fits"] is True
    run, heard = tuned("little", gain=0.4, speed=SLOW, settles=False, minutes=90, augment="none")
    assert read_json(run.path / "search" / "plan.json")["fits"] is False
    assert any("leaves no time for 3 short trials" in line for line in heard.lines)
    assert run.recipe.epochs < 12
    assert not list(run.path.glob("course-*.json")), "what was cut short does not grow"


def test_an_interrupted_run_goes_on_with_what_it_decided(tuned, monkeypatch):
    whole, _ = tuned("whole", gain=0.4, epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "within_minutes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tuned("half", gain=0.4, epochs=2)
    trial = whole.path.with_name("half") / "search" / "trial-003.json"
    stamp = trial.stat().st_mtime_ns
    run, _ = tuned("half", gain=0.4, epochs=2, resume=True)
    assert trial.stat().st_mtime_ns == stamp
    assert run.results["far"] == whole.results["far"]
    assert [row["calibrated_loss"] for row in run.history] == [
        row["calibrated_loss"] for row in whole.history
    ]


def interrupted(*_):
    raise KeyboardInterrupt
