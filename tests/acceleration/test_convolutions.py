"""Frozen convolutions give what PyTorch's own give, and so do their gradients."""

from __future__ import annotations

import copy
import math
import platform

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from transferscope.acceleration import convolutions
from transferscope.acceleration.convolutions import FrozenConv, ceiling_of, freeze, freezes, masked
from transferscope.acceleration.network import FastNetwork
from transferscope.backbones.classifier import Classifier
from transferscope.images import InputSpec

CEILINGS = (None, 6.0, math.inf)


def cut(output: torch.Tensor, ceiling: float | None) -> torch.Tensor:
    return output if ceiling is None else output.clamp(0, ceiling)


def both(conv: nn.Conv2d, size: tuple[int, int], ceiling: float | None, *, dtype=torch.float32):
    """(output, gradient of the pictures) by the library's own convolution and by the frozen one."""
    torch.manual_seed(1)
    pictures = torch.randn(2, conv.in_channels, *size).to(memory_format=torch.channels_last)
    told = []
    for function in (
        lambda x: cut(conv(x), ceiling),
        FrozenConv(conv, dtype, ceiling),
    ):
        x = pictures.clone().requires_grad_()
        output = function(x)
        torch.manual_seed(2)
        weights = torch.randn(output.shape)
        (gradient,) = torch.autograd.grad((output.float() * weights).sum(), x)
        told.append((output.detach().float(), gradient))
    return told


GEOMETRIES = [
    pytest.param(kernel, stride, padding, groups, id=f"{kernel}/{stride}, {padding}, {groups}")
    for kernel in (1, 2, 3, 5, 7)
    for stride in (1, 2, 3)
    for padding in (0, 1, 2, "same")
    for groups in (1, 2, 8)
]  # fmt: skip


@pytest.mark.parametrize(("kernel", "stride", "padding", "groups"), GEOMETRIES)
def test_output_and_gradient_are_the_librarys_for_every_geometry(kernel, stride, padding, groups):
    assert_same(kernel, stride, padding, groups)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 8])
def test_so_they_are_where_the_library_lays_nothing_out(stride, groups, monkeypatch):
    monkeypatch.setattr(convolutions, "_lays_out", lambda *_: False)
    for kernel in (1, 3, 5):
        for padding in (0, 1, "same"):
            assert_same(kernel, stride, padding, groups)


def assert_same(kernel: int, stride: int, padding: int | str, groups: int) -> None:
    torch.manual_seed(0)
    kind = Conv2dSame if padding == "same" else nn.Conv2d
    zeros = 0 if padding == "same" else padding
    channels = 8 if groups > 1 else (3 if stride > 1 else 5)
    conv = kind(channels, 8, kernel, stride=stride, padding=zeros, groups=groups)
    assert freezes(conv)
    for size in ((16, 16), (13, 17), (7, 8)):
        for ceiling in CEILINGS:
            (wanted, slope), (output, gradient) = both(conv, size, ceiling)
            torch.testing.assert_close(output, wanted, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (16, 1), (1, 2), (16, 2)])
def test_bf16_is_as_near_as_bf16_is(groups, stride):
    conv = nn.Conv2d(16, 16, 3, stride=stride, padding=1, groups=groups)
    (wanted, slope), (output, gradient) = both(conv, (14, 14), 6.0, dtype=torch.bfloat16)
    assert (output - wanted).abs().max() < 0.03
    # An activation that rounding carries over a border has another gradient: most have the same.
    assert torch.nn.functional.cosine_similarity(gradient.flatten(), slope.flatten(), 0) > 0.99


@pytest.mark.parametrize("dilation", [2, 3])
def test_dilated_kernels_too(dilation):
    conv = nn.Conv2d(5, 8, 3, padding=1, dilation=dilation)
    (wanted, slope), (output, gradient) = both(conv, (15, 14), None)
    torch.testing.assert_close(output, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, stride=2, dilation=2),
        nn.ConvTranspose2d(4, 4, 3),
        nn.Linear(4, 4),
        type("Scaled", (nn.Conv2d,), {})(4, 4, 3),
    ],
    ids=[
        "named padding",
        "reflected",
        "strided and dilated",
        "transposed",
        "linear",
        "another kind",
    ],
)
def test_what_it_does_not_know_stays(module):
    assert not freezes(module)
    network = nn.Sequential(module)
    freeze(network, torch.float32, {})
    assert network[0] is module


