"""Exported files: what is in them, that they answer as the classifier, and that nothing else is kept."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
import torchvision
from PIL import Image
from torch import nn

import transferscope as ts
from conftest import (
    BACKBONE,
    SPEC,
    Heard,
    TinyNet,
    command,
    narrow,
    same_state,
    state_of,
    tiny_classifier,
)
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.heads import MLPHead
from transferscope.backbones.weights import load_backbone
from transferscope.errors import DataError, InputError, OutputError, WeightsError
from transferscope.evaluation.known_pictures import KnownPictures
from transferscope.evaluation.strangers import Training, centred_energy
from transferscope.exports.description import Description, preprocessing
from transferscope.exports.familiarity import Familiarity
from transferscope.exports.hub import export_hub, hub_known_pictures, load_hub, timm_architecture
from transferscope.exports.onnx_file import export_onnx, load_onnx
from transferscope.exports.parity import Parity, check_parity, measure_parity
from transferscope.exports.program import export_program, load_program
from transferscope.files import hash_tensors, read_json, write_json
from transferscope.images import InputSpec, as_float
from transferscope.workflows.export import export
from transferscope.workflows.run import Run

NAMES = ("猫", 'un "chien" \\ œuf', "ёж", "class, with a comma")
DOCS = Path(__file__).parents[2] / "docs" / "export.md"
FORMATS = {"onnx": export_onnx, "torch": export_program, "hub": export_hub}


def varied(spec: InputSpec, n: int = 8) -> torch.Tensor:
    """Pictures from coarse to noisy, so that a network can tell them apart."""
    draw = torch.Generator().manual_seed(4)
    coarse = torch.rand(n, spec.channels, 9, 9, generator=draw)
    smooth = nn.functional.interpolate(coarse, spec.size, mode="bilinear")
    share = torch.linspace(0, 1, n).view(n, 1, 1, 1)
    return smooth * (1 - share) + torch.rand(n, *spec.shape, generator=draw) * share


def lively(network: nn.Module, spec: InputSpec) -> nn.Module:
    """Random weights whose activations are normalised, as those of a trained network are."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # gathers the plain mean
    with torch.no_grad():
        network.train()(spec.normalise(varied(spec)))
    return network.eval()


def sharpened(classifier: Classifier, temperature: float) -> Classifier:
    """With a head whose logits are a few apart, and with this temperature."""
    head = classifier.head_layer
    with torch.no_grad():
        features = classifier.pooled_features(varied(classifier.input))
        weight = torch.randn(
            head.out_features, features.shape[1], generator=torch.Generator().manual_seed(6)
        )
        weight = 2 * weight / (features - features.mean(0)).norm(dim=1).mean()
        bias = -(weight @ features.mean(0))
    result = classifier.with_head(weight, bias, classifier.classes)
    result.temperature = temperature
    return result


def named(count: int = 4) -> Classifier:
    """A tiny classifier with names in several scripts, and a temperature."""
    source = tiny_classifier(classes=count)
    names = (NAMES + tuple(f"class {n}" for n in range(count)))[:count]
    return sharpened(Classifier(source.network, SPEC, names), 0.7)


def of_timm(name: str = "test_efficientnet", classes: int = 4, **options: object) -> Classifier:
    """A small architecture of timm's with random weights."""
    torch.manual_seed(2)
    network = timm.create_model(name, num_classes=classes, **options)
    channels = int(options.get("in_chans", 3))
    size = network.pretrained_cfg["input_size"][1:]
    spec = InputSpec(size, channels, (0.4,) * channels, (0.3,) * channels, "bilinear", 0.9)
    names = (NAMES + tuple(f"class {n}" for n in range(classes)))[:classes]
    classifier = Classifier(lively(network, spec), spec, names, backbone=f"timm/{name}")
    return sharpened(classifier, 1.3)


PICTURES = varied(SPEC, 5)


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    export_onnx(named(), file)
    return file


@pytest.fixture(scope="module")
def program_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("torch") / "tiny.pt2"
    export_program(named(), file)
    return file


# ---------------------------------------------------------------------------- what is compared


def constant(*rows: list[float]):
    return lambda pictures: torch.tensor(rows)[: len(pictures)]


def test_parity_is_of_every_picture_alone_together_and_twice():
    wanted = torch.softmax(torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), -1)
    seen: list[int] = []

    def lookup(pictures: torch.Tensor) -> torch.Tensor:
        seen.append(len(pictures))
        return wanted[pictures[:, 0, 0, 0].long()]

    numbered = torch.arange(7.0).view(7, 1, 1, 1)
    parity = measure_parity(lookup, lookup, [numbered[:4], numbered[4:]])
    assert parity == Parity(7, 0.0, 7)
    assert parity.holds
    assert {1, 3, 4, 8} == set(seen)


