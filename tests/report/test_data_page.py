"""The report is whole, shows every name literally, and says first what is gravest."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image
from test_browser import browser, run
from test_pages import Page, digest

import inspection_content as made
from transferscope.data.duplicates import NearPair
from transferscope.data.inspection import Inspection
from transferscope.data.scan import Scan
from transferscope.errors import InputError, OutputError
from transferscope.report.figures import data as data_figures
from transferscope.report.figures import style
from transferscope.report.pages.data import REASON_WORDS, write_inspection
from transferscope.report.sheets.samples import COLUMNS, GAP, TILE, sample_sheet

__all__ = ["browser"]  # a fixture

SHEET = {"light <&>": Image.new("RGB", (60, 40), "teal")}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Inspection:
    return made.inspection(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def report(record: Inspection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out 猫 #1") / "report"
    return write_inspection(record, out, title=made.NASTY, preview=SHEET).parent


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page(report / "index.html")


# ---------------------------------------------------------------------------- the page


def test_every_reference_resolves_and_every_picture_is_shown(report: Path, page: Page) -> None:
    used = set()
    for reference in page.references:
        parts = urlsplit(reference)
        assert not parts.scheme
        assert not parts.netloc
        if not parts.path:
            assert parts.fragment in page.ids, reference
            continue
        target = (report / unquote(parts.path)).resolve()
        assert target.is_file(), reference
        used.add(target)
    assert {path.resolve() for path in (report / "images").rglob("*.webp")} <= used
    assert {"inspection.json", "pictures.csv"} <= {path.name for path in used}
    assert len(set(page.ids)) == len(page.ids)
    assert all(page.alts)


def test_names_are_shown_literally(page: Page) -> None:
    assert "<b>猫" not in page.html
    assert "<&>" not in page.html
    assert page.words.count(made.CLASSES[1]) >= 4  # near duplicate, figures, table, samples
    assert made.NASTY in page.title
    assert "قطة" in page.words


def test_the_page_shows_each_part(page: Page) -> None:
    for heading in (
        "Before you train",
        "Near duplicates",
        "Copies",
        "Left out",
        "Far from the rest",
        "Class by class",
        "Sizes, shapes, tones",
        "As training will see one picture",
        "Samples",
    ):
        assert heading in page.words, heading
    assert "features alike to 0.990" in page.words
    assert "2 of 64 bits differ" in page.words
    assert "13 train, 4 validation, 2 test" in page.words
    assert "its bytes are not of a picture format that is read here" in page.words


def test_pairs_across_splits_come_first(page: Page, record: Inspection) -> None:
    part = page.words[page.words.index("Pictures that look the same") :]
    assert part.index("features alike") < part.index("64 bits differ")
    assert part.index("across splits", 100) < part.index("two classes")


def test_without_pictures_no_file_is_named(record: Inspection, tmp_path: Path) -> None:
    refused = dataclasses.replace(record, problems=("'train/0/片 #%0.jpg' is bad; remove it",))
    out = write_inspection(refused, tmp_path / "report", title="Set", pictures=False).parent
    page = Page(out / "index.html")
    assert list((out / "images").rglob("*.webp")) == []
    assert not (out / "inspection.json").exists()
    assert not (out / "pictures.csv").exists()
    for name in ("片", "blank.png", "bad.png"):
        assert name not in page.html
    for heading in ("Near duplicates", "Copies", "Far from the rest", "Samples"):
        assert f"<h2>{heading}</h2>" not in page.html
    assert "Class by class" in page.words
    assert "Training is refused." in page.words
    assert "were left out of this report" in page.words
    fragments = [urlsplit(one).fragment for one in page.references if one.startswith("#")]
    assert set(fragments) <= set(page.ids)


def test_the_same_inspection_gives_the_same_bytes(
    record: Inspection, report: Path, tmp_path: Path
) -> None:
    again = write_inspection(record, tmp_path / "b", title=made.NASTY, preview=SHEET).parent
    assert digest(again) == digest(report)


def test_a_folder_with_other_files_is_refused(record: Inspection, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="not Transferscope's"):
        write_inspection(record, tmp_path, title="Set")


def test_a_picture_that_is_gone_leaves_a_tile(record: Inspection, tmp_path: Path) -> None:
    moved = dataclasses.replace(record, scan=dataclasses.replace(record.scan, root=tmp_path / "x"))
    page = Page(write_inspection(moved, tmp_path / "report", title="Set"))
    assert "picture not found" in page.words
    assert "Samples" in page.words


def test_a_set_without_any_picture_or_class_has_a_page(tmp_path: Path) -> None:
    empty = Inspection(
        Scan(tmp_path, (), (), (("a.jpg", "the file is empty (0 bytes)"),)), (), (), ()
    )
    page = Page(write_inspection(empty, tmp_path / "report", title="Set"))
    assert "0 pictures; 1 file left out." in page.words
    for absent in ("Class by class", "Sizes, shapes, tones", "Samples", "Copies"):
        assert f"<h2>{absent}</h2>" not in page.html


def test_pictures_without_classes_have_one_sheet(record: Inspection, tmp_path: Path) -> None:
    pictures = tuple(dataclasses.replace(one, label=None) for one in record.scan.pictures)
    scan = dataclasses.replace(record.scan, pictures=pictures, classes=())
    loose = dataclasses.replace(record, scan=scan, near_duplicates=(), duplicates=())
    page = Page(write_inspection(loose, tmp_path / "report", title="Set"))
    assert "no class 37" in page.words
    assert "Class by class" not in page.words


def test_a_thousand_classes_stay_a_light_page(tmp_path: Path) -> None:
    record = made.many(1000, 3)
    paths = [picture.path for picture in record.scan.pictures]
    none = (None, None)
    pairs = tuple(NearPair(pair, none, none, "phash", 1.0) for pair in pairwise(paths))
    out = write_inspection(
        dataclasses.replace(record, near_duplicates=pairs), tmp_path / "report", title="Set"
    )
    page = Page(out)
    assert out.stat().st_size < 5_000_000
    assert "18 of 2,999 are shown; all are in inspection.json" in page.words
    assert len(re.findall(r'class="sheet"', page.html)) == 1000


# ---------------------------------------------------------------------------- figures and sheets

FIGURES: dict[str, Callable[[Inspection], str]] = {
    "classes": data_figures.class_figure,
    "sizes": lambda record: data_figures.size_figure(record, side=224),
    "aspects": data_figures.aspect_figure,
    "tones": data_figures.tone_figure,
}


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("classes", [1, 2, 45, 130])
def test_figures_hold_on_light_and_dark_pages(name: str, classes: int) -> None:
    svg = FIGURES[name](made.many(classes, 4))
    ElementTree.fromstring(svg)
    colours = set(re.findall(r"#[0-9a-f]{6}\b", svg))
    assert "currentColor" in svg
    assert colours <= {"#22262b", "#e6e6e3", style.BASE_COLOUR, style.TUNED_COLOUR}
    assert svg == FIGURES[name](made.many(classes, 4))


@pytest.mark.parametrize("name", FIGURES)
def test_a_set_with_nothing_to_draw_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no readable pictures|no classes"):
        FIGURES[name](Inspection(Scan(tmp_path, (), (), ()), (), (), ()))


def test_of_many_classes_the_ends_are_shown() -> None:
    record = made.many(200, 9)
    sizes = {name: parts["all"] for name, parts in record.counts().items()}
    ordered = sorted(sizes, key=lambda name: (-sizes[name], name))
    texts = [
        "".join(element.itertext())
        for element in ElementTree.fromstring(data_figures.class_figure(record)).iter()
    ]
    assert set(ordered[:60] + ordered[-60:]) <= set(texts)
    assert ordered[100] not in texts
    assert "the 60 largest of 200" in texts


def test_every_outlier_is_ringed(record: Inspection) -> None:
    rings = data_figures.tone_figure(record).count(f"stroke: {style.TUNED_COLOUR}")
    assert rings >= len(record.outliers) >= 1


def test_a_sheet_holds_the_pictures_in_their_order(tmp_path: Path) -> None:
    colours = ["red", "lime", "blue", "yellow", "cyan", "magenta", "black"]
    files = []
    for colour in colours:
        files.append(tmp_path / f"{colour}.png")
        Image.new("RGB", (30, 50), colour).save(files[-1])
    sheet = sample_sheet([*files, tmp_path / "gone.png"])
    pitch, middle = TILE + GAP, TILE // 2
    assert sheet.size == (COLUMNS * pitch - GAP, 2 * pitch - GAP)
    for place, colour in enumerate(colours):
        at = (place % COLUMNS * pitch + middle, place // COLUMNS * pitch + middle)
        assert sheet.getpixel(at) == Image.new("RGBA", (1, 1), colour).getpixel((0, 0))
    assert sheet.getpixel((pitch + middle, pitch + middle))[3] < 255  # the file that is gone
    assert sheet.getpixel((2 * pitch + middle, pitch + middle)) == (0, 0, 0, 0)  # the page's ground
    with pytest.raises(InputError, match="at least one picture"):
        sample_sheet([])


def test_sheets_are_of_tiles(report: Path) -> None:
    with Image.open(report / "images/data/class-0.webp") as sheet:
        assert sheet.size == (6 * TILE + 20, 2 * TILE + 4)
        assert sheet.mode == "RGBA"


def test_every_reason_has_its_words() -> None:
    from transferscope.data.inspection import REASONS

    assert tuple(REASON_WORDS) == REASONS


# ---------------------------------------------------------------------------- in a browser


def test_a_browser_shows_the_page(browser: str, report: Path, tmp_path: Path) -> None:
    page = (report / "index.html").as_uri()
    dom = run(browser, tmp_path / "dom", "--dump-dom", page)
    assert 'data-atlas="ready"' in dom
    shot = tmp_path / "shot.png"
    run(browser, tmp_path / "shot", f"--screenshot={shot}", "--window-size=1200,3000", page)
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=int)
    assert 0.01 < (np.abs(pixels - pixels[-1, 0]).sum(axis=-1) > 60).mean() < 0.9
