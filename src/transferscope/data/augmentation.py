"""What training does to its pictures, and nothing else ever does: crops, mirrors, RandAugment, mixing.

Every draw is a function of a seed, a view's number and a picture's identity (its sha256) alone, so
that a view is the same whichever thread, batch or machine makes it. torchvision's random transforms
draw from a generator that all threads share; its kernels are used here with parameters of our own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, cast, get_args

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as kernels

from transferscope.errors import InputError, UnknownName
from transferscope.files import sha256_json
from transferscope.images import InputSpec, grid, read_picture, to_picture, to_tensor

AugmentationName = Literal["none", "light", "strong"]
NAMES: tuple[str, ...] = get_args(AugmentationName)

MAGNITUDES = 31
"""RandAugment's scale: magnitudes 0 (nothing) to 30."""

Fill: TypeAlias = list[float]
Operation: TypeAlias = Callable[[Image.Image, float, Fill], Image.Image]
_BILINEAR = InterpolationMode.BILINEAR


# ---------------------------------------------------------------------------- the augmentation


@dataclass(frozen=True)
class Augmentation:
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
        operations: how many operations RandAugment applies to a picture.
        magnitude: of each operation, 0 to 30.
        mix_share: share of the batches that are mixed, one half of them by mixup, the other by CutMix.
        mixup_alpha: of the Beta distribution of mixup's weight.
        cutmix_alpha: of the Beta distribution of CutMix's kept area.

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
        if self.name not in NAMES:
            raise UnknownName(
                "augmentation",
                self.name,
                NAMES,
                where="Transferscope",
                remedy="it is none, light or strong",
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

    def to_dict(self) -> dict[str, Any]:
        """JSON-able fields: all that a view depends on besides picture, seed and number."""
        return asdict(self)

    def view(self, picture: Image.Image, spec: InputSpec, rng: np.random.Generator) -> torch.Tensor:
        """A decoded picture as training sees it.

        Args:
            picture: RGB or L, as `images.read_picture` returns it; for `none`, of any mode.
            spec: of the network.
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
        crop = _Crop.draw(self, rng)
        picture = crop.of(picture.convert("RGB" if spec.channels == 3 else "L"), spec)
        mirrored = rng.random() < 0.5  # drawn in any case: --no-flip changes no other draw
        if mirrored and self.flip:
            picture = kernels.horizontal_flip(picture)
        if self.name == "strong":
            picture = self._rand_augment(picture, spec, rng)
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
            spec: of the network.
            seed: with `view` and `identity` it decides everything that varies.
            view: number of the view or epoch.
            identity: of the picture: the sha256 of its file.

        Returns:
            uint8 (C, H, W). For `none` it is `spec.load(source)`.

        Raises:
            PictureError: see `images.read_picture`.
        """
        if self.name == "none":
            return spec.load(source)
        crop = _Crop.draw(self, _generator(seed, view, identity))  # the one that `view` draws
        least = math.ceil(max(spec.size) / crop.least_share)
        picture = read_picture(source, channels=spec.channels, least_side=least)
        return self.view(picture, spec, _generator(seed, view, identity))

    def _rand_augment(
        self, picture: Image.Image, spec: InputSpec, rng: np.random.Generator
    ) -> Image.Image:
        fill = [255.0 * mean for mean in spec.mean]
        names = list(OPERATIONS)
        for _ in range(self.operations):
            operation = OPERATIONS[names[int(rng.integers(len(names)))]]
            sign = 1 if rng.random() < 0.5 else -1
            picture = operation(picture, sign * self.magnitude / (MAGNITUDES - 1), fill)
        return picture

    def mix(
        self,
        pictures: torch.Tensor,
        labels: torch.Tensor,
        classes: int,
        *,
        seed: int,
        view: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mixes each picture of a shuffled batch with the one before it.

        What is drawn, one weight or box a batch, depends on `seed` and `view` alone; which pictures
        meet depends on the batch. Activations (N, C, H, W) of a layer may stand for pictures, which
        is then manifold mixup (Verma et al. 2019); without two spatial dimensions all is mixup.

        Args:
            pictures: (N, ...), uint8 or floating point; unchanged.
            labels: int64 (N,).
            classes: K.
            seed: with `view` it decides everything that varies.
            view: a number of this batch, such as the step's.

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
            pictures, kept = _cutmix(pictures, self.cutmix_alpha, rng)
        else:
            pictures, kept = _mixup(pictures, self.mixup_alpha, rng)
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
        spec: of the network.
        augmentation: what training will use; the same steps, with draws of the sheet's own.
        seed: of the draws.
        columns: of the sheet.
        n: pictures on the sheet.

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
        views = [
            augmentation.view(pictures[index], spec, _generator(seed, number, f"preview {index}"))
            for index in shown
        ]
        mixed, _ = augmentation.mix(
            torch.stack(views),
            torch.zeros(len(views), dtype=torch.int64),
            1,
            seed=seed,
            view=number,
        )
        cells.append(mixed[0])
    return grid([to_picture(cell) for cell in cells], columns=columns)


def _generator(seed: int, view: int, identity: str) -> np.random.Generator:
    """A generator whose stream is a function of these values alone."""
    digest = sha256_json(["transferscope augmentation", seed, view, identity])
    return np.random.default_rng(int(digest[:32], 16))


# ---------------------------------------------------------------------------- crops


@dataclass(frozen=True)
class _Crop:
    """A crop in shares of a picture, so that it can be drawn before the picture is decoded.

    Attributes:
        width: as a share of the largest crop of the network's shape; likewise `height`.
        height: see `width`.
        left: where between the leftmost and the rightmost place, in [0, 1]; likewise `top`.
        top: see `left`.
    """

    width: float
    height: float
    left: float
    top: float

    @classmethod
    def draw(cls, augmentation: Augmentation, rng: np.random.Generator) -> _Crop:
        area = rng.uniform(*augmentation.scale)
        stretch = math.exp(rng.uniform(*np.log(augmentation.ratio)))
        return cls(math.sqrt(area * stretch), math.sqrt(area / stretch), rng.random(), rng.random())

    @property
    def least_share(self) -> float:
        """The shorter of the crop's sides, as a share of the largest crop's."""
        return min(self.width, self.height, 1)

    def of(self, picture: Image.Image, spec: InputSpec) -> Image.Image:
        """The crop in the network's size. It always holds the middle of the picture."""
        height, width = spec.size
        largest = min(picture.width / width, picture.height / height)
        left, columns = _span(self.width * largest * width, picture.width, self.left)
        top, rows = _span(self.height * largest * height, picture.height, self.top)
        return cast(
            Image.Image,
            kernels.resized_crop(
                picture,
                top,
                left,
                rows,
                columns,
                size=[height, width],
                interpolation=InterpolationMode(spec.interpolation),
            ),
        )


def _span(length: float, whole: int, place: float) -> tuple[int, int]:
    """Start and length, in whole pixels, of a stretch within `whole` that covers its middle."""
    pixels = min(max(1, round(length)), whole)
    first, last = max(0, whole // 2 - pixels + 1), min(whole - pixels, whole // 2)
    return first + round(place * (last - first)), pixels


# ---------------------------------------------------------------------------- operations


def _affine(
    picture: Image.Image,
    fill: Fill,
    *,
    translate: tuple[int, int] = (0, 0),
    shear: tuple[float, float] = (0.0, 0.0),
) -> Image.Image:
    """Shears are given as slopes and keep the upper left corner in its place, as in AutoAugment."""
    return cast(
        Image.Image,
        kernels.affine(
            picture,
            angle=0.0,
            translate=list(translate),
            scale=1.0,
            shear=[math.degrees(math.atan(slope)) for slope in shear],
            interpolation=_BILINEAR,
            fill=fill,
            center=[0.0, 0.0],
        ),
    )


_FARTHEST = 150 / 331  # of the side, AutoAugment's 150 pixels of 331

OPERATIONS: Mapping[str, Operation] = {
    "identity": lambda picture, m, fill: picture,
    "shear_x": lambda picture, m, fill: _affine(picture, fill, shear=(0.3 * m, 0)),
    "shear_y": lambda picture, m, fill: _affine(picture, fill, shear=(0, 0.3 * m)),
    "translate_x": lambda picture, m, fill: _affine(
        picture, fill, translate=(int(_FARTHEST * picture.width * m), 0)
    ),
    "translate_y": lambda picture, m, fill: _affine(
        picture, fill, translate=(0, int(_FARTHEST * picture.height * m))
    ),
    "rotate": lambda picture, m, fill: kernels.rotate(
        picture, 30 * m, interpolation=_BILINEAR, fill=fill
    ),
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


def _mixup(
    pictures: torch.Tensor, alpha: float, rng: np.random.Generator
) -> tuple[torch.Tensor, float]:
    """Weighted means of neighbours in the batch, and the weight that each keeps.

    Reference: Zhang et al. 2018, eq. 1; one weight a batch, as in v2.MixUp.
    """
    kept = float(rng.beta(alpha, alpha))
    if pictures.is_floating_point():
        return pictures.lerp(pictures.roll(1, 0), 1 - kept), kept
    values = pictures.float()
    return values.lerp(values.roll(1, 0), 1 - kept).round().to(pictures.dtype), kept


def _cutmix(
    pictures: torch.Tensor, alpha: float, rng: np.random.Generator
) -> tuple[torch.Tensor, float]:
    """A rectangle of each picture replaced by its neighbour's, and the share that each keeps.

    Reference: Yun et al. 2019, eq. 1 and 2; the rectangle is cut at the border and the share
    counted after that, as in v2.CutMix.
    """
    height, width = pictures.shape[-2:]
    side = 0.5 * math.sqrt(1 - rng.beta(alpha, alpha))
    x, y = int(rng.integers(width)), int(rng.integers(height))
    half_width, half_height = int(side * width), int(side * height)
    rows = slice(max(0, y - half_height), min(height, y + half_height))
    columns = slice(max(0, x - half_width), min(width, x + half_width))
    mixed = pictures.clone()
    mixed[..., rows, columns] = pictures.roll(1, 0)[..., rows, columns]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return mixed, 1 - area / (height * width)
