"""Cues: what can be told of a picture without its object.

Brightness, colour cast, sharpness, the file's size and compression, the border, camera and time of EXIF, the
folder of origin, and the fine detail of the middle square, for fixed patches in it. `cue_accuracy` says what
they give away.
"""

from __future__ import annotations

import heapq
import math
import struct
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageFilter, ImageStat

from transferscope.data.class_names import canonical
from transferscope.data.loading import in_order
from transferscope.data.readings import split_of
from transferscope.formats import QUIET_PILLOW, readable
from transferscope.images import FileFacts, read_with_facts

MOST_PICTURES = 20_000
"""Pictures of a set that are asked: those of the smallest SHA-256, which is a random sample of it."""

READ_SIDE = 256
"""Shorter side, in pixels, at which files are read: as `scan` reads them."""

PATCH_STEPS = 7
"""Places of a fixed patch from top to bottom, and from left to right."""

PATTERN = 64
"""Side in cells of a picture's middle square, in which fixed patches are looked for."""

_SIDE = 128  # pixels, to which a larger picture's shorter side is reduced
_BORDER = 0.03  # of the shorter side
_LAPLACE = ImageFilter.Kernel((3, 3), (0, 1, 0, 1, -4, 1, 0, 1, 0), scale=1, offset=128)

Family = Literal["tone", "colour", "border", "file", "origin", "patch"]

NUMBERS = (
    "sharpness", "brightness", "contrast",
    "saturation", "mean blue to green", "mean red to green",
    "white blue to red", "white green to red", "white", "black blue to red", "black green to red", "black",
    "border red", "border green", "border blue", "border unevenness", "border step",
    "width", "height", "shape", "bytes a pixel", "compression",
    "date", "hour",
)  # fmt: skip
"""What is measured, a number a picture. Ratios of colours are logarithms; white and black are the brightest
and the darkest hundredth of each colour."""

CUES: dict[str, tuple[Family, tuple[str, ...]]] = {
    "sharpness": ("tone", ("sharpness",)),
    "brightness": ("tone", ("brightness",)),
    "contrast": ("tone", ("contrast",)),
    "saturation": ("colour", ("saturation",)),
    "mean colour": ("colour", ("mean blue to green", "mean red to green")),
    "white point": ("colour", ("white blue to red", "white green to red", "white")),
    "black point": ("colour", ("black blue to red", "black green to red", "black")),
    "colour of the border": (
        "border",
        ("border red", "border green", "border blue", "border unevenness"),
    ),
    "step at the border": ("border", ("border step",)),
    "size": ("file", ("width", "height")),
    "shape": ("file", ("shape",)),
    "bytes a pixel": ("file", ("bytes a pixel",)),
    "compression": ("file", ("compression",)),
    "time taken": ("origin", ("date", "hour")),
}
"""Cues that are one or a few of these numbers, and what each is a property of."""

KINDS: dict[str, Family] = {"camera": "origin", "folder": "origin"}
"""Cues that are one of several names a picture."""


@dataclass(frozen=True, slots=True)
class Cues:
    """The cues of one picture.

    Attributes:
        numbers: a value for each of `NUMBERS`; NaN where the file does not tell.
        camera: maker and model by EXIF, or nothing.
        pattern: PATTERN x PATTERN signed bytes, row by row: the fine detail of the grey middle square.
    """

    numbers: tuple[float, ...]
    camera: str
    pattern: bytes


