"""The atlas's page on strangers: how well pictures of none of the classes are told."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from transferscope.evaluation.detection import SCORE_COLUMNS, score_rows
from transferscope.evaluation.sentences import detection_sentences
from transferscope.report.figures.strangers import strangers_figure
from transferscope.report.pages.content import AtlasContent
from transferscope.report.pages.registry import Section, page
from transferscope.report.pages.site import Site


@page("strangers", title="Strangers", order=32)
def strangers(content: AtlasContent, site: Site) -> Section | None:
    """Share caught, false alarms, every score, what strangers would be called, and both kinds of errors."""
    found = content.strangers
    if found is None:
        return None
    shown = site.pictures
    return Section(
        {
            "told": found,
            "told_words": detection_sentences(found),
            "told_figure": Markup(strangers_figure(found)),
            "score_columns": [name.removeprefix("-") for name in SCORE_COLUMNS],
            "score_rows": score_rows(found),
            "missed": found.missed if shown else (),
            "alarmed": found.alarmed if shown else (),
            "missed_root": Path(found.root),
        }
    )