@pytest.mark.parametrize("size", [1, 6])
def test_parity_sees_an_error_that_only_one_batch_size_has(size):
    def reference(pictures: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[0.7, 0.3]]).repeat(len(pictures), 1)

    def odd(pictures: torch.Tensor) -> torch.Tensor:
        return reference(pictures) + 0.01 * (len(pictures) == size)

    parity = measure_parity(reference, odd, [torch.zeros(3, 1, 1, 1)])
    assert parity.largest_difference == pytest.approx(0.01, abs=1e-6)
    assert not parity.holds


def test_parity_needs_the_same_class_but_takes_a_tie_for_one():
    one = [torch.zeros(1, 1, 1, 1)]
    tie = measure_parity(
        lambda p: torch.full((len(p), 2), 0.5),
        constant([0.5 - 1e-8, 0.5 + 1e-7], [0.5 - 1e-8, 0.5 + 1e-7]),
        one,
    )
    assert tie.holds
    swapped = measure_parity(
        lambda p: torch.tensor([[0.50002, 0.49998]]).repeat(len(p), 1),
        constant([0.49999, 0.50001], [0.49999, 0.50001]),
        one,
    )
    assert swapped.largest_difference < 1e-4
    assert swapped.same_top1 == 0
    assert not swapped.holds


def test_parity_with_what_is_no_number_does_not_hold():
    one = [torch.zeros(1, 1, 1, 1)] * 2
    nan = [float("nan"), 0.5]

    def plain(pictures: torch.Tensor) -> torch.Tensor:
        return torch.full((len(pictures), 2), 0.5)

    assert not measure_parity(plain, constant(nan, nan), one).holds
    with pytest.raises(OutputError, match="nothing was kept"):
        check_parity(plain, constant(nan, nan), one)
    with pytest.raises(WeightsError, match="NaN or infinity"):
        check_parity(constant(nan, nan), plain, one)
    with pytest.raises(InputError, match="at least one"):
        check_parity(plain, plain, [])


# ---------------------------------------------------------------------------- ONNX and torch.export


def test_an_onnx_file_has_the_promised_inputs_outputs_and_metadata(onnx_file):
    model = onnx.load(onnx_file)
    (given,) = model.graph.input
    assert given.name == "pictures"
    dims = [dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim]
    assert dims == ["N", 3, 32, 32]
    assert given.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert [value.name for value in model.graph.output] == ["probabilities", "logits"]
    for value in model.graph.output:
        assert [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] == ["N", 4]
    onnx.checker.check_model(model, full_check=True)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(about["classes"]) == list(NAMES)
    assert "猫" in about["classes"]  # readable as it is, in other programs too
    assert InputSpec.from_dict(json.loads(about["input"])) == SPEC
    assert float(about["temperature"]) == 0.7
    assert about["backbone"] == "custom"
    assert about["sha256"] == hash_tensors(named().network.state_dict())
    assert about["preprocessing"] == preprocessing(SPEC)
    assert about["format"] == "transferscope-export-1"
    assert [file.name for file in onnx_file.parent.iterdir()] == ["tiny.onnx"]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_files_answer_as_the_classifier_for_any_batch(onnx_file, program_file, count):
    classifier = named()
    pictures = PICTURES[:count]
    with classifier.inference():
        logits, wanted = classifier(pictures), classifier.probabilities(pictures)
    assert count == 1 or (wanted[0] - wanted[1]).abs().max() > 0.01  # pictures are told apart
    for load, file in ((load_onnx, onnx_file), (load_program, program_file)):
        run, description = load(file)
        got = run(pictures)
        assert torch.allclose(got[0], wanted, atol=1e-5)
        assert torch.allclose(got[1], logits, atol=1e-4)
        assert torch.allclose(torch.softmax(got[1] / 0.7, -1), got[0], atol=1e-6)
        assert description == Description.of(classifier)


SMALL = ("test_efficientnet", "test_resnet", "test_vit", "test_convnext")


@pytest.mark.parametrize("export", [export_onnx, export_program])
@pytest.mark.parametrize(
    "name",
    [
        "test_efficientnet",
        "test_vit",
        pytest.param("test_resnet", marks=pytest.mark.slow),
        pytest.param("test_convnext", marks=pytest.mark.slow),
    ],
)
def test_networks_of_timm_are_exported(name, export, tmp_path):
    assert export(of_timm(name), tmp_path / "file").holds


