"""Outputs of every kind: the logits are found, or the network is refused when it is taken in."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from conftest import SPEC, TinyNet, same_state, state_of
from transferscope.acceleration.network import FastNetwork
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError

CLASSES = ["a", "b", "c", "d"]
PICTURES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))

Named = namedtuple("Named", ["logits", "aux_logits"])


@dataclass
class Record:
    hidden: torch.Tensor
    scores: torch.Tensor


class ModelOutput(OrderedDict):
    """As transformers' own: a dictionary whose entries are attributes too."""

    __getattr__ = OrderedDict.__getitem__


class Wrapped(TinyNet):
    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(super().forward(x))


def wrapped(wrap) -> Wrapped:
    torch.manual_seed(0)
    return Wrapped(wrap).eval()


ACCEPTED = {
    "a tuple with features": lambda y: (y, y.mean(1)),
    "a list": lambda y: [y],
    "a dictionary": lambda y: {"out": y, "aux": 2 * y},
    "a dictionary with logits": lambda y: {"logits": y, "other": 2 * y},
    "a named tuple": lambda y: Named(y, 2 * y),
    "a dataclass": lambda y: Record(y[:, :1], y),
    "a ModelOutput": lambda y: ModelOutput(loss=None, logits=y, hidden_states=(2 * y, y)),
    "one tensor twice": lambda y: (y, y),
    "log probabilities": lambda y: y.log_softmax(1),
}
REFUSED = {
    "two of a size": (lambda y: (y, 2 * y), r"tuple with 2 tensors.*\[0\], \[1\].*'logits'"),
    "no logits": (lambda y: {"features": y[:, :3]}, r"without a tensor of shape \(1, 4\)"),
    "a softmax": (lambda y: y.softmax(1), "probabilities.*without its last softmax"),
    "a sigmoid": (lambda y: y.sigmoid(), "ends in a sigmoid.*without"),
    "maps": (lambda y: y[:, :, None, None], r"shape \(1, 4, 1, 1\).*flattens"),
}


@pytest.mark.parametrize("wrap", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_where_it_is_clear_which_output_is_meant_it_is_taken(wrap, tmp_path):
    network = wrapped(wrap)
    before = state_of(network)
    with torch.no_grad():
        plain = TinyNet.forward(network, SPEC.normalise(PICTURES))
    classifier = Classifier(network, SPEC, CLASSES)
    with classifier.inference():
        found = classifier(PICTURES)
    assert found.shape == (2, 4)
    torch.testing.assert_close(found.softmax(1), plain.softmax(1))
    assert [name for name, _ in classifier.network.named_modules()] == [
        name for name, _ in network.named_modules()
    ]
    assert same_state(before, state_of(network))
    assert not isinstance(network(PICTURES), torch.Tensor) or wrap is ACCEPTED["log probabilities"]
    classifier.save(tmp_path / "c.safetensors")
    again = Classifier.load(tmp_path / "c.safetensors", network=network)
    assert torch.equal(again(PICTURES), classifier(PICTURES))
    FastNetwork(classifier.network, ["stages.1"], classifier.example(), "fp32")


@pytest.mark.parametrize(("wrap", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_where_it_is_not_the_network_is_refused_when_it_is_taken_in(wrap, message):
    with pytest.raises(InputError, match=message):
        Classifier(wrapped(wrap), SPEC, CLASSES)


def test_probabilities_are_told_from_logits_that_happen_to_lie_between_0_and_1():
    network = wrapped(lambda y: y)
    nn.init.zeros_(network.head.weight)
    nn.init.constant_(network.head.bias, 0.25)  # its outputs even add up to 1... but for the last
    network.head.bias.data[-1] = 0.5
    assert Classifier(network, SPEC, CLASSES).head == "head"


@pytest.mark.filterwarnings("ignore:.*deprecated.*")
def test_torchscript_is_refused_by_name():
    traced = torch.jit.trace(TinyNet().eval(), torch.zeros(1, 3, 32, 32))
    with pytest.raises(InputError, match="TorchScript.*as Python code"):
        Classifier(traced, SPEC, CLASSES)


@pytest.mark.parametrize("around", [torch.compile, nn.DataParallel])
def test_what_only_runs_another_network_is_taken_off(around):
    network = TinyNet().eval()
    classifier = Classifier(around(network), SPEC, CLASSES)
    assert classifier.network is network
    assert classifier.head == "head"


def test_a_network_that_does_not_run_on_its_input_is_one_sentence():
    network = nn.Sequential(nn.Flatten(), nn.Linear(7, 4))
    with pytest.raises(
        InputError, match=r"does not run on one picture \(1, 3, 32, 32\).*InputSpec"
    ):
        Classifier(network, SPEC, CLASSES)
