"""What a stranger has to know of a classifier before using it: for the Hub, and as a page.

A card is made of sections of plain text. Each way of showing it escapes that text for itself: the
Markdown below, and the page's template.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from transferscope.evaluation.metrics import ClassResult, Evaluation
from transferscope.evaluation.sentences import measure_rows, summary_sentences
from transferscope.wording import counted, listed

Library = Literal["timm", "transferscope"]

_CLASSES = 200  # classes listed at most
_HARDEST = 10
_CONFUSIONS = 10
_NAMED = 8  # classes named in a sentence at most
_FEW = 20  # pictures below which a class is called small
_LOW = 0.8  # accuracy below which a class is called hard

_WITH_TRANSFERSCOPE = (
    "With Transferscope, which also reads and prepares the pictures:",
    """import transferscope as ts

classifier = ts.load_hub("FOLDER")  # or USER/NAME with download=True
for answer in ts.predict(classifier, ["picture.jpg"]):
    print(answer.path, answer.top)""",
)
_WITH_TIMM = (
    "With timm; its logits are before the temperature:",
    """import timm

network = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
probabilities = (network(pictures) / TEMPERATURE).softmax(-1)""",
)
_WITH_ONNX = (
    "As ONNX, written by 'transferscope export RUN --format onnx --out model.onnx'; normalisation and "
    "temperature are inside:",
    """import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
probabilities, logits = session.run(None, {"pictures": pictures})""",
)


@dataclass(frozen=True)
class ModelCard:
    """What is known of a classifier. What is None or missing is said to be unknown.

    Attributes:
        name: of the classifier.
        backbone: that it was tuned from.
        classes: their names, in the classifier's order.
        data: name of the pictures' folder or set.
        counts: split to class to number of pictures.
        split: how the pictures were split, as a sentence.
        excluded: files that could not be used.
        copies: pictures left out because another has the same bytes.
        near_duplicates: pairs of look-alike pictures across splits; None: not looked for.
        training: label to value: strategy, boundary, recipe, seed.
        evaluation: on pictures that nothing was chosen on.
        evaluation_base: of a probe on the untuned backbone, on the same pictures.
        weights_licence: of the weights that tuning began from, as their publisher states it.
        licence: that you give the classifier under, as the Hub names it (such as apache-2.0).
        base_model: id on the Hub of what it was tuned from.
        intended: what you mean it for, in your own words.
        preprocessing: how a file becomes the network's input.
        temperature: that logits are divided by.
        library: that opens the exported folder.
        environment: label to version of what it was made with.
    """

    name: str
    backbone: str
    classes: tuple[str, ...]
    data: str
    counts: Mapping[str, Mapping[str, int]]
    split: str | None = None
    excluded: int | None = None
    copies: int | None = None
    near_duplicates: int | None = None
    training: Mapping[str, str] | None = None
    evaluation: Evaluation | None = None
    evaluation_base: Evaluation | None = None
    weights_licence: str = "unknown"
    licence: str | None = None
    base_model: str | None = None
    intended: str | None = None
    preprocessing: str | None = None
    temperature: float = 1.0
    library: Library = "transferscope"
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Table:
    """Cells of plain text.

    Attributes:
        header: of the columns.
        rows: each as long as the header.
        right: indices of the columns of numbers.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[int, ...] = ()


@dataclass(frozen=True)
class Section:
    """A part of the card, in plain text.

    Attributes:
        title: of the part.
        paragraphs: first.
        entries: of a list, after them.
        table: after that.
        code: (what it is, Python) after that.
    """

    title: str
    paragraphs: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    table: Table | None = None
    code: tuple[tuple[str, str], ...] = ()


def card_sections(card: ModelCard) -> list[Section]:
    """What the card says, in the order of reading."""
    return [
        _intended(card),
        _data(card),
        _facts("Training", card.training, "How it was trained is unknown."),
        *_results(card),
        Section("Limits", entries=tuple(limits(card))),
        _licence(card),
        _loading(card),
        _facts("Made with", card.environment, "The versions of what it was made with are unknown."),
    ]


def opening(card: ModelCard) -> str:
    """What it is, in a sentence."""
    return (
        f"An image classifier of {len(card.classes)} classes, tuned from {card.backbone} on the pictures of "
        f"{card.data}."
    )


def limits(card: ModelCard) -> list[str]:
    """What is known to be weak, and what is not known, a sentence each."""
    found = [
        "It always answers with one of its classes, also for a picture of something else; a high probability "
        "is no proof that the picture shows one of them."
    ]
    if card.evaluation is None:
        found.append("It was not evaluated: how often it is right is unknown.")
    else:
        found += _measured_limits(card, card.evaluation)
    trained = card.counts.get("train", {})
    small = [name for name in card.classes if trained and trained.get(name, 0) < _FEW]
    if small:
        found.append(
            f"{_classes(small)} had fewer than {_FEW} training pictures: {_listed(small)}."
        )
    if card.near_duplicates is None:
        found.append(
            "Whether near duplicates stand on both sides of the split is unknown; if so, the figures are "
            "too good."
        )
    elif card.near_duplicates:
        found.append(
            f"{counted(card.near_duplicates, 'pair')} of near duplicates across the splits: the figures are "
            "likely too good."
        )
    return found


