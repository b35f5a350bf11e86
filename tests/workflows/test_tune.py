"""The options of `tune`: strategies, heads, boundary, rate test, search, timeline, cache, loggers."""

from __future__ import annotations

import inspect as python_inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
import typer

import transferscope as ts
from conftest import BACKBONE, Heard
from transferscope.acceleration.precision import Precision
from transferscope.backbones.catalogue import DEFAULT_BACKBONE
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.heads import MLPHead
from transferscope.backbones.weights import load_backbone
from transferscope.data.augmentation import AugmentationName
from transferscope.errors import InputError, OutputError, UnknownName
from transferscope.files import read_csv, read_json
from transferscope.training.config import Config, TuneOptions
from transferscope.training.options import asked_for, choices, declared
from transferscope.training.recipe import Recipe
from transferscope.workflows.run import Run

pytestmark = pytest.mark.usefixtures("undrawn")

Make = Callable[..., Run]


@pytest.fixture(scope="module")
def photos(tmp_path_factory, make_folder) -> Path:
    return make_folder(tmp_path_factory.mktemp("tuning") / "set", {"a": 14, "b": 12, "c": 13})


@pytest.fixture
def make(photos, weights, tmp_path) -> Make:
    def tuned(name="run", **options) -> Run:
        defaults = {"strategy": "partial", "epochs": 2, "batch_size": 8}
        return ts.tune(
            photos, out=tmp_path / name, backbone=BACKBONE, weights=weights, **(defaults | options)
        )

    return tuned


def test_full_moves_every_stage_and_probe_none(make, weights):
    source = load_backbone(BACKBONE, weights=weights).network.state_dict()
    full = make("full", strategy="full", lr=1e-3, keep_every=2)
    probe = make("probe", strategy="probe")
    body = [name for name in source if not name.startswith("classifier")]
    for name in body:
        assert torch.equal(probe.classifier.network.state_dict()[name], source[name])
    convolutions = [n for n in body if n.endswith("weight") and source[n].ndim == 4]
    last = Classifier.load(full.timeline[2]).network.state_dict()  # the best may be the start
    assert len(convolutions) > 10
    assert all(not torch.equal(last[name], source[name]) for name in convolutions)
    assert full.results["boundary"] is None
    assert full.results["strategy"] == "full"


def test_scratch_knows_nothing_of_the_pretrained_weights(make, weights):
    run = make("scratch", strategy="scratch", epochs=2, seed=3)
    again = make("again", strategy="scratch", epochs=2, seed=3)
    assert run.config.recipe.batch_norm == "train"
    source = load_backbone(BACKBONE, weights=weights).network.state_dict()
    tuned = run.classifier.network.state_dict()
    kernels = [n for n in tuned if tuned[n].ndim == 4]
    correlations = [
        torch.corrcoef(torch.stack([tuned[n].flatten(), source[n].flatten()]))[0, 1]
        for n in kernels
    ]
    assert float(torch.stack(correlations).abs().mean()) < 0.2
    assert all(
        torch.equal(value, again.classifier.network.state_dict()[name])
        for name, value in tuned.items()
    )
    base = run.base.network.state_dict()  # the fair before is the pretrained network all the same
    assert torch.equal(base[kernels[0]], source[kernels[0]])


@pytest.mark.parametrize("strategy", ["probe", "partial"])
def test_an_mlp_head_is_fitted_tuned_saved_and_opened(make, strategy, photos):
    run = make(strategy=strategy, head="mlp")
    opened = Run(run.path)
    assert isinstance(opened.classifier.head_layer, MLPHead)
    assert not isinstance(opened.base.head_layer, MLPHead)
    assert opened.results["head"] == "mlp"
    assert run.evaluate("test").n == 6


