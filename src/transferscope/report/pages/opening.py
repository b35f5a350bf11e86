"""The first screen of an atlas: how good it is, what it learned and where, how far it can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from transferscope.comparison.headline import sentences as comparison_sentences
from transferscope.report.figures.comparison import information_figure
from transferscope.report.figures.summary import Accuracy, accuracy_figure, trust_figure
from transferscope.wording import percent, span

if TYPE_CHECKING:
    from transferscope.comparison.records import Comparison
    from transferscope.evaluation.calibration import Calibration
    from transferscope.evaluation.metrics import Evaluation
    from transferscope.report.pages.content import AtlasContent


@dataclass(frozen=True)
class Card:
    """A question with its answer.

    Attributes:
        question: heading.
        answer: one sentence, or a few.
        figure: or None where there is nothing to draw.
        caption: how the figure was made.
        address: of the page that says more, None where there is none.
        more: words of the link.
        beside: further answers in a few words, (what, answer, page or None).
    """

    question: str
    answer: str
    figure: Markup | None
    caption: str
    address: str | None
    more: str
    beside: tuple[tuple[str, str, str | None], ...] = ()


def opening_cards(
    content: AtlasContent, accuracies: Sequence[Accuracy], start: float
) -> tuple[Card, ...]:
    """Three questions; what was not asked is called so, with the command that asks it."""
    return (
        _good(content, accuracies, start),
        _learned(content.comparison),
        _trusted(content),
    )


def _good(content: AtlasContent, accuracies: Sequence[Accuracy], start: float) -> Card:
    said = accuracy_sentences(content)
    figure = Markup(accuracy_figure(accuracies, start)) if accuracies else None
    caption = (
        "Before is a linear probe on the untuned backbone. A line is a 95% Wilson interval; a ring has "
        "none: that set chose the tuning."
    )
    return Card(
        "How good is it?",
        said[0] if said else "It was not evaluated: transferscope evaluate RUN does that.",
        figure,
        caption,
        "evaluation.html" if content.evaluation else None,
        "The evaluation",
    )


def _learned(comparison: Comparison | None) -> Card:
    question = "What did it learn, and where?"
    if comparison is None:
        asked = "Its channels were not compared: transferscope compare RUN does that."
        return Card(question, asked, None, "", None, "")
    said = comparison_sentences(comparison) or ["No layer was compared."]
    known = any(layer.information for layer in comparison.layers)
    caption = (
        f"What channels know about the classes, by layer from shallow to deep, on {comparison.pictures:,} "
        f"{comparison.split} pictures; a box is the middle half of a layer's channels"
    )
    controls = "; grey: the same recipe on shuffled labels." if comparison.controls else "."
    figure = Markup(information_figure(comparison)) if known else None
    return Card(question, said[0], figure, caption + controls, "#layers", "Layer by layer")


def _trusted(content: AtlasContent) -> Card:
    question, evaluation = "Can it be trusted?", content.evaluation
    if evaluation is None:
        return Card(question, "That takes an evaluation.", None, "", None, "")
    known = evaluation.calibration
    return Card(
        question,
        calibration_sentence(known),
        Markup(trust_figure(known)),
        f"On {evaluation.n:,} {evaluation.split} pictures; the area of a dot is its number of pictures, its "
        "line a 95% Wilson interval.",
        "evaluation.html",
        "Calibration, errors, doubts",
        _beside(content, evaluation),
    )


def _beside(
    content: AtlasContent, evaluation: Evaluation
) -> tuple[tuple[str, str, str | None], ...]:
    """Whether validation flatters, strangers are told, groups differ and shortcuts are taken; or not asked."""
    gap, strangers, shortcuts = evaluation.gap, content.strangers, content.shortcuts
    found: list[tuple[str, str, str | None]] = []
    if gap is not None:
        said = "no gap that chance does not explain"
        if not gap.by_chance:
            said = f"{100 * gap.difference:+.0f} points from validation".replace("-", "−")
        found.append(("Validation", said, "evaluation.html"))
    if strangers is None or strangers.caught is None or strangers.false_alarms is None:
        found.append(("Strangers", "not asked", None))
    else:
        caught, alarmed = percent(strangers.caught, 0), percent(strangers.false_alarms, 0)
        said = f"{caught} of {strangers.n:,} told, {alarmed} false alarms"
        found.append(("Strangers", said, "strangers.html"))
    if evaluation.worst_group is not None:
        worst = evaluation.groups[evaluation.worst_group]
        differ = evaluation.group_test is not None and evaluation.group_test.differ
        said = f"worst {percent(worst.accuracy, 0)}" if differ else "differ no more than by chance"
        found.append(("Groups", said, "evaluation.html"))
    if shortcuts is None:
        found.append(("Shortcuts", "not asked", None))
    else:
        alarms = len(shortcuts.alarms)
        said = "no alarm" if not alarms else f"{alarms} alarm" + ("s" if alarms > 1 else "")
        found.append(("Shortcuts", said, "shortcuts.html"))
    return tuple(found)


def calibration_sentence(known: Calibration) -> str:
    """Whether its probabilities mean what they say, as far as these pictures can tell."""
    off = percent(known.ece)
    band = span(*known.band)
    if known.within_chance:
        return (
            f"Its probabilities are off by {off} on average, which chance alone makes of a perfectly "
            f"calibrated classifier with so many pictures ({band})."
        )
    return (
        f"Its probabilities are off by {off} on average, more than chance makes of a calibrated classifier "
        f"({band}): do not take them at their word."
    )


def accuracy_sentences(content: AtlasContent) -> list[str]:
    """What tuning did to accuracy; none where nothing is known of it."""
    after, before = content.evaluation, content.evaluation_base
    if after is None:
        tuned, base = content.validation_after, content.validation_before
        if tuned is None or base is None:
            return []
        return [f"{_from_to('the validation pictures', base, tuned)}."]
    pictures = f"the {after.n:,} {after.split} pictures"
    if before is None:
        return [f"{percent(after.top1)} of {pictures} are recognised."]
    gain = ""
    if after.gain is not None:
        low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in after.gain.interval)
        gain = f" (paired 95% interval of the gain: {low} to {high} points)"
    return [f"{_from_to(pictures, before.top1, after.top1)}{gain}."]


def _from_to(pictures: str, before: float, after: float) -> str:
    start, end = percent(before), percent(after)
    if start == end:
        return f"Tuning left accuracy on {pictures} at {end}"
    verb = "lifted" if after > before else "lowered"
    return f"Tuning {verb} accuracy on {pictures} from {start} to {end}"
