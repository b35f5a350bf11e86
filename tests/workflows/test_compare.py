"""`compare`: its controls and drawings are made once, and comparisons of several settings lie side by side."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from markupsafe import escape

import transferscope as ts
from conftest import BACKBONE, Heard, command, same_state, state_of
from transferscope.backbones.weights import load_backbone
from transferscope.comparison.change import LEARNED, MOVED
from transferscope.comparison.headline import sentences
from transferscope.comparison.records import Comparison
from transferscope.comparison.witnesses import WITNESSES
from transferscope.errors import DataError, InputError
from transferscope.features.exemplars import channel_responses
from transferscope.files import read_json
from transferscope.visualize.recipe import RenderRecipe
from transferscope.visualize.units import Sweep, WorkUnit
from transferscope.workflows.atlas import write_atlas
from transferscope.workflows.compare import compare
from transferscope.workflows.comparison_plan import plan_compare
from transferscope.workflows.comparisons import planned_comparison
from transferscope.workflows.controls import control_tails, load_tail
from transferscope.workflows.evaluate import evaluate_run
from transferscope.workflows.run import Run
from transferscope.workflows.run_progress import run_progress
from transferscope.workflows.shortlist_drawings import ENGINES, Shortlist

pytestmark = pytest.mark.usefixtures("undrawn")

FROZEN, TUNED = "blocks.0", "blocks.3"
LAYERS = (FROZEN, TUNED)
FEW = {"layers": LAYERS, "controls": 2, "draw": 3, "seeds": 2}


@pytest.fixture(scope="module")
def photos(tmp_path_factory, make_folder) -> Path:
    return make_folder(
        tmp_path_factory.mktemp("photos") / "set", {'<b>猫 & "狗"</b>': 10, "b": 10, "c": 10}
    )


@pytest.fixture(scope="module")
def run(photos, weights, tmp_path_factory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "run"
    options = {"strategy": "partial", "unfreeze": 4, "epochs": 2, "batch_size": 8}
    return ts.tune(photos, out=out, backbone=BACKBONE, weights=weights, **options)


SHORT = RenderRecipe(steps=4)


@contextmanager
def short_drawings(cache: Path) -> Iterator[None]:
    """A cache of its own, and drawings of few steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRANSFERSCOPE_CACHE", str(cache))
        patch.setattr(
            "transferscope.workflows.shortlist_drawings.make_recipe", lambda _steps: SHORT
        )
        yield


@pytest.fixture(scope="module")
def compared(run, tmp_path_factory) -> tuple[Path, Comparison]:
    """A folder with a compared run and the cache that its drawings lie in, for tests to copy."""
    home = tmp_path_factory.mktemp("compared")
    shutil.copytree(run.path, home / "copy")
    opened = Run(home / "copy")
    before = {name: state_of(getattr(opened, name)) for name in ("base", "classifier")}
    with short_drawings(home / "cache"):
        found = compare(opened, **FEW, retunings=1)
    for name, state in before.items():
        classifier = getattr(opened, name)
        assert same_state(state, state_of(classifier)), "networks are left as they were"
        assert not any(module._forward_hooks for module in classifier.modules())
        assert all(parameter.grad is None for parameter in classifier.parameters())
    return home, found


@pytest.fixture
def again(compared, tmp_path) -> Iterator[Run]:
    """A copy of the compared run with a copy of the cache."""
    shutil.copytree(compared[0], tmp_path, dirs_exist_ok=True)
    with short_drawings(tmp_path / "cache"):
        yield Run(tmp_path / "copy")


@pytest.fixture
def fresh(run, tmp_path) -> Iterator[Run]:
    """A copy of the run as it was tuned, with an empty cache."""
    shutil.copytree(run.path, tmp_path / "copy")
    with short_drawings(tmp_path / "cache"):
        yield Run(tmp_path / "copy")


