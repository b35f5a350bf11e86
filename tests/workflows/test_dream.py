"""`dream`: octaves, tiles, what it leaves alone, and what it refuses."""

from __future__ import annotations

import inspect
import itertools
import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import transferscope as ts
from conftest import BACKBONE, SPEC, command, same_state, state_of, tiny_classifier
from transferscope.activations import capture
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.weights import load_backbone
from transferscope.cli.dream import dream as verb
from transferscope.errors import InputError, OutputError, PictureError, UnknownName
from transferscope.images import InputSpec, as_float, to_tensor
from transferscope.visualize.dream import (
    _levelled,
    _resized,
    octave_sizes,
    read_photo,
    refuse_dream_file,
)
from transferscope.visualize.tiles import fades, mirrored, spans
from transferscope.workflows.dream import dream_file

LAYER = "stages.1"
QUICK = ts.DreamRecipe(steps=2, tile=128, precision="fp32")


def photo_of(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Seeded soft noise: something to see at every scale."""
    draw = np.random.default_rng(0)
    small = draw.integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def vit() -> Classifier:
    torch.manual_seed(0)
    network = timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, img_size=64, depth=2, num_classes=3
    )
    spec = InputSpec((64, 64), 3, (0.5,) * 3, (0.5,) * 3)
    return Classifier(network.eval(), spec, ["a", "b", "c"])


# ---------------------------------------------------------------------------- the dream


def test_energy_rises_and_size_stays(tiny: Classifier):
    dreamt = ts.dream(tiny, photo_of(150, 97), LAYER, recipe=QUICK)
    assert dreamt.picture.shape == (97, 150, 3)
    assert dreamt.picture.dtype == np.uint8
    assert dreamt.size == dreamt.octaves[-1] == (150, 97)
    assert dreamt.octaves == tuple(sorted(dreamt.octaves))
    assert dreamt.activation_after > 1.2 * dreamt.activation_before


def test_a_channel_rises_more_by_its_own_dream(tiny: Classifier):
    photo = photo_of(96, 80)
    own, other = (ts.dream(tiny, photo, LAYER, channel=c, recipe=QUICK) for c in (3, 5))
    measured = ts.channel(LAYER, 3)
    with torch.no_grad(), capture(tiny.network, [LAYER]) as caught:
        values = []
        for picture in (photo, own.picture, other.picture):
            pixels = to_tensor(picture) if isinstance(picture, Image.Image) else None
            if pixels is None:
                pixels = torch.from_numpy(picture.transpose(2, 0, 1).copy())
            batch = as_float(pixels)[None]
            tiny(batch)
            values.append(float(measured(caught, batch)))
    assert values[1] > values[0]
    assert values[1] > values[2]


def test_any_objective_and_its_penalty(tiny: Classifier):
    photo = photo_of(96, 80)
    energy = ts.layer_energy(LAYER)
    plain = ts.dream(tiny, photo, energy, recipe=QUICK)
    assert np.array_equal(plain.picture, ts.dream(tiny, photo, LAYER, recipe=QUICK).picture)
    calm = ts.dream(tiny, photo, energy - 100 * ts.total_variation(), recipe=QUICK)

    def roughness(dreamt: ts.Dream) -> float:
        return float(np.abs(np.diff(dreamt.picture.astype(int), axis=1)).mean())

    assert roughness(calm) < roughness(plain)


def test_same_seed_same_picture(tiny: Classifier):
    photo = photo_of(100, 70)
    first, again, other = (ts.dream(tiny, photo, LAYER, recipe=QUICK, seed=s) for s in (1, 1, 2))
    assert np.array_equal(first.picture, again.picture)
    assert not np.array_equal(first.picture, other.picture)


def test_activation_is_of_the_untouched_network(tiny: Classifier):
    """One tile holds the whole mirrored photo; its energy is computed here by hand."""
    photo = photo_of(100, 70)
    recipe = ts.DreamRecipe(steps=1, octaves=1)
    dreamt = ts.dream(tiny, photo, LAYER, recipe=recipe)
    for pixels, told in (
        (to_tensor(photo), dreamt.activation_before),
        (torch.from_numpy(dreamt.picture.transpose(2, 0, 1).copy()), dreamt.activation_after),
    ):
        rows, columns = (mirrored((-16, -16 + n), size) for n, size in ((128, 70), (160, 100)))
        with torch.no_grad(), capture(tiny.network, [LAYER]) as caught:
            tiny(as_float(pixels[:, rows][:, :, columns])[None])
        assert told == pytest.approx(float(caught[LAYER].square().mean()), rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_network_is_left_alone(tiny: Classifier, training: bool):
    tiny.train(training)
    for parameter in tiny.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = state_of(tiny.network)
    ts.dream(tiny, photo_of(80, 64), LAYER, recipe=QUICK)
    assert same_state(before, state_of(tiny.network))
    with pytest.raises(InputError):
        ts.dream(tiny, photo_of(80, 64), LAYER, channel=99, recipe=QUICK)
    assert same_state(before, state_of(tiny.network))


def test_one_channel(tmp_path: Path):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    network.append(nn.Linear(6, 2))
    grey = Classifier(network.eval(), InputSpec((32, 32), 1, (0.5,), (0.5,)), ["a", "b"])
    photo_of(70, 50).save(tmp_path / "colour.png")
    dreamt = ts.dream(grey, tmp_path / "colour.png", "1", recipe=QUICK)
    assert dreamt.picture.shape == (50, 70, 1)
    assert dreamt.activation_after > dreamt.activation_before
    dreamt.save(tmp_path / "grey.png")
    with Image.open(tmp_path / "grey.png") as written:
        assert (written.mode, written.size) == ("L", (70, 50))


@pytest.mark.parametrize("size", [(150, 97), (40, 36)])
def test_a_network_of_one_size_gets_tiles_of_it(size: tuple[int, int]):
    network = vit()
    seen: set[tuple[int, ...]] = set()
    with torch.no_grad(), pytest.raises(AssertionError):
        network(torch.zeros(1, 3, 97, 150))
    handle = network.network.register_forward_pre_hook(
        lambda _module, inputs: seen.add(tuple(inputs[0].shape[2:]))
    )
    dreamt = ts.dream(network, photo_of(*size), "blocks.1", recipe=ts.DreamRecipe(steps=2))
    handle.remove()
    assert seen == {(64, 64), (96, 96)}, "its size, and the one trial whether it takes another"
    assert dreamt.size == size
    assert dreamt.activation_after > dreamt.activation_before
    with pytest.raises(InputError, match="leave --tile out"):
        ts.dream(network, photo_of(*size), "blocks.1", recipe=QUICK)


def test_tiles_are_never_larger_than_asked(tiny: Classifier):
    """Memory is the tile's: no pass sees more, however large the photo."""
    seen: list[tuple[int, int]] = []
    handle = tiny.network.stem.register_forward_pre_hook(
        lambda _module, inputs: seen.append(tuple(inputs[0].shape[2:]))
    )
    recipe = ts.DreamRecipe(steps=1, tile=128, octaves=1)
    ts.dream(tiny, photo_of(500, 400), LAYER, recipe=recipe)
    handle.remove()
    assert max(map(max, seen)) <= 128
    assert len(seen) > 20


def test_progress_ends_complete(tiny: Classifier):
    told: list[tuple[int, int]] = []
    ts.dream(
        tiny,
        photo_of(150, 97),
        LAYER,
        recipe=QUICK,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert [done for done, _ in told] == list(range(1, len(told) + 1))
    assert {total for _, total in told} == {len(told)}


def test_tiled_gradient_is_the_whole_one(tiny: Classifier):
    """A layer that sees 3 pixels: away from the tiles' borders nothing else can come out."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    network.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)])
    shallow = Classifier(network.eval(), SPEC, ["a", "b"])
    photo = photo_of(230, 170)
    pictures = [
        ts.dream(
            shallow,
            photo,
            "1",
            recipe=ts.DreamRecipe(steps=1, octaves=1, rate=0.05, tile=tile, precision="fp32"),
        ).picture.astype(int)
        for tile in (128, 192, 640)
    ]
    for tiled in pictures[:2]:
        difference = np.abs(tiled - pictures[2])
        assert np.median(difference) <= 1
        assert difference.mean() < 0.1 * np.abs(pictures[2] - np.asarray(photo, int)).mean()


# ---------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("limit", [128, 224, 640])
@pytest.mark.parametrize("length", [33, 200, 224, 640, 1001, 3000])
def test_spans_cover_and_fades_add_up(length: int, limit: int, exact: bool):
    shapes = set()
    for jitter, shift in itertools.product((0, 17, 31), (0.0, 0.37, 0.999)):
        found = spans(length, limit, jitter, shift, exact=exact)
        shapes.add(len(found))
        assert found[0][0] == -jitter
        total = torch.zeros(length)
        for (start, stop), fade in zip(found, fades(found, limit // 8), strict=True):
            assert stop - start == limit if exact else stop - start <= limit
            inside = [i for i in range(start, stop) if 0 <= i < length]
            total[inside] += fade[[i - start for i in inside]]
        assert torch.allclose(total, torch.ones(length), atol=1e-5)
    assert len(shapes) == 1, "the number of tiles must be known before the work"


def test_borders_between_tiles_move():
    starts = {spans(1000, 256, 0, shift, exact=False)[1][0] for shift in (0.0, 0.3, 0.6, 0.99)}
    assert len(starts) == 4


def test_mirror():
    assert mirrored((-3, 8), 4).tolist() == [2, 1, 0, 0, 1, 2, 3, 3, 2, 1, 0]
    assert set(mirrored((-500, 500), 3).tolist()) == {0, 1, 2}


def test_octaves():
    recipe = ts.DreamRecipe()
    sizes = octave_sizes((900, 600), recipe, least=224)
    assert sizes == ((234, 156), (328, 219), (459, 306), (643, 429), (900, 600))
    assert octave_sizes((200, 100), recipe, least=224) == ((200, 100),)
    assert len(octave_sizes((900, 600), ts.DreamRecipe(octaves=2), least=224)) == 2
    assert min(octave_sizes((4000, 100), recipe, least=224)[0]) >= 32
    with pytest.raises(InputError, match="--octaves is 9"):
        octave_sizes((300, 200), ts.DreamRecipe(octaves=9), least=224)


def test_detail_of_the_photo_survives(tiny: Classifier):
    """A fine pattern that the smallest octave cannot hold is there again at the end."""
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 200
    recipe = ts.DreamRecipe(octaves=3, octave_scale=2, steps=1, rate=1e-6)
    dreamt = ts.dream(tiny, Image.fromarray(stripes), LAYER, recipe=recipe)
    lost = _resized(_resized(to_tensor(Image.fromarray(stripes)), (32, 32)), (128, 128))
    assert float(lost.std(dim=2).max()) < 0.1
    assert np.abs(dreamt.picture.astype(int) - stripes).max() <= 1


def test_bands_are_levelled():
    noise = torch.rand(3, 64, 48, generator=torch.Generator().manual_seed(0)) - 0.5
    fine = noise - _resized(_resized(noise, (24, 32)), (48, 64))
    coarse = _resized(_resized(noise, (3, 4)), (48, 64))
    mixed = _levelled(fine + 0.01 * coarse)
    assert float(mixed.abs().mean()) == pytest.approx(1, rel=1e-4)
    low = _resized(_resized(mixed, (3, 4)), (48, 64))
    assert float(low.abs().mean()) > 0.1
    for factor in (1e-6, 1e3):  # how strong a gradient is tells nothing
        assert torch.allclose(_levelled(factor * (fine + 0.01 * coarse)), mixed, atol=1e-3)
    assert torch.equal(_levelled(torch.zeros(3, 40, 40)), torch.zeros(3, 40, 40))


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"octaves": 0}, "--octaves is 0"),
        ({"octave_scale": 1.0}, "--octave-scale is 1"),
        ({"octave_scale": math.nan}, "--octave-scale is nan"),
        ({"steps": 0}, "--steps is 0"),
        ({"rate": 0.0}, "--rate is 0"),
        ({"rate": math.inf}, "--rate is inf"),
        ({"tile": 8}, "--tile is 8"),
    ],
)
def test_options_out_of_range(options: dict[str, float], message: str):
    with pytest.raises(InputError, match=message):
        ts.DreamRecipe(**options)


def test_refused_photos(tiny: Classifier, tmp_path: Path):
    with pytest.raises(InputError, match=r"20 x 30.*give --size 400"):
        ts.dream(tiny, photo_of(20, 30), LAYER)
    assert read_photo(photo_of(20, 30), channels=3, size=90).size == (60, 90)
    with pytest.raises(InputError, match="more than 50 megapixels"):
        read_photo(photo_of(40, 40), channels=3, size=9000)
    with pytest.raises(InputError, match="mode RGBA"):
        ts.dream(tiny, photo_of(40, 40, "RGBA"), LAYER)
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(PictureError):
        ts.dream(tiny, tmp_path / "cut.png", LAYER)


def test_refused_targets(tiny: Classifier):
    photo = photo_of(64, 64)
    with pytest.raises(UnknownName, match=r"no layer 'stages\.9'"):
        ts.dream(tiny, photo, "stages.9")
    with pytest.raises(InputError, match="8 channels"):
        ts.dream(tiny, photo, LAYER, channel=8)
    with pytest.raises(InputError, match="looks at no layer"):
        ts.dream(tiny, photo, ts.total_variation())
    with pytest.raises(InputError, match="goes with a layer's name"):
        ts.dream(tiny, photo, ts.layer_energy(LAYER), channel=1)


def test_a_dead_channel_is_said_so():
    dead = tiny_classifier()
    with torch.no_grad():
        dead.network.stages[1].bn2.weight.zero_()
        dead.network.stages[1].bn2.bias.fill_(-100)
    with pytest.raises(InputError, match="no gradient anywhere"):
        ts.dream(dead, photo_of(64, 64), LAYER, channel=2, recipe=QUICK)


# ---------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("suffix", "written_as"),
    [(".png", "PNG"), (".JPG", "JPEG"), (".jpeg", "JPEG"), (".webp", "WEBP")],
)
def test_files(tiny: Classifier, tmp_path: Path, suffix: str, written_as: str):
    photo_of(90, 60).save(tmp_path / "photo.png")
    out = tmp_path / "new" / f"dream{suffix}"
    row = dream_file(tiny, tmp_path / "photo.png", LAYER, out=out, recipe=QUICK)
    with Image.open(out) as written:
        assert (written.format, written.size) == (written_as, (90, 60))
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    assert row["file"] == str(out)
    assert (row["layer"], row["channel"], row["size"], row["steps"]) == (LAYER, None, [90, 60], 2)
    assert row["octaves"] == 2
    assert row["activation_after"] > row["activation_before"]


def test_orientation_and_transparency(tiny: Classifier, tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo_of(90, 60).save(tmp_path / "turned.jpg", exif=exif)
    row = dream_file(tiny, tmp_path / "turned.jpg", LAYER, out=tmp_path / "a.png", recipe=QUICK)
    assert row["size"] == [60, 90]
    clear = photo_of(64, 64, "RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    assert np.asarray(read_photo(tmp_path / "clear.png", channels=3)).min() == 255


def test_size_enlarges(tiny: Classifier, tmp_path: Path):
    photo_of(40, 30).save(tmp_path / "small.png")
    out = tmp_path / "large.png"
    row = dream_file(tiny, tmp_path / "small.png", LAYER, out=out, recipe=QUICK, size=120)
    assert row["size"] == [120, 90]


def test_refused_files(tiny: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All of it before the work: the network is never asked."""
    photo = tmp_path / "photo.png"
    photo_of(64, 64).save(photo)
    before = photo.read_bytes()
    link = tmp_path / "link.png"
    link.symlink_to(photo)
    (tmp_path / "folder.png").mkdir()
    monkeypatch.setattr(
        "transferscope.workflows.dream.dream", lambda *_, **__: pytest.fail("worked")
    )
    for out, error, message in (
        (tmp_path / "dream.gif", InputError, r"use \.png, \.jpg"),
        (tmp_path / "dream", InputError, "names no format"),
        (photo, InputError, "the photo itself"),
        (link, InputError, "the photo itself"),
        (tmp_path / "folder.png", OutputError, "is a folder"),
        (photo / "dream.png", OutputError, "cannot write"),
    ):
        with pytest.raises(error, match=message):
            dream_file(tiny, photo, LAYER, out=out, recipe=QUICK)
    assert photo.read_bytes() == before
    with pytest.raises(InputError, match="at most 16383"):
        refuse_dream_file("a.webp", (17000, 40))


# ---------------------------------------------------------------------------- the verb


@pytest.fixture
def model(weights: Path, tmp_path: Path) -> Path:
    load_backbone(BACKBONE, weights=weights).save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_verb_speaks_json(model: Path, tmp_path: Path):
    photo_of(90, 60).save(tmp_path / "photo.png")
    out = tmp_path / "dream.jpg"
    done = command(
        *(
            "dream",
            model,
            tmp_path / "photo.png",
            "--layer",
            "blocks.1",
            "--channel",
            2,
            "--out",
            out,
        ),
        *("--steps", 2, "--octaves", 2, "--size", 120, "--json", "--quiet"),
    )
    assert (done.exit_code, done.stderr) == (0, "")
    row = json.loads(done.stdout)
    after = row.pop("activation_after")
    assert after > row.pop("activation_before")
    assert row == {
        "file": str(out),
        "layer": "blocks.1",
        "channel": 2,
        "size": [120, 80],
        "octaves": 2,
        "steps": 2,
        "seed": 0,
    }
    with Image.open(out) as written:
        assert written.size == (120, 80)


def test_verb_says_one_octave(model: Path, tmp_path: Path):
    photo_of(90, 60).save(tmp_path / "photo.png")
    options = ("--layer", "blocks.1", "--out", tmp_path / "dream.png", "--steps", 1, "--quiet")
    done = command("dream", model, tmp_path / "photo.png", *options, "--octaves", 1)
    assert "90 x 60, 1 octave; mean square of the layer" in done.stdout


def test_verb_refuses_in_one_sentence(model: Path, tmp_path: Path):
    photo_of(90, 60).save(tmp_path / "photo.png")
    out = tmp_path / "dream.gif"
    done = command("dream", model, tmp_path / "photo.png", "--layer", "blocks.1", "--out", out)
    assert done.exit_code == 2
    assert "names no format" in done.stderr
    assert not out.exists()


def test_verb_has_the_recipe_s_defaults():
    told = {name: option.default for name, option in inspect.signature(verb).parameters.items()}
    for name, default in asdict(ts.DreamRecipe()).items():
        assert name == "precision" or told[name] == default
