"""What the atlas's page on evaluation shows: figures, tables and pictures chosen from the records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from transferscope.evaluation import (
    Confusion,
    Disagreement,
    Doubt,
    ErrorStudy,
    Evaluation,
    PairedDifference,
    Predictions,
    error_study,
)
from transferscope.evaluation.told import difference_told, views_told
from transferscope.report import evaluation_figures as figures
from transferscope.report.pages import PagePicture, number, percent

if TYPE_CHECKING:
    from transferscope.report.atlas import AtlasContent

Thumbnail = Callable[[str], PagePicture]

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


def evaluation_page(
    content: AtlasContent, *, thumbnail: Thumbnail, pictures: bool
) -> dict[str, Any]:
    """The template's values.

    Args:
        content: of the atlas, with an evaluation or strips.
        thumbnail: writes a picture of the data folder into the atlas.
        pictures: False: no gallery, so that no picture and no name of a file is in the page.
    """
    result = content.evaluation
    before = content.evaluation_base if content.evaluation_base != result else None
    values: dict[str, Any] = {
        "before": before,
        "networks_shown": ("base", "tuned") if before else ("tuned",),
        "measures": (),
        "calibration": None,
        "coverage": None,
        "trend": None,
        "per_class": None,
        "confusion": None,
        "reordered": False,
        "views": None,
        "against": None,
        "wrong": 0,
    }
    if result is not None:
        values |= {
            "measures": _measures([one for one in (before, result) if one is not None]),
            "calibration": Markup(figures.reliability_figure(result.calibration)),
            "coverage": Markup(figures.coverage_figure(result.abstention)),
            "views": views_told(result.views) if result.views else None,
            "against": difference_told(result.against) if result.against else None,
        }
        if result.per_class:
            values["per_class"] = Markup(figures.per_class_figure(result, base=before))
        if result.trend is not None:
            values["trend"] = Markup(figures.size_trend_figure(result))
    predictions = content.predictions if content.predictions and content.predictions.paths else None
    if predictions is not None:
        values["confusion"] = Markup(figures.confusion_figure(predictions))
        values["reordered"] = len(predictions.classes) > figures.NUMBERED
        values["wrong"] = int((~predictions.right).sum())
    return values | _galleries(content, predictions, thumbnail if pictures else None)


def _measures(networks: Sequence[Evaluation]) -> list[Measure]:
    """Each figure with its interval, of one network or of both."""
    rows = []
    for name, field in (
        ("Top-1", "top1"),
        ("Top-5", "top5"),
        ("Mean of classes", "mean_per_class"),
        ("Macro F1", "macro_f1"),
    ):
        values = tuple(
            (percent(getattr(one, field), 2), _ends(one, field, percent)) for one in networks
        )
        rows.append(Measure(name, values, networks[-1].intervals[field].method))
    if networks[-1].confusable is not None:
        values = tuple((percent(one.confusable, 2), "") for one in networks)
        rows.insert(1, Measure("Top-1, look-alikes as one", values, ""))
    values = tuple(
        (number(one.nll, 4), _ends(one, "nll", lambda value: number(value, 3))) for one in networks
    )
    rows.append(Measure("Cross-entropy, nats", values, networks[-1].intervals["nll"].method))
    values = tuple(
        (percent(one.ece, 2), " – ".join(percent(end) for end in one.calibration.band))
        for one in networks
    )
    rows.append(Measure("Calibration error", values, "what chance alone would show"))
    return rows


def _ends(one: Evaluation, field: str, words: Callable[[float], str]) -> str:
    interval = one.intervals[field]
    return f"{words(interval.low)} – {words(interval.high)}"


# ---------------------------------------------------------------------------- pictures


def _galleries(
    content: AtlasContent, predictions: Predictions | None, thumbnail: Thumbnail | None
) -> dict[str, Any]:
    """Pictures of errors, doubts and differences; without thumbnails only the confused pairs' names."""
    study = content.study
    if study is None and predictions is not None:
        split = content.evaluation.split if content.evaluation is not None else "test"
        study = error_study(predictions, split=split)
    against = content.evaluation.against if content.evaluation is not None else None
    found: dict[str, Any] = {
        "study": study,
        "worst": [],
        "uncertain": [],
        "suspects": [],
        "disagreements": [],
        "confused": [
            (pair, _pair_pictures(pair, predictions, thumbnail))
            for pair in _pairs(content.evaluation)
        ],
    }
    if thumbnail is None:
        return found
    if study is not None:
        found |= _study_galleries(study, thumbnail)
    if against is not None:
        found["disagreements"] = _disagreements(against, thumbnail)
    return found


