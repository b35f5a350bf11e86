"""What changed in the network?

    python examples/05_what_changed.py

The lesson tunes a ResNet-50's last four blocks to 120 breeds of dogs (80% right) and to 196 cars (70%), draws
every channel of the four in both networks, and measures how alike two drawings of a channel are: by the
cosine of embeddings, by Gram matrices, in box plots by layer. It looks at the three channels a layer that
changed most and least, and finds failed drawings by their greyness. Likeness falls with depth, but for the
last block.

Here four stages of the embedded network are tuned and some channels of the first three drawn, from two seeds in
both networks. Likeness is judged by a network that is not compared, and stands between a ceiling (one network
drawn twice) and chance. Beside the drawings stand witnesses that need none: what control transfers learn,
what setting a stage back costs, real pictures, and why a drawing failed. `--data DIR` takes your pictures,
`--original` ResNet-50 and the Stanford dogs; ImageNet contains these dogs, so such a network has seen them.
"""

from __future__ import annotations

from _lesson import Lesson, start

# isort: split

import copy
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from _drawings import (
    GREY,
    Drawn,
    by_layer,
    drawn_channels,
    grey_error,
    grey_figure,
    pair_sheet,
    rejudged,
    wrapped_grey_error,
)
from _figures import Triple, depth_figure
from _loops import order
from numpy.typing import NDArray
from torch import nn

import transferscope as ts
from transferscope.backbones.stages import stages_of
from transferscope.comparison.change import LEARNED, MOVED
from transferscope.comparison.depth_trend import DepthTrend, depth_trend
from transferscope.comparison.interpretability import choose_judge
from transferscope.comparison.records import NETWORKS, Comparison
from transferscope.data.loading import load_batches
from transferscope.evaluation.intervals import bootstrap_mean
from transferscope.evaluation.predictions import predict_files
from transferscope.images import as_float
from transferscope.report.figures.comparison import (
    gain_figure,
    information_figure,
    similarity_figure,
)
from transferscope.workflows.run import files_of, labels_of

RESNET_BOUNDARY = "layer3.4"
RESNET_BLOCKS = ("layer3.5", "layer4.0", "layer4.1", "layer4.2")
"""What the lesson tunes."""

DRAWN, SEEDS, STEPS, CONTROLS = 4, 2, 20, 3
"""Channels a layer, drawings of each in each network, steps of a drawing, control transfers."""

MISTAKES = (
    "ImageNet contains the Stanford dogs: the network had been trained on these breeds before it was tuned to "
    "them, which 80% does not say.",
    "Layers that are called frozen are not: the whole network is in training mode, so the statistics of their "
    "BatchNorm drift with every batch.",
    "The two networks' drawings begin from unpaired noise, and nothing says how alike two drawings of one "
    "network are: a likeness has no ceiling and no chance to be held against.",
    "The network before tuning judges the likeness of its own drawings.",
    "The test for grey pictures subtracts 8-bit values, which wrap: a difference of -1 counts as 255.",
    "Without a control nothing says that a change is more than any tuning makes.",
)


def main(told: Lesson) -> None:
    """Tunes, compares with controls, draws, asks about the last layer, and unfreezes BatchNorm."""
    source = told.source(
        dataset="stanford_dogs",
        backbone="torchvision/resnet50",
        characters="ABCDEFGHIJKL",  # of fewer the probe is as good, and there is nothing to compare
        train=25,
        validation=5,
        test=10,
        strips=0,
    )
    told.mistake(*MISTAKES)
    recipe = told.recipe()
    if told.original:
        recipe["boundary"] = RESNET_BOUNDARY
    run = ts.tune(**source, **recipe, out=told.folder / "run")
    told.setting = {**recipe, "drawn": DRAWN, "seeds": SEEDS, "steps": STEPS, "controls": CONTROLS}
    found = run.evaluate("test")
    ends = found.intervals["top1"]
    told.row(
        "top-1 on test: dogs and cars; here",
        lesson="80% and 70%",
        ours=f"{found.top1:.1%} ({ends.low:.1%} to {ends.high:.1%})",
        note=told.data,
    )
    if run.untuned:
        told.finding(
            "Tuning was no better than the probe on validation, so the probe was kept: nothing below the head "
            "has changed."
        )
        return
    # The last stage has 1,280 channels, more than three minutes hold.
    layers = RESNET_BLOCKS if told.original else behind(run)[-3 if told.fast else -4 : -1]
    compared = ts.compare(
        run,
        layers=layers,
        controls=2 if told.fast else CONTROLS,
        draw=2 if told.fast else DRAWN,
        seeds=SEEDS,
        steps=STEPS,
        patch=4,
    )
    witnesses(told, run, compared)
    judged = drawings(told, run, compared)
    last_layer(told, compared, judged)
    drifting_statistics(told, run)
    trained_statistics(told, source, recipe, run)


