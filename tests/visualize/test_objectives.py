"""The algebra, the objectives and the penalties, against slow re-derivations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import transferscope as ts
from conftest import SPEC, same_state, smooth_pictures, state_of, tiny_classifier
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError, UnknownName
from transferscope.images import to_picture
from transferscope.visualize.canvas import PARAMETRIZATIONS, from_image
from transferscope.visualize.objectives import OBJECTIVES
from transferscope.visualize.objectives.algebra import LOGITS, Objective, blend, interpolate
from transferscope.visualize.objectives.channels import (
    channel,
    channels,
    logit,
    logits,
    neuron,
    neurons,
)
from transferscope.visualize.objectives.directions import caricature, caricature_target, direction
from transferscope.visualize.objectives.layers import diversity, layer_energy
from transferscope.visualize.objectives.penalties import (
    PENALTIES,
    blur,
    high_frequency,
    high_frequency_energy,
    l1,
    l2,
    total_variation,
)
from transferscope.visualize.render import render, render_together

CPU = torch.device("cpu")
BATCH = 3


def activations(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "maps": torch.randn(BATCH, 5, 4, 6, generator=generator, dtype=dtype),
        "tokens": torch.randn(BATCH, 7, 5, generator=generator, dtype=dtype),
        "vector": torch.randn(BATCH, 5, generator=generator, dtype=dtype),
        LOGITS: torch.randn(BATCH, 5, generator=generator, dtype=dtype),
    }


def pictures(count: int = BATCH, *, height: int = 12, width: int = 15) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


REFERENCE = {
    "maps": torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(3)),
    "tokens": torch.randn(7, 5, generator=torch.Generator().manual_seed(4)),
    "vector": torch.randn(5, generator=torch.Generator().manual_seed(5)),
}
VECTOR = REFERENCE["vector"]


def objectives_on(layer: str) -> dict[str, Objective]:
    """Every registered objective over one kind of output."""
    return {
        "channel": channel(layer, 2),
        "channels": channels(layer, [4, 0, 2], "minus"),
        "neuron": neuron(layer, 1),
        "neurons": neurons(layer, [1, 3, 1]),
        "logit": logit(3),
        "logits": logits([3, 0, 1]),
        "direction": direction(layer, VECTOR, cossim_power=1.5),
        "caricature": caricature(layer, REFERENCE[layer], power=2),
        "layer_energy": layer_energy(layer),
        "diversity": diversity(layer),
    }


# ---------------------------------------------------------------------------- algebra


def test_operators_take_objectives_and_numbers_on_both_sides():
    found, x = activations(), pictures()
    a, b = channel("maps", 0), neuron("tokens", 1)
    va, vb = a(found, x), b(found, x)
    for combined, wanted in [
        (a + b, va + vb),
        (a - b, va - vb),
        (a * b, va * vb),
        (a / b, va / vb),
        (-a, -va),
        (2 + a, 2 + va),
        (a + 2, 2 + va),
        (2 - a, 2 - va),
        (a - 2, va - 2),
        (2 * a, 2 * va),
        (a * 2, 2 * va),
        (2 / a, 2 / va),
        (a / 2, va / 2),
        (sum([a, b, a]), va + vb + va),
    ]:
        assert isinstance(combined, Objective)
        torch.testing.assert_close(combined(found, x), wanted)
    assert (a / b).layers == ("maps", "tokens")
    assert (1 - b * a).layers == ("tokens", "maps")
    assert sum([a]) is a


@pytest.mark.parametrize("number", [np.float32(2), np.float64(2), np.int64(2), np.uint8(2)])
def test_numbers_of_numpy_are_numbers(number):
    found, x = activations(), pictures()
    a = channel("maps", 0)
    for combined, wanted in [
        (number * a, 2 * a),
        (a * number, a * 2),
        (number + a, 2 + a),
        (a - number, a - 2),
        (number - a, 2 - a),
        (number / a, 2 / a),
        (a / number, a / 2),
    ]:
        assert combined.name == wanted.name
        torch.testing.assert_close(combined(found, x), wanted(found, x))


@pytest.mark.parametrize("wrong", [True, np.bool_(False), float("nan"), float("inf"), -math.inf])
def test_what_is_no_finite_number_is_refused_on_both_sides(wrong):
    a = channel("maps", 0)
    for attempt in (
        lambda: a + wrong,
        lambda: wrong + a,
        lambda: a - wrong,
        lambda: wrong - a,
        lambda: a * wrong,
        lambda: wrong * a,
        lambda: a / wrong,
        lambda: wrong / a,
    ):
        with pytest.raises(InputError, match="number"):
            attempt()


@pytest.mark.parametrize("wrong", ["2", None, [1.0], 1j, np.ones(2), torch.tensor(2.0)])
def test_other_things_are_a_type_error(wrong):
    a = channel("maps", 0)
    for attempt in (lambda: a + wrong, lambda: wrong * a, lambda: a / wrong):
        with pytest.raises(TypeError):
            attempt()


def test_division_by_zero_is_refused_where_it_is_certain_and_stays_with_its_picture_elsewhere():
    a = channel("maps", 0)
    with pytest.raises(InputError, match="divided by 0"):
        a / 0
    found = {"maps": torch.ones(3, 1, 2, 2)}
    found["maps"][1] = 0
    assert (1 / a)(found, pictures()).tolist() == [1.0, math.inf, 1.0]
    assert torch.isnan((0 / a)(found, pictures())).tolist() == [False, True, False]


def test_names_have_the_parentheses_they_need_and_no_others():
    a, b, c = (Objective((), lambda *_: torch.zeros(1), name) for name in "abc")
    for combined, name in [
        (a + b - c, "a + b - c"),
        (a - (b - c), "a - (b - c)"),
        (a + (b + c), "a + b + c"),
        (a - 0.1 * b, "a - 0.1 * b"),
        ((a + b) * c, "(a + b) * c"),
        (a * b / c, "a * b / c"),
        (a / (b * c), "a / (b * c)"),
        (a * (b + c), "a * (b + c)"),
        (-a * b, "-a * b"),
        (-(a + b), "-(a + b)"),
        (a - -b, "a - (-b)"),
        (a + -2, "a + (-2)"),
        (1 - a / 4, "1 - a / 4"),
        (3 / (a + 9), "3 / (a + 9)"),
        (sum([a, b, c]), "a + b + c"),
    ]:
        assert combined.name == name


def test_names_mean_what_they_say():
    """Read back by Python, a name computes what its objective does."""
    values = {"a": 3.0, "b": -5.0, "c": 0.7}
    a, b, c = (
        Objective((), lambda _a, x, name=name: torch.full((len(x),), values[name]), name)
        for name in values
    )
    for combined in (
        a - (b - c),
        a / (b / c),
        -(a - b) * c,
        a - -(b + 2) / c,
        2 - (a + b) / (c * 3),
    ):
        assert float(combined({}, pictures(1))) == pytest.approx(eval(combined.name, values.copy()))


def test_a_blend_is_a_weighted_mean_over_layers():
    found, x = activations(), pictures()
    a, b = channel("maps", 0), channel("tokens", 1)
    wanted = (a(found, x) + 3 * b(found, x)) / 4
    for parts in ({a: 1, b: 3}, [(a, 1), (b, 3)], iter([(a, 2.5), (b, 7.5)])):
        blended = blend(parts)
        torch.testing.assert_close(blended(found, x), wanted)
        assert blended.layers == ("maps", "tokens")
    with pytest.raises(InputError, match="nothing to blend"):
        blend([])
    for weight in (0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match=r"weight of channel\(maps, 0\)"):
            blend({a: weight, b: 1})


def test_interpolation_goes_from_one_objective_to_the_other():
    found, x = activations(), pictures()
    a, b = channel("maps", 0), channel("tokens", 1)
    between = interpolate(a, b)(found, x)
    va, vb = a(found, x), b(found, x)
    torch.testing.assert_close(
        between, torch.stack([va[0], (va[1] + vb[1]) / 2, vb[2]]), rtol=1e-6, atol=1e-6
    )
    with pytest.raises(InputError, match="render_together"):
        interpolate(a, b)(found, x[:1])


# ---------------------------------------------------------------------------- objectives


@pytest.mark.parametrize("layer", ["maps", "tokens", "vector"])
def test_every_objective_gives_one_number_a_picture_for_every_kind_of_output(layer):
    built = objectives_on(layer)
    assert built.keys() == OBJECTIVES.keys()
    found, x = activations(), pictures()
    for name, objective in built.items():
        value = objective(found, x)
        assert value.shape == (BATCH,), name
        assert value.dtype == torch.float32, name
        assert torch.isfinite(value).all(), name
        half = objective(activations(torch.bfloat16), x)
        assert half.dtype == torch.float32, f"{name} must add up in fp32"


@pytest.mark.parametrize("layer", ["maps", "tokens", "vector"])
@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - {"diversity"}))
def test_a_picture_does_not_depend_on_its_neighbours(layer, name):
    objective, found, x = objectives_on(layer)[name], activations(), pictures()
    before = objective(found, x)
    changed = {key: output.clone() for key, output in found.items()}
    for output in changed.values():
        output[0] += 1.0
        output[2] *= -3.0
    after = objective(changed, x)
    torch.testing.assert_close(after[1], before[1])
    assert float((after - before)[[0, 2]].abs().max()) > 0.05 * float(before.abs().max())


class Outputs(nn.Module):
    """Pictures (N, 3, 6, 8) to maps, tokens, a vector and logits, smoothly."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 3, stride=2)
        self.head = nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = torch.tanh(self.conv(x - 0.5) * 3)
        vector = maps.mean((2, 3))
        tokens = maps.flatten(2).transpose(1, 2)
        return {"maps": maps, "tokens": tokens, "vector": vector, LOGITS: self.head(vector)}


