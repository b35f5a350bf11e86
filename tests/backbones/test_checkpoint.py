"""Weights files as training scripts write them: what is taken from each, and what is said of it."""

from __future__ import annotations

import argparse
import re

import numpy as np
import pytest
import torch

from transferscope.backbones.catalogue import architecture_of, find_backbone
from transferscope.backbones.weights import load_backbone
from transferscope.errors import WeightsError
from transferscope.files import write_tensors

NAME = "timm/test_resnet"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return architecture_of(find_backbone(NAME)).state_dict()


def after(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


def others(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v + 1 if v.is_floating_point() else v for k, v in state.items()}


def compiled_inside(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.replace("layer1.", "layer1._orig_mod."): value for key, value in state.items()}


EXACT = {
    "plain": (lambda s: s, ""),
    "lightning": (
        lambda s: {"state_dict": after("model.", s), "epoch": 3},
        r"taken: 'state_dict/model'; renamed: \d+ entries without 'model\.'",
    ),
    "compiled": (lambda s: after("_orig_mod.", s), ""),
    "compiled inside": (compiled_inside, ""),
    "several around": (lambda s: after("module._orig_mod.model.", s), r"without 'module\.model\.'"),
    "nested": (lambda s: {"a": {"weights": {"net": s}}}, "taken: 'a/weights/net'"),
    "averaged model": (
        lambda s: {"n_averaged": torch.tensor(5), **after("module.", s)},
        r"without 'module\.'; dropped: 'n_averaged'",
    ),
    "average beside raw": (
        lambda s: {"state_dict": others(s), "state_dict_ema": s},
        "taken: the averaged weights 'state_dict_ema', not 'state_dict'",
    ),
    "average in one dictionary": (
        lambda s: {**after("model.", others(s)), **after("ema_model.module.", s)},
        r"averaged weights 'ema_model\.module', not 'model'.*dropped: \d+ entries \(first: model\.",
    ),
    "options and a score": (
        lambda s: {"model": s, "args": argparse.Namespace(lr=1), "best": np.float64(0.5)},
        "taken: 'model'",
    ),
    "the same twice": (lambda s: {"model": s, "copy": dict(s)}, "taken: 'model'"),
    "a loss of its own": (
        lambda s: {**s, "criterion.weight": torch.ones(3)},
        r"dropped: 'criterion\.weight'",
    ),
}


@pytest.mark.parametrize(("write", "note"), EXACT.values(), ids=EXACT.keys())
def test_every_spelling_gives_the_weights_and_says_what_was_done(state, tmp_path, write, note):
    file = tmp_path / "w.ckpt"
    torch.save(write(state), file)
    loaded = load_backbone(NAME, weights=file)
    assert all(torch.equal(v, state[k]) for k, v in loaded.network.state_dict().items())
    assert "\n" not in loaded.weights_note
    if note:
        assert loaded.weights_note.startswith(f"{file}: ")
        assert re.search(note, loaded.weights_note), loaded.weights_note
    else:
        assert loaded.weights_note == ""


@pytest.mark.parametrize("name", ["W.SAFETENSORS", "w.bin", "w.PTH", "w.Ckpt"])
def test_the_bytes_decide_what_a_file_is(state, tmp_path, name):
    file = tmp_path / name
    if name in ("W.SAFETENSORS", "w.bin"):
        write_tensors(file, state, {})
    else:
        torch.save(state, file)
    loaded = load_backbone(NAME, weights=file)
    assert torch.equal(loaded.network.state_dict()["fc.weight"], state["fc.weight"])


def test_counters_that_torch_forgives_are_filled_in(state, tmp_path):
    kept = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    torch.save(kept, tmp_path / "old.pth")
    loaded = load_backbone(NAME, weights=tmp_path / "old.pth")
    assert "filled in with 0:" in loaded.weights_note
    assert "num_batches_tracked" in loaded.weights_note


def test_a_head_of_another_size_is_taken_and_said(state, tmp_path):
    width = state["fc.weight"].shape[1]
    seven = {**state, "fc.weight": torch.ones(7, width), "fc.bias": torch.ones(7)}
    torch.save(seven, tmp_path / "seven.pth")
    loaded = load_backbone(NAME, weights=tmp_path / "seven.pth")
    assert len(loaded.classes) == 7
    assert "its head has 7 outputs, not 1000" in loaded.weights_note


def test_a_file_without_a_head_has_one_that_says_nothing(state, tmp_path):
    torch.save({k: v for k, v in state.items() if not k.startswith("fc.")}, tmp_path / "none.pth")
    loaded = load_backbone(NAME, weights=tmp_path / "none.pth")
    assert not loaded.head_layer.weight.any()
    assert "of the head, so that it answers nothing before it is tuned" in loaded.weights_note
    projected = {**{k: v for k, v in state.items() if not k.startswith("fc.")}}
    projected |= {"fc.0.weight": torch.ones(5, 5), "projector.weight": torch.ones(2)}
    torch.save(projected, tmp_path / "projected.pth")
    loaded = load_backbone(NAME, weights=tmp_path / "projected.pth")
    assert r"dropped: 2 entries" in loaded.weights_note


def refused(content, tmp_path) -> str:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError) as caught:
        load_backbone(NAME, weights=tmp_path / "w.pth")
    return str(caught.value)


def test_what_does_not_fit_is_refused_in_one_sentence(state, tmp_path):
    two = refused({"student": state, "teacher": others(state)}, tmp_path)
    assert "2 sets of weights that fit equally well ('student', 'teacher')" in two
    narrow = {**state, "fc.weight": torch.ones(7, 3), "fc.bias": torch.ones(7)}
    assert "fc.weight (7, 3) instead of (1000," in refused(narrow, tmp_path)
    deeper = {**state, "layer1.9.conv1.weight": torch.ones(1)}  # all of ours, and more
    assert "1 unknown (first: layer1.9.conv1.weight)" in refused(deeper, tmp_path)
    assert "holds no tensors by name" in refused({"epoch": 3}, tmp_path)
    assert "holds no tensors by name" in refused([1, 2], tmp_path)


def test_fetched_weights_are_found_again_without_fetching(monkeypatch, tmp_path):
    import timm

    monkeypatch.setenv("TRANSFERSCOPE_CACHE", str(tmp_path))
    real, fetched = timm.create_model, []

    def fetch(name, pretrained=False, **options):
        if pretrained:
            fetched.append(name)
        torch.manual_seed(7 if pretrained else 1)
        return real(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", fetch)
    with pytest.raises(WeightsError, match="transferscope layers timm/test_resnet --download"):
        load_backbone(NAME)
    source = load_backbone(NAME, download=True)
    again = load_backbone(NAME)
    assert fetched == ["test_resnet"]
    assert again.body_hash() == source.body_hash()
    assert again.weights_note == ""