def behind(run: ts.Run) -> tuple[str, ...]:
    """The stages that were tuned."""
    stages = stages_of(run.base)
    boundary = run.results["boundary"]
    return stages[stages.index(boundary) + 1 :] if boundary in stages else stages


# ---------------------------------------------------------------------------- without drawings


def witnesses(told: Lesson, run: ts.Run, found: Comparison) -> None:
    """What needs no drawing: controls, class information, stages set back, real pictures."""
    learned = found.found(LEARNED)
    told.row(
        "channels that learned, beyond control transfers",
        ours=f"{len(learned):,} of {found.tested:,}",
        note=f"class information, {found.controls} controls, false discovery rate {found.fdr:.0%}",
    )
    if found.false_in_controls:
        told.row(
            "the same of each control, held against the others",
            ours=", ".join(f"{count:,}" for count in found.false_in_controls),
            note="what the count above is worth",
        )
    told.row(
        "channels that answer differently",
        ours=f"{len(found.found(MOVED)):,} of {len(found.of_witness(MOVED)):,}",
        note="a network tuned on shuffled labels does that too",
    )
    told.figure(
        "information.svg",
        information_figure(found),
        "How much of a channel's variance lies between classes, by layer: base, tuned, controls.",
    )
    told.figure("gains.svg", gain_figure(found), "What the channels gained, against the controls.")
    if found.rewinding is not None:
        for one in found.rewinding.stages:
            effect = one.effect
            stage = "the head" if one.stage == run.base.head else one.stage
            told.row(
                f"{stage} set back to its start, percentage points of top-1",
                ours=f"{100 * effect.accuracy:.1f} ({100 * effect.accuracy_low:.1f} to "
                f"{100 * effect.accuracy_high:.1f})",
                note=f"gives back {len(one.gives_back)} of {len(found.rewinding.flips.lost)} lost pictures",
            )
    shared = by_layer(found.drawings, lambda one: one.shared_top20)
    told.row(
        "best 20 real pictures that both networks share, by layer",
        ours=listed({name: float(np.mean(one)) for name, one in shared.items()}, ".0%"),
        note="mean of the channels that were drawn",
    )


# ---------------------------------------------------------------------------- drawings


def drawings(told: Lesson, run: ts.Run, found: Comparison) -> Comparison:
    """The drawings' likeness by an independent judge, sheets of them, greyness, texture."""
    drawn = drawn_channels(run, found)
    judge = choose_judge(run.base)
    judged = rejudged(found, drawn, judge.classifier)
    told.figure(
        "similarity.svg",
        similarity_figure(judged),
        f"Likeness of drawings by layer, between its ceiling and chance. {judge.sentence}",
    )
    alike = by_layer(judged.drawings, lambda one: one.test and one.test.similarity)
    told.row(
        "median likeness of a channel's two drawings, by layer",
        lesson="falls with depth, but for the last block",
        ours=listed({name: float(np.median(one)) for name, one in alike.items()}, ".2f"),
        note=judge.sentence,
    )
    for name in alike:
        several = [one for one in drawn if one.record.layer == name]
        likeness = {
            one.channel: one.test and one.test.similarity
            for one in judged.drawings
            if one.layer == name
        }
        known = [one for one in several if likeness[one.record.channel] is not None]
        known.sort(key=lambda one: likeness[one.record.channel] or 0.0)
        several = [*known, *(one for one in several if one not in known)]
        told.figure(
            f"drawings-{name}.webp",
            pair_sheet(run, name, several),
            f"Channels of {name} before tuning and after it, from the most changed drawing to the least "
            "and those that failed (corner: the real picture that excites the channel most).",
        )
    greyness(told, drawn)
    for what, pick in (
        ("base and tuned", lambda one: one.test and one.test.gram),
        ("one network drawn twice", lambda one: one.test and one.test.gram_rerender.get("base")),
    ):
        gram = by_layer(found.drawings, pick)
        told.row(
            f"distance of Gram matrices by layer, {what}",
            ours=listed({name: float(np.median(one)) for name, one in gram.items()}, ".2f"),
            note="median; 1 is the distance of unrelated channels",
        )
    for network in NETWORKS:
        scores = {
            shown: [
                score.score
                for one in found.drawings
                for score in one.interpretability.get(network, ())
                if score.shown == shown and score.score is not None
            ]
            for shown in ("exemplars", "drawings")
        }
        if all(scores.values()):
            told.row(
                f"right choices of the judge by a channel's pictures, {network}",
                ours=f"real {np.mean(scores['exemplars']):.0%}, drawn {np.mean(scores['drawings']):.0%}",
                note="which of two pictures excites the channel; 50% is chance",
            )
    return judged


