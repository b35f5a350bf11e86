"""`compare`: channels of two networks told apart from the noise of drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transferscope.acceleration.precision import find_device
from transferscope.activations import Layer, find_layer
from transferscope.activations import layers as layers_of
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.stages import default_layers
from transferscope.comparison.channels import FDR, compare_networks
from transferscope.comparison.geometry import frozen_up_to
from transferscope.comparison.records import Comparison, LayerComparison
from transferscope.data.scan import Picture
from transferscope.errors import InputError
from transferscope.features.exemplars import channel_responses, drawn_sample
from transferscope.files import refuse_read_only
from transferscope.machine import cache_dir
from transferscope.visualize.recipe import make_recipe
from transferscope.visualize.records import Render
from transferscope.visualize.units import Sweep, WorkUnit
from transferscope.workflows.comparisons import Setting, keep_comparison, shown_keys
from transferscope.workflows.reporter import SILENT, Outlook, Reporter
from transferscope.workflows.run import Run, files_of

COMPARED_STEPS = 48
"""Of a drawing in a comparison: less than half of the usual number reaches nine tenths as far."""


def compare(
    run: Run,
    *,
    layers: Sequence[str] | None = None,
    sample: int | None = 16,
    seeds: int = 2,
    data: str | Path | None = None,
    device: str | None = None,
    reporter: Reporter = SILENT,
) -> Comparison:
    """Renders channels of the base and the tuned network and says which of them changed.

    Renders go to the cache that all runs share (a file a channel; what is there is not drawn again, whichever
    run it was drawn for) and to sweep/ of the run. The result goes to comparison/SETTING/ beside those of
    other settings, and the fullest of them to comparison/ itself. A layer that is bit-identical in both
    networks is rendered in one of them only; where all are, nothing is drawn or written, and the reporter
    is told why.

    Args:
        run: a finished run.
        layers: names of layers, or None for the backbone's default layers.
        sample: channels a layer, drawn with the run's seed; None: all.
        seeds: renders of each channel in each network; at least 2.
        data: where the run's pictures are, if they are no longer where they were.
        device: cpu, cuda, mps; None: the best there is.
        reporter: hears of the progress.

    Raises:
        UnknownName: no such layer.
        InputError: fewer than two seeds, or fewer than two channels.
        DataError: the run's pictures are not there.
        OutputError: the run folder cannot be written.
    """
    run = run.at(data)
    if seeds < 2:
        raise InputError(f"--seeds is {seeds}; a noise floor needs at least 2 renders a channel")
    place = find_device(device)
    base, tuned = run.base.to(place), run.classifier.to(place)
    names = tuple(layers) if layers else default_layers(tuned)
    described = {layer.name: layer for layer in layers_of(tuned.network, tuned.example())}
    channels = {name: _sampled(tuned, described, name, sample, run.config.seed) for name in names}
    names = tuple(sorted(names, key=lambda name: described[name].order))
    identical = {name: frozen_up_to(base, tuned, name) for name in names}

    if all(identical.values()):
        reporter.say(nothing_changed(run))
        return _identical(names, described)
    refuse_read_only(run.path / "comparison")
    files, pictures = _exemplar_pool(run)
    responses = {}
    for network, classifier in (("base", base), ("tuned", tuned)):
        with reporter.task(f"real pictures through {network}") as progress:
            responses[network] = channel_responses(classifier, files, names, on_progress=progress)

    work = _Work(Sweep(cache_dir() / "sweep", kept=run.path / "sweep"), responses, reporter)
    own, further = range(seeds), range(seeds, 2 * seeds)
    for name in names:
        plan = [("base", base, own), ("tuned", tuned, own), ("null", base, further)]
        for network, classifier, chosen in plan[:1] if identical[name] else plan:
            units = compared_units(classifier, name, channels[name], chosen)
            work.pieces.append((network, classifier, name, units))
    renders, keys = work.drawn(identical)
    comparison = compare_networks(
        base,
        tuned,
        null_renders=renders.pop("null"),
        renders=renders,
        responses=responses,
        paths=[picture.path for picture in pictures],
        totals={name: described[name].channels for name in names},
    )
    setting = Setting(names, sample, seeds, work.pieces[0][3][0].recipe.to_dict())
    keep_comparison(run.path / "comparison", setting, comparison, keys)
    return comparison


@dataclass(frozen=True, eq=False)
class _Work:
    """What a comparison draws: (network, its classifier, layer, units) in order."""

    sweep: Sweep
    responses: Mapping[str, Mapping[str, torch.Tensor]]
    reporter: Reporter
    pieces: list[tuple[str, Classifier, str, list[WorkUnit]]] = field(default_factory=list)

    def drawn(
        self, identical: Mapping[str, bool]
    ) -> tuple[dict[str, dict[str, list[Render]]], list[dict[str, Any]]]:
        """Renders by network and layer, and the keys of those that are shown; an estimate is said first."""
        renders: dict[str, dict[str, list[Render]]] = {"base": {}, "tuned": {}, "null": {}}
        keys: list[dict[str, Any]] = []
        lacking = [
            sum(len(self.sweep.missing(unit)) for unit in units) for *_, units in self.pieces
        ]
        outlook = Outlook(sum(lacking), "drawings", self.reporter)
        for (network, classifier, name, units), lacks in zip(self.pieces, lacking, strict=True):
            responses = self.responses["tuned" if network == "tuned" else "base"][name]
            best = responses.amax(0)
            ceiling = {c: float(best[c]) for unit in units for c in unit.channels}
            what = "base again (the noise floor)" if network == "null" else network
            with self.reporter.task(f"rendering {name}, {what}") as progress:
                self.sweep.run(classifier, units, on_progress=outlook.through(progress, lacks))
            renders[network][name] = list(self.sweep.renders(units, exemplar_max=ceiling))
            keys += shown_keys(network, units) if network != "null" else []
            if identical[name]:
                keys += shown_keys("tuned", units)
                renders["tuned"][name] = renders["base"][name]
        return renders, keys


def nothing_changed(run: Run) -> str:
    """Why a comparison has nothing to draw, and what can be done instead."""
    if not run.untuned:
        return (
            "every layer asked for is bit-identical in both networks: nothing is drawn; choose --layers "
            f"behind {run.results['boundary'] or 'the frozen ones'}"
        )
    other = run.results.get("choice", {}).get("other")
    tune = f"; {other} tunes it" if other else "; 'transferscope tune --strategy partial' tunes one"
    return (
        f"the body of {run.path} is untuned, as the probe was kept: every layer is bit-identical in both "
        f"networks, and there is nothing to compare{tune}; 'transferscope visualize' draws its channels"
    )


def _identical(names: Sequence[str], described: Mapping[str, Layer]) -> Comparison:
    """A comparison of layers in which nothing differs and nothing was drawn."""
    layers = tuple(
        LayerComparison(
            layer=name,
            channels=(),
            total=described[name].channels,
            identical=True,
            similarity=1.0,
            rerender=1.0,
            chance=0.0,
            chance_pairs=0,
            chance_values=(),
            null=(),
            cka=1.0,
        )
        for name in names
    )
    return Comparison(layers, fdr=FDR, seeds=(), pictures=0, steps=0, size=0)


def compared_units(
    classifier: Classifier, layer: str, channels: Sequence[int], seeds: Sequence[int]
) -> list[WorkUnit]:
    """The units of a comparison: every channel from every seed, begun from noise and nothing else.

    A start at a real picture would be the same in both networks, and they would look more alike.
    """
    recipe = make_recipe(COMPARED_STEPS)
    unit = WorkUnit.of(classifier, layer, channels, seed=0, recipe=recipe)
    return [part for seed in seeds for part in replace(unit, seed=seed).divided()]


def _sampled(
    classifier: Classifier, described: Mapping[str, Layer], name: str, sample: int | None, seed: int
) -> tuple[int, ...]:
    """Channel indexes to compare, ascending; a seeded draw that another layer does not influence."""
    find_layer(classifier.network, name)
    if name not in described or not described[name].channels:
        raise InputError(
            f"layer {name!r} has no channels in a forward pass; 'transferscope layers' lists those that "
            "have"
        )
    total = described[name].channels
    if sample is None or sample >= total:
        return tuple(range(total))
    if sample < 2:
        raise InputError(f"--sample is {sample}; a comparison needs at least 2 channels a layer")
    chosen = np.random.default_rng([seed, total]).choice(total, size=sample, replace=False)
    return tuple(sorted(int(channel) for channel in chosen))


def _exemplar_pool(run: Run) -> tuple[list[Path], list[Picture]]:
    """Training pictures among which exemplars are sought: all, or a seeded thousand of them."""
    files, pictures = files_of(run, "train", None)
    chosen = drawn_sample(len(files), run.config.seed)
    return [files[index] for index in chosen], [pictures[index] for index in chosen]