def gradient_error(objective: Objective, network: nn.Module) -> float:
    """Largest difference of the gradient from finite differences, as a share of its largest entry."""
    x = torch.rand(BATCH, 3, 6, 8, generator=torch.Generator().manual_seed(7)) * 0.8 + 0.1
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(objective(network(x), x).double().sum(), x)
    errors = []
    step = 2e-3
    with torch.no_grad():
        for place in range(0, x.numel(), 11):
            moved = torch.zeros(x.numel())
            moved[place] = step
            values = [
                objective(network(shifted), shifted).double().sum()
                for shifted in (x + moved.view_as(x), x - moved.view_as(x))
            ]
            errors.append(abs((values[0] - values[1]) / (2 * step) - gradient.flatten()[place]))
    assert float(gradient.abs().max()) > 0
    return float(torch.stack(errors).max() / gradient.abs().max())


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("layer", ["maps", "tokens", "vector"])
def test_gradients_of_objectives_are_those_of_finite_differences(layer, name):
    network = Outputs()
    with torch.no_grad():
        shapes = {key: output.shape for key, output in network(torch.zeros(1, 3, 6, 8)).items()}
    draw = torch.Generator().manual_seed(3)
    reference = torch.randn(shapes[layer][1:], generator=draw)
    objective = (
        caricature(layer, reference, power=2)
        if name == "caricature"
        else objectives_on(layer)[name]
    )
    assert gradient_error(objective, network) < 0.01