def cues_of(file: Path, picture: Image.Image, facts: FileFacts) -> Cues:
    """Measures a decoded picture (RGB or L, possibly a JPEG's draft), and reads the file's head.

    Tones and colours are of the picture reduced to a shorter side of 128 pixels, sharpness of its middle as it
    is; `compression` is the mean of a JPEG's luminance quantisation table, larger for a lower quality.
    """
    scale = min(1.0, _SIDE / min(picture.size))
    reduced = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    colour = picture.resize(reduced, Image.Resampling.BOX).convert("RGB")
    x, y = picture.width // 2, picture.height // 2
    middle = picture.crop(
        (max(0, x - _SIDE // 2), max(0, y - _SIDE // 2), x + _SIDE // 2, y + _SIDE // 2)
    )
    width, height = facts.size
    compression, camera, date, hour = _head(file)
    numbers = (
        ImageStat.Stat(middle.convert("L").filter(_LAPLACE)).stddev[0],
        *_tones(colour),
        *_border(np.asarray(colour, dtype=np.float32)),
        float(width),
        float(height),
        width / height,
        file.stat().st_size / (width * height),
        compression,
        date,
        hour,
    )
    return Cues(numbers, camera, _fine_detail(picture).tobytes())


def _fine_detail(picture: Image.Image) -> np.ndarray:
    """int8 (PATTERN, PATTERN): the grey middle square less its mean over 5 x 5 cells.

    Of what classes have in common by nature, as trousers have legs, little lies at the same cell; of a
    watermark all does. Deviations of more than about 8 grey levels count alike: edges do not drown it.
    """
    from scipy.ndimage import uniform_filter

    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = (left, top, left + side, top + side)
    small = picture.resize((PATTERN, PATTERN), Image.Resampling.BOX, box=square).convert("L")
    grey = np.asarray(small, dtype=np.float32)
    detail = np.tanh((grey - uniform_filter(grey, 5)) / 8)
    return np.asarray(np.round(127 * detail), dtype=np.int8)


def _tones(colour: Image.Image) -> Iterator[float]:
    """Brightness, contrast, saturation, casts, and the white and the black point."""
    grey = ImageStat.Stat(colour.convert("L"))
    yield grey.mean[0]
    yield grey.stddev[0]
    yield ImageStat.Stat(colour.convert("HSV")).mean[1]
    red, green, blue = (1 + value for value in ImageStat.Stat(colour).mean)
    yield math.log(blue / green)
    yield math.log(red / green)
    levels = np.asarray(colour.histogram(), dtype=np.float64).reshape(3, 256).cumsum(1)
    levels /= levels[:, -1:]
    for share in (0.99, 0.01):
        red, green, blue = (1 + (levels < share).sum(1)).tolist()
        yield math.log(blue / red)
        yield math.log(green / red)
        yield float(max(red, green, blue) if share > 0.5 else min(red, green, blue))


def _border(pixels: np.ndarray) -> Iterator[float]:
    """Mean colour of the outermost 3%, its unevenness, and its step to what lies within."""
    depth = max(1, round(_BORDER * min(pixels.shape[:2])))
    outer = _ring(pixels, 0, depth)
    yield from outer.mean(0).tolist()
    yield float(outer.std(0).mean())
    inside = pixels[6 * depth : -6 * depth, 6 * depth : -6 * depth].reshape(-1, 3)
    yield float(np.abs(outer.mean(0) - inside.mean(0)).mean()) if len(inside) else 0.0


def _ring(pixels: np.ndarray, start: int, depth: int) -> np.ndarray:
    sides = pixels[:depth], pixels[-depth:], pixels[:, :depth], pixels[:, -depth:]
    return np.concatenate([side.reshape(-1, 3) for side in sides])


def _head(file: Path) -> tuple[float, str, float, float]:
    """Compression, camera, day and hour that a file's head tells; NaN or nothing where it does not."""
    none = float("nan")
    try:
        with (
            QUIET_PILLOW,
            open(file, "rb") as opened,
            Image.open(opened, formats=readable()) as head,
        ):
            tables = getattr(head, "quantization", None)
            compression = float(np.mean(tables[0])) if tables and 0 in tables else none
            exif = head.getexif()
            camera = " ".join(
                str(exif.get(tag, "")).strip("\0 ")
                for tag in (ExifTags.Base.Make, ExifTags.Base.Model)
            )
            taken = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
            date, hour = _moment(str(taken or exif.get(ExifTags.Base.DateTime, "")))
            return compression, camera.strip(), date, hour
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return none, "", none, none  # a damaged head tells nothing; the pixels were read


def _moment(text: str) -> tuple[float, float]:
    try:
        moment = datetime.strptime(text.strip("\0 "), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return float("nan"), float("nan")
    return float(moment.toordinal()), float(moment.hour)


# ---------------------------------------------------------------------------- a table of them


@dataclass(frozen=True)
class CueTable:
    """The cues of some pictures.

    Attributes:
        paths: of the pictures, from the set's root.
        numbers: float32 (n, len(NUMBERS)).
        kinds: for each of `KINDS`, the name that each picture has; may be nothing.
        patterns: int8 (n, PATTERN, PATTERN), fine detail of the middle squares.
    """

    paths: tuple[str, ...]
    numbers: np.ndarray
    kinds: dict[str, tuple[str, ...]]
    patterns: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def taken(self, places: Sequence[int] | np.ndarray) -> CueTable:
        """The rows at `places`."""
        at = np.asarray(places, dtype=np.int64)
        kinds = {name: tuple(values[i] for i in at) for name, values in self.kinds.items()}
        paths = tuple(self.paths[i] for i in at)
        return CueTable(paths, self.numbers[at], kinds, self.patterns[at])

    def column(self, name: str) -> np.ndarray:
        """The values of one of `NUMBERS`, float32 (n,)."""
        return np.asarray(self.numbers[:, NUMBERS.index(name)])


class CueCollector:
    """Cues gathered while pictures are read, from several threads, of at most `MOST_PICTURES` of them."""

    def __init__(self, most: int = MOST_PICTURES):
        self._most = most
        self._lock = threading.Lock()
        self._kept: list[tuple[int, str, Cues]] = []

    def wants(self, sha256: str) -> bool:
        """Whether a picture of this digest would be kept: where not, its cues need not be measured."""
        with self._lock:
            return len(self._kept) < self._most or -int(sha256[:16], 16) > self._kept[0][0]

    def add(self, path: str, sha256: str, cues: Cues) -> None:
        """Takes the cues of a picture, or leaves them where there are enough pictures of smaller digests."""
        entry = (-int(sha256[:16], 16), path, cues)
        with self._lock:
            if len(self._kept) < self._most:
                heapq.heappush(self._kept, entry)
            else:
                heapq.heappushpop(self._kept, entry)

    def table(self, class_folders: Collection[str] = ()) -> CueTable:
        """What was gathered, ordered by path.

        Args:
            class_folders: names of folders that say the class, and so are no origin.
        """
        kept = sorted((path, cues) for _, path, cues in self._kept)
        return _table([path for path, _ in kept], [cues for _, cues in kept], class_folders)


def cue_table(
    files: Sequence[Path],
    paths: Sequence[str] | None = None,
    *,
    class_folders: Collection[str] = (),
) -> CueTable:
    """The cues of some picture files, each decoded once, by all cores.

    Args:
        files: at most `MOST_PICTURES` are sensible: 4 KB are kept of each.
        paths: what the pictures are called, from the set's root; by default the files' own paths.
        class_folders: see `CueCollector.table`.

    Raises:
        PictureError: a file that cannot be read.
    """

    def measure(file: Path) -> Cues:
        return cues_of(file, *read_with_facts(file, least_side=READ_SIDE))

    names = [file.as_posix() for file in files] if paths is None else list(paths)
    return _table(names, list(in_order(measure, files)), class_folders)


def _table(paths: Sequence[str], cues: Sequence[Cues], class_folders: Collection[str]) -> CueTable:
    patterns = np.frombuffer(b"".join(one.pattern for one in cues), dtype=np.int8)
    known = {part for name in class_folders for part in canonical(name).split("/")}
    folders = tuple(_folder(path, known) for path in paths)
    return CueTable(
        tuple(paths),
        np.array([one.numbers for one in cues], dtype=np.float32).reshape(len(cues), len(NUMBERS)),
        {"camera": tuple(one.camera for one in cues), "folder": folders},
        patterns.reshape(-1, PATTERN, PATTERN),
    )


def _folder(path: str, known: Collection[str]) -> str:
    """The folders of a path that are neither a class nor a split."""
    parts = PurePosixPath(path).parent.parts
    return "/".join(one for one in parts if canonical(one) not in known and split_of(one) is None)


# ---------------------------------------------------------------------------- in words


def cue_words(name: str, family: Family) -> str:
    """What a cue is called in a sentence."""
    if family != "patch":
        return f"the {name}"
    row, column = (int(one) for one in name.removeprefix("patch ").split("-"))
    ends = ("upper", "middle", "lower"), ("left", "middle", "right")
    third = PATCH_STEPS / 3
    place = " ".join(
        one[int((at - 1) // third)] for one, at in zip(ends, (row, column), strict=True)
    )
    return f"a fixed patch at the {place.replace('middle middle', 'middle')} of the frame"
