"""Caltech-101 with VGG-16: a head of one's own on a frozen network.

    python examples/03_caltech101.py

The lesson splits Caltech-101 by 50/25/25, looks at the pictures by class and by size, previews its
augmentation, and puts a head (256 units, ReLU, dropout 0.4, log-softmax) on a VGG-16: 135,335,076
parameters, 1,074,532 of them trained, by Adam and early stopping on the negative log-likelihood. It reports
88.65% top-1, 98.00% top-5 and a cross-entropy of 0.3772 on test, and holds the accuracy of each class
against its training pictures.

Here all of that is done with the embedded network, and the figures have intervals. `--data DIR` takes your
pictures, `--original` VGG-16 and Caltech-101. With several GPUs the tuning is started by torchrun:

    torchrun --nproc-per-node 2 -m transferscope tune DATA --out RUN --head mlp --ratio 50/25/25
"""

from __future__ import annotations

from _lesson import Lesson, start

# isort: split

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import transferscope as ts
from transferscope.backbones.catalogue import architecture_of, find_backbone
from transferscope.backbones.heads import put_head
from transferscope.data.demo import CONFUSABLE
from transferscope.evaluation.intervals import wilson_interval
from transferscope.evaluation.metrics import Evaluation
from transferscope.report.figures.answers import write_answer_figure
from transferscope.report.figures.classes import per_class_figure, size_trend_figure
from transferscope.report.figures.data import aspect_figure, class_figure, size_figure
from transferscope.report.figures.training import history_figure
from transferscope.workflows.inspect import previews
from transferscope.workflows.run import files_of

RATIO = (50, 25, 25)
TESTED = 2000  # pictures that a quarter of Caltech-101 is, about

HEAD = {"kind": "mlp", "hidden": 256, "dropout": 0.4}
"""The lesson's head; its log-softmax and NLL are the cross-entropy of these logits."""


