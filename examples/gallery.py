"""Writes the figures and tables of docs/gallery.md and of its Chinese page from what the examples left.

    python examples/gallery.py

It reads `lessons/NN_name/result.json` of all examples, makes `docs/gallery-*.webp` of the figures that the
pages show, writes what the tables are made of to `docs/gallery.json`, and the tables and findings between
the pages' markers. The text around them is written by hand. A row or finding without a translation in
`_chinese.py` is an error. SVG files are drawn by Chromium ('apt-get install chromium').
"""

from __future__ import annotations

from _lesson import RESULT, Lesson, read_lesson

# isort: split

import argparse
import io
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from _chinese import chinese
from PIL import Image

from transferscope.cli.app import say_error
from transferscope.errors import InputError, RunError, TransferscopeError
from transferscope.files import read_json, write_bytes, write_json, write_text

DOCS = Path(__file__).parents[1] / "docs"
SAVED = "gallery.json"

Shown = Mapping[str, tuple[str, int]]

FIGURES: Mapping[str, Shown] = {
    "01": {
        "known": ("known/flower*/grad_cam.png", 800),
        "maps": ("maps/*/grad_cam.png", 800),
        "controls": ("controls.svg", 760),
    },
    "02": {
        "activations": ("activations/*[0-9].png", 640),
        "plane": ("plane.svg", 640),
        "early": ("early.svg", 760),
        "dream": ("dream.webp", 480),
    },
    "03": {
        "augmentation": ("augmentation.webp", 640),
        "history": ("history.svg", 760),
        "answers": ("answers.svg", 900),
    },
    "04": {
        "ideal": ("ideal-tiger-cat/ideal.png", 900),
        "attack": ("attack-photograph/attack.png", 900),
        "answers": ("answers.svg", 900),
    },
    "05": {
        "drawings": ("drawings-blocks.6.webp", 900),
        "depth": ("depth.svg", 760),
        "gains": ("gains.svg", 400),
        "grey": ("grey.svg", 560),
    },
    "06": {
        "strips": ("strips.svg", 900),
        "confusion": ("confusion.svg", 640),
    },
}
"""Of each example what its figures are called on the page, which file each is (the first that fits), and how
many pixels wide."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

HEADERS = {
    "gallery.md": ("measured", "lesson", "here", "note"),
    "gallery.zh-CN.md": ("测量的内容", "课程", "这里", "说明"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lessons", type=Path, default=Path("lessons"), metavar="DIR")
    parser.add_argument("--docs", type=Path, default=DOCS, metavar="DIR")
    asked = parser.parse_args(arguments)
    try:
        folders = lesson_folders(asked.lessons)
        lessons = {number: read_lesson(folder) for number, folder in folders.items()}
        refuse_small(lessons)
        saved = {number: kept(one) for number, one in lessons.items()}
        write_tables(asked.docs, saved)
        for number, folder in folders.items():
            write_figures(folder, number, asked.docs)
        write_json(asked.docs / SAVED, saved)
    except TransferscopeError as error:
        say_error(error)
        return 2 if isinstance(error, InputError) else 1
    print(
        f"{sum(map(len, FIGURES.values()))} figures, {SAVED} and {len(HEADERS)} pages in {asked.docs}"
    )
    return 0


def lesson_folders(root: Path) -> dict[str, Path]:
    """The folder of each example, by its number.

    Raises:
        InputError: one is missing.
    """
    found = {file.parent.name[:2]: file.parent for file in sorted(root.glob(f"*/{RESULT}"))}
    missing = [number for number in FIGURES if number not in found]
    if missing:
        raise InputError(
            f"{str(root)!r} has no results of the examples {', '.join(missing)}; run each from here, such as "
            f"'python examples/{missing[0]}_*.py', or give the folder by --lessons"
        )
    return {number: found[number] for number in FIGURES}


def refuse_small(lessons: Mapping[str, Lesson]) -> None:
    """Refuses results of the tests' setting, or of other data than everyone has.

    Raises:
        RunError: names one.
    """
    for number, one in lessons.items():
        if one.fast or one.original:
            asked = "--fast" if one.fast else "--original"
            raise RunError(
                f"the results of example {number} were made with {asked}, and the page shows what its plain "
                "command leaves; run it again without"
            )


def kept(one: Lesson) -> dict[str, object]:
    """What the pages' tables are made of."""
    values = one.to_dict()
    return {name: values[name] for name in ("title", "network", "data", "lesson", "findings")}


