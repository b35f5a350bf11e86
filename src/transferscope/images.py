"""Pictures in and out: strict decoding, the one preprocessing, and grids.

Everywhere behind this room a picture is float32 `(N, C, H, W)` in [0, 1], C = 3 (RGB) unless the
network's `InputSpec` says 1.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from transferscope.errors import InputError, PictureError

PIXEL_CAP = 50_000_000
"""Pictures with more pixels are refused before they are decoded (a decompression bomb's defence)."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO", "TGA")
"""Pillow formats that are decoded; a camera's MPO is opened as the JPEG that it starts with. Formats
that start other programs (EPS) are not among them."""

_SUFFIXES = """.jpg .jpeg .jpe .jfif .png .apng .webp .gif .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm
.avif .jp2 .j2k .mpo .ico .tga"""
SUFFIXES = frozenset(_SUFFIXES.split())
"""File endings (lower case) under which a folder's files are taken for pictures. What a file really
is stands in its bytes: a PNG named .jpg is read as the PNG that it is."""

Interpolation = Literal["bilinear", "bicubic", "lanczos"]
_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_ORIENTATION = 0x0112  # EXIF's tag; values of 5 and more exchange width and height
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    RuntimeError,  # of the AVIF decoder
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


# ---------------------------------------------------------------------------- decoding


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a picture file holds, before it is made into what a network sees.

    Attributes:
        format: Pillow's name, such as JPEG; read from the bytes.
        mode: Pillow's mode as stored, such as RGB, L, P, CMYK, RGBA, I;16.
        size: (width, height) in pixels, upright: after the EXIF orientation.
        animated: whether it holds more than one frame.
    """

    format: str
    mode: str
    size: tuple[int, int]
    animated: bool


def read_picture(
    source: str | Path | IO[bytes], *, channels: int = 3, least_side: int | None = None
) -> Image.Image:
    """Decodes a picture completely, or says why it cannot.

    EXIF orientation is applied; transparency is laid over white; palettes, CMYK, 16-bit and 32-bit
    depths become 8-bit; of an animation the first frame is taken.

    Args:
        source: a file's path or an open binary file. The format is read from the bytes.
        channels: 3 for mode RGB, 1 for mode L.
        least_side: the shorter side that will be needed, in pixels. A larger JPEG is then decoded
            at 1/2, 1/4 or 1/8 of its size (never below `least_side`), about twice as fast.

    Raises:
        PictureError: missing, empty, truncated, not a picture, of more than 50 megapixels, or of a
            depth without a meaning as a picture. No other picture is ever put in its place.
    """
    return read_with_facts(source, channels=channels, least_side=least_side)[0]


def read_with_facts(
    source: str | Path | IO[bytes], *, channels: int = 3, least_side: int | None = None
) -> tuple[Image.Image, FileFacts]:
    """`read_picture`, and what the file itself was."""
    name = source if isinstance(source, str | Path) else getattr(source, "name", "<bytes>")
    if (
        isinstance(source, str | Path)
        and Path(source).is_file()
        and not Path(source).stat().st_size
    ):
        raise PictureError(name, "the file is empty (0 bytes)")
    try:
        with Image.open(source, formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > PIXEL_CAP:
                raise PictureError(
                    name,
                    f"{width} x {height} pixels is more than the cap of "
                    f"{PIXEL_CAP // 1_000_000} megapixels; scale it down",
                )
            stored = (picture.format or "", picture.mode)
            animated = bool(getattr(picture, "is_animated", False))
            if least_side is not None and picture.format in ("JPEG", "MPO"):
                scale = least_side / min(width, height)
                if scale < 1:
                    picture.draft(None, (math.ceil(width * scale), math.ceil(height * scale)))
            picture.load()
            upright = ImageOps.exif_transpose(picture)
            turned = picture.getexif().get(_ORIENTATION, 1) >= 5
            size = (height, width) if turned else (width, height)
            facts = FileFacts(*stored, size, animated)
            return _to_8_bit(upright, "RGB" if channels == 3 else "L", name), facts
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError(
            name, "its bytes are not of a picture format that is read here"
        ) from None
    except FileNotFoundError:
        raise PictureError(name, "there is no such file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        cap = PIXEL_CAP // 1_000_000
        raise PictureError(name, f"more than the cap of {cap} megapixels; scale it down") from None
    except _UNREADABLE as error:
        if (
            isinstance(error, OSError) and error.errno is not None
        ):  # the system's, not the decoder's
            raise PictureError(name, f"it cannot be opened ({error.strerror})") from error
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise PictureError(name, f"damaged or cut short ({reason.rstrip('.')})") from error


def _to_8_bit(picture: Image.Image, mode: str, name: object) -> Image.Image:
    """A picture of any Pillow mode as 8-bit RGB or L."""
    if picture.mode == mode and not picture.has_transparency_data:
        return picture
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        picture = _from_deep_grey(picture, name)
    elif picture.mode == "LAB":
        from PIL import ImageCms

        lab = ImageCms.createProfile("LAB")
        picture = ImageCms.profileToProfile(  # type: ignore[assignment]
            picture, lab, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    if picture.has_transparency_data or picture.mode in ("La", "RGBa", "PA"):
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert(mode)


def _from_deep_grey(picture: Image.Image, name: object) -> Image.Image:
    """16-bit, 32-bit and floating-point grey as mode L, scaled by the range of its type."""
    values = np.asarray(picture)
    if picture.mode == "F":
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise PictureError(
                name, "floating-point values outside [0, 1] have no meaning as a picture"
            )
        grey = values * 255
    else:
        values = values.astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise PictureError(name, "32-bit values outside 0..65535 have no meaning as a picture")
        grey = values / 257
    return Image.fromarray(np.rint(grey).astype(np.uint8))


# ---------------------------------------------------------------------------- InputSpec


@dataclass(frozen=True)
class InputSpec:
    """What a network wants to see; owned by the `Classifier`, so that nobody normalises twice.

    Attributes:
        size: (height, width) in pixels.
        channels: 3 (RGB) or 1 (grey).
        mean: by channel, in units of [0, 1].
        std: by channel, in units of [0, 1].
        interpolation: of the resize before the crop.
        crop: share of the resized picture's shorter side that the centre crop keeps.
    """

    size: tuple[int, int] = (224, 224)
    channels: int = 3
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: Interpolation = "bicubic"
    crop: float = 0.875

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise InputError(
                f"InputSpec.channels is {self.channels}; it must be 1 (grey) or 3 (RGB)"
            )
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise InputError(
                f"InputSpec has mean {self.mean} and std {self.std} for {self.channels} channels; "
                "give one value a channel"
            )
        if min(self.size) < 1 or not 0 < self.crop <= 1 or min(self.std) <= 0:
            raise InputError(
                f"InputSpec(size={self.size}, crop={self.crop}, std={self.std}): sizes and std must "
                "be positive and crop in (0, 1]"
            )
        if self.interpolation not in _RESAMPLING:
            raise InputError(
                f"InputSpec.interpolation is {self.interpolation!r}; it must be one of "
                f"{', '.join(_RESAMPLING)}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one picture."""
        return (self.channels, *self.size)

    @property
    def least_side(self) -> int:
        """Shorter side, in pixels, that a picture must have before it is resized without loss."""
        return math.ceil(max(self.size) / self.crop)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able fields."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> InputSpec:
        """The inverse of `to_dict`; lists become tuples."""
        return cls(
            size=tuple(fields["size"]),
            channels=int(fields["channels"]),
            mean=tuple(fields["mean"]),
            std=tuple(fields["std"]),
            interpolation=fields["interpolation"],
            crop=float(fields["crop"]),
        )

    def fit(self, picture: Image.Image) -> Image.Image:
        """Resize and centre crop to exactly `size`.

        A picture that has the size already is returned unchanged, so that the PNG of a render or of
        an attack means the same to every reader.
        """
        height, width = self.size
        if picture.size == (width, height):
            return picture
        scale = max(height / picture.height, width / picture.width) / self.crop
        resized = (
            max(width, round(picture.width * scale)),
            max(height, round(picture.height * scale)),
        )
        picture = picture.resize(resized, _RESAMPLING[self.interpolation])
        left, top = (resized[0] - width) // 2, (resized[1] - height) // 2
        return picture.crop((left, top, left + width, top + height))

    def load(self, source: str | Path | IO[bytes] | Image.Image) -> torch.Tensor:
        """One picture as the network will see it before normalisation.

        Returns:
            uint8 (C, H, W); `as_float` makes [0, 1] of it.

        Raises:
            PictureError: see `read_picture`.
        """
        if isinstance(source, Image.Image):
            picture = _to_8_bit(source, "RGB" if self.channels == 3 else "L", "<picture>")
        else:
            picture = read_picture(source, channels=self.channels, least_side=self.least_side)
        return to_tensor(self.fit(picture))

    def normalise(self, pictures: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) in [0, 1] to what the network was trained on: (x - mean) / std."""
        mean = pictures.new_tensor(self.mean).view(1, -1, 1, 1)
        std = pictures.new_tensor(self.std).view(1, -1, 1, 1)
        return (pictures - mean) / std


# ---------------------------------------------------------------------------- tensors and grids


def to_tensor(picture: Image.Image) -> torch.Tensor:
    """An RGB or L picture as uint8 (C, H, W)."""
    values = np.array(picture)
    return torch.from_numpy(values[None] if values.ndim == 2 else values.transpose(2, 0, 1).copy())


def as_float(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 pictures of any shape as float32 in [0, 1]."""
    return pictures.to(torch.float32).div_(255)


def to_picture(values: torch.Tensor | np.ndarray) -> Image.Image:
    """A picture from float (C, H, W) in [0, 1], or from uint8 (C, H, W) or (H, W, C)."""
    array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.dtype != np.uint8:
        array = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def grid(
    pictures: Sequence[Image.Image] | Iterable[Image.Image],
    *,
    columns: int,
    gap: int = 4,
    background: str = "white",
) -> Image.Image:
    """Pictures of one size on a sheet, row by row, `gap` pixels apart."""
    tiles = list(pictures)
    if not tiles:
        raise InputError("a grid needs at least one picture")
    width, height = tiles[0].size
    rows = math.ceil(len(tiles) / columns)
    sheet = Image.new(
        "RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), background
    )
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        sheet.paste(tile, (column * (width + gap), row * (height + gap)))
    return sheet
