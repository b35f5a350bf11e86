"""Relative change of weights: of which filters, and exactly none where nothing was trained."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from conftest import SPEC, narrow, same_state, state_of, tiny_classifier
from transferscope.backbones.classifier import Classifier
from transferscope.comparison.weight_change import WeightChange, weight_changes
from transferscope.errors import InputError, UnknownName
from transferscope.images import InputSpec


def of(network: nn.Module) -> Classifier:
    torch.manual_seed(0)
    return Classifier(network.eval(), SPEC, [f"class {i}" for i in range(4)])


def changed(classifier: Classifier, *names: str, by: float = 0.5) -> Classifier:
    other = copy.deepcopy(classifier)
    with torch.no_grad():
        for name in names:
            other.network.get_parameter(name).mul_(1 + by)
    return other


def test_a_network_against_itself_has_not_changed():
    tiny = tiny_classifier()
    before = state_of(tiny)
    found = weight_changes(tiny, copy.deepcopy(tiny), ["stages.1", "stages.2.bn2", "stages.2.relu"])
    assert all(one.whole == 0 and set(one.channels) == {0.0} for one in found.values())
    assert same_state(before, state_of(tiny))


def test_one_filter_of_the_last_convolution_is_one_channel():
    base = tiny_classifier()
    tuned = copy.deepcopy(base)
    block = tuned.network.stages[1]
    with torch.no_grad():
        block.conv2.weight[3] *= 3
        block.conv1.weight[5] *= 2  # of the layer, but of no one channel of its output
    found = weight_changes(base, tuned, ["stages.0", "stages.1", "stages.2"])
    one = found["stages.1"]
    assert one.modules == ("stages.1.conv2",)
    assert [place for place, value in enumerate(one.channels) if value] == [3]
    own = copy.deepcopy(base.network).requires_grad_(False).stages[1]
    scale = own.bn2.weight / (own.bn2.running_var + own.bn2.eps).sqrt()
    bias = own.bn2.bias - own.bn2.running_mean * scale
    filters = own.conv2.weight[3].norm() * scale[3]
    slow = 2 * filters.abs() / (filters**2 + bias[3] ** 2).sqrt()
    assert one.channels[3] == pytest.approx(float(slow), rel=1e-5)
    assert one.whole > 0
    assert found["stages.0"].whole == found["stages.2"].whole == 0
    assert WeightChange.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_what_batchnorm_alone_rescales_has_changed():
    base = tiny_classifier()
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        tuned.network.stages[2].bn2.weight[1] *= 2
    (found,) = weight_changes(base, tuned, ["stages.2.bn2"]).values()
    assert [place for place, value in enumerate(found.channels) if value] == [1]
    assert found.modules == ("stages.2.conv2",)


@pytest.mark.parametrize(
    ("name", "layer", "modules"),
    [
        ("test_resnet", "layer3", ("layer3.0.downsample.1", "layer3.0.conv3")),
        ("test_efficientnet", "blocks.3", ("blocks.3.0.conv_pwl",)),
        ("test_convnext", "stages.2", ("stages.2.blocks.3.mlp.fc2",)),
        ("test_vit", "blocks.3.attn", ("blocks.3.attn.proj",)),
        ("vit_b_16", "encoder.layers.encoder_layer_3", ("encoder.layers.encoder_layer_3.mlp.3",)),
        ("vit_b_16", "encoder.ln", ()),
        ("densenet121", "features.denseblock2", ()),
    ],
)
def test_who_writes_a_channel_in_other_architectures(name, layer, modules):
    import timm

    torch.manual_seed(0)
    side = {"test_vit": 160, "vit_b_16": 64}.get(name, 32)
    network = timm.create_model(name, num_classes=4) if "test" in name else narrow(name, classes=4)
    base = Classifier(network.eval(), InputSpec((side, side), 3), list("abcd"))
    (found,) = weight_changes(base, copy.deepcopy(base), [layer]).values()
    assert found.modules == modules
    assert (found.channels is None) == (not modules)


class Shuffled(nn.Module):
    """A convolution whose channels change places afterwards, as in ShuffleNet."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.shuffle = nn.ChannelShuffle(2)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.shuffle(self.conv(x)).mean((2, 3)))


def test_a_filter_is_not_taken_for_the_channel_of_its_number():
    base = of(Shuffled())
    tuned = changed(base, "conv.weight")
    found = weight_changes(base, tuned, ["shuffle", "conv"])
    assert found["shuffle"].channels is None
    assert found["shuffle"].whole == 0, "it has no weights of its own, and none that could be named"
    assert found["conv"].channels == pytest.approx([0.5] * 8, abs=0.05)


def test_other_architectures_and_layers_are_refused():
    tiny = tiny_classifier()
    with pytest.raises(InputError, match="one architecture only"):
        weight_changes(tiny, of(Shuffled()), ["conv"])
    with pytest.raises(UnknownName):
        weight_changes(tiny, tiny_classifier(1), ["stages.9"])
    other = weight_changes(tiny, tiny_classifier(1, classes=7), ["stages.2"])
    assert min(other["stages.2"].channels) > 0.1, "another head is no other architecture"