def greyness(told: Lesson, drawn: Sequence[Drawn]) -> None:
    """Failed drawings by what became of them, beside the lesson's way, by greyness."""
    every = {name: [r for one in drawn for r in one.renders[name]] for name in NETWORKS}
    errors = {
        name: np.array([grey_error(r.picture) for r in several]) for name, several in every.items()
    }
    states = Counter(r.status for several in every.values() for r in several)
    total, good = states.total(), states.pop("optimized", 0)
    grey = sum(int((one < GREY).sum()) for one in errors.values())
    failed = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in states.most_common())
    told.row(
        "failed drawings",
        ours=f"{total - good} of {total} by their status, {grey} by greyness",
        note=failed
        or "a status is decided from activations and gradients, not from how a picture looks",
    )
    least = min(
        (r for several in every.values() for r in several), key=lambda r: grey_error(r.picture)
    )
    told.row(
        "greyscale error of the greyest drawing",
        ours=f"{grey_error(least.picture):.3f}",
        note=f"0 to 1; it ended {least.status.replace('_', ' ')}; with 8-bit values that wrap "
        f"{wrapped_grey_error(least.picture):.3f}",
    )
    told.figure(
        "grey.svg",
        grey_figure(
            errors, [f"{told.network}; {told.data}.", f"{total - good} of {total} failed."]
        ),
        "How far drawings are from grey, in both networks.",
    )


# ---------------------------------------------------------------------------- the last layer


def last_layer(told: Lesson, found: Comparison, judged: Comparison) -> None:
    """Is the lesson's exception one of the drawings, or of the network?"""
    alike = by_layer(judged.drawings, lambda one: one.test and one.test.similarity)
    twice = by_layer(judged.drawings, lambda one: one.test and one.test.rerender["base"])
    answers = {
        name: np.array([row.value for row in found.of_witness(MOVED, name)]) for name in alike
    }
    if len(alike) < 2:
        told.finding("Drawings of two layers or more are needed to speak of the last one.")
        return
    sentence = exception(*(depth_trend(one) for one in (alike, twice, answers)))
    told.finding(sentence)
    known = {layer.layer: layer.cka for layer in found.layers if layer.layer in alike}
    told.row(
        "CKA of base and tuned, by layer",
        ours=listed({name: cka for name, cka in known.items() if cka is not None}, ".2f"),
        note="of the answers of all channels; 1 is the same",
    )
    kinds: dict[str, list[Triple]] = {
        "drawings of base and tuned": [mean_of(one) for one in alike.values()],
        "answers of base and tuned: r²": [mean_of(1 - one) for one in answers.values()],
        "base drawn twice: the ceiling of drawings": [mean_of(one) for one in twice.values()],
    }
    told.figure(
        "depth.svg",
        depth_figure(
            list(alike),
            kinds,
            label="likeness, mean over channels",
            lines=[f"{told.network}; {told.data}.", sentence],
        ),
        "The same question asked of drawings and of the network's answers, by depth.",
    )


