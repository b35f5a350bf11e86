"""The demo set: fair (no family in two parts), legible, complete, and the same bytes every time."""

from __future__ import annotations

import dataclasses
import hashlib
import tomllib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from transferscope.data import demo
from transferscope.data.demo import (
    CHARACTERS,
    CONFUSABLE,
    FAMILIES,
    SIDE,
    STRIP_LENGTH,
    FontFamily,
    draw_character,
    write_demo_set,
)
from transferscope.data.scan import SPLITS, scan
from transferscope.errors import InputError, OutputError
from transferscope.files import read_csv
from transferscope.workflows.demo import demo as run_demo

COUNTS = {"train": 3, "validation": 1, "test": 2}
STRIPS = 20


@pytest.fixture(scope="module")
def demo_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_set(tmp_path_factory.mktemp("demo") / "set", **COUNTS, strips=STRIPS)


def digests(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


# ---------------------------------------------------------------------------- typefaces


def test_no_family_and_no_file_serves_two_parts() -> None:
    assert {family.part for family in FAMILIES} == set(SPLITS)
    parts: dict[str, set[str]] = {}
    for family in FAMILIES:
        parts.setdefault(family.name, set()).add(family.part)
        for path in family.paths():
            parts.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), set()).add(family.part)
    assert all(len(found) == 1 for found in parts.values())
    # Relatives by name: a weight or a companion must not be smuggled into another part.
    designs = {"Source": "train", "DejaVu": "train", "STIX": "train", "Roboto": "test"}
    for design, part in designs.items():
        assert {family.part for family in FAMILIES if family.name.startswith(design)} == {part}


def test_the_names_in_the_fonts_are_disjoint_too() -> None:
    from PIL import ImageFont

    names: dict[str, set[str]] = {part: set() for part in SPLITS}
    for family in FAMILIES:
        for path in family.paths():
            name = ImageFont.truetype(str(path), 20).getname()[0]
            assert name is not None
            names[family.part].add(name.split()[0])
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not names[one] & names[other]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_font_draws_36_characters_apart(family: FontFamily) -> None:
    for path in family.paths():
        masks = demo.glyphs(path)
        assert "".join(masks) == CHARACTERS
        assert len({(mask.size, mask.tobytes()) for mask in masks.values()}) == len(CHARACTERS)
        for mask in masks.values():
            margin = demo._MARGIN
            inner = (margin, margin, mask.width - margin, mask.height - margin)
            assert mask.getbbox() == inner
            assert np.asarray(mask).max() == 255


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_confusable_characters_differ_by_shape(family: FontFamily) -> None:
    """Scaled to one size, not only one width, I and 1 differ; O is wider than 0 by a fifteenth."""
    for path in family.paths():
        masks = {
            character: mask.crop(mask.getbbox()) for character, mask in demo.glyphs(path).items()
        }
        ratio = {character: mask.width / mask.height for character, mask in masks.items()}
        for one, other in CONFUSABLE:
            same_size = [
                np.asarray(masks[character].resize((64, 64)), dtype=float) / 255
                for character in (one, other)
            ]
            apart = np.abs(same_size[0] - same_size[1]).mean()
            assert apart > 0.05 or abs(ratio[one] / ratio[other] - 1) > 1 / 15


def test_missing_packages_are_named_at_once_and_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = [
        dataclasses.replace(family, package=f"font-none-{number}")
        for number, family in enumerate(FAMILIES[:2])
    ]
    monkeypatch.setattr(demo, "FAMILIES", (*absent, *FAMILIES[2:]))
    told: list[str] = []
    reporter = SimpleNamespace(say=told.append)
    message = (
        r"font-none-0, font-none-1, which are not .*; pip install 'transferscope\[demo\]' adds"
    )
    with pytest.raises(InputError, match=message):
        write_demo_set(tmp_path / "set")
    with pytest.raises(InputError, match=message):
        run_demo(tmp_path / "run", reporter=reporter)
    assert list(tmp_path.iterdir()) == []
    assert told == []
    with pytest.raises(InputError, match="font-none-0, which is not installed"):
        absent[0].paths()


def test_a_missing_file_is_named_with_its_remedy() -> None:
    emptied = dataclasses.replace(FAMILIES[0], files="SourceSansPro-None")
    with pytest.raises(InputError, match=r"'SourceSansPro-None\.ttf'.*--force-reinstall"):
        emptied.paths()


def test_the_extra_installs_the_fonts() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    used = {family.package for family in FAMILIES} - {"matplotlib"}
    assert set(project["optional-dependencies"]["demo"]) == used


def test_a_font_without_the_characters_is_refused() -> None:
    symbols = next(family for family in FAMILIES if family.package == "matplotlib").paths()[0]
    with pytest.raises(InputError, match="draws '0' like 'nothing'"):
        demo.glyphs(symbols.with_name("STIXSizFiveSymReg.ttf"))


# ---------------------------------------------------------------------------- pictures


