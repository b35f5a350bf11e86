"""Advice: measurements of a set, where they place it, and what is recommended."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from conftest import BACKBONE, SPEC, command, same_state, state_of, tiny_classifier
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.weights import load_backbone
from transferscope.cli.advise import _advice_tables
from transferscope.data.scan import Picture, scan
from transferscope.data.split import make_split
from transferscope.errors import DataError, InputError, OutputError, UnknownName
from transferscope.evaluation.paired import paired_interval
from transferscope.features.extraction import cached_pictures
from transferscope.files import read_json, read_tensors, write_tensors
from transferscope.report.figures.advice import plane_figure, stage_figure
from transferscope.training import speed
from transferscope.training.advice import (
    LARGE,
    LESSON,
    SIMILAR,
    Advice,
    BackboneAdvice,
    StageProbe,
    advice_sentences,
    choose_backbone,
    choose_cut,
    probe_stages,
    quadrant,
    recommend,
)
from transferscope.training.similarity import (
    phase_scrambled,
    picture_similarity,
    source_similarity,
    statistics_distance,
    transfer_gain,
)
from transferscope.wording import duration
from transferscope.workflows.advise import Sample, advise, advise_classifier, place, stratified
from transferscope.workflows.reporter import SILENT


def hits(right: int, n: int = 400, *, seed: int = 0) -> np.ndarray:
    """bool (n,) with this many hits, at the same pictures for the same seed as far as they go."""
    order = np.random.default_rng(seed).permutation(n)
    found = np.zeros(n, bool)
    found[order[:right]] = True
    return found


def stages(*right: int, n: int = 400) -> tuple[StageProbe, ...]:
    names = [f"stage {index}" for index in range(len(right))]
    return probe_stages(names, [8] * len(right), [hits(r, n) for r in right])


# ---------------------------------------------------------------------------- intervals


def test_a_paired_interval_is_that_of_drawing_pictures_again():
    first, second = hits(300, seed=1), hits(280, seed=2)
    rng = np.random.default_rng(5)
    drawn = rng.integers(0, 400, (8000, 400))
    slow = np.quantile(first[drawn].mean(1) - second[drawn].mean(1), [0.025, 0.975])
    np.testing.assert_allclose(paired_interval(first, second), slow, atol=0.006)


def test_a_paired_interval_is_narrower_than_one_of_two_unrelated_sets():
    nested = paired_interval(hits(300), hits(290))
    unrelated = paired_interval(hits(300, seed=1), hits(290, seed=2))
    assert nested[0] > 0
    assert unrelated[0] < 0
    assert paired_interval(hits(300), hits(300)) == (0, 0)
    swapped = paired_interval(hits(290), hits(300))
    assert swapped[1] < 0


def test_stages_are_held_against_the_best_of_them():
    low, best, same = stages(100, 300, 299)
    assert best.behind_best == (0, 0)
    assert not low.as_good_as_best
    assert same.as_good_as_best
    assert low.interval[0] < low.top1 == 0.25 < low.interval[1]


# ---------------------------------------------------------------------------- similarity


def test_the_gain_is_the_share_of_the_way_that_is_left():
    assert transfer_gain(0.8, 0.2) == pytest.approx(0.75)
    assert transfer_gain(0.2, 0.8) == 0
    assert transfer_gain(1.0, 0.3) == 1
    assert transfer_gain(1.0, 1.0) == 0


@pytest.mark.parametrize("at", [(0.0, 1.0, 0.0, 1.0), (0.5, 2.0, -1.0, 0.3), (0.0, 0.01, 3.0, 1.0)])
def test_the_distance_of_statistics_is_hellingers_integrated(at):
    mean, variance, source_mean, source_variance = at
    x = np.linspace(-20, 20, 400_001)

    def density(middle: float, spread: float) -> np.ndarray:
        return np.exp(-((x - middle) ** 2) / (2 * spread)) / np.sqrt(2 * np.pi * spread)

    overlap = np.sqrt(density(mean, variance) * density(source_mean, source_variance))
    wanted = 1 - overlap.sum() * (x[1] - x[0])
    got = statistics_distance(*(np.array([value]) for value in at))
    assert got == pytest.approx(wanted, abs=1e-6)


def test_pictures_are_placed_between_the_source_and_their_scrambled_selves():
    assert picture_similarity([0.0, 0.0], [0.1, 0.3]) == 1
    assert picture_similarity([0.1, 0.1], [0.1, 0.3]) == pytest.approx(0.5)
    assert picture_similarity([0.5, 0.5], [0.1, 0.3]) == 0
    assert picture_similarity([0.0], [0.0]) == 1


def test_scrambling_keeps_the_spectrum_and_no_shape():
    pictures = 0.5 + 0.02 * torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    pictures[:, :, :8] += 0.05
    scrambled = phase_scrambled(pictures, torch.Generator().manual_seed(0))
    spectra = [torch.fft.rfft2(p).abs() for p in (pictures, scrambled)]
    torch.testing.assert_close(*spectra, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(pictures.mean((2, 3)), scrambled.mean((2, 3)))
    assert (pictures - scrambled).abs().max() > 0.03
    again = phase_scrambled(pictures, torch.Generator().manual_seed(0))
    assert torch.equal(scrambled, again)


def test_scrambling_keeps_a_dark_picture_dark():
    dark = torch.full((1, 3, 9, 9), 0.1)
    torch.testing.assert_close(phase_scrambled(dark, torch.Generator().manual_seed(3)), dark)


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))


def test_pictures_that_the_norms_remember_are_similar_and_others_are_not(tmp_path, make_folder):
    files = files_of(make_folder(tmp_path / "own", {"a": 12, "b": 12}))
    other = files_of(make_folder(tmp_path / "other", {"x": 1, "y": 1, "z": 12}))
    classifier = tiny_classifier()
    pictures = torch.stack([SPEC.load(file) for file in files]).float() / 255
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
            module.train()
    with torch.no_grad():
        for _ in range(4):  # a norm's statistics settle once those before it have
            for module in classifier.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.reset_running_stats()
            classifier(pictures)
    classifier.eval()
    before = state_of(classifier)
    own = source_similarity(classifier, files, precision="fp32")
    far = source_similarity(classifier, other[2:], precision="fp32")
    assert same_state(before, state_of(classifier))
    assert own is not None
    assert far is not None
    assert own > 0.9
    assert far < own - 0.2


def test_a_network_without_norms_cannot_be_asked(tmp_path, make_folder):
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    files = files_of(make_folder(tmp_path, {"a": 2}))
    assert source_similarity(Classifier(network, SPEC, ["a", "b"]), files) is None


# ---------------------------------------------------------------------------- recommendation


def test_borders_of_the_plane():
    assert quadrant(SIMILAR, LARGE) == (True, True)
    assert quadrant(SIMILAR - 0.01, LARGE - 1) == (False, False)
    assert set(LESSON) == {(a, b) for a in (True, False) for b in (True, False)}


def test_the_cut_follows_the_quadrant_where_every_stage_adds():
    rising = stages(40, 80, 120, 160, 200, 240, 280, 320, 360)
    cuts = {
        (similar, large): choose_cut(rising, similar=similar, large=large).boundary
        for similar in (True, False)
        for large in (True, False)
    }
    assert cuts == {
        (True, False): "stage 5",
        (True, True): "stage 4",
        (False, False): "stage 4",
        (False, True): None,
    }


def test_the_cut_moves_to_where_the_probes_stop_rising():
    early = stages(40, 80, 350, 340, 330, 320, 310, 300, 250)
    cut = choose_cut(early, similar=True, large=False)
    assert cut.boundary == "stage 2"
    assert "87.5%" in cut.reason
    late = stages(40, 80, 120, 160, 200, 240, 300, 350, 350)
    assert choose_cut(late, similar=True, large=False).boundary == "stage 5"


def test_a_fall_behind_the_best_stage_is_said():
    falling = stages(40, 80, 120, 160, 200, 240, 390, 350, 300)
    assert "fall to 75.0%" in choose_cut(falling, similar=True, large=False).reason
    rising = stages(40, 80, 120, 160, 200, 240, 290, 299, 300)
    assert "from 60.0% at stage 5" in choose_cut(rising, similar=True, large=False).reason


def test_a_network_of_one_stage_is_tuned_whole():
    assert choose_cut(stages(300), similar=True, large=False).boundary is None


def test_strategies():
    rising = stages(100, 200, 300)
    calm = {"similar": True, "large": False, "per_class": 50.0}
    assert recommend(rising, **calm)[0] == "partial"
    assert recommend(rising, similar=False, large=True, per_class=500.0)[0] == "full"
    strategy, cut = recommend(rising, similar=True, large=False, per_class=2.0)
    assert strategy == "probe"
    assert "2.0 training pictures" in cut.reason
    solved = stages(2000, 3000, 4000, n=4000)
    strategy, cut = recommend(solved, **calm)
    assert strategy == "probe"
    assert "100.0%" in cut.reason


def test_the_faster_of_backbones_that_are_equally_good_is_chosen():
    found = [hits(300), hits(301), hits(200)]
    name, reason = choose_backbone(["small", "large", "bad"], found, [5.0, 9.0, 1.0])
    assert name == "small"
    assert "large" in reason
    assert choose_backbone(["bad", "good"], [hits(200), hits(300)], [1.0, 9.0])[0] == "good"
    assert choose_backbone(["alone"], [hits(1)], [1.0]) == ("alone", "")
    with pytest.raises(InputError, match="at least one"):
        choose_backbone([], [], [])


def test_durations_are_said_in_the_unit_that_fits():
    assert [duration(s) for s in (3.2, 89, 120, 7200)] == ["3 s", "89 s", "2 min", "2.0 h"]


# ---------------------------------------------------------------------------- the sample


def pictures_of(*counts: int) -> list[Picture]:
    return [
        Picture(f"{label}/{number}", label, "train", None, f"{label}-{number}")
        for label, count in enumerate(counts)
        for number in range(count)
    ]


def test_a_large_set_is_sampled_class_by_class():
    whole = pictures_of(800, 199, 1)
    kept = stratified(whole, 100, 0)
    counts = np.bincount([picture.label for picture in kept])
    assert counts.tolist() == [80, 20, 1]
    assert kept == stratified(whole, 100, 0)
    assert kept != stratified(whole, 100, 1)
    assert stratified(whole, 1000, 0) == whole


# ---------------------------------------------------------------------------- a whole advice


@pytest.fixture(scope="module", autouse=True)
def short_timing():
    """One timed batch is enough where no time is looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "TIMED", 2)
        patch.setattr(speed, "BATCH", 4)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_folder) -> Path:
    return make_folder(
        tmp_path_factory.mktemp("advice") / "set", {"甲": 24, "b": 24, "c <&>": 12}, seed=41
    )