@pytest.mark.parametrize("name", PENALTIES)
def test_gradients_of_penalties_are_those_of_finite_differences(name):
    penalty = blur(sigma=0.5) if name == "blur" else PENALTIES[name]()
    assert gradient_error(penalty, Outputs()) < 0.02


def test_units_are_where_they_are_said_to_be():
    found, x = activations(), pictures()
    maps, tokens = found["maps"], found["tokens"]
    for objective, wanted in [
        (neuron("maps", 1), maps[:, 1, 2, 3]),
        (neuron("maps", 1, "minus"), -maps[:, 1, 2, 3]),
        (neuron("maps", 1, position=(0, 5)), maps[:, 1, 0, 5]),
        (neuron("tokens", 1), tokens[:, 3, 1]),
        (neuron("tokens", 1, position=6), tokens[:, 6, 1]),
        (neuron("vector", 4), found["vector"][:, 4]),
        (
            neurons("maps", [1, 0, 4]),
            torch.stack([maps[i, c, 2, 3] for i, c in enumerate([1, 0, 4])]),
        ),
        (
            neurons("tokens", [1, 0, 4], "minus", position=2),
            -torch.stack([tokens[i, 2, c] for i, c in enumerate([1, 0, 4])]),
        ),
        (logits([3, 0, 1]), torch.stack([found[LOGITS][i, c] for i, c in enumerate([3, 0, 1])])),
        (channels("tokens", (0, 1, 2)), torch.stack([tokens[i, :, i].mean() for i in range(3)])),
    ]:
        torch.testing.assert_close(objective(found, x), wanted)
    assert neuron("maps", 1, "minus", position=(0, 5)).name == (
        "neuron(maps, 1, minus, position=(0, 5))"
    )


