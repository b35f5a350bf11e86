"""What a comparison's drawings are measured by: tests of difference, and how well they can be read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from transferscope.backbones.classifier import Classifier
from transferscope.comparison.change import LOOKS_DIFFERENT, Witnessed
from transferscope.comparison.drawings import (
    DrawingTest,
    PairedDrawings,
    chance_pairs,
    chance_similarities,
    drawing_tests,
    paired_drawings,
    pooled_drawing_test,
)
from transferscope.comparison.geometry import embed
from transferscope.comparison.gram_matrices import Grams, gram_features, gram_scale
from transferscope.comparison.interpretability import (
    LEAST,
    Interpretability,
    Judge,
    choose_judge,
    drawing_scores,
    exemplar_scores,
    judge_features,
)
from transferscope.comparison.records import NETWORKS, ChannelDrawings, Comparison
from transferscope.features.extraction import POOLED, extract
from transferscope.visualize.records import Render
from transferscope.workflows.reporter import Reporter
from transferscope.workflows.responses import Part
from transferscope.workflows.shortlist_drawings import Shortlist

_SAMPLED = 64
"""Channels of a layer whose drawings say what chance is: memory does not grow with those that are drawn."""


def with_drawings(
    comparison: Comparison, drawn: Shortlist, held_out: Part, reporter: Reporter
) -> Comparison:
    """The comparison with the drawings of its shortlist, their tests and their scores.

    Args:
        comparison: without drawings.
        drawn: finished drawings.
        held_out: the pictures that responses of `drawn` begin with.
        reporter: hears of the progress.
    """
    if not any(drawn.chosen.values()):
        return comparison
    base = drawn.networks["base"]
    judge = choose_judge(base) if len(held_out.pictures) >= LEAST else None
    work = _Measures(base, judge)
    total = sum(map(len, drawn.chosen.values()))
    with reporter.task("drawings through base") as progress:
        for layer, channel, renders in drawn.renders():
            work.add(drawn.record(layer, channel, renders), renders)
            progress(len(work.records), total)
    scales = {layer: work.scale(layer) for layer in drawn.chosen}
    tests = drawing_tests(work.paired, scales=scales)
    scores = work.scores(drawn, held_out, reporter)
    records = tuple(
        replace(record, test=test, interpretability=found)
        for record, test, found in zip(work.records, tests, scores, strict=True)
    )
    layers = tuple(
        replace(
            layer,
            drawings=pooled_drawing_test(
                layer.layer, [one for one in work.paired if one.layer == layer.layer]
            ),
            chance=work.chance(layer.layer),
        )
        if drawn.chosen.get(layer.layer)
        else layer
        for layer in comparison.layers
    )
    return replace(
        comparison,
        layers=layers,
        rows=comparison.rows + drawing_rows(tests),
        drawings=records,
        judge=judge.sentence if judge else "",
        seeds=drawn.seeds,
        steps=work.steps,
        size=work.size,
    )


def drawing_rows(tests: Sequence[DrawingTest]) -> tuple[Witnessed, ...]:
    """A row for each channel whose drawings could be tested: the squared distance, its null 0.

    Two seeds give it no interval: its ends are infinite.
    """
    return tuple(
        Witnessed(
            layer=one.layer,
            channel=one.channel,
            witness=LOOKS_DIFFERENT,
            value=one.u,
            low=-math.inf if one.low is None else one.low,
            high=math.inf if one.high is None else one.high,
            null=0.0,
            p=one.p,
            q=one.q,
        )
        for one in tests
        if one.u is not None and one.p is not None and one.q is not None
    )


class _Measures:
    """Embeddings of drawings, channel by channel, and what they come to."""

    def __init__(self, base: Classifier, judge: Judge | None):
        self._base, self._judge = base, judge
        self.records: list[ChannelDrawings] = []
        self.paired: list[PairedDrawings] = []
        self.steps = self.size = 0
        self._vectors: dict[str, list[tuple[torch.Tensor, torch.Tensor, list[bool]]]] = {}
        self._grams: dict[str, list[tuple[Grams, Grams]]] = {}
        self._judged: dict[str, list[np.ndarray]] = {network: [] for network in NETWORKS}

    def add(self, record: ChannelDrawings, renders: dict[str, list[Render]]) -> None:
        """One more channel with its drawings in both networks."""
        pictures = {
            n: torch.stack([torch.from_numpy(r.picture) for r in renders[n]]) for n in NETWORKS
        }
        vectors = {n: embed(self._base, pictures[n]) for n in NETWORKS}
        grams = tuple(gram_features(self._base, pictures[n]) for n in NETWORKS)
        good = [
            all(one == "optimized" for one in pair)
            for pair in zip(*(record.statuses[n] for n in NETWORKS), strict=True)
        ]
        self.records.append(record)
        self.paired.append(
            paired_drawings(
                record.layer,
                record.channel,
                vectors["base"],
                vectors["tuned"],
                good,
                grams=(grams[0], grams[1]),
            )
        )
        known = self._vectors.setdefault(record.layer, [])
        if len(known) < _SAMPLED:
            known.append((vectors["base"], vectors["tuned"], good))
            first = [{name: values[:1] for name, values in one.items()} for one in grams]
            self._grams.setdefault(record.layer, []).append((first[0], first[1]))
        if self._judge is not None:
            for network in NETWORKS:
                kept = [s == "optimized" for s in record.statuses[network]]
                judged = judge_features(self._judge.classifier, pictures[network][kept])
                self._judged[network].append(judged)
        every = [one for several in renders.values() for one in several]
        self.steps = max(self.steps, *(one.steps for one in every))
        self.size = every[0].picture.shape[0]

    def chance(self, layer: str) -> float | None:
        """Mean similarity of drawings of unrelated channels of a layer; None where there are no two."""
        known = self._vectors[layer]
        pairs = chance_pairs(np.array([good for *_, good in known]))
        if not len(pairs):
            return None
        base, tuned = (torch.stack(several) for several in list(zip(*known, strict=True))[:2])
        return float(chance_similarities(base, tuned, pairs).mean())

    def scale(self, layer: str) -> dict[str, float]:
        """Gram distances of unrelated channels' drawings; none where a single channel was drawn."""
        known = self._grams.get(layer, [])
        if len(known) < 2:
            return {}
        together = [
            {name: torch.cat([one[at][name] for one in known]) for name in known[0][at]}
            for at in (0, 1)
        ]
        turned = {name: values.roll(1, 0) for name, values in together[1].items()}
        return gram_scale(together[0], turned)

    def scores(
        self, drawn: Shortlist, held_out: Part, reporter: Reporter
    ) -> list[dict[str, tuple[Interpretability, ...]]]:
        """Of every channel, by network: for its exemplars and for its drawings."""
        if self._judge is None:
            return [{} for _ in self.records]
        hashes = [picture.sha256 for picture in held_out.pictures]
        with reporter.task("held-out pictures through the judge") as progress:
            features = extract(
                self._judge.classifier, held_out.files, hashes, on_progress=progress
            ).targets[POOLED]
        seen = features.double().numpy()
        found: list[dict[str, tuple[Interpretability, ...]]] = [{} for _ in self.records]
        for network in NETWORKS:
            responses = np.stack(
                [
                    drawn.responses[network][one.layer][: len(hashes), one.channel].double().numpy()
                    for one in self.records
                ],
                axis=1,
            )
            both = (
                exemplar_scores(responses, seen),
                drawing_scores(responses, seen, self._judged[network]),
            )
            for place, pair in enumerate(zip(*both, strict=True)):
                found[place][network] = pair
        return found