@pytest.fixture(scope="module")
def advice(folder: Path, weights: Path) -> Advice:
    return advise(folder, backbones=[BACKBONE], weights=weights, out=folder.parent / "out")


def test_advice_says_what_was_measured(advice: Advice):
    one = advice.best
    assert advice.chosen == BACKBONE
    assert advice.classes == 3
    assert advice.pictures == advice.measured == 42
    assert next(stage.stage for stage in one.stages) == "conv_stem"
    assert one.probe is one.stages[-1]
    assert one.chance == pytest.approx(17 / 42)
    assert one.similarity == pytest.approx((one.gain + one.pictures) / 2)
    for stage in (*one.stages, one.control):
        assert stage.interval[0] <= stage.top1 <= stage.interval[1]
    assert set(one.seconds) == {"probe", "partial", "full"}
    assert all(value > 0 for value in one.seconds.values())
    assert one.seconds["probe"] < one.seconds["partial"]
    assert one.milliseconds > 0
    assert (one.boundary is not None) == (one.strategy == "partial")


def test_advice_as_json(advice: Advice, folder: Path):
    found = json.loads(json.dumps(advice.to_dict(), allow_nan=False))
    assert {"backbone", "strategy", "boundary", "reason", "seconds", "quadrant"} - set(found) == {
        "quadrant"
    }
    assert found["backbones"][0]["stages"][-1]["top1"] == advice.best.probe.top1
    assert found["lesson"] == LESSON[advice.quadrant]
    assert read_json(folder.parent / "out" / "advice.json") == found