def test_units_that_do_not_exist_are_refused():
    found, x = activations(), pictures()
    for objective, message in [
        (neuron("maps", 5), r"channel 5 of 'maps' does not exist.*0 to 4"),
        (neuron("maps", 0, position=(4, 0)), r"\(4, 0\) is outside.*4 x 6"),
        (neuron("maps", 0, position=(0, -1)), "outside"),
        (neuron("maps", 0, position=3), r"position is 3 where.*\(row, column\)"),
        (neuron("tokens", 0, position=7), "7 is outside"),
        (neuron("tokens", 0, position=(0, 0)), "number of a token"),
        (neuron("vector", 0, position=0), "no position"),
        (neurons("maps", [0, 1]), "one channel a picture"),
        (neurons("maps", [0, 1, 5]), "channel 5"),
        (logits([0, 1, 9]), "channel 9 of 'logits'"),
    ]:
        with pytest.raises(InputError, match=message):
            objective(found, x)
    for make in (channel, neuron):
        with pytest.raises(InputError, match="'both'"):
            make("maps", 0, "both")


@pytest.mark.parametrize("layer", ["maps", "tokens", "vector"])
@pytest.mark.parametrize("power", [0.0, 1.0, 2.5])
def test_a_direction_is_a_mean_of_dot_products_by_position(layer, power):
    found, x = activations(), pictures()
    output = found[layer].double()
    if layer == "tokens":
        output = output.transpose(1, 2)
    unit = VECTOR.double() / VECTOR.double().norm()
    wanted = []
    for one in output.reshape(BATCH, 5, -1):
        parts = []
        for place in one.T:
            dot = float(place @ unit)
            parts.append(dot * max(0.1, dot / float(place.norm())) ** power)
        wanted.append(sum(parts) / len(parts))
    for given in (VECTOR, (7 * VECTOR).numpy(), [float(v) for v in VECTOR]):
        value = direction(layer, given, cossim_power=power)(found, x)
        torch.testing.assert_close(value, torch.tensor(wanted), rtol=1e-4, atol=1e-5)


def test_a_channels_unit_vector_is_the_channel_and_wrong_vectors_are_refused():
    found, x = activations(), pictures()
    axis = torch.eye(5)[2]
    torch.testing.assert_close(direction("maps", axis)(found, x), channel("maps", 2)(found, x))
    for vector, message in [
        (torch.zeros(5), "no direction"),
        ([1.0, math.nan, 0, 0, 0], "no direction"),
        (torch.ones(5, 2), r"\(5, 2\); give \(C,\)"),
    ]:
        with pytest.raises(InputError, match=message):
            direction("maps", vector)
    with pytest.raises(InputError, match="4 numbers a position and 'maps' 5 channels"):
        direction("maps", torch.ones(4))(found, x)
    with pytest.raises(InputError, match="cossim_power is -1"):
        direction("maps", axis, cossim_power=-1)
    with pytest.raises(InputError, match="output of shape"):
        direction("deep", axis)({"deep": torch.zeros(1, 5, 2, 2, 2)}, x)


@pytest.mark.parametrize("layer", ["maps", "tokens", "vector"])
@pytest.mark.parametrize("power", [0.0, 1.0, 3.0])
def test_a_caricature_is_a_dot_product_times_a_power_of_the_cosine(layer, power):
    found, x = activations(), pictures()
    target = REFERENCE[layer].double()
    flat = target.flatten()
    places = flat.numel() // 5
    wanted = []
    for one in found[layer].double():
        cosine = float(one.flatten() @ flat / one.norm() / flat.norm())
        along = float(one.flatten() @ flat / flat.norm()) / math.sqrt(places)
        wanted.append(along * max(0.1, cosine) ** power)
    value = caricature(layer, REFERENCE[layer], power=power)(found, x)
    torch.testing.assert_close(value, torch.tensor(wanted), rtol=1e-4, atol=1e-5)
    scaled = caricature(layer, 100 * REFERENCE[layer], power=power)(found, x)
    torch.testing.assert_close(scaled, value)


