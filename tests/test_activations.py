from __future__ import annotations

import pytest
import torch
from torch import nn

from conftest import TinyNet, same_state, state_of, tiny_classifier
from transferscope.activations import (
    Resumed,
    TruncatedForward,
    capture,
    capture_inputs,
    evaluating,
    find_layer,
    is_channels_last,
    layers,
    modules_below,
    preserved,
)
from transferscope.errors import InputError, UnknownName


def by_hand(network: TinyNet, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The forward pass written out with functions, nothing in place."""
    x = network.stem(x)
    found = {"stem": x}
    for index, block in enumerate(network.stages):
        out = torch.relu(block.bn1(block.conv1(x)))
        found[f"stages.{index}.bn2"] = block.bn2(block.conv2(out))
        x = torch.relu(found[f"stages.{index}.bn2"] + x)
        found[f"stages.{index}"] = found[f"stages.{index}.relu"] = x
    return found


@pytest.fixture
def network() -> TinyNet:
    return tiny_classifier().network


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_capture_is_what_the_layer_gave_before_anything_in_place(network, x):
    wanted = by_hand(network, x)
    before = state_of(network)
    with capture(network, list(wanted)) as caught:
        network(x)
    assert same_state(before, state_of(network))
    for name, value in wanted.items():
        torch.testing.assert_close(caught[name], value, msg=name)


@pytest.mark.parametrize(
    ("module", "shape", "size", "last"),
    [
        (nn.Conv2d(3, 96, 3), (96, 56, 56), (224, 224), False),
        (nn.GELU(), (56, 56, 96), (224, 224), True),
        (nn.GELU(), (7, 7, 7), (224, 224), False),
        (nn.Conv2d(3, 8, 3), (8, 8, 32), (64, 256), False),
        (nn.Identity(), (8, 32, 8), (64, 256), True),
        (nn.Identity(), (1, 1, 10), (64, 64), True),
        (nn.Identity(), (10, 1, 1), (64, 64), False),
        (nn.Identity(), (16, 13, 7), (100, 50), False),  # 12.5 rows, rounded up
        (nn.Linear(7, 7), (7, 7, 7), (224, 224), True),
        (nn.LayerNorm(7), (7, 7, 7), (224, 224), True),
        (nn.Linear(96, 10), (49, 96), (224, 224), False),
        (nn.Linear(96, 10), (10,), (224, 224), False),
    ],
)
def test_channels_last_is_told_by_kind_or_by_proportions(module, shape, size, last):
    assert is_channels_last(module, shape, size) is last


def test_maps_with_channels_last_are_turned_only_where_asked():
    network = nn.Sequential(nn.Conv2d(3, 5, 2, stride=2), Turned(), nn.Linear(5, 6))
    x = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(3))
    own = network(x).detach()
    assert own.shape == (2, 8, 12, 6)
    with torch.no_grad():
        torch.testing.assert_close(TruncatedForward(network, ["2"], x)(x)["2"], own)
        turned = TruncatedForward(network, ["0", "2"], x, channels_first=True)(x)
    assert turned["0"].shape == (2, 5, 8, 12)
    torch.testing.assert_close(turned["2"], own.permute(0, 3, 1, 2))
    found = {layer.name: layer for layer in layers(network, x)}
    assert [found[name].channels for name in "012"] == [5, 5, 6]
    assert [found[name].channels_last for name in "012"] == [False, True, True]


class Turned(nn.Module):
    """(N, H, W, C) from (N, C, H, W)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1)


@pytest.mark.parametrize("name", ["stem", "stages.1.bn2", "stages.1.relu", "stages.2"])
def test_truncated_forward_equals_the_full_one_and_stops(network, x, name):
    wanted = by_hand(network, x)[name]
    before = state_of(network)
    forward = TruncatedForward(network, [name], x)
    heads: list[object] = []
    handle = network.head.register_forward_hook(lambda *_: heads.append(1))
    torch.testing.assert_close(forward(x)[name], wanted)
    handle.remove()
    assert not heads, "the head ran"
    assert same_state(before, state_of(network))


def test_layers_behind_an_output_have_a_gradient_with_respect_to_it():
    class Last(nn.Module):
        """Maps with channels last, and a ReLU in place behind them."""

        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 5, 3), nn.LayerNorm(5), nn.Linear(5, 2)

        def forward(self, x):
            x = self.norm(self.conv(x).permute(0, 2, 3, 1))
            return self.head(x.relu_().mean((1, 2)))

    torch.manual_seed(0)
    network, given = Last(), torch.rand(2, 3, 8, 8)
    found = TruncatedForward(network, ["norm", "head"], given, channels_first=True)(given)
    (gradient,) = torch.autograd.grad(found["head"][:, 1].sum(), found["norm"])
    wanted = (found["norm"] > 0) * network.head.weight[1].view(1, 5, 1, 1) / 36
    assert found["norm"].shape == (2, 5, 6, 6)
    assert found["norm"].min() < 0  # the ReLU behind it does not reach it
    torch.testing.assert_close(gradient, wanted)


