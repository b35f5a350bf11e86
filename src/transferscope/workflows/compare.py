"""`compare`: what the transfer taught a network, against control transfers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from transferscope.acceleration.precision import find_device
from transferscope.activations import Layer, find_layer
from transferscope.activations import layers as layers_of
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.stages import default_layers
from transferscope.comparison.change import (
    LEARNED,
    Responses,
    Witnessed,
    learned_channels,
    witnessed_channels,
)
from transferscope.comparison.geometry import frozen_up_to, linear_cka
from transferscope.comparison.records import NETWORKS, Comparison, LayerComparison, Quartiles
from transferscope.comparison.shortlist import shortlist
from transferscope.comparison.witnesses import WITNESSES
from transferscope.comparison.witnesses.class_information import class_information
from transferscope.errors import InputError
from transferscope.files import refuse_read_only
from transferscope.machine import cache_dir
from transferscope.records import Record
from transferscope.visualize.plan import Plan
from transferscope.visualize.units import Sweep
from transferscope.wording import duration
from transferscope.workflows.comparisons import Setting, keep_comparison
from transferscope.workflows.controls import control_tails, load_tail, retunings, tails_left
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.responses import ENOUGH, Part, as_arrays, held_out_split, read_part
from transferscope.workflows.run import Run
from transferscope.workflows.shortlist_drawings import Shortlist

CONTROLS, DRAWN, SEEDS = 3, 6, 3
"""Control transfers, drawn channels a layer and drawings of each, where nothing else is asked for."""

_INFORMATION = {LEARNED: WITNESSES[LEARNED]}


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a comparison is asked for.

    Attributes:
        layers: dotted names; None: the backbone's default layers.
        controls: control transfers, 2 or more; 0: none, and whether anything was learned is not asked.
        retunings: the run tuned again from so many other seeds.
        draw: channels to draw in each layer; None: all; 0: none.
        seeds: drawings of each of them in each network.
        shard: (I, N): draw the I-th of N shares only, and compare nothing.
    """

    layers: Sequence[str] | None = None
    controls: int = CONTROLS
    retunings: int = 0
    draw: int | None = DRAWN
    seeds: int = SEEDS
    shard: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.controls < 0 or self.controls == 1:
            raise InputError(
                f"--controls is {self.controls}; how much controls differ takes 2 or more; 0 makes none"
            )
        if self.retunings < 0:
            raise InputError(f"--retunings is {self.retunings}; give 0 or more")
        if self.draw is not None and self.draw < 0:
            raise InputError(f"--draw is {self.draw}; give a number of channels a layer, or all")
        if self.seeds < 1:
            raise InputError(f"--seeds is {self.seeds}; a channel is drawn from 1 seed or more")
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            raise InputError(
                f"--shard is {self.shard[0]}/{self.shard[1]}; give I/N with 1 <= I <= N"
            )