def test_a_caricature_is_highest_for_the_target_itself_among_activations_of_its_size():
    target = REFERENCE["maps"]
    objective = caricature("maps", target)
    others = activations()["maps"]
    others = others / others.flatten(1).norm(dim=1).view(-1, 1, 1, 1) * target.norm()
    found = {"maps": torch.cat([target[None], others])}
    values = objective(found, pictures(4))
    assert int(values.argmax()) == 0
    assert float(values[0]) == pytest.approx(float(target.square().sum(0).mean().sqrt()), rel=1e-4)


def test_a_target_of_another_size_is_resized_and_a_vector_is_wanted_everywhere():
    found, x = activations(), pictures()
    larger = nn.functional.interpolate(REFERENCE["maps"][None], (9, 11), mode="bilinear")[0]
    resized = nn.functional.interpolate(larger[None], (4, 6), mode="bilinear", antialias=True)[0]
    torch.testing.assert_close(
        caricature("maps", larger)(found, x), caricature("maps", resized)(found, x)
    )
    everywhere = VECTOR[:, None, None].expand(-1, 4, 6)
    torch.testing.assert_close(
        caricature("maps", VECTOR)(found, x), caricature("maps", everywhere)(found, x)
    )
    torch.testing.assert_close(
        caricature("maps", VECTOR, power=0)(found, x), direction("maps", VECTOR)(found, x)
    )


def test_targets_that_do_not_fit_are_refused():
    found, x = activations(), pictures()
    for layer, target, message in [
        ("maps", torch.ones(4, 4, 6), "4 numbers a position and 'maps' 5 channels"),
        ("maps", torch.ones(4), "4 numbers"),
        ("maps", torch.ones(7, 5), "make it with caricature_target"),
        ("tokens", torch.ones(6, 5), "at the same size"),
        ("vector", torch.ones(5, 4, 6), "make it with caricature_target"),
    ]:
        with pytest.raises(InputError, match=message):
            caricature(layer, target)(found, x)
    with pytest.raises(InputError, match=r"give \(C, H, W\)"):
        caricature("maps", torch.ones(1, 5, 4, 6))
    with pytest.raises(InputError, match="power is -1"):
        caricature("maps", VECTOR, power=-1)


def test_an_activation_of_nothing_has_a_finite_gradient():
    for objective in (
        caricature("maps", REFERENCE["maps"]),
        direction("maps", VECTOR, cossim_power=1),
        diversity("maps"),
    ):
        output = torch.zeros(2, 5, 4, 6, requires_grad=True)
        (gradient,) = torch.autograd.grad(objective({"maps": output}, pictures(2)).sum(), output)
        assert torch.isfinite(gradient).all(), objective.name


