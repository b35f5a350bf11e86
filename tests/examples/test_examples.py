"""The examples run in their smaller setting and leave what the gallery is made of; shapes need no weights."""

from __future__ import annotations

import doctest
import math
import re
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from transferscope.backbones.catalogue import architecture_of, find_backbone
from transferscope.backbones.heads import MLPHead
from transferscope.evaluation.intervals import bootstrap_mean
from transferscope.files import read_json
from transferscope.visualize.recipe import RenderRecipe

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.append(str(EXAMPLES))

import _lesson  # noqa: E402 - the examples are no package
import _loops  # noqa: E402

FILES = sorted(EXAMPLES.glob("[0-9][0-9]_*.py"))
LONG = {"01", "02", "04", "05", "06"}  # more than ten seconds, also in the smaller setting


RUNS = [
    pytest.param(
        file,
        id=file.stem,
        marks=[pytest.mark.slow, pytest.mark.timeout(900)] if file.stem[:2] in LONG else [],
    )
    for file in FILES
]

EXPECTED = {
    "01": {
        "top-1 with a head of random weights": ("0.1%", ""),
        "top-1 of the untuned network with a linear probe": ("", ""),
        "top-1 of the tuned network": ("98.7%", ""),
    },
    "02": {
        "uniform guesses over 3 classes, bits": ("1.6", "1.58"),
        "uniform guesses over 10 classes, bits": ("3.32", "3.32"),
        "time of the frozen loop: of everything trained": ("0.36", ""),
        "time of kept features: of the frozen loop, at equal accuracy": ("", ""),
    },
    "03": {
        "parameters of VGG-16 with the head": ("135,335,076", "135,335,076"),
        "of them trained": ("1,074,532", "1,074,532"),
        "top-1 on test": ("88.65%", ""),
        "top-5 on test": ("98.00%", ""),
        "cross-entropy on test, nats": ("0.3772", ""),
    },
    "04": {
        "breeds of the Oxford pets; classes here": ("35", "4"),
        "probability of the ideal tiger cat": ("", ""),
        "a cat's photograph taken for another class": ("", ""),
        "tuned less a classifier on frozen features, percentage points": ("", ""),
        "refused: photographs": ("", ""),
    },
    "05": {
        "top-1 on test: dogs and cars; here": ("80% and 70%", ""),
        "median likeness of a channel's two drawings, by layer": (
            "falls with depth, but for the last block",
            "",
        ),
        "channels that learned, beyond control transfers": ("", ""),
        "BatchNorm trained less truly frozen, percentage points of top-1": ("", ""),
    },
    "06": {
        "characters in the dictionary": ("36", "8"),
        "strips of 4 read whole": ("", ""),
    },
}
"""Rows that an example's table must have: what the lesson reports and what is found here, "" for anything."""