def exception(drawn: DepthTrend, ceiling: DepthTrend, moved: DepthTrend) -> str:
    """Whether drawings grow more alike in the last layer, and what else changes there.

    Args:
        drawn: of the likeness of the two networks' drawings.
        ceiling: of the likeness of one network's drawings from two seeds.
        moved: of the change of responses, 1 - r^2, in the same layers.
    """
    before, last = drawn.layers[-2:]
    medians = f"median {drawn.medians[-2]:.2f} in {before}, {drawn.medians[-1]:.2f} in {last}"
    less, more = falls(moved), rises(moved)
    change = "less" if less else "more" if more else "not measurably more or less"
    network = (
        f"the channels' answers changed {change} there (median 1 - r² {moved.medians[-2]:.2f}, then "
        f"{moved.medians[-1]:.2f})"
    )
    if not rises(drawn):
        told = "grow less alike" if falls(drawn) else "could not be told to grow more or less alike"
        return (
            f"No exception of the last layer was found: of {drawn.counts[-2]} and {drawn.counts[-1]} channels "
            f"drawings {told} ({medians}); {network}."
        )
    if less:
        whose = "the network itself changed less there"
    elif rises(ceiling):
        whose = "it is the drawings: two of one network grow more alike there too"
    else:
        whose = "it is the drawings, not the network"
    return (
        f"The last layer is an exception here too: drawings grow more alike ({medians}), and {network}: "
        f"{whose}."
    )


def rises(trend: DepthTrend) -> bool:
    """Whether the last step goes up, at a false discovery rate of 5%."""
    return trend.steps[-1].q <= 0.05 and trend.steps[-1].effect > 0


def falls(trend: DepthTrend) -> bool:
    """Whether it goes down."""
    return trend.steps[-1].q <= 0.05 and trend.steps[-1].effect < 0


# ---------------------------------------------------------------------------- BatchNorm


def drifting_statistics(told: Lesson, run: ts.Run) -> None:
    """What training mode does to layers whose weights do not change: the lesson's kind of freezing."""
    base = run.base
    network = copy.deepcopy(base.network)
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    before = torch.cat([one.running_mean for one in norms if one.running_mean is not None]).clone()
    files, _ = files_of(run, "train", None)
    network.train()
    with torch.no_grad():
        mixed = [files[at] for at in order(len(files), epoch=0, seed=0)]
        for batch in load_batches(mixed, base.input, batch_size=32):
            network(base.input.normalise(as_float(batch)))
    network.eval()
    after = torch.cat([one.running_mean for one in norms if one.running_mean is not None])
    tested, pictures = files_of(run, "test", None)
    labels = labels_of(pictures)
    right = [
        float((predict_files(one, tested).argmax(1) == labels).float().mean())
        for one in (base, base.with_network(network))
    ]
    told.row(
        "top-1 of the untuned network, and after an epoch in training mode without a step",
        ours=f"{right[0]:.1%}, then {right[1]:.1%}",
        note=f"no weight changes; the means of BatchNorm move by "
        f"{float((after - before).norm() / before.norm()):.0%} of their norm",
    )


def trained_statistics(
    told: Lesson, source: Mapping[str, Any], recipe: Mapping[str, Any], run: ts.Run
) -> None:
    """The same tuning with BatchNorm in training mode behind the boundary."""
    other = ts.tune(
        **source, **recipe, recipe={"batch_norm": "train"}, out=told.folder / "batch-norm"
    )
    found = other.evaluate("test", against=run)
    assert found.against is not None
    told.row(
        "BatchNorm trained less truly frozen, percentage points of top-1",
        ours=f"{100 * found.against.difference:.1f} ({100 * found.against.interval[0]:.1f} to "
        f"{100 * found.against.interval[1]:.1f})",
        note=f"behind the boundary only, on the same {found.against.n} pictures, p {found.against.p:.2g}",
    )


def listed(values: Mapping[str, float], form: str) -> str:
    """ "blocks.4 0.71, blocks.5 0.64"."""
    return ", ".join(f"{name} {value:{form}}" for name, value in values.items())


def mean_of(values: NDArray[np.float64]) -> Triple:
    """A mean over channels with its interval."""
    found = bootstrap_mean(values)
    return float(values.mean()), found.low, found.high


if __name__ == "__main__":
    sys.exit(start(main, __file__))
