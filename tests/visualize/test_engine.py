"""The render engine: any architecture, pictures that stand alone, threads given back, statuses, ascent."""

from __future__ import annotations

import gc
import math
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import timm
import torch
import torchvision
from torch import nn

from conftest import SPEC, narrow, same_state, state_of, tiny_classifier
from transferscope.acceleration.convolutions import FrozenConv
from transferscope.acceleration.network import FastNetwork
from transferscope.activations import TruncatedForward, capture
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.weights import load_backbone
from transferscope.errors import InputError
from transferscope.images import InputSpec
from transferscope.visualize.ascent import ADAPTIVITY, MEMORY, MOMENTUM, Ascent
from transferscope.visualize.canvas import fourier
from transferscope.visualize.engine import PLACES, Engine, Job
from transferscope.visualize.movement import Movement, move
from transferscope.visualize.objectives.algebra import Objective
from transferscope.visualize.objectives.channels import channel, logit, neuron
from transferscope.visualize.recipe import WINDOW, RenderRecipe
from transferscope.visualize.records import Drawn
from transferscope.visualize.render import judge, render, render_together

LAYER = "stages.1.bn2"
pytestmark = pytest.mark.usefixtures("two_threads")

QUICK = RenderRecipe(steps=6, precision="fp32")


@pytest.fixture
def one_thread():
    """Each operation on one thread, and so one worker; the number is given back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def jobs_of(layer: str, indexes: list[int]) -> list[Job]:
    return [Job(channel(layer, index), seed=index) for index in indexes]


def wrapped(network: nn.Module, size: tuple[int, int], channels: int = 3) -> Classifier:
    spec = InputSpec(size, channels, (0.5,) * channels, (0.25,) * channels, "bilinear", 1.0)
    return Classifier(network.eval(), spec, [f"class {n}" for n in range(4)])


def livened(network: nn.Module) -> nn.Module:
    """BatchNorms with statistics and weights of their own, some negative, as tuned networks have."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network


# ---------------------------------------------------------------------------- architectures


def vgg(cfg: list[int | str], *, norm: bool) -> nn.Module:
    """torchvision's VGG; the classifier, whose 120 million weights nothing looks at, a small one."""
    with torch.device("meta"):
        network = torchvision.models.vgg11_bn(num_classes=4, init_weights=False)
    network.features = torchvision.models.vgg.make_layers(cfg, batch_norm=norm)
    network.classifier = nn.Linear(cfg[-2] * 49, 4)
    return network


