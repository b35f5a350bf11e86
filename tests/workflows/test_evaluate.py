"""`evaluate` on runs: splits, other sets, several views, another run, and what is left on disk."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import transferscope as ts
from conftest import BACKBONE, Heard
from transferscope.errors import DataError, InputError, RunError, UnknownName, WeightsError
from transferscope.evaluation.metrics import Evaluation
from transferscope.evaluation.predictions import Predictions
from transferscope.files import read_json
from transferscope.report.model_card import model_card_markdown
from transferscope.workflows.atlas import write_atlas
from transferscope.workflows.evaluate import evaluate_run
from transferscope.workflows.export import export
from transferscope.workflows.model_card import card_of
from transferscope.workflows.open_model import open_model
from transferscope.workflows.run import Run

pytestmark = pytest.mark.usefixtures("undrawn")

CLASSES = {"猫": 44, "b & <c>": 40, "d": 42}


def tuned(photos: Path, weights: Path, out: Path, **options) -> Run:
    chosen = {"strategy": "partial", "unfreeze": 2, "epochs": 1, "batch_size": 8, **options}
    return ts.tune(photos, out=out, backbone=BACKBONE, weights=weights, **chosen)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Pictures whose colours overlap from class to class, so that there are errors."""
    root = tmp_path_factory.mktemp("judged") / "photos"
    draw = np.random.default_rng(3)
    for index, (name, count) in enumerate(CLASSES.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            colour = np.array([90.0 + 35 * index, 128.0, 160.0 - 35 * index])
            values = draw.normal(colour + draw.normal(0, 30, 3), 30, (40, 40, 3))
            picture = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
            picture.save(root / name / f"{number:03d}.png")
    return root


@pytest.fixture(scope="module")
def run(photos, weights, tmp_path_factory) -> Run:
    return tuned(photos, weights, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def result(run) -> Evaluation:
    return evaluate_run(run)


def test_the_folder_holds_figures_predictions_and_the_study(run, result):
    home = run.path / "evaluation"
    names = {path.name for path in home.iterdir()}
    assert {
        "metrics.json",
        "predictions.safetensors",
        "predictions.csv",
        "study.csv",
        "study.json",
        "reliability.svg",
        "coverage.svg",
        "confusion.svg",
        "per-class.svg",
        "base",
        "validation",
        "out-of-fold",
    } <= names
    assert Evaluation.from_dict(read_json(home / "metrics.json")["tuned"]) == result
    with open(home / "study.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    counts = {split: len(run.split.part(split)) for split in ("train", "test")}
    assert {s: sum(row["split"] == s for row in rows) for s in counts} == counts


def test_thresholds_come_from_the_validation_pictures_that_tuning_left(run, result):
    kept = Predictions.load(run.path / "evaluation" / "validation")
    assert kept.paths == tuple(picture.path for picture in run.split.part("validation"))
    top1 = float(kept.right.float().mean())
    assert top1 == pytest.approx(run.results["validation"]["top1"])
    for one in result.abstention.operating:
        sure = kept.probabilities.max(1).values >= one.min_confidence
        assert float(kept.right[sure].float().mean()) >= one.wanted


def test_training_counts_stand_beside_the_classes(run, result):
    of = [run.split.scan.class_of(picture) for picture in run.split.part("train")]
    assert {n: r.training for n, r in result.per_class.items()} == {n: of.count(n) for n in CLASSES}


def test_out_of_fold_answers_are_not_those_of_the_fit(run, result):
    kept = Predictions.load(run.path / "evaluation" / "out-of-fold")
    assert kept.paths == tuple(picture.path for picture in run.split.part("train"))
    from transferscope.features.extraction import POOLED, extract

    pictures = run.split.part("train")
    files = [run.split.scan.file(picture) for picture in pictures]
    found = extract(run.base, files, [picture.sha256 for picture in pictures])
    assert found.cached == len(pictures)
    with torch.no_grad():
        fitted = run.base.head_layer(found.targets[POOLED])
    loss = torch.nn.functional.cross_entropy
    assert float(loss(kept.logits, kept.labels)) > float(loss(fitted, kept.labels))


def test_the_gain_over_the_base_is_paired(run, result):
    base = Predictions.load(run.path / "evaluation" / "base")
    tuned_right = Predictions.load(run.path / "evaluation").right
    assert result.gain.only_first == int((tuned_right & ~base.right).sum())
    assert result.gain.only_second == int((base.right & ~tuned_right).sum())
    assert (result.gain.first, result.gain.second) == ("tuned", "base")


def test_another_split_does_not_replace_the_test_figures(run, result):
    before = (run.path / "evaluation" / "metrics.json").read_bytes()
    found = evaluate_run(run, split="train")
    assert found.n == len(run.split.part("train"))
    assert (run.path / "evaluation" / "train" / "metrics.json").is_file()
    assert (run.path / "evaluation" / "metrics.json").read_bytes() == before


@pytest.mark.drawn
def test_accuracy_by_a_column_of_a_table_beside_the_pictures(run, photos, result):
    """Cameras are dealt so that one has most of the errors; a column of coins is chance."""
    evaluate_run(run, split="train")
    home = run.path / "evaluation" / "train"
    answered = Predictions.load(home)
    rows = [
        f"{path},{'new' if not right or number % 4 == 0 else 'old'},{'ht'[number % 2]}"
        for number, (path, right) in enumerate(zip(answered.paths, answered.right, strict=True))
    ]
    table = photos / "cameras.csv"
    table.write_text("\n".join(["path,device,coin", *rows]), encoding="utf-8")
    try:
        found = evaluate_run(run, split="train", by="device")
        coin = evaluate_run(run, split="train", by="coin")
    finally:
        table.unlink()
    assert found.worst_group == "new"
    assert set(found.to_dict()["groups"]["new"]) >= {"n", "accuracy", "interval"}
    assert found.group_test.differ
    assert not coin.group_test.differ
    assert "Accuracy by coin" in (home / "groups.svg").read_text("utf-8")
    assert Evaluation.from_dict(coin.to_dict()) == coin
    with pytest.raises(InputError, match="nothing called 'devise'"):
        evaluate_run(run, by="devise")


# ---------------------------------------------------------------------------- other sets


def test_another_set_with_the_same_classes(run, make_folder, tmp_path):
    other = make_folder(tmp_path / "other", {"d": 5, "猫": 4}, seed=9)
    found = evaluate_run(run, data=other)
    assert (found.split, found.n, found.seen) == ("other", 9, 0)
    assert {name: r.n for name, r in found.per_class.items()} == {"猫": 4, "d": 5}
    (folder,) = (run.path / "evaluation").glob("data-other-*")
    kept = Predictions.load(folder)
    assert {path.split("/")[0] for path in kept.paths} == {"d", "猫"}
    names = [kept.classes[int(label)] for label in kept.labels]
    assert names == [path.split("/")[0] for path in kept.paths]


def test_pictures_that_were_trained_on_are_left_out(run, photos, make_folder, tmp_path):
    other = make_folder(tmp_path / "other", {"d": 5, "猫": 4}, seed=9)
    for number, picture in enumerate(run.split.part("train")[:3]):
        shutil.copy(run.split.scan.file(picture), other / "d" / f"copy{number}.png")
    found = evaluate_run(run, data=other)
    assert (found.n, found.seen) == (9, 3)
    only = tmp_path / "only"
    (only / "d").mkdir(parents=True)
    shutil.copy(run.split.scan.file(run.split.part("train")[0]), only / "d" / "x.png")
    with pytest.raises(DataError, match=r"every picture.*\(1\) was trained or chosen on"):
        evaluate_run(run, data=only)


def test_pictures_that_the_run_was_chosen_on_are_left_out_too(run, make_folder, tmp_path):
    other = make_folder(tmp_path / "chosen", {"d": 5, "猫": 4}, seed=9)
    picture = run.split.part("validation")[0]
    shutil.copy(run.split.scan.file(picture), other / "d" / "copy.png")
    assert evaluate_run(run, data=other).seen == 1


def test_files_that_cannot_be_used_are_told_counted_and_few(run, make_folder, tmp_path):
    other = make_folder(tmp_path / "bad", {"d": 15, "猫": 14}, seed=9)
    (other / "d" / "broken.png").write_text("no picture")
    heard = Heard()
    found = evaluate_run(run, data=other, reporter=heard)
    assert (found.n, found.excluded) == (29, 1)
    assert any("broken.png" in line for line in heard.lines)
    (other / "d" / "worse.png").write_text("no picture")
    with pytest.raises(DataError, match=r"2 of the 31 pictures.*6\.5%; at most 5%.*'d/worse\.png'"):
        evaluate_run(run, data=other)


def test_readable_files_without_a_class_are_told_and_counted_but_are_no_damage(
    run, make_folder, tmp_path
):
    other = make_folder(tmp_path / "loose", {"d": 5, "猫": 4}, seed=9)
    table = [f"{path.relative_to(other)},{path.parent.name}" for path in other.rglob("*.png")]
    make_folder(other, {"unsorted": 3}, seed=3)
    table += [f"unsorted/{number:03d}.png," for number in range(3)]
    (other / "set.csv").write_text("\n".join(["path,label", *table]), encoding="utf-8")
    heard = Heard()
    found = evaluate_run(run, data=other / "set.csv", reporter=heard)
    assert (found.n, found.excluded) == (9, 3)
    assert heard.lines.count("left out unsorted/000.png: it has no label") == 1


def test_another_set_with_the_same_file_names(run, photos, make_folder, tmp_path):
    """Names such as 000.png are in every set: the bytes say whose the files are."""
    counts = {
        folder.name: len(list(folder.iterdir()))
        for folder in sorted(photos.iterdir())
        if folder.is_dir()
    }
    other = make_folder(tmp_path / "again", counts, seed=77)
    found = evaluate_run(run, data=other)
    assert (found.split, found.n, found.seen) == ("again", sum(counts.values()), 0)
    moved = tmp_path / "moved"
    shutil.copytree(photos, moved)
    assert evaluate_run(run, data=moved).split == "test"


def test_another_set_is_read_as_the_run_s_classes_demand(run, make_folder, tmp_path):
    other = tmp_path / "other"
    make_folder(other / "train", {"d": 3, "猫": 3}, seed=1)
    make_folder(other / "test", {"d": 2, "猫": 2}, seed=2)
    make_folder(other, {"beside": 2}, seed=3)
    found = evaluate_run(run, data=other)
    assert found.n == 4
    assert {one.path for one in found.left_out} == {"beside/000.png", "beside/001.png"}


def test_sets_of_one_name_do_not_replace_each_other(run, make_folder, tmp_path):
    for place, count in (("one", 4), ("two", 6)):
        evaluate_run(
            run, data=make_folder(tmp_path / place / "same", {"d": count, "猫": 3}, seed=9)
        )
    assert len(list((run.path / "evaluation").glob("data-same-*"))) == 2


def test_another_sets_own_splits_are_kept(run, make_folder, tmp_path):
    make_folder(tmp_path / "other" / "train", {"d": 3, "猫": 3}, seed=1)
    make_folder(tmp_path / "other" / "test", {"d": 2, "猫": 2}, seed=2)
    assert evaluate_run(run, data=tmp_path / "other").n == 4
    with pytest.raises(DataError, match="no pictures in a validation folder"):
        evaluate_run(run, data=tmp_path / "other", split="validation")


def test_classes_the_run_does_not_know_are_named(run, make_folder, tmp_path):
    other = make_folder(tmp_path / "other", {"d": 2, "zebra": 3}, seed=9)
    with pytest.raises(UnknownName, match=r"no class 'zebra'.*which knows 3.*3 pictures"):
        evaluate_run(run, data=other)
    flat = tmp_path / "flat"
    flat.mkdir()
    shutil.copy(next((other / "d").iterdir()), flat / "a.png")
    with pytest.raises(DataError, match=r"without a class \(1\)"):
        evaluate_run(run, data=flat)


def test_one_class_no_pictures_and_no_folder_are_refused(run, make_folder, tmp_path):
    with pytest.raises(DataError, match="of one class, 'd'"):
        evaluate_run(run, data=make_folder(tmp_path / "one", {"d": 4}, seed=9))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no picture"):
        evaluate_run(run, data=tmp_path / "empty")
    with pytest.raises(DataError, match="missing"):
        evaluate_run(run, data=tmp_path / "missing")


def test_kept_predictions_that_are_damaged_are_made_again(run, result, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    for name in ("out-of-fold", "validation"):
        file = copy / "evaluation" / name / "predictions.safetensors"
        file.write_bytes(file.read_bytes()[:100])
    found = evaluate_run(Run(copy))
    assert not found.abstention.operating
    remade = Predictions.load(copy / "evaluation" / "out-of-fold")
    before = Predictions.load(run.path / "evaluation" / "out-of-fold")
    assert torch.allclose(remade.logits, before.logits, atol=1e-4)


@pytest.mark.parametrize("name", ["metrics.json", "study.json"])
def test_files_of_another_shape_are_one_sentence(run, result, name, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    (copy / "evaluation" / name).write_text("[]")
    with pytest.raises(RunError, match="transferscope evaluate"):
        write_atlas(Run(copy))


def test_nan_weights_are_one_sentence_and_nothing_is_replaced(run, result, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    damaged = Run(copy)
    with torch.no_grad():
        damaged.classifier.head_layer.weight.fill_(float("nan"))
    before = (copy / "evaluation" / "metrics.json").read_bytes()
    with pytest.raises(WeightsError, match="NaN"):
        evaluate_run(damaged)
    assert (copy / "evaluation" / "metrics.json").read_bytes() == before


def test_training_pictures_that_are_gone_are_told_and_not_needed(
    run, photos, weights, tmp_path, monkeypatch
):
    copy = tmp_path / "photos"
    shutil.copytree(photos, copy)
    moved = tuned(copy, weights, tmp_path / "run", strategy="probe")
    victim = copy / moved.split.part("train")[0].path
    victim.unlink()
    heard = Heard()
    evaluate_run(moved, reporter=heard)
    assert heard.lines == ["label errors are not looked for: 1 training pictures are gone"]
    assert not (moved.path / "evaluation" / "out-of-fold").exists()


# ---------------------------------------------------------------------------- views and other runs


@pytest.mark.parametrize("views", [1, -1])
def test_views_that_are_no_average_are_refused_before_the_work(run, views, monkeypatch):
    monkeypatch.setattr(Run, "split", None)  # not even the split is looked at
    with pytest.raises(InputError, match=f"--tta is {views}"):
        evaluate_run(run, tta=views)


def test_views_are_reported_beside_the_plain_figures(run, result):
    found = evaluate_run(run, tta=3)
    assert found.top1 == result.top1
    assert found.views.views == 3
    assert found.views.flip
    assert found.views.gain == pytest.approx(found.views.top1 - found.top1)
    assert found.views.cost > 1.5


def test_two_runs_on_the_same_split(run, photos, weights, tmp_path):
    other = tuned(photos, weights, tmp_path / "other", strategy="probe", split_from=run.path)
    found = evaluate_run(run, against=other.path).against
    first = Predictions.load(run.path / "evaluation")
    evaluate_run(other)
    second = Predictions.load(other.path / "evaluation")
    assert found.n == len(first.paths)
    assert found.left_out == 0
    assert (found.first, found.second) == ("run", "other")
    assert found.second_top1 == pytest.approx(float(second.right.float().mean()))
    differ = (first.predicted != second.predicted).nonzero().flatten().tolist()
    assert {d.path for d in found.disagreements} == {first.paths[row] for row in differ}


def test_pictures_the_other_run_was_trained_on_are_left_out(run, photos, weights, tmp_path):
    other = tuned(photos, weights, tmp_path / "other", strategy="probe", seed=5)
    ours = {p.sha256 for p in run.split.part("test")}
    theirs = {p.sha256 for p in other.split.part("test")}
    found = evaluate_run(run, against=other).against
    assert found.n == len(ours & theirs) > 0
    assert found.left_out == len(ours - theirs) > 0


def test_runs_that_share_no_new_picture_or_class_are_refused(
    run, photos, weights, make_folder, tmp_path
):
    everything = tmp_path / "everything"
    test = {p.path for p in run.split.part("test")}
    for picture in run.split.scan.pictures:
        part = "train" if picture.path in test else picture.split
        part = "test" if part == "train" and picture.path not in test else part
        target = everything / str(part) / picture.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / picture.path, target)
    other = tuned(everything, weights, tmp_path / "other", strategy="probe")
    with pytest.raises(DataError, match=r"all \d+ test pictures.*--split-from"):
        evaluate_run(run, against=other)
    zoo = make_folder(tmp_path / "zoo", {"lion": 20, "zebra": 20}, seed=4)
    with pytest.raises(InputError, match="classes differ"):
        evaluate_run(run, against=tuned(zoo, weights, tmp_path / "zoo-run", strategy="probe"))


def test_a_record_from_the_verb_is_json(run, result):
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["n"] == result.n


# ---------------------------------------------------------------------------- the model card


def test_the_card_says_what_the_run_knows(run, result):
    card = card_of(run)
    kept = read_json(run.path / "evaluation" / "metrics.json")["tuned"]
    assert card.evaluation == Evaluation.from_dict(kept)
    assert (card.name, card.data, card.classes) == ("run", "photos", run.classifier.classes)
    assert {part: sum(of.values()) for part, of in card.counts.items()} == run.results["pictures"]
    assert card.training["Strategy"] == "partial"
    assert (card.excluded, card.copies, card.near_duplicates) == (0, 0, None)
    assert card.weights_licence == "unknown", "they came from a file"
    assert card.library == "timm"
    text = model_card_markdown(card)
    low, high = result.top1_interval
    assert f"{low:.1%} to {high:.1%}" in text
    assert "猫" in text


def test_copies_that_were_left_out_are_counted(photos, weights, tmp_path):
    doubled = tmp_path / "doubled"
    for part, names in {
        "train": ["猫", "d"],
        "validation": ["猫", "d"],
        "test": ["猫", "d"],
    }.items():
        for name in names:
            files = sorted((photos / name).iterdir())
            begin = {"train": 0, "validation": 12, "test": 24}[part]
            (doubled / part / name).mkdir(parents=True)
            for file in files[begin : begin + 12]:
                shutil.copy(file, doubled / part / name)
    shutil.copy(doubled / "train" / "d" / "000.png", doubled / "test" / "d" / "copy.png")
    run = tuned(doubled, weights, tmp_path / "run", strategy="probe", dedupe=True)
    card = card_of(run)
    assert (card.copies, card.excluded) == (1, 0)


def test_an_export_for_the_hub_has_the_card(run, result, tmp_path):
    export(run, format="hub", out=tmp_path / "hub", pictures=4)
    text = (tmp_path / "hub" / "README.md").read_text(encoding="utf-8")
    assert text == model_card_markdown(card_of(run))
    opened = open_model(tmp_path / "hub")
    assert opened.classes == run.classifier.classes
    assert opened.temperature == run.classifier.temperature
