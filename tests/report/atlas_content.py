"""Content for an atlas, made up: tiny pictures, two compared layers and a frozen one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import inspection_content
from transferscope.comparison.records import (
    ChannelComparison,
    Comparison,
    Exemplar,
    LayerComparison,
)
from transferscope.evaluation.calibration import Bin, Calibration
from transferscope.evaluation.class_size import SizeTrend
from transferscope.evaluation.intervals import Interval, wilson_interval
from transferscope.evaluation.metrics import ClassResult, Confusion, Evaluation
from transferscope.evaluation.mistakes import ErrorStudy, error_study
from transferscope.evaluation.paired import Disagreement, PairedDifference
from transferscope.evaluation.predictions import Predictions
from transferscope.evaluation.selective import Abstention, Operating
from transferscope.evaluation.tta import ViewsGain
from transferscope.report.model_card import ModelCard
from transferscope.report.pages.content import AtlasContent
from transferscope.visualize.records import Render, Status

NASTY = "<b>猫 & \"狗\"</b> $x^2$ '_'"
CLASSES = ("foxglove", NASTY, "Löwenzahn", "0")
SEEDS = (0, 1)


def picture(seed: int, side: int = 32) -> np.ndarray:
    """Smooth coloured noise, uint8 (side, side, 3)."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))


def write_pictures(root: Path, count: int = 12) -> tuple[str, ...]:
    """PNG files under `root`, named by number; returns their relative paths."""
    root.mkdir(parents=True, exist_ok=True)
    names = tuple(f"class {index % 3}/片 {index} #%.png" for index in range(count))
    for index, name in enumerate(names):
        (root / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture(1000 + index, 40)).save(root / name)
    return names


def channel(
    layer: str,
    index: int,
    paths: tuple[str, ...],
    *,
    sign: str = "plus",
    changed: bool = False,
    identical: bool = False,
    status: Status = "optimized",
) -> ChannelComparison:
    """One channel whose figures follow from its index."""
    similarity = 1.0 if identical else 0.72 - 0.03 * index - 0.2 * changed
    best = tuple(
        Exemplar(path=paths[(index + step) % len(paths)], activation=4.5 - 0.3 * step)
        for step in range(4)
    )
    return ChannelComparison(
        layer=layer,
        channel=index,
        sign=sign,
        similarity=similarity,
        similarities={"pixels": similarity - 0.1, "activations": similarity + 0.05},
        rerender={"base": 0.8, "tuned": 0.78},
        chance=0.35,
        statistic=0.0 if identical else 0.79 - similarity,
        p=1.0 if identical else 0.0004 if changed else 0.4,
        q=1.0 if identical else 0.003 if changed else 0.6,
        changed=changed,
        identical=identical,
        statuses={"base": "optimized", "tuned": status},
        activation={"base": 6.1, "tuned": 5.2 + index},
        exemplar_max={"base": 4.5, "tuned": None if index == 1 else 4.8},
        exemplars={"base": best, "tuned": best[1:]},
        shared_top20=1.0 if identical else 0.45,
    )


def comparison(paths: tuple[str, ...]) -> Comparison:
    """A frozen layer, a changed one and one whose two directions were compared."""
    rng = np.random.default_rng(5)
    null = tuple(float(value) for value in rng.normal(0, 0.05, 60))
    chance = tuple(float(value) for value in rng.normal(0.35, 0.08, 50))
    frozen = tuple(channel("blocks.2.1", index, paths, identical=True) for index in range(2))
    changed = tuple(
        channel("blocks.4.2", index, paths, changed=index % 2 == 1, status="below_exemplar")
        for index in range(6)
    )
    signed = tuple(
        channel("head <conv>", index, paths, sign=sign, changed=sign == "minus")
        for index in range(3)
        for sign in ("plus", "minus")
    )
    return Comparison(
        layers=(
            LayerComparison("blocks.2.1", frozen, 40, True, 1.0, 1.0, 0.3, 0, (), (), 1.0),
            LayerComparison(
                "blocks.4.2", changed, 80, False, 0.6, 0.79, 0.35, 50, chance, null, 0.9
            ),
            LayerComparison(
                "head <conv>", signed, 3, False, 0.5, 0.79, 0.35, 50, chance, null, 0.7
            ),
        ),
        fdr=0.05,
        seeds=SEEDS,
        pictures=12,
        steps=16,
        size=32,
    )


