"""An evaluation in words: what the command line prints and pages repeat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from transferscope.evaluation.calibration import LEAST_EVIDENCE, Calibration
from transferscope.evaluation.class_size import SizeTrend
from transferscope.evaluation.detection import Detection
from transferscope.evaluation.gap import gap_sentences
from transferscope.evaluation.groups import GroupStudy, group_sentences
from transferscope.evaluation.paired import PairedDifference
from transferscope.evaluation.selective import Operating
from transferscope.evaluation.strangers import SCORES, allowance
from transferscope.evaluation.tta import ViewsGain
from transferscope.wording import counted

if TYPE_CHECKING:
    from transferscope.evaluation.metrics import Evaluation

_SUREST = 5  # errors named in a sentence
_CALLED = 5  # classes that strangers are taken for
_SUSPECTS = 5  # training pictures named in a sentence


def tells_top5(result: Evaluation) -> bool:
    """Whether top-5 says anything: of five classes, all are among the five."""
    return len(result.per_class) > 5 or result.top5 < 1


def measure_rows(result: Evaluation, *, look_alikes: str = "") -> list[tuple[str, str, str]]:
    """Rows of measure, value, and how far it may be off.

    Args:
        result: the evaluation.
        look_alikes: names of the pairs that are counted as one class, for their row.
    """
    calibration = result.calibration
    low, high = calibration.band
    rows = [
        ("top-1", f"{result.top1:.2%}", _between(result, "top1")),
        ("mean per class", f"{result.mean_per_class:.2%}", _between(result, "mean_per_class")),
        ("macro F1", f"{result.macro_f1:.2%}", _between(result, "macro_f1")),
        ("cross-entropy, nats", f"{result.nll:.4f}", _between(result, "nll")),
        ("  before temperature", f"{calibration.nll_before:.4f}", ""),
        (
            "calibration error",
            f"{result.ece:.2%}",
            f"a perfectly calibrated one would show {low:.2%} to {high:.2%} (95%)",
        ),
        ("  before temperature", f"{calibration.ece_before:.2%}", ""),
    ]
    if tells_top5(result):
        rows.insert(1, ("top-5", f"{result.top5:.2%}", _between(result, "top5")))
    if result.confusable is not None:
        rows.insert(1, ("top-1, look-alikes as one", f"{result.confusable:.2%}", look_alikes))
    return rows


def summary_sentences(result: Evaluation) -> list[str]:
    """What was found beside the figures, a sentence each."""
    sentences = [difference_sentence(result.gain)] if result.gain else []
    if result.chosen_on is not None and (little := evidence_sentence(result.chosen_on)):
        sentences.append(little)
    if result.gap:
        sentences += gap_sentences(result.gap, split=result.split)
    if result.seen:
        sentences.append(
            f"{result.seen} pictures were left out: their bytes were trained or chosen on."
        )
    if result.excluded:
        sentences.append(f"{result.excluded} files were left out: they could not be used.")
    useful = [one for one in result.abstention.operating if one.coverage < 1]
    sentences += threshold_sentences(useful, chosen_on=result.chosen_on)
    if result.surest_errors:
        sentences.append(errors_sentence(result))
    if result.probable_label_errors is not None:
        sentences.append(label_errors_sentence(result))
    if result.trend:
        sentences.append(trend_sentence(result.trend))
    if result.group_test:
        study = GroupStudy(result.groups, result.worst_group, result.group_test)
        sentences += group_sentences(study)
    if result.views:
        sentences.append(views_sentence(result.views))
    if result.against:
        sentences.append(difference_sentence(result.against))
    if result.strangers:
        sentences += detection_sentences(result.strangers)
    return sentences


def evidence_sentence(n: int) -> str | None:
    """How little rests on so few validation pictures; None where there are enough."""
    if n >= LEAST_EVIDENCE:
        return None
    return (
        f"Epoch and strategy were chosen on {n} validation picture{'s' * (n != 1)}, and that is little: chance "
        f"decides much of it. The temperature stays 1, and no threshold is proposed, below {LEAST_EVIDENCE} "
        "pictures; add validation pictures, or give them a larger --ratio."
    )


def label_errors_sentence(result: Evaluation) -> str:
    """How many training labels are probably wrong, and the surest of them."""
    suspects = result.label_suspects
    if not suspects:
        return "No training label is probably wrong."
    first = "; ".join(
        f"{one.path} ({one.label}, taken for {one.predicted})" for one in suspects[:_SUSPECTS]
    )
    many = f"{len(suspects)} training labels are" if len(suspects) > 1 else "1 training label is"
    rest = f", and {len(suspects) - _SUSPECTS} more" if len(suspects) > _SUSPECTS else ""
    return f"{many} probably wrong; look before changing one: {first}{rest}. --json and study.csv list all."


def errors_sentence(result: Evaluation) -> str:
    """The errors that the classifier was surest of."""
    surest = result.surest_errors[:_SUREST]
    named = "; ".join(
        f"{one.path} ({one.label}, taken for {one.predicted}, {one.probability:.1%})"
        for one in surest
    )
    wrong = result.n - round(result.n * result.top1)
    return f"The surest of {wrong:,} error{'s' * (wrong != 1)}: {named}. study.csv and the atlas have all."


def threshold_sentences(found: Sequence[Operating], *, chosen_on: int | None = None) -> list[str]:
    """What minimum confidences do, a sentence each; one that serves several targets is told once."""
    by_threshold: dict[float, list[Operating]] = {}
    for one in found:
        by_threshold.setdefault(one.min_confidence, []).append(one)
    return [
        threshold_sentence(
            same[0], chosen_on=chosen_on, wanted=" and ".join(f"{one.wanted:.0%}" for one in same)
        )
        for same in by_threshold.values()
    ]


def threshold_sentence(
    one: Operating, *, chosen_on: int | None = None, wanted: str | None = None
) -> str:
    """What a minimum confidence does.

    Args:
        one: the threshold.
        chosen_on: number of validation pictures that it was chosen on.
        wanted: the shares that it was chosen for, in words; None: its own.
    """
    wanted = wanted or f"{one.wanted:.0%}"
    number = "" if chosen_on is None else f"{chosen_on:,} pictures of "
    kept = f"{one.coverage:.1%} of the pictures"
    right = "none" if one.accuracy is None else f"{one.accuracy:.1%} of them right"
    return (
        f"With --min-confidence {one.min_confidence:.3f}, chosen on {number}validation for {wanted}, "
        f"it answers {kept}, {right}."
    )


def trend_sentence(trend: SizeTrend) -> str:
    """Whether larger classes are recognised better."""
    low, high = trend.interval
    return (
        "Where a class has twice the training pictures, its odds of being recognised are "
        f"{trend.odds_ratio:.2f} times as high (95% interval {low:.2f} to {high:.2f})"
        + ("." if trend.clear else ": no clear trend.")
    )


def views_sentence(views: ViewsGain) -> str:
    """What test-time augmentation gains and costs."""
    low, high = views.interval
    return (
        f"Averaged over {views.views} views: {views.top1:.2%}, {views.gain:+.2%} (95% interval {low:+.2%} to "
        f"{high:+.2%}), in {views.cost:.1f} times the time."
    )


def detection_sentences(found: Detection) -> list[str]:
    """How well strangers are told."""
    said = []
    if found.caught is None or found.false_alarms is None:
        said.append(allowance(found.allowed, found.validation).sentence)
    else:
        said.append(
            f"Of {counted(found.n, 'stranger')} in {found.name}, {_share(found.caught, found.caught_interval)} "
            f"are called so; of {counted(found.own, 'picture')} of the {found.split} split, "
            f"{_share(found.false_alarms, found.false_alarms_interval)} are, with {found.allowed:.1%} allowed "
            f"on {counted(found.validation, 'validation picture')}."
        )
    if found.drifted:
        said.append(
            f"More {found.split} pictures seem strange than chance explains: validation is more like training "
            "than they are. Lookalikes in training, pictures from elsewhere or of another time do that; "
            "inspect tells lookalikes."
        )
    low, high = found.auroc_interval
    said.append(
        f"A picture of the classes is more familiar than a stranger {found.auroc:.1%} of the time (AUROC "
        f"{found.auroc:.3f}, 95% interval {low:.3f} to {high:.3f}), by {SCORES[found.score].title}."
    )
    if found.called:
        first = ", ".join(f"{name} {n}" for name, n in [*found.called.items()][:_CALLED])
        said.append(f"Without this they would be called {first}.")
    if found.seen:
        said.append(
            f"Left out of {found.name} because they are the run's own pictures: {found.seen}."
        )
    if found.excluded:
        said.append(f"Left out of {found.name} because they cannot be read: {found.excluded}.")
    return said


def _share(value: float, interval: tuple[float, float] | None) -> str:
    low, high = interval or (value, value)
    return f"{value:.1%} (95% interval {low:.1%} to {high:.1%})"


def calibration_heading(calibration: Calibration) -> tuple[str, str]:
    """The calibration error before and after the temperature, and whether chance explains it."""
    low, high = calibration.band
    verdict = "inside" if calibration.within_chance else "above"
    if calibration.ece < low:
        verdict = "below"
    return (
        f"Calibration error {calibration.ece:.1%}; before the temperature of "
        f"{calibration.temperature:.2f}: {calibration.ece_before:.1%}.",
        f"By chance a perfectly calibrated one would show {low:.1%} to {high:.1%}: this is {verdict}.",
    )


def difference_sentence(found: PairedDifference) -> str:
    """How two runs differ."""
    low, high = found.interval
    return (
        f"{found.first} {found.top1:.2%}, {found.second} {found.second_top1:.2%} on the same {found.n:,} "
        f"pictures: {found.difference:+.2%} (95% interval {low:+.2%} to {high:+.2%}, paired bootstrap). "
        f"{found.only_first} are right in the first alone, {found.only_second} in the second alone (McNemar "
        f"p = {found.p:.2g}); {len(found.disagreements)} are answered differently."
        + (f" {found.left_out} were left out as not new to the second." if found.left_out else "")
    )


def _between(result: Evaluation, name: str) -> str:
    one = result.intervals[name]
    digits = ".4f" if name == "nll" else ".1%"
    if f"{one.low:{digits}}" == f"{one.high:{digits}}":
        return "no interval: every picture has the same figure, and these say nothing of others"
    ends = f"{one.low:{digits}} to {one.high:{digits}}"
    return f"95% interval {ends} ({one.method})"
