"""A run and its pictures moved together, or the pictures alone, for every verb; and a run that is read-only."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

import transferscope as ts
from conftest import BACKBONE, Heard, command
from transferscope.errors import DataError, OutputError, RunError
from transferscope.files import is_writable, read_json, write_json
from transferscope.visualize.recipe import RenderRecipe
from transferscope.workflows.atlas import write_atlas
from transferscope.workflows.compare import compare
from transferscope.workflows.evaluate import evaluate_run
from transferscope.workflows.export import export
from transferscope.workflows.predict import predict
from transferscope.workflows.run import Run

pytestmark = pytest.mark.usefixtures("undrawn")

LAYERS = ["blocks.0"]


@pytest.fixture(scope="module")
def home(tmp_path_factory, make_folder, weights) -> Path:
    """A folder with pictures, weights, a table whose paths go upwards, and two runs."""
    home = tmp_path_factory.mktemp("first") / "home"
    photos = make_folder(home / "photos", {"猫": 14, "b": 12, "c": 13})
    rows = [
        f"../photos/{file.parent.name}/{file.name},{file.parent.name}"
        for file in sorted(photos.rglob("*.png"))
    ]
    (home / "tables").mkdir()
    (home / "tables" / "all.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    shutil.copy(weights, home / "w.safetensors")
    given = {"backbone": BACKBONE, "weights": home / "w.safetensors", "epochs": 1, "batch_size": 8}
    given |= {"strategy": "scratch", "augment": "none"}
    ts.tune(photos, out=home / "runs" / "folder", **given)
    ts.tune(home / "tables" / "all.csv", out=home / "runs" / "table", **given)
    return home


FEW = ("--draw", "1", "--seeds", "1", "--patch", "2")


@pytest.fixture(autouse=True)
def short_drawings(monkeypatch):
    short = RenderRecipe(steps=4)
    monkeypatch.setattr(
        "transferscope.workflows.shortlist_drawings.make_recipe", lambda _steps: short
    )


def every_verb(run: Path, tmp_path: Path, *data: object, controls: int) -> None:
    """All that a run is for, as it is typed; `controls` read the training pictures too."""
    option = ["--data", *data] if data else []
    for words in (
        ["evaluate", run, *option],
        ["compare", run, "--layers", ",".join(LAYERS), "--controls", controls, *FEW, *option],
        ["atlas", run, "--out", tmp_path / "atlas", *option],
        ["export", run, "--format", "hub", "--out", tmp_path / "hub", *option],
        ["predict", run, next((tmp_path).rglob("*.png"))],
    ):
        answer = command(*words, "--quiet")
        assert answer.exit_code == 0, (words, answer.output, answer.stderr)
    assert list((tmp_path / "atlas").rglob("*.webp"))


@pytest.mark.parametrize("name", ["folder", "table"])
def test_a_run_and_its_pictures_moved_together_work_for_every_verb(
    home, tmp_path, name, monkeypatch
):
    hidden = home.with_name("away")
    shutil.copytree(home, tmp_path / "there")
    home.rename(hidden)
    try:
        monkeypatch.chdir(tmp_path / "there" / "tables")  # another place than it was tuned from
        every_verb(Path("..") / "runs" / name, tmp_path, controls=0)
        assert Run(Path("..") / "runs" / name).base.temperature == 1.0
    finally:
        hidden.rename(home)


@pytest.mark.parametrize(
    ("name", "data", "controls"), [("folder", "photos", 0), ("table", "tables/all.csv", 2)]
)
def test_pictures_that_moved_alone_are_named_by_data(home, tmp_path, name, data, controls):
    place = tmp_path / "elsewhere"
    place.mkdir()
    for folder in ("photos", "tables"):
        shutil.copytree(home / folder, place / folder)
    run = tmp_path / "run"
    shutil.copytree(home / "runs" / name, run)
    record = read_json(run / "run.json")
    record |= {"root": str(tmp_path / "gone"), "root_from_run": "../gone"}
    write_json(run / "run.json", record)
    answer = command("compare", run, "--layers", LAYERS[0], *FEW, "--quiet")
    assert answer.exit_code == 1
    assert "--data" in answer.stderr
    every_verb(run, tmp_path, place / data, controls=controls)


def test_data_that_hold_none_of_the_pictures_are_refused_before_the_work(home, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"has none of the run's pictures, such as '.*\.png'"):
        compare(Run(home / "runs" / "folder"), layers=LAYERS, data=tmp_path / "empty")
    with pytest.raises(DataError, match="has none of the run's pictures"):
        write_atlas(Run(home / "runs" / "folder"), data=tmp_path / "empty", out=tmp_path / "atlas")


def test_run_json_says_where_things_are_from_the_run_and_what_auto_meant(home):
    record = read_json(home / "runs" / "table" / "run.json")
    assert record["root_from_run"] == "../../photos"
    assert record["weights_from_run"] == "../../w.safetensors"
    assert record["precision"] in ("fp32", "bf16")
    assert record["config"]["precision"] == "auto"
    assert Run(home / "runs" / "table").precision == record["precision"]


def test_weights_that_are_gone_are_said_with_the_place_to_put_them(home, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(home / "runs" / "folder", run)
    record = read_json(run / "run.json")
    record["config"]["weights"] = str(tmp_path / "gone" / "w.safetensors")
    write_json(run / "run.json", record | {"weights_from_run": "../gone/w.safetensors"})
    with pytest.raises(RunError, match=r"gone.*put the file back, or as '.*run/w\.safetensors'"):
        Run(run).base  # noqa: B018
    shutil.copy(home / "w.safetensors", run / "w.safetensors")
    assert torch.isfinite(Run(run).base.network.state_dict()["conv_stem.weight"]).all()


# ---------------------------------------------------------------------------- read-only


@pytest.fixture
def sealed(home, tmp_path, monkeypatch) -> Run:
    """A run in which nothing can be written."""
    shutil.copytree(home / "runs" / "folder", tmp_path / "sealed")
    run = tmp_path / "sealed"
    record = read_json(run / "run.json")
    write_json(run / "run.json", record | {"root": str(home / "photos")})
    real = os.open, open

    def refuse(path: object, mode: object) -> None:
        inside = str(path).startswith(str(run))
        if inside and mode not in ("r", "rb"):
            raise PermissionError(13, "Permission denied")

    def opened(path, mode="r", *rest, **named):
        refuse(path, mode)
        return real[1](path, mode, *rest, **named)

    monkeypatch.setattr("builtins.open", opened)
    assert not is_writable(run)
    return Run(run)


def test_a_read_only_run_is_evaluated_predicted_and_exported(sealed, home, tmp_path):
    heard = Heard()
    before = sorted(sealed.path.rglob("*"))
    result = evaluate_run(sealed, reporter=heard)
    assert result.n == len(sealed.split.part("test"))
    assert any(
        "cannot be written: the figures are told and not kept" in line for line in heard.lines
    )
    assert predict(sealed.classifier, [home / "photos" / "b" / "000.png"])[0].error is None
    assert export(sealed, format="torch", out=tmp_path / "net.pt2").bytes > 0
    assert sorted(sealed.path.rglob("*")) == before


def test_what_a_read_only_run_cannot_keep_is_refused_before_the_work(sealed):
    told = (
        r"cannot write in .*comparison.* is read-only; copy the run to a folder that can be written"
    )
    with pytest.raises(OutputError, match=told):
        compare(sealed, layers=LAYERS)
    with pytest.raises(OutputError, match=r"cannot be written; say with --out"):
        write_atlas(sealed)
