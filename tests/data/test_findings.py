"""What an inspection says to mend before training: the right sentences, the gravest first."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import inspection_content as made
from transferscope.data.findings import findings, opening
from transferscope.data.inspection import Inspection
from transferscope.report.sheets.samples import sampled


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Inspection:
    return made.inspection(tmp_path_factory.mktemp("set"))


def sentences(record: Inspection) -> list[str]:
    return [one.sentence for one in findings(record)]


def test_the_opening_counts(record: Inspection) -> None:
    assert opening(record) == (
        "37 pictures of 3 classes; 1 file left out; 1 copy; 2 near duplicates, 1 of them across "
        "classes."
    )
    assert opening(made.many(2, 600)) == "1,200 pictures of 2 classes."


def test_the_gravest_comes_first(record: Inspection) -> None:
    found = findings(dataclasses.replace(record, problems=("one class is empty; add to it",)))
    grades = [one.gravity for one in found]
    assert grades == sorted(grades, key=["stop", "fix", "know"].index)
    assert [one.sentence for one in found if one.gravity == "stop"] == [
        "Training is refused: One class is empty; add to it.",
        "1 picture is in more than one split, byte for byte.",
    ]
    assert found[2].sentence == "1 near duplicate across splits."


@pytest.mark.parametrize(
    "words",
    [
        "1 near duplicate across classes",
        "1 file is left out: its bytes are not of a picture format",
        "2 classes have fewer than 10 training pictures",
        "1 picture is blank",
        "All of the pictures are below 224 pixels",
        "The file format gives the class away",
    ],
)
def test_what_is_wrong_is_found(record: Inspection, words: str) -> None:
    assert any(words in sentence for sentence in sentences(record)), sentences(record)


def test_nothing_is_found_where_nothing_is_wrong(tmp_path: Path) -> None:
    clean = made.many(4, 50)
    facts = tuple(dataclasses.replace(one, width=400, height=300) for one in clean.facts)
    assert findings(dataclasses.replace(clean, facts=facts)) == []


def test_imbalance_is_told_beyond_ten(record: Inspection) -> None:
    clean = made.many(2, 300)
    labels = [0] * 560 + [1] * 40
    pictures = tuple(
        dataclasses.replace(picture, label=label)
        for picture, label in zip(clean.scan.pictures, labels, strict=True)
    )
    scan = dataclasses.replace(clean.scan, pictures=pictures)
    told = sentences(dataclasses.replace(clean, scan=scan))
    assert any("14 times the smallest: 560 pictures of “class <0000> 猫”, 40 of" in t for t in told)
    assert not any("times the smallest" in sentence for sentence in sentences(record))


def test_samples_are_spread_and_the_same_again() -> None:
    places = list(range(100, 220))
    drawn = sampled(places, 12, seed=3)
    assert [(place - 100) // 10 for place in drawn] == list(range(12))
    assert drawn == sampled(places, 12, seed=3) != sampled(places, 12, seed=4)
    assert sampled(places[:5], 12, seed=0) == places[:5]
