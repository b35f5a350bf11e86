"""A sweep by Ray's workers draws what one process draws."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from conftest import narrow, tiny_classifier
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError, OutputError
from transferscope.images import InputSpec
from transferscope.visualize import ray_sweep
from transferscope.visualize.ray_sweep import run_on_ray
from transferscope.visualize.recipe import make_recipe
from transferscope.visualize.units import Sweep, WorkUnit


@pytest.mark.slow  # Ray's start and its workers' imports take half a minute
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is in the extra `ray` alone")
def test_workers_draw_what_one_process_draws(tmp_path: Path) -> None:
    # Workers import the network's class: it must lie in a package, not in this folder.
    spec = InputSpec(size=(32, 32))
    classifier = Classifier(narrow("resnet18", 4).eval(), spec, ["a", "b", "c", "d"])
    layer = "layer1"
    before = {name: value.clone() for name, value in classifier.network.state_dict().items()}
    recipe = make_recipe(steps=4, size=32)
    first = WorkUnit.of(classifier, layer, [0, 1, 2], seed=0, recipe=recipe)
    units = [part for seed in (0, 1) for part in replace(first, seed=seed).divided(2)]
    alone, shared = Sweep(tmp_path / "alone"), Sweep(tmp_path / "shared", kept=tmp_path / "kept")
    alone.run(classifier, units)
    told: list[tuple[int, int]] = []
    run_on_ray(shared, classifier, units, on_progress=lambda *said: told.append(said))
    assert told[-1] == (6, 6)
    for one, other in zip(alone.renders(units), shared.renders(units), strict=True):
        assert (one.channel, one.seed, one.status) == (other.channel, other.seed, other.status)
        assert abs(one.picture.astype(int) - other.picture.astype(int)).max() <= 2
    assert len(list((tmp_path / "kept").iterdir())) == 6  # it can be moved with the run
    assert all(torch.equal(before[k], v) for k, v in classifier.network.state_dict().items())
    import ray

    assert not ray.is_initialized()

    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    with pytest.raises(OutputError, match="file"):
        run_on_ray(Sweep(blocked), classifier, units[:1])


def test_without_ray_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ray_sweep, "find_spec", lambda name: None)
    classifier = tiny_classifier()
    layer = list(dict(classifier.network.named_modules()))[1]
    unit = WorkUnit.of(classifier, layer, [0], seed=0, recipe=make_recipe(steps=1, size=32))
    with pytest.raises(InputError, match=r"transferscope\[ray\]"):
        run_on_ray(Sweep(tmp_path), classifier, [unit])
