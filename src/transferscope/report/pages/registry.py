"""The registry of the atlas's pages.

A page is one function from the atlas's content to a section, in a file of its own in this folder,
registered under its slug, with the template of that name:

    @page("robustness", title="Robustness", order=40)
    def robustness(content: AtlasContent, site: Site) -> Section | None:
        ...

It returns None where it has nothing to show; it is then absent from the folder and the navigation.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transferscope.report.pages.content import AtlasContent
from transferscope.report.pages.site import Site


@dataclass(frozen=True)
class Section:
    """What a page shows.

    Attributes:
        values: of its template.
        below: pages that are reached from it alone: file to (template, values).
        index: what the search finds on it: (words, address).
    """

    values: Mapping[str, Any]
    below: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    index: Sequence[tuple[str, str]] = ()


Make = Callable[[AtlasContent, Site], Section | None]


@dataclass(frozen=True)
class Page:
    """A registered page.

    Attributes:
        slug: name of its file and of its template, without their endings.
        title: in the navigation.
        order: place in the navigation, the least first.
        make: its section; pictures that it shows are written through the site.
    """

    slug: str
    title: str
    order: int
    make: Make

    @property
    def file(self) -> str:
        """Name of the page's file."""
        return f"{self.slug}.html"


_PAGES: dict[str, Page] = {}


def page(slug: str, *, title: str, order: int) -> Callable[[Make], Make]:
    """Registers the function below it as a page; see `Page` for the arguments."""

    def register(make: Make) -> Make:
        assert slug not in _PAGES, f"two pages are called {slug!r}"
        _PAGES[slug] = Page(slug, title, order, make)
        return make

    return register


def all_pages() -> list[Page]:
    """Every page of this folder's modules, in the order of the navigation."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{__package__}.{module.name}")
    return sorted(_PAGES.values(), key=lambda page: (page.order, page.slug))