@pytest.mark.parametrize("ceiling", [6.0, math.inf])
def test_a_redirected_gradient_passes_where_it_would_open(ceiling):
    output = torch.tensor([0.0, 0.0, 2.0, 2.0, ceiling, ceiling])
    gradient = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    assert masked(gradient, output, ceiling, redirected=True).tolist() == [1, 0, 1, -1, 0, -1]
    plain = masked(gradient, output, ceiling, redirected=False).tolist()
    at_ceiling = [0, 0] if ceiling == 6.0 else [1, -1]
    assert plain == [0, 0, 1, -1, *at_ceiling]


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available(),
    reason="oneDNN's laid out weights are promised on x86 alone; elsewhere they are tried for",
)
def test_weights_are_laid_out_here():
    assert convolutions._lays_out("cpu", torch.float32)


def test_copies_share_what_is_laid_out():
    frozen = FrozenConv(nn.Conv2d(3, 8, 3), torch.float32)
    frozen(torch.rand(1, 3, 8, 8))
    assert frozen._kernels._made
    assert copy.deepcopy(frozen)._kernels is frozen._kernels


# ---------------------------------------------------------------------------- which ReLUs go inside


class Used(nn.Module):
    """A convolution whose output a ReLU takes, and something else too where `twice`."""

    def __init__(self, twice: str):
        super().__init__()
        self.twice = twice
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.relu = nn.ReLU()
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = self.first(x)
        if self.twice == "module":
            seen = self.second(seen) + self.relu(seen)
        elif self.twice == "in place":
            seen += 0 * x.mean()
            seen = self.second(self.relu(seen))
        elif self.twice == "function":
            seen = self.second(self.relu(seen)) + seen
        else:
            seen = self.second(self.relu(seen))
        return self.head(seen.mean((2, 3)))


def drawing(twice: str, layer: str = "second") -> tuple[Classifier, FastNetwork]:
    torch.manual_seed(3)
    spec = InputSpec(size=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
    classifier = Classifier(Used(twice).eval(), spec, list("abcd"))
    return classifier, FastNetwork(classifier.network, (layer,), classifier.example(), "fp32")


@pytest.mark.parametrize(
    ("twice", "layer", "inside"),
    [
        ("no", "second", True),
        ("no", "first", False),  # what is drawn is the convolution before its ReLU
        ("module", "head", False),
        ("function", "head", False),
        ("in place", "head", False),
    ],
)
def test_a_relu_goes_inside_only_where_nothing_else_is_changed(twice, layer, inside):
    classifier, network = drawing(twice, layer)
    first = network._network.get_submodule("first")
    assert isinstance(first, FrozenConv)
    assert (first.ceiling is not None) is inside
    x = torch.randn(2, 3, 16, 16, requires_grad=True)
    told = []
    with torch.enable_grad():
        caught = {}
        handle = classifier.network.get_submodule(layer).register_forward_hook(
            lambda _m, _i, output: caught.update(own=output)
        )
        classifier.network(x)
        handle.remove()
        for output in (caught["own"], network(x)[layer]):
            (gradient,) = torch.autograd.grad(output.square().sum(), x)
            told.append((output.detach(), gradient))
    (wanted, slope), (output, gradient) = told
    torch.testing.assert_close(output, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, slope, rtol=1e-3, atol=1e-4)


def test_a_relu_behind_a_convolution_that_has_cut_off_does_nothing():
    _, network = drawing("no")
    relu, first = (network._network.get_submodule(name) for name in ("relu", "first"))
    output = first(torch.randn(1, 3, 16, 16))
    assert ceiling_of(output) == math.inf
    assert relu(output) is output
    assert relu(output.clone()) is not output


def test_convolutions_are_redirected_with_their_relus():
    _, network = drawing("no")
    with torch.no_grad():
        network._network.get_submodule("first").bias.fill_(-100)  # shut everywhere
    x = torch.zeros(1, 3, 16, 16, requires_grad=True)
    with torch.enable_grad():
        (shut,) = torch.autograd.grad(network(x)["second"].sum(), x)
        with network.redirected():
            (opened,) = torch.autograd.grad(network(x)["second"].sum(), x)
        (again,) = torch.autograd.grad(network(x)["second"].sum(), x)
    assert not shut.any()
    assert opened.any()
    assert not again.any()
