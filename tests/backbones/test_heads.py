"""Linear and MLP heads: standing in a network, fitted on features, written to files."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional

from conftest import SPEC, TinyNet, narrow, same_state, state_of, tiny_classifier
from transferscope.activations import Resumed, layers, modules_below
from transferscope.backbones import catalogue, weights
from transferscope.backbones.catalogue import build_architecture
from transferscope.backbones.catalogue import find_backbone as real
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.heads import MLPHead, describe_head, make_head, put_head
from transferscope.backbones.stages import stages_of
from transferscope.backbones.weights import load_backbone
from transferscope.errors import DataError, InputError, UnknownName, WeightsError
from transferscope.files import read_tensors, write_tensors
from transferscope.images import InputSpec
from transferscope.training.head_fit import class_weights, fit_mlp_head
from transferscope.visualize.objectives.channels import logit
from transferscope.visualize.render import render

PICTURES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(5))
SMALL = ("timm/test_resnet", "timm/test_vit", "timm/test_convnext", "timm/test_efficientnet")
"""Heads called fc, head (of tokens), head.fc (beside a norm) and classifier."""
LARGE = ("torchvision/vgg11_bn", "torchvision/mobilenet_v2")
"""classifier.6, behind two Linears, and classifier.1, behind a dropout."""


def with_mlp(classifier: Classifier, classes: int = 3, **options: float) -> Classifier:
    """The classifier with a seeded MLP head of its own width."""
    torch.manual_seed(1)
    head = MLPHead(classifier.head_layer.in_features, classes, **options)
    return classifier.with_head_module(head, [f"new {i}" for i in range(classes)])


def rewritten(file, **changes: object) -> None:
    """The same weights with other metadata; None removes an entry."""
    state, metadata = read_tensors(file)
    metadata.pop("sha256")
    metadata |= changes
    write_tensors(file, state, {key: value for key, value in metadata.items() if value is not None})


# ---------------------------------------------------------------------------- the module


def test_the_head_is_the_classic_recipe():
    head = MLPHead(5, 3)
    assert [name for name, _ in head.named_children()] == ["hidden", "relu", "dropout", "logits"]
    assert (head.in_features, head.hidden.out_features, head.dropout.p, head.out_features) == (
        5,
        256,
        0.4,
        3,
    )
    features = torch.randn(4, 5)
    units = (features @ head.hidden.weight.T + head.hidden.bias).clamp_min(0)
    by_hand = units @ head.logits.weight.T + head.logits.bias
    torch.testing.assert_close(head.eval()(features), by_hand)
    assert not torch.allclose(head.train()(features), by_hand)


@pytest.mark.parametrize(
    "options", [{"hidden": 0}, {"dropout": 1.0}, {"dropout": -0.1}, {"dropout": float("nan")}]
)
def test_sizes_and_dropouts_that_cannot_be_are_refused(options):
    with pytest.raises(InputError, match=r"hidden units|dropout"):
        MLPHead(5, 3, **options)


def test_a_description_builds_the_same_kind_again():
    for head in (nn.Linear(5, 3), MLPHead(5, 3, hidden=7, dropout=0.25)):
        again = make_head(describe_head(head), head.in_features, head.out_features)
        assert type(again) is type(head)
        assert describe_head(again) == describe_head(head)
        assert again.state_dict().keys() == head.state_dict().keys()


# ---------------------------------------------------------------------------- in a network


@pytest.mark.parametrize("name", SMALL + LARGE)
def test_any_architecture_takes_an_mlp(name, monkeypatch):
    if name == "torchvision/vgg11_bn":  # 129 million parameters
        for module in (catalogue, weights):
            monkeypatch.setattr(module, "architecture_of", lambda _: narrow("vgg11_bn", 1000))
    source = load_backbone(name, weights="random")
    before = state_of(source.network)
    tuned = with_mlp(source, hidden=300)
    picture = torch.rand(1, *source.input.shape)

    assert tuned.head == source.head
    assert isinstance(tuned.head_layer, MLPHead)
    assert Classifier(tuned.network, tuned.input, tuned.classes).head == tuned.head  # found again
    assert tuned.body_hash() == source.body_hash()
    assert stages_of(tuned) == stages_of(source)
    with source.inference(), tuned.inference():
        features = tuned.pooled_features(picture)
        assert torch.equal(features, source.pooled_features(picture))
        assert features.shape == (1, tuned.head_layer.in_features)
        torch.testing.assert_close(tuned.head_layer(features), tuned(picture))
    assert same_state(before, state_of(source.network))
    described = describe_head(tuned.head_layer)
    again = build_architecture(name, 3, tuned.head, described=described).state_dict()
    wanted = tuned.network.state_dict()
    assert {key: v.shape for key, v in again.items()} == {key: v.shape for key, v in wanted.items()}


@pytest.mark.parametrize("name", SMALL)
def test_an_mlp_comes_back_from_its_file_in_full_bits(name, tmp_path):
    tuned = with_mlp(load_backbone(name, weights="random"), hidden=300)
    tuned.temperature = 1.3
    tuned.save(tmp_path / "c.safetensors")
    loaded = Classifier.load(tmp_path / "c.safetensors")
    assert describe_head(loaded.head_layer) == {"kind": "mlp", "hidden": 300, "dropout": 0.4}
    assert (loaded.head, loaded.classes, loaded.temperature) == (tuned.head, tuned.classes, 1.3)
    stored, restored = tuned.network.state_dict(), loaded.network.state_dict()
    assert stored.keys() == restored.keys()
    assert all(torch.equal(stored[key], restored[key]) for key in stored)
    picture = torch.rand(1, *tuned.input.shape)
    with tuned.inference(), loaded.inference():
        assert torch.equal(tuned(picture), loaded(picture))


def test_lite0_takes_an_mlp():
    source = load_backbone()
    tuned = with_mlp(source)
    assert tuned.head == "classifier"
    assert tuned.head_layer.in_features == 1280
    assert stages_of(tuned) == stages_of(source)
    assert tuned.body_hash() == source.body_hash()


def test_what_runs_behind_a_boundary_includes_the_whole_head():
    tuned = with_mlp(tiny_classifier())
    before = state_of(tuned)
    below = modules_below(tuned.network, "stages.1", tuned.example())
    assert not any(name.startswith(tuned.head) for name in below)
    rest = Resumed(tuned.network, "stages.1", tuned.example())
    with tuned.inference():
        inner = tuned.network.stages[:2](tuned.network.stem(tuned.input.normalise(PICTURES)))
        torch.testing.assert_close(rest(inner), tuned(PICTURES))
    owned = [name for name, _ in tuned.network.named_parameters() if name.startswith("head.")]
    assert owned == [
        "head.hidden.weight",
        "head.hidden.bias",
        "head.logits.weight",
        "head.logits.bias",
    ]
    assert same_state(before, state_of(tuned))


def test_a_wide_mlp_on_a_narrow_network_is_no_stage():
    """The head holds more parameters than the body; its inner layers must not become stages."""
    source = tiny_classifier()
    tuned = with_mlp(source, hidden=4096)
    assert stages_of(tuned) == stages_of(source)


def test_layers_lists_the_head_and_what_is_in_it():
    listed = {layer.name: layer for layer in layers(with_mlp(tiny_classifier()).network, PICTURES)}
    assert listed["head"].type == "MLPHead"
    assert listed["head"].output_shape == (3,)
    assert listed["head.hidden"].output_shape == (256,)
    assert listed["head"].order > listed["head.logits"].order


def test_a_logit_is_rendered_from_the_logits():
    tuned = with_mlp(tiny_classifier())
    before = state_of(tuned)
    drawn = render(tuned, logit(2), steps=2, precision="fp32")
    picture = torch.from_numpy(drawn.picture).permute(2, 0, 1)[None] / 255
    with tuned.inference():
        assert drawn.activation == pytest.approx(float(tuned(picture)[0, 2]), abs=1e-5)
    assert same_state(before, state_of(tuned))


@pytest.mark.parametrize("training", [False, True])
def test_a_new_head_has_the_mode_of_the_old_one(training):
    source = tiny_classifier()
    source.network.train(training)
    head = MLPHead(8, 2).train(not training)
    assert source.with_head_module(head, "ab").head_layer.dropout.training is training
    assert head.training is not training  # the one given is copied


def test_a_given_head_is_copied():
    head = MLPHead(8, 2)
    tuned = tiny_classifier().with_head_module(head, ["a", "b"])
    with torch.no_grad():
        head.logits.bias.fill_(9)
    assert not bool((tuned.head_layer.logits.bias == 9).any())


class TwoHeads(TinyNet):
    """As a distilled transformer: two heads, whose answers are averaged."""

    def __init__(self, classes: int = 4):
        super().__init__(classes)
        self.head_dist = nn.Linear(8, classes)

    def forward(self, x):
        pooled = self.stages(self.stem(x)).mean((2, 3))
        return (self.head(pooled) + self.head_dist(pooled)) / 2


class Aside(TinyNet):
    """A second output runs last and is not the answer."""

    def __init__(self):
        super().__init__()
        self.other = nn.Linear(8, 4)

    def forward(self, x):
        pooled = self.stages(self.stem(x)).mean((2, 3))
        answer = self.head(pooled)
        self.other(pooled)
        return answer


class Scaled(TinyNet):
    def forward(self, x):
        return 2 * super().forward(x)


def test_the_head_is_the_layer_whose_outputs_are_the_networks():
    classifier = Classifier(Aside().eval(), SPEC, list("abcd"))
    assert classifier.head == "head"
    classifier.check_head()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (TwoHeads, r"2 heads \(head.*head.*\), whose outputs are combined"),
        (Scaled, r"does something to the outputs of its head \(head\)"),
    ],
)
def test_a_network_whose_head_cannot_be_replaced_predicts_and_is_not_fitted(network, message):
    classifier = Classifier(network().eval(), SPEC, list("abcd"))
    before = state_of(classifier.network)
    assert classifier.probabilities(PICTURES).shape == (3, 4)
    with pytest.raises(InputError, match=message):
        classifier.with_head(torch.zeros(2, 8), torch.zeros(2), "ab")
    assert same_state(before, state_of(classifier.network))


def from_timm(make, name, monkeypatch) -> Classifier:
    import timm

    monkeypatch.setattr(timm, "create_model", lambda *_, **__: make())
    return load_backbone(name, weights="random")


SMALL_VIT = {"img_size": 224, "patch_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 3}


def test_tuning_refuses_a_network_of_two_heads_before_any_work(monkeypatch, tmp_path, make_folder):
    from timm.models.deit import VisionTransformerDistilled

    import transferscope as ts

    name = "timm/deit_tiny_distilled_patch16_224"
    source = from_timm(lambda: VisionTransformerDistilled(**SMALL_VIT), name, monkeypatch)
    assert source.head == "head"
    monkeypatch.setattr("transferscope.workflows.tune.scan", lambda *_, **__: pytest.fail("work"))
    photos = make_folder(tmp_path / "photos", {"a": 4, "b": 4})
    write_tensors(tmp_path / "w.safetensors", source.network.state_dict(), {})
    for verb in (
        lambda: ts.tune(
            photos, out=tmp_path / "run", backbone=name, weights=tmp_path / "w.safetensors"
        ),
        lambda: ts.advise(photos, backbones=[name], weights=tmp_path / "w.safetensors"),
    ):
        with pytest.raises(
            InputError, match=r"head, head_dist.*such as timm/deit_tiny_patch16_224"
        ):
            verb()
    assert not (tmp_path / "run").exists()


def test_a_network_without_a_head_gets_one_in_timms_place(monkeypatch, tmp_path):
    from timm.models.vision_transformer import VisionTransformer

    def make():
        torch.manual_seed(3)
        return VisionTransformer(**SMALL_VIT, num_classes=0)

    name = "timm/vit_small_patch14_dinov2"
    monkeypatch.setattr(
        catalogue, "find_backbone", lambda _: replace(real(name), input=InputSpec((224, 224)))
    )
    monkeypatch.setattr(weights, "find_backbone", catalogue.find_backbone)
    source = from_timm(make, name, monkeypatch)
    pictures = torch.rand(2, 3, 224, 224)
    with torch.no_grad(), source.inference():
        features = make().eval()(source.input.normalise(pictures))
        torch.testing.assert_close(source(pictures), features)
        torch.testing.assert_close(source.pooled_features(pictures), features)
    tuned = source.with_head(torch.randn(3, 24), torch.zeros(3), "abc")
    tuned.save(tmp_path / "c.safetensors")
    again = Classifier.load(tmp_path / "c.safetensors")
    with torch.no_grad():
        assert torch.equal(again.eval()(pictures), tuned.eval()(pictures))
    torch.save(make().state_dict(), tmp_path / "w.pth")
    assert load_backbone(name, weights=tmp_path / "w.pth").body_hash() == source.body_hash()


def test_an_mlp_gives_way_to_a_linear_head():
    source = tiny_classifier()
    back = with_mlp(source).with_head(source.head_layer.weight, source.head_layer.bias, "abcd")
    with source.inference(), back.inference():
        assert torch.equal(back(PICTURES), source(PICTURES))


def test_heads_that_do_not_fit_are_refused():
    source = tiny_classifier()
    with pytest.raises(InputError, match=r"9 features .* gives 8"):
        source.with_head_module(MLPHead(9, 2), "ab")
    with pytest.raises(InputError, match="3 outputs and 2 class names"):
        source.with_head_module(MLPHead(8, 3), "ab")
    with pytest.raises(InputError, match="is a Conv2d; a head must be"):
        Classifier(TinyNet(), source.input, "abcd", head="stem")
    with pytest.raises(UnknownName, match="did you mean 'head'"):
        Classifier(TinyNet(), source.input, "abcd", head="heat")


# ---------------------------------------------------------------------------- files


@pytest.mark.parametrize("own", ["linear head, other classes", "mlp head of another size"])
def test_a_network_of_the_users_own_gets_the_head_of_the_file(own, tmp_path):
    tuned = with_mlp(tiny_classifier(), hidden=20, dropout=0.1)
    tuned.save(tmp_path / "c.safetensors")
    network = TinyNet(classes=7)
    if own.startswith("mlp"):
        network.head = MLPHead(8, 3, hidden=5)
    given = copy.deepcopy(network)
    loaded = Classifier.load(tmp_path / "c.safetensors", network=network)
    with tuned.inference(), loaded.inference():
        assert torch.equal(tuned(PICTURES), loaded(PICTURES))
    assert same_state(state_of(given), state_of(network))


def test_files_of_linear_heads_stay_as_they_were(tmp_path):
    """They say nothing of the head's kind: files written before there were others load."""
    tiny_classifier().save(tmp_path / "c.safetensors")
    metadata = read_tensors(tmp_path / "c.safetensors")[1]
    assert set(metadata) - {"sha256"} == {
        "format",
        "backbone",
        "head",
        "classes",
        "input",
        "temperature",
    }
    loaded = Classifier.load(tmp_path / "c.safetensors", network=TinyNet())
    assert isinstance(loaded.head_layer, nn.Linear)


