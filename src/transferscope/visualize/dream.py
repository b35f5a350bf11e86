"""DeepDream: a photograph changed towards what a layer, or one channel, already sees in it.

The photo is climbed octave by octave, from small to large, in tiles: what a pass of the network needs
depends on the tile, not on the photo. Before each octave the detail of the photo that the smaller one
could not hold is put back. As in the render loop, the work is done by a private, faster copy; what is
reported is measured on the untouched network in fp32.

Reference: Mordvintsev, Olah and Tyka 2015, "Inceptionism"; octaves and normalised gradients by bands
as in the authors' notebook for TensorFlow. Where that rolls the picture, this mirrors its borders, so
that the left edge never borders on the right one.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from transferscope.acceleration.network import FastNetwork
from transferscope.acceleration.precision import Precision
from transferscope.activations import TruncatedForward
from transferscope.backbones.classifier import Classifier
from transferscope.copies import still
from transferscope.errors import InputError, OutputError
from transferscope.files import write_bytes
from transferscope.images import PIXEL_CAP, as_float, read_picture, to_picture
from transferscope.visualize.movement import seed_of
from transferscope.visualize.objectives.algebra import LOGITS, Objective
from transferscope.visualize.objectives.channels import channel as channel_mean
from transferscope.visualize.objectives.layers import layer_energy
from transferscope.visualize.tiles import GRID, Span, add_inside, fades, mirrored, overlap, spans

TILE = 640
"""Longest side of a tile where the network takes any size: EfficientNet-Lite0 then needs 0.2 GB."""

LEAST_TILE = 128
LEAST_SIDE = 32
"""Of a photo, in pixels: in less there is nothing for a network to see."""

_BANDS = 4

SUFFIXES = {
    ".png": ("PNG", {}, 2**31 - 1),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}, 65_500),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}, 65_500),
    ".webp": ("WEBP", {"quality": 92, "method": 4}, 16_383),
}
"""What a dream can be saved as: Pillow's format, its options, and the longest side it can hold."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DreamRecipe:
    """How a photo is dreamt on.

    Attributes:
        octaves: sizes that are climbed through; None: as many as fit between the photo and the
            network's own input size.
        octave_scale: how much larger each is than the one before.
        steps: ascents an octave.
        rate: how far a step moves a pixel on average, in units of [0, 1].
        tile: longest side of what the network sees at once, in pixels; None: 640. A network that
            takes one size only (most ViTs) gets tiles of exactly that size.
        precision: of the ascent; "auto" is bf16 where the hardware is fast at it.
    """

    octaves: int | None = None
    octave_scale: float = 1.4
    steps: int = 10
    rate: float = 0.006
    tile: int | None = None
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if self.octaves is not None and self.octaves < 1:
            raise InputError(f"--octaves is {self.octaves}; a dream needs at least 1")
        if not 1 < self.octave_scale <= 4:
            raise InputError(
                f"--octave-scale is {self.octave_scale:g}; it must be above 1 and at most 4"
            )
        if self.steps < 1:
            raise InputError(f"--steps is {self.steps}; a dream needs at least 1 an octave")
        if not 0 < self.rate <= 1:
            raise InputError(f"--rate is {self.rate:g}; it must be above 0 and at most 1")
        if self.tile is not None and self.tile < LEAST_TILE:
            raise InputError(f"--tile is {self.tile}; it must be at least {LEAST_TILE} pixels")


