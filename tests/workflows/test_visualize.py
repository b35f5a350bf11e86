"""Sweeps that go on, plans, sheets, class pictures: what `visualize` and `ideal` do with the engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import Heard, command, same_state, state_of, tiny_classifier
from transferscope.errors import DataError, InputError, OutputError, UnknownName
from transferscope.files import read_tensors
from transferscope.images import as_float, to_picture
from transferscope.report.sheets.renders import PAGE, Tile, reached, sheet, write_sheets
from transferscope.visualize.ideal import ideal
from transferscope.visualize.plan import Plan, most_informative_first
from transferscope.visualize.recipe import RenderRecipe
from transferscope.visualize.records import Render
from transferscope.visualize.render import render_channels
from transferscope.visualize.units import Exemplar, Sweep, WorkUnit
from transferscope.workflows.ideal import draw_ideal
from transferscope.workflows.visualize import Drawings, plan_visualize, visualize

FOLDERS = [str(folder) for folder in (Path(__file__).parents[1], Path(__file__).parent)]
"""Where processes that are started here find the tests' own modules."""

LAYER = "stages.1.bn2"
RECIPE = RenderRecipe(steps=3, precision="fp32")


def unit(layer: str = LAYER, channels: tuple[int, ...] = (0, 1, 4), **options) -> WorkUnit:
    chosen = {"seed": 0, "recipe": RECIPE, **options}
    return WorkUnit.of(tiny_classifier(), layer, channels, **chosen)


def drawing(channel: int = 3, **changes) -> Render:
    fields = {
        "layer": LAYER, "channel": channel, "sign": "plus", "seed": 0,
        "picture": np.full((32, 48, 3), 128, np.uint8), "activation": 6.0, "exemplar_max": 2.0,
        "status": "optimized", "steps": 5,
    }  # fmt: skip
    return Render(**{**fields, **changes})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name in ("ash", "birch"):
        (root / name).mkdir(parents=True)
        for number in range(4):
            seed = [number, len(name)]
            pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


# ---------------------------------------------------------------------------- units


def test_a_unit_is_divided_in_order():
    whole = unit(channels=tuple(range(8)))
    parts = whole.divided(3)
    assert [part.channels for part in parts] == [(0, 1, 2), (3, 4, 5), (6, 7)]
    assert [part.keys for part in parts] == [
        {channel: whole.key(channel) for channel in part.channels} for part in parts
    ]


def test_objective_and_exemplars_are_part_of_the_key():
    keys = {unit().key(0), unit(objective="neuron").key(0), unit(exemplars="abc").key(0)}
    assert len(keys) == 3


def test_units_are_small_lossless_files(tmp_path):
    classifier, sweep = tiny_classifier(), Sweep(tmp_path)
    sweep.run(classifier, [unit()])
    assert len(list(tmp_path.iterdir())) == 3
    tensors, metadata = read_tensors(sweep.path(unit().key(1)))
    assert (metadata["layer"], metadata["channel"]) == (LAYER, 1)
    assert tensors["picture"].dtype == torch.uint8  # files, not pixels
    loaded = sweep.load(unit())
    assert [one.picture.shape for one in loaded] == [(32, 32, 3)] * 3
    # The activation told is that of the very picture that is stored.
    pictures = torch.stack([torch.from_numpy(one.picture.copy()) for one in loaded])
    from transferscope.activations import capture

    with torch.no_grad(), capture(classifier.network, [LAYER]) as caught:
        classifier(as_float(pictures.permute(0, 3, 1, 2)))
    means = caught[LAYER].mean((2, 3))
    told = [one.activation for one in loaded]
    assert told == pytest.approx([float(means[n, c]) for n, c in enumerate((0, 1, 4))], abs=1e-5)


def test_exemplars_are_asked_for_unit_by_unit_and_only_where_named(tmp_path):
    asked: list[tuple[tuple[int, ...], str]] = []

    def exemplars(channels, sign):
        asked.append((channels, sign))
        return {c: Exemplar(-1e9, torch.zeros(3, 32, 32)) for c in channels}

    units = [*unit(exemplars="these").divided(2), unit()]
    Sweep(tmp_path).run(tiny_classifier(), units, exemplars=exemplars)
    assert asked == [((0, 1), "plus"), ((4,), "plus")]


