"""Picture formats: which are read, how first bytes tell them, and what decoding needs around Pillow."""

from __future__ import annotations

import functools
import io
import logging
import math
import re
import struct
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from PIL import IcoImagePlugin, Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO", "TGA")
"""Pillow formats that are decoded; a camera's MPO is opened as the JPEG that it starts with. Formats
that start other programs (EPS) are not among them. HEIF joins them where pillow-heif is installed."""

_SUFFIXES = """.jpg .jpeg .jpe .jfif .png .apng .webp .gif .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm
.avif .jp2 .j2k .mpo .ico .tga"""
SUFFIXES = frozenset(_SUFFIXES.split())
"""File endings (lower case) under which a folder's files are decoded without looking at their first bytes.
What a file really is stands in its bytes: a PNG named .jpg is read as the PNG that it is."""

UNKNOWN = "its bytes are not of a picture format that is read here"
"""The reason for a file of no known format."""

NOT_READ = f"{UNKNOWN}, but of"
"""How the reason begins for a file of a format that is known and not decoded."""

MANY_PIXELS = 50_000_000
"""Pixels above which an icon is not opened to see what it is: Pillow would decode it."""

HEAD = 512
"""Bytes that tell a format."""

HEIF_REMEDY = "pip install 'transferscope[heif]'"
_CONVERT = "save it as JPEG or PNG"
_REMEDIES = {"HEIC": HEIF_REMEDY, "film": "take pictures out of it"}  # others: _CONVERT

_WEAK = (
    "BMP",
    "PPM",
    "ICO",
    "TGA",
)  # two to four bytes, or none, that texts and tables may begin with too
_OTHERS: Mapping[bytes, str] = {
    b"8BPS": "Photoshop",
    b"%!PS": "PostScript",
    b"%PDF": "PDF",
    b"v/1\x01": "OpenEXR",
    b"gimp xcf": "GIMP",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"DDS ": "DDS",
    b"SIMPLE  =": "FITS",
    b"BPG\xfb": "BPG",
    b"FUJIFILMCCD-RAW": "camera raw",
    b"IIRO": "camera raw",
    b"IIRS": "camera raw",
    b"IIU\0": "camera raw",
    b"\x1a\x45\xdf\xa3": "film",
    b"FLV\x01": "film",
    b"\0\0\x01\xba": "film",
}
_TIFF = (b"II*\0", b"MM\0*")
_RAW_SUFFIXES = """.3fr .arw .cr2 .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw
.rw2 .rwl .sr2 .srf .srw"""
_RAW = frozenset(_RAW_SUFFIXES.split())
# Cameras' files begin like a TIFF, in which Pillow finds the thumbnail alone.
_AVIF = frozenset((b"avif", b"avis"))
_HEIF = frozenset(b"heic heix heim heis hevc hevx hevm hevs mif1 msf1 mif2".split())


logging.getLogger("PIL").addHandler(
    logging.NullHandler()
)  # what it logs of damaged files is no message


@functools.cache
def readable() -> tuple[str, ...]:
    """`FORMATS`, and HEIF where pillow-heif is installed, which is then registered with Pillow."""
    try:
        import pillow_heif
    except ImportError:
        return FORMATS
    pillow_heif.register_heif_opener()
    return (*FORMATS, "HEIF")


def kind(file: Path) -> str | None:
    """What a file's first bytes say that it is.

    Pillow's own test of each format is asked; where that test rests on a few letters only, the header is
    read too. TGA has no sign of its own: such a file is known by its ending alone.

    Returns:
        A Pillow format that is read; the name of another format (`HEIC`, `camera raw`, `film`...); or
        None: no picture.

    Raises:
        OSError: it cannot be opened.
    """
    with open(file, "rb") as opened:
        head = opened.read(HEAD)
    other = _other(head, file.suffix.lower())
    if other is not None:
        return other
    for name, accepts in _tests():
        if accepts(head[:16]) is True:
            return name if name not in _WEAK or _opens(file, name) else None
    return None


def not_read(name: str) -> str:
    """Why a picture of another format is left out, with the remedy."""
    return f"{NOT_READ} {name} ({_REMEDIES.get(name, _CONVERT)})"


def why_unknown(source: str | Path | IO[bytes]) -> str:
    """Why a file that Pillow does not know is not read."""
    try:
        found = kind(Path(source)) if isinstance(source, str | Path) else None
    except OSError:
        found = None
    if found is None or found in readable():
        return UNKNOWN
    return not_read(found)


