"""The atlas's page on what the networks stand."""

from __future__ import annotations

from markupsafe import Markup

from transferscope.report.figures.robustness import robustness_figure, share_rows, summary
from transferscope.report.pages.content import AtlasContent
from transferscope.report.pages.registry import Section, page
from transferscope.report.pages.site import Site


@page("robustness", title="Robustness", order=37)
def robustness(content: AtlasContent, _: Site) -> Section | None:
    """Accuracy under attack and corruption, before and after."""
    if content.robustness is None:
        return None
    return Section(
        {
            "endured_figure": Markup(robustness_figure(content.robustness)),
            "endured_words": summary(content.robustness),
            "endured_rows": share_rows(content.robustness),
        }
    )
