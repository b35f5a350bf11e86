"""Exemplars of units in two networks and of two parts."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import same_state, state_of, tiny_classifier
from transferscope.comparison.unit_exemplars import (
    PicturePart,
    UnitExemplars,
    shared_top,
    unit_exemplars,
)
from transferscope.errors import InputError
from transferscope.features.exemplar_crops import Unit
from transferscope.features.exemplars import channel_responses


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    made = [tmp_path / f"{number:02d}.png" for number in range(26)]
    for file in made:
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(file)
    return made


def part(networks, files) -> PicturePart:
    responses = {
        name: {
            layer: values.double().numpy()
            for layer, values in channel_responses(one, files, ["stages.1", "stages.2"]).items()
        }
        for name, one in networks.items()
    }
    return PicturePart(files, [file.name for file in files], responses)


def test_both_networks_and_both_parts(files):
    base = tiny_classifier()
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        tuned.network.stages[2].conv2.weight.normal_(0, 0.2)
    networks = {"base": base, "tuned": tuned}
    parts = {"held_out": part(networks, files[:22]), "training": part(networks, files[22:])}
    before = state_of(tuned)
    units = [Unit("stages.1", 3), Unit("stages.2", 1), Unit("stages.2", 1, "minus")]
    same, changed, minus = unit_exemplars(networks, parts, units, count=3)
    assert same_state(before, state_of(tuned))
    crops = same.crops["held_out"]
    assert crops["base"] == crops["tuned"], "what is not changed has the same exemplars"
    assert same.shared == {"held_out": 1, "training": 1}
    assert same.shared_by_chance == {"held_out": pytest.approx(20 / 22), "training": 1}
    values = parts["held_out"].responses["tuned"]["stages.2"][:, 1]
    best = np.argsort(-values, kind="stable")
    shown = changed.crops["held_out"]["tuned"]
    assert [crop.path for crop in shown] == [files[one].name for one in best[:3]]
    assert [crop.activation for crop in shown] == pytest.approx(values[best[:3]].tolist(), rel=1e-4)
    worst = [files[one].name for one in np.argsort(values, kind="stable")[:3]]
    assert [crop.path for crop in minus.crops["held_out"]["tuned"]] == worst
    first, second = (
        {int(one) for one in np.argsort(given["stages.2"][:, 1], kind="stable")[:20]}
        for given in (parts["held_out"].responses[name] for name in networks)
    )
    assert minus.shared["held_out"] == len(first & second) / 20
    assert all(crop.path >= "22" for crop in changed.crops["training"]["base"])
    assert UnitExemplars.from_dict(json.loads(json.dumps(changed.to_dict()))) == changed


def test_what_is_shared_of_the_best():
    base = np.arange(100.0)[:, None].repeat(3, 1)
    tuned = base.copy()
    tuned[:, 1] = -base[:, 1]
    tuned[80:90, 2] = -1  # ten of the best twenty are no longer
    assert shared_top(base, tuned).tolist() == [1, 0, 0.5]
    noise = np.random.default_rng(0).normal(size=(2, 100, 400))
    assert shared_top(*noise).mean() == pytest.approx(0.2, abs=0.02)
    assert shared_top(base[:5], tuned[:5]).tolist() == [1, 1, 1]
    with pytest.raises(InputError):
        shared_top(base, tuned[1:])
