"""What the transfer changed: base against tuned, unit by unit, above a noise floor."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch.nn import functional

from transferscope.activations import modules_below
from transferscope.backbones import Classifier
from transferscope.errors import InputError
from transferscope.images import as_float, to_picture
from transferscope.records import Record
from transferscope.storage import read_json, write_csv, write_json

NETWORKS = ("base", "tuned")


class Drawing(Protocol):
    """What is needed of a render (`visualize.Render`): a picture and how it came about."""

    @property
    def channel(self) -> int:
        """Index within its layer."""

    @property
    def sign(self) -> str:
        """Direction: "plus" or "minus"."""

    @property
    def seed(self) -> int:
        """Of its start and movements."""

    @property
    def picture(self) -> np.ndarray:
        """uint8 (H, W, 3)."""

    @property
    def activation(self) -> float:
        """What it excites the channel to, times the sign."""

    @property
    def exemplar_max(self) -> float | None:
        """What the best real picture does."""

    @property
    def status(self) -> str:
        """How the rendering ended."""

    @property
    def steps(self) -> int:
        """Optimization steps taken; a drawing that has settled takes fewer than others."""


@dataclass(frozen=True)
class Exemplar:
    """A real picture that excites a channel.

    Attributes:
        path: relative to the data folder.
        activation: the channel's spatial mean, signed by the channel's sign.
    """

    path: str
    activation: float


@dataclass(frozen=True)
class ChannelComparison:
    """One channel of one layer in both networks.

    Attributes:
        layer: dotted name.
        channel: index.
        sign: direction compared, "plus" or "minus".
        similarity: cross-network similarity of renders from different seeds, cosine of pooled base
            embeddings, in [-1, 1].
        similarities: further measures by name, each cross-network (at least `pixels` and
            `activations`: Pearson correlation of the channel's responses to the same real pictures).
        rerender: within-network similarity between seeds, by network ("base", "tuned").
        chance: mean similarity of unrelated channels of the layer.
        statistic: mean within-network minus cross-network similarity; large means changed.
        p: share of the layer's null statistics at least as large, never 0.
        q: Benjamini-Hochberg adjusted over all channels compared.
        changed: q <= the comparison's fdr.
        identical: everything up to this layer is bit-identical in both networks.
        statuses: render status by network, the worse of the seeds.
        activation: of the shown render (first seed), by network.
        exemplar_max: of the best real picture, by network.
        exemplars: pictures that excite it most, best first, by network.
        shared_top20: share of the 20 best pictures that both networks have in common, or of as many
            as there are.
        class_effect: effect on the classes' logits, or None where it was not measured.
    """

    layer: str
    channel: int
    sign: str
    similarity: float
    similarities: dict[str, float]
    rerender: dict[str, float]
    chance: float
    statistic: float
    p: float
    q: float
    changed: bool
    identical: bool
    statuses: dict[str, str]
    activation: dict[str, float]
    exemplar_max: dict[str, float | None]
    exemplars: dict[str, tuple[Exemplar, ...]]
    shared_top20: float
    class_effect: float | None = None


@dataclass(frozen=True)
class LayerComparison:
    """One layer in both networks.

    Attributes:
        layer: dotted name.
        channels: those compared, in order of their index.
        total: number of channels that the layer has.
        identical: everything up to this layer is bit-identical; nothing was rendered twice.
        similarity: median cross-network similarity; 1.0 for an identical layer.
        rerender: median within-network similarity of both networks (the ceiling).
        chance: mean similarity of unrelated channel pairs (the floor).
        chance_pairs: how many pairs.
        chance_values: their similarities.
        null: the layer's null statistics (one network re-rendered against itself).
        cka: linear CKA of all of the layer's pooled channels on real pictures.
    """

    layer: str
    channels: tuple[ChannelComparison, ...]
    total: int
    identical: bool
    similarity: float
    rerender: float
    chance: float
    chance_pairs: int
    chance_values: tuple[float, ...]
    null: tuple[float, ...]
    cka: float


@dataclass(frozen=True)
class Comparison(Record):
    """Two networks compared, layer by layer, shallow to deep.

    Attributes:
        layers: in order of depth.
        fdr: false discovery rate at which a channel is called changed.
        seeds: seeds that every channel was rendered from.
        pictures: number of real pictures that exemplars were sought among.
        steps: most optimization steps that a render took.
        size: side of a render in pixels.
    """

    layers: tuple[LayerComparison, ...]
    fdr: float
    seeds: tuple[int, ...]
    pictures: int
    steps: int
    size: int
    made_by: ClassVar[str] = "transferscope compare"

    def to_dict(self) -> dict[str, Any]:
        """The command line's JSON: see the keys of the contract; 1.0 stands for identical layers."""
        layers = {
            layer.layer: {
                "channels": len(layer.channels),
                "total": layer.total,
                "identical": layer.identical,
                "similarity": layer.similarity,
                "rerender": layer.rerender,
                "chance": layer.chance,
                "changed": sum(channel.changed for channel in layer.channels),
                "cka": layer.cka,
                "status": {
                    network: dict(Counter(c.statuses[network] for c in layer.channels))
                    for network in NETWORKS
                },
            }
            for layer in self.layers
        }
        ranked = sorted(
            (channel for layer in self.layers if not layer.identical for channel in layer.channels),
            key=lambda channel: (-channel.statistic, channel.layer, channel.channel),
        )
        return {
            "layers": layers,
            "most_changed": [_brief(channel) for channel in ranked[:LISTED]],
            "least_changed": [_brief(channel) for channel in ranked[::-1][:LISTED]],
            "fdr": self.fdr,
        }

    def save(self, folder: str | Path) -> None:
        """Writes comparison.csv (a row a channel, to read) and comparison.json (all of it)."""
        folder = Path(folder)
        rows = [
            (
                channel.layer,
                channel.channel,
                channel.sign,
                channel.similarity,
                channel.rerender["base"],
                channel.rerender["tuned"],
                channel.chance,
                channel.statistic,
                channel.p,
                channel.q,
                int(channel.changed),
                int(channel.identical),
                channel.shared_top20,
                channel.similarities.get("activations", ""),
                channel.statuses["base"],
                channel.statuses["tuned"],
            )
            for layer in self.layers
            for channel in layer.channels
        ]
        header = (
            *(
                "layer",
                "channel",
                "sign",
                "similarity",
                "rerender_base",
                "rerender_tuned",
                "chance",
            ),
            *("statistic", "p", "q", "changed", "identical", "shared_top20", "activations"),
            *("status_base", "status_tuned"),
        )
        write_csv(folder / "comparison.csv", header, rows)
        write_json(folder / "comparison.json", _without_nan(asdict(self)))

    @classmethod
    def load(cls, folder: str | Path) -> Comparison:
        """What `save` wrote.

        Raises:
            RunError: missing or not readable.
        """
        fields = read_json(Path(folder) / "comparison.json")
        for layer in fields["layers"]:
            for channel in layer["channels"]:  # JSON has no NaN
                reached = channel["activation"].items()
                channel["activation"] = {k: math.nan if v is None else v for k, v in reached}
        return cls.from_dict(fields)


LISTED = 10
"""Channels in `most_changed` and in `least_changed`."""

EXEMPLARS = 9
"""Real pictures kept for each channel and network."""

CHANCE_PAIRS = 400
"""Unrelated channel pairs whose mean similarity is called chance, where a layer has as many."""


def _brief(channel: ChannelComparison) -> dict[str, Any]:
    names = ("layer", "channel", "sign", "statistic", "p", "q", "similarity", "changed")
    return {name: getattr(channel, name) for name in names}


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: a rendering that left the numbers has an activation of null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    return [_without_nan(one) for one in value] if isinstance(value, list | tuple) else value


# ---------------------------------------------------------------------------- measures


def frozen_up_to(base: Classifier, tuned: Classifier, layer: str) -> bool:
    """Whether every parameter and buffer that `layer`'s output depends on is bit-identical.

    Raises:
        UnknownName: no such layer.
    """
    below = set(modules_below(base.network, layer, base.example()))
    every = {name for name, _ in base.network.named_modules()}
    # A module that encloses the layer may use parameters of its own before it (a `pos_embed`).
    enclosing = {name for name in every if any(one.startswith(f"{name}.") for one in below)} | {""}
    owners = below | (enclosing - {layer})
    old, new = base.network.state_dict(), tuned.network.state_dict()
    names = [name for name in old if name.rpartition(".")[0] in owners]
    return all(name in new and torch.equal(old[name], new[name]) for name in names)


def embed(base: Classifier, pictures: torch.Tensor, *, batch_size: int = 16) -> torch.Tensor:
    """Pooled features of pictures in the base network, scaled to length 1.

    Args:
        base: whose eyes judge both networks' pictures.
        pictures: uint8 (N, H, W, 3).
        batch_size: pictures a forward pass.

    Returns:
        float32 (N, D); the product of two rows is their cosine.
    """
    spec = base.input
    parts = []
    with base.inference():
        for part in pictures.split(batch_size):
            loaded = torch.stack([spec.load(to_picture(picture)) for picture in part])
            parts.append(base.pooled_features(as_float(loaded.to(base.device))).float().cpu())
    return functional.normalize(torch.cat(parts), dim=1)


def linear_cka(x: torch.Tensor, y: torch.Tensor) -> float:
    """Similarity of two representations of the same pictures, (n, p) and (n, q), in [0, 1].

    Invariant to rotation and to one common scale of the features, not to their mean.

    Reference: Kornblith et al. 2019, eq. 8, centred features. A representation without variance has
    no similarity to anything: 0.
    """
    x, y = (z.double() - z.double().mean(0) for z in (x, y))
    cross = (y.T @ x).square().sum()
    own = (x.T @ x).norm() * (y.T @ y).norm()
    return float(cross / own) if own > 0 else 0.0


def change_statistic(similarity: torch.Tensor) -> float:
    """Mean within-network minus mean cross-network similarity, from different seeds throughout.

    Args:
        similarity: (2 S, 2 S) of S renders of one network followed by S of the other, both from the
            same S seeds in the same order.

    Returns:
        Around 0 if the networks draw alike; at most 2. Pairs that share a seed (and so a start) never
        enter: they look alike for that reason alone.
    """
    half = len(similarity) // 2
    apart = ~torch.eye(half, dtype=torch.bool)
    within = torch.cat([similarity[:half, :half][apart], similarity[half:, half:][apart]])
    return float(within.mean() - similarity[:half, half:][apart].mean())


def null_statistics(similarity: torch.Tensor) -> list[float]:
    """Statistics of one network against itself, from 2 S renders of 2 S seeds.

    Every way to call S of them one network and the rest the other, each with every alignment of the
    two groups' seeds, is a draw of `change_statistic` where nothing changed. The draws of one channel
    share renders, so they are not independent; pooled over a layer's channels they describe how
    large the statistic gets by noise alone.

    Args:
        similarity: (2 S, 2 S).
    """
    count = len(similarity)
    draws = []
    for first in itertools.combinations(range(count), count // 2):
        if 0 not in first:
            continue  # the two groups change places: the same draw
        rest = [index for index in range(count) if index not in first]
        for second in itertools.permutations(rest):
            order = [*first, *second]
            draws.append(change_statistic(similarity[order][:, order]))
    return draws


# ---------------------------------------------------------------------------- comparing


def compare_networks(
    base: Classifier,
    tuned: Classifier,
    *,
    renders: Mapping[str, Mapping[str, Sequence[Drawing]]],
    null_renders: Mapping[str, Sequence[Drawing]],
    responses: Mapping[str, Mapping[str, torch.Tensor]],
    paths: Sequence[str],
    totals: Mapping[str, int],
    fdr: float = 0.05,
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
    adjusted = false_discovery_control([c.p for c in tested]) if tested else []
    q = {(c.layer, c.channel, c.sign): float(v) for c, v in zip(tested, adjusted, strict=True)}
    return tuple(
        replace(
            layer,
            channels=tuple(
                channel
                if layer.identical
                else replace(
                    channel,
                    q=(value := q[channel.layer, channel.channel, channel.sign]),
                    changed=value <= fdr,
                )
                for channel in layer.channels
            ),
        )
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
    indexes = sorted(drawn["base"])
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
            "activations": 1.0
            if identical
            else _correlation(responses["base"], responses["tuned"]),
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
    pairs = [
        (first, second, a, b)
        for first, second in itertools.permutations(range(channels), 2)
        for a, b in itertools.permutations(range(seeds), 2)
    ]
    if len(pairs) > CHANCE_PAIRS:
        chosen = np.random.default_rng(0).choice(len(pairs), CHANCE_PAIRS, replace=False)
        pairs = [pairs[int(place)] for place in sorted(chosen)]
    return [float(base[first, a] @ other[second, b]) for first, second, a, b in pairs]


def _pixel_similarity(drawn: Mapping[str, Sequence[Drawing]]) -> float:
    """Mean Pearson correlation of the pixels of cross-network pairs from different seeds."""
    flat = {n: [_pixels(render) for render in drawn[n]] for n in NETWORKS}
    pairs = itertools.permutations(range(len(flat["base"])), 2)
    return statistics.fmean(_correlation(flat["base"][a], flat["tuned"][b]) for a, b in pairs)


def _pixels(render: Drawing) -> torch.Tensor:
    return torch.from_numpy(render.picture).reshape(-1).double()


def _correlation(x: torch.Tensor, y: torch.Tensor) -> float:
    """Pearson correlation; 0 where one side does not vary."""
    x, y = (z.double() - z.double().mean() for z in (x, y))
    length = float(x.norm() * y.norm())
    return float(x @ y) / length if length > 0 else 0.0
