"""Pictures with pages of their own: what of a run is shown of them, and what is made and kept."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import transferscope as ts
from conftest import BACKBONE, Heard, command, no_figures, same_state, state_of
from transferscope.errors import UnknownName
from transferscope.evaluation.predictions import Predictions
from transferscope.files import read_json, write_json
from transferscope.images import as_float, to_tensor
from transferscope.workflows import atlas, picture_maps
from transferscope.workflows.atlas import write_atlas
from transferscope.workflows.atlas_pictures import shown_pictures
from transferscope.workflows.attack import attack
from transferscope.workflows.evaluate import evaluate_run
from transferscope.workflows.explain import MapQuestion, explain
from transferscope.workflows.explanations import kept_explanations
from transferscope.workflows.ideal import keep_ideals, kept_ideals
from transferscope.workflows.picture_maps import heat_of
from transferscope.workflows.run import Run
from transferscope.workflows.unit_explanations import UnitQuestion

pytestmark = pytest.mark.usefixtures("undrawn")

CLASSES = ("猫", "b & <c>", "d")


@pytest.fixture(scope="module")
def tuned(weights, tmp_path_factory) -> Run:
    """Of colours that overlap from class to class, so that there are errors."""
    root = tmp_path_factory.mktemp("shown") / "photos"
    draw = np.random.default_rng(3)
    for index, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(22):
            colour = np.array([90.0 + 35 * index, 128.0, 160.0 - 35 * index])
            values = draw.normal(colour + draw.normal(0, 30, 3), 30, (40, 40, 3))
            picture = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
            picture.save(root / name / f"{number:03d}.png")
    out = tmp_path_factory.mktemp("runs") / "run"
    chosen = {"strategy": "partial", "unfreeze": 2, "epochs": 1, "batch_size": 8}
    run = ts.tune(root, out=out, backbone=BACKBONE, weights=weights, **chosen)
    with no_figures():
        evaluate_run(run)
    return run


@pytest.fixture
def run(tuned, tmp_path) -> Run:
    """A copy to which things are added."""
    return Run(shutil.copytree(tuned.path, tmp_path / "run"), data=tuned.root)


def shown(run: Run, reporter=None):
    return shown_pictures(
        run,
        Predictions.load(run.path / "evaluation"),
        split="test",
        explanations=kept_explanations(run),
        verdicts=None,
        reporter=reporter or Heard(),
    )


def test_what_is_said_of_a_picture_is_what_the_networks_say(tuned):
    before = state_of(tuned.classifier.network)
    found = shown(tuned)
    assert same_state(before, state_of(tuned.classifier.network))
    assert found.of == len(found.pictures) == len(tuned.split.part("test"))
    assert found.no_maps == ""
    for one in found.pictures[:3]:
        pixels = tuned.classifier.input.load(tuned.root / one.path)[None].float() / 255
        for network, guesses in ((tuned.base, one.before), (tuned.classifier, one.after)):
            with network.inference():
                chances = network.probabilities(pixels)[0]
            assert guesses[0].name == network.classes[int(chances.argmax())]
            for guess in guesses:
                wanted = float(chances[network.classes.index(guess.name)])
                assert guess.probability == pytest.approx(wanted, abs=1e-4)
        assert one.label in [guess.name for guess in one.before]
        (said,) = ts.predict(
            tuned.classifier, [tuned.root / one.path], known=ts.known_pictures(tuned)
        )
        assert one.familiarity == pytest.approx(said.familiarity, abs=1e-3)
        assert [near.name for near in one.nearest] == [near.name for near in said.nearest]
        assert all((tuned.root / near.path).is_file() for near in one.nearest)
        assert not any(Path(near.path).is_absolute() for near in one.nearest)


def test_maps_are_those_of_both_networks_and_are_made_once(tuned, monkeypatch):
    found = shown(tuned)
    one = found.pictures[0]
    for name, network in (("base", tuned.base), ("tuned", tuned.classifier)):
        slow = ts.attribute(
            network, tuned.root / one.path, method="grad_cam", target=one.maps.target
        )
        assert (
            np.abs(one.maps.heat[name].astype(int) - heat_of("grad_cam", slow.support)).max() <= 1
        )
    assert one.maps.target == one.after[0].name
    assert "Not checked" in one.maps.verdict

    def refused(*_args: object, **_options: object) -> None:
        raise AssertionError("a map was made again")

    monkeypatch.setattr(picture_maps, "attribute", refused)
    again = shown(Run(tuned.path, data=tuned.root))
    assert np.array_equal(again.pictures[0].maps.heat["base"], one.maps.heat["base"])


def test_maps_that_take_too_long_are_left_for_the_next_time(run, monkeypatch, tmp_path):
    monkeypatch.setenv("TRANSFERSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(picture_maps, "_CHUNK", 2)
    monkeypatch.setattr(picture_maps.made_maps, "__kwdefaults__", {"seconds": 0.0})
    for wanted in (2, 4):
        found = shown(run)
        assert sum(one.maps is not None for one in found.pictures) == wanted
        assert found.no_maps.startswith("Only ")


def test_a_picture_that_is_another_one_now_keeps_its_answers_alone(tuned, tmp_path):
    moved = shutil.copytree(tuned.root, tmp_path / "photos")
    path = tuned.split.part("test")[0].path
    shutil.copy(moved / tuned.split.part("train")[0].path, moved / path)
    found = {one.path: one for one in shown(Run(tuned.path, data=moved)).pictures}
    assert found[path].after
    assert found[path].maps is None
    assert found[path].nearest == ()
    assert sum(one.maps is not None for one in found.values()) == len(found) - 1


def test_what_was_explained_by_hand_comes_first_with_its_channels(run):
    path = run.split.part("test")[-1].path
    explain(
        run,
        [run.root / path],
        question=MapQuestion(("gradient",), "d"),
        units=UnitQuestion(count=1),
    )
    first, *others = shown(run).pictures
    assert (first.path, first.reason) == (path, "explained")
    assert (first.maps.method, first.maps.target, first.maps.kept) == ("gradient", "d", True)
    assert len(first.units.effects["tuned"]) == 1
    assert not any(one.units or one.maps.kept for one in others)


def test_an_attack_is_shown_with_the_picture_and_the_network_that_it_is_of(run):
    path = run.split.part("test")[0].path
    out = run.path / "attacks" / "one"
    made = attack(run.classifier, run.root / path, epsilon="60/255", out=out)
    (kept,) = next(one.attacks for one in shown(run).pictures if one.path == path)
    assert (kept.source, kept.target) == (made.source, made.target)
    assert kept.budget == "60/255 of any value"
    told = read_json(out / "attack.json")
    others = (
        {"picture": "0" * 64},  # another picture's
        {"from_probability": told["from_probability"] - 0.05},  # another network's
    )
    for change in others:
        write_json(out / "attack.json", told | change)
        assert not any(one.attacks for one in shown(run).pictures)


def test_answers_of_other_pictures_are_not_taken_for_those_before(run):
    home = run.path / "evaluation" / "base"
    known = Predictions.load(home)
    dataclasses.replace(known, paths=known.paths[::-1]).save(home)
    assert all(one.before == () for one in shown(run).pictures)


def test_without_pictures_nothing_is_made_and_no_name_is_written(run, monkeypatch, tmp_path):
    monkeypatch.setenv("TRANSFERSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(atlas, "inspect_run", lambda *_args, **_options: None)
    page = write_atlas(run, out=tmp_path / "atlas", pictures=False)
    assert not (tmp_path / "cache" / "maps").exists()
    assert not (page.parent / "pictures.html").exists()
    page = write_atlas(run, out=tmp_path / "atlas")
    listed = (page.parent / "assets/own_pictures.txt").read_text(encoding="utf-8").splitlines()
    paths = [one.path for one in run.split.part("test")]
    assert len(list((page.parent / "pictures").glob("*.html"))) == len(paths)
    assert {repr(path) for path in paths} <= set(listed)


# ---------------------------------------------------------------------------- what a class wants to see


def test_a_run_keeps_what_its_classes_want_to_see_in_both_networks(run):
    done = command("ideal", run.path, "--class", CLASSES[1], "--steps", "1", "--size", "32")
    assert done.exit_code == 0, done.output
    kept = kept_ideals(run)
    assert set(kept) == {CLASSES[1]}
    rows = keep_ideals(run, CLASSES[1], steps=1, size=32)  # in place of those
    full = {row["network"]: row for row in rows if row["version"] == "full"}
    assert {name: one.file for name, one in kept[CLASSES[1]].items()} == {
        name: Path(row["file"]) for name, row in full.items()
    }
    for name, network in (("base", run.base), ("tuned", run.classifier)):
        with Image.open(full[name]["file"]) as picture:
            pixels = as_float(to_tensor(picture))[None]
        with network.inference():
            wanted = network.probabilities(pixels)[0, network.classes.index(CLASSES[1])]
        assert kept[CLASSES[1]][name].probability == pytest.approx(float(wanted), abs=1e-4)
    with pytest.raises(UnknownName, match="class"):
        keep_ideals(run, "no such class", steps=1)
    run.classifier.temperature *= 2
    run.classifier.save(run.path / "classifier.safetensors")
    assert kept_ideals(run) == {}, "what other weights wanted to see is shown"


def test_a_network_that_is_no_run_needs_a_folder():
    done = command("ideal", BACKBONE, "--class", "0")
    assert done.exit_code == 2
    assert "--out is missing" in done.stderr