def test_the_layout_is_what_scan_reads(demo_set: Path) -> None:
    found = scan(demo_set / "characters")
    assert found.classes == tuple(CHARACTERS)
    assert found.excluded == ()
    assert Counter(picture.split for picture in found.pictures) == {
        part: count * len(CHARACTERS) for part, count in COUNTS.items()
    }
    assert set(found.counts().values()) == {sum(COUNTS.values())}
    assert len({picture.sha256 for picture in found.pictures}) == len(found.pictures)
    for picture in found.pictures[::17]:
        with Image.open(found.file(picture)) as opened:
            assert (opened.format, opened.mode, opened.size) == ("PNG", "RGB", (SIDE, SIDE))


def test_the_same_seed_gives_the_same_bytes(demo_set: Path, tmp_path: Path) -> None:
    again = digests(write_demo_set(tmp_path / "again", **COUNTS, strips=STRIPS))
    assert again == digests(demo_set)
    few = {"train": 1, "validation": 1, "test": 1, "strips": 0}
    other = digests(write_demo_set(tmp_path / "other", **few, seed=1))
    pictures = {name for name in other if name.startswith("characters/")}
    assert len(pictures) == 3 * len(CHARACTERS)
    assert not [name for name in pictures if other[name] == again[name]]


def test_a_picture_does_not_depend_on_how_many_there_are(demo_set: Path, tmp_path: Path) -> None:
    fewer = digests(write_demo_set(tmp_path / "fewer", train=1, validation=1, test=1, strips=0))
    some = {"train": 1, "validation": 1, "test": 1, "strips": 0, "characters": "QA"}
    two = digests(write_demo_set(tmp_path / "two", **some))
    drawn = {name: digest for name, digest in two.items() if name.startswith("characters")}
    assert len(drawn) == 2 * 3
    assert drawn.items() <= fewer.items()
    for odd in ("", "AA", "a"):
        with pytest.raises(InputError, match="each once"):
            write_demo_set(tmp_path / "odd", **{**some, "characters": odd})
    pictures = {name: digest for name, digest in fewer.items() if name.startswith("characters/")}
    assert len(pictures) == 3 * len(CHARACTERS)
    assert pictures.items() < digests(demo_set).items()


@pytest.mark.parametrize("part", SPLITS)
def test_characters_are_whole_and_stand_out(part: str) -> None:
    """No ink touches the border, and ink and paper keep a contrast that can be read."""
    fonts: list[Sequence[Path]] = [family.paths() for family in FAMILIES if family.part == part]
    drawings = [(character, fonts) for character in CHARACTERS]
    drawings += [("W", [[path]]) for family in fonts for path in family for _ in range(4)]  # wide
    for seed, (character, choice) in enumerate(drawings):
        values = np.asarray(
            draw_character(character, choice, np.random.default_rng(seed)), dtype=float
        )
        border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
        paper = np.median(border, axis=0)
        assert np.abs(border - paper).max() < 60
        distance = np.abs(values - paper).sum(-1)
        ink = np.median(values[distance > 0.7 * distance.max()], axis=0)
        assert demo.contrast(tuple(ink / 255), tuple(paper / 255)) > 3
        assert 0.01 < (distance > distance.max() / 2).mean() < 0.5


def test_contrast_is_the_guideline_s() -> None:
    assert demo.contrast((0, 0, 0), (1, 1, 1)) == pytest.approx(21)
    assert demo.contrast((0.3, 0.2, 0.9), (0.3, 0.2, 0.9)) == pytest.approx(1)
    grey = (0x76 / 255,) * 3  # the well-known darkest grey that just passes 4.5 on white
    assert 4.5 < demo.contrast(grey, (1, 1, 1)) < 4.6


# ---------------------------------------------------------------------------- strips


def test_strips_are_made_of_test_pictures(demo_set: Path) -> None:
    rows = read_csv(demo_set / "strips.csv")
    assert len(rows) == STRIPS
    assert sorted(row["path"] for row in rows) == sorted(
        file.relative_to(demo_set).as_posix() for file in (demo_set / "strips").iterdir()
    )
    tested = {
        character: [
            np.asarray(Image.open(file))
            for file in sorted((demo_set / "characters" / "test" / character).iterdir())
        ]
        for character in CHARACTERS
    }
    used: Counter[tuple[str, int]] = Counter()
    for row in rows:
        strip = np.asarray(Image.open(demo_set / row["path"]))
        assert strip.shape == (SIDE, STRIP_LENGTH * SIDE, 3)
        assert len(row["text"]) == STRIP_LENGTH
        edges = range(0, (STRIP_LENGTH + 1) * SIDE, SIDE)
        for character, (left, right) in zip(row["text"], pairwise(edges), strict=True):
            matches = [
                number
                for number, picture in enumerate(tested[character])
                if np.array_equal(picture, strip[:, left:right])
            ]
            assert len(matches) == 1
            used[character, matches[0]] += 1
    in_all = len(CHARACTERS) * COUNTS["test"]
    assert len(used) == in_all  # 80 places for 72 pictures: each once before any twice
    assert max(used.values()) == 2


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("counts", [{"train": 0}, {"validation": 0}, {"test": -1}, {"strips": -1}])
def test_impossible_counts_are_refused(counts: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 1"):
        write_demo_set(tmp_path / "set", **counts)
    assert not (tmp_path / "set").exists()


def test_a_folder_of_other_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="would be lost"):
        write_demo_set(tmp_path, train=1, validation=1, test=1, strips=0)
    assert (tmp_path / "mine.txt").read_text() == "x"