def test_only_training_pictures_are_read(advice: Advice, folder: Path, weights: Path):
    split = make_split(scan(folder))
    read = cached_pictures(load_backbone(BACKBONE, weights=weights))
    train = {picture.sha256 for picture in split.part("train")}
    held = {p.sha256 for name in ("validation", "test") for p in split.part(name)}
    assert train <= read
    assert not held & read


def test_advice_is_told_in_sentences(advice: Advice):
    whole = " ".join(advice_sentences(advice))
    assert f"Recommended: {advice.best.strategy}" in whole
    assert "14 training pictures a class" in whole
    assert "predicted" in whole
    without = replace(advice, backbones=(replace(advice.best, pictures=None),))
    assert "no BatchNorm" in " ".join(advice_sentences(without))
    part = replace(advice, pictures=9000)
    assert "Measured on 42" in " ".join(advice_sentences(part))


def test_the_control_is_called_so_and_the_lesson_by_its_name(
    advice: Advice, capsys: pytest.CaptureFixture[str]
):
    one = advice.best
    equal = replace(one.control, top1=1.0, behind_best=(0.0, 0.0))
    assert equal.as_good_as_best
    _advice_tables(replace(advice, backbones=(replace(one, control=equal),)))
    rows = [line for line in capsys.readouterr().out.splitlines() if line.split()]
    (row,) = [line for line in rows if line.startswith(equal.stage) and "control" in line]
    assert not row.rstrip().endswith("best")
    assert "The transfer-learning lesson of Stanford's CS231n advises: " in " ".join(
        advice_sentences(advice)
    )


