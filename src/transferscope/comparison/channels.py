"""Base against tuned, channel by channel, above a noise floor."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from transferscope.backbones.classifier import Classifier
from transferscope.comparison.geometry import embed, frozen_up_to, linear_cka
from transferscope.comparison.nulls import change_statistic, null_statistics
from transferscope.comparison.records import (
    NETWORKS,
    ChannelComparison,
    Comparison,
    Drawing,
    Exemplar,
    LayerComparison,
)
from transferscope.errors import InputError

EXEMPLARS = 9
"""Real pictures kept for each channel and network."""


FDR = 0.05
"""False discovery rate at which a channel is called changed."""

CHANCE_PAIRS = 400
"""Unrelated channel pairs whose mean similarity is called chance, where a layer has as many."""


def compare_networks(
    base: Classifier,
    tuned: Classifier,
    *,
    renders: Mapping[str, Mapping[str, Sequence[Drawing]]],
    null_renders: Mapping[str, Sequence[Drawing]],
    responses: Mapping[str, Mapping[str, torch.Tensor]],
    paths: Sequence[str],
    totals: Mapping[str, int],
    fdr: float = FDR,
) -> Comparison:
    """Base against tuned, for every layer and channel that was rendered.

    Args:
        base: its pooled features are the embedding in which pictures are compared.
        tuned: the other network.
        renders: network -> layer -> renders of all channels, from two seeds or more.
        null_renders: layer -> renders of base from as many seeds again; not needed for layers that
            are identical.
        responses: network -> layer -> (pictures, all channels), spatial means on real pictures.
        paths: names of those pictures.
        totals: layer -> number of channels that it has.
        fdr: false discovery rate of `changed`, over all channels of layers that are not identical.

    Raises:
        InputError: fewer than two seeds, or networks rendered from different seeds.
    """
    names = list(renders["base"])
    seeds = sorted({render.seed for render in renders["base"][names[0]]})
    if len(seeds) < 2:
        raise InputError(f"renders are from {len(seeds)} seed; a noise floor needs two or more")
    raw = [
        _compare_layer(
            base,
            name,
            identical=frozen_up_to(base, tuned, name),
            renders={network: renders[network][name] for network in NETWORKS},
            null_renders=null_renders.get(name, ()),
            responses={network: responses[network][name] for network in NETWORKS},
            paths=paths,
            total=totals[name],
            seeds=seeds,
        )
        for name in names
    ]
    first = renders["base"][names[0]][0]
    return Comparison(
        layers=_with_q_values(raw, fdr),
        fdr=fdr,
        seeds=tuple(seeds),
        pictures=len(paths),
        steps=max(render.steps for name in names for render in renders["base"][name]),
        size=first.picture.shape[0],
    )


def _with_q_values(layers: Sequence[LayerComparison], fdr: float) -> tuple[LayerComparison, ...]:
    """Benjamini-Hochberg over all channels of layers that are not identical."""
    from scipy.stats import false_discovery_control

    tested = [c for layer in layers if not layer.identical for c in layer.channels]
    adjusted = iter(false_discovery_control([c.p for c in tested]) if tested else ())

    def judged(channel: ChannelComparison) -> ChannelComparison:
        q = float(next(adjusted))
        return replace(channel, q=q, changed=q <= fdr)

    return tuple(
        layer if layer.identical else replace(layer, channels=tuple(map(judged, layer.channels)))
        for layer in layers
    )


def _compare_layer(
    base: Classifier,
    layer: str,
    *,
    identical: bool,
    renders: Mapping[str, Sequence[Drawing]],
    null_renders: Sequence[Drawing],
    responses: Mapping[str, torch.Tensor],
    paths: Sequence[str],
    total: int,
    seeds: Sequence[int],
) -> LayerComparison:
    drawn = {network: _by_channel(renders[network], layer, seeds) for network in NETWORKS}
    if set(drawn["base"]) != set(drawn["tuned"]):
        raise InputError(f"{layer}: other channels were rendered in base than in tuned")
    indexes = list(drawn["base"])
    vectors = {n: _embedded(base, drawn[n], indexes) for n in NETWORKS}
    chance_values = _chance(vectors, identical)
    null: list[float] = []
    if not identical:
        extra_seeds = sorted({render.seed for render in null_renders})
        extra = _by_channel(null_renders, layer, extra_seeds)
        shared = [index for index in indexes if index in extra]
        if len(extra_seeds) != len(seeds) or set(extra_seeds) & set(seeds) or not shared:
            raise InputError(
                f"{layer}: the null needs base rendered from {len(seeds)} further seeds; got seeds "
                f"{extra_seeds}"
            )
        again = _embedded(base, extra, shared)
        for row, index in enumerate(shared):
            own = torch.cat([vectors["base"][indexes.index(index)], again[row]])
            null += null_statistics(own @ own.T)
    channels = tuple(
        _compare_channel(
            layer,
            index,
            identical=identical,
            drawn={network: drawn[network][index] for network in NETWORKS},
            vectors={network: vectors[network][row] for network in NETWORKS},
            responses={network: responses[network][:, index] for network in NETWORKS},
            paths=paths,
            chance=statistics.fmean(chance_values),
            null=null,
        )
        for row, index in enumerate(indexes)
    )
    return LayerComparison(
        layer=layer,
        channels=channels,
        total=total,
        identical=identical,
        similarity=statistics.median(c.similarity for c in channels),
        rerender=statistics.median(c.rerender[network] for c in channels for network in NETWORKS),
        chance=statistics.fmean(chance_values),
        chance_pairs=len(chance_values),
        chance_values=tuple(chance_values),
        null=tuple(null),
        cka=1.0 if identical else linear_cka(responses["base"], responses["tuned"]),
    )


def _compare_channel(
    layer: str,
    index: int,
    *,
    identical: bool,
    drawn: Mapping[str, Sequence[Drawing]],
    vectors: Mapping[str, torch.Tensor],
    responses: Mapping[str, torch.Tensor],
    paths: Sequence[str],
    chance: float,
    null: Sequence[float],
) -> ChannelComparison:
    first = drawn["base"][0]
    both = torch.cat([vectors["base"], vectors["tuned"]])
    similarity = both @ both.T
    half = len(vectors["base"])
    apart = ~torch.eye(half, dtype=torch.bool)
    statistic = 0.0 if identical else change_statistic(similarity)
    usable = not identical and math.isfinite(statistic)
    p = (1 + sum(n >= statistic for n in null)) / (1 + len(null)) if usable else 1.0
    signed = {n: responses[n] * (1 if first.sign == "plus" else -1) for n in NETWORKS}
    best = {n: signed[n].argsort(descending=True, stable=True) for n in NETWORKS}
    top = min(20, len(paths))
    shared = len(set(best["base"][:top].tolist()) & set(best["tuned"][:top].tolist()))
    return ChannelComparison(
        layer=layer,
        channel=index,
        sign=first.sign,
        similarity=1.0 if identical else float(similarity[:half, half:][apart].mean()),
        similarities={
            "pixels": 1.0 if identical else _pixel_similarity(drawn),
            "activations": 1.0 if identical else _correlation(*(responses[n] for n in NETWORKS)),
        },
        rerender={
            "base": float(similarity[:half, :half][apart].mean()),
            "tuned": float(similarity[half:, half:][apart].mean()),
        },
        chance=chance,
        statistic=statistic,
        p=p,
        q=p,
        changed=False,
        identical=identical,
        statuses={n: max((r.status for r in drawn[n]), key=_SEVERITY.index) for n in NETWORKS},
        activation={n: drawn[n][0].activation for n in NETWORKS},
        exemplar_max={n: drawn[n][0].exemplar_max for n in NETWORKS},
        exemplars={
            n: tuple(Exemplar(paths[i], float(signed[n][i])) for i in best[n][:EXEMPLARS].tolist())
            for n in NETWORKS
        },
        shared_top20=shared / top if top else 1.0,
    )


_SEVERITY = ("optimized", "below_exemplar", "zero_gradient", "dead_on_data", "non_finite")


def _by_channel(
    renders: Sequence[Drawing], layer: str, seeds: Sequence[int]
) -> dict[int, list[Drawing]]:
    """Renders of each channel in the order of the seeds.

    Raises:
        InputError: a channel that was not rendered from every seed.
    """
    found: dict[int, list[Drawing]] = {}
    for render in sorted(renders, key=lambda render: (render.channel, render.seed)):
        found.setdefault(render.channel, []).append(render)
    for index, several in found.items():
        if [render.seed for render in several] != list(seeds):
            raise InputError(
                f"channel {index} of {layer} was rendered from seeds {[r.seed for r in several]} "
                f"instead of {list(seeds)}; render it from all of them"
            )
    return found


def _embedded(
    base: Classifier, drawn: Mapping[int, Sequence[Drawing]], indexes: Sequence[int]
) -> torch.Tensor:
    """(channels, seeds, D), of length 1."""
    pictures = [torch.from_numpy(r.picture) for index in indexes for r in drawn[index]]
    vectors = embed(base, torch.stack(pictures))
    return vectors.view(len(indexes), -1, vectors.shape[1])


def _chance(vectors: Mapping[str, torch.Tensor], identical: bool) -> list[float]:
    """Similarities of different channels from different seeds, base against tuned where they differ."""
    base, other = vectors["base"], vectors["base" if identical else "tuned"]
    channels, seeds, _ = base.shape
    units, starts = (itertools.permutations(range(count), 2) for count in (channels, seeds))
    pairs = list(itertools.product(units, starts))
    if len(pairs) > CHANCE_PAIRS:
        chosen = np.random.default_rng(0).choice(len(pairs), CHANCE_PAIRS, replace=False)
        pairs = [pairs[int(place)] for place in sorted(chosen)]
    return [float(base[first, a] @ other[second, b]) for (first, second), (a, b) in pairs]


def _pixel_similarity(drawn: Mapping[str, Sequence[Drawing]]) -> float:
    """Mean Pearson correlation of the pixels of cross-network pairs from different seeds."""
    flat = {n: [torch.from_numpy(one.picture).flatten() for one in drawn[n]] for n in NETWORKS}
    pairs = itertools.permutations(range(len(flat["base"])), 2)
    return statistics.fmean(_correlation(flat["base"][a], flat["tuned"][b]) for a, b in pairs)


def _correlation(x: torch.Tensor, y: torch.Tensor) -> float:
    """Pearson correlation; 0 where one side does not vary."""
    x, y = (z.double() - z.double().mean() for z in (x, y))
    length = float(x.norm() * y.norm())
    return float(x @ y) / length if length > 0 else 0.0