def test_any_layer_may_be_the_boundary(make):
    run = make(boundary="blocks.1.0")
    assert run.results["boundary"] == "blocks.1.0"
    old, new = run.base.network.state_dict(), run.classifier.network.state_dict()
    for name in old:
        if name.startswith(("conv_stem", "bn1", "blocks.0", "blocks.1.0")):
            assert torch.equal(old[name], new[name]), name


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"boundary": "blocks.99"}, UnknownName, "blocks.99"),
        ({"boundary": "blocks.1", "unfreeze": 2}, InputError, "both given"),
        ({"head": "tree"}, InputError, "--head is 'tree'"),
        ({"search": -1}, InputError, "--search is -1"),
        ({"search": 3, "strategy": "full"}, InputError, "boundary cache"),
        ({"keep_every": -2}, InputError, "--keep-every is -2"),
        ({"recipe": {"speed": 9}}, InputError, "no 'speed'"),
        ({"loggers": ["wandb"]}, InputError, "no logger 'wandb'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    make, tmp_path, options, error, words
):
    with pytest.raises(error, match=words):
        make(**options)
    assert not (tmp_path / "run").exists()


@pytest.mark.drawn
def test_the_rate_of_the_range_test_is_used_and_shown(make):
    run = make(lr="auto")
    rows = read_csv(run.path / "learning_rate.csv")
    assert len(rows) > 10
    suggestion = read_json(run.path / "learning_rate.json")["suggestion"]
    assert run.results["learning_rate"] == run.recipe.learning_rate == suggestion
    rates = [float(row["learning_rate"]) for row in run.history]
    assert 0 < max(rates) <= suggestion * 1.001
    assert (run.path / "learning_rate.svg").read_text().lstrip().startswith("<")


@pytest.mark.drawn
def test_a_search_tries_keeps_resumes_and_takes_the_best(make):
    heard = Heard()
    run = make(search=3, reporter=heard)
    trials = run.results["search"]
    assert [trial["number"] for trial in trials] == [0, 1, 2]
    winner = max(trials, key=lambda t: (t["top1"], -t["loss"]))
    assert run.results["settings"] == winner["settings"]
    assert run.results["boundary"] == winner["settings"]["boundary"]
    assert sum(line.startswith("trial") for line in heard.lines) == 3
    assert (run.path / "search" / "search.svg").is_file()
    # A trial that is there is not run again.
    file = run.path / "search" / "trial-001.json"
    before = file.stat().st_mtime_ns
    (run.path / "run.json").unlink()
    (run.path / "started.json").write_text("")
    from transferscope.files import write_json

    write_json(run.path / "started.json", run.config.to_dict())
    again = make(search=3, resume=True)
    assert file.stat().st_mtime_ns == before
    assert again.results["settings"] == run.results["settings"]


@pytest.mark.drawn
def test_the_timeline_has_the_epochs_asked_for(make):
    run = make(epochs=4, keep_every=2)
    files = sorted((run.path / "timeline").iterdir())
    assert [file.name for file in files] == [f"epoch-{n:04d}.safetensors" for n in (0, 2, 4)]
    first = Classifier.load(files[0])
    assert all(
        torch.equal(value, first.network.state_dict()[name])
        for name, value in run.base.network.state_dict().items()
    )
    assert run.timeline == dict(zip((0, 2, 4), files, strict=True))
    assert Classifier.load(files[2]).classes == run.classifier.classes


def test_a_cache_that_is_too_small_takes_fewer_views_or_none_and_says_so(make, monkeypatch):
    roomy = make("roomy", recipe={"views": 2}, precision="fp32")
    from transferscope.features.extraction import planned_bytes

    source = load_backbone(BACKBONE, weights=roomy.config.weights)
    once = planned_bytes(source, roomy.results["boundary"], 27)
    for name, views, words in (("one", 1.6, "1 views instead of 2"), ("none", 0.4, "no view")):
        monkeypatch.setenv("TRANSFERSCOPE_CACHE_BUDGET", str(once * views / 1e9))
        heard = Heard()
        run = make(name, recipe={"views": 2}, precision="fp32", reporter=heard)
        assert any(words in line for line in heard.lines), heard.lines
        assert run.results["validation"]["top1"] >= 0.3


