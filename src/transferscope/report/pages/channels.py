"""The atlas's pages on layers and channels that were compared."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from PIL import Image

from transferscope.comparison.records import (
    NETWORKS,
    ChannelComparison,
    Comparison,
    LayerComparison,
)
from transferscope.errors import InputError
from transferscope.report.figures.comparison import channel_null_figure
from transferscope.report.pages.content import AtlasContent
from transferscope.report.pages.site import PagePicture, Site


@dataclass(frozen=True)
class Unit:
    """A compared channel with its page and pictures."""

    record: ChannelComparison
    label: str
    page: str
    layer_page: str
    seeds: tuple[tuple[int, dict[str, PagePicture]], ...]


@dataclass(frozen=True)
class Layer:
    """A compared layer with its page and channels."""

    record: LayerComparison
    page: str
    units: tuple[Unit, ...]
    statuses: tuple[tuple[str, int], ...]
    figure: Markup | None

    @property
    def changed(self) -> int:
        """How many channels were called changed."""
        return sum(unit.record.changed for unit in self.units)


def compared_layers(content: AtlasContent, site: Site) -> tuple[Layer, ...]:
    """The layers with their channels; writes the channels' pictures.

    Raises:
        InputError: two channels of the comparison have the same layer, index and sign.
    """
    comparison = content.comparison
    if comparison is None:
        return ()
    slugs: set[str] = set()
    return tuple(_layer(record, comparison, content, site, slugs) for record in comparison.layers)


def channel_pages(layers: Sequence[Layer]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Of each layer and each channel: file to (template, values)."""
    units = [(layer, unit) for layer in layers for unit in layer.units]
    pages: dict[str, tuple[str, Mapping[str, Any]]] = {
        layer.page: ("layer", {"layer": layer, "layers": layers}) for layer in layers
    }
    neighbours = [None, *(unit for _, unit in units), None]
    for (layer, unit), previous, following in zip(units, neighbours, neighbours[2:], strict=False):
        values = {"layer": layer, "unit": unit, "previous": previous, "next": following}
        pages[unit.page] = ("unit", values)
    return pages


def _layer(
    record: LayerComparison,
    comparison: Comparison,
    content: AtlasContent,
    site: Site,
    slugs: set[str],
) -> Layer:
    slug = _slug(record.layer, taken=slugs)
    marked = {channel.sign for channel in record.channels} != {"plus"}
    units: dict[str, Unit] = {}
    for channel in record.channels:
        stem = f"{slug}-{channel.channel}" + ("-minus" if channel.sign == "minus" else "")
        if stem in units:
            raise InputError(
                f"channel {channel.channel} ({channel.sign}) of layer {channel.layer!r} was "
                "compared twice; give each channel and sign once"
            )
        mark = {"plus": " +", "minus": " −"}.get(channel.sign, "") if marked else ""
        renders = [_renders(channel, seed, stem, content, site) for seed in comparison.seeds]
        units[stem] = Unit(
            record=channel,
            label=f"{channel.channel}{mark}",
            page=f"units/{stem}.html",
            layer_page=f"layers/{slug}.html",
            seeds=tuple(zip(comparison.seeds, renders, strict=True)),
        )
    counts = Counter(status for channel in record.channels for status in channel.statuses.values())
    tested = any(math.isfinite(channel.statistic) for channel in record.channels)
    drawn = tested and not record.identical and any(map(math.isfinite, record.null))
    return Layer(
        record=record,
        page=f"layers/{slug}.html",
        units=tuple(units.values()),
        statuses=tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        figure=Markup(channel_null_figure(record)) if drawn else None,
    )


def _renders(
    channel: ChannelComparison, seed: int, stem: str, content: AtlasContent, site: Site
) -> dict[str, PagePicture]:
    """Both networks' renders from one seed; of an identical channel one picture, which is both's."""
    assert content.comparison is not None
    side, place = content.comparison.size, (channel.layer, channel.channel, channel.sign, seed)

    def shown(network: str) -> PagePicture:
        render = content.renders.get((network, *place))
        if render is None:
            return PagePicture(None, f"no render of seed {seed}", side, side)
        words = f"channel {channel.channel} of {channel.layer}, {network} network, seed {seed}"
        file = f"images/renders/{stem}-{network}-{seed}.webp"
        return site.save(Image.fromarray(render.picture), file, words, quality=90)

    if channel.identical:
        drawn = (network for network in NETWORKS if (network, *place) in content.renders)
        return dict.fromkeys(NETWORKS, shown(next(drawn, "base")))
    return {network: shown(network) for network in NETWORKS}


def _slug(layer: str, *, taken: set[str]) -> str:
    """A file name for a layer, different from those taken on every file system."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", layer).strip("-")[:80] or "layer"
    slug, number = plain, 1
    while slug.lower() in taken:
        number += 1
        slug = f"{plain}_{number}"
    taken.add(slug.lower())
    return slug
