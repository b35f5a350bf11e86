"""Every odd picture file: decoded to what a person would see, or refused with its reason."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from transferscope import images
from transferscope.errors import InputError, PictureError
from transferscope.formats import SUFFIXES
from transferscope.images import InputSpec, read_picture


def smooth(width: int, height: int, *, mode: str = "RGB") -> Image.Image:
    """A picture without a symmetry: red grows to the right, green downwards, blue along both."""
    across = np.linspace(0, 255, width)[None, :].repeat(height, 0)
    down = np.linspace(0, 255, height)[:, None].repeat(width, 1)
    values = np.stack([across, down, (across + 2 * down) / 3], axis=-1)
    return Image.fromarray(values.astype(np.uint8)).convert(mode)


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG from raw scan lines (each with its filter byte), by the specification."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return data.getvalue()


# What a viewer does to the stored pixels for each EXIF orientation (EXIF 2.32, tag 0x0112).
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    stored = smooth(12, 8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "turned.png"
    stored.save(file, exif=exif)
    expected = UPRIGHT[orientation](np.asarray(stored))
    assert np.array_equal(np.asarray(read_picture(file)), expected)


def test_exif_orientation_is_applied_to_drafted_jpegs(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "turned.jpg"
    smooth(800, 400).save(file, exif=exif)
    assert read_picture(file).size == (400, 800)
    assert read_picture(file, least_side=100).size == (100, 200)


def over_white(colour: tuple[int, ...], alpha: int) -> np.ndarray:
    return np.rint(np.array(colour) * alpha / 255 + 255 * (1 - alpha / 255))


@pytest.mark.parametrize("alpha", [0, 64, 255])
@pytest.mark.parametrize(("mode", "colour"), [("RGBA", (200, 10, 60)), ("LA", (40,))])
def test_transparency_is_laid_over_white(mode: str, colour: tuple[int, ...], alpha: int) -> None:
    picture = Image.new(mode, (4, 4), (*colour, alpha))
    read = np.asarray(read_picture(io.BytesIO(encoded(picture, "PNG"))))
    expected = over_white(colour if mode == "RGBA" else colour * 3, alpha)
    assert np.abs(read.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"])
def test_transparent_palette_entries_are_white(transparency: int | bytes) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 0])
    picture.putdata([0, 1])
    data = encoded(picture, "PNG", transparency=transparency)
    assert np.asarray(read_picture(io.BytesIO(data))).tolist() == [[[255] * 3, [200, 100, 0]]]


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_colour_of_a_grey_png_is_white(channels: int) -> None:
    data = encoded(Image.fromarray(np.array([[9, 1]], dtype=np.uint8)), "PNG", transparency=9)
    read = np.asarray(read_picture(io.BytesIO(data), channels=channels))
    assert read.reshape(2, -1).tolist() == [[255] * channels, [1] * channels]


def test_transparent_colour_of_an_rgb_png_is_white() -> None:
    picture = Image.new("RGB", (2, 1), (9, 8, 7))
    picture.putpixel((1, 0), (1, 2, 3))
    data = encoded(picture, "PNG", transparency=(9, 8, 7))
    assert np.asarray(read_picture(io.BytesIO(data))).tolist() == [[[255] * 3, [1, 2, 3]]]


def test_cmyk_jpeg_has_its_colours() -> None:
    picture = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    read = np.asarray(read_picture(io.BytesIO(encoded(picture, "JPEG", quality=95))))
    assert read.mean((0, 1))[0] > 200
    assert read.mean((0, 1))[1:].max() < 60


@pytest.mark.parametrize("values", [[0, 0x8000, 0xFFFF], [0, 257, 514]])
def test_16_bit_grey_is_scaled_not_cut(values: list[int]) -> None:
    data = png(3, 1, 16, 0, b"\x00" + struct.pack(">3H", *values))
    read = np.asarray(read_picture(io.BytesIO(data), channels=1))
    assert read.tolist() == [[round(value / 257) for value in values]]
    assert read_picture(io.BytesIO(data)).mode == "RGB"


def test_16_bit_rgb_keeps_its_high_bytes() -> None:
    data = png(1, 1, 16, 2, b"\x00" + struct.pack(">3H", 0xFFFF, 0x8000, 0x0000))
    assert np.asarray(read_picture(io.BytesIO(data))).tolist() == [[[255, 128, 0]]]


def test_bilevel_pictures_are_black_and_white() -> None:
    picture = Image.new("1", (2, 1))
    picture.putpixel((1, 0), 1)
    read = np.asarray(read_picture(io.BytesIO(encoded(picture, "PNG")), channels=1))
    assert read.tolist() == [[0, 255]]


def test_32_bit_grey_is_scaled_like_16_bit() -> None:
    picture = Image.fromarray(np.array([[0, 32896, 65535]], dtype=np.int32))
    read = read_picture(io.BytesIO(encoded(picture, "TIFF")), channels=1)
    assert np.asarray(read).tolist() == [[0, 128, 255]]


def test_float_grey_in_unit_range_is_scaled() -> None:
    picture = Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32))
    read = read_picture(io.BytesIO(encoded(picture, "TIFF")), channels=1)
    assert np.asarray(read).tolist() == [[0, 128, 255]]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[0, 1.5]], dtype=np.float32), "outside [0, 1]"),
        (np.array([[0, np.nan]], dtype=np.float32), "outside [0, 1]"),
        (np.array([[-1, 0]], dtype=np.int32), "outside 0..65535"),
        (np.array([[0, 70000]], dtype=np.int32), "outside 0..65535"),
    ],
)
def test_depths_without_a_meaning_are_refused(values: np.ndarray, reason: str) -> None:
    data = io.BytesIO(encoded(Image.fromarray(values), "TIFF"))
    with pytest.raises(PictureError, match="have no meaning as a picture") as caught:
        read_picture(data)
    assert reason in caught.value.reason


def test_animations_give_their_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.asarray(read_picture(io.BytesIO(data))).reshape(-1, 3).tolist() == [[255, 0, 0]] * 64


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000"])
def test_formats_are_read_whatever_the_file_is_called(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "picture.jpg"
    file.write_bytes(encoded(smooth(32, 32), kind))
    read = np.asarray(read_picture(file)).astype(int)
    assert read.shape == (32, 32, 3)
    assert np.abs(read - np.asarray(smooth(32, 32)).astype(int)).mean() < 12


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_truncated_files_are_refused_by_name(kind: str, share: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    file = tmp_path / "cut.jpg"
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(PictureError, match=r"cut\.jpg") as caught:
        read_picture(file)
    assert caught.value.path == str(file)


@pytest.mark.parametrize("least_side", [None, 16])
def test_a_jpeg_cut_in_its_last_tenth_is_refused_when_drafted_too(
    least_side: int | None, tmp_path: Path
) -> None:
    data = encoded(smooth(256, 256), "JPEG", quality=90)
    file = tmp_path / "cut.jpg"
    file.write_bytes(data[: int(len(data) * 0.9)])
    with pytest.raises(PictureError, match="damaged or cut short"):
        read_picture(file, least_side=least_side)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"This is a text, not a picture.\n" * 20, "not of a picture format"),
        (b"\xff\xd8\xff", "not of a picture format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not of a picture format"),
    ],
)
def test_what_is_no_picture_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "no.jpg"
    file.write_bytes(content)
    with pytest.raises(PictureError) as caught:
        read_picture(file)
    assert reason in caught.value.reason


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="there is no such file"):
        read_picture(tmp_path / "none.png")
    with pytest.raises(PictureError, match=r"cannot be opened \(Is a directory\)"):
        read_picture(tmp_path)


@pytest.mark.parametrize("side", [7100, 12000, 60000])
def test_headers_of_more_than_50_megapixels_are_refused_before_decoding(side: int) -> None:
    data = png(side, side, 8, 2, b"")
    with pytest.raises(PictureError, match="cap of 50 megapixels; scale it down"):
        read_picture(io.BytesIO(data))


def test_stereo_pictures_of_cameras_give_their_first(tmp_path: Path) -> None:
    file = tmp_path / "stereo.mpo"
    smooth(64, 48).save(file, "MPO", save_all=True, append_images=[Image.new("RGB", (64, 48))])
    assert np.asarray(read_picture(file)).mean() > 100


def test_damaged_bytes_never_raise_anything_else() -> None:
    """Flipped bytes anywhere give a picture or a PictureError, whatever the format."""
    rng = np.random.default_rng(0)
    refused = 0
    for kind in (
        "JPEG",
        "PNG",
        "GIF",
        "WEBP",
        "TIFF",
        "BMP",
        "PPM",
        "JPEG2000",
        "ICO",
        "TGA",
        "AVIF",
    ):
        original = encoded(smooth(24, 24), kind)
        for _ in range(40):
            data = bytearray(original)
            for place in rng.integers(0, len(data), 6):
                data[place] = rng.integers(256)
            try:
                assert read_picture(io.BytesIO(bytes(data))).mode == "RGB"
            except PictureError:
                refused += 1
    assert refused > 50


def test_drafted_pictures_are_close_to_fully_decoded_ones(tmp_path: Path) -> None:
    file = tmp_path / "large.jpg"
    smooth(1600, 1200).save(file, quality=92)
    spec = InputSpec()
    drafted = spec.load(file).int()
    full = images.to_tensor(spec.fit(read_picture(file))).int()
    assert min(read_picture(file, least_side=spec.least_side).size) >= spec.least_side
    assert read_picture(file, least_side=spec.least_side).size != (1600, 1200)
    assert (drafted - full).abs().max() <= 4
    assert (drafted - full).abs().float().mean() < 1


# ---------------------------------------------------------------------------- InputSpec


@pytest.mark.parametrize("size", [(224, 224), (96, 160), (33, 7)])
@pytest.mark.parametrize("channels", [1, 3])
def test_fit_is_the_identity_at_the_exact_size(size: tuple[int, int], channels: int) -> None:
    spec = InputSpec(size=size, channels=channels, mean=(0.5,) * channels, std=(0.5,) * channels)
    picture = smooth(size[1], size[0], mode="RGB" if channels == 3 else "L")
    assert spec.fit(picture) is picture
    assert spec.load(picture).shape == spec.shape
    assert torch.equal(spec.load(picture), images.to_tensor(picture))


@pytest.mark.parametrize("given", [(10, 10), (1000, 20), (20, 1000), (225, 224), (1, 1)])
@pytest.mark.parametrize("size", [(224, 224), (64, 128)])
@pytest.mark.parametrize("crop", [0.5, 0.875, 1.0])
def test_fit_gives_the_size_from_any_size(
    given: tuple[int, int], size: tuple[int, int], crop: float
) -> None:
    fitted = InputSpec(size=size, crop=crop).fit(smooth(*given))
    assert fitted.size == (size[1], size[0])


def test_fit_takes_the_centre() -> None:
    values = np.zeros((100, 300, 3), dtype=np.uint8)
    values[:, 100:200] = 255
    fitted = np.asarray(InputSpec(size=(50, 50), crop=1.0).fit(Image.fromarray(values)))
    assert fitted[:, 2:-2].min() > 250


def test_input_spec_survives_json() -> None:
    spec = InputSpec((96, 128), 1, (0.25,), (0.5,), "lanczos", 0.9)
    assert InputSpec.from_dict(spec.to_dict()) == spec
    assert InputSpec.from_dict({**spec.to_dict(), "size": [96, 128], "mean": [0.25]}) == spec


@pytest.mark.parametrize(
    "fields",
    [
        {"channels": 2},
        {"channels": 1},
        {"mean": (0.5,)},
        {"std": (0.5, 0.5, 0.0)},
        {"size": (0, 224)},
        {"crop": 0.0},
        {"crop": 1.1},
        {"interpolation": "nearest"},
    ],
)
def test_input_spec_refuses_what_cannot_be(fields: dict[str, object]) -> None:
    with pytest.raises(InputError, match="InputSpec"):
        InputSpec(**fields)  # type: ignore[arg-type]


def test_normalise_is_by_channel() -> None:
    spec = InputSpec(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2))
    pictures = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    normal = spec.normalise(pictures)
    for channel in range(3):
        expected = (pictures[:, channel] - spec.mean[channel]) / spec.std[channel]
        assert torch.allclose(normal[:, channel], expected)


# ---------------------------------------------------------------------------- tensors and grids


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pictures_survive_tensors(mode: str) -> None:
    picture = smooth(9, 5, mode=mode)
    tensor = images.to_tensor(picture)
    assert tensor.shape == (3 if mode == "RGB" else 1, 5, 9)
    assert tensor.is_contiguous()
    for values in (tensor, images.as_float(tensor), images.as_float(tensor).numpy()):
        assert np.array_equal(np.asarray(images.to_picture(values)), np.asarray(picture))


def test_as_float_leaves_its_input_and_reaches_both_ends() -> None:
    pictures = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    assert images.as_float(pictures).tolist() == [[[[0.0, 1.0]]]]
    assert pictures.tolist() == [[[[0, 255]]]]


def test_to_picture_clips_and_rounds() -> None:
    values = torch.tensor([[[-0.5, 0.4999 / 255, 0.5001 / 255, 2.0]]])
    assert np.asarray(images.to_picture(values)).tolist() == [[0, 0, 1, 255]]


def test_grid_places_tiles_row_by_row() -> None:
    tiles = [Image.new("RGB", (3, 2), (index, 0, 0)) for index in range(5)]
    sheet = images.grid(iter(tiles), columns=2, gap=1, background="blue")
    assert sheet.size == (2 * 3 + 1, 3 * 2 + 2)
    for index in range(5):
        row, column = divmod(index, 2)
        assert sheet.getpixel((column * 4, row * 3)) == (index, 0, 0)
    assert sheet.getpixel((3, 0)) == sheet.getpixel((6, 7)) == (0, 0, 255)
    with pytest.raises(InputError, match="at least one"):
        images.grid([], columns=2)


def test_suffixes_are_lower_case_with_their_dot() -> None:
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in SUFFIXES)


# ---------------------------------------------------------------- odd shapes, odd texts, little memory


@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 1), (2, 20_001), (9_999, 7), (40, 3_000)])
@pytest.mark.parametrize("spec", [InputSpec(), InputSpec((32, 48), interpolation="lanczos")])
def test_thin_pictures_are_what_resizing_them_whole_gives_in_little_memory(
    size: tuple[int, int], spec: InputSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    largest = 0
    real = Image.Image.resize

    def resize(
        self: Image.Image, wanted: tuple[int, int], *args: object, **options: object
    ) -> Image.Image:
        nonlocal largest
        largest = max(largest, wanted[0] * wanted[1])
        return real(self, wanted, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", resize)
    found = spec.fit(picture)
    assert found.size == spec.size[::-1]
    assert largest <= images.RESIZED_CAP
    share = min(size) / (max(spec.size) / spec.crop)
    if max(size) / share * max(spec.size) < 2e7:  # the slow way: all of it, then the middle
        monkeypatch.setattr(images, "RESIZED_CAP", 10**12)
        whole = np.asarray(spec.fit(picture), dtype=int)
        # Where Pillow takes the two axes in another order, noise is cut off at black and white elsewhere.
        assert np.abs(whole - np.asarray(found, dtype=int)).mean() <= 1


def test_a_part_of_a_picture_is_the_same_as_the_whole_picture_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for size in ((640, 480), (90, 700), (7, 30)):
        picture = smooth(*size)
        for interpolation in ("bilinear", "bicubic", "lanczos"):
            spec = InputSpec((96, 128), interpolation=interpolation)
            monkeypatch.setattr(images, "RESIZED_CAP", 10**12)
            whole = np.asarray(spec.fit(picture), dtype=int)
            monkeypatch.setattr(images, "RESIZED_CAP", 0)
            assert np.abs(whole - np.asarray(spec.fit(picture), dtype=int)).max() <= 1


def test_a_side_of_more_than_a_million_pixels_is_refused() -> None:
    rows = zlib.compress(bytes(2))
    header = struct.pack(">IIBBBBB", 1, 1_000_001, 1, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")):
        data += (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )
    with pytest.raises(PictureError, match="a side of more than 1,000,000"):
        read_picture(io.BytesIO(data))


def test_the_end_of_memory_is_an_error_of_that_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smooth(64, 48).save(tmp_path / "a.png")

    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(images, "_decoded", fails)
        with pytest.raises(PictureError, match="too little memory"):
            read_picture(tmp_path / "a.png")
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "resize", fails)
        with pytest.raises(PictureError, match=r"a\.png': there is too little memory"):
            InputSpec().load(tmp_path / "a.png")


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("place", ["before", "after"])
def test_texts_of_a_png_above_pillows_limit_are_no_damage(compressed: bool, place: str) -> None:
    from PIL import PngImagePlugin

    text = PngImagePlugin.PngInfo()
    for number in range(70 if compressed else 1):
        text.add_itxt(f"prompt {number}", "x" * 1_000_000, zip=compressed)
    text.add_text("huge", "y" * 5_000_000, zip=True)
    file = io.BytesIO()
    smooth(31, 17).save(file, "PNG", pnginfo=text)
    data = file.getvalue()
    if place == "after":  # the pixels first
        start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
        first = data.index(b"iTXt") - 4
        data = data[:first] + data[start:end] + data[first:start] + data[end:]
    assert np.array_equal(np.asarray(read_picture(io.BytesIO(data))), np.asarray(smooth(31, 17)))


def test_an_error_that_is_kept_keeps_no_pixels() -> None:
    """Prediction keeps an error a file until its turn: with a traceback's frames, megabytes each."""
    file = io.BytesIO()
    Image.effect_noise((400, 300), 90).save(file, "PNG")
    with pytest.raises(PictureError) as caught:
        read_picture(io.BytesIO(file.getvalue()[:-9_000]))
    kept, error = [], caught.value
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            kept += [
                one for one in trace.tb_frame.f_locals.values() if isinstance(one, Image.Image)
            ]
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
    assert kept == []
