"""Content for an atlas, made up: tiny pictures, two layers that differ and a frozen one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pictures_content
import robustness_content
import strangers_content
import torch
from PIL import Image

import inspection_content
from transferscope.comparison.change import Witnessed
from transferscope.comparison.depth_trend import DepthTrend
from transferscope.comparison.drawings import DrawingTest, PooledDrawingTest
from transferscope.comparison.effects import Effect
from transferscope.comparison.interpretability import Interpretability
from transferscope.comparison.layer_measures import Estimate, LayerMeasures
from transferscope.comparison.neighbours import Neighbour, UnitNeighbours
from transferscope.comparison.patching import ChannelEffect, ClassEffects, Patching
from transferscope.comparison.picture_map import PictureMap
from transferscope.comparison.records import (
    ChannelDrawings,
    Comparison,
    Exemplar,
    LayerComparison,
    Quartiles,
)
from transferscope.comparison.rewinding import Flips, Rewinding, StageRewound
from transferscope.comparison.timeline import LayerTimeline, LearningTime
from transferscope.comparison.unit_exemplars import UnitExemplars
from transferscope.comparison.weight_change import WeightChange
from transferscope.evaluation.calibration import Bin, Calibration
from transferscope.evaluation.class_size import SizeTrend
from transferscope.evaluation.gap import (
    ClassGap,
    Familiarity,
    LookalikeCause,
    ToldApart,
    ValidationGap,
)
from transferscope.evaluation.groups import GroupStudy, accuracy_by_group
from transferscope.evaluation.intervals import Interval, wilson_interval
from transferscope.evaluation.metrics import ClassResult, Confusion, Evaluation
from transferscope.evaluation.mistakes import ErrorStudy, error_study
from transferscope.evaluation.paired import Disagreement, PairedDifference
from transferscope.evaluation.predictions import Predictions
from transferscope.evaluation.selective import Abstention, Operating
from transferscope.evaluation.tta import ViewsGain
from transferscope.explain.checks import Check, MethodVerdict
from transferscope.explain.records import (
    CHECK_TITLES,
    DecidingChannels,
    Explanation,
    MapChange,
    NetworkMap,
    Verdicts,
)
from transferscope.explain.shortcut_records import Candidate, Correction, Shortcuts, Standing
from transferscope.explain.transplants import Shift
from transferscope.features.exemplar_crops import ExemplarCrop
from transferscope.images import InputSpec
from transferscope.report.model_card import ModelCard
from transferscope.report.pages.content import AtlasContent, KeptExplanation
from transferscope.visualize.records import Render, Status

NASTY = "<b>猫 & \"狗\"</b> $x^2$ '_'"
CLASSES = ("foxglove", NASTY, "Löwenzahn", "0")
SEEDS = (0, 1)
LOOKED_AT = 4
"""The channel whose exemplars have outlines, and which has neighbours."""
REASONS = ("least learned", "most learned", "at random", "most mattering")


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


def rows(layer: str, channels: int, *, drawn: tuple[int, ...], seed: int) -> tuple[Witnessed, ...]:
    """All witnesses of a layer; the odd channels learned, and every third of them matters."""
    rng = np.random.default_rng(seed)
    made: list[Witnessed] = []

    def say(channel: int, witness: str, value: float, null: float, q: float, half: float) -> None:
        ends = (value - half, value + half)
        made.append(Witnessed(layer, channel, witness, value, *ends, null, q / 2, q))

    for channel in range(channels):
        learned = channel % 2 == 1
        gain = (0.3 + 0.01 * channel if learned else 0.01) + float(rng.normal(0, 0.01))
        null = -0.02 + float(rng.normal(0, 0.01))
        say(channel, "response_change", 0.2 + 0.01 * channel, 0.01, 0.0004, 0.05)
        say(channel, "class_information", gain, null, 0.003 if learned else 0.6, 0.06)
        say(channel, "mutual_information", gain / 2, null / 2, 0.04 if learned else 0.7, 0.05)
        say(channel, "best_class_auc", gain / 4, null, 0.2, 0.1)
        say(channel, "exemplar_turnover", 0.5, 0.45, 0.3, 0.2)
        say(
            channel,
            "patching",
            0.002 * channel - 0.003,
            0.0,
            0.01 if channel % 3 == 2 else 0.5,
            0.002,
        )
    for channel in drawn:
        say(channel, "drawings", 0.1 * channel - 0.05, 0.0, 0.03 if channel == 3 else 0.4, 0.08)
    return tuple(made)


def channel(
    layer: str,
    index: int,
    paths: tuple[str, ...],
    *,
    sign: str = "plus",
    status: Status = "optimized",
) -> ChannelDrawings:
    """Drawings of one channel, whose figures follow from its index."""
    best = tuple(
        Exemplar(path=paths[(index + step) % len(paths)], activation=4.5 - 0.3 * step)
        for step in range(4)
    )
    looked = index == LOOKED_AT and sign == "plus"
    return ChannelDrawings(
        layer=layer,
        channel=index,
        sign=sign,
        crops=crops(layer, index, paths) if looked else None,
        neighbours=neighbours(index) if looked else None,
        reason=REASONS[index % len(REASONS)],
        seeds=SEEDS,
        statuses={"base": ("optimized",) * len(SEEDS), "tuned": (status, "optimized")},
        activation={"base": 6.1, "tuned": 5.2 + index},
        exemplar_max={"base": 4.5, "tuned": None if index == 1 else 4.8},
        exemplars={"base": best, "tuned": best[1:]},
        shared_top20=0.45,
        test=drawing_test(layer, index),
        interpretability={
            network: (
                Interpretability("exemplars", 0.83, 0.7, 0.91, 30),
                Interpretability("drawings", None, None, None, 0),
            )
            for network in ("base", "tuned")
        },
    )


def crops(layer: str, index: int, paths: tuple[str, ...]) -> UnitExemplars:
    """One exemplar whose strongest place looks at a quarter of it, and one where it looks at all of it."""
    triangle = ((0.25, 0.25), (0.75, 0.25), (0.5, 0.75), (0.25, 0.25))
    several = (
        ExemplarCrop(paths[2], 3.5, 9.0, (0.5, 0.25, 1.0, 0.75), "receptive field", (triangle,)),
        ExemplarCrop(paths[4], 2.5, 8.0, (0.0, 0.0, 1.0, 1.0), "picture", ()),
    )
    of = {"base": several, "tuned": several[::-1]}
    by_part = {"held_out": of, "training": of}
    shares = (dict.fromkeys(by_part, share) for share in (0.35, 0.05))
    return UnitExemplars(layer, index, "plus", by_part, *shares)


def neighbours(index: int) -> UnitNeighbours:
    """Two units that answer alike, of which one answers no more alike than unrelated ones do."""
    two = (Neighbour(1, 0.83), Neighbour(20, 0.11))
    return UnitNeighbours(index, two, two, (Neighbour(index, 0.91),), 0.91, 1, 0.2)


def picture_map() -> PictureMap:
    """Of ten of the twelve pictures."""
    points = tuple((float(place % 4), float(place // 4)) for place in range(10))
    labels = tuple(place % len(CLASSES) for place in range(10))
    trust = {"base": 0.9, "tuned": 0.8}
    return PictureMap(tuple(range(10)), labels, points, points[::-1], "PCA", trust, 4, 0.25)


def drawing_test(layer: str, index: int) -> DrawingTest:
    """Of two seeds; channel 3 is found to look different."""
    found = index == 3
    return DrawingTest(
        layer=layer,
        channel=index,
        seeds=2,
        usable=2,
        u=0.1 * index - 0.05,
        low=None,
        high=None,
        p=0.015 if found else 0.2,
        q=0.03 if found else 0.4,
        smallest_p=0.01,
        spread=0.4,
        detectable=0.31,
        similarity=0.72 - 0.03 * index,
        rerender={"base": 0.81, "tuned": 0.78 - 0.01 * index},
        gram=0.6,
        gram_rerender={"base": 0.2, "tuned": 0.3},
        reason="",
    )


def effect(loss: float) -> Effect:
    """An effect around a rise of the loss."""
    return Effect(loss, loss - 0.002, loss + 0.002, 0.01, -0.02, -0.05, 0.01)


def patching(known: tuple[Witnessed, ...]) -> Patching:
    """Channels below 12 were patched, and serve a class; of the others there is an estimate."""
    channels = tuple(
        ChannelEffect(
            layer=row.layer,
            channel=row.channel,
            exact=row.channel < 12,
            estimate=row.value,
            set_back=effect(row.value) if row.channel < 12 else None,
            q=row.q,
            classes=ClassEffects((0.0,) * 4, (0.0,) * 4, (0.0,) * 4, (1,), 0.01, 0.02)
            if row.channel < 12
            else None,
            brought=None,
            ablated=None,
        )
        for row in known
        if row.witness == "patching"
    )
    return Patching(channels, 12, {"blocks.4.2": 0.9, "head <conv>": None})


def rewinding() -> Rewinding:
    """Two pictures lost, of which one stage gives one back."""
    stages = (
        StageRewound("blocks.2", True, effect(0.0), (), ()),
        StageRewound("blocks.4", False, effect(0.12), (5,), (1, 2)),
    )
    return Rewinding(stages, effect(-0.3), Flips((0, 1, 2), (4, 5), 6, 1), 12)


def layer_measures() -> LayerMeasures:
    """Of a layer that three controls were made for."""
    return LayerMeasures(
        pictures=12,
        channels=(24, 24),
        cka=Estimate(0.9, 0.8, 0.95),
        procrustes=Estimate(0.3, 0.2, 0.4),
        unrelated=1.6,
        separation_base=Estimate(0.31, 0.25, 0.36),
        separation_tuned=Estimate(0.52, 0.45, 0.6),
        separation_gain=Estimate(0.21, 0.15, 0.27),
        control_gains=(0.01, -0.02, 0.0),
        p=0.01,
    )


def comparison(paths: tuple[str, ...]) -> Comparison:
    """A frozen layer, one of 24 channels of which half learned, and one with a name that no page may trust."""
    names = ("blocks.4.2", "head <conv>")
    drawn = {
        names[0]: tuple(
            channel(names[0], index, paths, status="below_exemplar" if index == 3 else "optimized")
            for index in range(6)
        ),
        names[1]: tuple(
            channel(names[1], index, paths, sign=sign)
            for index in range(3)
            for sign in ("plus", "minus")
        ),
    }
    known = {
        "base": Quartiles(0.21, 0.34, 0.44),
        "tuned": Quartiles(0.38, 0.61, 0.78),
        "controls": Quartiles(0.17, 0.3, 0.4),
        "retunings": Quartiles(0.37, 0.6, 0.77),
    }
    every = (
        *rows(names[0], 24, drawn=tuple(range(6)), seed=5),
        *rows(names[1], 3, drawn=tuple(range(3)), seed=6),
    )
    return Comparison(
        pair=("base", "tuned"),
        split="test",
        pictures=12,
        classes=len(CLASSES),
        layers=(
            LayerComparison("blocks.2.1", 40, True, {}),
            LayerComparison(
                names[0],
                24,
                False,
                known,
                layer_measures(),
                WeightChange(names[0], 0.12, (), None),
                PooledDrawingTest(names[0], 6, 6, 0.3, 0.2, 0.01, 0.5, ""),
                chance=0.35,
            ),
            LayerComparison(names[1], 3, False, known, chance=0.3),
        ),
        rows=every,
        drawings=(*drawn[names[0]], *drawn[names[1]]),
        controls=3,
        false_in_controls=(1, 0, 0),
        retunings=1,
        reproduced=(11,),
        patching=patching(every),
        rewinding=rewinding(),
        paths=paths,
        timeline=(
            LayerTimeline(
                names[0],
                (1, 3),
                (0.3, 0.3),
                ((0.4, 0.3), (0.6, 0.3)),
                (LearningTime(3, 1, None), None),
            ),
        ),
        trends={
            "class_information": DepthTrend(names, (24, 3), (0.2, 0.1), 0.4, 0.1, 0.6, 0.004, ()),
            "drawings": DepthTrend(names, (6, 6), (0.65, 0.7), 0.1, -0.3, 0.5, 0.6, ()),
        },
        map=picture_map(),
        judge="The judge is another network.",
        seeds=SEEDS,
        steps=16,
        size=32,
    )


def nothing_learned(record: Comparison) -> Comparison:
    """The same, with gains that the controls reach too."""
    quiet = tuple(
        dataclasses.replace(row, value=0.02, low=-0.05, high=0.09, p=0.4, q=0.8)
        if row.witness == "class_information"
        else row
        for row in record.rows
    )
    return dataclasses.replace(record, rows=quiet, reproduced=(), retunings=0)


def undrawn(record: Comparison) -> Comparison:
    """The same with `--draw 0`."""
    left = tuple(row for row in record.rows if row.witness != "drawings")
    return dataclasses.replace(record, drawings=(), rows=left, seeds=(), steps=0, size=0)


def uncontrolled(record: Comparison) -> Comparison:
    """The same with `--controls 0`: gains are held against base alone."""
    bare = tuple(
        row if row.witness == "response_change" else dataclasses.replace(row, null=0.0)
        for row in record.rows
    )
    layers = tuple(
        dataclasses.replace(
            layer, information={k: v for k, v in layer.information.items() if k != "controls"}
        )
        for layer in record.layers
    )
    return dataclasses.replace(
        record, rows=bare, layers=layers, controls=0, false_in_controls=(), reproduced=()
    )


def one_seed(record: Comparison) -> Comparison:
    """The same with `--seeds 1`: there is nothing to hold two drawings against."""
    drawings = tuple(
        dataclasses.replace(
            one,
            seeds=one.seeds[:1],
            statuses={network: several[:1] for network, several in one.statuses.items()},
            test=None,
            interpretability={},
        )
        for one in record.drawings
    )
    layers = tuple(dataclasses.replace(layer, chance=None) for layer in record.layers)
    return dataclasses.replace(
        undrawn(record), drawings=drawings, layers=layers, seeds=SEEDS[:1], steps=16, size=32
    )


def renders(record: Comparison) -> dict[tuple[str, str, int, str, int], Render]:
    """A drawing for every channel of the shortlist, network and seed."""
    made: dict[tuple[str, str, int, str, int], Render] = {}
    for depth, layer in enumerate(record.layers):
        for unit in (one for one in record.drawings if one.layer == layer.layer):
            for number, network in enumerate(("base", "tuned")):
                for place, seed in enumerate(unit.seeds):
                    key = (network, unit.layer, unit.channel, unit.sign, seed)
                    made[key] = Render(
                        layer=unit.layer,
                        channel=unit.channel,
                        sign="plus" if unit.sign == "plus" else "minus",
                        seed=seed,
                        picture=picture(
                            ((depth * 100 + unit.channel) * 2 + number) * 2 + seed, record.size
                        ),
                        activation=unit.activation[network] or 0.0,
                        exemplar_max=unit.exemplar_max[network],
                        status="below_exemplar"
                        if unit.statuses[network][place] == "below_exemplar"
                        else "optimized",
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
    by_camera = groups()
    return Evaluation(
        groups=by_camera.groups,
        worst_group=by_camera.worst_group,
        group_test=by_camera.test,
        gap=gap(),
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


def groups() -> GroupStudy:
    """Two cameras, one of which does worse, and one with a name that no page may take for its own."""
    right = np.repeat([True, False, True, False, True], [90, 10, 20, 30, 4])
    names = ["old"] * 100 + ["new"] * 50 + [NASTY] * 4
    labels = torch.arange(len(right)) % 2
    said = torch.where(torch.tensor(right), labels, 1 - labels)
    logits = torch.nn.functional.one_hot(said, 2).float()
    made = Predictions(tuple(map(str, range(len(right)))), labels, logits, ("a", "b"))
    return accuracy_by_group(made, names, column="camera")


def gap() -> ValidationGap:
    """All that can be said of one."""
    return ValidationGap(
        validation=0.95,
        validation_n=154,
        accuracy=0.6,
        n=394,
        difference=-0.35,
        interval=(-0.41, -0.28),
        p=1e-16,
        class_shares=0.94,
        most_in=ClassGap(NASTY, 0.9, 0.2, 0.6),
        lookalikes=LookalikeCause(0.43, 0.07, 0.9, (0.82, 0.95), 88),
        familiarity=Familiarity(0.86, 0.75, -0.11, (-0.12, -0.1), 0.88),
        told_apart=ToldApart(0.93, (0.9, 0.96)),
        cues={"brightness": ToldApart(0.7, (0.6, 0.8))},
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


def explanation(folder: Path, path: str) -> KeptExplanation:
    """One picture with a map that failed its check, and channels."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("grad_cam.png", "units.png"):
        Image.fromarray(picture(7, 48)).save(folder / name)
    networks = tuple(NetworkMap(name, 1.5, 0.8, NASTY, inside=0.4) for name in ("base", "tuned"))
    told = Explanation(
        *(path, "0" * 64, "grad_cam", NASTY, None, networks, MapChange(0.61, 0.72), 0.2, False),
        verdict="failed the check: it points nowhere",
        identical=True,
        figure="grad_cam.png",
        maps="grad_cam.safetensors",
    )
    units = DecidingChannels(path, NASTY, "0", "blocks.1", {"tuned": 1.0}, {}, "units.png")
    return KeptExplanation(folder, (told,), units)


