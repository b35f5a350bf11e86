"""Strangers through whole verbs: what tune leaves, what predict says, what evaluate counts."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import transferscope as ts
from conftest import BACKBONE, Heard, command, same_state, state_of
from transferscope.errors import DataError, InputError
from transferscope.evaluation.known_pictures import FILE, KnownPictures
from transferscope.workflows import evaluate as evaluate_module
from transferscope.workflows.known_pictures import known_pictures, stored_detection
from transferscope.workflows.predict import predict
from transferscope.workflows.run import Run

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def photos(tmp_path_factory, make_folder) -> Path:
    return make_folder(tmp_path_factory.mktemp("photos") / "set", {"猫": 60, "b": 60, "c": 60})


@pytest.fixture(scope="module")
def strangers(tmp_path_factory) -> Path:
    """Stripes, which no class is."""
    root, draw = tmp_path_factory.mktemp("strange") / "stripes", np.random.default_rng(3)
    (root / "inside").mkdir(parents=True)
    for number in range(24):
        wave = np.sin(np.arange(48) * (0.3 + number / 20))[:, None, None] * 120 + 128
        picture = np.clip(wave + draw.normal(0, 9, (48, 48, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(root / "inside" / f"{number:02d}.png")
    return root


@pytest.fixture(scope="module")
def tuned(photos, weights, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    ts.tune(
        photos, out=out, backbone=BACKBONE, weights=weights, strategy="probe", ratio=(40, 40, 20)
    )
    return out


@pytest.fixture
def run(tuned: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(tuned, tmp_path / "run")
    return tmp_path / "run"


def test_tune_leaves_what_strangers_are_told_by(tuned, photos):
    known = KnownPictures.load(tuned / FILE)
    split = Run(tuned).split
    assert known.of == len(known.labels) == len(split.part("train"))
    assert known.paths == tuple(one.path for one in split.part("train"))
    assert known.n == len(split.part("validation"))
    assert (tuned / FILE).stat().st_size < 11e6


def test_predict_knows_its_own_and_not_strangers(tuned, photos, strangers):
    run = Run(tuned)
    known = known_pictures(run)
    before = state_of(run.classifier.network)
    files = [photos / one.path for one in run.split.part("test")]
    own = predict(run.classifier, files, known=known)
    others = predict(run.classifier, [strangers], known=known)
    assert same_state(before, state_of(run.classifier.network))
    assert sum(answer.known for answer in own) >= len(own) - 6
    assert sum(answer.known is False for answer in others) >= 20
    for answer in (*own, *others):
        assert answer.known == (answer.familiarity > 0.05)
        assert all(Path(one.path).is_file() for one in answer.nearest)
    alone = predict(run.classifier, files[:1], known=known)[0]
    assert alone.familiarity == pytest.approx(own[0].familiarity, abs=2 / known.n)
    listed = others[0].to_dict()
    assert listed["known"] is False
    assert set(listed["nearest"][0]) == {"path", "class", "similarity"}
    plain = predict(run.classifier, files[:1])[0]
    assert (plain.known, plain.familiarity, plain.nearest) == (None, None, ())
    assert plain.top == alone.top


def test_false_alarms_are_what_the_user_allows(tuned, photos, strangers):
    run = Run(tuned)
    known = known_pictures(run)
    files = [photos / one.path for one in run.split.part("validation")]
    answers = predict(run.classifier, files, known=known, false_alarms=0.3)
    alarms = sum(answer.known is False for answer in answers)
    assert abs(alarms - int(0.3 * (known.n + 1))) <= 1, "of the very pictures it was chosen on"
    few = predict(run.classifier, files[:2], known=known, false_alarms=0.01)
    assert all(answer.known is None and answer.familiarity is not None for answer in few)
    for wrong in (0, 1, -0.1):
        with pytest.raises(InputError, match=f"--false-alarms is {wrong}"):
            predict(run.classifier, files[:1], known=known, false_alarms=wrong)


def test_a_strip_is_as_familiar_as_its_strangest_piece(tuned, photos, strangers, tmp_path):
    run = Run(tuned)
    known = known_pictures(run)
    files = [photos / one.path for one in run.split.part("test")[:3]]
    files.append(next(strangers.rglob("*.png")))
    pieces = [np.asarray(Image.open(file)) for file in files]
    Image.fromarray(np.concatenate(pieces, axis=1)).save(tmp_path / "strip.png")
    (answer,) = predict(run.classifier, [tmp_path / "strip.png"], strip=4, known=known)
    singles = predict(run.classifier, files, known=known)
    least = min(one.familiarity for one in singles)
    assert answer.familiarity == pytest.approx(min(1, 4 * least), abs=4.5 / known.n)
    assert answer.nearest == ()


def test_the_command_says_none_of_these(run, photos, strangers, tmp_path):
    stranger, own = sorted(strangers.rglob("*.png"))[0], sorted(photos.rglob("*.png"))[0]
    table = tmp_path / "t.csv"
    said = command("predict", run, stranger, own, "--csv", table)
    assert said.exit_code == 0
    assert "none of these classes" in said.stdout
    assert "validation pictures are as unfamiliar" in " ".join(said.stderr.split())
    with open(table, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["known"] == "no"
    assert float(rows[0]["familiarity"]) <= 0.05
    answers = json.loads(command("predict", run, stranger, "--json", "--quiet").stdout)
    assert answers[0]["known"] is False
    few = command("predict", run, stranger, "--false-alarms", "0.001")
    assert "Strangers are not told" in few.stderr
    assert "none of these classes" not in few.stdout
    backbone = command("predict", run / "classifier.safetensors", stranger, "--json")
    assert json.loads(backbone.stdout)[0]["known"] is None


def test_runs_without_the_file_get_it_where_the_pictures_are(run, tuned, photos, tmp_path):
    (run / FILE).unlink()
    made = known_pictures(run)
    first = KnownPictures.load(tuned / FILE)
    assert (run / FILE).is_file()
    np.testing.assert_allclose(made.validation["nearest"], first.validation["nearest"], atol=0.02)
    (run / FILE).write_bytes(b"damaged")
    assert known_pictures(run).n == first.n
    moved = tmp_path / "moved"
    shutil.copytree(photos, moved)
    next(moved.rglob("*.png"))
    (run / FILE).unlink()
    assert Path(
        known_pictures(run, data=moved).neighbours(np.ones((1, made.features.shape[1])))[0][0].path
    ).is_relative_to(moved)
    (run / FILE).unlink()
    for file in moved.rglob("*.png"):
        file.unlink()
    heard = Heard()
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    record["root"], record["root_from_run"] = str(moved), "../moved"
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert known_pictures(run, reporter=heard) is None
    assert "strangers are not told" in heard.lines[-1]
    assert "--data" in heard.lines[-1]


def test_what_belongs_to_other_weights_is_made_again(run):
    opened = Run(run)
    other = opened.classifier
    other.head_layer.weight.data[0, 0] += 1
    other.save(run / "classifier.safetensors")
    stale = KnownPictures.load(run / FILE).weights
    assert known_pictures(Run(run)).weights != stale


def test_evaluate_counts_strangers_and_false_alarms(run, photos, strangers):
    mixed = run.parent / "mixed"
    shutil.copytree(strangers, mixed)
    shutil.copy(next((photos / "b").iterdir()), mixed / "own.png")
    (mixed / "inside" / "broken.jpg").write_bytes(b"\xff\xd8\xff cut")
    said = command("evaluate", run, "--strangers", mixed, "--json", "--quiet")
    found = json.loads(said.stdout)["strangers"]
    assert found["n"] == 24
    assert found["seen"] == 1
    assert found["excluded"] == 1
    assert found["caught"] >= 0.8
    assert found["own"] == len(Run(run).split.part("test"))
    assert found["auroc"] > 0.95
    assert found["false_alarms_interval"][0] <= 0.1
    assert {"probability", "energy", "nearest"} <= set(found["scores"])
    stored = stored_detection(run)
    assert (stored.n, stored.caught, stored.called) == (24, found["caught"], found["called"])
    words = " ".join(command("evaluate", run, "--strangers", mixed).stdout.split())
    assert "Of 24 strangers in mixed" in words
    assert "largest probability" in words
    assert "because they are the run's own pictures: 1" in words
    assert "because they cannot be read: 1" in words


@pytest.mark.parametrize(
    ("strangers", "share", "words"),
    [
        (".", "0", "must be more than 0 and less than 1"),
        (".", "nan", "must be more than 0 and less than 1"),
        ("nowhere", "0.05", "is not there"),
        ("empty", "0.05", "has no picture in it"),
        ("broken", "0.05", "1 cannot; 'transferscope predict' says why"),
    ],
)
def test_strangers_are_refused_before_any_picture_is_judged(
    run, tmp_path, monkeypatch, strangers, share, words
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "cut.jpg").write_bytes(b"\xff\xd8\xff cut")
    monkeypatch.setattr(evaluate_module, "predict_files", lambda *_, **__: pytest.fail("judged"))
    said = command("evaluate", run, "--strangers", tmp_path / strangers, "--false-alarms", share)
    assert said.exit_code in {1, 2}
    assert words in " ".join(said.stderr.split())
    assert "not meant to happen" not in said.stderr


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_what_only_other_devices_compute_is_refused(tuned, photos, verb):
    pictures = [photos / "b"] if verb == "predict" else []
    said = command(verb, tuned, *pictures, "--precision", "fp16", "--device", "cpu")
    assert said.exit_code == 2
    assert "precision is fp16 and the device a CPU" in " ".join(said.stderr.split())


def test_a_run_whose_pictures_moved_learns_from_them_what_it_knows(
    run, photos, strangers, tmp_path
):
    moved, picture = tmp_path / "moved", sorted(strangers.rglob("*.png"))[0]
    shutil.copytree(photos, moved)
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    record["root"], record["root_from_run"] = str(tmp_path / "gone"), "../gone"
    record["config"]["data"] = str(tmp_path / "gone")
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    (run / FILE).unlink()
    said = command("predict", run, picture, "--data", moved, "--json")
    assert json.loads(said.stdout)[0]["known"] is False
    (run / FILE).unlink()
    found = Run(run).evaluate("test", data=moved, strangers=strangers).strangers
    assert found.n == 24
    with pytest.raises(InputError, match="is no run folder; leave it out"):
        known_pictures(BACKBONE, data=moved)


def test_strangers_that_are_test_pictures_of_the_run_are_no_strangers(run, photos, make_folder):
    """The negative control: more pictures of the same classes, called strangers."""
    more = make_folder(run.parent / "more", {"猫": 20, "b": 20, "c": 20}, seed=9)
    found = Run(run).evaluate("test", strangers=more).strangers
    low, high = found.auroc_interval
    assert low <= 0.55
    assert high >= 0.45
    assert found.caught_interval[0] <= 0.12
    with pytest.raises(DataError, match="one of the run's own"):
        Run(run).evaluate("test", strangers=photos / "b")
