"""What a camera wrote into a picture's file: fields of EXIF as text."""

from __future__ import annotations

import struct
from pathlib import Path

from PIL import ExifTags, Image

from transferscope.formats import QUIET_PILLOW

FIELDS = ("camera", "maker", "lens", "software", "year", "month", "hour", "orientation", "iso")
"""Names by which fields are asked for; any other is EXIF's own, such as FNumber."""

_TAG = {
    "camera": "Model",
    "maker": "Make",
    "lens": "LensModel",
    "software": "Software",
    "orientation": "Orientation",
    "iso": "ISOSpeedRatings",
}
_TAKEN = ("DateTimeOriginal", "DateTimeDigitized", "DateTime")
_PART = {"year": slice(0, 4), "month": slice(0, 7), "hour": slice(11, 13)}  # of 2024:05:31 17:45:09


def exif_field(file: Path, name: str) -> str | None:
    """One field of a file's EXIF data; None where it has none, is empty, or EXIF is damaged.

    Args:
        file: of a picture.
        name: one of `FIELDS`, or EXIF's own name. The month is given with its year.
    """
    fields = _fields(file)
    if name not in _PART:
        return fields.get(_TAG.get(name, name))
    taken = next((fields[one] for one in _TAKEN if one in fields), "")
    value = taken[_PART[name]].replace(":", "-")
    return value if value.replace("-", "").isdigit() and int(value.replace("-", "")) else None


def _fields(file: Path) -> dict[str, str]:
    """Every field that is text or a number, by EXIF's name."""
    try:
        with QUIET_PILLOW, Image.open(file) as picture:
            exif = picture.getexif()
            found = {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return {}
    named = {ExifTags.TAGS.get(tag, str(tag)): value for tag, value in found.items()}
    texts = {
        tag: str(value).strip().strip("\0").strip()
        for tag, value in named.items()
        if not isinstance(value, bytes | dict | tuple)
    }
    return {tag: text for tag, text in texts.items() if text}