def _other(head: bytes, suffix: str) -> str | None:
    """The name of a format that is not one of Pillow's that are read; HEIC only without pillow-heif."""
    if head[4:8] == b"ftyp":
        return _brand(head)
    for start, name in _OTHERS.items():
        if head.startswith(start):
            return name
    if head[:4] in _TIFF and (suffix in _RAW or head[8:10] == b"CR"):
        return "camera raw"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "film"
    if head[128:132] == b"DICM":
        return "DICOM"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return "SVG" if text.startswith(b"<") and b"<svg" in text.lower() else None


def _brand(head: bytes) -> str | None:
    """The format of a file of boxes, by all brands that its first box names."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, size - 3, 4))}
    if brands & _AVIF:
        return "AVIF"
    if brands & _HEIF:
        return "HEIF" if "HEIF" in readable() else "HEIC"
    return "camera raw" if b"crx " in brands else "film"


@functools.cache
def _tests():  # type: ignore[no-untyped-def]  # of Pillow, whose table is not annotated for callers
    """(format, Pillow's test of 16 first bytes) of every format that has one."""
    Image.init()
    found = [(name, Image.OPEN[name][1]) for name in FORMATS if name in Image.OPEN]
    return [(name, accepts) for name, accepts in found if accepts is not None]


def _opens(file: Path, name: str) -> bool:
    """Whether Pillow finds a whole header."""
    try:
        with QUIET_PILLOW, open(file, "rb") as opened:
            if math.prod(size_in_icon(opened)) > MANY_PIXELS:
                return True
            with Image.open(opened, formats=(name,)):
                return True
    except Image.DecompressionBombError:
        return True
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, LookupError, struct.error):
        return False


# ---------------------------------------------------------------------------- around Pillow


class _Quiet(threading.local):
    """Within it, Pillow's warnings of odd metadata in this thread are neither shown nor errors.

    `warnings.catch_warnings` would change the filters of all threads, and a filter for Pillow's modules
    would silence the program's own use of Pillow too. This filter's pattern matches in a decoding thread alone.
    """

    active = False
    pattern = r"(?!)"
    """Matches nothing: what scikit-learn hands to its threads in place of this."""

    def match(self, _message: str) -> bool:
        """Asked by `warnings` in place of a regular expression for the message."""
        return self.active

    def __enter__(self) -> None:
        if not warnings.filters or warnings.filters[0] is not _FILTER:
            others = [entry for entry in warnings.filters if entry is not _FILTER]
            warnings.filters = [_FILTER, *others]
        self.active = True

    def __exit__(self, *_: object) -> None:
        self.active = False


QUIET_PILLOW = _Quiet()
"""A context in which Pillow's warnings of odd metadata are not shown."""
_FILTER: Any = ("ignore", QUIET_PILLOW, Warning, re.compile(r"PIL\."), 0)


def size_in_icon(file: IO[bytes]) -> tuple[int, int]:
    """(width, height) of the picture inside an icon, whatever the icon's table says; else (0, 0).

    Pillow decodes an icon when it is opened, so that there is no size to be asked before.
    """
    file.seek(0)
    starts_as_icon = file.read(4) == b"\0\0\1\0"
    file.seek(0)
    if not starts_as_icon:
        return 0, 0
    icon = IcoImagePlugin.IcoFile(file)
    file.seek(icon.entry[0].offset)
    inner = file.read(24)
    file.seek(0)
    if inner.startswith(_PNG):
        width, height = struct.unpack(">16xII", inner)
    else:  # a bitmap: colours above a mask of the same size
        width, height = struct.unpack("<4xii12x", inner)
        height //= 2
    return abs(width), abs(height)


_PNG = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_KEPT_TEXT = b"Raw profile type exif\0"  # an orientation may stand in it


def without_texts(file: IO[bytes]) -> IO[bytes] | None:
    """A PNG without its texts and colour profile, which Pillow refuses above a limit; None: no PNG.

    Neither is part of the pixels. An EXIF block that is stored as a text stays.
    """
    file.seek(0)
    if file.read(len(_PNG)) != _PNG:
        return None
    kept = io.BytesIO()
    kept.write(_PNG)
    while len(start := file.read(8)) == 8:
        length, name = int.from_bytes(start[:4], "big"), start[4:]
        body = file.read(length + 4)  # and the sum of the chunk
        if name not in _TEXTS or body.startswith(_KEPT_TEXT):
            kept.write(start + body)
    kept.seek(0)
    return kept