def test_a_wrong_budget_is_refused_before_anything_is_written(make, monkeypatch, tmp_path):
    monkeypatch.setenv("TRANSFERSCOPE_CACHE_BUDGET", "lots")
    with pytest.raises(InputError, match="TRANSFERSCOPE_CACHE_BUDGET is 'lots'"):
        make()
    assert not (tmp_path / "run").exists()


def test_epochs_are_logged(make):
    pytest.importorskip("tensorboard", reason="the extra 'loggers' is not installed")
    run = make(loggers=["tensorboard"])
    assert list((run.path / "tensorboard").glob("events.out.tfevents.*"))


def test_auto_follows_the_advice_unless_the_depth_is_given(make):
    advised = make("advised", strategy="auto")
    advice = advised.results["advice"]
    assert set(advice["stages"])
    assert list(advised.results["candidates"]) == ["probe", advice["strategy"]]
    given = make("given", strategy="auto", unfreeze=2)
    assert "advice" not in given.results
    assert list(given.results["candidates"]) == ["probe", "partial"]


def test_balance_reaches_head_and_loop(make):
    plain = make("plain", strategy="probe")
    balanced = make("balanced", strategy="probe", recipe={"balance": "weights"})
    assert not torch.equal(
        plain.classifier.head_layer.weight, balanced.classifier.head_layer.weight
    )


# ---------------------------------------------------------------------------- declared once


def command_options() -> dict[str, object]:
    """Options of `transferscope tune` by parameter."""
    from transferscope.cli.app import app

    verb = typer.main.get_command(app).commands["tune"]  # type: ignore[attr-defined]
    return {option.name: option for option in verb.params}


def test_every_option_of_the_command_is_declared_and_the_other_way_round():
    made = command_options()
    told = {"data", "root", "json_", "quiet", "help"}  # where pictures lie, how results are printed
    declared_ones = {**asked_for(TuneOptions), **asked_for(Recipe)}
    assert set(made) - told == set(declared_ones)
    for name, (flag, field) in declared_ones.items():
        (spelled,) = made[name].opts
        assert spelled == (flag if field.default is not True else flag.replace("--", "--no-")), name
        assert made[name].required == field.is_required()
    everything = declared(TuneOptions).keys() | declared(Recipe).keys()
    assert everything - set(declared_ones) == {
        *("data", "find_rate", "recipe", "confusable", "given"),
        *("warmup", "clip", "head_rate", "wise_ft", "batch_norm"),
    }


def test_the_defaults_in_the_help_are_the_recipes():
    plain, seen = ts.Recipe(), 0
    for name, option in command_options().items():
        if "; default " not in (option.help or "") or not hasattr(plain, name):
            continue
        said, value = option.help.rpartition("default ")[2].rstrip("."), getattr(plain, name)
        assert said == value if isinstance(value, str) else float(said) == value, name
        seen += 1
    assert seen == 13


def test_the_words_that_are_declared_are_those_of_the_rooms_below():
    assert choices(declared(Recipe)["augment"]) == get_args(AugmentationName)
    assert choices(declared(TuneOptions)["precision"]) == get_args(Precision)
    assert declared(TuneOptions)["backbone"].default == DEFAULT_BACKBONE


def test_python_takes_what_is_declared_and_says_so():
    parameters = python_inspect.signature(ts.tune).parameters
    assert {"data", "out", "recipe", "reporter", "confusable"} <= set(parameters)
    assert set(asked_for(TuneOptions)) | set(asked_for(Recipe)) <= set(parameters)
    assert "keep_every: Keep every" in ts.tune.__doc__


