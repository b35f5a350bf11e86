"""The atlas's pages of single pictures: the answer before and after, where it comes from, what fools it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from transferscope.comparison.records import NETWORKS
from transferscope.errors import PictureError
from transferscope.evaluation.picture_choice import EXPLAINED, RIGHT, UNSURE, WRONG
from transferscope.explain.attribution import METHODS
from transferscope.features.exemplar_crops import outline
from transferscope.report.figures.explanations import overlaid
from transferscope.report.pages.channels import channel_addresses
from transferscope.report.pages.content import KeptAttack, ShownPicture
from transferscope.report.pages.registry import Section, page
from transferscope.report.pages.site import PagePicture, Site
from transferscope.wording import percent, signed

if TYPE_CHECKING:
    from transferscope.evaluation.answers import Guess
    from transferscope.report.pages.content import AtlasContent

GROUPS: Mapping[str, tuple[str, str]] = {
    EXPLAINED: ("Asked for", "What 'explain' or 'attack' was asked about."),
    WRONG: ("Wrong", "The surest first."),
    UNSURE: ("Right, but unsure", "Those whose two most probable classes are closest come first."),
    RIGHT: (
        "Right",
        "Of every class in turn, from the middle of its probabilities outwards.",
    ),
}
"""Title of each reason for which a picture is chosen, and how these are ordered."""

SIDE = 336
"""Pictures are shown at most as large, in pixels."""

_PAIRS = 2  # of a class, that its page shows


@dataclass(frozen=True)
class Bar:
    """A class among an answer's most probable ones."""

    name: str
    chance: str
    wide: float
    own: bool


@dataclass(frozen=True)
class Decider:
    """A channel that decides: its page, and what the score loses without it, by network."""

    name: str
    address: str
    lost: Mapping[str, str]


@dataclass(frozen=True)
class Attacked:
    """A picture before and after an attack."""

    told: KeptAttack
    pictures: tuple[tuple[str, PagePicture], ...]


@dataclass(frozen=True)
class PicturePage:
    """What the page of a picture shows."""

    record: ShownPicture
    file: str
    title: str
    change: str
    seen: PagePicture
    answers: Mapping[str, tuple[Bar, ...]]
    overlays: Mapping[str, PagePicture]
    method: str
    deciders: tuple[Decider, ...]
    attacks: tuple[Attacked, ...]
    class_file: str
    map_address: str


@page("pictures", title="Pictures", order=31)
def pictures_page(content: AtlasContent, site: Site) -> Section | None:
    """Cards of the pictures that were chosen; below it a page each."""
    known = content.pictures
    if known is None or not known.pictures or not site.pictures:
        return None
    files = picture_pages(content, site)
    places = _places(content)
    addresses = channel_addresses(content.comparison) if content.comparison else {}
    every = [
        _page(one, files[one.path], content, site, places, addresses) for one in known.pictures
    ]
    neighbours = [None, *every, None]
    pages = {
        one.file: (
            "picture",
            {"told": one, "known": known, "previous": previous, "next": following},
        )
        for one, previous, following in zip(every, neighbours, neighbours[2:], strict=False)
    }
    groups = [
        (*GROUPS[reason], [one for one in every if one.record.reason == reason])
        for reason in GROUPS
        if any(one.record.reason == reason for one in every)
    ]
    wrong = _wrong(content)
    values = {"known": known, "groups": groups, "all_wrong": wrong}
    return Section(values, pages, [(one.record.path, one.file) for one in every])


def picture_pages(content: AtlasContent, site: Site) -> Mapping[str, str]:
    """File of each picture's page by its path; none where the data's own pictures are left out."""
    if content.pictures is None or not site.pictures:
        return {}
    return {one.path: f"pictures/{at}.html" for at, one in enumerate(content.pictures.pictures)}


def saliency_pairs(
    label: str, content: AtlasContent, site: Site
) -> list[tuple[ShownPicture, Mapping[str, PagePicture]]]:
    """Both networks' overlays of pictures of a class: one that the tuned network has right, and one wrong."""
    if content.pictures is None or not site.pictures:
        return []
    own = [one for one in content.pictures.pictures if one.label == label and one.maps]
    typical = sorted(own, key=lambda one: one.reason != RIGHT)
    right, wrong = ([one for one in typical if one.right_after is said] for said in (True, False))
    chosen = [*right[:1], *wrong[:1], *right[1:], *wrong[1:]][:_PAIRS]
    shown = [(one, overlays_of(one, content, site)) for one in chosen]
    return [(one, overlays) for one, overlays in shown if overlays]


