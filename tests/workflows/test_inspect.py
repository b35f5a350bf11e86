"""What the data options of `tune` do to a run, and `inspect`, on a small network."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import transferscope as ts
from conftest import BACKBONE, command
from transferscope.backbones.weights import load_backbone
from transferscope.data.inspection import Inspection
from transferscope.data.split import Split
from transferscope.errors import DataError, InputError, OutputError, RunError
from transferscope.files import read_csv, read_json, sha256_file
from transferscope.workflows import candidates as module
from transferscope.workflows.evaluate import evaluate_run
from transferscope.workflows.inspect import inspect, inspect_run, write_report
from transferscope.workflows.reporter import SILENT
from transferscope.workflows.run import Run

pytestmark = pytest.mark.usefixtures("undrawn")

CLASSES = {"猫": 14, "dog": 12, "bird": 13}


@pytest.fixture
def photos(tmp_path, make_folder) -> Path:
    return make_folder(tmp_path / "set", CLASSES)


@pytest.fixture
def tuned(weights, tmp_path):
    """A quick run on `data`."""

    def make(data: Path, name: str = "run", **options) -> Run:
        defaults = {"strategy": "probe", "backbone": BACKBONE, "weights": weights}
        return ts.tune(data, out=tmp_path / name, **(defaults | options))

    return make


def into_splits(photos: Path) -> Path:
    """Moves a set's pictures into train, val and test folders."""
    root = photos.parent / "given"
    for folder in photos.iterdir():
        for number, file in enumerate(sorted(folder.iterdir())):
            part = ("train", "train", "val", "test")[number % 4]
            (root / part / folder.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, root / part / folder.name / file.name)
    return root


# ---------------------------------------------------------------------------- splits


def test_a_table_of_files_is_a_set(photos, tuned, tmp_path):
    table = tmp_path / "set.csv"
    rows = [(f"set/{f.parent.name}/{f.name}", f.parent.name) for f in sorted(photos.rglob("*.png"))]
    with open(table, "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    run = tuned(table)
    assert run.classifier.classes == tuple(sorted(CLASSES))
    assert run.root == tmp_path
    assert sum(run.results["pictures"].values()) == sum(CLASSES.values())
    assert evaluate_run(run).n == run.results["pictures"]["test"]
    assert evaluate_run(run, data=table).n == run.results["pictures"]["test"]


def test_a_group_is_never_torn(tmp_path, make_folder, tuned):
    root = make_folder(tmp_path / "set", {"a": 24, "b": 24})
    for file in sorted(root.rglob("*.png")):
        number = int(file.stem)
        file.rename(file.with_name(f"patient{number % 8}-{number:03d}.png"))
    run = tuned(root, group=r"(patient\d+)")
    parts = defaultdict(set)
    for row in read_csv(run.path / "split.csv"):
        parts[row["group"]].add(row["split"])
    assert len(parts) == 8
    assert all(len(found) == 1 for found in parts.values())
    assert {part for found in parts.values() for part in found} == {"train", "validation", "test"}


def test_another_runs_split_is_taken(photos, tuned):
    first = tuned(photos, "first", seed=0)
    other = tuned(photos, "other", seed=1)
    taken = tuned(photos, "taken", seed=1, split_from=first.path)
    table = (first.path / "split.csv").read_bytes()
    assert (taken.path / "split.csv").read_bytes() == table
    assert (other.path / "split.csv").read_bytes() != table


def test_a_picture_that_the_other_run_does_not_know_is_refused(photos, tuned, make_folder):
    first = tuned(photos, "first")
    make_folder(photos, {"new": 1}, seed=9)
    (photos / "new" / "000.png").rename(photos / "dog" / "new.png")
    (photos / "new").rmdir()
    with pytest.raises(DataError, match=r"dog/new\.png"):
        tuned(photos, "second", split_from=first.path)


def test_copies_across_splits_are_refused_or_resolved(photos, tuned):
    root = into_splits(photos)
    copied = sorted((root / "train" / "dog").iterdir())[0]
    shutil.copy(copied, root / "test" / "dog" / "again.png")
    with pytest.raises(DataError, match=r"train/dog/.*test/dog/again\.png.*--dedupe"):
        tuned(root)
    run = tuned(root, dedupe=True)
    paths = {row["path"] for row in read_csv(run.path / "split.csv")}
    assert "test/dog/again.png" not in paths
    assert f"train/dog/{copied.name}" in paths
    excluded = dict(read_json(run.path / "run.json")["excluded"])
    assert copied.name in excluded["test/dog/again.png"]


def interrupt(monkeypatch: pytest.MonkeyPatch, tuned: Callable[[Path], Run], photos: Path) -> None:
    """Begins a run and ends it once its split is written."""

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "fit_probe", fail)
        with pytest.raises(KeyboardInterrupt):
            tuned(photos)


def test_an_interrupted_run_keeps_its_split(photos, tuned, tmp_path, monkeypatch):
    interrupt(monkeypatch, tuned, photos)
    table = (tmp_path / "run" / "split.csv").read_bytes()

    def redrawn(*_: object, **__: object) -> Split:
        raise AssertionError("the split was drawn again")

    monkeypatch.setattr(sys.modules["transferscope.workflows.tune"], "make_split", redrawn)
    run = tuned(photos, resume=True)
    assert (run.path / "split.csv").read_bytes() == table


