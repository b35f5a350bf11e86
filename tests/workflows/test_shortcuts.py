"""The verb `shortcuts`: a planted cue is found and corrected; nothing is found where nothing was planted."""

from __future__ import annotations

import json
import shlex
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import transferscope as ts
from conftest import BACKBONE, command, same_state, state_of
from transferscope.errors import InputError, OutputError
from transferscope.report.pages.atlas import write_atlas
from transferscope.report.pages.content import AtlasContent
from transferscope.workflows import shortcuts as module
from transferscope.workflows.evaluate import evaluate_run
from transferscope.workflows.shortcuts import kept_shortcuts

pytestmark = pytest.mark.usefixtures("undrawn")

CLASSES = ("cross", "disc", "stripes")
EACH = 70
SIDE = 64


def draw(rng: np.random.Generator, name: str) -> Image.Image:
    """A shape in the middle of a smooth ground, in random greys."""
    ground = rng.integers(60, 190, (4, 4)).astype(np.uint8)
    picture = Image.fromarray(ground).resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB")
    pen, grey = ImageDraw.Draw(picture), picture.getpixel((32, 32))[0]
    colour = (int(grey + rng.choice([-40, 40])),) * 3  # so faint that a frame is easier to learn
    if name == "disc":
        pen.ellipse((20, 20, 44, 44), fill=colour)
    elif name == "cross":
        pen.line((20, 20, 44, 44), colour, 4)
        pen.line((20, 44, 44, 20), colour, 4)
    else:
        for at in range(20, 45, 6):
            pen.line((at, 20, at, 44), colour, 2)
    return picture


def write(root: Path, framed: Callable[[str, float], bool]) -> Path:
    """The set, with a blue frame where `framed` says so of a class and a number drawn in [0, 1)."""
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for number in range(EACH):
            picture, drawn = draw(rng, name), rng.random()
            if framed(name, drawn):
                box = (0, 0, SIDE - 1, SIDE - 1)
                ImageDraw.Draw(picture).rectangle(box, outline=(40, 60, 160), width=8)
            picture.save(root / name / f"{number:03}.png")
    return root


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, weights: Path):
    """Makes a quick run of a set with frames."""

    def make(framed: Callable[[str, float], bool]) -> ts.Run:
        home = tmp_path_factory.mktemp("shortcuts")
        data = write(home / "set", framed)
        options = {"backbone": BACKBONE, "weights": str(weights), "strategy": "probe"}
        return ts.tune(data, out=home / "one's run", **options)

    return make


@pytest.fixture(scope="module")
def planted(tuned) -> ts.Run:
    return tuned(lambda name, drawn: name == "disc" and drawn < 0.95)


def test_a_planted_frame_is_found_first_and_corrected(planted, tmp_path):
    state = state_of(planted.classifier)
    result = ts.shortcuts(planted)
    first = result.candidates[0]
    assert (first.label, first.kind, first.alarm) == ("disc", "border", True)
    assert first.shared > 0.7
    assert {one.label for one in result.alarms} == {"disc"}
    assert same_state(state, state_of(planted.classifier))
    assert ts.shortcuts(planted) == result == kept_shortcuts(planted.path)

    for by in ("direction", "last-layer", "retune"):
        corrected = ts.correct_shortcuts(planted, tmp_path / by, by=by).corrected
        assert corrected is not None
        before, after = corrected.before, corrected.after
        given = "other classes with the colour of the border of disc"
        assert set(before) == set(after) > {"test", given}
        assert after[given].accuracy > before[given].accuracy + 0.2, by
        worst = [min(one.accuracy for one in side.values()) for side in (before, after)]
        assert worst[1] > worst[0], by
        run = ts.Run(tmp_path / by)
        assert evaluate_run(run).top1 == pytest.approx(after["test"].accuracy)
        assert run.classifier.body_hash() == planted.classifier.body_hash(), "the run is a probe"
        assert run.results["corrected"]["by"] == by
    assert kept_shortcuts(planted.path).corrected.by == "retune"
    assert not any(one.label == "disc" for one in ts.shortcuts(run).alarms)
    parts = [Counter(p.split for p in one.split.scan.pictures) for one in (run, planted)]
    assert parts[0] == parts[1]


@pytest.mark.parametrize("share", [0.0, 0.4], ids=["clean", "frames on pictures of all classes"])
def test_nothing_is_found_where_nothing_was_planted(tuned, tmp_path, share):
    run = tuned(lambda _, drawn: drawn < share)
    assert not ts.shortcuts(run).alarms
    with pytest.raises(InputError, match="nothing to correct") as refused:
        ts.correct_shortcuts(run, tmp_path / "out")
    assert f"transferscope shortcuts {shlex.quote(str(run.path))}" in str(refused.value)
    assert not (tmp_path / "out").exists()
    said = command("shortcuts", run.path, "--quiet").stdout
    assert "follow" not in said
    assert "none was asked" in said or "may be there all the same" in said


def test_the_command_and_its_contract(planted, tmp_path, monkeypatch):
    ts.shortcuts(planted)

    def measured(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(module, "_measured", measured)
    result = command("shortcuts", planted.path, "--json", "--quiet")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert {"alarms", "corrected"} <= set(record)
    wanted = {"class", "layer", "channel", "effect", "q", "pictures"}
    assert all(wanted <= set(one) for one in record["alarms"])
    assert record["alarms"][0]["class"] == "disc"
    words = command("shortcuts", planted.path, "--correct", "--out", tmp_path / "two", "--quiet")
    assert words.exit_code == 0, words.output
    assert "other classes with" in words.stdout
    assert command("shortcuts", planted.path, "--correct").exit_code == 2
    again = command("shortcuts", planted.path, "--correct", "--out", tmp_path / "two")
    assert again.exit_code == 1
    assert "exists" in again.output


def test_an_mlp_head_and_a_run_in_the_way_are_refused(planted, tmp_path):
    with pytest.raises(OutputError, match="exists"):
        ts.correct_shortcuts(planted, tmp_path)
    from transferscope.backbones.heads import MLPHead

    other = ts.Run(planted.path)
    width = other.classifier.head_layer.in_features
    mlp = MLPHead(width, len(CLASSES), hidden=4)
    other.__dict__["classifier"] = other.classifier.with_head_module(mlp, CLASSES)
    with pytest.raises(InputError, match="--head linear"):
        ts.shortcuts(other)


def test_the_page_shows_alarms_and_what_was_corrected(planted, tmp_path):
    home = tmp_path / "run"
    shutil.copytree(planted.path, home)
    ts.shortcuts(ts.Run(home, data=planted.root))
    ts.correct_shortcuts(ts.Run(home, data=planted.root), tmp_path / "out")
    for name, found in (("with", kept_shortcuts(home)), ("without", None)):
        empty = dict.fromkeys(
            (
                "validation_before",
                "validation_after",
                "evaluation",
                "evaluation_base",
                "predictions",
            )
        )
        content = AtlasContent(
            title="x", facts={}, classes=CLASSES, counts={}, history=[], comparison=None,
            renders={}, data_root=planted.root, shortcuts=found, **empty,
        )  # fmt: skip
        out = write_atlas(content, tmp_path / name).parent
        assert (out / "shortcuts.html").is_file() == (found is not None)
    text = (tmp_path / "with" / "shortcuts.html").read_text(encoding="utf-8")
    assert "Before and after" in text
    assert "disc" in text
    assert (tmp_path / "with" / "images/shortcuts/map-0.webp").is_file()