def without(network: nn.Module, repeated: tuple[str, ...]) -> nn.Module:
    """Passes by blocks of a kind that others of its kind stand for."""
    for name in repeated:
        setattr(network, name, nn.Identity())
    return network


ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], tuple[str, ...]]] = {
    "resnet18": (
        lambda: narrow("resnet18", 4),
        (64, 96),
        ("conv1", "layer1.0.relu", "layer2"),
    ),
    "resnet50": (
        lambda: narrow("resnet50", 4),
        (64, 64),
        ("layer1.0.bn3", "layer3.0.conv2"),
    ),
    "vgg": (
        lambda: vgg([16, "M", 32, 32, "M"], norm=False),
        (64, 64),
        ("features.3", "features.6"),
    ),
    "vgg_bn": (lambda: vgg([16, "M", 32, 32, "M"], norm=True), (64, 64), ("features.9",)),
    "densenet": (
        lambda: torchvision.models.DenseNet(8, (2, 2, 2), 16, num_classes=4),
        (64, 64),
        ("features.denseblock2.denselayer1.conv1", "features.norm5"),
    ),
    "mobilenet_v2": (
        lambda: narrow("mobilenet_v2", 4),
        (64, 64),
        ("features.4.conv.3", "features.7"),
    ),
    "mobilenet_v3": (
        lambda: torchvision.models.mobilenet_v3_small(num_classes=4),
        (64, 64),
        ("features.4.block.1.2", "features.5"),
    ),
    "efficientnet": (
        lambda: torchvision.models.EfficientNet(
            [
                torchvision.models.efficientnet.MBConvConfig(*one)
                for one in [(1, 3, 1, 8, 8, 1), (6, 3, 2, 8, 8, 2), (6, 5, 2, 8, 16, 2)]
            ],
            dropout=0.2,
            num_classes=4,
        ),
        (64, 64),
        ("features.2", "features.3.1.block.1"),
    ),
    "convnext": (
        lambda: timm.create_model("test_convnext", num_classes=4),
        (64, 64),
        ("stages.0.blocks.0.conv_dw", "stages.1"),
    ),
    "convnext_tv": (
        lambda: torchvision.models.ConvNeXt(
            [
                torchvision.models.convnext.CNBlockConfig(16, 32, 1),
                torchvision.models.convnext.CNBlockConfig(32, None, 1),
            ],
            num_classes=4,
        ),
        (64, 64),
        ("features.1", "features.3.0.block.0", "features.1.0.block.3", "features.1.0.block.4"),
    ),
    "swin": (
        lambda: torchvision.models.SwinTransformer(
            [4, 4], 8, [1, 1], [2, 2], [4, 4], num_classes=4
        ),
        (64, 96),
        ("features.1", "features.3"),
    ),
    "inception_v3": (
        lambda: without(
            torchvision.models.inception_v3(
                num_classes=4, init_weights=False, transform_input=True
            ),
            ("Mixed_5d", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7c"),
        ),
        (80, 80),
        ("Mixed_5b", "Conv2d_4a_3x3.conv"),
    ),
    "googlenet": (
        lambda: without(
            torchvision.models.googlenet(num_classes=4, init_weights=False, transform_input=True),
            ("inception4b", "inception4c", "inception5a"),
        ),
        (64, 64),
        ("inception3a", "inception4a.branch2"),
    ),
    "vit": (
        lambda: timm.create_model(
            "vit_tiny_patch16_224", img_size=(48, 64), num_classes=4, depth=2
        ),
        (48, 64),
        ("patch_embed", "blocks.1"),
    ),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_drawn_and_left_alone(name):
    build, size, layers = ARCHITECTURES[name]
    torch.manual_seed(0)
    network = livened(build())
    classifier = wrapped(network, size)
    network.train()  # modes are given back too
    first = next(network.parameters())
    first.requires_grad_(False)
    first.grad = torch.ones_like(first)
    before = state_of(network)
    still = replace(QUICK, movement=None)  # or few steps need not show in an unmoved picture
    for layer in layers:
        drawn = Engine(classifier, (layer,), still).draw(jobs_of(layer, [0, 1, 5]))
        assert drawn.pictures.shape == (3, 3, *size)
        open_ = ~drawn.blocked  # random ReLUs may be shut for good
        assert open_.any(), layer
        assert (drawn.activation[open_] > drawn.start[open_]).all(), layer
        assert drawn.finite.all()
    assert same_state(before, state_of(network))


@pytest.mark.parametrize("layer", ["features.1.0.block.3", "features.1.0.block.4"])
def test_a_channel_that_is_the_last_axis_is_the_one_drawn(layer):
    classifier = wrapped(livened(ARCHITECTURES["convnext_tv"][0]()), (64, 64))
    drawn = Engine(classifier, (layer,), QUICK).draw(jobs_of(layer, [2, 63]))
    seen = classifier.input.normalise(drawn.pictures / 255)
    with torch.no_grad(), capture(classifier.network, [layer]) as caught:
        classifier.network.eval()(seen)
    assert caught[layer].shape == (2, 16, 16, 64)
    means = caught[layer].mean((1, 2))
    torch.testing.assert_close(drawn.activation, means[[0, 1], [2, 63]], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["vit", "swin"])
def test_a_size_that_a_network_does_not_take_is_refused_before_the_work(name):
    build, size, layers = ARCHITECTURES[name]
    classifier = wrapped(build(), size)
    other = RenderRecipe(steps=1, size=(size[0] + 32, size[1]), precision="fp32")
    if name == "swin":  # windows take any size
        Engine(classifier, layers[:1], other)
        return
    with pytest.raises(InputError, match="48 x 64 pixels only; leave --size out"):
        Engine(classifier, layers[:1], other)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"jitter": math.nan}, "jitter is nan"),
        ({"jitter": -0.1}, "jitter is -0.1"),
        ({"scale": (1.2, 0.9)}, "within 0.1 to 10"),
        ({"scale": (0, 1)}, "within 0.1 to 10"),
        ({"scale": (1, math.inf)}, "within 0.1 to 10"),
        ({"scale": 1.1}, "give \\(low, high\\)"),
        ({"rotation": 720}, "0 to 180"),
        ({"rotation": math.nan}, "0 to 180"),
    ],
)
def test_a_movement_out_of_range_is_refused(given, said):
    with pytest.raises(InputError, match=said):
        Movement(**given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"steps": 0}, "at least 1"),
        ({"steps": 2.5}, "whole number"),
        ({"size": 64}, "give \\(height, width\\)"),
        ({"size": (31, 64)}, "at least 32"),
        ({"detail": 0}, "detail is 0"),
        ({"rate": 0}, "rate is 0"),
        ({"rate": math.nan}, "rate is nan"),
        ({"redirect": -1}, "redirect is -1"),
        ({"settled": 1}, "settled is 1"),
        ({"precision": "fp99"}, "use auto, fp32, bf16, fp16"),
    ],
)
def test_a_recipe_out_of_range_is_refused(given, said):
    with pytest.raises(InputError, match=said):
        RenderRecipe(**given)


