"""`--group lookalikes` and the warning before training, through whole verbs."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import transferscope as ts
from conftest import BACKBONE, Heard
from transferscope.data.findings import findings
from transferscope.errors import DataError, InputError
from transferscope.evaluation.metrics import Evaluation
from transferscope.evaluation.sentences import summary_sentences
from transferscope.files import read_csv
from transferscope.workflows.evaluate import evaluate_run
from transferscope.workflows.inspect import inspect
from transferscope.workflows.run import Run

pytestmark = pytest.mark.usefixtures("undrawn")

THINGS, VIEWS = 8, 4


def draw(folder: Path, seed: int, things: int, views: int) -> None:
    """Pictures of `things` different things, each seen `views` times in another light."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for thing in range(things):
        coarse = rng.uniform(30, 220, (6, 6, 3)).astype(np.uint8)
        picture = Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC)
        for view in range(views):
            pixels = np.asarray(picture, dtype=float) + 4 * view + rng.normal(0, 2, (64, 64, 3))
            light = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            light.save(folder / f"thing{thing:02d}-{view}.png")


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """Training pictures are views of few things, with a test part of other things."""
    root = tmp_path_factory.mktemp("films") / "set"
    for number, name in enumerate(("a", "b")):
        draw(root / "train" / name, number, THINGS, VIEWS)
        draw(root / "test" / name, 10 + number, 14, 1)
    return root


@pytest.fixture(scope="module")
def tuned(films, weights, tmp_path_factory):
    def make(name: str, **options) -> tuple[Run, Heard]:
        heard = Heard()
        out = tmp_path_factory.mktemp("runs") / name
        options = {"strategy": "probe", "backbone": BACKBONE, "weights": weights} | options
        return ts.tune(films, out=out, reporter=heard, **options), heard

    return make


@pytest.fixture(scope="module")
def together(tuned) -> tuple[Run, Heard]:
    return tuned("together", group="lookalikes")


@pytest.fixture(scope="module")
def plain(tuned) -> tuple[Run, Heard]:
    return tuned("plain")


def parts_of(run: Run) -> dict[str, set[str]]:
    """The parts that each training thing has pictures in."""
    parts = defaultdict(set)
    for row in read_csv(run.path / "split.csv"):
        if row["path"].startswith("train/"):
            parts[row["path"].rsplit("-", 1)[0]].add(row["split"])
    return parts


def test_views_of_one_thing_stay_in_one_part_and_the_given_test_is_left_alone(together):
    run, heard = together
    assert all(len(some) == 1 for some in parts_of(run).values())
    test = [row for row in read_csv(run.path / "split.csv") if row["split"] == "test"]
    assert {row["path"].split("/")[0] for row in test} == {"test"}
    assert {row["group"] for row in test} == {""}
    assert run.results["leakage"]["either"] == 0
    assert any(line.startswith("lookalikes kept together: 64 of 64") for line in heard.lines)
    assert not any("partly memory" in line for line in heard.lines)


def test_without_it_the_share_is_said_before_training(plain):
    run, heard = plain
    assert any(len(some) > 1 for some in parts_of(run).values())
    found = run.results["leakage"]
    assert found["either"] > 0.8 * found["n"]
    assert any("partly memory" in line and "--group lookalikes" in line for line in heard.lines)


def test_another_tuning_takes_the_grouped_split_and_no_other(together, plain, tuned):
    run, _ = together
    again, _ = tuned("again", group="lookalikes", split_from=str(run.path))
    assert (again.path / "split.csv").read_text() == (run.path / "split.csv").read_text()
    with pytest.raises(InputError, match="drawn without --group lookalikes"):
        tuned("refused", group="lookalikes", split_from=str(plain[0].path))


def test_the_gap_to_test_is_told_with_its_lookalikes(plain):
    """Labels are of things: those seen in training are known by heart, and the others are coins."""
    run, _ = plain
    result = evaluate_run(run)
    assert not result.gap.by_chance
    assert result.gap.lookalikes.validation > 0.8
    assert result.gap.lookalikes.evaluated < 0.1
    assert result.gap.familiarity.differs
    assert result.gap.familiarity.difference < 0
    words = " ".join(summary_sentences(result))
    assert "have a lookalike in training, of those of test" in words
    assert "lie farther from the training pictures" in words
    assert Evaluation.from_dict(result.to_dict()) == result
    again = evaluate_run(run, split="validation")
    assert again.gap is None, "validation is not compared with itself"


def test_inspect_and_advise_keep_them_together_too(films, weights):
    found = inspect(films, group="lookalikes")
    assert found.kept_together.pictures == THINGS * VIEWS * 2
    parts = defaultdict(set)
    for picture in found.scan.pictures:
        parts[picture.path.rsplit("-", 1)[0]].add(picture.split)
    assert all(len(some) == 1 for some in parts.values())
    assert found.leakage.either == 0
    heard = Heard()
    ts.advise(films, backbones=BACKBONE, weights=weights, group="lookalikes", reporter=heard)
    assert any(line.startswith("lookalikes kept together") for line in heard.lines)


def test_inspect_says_the_share_and_of_different_pictures_nothing(films, tmp_path):
    sentences = " ".join(one.sentence + one.remedy for one in findings(inspect(films)))
    assert "have a lookalike in training, by hash" in sentences
    assert "partly memory" in sentences
    for number, name in enumerate(("a", "b")):
        draw(tmp_path / "other" / name, number, 20, 1)
    other = inspect(tmp_path / "other", features=True)
    assert other.leakage.either == 0
    assert other.leakage.by_features is not None
    assert not any("lookalike" in one.sentence for one in findings(other))


def test_a_set_that_gives_every_part_is_refused(films, weights, tmp_path):
    root = tmp_path / "set"
    for number, part in enumerate(("train", "validation", "test")):
        for name in ("a", "b"):
            draw(root / part / name, number, 4, 1)
    with pytest.raises(DataError, match="no split to draw"):
        ts.tune(root, out=tmp_path / "r", backbone=BACKBONE, weights=weights, group="lookalikes")
    assert any("no split to draw" in one for one in inspect(root, group="lookalikes").problems)