def pictures(folder: Path) -> set[str]:
    return {file.name for file in folder.glob("*.safetensors")}


def written(run: Run) -> dict[Path, int]:
    """When each drawing and tail of a run was written."""
    files = [*(run.path / "sweep").rglob("*"), *(run.path / "controls").iterdir()]
    return {file: file.stat().st_mtime_ns for file in files if file.is_file()}


def test_every_channel_is_asked_and_what_is_made_is_kept(compared, again):
    found, fresh = compared[1], again
    frozen, tuned = found.layers
    assert (frozen.layer, frozen.identical, tuned.identical) == (FROZEN, True, False)
    assert (frozen.cka, fresh.results["boundary"]) == (1, "blocks.2")
    assert {row.layer for row in found.rows} == {TUNED}
    by_witness = {name: found.of_witness(name) for name in WITNESSES}
    assert {len(rows) for rows in by_witness.values()} == {tuned.channels}
    assert set(tuned.information) == {"base", "tuned", "controls", "retunings"}
    assert (found.split, found.pictures, found.classes) == ("test", 3, 3)
    assert len(found.drawings) == 3
    assert {one.layer for one in found.drawings} == {TUNED}
    assert len(found.reproduced) == found.retunings == 1
    assert pictures(fresh.path / "controls") == {
        "control-000.safetensors", "control-001.safetensors", "retuning-000.safetensors",
    }  # fmt: skip
    for one in found.drawings:
        assert all(len(statuses) == 2 for statuses in one.statuses.values())
        assert one.exemplar_max["base"] == pytest.approx(one.exemplars["base"][0].activation)
    loaded = Comparison.load(fresh.path / "comparison")
    assert loaded == found
    before = written(fresh)
    again = compare(fresh, **FEW, retunings=1)
    assert again == found
    assert again.to_dict() == found.to_dict()
    assert written(fresh) == before, "what was finished was made again"


def test_exemplars_are_the_pictures_that_excite_most(compared, again):
    """Held-out and training ones: of so few all of these are looked at."""
    part = (*again.split.part("test"), *again.split.part("train"))
    root = Path(again.config.data)
    responses = channel_responses(again.classifier, [root / p.path for p in part], [TUNED])
    for one in compared[1].drawings:
        best = int(responses[TUNED][:, one.channel].argmax())
        assert one.exemplars["tuned"][0].path == part[best].path


@pytest.mark.drawn
def test_the_atlas_opens_and_shows_every_channel(compared, again):
    found, run = compared[1], again
    evaluate_run(run)
    index = write_atlas(run, title='<script>alert("x")</script>')
    text = index.read_text(encoding="utf-8")
    assert '<script>alert("x")' not in text
    for sentence in sentences(found):
        assert str(escape(sentence)) in text
    home = index.parent
    assert len(list((home / "units").glob("*.html"))) == len(found.drawings)
    assert len(list((home / "images/renders").iterdir())) == 2 * 2 * len(found.drawings)
    (layer,) = (home / "layers").glob("blocks-3.html")
    rows = layer.read_text(encoding="utf-8").count("<tr data-index")
    assert rows == found.layers[-1].channels
    facts = (
        "<dt>Comparison</dt>",
        "<dt>Controls</dt><dd>2 from shuffled labels",
        "<dt>Drawings</dt>",
    )
    assert all(fact in text for fact in facts)


def test_few_held_out_pictures_are_told(again):
    heard = Heard()
    compare(again, layers=[TUNED], controls=2, draw=0, patch=0, reporter=heard)
    assert any("only 3 held-out pictures (test)" in line for line in heard.lines)


def test_a_control_in_the_place_of_the_tuned_network_has_learned_nothing(again):
    """The same transfer from shuffled labels, through the whole verb."""
    tails = control_tails(again, 3)
    shuffled = load_tail(again, tails[2])
    again.__dict__["classifier"] = shuffled
    found = compare(again, layers=[TUNED], controls=2, draw=0)
    assert not found.found(LEARNED)
    assert "No channel" in found.to_dict()["headline"]


