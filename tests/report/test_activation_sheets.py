"""What a network is made of and what it makes of a picture: the right maps, whole, and no trace left."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from torch import nn

from conftest import SPEC, Heard, command, same_state, state_of, tiny_classifier
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError, OutputError, PictureError, UnknownName
from transferscope.images import InputSpec, as_float
from transferscope.report.sheets import activations as drawn
from transferscope.report.sheets.activations import LayerMaps, write_sheet
from transferscope.workflows.activations import activation_sheets, activations_of
from transferscope.workflows.layers import describe_layers

CONVOLUTIONS = ["stem"] + [f"stages.{i}.conv{j}" for i in range(3) for j in (1, 2)]


def noise(width: int, height: int, *, mode: str = "RGB") -> Image.Image:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8))


@pytest.fixture
def photo(tmp_path):
    file = tmp_path / "photo.png"
    noise(60, 45).save(file)
    return file


def classifier_of(body: nn.Module, *, features: int, spec: InputSpec = SPEC) -> Classifier:
    """`body` before a linear head of two classes."""
    torch.manual_seed(0)
    network = nn.Sequential()
    network.add_module("body", body)
    network.add_module("flat", nn.Flatten())
    network.add_module("head", nn.Linear(features, 2))
    return Classifier(network.eval(), spec, ["one", "two"])


def normalised(classifier: Classifier, image) -> torch.Tensor:
    return classifier.input.normalise(as_float(classifier.input.load(image))[None])


# ---------------------------------------------------------------------------- the right maps


def test_every_convolution_in_the_order_of_the_forward_pass(tiny, photo, tmp_path):
    out = tmp_path / "sheets"
    found = activation_sheets(tiny, photo, out=out)
    assert [sheet.layer for sheet in found] == CONVOLUTIONS
    assert [sheet.pages for sheet in found] == [
        (str(out / f"{i:03d}-{name}.png"),) for i, name in enumerate(CONVOLUTIONS, start=1)
    ]
    page = (out / "index.html").read_text()
    places = [page.index(f'href="{i:03d}-{n}.png"') for i, n in enumerate(CONVOLUTIONS, start=1)]
    assert places == sorted(places)
    with Image.open(out / "picture.png") as seen:
        assert np.array_equal(np.asarray(seen), tiny.input.load(photo).permute(1, 2, 0).numpy())


def test_maps_and_numbers_are_those_of_the_forward_pass_by_hand(tiny, photo, tmp_path):
    network = tiny.network
    with torch.no_grad():
        stem = network.stem(normalised(tiny, photo))
        first = network.stages[0].conv1(stem)
        normed = network.stages[0].bn1(first)
        block = network.stages[0](stem)
    names = ["stages.0", "stages.0.relu", "stages.0.bn1", "stages.0.conv1", "stem"]
    found = activations_of(tiny, photo, names)
    assert list(found) == ["stem", "stages.0.conv1", "stages.0.bn1", "stages.0.relu", "stages.0"]
    for name, expected in (
        ("stem", stem),
        ("stages.0.conv1", first),
        ("stages.0.bn1", normed),  # not what the ReLU in its place makes of it
        ("stages.0.relu", block),  # of two runs the last
        ("stages.0", block),
    ):
        assert np.allclose(found[name], expected[0].numpy(), atol=1e-6), name
    assert (found["stages.0.bn1"] < 0).any()
    (shared,) = activation_sheets(tiny, photo, out=tmp_path / "out", layers=["stages.0.relu"])
    assert shared.max == pytest.approx(float(block.max()), abs=1e-6)
    sheet = activation_sheets(tiny, photo, out=tmp_path / "out", layers=["stages.0.bn1"])[0]
    assert sheet.shape == (8, 16, 16)
    assert sheet.min == pytest.approx(float(normed.min()), abs=1e-6)
    assert sheet.max == pytest.approx(float(normed.max()), abs=1e-6)
    assert sheet.mean == pytest.approx(float(normed.mean()), abs=1e-6)


class Tokens(nn.Module):
    """A patch embedding, a class and a register token before its 4 x 2 tokens, eight blocks."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 6, 8, stride=8, groups=3)
        self.before = nn.Parameter(torch.zeros(1, 2, 6))
        self.blocks = nn.Sequential(*(self.block() for _ in range(8)))

    def block(self) -> nn.Module:
        return nn.Sequential(*(nn.Linear(6, 6) for _ in range(6)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        return self.blocks(torch.cat([self.before, tokens], 1))[:, :1]


def test_tokens_lie_on_their_grid_and_blocks_are_drawn_by_default(photo):
    spec = InputSpec((32, 16), 3, SPEC.mean, SPEC.std, "bilinear", 1.0)
    classifier = classifier_of(Tokens(), features=6, spec=spec)
    found = activations_of(classifier, photo)
    assert list(found) == ["body.embed", *(f"body.blocks.{i}" for i in range(8))]
    body = classifier.network.body
    with torch.no_grad():
        tokens = body.embed(normalised(classifier, photo)).flatten(2).transpose(1, 2)
        after = body.blocks[0](tokens)[0]
    assert found["body.blocks.0"].shape == (6, 4, 2)
    for row in range(4):
        for column in range(2):
            expected = after[2 * row + column].numpy()
            assert np.allclose(found["body.blocks.0"][:, row, column], expected, atol=1e-6)


class ChannelsLast(nn.Module):
    """Normalises (h, w, C), as ConvNeXt and Swin do."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 4, stride=4)
        self.norm = nn.LayerNorm(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x).permute(0, 2, 3, 1))


def test_channels_as_the_last_axis_become_maps(photo, tmp_path):
    classifier = classifier_of(ChannelsLast(), features=320)
    for name in ("body", "body.norm"):
        found = activations_of(classifier, photo, [name])[name]
        with torch.no_grad():
            expected = classifier.network.body(normalised(classifier, photo))[0].permute(2, 0, 1)
        assert np.allclose(found, expected.numpy(), atol=1e-6)
    sheet = activation_sheets(classifier, photo, out=tmp_path / "out", layers=["body.norm"])[0]
    assert (sheet.shape, sheet.channels) == ((8, 8, 5), 5)


def test_a_vector_is_drawn_as_bars_and_logits_are_named(tiny, photo, tmp_path):
    sheet = activation_sheets(tiny, photo, out=tmp_path / "out", layers=["head"])[0]
    assert (sheet.shape, sheet.channels, len(sheet.pages)) == ((4,), 4, 1)
    with torch.no_grad():
        logits = tiny(as_float(tiny.input.load(photo))[None])[0]
    assert np.allclose(activations_of(tiny, photo, ["head"])["head"], logits, atol=1e-5)
    best = tiny.classes[int(logits.argmax())]
    maps = LayerMaps("head", "Linear", (4,), logits.numpy(), names=tiny.classes)
    assert drawn._largest(maps).startswith(f"largest: {best} ")


def test_a_network_of_one_channel_sees_grey(tmp_path):
    spec = InputSpec((20, 30), 1, (0.5,), (0.5,), "bilinear", 1.0)
    classifier = classifier_of(nn.Conv2d(1, 3, 3, stride=2), features=3 * 9 * 14, spec=spec)
    sheet = activation_sheets(classifier, noise(30, 20), out=tmp_path / "out")[0]
    assert sheet.shape == (3, 9, 14)
    with Image.open(tmp_path / "out" / "picture.png") as seen:
        assert (seen.mode, seen.size) == ("L", (30, 20))


def test_arrays_are_saved_where_asked_for(tiny, photo, tmp_path):
    activation_sheets(tiny, photo, out=tmp_path / "plain", layers=["stem"])
    assert not (tmp_path / "plain" / "maps.safetensors").exists()
    activation_sheets(tiny, photo, out=tmp_path / "out", save_arrays=True)
    saved = load_file(tmp_path / "out" / "maps.safetensors")
    expected = activations_of(tiny, photo)
    assert set(saved) == set(expected)
    assert all(np.array_equal(saved[name], expected[name]) for name in saved)


# ---------------------------------------------------------------------------- sheets


def written(folder, values: np.ndarray, **options):
    maps = LayerMaps("layer", "Kind", values.shape, values.astype(np.float32))
    sheet = write_sheet(folder, 7, maps, noise(32, 32), **options)
    return sheet, [np.asarray(Image.open(folder / file)) for file in sheet.pages]


def tile(page: np.ndarray, values: np.ndarray, place: int) -> np.ndarray:
    """The pixels of the map at a place of a page."""
    tiling = drawn._Tiling.of(values)
    row, column = divmod(place, tiling.columns)
    top = 2 * drawn._MARGIN + drawn._HEAD + row * tiling.row + drawn._LABEL
    left = drawn._MARGIN + column * tiling.step
    return page[top : top + tiling.height, left : left + tiling.width]


def test_colours_tell_sign_size_and_what_is_no_number(tmp_path):
    values = np.zeros((5, 4, 4))
    values[0] = 2
    values[1] = -2
    values[2] = 1
    values[4] = np.nan
    sheet, (page,) = written(tmp_path, values)
    colours = [tile(page, values, place).reshape(-1, 3) for place in range(5)]
    assert all((one == one[0]).all() for one in colours)
    most, least, half, zero, strange = (one[0].astype(int) for one in colours)
    assert most[0] > most[2]  # warm
    assert least[2] > least[0]  # cold
    assert zero.sum() < half.sum() < most.sum()
    assert zero.sum() < least.sum()
    assert tuple(strange) == drawn._NOT_FINITE
    assert (sheet.dead, sheet.non_finite, sheet.min, sheet.max) == (1, 16, -2, 2)
    assert sheet.mean == pytest.approx(0.25)


def test_one_scale_for_the_layer_or_one_a_channel(tmp_path):
    values = np.stack([np.full((3, 3), 1.0), np.full((3, 3), 100.0)])
    _, (page,) = written(tmp_path, values)
    assert not np.array_equal(tile(page, values, 0), tile(page, values, 1))
    _, (page,) = written(tmp_path, values, scale="channel")
    assert np.array_equal(tile(page, values, 0), tile(page, values, 1))


def test_one_extreme_value_does_not_darken_the_others(tmp_path):
    values = np.ones((40, 5, 5))
    values[0, 0, 0] = 1e6
    _, (page,) = written(tmp_path, values)
    end = tile(page, values, 0)[0, 0]
    assert (tile(page, values, 30) == end).all()


@pytest.mark.parametrize("shape", [(3, 1, 7), (2, 5, 90), (2, 200, 301), (1, 400, 9)])
def test_maps_of_any_shape_keep_their_pixels_in_place(shape, tmp_path):
    values = np.zeros(shape)
    values[:, : shape[1] // 2 or 1, : shape[2] // 2 or 1] = 1
    _, (page,) = written(tmp_path, values)
    shown = tile(page, values, shape[0] - 1).astype(int).sum(axis=2)
    height, width = shown.shape
    assert shown[0, 0] > 3 * shown[0, -1]
    assert (height / width) == pytest.approx(shape[1] / shape[2], rel=0.05)
    tiling = drawn._Tiling.of(values)
    assert (tiling.columns - 1) * tiling.step + tiling.label <= drawn._WIDTH


def test_squares_averaged_at_the_edge_count_only_what_is_there():
    values = np.arange(2 * 5 * 7, dtype=np.float32).reshape(2, 5, 7)
    found = drawn._averaged(values, 3)
    assert found.shape == (2, 2, 3)
    for channel in range(2):
        for i in range(2):
            for j in range(3):
                square = values[channel, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3]
                assert found[channel, i, j] == pytest.approx(square.mean(), rel=1e-6)


def test_large_layers_have_pages_and_each_channel_its_place(tmp_path):
    values = np.zeros((300, 7, 7))
    values[299] = 1
    sheet, pages = written(tmp_path, values)
    per_page = drawn._Tiling.of(values).per_page
    assert len(pages) == math.ceil(300 / per_page) == 2
    assert sheet.pages == ("007-layer-1.png", "007-layer-2.png")
    assert (tile(pages[1], values, 299 - per_page) > 100).any()
    assert (tile(pages[1], values, 298 - per_page) < 100).all()
    assert sheet.dead == 299


def test_bars_rise_and_fall_from_zero(tmp_path):
    _, (page,) = written(tmp_path, np.array([4.0, -4.0, 0.0, np.inf]))
    step = drawn._WIDTH // drawn._BARS
    columns = [
        page[2 * drawn._MARGIN + drawn._HEAD :, drawn._MARGIN + 4 + i * step] for i in range(4)
    ]
    up, down, none, strange = (set(map(tuple, column)) for column in columns)
    assert drawn._WARM[1] in up
    assert drawn._COLD[1] in down
    assert not {drawn._WARM[1], drawn._COLD[1]} & none
    assert drawn._NOT_FINITE in strange


def test_the_page_says_which_network_it_is_of(tiny, photo, tmp_path):
    activation_sheets(tiny, photo, out=tmp_path / "out")
    assert tiny.backbone in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    activation_sheets(tiny, photo, out=tmp_path / "run", called="my run")
    assert "my run" in (tmp_path / "run" / "index.html").read_text(encoding="utf-8")


def test_names_in_any_script(photo, tmp_path):
    inner = nn.ModuleDict({"层<b>": nn.Conv2d(3, 2, 8, stride=8)})
    body = nn.Sequential()
    body.add_module("第一", inner["层<b>"])
    file = tmp_path / "猫 <script>.png"
    photo.rename(file)
    classifier = classifier_of(body, features=32)
    sheet = activation_sheets(classifier, file, out=tmp_path / "out")[0]
    assert sheet.pages == (str(tmp_path / "out" / "001-body.第一.png"),)
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "猫 &lt;script&gt;.png" in page
    assert "<script>.png" not in page
    assert "body.第一" in page


# ---------------------------------------------------------------------------- nothing left behind


def test_the_network_is_untouched(photo, tmp_path):
    classifier = tiny_classifier()
    classifier.network.train()
    classifier.network.stem.weight.requires_grad_(False)
    before = state_of(classifier.network)
    activation_sheets(classifier, photo, out=tmp_path / "out")
    activations_of(classifier, photo, ["head"])
    describe_layers(classifier)
    assert same_state(before, state_of(classifier.network))


class Awkward(nn.Module):
    """A layer with two outputs, one that never runs, and one that sees the picture in pieces."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.idle = nn.Conv2d(3, 3, 1)
        self.pieces = nn.Conv2d(3, 4, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pieces = x.unfold(2, 16, 16).unfold(3, 16, 16).flatten(2, 3).transpose(1, 2).flatten(0, 1)
        tokens = self.pieces(pieces).view(len(x), 4, 4)
        return self.attention(tokens, tokens, tokens)[0]


@pytest.mark.parametrize(
    ("layer", "error", "words"),
    [
        ("body.pices", UnknownName, "did you mean 'body.pieces'"),
        ("body.idle", InputError, "never run"),
        ("body.attention", InputError, "returns a tuple"),
        ("body.pieces", InputError, "first axis"),
        ("body", InputError, "no tokens on the picture's grid"),
    ],
)
def test_what_cannot_be_drawn_is_said_and_nothing_is_written(layer, error, words, photo, tmp_path):
    classifier = classifier_of(Awkward(), features=16)
    before = state_of(classifier.network)
    with pytest.raises(error, match=words):
        activation_sheets(classifier, photo, out=tmp_path / "out", layers=[layer])
    assert list(tmp_path.iterdir()) == [photo]
    assert same_state(before, state_of(classifier.network))


def test_a_convolution_that_nobody_named_is_left_out_and_told(photo, tmp_path):
    classifier = classifier_of(Awkward(), features=16)
    heard = Heard()
    found = activation_sheets(classifier, photo, out=tmp_path / "out", reporter=heard)
    assert "body.pieces" not in [sheet.layer for sheet in found]
    assert any("left out: layer 'body.pieces'" in text for text in heard.lines)


def test_a_picture_that_cannot_be_read_leaves_the_folder_as_it_was(tiny, photo, tmp_path):
    out = tmp_path / "out"
    activation_sheets(tiny, photo, out=out)
    before = sorted(out.rglob("*"))
    photo.write_bytes(photo.read_bytes()[:200])
    with pytest.raises(PictureError, match="damaged"):
        activation_sheets(tiny, photo, out=out)
    with pytest.raises(PictureError, match="no such file"):
        activation_sheets(tiny, tmp_path / "nowhere.png", out=out)
    assert sorted(out.rglob("*")) == before


def test_the_folder_is_replaced_whole_and_another_one_refused(tiny, photo, tmp_path):
    out = tmp_path / "out"
    activation_sheets(tiny, photo, out=out)
    activation_sheets(tiny, photo, out=out, layers=["head"])
    assert sorted(file.name for file in out.glob("0*")) == ["001-head.png"]
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years")
    with pytest.raises(OutputError, match="would be lost"):
        activation_sheets(tiny, photo, out=foreign)
    assert [file.name for file in foreign.iterdir()] == ["thesis.txt"]


# ---------------------------------------------------------------------------- layers


def test_layers_are_described_and_added_up():
    classifier = tiny_classifier()
    classifier.network.stem.requires_grad_(False)
    found = describe_layers(classifier)
    rows = {row.name: row for row in found.layers}
    assert next(iter(rows)) == "stem"
    assert rows["stages.0"].container
    assert not rows["stages.0.conv1"].container
    assert rows["stages.0.relu"].calls == 2
    assert rows["stem"].trainable == 0
    assert rows["head"].stage == "head"
    parameters = 8 * 3 * 9 + 8 + 6 * (8 * 8 * 9 + 16) + 8 * 4 + 4
    assert found.parameters == parameters
    assert found.trainable == parameters - (8 * 3 * 9 + 8)
    assert found.buffers == 6 * (8 + 8 + 1)
    assert found.weight_bytes == 4 * (parameters + 6 * 16) + 8 * 6
    # Of a block: two convolutions, two norms, and one ReLU twice; then dropout and head.
    maps = 1 + 3 * 6
    assert found.activation_bytes == 4 * (maps * 8 * 16 * 16 + 8 + 4)
    assert found.macs == 16 * 16 * (8 * 27 + 6 * 8 * 72) + 8 * 4
    listed = json.loads(json.dumps([row.to_dict() for row in found.layers]))
    assert {"name", "type", "stage", "output_shape", "parameters", "trainable"} <= set(listed[0])


def test_layers_without_a_single_tensor_have_no_shape():
    found = {row.name: row for row in describe_layers(classifier_of(Awkward(), features=16)).layers}
    assert found["body.attention"].output_shape == ()
    assert "body.idle" not in found


# ---------------------------------------------------------------------------- the command line


def test_the_verbs_print_what_the_functions_return(photo, tmp_path):
    out = tmp_path / "out"
    asked = ("activations", "efficientnet_lite0", photo, "--out", out, "--layer", "classifier")
    done = command(*asked, "--layer", "conv_stem", "--scale", "channel", "--save-arrays", "--json")
    assert done.exit_code == 0, done.stderr
    stem, logits = json.loads(done.stdout)
    assert (stem["layer"], stem["type"], stem["shape"]) == (
        "conv_stem",
        "Conv2dSame",
        [32, 112, 112],
    )
    assert stem["pages"] == [str(out / "001-conv_stem.png")]
    assert {"dead", "min", "max", "mean"} <= set(logits)
    saved = load_file(out / "maps.safetensors")
    assert float(saved["classifier"].max()) == pytest.approx(logits["max"])
    done = command(*asked[:-1], "clasifier")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "did you mean 'classifier'" in done.stderr
    done = command("layers", "efficientnet_lite0")
    assert done.exit_code == 0
    assert "4,652,008 parameters" in done.stdout
    assert "385 million multiply-accumulates" in done.stdout
