"""The atlas's page with the model card."""

from __future__ import annotations

from transferscope.report.model_card import card_sections, opening
from transferscope.report.pages.content import AtlasContent
from transferscope.report.pages.registry import Section, page
from transferscope.report.pages.site import Site


@page("card", title="Model card", order=40)
def card(content: AtlasContent, _: Site) -> Section | None:
    """The card's sections, as it is written for the Hub."""
    if content.card is None:
        return None
    sections = card_sections(content.card)
    return Section({"card_opening": opening(content.card), "card_sections": sections})
