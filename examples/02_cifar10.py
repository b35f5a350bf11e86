"""CIFAR-10 with ResNet-18: from scratch, frozen, partly frozen.

    python examples/02_cifar10.py

The lesson trains a ResNet-18 on CIFAR-10 in batches of 512 for two epochs: 72 minutes for all of it, with a
loss of 1.77, and 26 minutes for the head of a frozen one, with 1.11. Its loop divides the loss by `i`
instead of `i + 1`, uses a name that is not defined, and does not normalise the pictures.

Here the same kind of loop, mended, is timed beside features that are computed once and kept; the layers are
listed, every convolution's maps drawn, the set placed on the plane of similarity and size, a photograph
dreamt on, and it is measured whether networks of two tasks share their early features. `--data DIR` takes
your pictures, `--original` ResNet-18 and CIFAR-10.
"""

from __future__ import annotations

from _lesson import Lesson, photographs, start

# isort: split

import copy
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _figures import Triple, depth_figure
from _loops import Course, epochs_until, lesson_loop, uniform_bits
from PIL import Image
from torch import nn

import transferscope as ts
from transferscope.backbones.stages import stages_of
from transferscope.comparison.layer_measures import layer_measures
from transferscope.data.scan import Picture
from transferscope.features.exemplars import channel_responses
from transferscope.features.extraction import POOLED, extract
from transferscope.features.probe import fit_probe
from transferscope.files import write_csv
from transferscope.images import as_float, grid, to_picture
from transferscope.report.figures.advice import plane_figure, stage_figure
from transferscope.workflows.dream import dream_file
from transferscope.workflows.layers import describe_layers
from transferscope.workflows.run import labels_of

EPOCHS = 2
SIDE = 48  # pixels of what the loops see: a batch of 512 then takes about 3 GB
PATIENCE = 400  # epochs that the frozen loop gets to reach the probe's accuracy

MISTAKES = (
    "The running loss is divided by i instead of i + 1: the first batch's is infinite, all are too high.",
    "The training function uses a name that is not defined in it.",
    "The pictures are not normalised as the pretrained weights expect.",
    "The frozen network's 26 minutes are passes through what does not change: its features can be kept.",
)


def main(told: Lesson) -> None:
    """The lesson's questions, one after another."""
    source = told.source(
        dataset="cifar10",
        backbone="torchvision/resnet18",
        characters="0123ABCD" if told.fast else "0123456789ABCDEFGHIJ",
        train=10 if told.fast else 60,
        validation=4 if told.fast else 10,
        test=4 if told.fast else 10,
        strips=0,
    )
    told.mistake(*MISTAKES)
    work = Work.of(told, source)
    told.setting = {
        "batch_size": work.batch_size,
        "epochs": EPOCHS,
        "side": work.side,
        "training_pictures": len(work.train.labels),
        "classes": len(work.classes),
    }
    for classes, lesson in ((2, "1.0"), (5, "2.32"), (10, "3.32"), (3, "1.6")):
        bits = uniform_bits(classes)
        told.row(f"uniform guesses over {classes} classes, bits", lesson=lesson, ours=f"{bits:.2f}")
    loops(told, work)
    layers(told, work)
    dreams(told, work)
    plane(told, source)
    early_features(told, work)


# ---------------------------------------------------------------------------- what is worked on


@dataclass(frozen=True)
class Part:
    """Pictures of one part: uint8 (N, C, H, W), int64 (N,), and their files."""

    pixels: torch.Tensor
    labels: torch.Tensor
    files: list[Any]
    hashes: list[str]


@dataclass(frozen=True)
class Work:
    """The pretrained network, the same at the loops' size, and the pictures."""

    whole: ts.Classifier
    small: ts.Classifier
    random: ts.Classifier
    train: Part
    held_out: Part
    classes: tuple[str, ...]
    side: int
    batch_size: int

    @classmethod
    def of(cls, told: Lesson, source: dict[str, Any]) -> Work:
        """Loads what the options ask for."""
        name = source.get("backbone", "efficientnet_lite0")
        whole = ts.load_backbone(name, download=told.original)
        given = {key: source[key] for key in ("dataset", "download") if key in source}
        split = ts.make_split(ts.scan(source["data"], **given))
        side = 32 if told.fast else SIDE
        small, random = (
            _at(one, side) for one in (whole, ts.load_backbone(name, weights="random"))
        )
        parts = [_part(split, split.part(one), small) for one in ("train", "test")]
        batch = 64 if told.fast else 512
        return cls(whole, small, random, *parts, split.scan.classes, side, batch)

    def started(self, body: ts.Classifier, classes: Sequence[str] | None = None) -> ts.Classifier:
        """A copy of a network with an untrained head for these classes, always the same one."""
        names = self.classes if classes is None else classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            head = nn.Linear(body.head_layer.in_features, len(names))
        return copy.deepcopy(body).with_head(head.weight.detach(), head.bias.detach(), names)