def _measured_limits(card: ModelCard, result: Evaluation) -> list[str]:
    low, high = result.top1_interval
    found = [
        f"The figures come from {counted(result.n, 'picture')} like those trained on; top-1 is known to lie "
        f"between {low:.1%} and {high:.1%} (95%). Pictures from another camera, place or time may do worse: "
        "that was not measured."
    ]
    untested = [name for name in card.classes if name not in result.per_class]
    if untested:
        found.append(f"{_classes(untested)} had no test picture: {_listed(untested)}.")
    few = [name for name, one in result.per_class.items() if one.n < _FEW]
    if few:
        found.append(
            f"{_classes(few)} had fewer than {_FEW} test pictures; how well these are recognised is "
            "known but roughly."
        )
    hard = [name for name, one in _hardest(result) if one.accuracy < _LOW]
    if hard:
        found.append(f"Fewer than {_LOW:.0%} are recognised of {_listed(hard)}.")
    doubt = "more than chance explains: do not take them at their word"
    if result.calibration.within_chance:
        doubt = "no more than chance explains with this many pictures"
    found.append(f"Its probabilities are off by {result.ece:.1%} on average, {doubt}.")
    if result.trend is not None and result.trend.clear and result.trend.odds_ratio > 1:
        found.append("Classes with fewer training pictures are recognised less well.")
    return found


# ---------------------------------------------------------------------------- sections


def _intended(card: ModelCard) -> Section:
    stated = card.intended or (
        "It says which one of its classes a picture shows, for pictures like those it was tuned on. What its "
        "author means it for was not stated."
    )
    other = (
        "Not for pictures of anything else than its classes, for pictures that show several of them, or for "
        "decisions about people on the strength of this card: nothing here measures that."
    )
    return Section("Intended use", (stated, other))


def _data(card: ModelCard) -> Section:
    sizes = {split: sum(classes.values()) for split, classes in card.counts.items()}
    parts = ", ".join(f"{n:,} {split}" for split, n in sizes.items()) or "numbers unknown"
    left_out, copies = ("unknown" if n is None else f"{n:,}" for n in (card.excluded, card.copies))
    words = [
        f"Pictures of {card.data}: {parts}.",
        card.split or "How they were split is unknown.",
        f"Files that could not be used: {left_out}. Copies (the same bytes) left out: {copies}.",
    ]
    shown, known = card.classes[:_CLASSES], card.counts.values()
    if len(shown) < len(card.classes):
        words.append(f"The first {len(shown)} of {len(card.classes):,} classes:")
    rows = tuple((name, *(f"{classes.get(name, 0):,}" for classes in known)) for name in shown)
    table = Table(("Class", *card.counts), rows, tuple(range(1, 1 + len(known))))
    return Section("Data", tuple(words), table=table)


def _results(card: ModelCard) -> list[Section]:
    result, before = card.evaluation, card.evaluation_base
    if result is None:
        return [Section("Results", ("It was not evaluated.",))]
    pictures = counted(result.n, "picture")
    words = [f"On {pictures} ({result.split})."]
    if result.split == "test":
        words = [f"On {pictures} of the test split, on which nothing was trained."]
    if before is not None and before != result:
        words.append(
            f"A linear probe on the untuned backbone has a top-1 of {before.top1:.2%} on the same pictures."
        )
    words += summary_sentences(replace(result, against=None))
    hardest = tuple(
        (name, str(one.n), f"{one.accuracy:.1%}", "{:.0%} to {:.0%}".format(*one.interval))
        for name, one in _hardest(result)[:_HARDEST]
    )
    header = ("Class", "Test pictures", "Recognised", "95% interval (Wilson)")
    sections = [
        Section("Results", tuple(words), table=_measures(result)),
        Section("Hardest classes", table=Table(header, hardest, (1, 2, 3))),
    ]
    if result.confusions:
        rows = tuple((p.label, p.prediction, str(p.n)) for p in result.confusions[:_CONFUSIONS])
        table = Table(("Is", "Taken for", "Times"), rows, (2,))
        sections.append(Section("Confused most often", table=table))
    return sections


def _measures(result: Evaluation) -> Table:
    rows: list[tuple[str, str, str]] = []
    of = ""
    for measure, value, note in measure_rows(result):
        of = of if measure.startswith(" ") else measure  # an indented row belongs to the one above
        name = f"{of}, {measure.strip()}" if measure.startswith(" ") else measure
        rows.append((name, value, note))
    return Table(("Measure", "Value", "How far it may be off"), tuple(rows), (1,))