def sample_of(folder: Path) -> Sample:
    return Sample.draw(make_split(scan(folder)), 0, "fp32", SILENT)


def test_a_network_is_left_as_it_was_and_so_is_the_generator(folder: Path, weights: Path):
    source = load_backbone(BACKBONE, weights=weights)
    before, state = state_of(source), torch.get_rng_state()
    sample = sample_of(folder)
    first = place(source, sample)
    advise_classifier(source, sample, first)
    assert same_state(before, state_of(source))
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(99)  # of which the control's random weights must not depend
    again = place(source, sample)
    assert first.stages == again.stages
    assert first.control == again.control
    assert first.similarity == again.similarity
    assert first.cut == again.cut


def test_a_class_of_one_picture_is_no_obstacle(tmp_path: Path, make_folder, weights: Path):
    make_folder(tmp_path / "set" / "train", {"a": 9, "b": 1, "c": 6})
    make_folder(tmp_path / "set" / "validation", {"a": 2, "b": 2, "c": 2}, seed=1)
    make_folder(tmp_path / "set" / "test", {"a": 2, "b": 2, "c": 2}, seed=2)
    found = advise(tmp_path / "set", backbones=[BACKBONE], weights=weights)
    assert found.pictures == 16
    assert found.best.probe.top1 < 1  # the one picture is held out of its own probe


def test_a_capped_sample_is_said(folder: Path, weights: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules["transferscope.workflows.advise"], "PROBED", 20)
    found = advise(folder, backbones=[BACKBONE], weights=weights)
    assert found.pictures == 42
    assert 19 <= found.measured <= 21
    assert advise(folder, backbones=[BACKBONE], weights=weights, pictures=9).measured in range(
        8, 11
    )


# ---------------------------------------------------------------------------- figures


def made_up(*names: str, pictures: float | None = 0.4) -> Advice:
    one = BackboneAdvice(
        backbone=names[0],
        parameters=4_000_000,
        milliseconds=9.0,
        stages=stages(100, 200, 300),
        control=stages(80)[0],
        chance=0.1,
        gain=0.7,
        pictures=pictures,
        similarity=0.55,
        strategy="partial",
        boundary="stage 1",
        reason="because",
        seconds={"probe": 1.0, "partial": 20.0, "full": 300.0},
    )
    return Advice(400, 4, 400, tuple(replace(one, backbone=name) for name in names), names[0])


@pytest.mark.parametrize("draw", [stage_figure, plane_figure])
@pytest.mark.parametrize("strategy", ["probe", "partial", "full"])
def test_figures_name_what_they_show(draw, strategy):
    advice = made_up("one", "a <b> & c")
    backbones = tuple(
        replace(one, strategy=strategy, boundary="stage 1" if strategy == "partial" else None)
        for one in advice.backbones
    )
    svg = draw(replace(advice, backbones=backbones))
    words = "".join(ElementTree.fromstring(svg).itertext())
    assert "one" in words
    assert "a <b> & c" in words
    assert svg == draw(replace(advice, backbones=backbones))


