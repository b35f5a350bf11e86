"""What was stood is drawn, and is a page of the atlas where it was measured."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from robustness_content import result

from transferscope.report.figures.robustness import robustness_figure, share_rows, summary
from transferscope.report.figures.style import BASE_COLOUR, TUNED_COLOUR
from transferscope.report.pages.atlas import write_atlas
from transferscope.report.pages.content import AtlasContent


def test_figure_is_svg_with_both_networks() -> None:
    svg = robustness_figure(result())
    ElementTree.fromstring(svg)
    assert svg == robustness_figure(result())
    for part in (BASE_COLOUR, TUNED_COLOUR, "right, at most", "random noise of that size", "JPEG"):
        assert part in svg
    ElementTree.fromstring(robustness_figure(result(None)))


def test_words_name_the_bound_and_the_control() -> None:
    words = " ".join(summary(result()))
    assert "20 of 50 pictures of the test split" in words
    assert words.count("upper bound") == 2
    assert "at least 80.0% (base) and 90.0% (tuned) stay right" in words
    assert "does not tell from 0" in words, "both have the same distances"
    assert "DeepFool" not in " ".join(summary(result(None)))
    names = [row[0] for row in share_rows(result())]
    assert names[0] == "as they are"
    assert "PGD, epsilon 0.25/255: at most" in names
    assert share_rows(result())[0][1:4] == ("80.0%", "90.0%", "+10.0")


@pytest.mark.parametrize("measured", [True, False])
def test_page(tmp_path: Path, measured: bool) -> None:
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
        robustness=result() if measured else None,
    )
    home = write_atlas(content, tmp_path / "atlas").parent
    assert (home / "robustness.html").is_file() == measured
    linked = 'href="robustness.html"' in (home / "index.html").read_text(encoding="utf-8")
    assert linked == measured
    if measured:
        text = (home / "robustness.html").read_text(encoding="utf-8")
        assert "before and after?" in text
        assert "Gaussian noise, strength 5" in text
