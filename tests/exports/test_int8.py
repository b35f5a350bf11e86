"""Files in int8: what is rounded and what is left, what it costs, and that nothing worse is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from conftest import SPEC, same_state, smooth_pictures, state_of, tiny_classifier
from transferscope.backbones.classifier import Classifier
from transferscope.errors import DataError, InputError, OutputError
from transferscope.evaluation.known_pictures import KnownPictures
from transferscope.evaluation.strangers import Training, centred_energy
from transferscope.exports import int8 as exporting
from transferscope.exports.int8 import Labelled, export_int8, shares
from transferscope.exports.onnx_file import export_onnx, load_onnx
from transferscope.exports.quantization import Observed, Quantizer, sensitivities, session
from transferscope.files import hash_tensors

PICTURES = smooth_pictures(96, 3, *SPEC.size)


def classifier() -> Classifier:
    """A tiny one whose answers differ from picture to picture."""
    made = tiny_classifier(seed=3)
    with torch.no_grad():
        features = made.pooled_features(PICTURES)
        weight = torch.randn(4, features.shape[1], generator=torch.Generator().manual_seed(1))
        weight = weight / features.std(0)
        return made.with_head(weight, -(weight @ features.mean(0)), made.classes)


def answers(made: Classifier, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with made.inference():
        logits, features = made.logits_and_features(pictures)
    return logits.clone(), features.clone()


def labelled(made: Classifier, pictures: torch.Tensor) -> Labelled:
    """Pictures of the classes that the classifier takes them for: it is always right."""
    return Labelled(lambda: pictures.split(16), answers(made, pictures)[0].argmax(1))


def known_to(made: Classifier) -> KnownPictures:
    train = torch.cat([PICTURES * share for share in torch.linspace(0.5, 0.9, 12)])
    (logits, features), (others, seen) = (answers(made, one) for one in (train, PICTURES))
    training = Training(features.numpy(), np.arange(1152) % 4, centred_energy(logits.numpy()))
    return KnownPictures.of_features(
        training,
        (seen.numpy(), others.numpy()),
        classes=made.classes,
        weights=hash_tensors(made.network.state_dict()),
        of=1152,
    )


@pytest.fixture(scope="module")
def made() -> Classifier:
    return classifier()


@pytest.fixture(scope="module")
def fp32(made, tmp_path_factory) -> tuple[Path, object]:
    file = tmp_path_factory.mktemp("fp32") / "fp32.onnx"
    return file, export_onnx(made, file)


@pytest.fixture(scope="module")
def quantizer(fp32) -> Quantizer:
    return Quantizer(onnx.load(fp32[0]), [PICTURES[:32].numpy()])


@pytest.fixture
def quick(fp32, monkeypatch) -> None:
    """The fp32 file is copied instead of made again."""

    def copied(made, path, *, batches=None, known=None):
        shutil.copy(fp32[0], path)
        return fp32[1]

    monkeypatch.setattr(exporting, "export_onnx", copied)


def export(made: Classifier, out: Path, **options: object):
    parts = {"calibration": PICTURES[:32], "held": PICTURES[32:]}
    return export_int8(made, out, **{k: labelled(made, v) for k, v in parts.items()}, **options)


# ---------------------------------------------------------------------------- the file


def test_a_file_in_int8_is_the_classifier_a_quarter_as_large(made, tmp_path):
    before, known = state_of(made.network), known_to(made)
    seen: list[tuple[int, int]] = []
    parity, figures = export(
        made, tmp_path / "a.onnx", known=known, allowed=0.1, progress=lambda *at: seen.append(at)
    )
    assert same_state(before, state_of(made.network))
    assert [one.name for one in tmp_path.iterdir()] == ["a.onnx"]
    assert parity.holds, "the fp32 file that it is made of"
    assert (figures.calibration, figures.n, figures.apart, figures.fp32_top1) == (32, 64, True, 1.0)
    assert figures.lost == pytest.approx(figures.changed) == pytest.approx(1 - figures.top1)
    assert figures.interval[0] <= figures.lost <= figures.interval[1]
    assert 0 <= figures.familiarity < 0.1
    assert figures.speedup > 0
    assert seen[-1] == (figures.layers, figures.layers) == (7, 7)

    model = onnx.load(tmp_path / "a.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [one.name for one in model.graph.output] == ["probabilities", "logits", "familiarity"]
    whole = {one.name: one for one in model.graph.initializer}
    assert not any(one.data_type == onnx.TensorProto.FLOAT16 for one in whole.values())
    rows = [one for one in whole.values() if list(one.dims) == list(known.features.shape)]
    assert [one.data_type for one in rows] == [onnx.TensorProto.INT8]

    run, about = load_onnx(tmp_path / "a.onnx")
    assert about.int8 == json.loads(json.dumps(figures.to_dict()))
    assert about.validation == 96
    assert (about.classes, about.sha256) == (made.classes, known.weights)
    for n in (1, 3):
        probabilities, logits, familiarity = run(PICTURES[:n])
        assert familiarity.shape == (n,)
        wanted = answers(made, PICTURES[:n])[0]
        assert (logits - wanted).abs().max() < 0.15 * wanted.abs().max()
        assert torch.allclose(torch.softmax(logits / made.temperature, 1), probabilities, atol=1e-6)


def test_nothing_rounded_loses_nothing(made, quick, tmp_path, monkeypatch):
    real = Quantizer.quantized
    monkeypatch.setattr(Quantizer, "quantized", lambda self, layers: real(self, ()))
    _, figures = export(made, tmp_path / "a.onnx", allowed=0.0)
    assert (figures.lost, figures.changed, figures.interval) == (0.0, 0.0, (0.0, 0.0))
    assert (figures.fp32_layers, figures.tries) == ((), 1)


# ---------------------------------------------------------------------------- what is not kept


@pytest.fixture
def crude(monkeypatch) -> None:
    """Ranges in which next to nothing fits."""
    monkeypatch.setattr(Observed, "range", lambda self: (0.0, 1e-3))


def test_more_lost_than_allowed_is_not_kept(made, quick, crude, tmp_path):
    out = tmp_path / "a.onnx"
    with pytest.raises(OutputError, match=r"points are lost .* 0\.5 allowed; .*--int8-drop"):
        export(made, out)
    assert not list(tmp_path.iterdir())
    out.write_text("as it was")
    with pytest.raises(OutputError, match="nothing was kept"):
        export(made, out)
    assert [one.name for one in tmp_path.iterdir()] == ["a.onnx"]
    assert out.read_text() == "as it was"
    _, figures = export(made, out, allowed=1.0)
    assert figures.lost > 0.2, "it is kept where the user allows it"


def spoil(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """In int8, one layer gets the biases of another network."""

    def spoilt(self, node, model):
        if node.name == self.layers[at]:
            bias = numpy_helper.to_array(self._weights[node.input[2]])
            shifted = numpy_helper.from_array(bias + np.linspace(-6, 6, len(bias), dtype="f4"), "x")
            node.input[2] = "x"
            model.graph.initializer.append(shifted)

    monkeypatch.setattr(Quantizer, "_correct", spoilt)


def test_more_layers_are_left_in_fp32_until_it_is_good_enough(made, quick, tmp_path, monkeypatch):
    spoil(monkeypatch, 0)
    monkeypatch.setattr(exporting, "LEFT", 2.0)  # none is left at first
    _, figures = export(made, tmp_path / "a.onnx", allowed=0.2)
    assert (figures.fp32_layers, figures.tries) == (("stem",), 2)


def test_interrupted_it_leaves_what_was_there(made, quick, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "sensitivities", interrupted)
    (tmp_path / "a.onnx").write_text("as it was")
    with pytest.raises(KeyboardInterrupt):
        export(made, tmp_path / "a.onnx")
    assert [one.read_text() for one in tmp_path.iterdir()] == ["as it was"]


@pytest.mark.parametrize("allowed", [-0.01, 1.01, float("nan")])
def test_what_is_no_share_is_refused(made, allowed, tmp_path):
    with pytest.raises(InputError, match="between 0 and 100"):
        export(made, tmp_path / "a.onnx", allowed=allowed)
    assert not list(tmp_path.iterdir())


def test_without_pictures_it_is_refused(made, tmp_path):
    none = Labelled(list, torch.empty(0, dtype=torch.int64))
    with pytest.raises(DataError, match="without --int8"):
        export_int8(made, tmp_path / "a.onnx", calibration=none, held=none)


class Pooling(nn.Module):
    """Nothing but a head."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.mean((2, 3)))


