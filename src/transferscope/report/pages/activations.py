"""The page beside the sheets of one picture's activations: a table of the layers, then the sheets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from transferscope.report.pages.site import Site
from transferscope.report.sheets.activations import COVERED, LayerSheet


def write_sheets_page(
    folder: Path, sheets: Sequence[LayerSheet], *, title: str, network: str, picture: Image.Image
) -> None:
    """Writes index.html beside the sheets.

    Args:
        folder: where the sheets are.
        sheets: in the order of the forward pass.
        title: of the page, such as the picture's file name; in any script.
        network: what the maps are of.
        picture: as the network saw it.
    """
    picture.save(folder / "picture.png")

    def with_size(file: str) -> tuple[str, int, int]:
        with Image.open(folder / file) as page:
            return file, *page.size

    values = {
        "title": title,
        "network": network,
        "sheets": [(sheet, [with_size(file) for file in sheet.pages]) for sheet in sheets],
        "picture": picture,
        "covered": COVERED,
        "navigation": [("index.html", "Activations")],
    }
    with Site(folder) as site:
        site.write_assets()
        site.write_page("index.html", "activations", values)