def compare(
    run: Run,
    *,
    data: str | Path | None = None,
    device: str | None = None,
    reporter: Reporter = SILENT,
    **options: object,
) -> Comparison:
    """What a transfer taught the channels of a network, against control transfers.

    Every channel of the layers behind the freeze boundary is asked on held-out pictures whether it answers
    them differently and whether it knows more about the classes than before, by more than the same recipe
    makes of shuffled labels. A shortlist is drawn in both networks. Controls stay in the run's controls/,
    drawings in the cache that all runs share and in sweep/; killed and run again it goes on. The result goes to
    comparison/SETTING/, and the fullest of all to comparison/ itself.

    Args:
        run: a finished run.
        data: where the run's pictures are, if they are no longer where they were.
        device: cpu, cuda, mps; None: the best there is.
        reporter: hears of the progress.
        options: of `Question`: layers, controls, retunings, draw, seeds, shard.

    Raises:
        UnknownName: no such layer.
        InputError: an option out of its range.
        DataError: the run's pictures are not there.
        OutputError: the run folder cannot be written.
    """
    asked = Question(**options)  # type: ignore[arg-type]  # checked by its own __post_init__
    run = run.at(data)
    place = find_device(device)
    base, tuned = run.base.to(place), run.classifier.to(place)
    described = {layer.name: layer for layer in layers_of(tuned.network, tuned.example())}
    names = _ordered(tuned, described, asked.layers)
    identical = {name: frozen_up_to(base, tuned, name) for name in names}
    if all(identical.values()):
        reporter.say(nothing_changed(run))
        return _nothing(run, names, described)
    refuse_read_only(run.path / "comparison")

    work = _Work(run, asked, {"base": base, "tuned": tuned}, device, reporter)
    held_out = work.part(held_out_split(run))
    behind = [name for name in names if not identical[name]]
    answers = work.answers(held_out, behind)
    rows = _rows(answers, held_out.labels)
    drawn = work.shortlist(rows, behind, described, held_out)
    drawn.draw(reporter, share=asked.shard or (1, 1))
    if asked.shard is not None:
        reporter.say(
            f"share {asked.shard[0]} of {asked.shard[1]} is drawn; 'transferscope compare {run.path}' without "
            "--shard compares when all shares are"
        )
    comparison = Comparison(
        pair=NETWORKS,
        split=held_out.split,
        pictures=len(held_out.pictures),
        classes=len(np.unique(held_out.labels)),
        layers=tuple(_layer(described[n], answers, held_out.labels, identical[n]) for n in names),
        rows=rows,
        drawings=(),
        controls=asked.controls,
        false_in_controls=_false_in_controls(answers, held_out.labels),
        retunings=asked.retunings,
        reproduced=_reproduced(answers, held_out.labels, rows),
    )
    if asked.shard is not None:
        return comparison
    comparison = _with_drawings(comparison, drawn)
    recipe = drawn.recipe
    setting = Setting(
        names,
        asked.controls,
        asked.retunings,
        asked.draw,
        asked.seeds,
        recipe.to_dict() if recipe else {},
    )
    keep_comparison(run.path / "comparison", setting, comparison, drawn.keys())
    return comparison


@dataclass(frozen=True, eq=False)
class _Work:
    """A comparison at work: the run, its networks and who hears of it."""

    run: Run
    asked: Question
    networks: Mapping[str, Classifier]
    device: str | None
    reporter: Reporter

    def part(self, split: str, *, sampled: bool = False) -> Part:
        """Pictures of a split, with their activations at the run's boundary."""
        boundary = self.run.results["boundary"]
        found = read_part(self.run, split, self.reporter, boundary=boundary, sampled=sampled)
        if split != "train" and len(found.pictures) < ENOUGH:
            self.reporter.say(
                f"only {len(found.pictures)} held-out pictures ({split}): what they do not show may be "
                f"there all the same; {ENOUGH} or more are better"
            )
        return found

    def answers(self, part: Part, layers: Sequence[str]) -> dict[str, Responses]:
        """Responses of base, tuned, controls and retunings, by name; one network's tail in memory at a time."""
        tails = control_tails(
            self.run, self.asked.controls, device=self.device, reporter=self.reporter
        ) + retunings(self.run, self.asked.retunings, device=self.device, reporter=self.reporter)
        found = {
            name: as_arrays(part.responses(classifier, layers, self.reporter, name))
            for name, classifier in self.networks.items()
        }
        for tail in tails:
            classifier, name = load_tail(self.run, tail), tail.file.stem
            found[name] = as_arrays(part.responses(classifier, layers, self.reporter, name))
        return found

    def shortlist(
        self,
        rows: Sequence[Witnessed],
        layers: Sequence[str],
        described: Mapping[str, Layer],
        held_out: Part,
    ) -> Shortlist:
        """The channels to draw, with the real pictures, held-out and training ones, that excite them."""
        seed, count = self.run.config.seed, self.asked.draw
        chosen = {
            name: shortlist(rows, name, described[name].channels or 0, count, seed=seed)
            for name in layers
        }
        parts = [held_out] if count != 0 else []
        if count != 0:
            parts.append(self.part("train", sampled=True))
        responses: dict[str, dict[str, torch.Tensor]] = {}
        for name, classifier in self.networks.items():
            several = [one.responses(classifier, layers, self.reporter, name) for one in parts]
            responses[name] = {
                layer: torch.cat([one[layer] for one in several]) for layer in layers if several
            }
        paths = tuple(picture.path for one in parts for picture in one.pictures)
        sweep = Sweep(cache_dir() / "sweep", kept=self.run.path / "sweep")
        seeds = tuple(range(self.asked.seeds))
        return Shortlist(self.networks, chosen, seeds, paths, responses, sweep)