def shortcuts(paths: tuple[str, ...]) -> Shortcuts:
    """A cue that the predictions follow, one that they do not, and a correction."""
    follows = Candidate(
        label=NASTY,
        cue="the <top left> corner",
        kind="patch",
        accuracy=0.93,
        places=((0, 0), (0, 1)),
        given=Shift(0.6, 0.4, 0.8, 0.001, 8, 0.5),
        taken=Shift(0.3, 0.15, 0.5, 0.004, 4, 0.25),
        q=0.002,
        layer="blocks.4.2",
        channel=3,
        pictures=paths[:4],
        shared=0.75,
        heat=((1.0, 0.2), (0.1, 0.0)),
    )
    nothing = dataclasses.replace(
        follows, cue="the border", kind="border", given=Shift(0.01, -0.1, 0.1, 0.8, 8, 0.0), q=0.9
    )
    nothing = dataclasses.replace(nothing, taken=nothing.given)
    standing = {"test": Standing(12, 0.8, 0.5, 0.9), "taken": Standing(4, 0.25, 0.1, 0.6)}
    after = standing | {"taken": Standing(4, 0.75, 0.3, 0.9)}
    corrected = Correction("corrected", "last-layer", standing, after, "taken", "taken")
    return Shortcuts((follows, nothing), "test", corrected)


def verdicts() -> Verdicts:
    """A method that failed, one that passed and one that is refused."""
    checks = tuple(
        Check(name, 0.31, (0.2, 0.4), 0.25, 24, name == "mosaic", f"said of {name}")
        for name in CHECK_TITLES
    )
    methods = (
        MethodVerdict("grad_cam", False, "it fails", 24, checks),
        MethodVerdict("occlusion", True, "it passes", 24, checks),
        MethodVerdict("guided_backprop", False, "no", 24, refused="there are no <ReLUs>"),
    )
    return Verdicts("0" * 64, 24, "made up & few", 0, methods)


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
        robustness=robustness_content.result(),
        strangers=strangers_content.result(root, paths[:1]),
        explanations=(explanation(root.with_name(root.name + "-explained"), paths[0]),),
        verdicts=verdicts(),
        view=InputSpec(size=(24, 24)),
        shortcuts=shortcuts(paths),
        pictures=pictures_content.shown(root, paths, CLASSES),
        ideals=pictures_content.ideals(root.with_name(root.name + "-ideals"), NASTY),
    )
