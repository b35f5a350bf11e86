"""Figures say what they show, in any script, and are the same twice."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import atlas_content as made
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image, ImageDraw

from transferscope.comparison.records import Comparison
from transferscope.errors import InputError
from transferscope.report.figures import channel, classes, comparison, evaluation, style
from transferscope.report.figures.groups import groups_figure
from transferscope.report.pages import atlas as pages
from transferscope.report.questions import Answers

PATHS = tuple(f"{number}.png" for number in range(12))


def texts(svg: str) -> list[str]:
    return [
        "".join(element.itertext()).strip()
        for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    ]


def font_sizes(svg: str) -> list[float]:
    return [float(size) for size in re.findall(r"font(?:-size)?: (?:\w+ )*([\d.]+)px", svg)]


EVERY: dict[str, Callable[[], str]] = {
    "information": lambda: comparison.information_figure(made.comparison(PATHS)),
    "gain": lambda: comparison.gain_figure(made.comparison(PATHS)),
    "similarity": lambda: comparison.similarity_figure(made.comparison(PATHS)),
    "channel": lambda: channel_figure(made.comparison(PATHS), 3),
    "confusion": lambda: classes.confusion_figure(made.predictions(PATHS)),
    "per_class": lambda: classes.per_class_figure(made.evaluation(0.8), base=made.evaluation(0.7)),
    "reliability": lambda: evaluation.reliability_figure(made.calibration()),
    "coverage": lambda: evaluation.coverage_figure(made.abstention()),
    "groups": lambda: groups_figure(made.evaluation(0.8)),
    "trend": lambda: classes.size_trend_figure(made.evaluation(0.8)),
}


@cache
def svg_of(name: str) -> str:
    return EVERY[name]()


@pytest.mark.parametrize("name", EVERY)
def test_the_same_record_gives_the_same_figure(name: str) -> None:
    assert EVERY[name]() == svg_of(name)


@pytest.mark.parametrize("name", EVERY)
def test_figures_hold_on_light_and_dark_pages(name: str) -> None:
    svg = svg_of(name)
    assert "currentColor" in svg
    colours = set(re.findall(r"#[0-9a-f]{6}\b", svg))
    assert colours <= {"#22262b", "#e6e6e3", style.BASE_COLOUR, style.TUNED_COLOUR}


@pytest.mark.parametrize("name", EVERY)
def test_no_text_is_smaller_than_ten_pixels(name: str) -> None:
    svg = svg_of(name)
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


def channel_figure(record: Comparison, index: int) -> str:
    return channel.channel_figure(Answers.of(record), "blocks.4.2", index)


def full_dots(svg: str) -> int:
    """Dots in the tuned network's colour whose inside is not empty."""
    return len(re.findall(rf'<circle class="full" [^>]*fill="{style.TUNED_COLOUR}"', svg))


def test_layers_are_named_and_the_frozen_one_is_called_identical() -> None:
    record = made.comparison(PATHS)
    shown = texts(comparison.information_figure(record))
    assert {"blocks.2.1", "blocks.4.2", "head <conv>"} <= set(shown)
    assert {"base", "tuned", "controls", "retunings"} <= set(shown)
    assert shown.count("bit-identical") == 1
    drawn = dataclasses.replace(record, layers=record.layers[1:])
    assert "bit-identical" not in texts(comparison.information_figure(drawn))


def test_controls_are_shown_only_where_there_are_some() -> None:
    record = made.comparison(PATHS)
    bare = made.uncontrolled(record)
    assert "controls" not in texts(comparison.information_figure(bare))
    shown = texts(comparison.gain_figure(bare))
    assert "24 channels" in shown
    assert not {"learned", "controls, mean"} & set(shown)
    assert "controls −0.02" not in " ".join(texts(channel_figure(bare, 3)))
    assert any("controls" in text for text in texts(channel_figure(record, 3)))


def test_gains_are_counted_by_layer_and_none_is_no_proof() -> None:
    record = made.comparison(PATHS)
    shown = texts(comparison.gain_figure(record))
    assert {"12 of 24 learned", "1 of 3 learned"} <= set(shown)
    alone = texts(comparison.gain_figure(record, "head <conv>"))
    assert "1 of 3 learned" in alone
    assert "blocks.4.2" not in alone
    quiet = texts(comparison.gain_figure(made.nothing_learned(record)))
    assert {"none found of 24", "none found of 3"} <= set(quiet)


def test_bars_are_as_high_as_channels_are_many() -> None:
    """Both halves are on one scale: areas in one colour are in the ratio of the counts."""
    record = made.comparison(PATHS)
    svg = comparison.gain_figure(record, "blocks.4.2")
    areas = {"learned": 0.0, "others": 0.0, "controls": 0.0}
    looks = {"learned": (style.TUNED_COLOUR, "0.95"), "others": (style.TUNED_COLOUR, "0.38")}
    looks["controls"] = ("currentColor", "0.35")
    for path, look in re.findall(r'<path d="([^"]*)"[^>]*style="([^"]*)"', svg, re.DOTALL):
        places = [float(one) for one in re.findall(r"-?[\d.]+", path)]
        if "clip-path" in look or len(places) < 8:
            continue
        for name, (colour, alpha) in looks.items():
            if f"fill: {colour}" in look and f"opacity: {alpha}" in look:
                areas[name] += np.ptp(places[0::2]) * np.ptp(places[1::2])
    legend = 0.1 * areas["others"]
    assert areas["learned"] == pytest.approx(areas["others"], abs=legend)
    assert areas["controls"] == pytest.approx(2 * areas["others"], abs=2 * legend)