def test_truncated_forward_passes_gradients_and_restores_after_errors(network, x):
    forward = TruncatedForward(network, ["stages.1"], x)
    before = state_of(network)
    leaf = x.clone().requires_grad_()
    with evaluating(network):
        forward(leaf)["stages.1"].sum().backward()
    assert leaf.grad.abs().sum() > 0
    assert same_state(before, state_of(network))
    with pytest.raises(RuntimeError):
        forward(torch.zeros(1, 5, 32, 32))
    assert same_state(before, state_of(network))


def test_unknown_layers_are_refused_with_the_nearest(network, x):
    with pytest.raises(UnknownName, match=r"'stages\.4'.*did you mean 'stages\.[012]'"):
        find_layer(network, "stages.4")
    with pytest.raises(UnknownName):
        TruncatedForward(network, [""], x)


def test_a_layer_that_never_runs_is_refused(network, x):
    network.unused = nn.Linear(2, 2)
    with pytest.raises(InputError, match="never run"):
        TruncatedForward(network, ["unused"], x)


def test_layers_lists_shapes_parameters_calls_and_signs(network, x):
    found = {layer.name: layer for layer in layers(network, x)}
    assert found["stem"].output_shape == (8, 16, 16)
    assert found["stem"].parameters == 8 * 3 * 9 + 8
    assert found["stages.0.relu"].calls == 2
    assert not found["stages.0"].signed
    assert found["stages.0.bn1"].signed
    assert found["head"].channels == 4
    orders = [layer.order for layer in layers(network, x)]
    assert orders == sorted(orders)


@pytest.mark.parametrize("boundary", ["stem", "stages.0", "stages.2"])
def test_resumed_gives_the_whole_networks_logits(network, x, boundary):
    before = state_of(network)
    rest = Resumed(network, boundary, x)
    activation = by_hand(network, x)[boundary]
    torch.testing.assert_close(rest(activation), network(x))
    assert same_state(before, state_of(network))


def test_resumed_does_not_run_what_lies_before(network, x):
    rest = Resumed(network, "stages.1", x)
    activation = by_hand(network, x)["stages.1"]
    runs: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: runs.append(name))
        for name, module in network.named_modules()
        if name.endswith("conv1")
    ]
    rest(activation)
    for handle in handles:
        handle.remove()
    assert runs == ["stages.2.conv1"]


def test_resumed_refuses_a_boundary_that_is_bypassed(network, x):
    with pytest.raises(InputError, match="bypasses"):
        Resumed(network, "stages.1.bn1", x)


class Bypassed(TinyNet):
    """Its output depends on the first stage's maps beside the boundary, by a very small share."""

    how = "sum"

    def forward(self, x):
        early = self.stages[0](self.stem(x))
        if self.how == "kept":
            self.stages[0].seen = early.mean()
        late = self.stages[2](self.stages[1](early))
        pooled = late.mean((2, 3))
        if self.how == "sum":
            pooled = pooled + 1e-6 * early.clamp(-1, 1).mean((2, 3))
        elif self.how == "kept":
            pooled = pooled + self.stages[0].seen
        elif self.how == "mask":
            pooled = pooled * (early.mean() > -1e9)
        return self.head(pooled)


@pytest.mark.parametrize("how", ["sum", "kept", "mask"])
def test_resumed_refuses_what_reads_the_skipped_whatever_is_in_memory(x, how, monkeypatch):
    network = Bypassed()
    network.how = how
    network.eval()
    real = torch.Tensor.new_empty
    monkeypatch.setattr(
        torch.Tensor, "new_empty", lambda self, *a, **k: real(self, *a, **k).zero_()
    )
    with pytest.raises(InputError, match="bypasses"):
        Resumed(network, "stages.1", x)


def test_resumed_restores_when_the_rest_fails(network, x):
    rest = Resumed(network, "stages.0", x)
    before = state_of(network)
    with pytest.raises(RuntimeError):
        rest(torch.zeros(2, 3, 4, 4))
    assert same_state(before, state_of(network))


def test_modules_below_are_those_that_finished(network, x):
    below = modules_below(network, "stages.0", x)
    assert {"stem", "stages.0", "stages.0.conv1", "stages.0.relu"} <= set(below)
    assert not {"stages", "stages.1", "head"} & set(below)


def test_preserved_gives_modes_flags_and_gradients_back(network, x):
    network(x).sum().backward()
    grads = [parameter.grad for parameter in network.parameters()]
    before = state_of(network)
    with preserved(network):
        network.train()
        network.requires_grad_(False)
        network.zero_grad(set_to_none=True)
    after = state_of(network)
    assert before["modes"] == after["modes"]
    assert before["flags"] == after["flags"]
    assert all(a is b for a, b in zip(grads, after["grads"], strict=True))


def test_capture_inputs_sees_what_the_head_sees(network, x):
    with evaluating(network), capture_inputs(network, "head") as caught:
        logits = network(x)
    torch.testing.assert_close(network.head(caught[0]), logits)