def test_a_network_against_itself_has_nothing_to_compare(fresh):
    fresh.__dict__["classifier"] = fresh.base
    heard = Heard()
    found = compare(fresh, **FEW, reporter=heard)
    assert all(layer.identical for layer in found.layers)
    assert not found.rows
    assert not found.drawings
    assert any("bit-identical" in line for line in heard.lines)


def test_base_is_drawn_once_for_all_runs(again, photos, weights, tmp_path, monkeypatch):
    drawn = {one.channel: one.reason for one in Comparison.load(again.path / "comparison").drawings}
    monkeypatch.setattr("transferscope.workflows.compare.shortlist", lambda *_, **__: drawn)
    cache = tmp_path / "cache" / "sweep"
    first = pictures(cache)
    assert pictures(again.path / "sweep") == first
    second = ts.tune(
        photos, out=tmp_path / "second", backbone=BACKBONE, weights=weights, strategy="partial",
        unfreeze=4, epochs=2, batch_size=6,
    )  # fmt: skip
    found = compare(second, **FEW | {"controls": 0, "patch": 0})
    assert len(pictures(cache) - first) == len(found.drawings) * 2, "of the tuned network alone"
    shutil.rmtree(tmp_path / "cache")
    heard = Heard()
    write_atlas(second, reporter=heard)  # the run alone, without the cache
    assert not [line for line in heard.lines if "drawings of the comparison" in line]


def test_what_visualize_has_drawn_is_not_drawn_again(compared, again, tmp_path):
    chosen = compared[1].drawings[0]
    unit = WorkUnit.of(again.base, TUNED, [chosen.channel], seed=0, recipe=SHORT)
    assert not Sweep(tmp_path / "cache" / "sweep").missing(unit)


def test_an_atlas_made_at_another_precision_finds_its_pictures(again, monkeypatch, tmp_path):
    fresh = again
    monkeypatch.setattr("transferscope.visualize.units.fast_bf16", lambda device: True)
    other = Run(fresh.path)
    shutil.rmtree(tmp_path / "cache")
    heard = Heard()
    index = write_atlas(other, reporter=heard)
    assert not [line for line in heard.lines if "drawings of the comparison" in line]
    page = next((index.parent / "units").glob("*.html")).read_text(encoding="utf-8")
    assert page.count("images/renders") >= 4
    (setting,) = (fresh.path / "comparison").glob("*/setting.json")
    kept = read_json(setting)
    assert kept["recipe"]["precision"] in ("fp32", "bf16")
    assert len(kept["renders"]) == 3 * 2 * 2
    sweep = Sweep(tmp_path / "nowhere", kept=fresh.path / "sweep")
    assert sweep.load_key(kept["renders"][0]["key"]).channel == kept["renders"][0]["channel"]


def test_drawings_that_are_gone_are_told_and_the_atlas_is_written(again, tmp_path):
    fresh = again
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(fresh.path / "sweep")
    heard = Heard()
    assert write_atlas(fresh, reporter=heard).is_file()
    (line,) = [line for line in heard.lines if "drawings of the comparison" in line]
    assert line.startswith("12 of 12 drawings")
    assert f"'transferscope compare {fresh.path}' draws them" in line