@pytest.mark.parametrize("export", [export_onnx, export_program])
@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        pytest.param("mobilenet_v3_small", marks=pytest.mark.slow),
        pytest.param("vgg11_bn", marks=pytest.mark.slow),
        pytest.param("densenet121", marks=pytest.mark.slow),
        pytest.param("mobilenet_v2", marks=pytest.mark.slow),
    ],
)
def test_networks_of_torchvision_are_exported(name, export, tmp_path):
    torch.manual_seed(0)
    network = (
        narrow(name, 2) if name == "resnet18" else torchvision.models.get_model(name, num_classes=2)
    )
    spec = InputSpec((64, 64), 3, (0.5,) * 3, (0.25,) * 3, "bilinear", 1.0)
    classifier = Classifier(lively(network, spec), spec, ("a", "b"), backbone=f"torchvision/{name}")
    assert export(sharpened(classifier, 0.8), tmp_path / "file").holds


@pytest.mark.parametrize("export", [export_onnx, export_program])
def test_many_classes_are_exported(export, tmp_path):
    assert export(named(1000), tmp_path / "file").holds


def test_an_mlp_head_is_exported(tmp_path):
    torch.manual_seed(0)
    classifier = tiny_classifier().with_head_module(MLPHead(8, 3), ("a", "b", "c"))
    assert export_onnx(classifier, tmp_path / "a.onnx").holds
    assert export_program(classifier, tmp_path / "a.pt2").holds


@pytest.mark.parametrize("format", FORMATS)
def test_the_network_is_left_as_it_was(format, tmp_path, capfd):
    classifier = named() if format != "hub" else of_timm("test_resnet")
    classifier.network.train()
    next(classifier.network.parameters()).requires_grad_(False)
    before = state_of(classifier.network)
    FORMATS[format](classifier, tmp_path / "out")
    assert same_state(before, state_of(classifier.network))
    assert capfd.readouterr() == ("", "")


def test_half_precision_weights_are_exported_as_what_they_are_worth(tmp_path):
    classifier = tiny_classifier()
    classifier.network.bfloat16()
    assert export_onnx(classifier, tmp_path / "a.onnx").holds
    run, _ = load_onnx(tmp_path / "a.onnx")
    wide = tiny_classifier()
    wide.network.bfloat16().float()
    with wide.inference():
        assert torch.allclose(run(PICTURES)[0], wide.probabilities(PICTURES), atol=1e-5)


def test_files_hold_no_path_of_this_machine(onnx_file, program_file):
    with zipfile.ZipFile(program_file) as archive:
        inside = b"".join(archive.read(name) for name in archive.namelist())
    for content in (onnx_file.read_bytes(), inside):
        assert b"pictures" in content
        for trace in (str(Path(timm.__file__).parents[1]), str(Path(__file__).parent), 'File "'):
            assert trace.encode() not in content


# ---------------------------------------------------------------------------- familiarity


def known_to(classifier: Classifier) -> KnownPictures:
    """Training and validation pictures of noise."""
    draw = torch.Generator().manual_seed(11)
    with classifier.inference():
        seen = [
            classifier.logits_and_features(
                torch.rand(n, *classifier.input.shape, generator=draw) * 0.6 + 0.2
            )
            for n in (30, 39)
        ]
    return KnownPictures.of_features(
        Training(
            seen[0][1].numpy(),
            np.arange(30) % len(classifier.classes),
            centred_energy(seen[0][0].numpy()),
        ),
        (seen[1][1].numpy(), seen[1][0].numpy()),
        classes=classifier.classes,
        weights=hash_tensors(classifier.network.state_dict()),
        of=30,
        paths=[f"secret/{n}.jpg" for n in range(30)],
    ).without_names()


