"""`explain`: maps before and after transfer, what is kept of them, verdicts, channels, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import transferscope as ts
from conftest import BACKBONE, command, same_state, state_of, tiny_classifier
from transferscope.errors import DataError, InputError, OutputError, RunError, UnknownName
from transferscope.explain.attribution import METHODS
from transferscope.explain.checks import LEAST, Check, MethodVerdict
from transferscope.explain.records import Explanation, MapChange, NetworkMap, Verdicts, inside_share
from transferscope.explain.similarity import rank_correlation
from transferscope.files import read_json, read_tensors, write_json
from transferscope.report.figures.explanations import coloured, overlaid, shared_heat
from transferscope.workflows import explain as explaining
from transferscope.workflows.explain import MapQuestion, explain
from transferscope.workflows.explained_answers import overlays_of
from transferscope.workflows.explained_networks import with_random_head
from transferscope.workflows.explanations import HOME, kept_explanations
from transferscope.workflows.predict import predict
from transferscope.workflows.run import Run
from transferscope.workflows.unit_explanations import UnitQuestion, channel_of
from transferscope.workflows.verdicts import VERDICTS, check_run, methods_to_draw, network_hash

pytestmark = pytest.mark.usefixtures("undrawn")

CLASSES = {"猫 <b>": 26, "b & c": 24, "d": 24}


@pytest.fixture(scope="module")
def photos(tmp_path_factory, make_folder) -> Path:
    return make_folder(tmp_path_factory.mktemp("seen") / "photos", CLASSES)


@pytest.fixture(scope="module")
def probe(photos, weights, tmp_path_factory) -> Run:
    """A run that tuned nothing but the head."""
    out = tmp_path_factory.mktemp("probes") / "probe"
    return ts.tune(photos, out=out, backbone=BACKBONE, weights=weights, strategy="probe")


@pytest.fixture(scope="module")
def run(probe, tmp_path_factory) -> Run:
    """The same run with its weights moved a little, as tuning moves them."""
    out = tmp_path_factory.mktemp("runs") / "run"
    shutil.copytree(probe.path, out)
    moved = Run(probe.path).classifier
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in moved.network.named_parameters():
            if weight.ndim > 1 and name.startswith("blocks"):
                noise = torch.randn(weight.shape, generator=generator)
                weight += 0.1 * weight.std() * noise
    moved.save(out / "classifier.safetensors")
    return Run(out, data=probe.root)


@pytest.fixture
def own(run, tmp_path) -> Run:
    """The run without the explanations of other tests."""
    shutil.copytree(run.path, tmp_path / "run", ignore=shutil.ignore_patterns(HOME))
    return Run(tmp_path / "run", data=run.root)


@pytest.fixture(scope="module")
def photo(photos) -> str:
    return str(sorted((photos / "d").iterdir())[0])


@pytest.fixture(scope="module")
def done(run, photo):
    return explain(run, [photo], question=MapQuestion(("grad_cam", "gradient"), "d"))


def verdicts_of(run: Run, **passed: bool | None) -> Verdicts:
    """As if the checks had found so."""
    methods = tuple(
        MethodVerdict(
            *(name, outcome, "said", 24),
            (Check("mosaic", 0.2, (0.1, 0.3), 0.25, 24, outcome, "it points nowhere"),),
        )
        for name, outcome in passed.items()
    )
    return Verdicts(network_hash(run.classifier), 24, "made up", 0, methods)


def keep(run: Run, verdicts: Verdicts) -> None:
    write_json(run.path / HOME / VERDICTS, verdicts.to_dict())


# ---------------------------------------------------------------------------- before and after


def test_maps_are_those_of_attribute_in_base_with_its_probe_and_in_tuned(run, photo, done):
    first, second = done.explanations
    assert [one.method for one in done.explanations] == ["grad_cam", "gradient"]
    assert [one.network for one in first.networks] == ["base", "tuned"]
    for told in (first, second):
        maps, _ = read_tensors(done.folder / told.maps)
        for name, classifier in (("base", run.base), ("tuned", run.classifier)):
            slow = ts.attribute(classifier, photo, method=told.method, target="d")
            assert np.allclose(maps[name].numpy(), slow.map, rtol=1e-3, atol=1e-6)
            of = next(one for one in told.networks if one.network == name)
            batch = classifier.input.load(photo)[None] / 255
            place = classifier.classes.index("d")
            with torch.no_grad():
                assert of.logit == pytest.approx(float(classifier(batch)[0, place]), abs=1e-4)
                chance = classifier.probabilities(batch)[0, place]
            assert of.probability == pytest.approx(float(chance), abs=1e-5)
        wanted = rank_correlation(maps["base"].numpy(), maps["tuned"].numpy())
        assert told.change is not None
        assert told.change.rank_correlation == pytest.approx(wanted)


def test_a_network_against_itself_has_the_same_map_and_says_that_it_is_identical(
    run, photo, tmp_path
):
    done = explain(run, [photo], out=tmp_path / "out", against=run.path)
    (told,) = done.explanations
    assert told.identical
    assert told.change == MapChange(pytest.approx(1.0), pytest.approx(1.0))
    assert [one.network for one in told.networks] == ["run", "run (second)"]


def test_an_untuned_run_says_that_its_backbone_is_bit_identical(probe, photo):
    (told,) = explain(probe, [photo]).explanations
    assert told.identical
    shown = command("explain", probe.path, photo, "--quiet")
    assert "bit-identical" in shown.stdout


def test_a_tuned_run_is_not_called_identical(done):
    assert not done.explanations[0].identical


def test_a_random_head_is_named_a_control_and_is_not_what_is_compared(run, photo, tmp_path):
    plain, with_control = (
        explain(run, [photo], out=tmp_path / str(flag), random_head=flag).explanations[0]
        for flag in (False, True)
    )
    names = [one.network for one in with_control.networks]
    assert names == ["random head (control)", "base", "tuned"]
    assert with_control.change == plain.change
    base = run.base
    head = with_random_head(base, 0)
    assert base.body_hash() == head.body_hash()
    assert not torch.equal(base.head_layer.weight, head.head_layer.weight)


@pytest.mark.drawn
def test_a_control_has_a_scale_of_its_own(run, photo, tmp_path, monkeypatch):
    """Its logits may be a hundred times theirs: on one scale both networks would be blank."""
    drawn, real = [], explaining.write_explanation_figure
    monkeypatch.setattr(explaining, "write_explanation_figure", lambda *given: drawn.append(given))
    explain(run, [photo], out=tmp_path / "out", random_head=True)
    ((_, told, rows),) = drawn
    control, *others = rows
    assert (control.control, [one.control for one in others]) == (True, [False, False])
    steep = np.arange(control.map.size, dtype=np.float32).reshape(control.map.shape)
    loud = dataclasses.replace(control, map=steep, support=steep)
    seen = []
    for number, first in enumerate((control, loud)):
        real(tmp_path / f"{number}.png", told, [first, *others])
        with Image.open(tmp_path / f"{number}.png") as picture:
            seen.append(np.asarray(picture.convert("RGB"), dtype=int))
    differing = np.flatnonzero(np.abs(seen[0] - seen[1]).sum((1, 2)))
    assert differing.max() < len(seen[0]) / 2, "the control's row alone is another"


def test_classes_by_index_contrast_and_versus(run, photo, tmp_path):
    by_index = explain(run, [photo], out=tmp_path / "i", question=MapQuestion((), "1"))
    assert by_index.explanations[0].target == run.classifier.classes[1]
    other = explain(run, [photo], out=tmp_path / "v", question=MapQuestion((), "d", "b & c"))
    (told,) = other.explanations
    assert (told.target, told.against) == ("d", "b & c")
    first, second = (run.classifier.classes.index(name) for name in ("d", "b & c"))
    with torch.no_grad():
        logits = run.classifier(run.classifier.input.load(photo)[None] / 255)[0]
    assert told.networks[1].logit == pytest.approx(float(logits[first] - logits[second]), abs=1e-4)


def test_contrast_is_of_the_label_against_the_answer(run, photos, tmp_path):
    wrong = right = None
    for file in sorted(photos.rglob("*.png")):
        (answer,) = predict(run.classifier, [file], top=1)
        if answer.top[0].name == file.parent.name:
            right = right or file
        else:
            wrong = wrong or (file, answer.top[0].name)
    assert right is not None
    given = [right] if wrong is None else [right, wrong[0]]
    if wrong is None:
        with pytest.raises(DataError, match="difference is 0"):
            explain(run, given, out=tmp_path / "c", question=MapQuestion((), "contrast"))
        return
    done = explain(run, given, out=tmp_path / "c", question=MapQuestion((), "contrast"))
    assert [path for path, _ in done.failures] == [str(right)]
    (told,) = done.explanations
    assert (told.target, told.against) == (wrong[0].parent.name, wrong[1])


def test_share_inside_the_object(run, photo, tmp_path):
    with Image.open(photo) as picture:
        size = picture.size
    white = np.zeros(size[::-1], np.uint8)
    white[:, size[0] // 2 :] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    question = MapQuestion(("gradient",), "d")
    done = explain(
        run, [photo], out=tmp_path / "o", question=question, masks=[tmp_path / "mask.png"]
    )
    (told,) = done.explanations
    maps, _ = read_tensors(done.folder / told.maps)
    support = np.abs(maps["tuned"].numpy())
    half = support[:, support.shape[1] // 2 :].sum() / support.sum()
    assert told.networks[1].inside == pytest.approx(float(half), abs=0.03)
    assert told.object_share == pytest.approx(0.5, abs=0.02)
    Image.new("L", (9, 9), 255).save(tmp_path / "small.png")
    with pytest.raises(DataError, match="9 x 9"):
        explain(run, [photo], out=tmp_path / "p", masks=[tmp_path / "small.png"])
    assert inside_share(np.zeros((4, 4), np.float32), np.ones((4, 4), bool)) is None


# ---------------------------------------------------------------------------- what is kept


def test_a_run_keeps_its_explanations_and_reads_them_again(own, photo):
    first = explain(own, [photo], question=MapQuestion(("grad_cam",), "d"))
    assert first.folder == own.path / HOME
    explain(own, [photo], question=MapQuestion(("grad_cam",), "b & c"))
    kept = kept_explanations(own)
    assert {one.maps[0].target for one in kept} == {"d", "b & c"}
    assert all((one.folder / one.maps[0].figure).is_file() for one in kept)
    told = next(one.maps[0] for one in kept if one.maps[0].target == "d")
    assert Path(first.explanations[0].figure).name == told.figure
    assert dataclasses.replace(
        first.explanations[0], figure=told.figure, maps=told.maps
    ) == Explanation.from_dict(json.loads(json.dumps(told.to_dict())))
    explain(own, [photo], question=MapQuestion(("gradient",), "d"))
    assert len(kept_explanations(own)) == 2, "the same question is answered anew in its place"


def test_the_networks_are_left_alone(run, photo, tmp_path):
    classifier = tiny_classifier()
    classifier.train()
    for parameter in classifier.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = state_of(classifier)
    explain(classifier, [photo], out=tmp_path / "out", units=UnitQuestion(2, "stages.1"))
    assert same_state(before, state_of(classifier))
    with pytest.raises(UnknownName):
        explain(classifier, [photo], out=tmp_path / "b", units=UnitQuestion(2, "stages.9"))
    assert same_state(before, state_of(classifier))


def test_an_interruption_keeps_what_is_finished(run, photos, tmp_path, monkeypatch):
    files = sorted((photos / "d").iterdir())[:3]
    real, drawn = explaining.write_explanation_figure, []

    def stop(*given):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(given)
        real(*given)

    monkeypatch.setattr(explaining, "write_explanation_figure", stop)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        explain(run, files, out=out)
    folders = [path for path in out.iterdir() if path.is_dir()]
    assert sorted(path.name[:3] for path in folders) == ["000", "001"]
    assert all((path / "explanation.json").is_file() for path in folders)


# ---------------------------------------------------------------------------- verdicts


def test_verdicts_choose_the_method_and_mark_one_that_failed(own, photo):
    keep(own, verdicts_of(own, grad_cam=False, layer_cam=None, occlusion=True, gradient=False))
    (told,) = explain(own, [photo]).explanations
    assert told.method == "occlusion"
    assert told.passed
    (told,) = explain(own, [photo], question=MapQuestion(("grad_cam",))).explanations
    assert told.passed is False
    assert told.verdict == "failed the check: it points nowhere"
    keep(own, verdicts_of(own, grad_cam=False, gradient=False))
    with pytest.raises(InputError, match="no method passed"):
        explain(own, [photo])
    with pytest.raises(InputError, match="no method passed"):
        overlays_of(own.path, own.classifier, predict(own.classifier, [photo]))


def test_an_open_verdict_comes_after_one_that_passed_and_before_none(own):
    assert methods_to_draw((), verdicts_of(own, grad_cam=None, gradient=True)) == ("gradient",)
    assert methods_to_draw((), verdicts_of(own, grad_cam=False, gradient=None)) == ("gradient",)
    assert methods_to_draw((), None) == ("grad_cam",)
    assert methods_to_draw(("gradient",), verdicts_of(own, gradient=False)) == ("gradient",)


def test_verdicts_of_another_network_are_not_this_ones(own, photo):
    other = dataclasses.replace(verdicts_of(own, grad_cam=False), network="another")
    keep(own, other)
    (told,) = explain(own, [photo]).explanations
    assert told.method == "grad_cam"
    assert told.passed is None
    assert "Not checked" in told.verdict


def test_check_uses_held_out_pictures_that_are_recognised(own, monkeypatch):
    heard = {}

    def fake(classifier, batch, labels, **options):
        heard.update(batch=batch, labels=labels, **options)
        return verdicts_of(own, grad_cam=True).methods

    monkeypatch.setattr("transferscope.workflows.verdicts.check_methods", fake)
    found = check_run(own, own.classifier)
    answers = [own.classifier.classes[i] for i in own.classifier(heard["batch"]).argmax(1).tolist()]
    assert answers == list(heard["labels"])
    held = {
        own.classifier.input.load(own.root / one.path).float().sum().item() / 255
        for split in ("validation", "test")
        for one in own.split.part(split)
    }
    for picture in heard["batch"]:
        assert min(abs(float(picture.sum()) - one) for one in held) < 1e-2
    assert "validation" in found.source
    assert check_run(own, own.classifier).to_dict() == found.to_dict()
    check_run(own, own.classifier, methods=("grad_cam",), most=LEAST)
    assert len(heard["batch"]) == LEAST < len(held)
    assert heard["methods"] == ("grad_cam",)


@pytest.mark.slow
def test_check_prints_keeps_and_decides(own):
    told = command("explain", own.path, "--check", "--quiet")
    assert told.exit_code == 0, told.stderr
    for name in METHODS:
        assert name in told.stdout
    kept = Verdicts.from_dict(read_json(own.path / HOME / VERDICTS))
    assert {one.method for one in kept.methods} == set(METHODS)
    refused = {one.method for one in kept.methods if one.refused}
    assert "guided_backprop" in refused or kept.of("guided_backprop").checks


# ---------------------------------------------------------------------------- channels


def test_units_and_accentuation_of_base_and_tuned(run, photo, tmp_path):
    question = UnitQuestion(3, "blocks.1", ("blocks.1", 2))
    done = explain(run, [photo], out=tmp_path / "out", units=question)
    (found,) = done.units
    units, bright = found["units"], found["accentuated"]
    channels = [[one["channel"] for one in units["effects"][name]] for name in ("base", "tuned")]
    assert channels[0] == channels[1]
    assert len(channels[0]) == 3
    strengths = [abs(one["estimate"]) for one in units["effects"]["tuned"]]
    assert strengths == sorted(strengths, reverse=True)
    for name in ("base", "tuned"):
        assert abs(bright["after"][name]) > abs(bright["before"][name])
    folder = done.folder / found["folder"]
    assert {units["figure"], bright["figure"]} <= {path.name for path in folder.iterdir()}
    assert channel_of("blocks.1:12") == ("blocks.1", 12)
    with pytest.raises(InputError, match="LAYER:CHANNEL"):
        channel_of("blocks.1")
    with pytest.raises(InputError, match="no channel 999"):
        explain(run, [photo], out=tmp_path / "b", units=UnitQuestion(0, None, ("blocks.1", 999)))


# ---------------------------------------------------------------------------- what is refused


def test_what_cannot_be_is_refused_in_words(run, photo, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UnknownName, match="did you mean 'grad_cam'"):
        explain(run, [photo], out=out, question=MapQuestion(("gradcam",)))
    with pytest.raises(UnknownName, match="did you mean 'b & c'"):
        explain(run, [photo], out=out, question=MapQuestion((), "b & d"))
    with pytest.raises(UnknownName, match="class '7'"):
        explain(run, [photo], out=out, question=MapQuestion((), "7"))
    with pytest.raises(InputError, match="give one of them"):
        explain(run, [photo], out=out, question=MapQuestion((), "contrast", "d"))
    with pytest.raises(InputError, match="no picture was given"):
        explain(run, [], out=out)
    with pytest.raises(InputError, match="2 masks were given for 1 pictures"):
        explain(run, [photo], out=out, masks=[photo, photo])
    with pytest.raises(InputError, match="--out is missing"):
        explain(tiny_classifier(), [photo])
    with pytest.raises(InputError, match="--random-head"):
        explain(tiny_classifier(), [photo], out=out, random_head=True)
    with pytest.raises(RunError):
        explain(run, [photo], out=out, against=tmp_path / "nothing")
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(OutputError):
        explain(run, [photo], out=out)
    assert (out / "mine.txt").read_text() == "mine"


def test_a_method_that_the_network_does_not_suit_is_refused_by_name(photo, tmp_path):
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 3))
    classifier = ts.Classifier(flat.eval(), tiny_classifier().input, ["a", "b", "c"])
    with pytest.raises(InputError, match="layer"):
        explain(classifier, [photo], out=tmp_path / "out")
    with pytest.raises(InputError, match="ReLU"):
        explain(classifier, [photo], out=tmp_path / "o", question=MapQuestion(("guided_backprop",)))
    gradient = MapQuestion(("gradient",))
    assert explain(classifier, [photo], out=tmp_path / "p", question=gradient).explanations


def test_a_wrong_picture_gets_its_line_and_the_others_are_explained(run, photo, tmp_path):
    (tmp_path / "notes.jpg").write_text("no picture")
    told = command(
        "explain", run.path, tmp_path / "notes.jpg", photo, "--out", tmp_path / "out", "--json"
    )
    assert told.exit_code == 0
    found = json.loads(told.stdout)
    assert [one["path"] for one in found["failures"]] == [str(tmp_path / "notes.jpg")]
    assert len(found["explanations"]) == 1
    alone = command("explain", run.path, tmp_path / "notes.jpg", "--out", tmp_path / "b")
    assert alone.exit_code == 1
    assert "notes.jpg" in alone.stderr
    assert command("explain", run.path, photo, "--class", "nothing").exit_code == 2


# ---------------------------------------------------------------------------- predict


def test_predict_explains_its_figure_and_its_answers_stay(run, photo, tmp_path):
    asked = ("predict", run.path, photo, "--json", "--quiet")
    plain = command(*asked)
    told = command(*asked, "--figure", tmp_path / "f.png", "--explain")
    assert told.stdout == plain.stdout
    assert (tmp_path / "f.png").is_file()
    assert command(*asked, "--explain").exit_code == 2
    shown, words = overlays_of(run.path, run.classifier, predict(run.classifier, [photo]))
    assert shown[photo].shape == (*run.classifier.input.size, 3)
    assert "Grad-CAM" in words


# ---------------------------------------------------------------------------- colours


def test_colours_are_centred_on_zero_and_shared():
    values = np.array([[-2.0, 0.0, 2.0]], np.float32)
    shown = coloured(values, -2, 2, "RdBu_r").astype(int)
    assert shown[0, 0, 2] > shown[0, 0, 0]
    assert shown[0, 2, 0] > shown[0, 2, 2]
    assert np.ptp(shown[0, 1]) < 8
    weak, strong = shared_heat([np.full((4, 4), 1.0), np.full((4, 4), 4.0)], grainy=False)
    assert float(strong.max()) == 1
    assert float(weak.max()) == 0.25


def test_an_overlay_keeps_the_colours_only_where_it_is_hot():
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[..., 0] = 200
    heat = np.zeros((8, 8), np.float32)
    heat[:, 4:] = 1
    shown = overlaid(picture, heat).astype(int)
    assert (shown[:, 4:] == picture[:, 4:]).all()
    assert np.ptp(shown[:, :4], axis=2).max() <= 1


def test_a_record_of_figures_reads_itself():
    one = NetworkMap("tuned", 1.5, 0.5, "猫")
    assert NetworkMap.from_dict(json.loads(json.dumps(one.to_dict()))) == one