def plan_compare(
    run: Run,
    *,
    data: str | Path | None = None,
    device: str | None = None,
    reporter: Reporter = SILENT,
    **options: object,
) -> ComparisonPlan:
    """What `compare` with the same arguments has still to do: measured on a few drawings; nothing is kept.

    Which channels are drawn is known only when the controls are made, so channels at random stand for them.
    """
    asked = Question(**options)  # type: ignore[arg-type]  # checked by its own __post_init__
    run = run.at(data)
    place = find_device(device)
    networks = {"base": run.base.to(place), "tuned": run.classifier.to(place)}
    tuned = networks["tuned"]
    described = {layer.name: layer for layer in layers_of(tuned.network, tuned.example())}
    names = _ordered(tuned, described, asked.layers)
    base = networks["base"]
    behind = [name for name in names if not frozen_up_to(base, tuned, name)]
    tails = asked.controls + asked.retunings if behind else 0
    left = 0
    if tails:
        left = tails_left(run, "control", asked.controls)
        left += tails_left(run, "retuning", asked.retunings)
    epochs = [float(row["seconds"]) for row in run.history if int(row["epoch"])]
    kept = next((int(row["epoch"]) for row in run.history if row["best"] == "1"), 0)
    shares = {
        name: shortlist((), name, described[name].channels or 0, asked.draw, seed=run.config.seed)
        for name in behind
    }
    sweep = Sweep(cache_dir() / "sweep", kept=run.path / "sweep")
    drawn = Shortlist(networks, shares, tuple(range(asked.seeds)), (), {}, sweep)
    plans = []
    for network, classifier in networks.items():
        units = [unit for name, unit in drawn.units() if name == network]
        with reporter.task(f"drawing a few, to measure: {network}"):
            plans.append(Plan.of(sweep, classifier, units))
    return ComparisonPlan(
        layers=names,
        tails=tails,
        tails_left=left,
        tail_seconds=round(sum(epochs[:kept]), 1),
        drawings=sum(plan.pictures for plan in plans),
        drawing_seconds=round(sum(plan.seconds for plan in plans), 1),
        disk_mb=round(sum(plan.disk_mb for plan in plans), 1),
    )


@dataclass(frozen=True)
class ComparisonPlan(Record):
    """What a comparison has still to do.

    Attributes:
        layers: that it asks.
        tails: control transfers and retunings.
        tails_left: of these, those that are still to be made.
        tail_seconds: that one took to train when the run itself was tuned.
        drawings: of all channels, networks and seeds.
        drawing_seconds: that all of them take, as measured on a few now.
        disk_mb: that all of them take.
    """

    layers: tuple[str, ...]
    tails: int
    tails_left: int
    tail_seconds: float
    drawings: int
    drawing_seconds: float
    disk_mb: float

    @property
    def seconds(self) -> float:
        """Of all that is left."""
        return self.tails_left * self.tail_seconds + self.drawing_seconds

    def to_dict(self) -> dict[str, object]:
        """JSON-able."""
        return {**super().to_dict(), "seconds": self.seconds}

    def sentences(self) -> list[str]:
        """The same in words."""
        return [
            f"layers: {', '.join(self.layers)}",
            f"{self.tails_left} of {self.tails} control transfers and retunings are to be made, "
            f"about {duration(self.tail_seconds)} each as the run itself took",
            f"{self.drawings} drawings at most, {duration(self.drawing_seconds)}, {self.disk_mb:.1f} MB",
            f"about {duration(self.seconds)} in all",
        ]


def _rows(answers: Mapping[str, Responses], labels: np.ndarray) -> tuple[Witnessed, ...]:
    return witnessed_channels(answers["base"], answers["tuned"], _controls(answers), labels)


def _controls(answers: Mapping[str, Responses], kind: str = "control") -> list[Responses]:
    return [one for name, one in answers.items() if name.startswith(kind)]