def test_a_recipe_is_not_given_twice_over():
    objective = channel(LAYER, 0)
    with pytest.raises(InputError, match="give one of them"):
        render(tiny_classifier(), objective, steps=4, recipe=RenderRecipe(steps=2))
    with pytest.raises(InputError, match="at least 1 picture"):
        render_together(tiny_classifier(), objective, 0)


@pytest.mark.parametrize("given", [5, "blocks.0", None])
def test_what_is_no_objective_is_refused(given):
    with pytest.raises(InputError, match="give one such as"):
        render(tiny_classifier(), given)
    with pytest.raises(InputError, match="give one such as"):
        render_together(tiny_classifier(), given, 2)


def test_redirected_steps_are_a_third_at_most():
    assert [RenderRecipe(steps=n).patience for n in (2, 24, 120)] == [0, 8, 24]


def test_beyond_its_border_a_picture_is_grey():
    white = torch.ones(1, 3, 40, 40)
    moved = move(white, torch.tensor([[0.0, 0.0, -1.0, 0.0]]), Movement(0, (0.5, 1), 0))
    assert (moved[..., :9, :] == 0.5).all()
    assert (moved[..., :, -9:] == 0.5).all()
    assert (moved[..., 12:28, 12:28] == 1).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_head_is_drawn_too(precision):
    torch.manual_seed(0)
    classifier = wrapped(livened(torchvision.models.resnet18(num_classes=4)), (64, 64))
    objective = logit(2)
    drawn = Engine(classifier, objective.layers, replace(QUICK, precision=precision)).draw(
        [Job(objective, 0)]
    )
    assert float(drawn.activation) > float(drawn.start)


