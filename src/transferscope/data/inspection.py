"""What a careful look at a set tells before it is trained on: an `Inspection`, gathered in one pass.

While the scan decodes a picture it is measured too (`measured`), so looking costs one reading of the
files. Nothing here draws or prints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import imagehash
import numpy as np
from PIL import Image

from transferscope.data.cue_accuracy import CueFinding
from transferscope.data.duplicates import Copies, NearPair
from transferscope.data.exclusions import rows
from transferscope.data.leakage import Leakage
from transferscope.data.lookalike_groups import LookalikeGroups
from transferscope.data.scan import SPLITS, Scan
from transferscope.data.split import picture_in
from transferscope.files import read_csv, read_json, write_csv, write_json
from transferscope.images import FileFacts

THUMBNAIL = 16
"""Side in pixels of the thumbnail that confirms a near duplicate."""

UNSPLIT = "all"
"""What the one part is called where no picture has a split."""

BLANK_CONTRAST = 0.01
"""A picture whose grey values deviate by less shows nothing: 2.55 of 255 levels."""

OUTLIER_Z = 3.5
"""Robust z-score from which a picture is an outlier.

Reference: Iglewicz and Hoaglin 1993, How to detect and handle outliers (modified z-scores)."""

MOST_OUTLIERS = 0.05
"""Share of a set that can be far from the rest; more of them are a part of it, such as pictures taken at
night."""

_LEAST_SCALE = 0.02  # of brightness and contrast: in a set of equals no small difference counts

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Of widths, heights and aspect ratios, in this order."""

Reason = Literal["blank", "dark", "bright", "flat", "harsh"]
REASONS: tuple[Reason, ...] = get_args(Reason)
"""Why a picture stands out: it shows nothing; its brightness is far below or above the set's; its
contrast is."""

