"""The atlas's page of kept explanations: photographs, before and after, and which methods deserve belief."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from transferscope.explain.attribution import METHODS
from transferscope.explain.records import CHECK_TITLES, CHECK_WORDS, Verdicts
from transferscope.report.figures.explanations import file_name
from transferscope.report.pages.content import AtlasContent
from transferscope.report.pages.registry import Section, page
from transferscope.report.pages.site import PagePicture, Site

_QUALITY = 88


@page("explanations", title="Explanations", order=35)
def explanations(content: AtlasContent, site: Site) -> Section | None:
    """A figure a picture and method with its numbers and its verdict; the table of verdicts."""
    shown = content.explanations if site.pictures else ()
    for one in shown:
        site.shows(one.maps[0].picture)
    if not shown and content.verdicts is None:
        return None
    kept = [
        {
            "name": file_name(one.maps[0].picture),
            "target": one.maps[0].target,
            "maps": [
                (
                    told,
                    METHODS[told.method].title,
                    _figure(site, one.folder, told.figure, told.target),
                )
                for told in one.maps
            ],
            "others": [
                _figure(site, one.folder, told.figure, one.maps[0].target)
                for told in (one.units, one.accentuated)
                if told is not None
            ],
        }
        for one in shown
    ]
    verdicts = {
        "verdicts": content.verdicts,
        "verdict_rows": _rows(content.verdicts),
        "check_titles": CHECK_TITLES,
        "check_words": CHECK_WORDS,
    }
    return Section({"kept": kept, **verdicts})


def _figure(site: Site, folder: Path, name: str, words: str) -> PagePicture:
    file = f"images/explanations/{folder.name}-{Path(name).stem}.webp"
    try:
        with Image.open(folder / name) as picture:
            picture.load()
            return site.save(picture, file, words, quality=_QUALITY)
    except OSError:
        return PagePicture(None, "the figure is gone", 720, 360)


def _rows(verdicts: Verdicts | None) -> list[dict[str, Any]]:
    """A row a method: its title, its verdict, and (figure, outcome) of every check."""
    return [
        {
            "title": METHODS[one.method].title if one.method in METHODS else one.method,
            "verdict": one,
            "checks": [
                next(((c.figure, c.passed) for c in one.checks if c.name == name), None)
                for name in CHECK_TITLES
            ],
        }
        for one in (verdicts.methods if verdicts is not None else ())
    ]
