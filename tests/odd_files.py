"""A folder of odd picture files, each with what a person would see in it, or why nothing can be seen.

`python tests/odd_files.py FOLDER` writes it for looking at. What is expected follows from what the
formats mean; nothing here asks the code that is tested.
"""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image, features

Colour = tuple[int, int, int]
RED, LIME, BLUE, BLACK, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)
PINK = (255, 127, 127)  # half of red over white

PLACES = ((3, 3), (20, 3), (3, 12), (20, 12))  # one in each quarter of the flag
COLOURS = (RED, LIME, BLUE, BLACK)
GREYS = (0, 85, 170, 255)
LOSSY = 12
NOT_A_PICTURE = "not of a picture format"
DAMAGED = "damaged or cut short"


@dataclass(frozen=True)
class Expected:
    """What reading a file gives.

    Attributes:
        size: (width, height) upright.
        pixels: RGB at places (x, y).
        tolerance: largest difference of a value.
        reason: regular expression of the reason, for a file that cannot be read.
        stored: format, mode and whether animated, where the test looks at them.
        scanned: whether a scan takes it for a file at all.
    """

    size: tuple[int, int] = (24, 16)
    pixels: dict[tuple[int, int], Colour] = field(default_factory=dict)
    tolerance: int = 0
    reason: str | None = None
    stored: tuple[str, str, bool] | None = None
    scanned: bool = True


FLAG = Expected(pixels=dict(zip(PLACES, COLOURS, strict=True)))
NEARLY = replace(FLAG, tolerance=LOSSY)
GREY_FLAG = Expected(pixels={place: (g, g, g) for place, g in zip(PLACES, GREYS, strict=True)})


def row(*colours: Colour | int, tolerance: int = 0) -> Expected:
    """A picture of one line."""
    triples = [(c, c, c) if isinstance(c, int) else c for c in colours]
    pixels = {(x, 0): colour for x, colour in enumerate(triples)}
    return Expected((len(colours), 1), pixels, tolerance)


def refused(reason: str) -> Expected:
    return Expected(reason=reason)


def flag(colours: tuple[object, ...] = COLOURS, mode: str = "RGB") -> Image.Image:
    """Four quarters, so that no turn or mirror image of it is itself."""
    picture = Image.new(mode, (24, 16))
    for (left, top), colour in zip(((0, 0), (12, 0), (0, 8), (12, 8)), colours, strict=True):
        picture.paste(colour, (left, top, left + 12, top + 8))
    return picture


def grey_flag() -> Image.Image:
    return flag(GREYS, "L")


def noise(side: int = 64) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(values)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return data.getvalue()


