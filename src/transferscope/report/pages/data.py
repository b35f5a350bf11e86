"""The page on a set of pictures: what it holds, what to mend before training, and its pictures.

The atlas has it as data.html; alone it is the report of an inspection:

    index.html         findings, figures, contact sheets
    inspection.json    the same for programs, with every file that needs attention
    pictures.csv       a row a picture
    images/ assets/    WebP pictures; the style sheet and the script
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from transferscope.data.cues import cue_words
from transferscope.data.findings import NETWORK_SIDE, findings, opening, urgency
from transferscope.data.inspection import REASONS, Inspection, across_classes, across_splits
from transferscope.data.loading import in_order
from transferscope.files import replaced_folder
from transferscope.report.figures import data as figures
from transferscope.report.pages.content import AtlasContent
from transferscope.report.pages.registry import Section, page
from transferscope.report.pages.site import PagePicture, Site
from transferscope.report.sheets.samples import sample_sheet, sampled
from transferscope.wording import counted

CLASS_CAP = 1000
"""Classes that have a contact sheet and a row in the table, at most."""

_SHEET = 12  # pictures on a contact sheet, half of that where there are hundreds of classes
_MANY_CLASSES = 200
_PAIR_SIDE = 192  # of each picture of a pair, in pixels
_PAIRS = 60  # near duplicates shown
_PLAIN_PAIRS = 18  # of them, those within one split and one class
_GROUPS = 24  # groups of copies shown
_PER_GROUP = 6  # paths told of each
_OUTLIERS = 12  # pictures shown for each reason
_FILES = 50  # files told that are left out
_CUES = 20  # told of

REASON_WORDS = {
    "blank": ("Blank", "contrast below 0.01: nothing is to be seen"),
    "dark": ("Dark", "far darker than the set"),
    "bright": ("Bright", "far brighter than the set"),
    "flat": ("Flat", "far less contrast than the set has"),
    "harsh": ("Harsh", "far more contrast than the set has"),
}
"""Why a picture stands out, for a reader: a heading and a sentence."""


@page("data", title="Data", order=20)
def data(content: AtlasContent, site: Site) -> Section | None:
    """The pictures of the run, if they were inspected."""
    if content.inspection is None:
        return None
    return Section(_values(content.inspection, site, content.preview))


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
    with replaced_folder(out) as folder, Site(folder, pictures=pictures) as site:
        site.write_assets()
        if pictures:
            inspection.save(folder)
        shared = {"title": title, "navigation": [("index.html", "Data")]}
        site.write_page("index.html", "data", shared | _values(inspection, site, preview))
    return out / "index.html"


def _values(
    inspection: Inspection, site: Site, preview: Mapping[str, Image.Image] | None
) -> dict[str, Any]:
    """What the template shows; its pictures are written below images/data."""
    (site.folder / "images/data").mkdir(parents=True)
    many = bool(inspection.facts)
    told = [one for one in inspection.cues if one.label is not None]
    names = ("class_figure", "size_figure", "tone_figure", "aspect_figure")
    values: dict[str, Any] = {
        "inspection": inspection,
        "opening": opening(inspection),
        "glance": _glance(inspection),
        "classes": _class_rows(inspection),
        "class_cap": CLASS_CAP,
        "network_side": NETWORK_SIDE,
        "reasons": Counter(reason for _, reason in inspection.scan.excluded).most_common(_FILES),
        "per_group": _PER_GROUP,
        "most_outliers": _OUTLIERS,
        "reason_words": REASON_WORDS,
        "cues": [(cue_words(one.name, one.family), one) for one in told[:_CUES]],
        "cues_in_all": len(told),
        "across_splits": across_splits,
        "across_classes": across_classes,
        **dict.fromkeys(names),
        **_pictures(inspection, site, preview or {}),
    }
    if inspection.scan.classes:
        values["class_figure"] = Markup(figures.class_figure(inspection))
    if many:
        values["size_figure"] = Markup(figures.size_figure(inspection, side=NETWORK_SIDE))
        values["tone_figure"] = Markup(figures.tone_figure(inspection))
        values["aspect_figure"] = Markup(figures.aspect_figure(inspection))
    shown = {
        "near-duplicates": values["pairs"],
        "copies": values["copies"],
        "outliers": values["outliers"],
        "left-out": values["reasons"],
        "classes": values["classes"],
        "shapes": many,
        "cues": told,
    }
    sections = {name for name, content in shown.items() if content}
    return values | {"sections": sections, "findings": findings(inspection, names=site.pictures)}


# ---------------------------------------------------------------------------- numbers and rows


def _glance(inspection: Inspection) -> list[tuple[str, str]]:
    """The set's main numbers, label and value."""
    sizes, scan, imbalance = inspection.sizes(), inspection.scan, inspection.imbalance
    rows = [("Pictures", f"{len(scan.pictures):,}")]
    if scan.classes:
        rows.append(("Classes", f"{len(scan.classes):,}"))
    if imbalance is not None:
        rows.append(("Largest to smallest class", f"{imbalance:,.1f} : 1"))
    if sizes:
        rows.append(("Median width and height", _median_size(sizes[None])))
    surplus = sum(len(one.paths) - 1 for one in inspection.duplicates)
    return [
        *rows,
        ("Files left out", f"{len(scan.excluded):,}"),
        ("Copies, byte for byte", f"{surplus:,}"),
        ("Near duplicates", f"{len(inspection.near_duplicates):,}"),
        ("Far from the set's tones", f"{len(inspection.outliers):,}"),
    ]


