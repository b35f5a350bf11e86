"""`tune --minutes`: epochs that fit, said before the work, with the schedule of the shorter length."""

from __future__ import annotations

from pathlib import Path

import pytest

import transferscope as ts
from conftest import BACKBONE, Heard
from transferscope.errors import InputError
from transferscope.files import read_json
from transferscope.training.recipe import Recipe
from transferscope.training.speed import Speed, tuning_seconds
from transferscope.workflows import time_budget

pytestmark = pytest.mark.usefixtures("undrawn")

SPEED = Speed(network=10.0, features=20.0, tail_step=100.0, whole_step=300.0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory, make_folder) -> Path:
    return make_folder(tmp_path_factory.mktemp("bounded") / "set", {"a": 14, "b": 12, "c": 13})


@pytest.fixture
def tuned(photos, weights, tmp_path, monkeypatch):
    """With a machine on which a step behind the boundary takes 100 seconds a picture."""
    monkeypatch.setattr(time_budget, "measure_speed", lambda *_, **__: SPEED)

    def make(name: str, **options):
        heard = Heard()
        options = {"strategy": "partial", "epochs": 3, "batch_size": 8} | options
        out = tmp_path / name
        run = ts.tune(
            photos, out=out, backbone=BACKBONE, weights=weights, reporter=heard, **options
        )
        return run, heard

    return make


def test_predicted_seconds_are_those_of_the_work():
    recipe = Recipe(epochs=6, views=4)
    assert tuning_seconds(SPEED, recipe, train=30, validation=9, whole=False) == pytest.approx(
        (4 * 30 + 9) * 20 + 6 * (30 + 3) * 100
    )
    assert tuning_seconds(SPEED, recipe, train=30, validation=9, whole=True) == pytest.approx(
        6 * ((30 + 9) * 10 + (30 + 3) * 300)
    )


def test_epochs_are_cut_to_what_fits_and_the_rate_ends_at_zero_all_the_same(tuned):
    run, heard = tuned("short", minutes=150)
    decided = read_json(run.path / "minutes.json")
    assert decided["epochs"] == 2
    assert run.recipe.epochs == 2
    assert run.config.recipe.epochs == 3, "what was asked for stays on record"
    rows = [row for row in run.history if int(row["epoch"])]
    assert len(rows) == 2
    assert float(rows[-1]["learning_rate"]) < 0.1 * float(rows[0]["learning_rate"])
    assert any("2 epochs of 3, which is what --minutes 150 leaves" in one for one in heard.lines)


def test_where_no_epoch_fits_the_probe_is_what_there_is(tuned):
    run, heard = tuned("none", minutes=20)
    assert run.results["strategy"] == "probe"
    assert list(run.results["candidates"]) == ["probe"]
    assert any("only the probe is fitted" in one for one in heard.lines)


def test_enough_time_changes_nothing_but_is_said(tuned):
    run, heard = tuned("long", minutes=6000)
    assert run.recipe.epochs == 3
    assert any("for 3 epochs" in one and "leaves" not in one for one in heard.lines)


def test_a_search_is_not_bounded(tuned):
    with pytest.raises(InputError, match="--minutes 3 and --search 2 are both given"):
        tuned("refused", minutes=3, search=2)
    with pytest.raises(InputError, match="--minutes is 0"):
        tuned("refused", minutes=0)
