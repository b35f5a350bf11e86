"""What every page shares: templates, style sheet, numbers in words, pictures as WebP files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from PIL import Image

from transferscope.report import figures

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class PagePicture:
    """A picture's file, relative to the pages' folder, or None with the reason in `words`.

    Attributes:
        file: None where there is no picture to show.
        words: what it shows, or why there is none.
        width: in pixels.
        height: in pixels.
    """

    file: str | None
    words: str
    width: int
    height: int


class Pages:
    """Writes pages, and what they all need, under one folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.environment.filters.update(
            number=number,
            percent=percent,
            chance=probability,
            signed=signed,
            address=partial(quote, safe="/"),
        )

    def write_assets(self) -> None:
        """The style sheet, with the figures' two colours, and the script."""
        (self.folder / "assets").mkdir()
        colours = f":root{{--base:{figures.BASE_COLOUR};--tuned:{figures.TUNED_COLOUR}}}\n"
        style = (TEMPLATES / "atlas.css").read_text(encoding="utf-8")
        self._write("assets/atlas.css", colours + style)
        self._write("assets/atlas.js", (TEMPLATES / "atlas.js").read_text(encoding="utf-8"))

    def write_page(self, name: str, template: str, values: Mapping[str, Any]) -> None:
        """Renders `template` with `values`, with `root` and `page` for its links, to the file `name`."""
        root = "../" * name.count("/")
        html = self.environment.get_template(f"{template}.html.j2").render(
            values, root=root, page=name
        )
        self._write(name, html)

    def _write(self, name: str, text: str) -> None:
        # A file name that is not UTF-8 reaches a page as lone surrogates: shown as "?".
        (self.folder / name).write_bytes(text.encode("utf-8", "replace"))


def save_picture(picture: Image.Image, path: Path, *, quality: int) -> None:
    """Writes a WebP file, with its transparency if it has any."""
    mode = "RGBA" if picture.mode == "RGBA" else "RGB"
    picture.convert(mode).save(path, format="WEBP", quality=quality, method=4)


# ---------------------------------------------------------------------------- words


def number(value: float | None, digits: int = 2) -> str:
    """Fixed decimals with a true minus sign; a dash for what is not a number."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else f"{0:.{digits}f}"


def signed(value: float | None, digits: int = 2) -> str:
    """`number`, with a plus sign where it is positive."""
    text = number(value, digits)
    return text if text[0] in "−–" or not float(text) else f"+{text}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share of 1 as a percentage; a dash for what is not a number."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{100 * value:.{digits}f}%"


def probability(value: float | None) -> str:
    """A p or q value: three decimals, and never a plain 0."""
    if value is None or not math.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
