"""The four questions that a channel is asked, in a reader's words, and what its witnesses answered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from transferscope.comparison.change import LEARNED, LOOKS_DIFFERENT, MATTERS, MOVED, Witnessed
from transferscope.comparison.patching import ChannelEffect
from transferscope.comparison.records import Comparison
from transferscope.comparison.witnesses import WITNESSES
from transferscope.wording import number, signed


@dataclass(frozen=True)
class Question:
    """What a channel is asked.

    Attributes:
        slug: of its place on the method page.
        name: said of a channel of which it holds.
        absent: said of one of which it was not found to hold.
        witness: whose rows answer it.
        asks: the question.
        effect: what is measured.
        null: what the measure is held against.
        caution: what a yes does not mean.
    """

    slug: str
    name: str
    absent: str
    witness: str
    asks: str
    effect: str
    null: str
    caution: str


QUESTIONS = (
    Question(
        "moved",
        "moved",
        "not found to have moved",
        MOVED,
        "Does it answer held-out pictures differently?",
        "1 − r² of its mean responses to the same pictures, base against tuned: the share of their "
        "variance that a straight line does not explain.",
        "A margin of 0.01, up to which two networks count as equivalent.",
        "A network that was tuned on shuffled labels moves as far. Having moved is no sign of having "
        "learned.",
    ),
    Question(
        "learned",
        "learned",
        "not found to have learned",
        LEARNED,
        "Does it know more about the classes than before?",
        "The gain of class information: the share of the variance of its responses to held-out pictures "
        "that lies between the classes (epsilon squared, which corrects eta squared for chance), tuned "
        "minus base.",
        "The same gain in control transfers, and zero: the gain is above what the controls reach, and its "
        "95% interval is above zero. A channel that only loses less than the controls has not learned.",
        "That a channel learned does not say that the classifier uses it, nor that its drawing shows it.",
    ),
    Question(
        "matters",
        "matters",
        "not found to matter",
        MATTERS,
        "Would one miss the difference?",
        "The rise of the loss of the true class, in nats, when the channel gets base's activations on the "
        "same picture while all else stays tuned (patching).",
        "No rise, over pictures that are each their own control. Where channels are many, all are estimated "
        "to first order and those with the largest estimates are tested; which is which is said.",
        "Channels of a network tuned on shuffled labels would be missed too, as the rest of it was tuned to "
        "what they give. And one is replaced at a time: where others do the same work, none is missed.",
    ),
    Question(
        "looks-different",
        "looks different",
        "not found to look different",
        LOOKS_DIFFERENT,
        "Do its drawings show it?",
        "The squared distance of the two networks' mean drawings, judged by base's features, without bias, "
        "over drawings that start from the same seeds.",
        "The signs of the differences turned seed by seed: if both networks draw alike, a sign means "
        "nothing. Only drawings that ended “optimized” enter.",
        "Networks that were tuned on shuffled labels draw differently too. Few seeds find large "
        "differences alone.",
    ),
)
"""The four questions, in the order in which they are asked."""


@dataclass(frozen=True)
class WitnessWords:
    """How a witness's rows are said.

    Attributes:
        label: what its value is.
        unit: of the value.
        digits: decimals that it is said with.
        gain: the value may be a loss, and is said with its sign.
        tested: it has a p.
    """

    label: str
    unit: str
    digits: int = 2
    gain: bool = False
    tested: bool = True

    def say(self, value: float) -> str:
        """A value in its decimals, a dash for none."""
        return (signed if self.gain else number)(value, self.digits)


_WORDS: Mapping[str, WitnessWords] = {
    MOVED: WitnessWords("Responses", "1 − r²"),
    LEARNED: WitnessWords("Class information", "share of variance", gain=True),
    "mutual_information": WitnessWords("Mutual information", "nats", gain=True),
    "best_class_auc": WitnessWords("Best class", "AUC", gain=True),
    "exemplar_turnover": WitnessWords("Exemplars replaced", "share of the best tenth"),
    MATTERS: WitnessWords("Loss without it", "nats", 4, gain=True),
    LOOKS_DIFFERENT: WitnessWords("Drawings", "squared distance", 3, gain=True),
    "weight_change": WitnessWords("Weights", "relative change", tested=False),
}


def witness_words(name: str) -> WitnessWords:
    """Of a witness; of one that has none its name."""
    return _WORDS.get(name) or WitnessWords(name.replace("_", " ").capitalize(), "")


def effect_words(row: Witnessed) -> str:
    """A row's value as its witness says it."""
    return witness_words(row.witness).say(row.value)


