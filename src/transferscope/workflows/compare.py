"""`compare`: what the transfer taught a network, against control transfers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from transferscope.activations import find_layer
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.stages import default_layers, stages_of
from transferscope.comparison.change import (
    LEARNED,
    Responses,
    Witnessed,
    learned_channels,
    witnessed_channels,
)
from transferscope.comparison.geometry import frozen_up_to
from transferscope.comparison.layer_measures import LEAST, layer_measures
from transferscope.comparison.patching import Patching, patch_channels
from transferscope.comparison.records import NETWORKS, Comparison, LayerComparison, Quartiles
from transferscope.comparison.rewinding import Rewinding, rewind_stages
from transferscope.comparison.shortlist import shortlist
from transferscope.comparison.weight_change import weight_changes
from transferscope.comparison.witnesses import WITNESSES
from transferscope.comparison.witnesses.class_information import class_information
from transferscope.errors import InputError, UnknownName
from transferscope.files import refuse_read_only
from transferscope.machine import cache_dir
from transferscope.visualize.ray_sweep import require_ray
from transferscope.visualize.recipe import make_recipe
from transferscope.visualize.units import Sweep
from transferscope.workflows.comparison_geometry import with_geometry, with_units
from transferscope.workflows.comparisons import Setting, keep_comparison, note_planned
from transferscope.workflows.controls import TailFile, control_tails, load_tail, retunings
from transferscope.workflows.drawing_measures import with_drawings
from transferscope.workflows.pair import Pair, open_pair
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.responses import ENOUGH, Part, as_arrays, held_out_split, read_part
from transferscope.workflows.run import Run
from transferscope.workflows.shortlist_drawings import ENGINES, Shortlist

CONTROLS, DRAWN, SEEDS = 3, 6, 3
"""Control transfers, drawn channels a layer and drawings of each, where nothing else is asked for."""

PATCHED, BESIDE, PATCHED_ON = 128, 12, 400
"""Channels that are patched, those of them that are also patched the other way, and pictures of either."""

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
        steps: most optimization steps of a drawing; None: the recipe's.
        patch: channels, of all layers together, whose setting back to base is measured exactly, those with
            the largest first-order estimates; None: all.
        shard: (I, N): draw the I-th of N shares only, and compare nothing.
        engine: who draws: `local`, this process, or `ray`, Ray's workers, here or on a cluster.
    """

    layers: Sequence[str] | None = None
    controls: int = CONTROLS
    retunings: int = 0
    draw: int | None = DRAWN
    seeds: int = SEEDS
    steps: int | None = None
    patch: int | None = PATCHED
    shard: tuple[int, int] | None = None
    engine: str = "local"

    def __post_init__(self) -> None:
        if self.controls < 0 or self.controls == 1:
            raise InputError(
                f"--controls is {self.controls}; how much controls differ takes 2 or more; 0 makes none"
            )
        if self.retunings < 0:
            raise InputError(f"--retunings is {self.retunings}; give 0 or more")
        if self.draw is not None and self.draw < 0:
            raise InputError(f"--draw is {self.draw}; give a number of channels a layer, or all")
        if self.patch is not None and self.patch < 0:
            raise InputError(f"--patch is {self.patch}; give a number of channels, or all")
        if self.seeds < 1:
            raise InputError(f"--seeds is {self.seeds}; a channel is drawn from 1 seed or more")
        make_recipe(self.steps)  # refuses what is no number of steps
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            raise InputError(
                f"--shard is {self.shard[0]}/{self.shard[1]}; give I/N with 1 <= I <= N"
            )
        if self.engine not in ENGINES:
            raise UnknownName(
                "engine", self.engine, ENGINES, where="compare", remedy="give one of them"
            )
        if self.engine == "ray":
            require_ray()


