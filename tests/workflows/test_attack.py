"""The verb `attack`: what it writes fools, and where nothing fools it says so and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import transferscope as ts
from conftest import command, smooth_pictures, tiny_classifier
from transferscope.backbones.classifier import Classifier
from transferscope.errors import AttackError, InputError, OutputError, PictureError, UnknownName
from transferscope.files import sha256_file
from transferscope.images import as_float, to_picture
from transferscope.workflows import attack as workflow
from transferscope.workflows.attack import attack_files

pytestmark = pytest.mark.usefixtures("undrawn")

FILES = {"original.png", "adversarial.png", "difference.png", "attack.png", "attack.json"}
EPSILON = "40/255"


@pytest.fixture
def sharp() -> Classifier:
    classifier = tiny_classifier()
    with torch.no_grad():
        classifier.network.head.weight.mul_(20)
    return Classifier(classifier.network, classifier.input, ["猫", "कुत्ता", "a < b & $c_1$", "dog"])


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Three pictures larger than the network's input."""
    files = []
    for number, picture in enumerate(smooth_pictures(3, 3, 60, 80)):
        files.append(tmp_path / f"photo {number}.png")
        to_picture(picture).save(files[-1])
    return files


def said_of(classifier: Classifier, file: Path) -> torch.Tensor:
    return classifier.probabilities(as_float(classifier.input.load(file))[None])[0].detach()


def other_than(classifier: Classifier, file: Path) -> str:
    """The likeliest class that the picture is not taken for."""
    return classifier.classes[int(said_of(classifier, file).argsort()[-2])]


@pytest.mark.drawn
@pytest.mark.parametrize("targeted", [True, False])
def test_the_written_file_fools_as_stated(
    sharp: Classifier, photos: list[Path], tmp_path: Path, targeted: bool
):
    to = other_than(sharp, photos[0]) if targeted else None
    out = tmp_path / "out"
    made = ts.attack(sharp, photos[0], to=to, epsilon=EPSILON, out=out)
    assert made.verified
    assert made.file == str(out / "adversarial.png")
    assert {file.name for file in out.iterdir()} == {*FILES, ".transferscope"}
    said = said_of(sharp, out / "adversarial.png")
    assert sharp.classes[int(said.argmax())] == made.target
    assert float(said.max()) == pytest.approx(made.probability, abs=1e-5)
    before = said_of(sharp, out / "original.png")
    assert sharp.classes[int(before.argmax())] == made.source != made.target
    assert torch.equal(before, said_of(sharp, photos[0])), "cut and resized, it means the same"
    with Image.open(out / "adversarial.png") as written:
        assert (np.asarray(written) == made.adversarial).all()
    stored = json.loads((out / "attack.json").read_text(encoding="utf-8"))
    keys = {"file", "from", "to", "probability", "epsilon", "verified"}
    assert keys <= set(stored)
    digest = sha256_file(photos[0])
    assert stored == json.loads(json.dumps(made.to_dict())) | {"picture": digest}
    with Image.open(out / "attack.png") as figure:
        assert figure.width > 2000
    again = ts.attack(sharp, photos[0], to=to, epsilon=EPSILON, out=out)
    assert (again.adversarial == made.adversarial).all()


def test_without_out_nothing_is_written(sharp: Classifier, photos: list[Path], tmp_path: Path):
    before = set(tmp_path.rglob("*"))
    made = ts.attack(sharp, photos[0], epsilon=40 / 255)
    assert made.verified
    assert made.file is None
    assert set(tmp_path.rglob("*")) == before


def test_several_pictures(sharp: Classifier, photos: list[Path], tmp_path: Path):
    rows = attack_files(sharp, photos, epsilon=EPSILON, out=tmp_path / "out")
    for row, photo in zip(rows, photos, strict=True):
        if row.verified:
            folder = tmp_path / "out" / photo.stem
            assert row.file == str(folder / "adversarial.png")
            assert {file.name for file in folder.iterdir()} == FILES
    (tmp_path / "b").mkdir()
    twin = tmp_path / "b" / photos[0].name
    twin.write_bytes(photos[0].read_bytes())
    rows = attack_files(sharp, [photos[0], twin], epsilon=EPSILON, out=tmp_path / "twins")
    assert {file.name for file in (tmp_path / "twins").iterdir() if file.is_dir()} == {
        "001-photo 0",
        "002-photo 0",
    }


