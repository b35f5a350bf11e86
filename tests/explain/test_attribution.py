"""Attribution: agreement with captum, slow references, any network, and nothing of it changed."""

from __future__ import annotations

import copy
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import transferscope as ts
from conftest import SPEC, TinyNet, narrow, same_state, smooth_pictures, state_of, tiny_classifier
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError
from transferscope.explain.attribution import METHODS
from transferscope.images import InputSpec

PICTURES = smooth_pictures(3, 3, 32, 32)
MEAN = torch.tensor(SPEC.mean).view(1, 3, 1, 1).expand(3, 3, 32, 32)


def swapped(network: nn.Module, make) -> nn.Module:
    """The network with other activations in place of its ReLUs."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.ReLU | nn.ReLU6):
            network.set_submodule(name, make())
    return network


def classifier_of(network: nn.Module, spec: InputSpec = SPEC, classes: int = 4) -> Classifier:
    return Classifier(network.eval(), spec, [f"class {i}" for i in range(classes)])


def relu6(seed: int = 0) -> Classifier:
    classifier = tiny_classifier(seed)
    with torch.no_grad():  # some units are cut off at 6
        classifier.network.stem.weight *= 25
    return classifier_of(swapped(classifier.network, nn.ReLU6))


def maps(classifier, pictures=PICTURES, **options) -> torch.Tensor:
    return torch.from_numpy(
        np.stack([a.map for a in ts.attribute(classifier, pictures, **options)])
    )


def near(found: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-6) -> bool:
    return bool((found - wanted).abs().max() <= tolerance * wanted.abs().max().clamp_min(1e-30))


def captum_inputs() -> torch.Tensor:
    return PICTURES.clone().requires_grad_()


# ---------------------------------------------------------------------------- agreement


@pytest.mark.parametrize("make", [tiny_classifier, relu6])
def test_gradient_and_its_product_agree_with_captum(make):
    from captum.attr import InputXGradient, Saliency

    classifier = make()
    found = maps(classifier, method="gradient", target=2)
    wanted = Saliency(classifier).attribute(captum_inputs(), target=2, abs=False).sum(1)
    assert near(found, wanted)
    found = maps(classifier, method="gradient_x_input", target=2)
    normalised = classifier.input.normalise(PICTURES).requires_grad_()
    wanted = InputXGradient(classifier.network).attribute(normalised, target=2).sum(1).detach()
    assert near(found, wanted)


def test_integrated_gradients_agree_with_captum_at_equal_steps():
    from captum.attr import IntegratedGradients

    classifier = tiny_classifier()
    found = ts.attribute(
        classifier, PICTURES, method="integrated_gradients", target=1, most_steps=50
    )
    wanted, delta = IntegratedGradients(classifier).attribute(
        PICTURES, MEAN, target=1, n_steps=50, return_convergence_delta=True
    )
    assert near(torch.from_numpy(np.stack([a.map for a in found])), wanted.sum(1).detach())
    np.testing.assert_allclose([a.delta for a in found], delta.detach(), atol=1e-5)


def test_grad_cam_and_occlusion_agree_with_captum():
    from captum.attr import LayerGradCam, Occlusion

    classifier = tiny_classifier()
    found = maps(classifier, method="grad_cam", target=1, layer="stages.1")
    cam = LayerGradCam(classifier, classifier.network.stages[1])
    small = cam.attribute(PICTURES, target=1, relu_attributions=True).detach()
    wanted = nn.functional.interpolate(small, (32, 32), mode="bilinear", align_corners=False)[:, 0]
    assert wanted.any()
    assert near(found, wanted)
    with torch.no_grad():
        wanted = Occlusion(classifier).attribute(PICTURES, (3, 5, 5), (3, 2, 2), MEAN, target=1)
    assert near(maps(classifier, method="occlusion", target=1), wanted[:, 0].float(), 1e-5)


def test_layer_cam_is_its_papers_equation():
    classifier = tiny_classifier()
    network, kept = classifier.network, {}
    handle = network.stages[1].register_forward_hook(
        lambda _m, _i, output: kept.setdefault("a", output)
    )
    given = captum_inputs()
    logits = classifier(given)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[:, 3].sum(), kept["a"])
    small = (gradient.clamp(min=0) * kept["a"]).sum(1, keepdim=True).clamp(min=0).detach()
    wanted = nn.functional.interpolate(small, (32, 32), mode="bilinear")[:, 0]
    assert near(maps(classifier, method="layer_cam", target=3, layer="stages.1"), wanted)


class SlowGuided(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, ceiling):
        ctx.save_for_backward(x)
        ctx.ceiling = ceiling
        return torch.minimum(torch.maximum(x, torch.zeros(())), torch.tensor(ceiling))

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x > 0) * (x < ctx.ceiling) * (gradient > 0), None


class Guided(nn.Module):
    def __init__(self, ceiling):
        super().__init__()
        self.ceiling = ceiling

    def forward(self, x):
        return SlowGuided.apply(x, self.ceiling)


def slow_guided(classifier: Classifier, pictures: torch.Tensor, target: int) -> torch.Tensor:
    network = copy.deepcopy(classifier.network)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.ReLU | nn.ReLU6):
            ceiling = 6.0 if isinstance(module, nn.ReLU6) else float("inf")
            network.set_submodule(name, Guided(ceiling))
    given = pictures.clone().requires_grad_()
    logits = network(classifier.input.normalise(given))
    return torch.autograd.grad(logits[:, target].sum(), given)[0].sum(1)


@pytest.mark.parametrize("make", [tiny_classifier, relu6])
def test_guided_backprop_is_its_rule_for_relu_and_relu6(make):
    classifier = make()
    found = maps(classifier, method="guided_backprop", target=2)
    assert near(found, slow_guided(classifier, PICTURES, 2))
    assert not near(found, maps(classifier, method="gradient", target=2), 0.1)


def test_guided_backprop_agrees_with_captum_where_that_sees_the_relus():
    from captum.attr import GuidedBackprop

    classifier = classifier_of(swapped(tiny_classifier().network, nn.ReLU))
    for stage in classifier.network.stages:  # captum asks for a ReLU of its own at each place
        stage.relu = nn.ReLU()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = GuidedBackprop(classifier).attribute(captum_inputs(), target=0).sum(1)
    assert near(maps(classifier, method="guided_backprop", target=0), wanted)


def test_guided_backprop_sees_relus_that_are_functions():
    class Functional(TinyNet):
        def forward(self, x):
            return super().forward(nn.functional.relu6(x * 3 - 1))

    torch.manual_seed(0)
    inner = classifier_of(Functional())
    given = captum_inputs()
    first = SlowGuided.apply(inner.input.normalise(given) * 3 - 1, 6.0)
    behind = copy.deepcopy(inner.network)
    behind.relus = swapped(behind, lambda: Guided(float("inf")))
    logits = TinyNet.forward(behind, first)
    wanted = torch.autograd.grad(logits[:, 1].sum(), given)[0].sum(1)
    assert near(maps(inner, method="guided_backprop", target=1), wanted)


@pytest.mark.parametrize("make", [nn.SiLU, nn.GELU, nn.LeakyReLU, nn.Hardtanh, nn.Tanh])
def test_guided_backprop_is_refused_without_relus(make):
    classifier = classifier_of(swapped(tiny_classifier().network, make))
    with pytest.raises(InputError, match="guided backprop is a rule for ReLUs"):
        ts.attribute(classifier, PICTURES, method="guided_backprop")


def test_guided_backprop_is_refused_where_only_some_are_relus():
    network = tiny_classifier().network
    network.stages[0].relu = nn.SiLU()
    with pytest.raises(InputError, match="has SiLU in it"):
        ts.attribute(classifier_of(network), PICTURES, method="guided_backprop")


@pytest.mark.slow
def test_guided_backprop_on_lite0_is_its_rule_and_no_gradient():
    classifier = ts.load_backbone()
    pictures = smooth_pictures(1, 3, 224, 224)
    found = maps(classifier, pictures, method="guided_backprop", target=7)
    assert near(found, slow_guided(classifier, pictures, 7), 1e-5)
    assert not near(found, maps(classifier, pictures, method="gradient", target=7), 0.5)


def test_smooth_grad_without_noise_is_the_gradient():
    classifier = tiny_classifier()
    found = maps(classifier, method="smooth_grad", target=0, noise=0.0)
    assert near(found, maps(classifier, method="gradient", target=0))


def test_smooth_grad_is_the_mean_gradient_over_noise_in_each_pictures_range():
    from captum.attr import Saliency

    classifier = tiny_classifier()
    saliency = Saliency(classifier)
    noise = torch.randn(25, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    found = maps(classifier, method="smooth_grad", target=0, seed=5, samples=25)
    for row, picture in enumerate(PICTURES):
        noisy = picture + 0.15 * (picture.max() - picture.min()) * noise
        wanted = saliency.attribute(noisy.requires_grad_(), target=0, abs=False).mean(0).sum(0)
        assert near(found[row], wanted, 1e-5)


# ---------------------------------------------------------------------------- what is promised


def test_integrated_gradients_are_refined_until_they_sum_up_or_flagged():
    classifier = relu6()
    coarse = ts.attribute(
        classifier, PICTURES, method="integrated_gradients", steps=2, most_steps=2
    )
    fine = ts.attribute(classifier, PICTURES, method="integrated_gradients", steps=2)
    assert not all(a.converged for a in coarse)
    assert all(a.converged for a in fine)
    assert len({a.steps for a in fine} - {2})
    base = classifier(MEAN).detach()
    for row, one in enumerate(fine):
        index = classifier.classes.index(one.target)
        wanted = one.logit - float(base[row, index])
        assert abs(one.map.sum() - wanted) <= 0.0101 * abs(wanted)
        assert one.delta == pytest.approx(one.map.sum() - wanted, abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_its_pictures_one_by_one(method):
    classifier = tiny_classifier()
    together = maps(classifier, method=method, target=1, batch_size=2)
    for row, picture in enumerate(PICTURES):
        alone = ts.attribute(classifier, picture, method=method, target=1)
        assert isinstance(alone, ts.Attribution)
        assert alone.map.shape == (32, 32)
        assert alone.map.dtype == np.float32
        assert near(torch.from_numpy(alone.map), together[row], 1e-5)
        assert (alone.map.min() < 0) == METHODS[method].signed
        assert alone.support.min() >= 0


@pytest.mark.parametrize("method", METHODS)
def test_a_contrast_is_a_score_of_its_own(method):
    classifier = tiny_classifier()
    found = ts.attribute(classifier, PICTURES, method=method, target=2, against="class 0")
    logits = classifier(PICTURES).detach()
    wanted = logits[:, 2] - logits[:, 0]
    np.testing.assert_allclose([a.logit for a in found], wanted, rtol=1e-5)
    assert {(a.target, a.against) for a in found} == {("class 2", "class 0")}
    if method in (
        "gradient",
        "gradient_x_input",
        "smooth_grad",
        "occlusion",
    ):  # linear in the score
        parts = [maps(classifier, method=method, target=one) for one in (2, 0)]
        contrast = torch.from_numpy(np.stack([a.map for a in found]))
        assert near(contrast, parts[0] - parts[1], 1e-4)


def test_targets_by_name_index_prediction_label_and_next_best():
    classifier = tiny_classifier()
    logits = classifier(PICTURES).detach()
    predicted = logits.argmax(1).tolist()
    second = logits.topk(2).indices[:, 1].tolist()
    names = classifier.classes

    def targets(**options):
        found = ts.attribute(classifier, PICTURES, method="gradient", **options)
        np.testing.assert_allclose(
            [a.logit for a in found if a.against is None],
            [
                float(logits[row, names.index(a.target)])
                for row, a in enumerate(found)
                if a.against is None
            ],
            rtol=1e-5,
        )
        return [a.target for a in found], [a.against for a in found]

    assert targets()[0] == [names[one] for one in predicted]
    assert targets(target="class 3")[0] == ["class 3"] * 3
    assert targets(target=torch.tensor([0, 1, 3]))[0] == ["class 0", "class 1", "class 3"]
    assert targets(target=np.int64(2))[0] == ["class 2"] * 3
    assert targets(target=[0, "class 1", "predicted"])[0] == [
        "class 0",
        "class 1",
        names[predicted[2]],
    ]
    assert targets(target="expected", labels=[2, 1, "class 0"])[0] == [
        "class 2",
        "class 1",
        "class 0",
    ]
    assert targets(against="runner-up")[1] == [names[one] for one in second]
    wrong = [(one + 1) % 4 for one in predicted]
    expected = targets(target="expected", against="predicted", labels=wrong)
    assert expected == ([names[one] for one in wrong], [names[one] for one in predicted])


def test_what_cannot_be_explained_is_refused():
    classifier = tiny_classifier()
    predicted = int(classifier(PICTURES[:1]).argmax())
    for words, options in {
        "no method 'grad_cma' .* did you mean 'grad_cam'": {"method": "grad_cma"},
        "no class 'class 9'": {"target": "class 9"},
        "no class '4'": {"target": 4},
        "there are no labels": {"target": "expected"},
        "2 targets were given for 3 pictures": {"target": [0, 1]},
        "1 labels were given": {"target": "expected", "labels": [0]},
        "meant for against=": {"target": "runner-up"},
        "whose difference is 0": {"target": predicted, "against": "predicted"},
        "no layer 'stages.9'": {"layer": "stages.9"},
        "which has no places": {"layer": "head"},
        "looks at pixels": {"layer": "stages.1", "method": "gradient"},
        "no option 'step' in integrated_gradients; did you mean 'steps'": {
            "method": "integrated_gradients",
            "step": 3,
        },
        "samples is 0": {"method": "smooth_grad", "samples": 0},
        "noise is 2": {"method": "smooth_grad", "noise": 2},
        "batch_size is 0": {"batch_size": 0},
    }.items():
        with pytest.raises(InputError, match=words):
            ts.attribute(classifier, PICTURES, **options)
    with pytest.raises(InputError, match="there are no pictures"):
        ts.attribute(classifier, [])
    with pytest.raises(InputError, match="takes \\(3, 32, 32\\)"):
        ts.attribute(classifier, PICTURES[:, :, :16])
    with pytest.raises(InputError, match="reach from"):
        ts.attribute(classifier, PICTURES * 255)
    named = Classifier(tiny_classifier().network, SPEC, ["predicted", "b", "c", "d"])
    with pytest.raises(InputError, match="is a class here and a way of choosing one"):
        ts.attribute(named, PICTURES)
    assert ts.attribute(named, PICTURES, target=0)[0].target == "predicted"


def test_files_pictures_and_tensors_are_one(tmp_path):
    classifier = tiny_classifier()
    picture = Image.fromarray((PICTURES[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    picture.save(tmp_path / "bird.png")
    tensor = classifier.input.load(picture).float() / 255
    given = (tmp_path / "bird.png", str(tmp_path / "bird.png"), picture, tensor)
    found = [ts.attribute(classifier, one).map for one in given]
    assert all(np.array_equal(one, found[0]) for one in found)
    assert len(ts.attribute(classifier, list(given))) == 4


# ---------------------------------------------------------------------------- any network


def test_tokens_are_laid_out_as_patches_and_a_layer_without_a_say_is_refused():
    torch.manual_seed(0)
    network = narrow("vit_b_16", 4)
    nn.init.normal_(network.heads.head.weight)
    classifier = classifier_of(
        network, InputSpec((64, 64), 3, SPEC.mean, SPEC.std, "bilinear", 1.0)
    )
    pictures = smooth_pictures(2, 3, 64, 64)
    found = ts.attribute(classifier, pictures, method="grad_cam", target=1)
    # The class token alone is answered from: the last block's patches have no say.
    assert {a.layer for a in found} == {"encoder.layers.encoder_layer_10"}
    kept = {}
    module = network.encoder.layers.encoder_layer_10
    handle = module.register_forward_hook(lambda _m, _i, output: kept.setdefault("a", output))
    logits = classifier(pictures.clone().requires_grad_())
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), kept["a"])
    weights = gradient[:, 1:].mean(1)  # (N, D), over patches
    small = (kept["a"][:, 1:] * weights[:, None]).sum(-1).reshape(2, 1, 4, 4).relu().detach()
    wanted = nn.functional.interpolate(small, (64, 64), mode="bilinear")[:, 0]
    assert near(torch.from_numpy(np.stack([a.map for a in found])), wanted, 1e-5)
    with pytest.raises(InputError, match="does not depend on"):
        ts.attribute(classifier, pictures, layer="encoder.layers.encoder_layer_11")
    for name, method in METHODS.items():
        if not method.changes_relu:
            found = ts.attribute(classifier, pictures[0], method=name, **method.quick)
            assert np.isfinite(found.map).all()


def test_maps_with_channels_last_are_told_apart():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 5, 3, stride=4, padding=1), nn.LayerNorm(5)
            self.head = nn.Linear(5, 4)

        def forward(self, x):
            return self.head(self.norm(self.conv(x).permute(0, 2, 3, 1)).square().mean((1, 2)))

    torch.manual_seed(0)
    classifier = classifier_of(Last())
    given = PICTURES.clone()
    activation = classifier.network.norm(
        classifier.network.conv(SPEC.normalise(given)).permute(0, 2, 3, 1)
    )
    activation = activation.detach().requires_grad_()
    logits = classifier.network.head(activation.square().mean((1, 2)))
    (gradient,) = torch.autograd.grad(logits[:, 2].sum(), activation)
    small = (activation * gradient.mean((1, 2), keepdim=True)).sum(-1).relu().detach()
    wanted = nn.functional.interpolate(small[:, None], (32, 32), mode="bilinear")[:, 0]
    assert wanted.any()
    assert near(maps(classifier, layer="norm", target=2), wanted, 1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_one_channel_and_frozen_weights(method):
    torch.manual_seed(1)
    network = tiny_classifier().network
    network.stem = nn.Conv2d(1, 8, 3, stride=2, padding=1)
    classifier = classifier_of(network, InputSpec((32, 32), 1, (0.5,), (0.25,), "bilinear", 1.0))
    classifier.requires_grad_(False)
    found = ts.attribute(classifier, smooth_pictures(2, 1, 32, 32), method=method)
    assert all(a.map.any() for a in found)


@pytest.mark.parametrize("method", METHODS)
def test_train_mode_answers_as_eval_mode_and_the_callers_mode_plays_no_part(method):
    classifier, quick = tiny_classifier(), METHODS[method].quick
    wanted = maps(classifier, method=method, **quick)
    classifier.train()
    before = state_of(classifier)
    assert near(maps(classifier, method=method, **quick), wanted)
    with torch.inference_mode():
        assert near(maps(classifier, PICTURES.clone(), method=method, **quick), wanted)
    with torch.no_grad():
        assert near(maps(classifier, method=method, **quick), wanted)
    assert same_state(before, state_of(classifier))


# ---------------------------------------------------------------------------- nothing changed


A_PASS = {"smooth_grad": 16, "integrated_gradients": 16, "occlusion": 64}
"""Versions a pass of methods that look at many of each picture: a few passes are enough to fail in any."""


class Failing(TinyNet):
    """Raises in the n-th forward pass of any of its copies."""

    left = None

    def forward(self, x):
        logits = super().forward(x)
        if Failing.left is not None:
            Failing.left -= 1
            if not Failing.left:
                raise RuntimeError("half-way")
        return logits


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_changed_also_when_it_fails_half_way(method, training, monkeypatch):
    torch.manual_seed(0)
    classifier = classifier_of(Failing()).train(training)
    classifier(PICTURES).sum().backward()  # gradients that must stay
    classifier.network.stem.requires_grad_(False)
    random_state, before = torch.get_rng_state(), state_of(classifier)
    backward = [len(m._backward_hooks) for m in classifier.modules()]
    pictures = PICTURES.clone()

    def unchanged() -> bool:
        return (
            same_state(before, state_of(classifier))
            and backward == [len(m._backward_hooks) for m in classifier.modules()]
            and torch.equal(random_state, torch.get_rng_state())
            and torch.equal(pictures, PICTURES)
            and not pictures.requires_grad
        )

    passes, batch_size = 10_000, A_PASS.get(method, 1)
    monkeypatch.setattr(Failing, "left", passes)
    ts.attribute(classifier, pictures, method=method, batch_size=batch_size)
    passes -= Failing.left
    assert unchanged()
    assert passes > 3
    for number in {1, passes // 2, passes - 1, passes}:
        monkeypatch.setattr(Failing, "left", number)
        with pytest.raises((RuntimeError, InputError), match="half-way"):
            ts.attribute(classifier, pictures, method=method, batch_size=batch_size)
        assert unchanged()


@pytest.mark.parametrize("method", METHODS)
def test_a_failing_backward_leaves_nothing_behind(method):
    if method == "occlusion":
        pytest.skip("occlusion has no backward pass")

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, _gradient):
            raise RuntimeError("half-way back")

    class Breaking(TinyNet):
        def forward(self, x):
            return super().forward(x) if self.quiet else super().forward(Broken.apply(x))

        quiet = True

    classifier = classifier_of(Breaking())
    layer = {"layer": "stem"} if METHODS[method].layer else {}
    before = state_of(classifier)
    Breaking.quiet = False
    if method in ("grad_cam", "layer_cam"):  # their gradients end at the layer
        assert ts.attribute(classifier, PICTURES, method=method, **layer)
    else:
        with pytest.raises(RuntimeError, match="half-way back"):
            ts.attribute(classifier, PICTURES, method=method)
    assert same_state(before, state_of(classifier))


def test_threads_share_a_classifier():
    classifier = tiny_classifier().train()
    before = state_of(classifier)

    def mapped(method: str) -> torch.Tensor:
        return maps(classifier, method=method, target=1, **METHODS[method].quick)

    wanted = {method: mapped(method) for method in METHODS}

    def work(method: str) -> bool:
        return near(mapped(method), wanted[method], 1e-5)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, list(METHODS) * 3))
    assert same_state(before, state_of(classifier))


def test_networks_that_return_more_than_logits():
    class Two(TinyNet):
        def forward(self, x):
            return {"logits": super().forward(x), "aux": x.mean()}

    torch.manual_seed(0)
    classifier = classifier_of(Two())
    for method in METHODS:
        assert ts.attribute(classifier, PICTURES, method=method, target=1)[0].map.any()