@pytest.mark.parametrize(
    ("format", "network"),
    [
        ("onnx", "tiny"),
        ("torch", "tiny"),
        ("hub", "test_efficientnet"),
        pytest.param("onnx", "test_efficientnet", marks=pytest.mark.slow),
        pytest.param("torch", "test_efficientnet", marks=pytest.mark.slow),
    ],
)
def test_familiarity_travels_and_is_the_classifiers(format, network, tmp_path):
    classifier = named() if network == "tiny" else of_timm(network)
    known = known_to(classifier)
    pictures = varied(classifier.input, 8)
    parity = FORMATS[format](classifier, tmp_path / "out", batches=[pictures], known=known)
    assert parity.holds
    assert parity.familiarity < 1e-6
    with classifier.inference():
        logits, features = classifier.logits_and_features(pictures)
    wanted = known.familiarity(features.numpy(), logits.numpy())
    assert len(set(wanted.tolist())) > 2, "pictures that are told apart"
    if format == "hub":
        again = hub_known_pictures(tmp_path / "out")
        opened = load_hub(tmp_path / "out", network=classifier.network)
        with opened.inference():
            logits, features = opened.logits_and_features(pictures)
        got = again.familiarity(features.numpy(), logits.numpy())
    else:
        run, about = (load_onnx if format == "onnx" else load_program)(tmp_path / "out")
        got = run(pictures)[2].detach().numpy()
        assert got.shape == (8,)
        assert np.allclose(run(pictures[:1])[2].detach().numpy(), got[:1], atol=1 / 40)
        assert about.validation == 39
        assert about == Description.of(classifier, known)
    np.testing.assert_allclose(got, wanted, atol=1.5 / 40)
    content = [p.read_bytes() for p in [tmp_path / "out", *tmp_path.rglob("*")] if p.is_file()]
    assert not any(b"secret" in one for one in content), "no name of a training picture"


def test_an_export_that_knows_other_pictures_is_not_kept(tmp_path, monkeypatch):
    classifier = named()
    known = known_to(classifier)
    real = Familiarity.forward
    monkeypatch.setattr(Familiarity, "forward", lambda self, x, y: real(self, x, y) * 0.5)
    with pytest.raises(OutputError, match="a familiarity by"):
        export_program(classifier, tmp_path / "a.pt2", known=known)
    assert not list(tmp_path.iterdir())


def test_what_strangers_are_told_by_must_be_of_the_weights(tmp_path):
    classifier = of_timm()
    export_hub(classifier, tmp_path / "hub", known=known_to(classifier))
    assert hub_known_pictures(tmp_path / "hub").n == 39
    replace(known_to(classifier), weights="others").save(tmp_path / "hub" / "strangers.safetensors")
    with pytest.raises(WeightsError, match="of two exports"):
        hub_known_pictures(tmp_path / "hub")
    (tmp_path / "hub" / "strangers.safetensors").unlink()
    assert hub_known_pictures(tmp_path / "hub") is None


# ---------------------------------------------------------------------------- what is not kept


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_answers_differently_is_not_kept(
    format, onnx_file, program_file, tmp_path, monkeypatch
):
    from transferscope.exports import hub, tracing

    classifier = named() if format != "hub" else of_timm("test_resnet")
    out = tmp_path / "out"
    pictures = [varied(classifier.input, 4)]
    if format == "hub":
        export_hub(classifier, out, batches=pictures)
    else:  # its export as others have made it
        shutil.copy({"onnx": onnx_file, "torch": program_file}[format], out)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    original_folded, original_save = tracing.folded, Classifier.save

    def shifted(network: nn.Module, example: torch.Tensor) -> nn.Module:
        copy = original_folded(network, example)
        copy.head.bias[0] += 0.5
        return copy

    def saved(self: Classifier, path: Path) -> None:
        with torch.no_grad():
            self.head_layer.bias[0] += 0.5
        original_save(self, path)
        with torch.no_grad():
            self.head_layer.bias[0] -= 0.5

    monkeypatch.setattr(tracing, "folded", shifted)
    monkeypatch.setattr(hub.Classifier, "save", saved)
    with pytest.raises(OutputError, match="does not answer as the classifier"):
        FORMATS[format](classifier, out, batches=pictures)
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    shutil.rmtree(out) if out.is_dir() else out.unlink()
    with pytest.raises(OutputError, match="does not answer as the classifier"):
        FORMATS[format](classifier, out, batches=pictures)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", FORMATS)
def test_weights_that_are_no_numbers_are_refused(format, tmp_path):
    classifier = tiny_classifier()
    with torch.no_grad():
        classifier.network.stem.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(WeightsError, match=r"'stem\.weight' hold NaN"):
        FORMATS[format](classifier, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_with_its_remedy(tmp_path, monkeypatch, onnx_file):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"onnxscript.*pip install 'transferscope\[onnx\]'"):
        export_onnx(tiny_classifier(), tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"onnxruntime.*pip install 'transferscope\[onnx\]'"):
        load_onnx(onnx_file)
    assert not list(tmp_path.iterdir())