def _false_in_controls(answers: Mapping[str, Responses], labels: np.ndarray) -> tuple[int, ...]:
    """What each control seems to have learned beyond the others: all of it is false."""
    controls = _controls(answers)
    if len(controls) < 3:
        return ()
    found = []
    for at, control in enumerate(controls):
        others = controls[:at] + controls[at + 1 :]
        rows = witnessed_channels(answers["base"], control, others, labels, witnesses=_INFORMATION)
        found.append(len(learned_channels(rows)))
    return tuple(found)


def _reproduced(
    answers: Mapping[str, Responses], labels: np.ndarray, rows: Sequence[Witnessed]
) -> tuple[int, ...]:
    """For each retuning, how many of the channels that learned learned there too."""
    controls = _controls(answers)
    learned = {(row.layer, row.channel) for row in learned_channels(rows)}
    found = []
    for retuned in _controls(answers, "retuning") if controls else []:
        again = witnessed_channels(
            answers["base"], retuned, controls, labels, witnesses=_INFORMATION
        )
        found.append(len(learned & {(row.layer, row.channel) for row in learned_channels(again)}))
    return tuple(found)


def _layer(
    layer: Layer, answers: Mapping[str, Responses], labels: np.ndarray, identical: bool
) -> LayerComparison:
    channels = layer.channels or 0
    if identical:
        return LayerComparison(layer.name, channels, True, {}, 1.0)
    kinds = {
        "base": [answers["base"]],
        "tuned": [answers["tuned"]],
        "controls": _controls(answers),
        "retunings": _controls(answers, "retuning"),
    }
    information = {}
    for kind, several in kinds.items():
        if several:
            known = np.concatenate([class_information(one[layer.name], labels) for one in several])
            low, median, high = np.percentile(known, (25, 50, 75)).tolist()
            information[kind] = Quartiles(low, median, high)
    both = [torch.from_numpy(answers[network][layer.name]) for network in NETWORKS]
    return LayerComparison(layer.name, channels, False, information, linear_cka(both[0], both[1]))


def _with_drawings(comparison: Comparison, drawn: Shortlist) -> Comparison:
    """The comparison with its drawings."""
    renders = drawn.drawings()
    records = [
        drawn.record(layer, channel, {n: renders[n][layer, channel] for n in NETWORKS})
        for layer, channel in renders["base"]
    ]
    every = [one for several in renders["base"].values() for one in several]
    return replace(
        comparison,
        drawings=tuple(records),
        seeds=drawn.seeds if every else (),
        steps=max((one.steps for one in every), default=0),
        size=every[0].picture.shape[0] if every else 0,
    )


def nothing_changed(run: Run) -> str:
    """Why a comparison has nothing to ask, and what can be done instead."""
    if not run.untuned:
        return (
            "every layer asked for is bit-identical in both networks: nothing is measured or drawn; choose "
            f"--layers behind {run.results['boundary'] or 'the frozen ones'}"
        )
    other = run.results.get("choice", {}).get("other")
    tune = f"; {other} tunes it" if other else "; 'transferscope tune --strategy partial' tunes one"
    return (
        f"the body of {run.path} is untuned, as the probe was kept: every layer is bit-identical in both "
        f"networks, and there is nothing to compare{tune}; 'transferscope visualize' draws its channels"
    )


def _nothing(run: Run, names: Sequence[str], described: Mapping[str, Layer]) -> Comparison:
    """A comparison of layers in which nothing differs: nothing was measured or drawn."""
    layers = tuple(LayerComparison(n, described[n].channels or 0, True, {}, 1.0) for n in names)
    split = held_out_split(run)
    return Comparison(NETWORKS, split, 0, 0, layers, rows=(), drawings=(), controls=0)


def _ordered(
    classifier: Classifier, described: Mapping[str, Layer], layers: Sequence[str] | None
) -> tuple[str, ...]:
    """The layers to compare, shallow to deep.

    Raises:
        UnknownName, InputError: no such layer, or one without channels.
    """
    names = tuple(layers) if layers else default_layers(classifier)
    for name in names:
        find_layer(classifier.network, name)
        if name not in described or not described[name].channels:
            raise InputError(
                f"layer {name!r} has no channels in a forward pass; 'transferscope layers' lists those that "
                "have"
            )
    return tuple(sorted(dict.fromkeys(names), key=lambda name: described[name].order))