def test_the_schema_has_types_choices_limits_and_help():
    schema = TuneOptions.json_schema()
    properties, recipe = schema["properties"], schema["$defs"]["Recipe"]["properties"]
    assert set(properties) == set(declared(TuneOptions))
    assert schema["required"] == ["data", "out"]
    assert properties["head"]["enum"] == ["linear", "mlp"]
    assert recipe["learning_rate"]["exclusiveMinimum"] == 0
    assert recipe["learning_rate"]["maximum"] == 1
    assert all(value["description"] for value in [*properties.values(), *recipe.values()])
    json.dumps(schema)


def test_a_stored_configuration_is_read_again_whatever_another_version_had(make):
    config = make(strategy="probe").config
    stored = json.loads(json.dumps(config.to_dict()))
    assert Config.from_dict(stored) == config
    newer = {**stored, "speed": 9, "recipe": {**stored["recipe"], "momentum": 0.9}}
    assert Config.from_dict(newer) == config
    assert Config.from_dict({"data": "x", "recipe": {}}).head == "linear"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"speed": 9}, "tune has no 'speed'; it has "),
        ({"epochs": "many"}, "epochs is 'many'; it must be a whole number at least 1"),
        ({"lr": "fast"}, "learning rate is 'fast'; it must be a number above 0 and at most 1"),
        ({"strategy": ["probe"]}, "--strategy is .*; it must be one of auto, probe,"),
        ({"minutes": float("inf")}, "--minutes is inf; it must be a finite number above 0"),
        ({"seed": -1}, "seed is -1; it must be a whole number at least 0"),
        ({"group": object()}, "--group is a object; it must be text"),
    ],
)
def test_wrong_values_are_refused_in_one_sentence(make, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        make(**options)
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------- said twice, or for nothing


def test_the_recipe_sets_what_is_no_argument_of_its_own_here(photos, weights, tmp_path):
    run = ts.tune(
        photos,
        out=tmp_path / "run",
        backbone=BACKBONE,
        weights=weights,
        strategy="partial",
        recipe={
            "epochs": 1,
            "batch_size": 8,
            "learning_rate": 2e-3,
            "augment": "none",
            "flip": False,
        },
    )
    recipe = run.recipe
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (1, 8, 2e-3)
    assert (recipe.augment, recipe.flip) == ("none", False)
    assert len(run.history) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"recipe": {"epochs": 3}}, r"recipe has epochs = 3, and epochs = 2 is given"),
        ({"recipe": {"learning_rate": 1e-3}, "lr": 1e-4}, r"lr = 0.0001 is given"),
        ({"recipe": {"flip": True}, "flip": False}, r"flip = False is given"),
        ({"recipe": {"seed": 3}}, r"recipe has seed = 3"),
        ({"strategy": "full", "unfreeze": 2}, r"--unfreeze 2 is given with --strategy full"),
        ({"strategy": "scratch", "boundary": "blocks.1"}, r"--boundary blocks.1 is given with"),
        ({"boundary": "classifier"}, r"'classifier' is the head"),
        ({"precision": "foo"}, r"--precision is 'foo'"),
    ],
)
def test_contradictions_are_refused_before_anything_is_written(make, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        make(**options)
    assert not (tmp_path / "run").exists()


def test_a_network_of_ones_own_cannot_be_tuned_and_is_told_so(photos, tmp_path, tiny):
    with pytest.raises(InputError, match="the backbone is a Classifier; it must be a name"):
        ts.tune(photos, out=tmp_path / "run", backbone=tiny)


def test_what_a_probe_does_not_use_is_said(make):
    heard = Heard()
    make(strategy="probe", unfreeze=2, reporter=heard)
    first, kept = heard.lines
    assert first == "the probe is fitted exactly: epochs, batch size, unfreeze is not used"
    assert kept.startswith("kept: probe, as it was asked for: ")
    assert "the body is untuned, so 'compare' has nothing to show" in kept


def test_a_cache_that_cannot_be_written_says_so(make, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TRANSFERSCOPE_CACHE", "/proc/nowhere")
    with pytest.raises(OutputError, match="cannot be written to '/proc/nowhere"):
        make()
    assert not (tmp_path / "run").exists()
