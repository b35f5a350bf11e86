"""Pictures in and out: strict decoding, the one preprocessing, and grids.

Everywhere behind this room a picture is float32 `(N, C, H, W)` in [0, 1], C = 3 (RGB) unless the
network's `InputSpec` says 1.
"""

from __future__ import annotations

import io
import math
import stat
import struct
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal, get_args

import numpy as np
import torch
from PIL import Image, ImageFile, UnidentifiedImageError

from transferscope.errors import InputError, PictureError
from transferscope.formats import QUIET_PILLOW, readable, size_in_icon, why_unknown, without_texts

PIXEL_CAP = 50_000_000
"""Pictures with more pixels are refused before they are decoded (a decompression bomb's defence)."""

SIDE_CAP = 1_000_000
"""Pictures with a longer side, in pixels, are refused: a decoder's list of rows alone would fill the memory."""

RESIZED_CAP = 2**22
"""Pixels above which a picture is not resized as a whole before its centre is cut out."""

NO_MEMORY = "there is too little memory to decode it; scale it down"
"""Why a picture is not read where the memory ends."""

Interpolation = Literal["bilinear", "bicubic", "lanczos"]
_LARGE = (
    2**24
)  # pixels above which pictures are decoded one at a time: each takes up to 12 bytes a pixel
_ONE_LARGE = threading.Lock()
_ORIENTATION = 0x0112  # EXIF's tag
_UPRIGHT = {  # by its value; 5 and more exchange width and height
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262
_WHITE_IS_ZERO = 0  # a value of TIFF's photometric interpretation


# ---------------------------------------------------------------------------- decoding


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a picture file holds, before it is made into what a network sees.

    Attributes:
        format: Pillow's name, such as JPEG; read from the bytes.
        mode: Pillow's mode as stored, such as RGB, L, P, CMYK, RGBA, I;16.
        size: (width, height) in pixels, upright: after the EXIF orientation.
        animated: whether it holds more than one frame.
        file: that was read; None: bytes without a name.
    """

    format: str
    mode: str
    size: tuple[int, int]
    animated: bool
    file: Path | None = None


def read_picture(
    source: str | Path | IO[bytes], *, channels: int = 3, least_side: int | None = None
) -> Image.Image:
    """Decodes a picture completely, or says why it cannot.

    EXIF orientation is applied, and taken for upright where EXIF itself is damaged; transparency is
    laid over white; palettes, CMYK, LAB, 16-bit and 32-bit depths become 8-bit; of an animation the
    first frame is taken. Colour profiles and gamma values are not applied: the numbers are the file's.
    Pillow's own warnings of damaged metadata are not shown.

    Args:
        source: a file's path or an open binary file. The format is read from the bytes.
        channels: 3 for mode RGB, 1 for mode L.
        least_side: the shorter side that will be needed, in pixels. A larger JPEG is then decoded
            at 1/2, 1/4 or 1/8 of its size (never below `least_side`), about twice as fast.

    Returns:
        The pixels alone, without the file's metadata.

    Raises:
        PictureError: missing, empty, truncated, not a picture, not a regular file, of more than 50
            megapixels or a side above 1,000,000 pixels, of a depth without a meaning as a picture, or too
            large for the memory at hand. No other picture is ever put in its place. (A program that sets
            Pillow's `LOAD_TRUNCATED_IMAGES` has asked for grey areas in place of what is missing.)
    """
    return read_with_facts(source, channels=channels, least_side=least_side)[0]


def read_with_facts(
    source: str | Path | IO[bytes], *, channels: int = 3, least_side: int | None = None
) -> tuple[Image.Image, FileFacts]:
    """`read_picture`, and what the file itself was."""
    name = source if isinstance(source, str | Path) else getattr(source, "name", "<bytes>")
    mode = "RGB" if channels == 3 else "L"
    try:
        with QUIET_PILLOW, _opened(source) as file:
            try:
                return _decoded(file, mode, least_side, name)
            except ValueError as error:
                plain = without_texts(file) if "MAX_TEXT" in str(error) else None
                if plain is None:
                    raise
                return _decoded(plain, mode, least_side, name)
    except Exception as error:  # decoders let anything through when bytes are not as expected
        _forget_pixels(error)
        if isinstance(error, PictureError):
            raise
        raise PictureError(name, _why(error, source)) from error


def _forget_pixels(error: BaseException | None) -> None:
    """Empties the frames of an error and of those before it: whoever keeps it would keep what was decoded."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _why(error: Exception, source: str | Path | IO[bytes]) -> str:
    """What a decoder's error says of the file."""
    if isinstance(error, UnidentifiedImageError):
        return why_unknown(source)
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(
        error, Image.DecompressionBombError
    ):  # Pillow's limit, which a program may have lowered
        cap = min(PIXEL_CAP, 2 * (Image.MAX_IMAGE_PIXELS or PIXEL_CAP)) / 1_000_000
        return f"more than the cap of {cap:.3g} megapixels; scale it down"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if (
        isinstance(error, MemoryError) or "out of memory" in said
    ):  # Pillow's word for a decoder's own
        return NO_MEMORY
    of_system = isinstance(error, OSError) and error.errno is not None
    text = "it cannot be opened" if of_system else "damaged or cut short"
    return f"{text} ({said.rstrip('.')})"


@contextmanager
def _opened(source: str | Path | IO[bytes]) -> Iterator[IO[bytes]]:
    """An open file as it is; a path opened, once it is known that reading it will end.

    Pillow is given the open file and not the path, from which it would map some formats into memory:
    the picture would change with its file, and the process end where the file is cut meanwhile.
    """
    if not isinstance(source, str | Path):
        yield source if source.seekable() else io.BytesIO(source.read())
        return
    status = Path(source).stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise PictureError(source, "it is a pipe, a socket or a device, not a file")
    if stat.S_ISREG(status.st_mode) and not status.st_size:
        raise PictureError(source, "the file is empty (0 bytes)")
    with open(source, "rb") as file:
        yield file


def _decoded(
    file: IO[bytes], mode: str, least_side: int | None, name: object
) -> tuple[Image.Image, FileFacts]:
    """The upright 8-bit picture in an open file; raises whatever the decoder does."""
    _refuse_large(size_in_icon(file), name)
    with Image.open(file, formats=readable()) as picture:
        width, height = picture.size
        _refuse_large(picture.size, name)
        stored = (picture.format or "", picture.mode)
        animated = bool(getattr(picture, "is_animated", False))
        if least_side is not None and picture.format in ("JPEG", "MPO"):
            scale = least_side / min(width, height)
            if scale < 1:
                picture.draft(None, (math.ceil(width * scale), math.ceil(height * scale)))
        with _ONE_LARGE if math.prod(picture.size) > _LARGE else nullcontext():
            _scale_transparent_colour(picture)
            picture.load()
            orientation = _orientation(picture)
            decoded = _to_8_bit(picture, mode, name)
            if orientation in _UPRIGHT:
                decoded = decoded.transpose(_UPRIGHT[orientation])
            elif decoded is picture:
                decoded = picture.copy()  # without the decoder and the file
    decoded.info = {}  # an orientation in it would be applied again by the next reader
    size = (height, width) if orientation >= 5 else (width, height)
    path = Path(name) if isinstance(name, str | Path) and name != "<bytes>" else None
    return decoded, FileFacts(*stored, size, animated, path)


def _refuse_large(size: tuple[int, int], name: object) -> None:
    width, height = size
    if width * height > PIXEL_CAP:
        raise PictureError(
            name,
            f"{width} x {height} pixels is more than the cap of "
            f"{PIXEL_CAP // 1_000_000} megapixels; scale it down",
        )
    if max(size) > SIDE_CAP:
        raise PictureError(
            name,
            f"{width} x {height} pixels has a side of more than {SIDE_CAP:,}; cut it into pieces",
        )


def _orientation(picture: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 (upright) where there is none or EXIF is damaged, as viewers do."""
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _scale_transparent_colour(picture: ImageFile.ImageFile) -> None:
    """A PNG's transparent colour in units of the decoded pixels: it is stored in those of its depth."""
    if picture.format != "PNG" or not picture.tile:
        return
    colour = picture.info.get("transparency")
    stored = picture.tile[0].args
    if stored in ("L;2", "L;4") and isinstance(colour, int):
        picture.info["transparency"] = colour * (85 if stored == "L;2" else 17)
    elif stored == "RGB;16B" and isinstance(colour, tuple):
        picture.info["transparency"] = tuple(value >> 8 for value in colour)


def _to_8_bit(picture: Image.Image, mode: str, name: object) -> Image.Image:
    """A picture of any Pillow mode as 8-bit RGB or L."""
    if picture.mode == mode and not picture.has_transparency_data:
        return picture
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        picture = _from_deep_grey(picture, name)
    elif picture.mode == "LAB":
        picture = picture.convert("RGB")  # the one mode that Pillow converts LAB to
    elif picture.mode == "La":
        picture = picture.convert("LA")  # likewise
    if picture.has_transparency_data:
        picture = _over_white(picture)
    return picture if picture.mode == mode else picture.convert(mode)


def _over_white(picture: Image.Image) -> Image.Image:
    """A picture with transparency of any kind as RGB, or as L where it has no colours."""
    if picture.mode == "LA":
        values, alpha = picture.split()
    else:
        values = alpha = picture.convert("RGBA")
    white = Image.new("L" if picture.mode == "LA" else "RGB", picture.size, "white")
    white.paste(values, mask=alpha)
    return white


def _from_deep_grey(picture: Image.Image, name: object) -> Image.Image:
    """16-bit, 32-bit and floating-point grey as mode L, scaled by the range of its type."""
    black, white = _grey_range(picture)
    least, most = min(black, white), max(black, white)
    values = np.asarray(picture)
    transparent = picture.info.get("transparency")
    grey = np.empty(values.shape, np.uint8)
    rows = max(1, 2**20 // picture.width)  # at a time: 50 megapixels in float64 are 400 MB
    for top in range(0, picture.height, rows):
        part = values[top : top + rows]
        if not (part.min() >= least and part.max() <= most):  # NaN is neither
            kind = "floating-point" if picture.mode == "F" else "32-bit"
            limits = "[0, 1]" if picture.mode == "F" else f"0..{most:.0f}"
            raise PictureError(name, f"{kind} values outside {limits} have no meaning as a picture")
        grey[top : top + rows] = np.rint((part - black) * (255 / (white - black)))
        if isinstance(transparent, int):
            grey[top : top + rows][part == transparent] = 255
    return Image.fromarray(grey)


def _grey_range(picture: Image.Image) -> tuple[float, float]:
    """The values of black and of white; in a TIFF, Pillow leaves both to its caller."""
    tags = getattr(picture, "tag_v2", {})
    white = 1.0 if picture.mode == "F" else 65535.0
    if tags.get(_TIFF_BITS) == (12,):
        white = 4095.0
    return (white, 0.0) if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO else (0.0, white)


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
        if self.interpolation not in get_args(Interpolation):
            raise InputError(
                f"InputSpec.interpolation is {self.interpolation!r}; it must be one of "
                f"{', '.join(get_args(Interpolation))}"
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
        left, top = (resized[0] - width) // 2, (resized[1] - height) // 2
        if resized[0] * resized[1] <= RESIZED_CAP:
            picture = picture.resize(resized, Image.Resampling[self.interpolation.upper()])
            return picture.crop((left, top, left + width, top + height))
        return _resized_part(picture, resized, (left, top), (width, height), self.interpolation)

    def load(self, source: str | Path | IO[bytes] | Image.Image) -> torch.Tensor:
        """One picture as the network will see it before normalisation.

        Returns:
            uint8 (C, H, W); `as_float` makes [0, 1] of it.

        Raises:
            PictureError: see `read_picture`.
        """
        if not isinstance(source, Image.Image):
            picture = read_picture(source, channels=self.channels, least_side=self.least_side)
        try:
            if isinstance(source, Image.Image):
                picture = _to_8_bit(source, "RGB" if self.channels == 3 else "L", "<picture>")
            return to_tensor(self.fit(picture))
        except MemoryError:
            name = "<picture>" if isinstance(source, Image.Image) else source
            raise PictureError(name, NO_MEMORY) from None

    def normalise(self, pictures: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) in [0, 1] to what the network was trained on: (x - mean) / std."""
        mean = pictures.new_tensor(self.mean).view(1, -1, 1, 1)
        std = pictures.new_tensor(self.std).view(1, -1, 1, 1)
        return (pictures - mean) / std


def _resized_part(
    picture: Image.Image,
    resized: tuple[int, int],
    start: tuple[int, int],
    size: tuple[int, int],
    interpolation: Interpolation,
) -> Image.Image:
    """The part of `size` at `start` of the picture resized to `resized`, without the rest of it.

    A margin as wide as the filter reaches is resized too, so that the part's borders are what they would be.
    """
    spans, box = [], []
    for whole, stored, at, length in zip(resized, picture.size, start, size, strict=True):
        margin = math.ceil(4 * max(whole / stored, 1))  # Lanczos reaches over 3 pixels
        spans.append((max(0, at - margin), min(whole, at + length + margin)))
        box.append([min(stored, end * stored / whole) for end in spans[-1]])
    part = picture.resize(
        (spans[0][1] - spans[0][0], spans[1][1] - spans[1][0]),
        Image.Resampling[interpolation.upper()],
        box=(box[0][0], box[1][0], box[0][1], box[1][1]),
    )
    left, top = start[0] - spans[0][0], start[1] - spans[1][0]
    return part.crop((left, top, left + size[0], top + size[1]))


# ---------------------------------------------------------------------------- tensors and grids


def shorter_side(files: Sequence[Path], most: int = 64) -> float:
    """Median of the shorter sides, in pixels, of some of the files; only their heads are read."""
    chosen = files[:: max(1, len(files) // most)][:most]
    sides = []
    for file in chosen:
        with Image.open(file) as picture:
            sides.append(min(picture.size))
    return float(np.median(sides))


def to_tensor(picture: Image.Image) -> torch.Tensor:
    """An RGB or L picture as uint8 (C, H, W)."""
    values = np.array(picture)
    return torch.from_numpy(values[None] if values.ndim == 2 else values.transpose(2, 0, 1).copy())


def as_float(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 pictures of any shape as float32 in [0, 1]."""
    return pictures.to(torch.float32).div_(255)


def refuse_range(pictures: torch.Tensor) -> None:
    """Refuses pixels outside [0, 1], such as bytes.

    Raises:
        InputError: any is outside, or no number.
    """
    if not bool(((pictures >= 0) & (pictures <= 1)).all()) or pictures.dtype == torch.uint8:
        raise InputError(
            f"the picture's values reach from {float(pictures.min()):g} to {float(pictures.max()):g}; give "
            "[0, 1] in floating point: bytes divided by 255"
        )


def to_picture(values: torch.Tensor | np.ndarray) -> Image.Image:
    """A picture from float (C, H, W) in [0, 1], or from uint8 (C, H, W) or (H, W, C)."""
    array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.dtype != np.uint8:
        array = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def grid(
    pictures: Iterable[Image.Image], *, columns: int, gap: int = 4, background: str = "white"
) -> Image.Image:
    """Pictures of one size on a sheet, row by row, `gap` pixels apart."""
    tiles = list(pictures)
    if not tiles:
        raise InputError("a grid needs at least one picture")
    width, height = tiles[0].width + gap, tiles[0].height + gap
    rows = math.ceil(len(tiles) / columns)
    sheet = Image.new("RGB", (columns * width - gap, rows * height - gap), background)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        sheet.paste(tile, (column * width, row * height))
    return sheet
