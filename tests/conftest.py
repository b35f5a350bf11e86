"""What several tests need: a private cache, tiny networks, tiny folders of pictures."""

from __future__ import annotations

import gc
import io
import os

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the command line does, before torch is loaded
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    # They share the cores: with threads for all of them in each, half of a small network's time is waiting.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

from transferscope.backbones.classifier import Classifier
from transferscope.backbones.weights import load_backbone
from transferscope.cli.app import app
from transferscope.files import write_tensors
from transferscope.images import InputSpec

if TYPE_CHECKING:  # whole processes of some tests load this file, and need no more than a network
    from transferscope.report.pages.content import AtlasContent
    from transferscope.training.checkpoints import EpochRow

SPEC = InputSpec((32, 32), 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear", 1.0)


def pytest_collection_finish() -> None:
    """What is imported by now stays: the collector, which would look through all of it, is not to."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory):
    """No test reads or fills the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRANSFERSCOPE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def templates_compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A third of what an atlas without figures takes is its templates, the same in each."""
    import jinja2

    cache = jinja2.FileSystemBytecodeCache(str(tmp_path_factory.mktemp("templates")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja2, "Environment", partial(jinja2.Environment, bytecode_cache=cache))
        yield


def command(*arguments: object) -> Result:
    """What the command line answers, in this process: one of its own would load torch again."""
    return CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)


class Block(nn.Module):
    """A residual block with a shared in-place ReLU, as torchvision's ResNets have it."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x
        return self.relu(out)


class TinyNet(nn.Module):
    """Stem, three residual stages, dropout, head: everything that trips a careless hook."""

    def __init__(self, classes: int = 4, channels: int = 8):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.stages = nn.Sequential(*(Block(channels) for _ in range(3)))
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stages(self.stem(x))
        return self.head(self.dropout(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1)))


def tiny_classifier(seed: int = 0, classes: int = 4) -> Classifier:
    """A seeded `TinyNet` whose BatchNorms have statistics of their own."""
    torch.manual_seed(seed)
    network = TinyNet(classes)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return Classifier(network.eval(), SPEC, [f"class {i}" for i in range(classes)])


def narrow(name: str, classes: int = 10) -> nn.Module:
    """torchvision's network of that name an eighth as wide, without weights: the names of its parts stay,
    and their shares nearly; 100 million parameters do not."""
    from torchvision import models

    if name == "vgg11_bn":
        with torch.device("meta"):  # its own 129 million parameters are never drawn
            network = models.vgg11_bn(num_classes=classes, init_weights=False)
        plan = [8, "M", 16, "M", 32, 32, "M", 64, 64, "M", 64, 64, "M"]
        network.features = models.vgg.make_layers(plan, batch_norm=True)
        for place, (inputs, outputs) in {
            0: (64 * 49, 512),
            3: (512, 512),
            6: (512, classes),
        }.items():
            network.classifier[place] = nn.Linear(inputs, outputs)
        return network
    if name == "vit_b_16":
        return models.VisionTransformer(64, 16, 12, 3, 96, 384, num_classes=classes)
    if name == "mobilenet_v2":
        return models.MobileNetV2(num_classes=classes, width_mult=0.125)
    if name == "resnet18":  # whose widths are fixed: half as deep
        return models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=classes)
    if name == "resnet50":  # bottlenecks a quarter as wide, and a quarter as many
        bottleneck = models.resnet.Bottleneck
        return models.ResNet(bottleneck, [1, 1, 1, 1], num_classes=classes, width_per_group=16)
    if name == "densenet121":
        return models.DenseNet(4, (2, 4, 8, 6), 8, num_classes=classes)  # and a third as deep
    raise ValueError(f"no narrow network {name!r}")


@pytest.fixture
def tiny() -> Classifier:
    return tiny_classifier()