# ---------------------------------------------------------------------------- tables


def write_tables(docs: Path, saved: Mapping[str, dict[str, object]]) -> None:
    """Puts every example's table and findings between the markers of both pages."""
    texts = {}
    for page in HEADERS:
        text = (docs / page).read_text(encoding="utf-8")
        for number in saved:
            text = put(text, f"table {number}", table_of(page, saved[number]), page)
        texts[page] = text
    for page, text in texts.items():  # both or neither
        write_text(docs / page, text)


def put(text: str, name: str, content: str, page: str) -> str:
    """A page with other content between `<!-- name -->` and `<!-- end -->`.

    Raises:
        InputError: the page lacks the markers.
    """
    marks = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if len(marks.findall(text)) != 1:
        raise InputError(f"{page} needs one '<!-- {name} -->' with an '<!-- end -->' behind it")
    return marks.sub(lambda found: found[1] + content + found[2], text)


def table_of(page: str, lesson: Mapping[str, object]) -> str:
    """Markdown: a row a line of the table, then a point a finding."""
    say: Callable[[str], str] = chinese if page.endswith("zh-CN.md") else str
    headers = HEADERS[page]
    rows = [headers, ("---",) * len(headers)]
    entries: Sequence[Mapping[str, str]] = lesson["lesson"]  # type: ignore[assignment]
    findings: Sequence[str] = lesson["findings"]  # type: ignore[assignment]
    for one in entries:
        rows.append(tuple(say(one[name]) for name in ("what", "lesson", "ours", "note")))
    lines = [f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in rows]
    points = [f"- {say(one)}" for one in findings]
    return (
        "\n" + "\n".join(lines) + "\n" + ("\n" + "\n".join(points) + "\n" if points else "") + "\n"
    )


# ---------------------------------------------------------------------------- figures


def write_figures(folder: Path, number: str, docs: Path) -> None:
    """An example's figures as `gallery-NN-name.webp`."""
    for name, (pattern, width) in FIGURES[number].items():
        files = sorted(folder.glob(pattern))
        if not files:
            raise RunError(f"{str(folder)!r} has no {pattern}; run the example again")
        picture = opened(files[0], width)
        picture.thumbnail((width, 4 * width), Image.Resampling.LANCZOS)
        held = io.BytesIO()
        picture.convert("RGB").save(held, "WEBP", quality=78, method=6)
        write_bytes(docs / f"gallery-{number}-{name}.webp", held.getvalue())


def opened(file: Path, width: int) -> Image.Image:
    """A picture, or an SVG file as Chromium draws it so wide."""
    if file.suffix != ".svg":
        with Image.open(file) as picture:
            return picture.convert("RGB")
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise RunError(
            "SVG files are drawn by Chromium, which is not here; 'apt-get install chromium'"
        )
    _, _, across, down = map(float, ElementTree.parse(file).getroot().attrib["viewBox"].split())
    with tempfile.TemporaryDirectory() as scratch:
        page, shot = Path(scratch, "page.html"), Path(scratch, "shot.png")
        height = round(width * down / across)
        page.write_text(
            f'<body style="margin:0"><img src="{file.resolve().as_uri()}" width="{width}" height="{height}">',
            encoding="utf-8",
        )
        # fmt: off
        command = [
            browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={scratch}/profile", f"--window-size={width},{height}",
            "--force-device-scale-factor=1", f"--screenshot={shot}", page.as_uri(),
        ]
        # fmt: on
        subprocess.run(command, capture_output=True, timeout=200, check=True)
        with Image.open(shot) as picture:
            return picture.convert("RGB")


def saved_results(docs: Path = DOCS) -> dict[str, dict[str, object]]:
    """What the tables of the pages were made of."""
    found: dict[str, dict[str, object]] = read_json(docs / SAVED)
    return found


if __name__ == "__main__":
    sys.exit(main())
