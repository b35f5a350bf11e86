"""What a tuning keeps, by which number, what is said of it, and what little validation can tell."""

from __future__ import annotations

import json
import shlex
import subprocess
import textwrap
from pathlib import Path

import pytest
import torch

import transferscope as ts
from conftest import BACKBONE, Heard, command, tiny_classifier
from forks import python
from transferscope.errors import RunError
from transferscope.evaluation.calibration import LEAST_EVIDENCE
from transferscope.files import read_json
from transferscope.training.config import tune_options
from transferscope.training.fit import calibrated_loss
from transferscope.workflows.atlas import write_atlas
from transferscope.workflows.candidates import Candidate
from transferscope.workflows.choice import choose, command_for, scores_of
from transferscope.workflows.compare import compare
from transferscope.workflows.evaluate import evaluate_run
from transferscope.workflows.model_card import training_facts
from transferscope.workflows.run import Run

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def photos(tmp_path_factory, make_folder) -> Path:
    return make_folder(tmp_path_factory.mktemp("chosen") / "set", {"a": 14, "b": 12, "c": 13})


@pytest.fixture(scope="module")
def probe(photos, weights, tmp_path_factory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "probe"
    return ts.tune(photos, out=out, backbone=BACKBONE, weights=weights, strategy="probe")


def options(tmp_path: Path, **given):
    return tune_options(data=tmp_path / "photos", out=tmp_path / "runs" / "one", **given)


def candidates(probe_scale: float, partial_scale: float, n: int = 40) -> tuple[dict, torch.Tensor]:
    """Both are wrong of the first picture: the probe barely, the other surely."""
    labels = torch.arange(n) % 4
    logits = 3 * torch.nn.functional.one_hot(labels, 4).float()
    rougher = logits.clone()
    logits[0], rougher[0] = torch.tensor([3.0, 3.1, 0, 0]), torch.tensor([0, 4.0, 0, 0])
    classifier = tiny_classifier()
    return {
        "probe": Candidate(classifier, logits * probe_scale, ()),
        "partial": Candidate(classifier, rougher * partial_scale, (), "stages.1"),
    }, labels


def test_a_tie_is_decided_by_the_calibrated_loss_and_not_by_the_plain_one(tmp_path):
    found, labels = candidates(probe_scale=0.2, partial_scale=1.0)
    scores = scores_of(found, labels)
    assert scores["probe"]["top1"] == scores["partial"]["top1"]
    assert scores["probe"]["loss"] > scores["partial"]["loss"]  # by which the other was kept
    assert scores["probe"]["calibrated_loss"] == calibrated_loss(found["probe"].logits, labels)
    choice = choose(options(tmp_path), found, scores, len(labels))
    assert (choice.kept, choice.by) == ("probe", "calibrated_loss")
    for number in scores.values():
        assert f"{number['calibrated_loss']:.4f}" in choice.sentence
    assert "40 validation pictures" in choice.sentence
    assert choice.other in choice.sentence
    assert "untuned" in choice.sentence


def test_what_is_right_more_often_is_kept_whatever_its_loss(tmp_path):
    found, labels = candidates(1.0, 1.0)
    labels = labels.clone()
    scores = scores_of(found, labels)
    scores["partial"]["top1"] += 0.1
    scores["partial"]["calibrated_loss"] += 10
    choice = choose(options(tmp_path), found, scores, len(labels))
    assert (choice.kept, choice.by) == ("partial", "top1")
    assert "untuned" not in choice.sentence
    assert "--strategy probe" in choice.other


def test_the_probe_is_not_said_to_be_asked_for_where_there_was_no_time(tmp_path):
    found, labels = candidates(1.0, 1.0, n=20)
    alone = {"probe": found["probe"]}
    scores = scores_of(alone, labels)
    for asked, advised in (("partial", None), ("auto", "partial")):
        chosen = options(tmp_path, strategy=asked, minutes=0.01)
        said = choose(chosen, alone, scores, len(labels), advised=advised).sentence
        assert said.startswith(
            "kept: probe, as --minutes 0.01 left no time to tune: 95.0% right on"
        )
        assert "validation pictures (95% interval " in said  # beside its figure
        assert "(more --minutes, with another --out, tunes it)" in said
    for asked, advised in (("probe", None), ("auto", "probe")):
        chosen = options(tmp_path, strategy=asked, minutes=0.01)
        said = choose(chosen, alone, scores, len(labels), advised=advised).sentence
        assert "no time" not in said


def test_the_other_command_is_one_that_the_program_takes(tmp_path):
    chosen = options(tmp_path, seed=3, flip=False, epochs=2, group="(p[0-9])", augment="none")
    words = shlex.split(command_for(chosen, "partial", "blocks.2"))
    assert words[:2] == ["transferscope", "tune"]
    for pair in (("--boundary", "blocks.2"), ("--seed", "3"), ("--epochs", "2")):
        assert words[words.index(pair[0]) + 1] == pair[1]
    assert words[words.index("--split-from") + 1] == str(tmp_path / "runs" / "one")
    assert words[words.index("--out") + 1] == str(tmp_path / "runs" / "one-partial")
    assert {"--no-flip", "--augment", "--group"} <= set(words)
    answer = command(*words[1:])
    assert "No such option" not in answer.output + answer.stderr
    assert answer.exit_code == 1  # as there is no such run, and no wrong usage
    assert "runs/one' is not a folder" in answer.stderr


def test_tune_says_what_it_kept_and_the_json_has_it(photos, weights, tmp_path):
    heard = Heard()
    run = ts.tune(
        photos,
        out=tmp_path / "auto",
        backbone=BACKBONE,
        weights=weights,
        strategy="auto",
        unfreeze=3,
        epochs=1,
        batch_size=8,
        reporter=heard,
    )
    choice = run.results["choice"]
    assert heard.lines[-1] == choice["sentence"]
    assert choice["kept"] == run.results["strategy"]
    assert run.results["validation"]["n"] == len(run.split.part("validation"))
    assert all("calibrated_loss" in score for score in run.results["candidates"].values())


def test_the_chart_rings_what_was_kept(photos, weights, tmp_path, monkeypatch):
    from transferscope.workflows import tune as module

    real = module.choose

    def the_probe(options, found, scores, n, **advised):
        scores["probe"]["top1"] = 2.0
        return real(options, found, scores, n, **advised)

    monkeypatch.setattr(module, "choose", the_probe)
    losses = iter([3.0, 1.0, 2.0])  # of the start and of two epochs, the first of which is the best
    monkeypatch.setattr("transferscope.training.loop.calibrated_loss", lambda *_: next(losses))
    run = ts.tune(
        photos,
        out=tmp_path / "run",
        backbone=BACKBONE,
        weights=weights,
        strategy="auto",
        unfreeze=3,
        epochs=2,
        batch_size=8,
        recipe={"wise_ft": False},
    )
    assert run.results["strategy"] == "probe"
    assert [row["epoch"] for row in run.history if row["best"] == "1"] == ["0"]


def test_an_untuned_body_is_not_drawn_twice(probe, monkeypatch):
    monkeypatch.setattr(
        "transferscope.workflows.compare.Sweep", lambda *_: pytest.fail("something was drawn")
    )
    heard = Heard()
    found = compare(probe, reporter=heard)
    assert all(layer.identical and not layer.information for layer in found.layers)
    assert not found.rows
    assert "untuned" in heard.lines[-1]
    assert "nothing to compare" in heard.lines[-1]
    assert not (probe.path / "comparison").exists()
    payload = found.to_dict()
    assert all(layer["identical"] for layer in payload["layers"].values())
    answer = command("compare", probe.path)
    assert answer.exit_code == 0
    assert "untuned" in answer.stderr
    table = answer.stdout.partition("\n\n")[0]
    assert table.count("identical") == len(found.layers)


def test_the_atlas_says_that_the_body_is_untuned(probe, tmp_path):
    with pytest.raises(RunError, match="its body is untuned"):
        write_atlas(probe)
    evaluate_run(probe)
    heard = Heard()
    page = write_atlas(probe, out=tmp_path / "atlas", reporter=heard)
    assert "untuned" in " ".join(heard.lines)
    assert "the body is untuned" in page.read_text(encoding="utf-8")


# ---------------------------------------------------------------------------- little evidence


def test_little_validation_is_said_wherever_something_was_chosen_by_it(probe):
    n = len(probe.split.part("validation"))
    assert n < LEAST_EVIDENCE
    assert f"chosen on {n} validation pictures" in probe.results["choice"]["sentence"]
    assert "95% interval" in probe.results["choice"]["sentence"]
    assert probe.results["temperature"] == 1.0
    assert probe.classifier.temperature == probe.base.temperature == 1.0
    assert f"{n} validation pictures" in training_facts(probe)["Temperature"]
    result = evaluate_run(probe)
    assert result.chosen_on == n
    answer = command("evaluate", probe.path)
    assert f"chosen on {n} validation pictures, and that is little" in " ".join(
        answer.stdout.split()
    )


def test_evaluate_lists_the_labels_that_are_probably_wrong(weights, make_folder, tmp_path):
    photos = make_folder(tmp_path / "set", {"a": 40, "b": 40}, seed=2)
    for number in range(3):  # three of b lie in a
        (photos / "b" / f"{number:03d}.png").rename(photos / "a" / f"moved-{number}.png")
    run = ts.tune(
        photos,
        out=tmp_path / "run",
        backbone=BACKBONE,
        weights=weights,
        strategy="probe",
        ratio="90/5/5",
    )
    wrong = {p.path for p in run.split.part("train") if "moved" in p.path}
    answer = command("evaluate", run.path, "--json")
    payload = json.loads(answer.stdout)
    assert payload["probable_label_errors"] == len(payload["label_suspects"])
    assert {one["path"] for one in payload["label_suspects"]} == wrong
    assert {one["predicted"] for one in payload["label_suspects"]} == {"b"}
    assert read_json(run.path / "evaluation" / "study.json")["probable"] == len(wrong)
    told = " ".join(command("evaluate", run.path).stdout.split())
    assert "probably wrong; look before changing" in told


def test_out_of_fold_answers_of_a_fit_that_may_not_have_converged_are_made_again(probe):
    evaluate_run(probe)
    folder = probe.path / "evaluation" / "out-of-fold"
    (folder / "probe.json").unlink()  # as an earlier version left it
    before = (folder / "predictions.safetensors").stat().st_mtime_ns
    evaluate_run(probe)
    assert (folder / "predictions.safetensors").stat().st_mtime_ns > before


# ---------------------------------------------------------------------------- resumed elsewhere


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_run_is_resumed_on_another_number_of_threads(
    photos, weights, tmp_path, head, monkeypatch
):
    out = tmp_path / "killed"
    script = f"""
        import os, signal
        import torch
        torch.set_num_threads(2)
        import transferscope as ts
        from transferscope.workflows.reporter import Silent
        class Killer(Silent):
            def epoch(self, row):
                if row.epoch == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
        ts.tune({str(photos)!r}, out={str(out)!r}, backbone={BACKBONE!r}, weights={str(weights)!r},
                strategy="partial", unfreeze=3, head={head!r}, epochs=2, batch_size=8, reporter=Killer())
    """
    done = subprocess.run([*python(), "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -9

    def another_rounding(*_: object, **__: object) -> None:
        raise AssertionError("the head was fitted anew")

    monkeypatch.setattr("transferscope.workflows.candidates.fit_probe", another_rounding)
    monkeypatch.setattr("transferscope.workflows.candidates.fit_mlp_head", another_rounding)
    run = ts.tune(
        photos,
        out=out,
        backbone=BACKBONE,
        weights=weights,
        strategy="partial",
        unfreeze=3,
        head=head,
        epochs=2,
        batch_size=8,
        resume=True,
    )
    assert len(run.history) == 3
    assert not (out / "start").exists()
