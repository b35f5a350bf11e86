"""What did the transfer teach the network to look at?

    python examples/01_saliency.py

The lesson explains photographs by a pretrained DenseNet's guided gradients, then turns the network into a
classifier of flowers (0.1% of them right "before", 98.7% after) and shows one foxglove's map before and
after. Its *before* is a head of random weights, which says nothing of the network, and the two maps have
neither their class nor their scale in common.

Here the *before* is the untuned network with a linear probe; both are asked for the same class, by its
logit, on one colour scale; the methods are checked first; and the change of the maps is held against control
transfers: the same tuning from shuffled labels. `--data DIR` takes your pictures, `--original` DenseNet-161
and Flowers-102.
"""

from __future__ import annotations

from _lesson import Lesson, photographs, start

# isort: split

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from _figures import Triple, groups_figure
from numpy.typing import NDArray

import transferscope as ts
from transferscope.evaluation.intervals import bootstrap_mean, wilson_interval
from transferscope.evaluation.paired import paired_difference
from transferscope.evaluation.predictions import predict_files
from transferscope.explain.similarity import rank_correlation
from transferscope.files import write_json
from transferscope.workflows.controls import control_tails, load_tail
from transferscope.workflows.explain import MapQuestion, explain
from transferscope.workflows.explained_networks import RANDOM, with_random_head
from transferscope.workflows.explanations import HOME
from transferscope.workflows.run import files_of, labels_of
from transferscope.workflows.verdicts import VERDICTS, check_run

METHODS = ("grad_cam", "guided_backprop")
CONTROLS = 3
CHECKED = 12  # pictures that the methods are checked on

MISTAKES = (
    "The before is a head of random weights: its 0.1% measures chance, not the network.",
    "Where a network prefers another class than the one asked for, FlashTorch takes the gradient of the "
    "preferred one: the map before is of another class than the map after.",
    "Each map is standardised by itself, so the strengths of two maps cannot be compared.",
    "Guided backprop hardly depends on the class or on the upper layers, which are what was trained "
    "(Adebayo et al. 2018).",
    "There is no control: any tuning changes maps, also one on labels that mean nothing.",
)