def null_words(comparison: Comparison, witness: str) -> str:
    """What the null of a witness's rows is called."""
    known = WITNESSES.get(witness)
    if known is not None and known.margin is not None:
        return "margin"
    return "controls" if known is not None and comparison.controls else "no difference"


def null_of(row: Witnessed) -> float:
    """What a row's value is held against; 0 where it is held against nothing."""
    return row.null if math.isfinite(row.null) else 0.0


def excess_of(row: Witnessed | None) -> float | None:
    """A row's value less its null; None where it has none."""
    if row is None or not math.isfinite(row.value):
        return None
    return row.value - null_of(row)


@dataclass(frozen=True)
class Answer:
    """What a channel's witness says to a question.

    Attributes:
        question: that was asked.
        row: its figures; None: it was not asked.
        found: whether the answer is yes.
        estimated: its value is a first-order estimate, and was not tested.
    """

    question: Question
    row: Witnessed | None
    found: bool
    estimated: bool = False

    @property
    def words(self) -> str:
        """Yes, or that it was not found, tested or asked; never no."""
        if self.row is None:
            return "not asked"
        if self.estimated:
            return "estimated, not tested"
        return "yes" if self.found else "not found"


@dataclass(frozen=True)
class Answers:
    """A comparison's rows by channel.

    Attributes:
        comparison: whose they are.
        rows: (layer, channel) to witness to row.
        found: witness of a question to the (layer, channel) for which the answer is yes.
        largest: (layer, witness) to the largest distance of a channel's value from its null.
        effects: (layer, channel) to what setting it back to base does, where that was asked.
    """

    comparison: Comparison
    rows: Mapping[tuple[str, int], Mapping[str, Witnessed]]
    found: Mapping[str, frozenset[tuple[str, int]]]
    largest: Mapping[tuple[str, str], float]
    effects: Mapping[tuple[str, int], ChannelEffect]

    @classmethod
    def of(cls, comparison: Comparison) -> Answers:
        """All rows are gone through once."""
        rows: dict[tuple[str, int], dict[str, Witnessed]] = {}
        largest: dict[tuple[str, str], float] = {}
        for row in comparison.rows:
            rows.setdefault((row.layer, row.channel), {})[row.witness] = row
            place = row.layer, row.witness
            if math.isfinite(row.value):
                largest[place] = max(largest.get(place, 0.0), abs(excess_of(row) or 0.0))
        found = {
            question.witness: frozenset(
                (row.layer, row.channel) for row in comparison.found(question.witness)
            )
            for question in QUESTIONS
        }
        patched = comparison.patching.channels if comparison.patching else ()
        effects = {(one.layer, one.channel): one for one in patched}
        return cls(comparison, rows, found, largest, effects)

    def channel(self, layer: str, channel: int) -> tuple[Answer, ...]:
        """The answers of one channel to the four questions."""
        rows, effect = self.rows.get((layer, channel), {}), self.effects.get((layer, channel))
        return tuple(
            Answer(
                question,
                rows.get(question.witness) if self.asked(question) else None,
                (layer, channel) in self.found[question.witness],
                question.witness == MATTERS and effect is not None and not effect.exact,
            )
            for question in QUESTIONS
        )

    def rejected(self, row: Witnessed) -> bool:
        """Whether a row's null was rejected; of the classes' information: whether the channel learned."""
        if row.witness == LEARNED:
            return (row.layer, row.channel) in self.found[LEARNED]
        return row.q <= self.comparison.fdr

    def asked(self, question: Question) -> bool:
        """Whether a gain is held against anything: without controls nothing is said to have learned."""
        return question.witness != LEARNED or self.comparison.controls > 0

    def count(self, question: Question, layer: str) -> tuple[int, int] | None:
        """Channels of a layer for which the answer is yes, and how many were tested; None where none was."""
        rows = self.comparison.of_witness(question.witness, layer)
        if not self.asked(question) or not rows:
            return None
        found = sum(place[0] == layer for place in self.found[question.witness])
        return found, sum(not self._estimated(row) for row in rows)

    def _estimated(self, row: Witnessed) -> bool:
        effect = self.effects.get((row.layer, row.channel))
        return row.witness == MATTERS and effect is not None and not effect.exact