def test_a_trial_leaves_the_longer_comparison_and_the_atlas_shows_the_fullest(compared, again):
    fresh, long = again, compared[1]
    home = fresh.path / "comparison"
    whole = (home / "comparison.json").read_bytes()
    trial = {"layers": [TUNED], "controls": 0, "draw": 1, "seeds": 1, "patch": 0}
    compare(fresh, **trial)
    assert (home / "comparison.json").read_bytes() == whole
    assert len(list(home.glob("*/comparison.json"))) == 2
    heard = Heard()
    index = write_atlas(fresh, reporter=heard)
    assert len(list((index.parent / "units").glob("*.html"))) == len(long.drawings) == 3
    (line,) = [line for line in heard.lines if "fullest" in line]
    assert "the fullest of 2 comparisons is shown, comparison/2-controls-3-drawn-2-seeds-" in line
    assert "fullest of 2 comparisons" in index.read_text(encoding="utf-8")
    compare(fresh, **trial)  # again: no third one
    assert len(list(home.glob("*/comparison.json"))) == 2
    compare(fresh, **FEW | {"controls": 3}, retunings=1)
    assert (home / "comparison.json").read_bytes() != whole


# ---------------------------------------------------------------------------- other pairs


def test_two_runs_are_compared_on_pictures_that_are_new_to_both(again, compared):
    second = Run(compared[0] / "copy")
    second.__dict__["classifier"] = load_tail(second, control_tails(second, 1)[0])
    found = compare(again, second, layers=[TUNED], draw=1, seeds=1)
    assert found.pair == ("copy", "copy (second)")
    assert len(found.of_witness(LEARNED)) == found.layers[0].channels
    assert (found.controls, found.found(LEARNED), found.patching) == (0, (), None)
    assert "was not asked: without control transfers" in found.to_dict()["headline"]
    assert len(list((again.path / "comparison").glob("*/comparison.json"))) == 2


def test_pictures_that_the_second_run_was_tuned_on_are_left_out(again):
    second = Run(again.path)
    test = {picture.sha256 for picture in again.split.part("test")}
    pictures = [
        replace(one, split="train") if one.sha256 in test else one
        for one in second.split.scan.pictures
    ]
    scan = replace(second.split.scan, pictures=tuple(pictures))
    second.__dict__["split"] = replace(second.split, scan=scan)
    second.__dict__["classifier"] = again.base
    with pytest.raises(DataError, match=r"tuned on all 3 test pictures.*--split-from"):
        compare(again, second, layers=[TUNED], draw=0)


def test_a_file_and_another_architecture_are_second_models(again):
    again.base.save(again.path / "before.safetensors")
    found = compare(again, again.path / "before.safetensors", layers=[TUNED], draw=0, patch=0)
    assert found.pair == ("copy", "before")
    assert found.of_witness(MOVED)
    other = load_backbone("timm/test_resnet", weights="random")
    across = compare(again, other)
    assert not across.rows
    assert not across.drawings
    assert all(" | " in layer.layer or not layer.identical for layer in across.layers)
    assert "have no channels in common: only layers are compared" in across.to_dict()["headline"]
    said = command("compare", again.path, "--weights", "w.safetensors", "--draw", "0")
    assert said.exit_code == 2
    assert "no second model is named" in said.stderr


def test_kept_epochs_make_a_timeline(photos, weights, tmp_path):
    options = {"strategy": "partial", "unfreeze": 4, "epochs": 2, "batch_size": 8, "keep_every": 1}
    run = ts.tune(photos, out=tmp_path / "kept", backbone=BACKBONE, weights=weights, **options)
    found = compare(run, layers=[TUNED], controls=0, draw=0, patch=0)
    (timeline,) = found.timeline
    assert timeline.layer == TUNED
    assert timeline.epochs == tuple(sorted(timeline.epochs))
    assert len(timeline.information) == len(timeline.epochs)
    assert len(timeline.base) == found.layers[0].channels


def test_shares_draw_what_the_whole_then_finds(again, tmp_path):
    asked = FEW | {"patch": 0}
    for folder in (tmp_path / "cache", again.path / "sweep", again.path / "comparison"):
        shutil.rmtree(folder)
    for share in (1, 2):
        assert not compare(again, **asked, shard=(share, 2)).drawings
    drawn = pictures(tmp_path / "cache" / "sweep")
    assert drawn
    assert not (again.path / "comparison" / "comparison.json").exists()
    assert len(compare(again, **asked).drawings) == 3
    assert pictures(tmp_path / "cache" / "sweep") == drawn


