"""Residual blocks as one step give what torchvision's blocks give, and so do their gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from transferscope.backbones import Classifier
from transferscope.images import InputSpec
from transferscope.visualize import convolutions, residual
from transferscope.visualize.network import DrawingNetwork
from transferscope.visualize.residual import FrozenBlock

KINDS = [BasicBlock, Bottleneck]


def classifier_of(kind: type[nn.Module], **options: int) -> Classifier:
    torch.manual_seed(5)
    network = ResNet(kind, [2, 2, 1, 1], num_classes=4, **options).eval()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean, 0, 0.1)
            nn.init.uniform_(norm.running_var, 0.5, 2)
    spec = InputSpec(size=(64, 48), mean=(0.5,) * 3, std=(0.5,) * 3)
    return Classifier(network, spec, list("abcd"))


def blocks_of(network: DrawingNetwork) -> list[str]:
    named = network._network.named_modules()
    return [name for name, module in named if isinstance(module, FrozenBlock)]


def told(network, layer: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A layer's output and a gradient of the pictures."""
    torch.manual_seed(6)
    x = torch.randn(3, 3, 64, 48).requires_grad_()
    with torch.enable_grad():
        output = network(x)[layer].float()
        torch.manual_seed(7)
        (gradient,) = torch.autograd.grad((output * torch.randn(output.shape)).sum(), x)
    return output.detach(), gradient


def plainly(classifier: Classifier, layer: str):
    """The untouched network up to a layer."""

    def run(x: torch.Tensor) -> dict[str, torch.Tensor]:
        caught = {}
        hook = classifier.network.get_submodule(layer).register_forward_hook(
            lambda _m, _i, output: caught.update({layer: output.clone()})
        )
        classifier.network(x)
        hook.remove()
        return caught

    return run


