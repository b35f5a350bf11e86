"""Odd files: each decoded to the right pixels or refused with its reason; none crashes or hangs."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from odd_files import Expected, encoded, flag, grey_flag, noise, write_corpus
from transferscope.data.scan import scan
from transferscope.errors import PictureError
from transferscope.images import InputSpec, read_picture, read_with_facts

Corpus = tuple[Path, dict[str, Expected]]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("odd")
    return folder, write_corpus(folder)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Names before files: the corpus is written once, where a test needs it."""
    if "odd" in metafunc.fixturenames:
        metafunc.parametrize("odd", CASES, ids=[ascii(name)[1:60] for name in CASES])


def _case_names() -> dict[str, Expected]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return write_corpus(Path(folder))


CASES = _case_names()
JPEGS = [name for name in CASES if name.startswith("whole/") and name.endswith((".jpg", ".mpo"))]


def difference(picture: Image.Image, place: tuple[int, int], colour: tuple[int, ...]) -> int:
    found = picture.convert("RGB").getpixel(place)
    return int(np.abs(np.subtract(found, colour)).max())


def luma(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """ITU-R 601-2, of the colour over white."""
    return (round(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]),) * 3


def test_the_corpus_has_what_it_promises() -> None:
    assert len(CASES) >= 60
    assert sum(case.reason is None for case in CASES.values()) >= 60


@pytest.mark.timeout(60)
@pytest.mark.parametrize("channels", [3, 1])
def test_pixels_or_reason(odd: str, channels: int, corpus: Corpus) -> None:
    folder, expected = corpus
    case = expected[odd]
    if case.reason is not None:
        with pytest.raises(PictureError) as caught:
            read_picture(folder / odd, channels=channels)
        assert re.search(case.reason, caught.value.reason)
        assert caught.value.path == str(folder / odd)
        return
    picture, facts = read_with_facts(folder / odd, channels=channels)
    assert picture.mode == ("RGB" if channels == 3 else "L")
    assert picture.size == facts.size == case.size
    for place, colour in case.pixels.items():
        seen = colour if channels == 3 else luma(colour)
        allowed = case.tolerance + (channels == 1)
        assert difference(picture, place, seen) <= allowed, (place, picture.getpixel(place))
    if case.stored is not None:
        assert (facts.format, facts.mode, facts.animated) == case.stored