def test_an_interrupted_run_whose_pictures_changed_is_refused(photos, tuned, monkeypatch):
    interrupt(monkeypatch, tuned, photos)
    Image.new("RGB", (40, 40), "red").save(photos / "dog" / "003.png")
    with pytest.raises(DataError, match=r"dog/003\.png"):
        tuned(photos, resume=True)


# ---------------------------------------------------------------------------- augmentation


def test_augmentation_is_for_training_alone(photos, tuned):
    options = {"strategy": "partial", "unfreeze": 4, "epochs": 2, "batch_size": 8}
    plain = tuned(photos, "plain", augment="none", **options)
    light = tuned(photos, "light", augment="light", **options)
    assert light.config.recipe.augment == "light"
    # epoch 0 is measured on plain pictures in both; the validation pictures are the same throughout
    assert plain.history[0]["train_loss"] == light.history[0]["train_loss"]
    assert plain.history[0]["validation_loss"] == light.history[0]["validation_loss"]
    assert plain.history[1]["train_loss"] != light.history[1]["train_loss"]


@pytest.mark.parametrize("augment", ["light", "strong"])
def test_an_augmented_run_is_the_same_twice(photos, tuned, augment):
    options = {"strategy": "partial", "unfreeze": 4, "epochs": 3, "augment": augment}
    first = tuned(photos, "first", **options)
    again = tuned(photos, "again", **options)
    old, new = first.classifier.state_dict(), again.classifier.state_dict()
    assert all(torch.equal(old[name], new[name]) for name in old)


def test_only_training_pictures_are_augmented(photos, tuned, monkeypatch):
    seen: dict[object, set[str]] = defaultdict(set)
    pooled, rows = module.extract, module.boundary_rows

    def watched(real):
        def watch(classifier, files, hashes, *layer, **options):
            assert [sha256_file(file) for file in files] == list(hashes)
            seen[options.get("view") and options["view"].number].update(hashes)
            return real(classifier, files, hashes, *layer, **options)

        return watch

    monkeypatch.setattr(module, "extract", watched(pooled))
    monkeypatch.setattr(module, "boundary_rows", watched(rows))
    run = tuned(photos, strategy="partial", unfreeze=4, epochs=2, augment="light")
    by_part = {
        part: {p.sha256 for p in run.split.part(part)} for part in ("train", "validation", "test")
    }
    assert set(seen) == {None, 1, 2}
    assert seen[1] == seen[2] == by_part["train"]
    assert (
        seen[None] == by_part["train"] | by_part["validation"]
    )  # and no picture of the test split


def test_no_flip_reaches_the_recipe(photos, tuned):
    run = tuned(photos, strategy="partial", unfreeze=4, epochs=1, augment="light", flip=False)
    assert Run(run.path).config.recipe.flip is False


# ---------------------------------------------------------------------------- inspect


