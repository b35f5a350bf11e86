"""Where a comparison's channels look, which resemble each other; map of the pictures, timeline, trends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from transferscope.backbones.classifier import Classifier
from transferscope.backbones.stages import stages_of
from transferscope.comparison.change import LEARNED, Responses
from transferscope.comparison.depth_trend import DepthTrend, depth_trend
from transferscope.comparison.neighbours import unit_neighbours
from transferscope.comparison.picture_map import PictureMap, picture_map
from transferscope.comparison.records import NETWORKS, Comparison
from transferscope.comparison.timeline import LayerTimeline, timelines
from transferscope.comparison.unit_exemplars import PicturePart, unit_exemplars
from transferscope.features.exemplar_crops import Unit
from transferscope.workflows.pair import Pair
from transferscope.workflows.reporter import Reporter
from transferscope.workflows.responses import Part, as_arrays
from transferscope.workflows.run import Run
from transferscope.workflows.shortlist_drawings import Shortlist

_FEWEST = 8  # pictures of a map, and of correlations between units


def with_units(
    comparison: Comparison,
    drawn: Shortlist,
    held_out: Part,
    answers: Mapping[str, Responses],
    reporter: Reporter,
) -> Comparison:
    """The comparison with what each drawn channel looks at, and the units that answer most like it."""
    if not comparison.drawings:
        return comparison
    count = len(held_out.pictures)
    places = {"held_out": slice(0, count), "training": slice(count, None)}
    parts = {
        name: PicturePart(
            drawn.files[where],
            drawn.paths[where],
            {
                network: {layer: values[where].double().numpy() for layer, values in known.items()}
                for network, known in drawn.responses.items()
            },
        )
        for name, where in places.items()
        if drawn.paths[where]
    }
    units = [Unit(one.layer, one.channel) for one in comparison.drawings]
    with reporter.task("where the exemplars excite") as progress:
        crops = unit_exemplars(drawn.networks, parts, units, on_progress=progress)
    near = {}
    for layer in dict.fromkeys(one.layer for one in comparison.drawings):
        channels = [one.channel for one in comparison.drawings if one.layer == layer]
        if count >= _FEWEST:
            base, tuned = (answers[network][layer] for network in NETWORKS)
            for one in unit_neighbours(base, tuned, channels):
                near[layer, one.channel] = one
    drawings = tuple(
        replace(one, crops=crop, neighbours=near.get((one.layer, one.channel)))
        for one, crop in zip(comparison.drawings, crops, strict=True)
    )
    return replace(comparison, drawings=drawings)


def with_geometry(
    comparison: Comparison,
    run: Run,
    pair: Pair,
    held_out: Part,
    answers: Mapping[str, Responses],
    reporter: Reporter,
) -> Comparison:
    """The comparison with the map of its pictures, its trends over depth, and its timeline."""
    return replace(
        comparison,
        map=_map(pair, held_out, reporter),
        trends=_trends(comparison),
        timeline=_timeline(comparison, run, pair, held_out, answers, reporter),
    )


def _map(pair: Pair, held_out: Part, reporter: Reporter) -> PictureMap | None:
    """By the last stage's channel means, which are what the head sees of most networks."""
    if len(held_out.pictures) < _FEWEST:
        return None
    last = stages_of(pair.networks["tuned"])[-1]
    known = {
        name: as_arrays(held_out.responses(classifier, [last], reporter, name))[last]
        for name, classifier in pair.networks.items()
    }
    return picture_map(known["base"], known["tuned"], held_out.labels)


def _trends(comparison: Comparison) -> dict[str, DepthTrend]:
    differing = [layer.layer for layer in comparison.layers if not layer.identical]
    gains = {
        name: np.array([row.value for row in comparison.of_witness(LEARNED, name)])
        for name in differing
    }
    alike = {
        name: np.array(
            [
                one.test.similarity
                for one in comparison.drawings
                if one.layer == name and one.test and one.test.similarity is not None
            ]
        )
        for name in differing
    }
    return {
        what: depth_trend(values)
        for what, values in (("class_information", gains), ("drawings", alike))
        if sum(len(one) > 0 for one in values.values()) > 1
    }


def _timeline(
    comparison: Comparison,
    run: Run,
    pair: Pair,
    held_out: Part,
    answers: Mapping[str, Responses],
    reporter: Reporter,
) -> tuple[LayerTimeline, ...]:
    """Of the kept epochs, the run's own classifier being the last."""
    if not pair.of_run or not run.timeline:
        return ()
    layers = [layer.layer for layer in comparison.layers if not layer.identical]
    epochs: dict[int, Responses] = {}
    for epoch, file in run.timeline.items():
        if epoch:  # 0 is the start, whose body is base's
            classifier = Classifier.load(file, backbone=run.config.backbone)
            name = f"epoch {epoch}"
            epochs[epoch] = as_arrays(held_out.responses(classifier, layers, reporter, name))
    kept = next(int(row["epoch"]) for row in run.history if row["best"] == "1")
    epochs = {epoch: one for epoch, one in epochs.items() if epoch < kept}
    epochs[kept] = {layer: answers["tuned"][layer] for layer in layers}
    learned = {}
    for layer in layers:
        found = {row.channel for row in comparison.found(LEARNED, layer)}
        learned[layer] = np.isin(np.arange(answers["base"][layer].shape[1]), list(found))
    return timelines(
        {layer: answers["base"][layer] for layer in layers},
        epochs,
        held_out.labels,
        learned=learned if comparison.controls else None,
    )