def _at(classifier: ts.Classifier, side: int) -> ts.Classifier:
    """The same network for smaller pictures."""
    spec = replace(classifier.input, size=(side, side))
    return ts.Classifier(classifier.network, spec, classifier.classes, backbone=classifier.backbone)


def _part(split: ts.Split, pictures: Sequence[Picture], classifier: ts.Classifier) -> Part:
    files = [split.scan.file(one) for one in pictures]
    pixels = torch.stack([classifier.input.load(file) for file in files])
    return Part(pixels, labels_of(pictures), files, [one.sha256 for one in pictures])


def recognised(classifier: ts.Classifier, part: Part) -> float:
    """Share of a part that a network recognises."""
    with classifier.inference():
        found = [classifier(as_float(batch)).argmax(1) for batch in part.pixels.split(64)]
    return float((torch.cat(found) == part.labels).float().mean())


# ---------------------------------------------------------------------------- time and loss


def loops(told: Lesson, work: Work) -> None:
    """Time, loss and accuracy of the lesson's kind of loop, and of features that are kept."""
    head, last = work.small.head, stages_of(work.small)[-2:]
    settings = {
        "from scratch, everything trained": (work.random, ("",), "72 min", "1.77"),
        "frozen, the head trained": (work.small, (head,), "26 min", "1.11"),
        "partly frozen, the last two stages trained": (work.small, (*last, head), "", ""),
    }
    courses: dict[str, Course] = {}
    for name, (body, trained, minutes, loss) in settings.items():
        network = work.started(body)
        course = lesson_loop(
            network,
            work.train.pixels,
            work.train.labels,
            trained=trained,
            epochs=EPOCHS,
            batch_size=work.batch_size,
        )
        courses[name] = course
        right = recognised(network, work.held_out)
        told.row(
            f"two epochs {name}: seconds", lesson=minutes, ours=f"{course.seconds:.1f}",
            note=f"{right:.1%} of the test pictures recognised",
        )  # fmt: skip
        told.row(
            f"two epochs {name}: loss, nats", lesson=loss, ours=f"{course.losses[-1]:.2f}",
            note=f"uniform guesses: {uniform_bits(len(work.classes)) * np.log(2):.2f}",
        )  # fmt: skip
    full, frozen, _ = courses.values()
    told.row(
        "time of the frozen loop: of everything trained", lesson=f"{26 / 72:.2f}",
        ours=f"{frozen.seconds / full.seconds:.2f}",
    )  # fmt: skip
    _kept_features(told, work, full, frozen)


def _kept_features(told: Lesson, work: Work, full: Course, frozen: Course) -> None:
    """The frozen network's features, computed once, and the head that is best for them."""
    with empty_cache():
        began = time.perf_counter()
        features = _features(work.small, work.train)
        probe = fit_probe(features, work.train.labels, len(work.classes), held_out=False)
        seconds = time.perf_counter() - began
        held = _features(work.small, work.held_out)
        plain = replace(work.small.input, mean=(0.0,) * 3, std=(1.0,) * 3)
        other = ts.Classifier(
            work.small.network, plain, work.small.classes, backbone=work.small.backbone
        )
        unnormalised, tested = _features(other, work.train), _features(other, work.held_out)
    right = _share(probe.logits(held), work.held_out.labels)
    told.row(
        "features kept, head fitted exactly: seconds", ours=f"{seconds:.1f}",
        note=f"decoding included; {right:.1%} of the test pictures recognised",
    )  # fmt: skip
    start_head = copy.deepcopy(work.started(work.small).head_layer)
    pairs = (features, work.train.labels), (held, work.held_out.labels)
    epochs = epochs_until(right, start_head, *pairs, batch_size=work.batch_size, most=PATIENCE)
    an_epoch = frozen.seconds / EPOCHS
    took = an_epoch * (epochs or PATIENCE)
    bound = "" if epochs else "more than "
    told.row(
        "frozen loop to the same accuracy: seconds", ours=f"{bound}{took:.0f}",
        note=f"{bound}{epochs or PATIENCE} epochs of {an_epoch:.1f} s each, as timed above",
    )  # fmt: skip
    told.row(
        "time of kept features: of the frozen loop, at equal accuracy",
        ours=f"{'less than ' if not epochs else ''}{seconds / took:.3f}",
    )
    told.row(
        "time of kept features: of two epochs of everything", ours=f"{seconds / full.seconds:.3f}"
    )
    worse = fit_probe(unnormalised, work.train.labels, len(work.classes), held_out=False)
    told.row(
        "the same without normalising, test pictures recognised",
        ours=f"{_share(worse.logits(tested), work.held_out.labels):.1%}",
        note=f"normalised: {right:.1%}",
    )