@dataclass(frozen=True, eq=False)
class Dream:
    """A photo, dreamt on.

    Attributes:
        picture: uint8 (H, W, C).
        objective: what was maximised, as it is written.
        octaves: (width, height) of each size climbed through, ascending; the last is the picture's.
        steps: an octave.
        seed: of the jitter.
        activation_before: the objective of the photo at the picture's size: the mean over the tiles
            of a fixed grid, by their area, on the untouched network in fp32.
        activation_after: the same of the picture as it stands here, in 8 bits.
    """

    picture: np.ndarray
    objective: str
    octaves: tuple[tuple[int, int], ...]
    steps: int
    seed: int
    activation_before: float
    activation_after: float

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the picture in pixels."""
        return self.octaves[-1]

    def save(self, path: str | Path) -> None:
        """Writes the picture, whole or not at all, in the format of the path's suffix.

        Raises:
            InputError: a suffix that is not one of `SUFFIXES`, or a picture too large for it.
            OutputError: it cannot be written.
        """
        name, options, _ = _format_of(path, self.size)
        data = io.BytesIO()
        to_picture(self.picture).save(data, name, **options)
        write_bytes(path, data.getvalue())


def refuse_dream_file(path: str | Path, size: tuple[int, int]) -> None:
    """Refuses what `Dream.save` would: long work can ask before it begins.

    Args:
        path: of the file to be.
        size: (width, height) of the picture to be.

    Raises:
        InputError: see `Dream.save`.
        OutputError: the path is a folder.
    """
    _format_of(path, size)
    if Path(path).is_dir():
        raise OutputError(f"{str(path)!r} is a folder; give the name of a file")


def _format_of(path: str | Path, size: tuple[int, int]) -> tuple[str, dict[str, int], int]:
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"--out is {str(path)!r}, whose suffix names no format that a dream is written in; use "
            f"{', '.join(SUFFIXES)}"
        )
    name, options, longest = SUFFIXES[suffix]
    if max(size) > longest:
        raise InputError(
            f"--out is {str(path)!r}, and {name} holds at most {longest} pixels a side, not "
            f"{max(size)}; use .png, or a smaller --size"
        )
    return name, options, longest


# ---------------------------------------------------------------------------- the photo


def read_photo(
    source: str | Path | Image.Image, *, channels: int, size: int | None = None
) -> Image.Image:
    """A photo in its full size, or with `size` pixels along its longer side.

    Args:
        source: a file, decoded as strictly as everywhere, or a picture.
        channels: 3 for RGB, 1 for grey.
        size: None keeps the photo's own.

    Raises:
        PictureError: see `images.read_picture`.
        InputError: fewer than 32 pixels along a side, or more than 50 megapixels.
    """
    picture = source if isinstance(source, Image.Image) else read_picture(source, channels=channels)
    mode = "RGB" if channels == 3 else "L"
    if picture.mode != mode or picture.has_transparency_data:
        raise InputError(
            f"the picture has mode {picture.mode}; give mode {mode} without transparency, or a file"
        )
    wanted = picture.size if size is None else _scaled(picture.size, size / max(picture.size))
    if min(wanted) < LEAST_SIDE:
        enough = math.ceil(LEAST_SIDE * max(wanted) / min(wanted))
        raise InputError(
            f"the photo would be {wanted[0]} x {wanted[1]} pixels, and a dream needs {LEAST_SIDE} "
            f"along its shorter side; give --size {max(enough, 400)}"
        )
    if wanted[0] * wanted[1] > PIXEL_CAP:
        raise InputError(
            f"the photo would be {wanted[0]} x {wanted[1]} pixels, more than "
            f"{PIXEL_CAP // 1_000_000} megapixels; give a smaller --size"
        )
    return picture if wanted == picture.size else picture.resize(wanted, Image.Resampling.LANCZOS)


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def octave_sizes(
    size: tuple[int, int], recipe: DreamRecipe, *, least: int
) -> tuple[tuple[int, int], ...]:
    """(width, height) of every octave, ascending; the last one is `size`.

    Args:
        size: of the photo.
        recipe: for its number of octaves and their scale.
        least: without a number, the longer side below which there is no further octave.

    Raises:
        InputError: more octaves than the photo has pixels for.
    """
    count = recipe.octaves
    if count is None:
        count = 1 + max(0, math.floor(math.log(max(size) / least, recipe.octave_scale)))
        while count > 1 and min(_scaled(size, recipe.octave_scale ** (1 - count))) < LEAST_SIDE:
            count -= 1
    sizes = tuple(_scaled(size, recipe.octave_scale**-back) for back in reversed(range(count)))
    if min(sizes[0]) < LEAST_SIDE:
        raise InputError(
            f"--octaves is {count}, and the smallest of them would be {sizes[0][0]} x {sizes[0][1]} "
            f"pixels where at least {LEAST_SIDE} are needed; use fewer, or a larger --size"
        )
    return sizes


# ---------------------------------------------------------------------------- dream


def dream(
    classifier: Classifier,
    image: str | Path | Image.Image,
    objective: str | Objective,
    *,
    channel: int | None = None,
    recipe: DreamRecipe | None = None,
    size: int | None = None,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Dream:
    """Changes a photo of any size towards what a layer sees in it.

    Memory is that of one tile's pass and about 70 bytes a pixel of the photo. The result depends on
    the tile's size only as far as a tile's border hides what lies beyond it; borders move with every
    step and neighbours fade into each other.

    Args:
        classifier: unchanged.
        image: a file, or a picture of mode RGB (or L, for a network of one channel).
        objective: a layer's dotted name for `layer_energy` or, with `channel`, the mean of one
            channel; or any objective over activations. It is taken as a mean over a tile.
        channel: one channel of the layer named.
        recipe: see `DreamRecipe`.
        size: of the longer side in pixels; None: the photo's own.
        seed: of the jitter and of the tiles' borders.
        on_progress: called with (tiles done, tiles in all).

    Raises:
        UnknownName: no such layer.
        PictureError: see `images.read_picture`.
        InputError: no such channel, a photo too small or too large, a channel without a gradient
            anywhere on the photo, or an option out of range.
    """
    recipe = recipe or DreamRecipe()
    wanted = _objective(objective, channel)
    photo = read_photo(image, channels=classifier.input.channels, size=size)
    spec = replace(classifier.input, size=(photo.height, photo.width))
    sizes = octave_sizes(photo.size, recipe, least=max(classifier.input.size))
    dreamer = _Dreamer(classifier, wanted, recipe)
    original = spec.load(photo)
    picture = dreamer.climbed(original, sizes, seed, on_progress)
    return Dream(
        picture=np.ascontiguousarray(picture.permute(1, 2, 0).numpy()),
        objective=wanted.name,
        octaves=sizes,
        steps=recipe.steps,
        seed=seed,
        activation_before=dreamer.measured(original),
        activation_after=dreamer.measured(picture),
    )


def _objective(objective: str | Objective, index: int | None) -> Objective:
    if isinstance(objective, str):
        return layer_energy(objective) if index is None else channel_mean(objective, index)
    if index is not None:
        raise InputError(f"channel is {index} beside {objective.name}; it goes with a layer's name")
    if not objective.layers:
        raise InputError(
            f"{objective.name} looks at no layer, so there is nothing to dream of; add one, such as "
            "layer_energy('blocks.4.2')"
        )
    return objective


_Side = tuple[Span, torch.Tensor]
"""A tile along one axis, and how strongly it counts at each of its pixels."""


class _Dreamer:
    """A private, faster copy of a network, and the tiles in which it sees a photo."""

    def __init__(self, classifier: Classifier, objective: Objective, recipe: DreamRecipe):
        self.classifier = classifier
        self.objective = objective
        self.recipe = recipe
        self._names = {
            name: classifier.head if name == LOGITS else name for name in objective.layers
        }
        wanted, example = list(self._names.values()), classifier.example()
        self._exact = TruncatedForward(
            still(classifier.network), wanted, example, channels_first=True
        )
        self._fast = FastNetwork(classifier.network, wanted, example, recipe.precision)
        self._size = height, width = classifier.input.size
        self._fixed = not self._fast.takes((height + GRID, width + GRID))
        if self._fixed and recipe.tile is not None:
            raise InputError(
                f"--tile is {recipe.tile}, and this {classifier.backbone} takes pictures of "
                f"{height} x {width} pixels only; leave --tile out"
            )

    # ------------------------------------------------------------------ ascent

    def climbed(
        self,
        original: torch.Tensor,
        sizes: Sequence[tuple[int, int]],
        seed: int,
        on_progress: Progress | None,
    ) -> torch.Tensor:
        """The dream of a photo: uint8 (C, H, W) from uint8 (C, H, W)."""
        generator = torch.Generator().manual_seed(seed_of("dream", seed))
        total = self.recipe.steps * sum(len(self._grid(size[::-1])) for size in sizes)
        tiles = itertools.count(1)

        def advance() -> None:
            if on_progress:
                on_progress(next(tiles), total)

        moved = False
        picture = _resized(original, sizes[0])
        for number, size in enumerate(sizes):
            if number:
                dreamt = picture.sub_(_resized(original, sizes[number - 1]))
                picture = _resized(dreamt, size).add_(_resized(original, size)).clamp_(0, 1)
            for _ in range(self.recipe.steps):
                gradient = self._gradient(picture, generator, advance)
                strength = _mean_size(gradient)
                if strength == 0 or not math.isfinite(strength):
                    continue
                moved = True
                picture.add_(_levelled(gradient), alpha=self.recipe.rate).clamp_(0, 1)
        if not moved:
            raise InputError(
                f"{self.objective.name} has no gradient anywhere on this photo, so there is nothing "
                "to dream of; choose another channel, or another photo"
            )
        return picture.mul_(255).round_().byte()

    def _gradient(
        self, picture: torch.Tensor, generator: torch.Generator, advance: Callable[[], None]
    ) -> torch.Tensor:
        """(C, H, W): the gradient of the objective over all tiles, which move at random."""
        draws = torch.rand(4, generator=generator).tolist()
        gradient = torch.zeros_like(picture)
        for (span_y, fade_y), (span_x, fade_x) in self._grid(picture.shape[1:], draws):
            tile = self._tile(picture, span_y, span_x).requires_grad_()
            value = self._value(self._fast, tile).sum()
            (found,) = torch.autograd.grad(value * tile[0, 0].numel(), tile)
            add_inside(gradient, found[0].cpu(), (span_y, span_x), (fade_y, fade_x))
            advance()
        return gradient

    def _value(
        self, forward: Callable[[torch.Tensor], dict[str, torch.Tensor]], tile: torch.Tensor
    ) -> torch.Tensor:
        seen = forward(self.classifier.input.normalise(tile))
        return self.objective({name: seen[actual] for name, actual in self._names.items()}, tile)

    def _tile(self, picture: torch.Tensor, rows: Span, columns: Span) -> torch.Tensor:
        """(1, C, h, w) on the network's device; beyond its borders the picture is mirrored."""
        y, x = mirrored(rows, picture.shape[1]), mirrored(columns, picture.shape[2])
        tile = picture[:, y][:, :, x][None]
        if tile.dtype == torch.uint8:
            tile = as_float(tile)
        return tile.to(self.classifier.device).contiguous(memory_format=torch.channels_last)

    # ------------------------------------------------------------------ tiles

    def _grid(
        self, size: Sequence[int], draws: Sequence[float] = (0, 0, 0, 0)
    ) -> list[tuple[_Side, _Side]]:
        """The rows and columns of every tile; two draws place the rows, two the columns."""
        rows = self._axis(size[0], 0, *draws[:2])
        return list(itertools.product(rows, self._axis(size[1], 1, *draws[2:])))

    def _axis(self, length: int, axis: int, jitter: float, shift: float) -> list[_Side]:
        """Tiles along an axis of some length, 0 for rows and 1 for columns.

        `jitter` says how far the first begins before the picture, `shift` where in their reach the
        borders between tiles lie; both are in [0, 1).
        """
        fixed = self._size[axis] if self._fixed else None
        limit = fixed or (self.recipe.tile or TILE) // GRID * GRID
        found = spans(length, limit, round(jitter * (GRID - 1)), shift, exact=fixed is not None)
        return list(zip(found, fades(found, overlap(limit)), strict=True))

    def measured(self, picture: torch.Tensor) -> float:
        """The objective of a uint8 picture (C, H, W) on the untouched network, in fp32.

        The mean over the tiles of a fixed grid, each counted by the part of the picture it stands for.
        """
        total = weight = 0.0
        with torch.no_grad():
            for (rows, fade_y), (columns, fade_x) in self._grid(picture.shape[1:], [0.5] * 4):
                share = float(fade_y.sum() * fade_x.sum())
                total += share * float(self._value(self._exact, self._tile(picture, rows, columns)))
                weight += share
        return total / weight