def _study_galleries(study: ErrorStudy, thumbnail: Thumbnail) -> dict[str, list[Shown]]:
    def gallery(doubts: Iterable[Doubt]) -> list[Shown]:
        return [_doubt(doubt, thumbnail) for doubt in doubts]

    return {
        "worst": gallery(study.worst[:_WORST]),
        "uncertain": gallery(study.uncertain[:_UNCERTAIN]),
        "suspects": [
            _suspect(doubt, thumbnail) for doubt in study.suspects[: min(_SUSPECTS, study.probable)]
        ],
    }


def _doubt(doubt: Doubt, thumbnail: Thumbnail) -> Shown:
    says: tuple[tuple[str, str, float | None], ...] = (("", doubt.predicted, doubt.probability),)
    if doubt.wrong:
        says += (("is", doubt.label, doubt.probability_of_label),)
    return Shown(thumbnail(doubt.path), doubt.path, says)


def _suspect(doubt: Doubt, thumbnail: Thumbnail) -> Shown:
    says = (
        ("labelled", doubt.label, doubt.probability_of_label),
        ("looks like", doubt.predicted, doubt.probability),
    )
    return Shown(thumbnail(doubt.path), doubt.path, says)


def _disagreements(
    against: PairedDifference, thumbnail: Thumbnail
) -> list[tuple[str, int, list[Shown]]]:
    """For each of the two runs: its name, how many pictures it alone has right, and the first of them."""
    names = (against.first, against.second)
    first = [one for one in against.disagreements if one.first == one.label]
    second = [one for one in against.disagreements if one.second == one.label]
    return [
        (name, len(ones), [_disagreement(one, names, thumbnail) for one in ones[:_DISAGREED]])
        for name, ones in zip(names, (first, second), strict=True)
        if ones
    ]


def _disagreement(one: Disagreement, names: tuple[str, str], thumbnail: Thumbnail) -> Shown:
    says = (
        (f"{names[0]}:", one.first, one.first_probability),
        (f"{names[1]}:", one.second, one.second_probability),
        ("is", one.label, None),
    )
    return Shown(thumbnail(one.path), one.path, says)


def _pairs(evaluation: Evaluation | None) -> Sequence[Confusion]:
    pairs = evaluation.confusions if evaluation is not None else ()
    return ([pair for pair in pairs if pair.n > 1] or pairs)[:_PAIRS]


def _pair_pictures(
    pair: Confusion, predictions: Predictions | None, thumbnail: Thumbnail | None
) -> list[tuple[str, PagePicture]]:
    """Pictures of the one class that were taken for the other, the surest first."""
    if predictions is None or thumbnail is None or pair.label not in predictions.classes:
        return []
    label, said = (predictions.classes.index(name) for name in (pair.label, pair.prediction))
    rows = ((predictions.labels == label) & (predictions.predicted == said)).nonzero().flatten()
    sure = predictions.probabilities[rows, said]
    chosen = rows[sure.argsort(descending=True, stable=True)][:_PER_PAIR]
    paths = [predictions.paths[int(row)] for row in chosen]
    return [(path, thumbnail(path)) for path in paths]
