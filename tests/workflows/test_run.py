"""The verbs end to end, on a small network with weights from a file."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import transferscope as ts
from conftest import BACKBONE, SPEC, TinyNet, command
from forks import python
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.weights import load_backbone
from transferscope.data.demo import CONFUSABLE
from transferscope.errors import DataError, InputError, OutputError, RunError, UnknownName
from transferscope.files import read_json, sha256_file, write_json
from transferscope.workflows import atlas as atlas_module
from transferscope.workflows.atlas import write_atlas
from transferscope.workflows.compare import compare
from transferscope.workflows.demo import read_strips
from transferscope.workflows.doctor import diagnose
from transferscope.workflows.evaluate import evaluate_run
from transferscope.workflows.open_model import open_model
from transferscope.workflows.predict import predict
from transferscope.workflows.run import Run
from transferscope.workflows.visualize import Drawings, parse_channels, visualize

pytestmark = pytest.mark.usefixtures("undrawn")

CLASSES = {'<b>猫 & "狗"</b>': 14, "b": 12, "c": 13}


@pytest.fixture(scope="module")
def photos(tmp_path_factory, make_folder) -> Path:
    root = make_folder(tmp_path_factory.mktemp("photos") / "set", CLASSES)
    (root / "b" / "broken.jpg").write_text("this is text")
    return root


def short(photos, weights, out, **options) -> Run:
    defaults = {"strategy": "partial", "unfreeze": 4, "epochs": 2, "batch_size": 8}
    return ts.tune(photos, out=out, backbone=BACKBONE, weights=weights, **(defaults | options))


def best_epoch(run: Run) -> int:
    return next(int(row["epoch"]) for row in run.history if row["best"] == "1")


@pytest.fixture(scope="module")
def run(photos, weights, tmp_path_factory) -> Run:
    # one unreadable picture of forty is under the cap of 5 percent
    return short(photos, weights, tmp_path_factory.mktemp("runs") / "run")


# ---------------------------------------------------------------------------- tune


def test_a_run_holds_what_it_promises(run):
    names = {path.name for path in run.path.iterdir()}
    assert {"run.json", "split.csv", "history.csv", "history.svg"} <= names
    assert {"classifier.safetensors", "base_head.safetensors", "checkpoints"} <= names
    assert "started.json" not in names
    assert run.classifier.classes == tuple(sorted(CLASSES))
    record = read_json(run.path / "run.json")
    assert record["excluded"][0][0].endswith("broken.jpg")
    assert "pictures" in record["results"]
    assert sum(record["results"]["pictures"].values()) == 39
    assert not list(run.path.rglob("*.tmp"))


def test_the_split_has_every_picture_once_with_its_hash(run, photos):
    with open(run.path / "split.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["path"] for row in rows}) == len(rows) == 39
    assert all(row["sha256"] == sha256_file(photos / row["path"]) for row in rows)
    assert {row["class"] for row in rows} == set(CLASSES)


def test_base_is_the_untuned_backbone_with_the_probes_head(run, weights):
    source = load_backbone(BACKBONE, weights=weights)
    assert run.base.body_hash() == source.body_hash()
    assert run.results["strategy"] == "partial"
    assert run.classifier.body_hash() != source.body_hash()
    assert run.base.classes == run.classifier.classes


def test_two_runs_of_one_seed_have_the_same_weights(run, photos, weights, tmp_path):
    again = short(photos, weights, tmp_path / "again")
    assert again.results["cached"] == 39 - 6  # the test split is not looked at
    same = torch.equal
    old, new = run.classifier.state_dict(), again.classifier.state_dict()
    assert all(same(old[key], new[key]) for key in old)
    assert run.classifier.temperature == again.classifier.temperature


def test_auto_keeps_the_better_on_validation(photos, weights, tmp_path):
    run = short(photos, weights, tmp_path / "auto", strategy="auto")
    scores = run.results["candidates"]
    assert set(scores) == {"probe", "partial"}
    best = max(scores, key=lambda name: (scores[name]["top1"], -scores[name]["calibrated_loss"]))
    assert run.results["strategy"] == best


def test_probe_leaves_the_body_as_it_was(photos, weights, tmp_path):
    run = short(photos, weights, tmp_path / "probe", strategy="probe")
    assert run.classifier.body_hash() == run.base.body_hash()
    assert len(run.history) == 1


def test_an_existing_run_is_refused_and_resumed(run, photos, weights):
    before = {p: p.stat().st_mtime_ns for p in run.path.rglob("*") if p.is_file()}
    with pytest.raises(RunError, match="--resume"):
        short(photos, weights, run.path)
    resumed = short(photos, weights, run.path, resume=True)
    assert resumed.results == run.results
    with pytest.raises(RunError, match="begun with --seed 0, and now it is --seed 1"):
        short(photos, weights, run.path, resume=True, seed=1)
    after = {p: p.stat().st_mtime_ns for p in run.path.rglob("*") if p.is_file()}
    assert before == after


def test_a_run_inside_its_own_data_is_refused(photos, weights):
    with pytest.raises(InputError, match="inside the data folder"):
        short(photos, weights, photos / "run")
    assert not (photos / "run").exists()


def test_a_folder_of_other_files_is_not_written_into(photos, weights, tmp_path):
    (tmp_path / "thesis.doc").write_text("years of work")
    with pytest.raises(RunError, match="other files"):
        short(photos, weights, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.doc"]


def test_a_killed_tune_is_resumed_to_the_same_weights(run, photos, weights, tmp_path):
    out = tmp_path / "killed"
    script = f"""
        import os, signal, sys
        import transferscope as ts
        from transferscope.workflows.reporter import Silent
        class Killer(Silent):
            def epoch(self, row):
                if row.epoch == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
        ts.tune({str(photos)!r}, out={str(out)!r}, backbone={BACKBONE!r}, weights={str(weights)!r},
                strategy="partial", unfreeze=4, epochs=2, batch_size=8, reporter=Killer())
    """
    done = subprocess.run([*python(), "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -9
    with pytest.raises(RunError, match="not finished"):
        Run(out)
    resumed = short(photos, weights, out, resume=True)
    old, new = run.classifier.state_dict(), resumed.classifier.state_dict()
    assert all(torch.equal(old[key], new[key]) for key in old)
    assert not (out / "started.json").exists()


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ({}, "no"),
        ({"only": 9}, "one class|only one"),
        ({"a": 9, "empty": 0}, "empty"),
        ({"a": 9, "two": 2}, "two"),
    ],
)
def test_sets_that_cannot_be_trained_on_are_refused_before_anything_is_written(
    tmp_path, make_folder, weights, classes, words
):
    root = make_folder(tmp_path / "set", classes)
    root.mkdir(exist_ok=True)
    with pytest.raises(DataError, match=words):
        short(root, weights, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_many_unreadable_pictures_stop_it(tmp_path, make_folder, weights):
    root = make_folder(tmp_path / "set", {"a": 8, "b": 8})
    (root / "a" / "bad.jpg").write_text("text")
    with pytest.raises(DataError, match=r"bad\.jpg"):
        short(root, weights, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_options_out_of_range_are_refused_before_anything_is_written(photos, weights, tmp_path):
    for options, error in [
        ({"strategy": "magic"}, InputError),
        ({"unfreeze": 99}, InputError),
        ({"lr": 7.0}, InputError),
        ({"ratio": "50/50"}, InputError),
        ({"device": "gpu9"}, InputError),
        ({"backbone": "efficientnet_lite9"}, UnknownName),
    ]:
        with pytest.raises(error):
            ts.tune(
                photos,
                out=tmp_path / "out",
                **({"backbone": BACKBONE, "weights": weights} | options),
            )
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_is_one_sentence(photos, weights, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        short(photos, weights, tmp_path / "file" / "run")


def test_a_run_json_that_was_cut_or_emptied_is_one_sentence(run, tmp_path):
    for text, words in [("", "as JSON"), ("[]", "schema None"), ('{"schema": 1}', "incomplete")]:
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(RunError, match=words):
            Run(tmp_path)


def test_a_base_from_other_weights_is_refused(run, tmp_path, weights):
    moved = tmp_path / "moved"
    shutil.copytree(run.path, moved)
    record = read_json(moved / "run.json")
    record["body_hash"] = "0" * 64
    write_json(moved / "run.json", record)
    with pytest.raises(RunError, match="not those that"):
        _ = Run(moved).base


# ---------------------------------------------------------------------------- evaluate, predict


def test_evaluation_is_of_the_split_and_has_the_before(run):
    result = evaluate_run(run)
    metrics = read_json(run.path / "evaluation" / "metrics.json")
    assert metrics["tuned"] == json.loads(json.dumps(result.to_dict()))
    assert {"tuned", "base"} == set(metrics)
    assert result.n == run.results["pictures"]["test"]
    with pytest.raises(UnknownName, match=r"'holdout'.*train, validation or test"):
        evaluate_run(run, split="holdout")


def test_pictures_that_changed_or_moved_are_noticed(photos, weights, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(photos, copy)
    run = short(copy, weights, tmp_path / "run", strategy="probe")
    victim = copy / run.split.part("test")[0].path
    whole = victim.read_bytes()
    victim.write_bytes(whole + b"x")
    with pytest.raises(DataError, match="hash differs"):
        evaluate_run(run)
    victim.unlink()
    with pytest.raises(DataError, match="is gone"):
        evaluate_run(run)
    assert evaluate_run(run, data=photos).n == len(run.split.part("test"))


def test_the_same_picture_has_the_same_probabilities_everywhere(run, photos, tmp_path):
    files = sorted((photos / "c").glob("*.png"))
    classifier = open_model(run.path)
    together = predict(classifier, files, top=3)
    alone = [predict(open_model(run.path), [file], top=3)[0] for file in files]
    printed = command("predict", run.path, "--top", "3", "--json", "--quiet", *files)
    through_cli = json.loads(printed.stdout)
    for one, other, cli in zip(together, alone, through_cli, strict=True):
        for mine, yours, theirs in zip(one.top, other.top, cli["top"], strict=True):
            assert mine.name == yours.name == theirs["class"]
            assert mine.probability == pytest.approx(yours.probability, abs=1e-5)
            assert mine.probability == pytest.approx(theirs["probability"], abs=1e-5)


# ---------------------------------------------------------------------------- see


def test_an_atlas_needs_an_evaluation_or_a_comparison(photos, weights, tmp_path, monkeypatch):
    run = short(photos, weights, tmp_path / "run", strategy="probe")
    with pytest.raises(RunError, match=r"transferscope evaluate.*transferscope compare"):
        write_atlas(run)
    evaluate_run(run)
    home = write_atlas(run).parent
    assert {page.name for page in home.glob("*.html")} == {
        "classes.html",
        "index.html",
        "evaluation.html",
        "card.html",
        "data.html",
        "glossary.html",
        "method.html",
        "pictures.html",
    }
    assert not (home / "units").exists()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/mine.txt").write_text("kept")
    monkeypatch.setattr(atlas_module, "_content", None)  # refused before any work
    with pytest.raises(OutputError, match="would be lost"):
        write_atlas(run, out=tmp_path / "notes")


def test_unknown_layers_and_channels_are_refused(run):
    with pytest.raises(UnknownName, match=r"blocks\.9"):
        compare(run, layers=["blocks.9"])
    with pytest.raises(InputError, match="1 seed or more"):
        compare(run, seeds=0)
    classifier = run.classifier
    assert parse_channels("0,2-4,2", classifier, "blocks.0") == (0, 2, 3, 4)
    with pytest.raises(InputError, match="0,5,8-15"):
        parse_channels("3-", classifier, "blocks.0")
    with pytest.raises(InputError, match="smaller one first"):
        parse_channels("5-2", classifier, "blocks.0")
    for text in ("9999", "0-99999999999999", "3,9999"):
        with pytest.raises(InputError, match=r"has \d+ channels"):
            parse_channels(text, classifier, "blocks.0")


def test_channels_of_the_head_have_the_names_of_classes():
    names = ("a, b", "7", "cat", "zebra")
    torch.manual_seed(0)
    classifier = Classifier(TinyNet(), SPEC, names)
    assert parse_channels("zebra, cat,0-1", classifier, classifier.head) == (3, 2, 0, 1)
    assert parse_channels("a, b", classifier, classifier.head) == (0,)
    with pytest.raises(UnknownName, match="did you mean 'zebra'"):
        parse_channels("zebr", classifier, classifier.head)
    with pytest.raises(InputError, match="has 4 channels"):
        parse_channels("7", classifier, classifier.head)  # digits are places


def test_visualize_writes_one_picture_a_channel_and_sign(run, tmp_path):
    wanted = Drawings(layer="blocks.3", channels=[0, 5], signs=("plus", "minus"), steps=2)
    rows = visualize(run.classifier, wanted, out=tmp_path / "v")
    assert [(row["channel"], row["sign"]) for row in rows] == [
        (0, "plus"),
        (5, "plus"),
        (0, "minus"),
        (5, "minus"),
    ]
    assert all(Path(row["file"]).is_file() for row in rows)
    assert (tmp_path / "v" / "sheet.png").is_file()
    assert {"layer", "channel", "sign", "seed", "activation", "exemplar_max", "status"} <= set(
        rows[0]
    )
    assert rows[0]["exemplar_max"] is None


def test_visualize_holds_drawings_against_real_pictures(run, photos, tmp_path):
    from transferscope.features.exemplars import channel_responses

    copy = tmp_path / "readable"
    shutil.copytree(photos, copy, ignore=shutil.ignore_patterns("broken.jpg"))
    wanted = Drawings(layer="blocks.3", channels=[5], signs=("minus",), steps=1, data=copy)
    (row,) = visualize(run.classifier, wanted, out=tmp_path / "v")
    files = sorted(copy.rglob("*.png"))
    means = channel_responses(run.classifier, files, ["blocks.3"])["blocks.3"][:, 5]
    assert row["exemplar_max"] == pytest.approx(float((-means).max()), abs=1e-4)


# ---------------------------------------------------------------------------- the rest


def test_strips_are_scored_with_look_alikes_apart(run, tmp_path, monkeypatch):
    answers = ["AO1B", "XXXX", "II00"]
    rows = [("a.png", "A01B"), ("b.png", "XXXX"), ("c.png", "AAAA")]
    (tmp_path / "strips.csv").write_text(
        "path,text\n" + "".join(f"{path},{text}\n" for path, text in rows)
    )
    from dataclasses import replace

    from transferscope.evaluation.answers import Prediction

    monkeypatch.setattr(
        "transferscope.workflows.demo.predict",
        lambda *_, **__: [Prediction("x", strip=answer) for answer in answers],
    )
    fake = Run(run.path)
    fake.config = replace(run.config, data=str(tmp_path / "characters"), confusable=CONFUSABLE)
    found = read_strips(fake)
    assert (found["n"], found["right"], found["right_with_lookalikes_merged"]) == (3, 1, 2)


def test_models_are_opened_by_name_folder_or_file(run):
    assert open_model(run.path).classes == run.classifier.classes
    assert open_model(run.path / "classifier.safetensors").classes == run.classifier.classes
    with pytest.raises(RunError, match="is not there"):
        open_model("./nowhere")
    with pytest.raises(RunError, match=r"no run\.json"):
        open_model(run.path.parent)


def test_doctor_names_what_matters():
    found = diagnose()
    assert {"torch", "device", "cache", "bf16 is fast here", "embedded weights"} <= set(found)


def test_a_lock_keeps_a_second_process_out(run, photos, weights, tmp_path):
    out = tmp_path / "held"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from transferscope.files import locked\nimport time\n"
            f"with locked({str(out)!r}):\n print('held', flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="in use"):
            short(photos, weights, out)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert short(photos, weights, out, strategy="probe").results
