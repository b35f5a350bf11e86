"""Augmentation: reproducible, of the size asked for, never mirrored where that was ruled out."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from transferscope.data import augmentation as module
from transferscope.data.augmentation import (
    MAGNITUDES,
    OPERATIONS,
    Augmentation,
    AugmentationName,
    augmentation,
    preview,
)
from transferscope.data.loading import load_batches
from transferscope.errors import InputError, PictureError, UnknownName
from transferscope.images import InputSpec, to_tensor

SPEC = InputSpec(size=(48, 48))
GREY = InputSpec(size=(48, 48), channels=1, mean=(0.5,), std=(0.5,))
NAMES = get_args(AugmentationName)


def noise(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(values)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    made = []
    for number, size in enumerate([(90, 60), (60, 90), (48, 48), (200, 40), (500, 400), (5, 3)]):
        made.append(folder / f"{number}.{'jpg' if number % 2 else 'png'}")
        noise(*size, seed=number).save(made[-1])
    return made


# ---------------------------------------------------------------------------- views


@pytest.mark.parametrize("spec", [SPEC, GREY])
def test_none_is_what_prediction_sees(spec: InputSpec, files: list[Path]) -> None:
    none = augmentation("none")
    for file in files:
        plain = spec.load(file)
        assert torch.equal(none.load(file, spec, seed=1, view=3, identity="a"), plain)
    transparent = noise(70, 50).convert("RGBA")
    transparent.putalpha(100)
    viewed = none.view(transparent, spec, np.random.default_rng(0))
    assert torch.equal(viewed, spec.load(transparent))
    assert not none.mixes


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spec", [SPEC, GREY, InputSpec(size=(30, 70), interpolation="lanczos")])
def test_views_have_the_networks_shape(name: str, spec: InputSpec, files: list[Path]) -> None:
    for file in files:
        for view in range(8):
            tensor = augmentation(name).load(file, spec, seed=0, view=view, identity=file.name)
            assert tensor.shape == spec.shape
            assert tensor.dtype == torch.uint8
    assert augmentation(name).view(noise(9, 7, mode="L"), spec, np.random.default_rng(0)).any()


@pytest.mark.parametrize("name", ["light", "strong"])
def test_a_view_depends_on_seed_number_and_identity_alone(name: str, files: list[Path]) -> None:
    augmented = augmentation(name)

    def batch(order: list[int], workers: int, **changes: object) -> torch.Tensor:
        def load(index: int) -> torch.Tensor:
            draws = {"seed": 0, "view": 1, "identity": f"hash of {order[index]}", **changes}
            return augmented.load(files[order[index]], SPEC, **draws)  # type: ignore[arg-type]

        chosen = [files[index] for index in order]
        return torch.cat(
            list(load_batches(chosen, SPEC, batch_size=workers, workers=workers, load=load))
        )

    forwards, backwards = list(range(len(files))), list(range(len(files)))[::-1]
    first = batch(forwards, 1)
    assert torch.equal(first, batch(forwards, 2))
    assert torch.equal(first, batch(backwards, 2).flip(0))
    for changes in ({"seed": 1}, {"view": 2}, {"identity": "another"}):
        changed = batch(forwards, 1, **changes)
        assert (changed != first).flatten(1).any(1).sum() >= len(files) - 1


@pytest.mark.parametrize("name", ["light", "strong"])
@pytest.mark.parametrize("spec", [SPEC, GREY])
def test_nothing_is_mirrored_without_flip_and_half_is_with_it(name: str, spec: InputSpec) -> None:
    values = np.full((96, 96), 90, dtype=np.uint8)  # a texture on the left, plain on the right
    values[:, :44] = np.random.default_rng(0).integers(10, 220, (24, 11)).repeat(4, 0).repeat(4, 1)
    picture = Image.fromarray(values)

    def mirrored(flip: bool) -> list[bool]:
        augmented = augmentation(name, flip=flip)
        result = []
        for seed in range(200):
            view = augmented.view(picture, spec, np.random.default_rng(seed)).float()
            detail = view.diff(dim=1).abs().sum((0, 1))
            result.append(bool(detail[: len(detail) // 2].sum() < detail[len(detail) // 2 :].sum()))
        return result

    assert not any(mirrored(False))
    assert 70 < sum(mirrored(True)) < 130


def test_no_flip_changes_no_other_draw() -> None:
    picture = noise(80, 80)
    pairs = [
        [
            augmentation("light", flip=flip).view(picture, SPEC, np.random.default_rng(seed))
            for flip in (False, True)
        ]
        for seed in range(10)
    ]
    turned = [torch.equal(plain.flip(2), other) for plain, other in pairs]
    assert all(torch.equal(*pair) or turn for pair, turn in zip(pairs, turned, strict=True))
    assert 0 < sum(turned) < 10


@pytest.mark.parametrize("size", [(200, 200), (150, 200), (250, 140)])
def test_crops_have_the_size_and_the_stretch_asked_for(size: tuple[int, int]) -> None:
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    ramps = Image.fromarray(np.rint(np.stack([x, y, x], axis=2)).astype(np.uint8))
    augmented = Augmentation("light", flip=False, scale=(0.5, 0.8), ratio=(0.9, 1 / 0.9))
    areas, centres = [], []
    for seed in range(200):
        view = augmented.view(ramps, InputSpec(size=(64, 64)), np.random.default_rng(seed)).float()
        low, high = view.amin((1, 2)) / 255, view.amax((1, 2)) / 255
        shown = (high - low) * torch.tensor([width, height, width]) / min(width, height)
        areas.append(float(shown[0] * shown[1]))
        centres.append(((high + low) / 2).tolist())
        assert 0.86 < shown[0] / shown[1] < 1 / 0.86
        assert (low < 0.51).all()  # the middle is there
        assert (high > 0.49).all()
    assert 0.46 < min(areas) < 0.54
    assert 0.76 < max(areas) < 0.83
    assert np.ptp(centres, axis=0).min() > 0.1


def test_a_crop_of_a_strip_still_shows_its_middle() -> None:
    strip = Image.new("L", (600, 60))
    strip.paste(255, (295, 0, 305, 60))
    light = augmentation("light")
    for seed in range(100):
        assert light.view(strip, SPEC, np.random.default_rng(seed)).max() > 200


def test_large_jpegs_are_decoded_small_but_never_smaller_than_the_crop_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise(1300, 1000).save(tmp_path / "large.jpg")
    decoded, crops = [], []
    crop = module.kernels.resized_crop

    def spy(picture: Image.Image, top: int, left: int, *extent: int, **options: object) -> object:
        decoded.append(min(picture.size))
        crops.append(min(extent))
        return crop(picture, top, left, *extent, **options)

    monkeypatch.setattr(module.kernels, "resized_crop", spy)
    spec = InputSpec(size=(200, 200))
    for view in range(40):
        augmentation("light").load(tmp_path / "large.jpg", spec, seed=0, view=view, identity="a")
    assert set(decoded) == {250, 500}
    assert min(crops) >= 200


def test_augmenting_draws_from_nobody_elses_generator(files: list[Path]) -> None:
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    for name in NAMES:
        augmented = augmentation(name)
        for view in range(20):
            augmented.load(files[0], SPEC, seed=0, view=view, identity="a")
            augmented.mix(
                torch.rand(2, 3, 4, 4, generator=seeded()), LABELS[:2], 4, seed=0, view=view
            )
        preview([noise(50, 50)], SPEC, augmented)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert before[2] == random.getstate()


# ---------------------------------------------------------------------------- operations


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("magnitude", [5, 9, 30])
def test_the_operations_are_those_of_torchvision(mode: str, magnitude: int) -> None:
    """Every result of v2.RandAugment is one of ours, and each of ours is found among its results."""
    picture = noise(40, 30, mode=mode).point(lambda value: 20 + 0.88 * value).resize((80, 60))
    fill = [120.0] * len(mode)
    share = magnitude / (MAGNITUDES - 1)
    ours = {
        (name, sign): to_tensor(operation(picture, sign * share, fill)).int()
        for name, operation in OPERATIONS.items()
        for sign in (1, -1)
    }
    theirs = v2.RandAugment(
        num_ops=1, magnitude=magnitude, interpolation=InterpolationMode.BILINEAR, fill=fill
    )
    found = set()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(300):
            result = to_tensor(theirs(picture)).int()
            # v2 keeps its magnitudes in float32: a rounded value here and there differs.
            same = {key for key, own in ours.items() if (own - result).abs().float().mean() < 0.1}
            assert same
            found |= same
    assert found == set(ours)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_operations_at_their_extremes_give_pictures(name: str, mode: str) -> None:
    for picture in (noise(33, 21, mode=mode), Image.new(mode, (33, 21), "white")):
        for share in (-1.0, 0.0, 1.0):
            result = OPERATIONS[name](picture, share, [100.0] * len(mode))
            assert (result.size, result.mode) == ((33, 21), mode)
            assert to_tensor(result).dtype == torch.uint8
            if name == "colour" and mode == "L":
                assert result.tobytes() == picture.tobytes()


def test_what_comes_into_view_has_the_networks_mean_colour() -> None:
    augmented = Augmentation("strong", scale=(1, 1), ratio=(1, 1), operations=1, magnitude=30)
    white = Image.new("RGB", (48, 48), "white")
    expected = torch.tensor([round(255 * mean) for mean in SPEC.mean])
    views = [augmented.view(white, SPEC, np.random.default_rng(seed)) for seed in range(60)]
    corners = [view[:, y, x].int() for view in views for y in (0, -1) for x in (0, -1)]
    assert any(int((corner - expected).abs().max()) <= 1 for corner in corners)


# ---------------------------------------------------------------------------- mixing

LABELS = torch.tensor([2, 0, 3, 3, 1])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_targets_are_the_shares_of_the_pictures() -> None:
    """Pictures of one value each: the mean of a mixture is the sum of the values by their shares."""
    values = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    pictures = values.view(5, 1, 1, 1).expand(5, 3, 20, 24).contiguous()
    strong = augmentation("strong")
    kinds = {"plain": 0, "mixup": 0, "cutmix": 0}
    for view in range(300):
        mixed, shares = strong.mix(pictures, torch.arange(5), 5, seed=3, view=view)
        assert shares.dtype == torch.float32
        assert torch.allclose(shares.sum(1), torch.ones(5))
        assert (shares >= 0).all()
        assert torch.allclose(mixed.mean((1, 2, 3)), shares @ values, atol=1e-5)
        if torch.equal(mixed, pictures):
            kinds["plain"] += 1
        else:
            kinds["cutmix" if torch.isin(mixed, pictures).all() else "mixup"] += 1
    assert 110 < kinds["plain"] < 190
    assert min(kinds["mixup"], kinds["cutmix"]) > 45
    assert pictures.eq(values.view(5, 1, 1, 1)).all()


def test_mixtures_are_those_of_torchvision() -> None:
    pictures = torch.rand(5, 3, 20, 24, generator=seeded())
    always = Augmentation("strong", mix_share=1)
    mixup, cutmix = v2.MixUp(num_classes=4), v2.CutMix(num_classes=4)
    kinds = set()
    for view in range(30):
        mixed, targets = always.mix(pictures, LABELS, 4, seed=0, view=view)
        kept = float(targets[0, LABELS[0]])  # its neighbour is of another class
        changed = (mixed != pictures).any(1).any(0).nonzero()
        params: dict[str, object] = {"labels": LABELS, "batch_size": 5, "lam": kept}
        if len(changed) == 20 * 24:
            kinds.add("mixup")
            oracle = mixup
        else:
            kinds.add("cutmix")
            oracle = cutmix
            (y1, x1), (y2, x2) = (
                (changed.amin(0), changed.amax(0) + 1) if len(changed) else ((0, 0), (0, 0))
            )
            params |= {"box": (x1, y1, x2, y2), "lam_adjusted": kept}
        assert torch.allclose(oracle.transform(pictures, params), mixed, atol=1e-6)
        assert torch.allclose(oracle.transform(LABELS, params), targets, atol=1e-6)
    assert kinds == {"mixup", "cutmix"}


def test_mixing_keeps_dtype_layout_and_input() -> None:
    always = Augmentation("strong", mix_share=1)
    floats = torch.rand(5, 8, 7, 7, generator=seeded()).to(memory_format=torch.channels_last)
    bytes_ = (floats * 255).to(torch.uint8)
    copy = floats.clone()
    for view in range(20):
        mixed, targets = always.mix(floats, LABELS, 4, seed=0, view=view)
        assert mixed.is_contiguous(memory_format=torch.channels_last)
        as_bytes, same = always.mix(bytes_, LABELS, 4, seed=0, view=view)
        assert as_bytes.dtype == torch.uint8
        assert torch.equal(targets, same)
        assert (as_bytes.float() / 255 - mixed).abs().max() < 2 / 255
        again, _ = always.mix(floats, LABELS, 4, seed=0, view=view)
        assert torch.equal(again, mixed)
    assert torch.equal(floats, copy)


def test_activations_without_a_plane_are_mixed_by_mixup() -> None:
    tokens = torch.ones(5, 10, 6) * torch.arange(5).view(5, 1, 1)
    shares = []
    for view in range(20):
        mixed, targets = Augmentation("strong", mix_share=1).mix(
            tokens, torch.arange(5), 5, seed=0, view=view
        )
        assert torch.allclose(mixed[:, 0, 0], targets @ torch.arange(5.0), atol=1e-5)
        assert torch.equal(mixed, mixed[:, :1, :1].expand_as(mixed))
        shares.append(float(targets[0, 0]))
    assert all(one != other for one, other in pairwise(shares))


@pytest.mark.parametrize(
    "plain", [augmentation("none"), augmentation("light"), Augmentation("strong", mix_share=0)]
)
def test_without_mixing_targets_are_one_hot(plain: Augmentation) -> None:
    pictures = torch.rand(5, 3, 6, 6, generator=seeded())
    assert not plain.mixes
    for view in range(10):
        mixed, targets = plain.mix(pictures, LABELS, 4, seed=0, view=view)
        assert torch.equal(mixed, pictures)
        assert torch.equal(targets, torch.eye(4)[LABELS])


def test_a_batch_of_one_is_its_own_partner() -> None:
    picture = torch.rand(1, 3, 6, 6, generator=seeded())
    for view in range(10):
        mixed, targets = augmentation("strong").mix(picture, LABELS[:1], 4, seed=0, view=view)
        assert torch.allclose(mixed, picture)
        assert torch.equal(targets, torch.eye(4)[LABELS[:1]])


# ---------------------------------------------------------------------------- preview


def test_a_preview_begins_with_what_prediction_sees() -> None:
    picture = noise(90, 70)
    sheet = np.asarray(preview([picture], SPEC, augmentation("light"), columns=3, n=5))
    assert sheet.shape == (2 * 48 + 4, 3 * 48 + 8, 3)
    first = torch.from_numpy(sheet[:48, :48].copy()).permute(2, 0, 1)
    assert torch.equal(first, SPEC.load(picture))
    assert not np.array_equal(sheet[:48, 52:100], sheet[:48, 104:152])
    assert (sheet[52:, 104:] == 255).all()  # a sixth cell was not asked for
    none = np.asarray(preview([picture], SPEC, augmentation("none"), columns=3, n=3))
    assert np.array_equal(none[:, :48], none[:, 104:])


def test_a_preview_mixes_in_the_other_pictures() -> None:
    black, white = Image.new("RGB", (60, 60)), Image.new("RGB", (60, 60), "white")
    plain = Augmentation("strong", operations=0, mix_share=1)
    assert np.asarray(preview([black, white], SPEC, plain, columns=1))[:48].max() == 0
    assert np.asarray(preview([black, white], SPEC, plain, columns=12))[:, 52:100].max() > 0
    assert np.asarray(preview([black], GREY, plain, columns=12))[:, 52:100].max() == 0
    light = np.asarray(preview([black, white], SPEC, augmentation("light"), columns=1, n=2))
    assert light[52:].max() == 0  # the first picture, not its partner


def test_an_impossible_preview_is_refused() -> None:
    for pictures, options in (([], {}), ([noise(9, 9)], {"n": 0}), ([noise(9, 9)], {"columns": 0})):
        with pytest.raises(InputError, match="at least 1"):
            preview(pictures, SPEC, augmentation("light"), **options)


# ---------------------------------------------------------------------------- mistakes


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'strong'") as caught:
        augmentation("stron")
    assert caught.value.nearest == "strong"


@pytest.mark.parametrize(
    "fields",
    [
        {"scale": (0.0, 1.0)},
        {"scale": (0.9, 0.5)},
        {"scale": (0.5, 1.5)},
        {"ratio": (0.0, 1.0)},
        {"ratio": (2.0, 1.0)},
        {"operations": -1},
        {"magnitude": MAGNITUDES},
        {"mix_share": 1.1},
        {"mixup_alpha": 0.0},
        {"cutmix_alpha": -1.0},
    ],
)
def test_impossible_numbers_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(fields))):
        Augmentation("strong", **fields)  # type: ignore[arg-type]


def test_only_decoded_pictures_are_augmented() -> None:
    with pytest.raises(InputError, match="mode RGBA"):
        augmentation("light").view(noise(9, 9).convert("RGBA"), SPEC, np.random.default_rng(0))


def test_an_unreadable_file_is_named_where_its_turn_comes(
    files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    chosen = [*files[:3], tmp_path / "broken.png"]

    def load(index: int) -> torch.Tensor:
        return augmentation("strong").load(chosen[index], SPEC, seed=0, view=1, identity="a")

    batches = load_batches(chosen, SPEC, batch_size=3, load=load)
    assert next(batches).shape == (3, 3, 48, 48)
    with pytest.raises(PictureError, match=r"broken\.png"):
        next(batches)


def test_fields_are_plain_values() -> None:
    fields = augmentation("strong", flip=False).to_dict()
    assert fields["name"] == "strong"
    assert fields["flip"] is False
    assert Augmentation(**fields) == augmentation("strong", flip=False)