BACKBONE = "timm/test_efficientnet"
"""A real architecture small enough for tests of whole verbs."""


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights of `BACKBONE`."""
    torch.manual_seed(0)
    source = load_backbone(BACKBONE, weights="random")
    file = tmp_path_factory.mktemp("weights") / "w.safetensors"
    write_tensors(file, source.network.state_dict(), {})
    return file


@pytest.fixture
def two_threads() -> Iterator[None]:
    """For what shares its work out among threads, however many a worker has for itself."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@contextmanager
def no_figures() -> Iterator[None]:
    """Within it figures are empty: most of a small tune's time is the drawing of its curves."""
    from matplotlib.figure import Figure

    real = Figure.savefig

    def savefig(self: Figure, file: object, **options: object) -> None:
        if isinstance(file, io.StringIO):
            file.write('<svg viewBox="0 0 1 1"></svg>')
        elif options.get("format") == "png":
            Image.new("RGB", (1, 1)).save(file, "PNG")
        else:
            real(self, file, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", savefig)
        yield


@pytest.fixture
def undrawn(request: pytest.FixtureRequest) -> Iterator[None]:
    """`no_figures` in tests that look at none. What a module's tests share is made before, and so drawn; a
    test marked `drawn` draws too."""
    if request.node.get_closest_marker("drawn"):
        yield
        return
    with no_figures():
        yield


@pytest.fixture(scope="session")
def made_atlas(tmp_path_factory: pytest.TempPathFactory) -> tuple[AtlasContent, Path]:
    """Made-up content with a bit of everything, and the folder of its atlas."""
    import atlas_content  # beside the tests of pages, which ask for it

    from transferscope.report.pages.atlas import write_atlas

    root = tmp_path_factory.mktemp("atlas 猫 #1")
    content = atlas_content.content(root / "pictures")
    return content, write_atlas(content, root / "out").parent


@pytest.fixture(scope="session")
def make_folder() -> Callable[..., Path]:
    """Writes class folders of noisy pictures in a colour of their class."""

    def make(root: Path, classes: dict[str, int], *, side: int = 48, seed: int = 0) -> Path:
        draw = np.random.default_rng(seed)
        for index, (name, count) in enumerate(classes.items()):
            (root / name).mkdir(parents=True, exist_ok=True)
            colour = np.array(
                [(index * 97) % 256, (index * 59 + 80) % 256, (index * 31 + 160) % 256]
            )
            for number in range(count):
                noise = draw.normal(0, 40, (side, side, 3))
                picture = np.clip(colour + noise, 0, 255).astype(np.uint8)
                Image.fromarray(picture).save(root / name / f"{number:03d}.png")
        return root

    return make


class Heard:
    """A `Reporter` that remembers: lines said, (done, total) of every step of any task, epochs."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.progress: list[tuple[int, int]] = []
        self.epochs: list[EpochRow] = []

    @contextmanager
    def task(self, name: str) -> Iterator[Callable[[int, int], None]]:
        yield lambda done, total: self.progress.append((done, total))

    def say(self, text: str) -> None:
        self.lines.append(text)

    def epoch(self, row: EpochRow) -> None:
        self.epochs.append(row)


def gens(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def smooth_pictures(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Pictures with contrast at several frequencies, none nearer to black or white than 0.02."""
    coarse = torch.rand(count, channels, 5, 6, generator=torch.Generator().manual_seed(2))
    return nn.functional.interpolate(coarse, (height, width), mode="bilinear") * 0.96 + 0.02


def state_of(network: nn.Module) -> dict[str, object]:
    """Everything that a call must leave as it was."""
    return {
        "bits": {name: value.clone() for name, value in network.state_dict().items()},
        "modes": [module.training for module in network.modules()],
        "flags": [parameter.requires_grad for parameter in network.parameters()],
        "grads": [parameter.grad for parameter in network.parameters()],
        "hooks": [
            (len(module._forward_hooks), len(module._forward_pre_hooks), "forward" in vars(module))
            for module in network.modules()
        ],
    }


def same_state(before: dict[str, object], after: dict[str, object]) -> bool:
    bits = all(torch.equal(v, after["bits"][k]) for k, v in before["bits"].items())
    return bits and all(before[key] == after[key] for key in ("modes", "flags", "hooks", "grads"))
