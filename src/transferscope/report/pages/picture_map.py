"""The atlas's map of held-out pictures: the same pictures placed by base and by the tuned network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from transferscope.comparison.records import NETWORKS
from transferscope.errors import PictureError
from transferscope.report.pages.pictures import picture_pages
from transferscope.report.pages.registry import Section, page

if TYPE_CHECKING:
    from transferscope.comparison.picture_map import PictureMap, Points
    from transferscope.report.pages.content import AtlasContent
    from transferscope.report.pages.site import PagePicture, Site

COLOURS = 7
"""Colours of dots; with them full and as rings, twice as many classes differ in look."""

MOST_NAMED = 14
"""Classes whose names are written on the map; of more they would cover it."""

TILE = 64
"""Side of a picture of the contact sheet in pixels."""

_COLUMNS = 32
_WIDTH = 1000  # of a drawing in its own units
_MARGIN = 40


@dataclass(frozen=True)
class Dot:
    """A picture on one network's map."""

    x: float
    y: float
    label: int


@dataclass(frozen=True)
class Name:
    """A class's name at the median of its pictures."""

    x: float
    y: float
    text: str


@page("map", title="Map", order=33)
def picture_map_page(content: AtlasContent, site: Site) -> Section | None:
    """Both maps side by side; a picture and its twin are told by pointing at either."""
    known = content.comparison.map if content.comparison else None
    if content.comparison is None or known is None:
        return None
    height = _height(known)
    placed = {
        network: _placed(getattr(known, network), known.labels, height) for network in NETWORKS
    }
    paths = content.comparison.paths
    pages = picture_pages(content, site)
    names = [paths[place] if paths and site.pictures else "" for place in known.pictures]
    return Section(
        {
            "map": known,
            "dots": placed,
            "class_names": {
                network: _names(dots, content.classes) for network, dots in placed.items()
            },
            "view": (_WIDTH, height),
            "colours": COLOURS,
            "sheet": _sheet(names, site) if site.pictures and paths else None,
            "columns": _COLUMNS,
            "tile": TILE,
            "picture_names": [(name, pages.get(name, "")) for name in names],
            "classes_shown": sorted(set(known.labels)),
        }
    )


def _height(known: PictureMap) -> int:
    """Of both drawings: as flat as the less flat of the two maps allows."""
    shapes = (np.ptp(np.array(getattr(known, network)), axis=0) for network in NETWORKS)
    flattest = max(y / x if x > 0 else 1.0 for x, y in shapes)
    return round(2 * _MARGIN + (_WIDTH - 2 * _MARGIN) * min(max(flattest, 0.4), 1.0))


def _placed(points: Points, labels: Sequence[int], height: int) -> list[Dot]:
    """Points scaled alike in both directions and centred, y upwards."""
    xy = np.array(points)
    room = np.array([_WIDTH, height]) - 2 * _MARGIN
    wide = np.ptp(xy, axis=0)
    scale = min((r / w for r, w in zip(room, wide, strict=True) if w > 0), default=1.0)
    middle = (xy.max(0) + xy.min(0)) / 2
    places = np.array([_WIDTH, height]) / 2 + (xy - middle) * scale * (1, -1)
    return [
        Dot(round(x, 1), round(y, 1), label)
        for (x, y), label in zip(places.tolist(), labels, strict=True)
    ]


def _names(dots: Sequence[Dot], classes: Sequence[str]) -> list[Name]:
    """At the medians, moved apart downwards where two would cover each other; none of many classes."""
    shown = sorted({dot.label for dot in dots})
    if len(shown) > MOST_NAMED:
        return []
    medians = []
    for label in shown:
        own = np.array([(dot.x, dot.y) for dot in dots if dot.label == label])
        x, y = np.median(own, axis=0)
        medians.append((float(y), float(x), classes[label]))
    placed: list[Name] = []
    for y, x, text in sorted(medians):
        while any(abs(y - one.y) < 34 and abs(x - one.x) < 150 for one in placed):
            y += 6
        placed.append(Name(round(x, 1), round(y, 1), text))
    return placed


def _sheet(names: Sequence[str], site: Site) -> PagePicture:
    """The middle of every picture, row by row on one sheet; grey where one is gone."""
    rows = -(-len(names) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * TILE, rows * TILE), (128, 128, 128))
    for place, name in enumerate(names):
        try:
            picture = site.small(name, TILE)
        except PictureError:
            continue
        sheet.paste(picture, (place % _COLUMNS * TILE, place // _COLUMNS * TILE))
    return site.save(sheet, "images/map.webp", "the pictures of the map", quality=75)
