"""Figures say what they show, in any script, and are the same twice."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path

import atlas_content as made
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image, ImageDraw

from transferscope.errors import InputError
from transferscope.report.figures import classes, comparison, evaluation, style

PATHS = tuple(f"{number}.png" for number in range(12))


def texts(svg: str) -> list[str]:
    return [
        "".join(element.itertext()).strip()
        for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    ]


def font_sizes(svg: str) -> list[float]:
    return [float(size) for size in re.findall(r"font(?:-size)?: (?:\w+ )*([\d.]+)px", svg)]


EVERY: dict[str, Callable[[], str]] = {
    "layers": lambda: comparison.layer_box_plot(made.comparison(PATHS)),
    "null": lambda: comparison.channel_null_figure(made.comparison(PATHS).layers[1]),
    "confusion": lambda: classes.confusion_figure(made.predictions(PATHS)),
    "per_class": lambda: classes.per_class_figure(made.evaluation(0.8), base=made.evaluation(0.7)),
    "reliability": lambda: evaluation.reliability_figure(made.calibration()),
    "coverage": lambda: evaluation.coverage_figure(made.abstention()),
    "trend": lambda: classes.size_trend_figure(made.evaluation(0.8)),
}


@pytest.mark.parametrize("name", EVERY)
def test_the_same_record_gives_the_same_figure(name: str) -> None:
    assert EVERY[name]() == EVERY[name]()


@pytest.mark.parametrize("name", EVERY)
def test_figures_hold_on_light_and_dark_pages(name: str) -> None:
    svg = EVERY[name]()
    assert "currentColor" in svg
    colours = set(re.findall(r"#[0-9a-f]{6}\b", svg))
    assert colours <= {"#22262b", "#e6e6e3", style.BASE_COLOUR, style.TUNED_COLOUR}


@pytest.mark.parametrize("name", EVERY)
def test_no_text_is_smaller_than_ten_pixels(name: str) -> None:
    svg = EVERY[name]()
    head = ElementTree.fromstring(svg)
    width = float(head.get("width", "0"))
    drawn = float(head.get("viewBox", "").split()[2])
    sizes = font_sizes(svg)
    assert sizes
    assert min(sizes) * width / drawn >= 10


@pytest.mark.parametrize("name", EVERY)
def test_matplotlibs_settings_are_left_alone(name: str) -> None:
    before = dict(mpl.rcParams)
    EVERY[name]()
    assert dict(mpl.rcParams) == before


def test_layers_are_named_and_the_frozen_one_is_called_identical() -> None:
    record = made.comparison(PATHS)
    shown = texts(comparison.layer_box_plot(record))
    assert {"blocks.2.1", "blocks.4.2", "head <conv>"} <= set(shown)
    assert shown.count("identical") == 1
    drawn = dataclasses.replace(record, layers=record.layers[1:])
    assert "identical" not in texts(comparison.layer_box_plot(drawn))


def test_no_layer_and_no_null_are_refused() -> None:
    record = made.comparison(PATHS)
    with pytest.raises(InputError, match="no layers"):
        comparison.layer_box_plot(dataclasses.replace(record, layers=()))
    with pytest.raises(InputError, match=r"blocks\.2\.1"):
        comparison.channel_null_figure(record.layers[0])


def test_the_null_figure_marks_where_changed_begins_only_if_something_changed() -> None:
    layer = made.comparison(PATHS).layers[1]
    assert "changed from here" in texts(comparison.channel_null_figure(layer))
    quiet = tuple(dataclasses.replace(channel, changed=False) for channel in layer.channels)
    layer = dataclasses.replace(layer, channels=quiet)
    assert "changed from here" not in texts(comparison.channel_null_figure(layer))


def test_names_are_literal_whatever_their_script() -> None:
    svg = classes.per_class_figure(made.evaluation(0.8))
    assert any(text.startswith(made.NASTY) for text in texts(svg))
    assert "<b>" not in svg


def test_a_missing_glyph_names_the_package_with_a_font(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "_drawable", lambda letter: ord(letter) < 0x2E80)
    note = style.font_note(["cat", "猫", "狗"])
    assert note is not None
    assert note.startswith("2 letters are in no font here and drawn as boxes (CJK)")
    assert "fonts-noto-cjk" in note
    assert note.isascii()  # the letters would be boxes in the note too
    assert style.font_note(["cat", "Löwenzahn"]) is None


def test_text_that_stays_text_needs_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """An SVG is drawn by its reader, with the reader's fonts."""
    monkeypatch.setattr(style, "_drawable", lambda letter: ord(letter) < 0x2E80)
    shown = texts(_with_class("猫"))
    assert any("猫" in text for text in shown)
    assert not any("font" in text for text in shown)


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Fonts are looked up anew, by a matplotlib whose list was made before others were installed."""
    here = font_manager.findSystemFonts()
    own = [one for one in font_manager.fontManager.ttflist if "DejaVu" in one.name]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(style, "_found", [])
    for looked_up in (style._installed, style._font_file):
        looked_up.cache_clear()
    yield here
    for looked_up in (style._installed, style._font_file):
        looked_up.cache_clear()


def test_a_font_that_is_newer_than_matplotlibs_list_is_found(
    forgetful: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = next(
        (file for file in forgetful if font_manager.get_font(file).get_char_index(ord("猫"))), None
    )
    if source is None:
        pytest.skip("no font of this machine has Chinese letters")
    calls = []
    monkeypatch.setattr(
        font_manager,
        "findSystemFonts",
        lambda *_: calls.append(1) or [source, str(tmp_path / "no")],
    )
    assert style.font_note(["猫", "狗"]) is None
    picture = Image.new("RGB", (60, 40), "white")
    style.write_line(ImageDraw.Draw(picture), (2, 30), "猫", size=24)
    boxes = Image.new("RGB", (60, 40), "white")
    style.write_line(ImageDraw.Draw(boxes), (2, 30), "\U0010fffd", size=24)
    assert np.array(picture).tolist() != np.array(boxes).tolist()
    assert calls == [1]  # once, whatever is drawn


def test_a_font_of_any_name_will_do(forgetful: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The families that are asked first are not all there are."""
    monkeypatch.setattr(style, "_FALLBACKS", ())
    if not any(font_manager.get_font(file).get_char_index(ord("猫")) for file in forgetful):
        pytest.skip("no font of this machine has Chinese letters")
    assert style.font_note(["猫"]) is None
    with style.drawing(100, 100, ["猫"]):
        assert len(mpl.rcParams["font.family"]) == 2


