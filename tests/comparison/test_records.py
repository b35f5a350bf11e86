from __future__ import annotations

import copy
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from conftest import same_state, state_of, tiny_classifier
from transferscope.comparison import channels as comparison
from transferscope.comparison.channels import compare_networks
from transferscope.comparison.geometry import embed, frozen_up_to, linear_cka
from transferscope.comparison.nulls import change_statistic, null_statistics
from transferscope.comparison.records import Comparison
from transferscope.errors import InputError, UnknownName
from transferscope.images import as_float

LAYERS = ("stages.0", "stages.2")


def drawings(layer: str, channels: range, seeds: range, *, salt: int = 0, blend: float = 0.0):
    """Fake renders: a pattern of the channel with a little noise of the seed."""
    found = []
    for channel in channels:
        pattern = (
            np.random.default_rng([channel, salt]).normal(0, 1, (8, 8, 3)).repeat(4, 0).repeat(4, 1)
        )
        for seed in seeds:
            noise = np.random.default_rng([channel, seed, 77]).normal(0, 1, (32, 32, 3))
            values = 128 + 60 * ((1 - blend) * pattern + blend * noise)
            found.append(
                SimpleNamespace(
                    layer=layer,
                    channel=channel,
                    sign="plus",
                    seed=seed,
                    picture=np.clip(values, 0, 255).astype(np.uint8),
                    activation=float(channel),
                    exemplar_max=1.0,
                    status="optimized" if seed != 1 or channel else "below_exemplar",
                    steps=5,
                )
            )
    return found


def compared(*, salt: int = 5, blend: float = 0.4, channels: range = range(8), **changes):
    base, tuned = tiny_classifier(), tiny_classifier()
    with torch.no_grad():
        tuned.network.stages[1].conv1.weight.mul_(1.5)
    generator = torch.Generator().manual_seed(0)
    responses = {
        n: {layer: torch.rand(30, 8, generator=generator) for layer in LAYERS}
        for n in ("base", "tuned")
    }
    responses["tuned"]["stages.0"] = responses["base"]["stages.0"]
    same, other = LAYERS
    arguments = {
        "renders": {
            "base": {name: drawings(name, channels, range(2), blend=blend) for name in LAYERS},
            "tuned": {
                same: drawings(same, channels, range(2), blend=blend),
                other: drawings(other, channels, range(2), salt=salt, blend=blend),
            },
        },
        "null_renders": {other: drawings(other, channels, range(2, 4), blend=blend)},
        "responses": responses,
        "paths": [f"{i}.jpg" for i in range(30)],
        "totals": dict.fromkeys(LAYERS, 8),
    }
    return compare_networks(base, tuned, **(arguments | changes))


# ---------------------------------------------------------------------------- measures


def test_linear_cka_is_what_the_paper_defines():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    y = torch.randn(12, 7, generator=generator, dtype=torch.float64)
    centre = torch.eye(12, dtype=torch.float64) - 1 / 12

    def hsic(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(torch.trace(a @ a.T @ centre @ b @ b.T @ centre))

    wanted = hsic(x, y) / (hsic(x, x) * hsic(y, y)) ** 0.5
    assert linear_cka(x, y) == pytest.approx(wanted)
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))
    assert linear_cka(x, 3 * x @ rotation + 2) == pytest.approx(1)
    assert linear_cka(x, torch.ones(12, 3)) == 0


def test_the_statistic_uses_only_pairs_of_different_seeds():
    generator = torch.Generator().manual_seed(1)
    vectors = torch.nn.functional.normalize(torch.randn(6, 9, generator=generator), dim=1)
    s = vectors @ vectors.T
    within = [float(s[a, b]) for a, b in itertools.permutations(range(3), 2)]
    within += [float(s[3 + a, 3 + b]) for a, b in itertools.permutations(range(3), 2)]
    across = [float(s[a, 3 + b]) for a, b in itertools.permutations(range(3), 2)]
    wanted = sum(within) / len(within) - sum(across) / len(across)
    assert change_statistic(s) == pytest.approx(wanted, abs=1e-6)
    spoiled = s.clone()
    for index in range(3):
        spoiled[index, 3 + index] = spoiled[3 + index, index] = 99.0
        spoiled[index, index] = -99.0
    assert change_statistic(spoiled) == pytest.approx(wanted, abs=1e-6)


def test_null_draws_are_all_groupings_and_alignments():
    generator = torch.Generator().manual_seed(2)
    vectors = torch.nn.functional.normalize(torch.randn(4, 9, generator=generator), dim=1)
    s = vectors @ vectors.T

    def t(a: int, b: int, c: int, d: int) -> float:
        return float((s[a, b] + s[c, d]) / 2 - (s[a, d] + s[b, c]) / 2)

    wanted = [
        t(0, 1, 2, 3),
        t(0, 1, 3, 2),
        t(0, 2, 1, 3),
        t(0, 2, 3, 1),
        t(0, 3, 1, 2),
        t(0, 3, 2, 1),
    ]
    assert sorted(null_statistics(s)) == pytest.approx(sorted(wanted), abs=1e-6)


def test_embedding_is_the_base_networks_pooled_features_whatever_the_batch():
    classifier = tiny_classifier()
    before = state_of(classifier)
    pictures = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    found = embed(classifier, pictures, batch_size=2)
    features = classifier.pooled_features(as_float(pictures.permute(0, 3, 1, 2)))
    torch.testing.assert_close(found, torch.nn.functional.normalize(features, dim=1).detach())
    assert same_state(before, state_of(classifier))


