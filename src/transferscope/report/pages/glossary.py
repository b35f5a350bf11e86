"""The atlas's page of words."""

from __future__ import annotations

from transferscope.glossary import TERMS
from transferscope.report.pages.content import AtlasContent
from transferscope.report.pages.registry import Section, page
from transferscope.report.pages.site import Site


@page("glossary", title="Glossary", order=95)
def glossary(content: AtlasContent, _: Site) -> Section | None:
    """What the words of the other pages mean, where they say anything."""
    if not (content.evaluation or content.comparison or content.others):
        return None
    return Section(
        {"terms": [(term, term.split(",")[0].replace(" ", "-"), words) for term, words in TERMS]}
    )