def test_caricature_target_refuses_bytes_and_batches():
    classifier = tiny_classifier()
    for bytes_ in (torch.zeros(3, 32, 32, dtype=torch.uint8), torch.full((3, 32, 32), 255.0)):
        with pytest.raises(InputError, match="divided by 255"):
            caricature_target(classifier, "stages.1", bytes_)
    with pytest.raises(InputError, match="give one"):
        caricature_target(classifier, "stages.1", torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("index", [1.5, "zebra", None])
def test_an_index_that_is_no_whole_number_is_refused(index):
    with pytest.raises(InputError, match="whole number"):
        channel("maps", index)({"maps": torch.zeros(1, 3, 4, 4)}, torch.zeros(1, 3, 8, 8))
    channel("maps", np.int64(1))({"maps": torch.zeros(1, 3, 4, 4)}, torch.zeros(1, 3, 8, 8))


def test_caricature_target_is_what_the_network_makes_of_a_picture(tmp_path):
    classifier = tiny_classifier()
    before = state_of(classifier)
    picture = pictures(1, height=32, width=32)[0].mul(255).round() / 255
    for layer in ("stages.1", "stem", "head", LOGITS):
        name = "head" if layer == LOGITS else layer
        with ts.capture(classifier.network, [name]) as caught, torch.no_grad():
            classifier(picture[None])
        target = caricature_target(classifier, layer, picture)
        torch.testing.assert_close(target, caught[name][0])
        assert not target.requires_grad
    file = tmp_path / "picture.png"
    to_picture(picture).save(file)
    torch.testing.assert_close(
        caricature_target(classifier, "stages.1", file),
        caricature_target(classifier, "stages.1", picture),
    )
    assert same_state(before, state_of(classifier))
    with pytest.raises(UnknownName):
        caricature_target(classifier, "stages.9", picture)


@pytest.mark.parametrize("layer", ["maps", "tokens", "vector"])
def test_diversity_is_minus_the_mean_cosine_of_gram_matrices(layer):
    found, x = activations(), pictures()
    output = found[layer].double()
    if layer == "tokens":
        output = output.transpose(1, 2)
    grams = [(one @ one.T).flatten() for one in output.reshape(BATCH, 5, -1)]
    wanted = []
    for i, own in enumerate(grams):
        others = [float(own @ g / own.norm() / g.norm()) for j, g in enumerate(grams) if j != i]
        wanted.append(-sum(others) / len(others))
    torch.testing.assert_close(
        diversity(layer)(found, x), torch.tensor(wanted), rtol=1e-4, atol=1e-5
    )
    same = {layer: found[layer][:1].expand(BATCH, *found[layer].shape[1:])}
    torch.testing.assert_close(diversity(layer)(same, x), -torch.ones(BATCH))


def test_diversity_needs_company():
    found = {"maps": activations()["maps"][:1]}
    with pytest.raises(InputError, match="met a batch of 1; draw them with render_together"):
        diversity("maps")(found, pictures(1))


def test_layer_energy_is_the_mean_square():
    found, x = activations(), pictures()
    for layer in ("maps", "tokens", "vector"):
        wanted = torch.stack([one.square().sum() / one.numel() for one in found[layer]])
        torch.testing.assert_close(layer_energy(layer)(found, x), wanted)


# ---------------------------------------------------------------------------- penalties


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("shape", [(3, 12, 15), (1, 16, 16), (3, 11, 8)])
def test_every_penalty_is_zero_for_grey_small_and_each_pictures_own(name, shape):
    penalty = PENALTIES[name]()
    assert penalty.layers == ()
    assert penalty.name.startswith(f"{name}(")
    grey = torch.full((2, *shape), 0.5, requires_grad=True)
    value = penalty({}, grey)
    assert value.shape == (2,)
    assert float(value.detach().abs().max()) < 1e-5
    (gradient,) = torch.autograd.grad(value.sum(), grey)
    assert torch.isfinite(gradient).all()
    x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    together = penalty({}, x)
    assert float(together.min()) > 0.01
    assert float(together.max()) <= 2
    alone = torch.cat([penalty({}, one[None]) for one in x])
    torch.testing.assert_close(together, alone)


def test_distances_from_grey():
    x = torch.full((1, 3, 4, 4), 0.5)
    x[0, :, :2] = 0.9
    x[0, :, 2:] = 0.2
    assert float(l1()({}, x)) == pytest.approx(0.35)
    assert float(l2()({}, x)) == pytest.approx(math.sqrt((0.16 + 0.09) / 2))
    assert float(total_variation()({}, x)) == pytest.approx(0.7 / 3)


def test_blur_is_the_distance_from_a_gaussian_filtered_copy():
    from scipy.ndimage import gaussian_filter

    x = pictures(2, height=20, width=23)
    for sigma in (0.7, 1.0, 2.0):
        wanted = []
        for one in x.double().numpy():
            copy = np.stack(
                [
                    gaussian_filter(plane, sigma, mode="mirror", radius=math.ceil(3 * sigma))
                    for plane in one
                ]
            )
            wanted.append(float(np.sqrt(((one - copy) ** 2).mean())))
        torch.testing.assert_close(blur(sigma)({}, x), torch.tensor(wanted), rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="sigma is 0"):
        blur(0)
    with pytest.raises(InputError, match="too small for blur"):
        blur(8)({}, x)


@pytest.mark.parametrize("size", [(16, 16), (15, 16), (16, 13), (9, 31)])
@pytest.mark.parametrize("cutoff", [0.1, 0.25, 0.42])
def test_high_frequency_energy_is_the_share_of_the_whole_spectrum(size, cutoff):
    x = pictures(2, height=size[0], width=size[1])
    wanted = []
    for one in x.double().numpy():
        power = (np.abs(np.fft.fft2(one)) ** 2).sum(0)
        power[0, 0] = 0
        down, across = np.fft.fftfreq(size[0]), np.fft.fftfreq(size[1])
        fine = np.hypot(down[:, None], across[None]) > cutoff
        wanted.append(float(power[fine].sum() / power.sum()))
    share = high_frequency_energy(x, cutoff)
    torch.testing.assert_close(share, torch.tensor(wanted), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(high_frequency(cutoff)({}, x), share)
    torch.testing.assert_close(
        high_frequency_energy(x * 37 - 4, cutoff), share, rtol=1e-4, atol=1e-6
    )


def test_waves_are_on_their_side_of_the_cutoff():
    along = torch.arange(32)
    for cycles, wanted in [(2, 0.0), (7, 0.0), (9, 1.0), (16, 1.0)]:
        wave = torch.cos(2 * math.pi * cycles * along / 32).expand(1, 3, 32, 32)
        assert float(high_frequency_energy(wave)) == pytest.approx(wanted, abs=1e-5)
        assert float(high_frequency_energy(wave.mT)) == pytest.approx(wanted, abs=1e-5)
    noise = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    assert float(high_frequency_energy(noise)) == pytest.approx(1 - math.pi / 16, abs=0.01)
    for cutoff in (0, 0.5, -1, math.nan):
        with pytest.raises(InputError, match="cutoff is"):
            high_frequency(cutoff)


# ---------------------------------------------------------------------------- drawn


def rendered(classifier: Classifier, objective: Objective, **options: object) -> float:
    found = render(classifier, objective, steps=25, precision="fp32", **options)
    assert found.status == "optimized"
    return found.activation


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - {"diversity"}))
def test_every_objective_can_be_drawn(name):
    classifier = tiny_classifier()
    layer, picture = "stages.1.bn2", pictures(1, height=32, width=32)[0]
    target = caricature_target(classifier, layer, picture)
    objective = {
        "channel": channel(layer, 2),
        "channels": channels(layer, [2]),
        "neuron": neuron(layer, 2, position=(3, 3)),
        "neurons": neurons(layer, [2]),
        "logit": logit(1),
        "logits": logits([1]),
        "direction": direction(layer, target.mean((1, 2))),
        "caricature": caricature(layer, target),
        "layer_energy": layer_energy(layer),
    }[name]
    grey = torch.full((1, 3, *SPEC.size), 0.5)
    wanted = classifier.head if objective.layers == (LOGITS,) else layer
    with ts.capture(classifier.network, [wanted]) as caught, torch.no_grad():
        classifier(grey)
        before = float(objective({objective.layers[0]: caught[wanted]}, grey))
    assert rendered(classifier, objective) > before + 0.25 * abs(before)


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_every_parametrization_can_be_drawn_with(name):
    classifier = tiny_classifier()
    noise = pictures(20, height=32, width=32)
    with ts.capture(classifier.network, ["stages.1.bn2"]) as caught, torch.no_grad():
        classifier(noise)
        best = float(channel("stages.1.bn2", 3)(caught, noise).max())
    objective = channel("stages.1.bn2", 3)
    assert rendered(classifier, objective, parametrization=PARAMETRIZATIONS[name]) > best


