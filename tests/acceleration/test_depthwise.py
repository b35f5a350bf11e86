"""Gradients of depthwise convolutions, held against the library's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from transferscope.acceleration.depthwise import PhasedDepthwise, phased

SHAPES = [  # kernel, stride, padding, size
    (3, 2, 1, (8, 8)),
    (5, 1, 2, (7, 9)),
    (5, 2, 2, (14, 11)),
    (7, 1, 3, (10, 10)),
    (4, 2, 1, (9, 8)),
]


def gradients(layer, pictures, weights):
    pictures = pictures.clone().requires_grad_(True)
    layer.zero_grad()
    (layer(pictures) * weights).sum().backward()
    return [pictures.grad, *(p.grad.clone() for p in layer.parameters())]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), SHAPES)
def test_all_gradients_are_the_librarys(kernel, stride, padding, size, dtype):
    """Small whole numbers are exact in every dtype, so that the two must agree to the last bit."""
    generator = torch.Generator().manual_seed(0)

    def whole(*shape):
        return torch.randint(-1, 2, shape, generator=generator).to(torch.float64)

    conv = nn.Conv2d(6, 6, kernel, stride, padding, groups=6).double()
    with torch.no_grad():
        conv.weight.copy_(whole(*conv.weight.shape))
        conv.bias.copy_(whole(6))
    pictures = whole(2, 6, *size)
    weights = whole(*conv(pictures).shape)
    expected = gradients(conv, pictures, weights)
    layer = PhasedDepthwise(conv).to(dtype)
    pictures = pictures.to(dtype).contiguous(memory_format=torch.channels_last)
    found = gradients(layer, pictures, weights.to(dtype))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.double(), other)


def test_convolutions_are_replaced_where_that_pays():
    network = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4),  # small, stride 1: the library is fast
        nn.Conv2d(4, 4, 5, groups=4),
        nn.Conv2d(4, 4, 3, stride=2, groups=4),
        nn.Conv2d(4, 8, 5),
    )
    kinds = [isinstance(layer, PhasedDepthwise) for layer in phased(network)]
    assert kinds == [False, True, True, False]
    assert [name for name, _ in phased(network).named_parameters()] == [
        name for name, _ in network.named_parameters()
    ]
