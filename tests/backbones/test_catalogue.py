from __future__ import annotations

from pathlib import Path

import pytest
import skimage
import torch
from torch import nn

from conftest import SPEC, TinyNet, narrow, same_state, state_of, tiny_classifier
from transferscope.acceleration.folding import folded
from transferscope.acceleration.precision import find_device
from transferscope.activations import Resumed
from transferscope.backbones.catalogue import (
    EMBEDDED,
    embedded_weights,
    find_backbone,
    source_classes,
)
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.stages import default_layers, stages_of
from transferscope.backbones.weights import fit_state, load_backbone, read_state
from transferscope.errors import InputError, UnknownName, WeightsError
from transferscope.files import write_tensors
from transferscope.images import InputSpec, as_float

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"


@pytest.fixture(scope="module")
def lite0() -> Classifier:
    return load_backbone("efficientnet_lite0")


# What is on scikit-image's photographs, in ImageNet's words.
KNOWN = {
    "chelsea.png": {"tabby", "tiger cat", "Egyptian cat"},
    "rocket.jpg": {"missile", "projectile"},
    "coffee.png": {"espresso", "cup"},
    "camera.png": {"tripod"},
    "motorcycle_left.png": {"moped", "motor scooter"},
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_embedded_network_knows_real_photographs(lite0, name):
    with lite0.inference():
        probabilities = lite0.probabilities(as_float(lite0.input.load(PHOTOGRAPHS / name))[None])[0]
    top = [lite0.classes[int(i)] for i in probabilities.topk(3).indices]
    assert top[0] in KNOWN[name], top
    likely = sum(float(probabilities[lite0.classes.index(c)]) for c in KNOWN[name])
    assert likely > 0.4, likely


def test_a_wrong_normalisation_is_noticed_by_the_photographs(lite0):
    """The safeguard above would fail with the usual ImageNet mean and std: the check can fail."""
    picture = as_float(lite0.input.load(PHOTOGRAPHS / "coffee.png"))[None]
    usual = InputSpec()
    with lite0.inference():
        right = torch.softmax(lite0.network(lite0.input.normalise(picture)), -1)
        wrong = torch.softmax(lite0.network(usual.normalise(picture)), -1)
    espresso = lite0.classes.index("espresso")
    assert abs(float(right[0, espresso]) - float(wrong[0, espresso])) > 0.01


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_weights_fit_and_have_their_own_input(name):
    entry = EMBEDDED[name]
    if embedded_weights(entry) is None:
        pytest.skip(f"{entry.package} is not installed; it is in the 'lite' extra")
    classifier = load_backbone(name)
    assert len(classifier.classes) == len(set(classifier.classes)) == 1000
    assert classifier.input.mean == (0.5, 0.5, 0.5)
    assert stages_of(classifier)[-1] == "bn2"
    picture = as_float(classifier.input.load(PHOTOGRAPHS / "coffee.png"))[None]
    with classifier.inference():
        assert classifier.classes[int(classifier(picture).argmax())] == "espresso"


def test_doubled_imagenet_names_carry_their_synset():
    names = [name for name in source_classes(1000) if name.startswith("crane")]
    assert names == ["crane (n02012849)", "crane (n03126707)"]


# ---------------------------------------------------------------------------- names and weights


def test_names_are_found_or_the_nearest_is_named():
    assert find_backbone("timm/resnet10t").input.channels == 3
    assert find_backbone("torchvision/resnet18").input.crop == pytest.approx(224 / 256)
    assert find_backbone("resnetv2_50").library == "timm"
    with pytest.raises(UnknownName, match="efficientnet_lite0"):
        find_backbone("efficientnet_lit0")
    with pytest.raises(InputError, match="in timm and in torchvision"):
        find_backbone("resnet18")
    with pytest.raises(InputError, match="timm/NAME"):
        find_backbone("keras/resnet50")


def test_nothing_is_downloaded_unasked():
    with pytest.raises(WeightsError, match=r"--download.*--weights"):
        load_backbone("torchvision/resnet18")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_local_weights_load_and_others_are_refused(tmp_path, suffix):
    source = load_backbone("timm/test_resnet", weights="random")
    state = source.network.state_dict()
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, file)
    else:
        write_tensors(file, state, {})
    loaded = load_backbone("timm/test_resnet", weights=file)
    assert loaded.body_hash() == source.body_hash()
    with pytest.raises(WeightsError, match=r"not a state dict of timm/test_vit.*first"):
        load_backbone("timm/test_vit", weights=file)