@pytest.fixture(scope="module", params=RUNS)
def lesson(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that an example leaves."""
    folder = tmp_path_factory.mktemp("lesson") / "out"
    options = ["--fast", "--out", str(folder)]
    if request.param.stem[:2] in LONG:  # as a reader does: a process of its own keeps its memory
        subprocess.run([sys.executable, str(request.param), *options], check=True)
        return folder
    drawer = "transferscope.workflows.shortlist_drawings.make_recipe"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawer, lambda _steps: RenderRecipe(steps=4))
        assert _lesson.run_example(request.param, options) == 0
    return folder


def names_of(number: str) -> dict[str, Any]:
    """What an example defines."""
    (file,) = EXAMPLES.glob(f"{number}_*.py")
    return runpy.run_path(str(file), run_name="example")


def test_an_example_leaves_its_table_and_figures(lesson: Path):
    told = _lesson.read_lesson(lesson)
    record = read_json(lesson / _lesson.RESULT)
    assert told.to_dict() == record
    assert (EXAMPLES / f"{told.number}_{told.name}.py").is_file()
    assert told.fast
    assert not told.original
    assert told.title
    assert told.wrong or told.number == "06"  # a task is no claim
    assert all(row["what"] and row["ours"] for row in record["lesson"])
    assert any(row.lesson for row in told.lesson)
    assert len({row.what for row in told.lesson}) == len(told.lesson)
    for figure in told.figures:
        file = lesson / figure.file
        assert told.network in figure.caption
        if file.suffix == ".svg":
            assert ElementTree.parse(file).getroot().tag.endswith("svg")
        else:
            with Image.open(file) as picture:
                picture.load()
                assert min(picture.size) > 1
    assert len({figure.file for figure in told.figures}) == len(told.figures)
    ours = {row.what: (row.lesson, row.ours) for row in told.lesson}
    for what, wanted in EXPECTED.get(told.number, {}).items():
        given = ours[what]
        assert given[0] == wanted[0], what
        assert wanted[1] in ("", given[1]), what


def test_maps_are_said_to_change_more_only_beyond_every_control():
    verdict = names_of("01")["verdict"]
    rng = np.random.default_rng(0)
    tuned, controls = rng.normal(0.5, 0.1, 40), [rng.normal(c, 0.1, 40) for c in (0.1, 0.2, 0.3)]

    def said(tuned: np.ndarray, controls: list[np.ndarray]) -> str:
        difference = tuned - np.mean(controls, axis=0)
        ends = bootstrap_mean(difference)
        return verdict(tuned, controls, (difference.mean(), ends.low, ends.high))

    assert "more than" in said(tuned, controls)
    assert "less than" in said(tuned - 1, controls)
    assert "could not be told" in said(controls[1], controls)
    assert "could not be told" in said(tuned, [*controls, tuned + 0.1])  # one control goes further


def test_shared_early_features_are_said_only_beyond_untrained_networks():
    shared = names_of("02")["_shared_early"]
    tuned = [(0.98, 0.97, 0.99), (0.5, 0.4, 0.6)]

    def said(scratch: float, control: float) -> str:
        ends = [[(value, value - 0.05, value + 0.05)] * 2 for value in (scratch, control)]
        return shared({"tuned": tuned, "scratch": ends[0], "control": ends[1]})

    assert "come to share" in said(0.9, 0.5)
    assert "took them apart" in said(0.3, 0.6)
    assert "could not be told" in said(0.5, 0.52)


def test_the_original_is_refused_with_a_remedy_where_nothing_can_be_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    monkeypatch.chdir(tmp_path)
    for file in FILES[:5]:  # the homework has nothing to download
        out = tmp_path / file.stem
        assert _lesson.run_example(file, ["--original", "--out", str(out)]) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert "could not be fetched" in said
        assert "--weights" in said
        assert not out.exists()


def test_the_homework_has_no_original(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert _lesson.run_example(FILES[5], ["--original", "--out", str(tmp_path / "o")]) == 2
    assert "--data" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_folder_that_is_none_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    missing = str(tmp_path / "nowhere")
    assert _lesson.run_example(FILES[0], ["--data", missing, "--out", str(tmp_path / "o")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_uniform_guesses_in_bits():
    found = doctest.testmod(_loops)
    assert found.attempted == 2
    assert found.failed == 0
    assert _loops.uniform_bits(7) == pytest.approx(math.log2(7))


def test_stored_features_take_the_same_steps_as_the_loop():
    """A frozen network's head, trained by the loop and on stored features, ends with the same weights."""
    from conftest import tiny_classifier

    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (24, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(24) % 4
    looped, stored = tiny_classifier(), tiny_classifier()
    before = {name: value.clone() for name, value in looped.network.state_dict().items()}
    _loops.lesson_loop(
        looped, pictures, labels, trained=(looped.head,), epochs=3, batch_size=8, seed=5
    )
    with stored.inference():
        features = stored.pooled_features(pictures / 255)
    features = features.clone()
    pair = (features, labels)
    found = _loops.epochs_until(2.0, stored.head_layer, pair, pair, batch_size=8, most=3, seed=5)
    assert found is None  # more than all cannot be recognised
    assert not torch.equal(looped.head_layer.weight, before[f"{looped.head}.weight"])
    assert torch.allclose(looped.head_layer.weight, stored.head_layer.weight, atol=1e-5)
    for name, value in looped.network.state_dict().items():
        if not name.startswith(f"{looped.head}."):
            assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("name", "parameters", "head", "features", "layers"),
    [
        ("vgg16", 138_357_544, "classifier.6", 4096, ("features.0", "features.28", "classifier.0")),
        ("resnet18", 11_689_512, "fc", 512, ("conv1", "layer1.0.conv1", "layer4.1.conv2")),
        ("resnet50", 25_557_032, "fc", 2048, ("conv1", "layer3.5", "layer4.0", "layer4.2")),
        (
            "densenet161",
            28_681_000,
            "classifier",
            2208,
            ("features.conv0", "features.denseblock4.denselayer24.conv2", "features.norm5"),
        ),
    ],
)
def test_the_lessons_networks_without_weights(
    name: str, parameters: int, head: str, features: int, layers: tuple[str, ...]
):
    with torch.device("meta"):
        network = architecture_of(find_backbone(f"torchvision/{name}"))
        output = network(torch.zeros(1, 3, 224, 224))
    assert sum(one.numel() for one in network.parameters()) == parameters
    assert network.get_submodule(head).weight.shape == (1000, features)
    modules = dict(network.named_modules())
    assert set(layers) <= set(modules)
    assert output.shape == (1, 1000)
    first = next(m for m in modules.values() if isinstance(m, torch.nn.Conv2d))
    assert first.weight.shape[:2] == ((96 if name == "densenet161" else 64), 3)


def test_the_lessons_head_is_the_packages():
    torch.manual_seed(0)
    head = MLPHead(4096, 100).eval()
    kinds = [type(one).__name__ for one in head.children()]
    assert kinds == ["Linear", "ReLU", "Dropout", "Linear"]
    logits, labels = head(torch.randn(6, 4096)), torch.arange(6)
    lessons = torch.nn.functional.nll_loss(torch.log_softmax(logits, 1), labels)
    assert torch.equal(lessons, torch.nn.functional.cross_entropy(logits, labels))


def test_every_example_says_what_it_takes():
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        assert f"python examples/{file.name}" in text
        assert re.match(r'"""[A-Z].*[.?]\n', text), file
        assert "--original" in text
        assert "--data DIR" in text
