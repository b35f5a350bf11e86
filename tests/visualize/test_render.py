"""Objectives, parametrizations, transforms, the loop and the sweep."""

from __future__ import annotations

import shutil
import subprocess
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import transferscope as ts
from conftest import SPEC, TinyNet, narrow, same_state, state_of, tiny_classifier
from forks import python
from transferscope.acceleration.depthwise import phased
from transferscope.acceleration.network import RedirectableReLU, with_redirectable_relus
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.weights import load_backbone
from transferscope.errors import InputError, UnknownName, WeightsError
from transferscope.images import InputSpec, as_float
from transferscope.visualize.canvas import fourier, pixel
from transferscope.visualize.movement import (
    GREY,
    Movement,
    draw_moves,
    move,
    movements_of,
    seed_of,
)
from transferscope.visualize.objectives.channels import channel, channels, logit, neuron
from transferscope.visualize.objectives.penalties import total_variation
from transferscope.visualize.recipe import RenderRecipe
from transferscope.visualize.records import Drawn
from transferscope.visualize.render import judge, render, render_channels
from transferscope.visualize.units import Sweep, WorkUnit

FOLDERS = [str(folder) for folder in (Path(__file__).parents[1], Path(__file__).parent)]
"""Where processes that are started here find the tests' own modules."""

LAYER = "stages.1.bn2"
pytestmark = pytest.mark.usefixtures("two_threads")


# ---------------------------------------------------------------------------- objectives


def activations() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "maps": torch.randn(3, 5, 4, 6, generator=generator),
        "tokens": torch.randn(3, 7, 5, generator=generator),
        "<logits>": torch.randn(3, 4, generator=generator),
    }


def test_objectives_are_what_their_names_say():
    found, x = activations(), torch.rand(3, 3, 8, 8)
    torch.testing.assert_close(channel("maps", 2)(found, x), found["maps"][:, 2].mean((1, 2)))
    torch.testing.assert_close(channel("tokens", 2)(found, x), found["tokens"][:, :, 2].mean(1))
    torch.testing.assert_close(channel("maps", 2, "minus")(found, x), -channel("maps", 2)(found, x))
    torch.testing.assert_close(neuron("maps", 1)(found, x), found["maps"][:, 1, 2, 3])
    torch.testing.assert_close(logit(3)(found, x), found["<logits>"][:, 3])
    each = channels("maps", [4, 0, 2])(found, x)
    torch.testing.assert_close(
        each, torch.stack([found["maps"][i, c].mean() for i, c in enumerate([4, 0, 2])])
    )
    flat = torch.full((1, 3, 8, 8), 0.3)
    assert float(total_variation()(found, flat)) == 0


def test_objectives_add_subtract_and_scale():
    found, x = activations(), torch.rand(3, 3, 8, 8)
    a, b = channel("maps", 0), neuron("tokens", 1)
    va, vb = a(found, x), b(found, x)
    for combined, wanted in [
        (a + b, va + vb),
        (a - 2 * b, va - 2 * vb),
        (1 - a / 4, 1 - va / 4),
        (a * b, va * vb),
        (3 / (a + 9), 3 / (va + 9)),
        (-a, -va),
    ]:
        torch.testing.assert_close(combined(found, x), wanted)
    assert (a + b).layers == ("maps", "tokens")


def test_channels_that_do_not_exist_are_refused():
    found, x = activations(), torch.rand(3, 3, 8, 8)
    with pytest.raises(InputError, match=r"channel 5 of 'maps' does not exist.*0 to 4"):
        channel("maps", 5)(found, x)
    with pytest.raises(InputError, match="one channel a picture"):
        channels("maps", [0, 1])(found, x)
    with pytest.raises(InputError, match="'up'"):
        channel("maps", 0, "up")(found, x)


# ---------------------------------------------------------------------------- parametrizations