def test_a_head_of_another_size_is_taken_with_the_weights(tmp_path):
    from transferscope.backbones.catalogue import build_architecture

    source = load_backbone("timm/test_resnet", weights="random")
    small = build_architecture("timm/test_resnet", 7, source.head)
    write_tensors(tmp_path / "w.safetensors", small.state_dict(), {})
    assert len(load_backbone("timm/test_resnet", weights=tmp_path / "w.safetensors").classes) == 7


def test_files_that_would_run_code_are_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(WeightsError, match="refused"):
        read_state(tmp_path / "module.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(WeightsError, match="not a plain state dict"):
        read_state(tmp_path / "text.pth")
    with pytest.raises(WeightsError, match="does not exist"):
        read_state(tmp_path / "none.pth")


@pytest.mark.parametrize("keep", [0, 1, 2, 40, 400, -1, -200])
def test_weights_cut_anywhere_are_one_sentence(tmp_path, keep):
    file = tmp_path / "w.pth"
    torch.save(TinyNet().state_dict(), file)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(WeightsError, match="not a plain state dict"):
        read_state(file)


def test_a_mistake_of_our_own_is_not_called_a_bad_file(tmp_path, monkeypatch):
    torch.save(TinyNet().state_dict(), tmp_path / "w.pth")

    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(torch, "load", broken)
    with pytest.raises(ZeroDivisionError):
        read_state(tmp_path / "w.pth")


def test_fit_state_names_the_wrong_shape():
    network = TinyNet()
    state = network.state_dict()
    state["stem.weight"] = torch.zeros(8, 3, 5, 5)
    with pytest.raises(
        WeightsError, match=r"stem\.weight \(8, 3, 5, 5\) instead of \(8, 3, 3, 3\)"
    ):
        fit_state(state, network, source="f.pth", name="tiny")


# ---------------------------------------------------------------------------- architectures


def divides_and_resumes(classifier: Classifier) -> None:
    before = state_of(classifier.network)
    stages = stages_of(classifier)
    assert len(stages) >= 3
    assert classifier.head not in stages
    assert set(default_layers(classifier)) <= set(stages)
    rest = Resumed(classifier.network, stages[-2], classifier.example())
    assert rest.boundary == stages[-2]
    assert same_state(before, state_of(classifier.network))


@pytest.mark.parametrize(
    "name",
    [
        "timm/test_resnet",
        "timm/test_vit",
        "timm/test_convnext",
        "timm/test_efficientnet",
        "torchvision/mobilenet_v2",
        "torchvision/googlenet",
    ],
)
def test_any_architecture_divides_and_resumes(name):
    divides_and_resumes(load_backbone(name, weights="random"))


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("vgg11_bn", ["features", "classifier.0", "classifier.3"]),
        ("vit_b_16", [f"encoder.layers.encoder_layer_{n}" for n in range(12)] + ["encoder.ln"]),
        ("densenet121", ["features.transition3", "features.denseblock4", "features.norm5"]),
    ],
)
def test_so_do_large_ones_of_which_a_narrow_copy_is_looked_at(name, last):
    classifier = Classifier(narrow(name).eval(), InputSpec((64, 64)), list("abcdefghij"))
    divides_and_resumes(classifier)
    assert list(stages_of(classifier))[-len(last) :] == last