# ---------------------------------------------------------------------------- arithmetic


def _levelled(gradient: torch.Tensor) -> torch.Tensor:
    """Makes of a gradient (C, H, W) one whose bands of frequency are equally strong, of mean size 1.

    Without it the finest band outweighs the others, and the dream is a fine grain.

    Reference: the Laplacian pyramid of Mordvintsev's notebook, "lapnorm".
    """
    rest = gradient
    bands = []
    for _ in range(_BANDS):
        if min(rest.shape[1:]) < 4:
            break
        smaller = _resized(rest, (-(-rest.shape[2] // 2), -(-rest.shape[1] // 2)))
        coarse = _resized(smaller, (rest.shape[2], rest.shape[1]))
        bands.append(_unit(rest.sub_(coarse)))
        rest = smaller
    rest = _unit(rest)
    for band in reversed(bands):
        rest = _resized(rest, (band.shape[2], band.shape[1])).add_(band)
    return _unit(rest)


def _unit(values: torch.Tensor) -> torch.Tensor:
    """Scaled in place to a mean size of 1; zeros stay."""
    return values.div_(max(_mean_size(values), 1e-30))


def _mean_size(values: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(values, 1)) / values.numel()


def _resized(picture: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(C, H, W), uint8 as [0, 1] or float as it is, at (width, height); a copy in float32."""
    values = as_float(picture) if picture.dtype == torch.uint8 else picture
    if tuple(values.shape[1:]) == size[::-1]:
        return values.clone()
    return F.interpolate(
        values[None], size[::-1], mode="bilinear", antialias=True, align_corners=False
    )[0]