@pytest.mark.parametrize("name", JPEGS)
def test_jpegs_decoded_at_a_quarter_have_the_same_colours(name: str, corpus: Corpus) -> None:
    folder, expected = corpus
    case = expected[name]
    picture, facts = read_with_facts(folder / name, least_side=4)
    quarter = facts.format in ("JPEG", "MPO")  # a PNG by that name is not scaled
    assert min(picture.size) == (4 if quarter else 16)
    assert facts.size == case.size
    scale = 4 if quarter else 1
    for (x, y), colour in case.pixels.items():
        assert difference(picture, (x // scale, y // scale), colour) <= case.tolerance + 8


@pytest.mark.timeout(120)
def test_a_scan_names_every_file(corpus: Corpus) -> None:
    folder, expected = corpus
    found = scan(folder, lenient=True)
    reasons = dict(found.excluded)
    read = {picture.path for picture in found.pictures}
    assert not read & set(reasons)
    assert read | set(reasons) == {name for name, case in expected.items() if case.scanned}
    assert read == {name for name, case in expected.items() if case.scanned and case.reason is None}
    for path, reason in reasons.items():
        assert re.search(str(expected[path].reason), reason)


@pytest.mark.timeout(120)
def test_memory_stays_under_a_gigabyte_and_nothing_is_printed(corpus: Corpus) -> None:
    folder, expected = corpus
    script = """
import json, resource, sys
from pathlib import Path
from transferscope.errors import PictureError
from transferscope.images import read_picture
read = 0
for name in json.load(sys.stdin):
    try:
        read_picture(Path(sys.argv[1]) / name)
        read += 1
    except PictureError:
        pass
if sys.platform == "linux":  # where ru_maxrss of a new process starts with that of its parent
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([read, peak]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", script, str(folder)],
        input=json.dumps(list(expected)),
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")},
    )
    read, peak = json.loads(done.stdout)
    assert done.stderr == ""
    assert read == sum(case.reason is None for case in expected.values())
    assert peak < 2**30, f"{peak / 2**20:.0f} MiB"


# ---------------------------------------------------------------------------- Pillow's surroundings

BAD_TAGS = b"Exif\0\0II*\0\x08\0\0\0\x02\0\x12\x01\x03\0\x09\0\0\0\xff\xff\0\0\x0e\x01\x02\0"


def warns_in_pillow() -> None:
    """Opens, outside `read_picture`, a file of which Pillow warns."""
    with Image.open(io.BytesIO(encoded(flag(), "JPEG", exif=BAD_TAGS))) as picture:
        picture.getexif()


def test_reading_is_silent_and_leaves_the_programs_own_warnings(tmp_path: Path) -> None:
    file = tmp_path / "tags.jpg"
    file.write_bytes(encoded(flag(), "JPEG", exif=BAD_TAGS))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        threads = [threading.Thread(target=read_picture, args=(file,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        read_picture(file)
        assert seen == []
        warns_in_pillow()
    assert [warning.category for warning in seen] == [UserWarning] * len(seen) != []


def test_filters_do_not_pile_up() -> None:
    data = encoded(flag(), "PNG")
    with warnings.catch_warnings():
        read_picture(io.BytesIO(data))
        before = len(warnings.filters)
        for _ in range(5):
            warnings.simplefilter("error")
            read_picture(io.BytesIO(data))
        assert len(warnings.filters) <= before + 1


@pytest.mark.parametrize(
    ("limit", "reason"),
    [(None, "cap of 50 mega"), (1000, "cap of 0.002 mega"), (10**9, "cap of 50")],
)
def test_a_programs_own_limit_of_pixels(
    limit: int | None, reason: str, monkeypatch: pytest.MonkeyPatch, corpus: Corpus
) -> None:
    folder, _ = corpus
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    for name in ("header of 2500 megapixels.png", "3000 x 30000 in an icon.ico"):
        with pytest.raises(PictureError, match="megapixels; scale it down"):
            read_picture(folder / "broken" / name)
    with pytest.raises(PictureError, match=reason):
        read_picture(folder / "broken" / "header of 2500 megapixels.png")
    assert read_picture(folder / "whole" / "RGB.png").size == (24, 16)


def test_a_picture_outlives_its_file(tmp_path: Path) -> None:
    for kind in ("BMP", "TIFF", "PPM", "TGA"):
        file = tmp_path / f"grey.{kind}"
        grey_flag().save(file, kind)
        picture = read_picture(file, channels=1)
        file.write_bytes(b"")  # of a mapped file this would end the process
        assert picture.getpixel((20, 3)) == 85
        assert type(picture) is Image.Image
        assert picture.info == {}


def test_streams_are_read_from_their_start_and_left_open() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation("seek")

    assert read_picture(Pipe(encoded(flag(), "PNG"))).getpixel((20, 3)) == (0, 255, 0)
    file = io.BytesIO(encoded(flag(), "GIF"))
    file.seek(9)
    assert read_picture(file).getpixel((20, 3)) == (0, 255, 0)
    assert not file.closed


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA", "LAB", "HSV", "YCbCr", "RGBX", "I;16", "F"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_every_mode_are_taken(mode: str, channels: int) -> None:
    spec = InputSpec((8, 8), channels, (0.5,) * channels, (0.5,) * channels)
    assert spec.load(Image.new(mode, (8, 8))).shape == (channels, 8, 8)


# ---------------------------------------------------------------------------- damaged at random

ORIGINALS = [
    encoded(picture, kind, **options)
    for picture in (flag(), noise(20))
    for kind, options in (
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "exif": BAD_TAGS}),
        ("PNG", {}),
        ("PNG", {"save_all": True, "append_images": [grey_flag().convert("RGB")]}),
        ("GIF", {}),
        ("GIF", {"save_all": True, "append_images": [grey_flag().convert("RGB")]}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True, "exif": BAD_TAGS}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
        *([("AVIF", {})] if features.check("avif") else []),
        *([("JPEG2000", {})] if features.check("jpg_2000") else []),
        ("ICO", {"sizes": [(16, 16)]}),
        ("TGA", {"compression": "tga_rle"}),
        ("PPM", {}),
    )
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid file after a few accidents: bytes changed, a slice lost or doubled, two files joined."""
    data = draw(st.sampled_from(ORIGINALS))
    for _ in range(draw(st.integers(1, 3))):
        start, end = sorted(draw(st.tuples(*[st.integers(0, max(len(data), 1))] * 2)))
        accident = draw(st.sampled_from(["change", "flip", "lose", "double", "join"]))
        if accident == "change":
            new = draw(st.binary(min_size=1, max_size=8))
            data = data[:start] + new + data[start + len(new) :]
        elif accident == "flip":
            data = (
                data[:start]
                + bytes([data[start] ^ 0xFF] if start < len(data) else [])
                + data[start + 1 :]
            )
        elif accident == "lose":
            data = data[:start] + data[min(end, start + 40) :]
        elif accident == "double":
            data = data[:end] + data[start:]
        else:
            data = data[:start] + draw(st.sampled_from(ORIGINALS))[start:]
    return data


@settings(
    max_examples=int(os.environ.get("TRANSFERSCOPE_DAMAGED", "400")),
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(data=damaged())
def test_damaged_files_give_a_picture_or_a_reason(data: bytes) -> None:
    try:
        picture, facts = read_with_facts(io.BytesIO(data))
    except PictureError:
        return
    assert picture.mode == "RGB"
    assert picture.size == facts.size
