"""Channels of one network put into another: against slow re-derivations, and where nothing should be found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from conftest import SPEC, TinyNet, same_state, state_of, tiny_classifier
from transferscope.activations import capture, find_layer
from transferscope.backbones.classifier import Classifier
from transferscope.comparison import interventions
from transferscope.comparison.change import load_rows, save_rows
from transferscope.comparison.effects import mean_test
from transferscope.comparison.interventions import Interventions
from transferscope.comparison.patching import Patching, chosen_pictures, patch_channels
from transferscope.copies import copied
from transferscope.errors import InputError, UnknownName

BOUNDARY, LAYERS = "stages.0", ("stages.1", "stages.2")
LABELS = np.tile(np.arange(4), 10)


def moved(base: Classifier, *, by: float = 0.2, seed: int = 1) -> Classifier:
    """A copy with other weights and BatchNorm statistics behind the boundary."""
    network = copied(base.network)
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if name.startswith((*LAYERS, "head", "body", "mix")) and value.is_floating_point():
            noise = by * torch.randn(value.shape, generator=generator)
            value.copy_(value * noise.exp() if name.endswith("running_var") else value + noise)
    return base.with_network(network)


def pictures(count: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def rows_of(classifier: Classifier, x: torch.Tensor, layer: str = BOUNDARY) -> torch.Tensor:
    with torch.no_grad(), capture(classifier.network, [layer]) as caught:
        classifier(x)
    return caught[layer]


def answered(
    classifier: Classifier, x: torch.Tensor, layer: str, alter: Callable[[torch.Tensor], None]
) -> torch.Tensor:
    """Logits with a layer's output altered in place, by a plain hook and the whole network."""

    def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        alter(output)
        return output

    handle = find_layer(classifier.network, layer).register_forward_hook(hook)
    try:
        with torch.no_grad():
            return classifier(x) / classifier.temperature
    finally:
        handle.remove()


def losses(logits: torch.Tensor, labels: np.ndarray = LABELS) -> np.ndarray:
    given = torch.from_numpy(labels)
    return nn.functional.cross_entropy(logits, given, reduction="none").double().numpy()


# ---------------------------------------------------------------------------- against a hook


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("intervention", ["set_back", "brought", "ablated"])
def test_an_intervention_is_what_a_hook_does(intervention, layer):
    base = tiny_classifier()
    tuned, x = moved(base), pictures()
    base.temperature, tuned.temperature = 1.0, 0.7
    both = Interventions(base, tuned, BOUNDARY, rows_of(base, x), LABELS, LAYERS, np.arange(40))
    found = both.measure(intervention, {layer: np.array([1, 6])})[layer]
    old, new = rows_of(base, x, layer), rows_of(tuned, x, layer)
    donor = {"set_back": old, "brought": new, "ablated": new.mean(0, keepdim=True)}[intervention]
    into = base if intervention == "brought" else tuned
    plain = answered(into, x, layer, lambda output: None)
    assert np.array_equal(found.before, (plain.argmax(1).numpy() == LABELS))
    for place, channel in enumerate((1, 6)):

        def alter(output: torch.Tensor, channel: int = channel) -> None:
            output[:, channel] = donor[:, channel]

        logits = answered(into, x, layer, alter)
        assert found.loss[:, place] == pytest.approx(losses(logits) - losses(plain), abs=1e-4)
        assert np.array_equal(found.after[:, place], logits.argmax(1).numpy() == LABELS)
        own = (logits - plain).double()
        own = own[torch.arange(40), torch.from_numpy(LABELS)] - own.mean(1)
        assert found.logit[:, place] == pytest.approx(own.numpy(), abs=1e-4)
    assert np.abs(found.loss).max() > 1e-3


