"""How well strangers are told is drawn, put into words, and is a page of the atlas where it was measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image
from strangers_content import result

from transferscope.evaluation.detection import score_rows
from transferscope.evaluation.sentences import detection_sentences
from transferscope.evaluation.strangers import SCORES
from transferscope.report.figures.strangers import strangers_figure
from transferscope.report.pages.atlas import write_atlas
from transferscope.report.pages.content import AtlasContent

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.mark.drawn
def test_figure_is_svg_and_names_every_score() -> None:
    svg = strangers_figure(result())
    ElementTree.fromstring(svg)
    assert svg == strangers_figure(result())
    for part in (*(one.title for one in SCORES.values()), "90.0% caught", "AUROC"):
        assert part in svg
    assert "caught," not in strangers_figure(result(caught=None))


def test_words_give_rates_with_intervals_and_say_what_chance_does_not_explain() -> None:
    words = " ".join(detection_sentences(result()))
    assert "Of 40 strangers in <strange>, 90.0% (95% interval 80.0% to 95.0%)" in words
    assert "of 60 pictures of the test split, 5.0% (95% interval 2.0% to 14.0%)" in words
    assert "5.0% allowed on 99 validation pictures" in words
    assert "called <羊> 30, b 10" in words
    assert "Left out of <strange> because they are the run's own pictures: 2" in words
    assert "than chance explains" not in words
    more = dataclasses.replace(result(), false_alarms=0.3, false_alarms_interval=(0.2, 0.4))
    assert "than chance explains" in " ".join(detection_sentences(more))
    few = " ".join(detection_sentences(result(caught=None)))
    assert "9 validation pictures" in few
    assert "needs 19" in few
    assert score_rows(result())[0][-1] == "in use"
    assert len(score_rows(result())) == len(SCORES)


@pytest.mark.parametrize(("measured", "pictures"), [(True, True), (True, False), (False, True)])
def test_page(tmp_path: Path, measured: bool, pictures: bool) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a" / "0.png")
    content = AtlasContent(
        title="Sheep",
        facts={},
        classes=("羊", "a < b"),
        counts={},
        validation_before=None,
        validation_after=None,
        evaluation=None,
        evaluation_base=None,
        predictions=None,
        history=[],
        comparison=None,
        renders={},
        data_root=tmp_path,
        strangers=result(tmp_path) if measured else None,
    )
    home = write_atlas(content, tmp_path / "atlas", pictures=pictures).parent
    assert (home / "strangers.html").is_file() == measured
    linked = 'href="strangers.html"' in (home / "index.html").read_text(encoding="utf-8")
    assert linked == measured
    if measured:
        text = (home / "strangers.html").read_text(encoding="utf-8")
        assert "&lt;羊&gt;" in text
        assert "<羊>" not in text
        assert ("False alarms</h2>" in text) == pictures
        assert ("a/0.png" in text) == pictures