def main(told: Lesson) -> None:
    """The pictures, the head, the tuning, the test."""
    parameters, trained = vgg16_parameters(100)
    told.row("parameters of VGG-16 with the head", lesson="135,335,076", ours=f"{parameters:,}")
    told.row("of them trained", lesson="1,074,532", ours=f"{trained:,}")
    source = told.source(
        dataset="caltech101",
        backbone="torchvision/vgg16",
        characters="01OIABCD" if told.fast else "0123456789AEHIKMORSTWX",
        train=12 if told.fast else 48,
        validation=1,
        test=1,
        strips=0,
    )
    generated = told.own is None and not told.original
    if generated:
        source["data"] = unequal_classes(source["data"] / "train")
        told.data += ", classes of unequal size"
    pairs = explored(told, source)
    recipe = {
        "strategy": "partial",
        "head": "mlp",
        "ratio": RATIO,
        "confusable": pairs,
        "patience": 2,
        "flip": not generated,
        "epochs": 1 if told.fast else 6,
        **({"augment": "none", "unfreeze": 2} if generated else {}),
    }
    run = ts.tune(**source, **recipe, out=told.folder / "run")
    told.setting = {**recipe, "ratio": "50/25/25", "confusable": len(pairs)}
    told.figure(
        "history.svg",
        history_figure(run.history),
        "Loss and accuracy by epoch: the start is the head alone on the frozen network, as the lesson has "
        "it; the epoch with the lowest validation loss is kept.",
    )
    for name, score in run.results["candidates"].items():
        what = "head alone, network frozen" if name == "probe" else "head and last stages"
        told.row(f"top-1 on validation, {what}", ours=f"{score['top1']:.1%}")
    files, _ = files_of(run, "test", None)
    answers = ts.predict(run.classifier, files[:: max(1, len(files) // 6)][:6], top=5)
    write_answer_figure(told.folder / "answers.svg", answers)
    told.figure("answers.svg", None, "Test pictures with the five likeliest classes.")
    tested(told, run, pairs)


def vgg16_parameters(classes: int) -> tuple[int, int]:
    """How many parameters VGG-16 with the lesson's head has, and how many of them are trained.

    No weights are needed: the network is built without memory for them.
    """
    with torch.device("meta"):
        network = architecture_of(find_backbone("torchvision/vgg16")).requires_grad_(False)
        put_head(network, "classifier.6", HEAD, classes)
    parameters = list(network.parameters())
    return (
        sum(one.numel() for one in parameters),
        sum(one.numel() for one in parameters if one.requires_grad),
    )


def unequal_classes(folder: Path) -> Path:
    """Leaves every class of generated pictures another share, from a quarter to all, as Caltech-101 has it."""
    names = sorted(path for path in folder.iterdir() if path.is_dir())
    for place, home in enumerate(names):
        pictures = sorted(home.iterdir())
        share = 0.25 + 0.75 * (place * 0.618034 % 1)  # the golden ratio: spread, and in no order
        for file in pictures[max(4, round(share * len(pictures))) :]:
            file.unlink()
    return folder


def explored(told: Lesson, source: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """The set before it is trained on; pairs of its classes that look alike by their nature."""
    given = {name: source[name] for name in ("data", "dataset", "download") if name in source}
    found = ts.inspect(**given, ratio=RATIO)
    told.figure("classes.svg", class_figure(found), "Pictures by class and split, 50/25/25.")
    told.figure("sizes.svg", size_figure(found, side=224), "Widths and heights of the pictures.")
    told.figure("aspects.svg", aspect_figure(found), "Shapes of the pictures by class.")
    flips = told.own is not None or told.original
    sheet = previews(found, ("light",), flip=flips)["light"]
    words = "" if flips else " Characters are not mirrored."
    told.figure(
        "augmentation.webp",
        sheet,
        f"A training picture as prediction sees it, and eleven views of it as training does.{words}",
    )
    classes = found.scan.classes
    pairs = [(a, b) for a, b in itertools.permutations(classes, 2) if b.startswith(f"{a}_")]
    pairs += [pair for pair in CONFUSABLE if set(pair) <= set(classes)]
    return tuple(pairs)


def tested(told: Lesson, run: ts.Run, pairs: Sequence[tuple[str, str]]) -> None:
    """The test figures, by class too, and the classes that look alike."""
    found = run.evaluate("test")
    low, high = wilson_interval(round(0.8865 * TESTED), TESTED)
    told.mistake(
        f"No figure has an interval: of some {TESTED:,} test pictures, 88.65% may be {low:.1%} to {high:.1%}.",
        "The accuracy of a class is held against its training pictures without saying how little of it the "
        "few test pictures of a class can show.",
    )
    other = "another network and other pictures"
    for what, lesson, name in (("top-1", "88.65%", "top1"), ("top-5", "98.00%", "top5")):
        ends = found.intervals[name]
        told.row(
            f"{what} on test",
            lesson=lesson,
            ours=f"{getattr(found, name):.2%} ({ends.low:.1%} to {ends.high:.1%})",
            note=other,
        )
    told.row(
        "cross-entropy on test, nats",
        lesson="0.3772",
        ours=f"{found.nll:.4f} ({found.intervals['nll'].low:.3f} to {found.intervals['nll'].high:.3f})",
        note=f"{other}; with the temperature that validation chose",
    )
    if found.gain is not None:
        gain = found.gain
        told.row(
            "tuned less the frozen network with a linear probe, percentage points",
            ours=f"{100 * gain.difference:.1f} ({100 * gain.interval[0]:.1f} to {100 * gain.interval[1]:.1f})",
            note=f"on the same {gain.n} pictures, p {gain.p:.2g}",
        )
    told.figure("per-class.svg", per_class_figure(found), "Accuracy by class, with 95% intervals.")
    if found.trend is not None:
        told.figure(
            "class-sizes.svg",
            size_trend_figure(found),
            "Accuracy of the classes against their training pictures, with the trend's 95% band.",
        )
    look_alikes(told, found, pairs)


def look_alikes(told: Lesson, found: Evaluation, pairs: Sequence[tuple[str, str]]) -> None:
    """What crocodile and crocodile_head are in the lesson."""
    if not pairs:
        told.finding("No two classes are called as if one were a part of the other.")
        return
    taken = {(one.label, one.prediction): one.n for one in found.confusions}
    mixed = sum(taken.get((a, b), 0) + taken.get((b, a), 0) for a, b in pairs)
    wrong = sum(taken.values())
    named = ", ".join(f"{a} and {b}" for a, b in pairs[:4])
    told.finding(
        f"Of {wrong} wrong answers, {mixed} are between classes that look alike by their nature ({named}), as "
        "crocodile and crocodile_head do in the lesson."
    )
    if found.confusable is not None:
        told.row(
            "top-1 on test, such pairs counted as one class",
            ours=f"{found.confusable:.2%}",
            note="beside the plain figure, never in its place",
        )


if __name__ == "__main__":
    sys.exit(start(main, __file__))
