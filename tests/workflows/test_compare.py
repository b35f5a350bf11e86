"""`compare`: what it draws once for all runs, and how comparisons of several settings lie."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import transferscope as ts
from conftest import BACKBONE, Heard, command
from transferscope.files import read_json
from transferscope.visualize.units import Sweep
from transferscope.workflows.atlas import write_atlas
from transferscope.workflows.compare import compare
from transferscope.workflows.run import Run

pytestmark = pytest.mark.usefixtures("undrawn")

LAYERS = ("blocks.0", "blocks.3")


@pytest.fixture(scope="module")
def photos(tmp_path_factory, make_folder) -> Path:
    return make_folder(tmp_path_factory.mktemp("photos") / "set", {"a": 10, "b": 10, "c": 10})


@pytest.fixture(scope="module")
def run(photos, weights, tmp_path_factory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "run"
    options = {"strategy": "partial", "unfreeze": 4, "epochs": 2, "batch_size": 8}
    return ts.tune(photos, out=out, backbone=BACKBONE, weights=weights, **options)


@pytest.fixture
def fresh(run, tmp_path, monkeypatch) -> Run:
    """A copy of the run with a cache of its own, and short drawings."""
    monkeypatch.setenv("TRANSFERSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("transferscope.workflows.compare.COMPARED_STEPS", 4)
    shutil.copytree(run.path, tmp_path / "copy")
    return Run(tmp_path / "copy")


def pictures(folder: Path) -> set[str]:
    return {file.name for file in folder.glob("*.safetensors")}


def test_base_is_drawn_once_for_all_runs(fresh, run, photos, weights, tmp_path):
    compare(fresh, layers=LAYERS, sample=3)
    cache = tmp_path / "cache" / "sweep"
    first = pictures(cache)
    assert pictures(fresh.path / "sweep") == first
    second = ts.tune(
        photos, out=tmp_path / "second", backbone=BACKBONE, weights=weights, strategy="partial",
        unfreeze=4, epochs=2, batch_size=6,
    )  # fmt: skip
    compare(second, layers=LAYERS, sample=3)
    # Of the tuned network's unfrozen layer alone, 3 channels from 2 seeds.
    assert len(pictures(cache) - first) == 6
    compare(second, layers=LAYERS, sample=3, seeds=3)
    shutil.rmtree(tmp_path / "cache")
    heard = Heard()
    write_atlas(second, reporter=heard)  # the run alone, without the cache
    assert not [line for line in heard.lines if "drawings of the comparison" in line]


def test_an_atlas_made_at_another_precision_finds_its_pictures(fresh, monkeypatch, tmp_path):
    compare(fresh, layers=LAYERS, sample=3)
    monkeypatch.setattr("transferscope.visualize.units.fast_bf16", lambda device: True)
    other = Run(fresh.path)
    shutil.rmtree(tmp_path / "cache")
    heard = Heard()
    index = write_atlas(other, reporter=heard)
    assert not [line for line in heard.lines if "drawings of the comparison" in line]
    page = next((index.parent / "units").glob("*.html")).read_text(encoding="utf-8")
    assert page.count("images/renders") >= 4 or page.count(".webp") >= 4
    (setting,) = (fresh.path / "comparison").glob("*/setting.json")
    kept = read_json(setting)
    assert kept["recipe"]["precision"] in ("fp32", "bf16")
    assert len(kept["renders"]) == 2 * 2 * 3 * 2
    sweep = Sweep(tmp_path / "nowhere", kept=fresh.path / "sweep")
    assert sweep.load_key(kept["renders"][0]["key"]).channel == kept["renders"][0]["channel"]


def test_drawings_that_are_gone_are_told_and_the_atlas_is_written(fresh, tmp_path):
    compare(fresh, layers=LAYERS, sample=3)
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(fresh.path / "sweep")
    heard = Heard()
    assert write_atlas(fresh, reporter=heard).is_file()
    (line,) = [line for line in heard.lines if "drawings of the comparison" in line]
    assert line.startswith("24 of 24 drawings")
    assert f"'transferscope compare {fresh.path}' draws them" in line


def test_a_trial_leaves_the_longer_comparison_and_the_atlas_shows_the_fullest(fresh):
    home = fresh.path / "comparison"
    long = compare(fresh, layers=LAYERS, sample=4)
    whole = (home / "comparison.json").read_bytes()
    compare(fresh, layers=["blocks.3"], sample=2)
    assert (home / "comparison.json").read_bytes() == whole
    assert len(list(home.glob("*/comparison.json"))) == 2
    heard = Heard()
    index = write_atlas(fresh, reporter=heard)
    units = list((index.parent / "units").glob("*.html"))
    assert len(units) == sum(len(layer.channels) for layer in long.layers) == 8
    (line,) = [line for line in heard.lines if "fullest" in line]
    assert "the fullest of 2 comparisons is shown, comparison/4-channels-2-seeds-" in line
    assert "8 channels of 2 layers, 2 seeds" in line
    assert "fullest of 2 comparisons" in index.read_text(encoding="utf-8")
    compare(fresh, layers=LAYERS, sample=4)  # again: no third one
    assert len(list(home.glob("*/comparison.json"))) == 2
    compare(fresh, layers=LAYERS, sample=5)
    assert (home / "comparison.json").read_bytes() != whole


def test_a_comparison_of_an_earlier_version_is_kept_too(fresh):
    home = fresh.path / "comparison"
    compare(fresh, layers=LAYERS, sample=4)
    (folder,) = [file.parent for file in home.glob("*/comparison.json")]
    shutil.rmtree(folder)
    (home / "shown.json").unlink()
    whole = (home / "comparison.json").read_bytes()
    compare(fresh, layers=["blocks.3"], sample=2)
    assert (home / "comparison.json").read_bytes() == whole
    assert (home / "earlier" / "comparison.json").read_bytes() == whole
    assert write_atlas(fresh).is_file()


def test_a_run_that_cannot_be_written_is_refused_before_the_work(fresh, monkeypatch):
    monkeypatch.setattr("transferscope.files.is_writable", lambda folder: False)
    said = command("compare", fresh.path, "--sample", "2", "--layers", "blocks.3")
    assert said.exit_code == 1
    assert "is read-only; copy the run to a folder that can be written" in said.stderr
    assert "rendering" not in said.stderr
