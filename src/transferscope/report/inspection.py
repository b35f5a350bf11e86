"""The report on a set of pictures: what it holds, what to mend before training, and its pictures.

    index.html         findings, figures, contact sheets
    inspection.json    the same for programs, with every file that needs attention
    pictures.csv       a row a picture
    images/ assets/    WebP pictures; the style sheet and the script

The atlas has the same page as data.html.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image, ImageOps

from transferscope.data.duplicates import NearPair
from transferscope.data.findings import (
    NETWORK_SIDE,
    counted,
    findings,
    opening,
    sampled,
    urgency,
)
from transferscope.data.inspection import (
    REASONS,
    Inspection,
    Outlier,
    across_classes,
    across_splits,
)
from transferscope.data.loading import in_order
from transferscope.errors import InputError, PictureError
from transferscope.images import read_picture
from transferscope.report import data_figures
from transferscope.report.pages import PagePicture, Pages, save_picture
from transferscope.storage import replaced_folder

TILE = 96
"""Side of a picture on a contact sheet, in pixels."""

CLASS_CAP = 1000
"""Classes that have a contact sheet and a row in the table, at most."""

_COLUMNS = 6  # of a contact sheet
_SHEET = 12  # pictures on it, half of that where there are hundreds of classes
_MANY_CLASSES = 200
_PAIR_SIDE = 192  # of each picture of a pair, in pixels
_PAIRS = 60  # near duplicates shown
_PLAIN_PAIRS = 18  # of them, those within one split and one class
_GROUPS = 24  # groups of copies shown
_PER_GROUP = 6  # paths told of each
_OUTLIERS = 12  # pictures shown for each reason
_FILES = 50  # files told that are left out
REASON_WORDS = {
    "blank": ("Blank", "contrast below 0.01: nothing is to be seen"),
    "dark": ("Dark", "far darker than the set"),
    "bright": ("Bright", "far brighter than the set"),
    "flat": ("Flat", "far less contrast than the set has"),
    "harsh": ("Harsh", "far more contrast than the set has"),
}
"""Why a picture stands out, for a reader: a heading and a sentence."""


def write_inspection(
    inspection: Inspection,
    out: Path,
    *,
    title: str,
    pictures: bool = True,
    preview: Mapping[str, Image.Image] | None = None,
) -> Path:
    """Writes the report as the folder `out`, whole or not at all. The same inspection, the same bytes.

    Args:
        inspection: what to show.
        out: a new folder, an empty one, or an earlier report, which is replaced.
        title: of the page.
        pictures: False leaves out every picture and every file's name, and so inspection.json and
            pictures.csv too.
        preview: an augmentation's name to a sheet of one picture as training will see it.

    Returns:
        The path of index.html.

    Raises:
        OutputError: `out` holds files that are not ours, or cannot be written.
    """
    with replaced_folder(out) as folder:
        pages = Pages(folder)
        pages.write_assets()
        if pictures:
            inspection.save(folder)
        shared = {
            "title": title,
            "own_pictures": pictures,
            "has_method": False,
            "navigation": [("index.html", "Data")],
        }
        values = inspection_page(inspection, folder, pictures=pictures, preview=preview)
        pages.write_page("index.html", "inspection", shared | values)
    return out / "index.html"


def inspection_page(
    inspection: Inspection,
    folder: Path,
    *,
    pictures: bool,
    preview: Mapping[str, Image.Image] | None = None,
) -> dict[str, Any]:
    """What the template `inspection` shows; its pictures are written below `folder`/images/data.

    Args:
        inspection: what to show.
        folder: of the page.
        pictures: False leaves out every picture and every file's name.
        preview: see `write_inspection`.
    """
    sheets = _Sheets(inspection, folder)
    many = bool(inspection.facts)
    values: dict[str, Any] = {
        "inspection": inspection,
        "opening": opening(inspection),
        "glance": _glance(inspection),
        "classes": _class_rows(inspection),
        "class_cap": CLASS_CAP,
        "class_figure": (
            Markup(data_figures.class_figure(inspection)) if inspection.scan.classes else None
        ),
        "size_figure": (
            Markup(data_figures.size_figure(inspection, side=NETWORK_SIDE)) if many else None
        ),
        "tone_figure": Markup(data_figures.tone_figure(inspection)) if many else None,
        "aspect_figure": Markup(data_figures.aspect_figure(inspection)) if many else None,
        "network_side": NETWORK_SIDE,
        "reasons": Counter(reason for _, reason in inspection.scan.excluded).most_common(_FILES),
        "samples": [],
        "pairs": [],
        "copies": [],
        "outliers": [],
        "excluded": [],
        "preview": [],
        "per_group": _PER_GROUP,
    }
    if pictures:
        values |= {
            "samples": sheets.samples(),
            "pairs": sheets.pairs(),
            "copies": sheets.copies(),
            "outliers": sheets.outliers(),
            "excluded": inspection.scan.excluded[:_FILES],
            "preview": sheets.preview(preview or {}),
        }
    shown = {
        "near-duplicates": values["pairs"],
        "copies": values["copies"],
        "outliers": values["outliers"],
        "left-out": values["reasons"],
        "classes": values["classes"],
        "shapes": many,
    }
    sections = {name for name, content in shown.items() if content}
    return values | {"sections": sections, "findings": findings(inspection, names=pictures)}


# ---------------------------------------------------------------------------- numbers and rows


def _glance(inspection: Inspection) -> list[tuple[str, str]]:
    """The set's main numbers, label and value."""
    sizes = inspection.sizes()
    rows = [("Pictures", f"{len(inspection.scan.pictures):,}")]
    if inspection.scan.classes:
        rows.append(("Classes", f"{len(inspection.scan.classes):,}"))
    if inspection.imbalance is not None:
        rows.append(("Largest to smallest class", f"{inspection.imbalance:,.1f} : 1"))
    if sizes:
        width, height = (sizes[None][measure][3] for measure in ("width", "height"))
        rows.append(("Median width and height", f"{width:,.0f} × {height:,.0f}"))
    rows.append(("Files left out", f"{len(inspection.scan.excluded):,}"))
    surplus = sum(len(one.paths) - 1 for one in inspection.duplicates)
    rows.append(("Copies, byte for byte", f"{surplus:,}"))
    rows.append(("Near duplicates", f"{len(inspection.near_duplicates):,}"))
    rows.append(("Far from the set's tones", f"{len(inspection.outliers):,}"))
    return rows