def test_a_drawing_from_a_picture_begins_at_it():
    classifier = tiny_classifier()
    picture = smooth_pictures(1, 3, 32, 32)[0]
    still = render(
        classifier,
        0 * logit(0),
        steps=1,
        precision="fp32",
        parametrization=from_image(picture),
    )
    drawn = torch.from_numpy(still.picture).permute(2, 0, 1) / 255
    assert float((drawn - picture).abs().mean()) < 0.03


def test_pictures_drawn_for_diversity_differ_more():
    classifier = tiny_classifier()
    layer = "stages.1.bn2"
    options = {"steps": 25, "precision": "fp32"}

    def alike(objective: Objective) -> float:
        found = render_together(classifier, objective, 3, **options)
        x = torch.stack([torch.from_numpy(r.picture).permute(2, 0, 1) for r in found]) / 255
        with ts.capture(classifier.network, [layer]) as caught, torch.no_grad():
            classifier(x)
            return -float(diversity(layer)(caught, x).mean())

    assert alike(channel(layer, 3) + 50 * diversity(layer)) < alike(channel(layer, 3)) - 0.05


def test_everything_registered_is_on_the_public_map():
    assert {*OBJECTIVES, *PENALTIES, *PARAMETRIZATIONS} <= set(ts.__all__)