def test_frozen_is_bit_by_bit_up_to_the_layer():
    base, tuned = tiny_classifier(), tiny_classifier()
    assert frozen_up_to(base, tuned, "stages.2")
    tuned.network.stages[1].bn2.running_mean[0] += 1e-7
    assert frozen_up_to(base, tuned, "stages.0")
    assert not frozen_up_to(base, tuned, "stages.1")
    assert not frozen_up_to(base, tuned, "stages.2")
    with pytest.raises(UnknownName):
        frozen_up_to(base, tuned, "stages.7")


def test_parameters_of_an_enclosing_module_count_too():
    from transferscope.backbones.weights import load_backbone

    base = load_backbone("timm/test_vit", weights="random")
    tuned = copy.deepcopy(base)
    assert frozen_up_to(base, tuned, "blocks.0")
    with torch.no_grad():
        tuned.network.pos_embed += 1e-3
    assert not frozen_up_to(base, tuned, "blocks.0")


# ---------------------------------------------------------------------------- comparing


def test_a_render_that_left_the_numbers_is_not_called_changed_and_is_saved(tmp_path):
    other = LAYERS[1]
    broken = drawings(other, range(3), range(2))
    for one in broken:
        one.activation, one.status = float("nan"), "non_finite"
    found = compared(
        renders={"base": {other: drawings(other, range(3), range(2))}, "tuned": {other: broken}},
        null_renders={other: drawings(other, range(3), range(2, 4))},
    )
    assert not any(channel.changed for channel in found.layers[0].channels)
    found.save(tmp_path)
    loaded = Comparison.load(tmp_path).layers[0].channels[0]
    assert np.isnan(loaded.activation["tuned"])
    assert loaded.statuses["tuned"] == "non_finite"


def test_a_real_change_is_called_changed_and_a_frozen_layer_identical():
    frozen, deep = compared().layers
    assert frozen.identical
    assert frozen.similarity == frozen.cka == 1.0
    assert not any(channel.changed for channel in frozen.channels)
    assert all(channel.statistic == 0 and channel.p == 1 for channel in frozen.channels)
    assert not deep.identical
    assert all(channel.changed for channel in deep.channels)
    assert deep.similarity < deep.rerender
    assert len(deep.null) == 8 * 6
    assert all(channel.p == 1 / 49 for channel in deep.channels), "no p is ever 0"


def test_the_same_network_under_other_seeds_is_not_called_changed():
    """The same patterns, fresh noise: what re-rendering does by itself."""
    calls = 0
    for trial in range(10):
        start = 10 * trial
        seeds, further = range(start, start + 2), range(start + 2, start + 4)
        other = LAYERS[1]
        fresh = drawings(other, range(8), range(start + 5, start + 7), blend=0.6)
        for one in fresh:
            one.seed -= 5
        found = compared(
            renders={
                "base": {other: drawings(other, range(8), seeds, blend=0.6)},
                "tuned": {other: fresh},
            },
            null_renders={other: drawings(other, range(8), further, blend=0.6)},
        )
        calls += sum(channel.changed for channel in found.layers[0].channels)
    assert calls <= 8, f"{calls} of 80 unchanged channels were called changed at a rate of 5%"


def test_q_is_benjamini_hochberg_over_all_layers_that_are_not_identical():
    found = compared(salt=0, blend=0.5)
    channels = found.layers[1].channels
    order = sorted(channels, key=lambda channel: channel.p)
    bound = 1.0
    for rank, channel in reversed(list(enumerate(order, start=1))):
        bound = min(bound, channel.p * len(order) / rank)
        assert channel.q == pytest.approx(bound)


def test_records_name_what_was_found():
    found = compared()
    channel = found.layers[1].channels[0]
    assert channel.statuses == {"base": "below_exemplar", "tuned": "below_exemplar"}
    assert channel.exemplars["base"][0].activation >= channel.exemplars["base"][1].activation
    assert len(channel.exemplars["tuned"]) == comparison.EXEMPLARS
    assert 0 <= channel.shared_top20 <= 1
    assert set(channel.similarities) == {"pixels", "activations"}
    assert found.layers[1].chance_pairs == len(found.layers[1].chance_values) == 8 * 7 * 2
    assert found.layers[1].chance < found.layers[1].rerender


def test_it_survives_a_round_trip_and_speaks_the_contracts_json(tmp_path):
    found = compared()
    found.save(tmp_path)
    assert Comparison.load(tmp_path) == found
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    keys = {"channels", "identical", "similarity", "rerender", "chance", "changed", "status"}
    assert keys <= set(told["layers"]["stages.2"])
    assert told["layers"]["stages.0"]["similarity"] == 1.0
    ranked = [one["statistic"] for one in told["most_changed"]]
    assert ranked == sorted(ranked, reverse=True)
    assert told["least_changed"][0]["statistic"] == min(
        c.statistic for c in found.layers[1].channels
    )
    assert len((tmp_path / "comparison.csv").read_text().splitlines()) == 1 + 16


def test_comparisons_without_a_noise_floor_are_refused():
    other = LAYERS[1]
    one_seed = {n: {other: drawings(other, range(3), range(1))} for n in ("base", "tuned")}
    with pytest.raises(InputError, match="1 seed"):
        compared(renders=one_seed)
    two = {n: {other: drawings(other, range(3), range(2))} for n in ("base", "tuned")}
    with pytest.raises(InputError, match="needs base rendered from 2 further seeds"):
        compared(renders=two, null_renders={})
    with pytest.raises(InputError, match="further seeds"):
        compared(renders=two, null_renders={other: drawings(other, range(3), range(2))})
    uneven = {**two, "tuned": {other: drawings(other, range(4), range(2))}}
    with pytest.raises(InputError, match="other channels"):
        compared(renders=uneven)
    missing = {**two, "tuned": {other: drawings(other, range(3), range(2))[:-1]}}
    with pytest.raises(InputError, match="render it from all"):
        compared(renders=missing)