def _class_rows(inspection: Inspection) -> list[tuple[str, dict[str, int], str]]:
    """(class, split to number, median size) of the first CLASS_CAP classes."""
    sizes = inspection.sizes()
    rows = []
    for name, parts in list(inspection.counts().items())[:CLASS_CAP]:
        own = sizes.get(name)
        middle = f"{own['width'][3]:,.0f} × {own['height'][3]:,.0f}" if own else "–"
        rows.append((name, parts, middle))
    return rows


# ---------------------------------------------------------------------------- pictures


def sample_sheet(
    files: Iterable[Path], *, columns: int = _COLUMNS, side: int = TILE, gap: int = 4
) -> Image.Image:
    """A contact sheet of centre crops, row by row, on a transparent ground.

    Args:
        files: at least one. One that cannot be read any more leaves a grey tile.
        columns: of the sheet, which keeps its width where there are fewer files.
        side: of a crop, in pixels.
        gap: between crops, in pixels.

    Raises:
        InputError: no files.
    """
    tiles = [_crop(file, side) for file in files]
    if not tiles:
        raise InputError("a contact sheet needs at least one picture")
    rows = -(-len(tiles) // columns)
    pitch = side + gap
    sheet = Image.new("RGBA", (columns * pitch - gap, rows * pitch - gap))
    for place, tile in enumerate(tiles):
        sheet.paste(tile, (place % columns * pitch, place // columns * pitch))
    return sheet


def _crop(file: Path, side: int) -> Image.Image:
    try:
        picture = read_picture(file, least_side=side)
    except PictureError:
        return Image.new("RGBA", (side, side), (128, 128, 128, 70))
    return ImageOps.fit(picture, (side, side), Image.Resampling.BICUBIC, bleed=0).convert("RGBA")


class _Sheets:
    """Writes the pictures of a page below images/data, each once."""

    def __init__(self, inspection: Inspection, folder: Path):
        self.inspection = inspection
        self.folder = folder
        self.written: dict[str, PagePicture] = {}
        self.place = {picture.path: at for at, picture in enumerate(inspection.scan.pictures)}
        (folder / "images/data").mkdir(parents=True)

    def samples(self) -> list[tuple[str, dict[str, int], PagePicture]]:
        """(class, split to number, contact sheet) of the first CLASS_CAP classes that have pictures."""
        scan = self.inspection.scan
        members: list[list[int]] = [[] for _ in scan.classes]
        unlabelled: list[int] = []
        for at, picture in enumerate(scan.pictures):
            (unlabelled if picture.label is None else members[picture.label]).append(at)
        count = _SHEET if len(scan.classes) <= _MANY_CLASSES else _SHEET // 2
        counts = self.inspection.counts()
        jobs = [
            (f"class-{label}", name, counts[name], sampled(members[label], count, seed=label))
            for label, name in enumerate(scan.classes[:CLASS_CAP])
            if members[label]
        ]
        if unlabelled:
            number = {"": len(unlabelled)}
            jobs.append(("no-class", "", number, sampled(unlabelled, 2 * _SHEET, seed=0)))

        def draw(job: tuple[str, str, dict[str, int], list[int]]) -> PagePicture:
            stem, name, _, places = job
            sheet = sample_sheet(scan.file(scan.pictures[at]) for at in places)
            words = f"{counted(len(places), 'picture')} of {name or 'no class'}"
            return self._save(sheet, stem, words, quality=75)

        pictures = in_order(draw, jobs)
        return [(job[1], job[2], picture) for job, picture in zip(jobs, pictures, strict=True)]

    def pairs(self) -> list[dict[str, Any]]:
        """Near duplicates: across splits and classes first, then across splits, across classes, rest."""
        ordered = sorted(
            self.inspection.near_duplicates,
            key=lambda pair: (urgency(pair), pair.measure, pair.distance, pair.paths),
        )
        grave = sum(urgency(pair) < 3 for pair in ordered)
        chosen = ordered[: min(_PAIRS, grave + _PLAIN_PAIRS)]
        return [
            {
                "pair": pair,
                "pictures": [self._whole(path) for path in pair.paths],
                "split": across_splits(pair),
                "label": across_classes(pair),
                "distance": _distance(pair),
            }
            for pair in chosen
        ]

    def copies(self) -> list[dict[str, Any]]:
        """Groups of equal files, those across splits or classes first."""
        chosen = sorted(
            self.inspection.duplicates,
            key=lambda group: (urgency(group), -len(group.paths), group.paths),
        )[:_GROUPS]
        return [
            {
                "group": group,
                "picture": self._whole(group.paths[0]),
                "split": across_splits(group),
                "label": across_classes(group),
            }
            for group in chosen
        ]

    def outliers(self) -> list[dict[str, Any]]:
        """By reason: heading, sentence, how many there are, the farthest with their pictures."""
        by_reason: dict[str, list[Outlier]] = {reason: [] for reason in REASONS}
        for one in self.inspection.outliers:
            by_reason[one.reason].append(one)
        return [
            {
                "heading": REASON_WORDS[reason][0],
                "words": REASON_WORDS[reason][1],
                "total": len(found),
                "measure": "brightness" if reason in ("dark", "bright") else "contrast",
                "shown": [(one, self._whole(one.path)) for one in found[:_OUTLIERS]],
            }
            for reason, found in by_reason.items()
            if found
        ]

    def preview(self, sheets: Mapping[str, Image.Image]) -> list[tuple[str, PagePicture]]:
        """(augmentation, sheet) of each."""
        return [
            (name, self._save(sheet, f"training-{index}", f"{name} augmentation", quality=85))
            for index, (name, sheet) in enumerate(sheets.items())
        ]

    def _whole(self, path: str) -> PagePicture:
        """A whole picture at most _PAIR_SIDE pixels a side."""
        if path not in self.written:
            try:
                file = self.inspection.scan.root / path
                picture = read_picture(file, least_side=_PAIR_SIDE)
            except PictureError:
                picture = None
            if picture is None:
                self.written[path] = PagePicture(None, "picture not found", _PAIR_SIDE, _PAIR_SIDE)
            else:
                picture.thumbnail((_PAIR_SIDE, _PAIR_SIDE))
                stem = f"picture-{self.place[path]}"
                self.written[path] = self._save(picture, stem, path, quality=80)
        return self.written[path]

    def _save(self, picture: Image.Image, stem: str, words: str, *, quality: int) -> PagePicture:
        file = f"images/data/{stem}.webp"
        save_picture(picture, self.folder / file, quality=quality)
        return PagePicture(file, words, *picture.size)


def _distance(pair: NearPair) -> str:
    if pair.measure == "embedding":
        return f"features alike to {1 - pair.distance:.3f}"
    bits = f"{pair.distance:.0f} of 64 bits differ"
    return f"mirror images, {bits}" if pair.measure == "mirrored phash" else bits