class OneChannel(nn.Module):
    """A grey, non-square network with in-place ReLUs, one of them under two names, run three times."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8)
        self.last = nn.Conv2d(8, 8, 1)
        self.relu = nn.ReLU(inplace=True)
        self.other_name = self.relu
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.first(x))
        x = self.relu(self.depthwise(x))
        x = self.other_name(self.last(x))
        return self.head(x.mean((2, 3)))


def test_a_shared_module_is_drawn_at_its_last_run_whatever_it_is_called():
    torch.manual_seed(1)
    classifier = wrapped(OneChannel(), (64, 96), 1)
    engine = Engine(classifier, ("relu",), replace(QUICK, steps=20, movement=None))
    normalised = classifier.input.normalise(torch.rand(1, 1, 64, 96))
    drawing = engine._network(normalised)["relu"]
    exact = engine._exact(normalised)["relu"]
    assert drawing.shape == (1, 8, 16, 24)
    torch.testing.assert_close(drawing, exact, rtol=1e-4, atol=1e-5)
    drawn = engine.draw(jobs_of("relu", list(range(8))))
    assert drawn.pictures.shape == (8, 1, 64, 96)
    open_ = ~drawn.blocked
    assert int(open_.sum()) >= 4
    assert (drawn.activation[open_] > drawn.start[open_]).all()
    (record, *_) = judge(drawn, "relu", range(8), "plus", 0, {})
    assert record.picture.shape == (64, 96, 3)


def test_a_convolution_is_drawn_before_its_batchnorm_not_after_it():
    """Folding would turn a channel round whose BatchNorm has a negative weight."""
    classifier = tiny_classifier()
    with torch.no_grad():
        classifier.network.stages[1].bn1.weight.neg_()
    layer = "stages.1.conv1"
    for layers in [(layer,), (layer, "stages.2")]:
        engine = Engine(classifier, layers, QUICK)
        drawn = engine.draw(jobs_of(layer, list(range(8))))
        assert (drawn.activation > drawn.start).all()


# ---------------------------------------------------------------------------- standing alone


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_companions_places_and_workers_do_not_change_a_picture(precision, one_thread):
    """Equal to the bit on the embedded network, in fp32 and in bf16, also where one is drawn alone."""
    classifier = load_backbone("efficientnet_lite0")
    recipe = RenderRecipe(steps=3, size=(64, 64), precision=precision)
    layer = "blocks.2.1"
    jobs = jobs_of(layer, list(range(PLACES + 2)))
    engine = Engine(classifier, (layer,), recipe)
    whole = engine.draw(jobs).canvases
    assert len({canvas.numpy().tobytes() for canvas in whole}) == len(jobs)
    assert torch.equal(engine.draw(jobs[::-1]).canvases.flip(0), whole)
    assert torch.equal(engine.draw(jobs[-1:]).canvases, whole[-1:])
    torch.set_num_threads(2)
    shared = Engine(classifier, (layer,), recipe)
    assert torch.equal(shared.draw(jobs).canvases, whole)
    assert len(shared._workers) == 2
    first, second = (
        {p.data_ptr() for p in worker._network._network.parameters()} for worker in shared._workers
    )
    assert first == second, "workers have the same weights in memory"


def test_a_picture_that_leaves_early_does_not_change_its_neighbours(one_thread):
    """Places are refilled at different times, so that neighbours have different ages."""
    layer = "blocks.1.0"
    recipe = RenderRecipe(steps=45, settled=0.01, size=(64, 64), precision="bf16")
    flat = [Job(level(layer, 0), seed=n) for n in (90, 91)]
    jobs = jobs_of(layer, [0, 1, 2, 3])
    engine = Engine(load_backbone("efficientnet_lite0"), (layer,), recipe)
    alone = torch.cat([engine.draw([job]).canvases for job in jobs])
    together = engine.draw([flat[0], *jobs[:2], flat[1], *jobs[2:]])
    assert int(together.steps[0]) == int(together.steps[3]) == 2 * WINDOW + 45 - 27
    assert int(together.steps.max()) == 45
    assert torch.equal(together.canvases[[1, 2, 4, 5]], alone)


def test_shut_neighbours_do_not_redirect_a_picture_that_has_begun(one_thread):
    """Its gradient fails once it is bright, after its first steps: it stays, whoever is beside it."""
    classifier = gates(0.1, 2.0, module=True)
    engine = Engine(classifier, ("out",), replace(QUICK, steps=24, redirect=3))

    def until_bright(activations: dict[str, torch.Tensor], pictures: torch.Tensor) -> torch.Tensor:
        opened, shut = activations["out"].mean((2, 3)).unbind(1)
        return torch.where(pictures.mean((1, 2, 3)) < 0.8, opened, shut)

    def drawn_beside(index: int, count: int) -> torch.Tensor:
        one = Job(Objective(("out",), until_bright, "until bright"), 0)
        drawn = engine.draw([one, *[Job(channel("out", index), 1)] * count])
        assert drawn.blocked.tolist() == [False, *[index == 1] * count]
        return drawn.canvases[0]

    beside_open = drawn_beside(0, PLACES - 1)
    assert 0.8 < float(beside_open.float().mean() / 255) < 0.9
    # The shut are given up after 2 x 3 steps, and others begin, until the end of the open ones.
    assert torch.equal(drawn_beside(1, 4 * (PLACES - 1)), beside_open)


# ---------------------------------------------------------------------------- threads and errors


class Broken(Exception):
    """Raised by objectives of these tests."""


def broken_after(steps: int) -> Objective:
    left = steps

    def value(activations: dict[str, torch.Tensor], _pictures: torch.Tensor) -> torch.Tensor:
        nonlocal left
        left -= 1
        if left < 0:
            raise Broken("the objective's own words")
        return activations[LAYER][:, 0].mean((1, 2))

    return Objective((LAYER,), value, "broken")


def threads_of_new_threads() -> int:
    """What torch gives a thread that has not asked for anything."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


