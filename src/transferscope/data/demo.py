"""The demo set: 36 characters in many typefaces, drawn here, so that nothing is downloaded.

The families of training, validation and test are disjoint: a network that does well on the test
part has learned letters, not fonts.
"""

from __future__ import annotations

import colorsys
import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from transferscope.data.scan import SPLITS
from transferscope.errors import InputError
from transferscope.files import replaced_folder, write_csv

CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""The classes of the demo set, in their order."""

CONFUSABLE: tuple[tuple[str, str], ...] = (("0", "O"), ("1", "I"))
"""Pairs that differ in some typefaces by their width or by a serif alone: the expected mistakes."""

SIDE = 96
"""Height and width of a picture in pixels; a strip is `STRIP_LENGTH` times as wide."""

STRIP_LENGTH = 4
"""Characters on a strip."""

_EM = 160  # pixels of a glyph's em square, drawn once and then warped into each picture
_MARGIN = 2  # pixels around a glyph's ink, without which a turned straight edge would be jagged
_OVERSAMPLING = 2  # pictures are composed at this multiple of SIDE, then averaged down
_LEAST_CONTRAST = 4.5  # WCAG 2.1's ratio of relative luminances for readable text

Part: TypeAlias = str
Colour: TypeAlias = tuple[float, float, float]


# ---------------------------------------------------------------------------- typefaces


@dataclass(frozen=True)
class FontFamily:
    """Typefaces of one design, all of them in one part of the demo set.

    Attributes:
        name: as its designers call it.
        part: train, validation or test.
        package: what pip installs.
        files: names without `suffix`, with blanks between; each gets as many pictures as the others.
        suffix: how the files' names end.
    """

    name: str
    part: Part
    package: str
    files: str
    suffix: str = ".ttf"

    def folder(self) -> Path | None:
        """Where the installed package has its files; None where it is not installed."""
        found = importlib.util.find_spec(self.package.replace("-", "_"))
        if found is None or not found.submodule_search_locations:
            return None
        home = Path(next(iter(found.submodule_search_locations)))
        return home / ("mpl-data/fonts/ttf" if self.package == "matplotlib" else "files")

    def paths(self) -> tuple[Path, ...]:
        """The font files on this machine.

        Raises:
            InputError: the package is not installed, or lacks one.
        """
        folder = self.folder()
        if folder is None:
            raise _not_installed([self])
        paths = tuple(folder / f"{name}{self.suffix}" for name in self.files.split())
        for path in paths:
            if not path.is_file():
                raise InputError(
                    f"the demo set needs {path.name!r}, which the installed {self.package!r} "
                    f"does not hold: pip install --force-reinstall {self.package}"
                )
        return paths


def _packaged(name: str, part: Part, weights: str, suffix: str = ".ttf") -> FontFamily:
    """A family in a package of its own, a file a weight."""
    package = f"font-{name.lower().replace(' ', '-')}"
    files = " ".join(f"{name.replace(' ', '')}-{weight}" for weight in weights.split())
    return FontFamily(name, part, package, files, suffix)


_SANS = "DejaVuSans DejaVuSans-Bold DejaVuSans-Oblique DejaVuSansMono DejaVuSansMono-Bold"
_SERIF = "DejaVuSerif DejaVuSerif-Bold DejaVuSerif-Italic"
_STIX = "STIXGeneral STIXGeneralBol STIXGeneralItalic STIXGeneralBolIta"

FAMILIES: tuple[FontFamily, ...] = (
    _packaged("Source Sans Pro", "train", "Regular Semibold Bold Black It BoldIt"),
    _packaged("Source Serif Pro", "train", "Regular Semibold Bold Black It BoldIt"),
    _packaged("Hanken Grotesk", "train", "Regular Medium SemiBold Bold Italic BoldItalic", ".otf"),
    FontFamily("DejaVu Sans", "train", "matplotlib", _SANS),
    FontFamily("DejaVu Serif", "train", "matplotlib", _SERIF),
    FontFamily("STIX General", "train", "matplotlib", _STIX),
    FontFamily("Computer Modern", "validation", "matplotlib", "cmr10 cmb10 cmss10"),
    _packaged("Manrope", "validation", "Regular SemiBold ExtraBold"),
    _packaged("Roboto", "test", "Regular Medium Bold Black Italic BoldItalic"),
    _packaged("Lato", "test", "Regular Bold Black Italic BoldItalic"),
    _packaged("Caladea", "test", "Regular Bold Italic BoldItalic"),
)
"""Which family serves which part. No family, and no design derived from it, serves two."""


def demo_fonts() -> dict[Part, list[tuple[Path, ...]]]:
    """The font files of every part, by family.

    Raises:
        InputError: some are not installed; names all of their packages.
    """
    missing = [family for family in FAMILIES if family.folder() is None]
    if missing:
        raise _not_installed(missing)
    return {part: [one.paths() for one in FAMILIES if one.part == part] for part in SPLITS}


def _not_installed(families: Sequence[FontFamily]) -> InputError:
    return InputError(
        f"the demo set is drawn with fonts of {', '.join(one.package for one in families)}, which "
        f"{'is' if len(families) == 1 else 'are'} not installed; pip install 'transferscope[demo]' adds "
        "what is missing"
    )


@cache
def glyphs(path: Path) -> Mapping[str, Image.Image]:
    """Every character of a font as a mask (mode L), cropped to its ink and a margin of `_MARGIN`.

    Raises:
        InputError: the font lacks one of `CHARACTERS` or draws two of them alike.
    """
    font = ImageFont.truetype(str(path), _EM, layout_engine=ImageFont.Layout.BASIC)
    masks: dict[str, Image.Image] = {}
    drawn = {_mask(font, letter).tobytes(): "nothing" for letter in ("\uffff", " ")}
    for character in CHARACTERS:
        mask = _mask(font, character)
        if same := drawn.get(mask.tobytes()):
            raise InputError(
                f"{path.name!r} draws {character!r} like {same!r}; the demo set needs fonts with "
                f"{len(CHARACTERS)} different characters: reinstall the package that carries it"
            )
        drawn[mask.tobytes()] = character
        masks[character] = mask
    return masks


def _mask(font: ImageFont.FreeTypeFont, character: str) -> Image.Image:
    canvas = Image.new("L", (2 * _EM, 2 * _EM))
    ImageDraw.Draw(canvas).text((_EM // 2, _EM // 4), character, font=font, fill=255)
    return ImageOps.expand(canvas.crop(canvas.getbbox() or (0, 0, 1, 1)), _MARGIN)


# ---------------------------------------------------------------------------- one picture


def draw_character(
    character: str, fonts: Sequence[Sequence[Path]], rng: np.random.Generator
) -> Image.Image:
    """One character in a random typeface, size, slant and colour.

    Args:
        character: one of `CHARACTERS`.
        fonts: font files by family; families are equally likely.
        rng: decides everything that varies.

    Returns:
        RGB, `SIDE` x `SIDE`.
    """
    family = fonts[int(rng.integers(len(fonts)))]
    mask = _placed(glyphs(family[int(rng.integers(len(family)))])[character], rng)
    paper, ink = _colours(rng)
    opacity = np.asarray(mask, dtype=np.float32)[..., None] / 255
    values = _sheet(paper, rng) * (1 - opacity) + _ink(ink, rng) * opacity
    values += rng.normal(0, rng.uniform(0, 0.006), (SIDE, SIDE, 1)).astype(np.float32)  # grain
    return Image.fromarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))


def _placed(glyph: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A glyph turned, scaled, moved and softened, as a mask of SIDE x SIDE."""
    side = SIDE * _OVERSAMPLING
    angle = math.radians(np.clip(rng.normal(0, 4), -10, 10))
    cosine, sine = math.cos(angle), math.sin(angle)
    # Both sides of the turned glyph's box stay within the picture; the aspect ratio is never
    # changed, as it is all that tells O from 0 in many typefaces.
    width, height = glyph.width - 2 * _MARGIN, glyph.height - 2 * _MARGIN
    box = width * cosine + height * abs(sine), width * abs(sine) + height * cosine
    room = 0.92 * side
    scale = min(rng.uniform(0.52, 0.66) * side / height, room / box[0], room / box[1])
    slack = [0.5 * (0.96 * side - scale * extent) for extent in box]
    reach = 0.04 * side
    centre = [side / 2 + rng.uniform(-1, 1) * min(reach, free) for free in slack]
    a, b = cosine / scale, sine / scale  # from a place in the picture to one in the glyph
    left = glyph.width / 2 - a * centre[0] - b * centre[1]
    top = glyph.height / 2 + b * centre[0] - a * centre[1]
    inverse = (a, b, left, -b, a, top)
    kind, method = Image.Transform.AFFINE, Image.Resampling.BICUBIC
    placed = glyph.transform((side, side), kind, inverse, method).reduce(_OVERSAMPLING)
    return placed.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.5)))