def test_the_plane_shows_one_measure_where_there_is_one():
    both, alone = plane_figure(made_up("net")), plane_figure(made_up("net", pictures=None))
    assert "statistics of the pictures" in both
    assert "statistics of the pictures" not in alone


def test_all_quadrants_are_named():
    words = "".join(ElementTree.fromstring(plane_figure(made_up("net"))).itertext())
    assert all(lesson in words for lesson in LESSON.values())


def test_figures_are_written(advice: Advice, folder: Path):
    names = {path.name for path in (folder.parent / "out").iterdir() if path.name[0] != "."}
    assert names == {"stages.svg", "plane.svg", "advice.json"}


# ---------------------------------------------------------------------------- refusals


def test_names_and_options_that_cannot_be_used(folder: Path, weights: Path, tmp_path: Path):
    with pytest.raises(UnknownName, match="efficientnet_lite0"):
        advise(folder, backbones=["efficientnet_lit0"])
    with pytest.raises(InputError, match="twice"):
        advise(folder, backbones=["efficientnet_lite0"] * 2)
    with pytest.raises(InputError, match="at least one"):
        advise(folder, backbones=[])
    with pytest.raises(InputError, match="one backbone"):
        advise(folder, backbones=["efficientnet_lite0", BACKBONE], weights=weights)
    with pytest.raises(InputError, match="inside the data folder"):
        advise(folder, out=folder / "out")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="not Transferscope's"):
        advise(folder, out=tmp_path)


def test_a_wrong_precision_or_budget_is_refused_before_any_work(folder: Path, monkeypatch):
    with pytest.raises(InputError, match="fp16"):
        advise(folder / "not even read", device="cpu", precision="fp16")
    monkeypatch.setenv("TRANSFERSCOPE_CACHE_BUDGET", "abc")
    with pytest.raises(InputError, match="TRANSFERSCOPE_CACHE_BUDGET is 'abc'"):
        advise(folder / "not even read")


def test_sets_that_cannot_be_trained_on(tmp_path: Path, make_folder, weights: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        advise(tmp_path / "empty", backbones=[BACKBONE], weights=weights)
    one = make_folder(tmp_path / "one", {"alone": 9})
    with pytest.raises(DataError, match="class"):
        advise(one, backbones=[BACKBONE], weights=weights)


def test_features_that_are_not_finite(folder: Path, weights: Path, tmp_path: Path):
    tensors, _ = read_tensors(weights)
    name = next(key for key in tensors if key.endswith("conv_stem.weight"))
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    write_tensors(tmp_path / "damaged.safetensors", tensors, {})
    with pytest.raises(DataError, match="not finite"):
        advise(folder, backbones=[BACKBONE], weights=tmp_path / "damaged.safetensors")


# ---------------------------------------------------------------------------- the command


def test_the_verb(folder: Path, weights: Path, advice: Advice):
    arguments = [
        *("advise", folder, "--backbone", BACKBONE),
        *("--weights", weights, "--quiet"),
    ]
    plain = command(*arguments)
    assert plain.exit_code == 0, plain.output
    assert "Recommended:" in plain.stdout
    assert "transferscope tune" in plain.stdout
    assert "random weights" in plain.stdout
    found = command(*arguments, "--json")
    printed = json.loads(found.stdout)
    assert printed["strategy"] == advice.best.strategy
    assert printed["boundary"] == advice.best.boundary
    wrong = command("advise", folder, "--backbone", "nothing_like_it")
    assert wrong.exit_code == 2


def test_grey_pictures_with_alpha_are_read_like_any_other(tmp_path: Path, weights: Path):
    draw = np.random.default_rng(0)
    for name, level in (("a", 60), ("b", 190)):
        (tmp_path / name).mkdir()
        for number in range(8):
            values = np.clip(draw.normal(level, 20, (40, 40)), 0, 255).astype(np.uint8)
            Image.fromarray(values).convert("LA").save(tmp_path / name / f"{number}.png")
    assert advise(tmp_path, backbones=[BACKBONE], weights=weights).classes == 2
