"""The atlas's page on the evaluation: figures, tables and pictures chosen from the records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from transferscope.evaluation.metrics import Confusion, Evaluation
from transferscope.evaluation.mistakes import Doubt, error_study
from transferscope.evaluation.paired import Disagreement, PairedDifference
from transferscope.evaluation.predictions import Predictions
from transferscope.evaluation.sentences import difference_told, views_told
from transferscope.report.figures import classes, evaluation
from transferscope.report.pages.content import AtlasContent
from transferscope.report.pages.registry import Section, page
from transferscope.report.pages.site import PagePicture, Site
from transferscope.wording import number, percent, span

_WORST = 18  # pictures of each gallery shown
_UNCERTAIN = 12
_SUSPECTS = 24
_DISAGREED = 12  # of those that one run alone has right, of each run
_PAIRS = 8  # confused pairs shown with pictures
_PER_PAIR = 4  # pictures of each


@dataclass(frozen=True)
class Shown:
    """A picture of a gallery with what is said of it.

    Attributes:
        picture: of it.
        path: its file.
        says: rows of (word before, class, probability or None).
    """

    picture: PagePicture
    path: str
    says: tuple[tuple[str, str, float | None], ...]


@dataclass(frozen=True)
class Measure:
    """A row of the table of figures: (value, interval) of each network, and the interval's method."""

    name: str
    values: tuple[tuple[str, str], ...]
    method: str


@page("evaluation", title="Evaluation", order=30)
def evaluation_page(content: AtlasContent, site: Site) -> Section | None:
    """How good the classifier is, how far to trust it, where it errs; of strips, how many it reads."""
    result = content.evaluation
    if result is None and not content.strips:
        return None
    before = content.evaluation_base if content.evaluation_base != result else None
    predictions = content.predictions if content.predictions and content.predictions.paths else None
    values = {
        "before": before,
        "networks_shown": ("base", "tuned") if before else ("tuned",),
        "measures": _measures([one for one in (before, result) if one]) if result else (),
        "views": views_told(result.views) if result and result.views else None,
        "against": difference_told(result.against) if result and result.against else None,
        "wrong": int((~predictions.right).sum()) if predictions else 0,
        "reordered": len(predictions.classes) > classes.NUMBERED if predictions else False,
    }
    return Section(
        values | _figures(result, before, predictions) | _galleries(content, predictions, site)
    )


def _figures(
    result: Evaluation | None, before: Evaluation | None, predictions: Predictions | None
) -> dict[str, Markup | None]:
    """SVG by the template's name; None where there is nothing to draw."""
    svg: dict[str, str | None] = dict.fromkeys(("calibration", "coverage", "per_class", "trend"))
    if result is not None:
        svg["calibration"] = evaluation.reliability_figure(result.calibration)
        svg["coverage"] = evaluation.coverage_figure(result.abstention)
        if result.per_class:
            svg["per_class"] = classes.per_class_figure(result, base=before)
        if result.trend is not None:
            svg["trend"] = classes.size_trend_figure(result)
    svg["confusion"] = classes.confusion_figure(predictions) if predictions else None
    return {name: Markup(text) if text else None for name, text in svg.items()}


def _measures(networks: Sequence[Evaluation]) -> list[Measure]:
    """Each figure with its interval, of one network or of both."""
    last = networks[-1]

    def row(
        name: str, field: str, words: Callable[[float], str], ends: Callable[[float], str]
    ) -> Measure:
        values = []
        for one in networks:
            interval = one.intervals[field]
            values.append(
                (words(getattr(one, field)), f"{ends(interval.low)} – {ends(interval.high)}")
            )
        return Measure(name, tuple(values), last.intervals[field].method)

    def share(value: float) -> str:
        return percent(value, 2)

    rows = [
        row("Top-1", "top1", share, percent),
        row("Top-5", "top5", share, percent),
        row("Mean of classes", "mean_per_class", share, percent),
        row("Macro F1", "macro_f1", share, percent),
        row("Cross-entropy, nats", "nll", lambda v: number(v, 4), lambda v: number(v, 3)),
        Measure(
            "Calibration error",
            tuple((share(one.ece), span(*one.calibration.band)) for one in networks),
            "what chance alone would show",
        ),
    ]
    if last.confusable is not None:
        alike = tuple((percent(one.confusable, 2), "") for one in networks)
        rows.insert(1, Measure("Top-1, look-alikes as one", alike, ""))
    return rows