def _colours(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """A light paper with a deep ink, or for a fifth of the pictures the reverse."""
    while True:
        hue = rng.uniform()
        across = (hue + rng.uniform(0.3, 0.7)) % 1  # the colour circle
        light = colorsys.hsv_to_rgb(hue, rng.uniform(0.02, 0.28), rng.uniform(0.88, 1.0))
        deep = colorsys.hsv_to_rgb(across, rng.uniform(0.35, 0.95), rng.uniform(0.10, 0.50))
        paper, ink = (deep, light) if rng.uniform() < 0.2 else (light, deep)
        if contrast(paper, ink) >= _LEAST_CONTRAST:
            return paper, ink


def contrast(one: Colour, other: Colour) -> float:
    """Ratio of the relative luminances of two sRGB colours in [0, 1]: 1 (alike) to 21.

    Reference: Web Content Accessibility Guidelines 2.1, "contrast ratio".
    """
    darker, lighter = sorted(_luminance(colour) for colour in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: Colour) -> float:
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in colour
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _sheet(colour: Colour, rng: np.random.Generator) -> np.ndarray:
    """Paper as float32 (SIDE, SIDE, 3): a gradient of light across it, and soft blotches."""
    direction = rng.uniform(0, 2 * math.pi)
    along = np.linspace(-0.5, 0.5, SIDE, dtype=np.float32)
    slope = math.cos(direction) * along[None, :] + math.sin(direction) * along[:, None]
    cells = int(rng.integers(3, 13))
    blotches = Image.fromarray(rng.normal(0, 1, (cells, cells)).astype(np.float32))
    soft = np.asarray(blotches.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    shade = rng.uniform(0, 0.14) * slope + rng.uniform(0, 0.015) * soft
    return np.asarray(colour, dtype=np.float32) + shade[..., None].astype(np.float32)


def _ink(colour: Colour, rng: np.random.Generator) -> np.ndarray:
    """Ink as float32 (SIDE, 1, 3), a little lighter at one end."""
    fade = np.linspace(-0.5, 0.5, SIDE, dtype=np.float32) * np.float32(rng.uniform(-0.12, 0.12))
    return np.asarray(colour, dtype=np.float32) + fade[:, None, None]


# ---------------------------------------------------------------------------- the whole set


def write_demo_set(
    folder: str | Path,
    *,
    seed: int = 0,
    train: int = 50,
    validation: int = 10,
    test: int = 10,
    strips: int = 50,
    characters: str = CHARACTERS,
) -> Path:
    """Draws the demo set. The same seed gives the same bytes.

    Args:
        folder: gets `characters/{train,validation,test}/<character>/NNN.png`, which `scan` reads,
            `strips/<text>_NNN.png`, and `strips.csv` with the columns path and text. It is replaced
            as a whole.
        seed: of everything that varies. A picture depends on the seed, its part, its character and
            its number, not on how many others there are.
        train, validation, test: pictures of each character in these parts.
        strips: how many rows of four test pictures.
        characters: those of `CHARACTERS` that are drawn; a picture does not depend on the others.

    Returns:
        `folder`.

    Raises:
        InputError: a font's package is not installed, a count is below 1 (strips: below 0), or something
            else than characters of `CHARACTERS`, each once.
        OutputError: `folder` cannot be written, or holds something else.
    """
    counts = dict(zip(SPLITS, (train, validation, test), strict=True))
    if min(counts.values()) < 1 or strips < 0:
        raise InputError(
            f"the demo set was asked for {counts} pictures a character and {strips} strips; each "
            "part needs at least 1, and strips cannot be negative"
        )
    if not characters or sorted(characters) != sorted(set(characters) & set(CHARACTERS)):
        raise InputError(
            f"the demo set was asked for the characters {characters!r}; give some of {CHARACTERS}, each once"
        )
    fonts = demo_fonts()
    with replaced_folder(folder) as fresh:
        tested: list[tuple[str, Image.Image]] = []
        for part_index, (part, count) in enumerate(counts.items()):
            for character in characters:
                index = CHARACTERS.index(character)
                home = fresh / "characters" / part / character
                home.mkdir(parents=True)
                for number in range(count):
                    rng = np.random.default_rng([seed, part_index, index, number])
                    picture = draw_character(character, fonts[part], rng)
                    picture.save(home / f"{number:03d}.png", compress_level=3)
                    if part == "test":
                        tested.append((character, picture))
        _write_strips(fresh, tested, strips, np.random.default_rng([seed, len(counts)]))
    return Path(folder)


def _write_strips(
    folder: Path, pictures: Sequence[tuple[str, Image.Image]], count: int, rng: np.random.Generator
) -> None:
    """Rows of `STRIP_LENGTH` pictures; none is used again before all have been used."""
    (folder / "strips").mkdir()
    order: list[int] = []
    while len(order) < count * STRIP_LENGTH:
        order += rng.permutation(len(pictures)).tolist()
    rows = []
    for number in range(count):
        chosen = [pictures[i] for i in order[number * STRIP_LENGTH : (number + 1) * STRIP_LENGTH]]
        text = "".join(character for character, _ in chosen)
        path = f"strips/{text}_{number:03d}.png"
        strip = np.concatenate([np.asarray(picture) for _, picture in chosen], axis=1)
        Image.fromarray(strip).save(folder / path, compress_level=3)
        rows.append((path, text))
    write_csv(folder / "strips.csv", ("path", "text"), rows)
