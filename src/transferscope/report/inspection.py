"""The report on a set of pictures: what it holds, what to mend before training, and its pictures.

    index.html         findings, figures, contact sheets
    inspection.json    the same for programs, with every file that needs attention
    pictures.csv       a row a picture
    images/ assets/    WebP pictures; the style sheet and the script

The atlas has the same page as data.html.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from markupsafe import Markup
from PIL import Image, ImageOps
from scipy.stats.contingency import association

from transferscope.data.duplicates import Copies, NearPair
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

NETWORK_SIDE = 224
"""Side in pixels of what most backbones see; the page says which pictures are below it."""

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
_IMBALANCE = 10.0
_FEW = 10  # training pictures below which a class has few
_LONG = 3.0  # aspect ratio
_SMALL_SHARE = 0.05
_TELLING = 0.5  # Cramér's V from which a file's kind gives its class away
_TRANSPARENT = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})

REASON_WORDS = {
    "blank": ("Blank", "contrast below 0.01: nothing is to be seen"),
    "dark": ("Dark", "far darker than the set"),
    "bright": ("Bright", "far brighter than the set"),
    "flat": ("Flat", "far less contrast than the set has"),
    "harsh": ("Harsh", "far more contrast than the set has"),
}
"""Why a picture stands out, for a reader: a heading and a sentence."""

Gravity = Literal["stop", "fix", "know"]


@dataclass(frozen=True)
class Finding:
    """Something to do, or to know, before training.

    Attributes:
        gravity: stop: training is refused, or its figures would not be true; fix: worth an hour;
            know: no more than that.
        sentence: what was found.
        remedy: what to do about it; may be empty.
        section: of the page, that shows it; or None.
    """

    gravity: Gravity
    sentence: str
    remedy: str
    section: str | None = None


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


# ---------------------------------------------------------------------------- words


def opening(inspection: Inspection) -> str:
    """What the set is, in one sentence with its numbers."""
    scan = inspection.scan
    parts = [f"{_count(len(scan.pictures), 'picture')}"]
    if scan.classes:
        parts[0] += f" of {_count(len(scan.classes), 'class', 'classes')}"
    if scan.excluded:
        parts.append(f"{_count(len(scan.excluded), 'file')} left out")
    if inspection.duplicates:
        surplus = sum(len(one.paths) - 1 for one in inspection.duplicates)
        parts.append(_count(surplus, "copy", "copies"))
    if inspection.near_duplicates:
        conflicts = sum(map(across_classes, inspection.near_duplicates))
        pairs = _count(len(inspection.near_duplicates), "near duplicate")
        parts.append(pairs + (f", {conflicts:,} of them across classes" if conflicts else ""))
    return "; ".join(parts) + "."


def findings(inspection: Inspection, *, names: bool = True) -> list[Finding]:
    """What to mend or to know before training, the gravest first.

    Args:
        inspection: of the set.
        names: False tells no file's name.
    """
    found = [
        *_refusals(inspection, names=names),
        *_leaks(inspection),
        *_label_conflicts(inspection),
        *_left_out(inspection),
        *_class_findings(inspection),
        *_giveaways(inspection),
        *_tone_findings(inspection),
        *_shape_findings(inspection),
        *_file_findings(inspection),
    ]
    order = {"stop": 0, "fix": 1, "know": 2}
    return sorted(found, key=lambda one: order[one.gravity])


def _refusals(inspection: Inspection, *, names: bool) -> Iterator[Finding]:
    for problem in inspection.problems if names else ():
        sentence = problem[0].upper() + problem[1:]
        yield Finding("stop", f"Training is refused: {sentence.rstrip('.')}.", "")
    if inspection.problems and not names:
        yield Finding("stop", "Training is refused.", "'transferscope inspect' tells why.")


def _leaks(inspection: Inspection) -> Iterator[Finding]:
    copies = sum(map(across_splits, inspection.duplicates))
    if copies:
        yield Finding(
            "stop",
            f"{_count(copies, 'picture')} {_is(copies)} in more than one split, byte for byte.",
            "Accuracy on the copies is memory, not skill. 'tune --dedupe' leaves copies of training "
            "pictures out of the other splits.",
            "copies",
        )
    near = sum(map(across_splits, inspection.near_duplicates))
    if near:
        yield Finding(
            "fix",
            f"{_count(near, 'near duplicate')} across splits.",
            "Look at the pairs. Where they are one scene or one object, keep them together with "
            "'--group', or remove one of each; until then test accuracy flatters.",
            "near-duplicates",
        )


def _label_conflicts(inspection: Inspection) -> Iterator[Finding]:
    same = sum(map(across_classes, inspection.duplicates))
    if same:
        yield Finding(
            "fix",
            f"{_count(same, 'picture')} {_is(same)} filed under more than one class.",
            "One of the labels is wrong, or the picture shows both: decide, and remove the other.",
            "copies",
        )
    near = sum(map(across_classes, inspection.near_duplicates))
    if near:
        yield Finding(
            "fix",
            f"{_count(near, 'near duplicate')} across classes: probably wrong labels.",
            "Look at each pair and correct the label that is wrong.",
            "near-duplicates",
        )


def _left_out(inspection: Inspection) -> Iterator[Finding]:
    count = len(inspection.scan.excluded)
    if count:
        reasons = Counter(reason for _, reason in inspection.scan.excluded).most_common(1)
        yield Finding(
            "fix",
            f"{_count(count, 'file')} {_is(count)} left out"
            + (f", most often because: {reasons[0][0]}." if count > 1 else f": {reasons[0][0]}."),
            "Nothing takes their place. Repair or remove them.",
            "left-out",
        )


def _class_findings(inspection: Inspection) -> Iterator[Finding]:
    sizes = {name: size for name, size in inspection.class_sizes.items() if size}
    imbalance = inspection.imbalance
    pictures = "training pictures" if "train" in inspection.splits else "pictures"
    if imbalance is not None and imbalance > _IMBALANCE:
        most, least = max(sizes, key=sizes.__getitem__), min(sizes, key=sizes.__getitem__)
        yield Finding(
            "fix",
            f"The largest class is {imbalance:,.0f} times the smallest: {sizes[most]:,} {pictures} of "
            f"“{most}”, {sizes[least]:,} of “{least}”.",
            "Judge by the mean over classes, not by overall accuracy, and add to the small classes.",
            "classes",
        )
    few = [name for name, size in sizes.items() if size < _FEW]
    if few:
        yield Finding(
            "fix",
            f"{_count(len(few), 'class has', 'classes have')} fewer than {_FEW} {pictures}: "
            f"{_listed(few)}.",
            "Add some, or merge them into a neighbour; so few are learned by heart.",
            "classes",
        )
    counts = inspection.counts()
    for split in ("validation", "test"):
        lacking = [name for name, parts in counts.items() if parts.get(split) == 0]
        if lacking:
            yield Finding(
                "fix",
                f"{_count(len(lacking), 'class has', 'classes have')} no {split} pictures: "
                f"{_listed(lacking)}.",
                "How well they are recognised will not be known.",
                "classes",
            )


def _giveaways(inspection: Inspection) -> Iterator[Finding]:
    """Properties of files that tell the class before anything is looked at (Cramér's V)."""
    for words, kinds in (
        ("The file format gives", [one.format for one in inspection.facts]),
        ("The colour mode gives", [one.mode for one in inspection.facts]),
    ):
        strength = _association(inspection.labels, kinds)
        if strength >= _TELLING:
            yield Finding(
                "fix",
                f"{words} the class away (Cramér's V {strength:.2f}, where 1 is completely).",
                "A network may learn how the files were made in place of what they show. Bring all of "
                "them to one kind in the same way.",
                "shapes",
            )


def _tone_findings(inspection: Inspection) -> Iterator[Finding]:
    reasons = Counter(one.reason for one in inspection.outliers)
    blank = reasons.pop("blank", 0)
    if blank:
        yield Finding(
            "fix",
            f"{_count(blank, 'picture')} {_is(blank)} blank.",
            "They teach that a class looks like nothing. Remove them.",
            "outliers",
        )
    rest = sum(reasons.values())
    if rest:
        kinds = ", ".join(f"{reasons[name]:,} {name}" for name in REASONS if reasons[name])
        yield Finding(
            "know",
            f"{_count(rest, 'picture stands', 'pictures stand')} out from the set: {kinds}.",
            "Look at them: most are fine, some are scans, icons or failed exposures.",
            "outliers",
        )


def _shape_findings(inspection: Inspection) -> Iterator[Finding]:
    if not inspection.facts:
        return
    total = len(inspection.facts)
    small = int((np.minimum(inspection.widths, inspection.heights) < NETWORK_SIDE).sum())
    if small >= _SMALL_SHARE * total:
        yield Finding(
            "know",
            f"{_share(small, total)} of the pictures are below {NETWORK_SIDE} pixels on their "
            "shorter side.",
            "They are enlarged, which adds no detail. Use larger originals if there are any.",
            "shapes",
        )
    aspects = inspection.widths / inspection.heights
    long = int((np.maximum(aspects, 1 / aspects) > _LONG).sum())
    if long:
        yield Finding(
            "know",
            f"{_count(long, 'picture')} {_is(long)} more than {_LONG:.0f} times as long as wide.",
            "The centre crop sees less than a third of them. Crop them to what matters.",
            "shapes",
        )


def _file_findings(inspection: Inspection) -> Iterator[Finding]:
    inside = sum(not across_splits(one) for one in inspection.duplicates)
    if inside:
        yield Finding(
            "know",
            f"{_count(inside, 'picture')} {_is(inside)} there more than once within a split.",
            "Copies weigh double. Remove all but one.",
            "copies",
        )
    clear = sum(count for mode, count in inspection.modes.items() if mode in _TRANSPARENT)
    if clear:
        yield Finding(
            "know",
            f"{_count(clear, 'picture has', 'pictures have')} a transparency channel.",
            "They are laid over white, in training and in prediction alike.",
            "shapes",
        )
    if inspection.animated:
        yield Finding(
            "know",
            f"{_count(inspection.animated, 'picture is', 'pictures are')} animated.",
            "The first frame is used.",
            "shapes",
        )


def _association(labels: np.ndarray, kinds: Sequence[str]) -> float:
    """Cramér's V of classes and kinds; 0 where there is one of either."""
    known = labels >= 0
    names, codes = np.unique(np.asarray(kinds, dtype=object).astype(str), return_inverse=True)
    present, rows = np.unique(labels[known], return_inverse=True)
    if len(present) < 2 or len(names) < 2:
        return 0.0
    table = np.zeros((len(present), len(names)), dtype=np.int64)
    np.add.at(table, (rows, codes[known]), 1)
    table = table[:, table.any(axis=0)]
    return float(association(table, method="cramer")) if table.shape[1] > 1 else 0.0


def _count(number: int, one: str, more: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _share(part: int, whole: int) -> str:
    return "All" if part == whole else f"{math.floor(100 * part / whole)}%"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4:,} more" if len(names) > 4 else ""
    return ", ".join(f"“{name}”" for name in names[:4]) + more


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


def sampled(places: Sequence[int], count: int, *, seed: int) -> list[int]:
    """`count` of `places`, spread over them: one drawn from each of as many equal stretches."""
    if len(places) <= count:
        return list(places)
    edges = np.linspace(0, len(places), count + 1)
    drawn = np.random.default_rng(seed).uniform(edges[:-1], edges[1:])
    return [places[min(int(at), len(places) - 1)] for at in drawn]


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
            words = f"{_count(len(places), 'picture')} of {name or 'no class'}"
            return self._save(sheet, stem, words, quality=75)

        pictures = in_order(draw, jobs)
        return [(job[1], job[2], picture) for job, picture in zip(jobs, pictures, strict=True)]

    def pairs(self) -> list[dict[str, Any]]:
        """Near duplicates: across splits and classes first, then across splits, across classes, rest."""
        ordered = sorted(self.inspection.near_duplicates, key=_pair_order)
        grave = sum(across_splits(pair) or across_classes(pair) for pair in ordered)
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
        chosen = sorted(self.inspection.duplicates, key=_copies_order)[:_GROUPS]
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


def _pair_order(pair: NearPair) -> tuple[int, str, float, tuple[str, str]]:
    rank = 2 * (not across_splits(pair)) + (not across_classes(pair))
    return rank, pair.measure, pair.distance, pair.paths


def _copies_order(group: Copies) -> tuple[int, int, tuple[str, ...]]:
    rank = 2 * (not across_splits(group)) + (not across_classes(group))
    return rank, -len(group.paths), group.paths