def test_a_plan_says_what_is_left_and_does_nothing(fresh, tmp_path):
    plan = plan_compare(fresh, **FEW)
    assert (plan.tails, plan.tails_left, plan.drawings) == (2, 2, 12)
    assert not (fresh.path / "controls").exists()
    assert not (tmp_path / "cache" / "sweep").exists()


def test_a_plan_counts_what_is_there(again):
    said = command("compare", again.path, "--controls", "2", "--draw", "0", "--plan")
    assert said.exit_code == 0
    assert "0 of 2 control transfers and retunings are to be made" in said.stdout


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"controls": 1}, "--controls is 1; how much controls differ takes 2 or more"),
        ({"draw": -1}, "--draw is -1"),
        ({"seeds": 0}, "--seeds is 0"),
        ({"shard": (3, 2)}, "--shard is 3/2"),
        ({"retunings": -1}, "--retunings is -1"),
    ],
)
def test_options_out_of_range_are_refused(fresh, wrong, said):
    with pytest.raises(InputError, match=said):
        compare(fresh, **wrong)
    assert not (fresh.path / "controls").exists()


def test_the_command_line_tells_and_gives_json(again, monkeypatch):
    fresh, made = again, []

    def once(run: Run, *given: object, reporter: object, **asked: object) -> Comparison:
        """What is asked twice alike is compared once."""
        if not made:
            made.append((asked, compare(run, *given, reporter=reporter, **asked)))
        assert asked == made[0][0]
        return made[0][1]

    monkeypatch.setattr("transferscope.workflows.compare.compare", once)
    options = ("--layers", TUNED, "--controls", "2", "--draw", "1", "--seeds", "1", "--quiet")
    said = command("compare", fresh.path, *options)
    assert said.exit_code == 0
    assert TUNED in said.stdout
    assert "control transfers (the same recipe on shuffled labels)" in said.stdout
    told = json.loads(command("compare", fresh.path, *options, "--json").stdout)
    assert told["layers"][TUNED]["drawn"] == 1
    assert told["learned"]["controls"] == 2
    for wrong in (("--draw", "few"), ("--shard", "half")):
        assert command("compare", fresh.path, *wrong).exit_code == 2


def test_a_run_that_cannot_be_written_is_refused_before_the_work(fresh, monkeypatch):
    monkeypatch.setattr("transferscope.files.is_writable", lambda folder: False)
    said = command("compare", fresh.path, "--draw", "2", "--layers", "blocks.3")
    assert said.exit_code == 1
    assert "is read-only; copy the run to a folder that can be written" in said.stderr
    assert not (fresh.path / "controls").exists()


def test_what_a_comparison_will_draw_can_be_followed_until_it_is_done(again, monkeypatch):
    assert planned_comparison(again.path / "comparison") is None, "it is done"

    def stops(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setitem(ENGINES, "local", stops)
    with pytest.raises(KeyboardInterrupt):
        compare(again, **FEW)
    planned = planned_comparison(again.path / "comparison")
    assert (planned["controls"], planned["retunings"], len(planned["drawings"])) == (2, 0, 12)
    found = run_progress(again.path)
    assert (found.phase, found.done, found.of) == ("comparing", 12, 12)
    assert len(found.units) == 3


def test_drawings_of_fewer_steps_are_asked_for_and_refused(run: Run):
    networks = {"base": run.base, "tuned": run.classifier}
    chosen = {TUNED: {0: "at random"}}
    few = Shortlist(networks, chosen, (0,), (), (), {}, Sweep(Path("unused")), 7)
    assert few.recipe.steps == 7
    assert replace(few, steps=None).recipe.steps == RenderRecipe.steps
    with pytest.raises(InputError, match="--steps is 0"):
        compare(run, steps=0)