# ---------------------------------------------------------------------------- pictures


def _galleries(
    content: AtlasContent, predictions: Predictions | None, site: Site
) -> dict[str, Any]:
    """Pictures of errors, doubts and differences; without pictures only the confused pairs' names."""
    result, study = content.evaluation, content.study
    if study is None and predictions is not None:
        study = error_study(predictions, split=result.split if result is not None else "test")
    doubts = study if site.pictures else None
    against = result.against if result is not None and site.pictures else None
    probable = min(_SUSPECTS, doubts.probable) if doubts else 0
    return {
        "study": study,
        "confused": [(pair, _pair_pictures(pair, predictions, site)) for pair in _pairs(result)],
        "worst": [_doubt(one, site) for one in doubts.worst[:_WORST]] if doubts else [],
        "uncertain": [_doubt(one, site) for one in doubts.uncertain[:_UNCERTAIN]] if doubts else [],
        "suspects": [_suspect(one, site) for one in doubts.suspects[:probable]] if doubts else [],
        "disagreements": _disagreements(against, site) if against is not None else [],
    }


def _doubt(doubt: Doubt, site: Site) -> Shown:
    says: tuple[tuple[str, str, float | None], ...] = (("", doubt.predicted, doubt.probability),)
    if doubt.wrong:
        says += (("is", doubt.label, doubt.probability_of_label),)
    return Shown(site.thumbnail(doubt.path), doubt.path, says)


def _suspect(doubt: Doubt, site: Site) -> Shown:
    says = (
        ("labelled", doubt.label, doubt.probability_of_label),
        ("looks like", doubt.predicted, doubt.probability),
    )
    return Shown(site.thumbnail(doubt.path), doubt.path, says)


def _disagreements(against: PairedDifference, site: Site) -> list[tuple[str, int, list[Shown]]]:
    """For each of the two runs: its name, how many pictures it alone has right, and the first of them."""
    names = (against.first, against.second)
    first = [one for one in against.disagreements if one.first == one.label]
    second = [one for one in against.disagreements if one.second == one.label]
    return [
        (name, len(ones), [_disagreement(one, names, site) for one in ones[:_DISAGREED]])
        for name, ones in zip(names, (first, second), strict=True)
        if ones
    ]


def _disagreement(one: Disagreement, names: tuple[str, str], site: Site) -> Shown:
    says = (
        (f"{names[0]}:", one.first, one.first_probability),
        (f"{names[1]}:", one.second, one.second_probability),
        ("is", one.label, None),
    )
    return Shown(site.thumbnail(one.path), one.path, says)


def _pairs(result: Evaluation | None) -> Sequence[Confusion]:
    pairs = result.confusions if result is not None else ()
    return ([pair for pair in pairs if pair.n > 1] or pairs)[:_PAIRS]


def _pair_pictures(
    pair: Confusion, predictions: Predictions | None, site: Site
) -> list[tuple[str, PagePicture]]:
    """Pictures of the one class that were taken for the other, the surest first."""
    if predictions is None or not site.pictures or pair.label not in predictions.classes:
        return []
    label, said = (predictions.classes.index(name) for name in (pair.label, pair.prediction))
    rows = ((predictions.labels == label) & (predictions.predicted == said)).nonzero().flatten()
    sure = predictions.probabilities[rows, said]
    chosen = rows[sure.argsort(descending=True, stable=True)][:_PER_PAIR]
    paths = [predictions.paths[int(row)] for row in chosen]
    return [(path, site.thumbnail(path)) for path in paths]