def _licence(card: ModelCard) -> Section:
    weights = (
        f"The licence of the weights of {card.backbone} that it was tuned from is unknown: find it out "
        "before you pass this classifier on."
    )
    if card.weights_licence != "unknown":
        weights = (
            f"The weights of {card.backbone} that it was tuned from: {card.weights_licence}, as their "
            "publisher states it."
        )
    own = (
        "The classifier's own licence has not been chosen; its author must choose one that the weights' "
        "licence and the rights to the pictures allow."
    )
    return Section(
        "Licence", (weights, f"The classifier: {card.licence}." if card.licence else own)
    )


def _loading(card: ModelCard) -> Section:
    prepared = card.preprocessing or "How a file becomes the network's input is unknown."
    codes = [_WITH_TRANSFERSCOPE, _WITH_ONNX]
    if card.library == "timm":
        prepared += " (timm's network takes normalised input and gives logits.)"
        words, code = _WITH_TIMM
        codes.insert(1, (words, code.replace("TEMPERATURE", f"{card.temperature:.6g}")))
    return Section("How to use it", (prepared,), code=tuple(codes))


def _facts(title: str, facts: Mapping[str, str] | None, unknown: str) -> Section:
    if not facts:
        return Section(title, (unknown,))
    return Section(title, table=Table(("", ""), tuple(facts.items())))


def _hardest(result: Evaluation) -> list[tuple[str, ClassResult]]:
    return sorted(result.per_class.items(), key=lambda item: (item[1].accuracy, item[0]))


def _classes(names: Sequence[str]) -> str:
    return counted(len(names), "class", "classes")


def _listed(names: Sequence[str]) -> str:
    return listed([_line(name) for name in names], _NAMED)


# ---------------------------------------------------------------------------- Markdown


def model_card_markdown(card: ModelCard) -> str:
    """README.md as the Hub shows it: YAML front matter with the metrics, then the sections."""
    parts = [front_matter(card), f"# {_markdown(card.name)}", _markdown(opening(card))]
    for section in card_sections(card):
        parts.append(f"## {_markdown(section.title)}")
        parts += [_markdown(words) for words in section.paragraphs]
        if section.entries:
            parts.append("\n".join(f"- {_markdown(entry)}" for entry in section.entries))
        if section.table is not None:
            parts.append(_markdown_table(section.table))
        for words, code in section.code:
            parts += [_markdown(words), f"```python\n{code}\n```"]
    return "\n\n".join(parts) + "\n"


def front_matter(card: ModelCard) -> str:
    """The card for machines, as the Hub reads it, between its two lines of dashes.

    Each top-level value is written as JSON, which YAML holds, so that no name can leave its place.
    """
    fields: dict[str, Any] = {
        "license": _line(card.licence or "unknown"),
        "library_name": card.library,
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "transfer-learning", "transferscope"],
    }
    if card.base_model:
        fields["base_model"] = _line(card.base_model)
    if card.evaluation is not None:
        results = [_hub_result(card, card.evaluation)]
        fields["model-index"] = [{"name": _line(card.name), "results": results}]
    lines = (f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items())
    return "\n".join(["---", *lines, "---"])


def _hub_result(card: ModelCard, result: Evaluation) -> dict[str, Any]:
    measures = (
        ("accuracy", "Top-1 accuracy", result.top1),
        ("accuracy", "Top-5 accuracy", result.top5),
        ("accuracy", "Mean accuracy of the classes", result.mean_per_class),
        ("f1", "Macro F1", result.macro_f1),
        ("expected_calibration_error", "Expected calibration error, 15 bins", result.ece),
        ("cross_entropy", "Cross-entropy, nats", result.nll),
    )
    pictures = {"type": "imagefolder", "name": _line(card.data), "split": _line(result.split)}
    return {
        "task": {"type": "image-classification", "name": "Image classification"},
        "dataset": pictures,
        "metrics": [
            {"type": kind, "name": name, "value": round(value, 6)} for kind, name, value in measures
        ],
    }


def _line(text: str) -> str:
    """On one line; control characters, halves of surrogate pairs and unassigned ones are left out."""
    left_out = ("Cc", "Cs", "Cn")
    line = " ".join(text.split()).replace("\ufeff", "")
    return "".join(letter for letter in line if unicodedata.category(letter) not in left_out)


def _markdown(text: str) -> str:
    """Text that Markdown shows literally, on one line, wherever it stands."""
    text = re.sub(r"([\\`*_\[\]<>|~$&])", r"\\\1", _line(text))
    text = re.sub(r"(?<=www)\.|:(?=//)", r"\\\g<0>", text)  # else a link
    text = re.sub(r"^([-+#=])", r"\\\1", text)  # a list, a heading, a rule
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", text)


def _markdown_table(table: Table) -> str:
    ruler = ["---:" if column in table.right else "---" for column in range(len(table.header))]
    header, *rows = (map(_markdown, cells) for cells in (table.header, *table.rows))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ruler, *rows))
