"""The atlas's front page: how good the classifier is and what the transfer changed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from transferscope.comparison.records import NETWORKS, Comparison
from transferscope.report.figures.comparison import layer_box_plot
from transferscope.report.figures.training import history_figure
from transferscope.report.pages.channels import channel_pages, compared_layers
from transferscope.report.pages.content import AtlasContent
from transferscope.report.pages.registry import Section, page
from transferscope.report.pages.site import Site
from transferscope.wording import percent

if TYPE_CHECKING:
    from transferscope.evaluation.paired import PairedDifference

_SHORTLIST = 6  # channels shown as most and as least changed


@page("index", title="Overview", order=10)
def overview(content: AtlasContent, site: Site) -> Section:
    """Sentences, figures and pairs of renders; below it a page a layer and a page a channel."""
    layers = compared_layers(content, site)
    ranked = sorted(
        (
            unit
            for layer in layers
            for unit in layer.units
            if not unit.record.identical and math.isfinite(unit.record.statistic)
        ),
        key=lambda unit: (-unit.record.statistic, unit.page),
    )
    shown = min(_SHORTLIST, len(ranked) // 2) or len(ranked)
    comparison = content.comparison
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
    rows: list[tuple[str, str, float, tuple[float, float] | None]] = []
    for network, value in zip(
        NETWORKS, (content.validation_before, content.validation_after), strict=True
    ):
        if value is not None:
            rows.append(("validation", network, value, None))
    for network, record in zip(
        NETWORKS, (content.evaluation_base, content.evaluation), strict=True
    ):
        if record is not None:
            rows.append((record.split, network, record.top1, record.top1_interval))
    lowest = min([value for _, _, value, _ in rows] + [i[0] for *_, i in rows if i] + [1.0])
    return {"rows": rows, "start": min(0.9, max(0.0, math.floor(lowest * 10 - 0.5) / 10))}


# ---------------------------------------------------------------------------- words


def headline(content: AtlasContent) -> list[str]:
    """How good it is and what changed, as sentences with figures."""
    sentences = _accuracy_told(content)
    if content.comparison is not None:
        sentences += _change_told(content.comparison)
        return sentences or ["No layer was compared."]
    return sentences or ["Nothing was evaluated or compared yet."]


def _accuracy_told(content: AtlasContent) -> list[str]:
    after, before = content.evaluation, content.evaluation_base
    if after is not None and before is not None:
        moved = _moved(f"the {after.n:,} {after.split} pictures", before.top1, after.top1)
        return [moved + _gain_told(after.gain) + "."]
    if after is not None:
        return [f"{percent(after.top1)} of the {after.n:,} {after.split} pictures are recognised."]
    if content.validation_before is not None and content.validation_after is not None:
        moved = _moved(
            "the validation pictures", content.validation_before, content.validation_after
        )
        return [moved + "."]
    return []


def _gain_told(gain: PairedDifference | None) -> str:
    if gain is None:
        return ""
    low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in gain.interval)
    return f" (paired 95% interval of the gain: {low} to {high} points)"


def _change_told(comparison: Comparison) -> list[str]:
    sentences = []
    layers = comparison.layers
    frozen = [layer for layer in layers if layer.identical]
    drawn = [layer for layer in layers if not layer.identical and layer.channels]
    channels = [channel for layer in drawn for channel in layer.channels]
    if channels:
        changed = sum(channel.changed for channel in channels)
        sentences.append(
            f"{changed or 'None'} of the {len(channels)} channels compared changed more than drawing "
            "the same channel twice changes it, at a false discovery rate of "
            f"{percent(comparison.fdr, 0)}."
        )
        most = max(
            drawn, key=lambda layer: sum(c.changed for c in layer.channels) / len(layer.channels)
        )
        share = sum(channel.changed for channel in most.channels)
        if share and len(drawn) > 1:
            sentences.append(
                f"The change is widest in {most.layer}: {share} of {len(most.channels)} channels."
            )
    if frozen:
        names = [layer.layer for layer in frozen]
        listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
        if len(names) > 4:
            listed = f"{len(names)} layers, up to {names[-1]},"
        verb = "was" if len(names) == 1 else "were"
        sentences.append(f"{listed} {verb} frozen: bit-identical in both networks.")
    return sentences


def _moved(pictures: str, before: float, after: float) -> str:
    start, end = percent(before), percent(after)
    if start == end:
        return f"Tuning left accuracy on {pictures} at {end}"
    verb = "lifted" if after > before else "lowered"
    return f"Tuning {verb} accuracy on {pictures} from {start} to {end}"