def test_drawing_says_nothing_of_bold_letters(caplog: pytest.LogCaptureFixture) -> None:
    with style.panel(200, 100) as (figure, axes):
        axes.set_title("猫", fontweight="bold")
        style.as_svg(figure, "x", "x")
    assert not caplog.records


@pytest.mark.parametrize(
    "name", ["हिन्दी", "العربية", "ไทย", "🦊", "a\nb\tc", "$", "\\frac{1}{0}", "𒀀"]
)
def test_no_name_breaks_a_figure(name: str) -> None:
    shown = " ".join(texts(_with_class(name)))
    assert " ".join(name.split()) in shown


def test_long_names_are_cut_in_the_middle() -> None:
    shown = texts(_with_class("begin " + "x" * 400 + " end"))
    assert any("begin" in text and "end" in text and len(text) < 60 for text in shown)


def _with_class(name: str) -> str:
    record = made.evaluation(0.8)
    (result, *_) = record.per_class.values()
    return classes.per_class_figure(dataclasses.replace(record, per_class={name: result}))


def test_figures_can_be_kept_as_files(tmp_path: Path) -> None:
    from transferscope.files import write_text

    write_text(tmp_path / "layers.svg", EVERY["layers"]())
    assert ElementTree.parse(tmp_path / "layers.svg").getroot().tag.endswith("svg")