def drawing_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("render")]


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_given_back_and_errors_come_out_as_they_are(threads, one_thread):
    torch.set_num_threads(threads)
    classifier = tiny_classifier()
    before = state_of(classifier)
    engine = Engine(classifier, (LAYER,), replace(QUICK, steps=400))
    jobs = jobs_of(LAYER, list(range(7)))
    steps = 0

    def counted(activations: dict[str, torch.Tensor], _pictures: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += 1
        return activations[LAYER][:, 0].mean((1, 2))

    long = [Job(Objective((LAYER,), counted, "counted"), n) for n in range(20)]
    with pytest.raises(Broken, match="the objective's own words"):
        engine.draw([Job(broken_after(3), 0), *long])
    assert torch.get_num_threads() == threads
    assert not drawing_threads()
    assert steps < 5 * 400, "the other workers were stopped"

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.draw(long, interrupt)
    assert torch.get_num_threads() == threads_of_new_threads() == threads
    assert not drawing_threads()
    assert same_state(before, state_of(classifier))

    short = Engine(classifier, (LAYER,), QUICK)
    with pytest.raises(Broken):
        short.draw([Job(broken_after(0), 0)])
    assert torch.equal(
        short.draw(jobs).canvases, Engine(classifier, (LAYER,), QUICK).draw(jobs).canvases
    ), "an engine can be used again"
    assert torch.get_num_threads() == threads_of_new_threads() == threads


def test_pictures_that_depend_on_each_other_are_drawn_after_an_error_and_without_gradients():
    classifier = tiny_classifier()
    engine = Engine(classifier, (LAYER,), QUICK)
    with pytest.raises(Broken):
        engine.draw([Job(broken_after(0), 0)])
    threads = torch.get_num_threads()
    with torch.no_grad():  # the caller's mode
        drawn = engine.draw_together(channel(LAYER, 1), [1, 2, 3, 4, 5, 6])
    assert torch.get_num_threads() == threads
    assert (drawn.activation > drawn.start).all()
    with pytest.raises(Broken):
        engine.draw_together(broken_after(2), [1, 2])
    assert torch.get_num_threads() == threads


def test_progress_counts_finished_pictures():
    seen: list[tuple[int, int]] = []
    Engine(tiny_classifier(), (LAYER,), QUICK).draw(
        jobs_of(LAYER, list(range(6))), lambda done, total: seen.append((done, total))
    )
    assert seen == sorted(seen)
    assert seen[-1] == (6, 6)


# ---------------------------------------------------------------------------- statuses


def level(layer: str, index: int) -> Objective:
    """Has the gradient of a channel, and is always 1: it never rises."""

    def value(activations: dict[str, torch.Tensor], _pictures: torch.Tensor) -> torch.Tensor:
        mean = activations[layer][:, index].mean((1, 2))
        return mean - mean.detach() + 1

    return Objective((layer,), value, "level")


class Gates(nn.Module):
    """Brightness p in front of thresholds: max(0, p - t), at the very pixels.

    A ReLU module (which can be redirected), or the function (which cannot).
    """

    def __init__(self, thresholds: list[float], *, module: bool):
        super().__init__()
        self.module = module
        self.conv = nn.Conv2d(1, len(thresholds), 1)
        self.relu = nn.ReLU(inplace=True)
        self.out = nn.Identity()
        self.head = nn.Linear(len(thresholds), 4)
        with torch.no_grad():
            self.conv.weight.fill_(1)
            self.conv.bias.copy_(-torch.tensor(thresholds))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        x = self.out(self.relu(x) if self.module else torch.relu(x))
        return self.head(x.mean((2, 3)))


def gates(*thresholds: float, module: bool) -> Classifier:
    torch.manual_seed(0)
    spec = InputSpec((32, 32), 1, (0.0,), (1.0,), "bilinear", 1.0)
    return Classifier(Gates(list(thresholds), module=module).eval(), spec, list("abcd"))


def statuses(drawn: Drawn, best: dict[int, float | None]) -> list[str]:
    return [r.status for r in judge(drawn, "out", range(len(best)), "plus", 0, best)]


def test_a_shut_module_is_redirected_and_begins_once():
    classifier = gates(0.7, module=True)
    recipe = replace(QUICK, steps=24)
    drawn = Engine(classifier, ("out",), recipe).draw(jobs_of("out", [0]))
    assert statuses(drawn, {0: None}) == ["optimized"]
    assert not drawn.from_exemplar
    assert int(drawn.steps) == 24, "no restart"
    without = Engine(classifier, ("out",), replace(recipe, redirect=0)).draw(jobs_of("out", [0]))
    assert statuses(without, {0: None}) == ["zero_gradient"]


def test_a_shut_module_is_opened_at_the_longest_rate_however_calm_the_recipe():
    calm = replace(QUICK, steps=24, rate=0.01)
    drawn = Engine(gates(0.7, module=True), ("out",), calm).draw(jobs_of("out", [0]))
    assert statuses(drawn, {0: None}) == ["optimized"]
    assert int(drawn.steps) == 24, "no restart"


@pytest.mark.parametrize("redirect", [0, 8])
def test_what_is_still_shut_begins_again_from_the_real_picture_and_else_is_given_up(redirect):
    classifier = gates(0.8, 0.8, 2.0, 2.0, 0.1, module=False)
    bright, dark = torch.full((1, 40, 40), 0.95), torch.zeros(1, 40, 40)
    best = {0: 0.1, 1: 0.1, 2: 0.0, 3: 0.5, 4: None}
    pictures = [bright, dark, bright, None, bright]
    jobs = [
        Job(channel("out", n), n, best[n], picture)
        for n, picture in zip(best, pictures, strict=True)
    ]
    recipe = replace(QUICK, steps=24, redirect=redirect)
    drawn = Engine(classifier, ("out",), recipe).draw(jobs)
    assert statuses(drawn, best) == [
        "optimized",
        "zero_gradient",
        "dead_on_data",
        "zero_gradient",
        "optimized",
    ]
    assert drawn.from_exemplar.tolist() == [True, True, True, False, False]
    tries = max(1, redirect)
    assert drawn.steps.tolist() == [24 + tries, 2 * tries, 2 * tries, 2 * tries, 24]


def ended(start: float, activation: float) -> Drawn:
    """One drawing that had gradients."""
    value = torch.zeros(1, dtype=torch.bool)
    figures = {"activation": torch.tensor([activation]), "start": torch.tensor([start])}
    others = {"blocked": value, "finite": ~value, "from_exemplar": value}
    canvases = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    return Drawn(canvases, (32, 32), steps=torch.tensor([24]), **figures, **others)


@pytest.mark.parametrize(
    ("start", "activation", "best", "status"),
    [
        (4.0168724, 4.0168724, 4.0168729, "dead_on_data"),  # it gives the same for anything
        (-2.0, -2.0, -2.0, "dead_on_data"),
        (2.0, 2.4314175, 2.4314179, "optimized"),  # the same value, added up in another order
        (2.0, 2.43, 2.4314179, "below_exemplar"),
        (2.0, 3.0, 2.0, "optimized"),
        (2.0, 2.0005, 1.0, "optimized"),  # not constant: noise is more to it than any real picture
        (-3.0, -2.0, -1.0, "below_exemplar"),
        (0.0, 0.0, 0.03, "below_exemplar"),
    ],
)
def test_rounding_decides_no_status(start, activation, best, status):
    assert statuses(ended(start, activation), {0: best}) == [status]


def hill(peak: float, centre: float, *, slope: float) -> Objective:
    """Highest where the picture's mean is `centre`, and rising without end above 0.9."""

    def value(_activations: dict[str, torch.Tensor], pictures: torch.Tensor) -> torch.Tensor:
        mean = pictures.mean((1, 2, 3))
        return peak * torch.exp(-((mean - centre) ** 2) / 0.005) + slope * (mean - 0.9).relu()

    return Objective((LAYER,), value, "hill")


def test_what_ends_below_the_real_picture_is_drawn_again_from_it_if_that_is_better():
    classifier = tiny_classifier()
    engine = Engine(classifier, (LAYER,), replace(QUICK, steps=10))
    white = torch.full((3, 32, 32), 0.97)
    seen: list[tuple[int, int]] = []

    def draw(slope: float, best: float, picture: torch.Tensor | None) -> Drawn:
        job = Job(hill(1.0, 0.5, slope=slope), 1, best, picture)
        return engine.draw([job], lambda *done: seen.append(done))

    better = draw(100.0, 5.0, white)
    assert better.from_exemplar
    assert float(better.activation) > 5
    assert int(better.steps) == 20, "of both rounds"
    worse = draw(1.0, 5.0, white)
    assert not worse.from_exemplar
    assert float(worse.activation) == pytest.approx(1.0, abs=0.01)
    assert int(worse.steps) == 20
    reached = draw(100.0, 0.5, white)
    assert not reached.from_exemplar
    assert int(reached.steps) == 10
    assert not draw(100.0, 5.0, None).from_exemplar


def test_a_second_round_without_any_gradient_is_not_taken():
    """Beyond the cliff the objective is higher, and flat: nothing would have been drawn."""

    def value(_activations: dict[str, torch.Tensor], pictures: torch.Tensor) -> torch.Tensor:
        mean = pictures.mean((1, 2, 3))
        return torch.where(mean > 0.9, 3 + 0 * mean, 1 - (mean - 0.5).abs())

    job = Job(Objective((LAYER,), value, "cliff"), 1, 5.0, torch.full((3, 32, 32), 0.97))
    recipe = replace(QUICK, steps=12)
    drawn = Engine(tiny_classifier(), (LAYER,), recipe).draw([job])
    assert int(drawn.steps) == 12 + recipe.patience, "given up, as there is no other start"
    assert not drawn.blocked
    assert not drawn.from_exemplar
    assert float(drawn.activation) < 1.01


def test_what_leaves_the_numbers_is_finished_at_once_and_alone(one_thread):
    classifier = tiny_classifier()
    before = state_of(classifier)

    def bad(number: float, in_gradient: bool) -> Job:
        def value(activations: dict[str, torch.Tensor], _p: torch.Tensor) -> torch.Tensor:
            mean = activations[LAYER][:, 1].mean((1, 2))
            return mean * number if in_gradient else mean + number

        return Job(Objective((LAYER,), value, "bad"), 1)

    nan, inf = float("nan"), float("inf")
    jobs = [*jobs_of(LAYER, [0]), bad(nan, True), bad(inf, True), bad(nan, False)]
    jobs += jobs_of(LAYER, [1, 2, 3])
    engine = Engine(classifier, (LAYER,), QUICK)
    drawn = engine.draw(jobs)
    assert drawn.finite.tolist() == [True, False, False, False, True, True, True]
    assert drawn.steps.tolist() == [6, 1, 1, 1, 6, 6, 6]
    assert torch.equal(drawn.canvases[[0, 4, 5, 6]], engine.draw([jobs[0], *jobs[4:]]).canvases)
    assert same_state(before, state_of(classifier))


def test_what_no_longer_rises_is_finished_early_and_what_rises_is_not():
    classifier = tiny_classifier()
    recipe = replace(QUICK, steps=100, settled=0.01)
    count = 0

    def rising(activations: dict[str, torch.Tensor], _pictures: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        mean = activations[LAYER][:, 0].mean((1, 2))
        return mean - mean.detach() - 1000 * 0.99**count  # also where it is below zero

    jobs = [Job(level(LAYER, 0), 0), Job(Objective((LAYER,), rising, "rising"), 1)]
    drawn = Engine(classifier, (LAYER,), recipe).draw(jobs)
    assert drawn.steps.tolist() == [2 * WINDOW + 40, 100]
    never = Engine(classifier, (LAYER,), replace(recipe, settled=0)).draw(jobs[:1])
    assert int(never.steps) == 100


# ---------------------------------------------------------------------------- ascent


def by_hand(gradients: list[torch.Tensor], rate: float, shares: list[float]) -> torch.Tensor:
    """Where a row of zeros gets to: the sums written out, in float64."""
    place = torch.zeros_like(gradients[0], dtype=torch.float64)
    scaled = [g.double() / (g.double() ** 2).mean() ** 0.5 for g in gradients]
    for t in range(1, len(scaled) + 1):
        past = scaled[:t]
        first = sum((1 - MOMENTUM) * MOMENTUM ** (t - n) * g for n, g in enumerate(past, 1))
        second = sum((1 - MEMORY) * MEMORY ** (t - n) * g**2 for n, g in enumerate(past, 1))
        ahead = MOMENTUM * first / (1 - MOMENTUM ** (t + 1))
        ahead = ahead + (1 - MOMENTUM) * past[-1] / (1 - MOMENTUM**t)
        spread = second / (1 - MEMORY**t) + 1e-8
        place += rate * shares[t - 1] * ahead / spread**ADAPTIVITY
    return place


def test_ascent_is_what_its_reference_says_for_rows_of_any_age():
    torch.manual_seed(0)
    free = torch.zeros(3, 2, 4, 5)
    ascent = Ascent(free, 0.2)
    gradients: dict[int, list[torch.Tensor]] = {0: [], 1: [], 2: []}
    shares: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for step, rows in enumerate([[0], [0], [2, 0], [0, 1, 2], [1, 0], [2, 1, 0]]):
        if step == 4:
            ascent.forget(1)  # a new picture in that place
            free[1], gradients[1], shares[1] = 0, [], []
        gradient = torch.randn(len(rows), *free.shape[1:])
        own = [1 - 0.1 * step * (row + 1) / 3 for row in rows]
        ascent.step(rows, gradient, own)
        for place, row in enumerate(rows):
            gradients[row].append(gradient[place])
            shares[row].append(own[place])
    for row in range(3):
        wanted = by_hand(gradients[row], 0.2, shares[row])
        torch.testing.assert_close(free[row].double(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_the_scale_of_an_objective_does_not_matter(scale):
    torch.manual_seed(0)
    free = torch.zeros(2, 3, 4)
    ascent = Ascent(free, 0.1)
    for _ in range(4):
        gradient = torch.randn(1, 3, 4)
        ascent.step([0, 1], torch.cat([gradient, gradient * scale]), [1.0, 1.0])
    assert float(free[0].abs().max()) > 0.1
    torch.testing.assert_close(free[1], free[0], rtol=1e-4, atol=1e-5)


def test_a_row_without_a_gradient_stays_and_does_not_age():
    torch.manual_seed(0)
    gradients = torch.randn(2, 3, 4)
    steady, halting = torch.zeros(1, 3, 4), torch.zeros(1, 3, 4)
    one, other = Ascent(steady, 0.1), Ascent(halting, 0.1)
    one.step([0], gradients[:1], [1.0])
    other.step([0], gradients[:1], [1.0])
    before = halting.clone()
    for _ in range(3):
        other.step([0], torch.zeros(1, 3, 4), [1.0])
    assert torch.equal(halting, before)
    one.step([0], gradients[1:], [1.0])
    other.step([0], gradients[1:], [1.0])
    assert torch.equal(halting, steady)


# ---------------------------------------------------------------------------- memory


def test_few_numbers_of_pictures_are_passed_at_once(one_thread, monkeypatch):
    """The libraries of the arithmetic keep what they compile for each number."""
    drawing, measuring = set(), set()

    def drawn(network: FastNetwork, seen: torch.Tensor):
        drawing.add(len(seen))
        return through(network, seen)

    def measured(forward: TruncatedForward, pictures: torch.Tensor):
        if not torch.is_grad_enabled():  # the drawing network goes through one, too
            measuring.add(len(pictures))
        return exactly(forward, pictures)

    through, exactly = FastNetwork.__call__, TruncatedForward.__call__
    monkeypatch.setattr(FastNetwork, "__call__", drawn)
    monkeypatch.setattr(TruncatedForward, "__call__", measured)
    engine = Engine(tiny_classifier(), (LAYER,), replace(QUICK, steps=2))
    for count in range(1, PLACES + 1):
        jobs = jobs_of(LAYER, list(range(count)))
        found = engine.draw(jobs)
        assert len(found.canvases) == len(found.activation) == count
        assert torch.equal(found.activation, engine.measure(found.canvases, jobs))
    assert drawing == {1, 2, 4, 8}
    assert measuring == {1, 2}
    drawing.clear()
    engine = Engine(tiny_classifier(), (LAYER,), replace(QUICK, steps=60, settled=0.01))
    flat = [Job(level(LAYER, 0), seed=n) for n in range(PLACES - 1)]
    steps = engine.draw([*flat, *jobs_of(LAYER, [0])]).steps
    assert int(steps[-1]) > int(steps[:-1].max())  # the last one goes on alone
    assert drawing == {PLACES}


def test_no_more_is_held_than_places(one_thread):
    """Of 40 pictures, the free numbers of one more than there are places at most: that of a start."""
    held: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most_rows, most_held = 0, 0

    def counting(generators, shape, *, device, start=None):
        nonlocal most_held
        canvas = fourier(generators, shape, device=device, start=start)
        held.add(canvas.free)
        most_held = max(most_held, len(held))
        inner = canvas.decode

        def decode(free: torch.Tensor) -> torch.Tensor:
            nonlocal most_rows
            most_rows = max(most_rows, len(free))
            return inner(free)

        return replace(canvas, decode=decode)

    engine = Engine(tiny_classifier(), (LAYER,), replace(QUICK, steps=2), parametrization=counting)
    drawn = engine.draw([Job(neuron(LAYER, n % 8), n) for n in range(40)])
    assert len(drawn.canvases) == 40
    assert most_rows == PLACES
    gc.collect()
    assert most_held <= PLACES + 1
    assert not held


def _kernels_of(modules):
    """Where the weights are laid out once more."""
    frozen = [module for module in modules if isinstance(module, FrozenConv)]
    assert frozen
    return [kernel for conv in frozen for kernel in conv._kernels._made.values()]


def test_an_engine_that_is_let_go_is_gone_at_once():
    """A sweep makes one a layer: what waits for Python's search for cycles adds up."""
    gc.collect()
    gc.disable()
    try:
        engine = Engine(tiny_classifier(), (LAYER,), RenderRecipe(steps=2))
        engine.draw([Job(channel(LAYER, index), index) for index in range(3)])
        held = [weakref.ref(engine), *(weakref.ref(w._network) for w in engine._workers)]
        modules = list(engine._network._network.modules())
        held += [weakref.ref(module) for module in modules]
        held += [weakref.ref(kernel) for kernel in _kernels_of(modules)]
        del modules
        assert all(one() is not None for one in held)
        del engine
        assert [one() for one in held] == [None] * len(held)
    finally:
        gc.enable()


def test_canvases_have_the_recipes_detail_and_pictures_the_networks_size():
    classifier = Classifier(tiny_classifier().network, replace(SPEC, size=(64, 96)), list("abcd"))
    drawn = Engine(classifier, (LAYER,), replace(QUICK, detail=0.5)).draw(jobs_of(LAYER, [0]))
    assert drawn.canvases.shape == (1, 3, 32, 48)
    assert drawn.pictures.shape == (1, 3, 64, 96)
    straight = move(
        drawn.canvases.float(), torch.zeros(1, 4), Movement(0, (1, 1), 0), size=(64, 96)
    )
    difference = straight[..., 1:-1, 1:-1] - drawn.pictures.float()[..., 1:-1, 1:-1]
    assert float(difference.abs().max()) <= 0.51, "what is measured is what was drawn"