def _class_rows(inspection: Inspection) -> list[tuple[str, dict[str, int], str]]:
    """(class, split to number, median size) of the first CLASS_CAP classes."""
    sizes = inspection.sizes()
    return [
        (name, parts, _median_size(sizes[name]) if name in sizes else "–")
        for name, parts in list(inspection.counts().items())[:CLASS_CAP]
    ]


def _median_size(measures: Mapping[str, Sequence[float]]) -> str:
    return f"{measures['width'][3]:,.0f} × {measures['height'][3]:,.0f}"


# ---------------------------------------------------------------------------- pictures


def _pictures(
    inspection: Inspection, site: Site, preview: Mapping[str, Image.Image]
) -> dict[str, Any]:
    """What is shown with pictures by the template's name; empty where none is to be shown.

    `whole` gives the template a picture by its path.
    """
    if not site.pictures:
        names = ("samples", "pairs", "copies", "outliers", "excluded", "preview")
        return {name: [] for name in names}
    place = {picture.path: at for at, picture in enumerate(inspection.scan.pictures)}

    def whole(path: str) -> PagePicture:
        file = f"images/data/picture-{place[path]}.webp"
        return site.whole(inspection.scan.root / path, file, path, side=_PAIR_SIDE)

    pairs = sorted(
        inspection.near_duplicates,
        key=lambda pair: (urgency(pair), pair.measure, pair.distance, pair.paths),
    )
    copies = sorted(
        inspection.duplicates, key=lambda one: (urgency(one), -len(one.paths), one.paths)
    )
    grave = sum(across_splits(pair) or across_classes(pair) for pair in pairs)
    reasons = ((r, [one for one in inspection.outliers if one.reason == r]) for r in REASONS)
    return {
        "whole": whole,
        "samples": _samples(inspection, site),
        "pairs": pairs[: min(_PAIRS, grave + _PLAIN_PAIRS)],
        "copies": copies[:_GROUPS],
        "outliers": [(reason, found) for reason, found in reasons if found],
        "excluded": inspection.scan.excluded[:_FILES],
        "preview": [
            (name, _save(site, sheet, f"training-{index}", f"{name} augmentation", quality=85))
            for index, (name, sheet) in enumerate(preview.items())
        ],
    }


def _samples(
    inspection: Inspection, site: Site
) -> list[tuple[str, Mapping[str, int], PagePicture]]:
    """(class, split to number, contact sheet) of the first CLASS_CAP classes that have pictures."""
    scan, counts = inspection.scan, inspection.counts()
    members: dict[int | None, list[int]] = defaultdict(list)
    for at, picture in enumerate(scan.pictures):
        members[picture.label].append(at)
    count = _SHEET if len(scan.classes) <= _MANY_CLASSES else _SHEET // 2
    jobs = [
        (f"class-{label}", name, counts[name], sampled(members[label], count, seed=label))
        for label, name in enumerate(scan.classes[:CLASS_CAP])
        if label in members
    ]
    if unlabelled := members.get(None):
        number = {"": len(unlabelled)}
        jobs.append(("no-class", "", number, sampled(unlabelled, 2 * _SHEET, seed=0)))

    def draw(job: tuple[str, str, dict[str, int], list[int]]) -> PagePicture:
        stem, name, _, places = job
        for at in places:
            site.shows(scan.pictures[at].path)
        sheet = sample_sheet(scan.file(scan.pictures[at]) for at in places)
        words = f"{counted(len(places), 'picture')} of {name or 'no class'}"
        return _save(site, sheet, stem, words, quality=75)

    pictures = in_order(draw, jobs)
    return [(job[1], job[2], picture) for job, picture in zip(jobs, pictures, strict=True)]


def _save(site: Site, picture: Image.Image, stem: str, words: str, *, quality: int) -> PagePicture:
    return site.save(picture, f"images/data/{stem}.webp", words, quality=quality)