def test_a_drawing_below_the_real_picture_begins_again_from_it(tmp_path):
    classifier, sweep = tiny_classifier(), Sweep(tmp_path)
    bright = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    chosen = unit(channels=(0,), exemplars="bright")
    sweep.run(classifier, [chosen], exemplars=lambda *_: {0: Exemplar(1e6, bright)})
    (again,) = sweep.load(chosen, exemplar_max={0: 1e6})
    sweep.run(classifier, [unit(channels=(0,))])
    (alone,) = sweep.load(unit(channels=(0,)))
    assert again.status == "below_exemplar"  # a million is out of reach from anywhere
    assert again.steps == 2 * alone.steps
    assert again.activation >= alone.activation


def test_the_most_informative_comes_first():
    units = [
        unit(layer, channels, sign=sign, seed=seed)
        for seed in (0, 1)
        for sign in ("plus", "minus")
        for layer in ("stages.0", LAYER)
        for channels in ((0, 1), (2, 3))
    ]
    order = [(u.seed, u.sign, u.layer, u.channels) for u in most_informative_first(units)]
    assert order[:4] == [
        (0, "plus", LAYER, (0, 1)),
        (0, "plus", "stages.0", (0, 1)),
        (0, "plus", LAYER, (2, 3)),
        (0, "plus", "stages.0", (2, 3)),
    ]
    assert [(seed, sign) for seed, sign, *_ in order[::4]] == [
        (0, "plus"), (0, "minus"), (1, "plus"), (1, "minus"),
    ]  # fmt: skip
    interest = {"stages.0": [0.0, 0.0, 9.0, 9.0], LAYER: [1.0, 1.0, 0.0, 0.0]}
    first = most_informative_first(units, interest)[0]
    assert (first.layer, first.channels) == ("stages.0", (2, 3))
    keys = [key for u in units for key in u.keys.values()]
    assert sorted(keys) == sorted(
        key for u in most_informative_first(units) for key in u.keys.values()
    )


def test_a_plan_is_measured_and_counts_what_is_left(tmp_path):
    classifier, sweep = tiny_classifier(), Sweep(tmp_path)
    units = unit(channels=tuple(range(8))).divided(4)
    before = Plan.of(sweep, classifier, units)
    assert (before.pictures, before.left) == (8, 8)
    assert before.seconds > 0
    assert before.disk_mb > 0
    assert before.memory_mb > 50
    assert not list(tmp_path.iterdir())  # nothing is kept
    sweep.run(classifier, units[:1])
    after = Plan.of(sweep, classifier, units)
    assert (after.pictures, after.left) == (8, 4)
    assert after.order == ((LAYER, "plus", 0, (4, 5, 6, 7)),)
    sweep.run(classifier, units)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert before.disk_mb * 1e6 == pytest.approx(size, rel=0.6)  # with the figures' own bytes
    assert Plan.of(sweep, classifier, units).left == 0
    more = Plan.of(sweep, classifier, unit(channels=(1, 2, 7), seed=1).divided())
    assert more.left == 3
    json.dumps(before.to_dict())


def test_a_constant_channel_is_dead_and_not_blocked():
    """Its value is the bias, above zero for every picture, and nothing can raise it."""
    classifier = tiny_classifier()
    norm = classifier.network.get_submodule(LAYER)
    with torch.no_grad():
        norm.weight[3] = 0
        norm.bias[3] = 0.7
    dead, open_ = render_channels(
        classifier, LAYER, [3, 4], steps=12, precision="fp32", exemplar_max={3: 0.7, 4: -9.0}
    )
    assert (dead.status, open_.status) == ("dead_on_data", "optimized")
    (more,) = render_channels(
        classifier, LAYER, [3], steps=12, precision="fp32", exemplar_max={3: 0.8}
    )
    assert more.status == "zero_gradient"


# ---------------------------------------------------------------------------- visualize