def test_failed_drawings_are_counted_beside_the_similarities() -> None:
    record = made.comparison(PATHS)
    shown = texts(comparison.similarity_figure(record))
    assert {"24 drawings: 1 below exemplar", "all 24 drawings optimized", "6 drawn"} <= set(shown)
    unknown = tuple(dataclasses.replace(layer, chance=None) for layer in record.layers)
    assert comparison.similarity_figure(dataclasses.replace(record, layers=unknown))


def test_a_channels_dot_is_full_where_the_answer_is_yes() -> None:
    record = made.comparison(PATHS)
    yes = channel_figure(record, 3)
    assert {"Responses", "Class information", "Loss without it", "Drawings"} <= set(texts(yes))
    assert full_dots(yes) == 4  # moved, learned, the second opinion, looks different
    assert full_dots(channel_figure(record, 2)) == 2  # moved, matters
    assert full_dots(channel_figure(made.nothing_learned(record), 3)) == 3


def test_an_interval_that_reaches_too_far_ends_in_an_arrow() -> None:
    record = made.comparison(PATHS)
    near = channel_figure(record, 2)
    wide = tuple(
        dataclasses.replace(row, low=-50.0, high=50.0)
        if (row.witness, row.channel) == ("class_information", 2)
        else row
        for row in record.rows
    )
    far = channel_figure(dataclasses.replace(record, rows=wide), 2)
    assert far.count('class="arrow"') == near.count('class="arrow"') + 2


def test_what_was_not_measured_is_refused() -> None:
    record = made.comparison(PATHS)
    for bare in (
        dataclasses.replace(record, layers=()),
        dataclasses.replace(record, layers=record.layers[:1]),
    ):
        with pytest.raises(InputError, match="no layer of the comparison differs"):
            comparison.information_figure(bare)
    with pytest.raises(InputError, match=r"no gain of blocks\.2\.1"):
        comparison.gain_figure(record, "blocks.2.1")
    for bare in (made.undrawn(record), made.one_seed(record)):
        with pytest.raises(InputError, match="two seeds or more"):
            comparison.similarity_figure(bare)
    with pytest.raises(InputError, match=r"channel 99 of layer 'blocks\.4\.2'"):
        channel_figure(record, 99)


@pytest.mark.parametrize("name", ["information", "gain", "similarity", "channel"])
def test_a_comparisons_figures_fit_a_telephone_whatever_the_layers_are_called(name: str) -> None:
    record = made.comparison(PATHS)
    long = "backbone.encoder.layers." + "block_" * 30 + "conv3"
    renamed = dataclasses.replace(
        record,
        layers=tuple(
            dataclasses.replace(one, layer=long) if one.layer == "blocks.4.2" else one
            for one in record.layers
        ),
        rows=tuple(
            dataclasses.replace(one, layer=long) if one.layer == "blocks.4.2" else one
            for one in record.rows
        ),
        drawings=tuple(
            dataclasses.replace(one, layer=long) if one.layer == "blocks.4.2" else one
            for one in record.drawings
        ),
    )
    figures = {
        "information": comparison.information_figure,
        "gain": comparison.gain_figure,
        "similarity": comparison.similarity_figure,
        "channel": lambda record: channel.channel_figure(Answers.of(record), long, 3),
    }
    svg = figures[name](dataclasses.replace(renamed, pair=("first_of_many_runs", "second" * 9)))
    assert ElementTree.fromstring(svg).get("width") == str(comparison.WIDTH) == "360"
    for text in texts(svg):
        assert style.text_width(text) <= 58, text
    for x, text in re.findall(r'<text style="[^"]*" x="([\d.]+)"[^>]*>([^<]*)</text>', svg):
        if "text-anchor: end" not in text:
            assert float(x) < 270, text  # of 270 points, which 360 pixels are


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

    write_text(tmp_path / "layers.svg", EVERY["information"]())
    assert ElementTree.parse(tmp_path / "layers.svg").getroot().tag.endswith("svg")


def test_pages_are_printed_without_what_is_there_to_click():
    sheet = (Path(pages.__file__).parent / "templates" / "atlas.css").read_text(encoding="utf-8")
    printed = sheet[sheet.index("@media print") :]
    (hidden,) = [line for line in printed.splitlines() if "display: none !important" in line]
    assert hidden.strip().startswith(
        ".bar nav, button, dialog, .hint, .skip, .tools, .step, .switch {"
    )
    above = sheet[: sheet.index("@media")]
    rules = [line.strip() for line in above.splitlines() if line.endswith("}") and "{" in line]
    assert not set(rules) & {line.strip() for line in printed.splitlines()}, "pasted twice"
