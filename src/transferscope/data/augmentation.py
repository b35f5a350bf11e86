"""What training does to its pictures, and nothing else ever does: crops, mirrors, RandAugment, mixing.

Every draw is a function of a seed, a view's number and a picture's identity (its sha256) alone, so
that a view is the same whichever thread, batch or machine makes it. torchvision's random transforms
draw from a generator that all threads share; its kernels are used here with parameters of our own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, TypeAlias, cast, get_args

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as kernels

from transferscope.errors import InputError, UnknownName
from transferscope.files import sha256_json
from transferscope.images import InputSpec, grid, read_picture, to_picture, to_tensor
from transferscope.records import Record

AugmentationName = Literal["none", "light", "strong"]

MAGNITUDES = 31
"""RandAugment's scale: magnitudes 0 (nothing) to 30."""

Fill: TypeAlias = list[float]
Operation: TypeAlias = Callable[[Image.Image, float, Fill], Image.Image]
_BILINEAR = InterpolationMode.BILINEAR


# ---------------------------------------------------------------------------- the augmentation


@dataclass(frozen=True)
class Augmentation(Record):
    """What is done to a training picture.

    `none` is what prediction does. `light` is a random crop, and a mirror for half of the pictures.
    `strong` is `light`, then `operations` of `OPERATIONS`, and batches mixed by mixup or CutMix.

    Attributes:
        name: none, light or strong.
        flip: whether pictures may be mirrored. Without it no step mirrors: letters, road signs and
            left hands keep their meaning.
        scale: least and largest area of a crop, as a share of the largest crop of the network's
            shape that the picture holds. The default varies about prediction's own, `InputSpec.crop`
            squared (0.77 for 0.875): 0.08 to 1, as in training from scratch on ImageNet, often leaves
            out the object and shows it larger than prediction does (Touvron et al. 2019).
        ratio: least and largest stretch of a crop, its width to height against the network's.
        operations, magnitude: how many RandAugment applies to a picture, and how strongly, 0 to 30.
        mix_share: share of the batches that are mixed, one half of them by mixup, the other by CutMix.
        mixup_alpha, cutmix_alpha: of the Beta distributions of mixup's weight and CutMix's kept area.

    Reference: Szegedy et al. 2015 (crops); Cubuk et al. 2020, RandAugment, with the operations and
    ranges of torchvision's v2.RandAugment, but bilinear instead of nearest, and filled with the
    network's mean colour (its zero) instead of black; Zhang et al. 2018, mixup; Yun et al. 2019, CutMix.
    """

    name: AugmentationName
    flip: bool = True
    scale: tuple[float, float] = (0.6, 1.0)
    ratio: tuple[float, float] = (4 / 5, 5 / 4)
    operations: int = 2
    magnitude: int = 9
    mix_share: float = 0.5
    mixup_alpha: float = 0.2
    cutmix_alpha: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in (names := get_args(AugmentationName)):
            remedy = "it is none, light or strong"
            raise UnknownName(
                "augmentation", self.name, names, where="Transferscope", remedy=remedy
            )
        if not 0 < self.scale[0] <= self.scale[1] <= 1 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise InputError(
                f"Augmentation(scale={self.scale}, ratio={self.ratio}): give the least and the largest "
                "value, positive, and scale at most 1"
            )
        if self.operations < 0 or not 0 <= self.magnitude < MAGNITUDES:
            raise InputError(
                f"Augmentation(operations={self.operations}, magnitude={self.magnitude}): operations "
                f"cannot be negative and magnitude must be 0 to {MAGNITUDES - 1}"
            )
        if not 0 <= self.mix_share <= 1 or min(self.mixup_alpha, self.cutmix_alpha) <= 0:
            raise InputError(
                f"Augmentation(mix_share={self.mix_share}, mixup_alpha={self.mixup_alpha}, "
                f"cutmix_alpha={self.cutmix_alpha}): the share must be in [0, 1], an alpha positive"
            )

    @property
    def mixes(self) -> bool:
        """Whether `mix` ever does anything."""
        return self.name == "strong" and self.mix_share > 0

    def view(self, picture: Image.Image, spec: InputSpec, rng: np.random.Generator) -> torch.Tensor:
        """A decoded picture as training sees it.

        Args:
            picture: RGB or L, as `images.read_picture` returns it; for `none`, of any mode.
            rng: decides everything that varies.

        Returns:
            uint8 (C, H, W). For `none` it is `spec.load(picture)`.

        Raises:
            InputError: a mode other than RGB and L.
        """
        if self.name == "none":
            return spec.load(picture)
        if picture.mode not in ("RGB", "L"):
            raise InputError(
                f"a picture of mode {picture.mode} cannot be augmented; it must be RGB or L, as "
                "images.read_picture returns it"
            )
        crop = _drawn_crop(self, rng)
        picture = _cropped(picture.convert("RGB" if spec.channels == 3 else "L"), spec, crop)
        mirrored = rng.random() < 0.5  # drawn in any case: --no-flip changes no other draw
        if mirrored and self.flip:
            picture = kernels.horizontal_flip(picture)
        if self.name == "strong":
            fill = [255.0 * mean for mean in spec.mean]
            operations = list(OPERATIONS.values())
            for _ in range(self.operations):
                operation = operations[int(rng.integers(len(operations)))]
                sign = 1 if rng.random() < 0.5 else -1
                picture = operation(picture, sign * self.magnitude / (MAGNITUDES - 1), fill)
        return to_tensor(picture)

    def load(
        self,
        source: str | Path | IO[bytes],
        spec: InputSpec,
        *,
        seed: int,
        view: int,
        identity: str,
    ) -> torch.Tensor:
        """A picture file as training sees it; safe to call from several threads.

        A large JPEG is decoded at a part of its size, chosen so that this view's crop still has at
        least the network's size in pixels.

        Args:
            source: see `images.read_picture`.
            seed, view, identity: decide together everything that varies: `view` is the number of the
                view or epoch, `identity` the sha256 of the picture's file.

        Returns:
            uint8 (C, H, W). For `none` it is `spec.load(source)`.

        Raises:
            PictureError: see `images.read_picture`.
        """
        if self.name == "none":
            return spec.load(source)
        width, height, *_ = _drawn_crop(self, _generator(seed, view, identity))  # as `view` does
        least = math.ceil(max(spec.size) / min(width, height, 1))
        picture = read_picture(source, channels=spec.channels, least_side=least)
        return self.view(picture, spec, _generator(seed, view, identity))

    def mix(
        self, pictures: torch.Tensor, labels: torch.Tensor, classes: int, *, seed: int, view: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mixes each picture of a shuffled batch with the one before it.

        What is drawn, one weight or box a batch, depends on `seed` and `view` alone; which pictures
        meet depends on the batch. Activations (N, C, H, W) of a layer may stand for pictures, which
        is then manifold mixup (Verma et al. 2019); without two spatial dimensions all is mixup.

        Args:
            pictures: (N, ...), uint8 or floating point; unchanged.
            labels, classes: int64 (N,) in 0..K-1, and K.
            seed, view: decide together everything that varies: `view` is a number of this batch, such
                as the step's.

        Returns:
            Pictures in the dtype, device and layout given, and targets float32 (N, K) that sum to 1:
            each class weighted by its share of the picture. One-hot where nothing is mixed.
        """
        targets = torch.nn.functional.one_hot(labels, classes).float()
        rng = _generator(seed, view, "mix")
        if not self.mixes or rng.random() >= self.mix_share:
            return pictures, targets
        by_cutmix = rng.random() < 0.5
        if by_cutmix and pictures.ndim == 4:
            pictures, kept = _cutmix(pictures, rng.beta(self.cutmix_alpha, self.cutmix_alpha), rng)
        else:  # Zhang et al. 2018, eq. 1; one weight a batch, as in v2.MixUp
            kept = rng.beta(self.mixup_alpha, self.mixup_alpha)
            values = pictures if pictures.is_floating_point() else pictures.float()
            mixed = values.lerp(values.roll(1, 0), 1 - kept)
            pictures = mixed if values is pictures else mixed.round().to(pictures.dtype)
        return pictures, targets.lerp(targets.roll(1, 0), 1 - kept)


def augmentation(name: str, *, flip: bool = True) -> Augmentation:
    """The augmentation of this name with the default numbers.

    Raises:
        UnknownName: not none, light or strong.
    """
    return Augmentation(cast(AugmentationName, name), flip=flip)


def preview(
    pictures: Sequence[Image.Image],
    spec: InputSpec,
    augmentation: Augmentation,
    *,
    seed: int = 0,
    columns: int = 4,
    n: int = 12,
) -> Image.Image:
    """A sheet of the first picture: as prediction sees it, then n - 1 views as training sees it.

    Args:
        pictures: decoded; where the augmentation mixes, the others are the first one's partners in
            turn. With one picture alone nothing is mixed.
        augmentation: what training will use; the same steps, with draws of the sheet's own from `seed`.
        columns, n: of the sheet, and how many pictures are on it.

    Raises:
        InputError: no pictures, or `columns` or `n` below 1.
    """
    if not pictures or columns < 1 or n < 1:
        raise InputError(
            f"a preview of {len(pictures)} pictures in {columns} columns and {n} cells cannot be drawn; "
            "each must be at least 1"
        )
    cells = [spec.load(pictures[0])]
    for number in range(1, n):
        shown = [0, 1 + (number - 1) % (len(pictures) - 1)] if len(pictures) > 1 else [0]
        views = torch.stack(
            [
                augmentation.view(pictures[i], spec, _generator(seed, number, f"preview {i}"))
                for i in shown
            ]
        )
        labels = torch.zeros(len(views), dtype=torch.int64)
        cells.append(augmentation.mix(views, labels, 1, seed=seed, view=number)[0][0])
    return grid([to_picture(cell) for cell in cells], columns=columns)


def _generator(seed: int, view: int, identity: str) -> np.random.Generator:
    """A generator whose stream is a function of these values alone."""
    digest = sha256_json(["transferscope augmentation", seed, view, identity])
    return np.random.default_rng(int(digest[:32], 16))


# ---------------------------------------------------------------------------- crops


_Crop: TypeAlias = tuple[float, float, float, float]
"""In shares of a picture, so that it can be drawn before the picture is decoded: width and height of the
largest crop of the network's shape; left and top of the way from the first to the last place."""


def _drawn_crop(augmentation: Augmentation, rng: np.random.Generator) -> _Crop:
    area = rng.uniform(*augmentation.scale)
    stretch = math.exp(rng.uniform(*np.log(augmentation.ratio)))
    return math.sqrt(area * stretch), math.sqrt(area / stretch), rng.random(), rng.random()


def _cropped(picture: Image.Image, spec: InputSpec, crop: _Crop) -> Image.Image:
    """The crop in the network's size. It always holds the middle of the picture."""
    height, width = spec.size
    largest = min(picture.width / width, picture.height / height)
    left, columns = _span(crop[0] * largest * width, picture.width, crop[2])
    top, rows = _span(crop[1] * largest * height, picture.height, crop[3])
    method = InterpolationMode(spec.interpolation)
    place = (top, left, rows, columns)
    found = kernels.resized_crop(picture, *place, size=[height, width], interpolation=method)
    return cast(Image.Image, found)


def _span(length: float, whole: int, place: float) -> tuple[int, int]:
    """Start and length, in whole pixels, of a stretch within `whole` that covers its middle."""
    pixels = min(max(1, round(length)), whole)
    first, last = max(0, whole // 2 - pixels + 1), min(whole - pixels, whole // 2)
    return first + round(place * (last - first)), pixels


# ---------------------------------------------------------------------------- operations


def _sheared(picture: Image.Image, fill: Fill, *slopes: float) -> Image.Image:
    """The upper left corner stays in its place, as in AutoAugment."""
    return _affine(picture, fill, shear=[math.degrees(math.atan(slope)) for slope in slopes])


def _moved(picture: Image.Image, fill: Fill, *shares: float) -> Image.Image:
    """By shares of AutoAugment's farthest, 150 pixels of 331."""
    sides = zip(shares, picture.size, strict=True)
    return _affine(picture, fill, translate=[int(150 / 331 * side * m) for m, side in sides])


def _affine(
    picture: Image.Image,
    fill: Fill,
    translate: Sequence[int] = (0, 0),
    shear: Sequence[float] = (0, 0),
) -> Image.Image:
    origin = [0.0, 0.0]
    moved = kernels.affine(picture, 0.0, [*translate], 1.0, [*shear], _BILINEAR, fill, origin)
    return cast(Image.Image, moved)


OPERATIONS: Mapping[str, Operation] = {
    "identity": lambda picture, m, fill: picture,
    "shear_x": lambda picture, m, fill: _sheared(picture, fill, 0.3 * m, 0),
    "shear_y": lambda picture, m, fill: _sheared(picture, fill, 0, 0.3 * m),
    "translate_x": lambda picture, m, fill: _moved(picture, fill, m, 0),
    "translate_y": lambda picture, m, fill: _moved(picture, fill, 0, m),
    "rotate": lambda picture, m, fill: kernels.rotate(picture, 30 * m, _BILINEAR, fill=fill),
    "brightness": lambda picture, m, fill: kernels.adjust_brightness(picture, 1 + 0.9 * m),
    "colour": lambda picture, m, fill: kernels.adjust_saturation(picture, 1 + 0.9 * m),
    "contrast": lambda picture, m, fill: kernels.adjust_contrast(picture, 1 + 0.9 * m),
    "sharpness": lambda picture, m, fill: kernels.adjust_sharpness(picture, 1 + 0.9 * m),
    "posterize": lambda picture, m, fill: kernels.posterize(picture, 8 - round(4 * abs(m))),
    "solarize": lambda picture, m, fill: kernels.solarize(picture, 255 * (1 - abs(m))),
    "autocontrast": lambda picture, m, fill: kernels.autocontrast(picture),
    "equalize": lambda picture, m, fill: kernels.equalize(picture),
}
"""RandAugment's operations by name: (picture RGB or L, m in [-1, 1], colour of what comes into view)
to a picture of the same size and mode. m is the magnitude's share of the largest, with a random sign,
which the last four have no use for. None mirrors. On L pictures `colour` changes nothing."""


# ---------------------------------------------------------------------------- mixing


def _cutmix(
    pictures: torch.Tensor, kept: float, rng: np.random.Generator
) -> tuple[torch.Tensor, float]:
    """A rectangle of each picture replaced by its neighbour's, and the share that each keeps.

    Reference: Yun et al. 2019, eq. 1 and 2; the rectangle is cut at the border and the share
    counted after that, as in v2.CutMix.
    """
    height, width = pictures.shape[-2:]
    half = 0.5 * math.sqrt(1 - kept)
    x, y = int(rng.integers(width)), int(rng.integers(height))
    rows = slice(max(0, y - int(half * height)), min(height, y + int(half * height)))
    columns = slice(max(0, x - int(half * width)), min(width, x + int(half * width)))
    mixed = pictures.clone()
    mixed[..., rows, columns] = pictures.roll(1, 0)[..., rows, columns]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return mixed, 1 - area / (height * width)
