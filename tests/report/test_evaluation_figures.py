"""Figures of evaluation and prediction say what the records hold, for odd records too."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import atlas_content as made
import numpy as np
import pytest
import torch
from PIL import Image
from test_style import font_sizes, texts

from transferscope.errors import InputError
from transferscope.evaluation.answers import Guess, Prediction
from transferscope.evaluation.calibration import calibration_of
from transferscope.evaluation.class_order import class_order
from transferscope.evaluation.class_size import size_trend
from transferscope.evaluation.known_pictures import Neighbour
from transferscope.evaluation.metrics import evaluate
from transferscope.evaluation.predictions import Predictions
from transferscope.evaluation.selective import abstention_of
from transferscope.report.figures import classes, evaluation
from transferscope.report.figures.answers import refuse_figure_suffix, write_answer_figure
from transferscope.report.figures.groups import groups_figure
from transferscope.report.figures.style import TUNED_COLOUR

SVG = "{http://www.w3.org/2000/svg}"


def predictions(
    labels: torch.Tensor, guesses: torch.Tensor, names: tuple[str, ...], *, sure: float = 3.0
) -> Predictions:
    logits = torch.nn.functional.one_hot(guesses, len(names)).to(torch.float32) * sure
    return Predictions(tuple(map(str, range(len(labels)))), labels, logits, names)


def two_classes(*, right: bool) -> Predictions:
    labels = torch.arange(10) % 2
    return predictions(labels, labels if right else 1 - labels, ("cat", "猫 & <dog>"))


# ---------------------------------------------------------------------------- order of classes


def test_confused_classes_stand_side_by_side() -> None:
    names = tuple(f"class {number}" for number in range(100))
    labels = torch.arange(100).repeat_interleave(4)
    partner = 99 - labels  # 0 with 99, 1 with 98, ...
    guesses = torch.where(torch.arange(400) % 4 == 0, partner, labels)
    record = predictions(labels, guesses, names)
    order = class_order(record)
    assert sorted(order) == list(range(100))
    place = {index: at for at, index in enumerate(order)}
    assert all(abs(place[index] - place[99 - index]) == 1 for index in range(100))
    assert order == class_order(record)


def test_classes_that_were_only_nearly_confused_stand_side_by_side_too() -> None:
    logits = torch.eye(6) * 8
    for first, second in ((0, 3), (1, 4), (2, 5)):
        logits[first, second] = logits[second, first] = 6.0
    record = Predictions(tuple("abcdef"), torch.arange(6), logits, tuple("abcdef"))
    assert bool(record.right.all())
    order = class_order(record)
    assert all(abs(order.index(k) - order.index(k + 3)) == 1 for k in range(3))


def test_classes_that_shade_into_each_other_stand_in_a_row() -> None:
    chain = torch.tensor([3, 0, 6, 2, 7, 5, 1, 4])
    place = torch.argsort(chain)
    logits = 8.0 - (place[:, None] - place[None, :]).abs()
    record = Predictions(tuple("abcdefgh"), torch.arange(8), logits, tuple("abcdefgh"))
    assert class_order(record) in (chain.tolist(), chain.tolist()[::-1])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_classes_and_classes_without_a_picture_have_an_order(count: int) -> None:
    names = tuple(map(str, range(count)))
    labels = torch.zeros(4, dtype=torch.int64)
    assert sorted(class_order(predictions(labels, labels, names))) == list(range(count))


# ---------------------------------------------------------------------------- confusion


def test_confusion_counts_stand_in_their_cells() -> None:
    labels = torch.tensor([0] * 9 + [1] * 5)
    record = predictions(labels, torch.tensor([0] * 7 + [1] * 2 + [1] * 5), ("cat", "dog"))
    shown = texts(classes.confusion_figure(record))
    assert sorted(text for text in shown if text.isdigit()) == ["2", "5", "7"]
    assert {"cat", "dog", "true", "predicted"} <= set(shown)


def test_a_hundred_classes_are_all_named_readable_and_in_the_order() -> None:
    names = tuple(f"class number {number}" for number in range(100))
    labels = torch.arange(100).repeat(2)
    guesses = torch.where(torch.arange(200) < 100, labels, 99 - labels)
    record = predictions(labels, guesses, names)
    svg = classes.confusion_figure(record)
    shown = texts(svg)
    assert all(shown.count(name) == 2 for name in names)
    assert [text for text in shown if text in names][:100] == [
        names[index] for index in class_order(record)
    ]
    head = ElementTree.fromstring(svg)
    scale = float(head.get("width", "0")) / float(head.get("viewBox", "").split()[2])
    assert min(font_sizes(svg)) * scale >= 10


def test_few_classes_keep_their_order() -> None:
    labels = torch.arange(6)
    record = predictions(labels, 5 - labels, tuple("fedcba"))
    shown = [text for text in texts(classes.confusion_figure(record)) if text in "abcdef"]
    assert shown == list("fedcba" * 2)


# ---------------------------------------------------------------------------- calibration


def test_reliability_says_both_errors_the_band_and_the_verdict() -> None:
    record = made.calibration()
    words = " ".join(texts(evaluation.reliability_figure(record)))
    assert "Calibration error 3.1%; before the temperature of 1.31: 8.4%." in words
    assert "would show 1.2% to 5.5%: this is inside." in words
    above = dataclasses.replace(record, ece=0.09)
    assert "this is above." in " ".join(texts(evaluation.reliability_figure(above)))
    below = dataclasses.replace(record, ece=0.01)
    assert "this is below." in " ".join(texts(evaluation.reliability_figure(below)))


def test_every_bin_has_its_dot_and_its_interval() -> None:
    record = made.calibration()
    fewer = dataclasses.replace(record, bins=record.bins[:1])

    def marks(svg: str) -> int:
        return len(list(ElementTree.fromstring(svg).iter(f"{SVG}path")))

    # a bin is a path for its interval, its dot's outline and its bar in the histogram
    assert (
        marks(evaluation.reliability_figure(record))
        >= marks(evaluation.reliability_figure(fewer)) + 6
    )


@pytest.mark.parametrize("right", [True, False])
def test_all_right_and_all_wrong_are_drawn(right: bool) -> None:
    record = two_classes(right=right)
    result = evaluate(record, split="test", training={"cat": 3, "猫 & <dog>": 5})
    assert result.trend is None
    for svg in (
        evaluation.reliability_figure(calibration_of(record)),
        evaluation.coverage_figure(abstention_of(record)),
        classes.per_class_figure(result, base=result),
        classes.confusion_figure(record),
    ):
        ElementTree.fromstring(svg)
    assert any("猫 & <dog>" in text for text in texts(classes.confusion_figure(record)))
    share = "100.0%" if right else "0.0%"
    assert f"All answered: {share} right." in " ".join(
        texts(evaluation.coverage_figure(abstention_of(record)))
    )


# ---------------------------------------------------------------------------- abstaining


def test_thresholds_are_marked_and_named() -> None:
    shown = texts(evaluation.coverage_figure(made.abstention()))
    assert "90%" in shown
    assert "99%" in shown
    assert "99% wanted: confidence ≥ 0.971, 42.0% answered, 100.0% of them right" in shown
    plain = texts(evaluation.coverage_figure(made.abstention(operating=False)))
    assert not any("wanted" in text for text in plain)


def test_a_threshold_that_leaves_nothing_is_not_drawn() -> None:
    record = made.abstention()
    none = dataclasses.replace(record.operating[0], coverage=0.0, accuracy=None)
    everything = dataclasses.replace(record.operating[0], coverage=1.0)
    record = dataclasses.replace(record, operating=(none, everything))
    assert not any("wanted" in text for text in texts(evaluation.coverage_figure(record)))


# ---------------------------------------------------------------------------- class sizes


def test_the_trend_says_its_odds_and_names_what_deviates() -> None:
    names = [f"{made.NASTY} {number}" for number in range(12)]
    training = [10 * 2 ** (number % 6) for number in range(12)]
    n, right = [20] * 12, [10 + 2 * (number % 6 > 2) for number in range(12)]
    right[5] = 0
    trend = size_trend(training, right, n)
    assert trend is not None
    base = made.evaluation(0.8)
    (one, *_) = base.per_class.values()
    per_class = {
        name: dataclasses.replace(one, n=20, accuracy=hits / 20, training=size)
        for name, hits, size in zip(names, right, training, strict=True)
    }
    record = dataclasses.replace(base, per_class=per_class, trend=trend)
    shown = texts(classes.size_trend_figure(record))
    assert any(f"{trend.odds_ratio:.2f} times as high" in text for text in shown)
    named = [text for text in shown if text.endswith((" 5", " 3", " 4"))]
    assert any(text.endswith(" 5") for text in named)
    assert len([text for text in shown if "狗" in text]) <= 6


def test_no_trend_is_refused() -> None:
    with pytest.raises(InputError, match="fewer than five classes"):
        classes.size_trend_figure(dataclasses.replace(made.evaluation(0.8), trend=None))


# ---------------------------------------------------------------------------- answers


def guesses(*names: str) -> tuple[Guess, ...]:
    return tuple(Guess(name, 0.6 / 2**place) for place, name in enumerate(names))


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "<猫>.png"
    Image.fromarray(made.picture(3, 64)).save(path)
    return str(path)


def test_each_picture_stands_beside_its_five_best_guesses(picture: str, tmp_path: Path) -> None:
    answer = Prediction(picture, top=guesses(made.NASTY, "b", "c", "d", "e", "sixth"))
    assert write_answer_figure(tmp_path / "answers.svg", [answer]) == 1
    svg = (tmp_path / "answers.svg").read_text(encoding="utf-8")
    shown = texts(svg)
    assert "<猫>.png" in shown
    assert any("狗" in text for text in shown)
    assert {"b", "c", "d", "e", "60.0%", "30.0%"} <= set(shown)
    assert "sixth" not in shown
    assert "unsure" not in shown
    assert len(list(ElementTree.fromstring(svg).iter(f"{SVG}image"))) == 1


def test_what_is_unsure_unreadable_or_gone_is_said(picture: str, tmp_path: Path) -> None:
    answers = [
        Prediction(picture, top=guesses("a"), abstained=True),
        Prediction("caf\udce9.png", error="it is cut off <here>"),
        Prediction(str(tmp_path / "gone.png"), top=guesses("a", "b")),
    ]
    assert write_answer_figure(tmp_path / "answers.svg", answers) == 3
    svg = (tmp_path / "answers.svg").read_text(encoding="utf-8")
    shown = texts(svg)
    assert shown.count("unsure") == 1
    assert {"caf?.png", "not read: it is cut off <here>", "the picture is gone"} <= set(shown)


def test_a_strip_shows_its_text_and_its_pieces(picture: str, tmp_path: Path) -> None:
    pieces = (Guess("A", 0.97), Guess("7", 0.4), Guess("字", 0.9999))
    strip = Prediction(picture, strip="A7字", pieces=pieces, abstained=True)
    write_answer_figure(tmp_path / "strip.svg", [strip])
    shown = texts((tmp_path / "strip.svg").read_text(encoding="utf-8"))
    assert {"A7字", "A", "7", "字", "unsure"} <= set(shown)
    many = Prediction(picture, strip="x" * 60, pieces=(Guess("x", 0.5),) * 60)
    assert write_answer_figure(tmp_path / "many.svg", [many]) == 1


def test_a_stranger_has_no_bars_and_shows_what_is_near(picture: str, tmp_path: Path) -> None:
    near = (
        Neighbour(picture, "猫", 0.618),
        Neighbour(None, "hat", 0.5),
        Neighbour("gone.png", "b", -0.2),
    )
    top = guesses("coat", "b")
    stranger = Prediction(picture, top=top, known=False, familiarity=0.004, nearest=near)
    own = Prediction(picture, top=top, known=True, familiarity=0.62, nearest=near)

    def drawn(answer: Prediction) -> tuple[list[str], str]:
        write_answer_figure(tmp_path / "answers.svg", [answer])
        svg = (tmp_path / "answers.svg").read_text(encoding="utf-8")
        return texts(svg), svg

    shown, svg = drawn(stranger)
    assert {"none of these classes", "coat", "60.0%", "familiarity 0.4%", "0.62", "−0.20"} <= set(
        shown
    )
    assert TUNED_COLOUR not in svg, "nothing looks confident"
    assert len(list(ElementTree.fromstring(svg).iter(f"{SVG}image"))) == 2, (
        "gone files are left out"
    )
    shown, svg = drawn(own)
    assert "none of these classes" not in shown
    assert {"familiarity 62.0%", "nearest in training, by cosine"} <= set(shown)
    assert TUNED_COLOUR in svg


def test_what_is_left_out_is_counted(picture: str, tmp_path: Path) -> None:
    answers = [Prediction(picture, top=guesses("a"))] * 5
    assert write_answer_figure(tmp_path / "answers.svg", answers, limit=3) == 3
    shown = texts((tmp_path / "answers.svg").read_text(encoding="utf-8"))
    assert "2 more pictures are not shown." in shown
    assert shown.count("<猫>.png") == 3


@pytest.mark.parametrize(
    ("suffix", "magic"), [(".svg", b"<svg"), (".PNG", b"\x89PNG"), (".pdf", b"%PDF")]
)
def test_every_format_is_written_twice_alike(
    picture: str, tmp_path: Path, suffix: str, magic: bytes
) -> None:
    answers = [Prediction(picture, top=guesses("a", "猫"))]
    written = []
    for name in ("one", "two"):
        write_answer_figure(tmp_path / f"{name}{suffix}", answers)
        written.append((tmp_path / f"{name}{suffix}").read_bytes())
    assert written[0] == written[1]
    assert written[0].startswith(magic)
    if suffix == ".PNG":
        with Image.open(tmp_path / "one.PNG") as drawn:
            assert np.asarray(drawn.convert("L")).std() > 1


@pytest.mark.parametrize("name", ["answers.jpg", "answers", "answers.svg.gz"])
def test_other_suffixes_are_refused_before_the_work(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.svg, \.png, \.pdf"):
        refuse_figure_suffix(tmp_path / name)
    with pytest.raises(InputError, match=r"\.svg, \.png, \.pdf"):
        write_answer_figure(tmp_path / name, [Prediction("a.png", error="gone")])
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 answers"):
        write_answer_figure(tmp_path / "answers.svg", [])


def test_the_figure_of_groups_names_each_with_its_pictures_and_what_chance_explains():
    result = made.evaluation(0.8)
    words = " ".join(texts(groups_figure(result)))
    assert "new (50)" in " ".join(words.split())
    assert "differ by more than chance explains" in words
    without = dataclasses.replace(result, groups={}, group_test=None)
    with pytest.raises(InputError, match="no groups"):
        groups_figure(without)