def _features(classifier: ts.Classifier, part: Part) -> torch.Tensor:
    found = extract(classifier, part.files, part.hashes, precision="fp32", batch_size=64)
    return found.targets[POOLED]


def _share(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float((logits.argmax(1) == labels).float().mean())


@contextmanager
def empty_cache() -> Iterator[None]:
    """Nothing that an earlier call kept is found, so that times are those of the first one."""
    name = "TRANSFERSCOPE_CACHE"
    before = os.environ.get(name)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before


# ---------------------------------------------------------------------------- the network's layers


def layers(told: Lesson, work: Work) -> None:
    """The table of layers, and what every convolution makes of a photograph."""
    found = describe_layers(work.whole)
    rows = [
        (row.name, row.type, "x".join(map(str, row.output_shape)), row.parameters)
        for row in found.layers
    ]
    write_csv(told.folder / "layers.csv", ("layer", "type", "output", "parameters"), rows)
    resnet = ts.load_backbone("torchvision/resnet18", weights="random")
    ten = work.started(resnet, [str(number) for number in range(10)])
    told.row(
        "parameters of ResNet-18 with ten classes",
        ours=f"{sum(p.numel() for p in ten.network.parameters()):,}",
        note=f"of them in the head: {sum(p.numel() for p in ten.head_layer.parameters()):,}",
    )
    told.row(f"layers of {work.whole.backbone}", ours=f"{len(rows)}", note="layers.csv lists them")
    photo = photographs()["a flower"]
    only = [row.name for row in found.layers if row.type == "Conv2d"][:2] if told.fast else None
    sheets = ts.activation_sheets(work.whole, photo, out=told.folder / "activations", layers=only)
    for sheet in [sheets[at] for at in sorted({0, len(sheets) // 2, len(sheets) - 1})]:
        page = sheet.pages[0]
        told.figure(
            f"activations/{Path(page).name}",
            None,
            f"What {sheet.layer} makes of a photograph: {sheet.channels} maps. "
            "activations/index.html has every convolution's.",
            data="a photograph that scikit-learn ships",
        )


def dreams(told: Lesson, work: Work) -> None:
    """DeepDream on a photograph."""
    stages = stages_of(work.whole)
    layer, file = stages[len(stages) // 2], told.folder / "dream.webp"
    recipe = ts.DreamRecipe(octaves=1, steps=2) if told.fast else None
    photo = photographs()["a temple"]
    made = dream_file(
        work.whole, photo, layer, out=file, recipe=recipe, size=200 if told.fast else 480
    )
    told.figure(
        "dream.webp",
        None,
        f"A photograph changed towards what {layer} sees in it: its energy rose from "
        f"{made['activation_before']:.2f} to {made['activation_after']:.2f}.",
        data="a photograph that scikit-learn ships",
    )


def plane(told: Lesson, source: dict[str, Any]) -> None:
    """Similarity and size of the set, measured; the probe of every stage."""
    given = {**source}
    backbone = given.pop("backbone", "efficientnet_lite0")
    advice = ts.advise(**given, backbones=backbone, pictures=48 if told.fast else 400)
    told.figure("plane.svg", plane_figure(advice), "The set on the lesson's plane, measured.")
    told.figure("stages.svg", stage_figure(advice), "What a linear probe of each stage recognises.")
    one = advice.backbones[0]
    told.finding(
        f"On the plane the set stands at a similarity of {one.similarity:.2f} and {advice.per_class:.0f} "
        f"training pictures a class; {one.strategy} is recommended."
    )


# ---------------------------------------------------------------------------- early features


def early_features(told: Lesson, work: Work) -> None:
    """The first half of the classes is one task, the second another: the first kernels, and CKA by depth."""
    half = len(work.classes) // 2
    responses: dict[str, list[dict[str, torch.Tensor]]] = {}
    kernels: dict[str, torch.Tensor] = {"pretrained": first_kernels(work.small)}
    places = stages_of(work.small)
    other = _at(ts.load_backbone(work.whole.backbone, weights="random", seed=1), work.side)
    bodies = {
        "tuned from the same weights": (work.small, work.small),
        "trained from scratch": (work.random, other),
        "untrained, the control": (work.random, other),
    }
    files = work.held_out.files[:: 1 if told.fast else 2]
    labels = work.held_out.labels[:: 1 if told.fast else 2]
    for name, pair in bodies.items():
        responses[name] = []
        for task, body in enumerate(pair):
            network = work.started(body, work.classes[task * half : (task + 1) * half])
            if not name.startswith("untrained"):
                mine = work.train.labels // half == task
                lesson_loop(
                    network,
                    work.train.pixels[mine],
                    work.train.labels[mine] - task * half,
                    trained=("",),
                    epochs=1 if told.fast else EPOCHS,
                    batch_size=min(128, work.batch_size),
                    seed=task,
                )
                kernels[f"{name}, task {task + 1}"] = first_kernels(network)
            responses[name].append(channel_responses(network, files, places, batch_size=64))
    series = {name: [_cka(*pair, at, labels) for at in places] for name, pair in responses.items()}
    sentence = _shared_early(series)
    told.finding(sentence)
    lines = [f"{told.network}, at {work.side} px; {told.data}.", sentence]
    label = "CKA of two networks of two tasks"
    told.figure(
        "early.svg",
        depth_figure(places, series, label=label, lines=lines),
        "How alike two networks of two tasks are, by depth (debiased CKA, 95% intervals).",
    )
    told.figure(
        "kernels.png",
        kernel_sheet(list(kernels.values())),
        f"The first convolution's kernels, a row each: {'; '.join(kernels)}.",
    )
    before, first, second, *_ = kernels.values()
    told.row(
        "change of the first kernels by tuning for two tasks",
        ours=f"{_distance(before, first):.1%} and {_distance(before, second):.1%}",
        note=f"of their norm; between the two: {_distance(first, second):.1%}",
    )


def first_kernels(classifier: ts.Classifier) -> torch.Tensor:
    """Weights (O, I, h, w) of the first convolution."""
    found = next(m for m in classifier.network.modules() if isinstance(m, nn.Conv2d))
    return found.weight.detach().clone()


def kernel_sheet(several: Sequence[torch.Tensor]) -> Image.Image:
    """A row of colour pictures a network, each kernel from its own least value to its largest."""
    tiles = []
    for kernels in several:
        for kernel in kernels:
            shown = (kernel - kernel.min()) / (kernel.max() - kernel.min() + 1e-12)
            picture = to_picture(shown.expand(3, -1, -1))
            tiles.append(picture.resize((28, 28), Image.Resampling.NEAREST))
    return grid(tiles, columns=len(several[0]), gap=3)


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / one.norm())


def _cka(
    one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], layer: str, labels: torch.Tensor
) -> Triple:
    found = layer_measures(
        one[layer].double().numpy(), other[layer].double().numpy(), labels.numpy()
    ).cka
    return found.value, found.low, found.high


def _shared_early(series: dict[str, list[Triple]]) -> str:
    """What CKA says of the first and the last depth, and what it cannot say."""
    tuned, scratch, control = series.values()
    ends = (
        f"Tuned from the same weights, networks of two tasks have a CKA of {tuned[0][0]:.2f} at the first "
        f"depth and {tuned[-1][0]:.2f} at the last"
    )
    first = f"{scratch[0][0]:.2f}, and untrained ones {control[0][0]:.2f}"
    if scratch[0][1] > control[0][2]:
        told = f"from scratch they reach {first}: they come to share early features"
    elif scratch[0][2] < control[0][1]:
        told = f"from scratch they reach {first}: training took them apart, and shared is what both began with"
    else:
        told = (
            f"from scratch they reach {first}: what they share at the first depth could not be told from "
            "what untrained networks share, so it is no proof of having learned the same"
        )
    return f"{ends}; {told}."


if __name__ == "__main__":
    sys.exit(start(main, __file__))