def test_an_inspection_counts_what_is_there(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFERSCOPE_CACHE", str(tmp_path / "cache"))
    (photos / "dog" / "broken.jpg").write_text("text")
    shutil.copy(photos / "dog" / "000.png", photos / "dog" / "copy.png")
    found = inspect(photos)
    record = found.to_dict()
    assert record["n"] == sum(CLASSES.values()) + 1
    assert record["classes"] == {name: n + (name == "dog") for name, n in CLASSES.items()}
    assert [one["path"] for one in record["excluded"]] == ["dog/broken.jpg"]
    assert [one["paths"] for one in record["duplicates"]] == [["dog/000.png", "dog/copy.png"]]
    assert found.split_drawn
    assert not found.problems
    assert record["embedding"] is None  # nothing is cached
    json.dumps(record, allow_nan=False)


def test_what_cannot_be_trained_on_is_looked_at_all_the_same(tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        noise = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(flat / f"{number}.png")
    (flat / "empty.png").write_bytes(b"")
    found = inspect(flat)
    assert found.to_dict()["n"] == 3
    assert any("class folder" in problem for problem in found.problems)
    assert [path for path, _ in found.scan.excluded] == ["empty.png"]


def test_copies_across_given_splits_are_a_problem(photos):
    root = into_splits(photos)
    shutil.copy(sorted((root / "train" / "dog").iterdir())[0], root / "test" / "dog" / "again.png")
    found = inspect(root)
    assert any("again.png" in problem for problem in found.problems)
    assert not found.split_drawn


def test_cached_features_take_part_in_near_duplicates(photos, monkeypatch):
    from transferscope.features.extraction import extract

    scan = ts.scan(photos)
    source = load_backbone("efficientnet_lite0")
    extract(source, [scan.file(p) for p in scan.pictures], [p.sha256 for p in scan.pictures])
    assert inspect(photos).embedding == "efficientnet_lite0"


def test_a_set_without_a_readable_picture_is_looked_at_whatever_is_cached(tmp_path, photos):
    test_cached_features_take_part_in_near_duplicates(photos, None)  # now the cache holds features
    for name in ("a", "b"):
        (tmp_path / "unread" / name).mkdir(parents=True)
        (tmp_path / "unread" / name / "x.jpg").write_text("text")
    found = inspect(tmp_path / "unread")
    assert (len(found.facts), len(found.scan.excluded)) == (0, 2)
    (problem,) = found.problems
    assert "cannot be read" in problem
    assert write_report(found, tmp_path / "report", title="unread").is_file()


def test_a_runs_pictures_are_looked_at_in_its_split(photos, tuned):
    run = tuned(photos)
    found = inspect_run(run)
    assert found is not None
    assert [p.split for p in found.scan.pictures] == [p.split for p in run.split.scan.pictures]
    (photos / "dog" / "003.png").unlink()
    assert inspect_run(run) is None


@pytest.mark.drawn
def test_a_border_on_one_class_is_an_alarm_before_training(photos, tmp_path):
    def alarms(found):
        return {(one.label, one.family) for one in found.cues if one.alarm}

    make_grey(photos)
    assert alarms(inspect(photos)) == set()
    for file in sorted((photos / "dog").iterdir())[1:]:
        with Image.open(file) as opened:
            picture = opened.copy()
        picture.paste((40, 60, 120), (0, 0, 48, 6))
        picture.paste((40, 60, 120), (0, 42, 48, 48))
        picture.save(file)
    found = inspect(photos)
    assert ("dog", "border") in alarms(found)
    assert {name for name, _ in alarms(found)} == {"dog"}
    result = command("inspect", photos)
    assert "dog" in result.stdout
    assert "in place of the object" in " ".join(result.stdout.split())
    page = write_report(found, tmp_path / "cues", title="photos").read_text(encoding="utf-8")
    assert 'id="cues"' in page
    assert Inspection.load(tmp_path / "cues", root=photos).cues == found.cues


def make_grey(photos: Path) -> None:
    """Gives every picture of a set a random grey in place of its class's colour, and more pictures."""
    rng = np.random.default_rng(5)
    for folder in sorted(photos.iterdir()):
        for number in range(40):
            noise = rng.normal(rng.uniform(60, 190), 30, (48, 48, 3))
            Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(
                folder / f"{number:03}.png"
            )


@pytest.mark.drawn
def test_the_report_is_written_and_replaced(photos, tmp_path):
    found = inspect(photos)
    page = write_report(found, tmp_path / "report", title="photos")
    assert page.read_text(encoding="utf-8").count("猫")
    assert read_json(tmp_path / "report" / "inspection.json")["n"] == len(found.facts)
    again = write_report(found, tmp_path / "report", title="photos")
    assert again == page


def test_a_report_inside_the_set_or_over_other_files_is_refused_at_once(photos, tmp_path):
    def no_work(*_: object) -> None:
        raise AssertionError("the pictures were read first")

    class Busy(type(SILENT)):
        task = no_work

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for out, error in (
        (photos / "report", InputError),
        (photos, InputError),
        (tmp_path / "mine", OutputError),
    ):
        with pytest.raises(error):
            inspect(photos, out=out, reporter=Busy())
    assert not (photos / "report").exists()


# ---------------------------------------------------------------------------- the command line


@pytest.mark.drawn
def test_inspect_prints_json_with_the_keys_promised(photos, tmp_path):
    result = command("inspect", photos, "--json", "--quiet", "--out", tmp_path / "report")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert {"n", "classes", "excluded", "duplicates", "near_duplicates"} <= set(record)
    assert Path(record["report"]).is_file()


def test_inspect_prints_every_class_and_what_to_mend(photos):
    (photos / "dog" / "broken.jpg").write_text("text")
    result = command("inspect", photos)
    assert result.exit_code == 0, result.output
    assert all(name in result.stdout for name in CLASSES)
    assert "dog/broken.jpg" in result.stdout
    assert "worth mending" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give DATA"),
        (("DATA", "--dataset", "cifar10"), "give one of them"),
        (("--dataset", "cifar10"), "--root"),
        (("--root", "DATA"), "--dataset"),
        (("--dataset", "cifar11", "--root", "DATA"), "cifar10"),
        (("DATA", "--ratio", "1/2"), "70/15/15"),
        (("DATA", "--group", "("), "pattern"),
        (("DATA", "--group", "nothing matches"), "nothing matches"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(photos, arguments, words):
    result = command("inspect", *(photos if a == "DATA" else a for a in arguments))
    assert result.exit_code == 2, result.output
    assert words in result.output
    assert "Traceback" not in result.output


def test_a_missing_folder_is_one_sentence_and_exit_code_1(tmp_path):
    result = command("inspect", tmp_path / "none")
    assert result.exit_code == 1
    assert "there is no" in result.output


def test_split_from_something_that_is_no_run(photos, tuned, tmp_path):
    with pytest.raises(RunError, match="not a folder"):
        tuned(photos, split_from=tmp_path / "none")


def test_an_unknown_augmentation_is_named(photos, tuned):
    with pytest.raises(InputError, match="light"):
        tuned(photos, augment="mild")