def test_a_network_without_layers_to_round_is_refused(tmp_path):
    bare = Classifier(Pooling().eval(), SPEC, "abcd")
    with pytest.raises(InputError, match="nothing to make int8"):
        export(bare, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------- how it is made


def kinds(model: object, folder: Path) -> list[str]:
    """What ONNX Runtime makes of a graph when it opens it."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]


def test_layers_are_int8_but_for_those_that_are_left(quantizer, tmp_path):
    layers = quantizer.layers
    assert [quantizer.name(one) for one in layers[:3]] == [
        "stem",
        "stages.0.conv1",
        "stages.0.conv2",
    ]
    assert kinds(quantizer.quantized(layers), tmp_path).count("QLinearConv") == 7
    left = [one for one in layers if one != layers[3]]
    assert kinds(quantizer.quantized(left), tmp_path).count("QLinearConv") == 6
    assert kinds(quantizer.quantized(()), tmp_path).count("QLinearConv") == 0


def test_the_mean_that_rounding_adds_is_taken_off_the_bias(quantizer, fp32):
    layer = quantizer.layers[2]
    node = quantizer._layers[layer]
    mean = quantizer._observed[node.input[0]].mean
    weight = numpy_helper.to_array(quantizer._weights[node.input[1]]).astype(np.float64)
    bias = numpy_helper.to_array(quantizer._weights[node.input[2]]).astype(np.float64)
    wanted = []
    for row, offset in zip(weight, bias, strict=True):
        step = np.abs(row).max() / 127
        added = sum(
            (round(w / step) * step - w) * mean[channel]
            for channel in range(len(row))
            for w in row[channel].ravel()
        )
        wanted.append(offset - added)
    model = quantizer.quantized([layer])
    (conv,) = [one for one in model.graph.node if one.name == layer]
    made = {name: one for one in model.graph.node for name in one.output}
    whole = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    steps, scale = (whole[name] for name in made[conv.input[2]].input[:2])
    assert np.abs(np.subtract(wanted, bias)).max() > 5 * np.abs(scale).max(), "it is a shift"
    np.testing.assert_allclose(steps * scale, wanted, atol=float(np.abs(scale).max()))


@pytest.mark.parametrize("at", [2, 4])
def test_the_damage_of_a_crude_layer_is_the_largest(at, quantizer, monkeypatch):
    spoil(monkeypatch, at)

    def answer(model):
        return session(model).run(["logits"], {"pictures": PICTURES[:16].numpy()})[0]

    damage = sensitivities(quantizer, answer)
    assert max(damage, key=damage.get) == quantizer.layers[at]
    assert min(damage.values()) > 0


def test_ranges_cut_off_what_is_rare_and_hold_zero():
    draw = np.random.default_rng(0)
    even = draw.uniform(0, 2, 20_000).astype(np.float32)
    assert Observed(0.0, 2.0, np.zeros(1), even).range() == (0.0, pytest.approx(2.0, rel=0.06))
    usual = draw.normal(0, 0.1, 20_000).astype(np.float32)
    low, high = Observed(-9.0, float(usual.max()), np.zeros(1), usual).range()
    assert (low, high) == (pytest.approx(-3.6), pytest.approx(usual.max(), rel=0.2))
    assert Observed(1.0, 2.0, np.zeros(1), even + 1).range()[0] == 0.0
    assert Observed(0.0, 0.0, np.zeros(1), even * 0).range()[1] > 0


def test_validation_pictures_are_in_one_part_or_in_both():
    first, second = shares(341)
    assert (len(first), len(second)) == (113, 228)
    assert sorted(first + second) == list(range(341))
    assert max(np.diff(first)) <= 4, "evenly spread"
    assert len(shares(10_000)[0]) == 128
    assert shares(7) == (list(range(7)), list(range(7)))
