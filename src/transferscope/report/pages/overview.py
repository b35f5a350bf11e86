"""The atlas's front page: how good the classifier is and what the transfer changed."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from transferscope.comparison.records import NETWORKS, Comparison
from transferscope.report.figures.comparison import layer_box_plot
from transferscope.report.figures.training import history_figure
from transferscope.report.pages.channels import channel_pages, compared_layers
from transferscope.report.pages.content import AtlasContent
from transferscope.report.pages.registry import Section, page
from transferscope.report.pages.site import Site
from transferscope.wording import percent

_SHORTLIST = 6  # channels shown as most and as least changed


@page("index", title="Overview", order=10)
def overview(content: AtlasContent, site: Site) -> Section:
    """Sentences, figures and pairs of renders; below it a page a layer and a page a channel."""
    layers, comparison = compared_layers(content, site), content.comparison
    units = [unit for layer in layers for unit in layer.units if not unit.record.identical]
    ranked = sorted(
        (unit for unit in units if math.isfinite(unit.record.statistic)),
        key=lambda unit: (-unit.record.statistic, unit.page),
    )
    shown = min(_SHORTLIST, len(ranked) // 2) or len(ranked)
    values = {
        "layers": layers,
        "sentences": headline(content),
        "accuracies": _accuracies(content),
        "most": ranked[:shown],
        "least": ranked[shown:][::-1][:shown],
        "box_plot": Markup(layer_box_plot(comparison)) if comparison and layers else None,
        "history": Markup(history_figure(content.history)) if content.history else None,
    }
    return Section(values, channel_pages(layers))


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
    """How good it is and what changed, as sentences with figures."""
    sentences = _accuracy_sentences(content)
    if content.comparison is not None:
        sentences += _change_sentences(content.comparison)
        return sentences or ["No layer was compared."]
    return sentences or ["Nothing was evaluated or compared yet."]


def _accuracy_sentences(content: AtlasContent) -> list[str]:
    after, before = content.evaluation, content.evaluation_base
    if after is None:
        tuned, base = content.validation_after, content.validation_before
        if tuned is None or base is None:
            return []
        return [f"{_moved('the validation pictures', base, tuned)}."]
    pictures = f"the {after.n:,} {after.split} pictures"
    if before is None:
        return [f"{percent(after.top1)} of {pictures} are recognised."]
    gain = ""
    if after.gain is not None:
        low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in after.gain.interval)
        gain = f" (paired 95% interval of the gain: {low} to {high} points)"
    return [f"{_moved(pictures, before.top1, after.top1)}{gain}."]


def _change_sentences(comparison: Comparison) -> list[str]:
    sentences = []
    frozen = [layer.layer for layer in comparison.layers if layer.identical]
    drawn = [layer for layer in comparison.layers if not layer.identical and layer.channels]
    changed = [sum(channel.changed for channel in layer.channels) for layer in drawn]
    totals = [len(layer.channels) for layer in drawn]
    if drawn:
        sentences.append(
            f"{sum(changed) or 'None'} of the {sum(totals)} channels compared changed more than drawing "
            "the same channel twice changes it, at a false discovery rate of "
            f"{percent(comparison.fdr, 0)}."
        )
        most = max(range(len(drawn)), key=lambda at: changed[at] / totals[at])
        if changed[most] and len(drawn) > 1:
            sentences.append(
                f"The change is widest in {drawn[most].layer}: {changed[most]} of {totals[most]} channels."
            )
    if frozen:
        listed = " and ".join(filter(None, (", ".join(frozen[:-1]), frozen[-1])))
        if len(frozen) > 4:
            listed = f"{len(frozen)} layers, up to {frozen[-1]},"
        verb = "was" if len(frozen) == 1 else "were"
        sentences.append(f"{listed} {verb} frozen: bit-identical in both networks.")
    return sentences


def _moved(pictures: str, before: float, after: float) -> str:
    start, end = percent(before), percent(after)
    if start == end:
        return f"Tuning left accuracy on {pictures} at {end}"
    verb = "lifted" if after > before else "lowered"
    return f"Tuning {verb} accuracy on {pictures} from {start} to {end}"
