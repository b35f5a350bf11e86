"""The gallery is made of what the examples saved: its tables, their translation, its figures."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from chromium import NAMES
from transferscope.files import read_json, write_json

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.append(str(EXAMPLES))

import _chinese  # noqa: E402 - the examples are no package
import _lesson  # noqa: E402
import gallery  # noqa: E402

PAGES = tuple(gallery.HEADERS)
MOST_BYTES = 1_500_000


# ---------------------------------------------------------------------------- the real pages


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_are_those_of_the_saved_values(page: str):
    text = (gallery.DOCS / page).read_text(encoding="utf-8")
    for number, saved in gallery.saved_results().items():
        fresh = gallery.put(text, f"table {number}", gallery.table_of(page, saved), page)
        assert fresh == text, (
            f"run 'python examples/gallery.py': table {number} is not the saved one"
        )


def test_the_pages_show_the_figures_that_are_made():
    made = {
        f"gallery-{number}-{name}.webp"
        for number, several in gallery.FIGURES.items()
        for name in several
    }
    files = {file.name: file.stat().st_size for file in gallery.DOCS.glob("gallery-*.webp")}
    assert set(files) == made
    assert sum(files.values()) <= MOST_BYTES
    for page in PAGES:
        text = (gallery.DOCS / page).read_text(encoding="utf-8")
        assert set(re.findall(r"\((gallery-[^)]*webp)\)", text)) == made


# ---------------------------------------------------------------------------- made-up results

ROW = {
    "what": "refused: photographs",
    "lesson": "",
    "ours": "50.0% (21.5% to 78.5%)",
    "note": "of 8",
}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A folder of lessons and one of docs, of two examples with a figure each."""
    monkeypatch.setattr(gallery, "FIGURES", {n: {"one": ("one-*.png", 40)} for n in ("01", "02")})
    for number in gallery.FIGURES:
        folder = tmp_path / "lessons" / f"{number}_name"
        folder.mkdir(parents=True)
        told = _lesson.Lesson(number, "name", "A title")
        told.lesson.append(_lesson.Row(**ROW))
        write_json(folder / _lesson.RESULT, told.to_dict())
        Image.new("RGB", (80, 20), "red").save(folder / "one-a.png")
    docs = tmp_path / "docs"
    docs.mkdir()
    marks = "".join(f"<!-- table {n} -->\nold\n<!-- end -->\nkept\n" for n in gallery.FIGURES)
    for page in PAGES:
        (docs / page).write_text(f"# Title\n\n{marks}", encoding="utf-8")
    return tmp_path / "lessons", docs


def run(made: tuple[Path, Path]) -> int:
    return gallery.main(["--lessons", str(made[0]), "--docs", str(made[1])])


def test_tables_and_figures_are_made_and_the_text_around_is_kept(made: tuple[Path, Path]):
    _, docs = made
    assert run(made) == 0
    english, chinese = ((docs / page).read_text(encoding="utf-8") for page in PAGES)
    assert english.count("| refused: photographs |  | 50.0% (21.5% to 78.5%) | of 8 |") == 2
    assert chinese.count("| 拒绝：照片 |  | 50.0%（21.5% 至 78.5%） | 共 8 张 |") == 2
    for text in (english, chinese):
        assert "old" not in text
        assert text.count("kept") == 2
    with Image.open(docs / "gallery-01-one.webp") as picture:
        assert picture.size == (40, 10)
    assert gallery.saved_results(docs)["02"]["lesson"] == [ROW]
    assert run(made) == 0  # and again, over its own
    assert (docs / PAGES[0]).read_text(encoding="utf-8") == english


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"lesson": [ROW | {"what": "words that nobody translated"}]},
            "words that nobody translated",
        ),
        ({"findings": ["A finding without Chinese."]}, "A finding without Chinese."),
        ({"fast": True}, "--fast"),
        ({"original": True}, "--original"),
    ],
)
def test_what_cannot_be_shown_is_refused_and_nothing_is_written(
    made: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    change: dict[str, object],
    said: str,
):
    lessons, docs = made
    before = {file.name: file.read_bytes() for file in docs.iterdir()}
    file = lessons / "02_name" / _lesson.RESULT
    write_json(file, read_json(file) | change)
    assert run(made) > 0
    assert said in " ".join(capsys.readouterr().err.split())
    assert {file.name: file.read_bytes() for file in docs.iterdir()} == before


def test_an_example_that_was_not_run_is_named(
    made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
):
    shutil.rmtree(made[0] / "02_name")
    assert run(made) == 2
    assert "examples 02" in " ".join(capsys.readouterr().err.split())


def test_figures_stay_in_their_order_in_a_translation():
    for text, form in _chinese.WORDS.items():
        places = {int(place) for place in re.findall(r"\{(\d+)\}", form)}
        assert places == set(range(text.count("{"))), text
    for text in ("98.3% (94.1% to 99.5%)", "on the same 120 pictures, p 0.065", "280 of 624"):
        numbers = re.findall(r"[\d.]+", text)
        assert sorted(re.findall(r"[\d.]+", _chinese.chinese(text))) == sorted(numbers)


def test_an_svg_file_is_drawn_as_wide_as_asked(tmp_path: Path):
    if not any(shutil.which(name) for name in NAMES):
        pytest.skip("no chromium on this machine ('apt-get install chromium' brings it)")
    file = tmp_path / "a.svg"
    file.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 100" width="200" height="100">'
        '<rect width="200" height="100" fill="#00ff00"/></svg>',
        encoding="utf-8",
    )
    picture = gallery.opened(file, 300)
    assert picture.size == (300, 150)
    assert picture.getpixel((290, 140)) == (0, 255, 0)