@pytest.mark.parametrize(
    "damage",
    [
        {"head_module": {"kind": "mlp"}},
        {"head_module": {"kind": "mlp", "hidden": 0, "dropout": 0.4}},
        {"head_module": {"kind": "mlp", "hidden": "many", "dropout": 0.4}},
        {"head_module": {"kind": "mlp", "hidden": 256, "dropout": 4}},
        {"head_module": {"kind": "mlp", "hidden": 99, "dropout": 0.4}},
        {"head_module": {"kind": "kan", "hidden": 256, "dropout": 0.4}},
        {"head_module": [1]},
        {"head_module": "mlp"},
        {"head_module": None},
        {"head": "stem"},
        {"head": "nowhere"},
        {"head": ""},
        {"head": None},
        {"classes": None},
        {"temperature": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("custom", [False, True])
def test_damaged_metadata_is_one_sentence(damage, custom, tmp_path):
    file = tmp_path / "c.safetensors"
    source = (
        tiny_classifier() if custom else load_backbone("timm/test_efficientnet", weights="random")
    )
    with_mlp(source).save(file)
    rewritten(file, **damage)
    with pytest.raises(WeightsError, match=r"head|damaged|does not fit"):
        Classifier.load(file, network=TinyNet() if custom else None)


def test_a_head_of_the_right_kind_and_size_stays():
    network = TinyNet(classes=4)
    head = network.head
    put_head(network, "head", None, 4)
    assert network.head is head
    put_head(network, "head", None, 5)
    assert network.head.out_features == 5


# ---------------------------------------------------------------------------- fitted on features


def clouds(count: int, *, seed: int, ring: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (N, 6) of uneven scale in two classes; as a ring, no linear head can tell them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    points = torch.randn(count, 6, generator=generator)
    if ring:
        points[:, :2] *= (0.3 + 2.7 * labels[:, None]) / points[:, :2].norm(dim=1, keepdim=True)
    else:
        points[:, 0] += 4 * labels
    scale = torch.tensor([1.0, 1.0, 50.0, 0.01, 1.0, 0.0])
    return points * scale + torch.tensor([5.0, -3.0, 1000.0, 0.0, 7.0, 2.0]), labels


def fitted(**options):
    train, validation = clouds(200, seed=0, ring=True), clouds(100, seed=1, ring=True)
    return fit_mlp_head(*train, 2, validation, **options)


def test_a_ring_is_learned_and_a_constant_feature_harms_nothing():
    features, labels = clouds(500, seed=2, ring=True)
    result = fitted()
    assert float((result.logits(features).argmax(1) == labels).float().mean()) > 0.95


def test_the_same_seed_gives_the_same_bits_and_another_others():
    before = torch.random.get_rng_state()
    first = fitted(epochs=3)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(17)  # a different global state
    second, other = fitted(epochs=3), fitted(epochs=3, seed=1)
    for name, value in first.head.state_dict().items():
        assert torch.equal(value, second.head.state_dict()[name])
    assert first.history == second.history
    assert not torch.equal(first.head.hidden.weight, other.head.hidden.weight)


def test_the_scaling_is_inside_and_the_best_epoch_is_kept():
    validation = clouds(100, seed=1, ring=True)
    result = fitted(epochs=12, learning_rate=0.02)
    losses = [row.validation_loss for row in result.history]
    assert result.best_epoch == 1 + losses.index(min(losses))
    kept = float(functional.cross_entropy(result.logits(validation[0]), validation[1]))
    assert kept == pytest.approx(min(losses), abs=1e-3)  # raw features, as a network gives them
    assert not any(module.training for module in result.head.modules())
    assert all(p.requires_grad and p.grad is None for p in result.head.parameters())


def test_patience_ends_the_fit_before_its_schedule():
    train, (features, labels) = clouds(200, seed=0), clouds(100, seed=1)
    result = fit_mlp_head(*train, 2, (features, 1 - labels), patience=3, epochs=40)
    assert len(result.history) == result.best_epoch + 3 < 40


def test_the_first_epoch_is_the_one_written_out_by_hand():
    """One batch, no dropout, no smoothing: the loss reported is that of the seeded start."""
    (features, labels), validation = clouds(40, seed=0), clouds(20, seed=1)
    weights = torch.tensor([1.0, 3.0])
    options = {"epochs": 1, "batch_size": 40, "dropout": 0.0, "label_smoothing": 0.0}
    result = fit_mlp_head(
        features, labels, 2, validation, class_weights=weights, learning_rate=1e-12, **options
    )
    logits = result.logits(features).log_softmax(1)
    each = -logits[torch.arange(40), labels] * weights[labels]
    assert result.history[0].train_loss == pytest.approx(
        float(each.sum() / weights[labels].sum()), rel=1e-3
    )


def test_dropout_takes_part_in_training_as_the_module_does():
    """The same share of units, scaled alike: its mean over draws is the output without it."""
    from transferscope.training.head_fit import _trained_on

    head = MLPHead(6, 3, hidden=64, dropout=0.4).eval()
    batch = torch.randn(5, 6)
    draws = [_trained_on(head, batch, torch.Generator().manual_seed(i)) for i in range(1000)]
    assert not torch.equal(draws[0], draws[1])
    torch.testing.assert_close(torch.stack(draws).mean(0), head(batch), atol=0.06, rtol=0)
    module = head.train()
    deviations = torch.stack([module(batch) for _ in range(1000)]).std(0)
    torch.testing.assert_close(torch.stack(draws).std(0), deviations, atol=0, rtol=0.2)


def test_class_weights_are_the_balanced_ones():
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels.numpy())
    torch.testing.assert_close(class_weights(labels, 3).double(), torch.from_numpy(expected))
    assert float(class_weights(labels, 3)[labels].mean()) == pytest.approx(1)
    with pytest.raises(DataError, match="class 3 of 4 has no picture"):
        class_weights(labels, 4)


def test_class_weights_help_the_rare_class():
    generator = torch.Generator().manual_seed(3)
    labels = torch.tensor([0] * 380 + [1] * 20)
    features = torch.randn(400, 6, generator=generator) + labels[:, None]
    even = (torch.randn(200, 6, generator=generator), torch.arange(200) % 2)
    even[0].add_(even[1][:, None])
    rare = even[1] == 1

    def recall(weights: torch.Tensor | None) -> float:
        result = fit_mlp_head(features, labels, 2, even, class_weights=weights, epochs=5)
        return float((result.logits(even[0]).argmax(1) == 1)[rare].float().mean())

    assert recall(class_weights(labels, 2)) > recall(None) + 0.2


def test_broken_losses_and_features_are_one_sentence():
    train, validation = clouds(200, seed=0), clouds(50, seed=1)
    names = [f"{i}.png" for i in range(200)]
    with pytest.raises(DataError, match=r"nan at step \d+ of epoch \d+; lower.*1e\+30.*\.png"):
        fit_mlp_head(*train, 2, validation, learning_rate=1e30, names=names)
    with pytest.raises(DataError, match="validation loss is"):
        fit_mlp_head(*train, 2, validation, learning_rate=1e30, batch_size=200)
    damaged = train[0].clone()
    damaged[3, 1] = float("inf")
    with pytest.raises(DataError, match="not finite"):
        fit_mlp_head(damaged, train[1], 2, validation)
    with pytest.raises(InputError, match="validation pictures is 0"):
        fit_mlp_head(*train, 2, (validation[0][:0], validation[1][:0]))
    for option in ({"epochs": 0}, {"batch_size": 0}, {"patience": 0}, {"learning_rate": 0.0}):
        with pytest.raises(InputError, match=r"at least 1|above 0"):
            fit_mlp_head(*train, 2, validation, **option)