def test_more_than_one_file_can_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("transferscope.exports.onnx_file.MOST_BYTES", 1000)
    with pytest.raises(InputError, match="--format torch"):
        export_onnx(tiny_classifier(), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


class DataDependent(TinyNet):
    """Does something else for each picture, which no graph can hold."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


@pytest.mark.parametrize("export", [export_onnx, export_program])
def test_a_network_without_one_graph_is_refused(export, tmp_path):
    classifier = Classifier(DataDependent().eval(), SPEC, NAMES)
    with pytest.raises(InputError, match=r"DataDependent.*cannot be exported as one graph"):
        export(classifier, tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_only_our_own_files_are_read_back(tmp_path, onnx_file):
    for load, absent in ((load_onnx, "gone.onnx"), (load_program, "gone.pt2")):
        with pytest.raises(WeightsError, match="gone"):
            load(tmp_path / absent)
        (tmp_path / "text").write_text("this is text")
        with pytest.raises(WeightsError, match="is not a"):
            load(tmp_path / "text")
    foreign = onnx.load(onnx_file)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(WeightsError, match="not an export of this version"):
        load_onnx(tmp_path / "foreign.onnx")
    program = torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / "foreign.pt2")
    with pytest.raises(WeightsError, match="not an export of this version"):
        load_program(tmp_path / "foreign.pt2")


@pytest.mark.parametrize(
    "change", [{"classes": "["}, {"temperature": "warm"}, {"input": "{}"}, {"classes": None}]
)
def test_a_damaged_description_is_refused(change):
    fields = {**Description.of(named()).to_text(), **change}
    with pytest.raises(WeightsError, match="damaged"):
        Description.from_text({k: v for k, v in fields.items() if v is not None}, source="a.onnx")


# ---------------------------------------------------------------------------- without us


def recipe() -> str:
    """The Python of docs/export.md that uses the file without Transferscope."""
    (block,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    return block


@pytest.mark.parametrize("channels", [3, 1])
def test_the_documented_recipe_needs_neither_torch_nor_us(channels, tmp_path):
    classifier = of_timm("test_resnet", in_chans=channels)
    height, width = classifier.input.size
    file = tmp_path / "model.onnx"
    export_onnx(classifier, file)
    draw = np.random.default_rng(0)
    sizes = {"exact.png": (width, height), "wide.png": (301, 177), "tall.png": (91, 260)}
    for name, (w, h) in sizes.items():
        coarse = draw.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((w, h), Image.Resampling.BICUBIC).save(tmp_path / name)
    turned = Image.open(tmp_path / "wide.png")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    turned.resize((1100, 800)).save(tmp_path / "large.jpg", quality=95)
    files = [tmp_path / name for name in (*sizes, "turned.jpg", "large.jpg")]
    script = recipe() + (
        "\nassert 'torch' not in sys.modules and 'transferscope' not in sys.modules"
        "\nprint(json.dumps(probabilities.tolist()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(file), *map(str, files)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PATH": "", "PYTHONIOENCODING": "utf-8"},
    )
    *lines, last = done.stdout.splitlines()
    got = torch.tensor(json.loads(last))
    with classifier.inference():
        loaded = torch.stack([classifier.input.load(f) for f in files])
        wanted = classifier.probabilities(as_float(loaded))
    assert (got - wanted).abs().max() < 1e-4
    best = [classifier.classes[index] for index in wanted.argmax(-1)]
    assert [line.split("\t")[1] for line in lines] == best
    assert wanted.std(0).max() > 0.01  # the pictures are told apart


# ---------------------------------------------------------------------------- hub


@pytest.mark.parametrize("name", SMALL)
def test_timm_opens_the_folder_without_further_argument(name, tmp_path):
    classifier = of_timm(name)
    parity = export_hub(classifier, tmp_path / "hub", "# A card\n猫\n")
    assert parity.holds
    assert (tmp_path / "hub" / "README.md").read_text(encoding="utf-8") == "# A card\n猫\n"
    network = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    pictures = classifier.input.normalise(varied(classifier.input, 3))
    with torch.no_grad():
        assert torch.equal(network(pictures), classifier.network.eval()(pictures))
    config = timm.data.resolve_data_config(model=network)
    spec = classifier.input
    assert (tuple(config["input_size"]), tuple(config["mean"])) == (spec.shape, spec.mean)
    assert (config["interpolation"], config["crop_pct"]) == ("bilinear", 0.9)
    assert list(network.pretrained_cfg["label_names"]) == list(NAMES)


def test_a_grey_network_of_timm_stays_grey(tmp_path):
    classifier = of_timm("test_resnet", in_chans=1)
    assert timm_architecture(classifier) == "test_resnet"
    assert export_hub(classifier, tmp_path / "hub").holds
    assert load_hub(tmp_path / "hub").input.channels == 1
    assert (
        timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).conv1[0].in_channels
        == 1
    )


def test_a_hub_folder_is_the_classifier_again(tmp_path):
    classifier = of_timm()
    export_hub(classifier, tmp_path / "hub")
    again = load_hub(tmp_path / "hub")
    assert (again.classes, again.input) == (classifier.classes, classifier.input)
    assert (again.temperature, again.backbone, again.head) == (1.3, BACKBONE, classifier.head)
    assert hash_tensors(again.network.state_dict()) == hash_tensors(classifier.network.state_dict())
    assert not again.network.training
    config = read_json(tmp_path / "hub" / "config.json")
    assert (config["num_classes"], config["library_name"]) == (4, "timm")
    assert config["transferscope"]["temperature"] == 1.3
    assert config["transferscope"]["preprocessing"] == preprocessing(classifier.input)
    names = {path.name for path in (tmp_path / "hub").iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md", ".transferscope"}
    assert "library_name: timm" in (tmp_path / "hub" / "README.md").read_text(encoding="utf-8")


def without_timm(kind: str) -> tuple[Classifier, nn.Module | None]:
    """A classifier that timm cannot build, and what `load_hub` needs besides the folder."""
    torch.manual_seed(0)
    if kind == "mlp":
        source = of_timm()
        head = MLPHead(source.head_layer.in_features, 3, hidden=7)
        return source.with_head_module(head, ("a", "b", "c")), None
    if kind == "torchvision":
        return load_backbone("torchvision/mobilenet_v3_small", weights="random"), None
    return named(), TinyNet()


@pytest.mark.parametrize("kind", ["mlp", "torchvision", "custom"])
def test_what_timm_cannot_build_is_written_for_our_own_loader(kind, tmp_path):
    classifier, network = without_timm(kind)
    assert timm_architecture(classifier) is None
    assert export_hub(classifier, tmp_path / "hub").holds
    config = read_json(tmp_path / "hub" / "config.json")
    assert config["library_name"] == "transferscope"
    again = load_hub(tmp_path / "hub", network=network)
    pictures = varied(classifier.input, 2)
    with classifier.inference(), again.inference():
        assert torch.equal(again.probabilities(pictures), classifier.probabilities(pictures))
    with pytest.raises(RuntimeError, match="Unknown model"):
        timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True)


def test_a_hub_folder_is_replaced_whole_and_foreign_ones_are_not(tmp_path):
    export_hub(of_timm("test_resnet"), tmp_path / "hub")
    export_hub(of_timm(), tmp_path / "hub")
    assert load_hub(tmp_path / "hub").backbone == BACKBONE
    (tmp_path / "hub" / "added").write_text("by the user")
    with pytest.raises(OutputError, match="holds 'added'"):
        export_hub(of_timm("test_resnet"), tmp_path / "hub")
    assert load_hub(tmp_path / "hub").backbone == BACKBONE
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.doc").write_text("years of work")
    with pytest.raises(OutputError, match="not Transferscope's"):
        export_hub(of_timm(), tmp_path / "thesis")


def test_incomplete_mixed_and_damaged_folders_are_refused(tmp_path):
    for name in ("first", "second"):
        export_hub(of_timm(classes=len(name)), tmp_path / name)
    shutil.copy(tmp_path / "first" / "model.safetensors", tmp_path / "second")
    with pytest.raises(WeightsError, match="of two exports"):
        load_hub(tmp_path / "second")
    write_json(tmp_path / "second" / "config.json", {"model_type": "bert"})
    with pytest.raises(WeightsError, match="names no architecture"):
        load_hub(tmp_path / "second")
    (tmp_path / "second" / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="as JSON"):
        load_hub(tmp_path / "second")
    (tmp_path / "first" / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"has no model\.safetensors"):
        load_hub(tmp_path / "first")


def test_a_folder_of_timms_users_is_a_classifier_of_its_own_names(tmp_path):
    from timm.models import save_for_hf

    source = of_timm("test_resnet")
    save_for_hf(
        source.network,
        tmp_path / "theirs",
        model_config={"label_names": list(NAMES)},
        safe_serialization=True,
    )
    theirs = load_hub(tmp_path / "theirs")
    assert (theirs.classes, theirs.temperature) == (NAMES, 1.0)
    assert theirs.backbone == "timm/test_resnet"
    pictures = theirs.input.normalise(varied(theirs.input, 3))
    with torch.no_grad():
        assert torch.equal(theirs.network(pictures), source.network.eval()(pictures))
    config = read_json(tmp_path / "theirs" / "config.json")
    write_json(tmp_path / "theirs" / "config.json", {**config, "architecture": "no_such_network"})
    with pytest.raises(WeightsError, match="Unknown model"):
        load_hub(tmp_path / "theirs")


def test_the_hubs_cache_is_read_without_a_network(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    classifier = of_timm()
    repository = tmp_path / "cache" / "models--someone--photos"
    export_hub(classifier, repository / "snapshots" / "0a1b")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0a1b")
    for source in ("someone/photos", "hf-hub:someone/photos", "someone/photos@main"):
        assert load_hub(source).classes == classifier.classes
    with pytest.raises(WeightsError, match=r"no 'someone/else' in the Hub's cache.*download=True"):
        load_hub("someone/else")
    with pytest.raises(WeightsError, match="no 'someone/photos' in the Hub's cache"):
        load_hub("someone/photos@other")
    with pytest.raises(WeightsError, match="neither a folder nor the id"):
        load_hub(tmp_path / "nowhere" / "at all")

    asked: list[bool] = []

    def unreachable(*_: object, local_files_only: bool, **__: object) -> str:
        asked.append(local_files_only)
        raise ConnectionError("the network is down")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(WeightsError, match=r"could not be fetched.*the network is down"):
        load_hub("someone/else", download=True)
    with pytest.raises(WeightsError, match="download=True"):
        load_hub("someone/else")
    assert asked == [False, True]


# ---------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def photos(tmp_path_factory, make_folder) -> Path:
    return make_folder(tmp_path_factory.mktemp("exports") / "set", {"a": 14, "猫": 12, "c": 13})


@pytest.fixture(scope="module")
def run(photos, weights, tmp_path_factory) -> Run:
    return ts.tune(
        photos,
        out=tmp_path_factory.mktemp("exported") / "run",
        backbone=BACKBONE,
        weights=weights,
        strategy="probe",
    )


@pytest.mark.parametrize("format", FORMATS)
def test_a_run_is_exported_and_checked_on_its_test_pictures(format, run, tmp_path):
    out = tmp_path / {"onnx": "a.onnx", "torch": "a.pt2", "hub": "hub"}[format]
    n = len(run.split.part("test"))
    heard = Heard()
    done = export(run, format=format, out=out, pictures=0, reporter=heard)
    assert (done.parity.n, done.parity.same_top1, done.split) == (n, n, "test")
    assert heard.progress[-1] == (n, n)
    told = done.to_dict()
    assert json.loads(json.dumps(told)) == told
    files = [out] if out.is_file() else [p for p in out.rglob("*") if p.is_file()]
    assert told["bytes"] == sum(p.stat().st_size for p in files) > 100_000
    load = {"onnx": load_onnx, "torch": load_program}.get(format)
    classes = load(out)[1].classes if load else load_hub(out).classes
    assert classes == run.classifier.classes


def test_a_run_is_exported_in_int8_by_its_validation_pictures(run, tmp_path, monkeypatch):
    """The validation pictures alone are calibrated on; the fp32 file is checked on test as ever."""
    from transferscope.workflows import export as exporting

    seen: dict[tuple[str, ...], int] = {}
    real = exporting.load_batches

    def watched(files, *arguments, **options):
        key = tuple(
            sorted({one.path for one in run.split.scan.pictures if run.root / one.path in files})
        )
        seen[key] = seen.get(key, 0) + 1
        return real(files, *arguments, **options)

    monkeypatch.setattr(exporting, "load_batches", watched)
    out, n = tmp_path / "a.onnx", len(run.split.part("validation"))
    told = command(
        "export", run.path, "--format", "onnx", "--int8", "--int8-drop", 100, "--out", out, "--json"
    )
    assert told.exit_code == 0, told.output
    figures = json.loads(told.stdout)
    assert figures["split"] == "test"
    assert {"top1", "fp32_top1", "lost", "interval", "changed", "speedup"} <= figures["int8"].keys()
    assert (figures["int8"]["n"], figures["int8"]["apart"]) == (n, False)
    assert figures["bytes"] == out.stat().st_size < 0.7 * figures["int8"]["fp32_bytes"]
    parts = {
        name: tuple(sorted(one.path for one in run.split.part(name)))
        for name in ("test", "validation")
    }
    assert seen == {parts["test"]: 1, parts["validation"]: seen[parts["validation"]]}
    about = load_onnx(out)[1]
    assert about.int8["lost"] == figures["int8"]["lost"]
    assert about.validation == n


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (("--format", "torch", "--int8", "--out", "a.pt2"), "use --format onnx"),
        (("--format", "hub", "--int8", "--out", "a"), "use --format onnx"),
        (("--format", "onnx", "--int8-drop", "1", "--out", "a.onnx"), "add --int8"),
        (
            ("--format", "onnx", "--int8", "--int8-drop", "-1", "--out", "a.onnx"),
            "between 0 and 100",
        ),
        (
            ("--format", "onnx", "--int8", "--int8-drop", "nan", "--out", "a.onnx"),
            "between 0 and 100",
        ),
    ],
)
def test_int8_is_of_onnx_and_its_bound_a_number(options, match, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = command("export", run.path, *options)
    assert told.exit_code in (1, 2)
    assert match in " ".join(told.output.split())
    assert not list(tmp_path.iterdir())


def test_pictures_are_spread_evenly_over_the_split(run, tmp_path, monkeypatch):
    from transferscope.workflows import export as exporting

    seen: list[Path] = []
    real = exporting.load_batches

    def watched(files, *arguments, **options):
        seen.extend(files)
        return real(files, *arguments, **options)

    monkeypatch.setattr(exporting, "load_batches", watched)
    assert export(run, format="hub", out=tmp_path / "hub", pictures=3).parity.n == 3
    assert len({file.parent.name for file in seen}) == 3  # one of each class
    assert export(run, format="hub", out=tmp_path / "hub", pictures=10_000).parity.n > 3


def test_without_a_test_split_validation_is_taken(run, tmp_path, monkeypatch):
    split = run.split
    real = type(split).part
    monkeypatch.setattr(
        type(split), "part", lambda self, name: () if name == "test" else real(self, name)
    )
    done = export(run, format="hub", out=tmp_path / "hub")
    assert (done.split, done.parity.n) == ("validation", len(real(split, "validation")))
    monkeypatch.setattr(type(split), "part", lambda self, name: ())
    with pytest.raises(DataError, match="neither test nor validation"):
        export(run, format="hub", out=tmp_path / "hub")


def test_pictures_that_have_moved_are_found_with_data(run, photos, tmp_path, monkeypatch):
    shutil.copytree(photos, tmp_path / "moved")
    monkeypatch.setitem(run.record, "root", str(tmp_path / "gone"))
    monkeypatch.setitem(run.record, "root_from_run", "../gone")
    run.__dict__.pop("split", None)
    with pytest.raises(DataError, match="--data"):
        export(run, format="hub", out=tmp_path / "hub")
    export(run, format="hub", out=tmp_path / "hub", data=tmp_path / "moved")
    with pytest.raises(InputError, match="inside the data folder"):
        export(run, format="hub", out=tmp_path / "moved" / "hub", data=tmp_path / "moved")
    run.__dict__.pop("split", None)


@pytest.mark.parametrize(
    ("format", "name", "error", "match"),
    [
        ("onnx", "a.pt2", InputError, r"must end in \.onnx"),
        ("torch", "a.onnx", InputError, r"must end in \.pt2"),
        ("onnx", "folder.onnx", InputError, "is a folder"),
        ("hub", "a.onnx", InputError, "writes a folder"),
        ("hub", "full", OutputError, "not Transferscope's"),
        ("coreml", "a.mlpackage", InputError, "there are onnx, torch, hub"),
        ("onnx", "file/a.onnx", OutputError, "a part of its path is a file"),
    ],
)
def test_places_that_cannot_be_are_refused(format, name, error, match, run, tmp_path):
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("years of work")
    (tmp_path / "file").write_text("not a folder")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=match):
        export(run, format=format, out=tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


def test_neither_the_run_nor_its_pictures_are_written_over(run, photos):
    before = sorted(photos.parent.rglob("*"))
    with pytest.raises(InputError, match="inside the data folder"):
        export(run, format="onnx", out=photos / "a" / "a.onnx")
    for out in (run.path, run.path.parent):
        with pytest.raises(InputError, match="holds the run itself"):
            export(run, format="hub", out=out)
    assert (run.path / "run.json").is_file()
    assert sorted(photos.parent.rglob("*")) == before