def renders(record: Comparison) -> dict[tuple[str, str, int, str, int], Render]:
    """A render for every channel, network and seed; of identical layers the base network's alone."""
    made: dict[tuple[str, str, int, str, int], Render] = {}
    for depth, layer in enumerate(record.layers):
        for unit in layer.channels:
            for number, network in enumerate(("base", "tuned")):
                if layer.identical and network == "tuned":
                    continue
                for seed in record.seeds:
                    key = (network, unit.layer, unit.channel, unit.sign, seed)
                    made[key] = Render(
                        layer=unit.layer,
                        channel=unit.channel,
                        sign="plus" if unit.sign == "plus" else "minus",
                        seed=seed,
                        picture=picture(
                            ((depth * 100 + unit.channel) * 2 + number) * 2 + seed, record.size
                        ),
                        activation=unit.activation[network],
                        exemplar_max=unit.exemplar_max[network],
                        status="optimized",
                        steps=record.steps,
                    )
    return made


def predictions(paths: tuple[str, ...]) -> Predictions:
    """Labels in turn; every fourth picture is taken for the next class."""
    labels = torch.arange(len(paths)) % len(CLASSES)
    guesses = torch.where(torch.arange(len(paths)) % 4 == 1, (labels + 1) % len(CLASSES), labels)
    logits = torch.nn.functional.one_hot(guesses, len(CLASSES)).to(torch.float32) * 3
    return Predictions(paths=paths, labels=labels, logits=logits, classes=CLASSES)


def calibration() -> Calibration:
    """Three bins, a little too sure; the error is inside the band."""
    bins = tuple(
        Bin(low, low + 1 / 15, n, low + 0.04, share, wilson_interval(round(share * n), n))
        for low, n, share in ((0.4, 3, 1 / 3), (0.6, 4, 0.5), (14 / 15, 5, 0.8))
    )
    return Calibration(1.31, 0.031, 0.084, 0.42, 0.61, (0.012, 0.055), bins)


def abstention(*, operating: bool = True) -> Abstention:
    """Eleven points from all right to eight in ten, with two thresholds chosen on validation."""
    coverage = tuple((1 + step) / 12 for step in range(12))
    return Abstention(
        coverage=coverage,
        accuracy=tuple(1.0 if share < 0.6 else 1.2 - 0.4 * share for share in coverage),
        confidence=tuple(0.99 - 0.5 * share for share in coverage),
        area=0.043,
        operating=(
            (Operating(0.9, 0.612, 0.83, 0.91), Operating(0.99, 0.9713, 0.42, 1.0))
            if operating
            else ()
        ),
    )


def trend() -> SizeTrend:
    """From four training pictures to nine."""
    sizes = (4.0, 6.0, 9.0)
    return SizeTrend(1.4, (0.9, 2.2), sizes, (0.7, 0.75, 0.8), (0.6, 0.7, 0.72), (0.8, 0.82, 0.9))


def against(paths: tuple[str, ...]) -> PairedDifference:
    """Two pictures of which another run says something else."""
    return PairedDifference(
        first="photos",
        second=NASTY,
        n=12,
        left_out=1,
        top1=0.8,
        second_top1=0.7,
        difference=0.1,
        interval=(-0.05, 0.25),
        only_first=2,
        only_second=1,
        p=0.6250,
        nll_difference=-0.03,
        nll_interval=(-0.08, 0.01),
        disagreements=(
            Disagreement(paths[2], CLASSES[2], CLASSES[2], 0.71, NASTY, 0.52),
            Disagreement(paths[5], CLASSES[1], CLASSES[2], 0.66, NASTY, 0.81),
        ),
    )


