"""The atlas's page on the evaluation: figures, tables and pictures chosen from the records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from markupsafe import Markup

from transferscope.evaluation.gap import gap_sentences
from transferscope.evaluation.groups import GroupStudy, group_rows, group_sentences
from transferscope.evaluation.metrics import Confusion, Evaluation
from transferscope.evaluation.mistakes import error_study
from transferscope.evaluation.paired import Disagreement, PairedDifference
from transferscope.evaluation.predictions import Predictions
from transferscope.evaluation.sentences import difference_sentence, tells_top5, views_sentence
from transferscope.report.figures import classes, evaluation
from transferscope.report.figures.groups import groups_figure
from transferscope.report.pages.content import AtlasContent, OtherSet
from transferscope.report.pages.registry import Section, page
from transferscope.report.pages.site import Site
from transferscope.wording import number, percent, span

_WORST = 18  # pictures of each gallery shown
_UNCERTAIN = 12
_SUSPECTS = 24
_DISAGREED = 12  # of those that one run alone has right, of each run
_PAIRS = 8  # confused pairs shown with pictures
_PER_PAIR = 4  # pictures of each


Words = Callable[[float | None], str]


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
    if result is None and not content.strips and not content.others:
        return None
    before = content.evaluation_base if content.evaluation_base != result else None
    predictions = content.predictions if content.predictions and content.predictions.paths else None
    networks = [one for one in (before, result) if one]
    values = {
        "before": before,
        "networks_shown": ("base", "tuned") if before else ("tuned",),
        "measures": _measures(networks) if result else (),
        "views": views_sentence(result.views) if result and result.views else None,
        "against": difference_sentence(result.against) if result and result.against else None,
        "gap": gap_sentences(result.gap, split=result.split) if result and result.gap else (),
        **_groups(result),
        "wrong": int((~predictions.right).sum()) if predictions else 0,
        "others": [_other_set(one, site) for one in content.others],
        "reordered": len(predictions.classes) > classes.NUMBERED if predictions else False,
    }
    figures = _figures(result, before, predictions)
    return Section(values | figures | _galleries(content, predictions, site))


def _groups(result: Evaluation | None) -> dict[str, Any]:
    """Sentences and table of accuracy by group, where there are groups."""
    if result is None or result.group_test is None:
        return {"group_sentences": (), "group_rows": ()}
    study = GroupStudy(result.groups, result.worst_group, result.group_test)
    return {"group_sentences": group_sentences(study), "group_rows": group_rows(result.groups)}


def _other_set(other: OtherSet, site: Site) -> dict[str, Any]:
    """Another set's figures, and its surest errors with their pictures where these are shown."""
    worst = other.study.worst[:_WORST] if other.study and site.pictures else ()
    wrong = round(other.evaluation.n * (1 - other.evaluation.top1))
    return {
        "name": other.name,
        "root": other.root,
        "record": other.evaluation,
        "worst": worst,
        "wrong": wrong,
    }


def _figures(
    result: Evaluation | None, before: Evaluation | None, predictions: Predictions | None
) -> dict[str, Markup | None]:
    """SVG by the template's name; None where there is nothing to draw."""
    svg: dict[str, str | None] = dict.fromkeys(
        ("calibration", "coverage", "per_class", "trend", "groups")
    )
    if result is not None:
        svg["calibration"] = evaluation.reliability_figure(result.calibration)
        svg["coverage"] = evaluation.coverage_figure(result.abstention)
        if result.per_class:
            svg["per_class"] = classes.per_class_figure(result, base=before)
        if result.trend is not None:
            svg["trend"] = classes.size_trend_figure(result)
        if result.groups:
            svg["groups"] = groups_figure(result)
    svg["confusion"] = classes.confusion_figure(predictions) if predictions else None
    return {name: Markup(text) if text else None for name, text in svg.items()}


def _measures(networks: Sequence[Evaluation]) -> list[Measure]:
    """Each figure with its interval, of one network or of both."""
    share = partial(percent, digits=2)

    def row(name: str, field: str, words: Words = share, ends: Words = percent) -> Measure:
        intervals = [one.intervals[field] for one in networks]
        values = tuple(
            (words(getattr(one, field)), _ends(ends(interval.low), ends(interval.high)))
            for one, interval in zip(networks, intervals, strict=True)
        )
        return Measure(name, values, intervals[-1].method)

    bands = tuple((share(one.ece), span(*one.calibration.band)) for one in networks)
    alike = tuple((share(one.confusable), "") for one in networks)
    look_alikes = Measure("Top-1, look-alikes as one", alike, "")
    return [
        row("Top-1", "top1"),
        *([look_alikes] if networks[-1].confusable is not None else []),
        *([row("Top-5", "top5")] if tells_top5(networks[-1]) else []),
        row("Mean of classes", "mean_per_class"),
        row("Macro F1", "macro_f1"),
        row("Cross-entropy, nats", "nll", partial(number, digits=4), partial(number, digits=3)),
        Measure("Calibration error", bands, "what chance alone would show"),
    ]


def _ends(low: str, high: str) -> str:
    """An interval, or a dash where all that was drawn is alike."""
    return f"{low} – {high}" if low != high else "–"


# ---------------------------------------------------------------------------- pictures


def _galleries(
    content: AtlasContent, predictions: Predictions | None, site: Site
) -> dict[str, Any]:
    """Which errors, doubts and differences are shown with pictures; without these none are."""
    result, study = content.evaluation, content.study
    if study is None and predictions is not None:
        study = error_study(predictions, split=result.split if result is not None else "test")
    doubts = study if site.pictures else None
    against = result.against if result is not None and site.pictures else None
    return {
        "study": study,
        "confused": [
            (pair, _pair_paths(pair, predictions) if predictions and site.pictures else [])
            for pair in _pairs(result)
        ],
        "worst": doubts.worst[:_WORST] if doubts else (),
        "uncertain": doubts.uncertain[:_UNCERTAIN] if doubts else (),
        "suspects": doubts.suspects[: min(_SUSPECTS, doubts.probable)] if doubts else (),
        "disagreements": _alone_right(against) if against is not None else [],
    }


def _alone_right(against: PairedDifference) -> list[tuple[str, int, list[Disagreement]]]:
    """For each of the two runs: its name, how many pictures it alone has right, and the first of them."""
    first = [one for one in against.disagreements if one.first == one.label]
    second = [one for one in against.disagreements if one.second == one.label]
    runs = ((against.first, first), (against.second, second))
    return [(name, len(ones), ones[:_DISAGREED]) for name, ones in runs if ones]


def _pairs(result: Evaluation | None) -> Sequence[Confusion]:
    pairs = result.confusions if result is not None else ()
    return ([pair for pair in pairs if pair.n > 1] or pairs)[:_PAIRS]


def _pair_paths(pair: Confusion, predictions: Predictions) -> list[str]:
    """Pictures of the one class that were taken for the other, the surest first."""
    if pair.label not in predictions.classes:
        return []
    label, said = (predictions.classes.index(name) for name in (pair.label, pair.prediction))
    rows = ((predictions.labels == label) & (predictions.predicted == said)).nonzero().flatten()
    sure = predictions.probabilities[rows, said]
    chosen = rows[sure.argsort(descending=True, stable=True)][:_PER_PAIR]
    return [predictions.paths[int(row)] for row in chosen]
