"""The atlas's front page: how good the classifier is and what the transfer taught it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from transferscope.comparison.change import LEARNED
from transferscope.comparison.headline import sentences as comparison_sentences
from transferscope.comparison.records import NETWORKS, Comparison
from transferscope.comparison.shortlist import (
    AT_RANDOM,
    LEAST_LEARNED,
    MOST_LEARNED,
    MOST_MATTERING,
)
from transferscope.report.figures.comparison import gain_figure, similarity_figure
from transferscope.report.figures.training import history_figure
from transferscope.report.pages.channels import (
    Unit,
    channel_pages,
    compared_layers,
    search_entries,
)
from transferscope.report.pages.content import AtlasContent
from transferscope.report.pages.opening import accuracy_sentences, opening_cards
from transferscope.report.pages.registry import Section, page
from transferscope.report.pages.shortlists import by_reason
from transferscope.report.pages.site import Site
from transferscope.report.pages.stages import (
    flips_sentence,
    lost_pictures,
    stages,
    trend_sentences,
)

_SHOWN = 6  # pairs of drawings of each reason


@page("index", title="Overview", order=10)
def overview(content: AtlasContent, site: Site) -> Section:
    """Sentences, figures and pairs of drawings; below it a page a layer and a page a drawn channel."""
    layers, comparison = compared_layers(content, site), content.comparison
    accuracies = _accuracies(content)
    cards = opening_cards(content, accuracies["rows"], accuracies["start"])
    said = {card.answer for card in cards}
    values = {
        "layers": layers,
        "cards": cards,
        "more": [sentence for sentence in headline(content) if sentence not in said],
        "accuracies": accuracies,
        "galleries": _galleries(comparison, by_reason(layers, _SHOWN)) if comparison else [],
        "figures": _figures(comparison),
        "kinds": _kinds(comparison),
        "stages": stages(comparison) if comparison else [],
        "lost": lost_pictures(comparison, _SHOWN) if comparison and site.pictures else [],
        "flips": flips_sentence(comparison) if comparison else "",
        "trends": trend_sentences(comparison.trends) if comparison else {},
        "history": Markup(history_figure(content.history)) if content.history else None,
    }
    return Section(values, channel_pages(layers), search_entries(layers))


def _figures(comparison: Comparison | None) -> dict[str, Markup | None]:
    """By name; None where there is nothing to draw."""
    drawn: dict[str, Markup | None] = dict.fromkeys(("gain", "similarity"))
    if comparison is None:
        return drawn
    if comparison.of_witness(LEARNED):
        drawn["gain"] = Markup(gain_figure(comparison))
    known = (one.test.similarity for one in comparison.drawings if one.test)
    if any(value is not None and math.isfinite(value) for value in known):
        drawn["similarity"] = Markup(similarity_figure(comparison))
    return drawn


def _kinds(comparison: Comparison | None) -> list[str]:
    """The networks whose class information is known: base, tuned, controls, retunings."""
    layers = comparison.layers if comparison else ()
    return list(dict.fromkeys(kind for layer in layers for kind in layer.information))


def _galleries(
    comparison: Comparison, shortlist: dict[str, list[Unit]]
) -> list[tuple[str, str, Sequence[Unit]]]:
    """Headings, notes and pairs of drawings, one for each reason why channels were drawn."""
    over = "over the controls" if comparison.controls else "over base"
    words = {
        MOST_LEARNED: ("Learned most", f"The channels that gained most class information {over}."),
        LEAST_LEARNED: (
            "Learned least",
            f"The channels that gained least {over}, to hold the others against.",
        ),
        MOST_MATTERING: (
            "Matter most",
            "The channels whose loss rises most when base's activations take their place.",
        ),
        AT_RANDOM: ("At random", "Drawn by lot, whatever their figures are."),
    }
    if not comparison.found(LEARNED):
        asked = (
            "None of them was found to have learned."
            if comparison.controls
            else ("Whether they learned was not asked: there are no controls.")
        )
        words[MOST_LEARNED] = ("Largest gains", f"{words[MOST_LEARNED][1]} {asked}")
        words[LEAST_LEARNED] = ("Smallest gains", words[LEAST_LEARNED][1])
    return [
        (*words.get(reason, (reason.capitalize(), "")), units)
        for reason, units in shortlist.items()
    ]


def _accuracies(content: AtlasContent) -> dict[str, Any]:
    """Rows of (split, network, top-1, interval or None) and where their scale begins."""
    top1 = (content.validation_before, content.validation_after)
    records = (content.evaluation_base, content.evaluation)
    rows: list[tuple[str, str, float, tuple[float, float] | None]] = [
        ("validation", network, value, None)
        for network, value in zip(NETWORKS, top1, strict=True)
        if value is not None
    ]
    rows += [
        (record.split, network, record.top1, record.top1_interval)
        for network, record in zip(NETWORKS, records, strict=True)
        if record is not None
    ]
    lowest = min([1.0, *(value for _, _, value, _ in rows), *(i[0] for *_, i in rows if i)])
    return {"rows": rows, "start": min(0.9, max(0.0, math.floor(lowest * 10 - 0.5) / 10))}


# ---------------------------------------------------------------------------- words


def headline(content: AtlasContent) -> list[str]:
    """How good it is and what the transfer taught, as sentences with figures."""
    sentences = accuracy_sentences(content)
    if content.comparison is not None:
        sentences += comparison_sentences(content.comparison)
        return sentences or ["No layer was compared."]
    return sentences or ["Nothing was evaluated or compared yet."]