# ---------------------------------------------------------------------------- formats by hand


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    size: tuple[int, int],
    depth: int,
    colour: int,
    lines: bytes,
    *,
    before: bytes = b"",
    interlaced: bool = False,
) -> bytes:
    """A PNG from scan lines with their filter bytes; `before` are chunks before the pixels."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + before
        + chunk(b"IDAT", zlib.compress(lines, 1))
        + chunk(b"IEND", b"")
    )


def adam7(picture: Image.Image) -> bytes:
    """Scan lines of an interlaced PNG (PNG specification, 8.2): seven passes of sparse pixels."""
    values = np.asarray(picture)
    starts = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
    passes = [values[top::down, left::right] for top, left, down, right in (*starts, (1, 0, 2, 1))]
    return b"".join(b"\0" + line.tobytes() for part in passes if part.size for line in part)


def tiff(
    size: tuple[int, int],
    bits: int,
    photometric: int,
    data: bytes,
    *,
    samples: int = 1,
    **more: int,
) -> bytes:
    """A little-endian TIFF of one strip. `more`: t338=1 is tag 338 with the value 1."""
    tags = {256: size[0], 257: size[1], 259: 1, 262: photometric, 277: samples, 278: size[1]}
    tags |= {279: len(data)} | {int(name[1:]): value for name, value in more.items()}
    after = 8 + 2 + 12 * (len(tags) + 2) + 4
    per_sample = struct.pack(f"<{samples}H", *[bits] * samples)
    entries = {tag: struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()}
    place = struct.pack("<I", after) if len(per_sample) > 4 else per_sample.ljust(4, b"\0")
    entries[258] = struct.pack("<HHI", 258, 3, samples) + place
    entries[273] = struct.pack("<HHII", 273, 4, 1, after + len(per_sample))
    directory = b"".join(entries[tag] for tag in sorted(entries))
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    return head + directory + b"\0\0\0\0" + per_sample + data


def bmp(size: tuple[int, int], bits: int, lines: bytes) -> bytes:
    """A BMP of raw lines; a negative height in `size` is top-down."""
    header = struct.pack("<IiiHHIIiiII", 40, *size, 1, bits, 0, len(lines), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(lines), 0, 0, 54) + header + lines


def gif(screen: tuple[int, int]) -> bytes:
    """A GIF of one red pixel on a screen of any size."""
    palette = bytes((*RED, *BLACK))
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + palette
    return head + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00;"


def icon(inner: bytes) -> bytes:
    entry = struct.pack("<BBBBHHII", 24, 16, 0, 0, 1, 24, len(inner), 22)
    return b"\0\0\1\0\1\0" + entry + inner


# ---------------------------------------------------------------------------- the files


def whole_pngs() -> dict[str, tuple[bytes, Expected]]:
    """Every mode and depth of PNG."""
    half = (*RED, 128)
    palette = flag((0, 1, 2, 3), "P")
    palette.putpalette([value for colour in COLOURS for value in colour])
    entries = replace(FLAG, pixels={**FLAG.pixels, PLACES[0]: PINK, PLACES[1]: WHITE})
    deep = struct.pack(">6H", 65535, 0, 0, 0, 32896, 65535)
    trns = chunk(b"tRNS", struct.pack(">H", 1))
    gamma = chunk(b"gAMA", struct.pack(">I", 100000))
    exif = Image.Exif()
    exif[0x0112] = 3
    upside_down = replace(
        FLAG, pixels=dict(zip(PLACES, reversed(COLOURS), strict=True)), stored=("PNG", "RGB", False)
    )
    colours = b"".join(b"\0" + line.tobytes() for line in np.asarray(flag()))
    return {
        "1.png": (
            encoded(flag((0, 255, 255, 0), "1"), "PNG"),
            Expected(pixels=dict(zip(PLACES, (BLACK, WHITE, WHITE, BLACK), strict=True))),
        ),
        "L.png": (encoded(grey_flag(), "PNG"), replace(GREY_FLAG, stored=("PNG", "L", False))),
        "LA.png": (encoded(Image.new("LA", (2, 1), (0, 128)), "PNG"), row(127, 127)),
        "P.png": (encoded(palette, "PNG"), replace(FLAG, stored=("PNG", "P", False))),
        "P, alpha by entry.png": (encoded(palette, "PNG", transparency=b"\x80\x00"), entries),
        "P, one transparent entry.png": (
            encoded(palette, "PNG", transparency=0),
            replace(FLAG, pixels={**FLAG.pixels, PLACES[0]: WHITE}),
        ),
        "RGB.png": (encoded(flag(), "PNG"), FLAG),
        "RGB, transparent colour.png": (
            encoded(flag(), "PNG", transparency=BLUE),
            replace(FLAG, pixels={**FLAG.pixels, PLACES[2]: WHITE}),
        ),
        "RGBA.png": (
            encoded(flag((half, (*LIME, 255), (*BLUE, 0), (*BLACK, 128)), "RGBA"), "PNG"),
            Expected(
                pixels=dict(zip(PLACES, (PINK, LIME, WHITE, (127, 127, 127)), strict=True)),
                stored=("PNG", "RGBA", False),
            ),
        ),
        "2 bit.png": (png((4, 1), 2, 0, b"\0\x1b"), row(0, 85, 170, 255)),
        "2 bit, transparent grey.png": (
            png((4, 1), 2, 0, b"\0\x1b", before=trns),
            row(0, 255, 170, 255),
        ),
        "4 bit.png": (png((4, 1), 4, 0, b"\0\x01\x2f"), row(0, 17, 34, 255)),
        "4 bit, transparent grey.png": (
            png((4, 1), 4, 0, b"\0\x01\x2f", before=trns),
            row(0, 255, 34, 255),
        ),
        "16 bit grey.png": (
            png((4, 1), 16, 0, b"\0" + struct.pack(">4H", 0, 257, 32896, 65535)),
            replace(row(0, 1, 128, 255), stored=("PNG", "I;16", False)),
        ),
        "16 bit grey, transparent grey.png": (
            png((3, 1), 16, 0, b"\0" + struct.pack(">3H", 1, 257, 2), before=trns),
            row(255, 1, 0),
        ),
        "16 bit grey and alpha.png": (
            png((2, 1), 16, 4, b"\0" + struct.pack(">4H", 0, 32896, 32896, 65535)),
            row(127, 128),
        ),
        "16 bit RGB.png": (png((2, 1), 16, 2, b"\0" + deep), row(RED, (0, 128, 255))),
        "16 bit RGB, transparent colour.png": (
            png(
                (2, 1), 16, 2, b"\0" + deep, before=chunk(b"tRNS", struct.pack(">3H", 65535, 0, 0))
            ),
            row(WHITE, (0, 128, 255)),
        ),
        "16 bit RGBA.png": (
            png((1, 1), 16, 6, b"\0" + struct.pack(">4H", 65535, 0, 0, 32896)),
            row(PINK),
        ),
        "interlaced.png": (png((24, 16), 8, 2, adam7(flag()), interlaced=True), FLAG),
        "gamma.png": (png((24, 16), 8, 2, colours, before=gamma), FLAG),
        "damaged profile.png": (encoded(flag(), "PNG", icc_profile=b"not a profile"), FLAG),
        "eXIf orientation 3.png": (encoded(flag(), "PNG", exif=exif), upside_down),
        "1 x 1.png": (encoded(Image.new("RGB", (1, 1), LIME), "PNG"), row(LIME)),
        "1 x 3000.png": (
            encoded(Image.new("RGB", (1, 3000), LIME), "PNG"),
            Expected((1, 3000), {(0, 0): LIME, (0, 2999): LIME}),
        ),
        "49 megapixels with alpha.png": (
            png((7000, 7000), 8, 4, (b"\0" + b"\0\x80" * 7000) * 7000),
            Expected((7000, 7000), {(0, 0): (127,) * 3, (6999, 6999): (127,) * 3}),
        ),
    }


def whole_jpegs() -> dict[str, tuple[bytes, Expected]]:
    """JPEGs of every colour model, orientation and kind of damage that leaves the pixels whole."""
    files: dict[str, tuple[bytes, Expected]] = {}
    options = {"quality": 95, "subsampling": 0}
    # Where the quarters of the stored flag stand upright: (top left, top right, bottom left, ...).
    turns = ["0123", "1032", "3210", "2301", "0213", "2031", "3120", "1302"]
    for orientation, order in enumerate(turns, start=1):
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned = orientation >= 5
        places = ((3, 3), (12, 3), (3, 20), (12, 20)) if turned else PLACES
        files[f"orientation {orientation}.jpg"] = (
            encoded(flag(), "JPEG", exif=exif, **options),
            Expected(
                (16, 24) if turned else (24, 16),
                {
                    place: COLOURS[int(quarter)]
                    for place, quarter in zip(places, order, strict=True)
                },
                LOSSY,
                stored=("JPEG", "RGB", False),
            ),
        )
    plain = encoded(flag(), "JPEG", **options)
    cmyk = flag(((0, 255, 255, 0), (255, 0, 255, 0), (255, 255, 0, 0), (0, 0, 0, 255)), "CMYK")
    truncated_tag = b"Exif\0\0II*\0\x08\0\0\0\xff\x7f\x12\x01\x03\0"
    return files | {
        "grey.jpg": (
            encoded(grey_flag(), "JPEG", quality=95),
            replace(GREY_FLAG, tolerance=LOSSY, stored=("JPEG", "L", False)),
        ),
        "progressive.jpg": (encoded(flag(), "JPEG", progressive=True, **options), NEARLY),
        "stored as RGB.jpg": (encoded(flag(), "JPEG", keep_rgb=True, quality=95), NEARLY),
        "CMYK, inverted by Adobe.jpg": (
            encoded(cmyk, "JPEG", **options),
            replace(NEARLY, stored=("JPEG", "CMYK", False)),
        ),
        "damaged EXIF.jpg": (encoded(flag(), "JPEG", exif=b"Exif\0\0garbage", **options), NEARLY),
        "EXIF cut short.jpg": (encoded(flag(), "JPEG", exif=truncated_tag, **options), NEARLY),
        "bytes after its end.jpg": (plain + b"garbage" * 50, NEARLY),
        "stereo.mpo": (
            encoded(
                flag(),
                "MPO",
                save_all=True,
                append_images=[Image.new("RGB", (24, 16))],
                **options,
            ),
            replace(NEARLY, stored=("MPO", "RGB", True)),
        ),
    }


def whole_tiffs() -> dict[str, tuple[bytes, Expected]]:
    """The modes that only TIFF stores, and its compressions."""
    deep = struct.pack("<3H", 0, 32896, 65535)
    floats = struct.pack("<3f", 0, 0.5, 1)
    lab = bytes((138, 81, 70))  # CIE L*a*b* (D50) of sRGB's red: 54.3, 80.8, 69.9
    files = {
        "16 bit.tif": (tiff((3, 1), 16, 1, deep), row(0, 128, 255)),
        "16 bit, big-endian.tif": (
            encoded(Image.frombytes("I;16B", (2, 1), b"\x80\x80\xff\xff"), "TIFF"),
            row(128, 255),
        ),
        "16 bit, white is zero.tif": (tiff((3, 1), 16, 0, deep), row(255, 127, 0)),
        "12 bit.tif": (tiff((2, 1), 12, 1, b"\xff\xf8\x00"), row(255, 128)),
        "16 bit RGB.tif": (
            tiff((1, 1), 16, 2, struct.pack("<3H", 65535, 32896, 0), samples=3),
            row((255, 128, 0)),
        ),
        "32 bit, tall.tif": (
            encoded(Image.fromarray(np.full((300_000, 4), 65535, np.int32)), "TIFF"),
            Expected((4, 300_000), {(0, 0): WHITE, (3, 299_999): WHITE}),
        ),
        "32 bit.tif": (
            encoded(Image.fromarray(np.array([[0, 32896, 65535]], np.int32)), "TIFF"),
            replace(row(0, 128, 255), stored=("TIFF", "I", False)),
        ),
        "float.tif": (
            tiff((3, 1), 32, 1, floats, t339=3),
            replace(row(0, 128, 255), stored=("TIFF", "F", False)),
        ),
        "LAB.tif": (tiff((1, 1), 8, 8, lab, samples=3), row(RED, tolerance=8)),
        "YCbCr.tif": (
            tiff((2, 1), 8, 6, bytes((76, 85, 255)) * 2, samples=3, t530=0x10001),
            row(RED, RED, tolerance=2),
        ),
        "CMYK.tif": (tiff((1, 1), 8, 5, bytes((0, 255, 255, 0)), samples=4), row(RED)),
        "RGBA.tif": (tiff((1, 1), 8, 2, bytes((255, 0, 0, 128)), samples=4, t338=2), row(PINK)),
        "RGBA, premultiplied.tif": (
            tiff((1, 1), 8, 2, bytes((128, 0, 0, 128)), samples=4, t338=1),
            row(PINK),
        ),
        "RGBX.tif": (tiff((1, 1), 8, 2, bytes((255, 0, 0, 0)), samples=4, t338=0), row(RED)),
        "LA.tif": (tiff((1, 1), 8, 1, bytes((0, 128)), samples=2, t338=2), row(127)),
        "La (premultiplied).tif": (
            tiff((1, 1), 8, 1, bytes((64, 128)), samples=2, t338=1),
            row(191, tolerance=1),
        ),
        "PA.tif": (
            encoded(Image.new("PA", (1, 1), (0, 128)), "TIFF"),
            row(127),
        ),
        "two pages.tif": (
            encoded(flag(), "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))]),
            replace(FLAG, stored=("TIFF", "RGB", True)),
        ),
        "orientation 6.tif": (
            tiff((2, 1), 8, 1, bytes((0, 200)), t274=6),
            Expected((1, 2), {(0, 0): BLACK, (0, 1): (200,) * 3}),
        ),
        "tiled.tif": (
            encoded(flag(), "TIFF", tiffinfo={322: 16, 323: 16}, compression="tiff_lzw"),
            FLAG,
        ),
    }
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        files[f"{compression}.tif"] = (encoded(flag(), "TIFF", compression=compression), FLAG)
    files["group4.tif"] = (
        encoded(flag((0, 255, 255, 0), "1"), "TIFF", compression="group4"),
        Expected(pixels=dict(zip(PLACES, (BLACK, WHITE, WHITE, BLACK), strict=True))),
    )
    return files


def whole_others() -> dict[str, tuple[bytes, Expected]]:
    """Every other format, and animations."""
    frames = [Image.new("RGB", (24, 16), colour) for colour in (BLUE, WHITE)]
    moving = {"save_all": True, "append_images": frames, "duration": 50}
    palette = flag((0, 1, 2, 3), "P")
    palette.putpalette([value for colour in COLOURS for value in colour])
    clear = flag((0, 1, 2, 3), "P")
    clear.putpalette([value for colour in COLOURS for value in colour])
    alpha = flag(((*RED, 128), (*LIME, 255), (*BLUE, 255), (*BLACK, 255)), "RGBA")
    half = replace(FLAG, pixels={**FLAG.pixels, PLACES[0]: PINK}, tolerance=1)
    exif = Image.Exif()
    exif[0x0112] = 3
    upside_down = replace(FLAG, pixels=dict(zip(PLACES, reversed(COLOURS), strict=True)))
    blue_green_red = np.asarray(flag())[..., ::-1]
    padded = np.dstack([blue_green_red, np.zeros((16, 24), np.uint8)])
    mask = b"\0" * (16 * 4)  # 24 bits a line, filled up to 32; nothing is transparent
    dib = bmp((24, 32), 24, blue_green_red[::-1].tobytes() + mask)[14:]
    files = {
        "moving.gif": (
            encoded(palette, "GIF", disposal=2, **moving),
            replace(FLAG, stored=("GIF", "P", True)),
        ),
        "transparent.gif": (
            encoded(clear, "GIF", transparency=2),
            replace(FLAG, pixels={**FLAG.pixels, PLACES[2]: WHITE}),
        ),
        "lossless.webp": (encoded(flag(), "WEBP", lossless=True), FLAG),
        "lossy.webp": (encoded(flag(), "WEBP", quality=95), replace(FLAG, tolerance=24)),
        "alpha.webp": (encoded(alpha, "WEBP", lossless=True, exact=True), half),
        "EXIF orientation 3.webp": (
            encoded(flag(), "WEBP", lossless=True, exif=exif),
            upside_down,
        ),
        "moving.webp": (
            encoded(flag(), "WEBP", lossless=True, **moving),
            replace(FLAG, stored=("WEBP", "RGBA", True)),
        ),
        "moving.apng": (
            encoded(flag(), "PNG", **moving),
            replace(FLAG, stored=("PNG", "RGB", True)),
        ),
        "24 bit.bmp": (encoded(flag(), "BMP"), FLAG),
        "32 bit, unused bytes zero.bmp": (bmp((24, -16), 32, padded.tobytes()), FLAG),
        "top down.bmp": (bmp((24, -16), 24, blue_green_red.tobytes()), FLAG),
        "8 bit.bmp": (encoded(palette, "BMP"), FLAG),
        "alpha.ico": (encoded(alpha, "ICO", sizes=[(24, 16)]), half),
        "bitmap.ico": (icon(dib), FLAG),
        "plain.tga": (encoded(flag(), "TGA"), FLAG),
        "run lengths.tga": (encoded(flag(), "TGA", compression="tga_rle"), FLAG),
        "plain.ppm": (encoded(flag(), "PPM"), FLAG),
        "16 bit.pgm": (
            b"P5 3 1 65535\n" + struct.pack(">3H", 0, 32896, 65535),
            row(0, 128, 255),
        ),
        "10 bit.pgm": (b"P5 2 1 1023\n" + struct.pack(">2H", 0, 1023), row(0, 255)),
        "text.pbm": (b"P1\n# black is one\n2 1\n1 0\n", row(0, 255)),
        "a PNG.jpg": (encoded(flag(), "PNG"), replace(FLAG, stored=("PNG", "RGB", False))),
        "a WebP.png": (encoded(flag(), "WEBP", lossless=True), FLAG),
        "a GIF.jpeg": (encoded(palette, "GIF"), replace(FLAG, stored=("GIF", "P", False))),
    }
    if features.check("avif"):
        data = encoded(flag(), "AVIF", quality=95, subsampling="4:4:4")
        files["lossy.avif"] = (data, replace(FLAG, tolerance=16))
    if features.check("jpg_2000"):
        files["lossless.jp2"] = (encoded(flag(), "JPEG2000", irreversible=False), FLAG)
    return files


def broken_files() -> dict[str, tuple[bytes, Expected]]:
    """Files that are no picture any more, or never were one."""
    scene = {"jpg": encoded(noise(), "JPEG", quality=90), "png": encoded(noise(), "PNG")}
    files = {
        f"cut at {tenth}0%.{kind}": (
            data[: len(data) * tenth // 10],
            refused(f"{DAMAGED}|{NOT_A_PICTURE}"),
        )
        for kind, data in scene.items()
        for tenth in range(1, 10)
    }
    stored = bytearray(encoded(noise(), "PNG", compress_level=0))
    stored[len(stored) // 2] ^= 0xFF
    values = {
        "float, 1.5.tif": np.array([[0, 1.5]], np.float32),
        "float, not a number.tif": np.array([[0, np.nan]], np.float32),
        "32 bit, negative.tif": np.array([[-1, 0]], np.int32),
    }
    cap = refused("cap of 50 megapixels; scale it down")
    texts = {
        "page.jpg": b"<!doctype html><title>404</title>",
        "drawing.png": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "document.jpg": b"%PDF-1.7\n",
        "program.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(started) print\n",
        "telephone.jpg": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "white space.png": b" \n" * 200,
        "three bytes.jpg": b"\xff\xd8\xff",
    }
    files |= {name: (data, refused(NOT_A_PICTURE)) for name, data in texts.items()}
    meaningless = refused("outside .* have no meaning as a picture")
    files |= {
        name: (encoded(Image.fromarray(a), "TIFF"), meaningless) for name, a in values.items()
    }
    bomb = png((50000, 50000), 8, 2, b"\0")
    return files | {
        "empty.png": (b"", refused(r"the file is empty \(0 bytes\)")),
        "without its end.jpg": (scene["jpg"][:-2], refused(DAMAGED)),
        "a byte changed.png": (bytes(stored), refused(DAMAGED)),
        "header of 2500 megapixels.png": (bomb, cap),
        "60 megapixels of white.png": (
            png((10000, 6000), 1, 0, (b"\0" + b"\xff" * 1250) * 6000),
            cap,
        ),
        "screen of 4 gigapixels.gif": (gif((65535, 65535)), cap),
        "2500 megapixels in an icon.ico": (icon(bomb), cap),
        "3000 x 30000 in an icon.ico": (icon(png((3000, 30000), 8, 2, b"\0")), cap),
        "one frame of a moving picture.gif": (gif((1, 1))[:30], refused(DAMAGED)),
    }


NAMES = (
    "\ufeffbyte order mark.png",
    "貓和狗.png",
    "😀.png",
    "חתול.png",
    "line\nbreak.png",
    "space before the dot .png",
    "%20 & <b> \"quoted\" 'twice'.png",
    "x" * 246 + ".png",
    "UPPER.PNG",
)


def write_corpus(folder: Path) -> dict[str, Expected]:
    """Writes all of them into class folders; the answer is keyed by path from `folder`."""
    expected: dict[str, Expected] = {}
    flag_file = encoded(flag(), "PNG")
    groups = {
        "whole": whole_pngs() | whole_jpegs() | whole_tiffs() | whole_others(),
        "broken": broken_files(),
        "names": dict.fromkeys(NAMES, (flag_file, FLAG)),
    }
    for group, files in groups.items():
        (folder / group).mkdir(parents=True)
        for name, (data, outcome) in files.items():
            (folder / group / name).write_bytes(data)
            expected[f"{group}/{name}"] = outcome
    return expected | _write_links_and_the_like(folder)


def _write_links_and_the_like(folder: Path) -> dict[str, Expected]:
    """What a folder can hold beside files."""
    names = folder / "names"
    (names / "link.png").symlink_to(folder / "whole" / "RGB.png")
    (names / "dangling.png").symlink_to("nowhere.png")
    (names / "itself.png").symlink_to("itself.png")
    (names / "loop").symlink_to(names, target_is_directory=True)
    (names / "folder.jpg").mkdir()
    os.mkfifo(names / "pipe.jpg")
    (names / "locked.png").write_bytes(encoded(flag(), "PNG"))
    (names / "locked.png").chmod(0)
    locked = FLAG if os.geteuid() == 0 else refused("cannot be opened")  # root reads everything
    return {
        "names/link.png": FLAG,
        "names/dangling.png": refused("there is no such file"),
        "names/itself.png": refused("cannot be opened"),
        "names/loop": refused("Is a directory|a folder that is read already"),
        "names/folder.jpg": replace(refused(r"cannot be opened \(Is a directory\)"), scanned=False),
        "names/pipe.jpg": refused("a pipe, a socket or a device"),
        "names/locked.png": locked,
    }


if __name__ == "__main__":
    print(len(write_corpus(Path(sys.argv[1]))), "files")