def overlays_of(one: ShownPicture, content: AtlasContent, site: Site) -> Mapping[str, PagePicture]:
    """The picture by network, in its colours where the score comes from; none without maps or the picture."""
    if one.maps is None or site.view is None:
        return {}
    stem = Path(picture_pages(content, site)[one.path]).stem
    files = {name: f"images/maps/{stem}-{name}.webp" for name in NETWORKS}
    title = METHODS[one.maps.method].title
    found: dict[str, PagePicture] = {}
    for name, file in files.items():
        words = f"{title} of {one.maps.target} in the {name} network, picture {one.path}"
        make = partial(_overlay, one, name, site)
        with suppress(PictureError):
            found[name] = site.once(file, words, make, quality=84, own=one.path)
    return found


def _overlay(one: ShownPicture, network: str, site: Site) -> Image.Image:
    assert site.view is not None
    assert one.maps is not None
    seen = site.view.load(site.root / one.path).permute(1, 2, 0).numpy()
    heat = np.asarray(one.maps.heat[network] / 255, np.float32)
    picture = _limited(Image.fromarray(overlaid(seen, heat)))
    fine = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(fine)
    for polygon in outline(heat):
        line = [(x * fine.width, y * fine.height) for x, y in polygon]
        for colour, wide in (("white", 6), ("#111418", 3)):
            pen.line(line, fill=colour, width=wide, joint="curve")
    return fine.resize(picture.size, Image.Resampling.BOX)


def _limited(picture: Image.Image) -> Image.Image:
    """At most `SIDE` pixels a side."""
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return picture


def _page(
    one: ShownPicture,
    file: str,
    content: AtlasContent,
    site: Site,
    places: Mapping[str, int],
    addresses: Mapping[tuple[str, int], str],
) -> PicturePage:
    said = one.after[0].name
    at = places.get(one.path)
    return PicturePage(
        record=one,
        file=file,
        title=one.label if one.right_after else f"{one.label}, taken for {said}",
        change=_change(one),
        seen=site.as_seen(one.path, SIDE),
        answers={
            name: tuple(_bars(guesses, one.label))
            for name, guesses in zip(NETWORKS, (one.before, one.after), strict=True)
        },
        overlays=overlays_of(one, content, site),
        method=METHODS[one.maps.method].title if one.maps else "",
        deciders=tuple(_deciders(one, addresses)),
        attacks=tuple(_attacked(one, Path(file).stem, site)),
        class_file=f"classes/{content.classes.index(one.label)}.html",
        map_address="" if at is None else f"map.html#dot-{at}",
    )


def _change(one: ShownPicture) -> str:
    """What tuning changed of the answer."""
    after = "right" if one.right_after else "wrong"
    if one.right_before is None:
        return f"{after} after tuning"
    before = "right" if one.right_before else "wrong"
    return f"{before} before and after" if before == after else f"{before} before, {after} after"


def _bars(guesses: Sequence[Guess], label: str) -> Iterator[Bar]:
    for one in guesses:
        chance = percent(one.probability, 0)
        if one.probability < 0.005 or 0.995 < one.probability < 1:
            chance = "< 1%" if one.probability < 0.5 else "> 99%"
        yield Bar(one.name, chance, round(100 * one.probability, 1), one.name == label)


def _deciders(one: ShownPicture, addresses: Mapping[tuple[str, int], str]) -> Iterator[Decider]:
    if one.units is None:
        return
    effects = one.units.effects
    for at, first in enumerate(next(iter(effects.values()), ())):
        lost = {name: signed(several[at].ablated) for name, several in effects.items()}
        address = addresses.get((first.layer, first.channel), "")
        yield Decider(f"{first.layer} {first.channel}", address, lost)


def _attacked(one: ShownPicture, stem: str, site: Site) -> Iterator[Attacked]:
    for number, told in enumerate(one.attacks):
        names = {
            "original": f"{told.source} {percent(told.source_probability)}",
            "adversarial": f"{told.target} {percent(told.probability)}",
            "difference": "the change, made visible",
        }
        shown = []
        for name, words in names.items():
            file = f"images/attacks/{stem}-{number}-{name}.webp"
            make = partial(_kept, told.folder / f"{name}.png")
            with suppress(OSError):
                shown.append((words, site.once(file, words, make, quality=90, own=one.path)))
        if shown:
            yield Attacked(told, tuple(shown))


def _kept(file: Path) -> Image.Image:
    with Image.open(file) as picture:
        return _limited(picture.convert("RGB"))


def _places(content: AtlasContent) -> Mapping[str, int]:
    """Where each picture is on the map."""
    known = content.comparison
    if known is None or known.map is None or not known.paths:
        return {}
    return {known.paths[place]: at for at, place in enumerate(known.map.pictures)}


def _wrong(content: AtlasContent) -> int:
    known = content.predictions
    return int((~known.right).sum()) if known is not None else 0
