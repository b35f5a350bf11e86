"""A comparison's drawings read back: their likeness by another judge, sheets of pairs, greyness."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from transferscope.backbones.classifier import Classifier
from transferscope.comparison.drawings import chance_pairs, chance_similarities, paired_drawings
from transferscope.comparison.interpretability import judge_features
from transferscope.comparison.records import NETWORKS, ChannelDrawings, Comparison
from transferscope.images import read_picture
from transferscope.machine import cache_dir
from transferscope.report.figures import style
from transferscope.report.sheets.renders import Tile, sheet
from transferscope.visualize.records import Render
from transferscope.visualize.units import Sweep
from transferscope.workflows.comparisons import render_keys
from transferscope.workflows.run import Run

GREY = 0.02
"""Mean distance of a picture's values from its own grey version, below which a drawing counts as grey here."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """One channel's drawings, in the order of the seeds, by network."""

    record: ChannelDrawings
    renders: Mapping[str, list[Render]]

    @property
    def usable(self) -> list[bool]:
        """Of each seed, whether both networks' drawings ended as they should."""
        pairs = zip(*self.renders.values(), strict=True)
        return [all(one.status == "optimized" for one in pair) for pair in pairs]

    def pictures(self, network: str) -> torch.Tensor:
        """uint8 (seeds, H, W, 3)."""
        return torch.from_numpy(np.stack([one.picture for one in self.renders[network]]))


def drawn_channels(run: Run, found: Comparison) -> list[Drawn]:
    """What the comparison drew, read back."""
    home = Sweep(cache_dir() / "sweep", kept=run.path / "sweep")
    keys: dict[tuple[str, int, str], list[str]] = {}
    for row in render_keys(run.path / "comparison"):
        place = (row["layer"], row["channel"], row["network"])
        keys.setdefault(place, []).append(row["key"])
    return [
        Drawn(
            one,
            {
                name: [
                    home.load_key(key, one.exemplar_max[name])
                    for key in keys[one.layer, one.channel, name]
                ]
                for name in NETWORKS
            },
        )
        for one in found.drawings
    ]


def rejudged(found: Comparison, drawn: Sequence[Drawn], judge: Classifier) -> Comparison:
    """The comparison with likeness, its ceiling and chance by another network's embeddings.

    Args:
        found: as the base network judges its drawings.
        drawn: its channels, layer by layer.
        judge: of any architecture.
    """
    records, chance = [], {}
    for name, several in itertools.groupby(drawn, key=lambda one: one.record.layer):
        layer = list(several)
        vectors = {
            network: [
                torch.from_numpy(judge_features(judge, one.pictures(network))) for one in layer
            ]
            for network in NETWORKS
        }
        for place, one in enumerate(layer):
            pair = [vectors[network][place] for network in NETWORKS]
            known = paired_drawings(name, one.record.channel, *pair, one.usable)
            test = one.record.test and replace(
                one.record.test, similarity=known.similarity, rerender=known.rerender
            )
            records.append(replace(one.record, test=test))
        pairs = chance_pairs(np.array([one.usable for one in layer]))
        if len(pairs):
            stacked = [torch.stack(vectors[network]) for network in NETWORKS]
            chance[name] = float(chance_similarities(*stacked, pairs).mean())
    layers = tuple(replace(one, chance=chance.get(one.layer)) for one in found.layers)
    return replace(found, drawings=tuple(records), layers=layers)


def pair_sheet(run: Run, name: str, several: Sequence[Drawn]) -> Image.Image:
    """Drawings of the first seed before tuning, and below them after it."""
    pages = []
    for network, words in zip(NETWORKS, ("before", "after"), strict=True):
        tiles = []
        for one in several:
            best = one.record.exemplars[network]
            real = read_picture(run.root / best[0].path) if best else None
            tiles.append(Tile(one.renders[network][0], real, str(one.record.channel)))
        pages.append(sheet(tiles, title=f"{name}, {words} tuning"))
    page = Image.new("RGB", (pages[0].width, sum(one.height for one in pages)), "white")
    page.paste(pages[0], (0, 0))
    page.paste(pages[1], (0, pages[0].height))
    return page


def by_layer(
    drawings: Sequence[ChannelDrawings], value: Callable[[ChannelDrawings], float | None]
) -> dict[str, NDArray[np.float64]]:
    """A value of every drawn channel, by layer; channels that have none are left out."""
    found: dict[str, list[float]] = {}
    for one in drawings:
        known = value(one)
        if known is not None:
            found.setdefault(one.layer, []).append(float(known))
    return {name: np.array(values) for name, values in found.items()}


# ---------------------------------------------------------------------------- greyness


def grey_error(picture: NDArray[np.uint8]) -> float:
    """Mean distance of a picture's values (H, W, 3) from their mean over the colours, in [0, 1]."""
    values = picture.astype(np.float64) / 255
    return float(np.abs(values - values.mean(2, keepdims=True)).mean())


def wrapped_grey_error(picture: NDArray[np.uint8]) -> float:
    """The same as the lesson has it, with differences of 8-bit values, which wrap."""
    grey = picture.mean(2, keepdims=True).round().astype(np.uint8)
    return float((picture - grey).mean() / 255)


def grey_figure(errors: Mapping[str, NDArray[np.float64]], lines: Sequence[str]) -> str:
    """A histogram a network."""
    edges = np.linspace(0, max(0.1, *(float(one.max()) for one in errors.values())), 25)
    with style.panel(560, 300) as (figure, axes):
        style.heading(figure, lines)
        colours = (style.BASE_COLOUR, style.TUNED_COLOUR)
        for (name, values), colour in zip(errors.items(), colours, strict=True):
            axes.hist(values, edges, color=colour, alpha=0.55, label=name)
        axes.axvline(GREY, color=style.MUTED, linewidth=1, linestyle=(0, (3, 2)))
        axes.set_xlabel("greyscale error: mean distance from the picture's own grey (dashed: grey)")
        axes.set_ylabel("drawings")
        style.grid(axes, "y")
        axes.legend()
        return style.as_svg(figure, "grey", "Greyscale error of drawings")
