"""The atlas's page on how to read it."""

from __future__ import annotations

from transferscope.report.pages.content import AtlasContent
from transferscope.report.pages.registry import Section, page
from transferscope.report.pages.site import Site


@page("method", title="Method", order=90)
def method(content: AtlasContent, _: Site) -> Section | None:
    """What a channel is asked, the intervals and the calibration, where the atlas speaks of them."""
    return Section({}) if content.evaluation or content.comparison else None