def test_failure_is_said_and_leaves_what_was_there(
    sharp: Classifier, photos: list[Path], tmp_path: Path
):
    to, out = other_than(sharp, photos[0]), tmp_path / "out"
    ts.attack(sharp, photos[0], to=to, epsilon=EPSILON, out=out)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(
        AttackError, match=r"pgd within linf 1/255 does not turn .* --epsilon \(2/255\)"
    ):
        ts.attack(sharp, photos[0], to=to, epsilon="1/255", steps=1, out=out)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    with pytest.raises(AttackError, match="none of 2 pictures"):
        attack_files(sharp, photos[:2], epsilon="1/255", steps=1, restarts=1)


def test_a_file_that_does_not_fool_is_never_called_one_that_does(
    sharp: Classifier, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A writer that loses the lowest bits, as a JPEG does."""
    real = workflow.png_of
    monkeypatch.setattr(workflow, "png_of", lambda picture: real(np.asarray(picture) // 64 * 64))
    with pytest.raises(AttackError, match="once it is written"):
        ts.attack(sharp, photos[0], epsilon=EPSILON, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_refusals_come_before_the_work(
    sharp: Classifier, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(workflow, "perturb", lambda *_, **__: pytest.fail("worked"))
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("!")
    photo = photos[0]
    for options, error, message in (
        ({"to": "dogg"}, UnknownName, "did you mean 'dog'"),
        ({"epsilon": "0"}, InputError, "epsilon is 0, and an attack changes something"),
        ({"epsilon": "8"}, InputError, "such as 8/255"),
        ({"epsilon": "much"}, InputError, "epsilon is 'much'"),
        ({"method": "deepfool", "norm": "linf"}, InputError, "DeepFool works in l2"),
        ({"out": tmp_path / "mine"}, OutputError, "would be lost"),
        ({"out": photo}, OutputError, "is a file"),
    ):
        with pytest.raises(error, match=message):
            ts.attack(sharp, photo, **options)
    for bad in (tmp_path / "cut.png", tmp_path / "none.png"):
        with pytest.raises(PictureError):
            ts.attack(sharp, bad)
    with pytest.raises(InputError, match="no picture was given"):
        attack_files(sharp, [])


# ---------------------------------------------------------------------------- the verb


@pytest.fixture
def model(sharp: Classifier, monkeypatch: pytest.MonkeyPatch) -> Classifier:
    monkeypatch.setattr("transferscope.workflows.open_model.open_model", lambda *_, **__: sharp)
    return sharp


def test_verb_speaks_json(model: Classifier, photos: list[Path], tmp_path: Path):
    options = ("--epsilon", EPSILON, "--json", "--quiet")
    done = command("attack", "m", photos[0], "--out", tmp_path / "one", *options)
    assert (done.exit_code, done.stderr) == (0, "")
    row = json.loads(done.stdout)
    assert row["verified"] is True
    assert row["file"] == str(tmp_path / "one" / "adversarial.png")
    assert row["epsilon"] == pytest.approx(40 / 255)
    done = command("attack", "m", *photos[:2], "--out", tmp_path / "two", *options)
    assert [row["verified"] for row in json.loads(done.stdout)] == [True, True]


def test_verb_prints_a_table(model: Classifier, photos: list[Path], tmp_path: Path):
    done = command(
        "attack", "m", photos[0], "--out", tmp_path / "o", "--epsilon", EPSILON, "--quiet"
    )
    assert done.exit_code == 0
    assert "largest change" in done.stdout
    assert "Random noise of that size:" in done.stdout


def test_verb_fails_clearly(model: Classifier, photos: list[Path], tmp_path: Path):
    out = tmp_path / "o"
    done = command(
        "attack", "m", photos[0], "--out", out, "--epsilon", "1/255", "--steps", 1, "--quiet"
    )
    assert done.exit_code == 1
    assert "nothing was written" in done.stderr
    assert done.stdout == ""
    assert not out.exists()
    done = command("attack", "m", photos[0], "--out", out, "--epsilon", "0", "--quiet")
    assert (done.exit_code, done.stdout) == (2, "")


def test_verb_says_which_of_several_failed(
    model: Classifier, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from dataclasses import replace

    real = workflow.perturb

    def half(*args: object, **options: object) -> list[ts.Perturbation]:
        first, *others = real(*args, **options)
        return [replace(first, verified=False), *others]

    monkeypatch.setattr(workflow, "perturb", half)
    options = ("--epsilon", EPSILON, "--json", "--quiet")
    done = command("attack", "m", *photos[:2], "--out", tmp_path / "o", *options)
    assert done.exit_code == 1
    first, second = json.loads(done.stdout)
    assert (first["verified"], first["file"]) == (False, None)
    assert second["verified"]
    assert "1 of 2 pictures do not fool" in done.stderr
    assert [f.name for f in (tmp_path / "o").iterdir() if f.is_dir()] == [photos[1].stem]