def autocast_of(run):
    def cast(x: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            return run(x)

    return cast


@pytest.mark.parametrize("laid_out", [True, False], ids=["laid out", "not laid out"])
@pytest.mark.parametrize("layer", ["layer1.1", "layer2.0", "layer2.1", "layer4", "fc"])
@pytest.mark.parametrize("kind", KINDS)
def test_output_and_gradient_are_the_networks_own(kind, layer, laid_out, monkeypatch):
    if not laid_out:
        monkeypatch.setattr(convolutions, "_lays_out", lambda *_: False)
    classifier = classifier_of(kind)
    network = DrawingNetwork(classifier, (layer,), "fp32")
    assert len(blocks_of(network)) == 6
    output, gradient = told(network, layer)
    wanted, slope = told(plainly(classifier, layer), layer)
    torch.testing.assert_close(output, wanted, rtol=1e-4, atol=1e-4)
    assert (gradient - slope).norm() < 1e-4 * slope.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_is_as_near_as_the_networks_own_bf16(kind):
    classifier = classifier_of(kind)
    plain = plainly(classifier, "layer3")
    wanted, slope = told(plain, "layer3")
    errors = []
    for network in (DrawingNetwork(classifier, ("layer3",), "bf16"), autocast_of(plain)):
        output, gradient = told(network, "layer3")
        errors.append((output - wanted).norm() / wanted.norm())
        errors.append((gradient - slope).norm() / slope.norm())
    ours, our_slope, plain_error, plain_slope = errors
    assert 0 < ours < 1.2 * plain_error
    assert 0 < our_slope < 1.2 * plain_slope


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_overwritten_only_where_nobody_else_has_them(kind, monkeypatch):
    owned: list[bool] = []

    def kept(gradient: torch.Tensor, node: object) -> bool:
        owned.append(convolutions.is_owned(gradient, node))
        return owned[-1]

    monkeypatch.setattr(residual, "is_owned", kept)
    classifier = classifier_of(kind)
    network = DrawingNetwork(classifier, ("layer1.0", "layer3"), "fp32")
    x = torch.randn(2, 3, 64, 48).requires_grad_()
    with torch.enable_grad():
        found = network(x)
        scale = torch.ones_like(found["layer3"])  # whose gradient the objective keeps
        given = (found["layer3"] * scale).sum() + (found["layer1.0"] ** 2).sum()
        (slope,) = torch.autograd.grad(given, x)
        caught = {name: plainly(classifier, name)(x)[name] for name in found}
        wanted = caught["layer3"].sum() + (caught["layer1.0"] ** 2).sum()
        (own,) = torch.autograd.grad(wanted, x)
    assert (slope - own).norm() < 1e-4 * own.norm()
    assert scale.eq(1).all()
    # layer3's comes from the objective, and at layer1.0 two meet, whose sum may be in a third place.
    assert owned[:4] == [False, True, True, True]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_users_network_does_with_a_blocks_gradient_beside_it_is_not_changed(kind):
    """Where a sum hands one gradient to a block and to something else."""

    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(5)
            plain = ResNet(kind, [2, 1, 1, 1]).layer1
            self.stem = nn.Conv2d(3, 64, 3, stride=2)
            self.blocks = nn.ModuleList(plain)
            channels = plain(torch.zeros(1, 64, 8, 8)).shape[1]
            self.other, self.fc = nn.Conv2d(64, channels, 1), nn.Linear(channels, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            other = self.other(x)  # first, so that its gradient is taken last
            return self.fc(self.blocks[1](self.blocks[0](x) + other).mean((2, 3)))

    spec = InputSpec(size=(64, 48), mean=(0.5,) * 3, std=(0.5,) * 3)
    classifier = Classifier(Beside().eval(), spec, list("abcd"))
    network = DrawingNetwork(classifier, ("blocks.1",), "fp32")
    assert blocks_of(network) == ["blocks.0", "blocks.1"]
    _, gradient = told(network, "blocks.1")
    _, slope = told(plainly(classifier, "blocks.1"), "blocks.1")
    assert (gradient - slope).norm() < 1e-4 * slope.norm()


def test_grouped_and_dilated_blocks_too():
    for options in (
        {"groups": 4, "width_per_group": 4},
        {"replace_stride_with_dilation": (False, True, True)},
    ):
        classifier = classifier_of(Bottleneck, **options)
        network = DrawingNetwork(classifier, ("layer4",), "fp32")
        output, gradient = told(network, "layer4")
        wanted, slope = told(plainly(classifier, "layer4"), "layer4")
        torch.testing.assert_close(output, wanted, rtol=1e-4, atol=1e-4)
        assert (gradient - slope).norm() < 1e-4 * slope.norm()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inner", ["conv1", "bn1", "conv2", "relu"])
def test_a_block_with_a_wanted_layer_inside_stays(kind, inner):
    classifier = classifier_of(kind)
    layer = f"layer2.1.{inner}"
    network = DrawingNetwork(classifier, (layer,), "fp32")
    assert "layer2.1" not in blocks_of(network)
    unfolded = inner.startswith("conv")  # what a convolution gives is not what it gives folded
    assert ("layer2.0" in blocks_of(network)) is not unfolded
    output, gradient = told(network, layer)
    wanted, slope = told(plainly(classifier, layer), layer)
    torch.testing.assert_close(output, wanted, rtol=1e-4, atol=1e-4)
    assert (gradient - slope).norm() < 1e-4 * slope.norm()


def test_a_block_of_another_kind_stays():
    class Scaled(BasicBlock):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    classifier = classifier_of(Scaled)
    network = DrawingNetwork(classifier, ("layer2",), "fp32")
    assert not blocks_of(network)
    output, _ = told(network, "layer2")
    wanted, _ = told(plainly(classifier, "layer2"), "layer2")
    torch.testing.assert_close(output, wanted, rtol=1e-4, atol=1e-4)


def test_a_block_whose_last_norm_is_not_folded_stays():
    classifier = classifier_of(BasicBlock)
    classifier.network.layer1[0].bn2 = nn.GroupNorm(4, 64)
    nn.init.normal_(classifier.network.layer1[0].bn2.bias)
    network = DrawingNetwork(classifier, ("layer2",), "fp32")
    assert blocks_of(network) == ["layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer4.0"]
    output, _ = told(network, "layer2")
    wanted, _ = told(plainly(classifier, "layer2"), "layer2")
    torch.testing.assert_close(output, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shut", ["bn1", "bn2"])
def test_each_shut_relu_of_a_block_is_redirected(shut):
    classifier = classifier_of(BasicBlock)
    block = classifier.network.layer2[0]
    nn.init.zeros_(block.downsample[1].weight)  # so that no way leads around
    nn.init.zeros_(block.downsample[1].bias)
    nn.init.constant_(block.bn2.bias, 1000.0)
    nn.init.constant_(block.get_submodule(shut).bias, -1000.0)
    network = DrawingNetwork(classifier, ("layer2.0",), "fp32")
    assert "layer2.0" in blocks_of(network)
    x = torch.zeros(1, 3, 64, 48, requires_grad=True)

    def slope() -> torch.Tensor:
        # Both signs, since a shut ReLU lets through only what would open it.
        output = network(x)["layer2.0"]
        return torch.autograd.grad(
            (output * torch.tensor([1.0, -1.0]).repeat(64)[:, None, None]).sum(), x
        )[0]

    with torch.enable_grad():
        plain = slope()
        with network.redirected():
            opened = slope()
        again = slope()
    assert not plain.any()
    assert opened.any()
    assert not again.any()


def test_twins_share_their_blocks_weights():
    classifier = classifier_of(Bottleneck)
    network = DrawingNetwork(classifier, ("layer2",), "fp32")
    twin = network.twin()
    assert blocks_of(twin) == blocks_of(network)
    mine, others = (n._network.get_submodule("layer1.0.conv1") for n in (network, twin))
    assert mine is not others
    assert mine.weight is others.weight
    assert torch.equal(told(network, "layer2")[1], told(twin, "layer2")[1])


def test_the_users_network_is_not_touched():
    classifier = classifier_of(BasicBlock)
    before = copy.deepcopy(classifier.network.state_dict())
    kinds = [type(module) for module in classifier.network.modules()]
    told(DrawingNetwork(classifier, ("layer2",), "fp32"), "layer2")
    assert [type(module) for module in classifier.network.modules()] == kinds
    for name, value in classifier.network.state_dict().items():
        assert torch.equal(value, before[name])