COLUMNS = (
    "path", "class", "split", "group", "width", "height", "format", "mode", "animated",
    "brightness", "contrast", "phash", "sha256",
)  # fmt: skip
"""The header of pictures.csv."""


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What was measured of one picture.

    Attributes:
        width, height: in pixels, upright.
        mode: Pillow's mode as stored: RGB, L, P, CMYK, RGBA, I;16...
        format: JPEG, PNG...
        animated: more than one frame.
        brightness: mean of the grey picture, in [0, 1].
        contrast: standard deviation of the grey picture, in [0, 0.5].
        phash: 64-bit perceptual hash of the DCT's low frequencies (imagehash.phash).
        mirrored: the same of the picture's mirror image.
        thumbnail: THUMBNAIL x THUMBNAIL pixels of red, green and blue, row by row.
    """

    width: int
    height: int
    mode: str
    format: str
    animated: bool
    brightness: float
    contrast: float
    phash: int
    mirrored: int
    thumbnail: bytes


def measured(picture: Image.Image, file: FileFacts) -> PictureFacts:
    """Measures a decoded picture (RGB or L, possibly a JPEG's draft of the file).

    Mean and deviation come from the histogram of grey levels: exact, and without a copy of the pixels
    as floats. The hash is taken from a reduced picture of 4 x THUMBNAIL pixels a side.
    """
    grey = picture.convert("L")
    small = grey.resize((THUMBNAIL * 4, THUMBNAIL * 4), Image.Resampling.BOX)
    tiny = picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    levels = np.asarray(grey.histogram(), dtype=np.float64) / (grey.width * grey.height)
    mean = float(levels @ _LEVELS)
    tones = mean, float(np.sqrt(levels @ (_LEVELS - mean) ** 2))
    hashes = _hashed(small), _hashed(small.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    file_facts = *file.size, file.mode, file.format, file.animated
    return PictureFacts(*file_facts, *tones, *hashes, tiny.convert("RGB").tobytes())


_LEVELS = np.arange(256) / 255


def _hashed(small: Image.Image) -> int:
    return int.from_bytes(np.packbits(imagehash.phash(small).hash.ravel()).tobytes(), "big")


@dataclass(frozen=True, slots=True)
class Outlier:
    """A picture that stands out from its set.

    Attributes:
        path: as in the scan.
        reason: one of REASONS, the gravest that holds.
        value: its contrast where it is blank, flat or harsh; else its brightness.
        z: robust z-score of that value in the set: distance from the median, in deviations.
    """

    path: str
    reason: Reason
    value: float
    z: float


def across_splits(found: Copies | NearPair) -> bool:
    """Whether what looks the same stands in more than one split: a leak."""
    return len({split for split in found.splits if split is not None}) > 1


def across_classes(found: Copies | NearPair) -> bool:
    """Whether what looks the same has more than one label: probably an error."""
    return len({name for name in found.classes if name is not None}) > 1


def _column(name: str) -> cached_property[np.ndarray]:
    return cached_property(
        lambda self: np.array([getattr(one, name) for one in self.facts], dtype=np.float64)
    )


@dataclass(frozen=True)
class Inspection:
    """A set of pictures, looked at.

    Attributes:
        scan: the readable pictures, with their splits where those are given or were drawn.
        facts: of every picture, in the scan's order.
        duplicates: files of equal bytes.
        near_duplicates: pictures that look the same and are not byte for byte the same.
        split_drawn: whether the splits are those that `tune` would draw, not the folder's own.
        problems: why the set cannot be trained on as it is, a sentence each; empty: it can be.
        embedding: name of the network whose features took part in the near duplicates, or None.
        leakage: validation pictures with a lookalike in training; None where there are no such parts.
        kept_together: lookalikes that the split keeps in one part; None: it was not asked for.
        cues: what one property of a picture alone tells of its class (`cue_accuracy.telling`).
    """

    scan: Scan
    facts: tuple[PictureFacts, ...]
    duplicates: tuple[Copies, ...]
    near_duplicates: tuple[NearPair, ...]
    split_drawn: bool = False
    problems: tuple[str, ...] = ()
    embedding: str | None = None
    leakage: Leakage | None = None
    kept_together: LookalikeGroups | None = None
    cues: tuple[CueFinding, ...] = ()

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The splits that pictures have, in the order of a ratio; UNSPLIT alone if there are none."""
        found = {picture.split for picture in self.scan.pictures}
        named = tuple(name for name in SPLITS if name in found)
        return named + ((UNSPLIT,) if None in found or not named else ())

    @cached_property
    def labels(self) -> np.ndarray:
        """Of every picture, int64 (n,); -1 where it has none."""
        labels = [picture.label for picture in self.scan.pictures]
        return np.array([-1 if label is None else label for label in labels], dtype=np.int64)

    widths = _column("width")
    """In pixels, float64 (n,)."""

    heights = _column("height")
    """In pixels, float64 (n,)."""

    brightness = _column("brightness")
    """Mean grey, float64 (n,) in [0, 1]."""

    contrast = _column("contrast")
    """Deviation of grey, float64 (n,) in [0, 0.5]."""

    def counts(self) -> dict[str, dict[str, int]]:
        """Class to split to number of pictures, in class order; 0 where a split lacks a class."""
        found = Counter((picture.label, picture.split or UNSPLIT) for picture in self.scan.pictures)
        return {
            name: {split: found[label, split] for split in self.splits}
            for label, name in enumerate(self.scan.classes)
        }

    @cached_property
    def class_sizes(self) -> dict[str, int]:
        """Class to number of training pictures, or of all where nothing is set apart for training."""
        return {
            name: parts.get("train", sum(parts.values())) for name, parts in self.counts().items()
        }

    @property
    def imbalance(self) -> float | None:
        """Largest class / smallest class with any picture, by `class_sizes`; None below two classes."""
        sizes = [size for size in self.class_sizes.values() if size]
        return max(sizes) / min(sizes) if len(sizes) > 1 else None

    @property
    def modes(self) -> dict[str, int]:
        """Pillow's mode as stored to number of pictures, the commonest first."""
        return dict(Counter(sorted(one.mode for one in self.facts)).most_common())

    @property
    def formats(self) -> dict[str, int]:
        """File format to number of pictures, the commonest first."""
        return dict(Counter(sorted(one.format for one in self.facts)).most_common())

    @property
    def animated(self) -> int:
        """Pictures of more than one frame."""
        return sum(one.animated for one in self.facts)

    def sizes(self) -> dict[str | None, dict[str, tuple[float, ...]]]:
        """Width, height and aspect ratio (width / height) as QUANTILES, by class.

        Returns:
            Class to measure to quantiles; the key None has those of all pictures. A class without
            pictures is absent.
        """
        if not self.facts:
            return {}
        order = np.argsort(self.labels, kind="stable")
        starts = np.searchsorted(self.labels[order], np.arange(len(self.scan.classes) + 1))
        places: dict[str | None, np.ndarray] = {None: order}
        places |= zip(self.scan.classes, np.split(order, starts)[1:-1], strict=True)
        measures = np.stack([self.widths, self.heights, self.widths / self.heights])

        def quantiles(own: np.ndarray) -> dict[str, tuple[float, ...]]:
            rows = np.quantile(measures[:, own], QUANTILES, axis=1).T.tolist()
            return dict(zip(("width", "height", "aspect"), map(tuple, rows), strict=True))

        return {name: quantiles(own) for name, own in places.items() if len(own)}

    @cached_property
    def outliers(self) -> tuple[Outlier, ...]:
        """Pictures far from the set's own brightness and contrast, by reason, the farthest first.

        The distance is from the median, in deviations estimated as 1.4826 x the median absolute
        deviation (at least 0.02); OUTLIER_Z of them are far, unless more than MOST_OUTLIERS of the set
        are. A contrast below BLANK_CONTRAST always stands out.
        """
        if not self.facts:
            return ()
        light, range_ = _robust_z(self.brightness), _robust_z(self.contrast)
        reasons: dict[Reason, tuple[np.ndarray, np.ndarray, np.ndarray]] = {
            "blank": (self.contrast < BLANK_CONTRAST, self.contrast, range_),
            "dark": (light < -OUTLIER_Z, self.brightness, light),
            "bright": (light > OUTLIER_Z, self.brightness, light),
            "flat": (range_ < -OUTLIER_Z, self.contrast, range_),
            "harsh": (range_ > OUTLIER_Z, self.contrast, range_),
        }
        found: list[Outlier] = []
        taken = np.zeros(len(self.facts), dtype=bool)
        for reason, (holds, values, z) in reasons.items():
            places = np.flatnonzero(holds & ~taken)
            if reason != "blank" and len(places) > MOST_OUTLIERS * len(self.facts):
                continue
            taken[places] = True
            for at in places[np.argsort(-np.abs(z[places]), kind="stable")]:
                path = self.scan.pictures[at].path
                found.append(Outlier(path, reason, float(values[at]), float(z[at])))
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able summary: every file that needs attention by name, the others as numbers."""
        counts = self.counts()
        sizes = {name: _lists(measures) for name, measures in self.sizes().items()}
        return {
            "n": len(self.scan.pictures),
            "classes": {name: sum(parts.values()) for name, parts in counts.items()},
            "splits": {
                split: {name: parts[split] for name, parts in counts.items()}
                for split in self.splits
                if split != UNSPLIT
            },
            "split_drawn": self.split_drawn,
            "imbalance": self.imbalance,
            "problems": list(self.problems),
            "excluded": rows(self.scan.excluded),
            "merged": [list(names) for names in self.scan.merged],
            "duplicates": [_lists(one.to_dict()) for one in self.duplicates],
            "near_duplicates": [_lists(pair.to_dict()) for pair in self.near_duplicates],
            "embedding": self.embedding,
            "leakage": self.leakage.to_dict() if self.leakage else None,
            "kept_together": self.kept_together.to_dict() if self.kept_together else None,
            "cues": [one.to_dict() for one in self.cues],
            "outliers": [asdict(one) for one in self.outliers],
            "formats": self.formats,
            "modes": self.modes,
            "animated": self.animated,
            "sizes": {"quantiles": list(QUANTILES), "all": sizes.pop(None, {}), "classes": sizes},
        }

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """A row a picture, with COLUMNS."""
        for picture, one in zip(self.scan.pictures, self.facts, strict=True):
            labels = self.scan.class_of(picture) or "", picture.split or "", picture.group or ""
            file = one.width, one.height, one.format, one.mode, int(one.animated)
            tones = one.brightness, one.contrast, f"{one.phash:016x}"
            yield picture.path, *labels, *file, *tones, picture.sha256

    def save(self, folder: str | Path) -> None:
        """Writes `inspection.json` (see `to_dict`) and `pictures.csv` (see `rows`) into `folder`."""
        write_json(Path(folder) / "inspection.json", self.to_dict())
        write_csv(Path(folder) / "pictures.csv", COLUMNS, self.rows())

    @classmethod
    def load(cls, folder: str | Path, *, root: str | Path) -> Inspection:
        """What `save` wrote. Thumbnails and mirrored hashes are not kept.

        Args:
            folder: that was saved into.
            root: the set's folder, which a report does not tell.

        Raises:
            RunError: a file is missing or cannot be read.
        """
        record = read_json(Path(folder) / "inspection.json")
        rows = read_csv(Path(folder) / "pictures.csv")
        labels = {name: label for label, name in enumerate(record["classes"])}
        pictures = tuple(picture_in(row, labels) for row in rows)
        excluded = tuple((one["path"], one["reason"]) for one in record["excluded"])
        merged = tuple(tuple(names) for names in record.get("merged", ()))
        return cls(
            Scan(Path(root), pictures, tuple(labels), excluded, merged),
            tuple(map(_facts_of, rows)),
            tuple(map(Copies.from_dict, record["duplicates"])),
            tuple(map(NearPair.from_dict, record["near_duplicates"])),
            split_drawn=record["split_drawn"],
            problems=tuple(record["problems"]),
            embedding=record["embedding"],
            leakage=Leakage.from_dict(leaks) if (leaks := record.get("leakage")) else None,
            kept_together=LookalikeGroups.from_dict(kept)
            if (kept := record.get("kept_together"))
            else None,
            cues=tuple(map(CueFinding.from_dict, record.get("cues", ()))),
        )


# ---------------------------------------------------------------------------- parts of it


def _robust_z(values: np.ndarray) -> np.ndarray:
    middle = np.median(values)
    scale = max(1.4826 * float(np.median(np.abs(values - middle))), _LEAST_SCALE)
    return np.asarray((values - middle) / scale)


def _lists(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: [*one] if isinstance(one, tuple) else one for name, one in fields.items()}


def _facts_of(row: Mapping[str, str]) -> PictureFacts:
    size, kind = (int(row["width"]), int(row["height"])), (row["mode"], row["format"])
    tones = float(row["brightness"]), float(row["contrast"])
    return PictureFacts(*size, *kind, row["animated"] == "1", *tones, int(row["phash"], 16), 0, b"")
