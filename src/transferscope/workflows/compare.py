"""`compare`: channels of two networks told apart from the noise of drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

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
from transferscope.errors import InputError, OutputError
from transferscope.features.exemplars import channel_responses, drawn_sample
from transferscope.files import is_writable
from transferscope.visualize.recipe import make_recipe
from transferscope.visualize.records import Render
from transferscope.visualize.units import Sweep, WorkUnit
from transferscope.workflows.reporter import SILENT, Reporter
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

    Renders go to sweep/ (a file a finished unit of work; a rerun continues), the result to
    comparison/. A layer that is bit-identical in both networks is rendered in one of them only; where all
    are, nothing is drawn or written, and the reporter is told why.

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
    if not is_writable(run.path):
        raise OutputError(
            f"{str(run.path)!r} cannot be written, and a comparison is kept in the run folder; copy the run to "
            "a folder that can be, and compare there"
        )
    files, pictures = _exemplar_pool(run)
    responses = {}
    for network, classifier in (("base", base), ("tuned", tuned)):
        with reporter.task(f"real pictures through {network}") as progress:
            responses[network] = channel_responses(classifier, files, names, on_progress=progress)

    renders, null = _drawn(run, base, tuned, channels, identical, seeds, responses, reporter)
    comparison = compare_networks(
        base,
        tuned,
        renders=renders,
        null_renders=null,
        responses=responses,
        paths=[picture.path for picture in pictures],
        totals={name: described[name].channels for name in names},
    )
    comparison.save(run.path / "comparison")
    return comparison


def _drawn(
    run: Run,
    base: Classifier,
    tuned: Classifier,
    channels: Mapping[str, Sequence[int]],
    identical: Mapping[str, bool],
    seeds: int,
    responses: Mapping[str, Mapping[str, torch.Tensor]],
    reporter: Reporter,
) -> tuple[dict[str, dict[str, list[Render]]], dict[str, list[Render]]]:
    """Renders by network and layer, and base's second ones by layer; kept in the run's sweep/."""
    names = tuple(identical)
    sweep = Sweep(run.path / "sweep")
    renders: dict[str, dict[str, list[Render]]] = {"base": {}, "tuned": {}}
    null: dict[str, list[Render]] = {}
    plan: list[tuple[str, Classifier, str, tuple[int, ...]]] = []
    for name in names:
        plan.append(("base", base, name, tuple(range(seeds))))
        if not identical[name]:
            plan.append(("tuned", tuned, name, tuple(range(seeds))))
            plan.append(("null", base, name, tuple(range(seeds, 2 * seeds))))
    for network, classifier, name, chosen in plan:
        best = responses["tuned" if network == "tuned" else "base"][name].amax(0)
        ceiling = {channel: float(best[channel]) for channel in channels[name]}
        units = compared_units(classifier, name, channels[name], chosen)
        what = "base again (the noise floor)" if network == "null" else network
        with reporter.task(f"rendering {name}, {what}") as progress:
            sweep.run(classifier, units, on_progress=progress)
        drawn = [render for unit in units for render in sweep.load(unit, exemplar_max=ceiling)]
        if network == "null":
            null[name] = drawn
        else:
            renders[network][name] = drawn
    for name in names:
        if identical[name]:
            renders["tuned"][name] = renders["base"][name]
    return renders, null


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
    return [
        unit
        for seed in seeds
        for unit in WorkUnit.of(classifier, layer, channels, seed=seed, recipe=recipe).divided()
    ]


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