@pytest.mark.parametrize("parametrization", [fourier, pixel])
@pytest.mark.parametrize("shape", [(3, 32, 48), (1, 33, 32)])
def test_a_canvas_starts_near_grey_the_same_in_any_batch_and_from_a_picture(parametrization, shape):
    def generators(*seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    device = torch.device("cpu")
    both = parametrization(generators(1, 2), shape, device=device).pictures().detach()
    alone = parametrization(generators(2), shape, device=device).pictures().detach()
    torch.testing.assert_close(both[1:], alone)
    assert not torch.equal(both[0], both[1])
    assert float((both - 0.5).abs().max()) < 0.2
    given = torch.rand(1, *shape) * 0.9 + 0.05
    canvas = parametrization(generators(0), shape, device=device, start=given)
    again = canvas.pictures().detach()
    torch.testing.assert_close(again, given, rtol=1e-3, atol=1e-3)


def test_gradients_of_one_picture_do_not_reach_another():
    gens = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    canvas = fourier(gens, (3, 32, 32), device=torch.device("cpu"))
    canvas.pictures()[0].sum().backward()
    assert canvas.free.grad[0].abs().sum() > 0
    assert canvas.free.grad[1].abs().sum() == 0


def test_no_movement_leaves_the_picture_where_it_is():
    x = torch.rand(2, 3, 32, 40)
    still = Movement(jitter=0, scale=(1, 1), rotation=0)
    torch.testing.assert_close(move(x, torch.zeros(2, 4), still), x, rtol=1e-4, atol=1e-4)
    twice = move(x, torch.zeros(2, 4), Movement(jitter=0, scale=(2, 2), rotation=0))
    wanted = nn.functional.interpolate(x[:, :, 8:24, 10:30], scale_factor=2, mode="bilinear")
    torch.testing.assert_close(
        twice[..., 2:-2, 2:-2], wanted[..., 2:-2, 2:-2], rtol=1e-3, atol=1e-3
    )


def test_movements_are_each_pictures_own():
    assert seed_of("layer", 7, "plus", 0) == seed_of("layer", 7, "plus", 0)
    assert seed_of("layer", 7, "plus", 0) != seed_of("layer", 7, "plus", 1)
    moves = draw_moves([movements_of(1), movements_of(2)])
    torch.testing.assert_close(moves[1:], draw_moves([movements_of(2)]), rtol=0, atol=0)
    assert not torch.equal(moves[0], moves[1])
    x = torch.rand(2, 3, 32, 32)
    together = move(x, moves, Movement())
    torch.testing.assert_close(together[1:], move(x[1:], moves[1:], Movement()))


def test_movements_fill_their_range_more_evenly_than_independent_draws():
    own = movements_of(3)
    moves = torch.cat([draw_moves([own]) for _ in range(64)])
    assert moves.shape == (64, 4)
    assert -1 <= moves.min() < moves.max() < 1
    independent = torch.rand(64, 4, generator=torch.Generator().manual_seed(4)) * 2 - 1

    def largest_gap(column):
        return column.sort().values.diff().max()

    for number in range(4):
        # 64 even steps are 0.03 apart, and independent draws leave gaps of 0.1 to 0.2
        assert largest_gap(moves[:, number]) < 0.07
        assert largest_gap(independent[:, number]) > 0.09
    # and the four are not tied to each other
    assert torch.corrcoef(moves.T).fill_diagonal_(0).abs().max() < 0.1


@pytest.mark.parametrize(
    ("shape", "size"), [((2, 3, 32, 32), (48, 48)), ((2, 1, 20, 40), (40, 80))]
)
def test_places_are_those_of_an_affine_map(shape, size):
    movement, moves = Movement(0.1, (0.8, 1.3), 20), torch.rand(2, 4) * 2 - 1
    zoom = 1 / (1.05 + moves[:, 2] * 0.25)
    angle = moves[:, 3] * torch.pi / 9
    cosine, sine, ratio = torch.cos(angle) * zoom, torch.sin(angle) * zoom, shape[2] / shape[3]
    matrix = torch.stack(
        [
            torch.stack([cosine, -sine * ratio, moves[:, 0] * 0.2], -1),
            torch.stack([sine / ratio, cosine, moves[:, 1] * 0.2], -1),
        ],
        1,
    )
    places = nn.functional.affine_grid(matrix, [2, shape[1], *size], False)
    x = torch.rand(shape)
    wanted = nn.functional.grid_sample(x - GREY, places, align_corners=False) + GREY
    moved = move(x, moves, movement, size)
    torch.testing.assert_close(moved, wanted, rtol=1e-4, atol=1e-4)
    assert moved.is_contiguous(memory_format=torch.channels_last)


def test_beyond_the_border_lies_what_is_asked_for():
    movement, moves = Movement(0, (0.5, 1), 0), torch.tensor([[0.0, 0.0, -1.0, 0.0]])
    beyond = torch.tensor([2.0, -1.0, 0.25]).view(1, 3, 1, 1)
    moved = move(torch.zeros(1, 3, 32, 32), moves, movement, beyond=beyond)
    torch.testing.assert_close(moved[0, :, 0, 0], beyond.flatten())
    assert moved[0, :, 16, 16].abs().max() < 1e-6


# ---------------------------------------------------------------------------- the private copy


@pytest.mark.parametrize("size", [33, 56])
def test_phased_convolutions_have_the_same_output_and_gradient(size):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(6, 6, 5, stride=2, padding=2, groups=6),
        nn.Conv2d(6, 6, 3, 2, 1, groups=6, bias=False),
    )
    fast = phased(network)
    assert [type(m).__name__ for m in fast] == ["PhasedDepthwise"] * 2
    x = torch.randn(2, 6, size, size, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    network.double()
    fast.double()
    weight = torch.randn_like(network(x))
    (network(x) * weight).sum().backward()
    (fast(y) * weight).sum().backward()
    torch.testing.assert_close(fast(y), network(x))
    torch.testing.assert_close(y.grad, x.grad)


def test_phased_same_padding_of_the_embedded_network():
    classifier = load_backbone("efficientnet_lite0")
    fast = phased(classifier.network).eval()
    x = classifier.example().requires_grad_()
    y = x.detach().clone().requires_grad_()
    classifier.network.eval()(x)[0, 3].backward()
    fast(y)[0, 3].backward()
    assert any(type(m).__name__ == "PhasedDepthwise" for m in fast.modules())
    error = (x.grad - y.grad).norm() / x.grad.norm()
    assert float(error) < 1e-3


def test_redirected_relus_change_the_gradient_only_where_asked():
    network = with_redirectable_relus(nn.Sequential(nn.Linear(4, 4), nn.ReLU6(), nn.Linear(4, 1)))
    x = torch.full((1, 4), -1.0, requires_grad=True)
    with torch.no_grad():
        network[0].weight.copy_(torch.eye(4))
        network[0].bias.zero_()
        network[2].weight.fill_(1.0)
    assert isinstance(network[1], RedirectableReLU)
    shut = network(x).sum()
    (gradient,) = torch.autograd.grad(shut, x)
    assert torch.equal(gradient, torch.zeros(1, 4))
    network[1].redirected = True
    opened = network(x).sum()
    assert torch.equal(opened, shut)
    (gradient,) = torch.autograd.grad(opened, x)
    assert torch.equal(gradient, torch.ones(1, 4))


# ---------------------------------------------------------------------------- rendering


def mean_of(classifier: Classifier, layer: str, index: int, picture: np.ndarray) -> float:
    """The channel's mean, straight from the network."""
    x = as_float(torch.from_numpy(picture).permute(2, 0, 1))[None]
    with ts.capture(classifier.network, [layer]) as caught, torch.no_grad():
        classifier(x)
    return float(caught[layer][0, index].mean())


@pytest.mark.parametrize("sign", ["plus", "minus"])
def test_rendering_drives_a_signed_channel_in_its_direction(sign):
    classifier = tiny_classifier()
    before = state_of(classifier)
    (found,) = render_channels(classifier, LAYER, [3], sign=sign, steps=60, precision="fp32")
    assert same_state(before, state_of(classifier))
    assert found.picture.shape == (32, 32, 3)
    assert found.picture.dtype == np.uint8
    factor = 1 if sign == "plus" else -1
    assert found.activation == pytest.approx(
        factor * mean_of(classifier, LAYER, 3, found.picture), abs=1e-4
    )
    draw = np.random.default_rng(0)
    others = [np.full((32, 32, 3), level, dtype=np.uint8) for level in (0, 128, 255)]
    others += [draw.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(20)]
    best = max(factor * mean_of(classifier, LAYER, 3, picture) for picture in others)
    assert found.activation > best
    assert (found.layer, found.channel, found.sign, found.status) == (LAYER, 3, sign, "optimized")


def test_a_channel_is_drawn_the_same_alone_and_in_any_batch():
    classifier = tiny_classifier()
    alone = render_channels(classifier, LAYER, [5], steps=6, precision="fp32")[0]
    third = render_channels(classifier, LAYER, [0, 2, 5], steps=6, precision="fp32")[2]
    difference = np.abs(alone.picture.astype(int) - third.picture.astype(int))
    assert difference.max() <= 2, "rounding of a batched convolution is all that may differ"
    other = render_channels(classifier, LAYER, [5], steps=6, seed=1, precision="fp32")[0]
    assert np.abs(alone.picture.astype(int) - other.picture.astype(int)).max() > 20


class OneGrey(nn.Module):
    """A 1-channel, non-square network with one channel that no picture can open."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.relu = nn.ReLU()
        self.head = nn.Linear(4, 2)
        with torch.no_grad():
            self.conv.bias[1] = -100.0
            self.conv.bias[2] = -2.0  # shut at grey, and some pictures open it

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.relu(self.conv(x)).mean((2, 3)))


def test_shut_relus_are_opened_or_reported_by_what_real_pictures_do():
    torch.manual_seed(0)
    spec = InputSpec((32, 40), 1, (0.5,), (0.25,), "bilinear", 1.0)
    network = OneGrey().eval()
    with torch.no_grad():
        network.conv.weight[2] = network.conv.weight[2].abs() + 0.1
    classifier = Classifier(network, spec, ["a", "b"])
    options = {"steps": 30, "precision": "fp32"}
    found = render_channels(
        classifier, "relu", [0, 1, 2], exemplar_max={0: 0.0, 1: 0.0, 2: 0.01}, **options
    )
    assert [one.status for one in found][1:] == ["dead_on_data", "optimized"]
    assert found[0].picture.shape == (32, 40, 3)
    unknown = render_channels(classifier, "relu", [1], **options)[0]
    assert unknown.status == "zero_gradient"
    assert unknown.exemplar_max is None


def test_a_real_picture_is_the_second_start():
    """A threshold that redirection cannot find, as the shut unit lies behind a function."""

    class Hidden(OneGrey):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = self.relu(torch.relu(self.conv(x) - 0.5))
            return self.head(self.seen.mean((2, 3)))

    torch.manual_seed(0)
    spec = InputSpec((32, 32), 1, (0.0,), (1.0,), "bilinear", 1.0)
    network = Hidden().eval()
    with torch.no_grad():
        network.conv.weight[3] = 0.1
        network.conv.bias[3] = -0.2  # 0.9 p - 0.7: opens for pictures brighter than 0.78
    classifier = Classifier(network, spec, ["a", "b"])
    bright = torch.full((1, 32, 32), 0.95)
    options = {"steps": 24, "precision": "fp32", "exemplar_max": {3: 0.05}}
    assert render_channels(classifier, "relu", [3], **options)[0].status == "zero_gradient"
    helped = render_channels(classifier, "relu", [3], starts={3: bright}, **options)[0]
    assert helped.status == "optimized"
    assert helped.activation > 0.05


def test_what_falls_short_of_a_real_picture_says_so():
    found = render_channels(tiny_classifier(), LAYER, [0], exemplar_max={0: 1e6}, steps=2)
    assert found[0].status == "below_exemplar"


def test_non_finite_networks_are_reported_and_spare_their_neighbours():
    classifier = tiny_classifier()
    with torch.no_grad():
        classifier.network.stages[1].bn2.bias[2] = float("nan")
    bad, good = render_channels(classifier, LAYER, [2, 3], steps=4, precision="fp32")
    assert bad.status == "non_finite"
    assert good.status == "optimized"


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("timm/test_vit", "blocks.1"),
        ("timm/test_convnext", "stages.2"),
        ("densenet121", "features.denseblock1"),
        ("torchvision/resnet18", "layer1.0.bn2"),
    ],
)
def test_other_architectures_are_drawn_too(name, layer):
    torch.manual_seed(0)
    if "/" in name:
        classifier = load_backbone(name, weights="random")
    else:
        classifier = Classifier(narrow(name).eval(), InputSpec((64, 64)), list("abcdefghij"))
    before = state_of(classifier)
    found = render_channels(classifier, layer, [0, 1], steps=3, precision="fp32")
    assert same_state(before, state_of(classifier))
    assert len(found) == 2
    assert all(one.status in ("optimized", "below_exemplar") for one in found)


def test_any_objective_can_be_drawn():
    classifier = tiny_classifier()
    plain = render(classifier, logit(1), steps=10, precision="fp32")
    x = as_float(torch.from_numpy(plain.picture).permute(2, 0, 1))[None]
    with torch.no_grad():
        assert plain.activation == pytest.approx(float(classifier(x)[0, 1]), abs=1e-4)
    smooth = render(classifier, 0 * logit(1) - total_variation(), steps=10, precision="fp32")
    rough = float(total_variation()({}, x))
    assert -smooth.activation < rough


def test_options_out_of_range_are_refused():
    classifier = tiny_classifier()
    with pytest.raises(UnknownName):
        render_channels(classifier, "stages.9", [0])
    with pytest.raises(InputError, match="--steps is 0"):
        render_channels(classifier, LAYER, [0], steps=0)
    with pytest.raises(InputError, match="--size is 8"):
        render_channels(classifier, LAYER, [0], size=8)
    with pytest.raises(InputError, match="channel 8 of"):
        render_channels(classifier, LAYER, [8])


# ---------------------------------------------------------------------------- sweep

RECIPE = RenderRecipe(steps=3, precision="fp32")


def units(classifier: Classifier) -> list[WorkUnit]:
    return [
        WorkUnit.of(classifier, LAYER, (0, 1, 4), seed=seed, recipe=RECIPE) for seed in (0, 1, 2)
    ]


def test_a_sweep_equals_rendering_and_is_never_repeated(tmp_path):
    classifier = tiny_classifier()
    sweep = Sweep(tmp_path)
    sweep.run(classifier, units(classifier))
    direct = render_channels(classifier, LAYER, (0, 1, 4), seed=1, steps=3, precision="fp32")
    best = {0: 1e6, 1: -1e6, 4: None}
    loaded = sweep.load(units(classifier)[1], exemplar_max=best)
    for one, other in zip(loaded, direct, strict=True):
        assert np.array_equal(one.picture, other.picture)
        assert (one.activation, one.seed, one.channel) == (other.activation, 1, other.channel)
    assert [one.status for one in loaded][:2] == ["below_exemplar", "optimized"]
    times = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    sweep.run(classifier, units(classifier))
    assert {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == times


def test_a_damaged_unit_is_drawn_again(tmp_path):
    classifier = tiny_classifier()
    sweep, unit = Sweep(tmp_path), units(classifier)[0]
    sweep.run(classifier, [unit])
    first = sweep.load(unit)
    file = sweep.path(unit.key(1))
    file.write_bytes(file.read_bytes()[:-50])
    assert sweep.missing(unit) == (1,)
    with pytest.raises(WeightsError):
        sweep.load(unit)
    sweep.run(classifier, [unit])
    for one, other in zip(sweep.load(unit), first, strict=True):
        assert np.array_equal(one.picture, other.picture)


def test_the_key_is_everything_that_the_pictures_depend_on():
    classifier = tiny_classifier()
    unit = units(classifier)[0]
    reshaped = tiny_classifier()
    reshaped.network.stages[0].conv2.padding_mode = "circular"  # equal tensors, another answer
    wider = replace(SPEC, mean=(0.5, 0.5, 0.5))
    another_input = Classifier(classifier.network, wider, classifier.classes)
    others = [
        WorkUnit.of(tiny_classifier(seed=1), LAYER, (0, 1, 4), seed=0, recipe=RECIPE),
        WorkUnit.of(classifier, "stages.0", (0, 1, 4), seed=0, recipe=RECIPE),
        WorkUnit.of(classifier, LAYER, (0, 1, 4), seed=1, recipe=RECIPE),
        WorkUnit.of(classifier, LAYER, (0, 1, 4), seed=0, sign="minus", recipe=RECIPE),
        WorkUnit.of(classifier, LAYER, (0, 1, 4), seed=0, recipe=replace(RECIPE, steps=4)),
        WorkUnit.of(classifier, LAYER, (0, 1, 4), seed=0, recipe=replace(RECIPE, precision="bf16")),
        WorkUnit.of(reshaped, LAYER, (0, 1, 4), seed=0, recipe=RECIPE),
        WorkUnit.of(another_input, LAYER, (0, 1, 4), seed=0, recipe=RECIPE),
    ]
    assert len({unit.key(0), unit.key(1), *(other.key(0) for other in others)}) == 10
    assert units(tiny_classifier())[0].key(0) == unit.key(0)


def test_the_key_is_nothing_that_the_pictures_do_not_depend_on():
    """What lies behind the layer, and which channels are drawn beside it, is another matter."""
    classifier = tiny_classifier()
    key = units(classifier)[0].key(1)
    fewer = WorkUnit.of(classifier, LAYER, (1, 7), seed=0, recipe=RECIPE)
    another_head = classifier.with_head(torch.ones(2, 8), torch.zeros(2), ["x", "y"])
    deeper = tiny_classifier()
    with torch.no_grad():
        deeper.network.stages[2].conv1.weight.add_(1)
    assert fewer.key(1) == key
    assert units(another_head)[0].key(1) == units(deeper)[0].key(1) == key
    logit = {"objective": "logit", "recipe": RECIPE, "seed": 0}
    assert WorkUnit.of(classifier, classifier.head, (1,), **logit).key(1) != WorkUnit.of(
        another_head, another_head.head, (1,), **logit
    ).key(1)


def test_one_that_asks_for_more_draws_only_what_is_missing(tmp_path):
    """In another order, beside other channels, of another network that is alike up to the layer."""
    classifier, sweep = tiny_classifier(), Sweep(tmp_path)
    sweep.run(classifier, units(classifier))
    times = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert len(times) == 9
    another_head = classifier.with_head(torch.ones(2, 8), torch.zeros(2), ["x", "y"])
    more = WorkUnit.of(another_head, LAYER, (6, 4, 0, 1), seed=0, recipe=RECIPE)
    assert sweep.missing(more) == (6,)
    heard: list[tuple[int, int]] = []
    sweep.run(another_head, more.divided(3), on_progress=lambda *step: heard.append(step))
    assert heard[-1] == (4, 4)
    after = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert times.items() <= after.items()
    assert len(after) == 10
    assert [one.channel for one in sweep.load(more)] == [6, 4, 0, 1]


def test_a_sweep_keeps_what_it_was_asked_for_in_a_folder_of_its_own(tmp_path):
    classifier = tiny_classifier()
    shared, kept = tmp_path / "shared", tmp_path / "kept"
    Sweep(shared).run(classifier, units(classifier)[:1])
    Sweep(shared, kept=kept).run(classifier, units(classifier)[:2])
    assert len(list(shared.iterdir())) == len(list(kept.iterdir())) == 6
    shutil.rmtree(shared)  # a cache may go at any time
    assert len(Sweep(shared, kept=kept).load(units(classifier)[0])) == 3


def test_a_killed_sweep_loses_only_what_is_drawn_together(tmp_path):
    script = f"""
        import os, signal, sys
        sys.path[:0] = {FOLDERS!r}
        from test_render import tiny_classifier, units
        from transferscope.visualize import units as drawing
        from transferscope.visualize.units import Sweep
        drawing.UNIT = 3
        def stop(done, total):
            if done == 6:
                os.kill(os.getpid(), signal.SIGKILL)
        classifier = tiny_classifier()
        Sweep({str(tmp_path)!r}).run(classifier, units(classifier), on_progress=stop)
    """
    done = subprocess.run([*python(), "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -9
    before = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert len(before) == 6
    classifier = tiny_classifier()
    Sweep(tmp_path).run(classifier, units(classifier))
    after = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert len(after) == 9
    assert before.items() <= after.items()


def test_tiny_networks_are_what_these_tests_think():
    assert SPEC.size == (32, 32)
    assert isinstance(tiny_classifier().network, TinyNet)


@pytest.mark.parametrize(
    ("start", "reached", "best", "status"),
    [
        (-0.3, -1e-7, 0.0, "optimized"),  # a shut ReLU driven the other way: 0.000 against 0.000
        (-0.3, -0.1, 0.0, "below_exemplar"),
        (1.0, 4.9999, 5.0, "optimized"),
        (1.0, 4.9, 5.0, "below_exemplar"),
        (0.0, 2e-6, 5e-6, "below_exemplar"),  # small numbers may be a layer's own scale
    ],
)
def test_a_drawing_lags_only_where_it_can_be_seen(start, reached, best, status):
    values = {"activation": reached, "start": start}
    drawn = Drawn(
        canvases=torch.zeros(1, 3, 4, 4, dtype=torch.uint8),
        size=(4, 4),
        **{name: torch.tensor([value]) for name, value in values.items()},
        blocked=torch.tensor([False]),
        finite=torch.tensor([True]),
        steps=torch.tensor([3]),
        from_exemplar=torch.tensor([False]),
    )
    (found,) = judge(drawn, LAYER, (0,), "plus", 0, {0: best})
    assert found.status == status