class Tokens(nn.Module):
    """Maps, maps with channels last, tokens and a vector, one after another."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 8, stride=8)
        self.body = nn.Conv2d(6, 6, 1)
        self.mix = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 7), nn.Linear(7, 9))
        self.head = nn.Linear(9, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(self.stem(x)).relu_().movedim(1, -1)
        x = self.mix[0](x).tanh().flatten(1, 2)
        x = self.mix[1](x).tanh().mean(1)
        return self.head(self.mix[2](x).tanh())


@pytest.mark.parametrize("layer", ["body", "mix.0", "mix.1", "mix.2"])
def test_channels_are_found_wherever_the_layer_has_them(layer):
    torch.manual_seed(0)
    base = Classifier(Tokens().eval(), SPEC, list("abcd"))
    tuned, x = moved(base, by=0.5), pictures()
    rows = rows_of(base, x, "stem")
    both = Interventions(base, tuned, "stem", rows, LABELS, [layer], np.arange(40))
    channels = both.channels[layer]
    assert channels == {"body": 6, "mix.0": 5, "mix.1": 7, "mix.2": 9}[layer]
    found = both.measure("set_back", {layer: np.arange(channels)})[layer]
    old, plain = rows_of(base, x, layer), answered(tuned, x, layer, lambda output: None)
    for channel in range(channels):

        def alter(output: torch.Tensor, channel: int = channel) -> None:
            index = (slice(None), channel) if layer == "body" else (..., channel)
            output[index] = old[index]

        change = losses(answered(tuned, x, layer, alter)) - losses(plain)
        assert found.loss[:, channel] == pytest.approx(change, abs=1e-4)


def test_the_first_order_is_the_slope_of_the_exact_effect():
    base = tiny_classifier()
    x, steps = pictures(), {}
    for by in (0.1, 0.01):
        tuned = moved(base, by=by)
        both = Interventions(base, tuned, BOUNDARY, rows_of(base, x), LABELS, LAYERS, np.arange(40))
        estimates = both.first_order()
        exact = both.measure("set_back", {layer: np.arange(8) for layer in LAYERS})
        for layer in LAYERS:
            error = np.abs(estimates[layer] - exact[layer].loss).max()
            steps[by, layer] = error / np.abs(exact[layer].loss).max()
    for layer in LAYERS:
        assert steps[0.1, layer] < 0.5
        assert steps[0.01, layer] < steps[0.1, layer] / 3


def test_batches_and_order_of_pictures_change_nothing(monkeypatch):
    base = tiny_classifier()
    tuned, rows = moved(base), rows_of(base, pictures())
    whole = patch_channels(base, tuned, BOUNDARY, rows, LABELS, LAYERS)
    monkeypatch.setattr(interventions, "PICTURES", 3)
    monkeypatch.setattr(interventions, "COPIES", 5)
    order = np.random.default_rng(0).permutation(40)
    other = patch_channels(base, tuned, BOUNDARY, rows[order], LABELS[order], LAYERS)
    for one, two in zip(whole.channels, other.channels, strict=True):
        for name in ("set_back", "brought", "ablated"):
            first, second = getattr(one, name), getattr(two, name)
            assert first.loss == pytest.approx(second.loss, abs=1e-5)
            assert first.accuracy == second.accuracy
        assert one.classes.logit == pytest.approx(two.classes.logit, abs=1e-5)


# ---------------------------------------------------------------------------- nothing to be found


def test_a_network_against_itself_has_nothing_that_matters():
    base = tiny_classifier()
    same = base.with_network(copied(base.network))
    found = patch_channels(base, same, BOUNDARY, rows_of(base, pictures()), LABELS, LAYERS)
    assert len(found.channels) == 16
    for one in found.channels:
        assert (one.estimate, one.set_back.loss, one.set_back.p, one.q) == (0, 0, 1, 1)
        assert one.set_back.accuracy_low < 0 < one.set_back.accuracy_high
        assert one.brought.p == 1
        assert (one.classes.serves, one.classes.p, one.classes.q) == ((), 1, 1)
        assert one.ablated.loss != 0
    assert not found.mattering()
    assert not found.changing_logits()
    assert found.rank_correlation == dict.fromkeys(LAYERS)


# ---------------------------------------------------------------------------- something to be found


@pytest.fixture(scope="module")
def trained() -> tuple[Classifier, torch.Tensor, np.ndarray]:
    """A tiny classifier that knows eight classes of noisy gratings, and held-out pictures of them."""
    torch.manual_seed(0)
    network = TinyNet(classes=8, channels=24)
    classifier = Classifier(network, SPEC, [f"grating {k}" for k in range(8)])
    angles = torch.arange(8) * torch.pi / 8
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")

    def drawn(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(count) % 8
        phase = torch.rand(count, 1, 1) * 2 * torch.pi
        along = angles[labels].cos()[:, None, None] * x + angles[labels].sin()[:, None, None] * y
        wave = 0.5 + 0.3 * torch.sin(along + phase)
        return (wave[:, None] + 0.25 * torch.randn(count, 3, 32, 32)).clamp(0, 1), labels

    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    network.train()
    for _ in range(30):
        batch, labels = drawn(48)
        optimizer.zero_grad()
        nn.functional.cross_entropy(classifier(batch), labels).backward()
        optimizer.step()
    network.eval().requires_grad_(False)
    held, labels = drawn(240)
    return classifier, held, labels.numpy()


def reinitialised(trained: Classifier, layer: int, channels: np.ndarray) -> Classifier:
    """A copy in which filters of a block's last convolution are drawn anew: what those channels add to the
    shortcut is that of an untrained network."""
    network = copied(trained.network)
    block = network.stages[layer]
    generator = torch.Generator().manual_seed(3)
    weight = block.conv2.weight
    fresh = weight.std() * torch.randn(weight.shape, generator=generator)
    with torch.no_grad():
        weight[channels] = fresh[channels]
    return trained.with_network(network)


def test_channels_drawn_anew_are_those_that_matter(trained):
    tuned, held, labels = trained
    chosen = np.random.default_rng(0).permutation(24)[:12]
    base = reinitialised(tuned, 2, chosen)
    tuned = tuned.with_network(copied(tuned.network))
    idle = chosen[:2]  # what these two do nobody behind them reads
    with torch.no_grad():
        tuned.network.head.weight[:, idle] = 0
    rows = rows_of(tuned, held)
    found = patch_channels(base, tuned, BOUNDARY, rows, labels, ["stages.2"])
    called = {one.channel for one in found.mattering()}
    changing = {one.channel for one in found.changing_logits()}
    for these in (called, changing):
        assert these <= set(chosen) - set(idle), "no false discovery"
        assert len(these) >= 0.95 * 10
    for one in found.channels:
        assert one.set_back is not None
        if one.channel not in called:
            assert (one.set_back.loss, one.set_back.p, one.q) == (0, 1, 1)
            assert one.classes is not None
            assert not one.classes.serves
    assert found.rank_correlation["stages.2"] > 0.9
    assert all(one.brought.loss < 0 for one in found.mattering()[:5])


def test_a_channel_serves_the_class_whose_logit_only_it_feeds(trained):
    tuned, held, labels = trained
    tuned = tuned.with_network(copied(tuned.network))
    with torch.no_grad():
        tuned.network.head.weight[:, 5] = 0
        tuned.network.head.weight[3, 5] = 2.0
        tuned.network.head.weight[6, 5] = -2.0
    base = reinitialised(tuned, 2, np.array([], np.int64))
    with torch.no_grad():
        tuned.network.stages[2].bn2.bias[5] += 1
    rows = rows_of(tuned, held)
    found = patch_channels(base, tuned, BOUNDARY, rows, labels, ["stages.2"], beside=0)
    effects = found.channels[5].classes
    assert effects.serves == (3,)
    assert effects.high[3] < 0 < effects.low[6]
    own = [rows_of(one, held, "stages.2")[labels == 3, 5].mean() for one in (base, tuned)]
    assert effects.logit[3] == pytest.approx(float(2 * (own[0] - own[1])), rel=1e-3)


# ---------------------------------------------------------------------------- shortlist, sample, record


def test_only_the_shortlist_is_measured_and_called():
    base = tiny_classifier()
    tuned, rows = moved(base), rows_of(base, pictures())
    every = patch_channels(base, tuned, BOUNDARY, rows, LABELS, LAYERS)
    some = patch_channels(base, tuned, BOUNDARY, rows, LABELS, LAYERS, exact=5, beside=2)
    best = sorted(every.channels, key=lambda one: -one.estimate)[:5]
    exact = [one for one in some.channels if one.exact]
    assert {(o.layer, o.channel) for o in exact} == {(o.layer, o.channel) for o in best}
    assert [o.estimate for o in some.channels] == [o.estimate for o in every.channels]
    for one in some.channels:
        whole = next(o for o in every.channels if (o.layer, o.channel) == (one.layer, one.channel))
        if one.exact:
            assert one.set_back.loss == pytest.approx(whole.set_back.loss, abs=1e-5)
        else:
            assert one == replace(
                whole, exact=False, set_back=None, q=1.0, classes=None, brought=None, ablated=None
            )
    further = [one for one in exact if one.brought]
    assert all(one.ablated for one in further)
    assert len(further) == 2
    assert min(o.set_back.loss for o in further) >= max(
        o.set_back.loss for o in exact if o not in further
    )
    assert set(some.mattering()) <= set(exact)


def test_channels_that_were_not_patched_count_as_tests():
    base = tiny_classifier()
    tuned, x = moved(base), pictures()
    labels = tuned(x).argmax(1).numpy()  # what tuned says is right, so its changes matter
    rows = rows_of(base, x)
    some = patch_channels(base, tuned, BOUNDARY, rows, labels, LAYERS, exact=4, beside=0)
    exact = [one for one in some.channels if one.exact]
    for p, q in (
        ([one.set_back.p for one in exact], [one.q for one in exact]),
        ([one.classes.p for one in exact], [one.classes.q for one in exact]),
    ):
        order = sorted(p)
        slow = [min(order[k] * 16 / (k + 1) for k in range(order.index(one), 4)) for one in p]
        assert q == pytest.approx([min(1, one) for one in slow], rel=1e-6, abs=0)
        assert min(q) < 0.05


def test_any_class_is_tested_by_simes():
    base = tiny_classifier()
    tuned, rows = moved(base), rows_of(base, pictures())
    both = Interventions(base, tuned, BOUNDARY, rows, LABELS, LAYERS, np.arange(40))
    logit = both.measure("set_back", {"stages.2": np.arange(8)})["stages.2"].logit
    found = patch_channels(base, tuned, BOUNDARY, rows, LABELS, ["stages.2"], beside=0)
    for one in found.channels:
        above = [
            mean_test(logit[k == LABELS][:, [one.channel]], np.zeros(10, int)).p[0]
            for k in range(4)
        ]
        p = sorted(2 * min(side, 1 - side) for side in above)
        assert one.classes.p == pytest.approx(min(p[k] * 4 / (k + 1) for k in range(4)), rel=1e-6)


def test_rows_are_those_of_a_witness_and_records_survive(tmp_path):
    base = tiny_classifier()
    tuned, rows = moved(base), rows_of(base, pictures())
    labels = np.where(np.arange(40) == 0, 3, LABELS % 3)
    found = patch_channels(base, tuned, BOUNDARY, rows, labels, LAYERS, exact=6, beside=3)
    assert Patching.from_dict(found.to_dict()) == found
    assert found.few
    table = found.rows()
    save_rows(table, tmp_path / "rows.csv")
    assert load_rows(tmp_path / "rows.csv") == table
    assert [(row.layer, row.channel) for row in table] == [
        (layer, channel) for layer in LAYERS for channel in range(8)
    ]
    assert {(row.witness, row.null) for row in table} == {("patching", 0.0)}
    assert sum(row.p == 1 and row.low == row.high == row.value for row in table) == 10
    lonely = next(one for one in found.channels if one.exact).classes
    assert lonely.logit[3] is None, "the class has one picture"
    assert 3 not in lonely.serves


def test_a_sample_has_the_same_share_of_every_class():
    labels = np.repeat(np.arange(4), [100, 50, 10, 2])
    chosen = chosen_pictures(labels, 81, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [50, 25, 5, 2]
    assert np.array_equal(chosen, np.unique(chosen))
    assert np.array_equal(chosen, chosen_pictures(labels, 81, seed=0))
    assert not np.array_equal(chosen, chosen_pictures(labels, 81, seed=1))
    assert np.array_equal(chosen_pictures(labels, 1000, seed=0), np.arange(162))
    base = tiny_classifier()
    tuned, rows = moved(base), rows_of(base, pictures())
    some = patch_channels(base, tuned, BOUNDARY, rows, LABELS, LAYERS, pictures=20, seed=3)
    chosen = chosen_pictures(LABELS, 20, seed=3)
    alone = patch_channels(base, tuned, BOUNDARY, rows[chosen], LABELS[chosen], LAYERS)
    assert some.pictures == 20
    for one, two in zip(some.channels, alone.channels, strict=True):
        assert one.set_back.loss == pytest.approx(two.set_back.loss, abs=1e-6)


# ---------------------------------------------------------------------------- nothing is left behind


def test_networks_are_left_as_they_were_also_after_a_failure():
    base = tiny_classifier()
    tuned, rows = moved(base), rows_of(base, pictures())
    tuned.network.train()
    before = [state_of(one.network) for one in (base, tuned)]
    kept, heard = rows.clone(), []

    def step(name: str, done: int, total: int) -> None:
        heard.append((name, done, total))
        if name == "ablated":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        patch_channels(base, tuned, BOUNDARY, rows, LABELS, LAYERS, on_step=step)
    for known, one in zip(before, (base, tuned), strict=True):
        assert same_state(known, state_of(one.network))
    assert torch.equal(rows, kept)
    assert list(dict.fromkeys(name for name, _, _ in heard)) == [
        "first order",
        "set back",
        "brought",
        "ablated",
    ]
    assert ("set back", 40, 40) in heard


def test_what_cannot_be_patched_is_refused():
    base = tiny_classifier()
    tuned, rows = moved(base), rows_of(base, pictures())
    with pytest.raises(InputError, match="bypasses"):
        patch_channels(base, tuned, BOUNDARY, rows, LABELS, ["stages.1.conv2"])
    with pytest.raises(InputError, match=r"'stem' is not behind 'stages.0'"):
        patch_channels(base, tuned, BOUNDARY, rows, LABELS, ["stages.1", "stem"])
    with pytest.raises(UnknownName, match=r"stages\.7"):
        patch_channels(base, tuned, BOUNDARY, rows, LABELS, ["stages.7"])
    for name, count in (("exact", -1), ("beside", -2), ("pictures", 1)):
        with pytest.raises(InputError, match=f"{name} is {count}"):
            patch_channels(base, tuned, BOUNDARY, rows, LABELS, LAYERS, **{name: count})