def test_folding_changes_nothing_but_the_speed(lite0):
    network = lite0.network
    before = state_of(network)
    fast = folded(network, lite0.example())
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(fast(x), network.eval()(x), rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    assert (
        {n for n, _ in network.named_modules()} >= {"bn1"} <= {n for n, _ in fast.named_modules()}
    )
    assert same_state(before, state_of(network))


def test_folding_leaves_a_convolution_used_twice_alone():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.bn.running_mean.fill_(2.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return (self.bn(y) + y).mean((2, 3))

    network = Twice().eval()
    x = torch.randn(2, 3, 8, 8)
    fast = folded(network, x)
    torch.testing.assert_close(fast(x), network(x))
    assert isinstance(fast.bn, nn.BatchNorm2d)


# ---------------------------------------------------------------------------- Classifier


def test_classifier_normalises_once_and_divides_by_its_temperature():
    classifier = tiny_classifier()
    classifier.temperature = 2.0
    x = torch.rand(3, 3, 32, 32)
    mean, std = torch.tensor(SPEC.mean), torch.tensor(SPEC.std)
    by_hand = classifier.network((x - mean[:, None, None]) / std[:, None, None])
    torch.testing.assert_close(classifier(x), by_hand)
    torch.testing.assert_close(classifier.probabilities(x), torch.softmax(by_hand / 2, -1))
    features = classifier.pooled_features(x)
    torch.testing.assert_close(classifier.head_layer(features), by_hand)


def test_classifier_survives_a_round_trip(tmp_path):
    classifier = tiny_classifier()
    classifier.classes = ('<b>猫 & "狗"</b>', "b", "c", "d")
    classifier.temperature = 1.7
    classifier.save(tmp_path / "c.safetensors")
    loaded = Classifier.load(tmp_path / "c.safetensors", network=TinyNet())
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded.probabilities(x), classifier.probabilities(x))
    assert loaded.classes == classifier.classes
    assert loaded.input == classifier.input


def test_files_of_another_kind_are_refused_with_both_named(tmp_path):
    source = load_backbone("timm/test_resnet", weights="random")
    file = tmp_path / "c.safetensors"
    source.save(file)
    with pytest.raises(WeightsError, match="timm/test_resnet, not a efficientnet_lite0"):
        Classifier.load(file, backbone="efficientnet_lite0")
    with pytest.raises(WeightsError, match=r"class 0.*not \[cat, dog\]"):
        load_small(file, classes=["cat", "dog"])
    tiny_classifier().save(tmp_path / "t.safetensors")
    with pytest.raises(WeightsError, match="pass an instance"):
        Classifier.load(tmp_path / "t.safetensors")
    with pytest.raises(WeightsError, match="does not fit the architecture TinyNet"):
        Classifier.load(tmp_path / "t.safetensors", network=TinyNet(channels=16))
    write_tensors(tmp_path / "w.safetensors", {"a": torch.zeros(1)}, {})
    with pytest.raises(WeightsError, match="not a classifier file"):
        Classifier.load(tmp_path / "w.safetensors")


def load_small(file: Path, *, classes: list[str]) -> Classifier:
    from transferscope.files import read_tensors

    state, metadata = read_tensors(file)
    metadata["classes"] = ["class 0", "class 1"]
    metadata.pop("sha256")
    write_tensors(file, state, metadata)
    return Classifier.load(file, classes=classes)


def test_classifiers_refuse_what_cannot_be_meant():
    with pytest.raises(InputError, match="given twice: a"):
        Classifier(TinyNet(), SPEC, ["a", "a", "b", "c"])
    with pytest.raises(InputError, match="4 outputs and 2 class names"):
        Classifier(TinyNet(), SPEC, ["a", "b"])
    with pytest.raises(InputError, match="must be floating-point"):
        tiny_classifier()(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(InputError, match="no Linear layer"):
        Classifier(nn.Conv2d(3, 2, 1), SPEC, ["a", "b"])
    with pytest.raises(InputError, match="temperature"):
        Classifier(TinyNet(), SPEC, list("abcd"), temperature=0)
    for network in (TinyNet().double(), TinyNet().half()):
        with pytest.raises(InputError, match=r"must be torch\.float32"):
            Classifier(network, SPEC, list("abcd"))


def test_a_new_head_leaves_the_old_classifier_alone():
    classifier = tiny_classifier()
    before = state_of(classifier)
    other = classifier.with_head(torch.ones(2, 8), torch.zeros(2), ["x", "y"])
    assert other.body_hash() == classifier.body_hash()
    assert other(torch.rand(1, 3, 32, 32)).shape == (1, 2)
    assert same_state(before, state_of(classifier))


def test_devices_are_found_or_refused():
    assert find_device("cpu").type == "cpu"
    with pytest.raises(InputError, match="unknown"):
        find_device("gpu9")