def compare(
    run: Run,
    second: Run | Classifier | str | Path | None = None,
    *,
    weights: str | Path | None = None,
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

    With a second model the run's network is held against that one: there are no control transfers of such a
    pair, so whether anything was learned is not asked. Networks of two architectures have no channels
    in common, and only layers are compared.

    Args:
        run: a finished run.
        second: another run, a classifier, or what `open_model` takes; None: the run before and after.
        weights: for a second model that is a backbone's name.
        data: where the run's pictures are, if they are no longer where they were.
        device: cpu, cuda, mps; None: the best there is.
        reporter: hears of the progress.
        options: of `Question`: layers, controls, retunings, draw, seeds, steps, patch, shard, engine.

    Raises:
        UnknownName: no such layer.
        InputError: an option out of its range.
        DataError: the run's pictures are not there.
        OutputError: the run folder cannot be written.
    """
    asked = Question(**options)  # type: ignore[arg-type]  # checked by its own __post_init__
    run = run.at(data)
    pair = open_pair(run, second, weights=weights, device=device)
    if not pair.of_run:
        asked = replace(asked, controls=0, retunings=0)
    work = Work(run, asked, pair, device, reporter)
    if not pair.one_architecture:
        return across_architectures(work)
    names = work.layers()
    behind = [name for name in names if not frozen_up_to(*pair.both, name)]
    if not behind:
        reporter.say(
            nothing_changed(run) if pair.of_run else "both networks are bit-identical there"
        )
        return _nothing(work, names)
    home = run.path / "comparison"
    refuse_read_only(home)
    tails = (asked.controls, asked.retunings)
    note_planned(home, *tails)

    held_out = work.held_out()
    comparison, answers = _measured(work, names, behind, held_out)
    drawn = work.shortlist(comparison.rows, behind, held_out)
    note_planned(home, *tails, drawn.keys())
    drawn.draw(reporter, share=asked.shard or (1, 1), run=ENGINES[asked.engine])
    if asked.shard is not None:
        reporter.say(
            f"share {asked.shard[0]} of {asked.shard[1]} is drawn; the same command without --shard compares "
            "when all shares are"
        )
        return comparison
    comparison = with_drawings(comparison, drawn, held_out, reporter)
    comparison = with_units(comparison, drawn, held_out, answers, reporter)
    comparison = with_geometry(comparison, run, pair, held_out, answers, reporter)
    keep_comparison(home, work.setting(names, drawn), comparison, drawn.keys())
    return comparison


def _measured(
    work: Work, names: Sequence[str], behind: Sequence[str], held_out: Part
) -> tuple[Comparison, dict[str, Responses]]:
    """All that needs no drawing, and the responses that it was measured on."""
    answers = work.answers(held_out, behind)
    rows = _rows(answers, held_out.labels)
    patching, rewinding = work.interventions(held_out, behind)
    rows += patching.rows() if patching else ()
    comparison = replace(
        _nothing(work, names),
        pictures=len(held_out.pictures),
        classes=len(np.unique(held_out.labels)),
        layers=tuple(work.layer(n, answers, held_out.labels, n in behind) for n in names),
        rows=rows,
        controls=work.asked.controls,
        false_in_controls=_false_in_controls(answers, held_out.labels),
        retunings=work.asked.retunings,
        reproduced=_reproduced(answers, held_out.labels, rows),
        patching=patching,
        rewinding=rewinding,
        paths=tuple(picture.path for picture in held_out.pictures),
    )
    return comparison, answers


@dataclass(frozen=True, eq=False)
class Work:
    """A comparison at work: the run, its two networks and who hears of it."""

    run: Run
    asked: Question
    pair: Pair
    device: str | None
    reporter: Reporter

    def layers(self) -> tuple[str, ...]:
        """The layers to compare, shallow to deep.

        Raises:
            UnknownName, InputError: no such layer, or one without channels.
        """
        tuned, channels = self.pair.networks["tuned"], self.pair.channels("tuned")
        names = tuple(self.asked.layers) if self.asked.layers else default_layers(tuned)
        for name in names:
            find_layer(tuned.network, name)
            if name not in channels:
                raise InputError(
                    f"layer {name!r} has no channels in a forward pass; 'transferscope layers' lists those "
                    "that have"
                )
        return tuple(name for name in channels if name in names)

    def held_out(self) -> Part:
        """The pictures that no network was tuned on."""
        return self.part(held_out_split(self.run))

    def part(self, split: str, *, sampled: bool = False) -> Part:
        """Pictures of a split, with their activations at the boundary."""
        found = read_part(
            self.run,
            split,
            self.reporter,
            boundary=self.pair.boundary,
            sampled=sampled,
            without=self.pair.seen if split != "train" else frozenset(),
        )
        if split != "train" and len(found.pictures) < ENOUGH:
            self.reporter.say(
                f"only {len(found.pictures)} held-out pictures ({split}): what they do not show may be "
                f"there all the same; {ENOUGH} or more are better"
            )
        return found

    def answers(self, part: Part, layers: Sequence[str]) -> dict[str, Responses]:
        """Responses of base, tuned, controls and retunings, by name; one network's tail in memory at a time."""
        found = {
            name: as_arrays(part.responses(classifier, layers, self.reporter, name))
            for name, classifier in self.pair.networks.items()
        }
        tails: list[TailFile] = []
        for make, count in (
            (control_tails, self.asked.controls),
            (retunings, self.asked.retunings),
        ):
            if count:
                tails += make(self.run, count, device=self.device, reporter=self.reporter)
        for tail in tails:
            classifier, name = load_tail(self.run, tail), tail.file.stem
            found[name] = as_arrays(part.responses(classifier, layers, self.reporter, name))
        return found

    def interventions(
        self, part: Part, layers: Sequence[str]
    ) -> tuple[Patching | None, Rewinding | None]:
        """What setting channels, and stages, back to base does; None of a pair that is not a run's own."""
        if not self.pair.of_run:
            return None, None
        base, tuned = self.pair.both
        boundary, rows = self.pair.boundary, part.rows_of(base.input)
        with ExitStack() as open_tasks:
            patching = patch_channels(
                base,
                tuned,
                boundary,
                rows,
                part.labels,
                layers,
                exact="all" if self.asked.patch is None else self.asked.patch,
                beside=BESIDE,
                pictures=PATCHED_ON,
                seed=self.run.config.seed,
                on_step=_steps(self.reporter, open_tasks),
            )
        stages = stages_of(tuned)
        behind = stages[stages.index(boundary) + 1 :] if boundary in stages else stages
        with self.reporter.task("stages set back to base") as progress:
            rewinding = rewind_stages(
                base, tuned, boundary, rows, part.labels, behind, on_progress=progress
            )
        return patching, rewinding

    def shortlist(
        self, rows: Sequence[Witnessed], layers: Sequence[str], held_out: Part
    ) -> Shortlist:
        """The channels to draw, with the real pictures, held-out and training ones, that excite them."""
        count, channels = self.asked.draw, self.pair.channels("tuned")
        chosen = {
            name: shortlist(rows, name, channels[name], count, seed=self.run.config.seed)
            for name in layers
        }
        parts = [held_out, self.part("train", sampled=True)] if count != 0 else []
        responses: dict[str, dict[str, torch.Tensor]] = {}
        for name, classifier in self.pair.networks.items():
            several = [one.responses(classifier, layers, self.reporter, name) for one in parts]
            responses[name] = {
                layer: torch.cat([one[layer] for one in several]) for layer in layers if several
            }
        paths = tuple(picture.path for one in parts for picture in one.pictures)
        sweep = Sweep(cache_dir() / "sweep", kept=self.run.path / "sweep")
        seeds = tuple(range(self.asked.seeds))
        files = tuple(file for one in parts for file in one.files)
        return Shortlist(
            self.pair.networks, chosen, seeds, paths, files, responses, sweep, self.asked.steps
        )

    def layer(
        self, name: str, answers: Mapping[str, Responses], labels: np.ndarray, differs: bool
    ) -> LayerComparison:
        """What is measured of a layer as a whole."""
        channels = self.pair.channels("tuned")[name]
        if not differs:
            return LayerComparison(name, channels, True, {})
        kinds = {
            "base": [answers["base"]],
            "tuned": [answers["tuned"]],
            "controls": _of_kind(answers, "control"),
            "retunings": _of_kind(answers, "retuning"),
        }
        information = {
            kind: Quartiles.of(
                np.concatenate([class_information(one[name], labels) for one in several])
            )
            for kind, several in kinds.items()
            if several
        }
        measures = None
        if len(labels) >= LEAST:
            controls = [one[name] for one in kinds["controls"]]
            base, tuned = (answers[network][name] for network in NETWORKS)
            measures = layer_measures(base, tuned, labels, controls=controls)
        weights = weight_changes(*self.pair.both, [name])[name]
        return LayerComparison(name, channels, False, information, measures, weights)

    def setting(self, names: Sequence[str], drawn: Shortlist) -> Setting:
        """Of the folder that the comparison is kept in."""
        asked, recipe = self.asked, drawn.recipe
        return Setting(
            tuple(names),
            asked.controls,
            asked.retunings,
            asked.draw,
            asked.seeds,
            asked.patch,
            recipe.to_dict() if recipe else {},
            second=None if self.pair.of_run else self.pair.names[1],
        )


def _steps(reporter: Reporter, open_tasks: ExitStack) -> Callable[[str, int, int], None]:
    """Progress of passes that name themselves, as a task each."""
    known: dict[str, Callable[[int, int], None]] = {}

    def heard(name: str, done: int, total: int) -> None:
        if name not in known:
            open_tasks.close()
            known[name] = open_tasks.enter_context(reporter.task(f"channels, {name}"))
        known[name](done, total)

    return heard


def _rows(answers: Mapping[str, Responses], labels: np.ndarray) -> tuple[Witnessed, ...]:
    controls = _of_kind(answers, "control")
    return witnessed_channels(answers["base"], answers["tuned"], controls, labels)


def _of_kind(answers: Mapping[str, Responses], kind: str) -> list[Responses]:
    return [one for name, one in answers.items() if name.startswith(kind)]


def _false_in_controls(answers: Mapping[str, Responses], labels: np.ndarray) -> tuple[int, ...]:
    """What each control seems to have learned beyond the others: all of it is false."""
    controls = _of_kind(answers, "control")
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
    controls = _of_kind(answers, "control")
    learned = {(row.layer, row.channel) for row in learned_channels(rows)}
    found = []
    for retuned in _of_kind(answers, "retuning") if controls else []:
        again = witnessed_channels(
            answers["base"], retuned, controls, labels, witnesses=_INFORMATION
        )
        found.append(len(learned & {(row.layer, row.channel) for row in learned_channels(again)}))
    return tuple(found)


def across_architectures(work: Work) -> Comparison:
    """Two networks without channels in common: their default layers, the deepest against the deepest."""
    first, second = (default_layers(network) for network in work.pair.both)
    count = min(len(first), len(second))
    together = list(zip(first[-count:], second[-count:], strict=True))
    held_out = work.held_out()
    responses = [
        held_out.responses(network, layers, work.reporter, name)
        for network, layers, name in zip(
            work.pair.both, (first, second), work.pair.names, strict=True
        )
    ]
    layers = []
    for one, other in together:
        values = [
            known[layer].double().numpy()
            for known, layer in zip(responses, (one, other), strict=True)
        ]
        information = {
            network: Quartiles.of(class_information(known, held_out.labels))
            for network, known in zip(NETWORKS, values, strict=True)
        }
        measures = None
        if len(held_out.pictures) >= LEAST:
            measures = layer_measures(values[0], values[1], held_out.labels)
        name = one if one == other else f"{one} | {other}"
        layers.append(LayerComparison(name, values[0].shape[1], False, information, measures))
    found = replace(
        _nothing(work, ()),
        pictures=len(held_out.pictures),
        classes=len(np.unique(held_out.labels)),
        layers=tuple(layers),
    )
    refuse_read_only(work.run.path / "comparison")
    names = tuple(layer.layer for layer in layers)
    setting = Setting(names, 0, 0, 0, 0, 0, {}, second=work.pair.names[1])
    keep_comparison(work.run.path / "comparison", setting, found, [])
    return found


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


def _nothing(work: Work, names: Sequence[str]) -> Comparison:
    """A comparison of layers in which nothing was measured or drawn."""
    channels = work.pair.channels("tuned")
    layers = tuple(LayerComparison(name, channels[name], True, {}) for name in names)
    split = held_out_split(work.run)
    return Comparison(work.pair.names, split, 0, 0, layers, rows=(), drawings=(), controls=0)