def test_visualize_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    monkeypatch.setattr("transferscope.visualize.units.UNIT", 8)
    classifier = tiny_classifier()
    units = tmp_path / "units"
    wanted = Drawings(layer=LAYER, channels=[*range(8), 1], signs=("plus", "minus"), steps=2)

    def interrupted(done, total):
        if done >= 11:  # the channel that is named twice counts twice
            raise KeyboardInterrupt

    class Impatient(Heard):
        def task(self, name):
            return nullcontext(interrupted)

    with pytest.raises(KeyboardInterrupt):
        visualize(classifier, wanted, out=tmp_path / "v", reporter=Impatient(), sweep=units)
    kept = {path: path.stat().st_mtime_ns for path in units.iterdir()}
    assert len(kept) == 8
    assert not (tmp_path / "v").exists()
    rows = visualize(classifier, wanted, out=tmp_path / "v", sweep=units)
    assert [row["channel"] for row in rows] == [*wanted.channels] * 2
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_visualize_with_real_pictures_shows_and_uses_them(tmp_path, photos):
    classifier = tiny_classifier()
    before = state_of(classifier.network)
    wanted = Drawings(layer=LAYER, channels=[0, 3], data=photos, steps=4, signs=("plus", "minus"))
    rows = visualize(classifier, wanted, out=tmp_path / "v", sweep=tmp_path / "units")
    assert same_state(before, state_of(classifier.network))
    assert [(row["channel"], row["sign"]) for row in rows] == [
        (0, "plus"), (3, "plus"), (0, "minus"), (3, "minus"),
    ]  # fmt: skip
    for row in rows:
        assert row["exemplar_max"] is not None
        with Image.open(row["file"]) as picture:
            assert picture.size == (32, 32)
        # From the real picture a drawing can only rise, so none ends far below it.
        assert row["status"] == "optimized" or row["activation"] > row["exemplar_max"] - 0.5
    assert (tmp_path / "v" / "sheet.png").is_file()


def test_real_pictures_need_no_classes(tmp_path, photos):
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in photos.rglob("*.png"):
        (flat / f"{file.parent.name}-{file.name}").write_bytes(file.read_bytes())
    found = []
    for data in (photos, flat):
        wanted = Drawings(layer=LAYER, channels=[0, 3], data=data, steps=2)
        rows = visualize(tiny_classifier(), wanted, out=tmp_path / "v", sweep=tmp_path / "units")
        found.append([row["exemplar_max"] for row in rows])
    assert found[0] == found[1]
    for file in flat.iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot be read"):
        visualize(tiny_classifier(), wanted, out=tmp_path / "v", sweep=tmp_path / "units")


def test_classes_and_neurons_are_drawn_too(tmp_path):
    classifier = tiny_classifier()

    def drawn(name, **what):
        wanted = Drawings(channels=[1], steps=2, **what)
        return visualize(classifier, wanted, out=tmp_path / name, sweep=tmp_path / "units")

    rows = drawn("v", objective="logit")
    assert rows[0]["class"] == classifier.classes[1]
    drawing = render_channels(classifier, "head", [1], objective="logit", steps=2)[0]
    assert drawing.activation == pytest.approx(rows[0]["activation"], abs=1e-3)
    with Image.open(rows[0]["file"]) as picture:
        array = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    with torch.no_grad():
        wanted = float(classifier(as_float(array))[0, 1])
    assert rows[0]["activation"] == pytest.approx(wanted, abs=1e-4)
    (neuron,) = drawn("n", layer=LAYER, objective="neuron")
    (channel,) = drawn("c", layer=LAYER)
    assert neuron["activation"] != channel["activation"]


@pytest.mark.parametrize(
    ("layer", "options", "said"),
    [
        (LAYER, {"objective": "logit"}, "leave --layer out"),
        (None, {}, "needs --layer"),
        (LAYER, {"objective": "neuron", "data": "photos"}, "leave --data out"),
        (LAYER, {"steps": 0}, "at least 1"),
        (LAYER, {"steps": 1.5}, "whole number"),
        (LAYER, {"size": 8}, "at least 32"),
    ],
)
def test_contradictions_are_refused_before_the_work(tmp_path, layer, options, said):
    wanted = Drawings(layer=layer, channels=[0], **options)
    with pytest.raises(InputError, match=said):
        visualize(tiny_classifier(), wanted, out=tmp_path / "v", sweep=tmp_path / "u")
    assert not (tmp_path / "v").exists()


def test_a_plan_has_the_same_units_as_the_drawing(tmp_path, photos):
    classifier = tiny_classifier()
    wanted, units = Drawings(layer=LAYER, channels=[0, 1, 2], steps=2, data=photos), tmp_path / "u"
    plan = plan_visualize(classifier, wanted, sweep=units)
    assert (plan.pictures, plan.left) == (3, 3)
    visualize(classifier, wanted, out=tmp_path / "v", sweep=units)
    assert plan_visualize(classifier, wanted, sweep=units).left == 0