def evaluation(top1: float) -> Evaluation:
    """Figures around `top1`."""
    interval = (top1 - 0.12, top1 + 0.1)
    per_class = {
        name: ClassResult(
            n=3,
            accuracy=max(0.0, top1 - 0.1 * index),
            interval=(max(0.0, top1 - 0.1 * index - 0.3), min(1.0, top1 - 0.1 * index + 0.2)),
            precision=None if index == 3 else 0.75,
            f1=0.7,
            training=4 + index,
        )
        for index, name in enumerate(CLASSES)
    }
    return Evaluation(
        split="test",
        n=12,
        top1=top1,
        top1_interval=interval,
        top5=1.0,
        mean_per_class=top1,
        macro_f1=top1 - 0.02,
        ece=0.031,
        nll=0.42,
        intervals={
            "top1": Interval(*interval, "Wilson"),
            "top5": Interval(0.76, 1.0, "Wilson"),
            "mean_per_class": Interval(*interval, "bootstrap within classes"),
            "macro_f1": Interval(*interval, "bootstrap within classes"),
            "nll": Interval(0.33, 0.55, "bootstrap"),
        },
        per_class=per_class,
        confusions=(Confusion(label=NASTY, prediction="Löwenzahn", n=3),),
        calibration=calibration(),
        abstention=abstention(),
        trend=trend(),
        confusable=0.95,
        views=ViewsGain(4, True, top1 + 0.01, 0.40, 0.01, (-0.01, 0.03), 3.9),
    )


def study(paths: tuple[str, ...]) -> ErrorStudy:
    """Of the predictions, and of training pictures, which are the same files in another order."""
    held_out = predictions(paths[::-1])
    made = error_study(predictions(paths), split="test", out_of_fold=held_out)
    return dataclasses.replace(made, probable=2)


def card() -> ModelCard:
    """A card with names that no format may take for its own."""
    return ModelCard(
        name=f"Flowers: {NASTY} | 1. *x*",
        backbone="efficientnet_lite0",
        classes=CLASSES,
        data="flowers\n---\nlicense: mit",
        counts={
            "train": dict.fromkeys(CLASSES, 6),
            "validation": dict.fromkeys(CLASSES, 2),
            "test": dict.fromkeys(CLASSES, 3),
        },
        split="Drawn at random within each class, 70/15/15, seed 0.",
        excluded=1,
        copies=0,
        training={"Strategy": "partial", "Seed": "0"},
        evaluation=evaluation(0.8),
        evaluation_base=evaluation(0.7),
        weights_licence="Apache-2.0",
        base_model="timm/tf_efficientnet_lite0.in1k",
        preprocessing="Decode, resize to 224, divide by 255.",
        temperature=1.31,
        library="timm",
        environment={"torch": "2.14.1"},
    )


def history() -> list[dict[str, str]]:
    """Four epochs, the third the best."""
    return [
        {
            "epoch": str(epoch),
            "train_loss": f"{2 / (epoch + 1):.4f}",
            "train_top1": f"{0.5 + 0.1 * epoch:.4f}",
            "validation_loss": f"{2.2 / (epoch + 1):.4f}",
            "validation_top1": f"{0.6 + 0.05 * min(epoch, 2):.4f}",
            "learning_rate": "0.003",
            "seconds": "1.5",
            "best": "1" if epoch == 2 else "0",
        }
        for epoch in range(4)
    ]


def content(root: Path, *, facts: dict[str, str] | None = None) -> AtlasContent:
    """All of it; the pictures are written under `root`, those that were inspected beside it."""
    paths = write_pictures(root)
    inspected = root.with_name(root.name + "-inspected")
    record = comparison(paths)
    return AtlasContent(
        title=f"Flowers, {NASTY}",
        facts=facts or {"Backbone": "efficientnet_lite0", "Strategy": "partial", "Seed": "0"},
        classes=CLASSES,
        counts={
            "train": dict.fromkeys(CLASSES, 6),
            "validation": dict.fromkeys(CLASSES, 2),
            "test": dict.fromkeys(CLASSES, 3),
        },
        validation_before=0.71,
        validation_after=0.83,
        evaluation=dataclasses.replace(
            evaluation(0.8),
            gain=dataclasses.replace(against(paths), first="tuned", second="base"),
            against=against(paths),
        ),
        evaluation_base=evaluation(0.7),
        predictions=predictions(paths),
        history=history(),
        comparison=record,
        renders=renders(record),
        data_root=root,
        strips={"n": 60, "right": 41, "share": 41 / 60},
        inspection=inspection_content.inspection(inspected),
        study=study(paths),
        card=card(),
    )
