"""What a unit's page shows of real pictures: where each excites the unit, and which units answer alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transferscope.comparison.neighbours import Neighbour
from transferscope.comparison.records import NETWORKS, ChannelDrawings
from transferscope.features.exemplar_crops import ExemplarCrop, Polygon
from transferscope.report.pages.site import PagePicture, Site
from transferscope.wording import number, percent

PART_WORDS: Mapping[str, str] = {"held_out": "Held-out pictures", "training": "Training pictures"}
"""The parts that exemplars are sought in, for a reader."""


@dataclass(frozen=True)
class Outlined:
    """An exemplar as the network sees it, with marks on it.

    Attributes:
        picture: what the network is given.
        path: of the file.
        activation: in words.
        field: x, y, width and height of what the place of the maximum looks at, in fractions of the
            picture; None where that is all of it, or the picture is not shown.
        outline: SVG path around the places that answer at least half as much as the maximum, in a square
            of side 1; empty if there is none.
    """

    picture: PagePicture
    path: str
    activation: str
    field: tuple[float, float, float, float] | None
    outline: str


@dataclass(frozen=True)
class ShownPart:
    """A unit's exemplars among pictures of one part, by network, and what the networks share."""

    name: str
    title: str
    exemplars: Mapping[str, tuple[Outlined, ...]]
    shared: str


@dataclass(frozen=True)
class Near:
    """Units that answer pictures as one does: what is compared, the network that they are of, and them."""

    title: str
    network: str
    neighbours: tuple[tuple[int, str], ...]


def shown_exemplars(one: ChannelDrawings, site: Site) -> tuple[ShownPart, ...]:
    """By part, held-out pictures first; none where no real pictures were sought or none may be shown."""
    if one.crops is None or not site.pictures:
        return ()
    return tuple(
        ShownPart(
            name=part,
            title=title,
            exemplars={
                network: tuple(_outlined(crop, site) for crop in crops[network])
                for network in NETWORKS
            },
            shared=f"{percent(one.crops.shared[part], 0)} of the 20 best shared; "
            f"{percent(one.crops.shared_by_chance[part], 0)} by chance",
        )
        for part, title in PART_WORDS.items()
        if (crops := one.crops.crops.get(part))
    )


def _outlined(crop: ExemplarCrop, site: Site) -> Outlined:
    picture = site.as_seen(crop.path)
    marked = picture.file is not None and site.view is not None
    left, top, right, bottom = crop.box
    whole = right - left >= 1 and bottom - top >= 1
    return Outlined(
        picture=picture,
        path=crop.path,
        activation=number(crop.activation),
        field=(left, top, right - left, bottom - top) if marked and not whole else None,
        outline=_svg_path(crop.outline) if marked else "",
    )


def _svg_path(polygons: Sequence[Polygon]) -> str:
    lines = ("L".join(f"{x:g} {y:g}" for x, y in polygon) for polygon in polygons)
    return "".join(f"M{line}Z" for line in lines)


def near_units(one: ChannelDrawings, called: Mapping[str, str]) -> tuple[Near, ...]:
    """The nearest units of three kinds, without those that unrelated units would reach by chance."""
    known = one.neighbours
    if known is None:
        return ()
    base, tuned = (called[network] for network in NETWORKS)
    kinds = (
        (f"In {base}, to {base}'s", "base", known.within_base),
        (f"In {tuned}, to {tuned}'s", "tuned", known.within_tuned),
        (f"In {base}, to {tuned}'s", "base", known.in_base),
    )
    return tuple(
        Near(title, network, _above_chance(units, known.by_chance))
        for title, network, units in kinds
    )


def _above_chance(units: Sequence[Neighbour], by_chance: float) -> tuple[tuple[int, str], ...]:
    return tuple(
        (unit.channel, number(unit.correlation)) for unit in units if unit.correlation > by_chance
    )
