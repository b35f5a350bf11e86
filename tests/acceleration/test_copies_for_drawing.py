"""Copies in which pictures are drawn: what the network does, hooks and patches included, or a refusal."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import weight_norm as old_weight_norm

from conftest import same_state, state_of, tiny_classifier
from transferscope.acceleration.depthwise import phased
from transferscope.acceleration.folding import folded
from transferscope.acceleration.network import FastNetwork
from transferscope.activations import TruncatedForward
from transferscope.errors import InputError

LAYERS = ("stages.0", "stages.1.conv2", "stages.2")


def hook_on_convolution(network: nn.Module) -> None:
    network.stages[1].conv1.register_forward_hook(lambda _m, _i, output: output.abs() + 1)


def pre_hook_on_convolution(network: nn.Module) -> None:
    network.stages[1].conv1.register_forward_pre_hook(lambda _m, inputs: (inputs[0] * 3,))


def patched_convolution(network: nn.Module) -> None:
    conv = network.stages[1].conv1
    conv.forward = lambda x: nn.functional.conv2d(x, conv.weight, padding=1) * 2 + 1


def hook_on_relu(network: nn.Module) -> None:
    network.stages[1].relu.register_forward_hook(lambda _m, _i, output: output + 0.5)


def hook_on_norm(network: nn.Module) -> None:
    network.stages[1].bn1.register_forward_hook(lambda _m, _i, output: output * 2 - 1)


def parametrized(network: nn.Module) -> None:
    parametrizations.weight_norm(network.stages[1].conv1)


def weight_normed(network: nn.Module) -> None:
    old_weight_norm(network.stages[1].conv1)


KINDS = (
    hook_on_convolution,
    pre_hook_on_convolution,
    patched_convolution,
    hook_on_relu,
    hook_on_norm,
    parametrized,
    weight_normed,
)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("change", KINDS)
def test_what_was_put_on_a_layer_stays_on_it_in_the_copy(change, precision):
    classifier = tiny_classifier()
    change(classifier.network)
    before, example = state_of(classifier.network), classifier.example()
    with torch.no_grad():
        wanted = TruncatedForward(classifier.network, LAYERS, example)(example)
        found = FastNetwork(classifier.network, LAYERS, example, precision)(example)
    for layer in LAYERS:
        error = (found[layer].float() - wanted[layer]).abs().max() / wanted[layer].abs().max()
        assert error < (1e-3 if precision == "fp32" else 0.05), layer
    assert same_state(before, state_of(classifier.network))


@pytest.mark.parametrize("change", KINDS[:-1])
def test_so_it_does_in_copies_that_are_faster(change):
    classifier = tiny_classifier()
    change(classifier.network)
    example = classifier.example()
    with torch.no_grad():
        wanted = classifier.network(example)
        torch.testing.assert_close(folded(classifier.network, example)(example), wanted)
        torch.testing.assert_close(phased(classifier.network).eval()(example), wanted)


def test_a_network_that_answers_differently_every_time_is_refused():
    classifier = tiny_classifier()
    classifier.network.stages[1].register_forward_hook(
        lambda _m, _i, output: output + torch.randn_like(output)
    )
    with pytest.raises(InputError, match=r"copy of this TinyNet.*layer 'stages\.1'.*every time"):
        FastNetwork(classifier.network, ["stages.1"], classifier.example(), "fp32")