def test_a_foreign_folder_is_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    wanted = Drawings(layer=LAYER, channels=[0], steps=1)
    with pytest.raises(OutputError):
        visualize(tiny_classifier(), wanted, out=tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "words"


# ---------------------------------------------------------------------------- sheets


def test_sheets_are_paged_and_asked_for_a_page_at_a_time(tmp_path):
    made = 0

    def tiles():
        nonlocal made
        for number in range(2 * PAGE + 1):
            made += 1
            yield Tile(drawing(number), None, str(number))

    assert write_sheets(tmp_path, tiles(), title="a layer") == [
        "sheet-001.png", "sheet-002.png", "sheet-003.png",
    ]  # fmt: skip
    assert made == 2 * PAGE + 1
    heights = []
    for number in (1, 3):
        with Image.open(tmp_path / f"sheet-00{number}.png") as page:
            heights.append(page.height)
    assert heights[0] > heights[1]
    alone = tmp_path / "alone"
    alone.mkdir()
    assert write_sheets(alone, iter([Tile(drawing(), None, "3")]), title="x") == ["sheet.png"]


def test_a_tile_shows_the_drawing_the_real_picture_and_what_it_reached():
    blue = Image.new("RGB", (64, 64), (0, 0, 255))
    shown = np.array(sheet([Tile(drawing(), blue, "3")], title="a layer"))
    assert (shown == (0, 0, 255)).all(2).sum() > 1000
    assert (shown == (128, 128, 128)).all(2).sum() > 5000
    assert reached(drawing()) == "3.0×"
    assert reached(drawing(exemplar_max=None)) == "6"
    assert reached(drawing(exemplar_max=-1.0)) == "6"
    calm = np.array(sheet([Tile(drawing(), None, "3")], title="a layer"))
    warned = np.array(sheet([Tile(drawing(status="below_exemplar"), None, "3")], title="a layer"))
    red = (warned.astype(int)[..., 0] - warned.astype(int)[..., 1] > 60).sum()
    assert red > 50 > (calm.astype(int)[..., 0] - calm.astype(int)[..., 1] > 60).sum()


# ---------------------------------------------------------------------------- ideal


def test_a_class_is_drawn_three_ways(tmp_path):
    classifier = tiny_classifier()
    before = state_of(classifier.network)
    rows = draw_ideal(classifier, classifier.classes[2], out=tmp_path / "ideal", steps=12)
    assert same_state(before, state_of(classifier.network))
    assert [row["version"] for row in rows] == ["pixels", "smooth", "full"]
    assert {path.name for path in (tmp_path / "ideal").iterdir()} >= {
        "pixels.png", "smooth.png", "full.png", "ideal.png",
    }  # fmt: skip
    for row in rows:
        with Image.open(row["file"]) as picture:
            array = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
        with torch.no_grad():
            assert row["logit"] == pytest.approx(float(classifier(as_float(array))[0, 2]), abs=1e-4)
            wanted = float(classifier.probabilities(as_float(array))[0, 2])
            assert row["probability"] == pytest.approx(wanted, abs=1e-5)
    assert rows[1]["total_variation"] < rows[0]["total_variation"]
    with pytest.raises(UnknownName, match="class"):
        draw_ideal(classifier, "no such class", out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_ideal_leaves_a_network_in_training_as_it_was_and_tells_what_it_is_in_use():
    classifier = tiny_classifier()
    classifier.network.train()
    before = state_of(classifier.network)
    told = ideal(classifier, 1, steps=2)[0]
    assert same_state(before, state_of(classifier.network))
    classifier.network.eval()
    with torch.no_grad():
        seen = classifier(as_float(torch.from_numpy(told.picture).permute(2, 0, 1)[None]))
    assert told.logit == pytest.approx(float(seen[0, 1]), abs=1e-4)


def test_an_ideal_says_which_network_it_is_of(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        "transferscope.workflows.ideal.ideal_figure",
        lambda versions, name, model: told.append(model) or to_picture(versions[0].picture),
    )
    classifier = tiny_classifier()
    name = classifier.classes[0]
    draw_ideal(classifier, name, out=tmp_path / "base", steps=1)
    draw_ideal(classifier, name, out=tmp_path / "run", steps=1, called="my run")
    assert told == [classifier.backbone, "my run"]


def test_a_layer_beside_logit_is_what_is_wrong_however_the_class_is_written(tmp_path):
    asked = ("visualize", "efficientnet_lite0", "--objective", "logit", "--layer", "blocks.2.1")
    for channels in ("0", "zebra"):
        done = command(*asked, "--channels", channels, "--steps", "1", "--out", tmp_path / "out")
        assert done.exit_code == 2
        assert "leave --layer out" in " ".join((done.output + done.stderr).split())


@pytest.mark.parametrize("size", [31, 4097, 1_000_000])
def test_a_size_out_of_range_is_refused_at_once(size):
    with pytest.raises(InputError, match=rf"--size is {size}; .*(32|4096) pixels"):
        ideal(tiny_classifier(), 1, steps=1, size=size)


def test_the_ideal_is_the_same_for_the_same_seed():
    first, again, other = (ideal(tiny_classifier(), 1, steps=3, seed=s)[2] for s in (0, 0, 1))
    assert np.array_equal(first.picture, again.picture)
    assert not np.array_equal(first.picture, other.picture)


# ---------------------------------------------------------------------------- long


@pytest.mark.slow
def test_twenty_kills_lose_at_most_the_unit_in_flight(tmp_path):
    """Finished files are never touched again, and what is drawn in the end is what one run draws."""
    script = textwrap.dedent(
        f"""
        import sys
        sys.path[:0] = {FOLDERS!r}
        from test_visualize import long_units
        from conftest import tiny_classifier
        from transferscope.visualize.units import Sweep
        print("ready", flush=True)
        Sweep(sys.argv[1]).run(tiny_classifier(), long_units())
        print("done", flush=True)
        """
    )

    def start(folder: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    whole = tmp_path / "whole"
    process = start(whole)
    began = time.monotonic()
    process.communicate()
    assert process.returncode == 0
    a_unit = (time.monotonic() - began) / len(long_units())
    rng = np.random.default_rng(0)
    folder = tmp_path / "killed"
    folder.mkdir()
    kept: dict[str, int] = {}
    for _kill in range(20):
        process = start(folder)
        time.sleep(float(rng.uniform(0.2, 2.0)) * a_unit)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        now = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.safetensors")}
        assert kept.items() <= now.items()  # nothing finished is lost or drawn again
        kept = now
    assert len(kept) < 8 * len(long_units())  # all twenty hit a sweep at work
    process = start(folder)
    process.communicate()
    assert process.returncode == 0
    for one in long_units():
        for first, other in zip(Sweep(whole).load(one), Sweep(folder).load(one), strict=True):
            assert np.array_equal(first.picture, other.picture)


def long_units() -> list[WorkUnit]:
    recipe = replace(RECIPE, steps=60)
    return [
        WorkUnit.of(tiny_classifier(), LAYER, tuple(range(8)), seed=seed, recipe=recipe)
        for seed in range(40)
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_does_not_grow_with_the_channels(tmp_path):
    """Peak memory of a sweep of 64 and of 2,000 channels of the embedded network, 8 steps each."""
    script = textwrap.dedent(
        """
        import sys
        from transferscope.acceleration.memory import reuse_memory
        from transferscope.machine import peak_memory
        reuse_memory()  # as `visualize` does, before it loads what draws
        from transferscope.backbones.weights import load_backbone
        from transferscope.visualize.recipe import RenderRecipe
        from transferscope.visualize.units import Sweep, WorkUnit
        classifier = load_backbone("efficientnet_lite0")
        left, units, recipe = int(sys.argv[2]), [], RenderRecipe(steps=8)
        for layer, channels in (("blocks.5.0.bn1", 672), ("blocks.5.1.bn1", 1152), ("blocks.5.3", 192)):
            part = tuple(range(min(left, channels)))
            left -= len(part)
            if part:
                units += WorkUnit.of(classifier, layer, part, seed=0, recipe=recipe).divided()
        assert not left
        Sweep(sys.argv[1]).run(classifier, units)
        print(peak_memory())
        """
    )
    peaks = {}
    for count in (64, 2000):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / str(count)), str(count)],
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        peaks[count] = int(done.stdout)
    print(peaks)
    assert peaks[2000] <= 1.05 * peaks[64]