def main(told: Lesson) -> None:
    """Known photographs, then before and after, then whether any tuning would have done the same."""
    source = told.source(
        dataset="flowers102",
        backbone="torchvision/densenet161",
        characters="ABCD" if told.fast else "ABCDEFGHIJKL",
        train=10 if told.fast else 25,
        validation=3 if told.fast else 5,
        test=3 if told.fast else 10,
        strips=0,
    )
    told.mistake(*MISTAKES)
    _known_photographs(told, source)
    run = ts.tune(**source, **told.recipe(), out=told.folder / "run")
    files, pictures = files_of(run, "test", None)
    labels = labels_of(pictures)
    learned = _accuracies(told, run, files, labels)
    told.setting = {"test_pictures": len(files), "controls": CONTROLS, **told.recipe()}
    shown = learned[0] if learned else 0
    _before_and_after(told, run, files[shown], bool(learned))
    if run.untuned:
        told.finding(
            "Tuning was no better than the probe on validation, so the probe was kept: nothing below the "
            "head has changed, and neither can what the network looks at."
        )
        return
    step = max(1, len(files) // (8 if told.fast else 40))
    _against_controls(told, run, files[::step], labels[::step])


def _known_photographs(told: Lesson, source: dict[str, object]) -> None:
    """Where the first article begins: an untuned network and photographs it knows."""
    name = str(source.get("backbone", "efficientnet_lite0"))
    untuned = ts.load_backbone(name, download=told.original)
    photos = list(photographs().values())[: 1 if told.fast else None]
    question = MapQuestion(METHODS)
    made = explain(untuned, photos, out=told.folder / "known", against=None, question=question)
    for one in made.explanations:
        answer = one.networks[0]
        told.figure(
            f"known/{one.figure}",
            None,
            f"The untuned network takes {Path(one.picture).name} for {one.target} "
            f"({answer.probability:.0%}): {one.method}.",
            data="a photograph that a package ships",
        )


def _accuracies(
    told: Lesson, run: ts.Run, files: Sequence[Path], labels: torch.Tensor
) -> list[int]:
    """How many are right before and after; the pictures that the tuned network alone recognises."""
    names, classes = tuple(map(str, files)), run.classifier.classes

    def answers(classifier: ts.Classifier) -> ts.Predictions:
        return ts.Predictions(names, labels, predict_files(classifier, files), classes)

    before, after = answers(run.base), answers(run.classifier)
    chance = answers(with_random_head(run.base, 0)).right
    found = paired_difference(after, before)
    told.row(
        "top-1 with a head of random weights",
        lesson="0.1%",
        ours=f"{chance.float().mean():.1%}",
        note=f"the lesson's before; chance is {1 / len(classes):.1%}, whatever the network knows",
    )
    told.row(
        "top-1 of the untuned network with a linear probe",
        ours=_share(before.right),
        note="the fair before",
    )
    told.row("top-1 of the tuned network", lesson="98.7%", ours=_share(after.right))
    low, high = found.interval
    told.row(
        "what tuning brought, percentage points",
        ours=f"{100 * found.difference:.1f} ({100 * low:.1f} to {100 * high:.1f})",
        note=f"on the same {found.n} pictures, p {found.p:.2g}",
    )
    return torch.nonzero(after.right & ~before.right).flatten().tolist()


def _before_and_after(told: Lesson, run: ts.Run, picture: Path, learned: bool) -> None:
    """One picture's maps in both networks: the same class, its logit, one scale; and with a random head."""
    if not told.fast:
        verdicts = check_run(run, run.classifier, methods=METHODS, most=CHECKED)
        write_json(run.path / HOME / VERDICTS, verdicts.to_dict())
    made = explain(
        run, [picture], out=told.folder / "maps", question=MapQuestion(METHODS, target="expected")
    )
    why = "that only the tuned network recognises" if learned else "of the test part"
    for one in made.explanations:
        told.figure(
            f"maps/{one.figure}",
            None,
            f"The first picture {why}: maps of the logit of {one.target} by {one.method}, in the untuned "
            f"network with a probe and in the tuned one, on one scale. {one.verdict}",
        )
        assert one.change is not None
        told.row(
            f"likeness of the map before and after, {one.method}",
            ours=f"{one.change.rank_correlation:.2f}",
            note=f"rank correlation, 1: the same map. {one.verdict}",
        )
    chance = with_random_head(run.base, 0)
    chance.backbone = RANDOM
    target = made.explanations[0].target
    control = explain(
        chance,
        [picture],
        out=told.folder / "random",
        against=None,
        question=MapQuestion(METHODS, target=target),
    )
    for one in control.explanations:
        told.figure(
            f"random/{one.figure}",
            None,
            f"The control, what the lesson calls before: the same picture and class by {one.method} with a "
            "head of random weights. It has a scale of its own, as its logits are of another size.",
        )


def _against_controls(
    told: Lesson, run: ts.Run, files: Sequence[Path], labels: torch.Tensor
) -> None:
    """Is the difference more than any tuning makes?

    All networks have the probe's head here: a control's own was fitted to labels that mean nothing, so its maps
    would differ by the question and not by what tuning did to the network.
    """
    probe = run.base.head_layer
    assert isinstance(probe, torch.nn.Linear)

    def maps(classifier: ts.Classifier) -> list[NDArray[np.float32]]:
        asked = [int(label) for label in labels]
        same = classifier.with_head(probe.weight, probe.bias, run.base.classes)
        found = ts.attribute(same, list(files), method="grad_cam", target=asked)
        return [one.map for one in found]

    networks = {"tuned": run.classifier}
    for tail in control_tails(run, CONTROLS):
        networks[f"control {tail.number + 1}, shuffled labels"] = load_tail(run, tail)
    before = maps(run.base)
    changes = {
        name: np.array([1 - rank_correlation(a, b) for a, b in zip(before, maps(one), strict=True)])
        for name, one in networks.items()
    }
    means: dict[str, Triple] = {name: _mean(values) for name, values in changes.items()}
    tuned, *controls = changes.values()
    excess = _mean(tuned - np.mean(controls, axis=0))
    sentence = verdict(tuned, controls, excess)
    told.row(
        "change of the maps beyond that of control transfers",
        ours=_triple(excess),
        note=f"1 - rank correlation, less the mean of {len(controls)} controls; the probe's head on all",
    )
    told.finding(sentence)
    label = "change of a picture's map by tuning (1 - rank correlation)"
    lines = [f"{told.network}; {told.data}.", sentence]
    figure = groups_figure(changes, means, label=label, lines=lines)
    told.figure(
        "controls.svg", figure, "How far maps of the same class change: tuning and controls."
    )


def verdict(
    tuned: NDArray[np.float64], controls: Sequence[NDArray[np.float64]], excess: Triple
) -> str:
    """Whether the maps changed more than under control transfers, in a sentence.

    More, or less, is said where the interval over pictures excludes 0 and the tuning is beyond every control.

    Args:
        tuned: (N,) changes of the maps by the tuning.
        controls: the same of each control.
        excess: mean of tuned less the controls' mean, with its interval.
    """
    reached = [float(one.mean()) for one in controls]
    said = (
        f"Grad-CAM's maps of {len(tuned)} test pictures changed by {tuned.mean():.2f} (1 - rank correlation; "
        f"controls {min(reached):.2f} to {max(reached):.2f})"
    )
    if excess[1] > 0 and tuned.mean() > max(reached):
        return f"{said}, more than tuning on shuffled labels changes them."
    if excess[2] < 0 and tuned.mean() < min(reached):
        return f"{said}, less than tuning on shuffled labels changes them."
    return (
        f"{said}; with {len(controls)} controls and {len(tuned)} pictures that could not be told apart from "
        "what tuning on shuffled labels does."
    )


def _mean(values: NDArray[np.float64]) -> Triple:
    found = bootstrap_mean(values)
    return float(values.mean()), found.low, found.high


def _triple(found: Triple) -> str:
    return f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})"


def _share(right: torch.Tensor) -> str:
    low, high = wilson_interval(int(right.sum()), len(right))
    return f"{right.float().mean():.1%} ({low:.1%} to {high:.1%})"


if __name__ == "__main__":
    sys.exit(start(main, __file__))
